"""Everything the environment says, read once, as one frozen value.

Standard OTEL_* and AWS_* variables keep their meaning; ours begin with CROSSWATCH_. A value that cannot be used never stops the service:
the default takes its place and `Settings.problems` says what was wrong and how to mend it.
"""

import os
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar
from urllib.parse import unquote

from crosswatch_exporters.endpoints import Route, aws_service_of, aws_url, default_route, with_signal_path

MIB = 1024 * 1024
_LEAST_BYTES = 64 * 1024
SIGNALS = ("traces", "logs", "metrics")
Parsed = TypeVar("Parsed")
# https://docs.aws.amazon.com/AmazonCloudWatch/latest/APIReference/API_Dimension.html
MAX_DIMENSIONS = 30
_MEND_DIMENSIONS = (
    "give sets of attribute names, separated by semicolons, such as service.name;service.name,http.route "
    f"(* stands for all attributes; at most {MAX_DIMENSIONS} names a set, in ASCII, without blanks)"
)


@dataclass(frozen=True, slots=True)
class Problem:
    """A variable whose value is not used, and what to do about it."""

    variable: str
    value: str
    mend: str

    def __str__(self) -> str:
        return f"{self.variable}={self.value!r}: {self.mend}"


@dataclass(frozen=True, slots=True)
class Wire:
    """How requests travel: seconds to wait for an answer, whether bodies are compressed, and the files of TLS (empty: the system's)."""

    timeout: float = 10.0
    compression: bool = True
    certificate: str = ""
    client_certificate: str = ""
    client_key: str = ""


@dataclass(frozen=True, slots=True, eq=False)
class Settings:
    """The configuration of one process. Durations are seconds, sizes bytes."""

    service: str
    region: str
    routes: Mapping[str, Route]
    failover_region: str
    failover_routes: Mapping[str, Route]
    sigv4: str
    traces_as: str
    spool_dir: Path | None
    spool_max_bytes: int
    spool_fsync: bool
    classic: str
    classic_namespace: str
    classic_names: tuple[str, ...]
    classic_dimensions: tuple[tuple[str, ...], ...]
    classic_synthetic: tuple[tuple[str, ...], ...]
    emf_log_group: str
    emf_log_stream: str
    histogram: str
    temporality: str
    metric_interval: float
    cardinality_limit: int
    redact: str
    redact_allow: frozenset[str]
    redact_rules: tuple[re.Pattern[str], ...]
    sampler: str
    sampler_argument: float
    tail: str
    tail_slow: float
    tail_max_bytes: int
    queue_items: Mapping[str, int]
    tick: float
    shutdown_timeout: float
    wires: Mapping[str, Wire]
    """By signal; `` is for what is none of them."""
    self_metrics: str
    propagators: tuple[str, ...]
    asgi_event_spans: bool
    account_id: str = ""
    problems: tuple[Problem, ...] = field(default=())


class _Reader:
    """Reads variables, collecting problems instead of stopping at the first."""

    def __init__(self, environ: Mapping[str, str]) -> None:
        self.environ = environ
        self.problems: list[Problem] = []

    def text(self, *names: str, default: str = "") -> str:
        return next((value.strip() for name in names if (value := self.environ.get(name, "")).strip()), default)

    def first(self, *names: str) -> str:
        """The first of these variables that is set; the last when none is."""
        return next((name for name in names if self.text(name)), names[-1])

    def parsed(self, name: str, default: Parsed, parse: Callable[[str], Parsed], mend: str) -> Parsed:
        value = self.text(name)
        if not value:
            return default
        try:
            return parse(value)
        except ValueError:
            self.problems.append(Problem(name, value, f"{mend}; {default!r} is used instead"))
            return default

    def number(self, name: str, default: float, at_least: float = 0.0, at_most: float = float("inf")) -> float:
        def parse(value: str) -> float:
            number = float(value)
            if not at_least <= number <= at_most:
                raise ValueError(value)
            return number

        return self.parsed(
            name, default, parse, f"give a number of at least {at_least:g}" + (f" and at most {at_most:g}" if at_most < 1e18 else "")
        )

    def choice(self, name: str, default: str, *choices: str) -> str:
        def parse(value: str) -> str:
            if value.lower() not in choices:
                raise ValueError(value)
            return value.lower()

        return self.parsed(name, default, parse, f"give one of {', '.join(choices)}")

    def flag(self, name: str, default: bool) -> bool:
        return self.choice(name, "true" if default else "false", "true", "false") == "true"

    def milliseconds(self, name: str, default_seconds: float) -> float:
        return self.number(name, default_seconds * 1000, at_least=1) / 1000

    def size(self, name: str, default: int) -> int:
        units = {"k": 1024, "m": MIB, "g": 1024 * MIB}

        def parse(value: str) -> int:
            number = value.lower().removesuffix("b").removesuffix("i")
            size = int(float(number[:-1]) * units[number[-1]]) if number[-1:] in units else int(number)
            if size < _LEAST_BYTES:
                raise ValueError(value)
            return size

        return self.parsed(name, default, parse, "give a number of bytes of at least 64 KiB, for example 268435456 or 256MiB")


