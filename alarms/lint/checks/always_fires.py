"""always-fires: every value the metric can take breaches the threshold."""

from __future__ import annotations

from collections.abc import Iterator

from alarms.lint.bounds import of_alarm, verdict
from alarms.lint.context import Context
from topology.problems import Problem

NAME = "always-fires"


def check(context: Context) -> Iterator[Problem]:
    """Thresholds that everything is beyond, and composites whose rule is always true."""
    for definition, alarm in context.metric_alarms():
        values = of_alarm(alarm)
        if verdict(alarm, values):
            what = f"always fires: the values lie between {values.low:g} and {values.high:g}, the threshold is {alarm.threshold:g}"
            yield context.finding(NAME, definition, what, "correct the threshold or the operator", "error", "Threshold")
    for definition, composite in context.composites():
        if not composite.rule.children and composite.rule.holds(lambda _: "OK"):
            yield context.finding(NAME, definition, "the rule is always true", "name alarms in the rule", "error", "AlarmRule")
