"""silence-blames-others: when everything in the observing Region falls silent, the alarm accuses what it watches."""

from __future__ import annotations

from collections.abc import Iterator

from alarms.engine import ALARM, OK, Alarm, CompositeAlarm, MetricAlarm, State
from alarms.engine.metric import treatment
from alarms.engine.options import OBSERVED
from alarms.lint.context import Context
from topology.problems import Problem

NAME = "silence-blames-others"
HEARTBEATS = frozenset({"Alive", "Sighted", "Failed"})
_SILENT: dict[str, State] = {"breaching": ALARM, "notBreaching": OK, "ignore": OK, "missing": "INSUFFICIENT_DATA"}


def check(context: Context) -> Iterator[Problem]:
    """Alarms with actions that fire on silence alone although they do not watch a heartbeat."""
    for definition, alarm in context.alarms():
        if not alarm.actions.alarm or not _fires(context, alarm, definition.region, frozenset()):
            continue
        accused = [name for name in _silent_children(context, alarm, definition.region) if not _heartbeat(context, name, definition.region)]
        if not accused:
            continue
        what = f"fires when no data arrives at all ({', '.join(sorted(accused))} treat missing data as breaching): silence is no proof"
        mend = "treat missing data as notBreaching here, and let an alarm on a heartbeat tell of silence"
        yield context.finding(NAME, definition, what, mend, "warning", "TreatMissingData")


def silent_state(alarm: MetricAlarm) -> State:
    """The state an alarm that was OK ends in when its metrics fall silent."""
    return _SILENT[treatment(alarm, OBSERVED)]


def _fires(context: Context, alarm: Alarm, region: str | None, above: frozenset[str]) -> bool:
    if isinstance(alarm, MetricAlarm):
        return silent_state(alarm) == ALARM
    return alarm.rule.holds(lambda name: _state(context, name, region, above | {alarm.name}))


def _state(context: Context, name: str, region: str | None, above: frozenset[str]) -> State:
    child = context.named(name, region)
    if child is None or child.name in above:
        return OK
    if isinstance(child, CompositeAlarm):
        return ALARM if _fires(context, child, region, above) else OK
    return silent_state(child)


def _silent_children(context: Context, alarm: Alarm, region: str | None) -> set[str]:
    """The metric alarms below ``alarm`` (or itself) that silence puts into ALARM."""
    found: set[str] = set()
    waiting, seen = [alarm], {alarm.name}
    while waiting:
        one = waiting.pop()
        if isinstance(one, MetricAlarm):
            if silent_state(one) == ALARM:
                found.add(one.name)
            continue
        for name in one.children:
            child = context.named(name, region)
            if child is not None and child.name not in seen:
                seen.add(child.name)
                waiting.append(child)
    return found


def _heartbeat(context: Context, name: str, region: str | None) -> bool:
    """Whether the alarm watches a sign of life of the observer itself."""
    alarm = context.named(name, region)
    if not isinstance(alarm, MetricAlarm):
        return False
    return all(stat.stat == "SampleCount" or stat.metric.name in HEARTBEATS for stat in alarm.metric_stats)
