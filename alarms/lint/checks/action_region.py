"""action-region: the page would go through the Region it reports on, or through another Region than the alarm's."""

from __future__ import annotations

from collections.abc import Iterator

from alarms.engine import Alarm, CompositeAlarm, MetricAlarm
from alarms.lint.context import Context
from topology.model import alb_target
from topology.problems import Problem

NAME = "action-region"


def check(context: Context) -> Iterator[Problem]:
    """Topics in other Regions than the alarm, and alarms about a Region that live only there."""
    for definition, alarm in context.alarms():
        for arn in (*alarm.actions.ok, *alarm.actions.alarm, *alarm.actions.insufficient_data):
            region = _region_of(arn)
            if region and definition.region and region != definition.region:
                what = f"notifies {arn}, which is in {region}; actions are expected in the alarm's own Region"
                yield context.finding(NAME, definition, what, f"use a topic in {definition.region}", "error", "AlarmActions")
                break
    if context.topology is None:
        return
    for definition, alarm in context.alarms():
        about = regions_watched(context, alarm, definition.region)
        if not alarm.actions.alarm or about != {definition.region}:
            continue
        if not _twin(context, alarm, definition.region):
            what = f"reports on {definition.region} from within {definition.region}: when the Region is gone, so is the page"
            yield context.finding(NAME, definition, what, "let an alarm in another Region report on this one", "warning", "AlarmActions")


def regions_watched(context: Context, alarm: Alarm, region: str | None) -> set[str | None]:
    """The Regions whose loss the alarm's probe metrics would show: those behind Target and Region dimensions."""
    targets = {alb_target(name): name for name in (context.topology.regions if context.topology else ())}
    found: set[str | None] = set()
    waiting, seen = [alarm], {alarm.name}
    while waiting:
        one = waiting.pop()
        if isinstance(one, MetricAlarm):
            for stat in one.metric_stats:
                values = dict(stat.metric.dimensions)
                if stat.metric.name in ("Up", "Whole", "Degraded") and values.get("Target") in targets:
                    found.add(targets[values["Target"]])
        elif isinstance(one, CompositeAlarm):
            for name in one.children:
                child = context.named(name, region)
                if child is not None and child.name not in seen:
                    seen.add(child.name)
                    waiting.append(child)
    return found


def _twin(context: Context, alarm: Alarm, region: str | None) -> bool:
    """Whether another Region has an acting alarm that watches this Region too."""
    return any(
        other.actions.alarm and region in regions_watched(context, other, definition.region)
        for definition, other in context.alarms()
        if definition.region not in (region, None) and other is not alarm
    )


def _region_of(arn: str) -> str | None:
    parts = arn.split(":")
    return parts[3] or None if len(parts) >= 6 and parts[0] == "arn" else None
