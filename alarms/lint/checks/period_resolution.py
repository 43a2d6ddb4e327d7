"""period-resolution: the alarm's period is shorter than the interval at which the metric is sent."""

from __future__ import annotations

from collections.abc import Iterator

from alarms.lint.context import Context, signal_of
from topology.problems import Problem

NAME = "period-resolution"


def check(context: Context) -> Iterator[Problem]:
    """Periods in which mostly nothing arrives; AWS's own metrics have at best one point a minute."""
    for definition, alarm in context.metric_alarms():
        for stat in alarm.metric_stats:
            signal = signal_of(stat.metric)
            resolution = signal.resolution_s if signal else 60 if stat.metric.namespace.startswith("AWS/") else 1
            if stat.period < resolution:
                what = f"looks at {stat.metric.name} every {stat.period} s, but it is sent every {resolution} s: most periods are empty"
                yield context.finding(NAME, definition, what, f"use a Period of {resolution} s or more", "error", "Period")
                break
