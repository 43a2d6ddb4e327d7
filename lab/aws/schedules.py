"""Schedule expressions: ``rate(...)`` and ``cron(...)`` as EventBridge and Synthetics read them.

Reference: https://docs.aws.amazon.com/eventbridge/latest/userguide/eb-cron-expressions.html. Times are UTC, epoch seconds.
"""

from __future__ import annotations

import calendar
import datetime as dt
import re
from dataclasses import dataclass

_RATE = re.compile(r"rate\((\d+) (minute|minutes|hour|hours|day|days)\)")
_SECONDS = {"minute": 60, "hour": 3600, "day": 86400}
_MONTHS = {name.upper(): number for number, name in enumerate(calendar.month_abbr) if name}
_DAYS = {name: number for number, name in enumerate(("SUN", "MON", "TUE", "WED", "THU", "FRI", "SAT"), start=1)}
_LAST_YEAR = 2199


class ScheduleError(ValueError):
    """The expression is not a schedule."""


@dataclass(frozen=True, slots=True)
class Rate:
    """Every ``seconds``; 0 stands for "once", which only Synthetics knows."""

    seconds: int

    def after(self, time_s: float) -> float | None:
        """The next time later than ``time_s``, counted from it; None where there is none."""
        return time_s + self.seconds if self.seconds else None


