"""When a canary runs: the expressions that CloudWatch Synthetics takes, and how often they come round.

Amazon CloudWatch user guide, "Schedules" and "Cron expressions" of CloudWatch Synthetics: a rate lies between one minute and one hour; a
cron expression has six fields, and of day-of-month and day-of-week one is ``?``. A run may not take longer than the time to the next one.
"""

from __future__ import annotations

import re

RATE = re.compile(r"^rate\((?:1 (?P<unit>minute|hour)|(?P<minutes>[2-9]|[1-5][0-9]|60) minutes)\)$")
CRON = re.compile(r"^cron\(" + " ".join([r"([0-9A-Za-z*?,/#-]+)"] * 6) + r"\)$")
DAY_MINUTES = 24 * 60


def is_schedule(expression: str) -> bool:
    """Whether Synthetics takes the expression."""
    try:
        return bool(_minutes_of_day(expression))
    except ValueError:
        return False


def every_s(expression: str) -> int:
    """The shortest time between two runs, in seconds. Raises ValueError where the expression is none."""
    return min(_pauses_s(expression))


def longest_pause_s(expression: str) -> int:
    """The longest time between two runs, in seconds, where it runs every day. Raises ValueError where the expression is none."""
    return max(_pauses_s(expression))


def runs_a_day(expression: str) -> int:
    """Runs on a day on which it runs. Raises ValueError where the expression is none."""
    return len(_minutes_of_day(expression))


def _pauses_s(expression: str) -> list[int]:
    """The times between a day's runs and to the next day's first."""
    moments = _minutes_of_day(expression)
    if RATE.match(expression):  # which goes on over midnight
        return [60 * (moments[1] - moments[0])]
    following = (*moments[1:], moments[0] + DAY_MINUTES)
    return [60 * (after - before) for before, after in zip(moments, following, strict=True)]


def _minutes_of_day(expression: str) -> tuple[int, ...]:
    """The minutes of a day at which a run starts, in order; for a rate, counted from midnight."""
    if rate := RATE.match(expression):
        step = int(rate["minutes"] or (60 if rate["unit"] == "hour" else 1))
        return tuple(step * index for index in range(DAY_MINUTES // step))
    cron = CRON.match(expression)
    if cron is None or "?" not in (cron[3], cron[5]):
        raise ValueError(f"{expression!r} is neither a rate nor a cron expression")
    return tuple(60 * hour + minute for hour in _numbers(cron[2], 24) for minute in _numbers(cron[1], 60))


def _numbers(field: str, size: int) -> list[int]:
    """The values of a cron field below ``size``, in order. Raises ValueError."""
    found: set[int] = set()
    for part in field.split(","):
        span, slash, step = part.partition("/")
        first, dash, last = span.partition("-")
        low = 0 if span == "*" else int(first)
        high = int(last) if dash else size - 1 if slash or span == "*" else low
        if not 0 <= low <= high < size:
            raise ValueError(f"{part!r} does not lie below {size}")
        found.update(range(low, high + 1, int(step) if slash else 1))
    if not found:
        raise ValueError(f"{field!r} names nothing")
    return sorted(found)
