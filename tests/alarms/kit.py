"""Shared pieces of the alarm tests: a definition to vary, a book, a source, and short views of what happened."""

from __future__ import annotations

from typing import Any

from alarms.engine import IMMEDIATE, Action, AlarmBook, Event, MemorySource, MetricKey, Samples, Transition

T0 = 1_767_225_600.0  # 2026-01-01T00:00:00Z
TOPIC = "arn:aws:sns:us-west-2:123456789012:page"
ARN = "arn:aws:cloudwatch:us-west-2:123456789012:alarm:"
KEY = MetricKey.of("N", "M", {"D": "v"})


def metric_alarm(name: str = "a", **changes: Any) -> dict[str, Any]:
    """PutMetricAlarm's parameters for M >= 1, 1 of 1 at 60 s, with changes."""
    params: dict[str, Any] = {
        "AlarmName": name,
        "Namespace": "N",
        "MetricName": "M",
        "Dimensions": [{"Name": "D", "Value": "v"}],
        "Statistic": "Maximum",
        "Period": 60,
        "EvaluationPeriods": 1,
        "Threshold": 1,
        "ComparisonOperator": "GreaterThanOrEqualToThreshold",
        "TreatMissingData": "notBreaching",
        "AlarmActions": [TOPIC],
        "OKActions": [TOPIC],
    } | changes
    return {key: value for key, value in params.items() if value is not None}


def book() -> AlarmBook:
    """A book that evaluates on full minutes."""
    return AlarmBook("us-west-2", options=IMMEDIATE, phase=lambda _: 0.0)


def minutes(*values: float | None, key: MetricKey = KEY, period: int = 60) -> MemorySource:
    """A source with one sample a period, visible at the period's end."""
    source = MemorySource()
    have = [(T0 + i * period, value) for i, value in enumerate(values) if value is not None]
    source.add(key, Samples.of([v for _, v in have], times=[t for t, _ in have]), [t + period for t, _ in have])
    return source


def states(events: list[Event]) -> list[tuple[float, str, str]]:
    """Minute, alarm and state of every transition."""
    return [((event.at - T0) / 60, event.alarm, event.state) for event in events if isinstance(event, Transition)]


def acts(events: list[Event]) -> list[tuple[float, str, str]]:
    """Minute, alarm and state of every action."""
    return [((event.at - T0) / 60, event.alarm, event.state) for event in events if isinstance(event, Action)]
