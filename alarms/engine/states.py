"""Alarm states, and time in the formats AWS prints it in."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Literal

State = Literal["OK", "ALARM", "INSUFFICIENT_DATA"]
OK: State = "OK"
ALARM: State = "ALARM"
INSUFFICIENT_DATA: State = "INSUFFICIENT_DATA"
STATES: tuple[State, ...] = (OK, ALARM, INSUFFICIENT_DATA)


def utc(epoch: float) -> datetime:
    """An aware datetime from epoch seconds, to the millisecond."""
    return datetime.fromtimestamp(round(epoch, 3), UTC)


def stamp(epoch: float) -> str:
    """``2026-01-01T00:00:00.000+0000``, as in alarm messages."""
    moment = utc(epoch)
    return f"{moment:%Y-%m-%dT%H:%M:%S}.{moment.microsecond // 1000:03d}+0000"


def long_stamp(epoch: float) -> str:
    """``Friday 02 January, 2026 00:00:00 UTC``, as in the reason of a composite alarm."""
    return f"{utc(epoch):%A %d %B, %Y %H:%M:%S} UTC"


def short_stamp(epoch: float) -> str:
    """``02/01/26 00:00:00``, as in the reason of a metric alarm."""
    return f"{utc(epoch):%d/%m/%y %H:%M:%S}"
