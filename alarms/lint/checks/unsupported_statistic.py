"""unsupported-statistic: the metric has no such statistic, so the alarm never sees data."""

from __future__ import annotations

from collections.abc import Iterator

from alarms.lint.context import Context, signal_of
from topology.problems import Problem

NAME = "unsupported-statistic"


def check(context: Context) -> Iterator[Problem]:
    """Statistics outside of those the catalogue lists; any percentile goes where some percentile goes."""
    for definition, alarm in context.metric_alarms():
        for stat in alarm.metric_stats:
            signal = signal_of(stat.metric)
            if signal is None or stat.stat in signal.statistics:
                continue
            plain = stat.stat in ("Average", "Sum", "Minimum", "Maximum", "SampleCount")
            if not plain and any(name.startswith("p") for name in signal.statistics):
                continue
            what = f"{stat.metric.name} has no {stat.stat}: its statistics are {', '.join(signal.statistics)}"
            yield context.finding(NAME, definition, what, "use one of these statistics", "error", "Statistic")
