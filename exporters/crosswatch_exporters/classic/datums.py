"""OpenTelemetry data points as classic CloudWatch metrics: name, unit, dimensions, and values with counts.

Limits: 30 dimensions, names of 255 and values of 1,024 characters, no NaN or infinity, magnitudes up to 2^360.
https://docs.aws.amazon.com/AmazonCloudWatch/latest/APIReference/API_MetricDatum.html
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

from crosswatch_exporters.guards.synthetic import ATTRIBUTE as SYNTHETIC
from crosswatch_exporters.settings import MAX_DIMENSIONS

_LARGEST = 2.0**360
# The scopes of the instrumentation libraries, by which their metrics are told from the service's own.
_INSTRUMENTATIONS = "opentelemetry.instrumentation."

# OpenTelemetry's units (UCUM) to CloudWatch's, with the factor to the latter. Annotations such as {request} count things.
_UNITS: Mapping[str, tuple[str, float]] = {
    "s": ("Seconds", 1),
    "ms": ("Milliseconds", 1),
    "us": ("Microseconds", 1),
    "ns": ("Microseconds", 1e-3),
    "min": ("Seconds", 60),
    "h": ("Seconds", 3600),
    "By": ("Bytes", 1),
    "KiBy": ("Bytes", 1024),
    "MiBy": ("Bytes", 1024**2),
    "GiBy": ("Bytes", 1024**3),
    "kBy": ("Kilobytes", 1),
    "MBy": ("Megabytes", 1),
    "GBy": ("Gigabytes", 1),
    "bit": ("Bits", 1),
    "%": ("Percent", 1),
    "By/s": ("Bytes/Second", 1),
    "1": ("None", 1),
    "": ("None", 1),
}

# Attributes that say how a request travelled, not which one it was: as dimensions they would only multiply the series, each of which is
# paid for.
_NOT_DIMENSIONS = frozenset(
    {"url.scheme", "network.protocol.name", "network.protocol.version", "network.transport", "server.port", "http.flavor", "net.host.port"}
)


@dataclass(frozen=True, slots=True)
class Point:
    """A data point in CloudWatch's terms: `counts[i]` observations had `values[i]`, in the given unit, at `time_ms` since the epoch."""

    name: str
    unit: str
    time_ms: int
    values: tuple[float, ...]
    counts: tuple[int, ...]
    attributes: tuple[tuple[str, str], ...]


def unit_of(unit: str | None) -> tuple[str, float]:
    """(CloudWatch's unit, factor) for an OpenTelemetry unit; what CloudWatch has no word for has unit None."""
    known = _UNITS.get(unit or "")
    if known is not None:
        return known
    return ("Count", 1) if str(unit).startswith("{") and str(unit).endswith("}") else ("None", 1)


def dimension_text(value: Any) -> str:
    """A dimension's value as CloudWatch takes it: ASCII, at most 1,024 characters, not empty."""
    text = ("true" if value else "false") if isinstance(value, bool) else str(value)
    return text.encode("ascii", "replace").decode()[:1024].strip()


