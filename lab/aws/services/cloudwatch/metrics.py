"""PutMetricData, ListMetrics, GetMetricStatistics and GetMetricData over one store per Region.

https://docs.aws.amazon.com/AmazonCloudWatch/latest/APIReference/API_GetMetricData.html
"""

from __future__ import annotations

import base64
import binascii
import json
import math
from collections import defaultdict
from typing import TYPE_CHECKING, Any

import numpy as np

from alarms.engine.math import Callbacks, MathError, Series, check, evaluate_queries
from alarms.engine.problems import DefinitionError, Problem
from alarms.engine.query import MetricKey, Query, parse_queries
from alarms.engine.statistics import by_slot, valid_statistic
from lab.aws.service import AwsError
from lab.aws.services.cloudwatch import incoming, labels
from lab.aws.services.cloudwatch.search import compile_search
from lab.aws.services.cloudwatch.store import Datum, MetricStore
from lab.aws.times import lab_interval

if TYPE_CHECKING:
    from collections.abc import Iterable

    from lab.aws.service import Context
    from lab.aws.services.logs.metrics import Point
    from lab.aws.world import LocalWorld

LIST_PAGE = 500
MAX_QUERIES = 500
MAX_DATAPOINTS = 100_800
MAX_STATISTICS_DATAPOINTS = 1440
MAX_SEARCH_SERIES = 500
COMPACT_EVERY_S = 600.0


