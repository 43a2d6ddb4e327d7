"""What values a metric or an expression can take: interval arithmetic over metric math, with what is known about metrics."""

from __future__ import annotations

import math
from dataclasses import dataclass

from alarms.engine import MetricAlarm, MetricStat
from alarms.engine.math import MathSyntaxError, parse
from alarms.engine.math.grammar import Array, Call, Chain, Negate, Node, Number, Ref
from alarms.lint.context import signal_of

NEVER_NEGATIVE_UNITS = ("Seconds", "Microseconds", "Milliseconds", "Percent", "Count", "Bytes", "Bits", "/Second")
ZERO_OR_ONE = frozenset(
    {"Up", "Whole", "Degraded", "Sighted", "Alive", "RoutingOn", "DnsAgrees", "PooledStale", "WriteOk", "HealthCheckStatus"}
)
PERCENTAGES = frozenset({"SuccessPercent", "HealthCheckPercentageHealthy", "CPUUtilization", "MemoryUtilization"})
AVERAGING = ("Average", "Minimum", "Maximum")


@dataclass(frozen=True, slots=True)
class Interval:
    """All values from ``low`` to ``high``, both included."""

    low: float = -math.inf
    high: float = math.inf

    def __add__(self, other: Interval) -> Interval:
        return Interval(self.low + other.low, self.high + other.high)

    def __sub__(self, other: Interval) -> Interval:
        return Interval(self.low - other.high, self.high - other.low)

    def __mul__(self, other: Interval) -> Interval:
        corners = [_times(a, b) for a in (self.low, self.high) for b in (other.low, other.high)]
        return Interval(min(corners), max(corners))

    def __truediv__(self, other: Interval) -> Interval:
        if other.low > 0 or other.high < 0:
            return self * Interval(*sorted((1 / other.low, 1 / other.high)))
        return Interval(0.0) if self.low >= 0 and other.low >= 0 else ANYTHING

    def hull(self, other: Interval) -> Interval:
        """The smallest interval that holds both."""
        return Interval(min(self.low, other.low), max(self.high, other.high))


ANYTHING = Interval()
TRUTH = Interval(0.0, 1.0)


def _times(a: float, b: float) -> float:
    return 0.0 if 0 in (a, b) else a * b


def of_metric(stat: MetricStat) -> Interval:
    """The values a statistic of a metric can take."""
    name = stat.metric.name
    whole_numbers = stat.stat == "SampleCount" or stat.stat[:2].lower() == "tc"
    averaging = stat.stat in AVERAGING or stat.stat[:1].lower() == "p" or stat.stat[:2].lower() in ("tm", "wm", "iq")
    if stat.stat[:2].upper() == "PR":
        return Interval(0.0, 100.0)
    if whole_numbers:
        return Interval(0.0)
    if name in ZERO_OR_ONE:
        return TRUTH if averaging else Interval(0.0)
    signal = signal_of(stat.metric)
    unit = stat.metric.unit or (signal.unit if signal else None)
    if (unit == "Percent" or name in PERCENTAGES) and averaging:
        return Interval(0.0, 100.0)
    if unit and any(unit.endswith(part) or unit == part for part in NEVER_NEGATIVE_UNITS):
        return Interval(0.0)
    return ANYTHING


def of_alarm(alarm: MetricAlarm) -> Interval:
    """The values that are compared with the threshold."""
    return _of_query(alarm, alarm.returned.id, frozenset())


def _of_query(alarm: MetricAlarm, ident: str, open_ids: frozenset[str]) -> Interval:
    query = next((query for query in alarm.queries if query.id == ident), None)
    if query is None or ident in open_ids:
        return ANYTHING
    if query.metric_stat is not None:
        return of_metric(query.metric_stat)
    try:
        return _of_node(alarm, parse(query.expression or ""), open_ids | {ident})
    except MathSyntaxError:
        return ANYTHING


def _of_node(alarm: MetricAlarm, node: Node, open_ids: frozenset[str]) -> Interval:
    if isinstance(node, Number):
        return Interval(node.value, node.value)
    if isinstance(node, Ref):
        return _of_query(alarm, node.id, open_ids)
    if isinstance(node, Negate):
        return Interval(0.0, 0.0) - _of_node(alarm, node.operand, open_ids)
    if isinstance(node, Chain):
        value = _of_node(alarm, node.first, open_ids)
        for op, right in node.rest:
            value = _operated(op, _missing_is_zero(value), _missing_is_zero(_of_node(alarm, right, open_ids)), right)
        return value
    if isinstance(node, Call):
        return _of_call(alarm, node, open_ids)
    return ANYTHING


def _missing_is_zero(value: Interval) -> Interval:
    """In arithmetic a missing point counts as 0; a constant is never missing."""
    return value if value.low == value.high else value.hull(Interval(0.0, 0.0))


def _operated(op: str, left: Interval, right: Interval, node: Node) -> Interval:
    if op == "+":
        return left + right
    if op == "-":
        return left - right
    if op == "*":
        return left * right
    if op == "/":
        # a division by zero drops the point, so a divisor that is a metric cannot be 0
        return left / right if isinstance(node, Number) else Interval(0.0) if left.low >= 0 and right.low >= 0 else ANYTHING
    if op == "^":
        return Interval(0.0) if left.low >= 0 else ANYTHING
    return TRUTH


def _of_call(alarm: MetricAlarm, node: Call, open_ids: frozenset[str]) -> Interval:
    args = [item for arg in node.args for item in (arg.items if isinstance(arg, Array) else (arg,))]
    values = [_of_node(alarm, arg, open_ids) for arg in args]
    if node.name == "IF" and len(values) > 1:
        found = _missing_is_zero(values[1])
        return found.hull(_missing_is_zero(values[2])) if len(values) > 2 else found
    if node.name in ("MIN", "MAX", "FIRST", "LAST", "FILL", "TIME_SERIES") and values:
        found = values[0]
        for value in values[1:]:
            found = found.hull(value)
        return found
    if node.name in ("AVG", "SUM", "ABS", "CEIL", "STDDEV", "RUNNING_SUM", "DATAPOINT_COUNT", "METRIC_COUNT", "EPOCH"):
        return Interval(0.0) if all(value.low >= 0 for value in values) or node.name in ("ABS", "STDDEV") else ANYTHING
    return ANYTHING


def verdict(alarm: MetricAlarm, values: Interval) -> bool | None:
    """True where every value breaches, False where none can, None where it depends."""
    threshold = alarm.threshold
    if threshold is None:
        return None
    match alarm.comparison:
        case "GreaterThanThreshold":
            return True if values.low > threshold else False if values.high <= threshold else None
        case "GreaterThanOrEqualToThreshold":
            return True if values.low >= threshold else False if values.high < threshold else None
        case "LessThanThreshold":
            return True if values.high < threshold else False if values.low >= threshold else None
        case "LessThanOrEqualToThreshold":
            return True if values.high <= threshold else False if values.low > threshold else None
    return None