def read_settings(environ: Mapping[str, str] = os.environ) -> Settings:
    """Read the settings of this process."""
    read = _Reader(environ)
    region = read.text("AWS_REGION", "AWS_DEFAULT_REGION")
    failover_region = read.text("CROSSWATCH_FAILOVER_REGION")
    sigv4 = read.choice("CROSSWATCH_SIGV4", "auto", "auto", "always", "never")
    service = read.text("OTEL_SERVICE_NAME") or _pairs(read.text("OTEL_RESOURCE_ATTRIBUTES")).get("service.name", "") or "unknown_service"
    group = read.text("CROSSWATCH_EMF_LOG_GROUP")
    classic = read.choice("CROSSWATCH_CLASSIC_METRICS", "emf" if group else "off", "emf", "putmetricdata", "off")
    return Settings(
        service=service,
        region=region,
        routes=_routes(read, region),
        failover_region=failover_region,
        failover_routes=_failover_routes(read, failover_region) | _failover_classic(read, failover_region, classic),
        sigv4=sigv4,
        traces_as=read.choice("CROSSWATCH_TRACES", "auto", "otlp", "segments", "auto"),
        spool_dir=_spool_dir(read, service),
        spool_max_bytes=read.size("CROSSWATCH_SPOOL_MAX_BYTES", 256 * MIB),
        spool_fsync=read.flag("CROSSWATCH_SPOOL_FSYNC", False),
        classic=classic,
        classic_namespace=read.text("CROSSWATCH_METRIC_NAMESPACE", default="Crosswatch/Services"),
        classic_names=tuple(_list(read.text("CROSSWATCH_METRIC_NAMES", default="http.server.request.duration,http.server.duration"))),
        classic_dimensions=read.parsed("CROSSWATCH_METRIC_DIMENSIONS", (("service.name",),), _dimension_sets, _MEND_DIMENSIONS),
        classic_synthetic=read.parsed(
            "CROSSWATCH_METRIC_SYNTHETIC_DIMENSIONS", (("crosswatch.synthetic",),), _dimension_sets, _MEND_DIMENSIONS
        ),
        emf_log_group=group or f"/crosswatch/metrics/{service}",
        emf_log_stream=read.text("CROSSWATCH_EMF_LOG_STREAM", default="default"),
        histogram=read.text("OTEL_EXPORTER_OTLP_METRICS_DEFAULT_HISTOGRAM_AGGREGATION", default="explicit_bucket_histogram"),
        temporality=read.choice("OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE", "cumulative", "cumulative", "delta", "lowmemory"),
        metric_interval=read.milliseconds("OTEL_METRIC_EXPORT_INTERVAL", 60.0),
        cardinality_limit=int(read.number("CROSSWATCH_CARDINALITY_LIMIT", 2000, at_least=1)),
        redact=read.choice("CROSSWATCH_REDACT", "secrets", "off", "secrets", "strict"),
        redact_allow=frozenset(_list(read.text("CROSSWATCH_REDACT_ALLOW"))),
        redact_rules=_redact_rules(read),
        sampler=read.text("OTEL_TRACES_SAMPLER", default="parentbased_always_on"),
        sampler_argument=read.number("OTEL_TRACES_SAMPLER_ARG", 1.0, at_most=1.0),
        tail=read.choice("CROSSWATCH_TAIL", "off", "off", "on"),
        tail_slow=read.milliseconds("CROSSWATCH_TAIL_SLOW_MS", 1.0),
        tail_max_bytes=read.size("CROSSWATCH_TAIL_MAX_BYTES", 16 * MIB),
        queue_items={"traces": _queue_items(read, "BSP"), "logs": _queue_items(read, "BLRP")},
        tick=min(read.milliseconds("CROSSWATCH_TICK_MS", 0.4), 0.8),
        shutdown_timeout=read.number("CROSSWATCH_SHUTDOWN_TIMEOUT", 5.0, at_most=25.0),
        wires={signal: _wire(read, signal) for signal in ("", *SIGNALS)},
        self_metrics=read.choice("CROSSWATCH_SELF_METRICS", "otlp", "off", "otlp", "classic"),
        propagators=tuple(_list(read.text("OTEL_PROPAGATORS", default="tracecontext,baggage,xray"))),
        asgi_event_spans=read.flag("CROSSWATCH_ASGI_EVENT_SPANS", False),
        account_id=read.text("AWS_ACCOUNT_ID"),
        problems=tuple(dict.fromkeys((*read.problems, *_ignored(environ)))),
    )