def points_of(metric: Any, service: str) -> Iterator[Point | None]:
    """The metric's data points; None for one that CloudWatch cannot take (NaN, infinity, too large)."""
    unit, factor = unit_of(metric.unit)
    for point in metric.data.data_points:
        try:
            values, counts = ([float(point.value)], [1]) if hasattr(point, "value") else distribution(point)
            pairs = _pairs(point.attributes or {}, service)
        except Exception:  # noqa: BLE001  # an integer beyond the largest double, or whatever an attribute's own methods raise
            yield None
            continue
        values = [value * factor for value in values]
        if any(not math.isfinite(value) or abs(value) > _LARGEST for value in values):
            yield None
        elif values:
            yield Point(metric.name[:255], unit, point.time_unix_nano // 10**6, tuple(values), tuple(counts), pairs)


def _pairs(attributes: Mapping[str, Any], service: str) -> tuple[tuple[str, str], ...]:
    """The attributes that may become dimensions."""
    pairs = {"service.name": service}
    for key, value in attributes.items():
        if key not in _NOT_DIMENSIONS and (text := dimension_text(value)):
            pairs[key[:255]] = text
    return tuple(pairs.items())


@dataclass(frozen=True, slots=True)
class Wanted:
    """What becomes a classic metric, each series of which is paid for.

    Of the instrumentations' metrics only those that a pattern in `names` matches; the service's own all do. `dimensions` are the sets that
    customers' traffic is counted under, `synthetic` those of synthetic traffic. Metrics of the scopes in `skip` are left out.
    """

    names: Sequence[str] = ("*",)
    dimensions: Sequence[Sequence[str]] = (("service.name",),)
    synthetic: Sequence[Sequence[str]] = ((SYNTHETIC,),)
    skip: frozenset[str] = frozenset()

    def takes(self, scope: str, metric: str) -> bool:
        """Whether a metric of that instrumentation scope is wanted."""
        if scope in self.skip:
            return False
        return not scope.startswith(_INSTRUMENTATIONS) or any(fnmatchcase(metric, pattern) for pattern in self.names)


def dimension_sets(attributes: Sequence[tuple[str, str]], wanted: Wanted) -> list[tuple[tuple[str, str], ...]]:
    """The dimension sets a point is counted under. `*` stands for all its attributes; a set whose attribute a point lacks is left out.

    Every set of synthetic traffic has its mark, whatever the configuration says: customers' numbers never contain it.
    """
    have = dict(attributes)
    sets: list[tuple[tuple[str, str], ...]] = []
    for names in wanted.synthetic if SYNTHETIC in have else wanted.dimensions:
        chosen = [name for name in names if name != "*"]
        if "*" in names:
            chosen += [name for name in have if name not in chosen]
        if not all(name in have for name in chosen):
            continue
        if SYNTHETIC in have and SYNTHETIC not in chosen:
            chosen.append(SYNTHETIC)
        found = tuple((name, have[name]) for name in chosen[:MAX_DIMENSIONS])
        if found not in sets:
            sets.append(found)
    return sets


def distribution(point: Any) -> tuple[list[float], list[int]]:
    """(values, counts) of a histogram point. Count, sum, minimum and maximum are the point's own; in between, values are where their
    bucket lies."""
    if not point.count:
        return [], []
    buckets = list(_exponential(point) if hasattr(point, "scale") else _explicit(point))
    low, high = float(point.min), float(point.max)
    values = [min(max(value, low), high) for value, _ in buckets]
    counts = [count for _, count in buckets]
    _pin_extremes(values, counts, low, high)
    _match_sum(values, counts, float(point.sum), low, high)
    return values, counts


def _exponential(point: Any) -> Iterator[tuple[float, int]]:
    base = 2.0 ** (2.0**-point.scale)
    negative, positive = point.negative, point.positive
    for index in range(len(negative.bucket_counts) - 1, -1, -1):
        if count := negative.bucket_counts[index]:
            yield -(base ** (negative.offset + index)) * (1 + base) / 2, count
    if point.zero_count:
        yield 0.0, point.zero_count
    for index, count in enumerate(positive.bucket_counts):
        if count:
            yield base ** (positive.offset + index) * (1 + base) / 2, count


def _explicit(point: Any) -> Iterator[tuple[float, int]]:
    bounds = [point.min, *point.explicit_bounds, point.max]
    for index, count in enumerate(point.bucket_counts):
        if count:
            yield (float(bounds[index]) + float(bounds[index + 1])) / 2, count


def _pin_extremes(values: list[float], counts: list[int], low: float, high: float) -> None:
    """Give one observation the true minimum and one the true maximum."""
    if counts[0] > 1:
        counts[0] -= 1
        values.insert(0, low)
        counts.insert(0, 1)
    else:
        values[0] = low
    if counts[-1] > 1:
        counts[-1] -= 1
        values.append(high)
        counts.append(1)
    elif len(values) > 1 or low == high:
        values[-1] = high


def _match_sum(values: list[float], counts: list[int], total: float, low: float, high: float) -> None:
    """Move the inner values a little, all in the same proportion of the way they can go, so that the sum is right and averages are
    exact."""
    inner = range(1, len(values) - 1)
    missing = total - math.fsum(value * count for value, count in zip(values, counts, strict=True))
    if not inner or not math.isfinite(missing):
        return
    limit = high if missing > 0 else low
    room = math.fsum((limit - values[i]) * counts[i] for i in inner)
    if room:
        share = min(1.0, missing / room)
        for i in inner:
            values[i] += (limit - values[i]) * share
