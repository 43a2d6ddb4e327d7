"""masking-statistic: the statistic hides the values the alarm waits for."""

from __future__ import annotations

from collections.abc import Iterator

from alarms.engine.statistics import percentile_of
from alarms.lint.bounds import PERCENTAGES
from alarms.lint.context import Context, signal_of
from topology.problems import Problem

NAME = "masking-statistic"


def check(context: Context) -> Iterator[Problem]:
    """High percentiles of a metric whose low values are the bad ones, and averages over emitters that should be looked at one by one."""
    for definition, alarm in context.metric_alarms():
        if not alarm.comparison.startswith("Less") or alarm.band:
            continue
        for stat in alarm.metric_stats:
            share = percentile_of(stat.stat)
            if share is not None and share >= 0.5:
                what = f"waits for low values of {stat.metric.name} but looks at {stat.stat}: p99 of one 0 and one 100 is 100"
                yield context.finding(NAME, definition, what, "use Minimum, Average or a low percentile", "error", "Statistic")
        one = alarm.single_metric
        if one is None or one.stat != "Average" or one.metric.dimensions or one.metric.name not in PERCENTAGES or alarm.threshold is None:
            continue
        if signal_of(one.metric) is None and alarm.threshold < 100:
            what = (
                f"averages {one.metric.name} over everything that emits it: with {_emitters(alarm.threshold)} or more emitters one of them"
                f" can fail completely and the average stays at {alarm.threshold:g} or above"
            )
            yield context.finding(NAME, definition, what, "give it dimensions: one alarm for each emitter", "error", "Dimensions")


def _emitters(threshold: float) -> int:
    """From how many emitters on one that is at 0 leaves the average of the rest's 100 at the threshold or above."""
    return max(2, -int(-100 // (100 - threshold)))