def _wire(read: _Reader, signal: str) -> Wire:
    """The signal's own variables, or the common ones."""

    def named(what: str) -> tuple[str, ...]:
        return (*([f"OTEL_EXPORTER_OTLP_{signal.upper()}_{what}"] if signal else []), f"OTEL_EXPORTER_OTLP_{what}")

    return Wire(
        timeout=read.number(read.first(*named("TIMEOUT")), 10.0, at_least=0.1),
        compression=read.choice(read.first(*named("COMPRESSION")), "gzip", "gzip", "none") == "gzip",
        certificate=read.text(*named("CERTIFICATE"), "AWS_CA_BUNDLE"),
        client_certificate=read.text(*named("CLIENT_CERTIFICATE")),
        client_key=read.text(*named("CLIENT_KEY")),
    )


def _queue_items(read: _Reader, processor: str) -> int:
    return int(read.number(f"OTEL_{processor}_MAX_QUEUE_SIZE", 16384, at_least=1))


def _redact_rules(read: _Reader) -> tuple[re.Pattern[str], ...]:
    """CROSSWATCH_REDACT_RULES: regular expressions, separated by blanks."""
    rules = []
    for text in read.text("CROSSWATCH_REDACT_RULES").split():
        try:
            rules.append(re.compile(text))
        except re.error as error:
            read.problems.append(
                Problem("CROSSWATCH_REDACT_RULES", text, f"give regular expressions, separated by blanks; this one is left out: {error}")
            )
    return tuple(rules)


def _exported(read: _Reader, signal: str) -> bool:
    """Whether OTEL_<SIGNAL>_EXPORTER leaves the signal on. Exporters other than OTLP are named: ours is the only one there is."""
    variable = f"OTEL_{signal.upper()}_EXPORTER"
    wanted = _list(read.text(variable).lower())
    if "none" in wanted:
        return False
    if others := [name for name in wanted if name not in _OTLP]:
        mend = f"only otlp and none are known here, {', '.join(others)} is left out and {signal} go over OTLP; use none to turn them off"
        read.problems.append(Problem(variable, read.text(variable), mend))
    return True


_OTLP = ("otlp", "otlp_proto_http")
# Variables of the specification that the SDK's batch processors read. What they tune does not exist here.
_NOT_FOR_US = {
    f"OTEL_{processor}_{name}": mend
    for processor in ("BSP", "BLRP")
    for name, mend in (
        ("SCHEDULE_DELAY", "has no effect; CROSSWATCH_TICK_MS says how soon an item is in the spool"),
        ("EXPORT_TIMEOUT", "has no effect; OTEL_EXPORTER_OTLP_TIMEOUT limits a request"),
        ("MAX_EXPORT_BATCH_SIZE", "has no effect; requests are filled up to the endpoint's limits"),
    )
}


def _ignored(environ: Mapping[str, str]) -> Iterator[Problem]:
    """Standard variables with values that we do not act on."""
    for variable in ("OTEL_EXPORTER_OTLP_PROTOCOL", *(f"OTEL_EXPORTER_OTLP_{signal.upper()}_PROTOCOL" for signal in SIGNALS)):
        value = environ.get(variable, "").strip()
        if value.lower() not in ("", "http/protobuf"):
            yield Problem(variable, value, "http/protobuf is used instead; its port at a collector is 4318, not 4317")
    for variable, mend in _NOT_FOR_US.items():
        if environ.get(variable, "").strip():
            yield Problem(variable, environ[variable], mend)


def _routes(read: _Reader, region: str) -> dict[str, Route]:
    """The endpoint of each signal: its own variable, the common one, or AWS's in our Region. A signal without any is not sent."""
    routes, nowhere = {}, []
    base = read.text("OTEL_EXPORTER_OTLP_ENDPOINT")
    for signal in SIGNALS:
        if not _exported(read, signal):
            continue
        url = read.text(f"OTEL_EXPORTER_OTLP_{signal.upper()}_ENDPOINT") or (with_signal_path(base, signal) if base else "")
        headers = _headers(read, signal)
        route = Route(url, headers, region) if url else default_route(signal, region, read.environ, headers)
        if route is None:
            nowhere.append(signal)
        elif _usable(read, signal, route):
            routes[signal] = route
    if "traces" in nowhere or "logs" in nowhere:
        names = " and ".join(signal for signal in nowhere if signal != "metrics")
        read.problems.append(Problem("AWS_REGION", "", f"{names} are not sent: give a Region, or OTEL_EXPORTER_OTLP_ENDPOINT"))
    return routes


