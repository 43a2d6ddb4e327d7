"""burn-rate: a burn-rate alarm whose threshold no error ratio can reach, or a window without its pair."""

from __future__ import annotations

import re
from collections.abc import Iterator

from alarms.engine import MetricAlarm
from alarms.lint.context import Context
from topology.problems import Problem

NAME = "burn-rate"
_BURN = re.compile(r"\bburn", re.IGNORECASE)


def check(context: Context) -> Iterator[Problem]:
    """An error ratio cannot exceed 1 (100 %), so a factor times the error budget above that never fires."""
    for definition, alarm in context.metric_alarms():
        if not _BURN.search(alarm.name) or alarm.threshold is None or not alarm.is_math:
            continue
        limit = 100.0 if "100" in (alarm.returned.expression or "") else 1.0
        if alarm.comparison.startswith("Greater") and alarm.threshold >= limit:
            what = f"the threshold {alarm.threshold:g} is beyond the largest error ratio there is ({limit:g}): this burn rate cannot occur"
            yield context.finding(NAME, definition, what, "use a smaller factor, or drop the pair", "error", "Threshold")
        if (definition.region, alarm.name) not in context.children and not _paired(alarm):
            what = "is a burn-rate alarm that no composite joins with its other window"
            yield context.finding(NAME, definition, what, "AND the long with the short window in a composite", "warning")


def _paired(alarm: MetricAlarm) -> bool:
    """Whether one expression already looks at both windows."""
    return len({stat.period for stat in alarm.metric_stats}) > 1