@dataclass(frozen=True, slots=True)
class Cron:
    """The minutes that match six fields. ``days`` and ``weekdays`` are kept as text, for they depend on the month (L, W, #)."""

    minutes: frozenset[int]
    hours: frozenset[int]
    days: str
    months: frozenset[int]
    weekdays: str
    years: frozenset[int]

    def after(self, time_s: float) -> float | None:
        """The first matching minute later than ``time_s``; None where there is none."""
        moment = dt.datetime.fromtimestamp(time_s // 60 * 60 + 60, dt.UTC)
        day = moment.date()
        while day.year <= _LAST_YEAR and day.year <= max(self.years):
            if day.year in self.years and day.month in self.months and self._has(day):
                for hour in sorted(self.hours):
                    for minute in sorted(self.minutes):
                        candidate = dt.datetime(day.year, day.month, day.day, hour, minute, tzinfo=dt.UTC)
                        if candidate >= moment:
                            return candidate.timestamp()
            day = _next_day(day, self)
        return None

    def _has(self, day: dt.date) -> bool:
        if self.weekdays != "?":
            return _weekday_matches(self.weekdays, day)
        return _day_matches(self.days, day)


def parse(expression: str) -> Rate | Cron:
    """The schedule that ``expression`` stands for. Raises `ScheduleError` with the reason."""
    rate = _RATE.fullmatch(expression)
    if rate:
        count, unit = int(rate[1]), rate[2]
        if (count == 1) == unit.endswith("s"):
            raise ScheduleError(f"{expression}: the unit is singular for 1 and plural otherwise")
        return Rate(count * _SECONDS[unit.removesuffix("s")])
    if expression.startswith("cron(") and expression.endswith(")"):
        return _cron(expression[5:-1].split(" "))
    raise ScheduleError(f"{expression}: neither rate(value unit) nor cron(fields)")


def parse_canary(expression: str) -> Rate | Cron:
    """As `parse`, with what only Synthetics allows: ``rate(0 minute)`` and ``rate(0 hour)`` run once; a rate is 1 minute to 1 hour."""
    if re.fullmatch(r"rate\(0 (minutes?|hours?)\)", expression):
        return Rate(0)
    match = re.fullmatch(r"rate\((\d+) (minute|minutes|hour|hours)\)", expression)
    if match:  # Synthetics takes "rate(1 minutes)" and "rate(5 minute)" alike
        seconds = int(match[1]) * _SECONDS[match[2].removesuffix("s")]
        if not 60 <= seconds <= 3600:
            raise ScheduleError(f"{expression}: a rate must lie between 1 minute and 1 hour")
        return Rate(seconds)
    schedule = parse(expression)
    if isinstance(schedule, Rate):
        raise ScheduleError(f"{expression}: a rate must be given in minutes or hours")
    return schedule


def _cron(fields: list[str]) -> Cron:
    if len(fields) != 6:
        raise ScheduleError(f"cron({' '.join(fields)}): six fields are needed, minutes hours day-of-month month day-of-week year")
    minutes, hours, days, months, weekdays, years = fields
    if (days == "?") == (weekdays == "?"):
        raise ScheduleError("cron: exactly one of day-of-month and day-of-week must be ?")
    for text, probe in ((days, _day_matches), (weekdays, _weekday_matches)):
        if text != "?":
            probe(text, dt.date(2026, 1, 1))
    return Cron(
        _numbers(minutes, 0, 59),
        _numbers(hours, 0, 23),
        days,
        _numbers(months, 1, 12, _MONTHS),
        weekdays,
        _numbers(years, 1970, _LAST_YEAR),
    )


def _numbers(text: str, low: int, high: int, names: dict[str, int] | None = None) -> frozenset[int]:
    """The numbers of a field made of ``*``, ``a``, ``a-b``, ``a/n``, ``*/n`` and commas."""
    found: set[int] = set()
    for part in text.split(","):
        span, _, step = part.partition("/")
        first, dash, last = span.partition("-")
        if span == "*":
            start, stop = low, high
        else:
            start = _number(first, low, high, names)
            stop = _number(last, low, high, names) if dash else (high if step else start)
        if step and (not step.isdigit() or int(step) == 0):
            raise ScheduleError(f"cron: {part}: the step after / must be a positive number")
        found.update(range(start, stop + 1, int(step or 1)))
    return frozenset(found)


def _number(text: str, low: int, high: int, names: dict[str, int] | None) -> int:
    value = (names or {}).get(text.upper(), int(text) if text.isdigit() else -1)
    if not low <= value <= high:
        raise ScheduleError(f"cron: {text} is not between {low} and {high}")
    return value


def _day_matches(text: str, day: dt.date) -> bool:
    last = calendar.monthrange(day.year, day.month)[1]
    if text == "L":
        return day.day == last
    if text.endswith("W") and text[:-1].isdigit():
        return day == _nearest_weekday(day, min(_number(text[:-1], 1, 31, None), last))
    return day.day in _numbers(text, 1, 31)


def _nearest_weekday(month: dt.date, wanted: int) -> dt.date:
    """The weekday of the month that is nearest to the day ``wanted``; it never leaves the month."""
    last = calendar.monthrange(month.year, month.month)[1]
    date = month.replace(day=wanted)
    if date.weekday() == calendar.SATURDAY:
        return month.replace(day=wanted - 1 if wanted > 1 else 3)
    if date.weekday() == calendar.SUNDAY:
        return month.replace(day=wanted + 1 if wanted < last else wanted - 2)
    return date


def _weekday_matches(text: str, day: dt.date) -> bool:
    number = day.isoweekday() % 7 + 1
    name, hash_, nth = text.partition("#")
    if hash_:
        return number == _number(name, 1, 7, _DAYS) and (day.day - 1) // 7 + 1 == _number(nth, 1, 5, None)
    if text == "L":
        return number == 7
    if text.endswith("L"):
        last = calendar.monthrange(day.year, day.month)[1]
        return number == _number(text[:-1], 1, 7, _DAYS) and day.day + 7 > last
    return number in _numbers(text, 1, 7, _DAYS)


def _next_day(day: dt.date, cron: Cron) -> dt.date:
    """The next day worth a look: skips months and years that do not match."""
    if day.year not in cron.years:
        return dt.date(day.year + 1, 1, 1)
    if day.month not in cron.months:
        return dt.date(day.year + day.month // 12, day.month % 12 + 1, 1)
    return day + dt.timedelta(days=1)