class Metrics:
    """The metric operations."""

    def __init__(self, world: LocalWorld) -> None:
        self._world = world
        self.stores = {region: MetricStore(world.options.ingestion) for region in world.regions}
        for region, store in self.stores.items():
            world.every(COMPACT_EVERY_S, store.compact, region, f"metrics-{region}")

    def vend(self, region: str, namespace: str, metric: str, dimensions: dict[str, str], value: float, unit: str, timestamp: float) -> None:
        """Store one sample as an AWS service does; any namespace, high resolution. ``timestamp`` is lab time."""
        if not math.isfinite(value):
            raise ValueError(f"{namespace} {metric}: {value} is not a metric's value")
        datum = Datum(float(math.floor(timestamp)), value, value, value, 1.0)
        self.stores[region].put(namespace, metric, dimensions, unit, (datum,), self._world.clock.now())

    def put_points(self, region: str, points: Iterable[Point], now: float) -> None:
        """Store what another service extracted (from logs), a metric's points together; too old or too new ones are dropped."""
        grouped: dict[tuple[str, str, tuple[tuple[str, str], ...], str], list[Datum]] = defaultdict(list)
        for point in points:
            if not now - incoming.OLDEST_S <= point.time <= now + incoming.NEWEST_S:
                continue
            time = math.floor(point.time / point.resolution) * float(point.resolution)
            rows = grouped[point.namespace, point.name, tuple(point.dimensions.items()), point.unit]
            counts = point.counts or (1.0,) * len(point.values)
            rows += [
                Datum(time, value, value, value * count, count) for value, count in zip(point.values, counts, strict=True) if count > 0
            ]
        for (namespace, name, dimensions, unit), rows in grouped.items():
            if rows:
                self.stores[region].put(namespace, name, dict(dimensions), unit, rows, now)

    def put_metric_data(self, ctx: Context, params: dict[str, Any]) -> None:
        """PutMetricData; all of a request or nothing is stored."""
        store = self.stores[ctx.region]
        for item in incoming.read(params, self._world.clock, ctx.now):
            store.put(params["Namespace"], item.name, item.dimensions, item.unit, item.data, ctx.now)

    def list_metrics(self, ctx: Context, params: dict[str, Any]) -> dict[str, Any]:
        """ListMetrics, 500 a page."""
        filters = [(each["Name"], each.get("Value")) for each in params.get("Dimensions", ())]
        found = [
            {"Namespace": key.namespace, "MetricName": key.name, "Dimensions": _dimensions(key)}
            for key, _ in self.stores[ctx.region].list(
                ctx.now, params.get("Namespace"), params.get("MetricName"), params.get("RecentlyActive") == "PT3H"
            )
            if all(any(name == wanted and value in {None, has} for name, has in key.dimensions) for wanted, value in filters)
        ]
        start = _offset(params.get("NextToken"))
        page = found[start : start + LIST_PAGE]
        return {"Metrics": page, "NextToken": _token(start + LIST_PAGE) if start + LIST_PAGE < len(found) else None}

    def get_metric_statistics(self, ctx: Context, params: dict[str, Any]) -> dict[str, Any]:
        """GetMetricStatistics: the asked statistics of each period that has samples, a row for each unit."""
        wanted, extended = params.get("Statistics", []), params.get("ExtendedStatistics", [])
        if not wanted and not extended:
            raise AwsError("MissingParameter", "Must specify either Statistics or ExtendedStatistics")
        for name in extended:
            if not valid_statistic(name):
                raise AwsError("InvalidParameterValue", f"The value {name} for parameter ExtendedStatistics is not supported.")
        period = params["Period"]
        if period % 60 and period not in (1, 5, 10, 20, 30):
            raise AwsError(
                "InvalidParameterValue",
                f"The value {period} for parameter Period is invalid: it must be 1, 5, 10, 20, 30 or a multiple of 60.",
            )
        start, end, slots = self._slots(params, period)
        if slots > MAX_STATISTICS_DATAPOINTS:
            raise AwsError(
                "InvalidParameterCombination",
                f"You have requested up to {slots:,} datapoints, which exceeds the limit of 1,440. "
                "You may reduce the datapoints requested by increasing Period, or decreasing the time range.",
            )
        key = MetricKey.of(
            params["Namespace"], params["MetricName"], {each["Name"]: each["Value"] for each in params.get("Dimensions", ())}
        )
        store = self.stores[ctx.region]
        points = []
        for unit in [params["Unit"]] if "Unit" in params else store.units(key):
            samples = store.samples(MetricKey(key.namespace, key.name, key.dimensions, unit), start, end, ctx.now)
            values = {name: by_slot(name, samples, start, period, slots)[0] for name in (*wanted, *extended)}
            counts = by_slot("SampleCount", samples, start, period, slots)[1]
            for slot in np.flatnonzero(counts):
                point: dict[str, Any] = {"Timestamp": start + period * int(slot), "Unit": unit}
                point |= {name: float(values[name][slot]) for name in wanted if not math.isnan(values[name][slot])}
                if extended:
                    point["ExtendedStatistics"] = {
                        name: float(values[name][slot]) for name in extended if not math.isnan(values[name][slot])
                    }
                points.append(point)
        return {"Label": params["MetricName"], "Datapoints": points}

    def get_metric_data(self, ctx: Context, params: dict[str, Any]) -> dict[str, Any]:
        """GetMetricData: metrics, metric math and SEARCH, in pages of at most MaxDatapoints points."""
        if len(params["MetricDataQueries"]) > MAX_QUERIES:
            raise AwsError("ValidationError", f"The collection MetricDataQueries must not have a size greater than {MAX_QUERIES}.")
        limit = min(params.get("MaxDatapoints") or MAX_DATAPOINTS, MAX_DATAPOINTS)
        problems: list[Problem] = []
        queries = parse_queries(params["MetricDataQueries"], problems)
        problems = problems or check(queries, alarm=False)
        if problems:
            raise AwsError("ValidationError", DefinitionError(problems).aws_message)
        oldest_first = params.get("ScanBy") == "TimestampAscending"
        results = [_result(*each, oldest_first) for each in self._evaluate(ctx, params, queries)]
        return _page(results, _offset(params.get("NextToken")), limit)

    def _evaluate(self, ctx: Context, params: dict[str, Any], queries: tuple[Query, ...]) -> list[tuple[str, str, Series]]:
        """Id, label and series of everything the request returns."""
        shortest = min((query.seconds for query in queries if query.seconds), default=60)
        start, end, _ = self._slots(params, shortest)
        store = self.stores[ctx.region]

        def statistic(key: MetricKey, stat: str, period: int, label: str) -> Series:
            grain = min(period, 60)
            first = start - start % grain
            slots = math.ceil((end - first) / period)
            values, _ = by_slot(stat, store.samples(key, first, first + slots * period, ctx.now), first, period, slots)
            return Series(first + period * np.arange(slots, dtype=np.int64), values, label, period, key).finite()

        def fetch(query: Query) -> Series:
            stat = query.metric_stat
            assert stat is not None
            return statistic(stat.metric, stat.stat, stat.period, query.id)

        def search(expression: str, stat: str, period: int) -> list[Series]:
            if not valid_statistic(stat):
                raise ValueError(f"{stat} is not a statistic")
            matches = compile_search(expression)
            keys = [key for key, newest in store.list(ctx.now) if newest >= start and matches(key)][:MAX_SEARCH_SERIES]
            names = labels.defaults(keys)
            found = [statistic(key, stat, period or shortest, name) for key, name in zip(keys, names, strict=True)]
            return [series for series in found if len(series)]

        try:
            found = evaluate_queries(queries, fetch, start, end, callbacks=Callbacks(search=search))
        except (MathError, ValueError) as error:
            raise AwsError("ValidationError", str(error)) from error
        shown = [query for query in queries if query.return_data]
        plain = [query for query in shown if query.metric_stat]
        named = dict(
            zip(
                (query.id for query in plain),
                labels.defaults([query.metric_stat.metric for query in plain if query.metric_stat]),
                strict=True,
            )
        )
        out = []
        for query in shown:
            many = found[query.id]
            for series in many:
                default = named.get(query.id) or (
                    series.label if query.expression and (len(many) > 1 or "SEARCH" in query.expression) else query.id
                )
                stat = query.metric_stat.stat if query.metric_stat else None
                label = labels.fill(query.label, default, series, series.metric, stat, ctx.region, ctx.account) if query.label else default
                out.append((query.id, label, series))
        return out

    def _slots(self, params: dict[str, Any], period: int) -> tuple[int, int, int]:
        """The interval in lab time from the start of a minute (of a period where that is shorter), and how many periods it has."""
        start, end = lab_interval(self._world.clock, params["StartTime"], params["EndTime"])
        if start >= end:
            raise AwsError("ValidationError", "The parameter StartTime must be less than the parameter EndTime.")
        grain = min(period, 60)
        first = math.floor(start / grain) * grain
        return first, math.ceil(end), max(1, math.ceil((end - first) / period))


