"""Intervals in requests, as lab time."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from lab.clock import LabClock


def lab_interval(clock: LabClock, start: float, end: float) -> tuple[float, float]:
    """``start`` and ``end`` (epoch seconds, of either clock) as lab time.

    The end tells which clock the caller reads: a start hours ago may lie nearer to the other one.
    """
    converted = clock.to_lab(end)
    return (start if converted == end else clock.at(start)), converted
