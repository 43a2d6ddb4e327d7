"""never-fires: no value the metric can take breaches the threshold."""

from __future__ import annotations

from collections.abc import Iterator

from alarms.lint.bounds import of_alarm, verdict
from alarms.lint.context import Context
from topology.problems import Problem

NAME = "never-fires"


def check(context: Context) -> Iterator[Problem]:
    """Thresholds beyond the metric's range, and composites whose rule is never true."""
    for definition, alarm in context.metric_alarms():
        values = of_alarm(alarm)
        if verdict(alarm, values) is False and alarm.treat_missing_data != "breaching":
            what = f"never fires: the values lie between {values.low:g} and {values.high:g}, the threshold is {alarm.threshold:g}"
            yield context.finding(NAME, definition, what, "correct the threshold or the operator", "error", "Threshold")
    for definition, composite in context.composites():
        if not composite.rule.children and not composite.rule.holds(lambda _: "OK"):
            yield context.finding(NAME, definition, "the rule is always false", "name alarms in the rule", "error", "AlarmRule")
