"""Intervals in requests, as lab time."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

    from lab.clock import LabClock


def lab_interval(clock: LabClock, start: float, end: float) -> tuple[float, float]:
    """``start`` and ``end`` (epoch seconds, of either clock) as lab time.

    The end tells which clock the caller reads: a start hours ago may lie nearer to the other one.
    """
    converted = clock.to_lab(end)
    return (start if converted == end else clock.at(start)), converted


def asked_period(clock: LabClock, params: Mapping[str, Any], now: float) -> tuple[float, float]:
    """Begin and end, in lab time, of what a DescribeEvents asks for: StartTime, EndTime and Duration (minutes), each optional.

    Without any it is the last hour, as RDS and ElastiCache have it.
    """
    start, end, span_s = params.get("StartTime"), params.get("EndTime"), 60.0 * (params.get("Duration") or 60)
    if end is not None:
        return lab_interval(clock, end - span_s if start is None else start, end)
    return (now - span_s if start is None else clock.to_lab(start)), now
