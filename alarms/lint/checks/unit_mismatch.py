"""unit-mismatch: the unit is not the one the metric is sent in, or the threshold is in another unit."""

from __future__ import annotations

from collections.abc import Iterator

from alarms.lint.context import Context, signal_of
from topology.problems import Problem

NAME = "unit-mismatch"
LONG_S, SHORT_MS = 300.0, 0.5


def check(context: Context) -> Iterator[Problem]:
    """A wrong Unit selects no data; a latency threshold of 500 "Seconds" was meant in milliseconds."""
    for definition, alarm in context.metric_alarms():
        for stat in alarm.metric_stats:
            signal = signal_of(stat.metric)
            if signal is None:
                continue
            if stat.metric.unit is not None and stat.metric.unit != signal.unit:
                what = f"asks for {stat.metric.name} in {stat.metric.unit}, but it is sent in {signal.unit}: the alarm never sees data"
                yield context.finding(NAME, definition, what, f"set Unit to {signal.unit} or leave it out", "error", "Unit")
        single = alarm.single_metric
        signal = signal_of(single.metric) if single else None
        if signal is None or alarm.threshold is None or single is None or single.stat in ("SampleCount", "Sum"):
            continue
        if signal.unit == "Seconds" and alarm.threshold >= LONG_S:
            what = f"{signal.name} is in seconds; a threshold of {alarm.threshold:g} looks like milliseconds"
            yield context.finding(NAME, definition, what, f"did you mean {alarm.threshold / 1000:g}?", "warning", "Threshold")
        if signal.unit == "Milliseconds" and 0 < alarm.threshold < SHORT_MS:
            what = f"{signal.name} is in milliseconds; a threshold of {alarm.threshold:g} looks like seconds"
            yield context.finding(NAME, definition, what, f"did you mean {alarm.threshold * 1000:g}?", "warning", "Threshold")