def _dimensions(key: MetricKey) -> list[dict[str, str]]:
    return [{"Name": name, "Value": value} for name, value in key.dimensions]


def _result(identity: str, label: str, series: Series, oldest_first: bool) -> dict[str, Any]:
    step = 1 if oldest_first else -1
    return {"Id": identity, "Label": label, "Timestamps": series.times[::step].tolist(), "Values": series.values[::step].tolist()}


def _page(results: list[dict[str, Any]], start: int, limit: int) -> dict[str, Any]:
    """The results with the points ``start`` to ``start + limit`` of all their points in order."""
    out, position, end = [], 0, start + limit
    for result in results:
        count = len(result["Timestamps"])
        low, high = max(start - position, 0), min(end - position, count)
        position += count
        if (low < high) or (count == 0 and start == 0):
            part = {key: result[key][low:high] for key in ("Timestamps", "Values")}
            out.append({**result, **part, "StatusCode": "Complete" if high == count else "PartialData"})
    return {"MetricDataResults": out, "NextToken": _token(end) if end < position else None, "Messages": []}


def _token(offset: int) -> str:
    return base64.urlsafe_b64encode(json.dumps({"o": offset}).encode()).decode()


def _offset(token: str | None) -> int:
    if token is None:
        return 0
    try:
        return int(json.loads(base64.urlsafe_b64decode(token))["o"])
    except (ValueError, KeyError, TypeError, binascii.Error) as error:
        raise AwsError("InvalidNextToken", "Failed to parse request token. The next token provided is invalid") from error
