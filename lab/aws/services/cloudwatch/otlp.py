"""``POST /v1/metrics`` and the small part of the Prometheus API that shows what arrived.

OTLP metrics have a store of their own, as on AWS: GetMetricData, alarms and classic dashboards do not see them. Labels are CloudWatch's:
``@resource.*``, ``@instrumentation.*``, the datapoint's attributes as they are, ``@aws.account`` and ``@aws.region``. Queries are instant
and of a bare selector (``http_requests{code="500"}`` or ``{"http.server.request.duration", "@resource.service.name"="ui"}``), without
functions.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest, ExportMetricsServiceResponse

from lab.aws import otlp
from lab.aws.otlp import RefusedError
from lab.aws.protocol import Request, Response
from lab.aws.services.cloudwatch.series import SeriesStore

if TYPE_CHECKING:
    from google.protobuf.message import Message

    from lab.aws.service import Context
    from lab.aws.world import LocalWorld

MAX_REQUEST_BYTES = 1_048_576
MAX_DATAPOINTS = 1000
MAX_LABELS = 150
MAX_DATAPOINT_BYTES = 40 * 1024
NEWEST_S = 600.0
LOOKBACK_S = 300.0
QUERY_SERIES = 500


class OtlpMetrics:
    """The OTLP endpoint of CloudWatch, and its Prometheus-compatible reading side."""

    def __init__(self, world: LocalWorld) -> None:
        self._world = world
        self._stores = {region: SeriesStore() for region in world.regions}
        self.raw_paths: dict[str, Callable[[Context, Request], Response]] = {
            "POST /v1/metrics": otlp.endpoint(ExportMetricsServiceRequest, MAX_REQUEST_BYTES, self._export)
        }
        for method in ("GET", "POST"):
            self.raw_paths |= {
                f"{method} /api/v1/series": self._list,
                f"{method} /api/v1/query": self._query,
                f"{method} /api/v1/labels": self._labels,
            }

    def _export(self, ctx: Context, _request: Request, message: Any) -> Message:
        otlp.check_envelopes((each.resource, [part.scope for part in each.scope_metrics]) for each in message.resource_metrics)
        points = list(self._points(ctx, message))
        if len(points) > MAX_DATAPOINTS:
            raise RefusedError(f"The request has {len(points)} datapoints, more than {MAX_DATAPOINTS}")
        times = [time for _, _, time, _ in points]
        otlp.check_times(times, ctx.now, NEWEST_S, max_span_s=None)
        wrong = [(where, why) for where, labels, _, _ in points if (why := _too_large(labels))]
        if wrong and len(wrong) == len(points):
            raise RefusedError(f"{wrong[0][1]} [{wrong[0][0]}].")
        refused = {where for where, _ in wrong}
        self._stores[ctx.region].put([(labels, time, value) for where, labels, time, value in points if where not in refused], ctx.now)
        response = ExportMetricsServiceResponse()
        if wrong:
            response.partial_success.rejected_data_points = len(wrong)
            response.partial_success.error_message = f"{wrong[0][1]} [{wrong[0][0]}]."
        return response

    def _points(self, ctx: Context, message: Any) -> Iterator[tuple[str, dict[str, str], float, Any]]:
        """(where, labels, lab seconds, value) of every datapoint."""
        own = {"@aws.account": ctx.account, "@aws.region": ctx.region}
        for r, resource_metrics in enumerate(message.resource_metrics, 1):
            resource = {f"@resource.{key}": _text(value) for key, value in otlp.attributes(resource_metrics.resource.attributes).items()}
            for s, scope_metrics in enumerate(resource_metrics.scope_metrics, 1):
                scope = {f"@instrumentation.{key}": _text(value) for key, value in otlp.attributes(scope_metrics.scope.attributes).items()}
                if scope_metrics.scope.name:
                    scope["@instrumentation.@name"] = scope_metrics.scope.name
                for m, metric in enumerate(scope_metrics.metrics, 1):
                    kind = metric.WhichOneof("data")
                    if kind is None:
                        continue
                    data = getattr(metric, kind)
                    described = {"__name__": metric.name, "__type__": kind, "__unit__": metric.unit}
                    if hasattr(data, "aggregation_temporality"):
                        described["__temporality__"] = {1: "delta", 2: "cumulative"}.get(data.aggregation_temporality, "unspecified")
                    for p, point in enumerate(data.data_points, 1):
                        where = f"ResourceMetrics.{r}.ScopeMetrics.{s}.Metrics.{m}.Datapoint.{p}"
                        labels = {key: value for key, value in described.items() if value} | own | resource | scope
                        labels |= {key: _text(value) for key, value in otlp.attributes(point.attributes).items()}
                        yield where, labels, self._world.clock.to_lab(point.time_unix_nano / 1e9), _value(kind, point)

    # -- reading ------------------------------------------------------------------------------------------------------------------------

    def _list(self, ctx: Context, request: Request) -> Response:
        pairs = _arguments(request)
        matches = [value for key, value in pairs if key == "match[]"]
        return _answer(lambda: self._stores[ctx.region].labels(_any_of(matches or ["{}"]), ctx.now))

    def _labels(self, ctx: Context, _request: Request) -> Response:
        return _answer(lambda: sorted({name for labels in self._stores[ctx.region].labels(_any_of(["{}"]), ctx.now) for name in labels}))

    def _query(self, ctx: Context, request: Request) -> Response:
        pairs = dict(_arguments(request))

        def find() -> dict[str, Any]:
            at = self._world.clock.to_lab(float(pairs["time"])) if "time" in pairs else ctx.now
            found = self._stores[ctx.region].newest(_any_of([pairs.get("query", "")]), at - LOOKBACK_S, at, ctx.now)
            result = [_shown(labels, time, value) for labels, (time, value) in found]
            if len(result) > QUERY_SERIES:
                raise ValueError(f"the query selects {len(result)} series, more than {QUERY_SERIES}")
            return {"resultType": "vector", "result": result}

        return _answer(find)


def _shown(labels: dict[str, str], time: float, value: Any) -> dict[str, Any]:
    """One series of an instant query's answer."""
    return {"metric": labels, **({"histogram": [time, value]} if isinstance(value, dict) else {"value": [time, str(value)]})}


