"""When an alarm is evaluated and which periods it then looks at.

Alarms are evaluated every minute, those with periods of 10, 20 or 30 seconds every ten seconds, and those that look back more than a day
every hour; each at a phase of its own. The window slides by the same step, ends at the last full step that is old enough (see the hold-back
options) and is some periods longer than EvaluationPeriods: the *evaluation range*. Page: *Evaluating an alarm*.
"""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass
from datetime import UTC, datetime
from zoneinfo import ZoneInfo

from alarms.engine.model import MetricAlarm
from alarms.engine.options import Options


@dataclass(frozen=True, slots=True)
class Window:
    """The evaluation range: ``slots`` consecutive periods from ``start`` on (epoch seconds)."""

    start: int
    period: int
    slots: int

    @property
    def end(self) -> int:
        """Where the newest slot ends."""
        return self.start + self.period * self.slots


def cadence(alarm: MetricAlarm) -> int:
    """Seconds between evaluations."""
    if alarm.multi_day:
        return 3600
    return 10 if alarm.high_resolution else 60


def phase_of(name: str, every: int) -> float:
    """A phase within ``every`` seconds that depends on the alarm's name alone, in steps of 0.01 s."""
    digest = hashlib.sha256(name.encode()).digest()
    return int.from_bytes(digest[:4]) % (every * 100) / 100


def next_evaluation(after: float, every: int, phase: float) -> float:
    """The first evaluation instant later than ``after``."""
    return (math.floor((after - phase) / every) + 1) * every + phase


def range_slots(alarm: MetricAlarm, options: Options) -> int:
    """How many periods the evaluation range has."""
    if alarm.high_resolution:
        return alarm.evaluation_periods + options.range_extra_high_resolution_s // alarm.period
    return alarm.evaluation_periods + options.range_extra_periods


def hold_back(alarm: MetricAlarm, options: Options) -> float:
    """How many seconds after its end a slot is first looked at."""
    if not alarm.high_resolution:
        return options.hold_back_s
    return options.hold_back_math_s if alarm.is_math else options.hold_back_high_resolution_s


def window(alarm: MetricAlarm, now: float, options: Options) -> Window:
    """The evaluation range of ``alarm`` at ``now``."""
    slots = range_slots(alarm, options)
    latest = now - hold_back(alarm, options)
    if alarm.wall_clock_zone is not None:
        end = _on_the_clock(latest, alarm.period, alarm.wall_clock_zone)
    else:
        step = cadence(alarm)
        end = math.floor(latest / step) * step
    return Window(end - slots * alarm.period, alarm.period, slots)


def _on_the_clock(latest: float, period: int, zone: str) -> int:
    """The last period boundary on a time zone's clock (weeks begin on Monday)."""
    offset = datetime.fromtimestamp(latest, UTC).astimezone(ZoneInfo(zone)).utcoffset()
    shift = int(offset.total_seconds()) if offset else 0
    monday = 4 * 86_400  # 1 January 1970 was a Thursday
    return math.floor((latest + shift - monday) / period) * period - shift + monday