def _usable(read: _Reader, signal: str, route: Route) -> bool:
    if route.url.startswith(("http://", "https://")) and route.host:
        return True
    variable = f"OTEL_EXPORTER_OTLP_{signal.upper()}_ENDPOINT"
    read.problems.append(Problem(variable, route.url, f"give a URL that begins with http:// or https://; {signal} are not sent"))
    return False


def _failover_routes(read: _Reader, region: str) -> dict[str, Route]:
    """The other Region's endpoints; AWS's own when only the Region is named and the usual endpoint is AWS's too."""
    routes = {}
    for signal in SIGNALS:
        url = read.text(f"CROSSWATCH_FAILOVER_OTLP_{signal.upper()}_ENDPOINT")
        own = read.text(f"OTEL_EXPORTER_OTLP_{signal.upper()}_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
        if not url and region and (not own or aws_service_of(own)):
            url = default_route(signal, region, {}, {}).url  # type: ignore[union-attr]  # a Region is given, so there is one
        if url:
            routes[signal] = Route(url, _headers(read, signal), region)
    return routes


def _failover_classic(read: _Reader, region: str, classic: str) -> dict[str, Route]:
    """The other Region's CloudWatch or CloudWatch Logs: where a variable says, or AWS's own when the own Region's are AWS's too."""
    if not region or classic == "off":
        return {}
    service = "logs" if classic == "emf" else "monitoring"
    own = aws_url(service, read.text("AWS_REGION", "AWS_DEFAULT_REGION"), read.environ)
    url = read.text("CROSSWATCH_FAILOVER_AWS_ENDPOINT_URL") or (aws_url(service, region, {}) if aws_service_of(own) else "")
    return {"classic_metrics": Route(f"{url.rstrip('/')}/", {}, region, api=service)} if url else {}


def _headers(read: _Reader, signal: str) -> dict[str, str]:
    return _pairs(read.text(f"OTEL_EXPORTER_OTLP_{signal.upper()}_HEADERS", "OTEL_EXPORTER_OTLP_HEADERS"), lower=True)


def _pairs(value: str, lower: bool = False) -> dict[str, str]:
    """`a=b,c=d` with percent-encoded values, as OTEL_RESOURCE_ATTRIBUTES and OTEL_EXPORTER_OTLP_HEADERS are written."""
    pairs = (part.partition("=") for part in value.split(",") if "=" in part)
    return {key.strip().lower() if lower else key.strip(): unquote(item.strip()) for key, _, item in pairs if key.strip()}


def _list(value: str) -> list[str]:
    return [part.strip() for part in value.split(",") if part.strip()]


def _dimension_sets(value: str) -> tuple[tuple[str, ...], ...]:
    """`a;a,b`: sets of attribute names. Raises ValueError for what CloudWatch does not take as a dimension."""
    sets = tuple(tuple(dict.fromkeys(_list(part))) for part in value.split(";") if part.strip())
    names = [name for names in sets for name in names]
    if not names or not all(sets) or max(map(len, sets)) > MAX_DIMENSIONS:
        raise ValueError(value)
    if any(len(name) > 255 or not name.isascii() or name.startswith(":") or " " in name for name in names):
        raise ValueError(value)
    return sets


def _spool_dir(read: _Reader, service: str) -> Path | None:
    """CROSSWATCH_SPOOL_DIR, or a folder of our own in the user's state directory; `off` keeps everything in memory."""
    given = read.text("CROSSWATCH_SPOOL_DIR")
    if given.lower() == "off":
        return None
    if given:
        return Path(given)
    state = read.text("XDG_STATE_HOME") or (f"{home}/.local/state" if (home := read.text("HOME")) else "")
    name = "".join(c if c.isalnum() or c in "-_." else "_" for c in service).lstrip(".") or "service"
    if not state.startswith("/"):
        mend = "there is no home to keep a spool in: telemetry waits in memory and does not survive the process; name a folder, or off"
        read.problems.append(Problem("CROSSWATCH_SPOOL_DIR", given, mend))
        return None
    return Path(state) / "crosswatch" / name