def _arguments(request: Request) -> list[tuple[str, str]]:
    return request.query_pairs + (list(request.form.items()) if request.method == "POST" else [])


def _answer(find: Callable[[], Any]) -> Response:
    try:
        status, body = 200, {"status": "success", "data": find()}
    except ValueError as error:
        status, body = 400, {"status": "error", "errorType": "bad_data", "error": str(error)}
    return Response(status, {"content-type": "application/json"}, json.dumps(body).encode())


_SELECTOR = re.compile(r'\s*(?P<name>[A-Za-z_:][\w:]*)?\s*(?:\{(?P<inside>(?:[^{}"]|"(?:[^"\\]|\\.)*")*)\})?\s*\Z')
_MATCHER = re.compile(
    r'\s*(?:"(?P<q>(?:[^"\\]|\\.)*)"|(?P<n>[\w@.:]+))\s*(?:(?P<op>=~|!~|!=|=)\s*"(?P<value>(?:[^"\\]|\\.)*)")?\s*(?:,|\Z)'
)


def selector(text: str) -> list[Callable[[dict[str, str]], bool]]:
    """A bare PromQL selector as tests on labels. Raises ValueError for anything more."""
    match = _SELECTOR.match(text)
    if match is None or (match["name"] is None and match["inside"] is None):
        raise ValueError(f"only a bare selector can be queried here, not {text!r}")
    tests: list[Callable[[dict[str, str]], bool]] = []
    if match["name"]:
        tests.append(_matcher("__name__", "=", match["name"]))
    inside, position = match["inside"] or "", 0
    while position < len(inside.rstrip()):
        part = _MATCHER.match(inside, position)
        if part is None or part.end() == position:
            raise ValueError(f"cannot read the selector at {inside[position : position + 20]!r}")
        position = part.end()
        label = re.sub(r"\\(.)", r"\1", part["q"]) if part["q"] is not None else part["n"]
        tests.append(_matcher(label, part["op"], part["value"]) if part["op"] else _matcher("__name__", "=", label))
    return tests


def _any_of(selectors: list[str]) -> Callable[[dict[str, str]], bool]:
    """Whether labels fit one of the selectors. Raises ValueError for one that cannot be read."""
    tests = [selector(text) for text in selectors]
    return lambda labels: any(all(test(labels) for test in each) for each in tests)


def _matcher(label: str, operator: str, value: str) -> Callable[[dict[str, str]], bool]:
    if operator in {"=", "!="}:
        return lambda labels: (labels.get(label, "") == value) == (operator == "=")
    try:
        pattern = re.compile(value)
    except re.error as error:
        raise ValueError(f"{value!r} is not a regular expression: {error}") from error
    return lambda labels: (pattern.fullmatch(labels.get(label, "")) is not None) == (operator == "=~")


def _too_large(labels: dict[str, str]) -> str | None:
    """Why a datapoint is refused, if it is."""
    count = sum(not key.startswith(("__", "@aws.")) for key in labels)
    if count > MAX_LABELS:
        return f"Maximum number of attributes exceeded: {MAX_LABELS}"
    size = sum(len(key.encode()) + len(value.encode()) for key, value in labels.items())
    return f"Datapoint size {size} exceeds the limit of {MAX_DATAPOINT_BYTES} bytes" if size > MAX_DATAPOINT_BYTES else None


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def _value(kind: str, point: Any) -> Any:
    """A number, or a histogram in Prometheus's JSON form (count, sum, buckets of [rule, low, high, count])."""
    if kind in {"gauge", "sum"}:
        chosen = point.WhichOneof("value")
        return getattr(point, chosen) if chosen else 0
    histogram: dict[str, Any] = {"count": str(point.count), "sum": str(point.sum)}
    if kind == "histogram":
        bounds = [float("-inf"), *point.explicit_bounds, float("inf")]
        edges = zip(bounds, bounds[1:], point.bucket_counts, strict=False)
        histogram["buckets"] = [[0, str(low), str(high), str(count)] for low, high, count in edges if count]
    elif kind == "exponential_histogram":
        base = 2.0 ** (2.0**-point.scale)
        offset = point.positive.offset
        histogram["buckets"] = [
            [0, str(base ** (offset + index)), str(base ** (offset + index + 1)), str(count)]
            for index, count in enumerate(point.positive.bucket_counts)
            if count
        ]
    return histogram
