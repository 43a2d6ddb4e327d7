"""inverted-alarm: the alarm is in ALARM while things are well."""

from __future__ import annotations

from collections.abc import Iterator

from alarms.engine import CompositeAlarm, MetricAlarm
from alarms.engine.composite import AtLeast, Test, alarm_name
from alarms.lint.context import Context
from topology.problems import Problem

NAME = "inverted-alarm"
GOOD_WHEN_HIGH = frozenset(
    {"SuccessPercent", "HealthCheckPercentageHealthy", "HealthCheckStatus", "HealthyHostCount", "RunningTaskCount"}
    | {"Up", "Whole", "Sighted", "Alive", "DnsAgrees", "WriteOk"}
    | {"CertificateDaysLeft", "AuroraVolumeBytesLeftTotal", "BufferCacheHitRatio"}
)


def check(context: Context) -> Iterator[Problem]:
    """Alarms that go off when a metric that is good when high is high; worst where a composite asks whether they are OK."""
    for definition, alarm in context.metric_alarms():
        if not _inverted(alarm):
            continue
        users = [composite for _, composite in context.composites() if _asks_ok(composite, alarm.name)]
        what = f"is in ALARM while {alarm.metric_stats[0].metric.name} is good ({alarm.comparison} {alarm.threshold:g})"
        if users:
            what += f"; {users[0].name} asks for OK({alarm.name}), which means that things are bad"
        mend = "turn the operator round, and ask for NOT ALARM(…) where you mean that things are well"
        yield context.finding(NAME, definition, what, mend, "error" if users else "warning", "ComparisonOperator")


def _inverted(alarm: MetricAlarm) -> bool:
    stat = alarm.single_metric
    return stat is not None and stat.metric.name in GOOD_WHEN_HIGH and alarm.comparison.startswith("Greater") and not alarm.band


def _asks_ok(composite: CompositeAlarm, name: str) -> bool:
    for step in composite.rule.program:
        asked = (step.child,) if isinstance(step, Test) else step.children if isinstance(step, AtLeast) else ()
        if name in map(alarm_name, asked) and step.state == "OK":  # type: ignore[union-attr]
            return True
    return False
