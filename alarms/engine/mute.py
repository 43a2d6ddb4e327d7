"""Alarm mute rules: schedules during which the named alarms' actions are withheld.

Expressions are ``at(yyyy-MM-ddThh:mm)`` or ``cron(minute hour day-of-month month day-of-week)`` with ``*``, ``,`` and ``-`` only; times are
in the rule's time zone. Pages: *Alarm mute rules*, API PutAlarmMuteRule.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from typing import Any, Literal
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from alarms.engine.problems import DefinitionError, Problem
from alarms.engine.query import text, unknown_keys

MAX_TARGETS = 100
MAX_DURATION_S = 15 * 86400
_MONTHS = {name: i for i, name in enumerate("JAN FEB MAR APR MAY JUN JUL AUG SEP OCT NOV DEC".split(), 1)}  # noqa: SIM905
_DAYS = {name: i for i, name in enumerate("SUN MON TUE WED THU FRI SAT".split())}  # noqa: SIM905
_DURATION = re.compile(r"P(?:(\d{1,4})D)?(?:T(?:(\d{1,4})H)?(?:(\d{1,5})M)?)?\Z")
_FIELDS = (("minute", 0, 59), ("hour", 0, 23), ("day of month", 1, 31), ("month", 1, 12), ("day of week", 0, 7))


@dataclass(frozen=True, slots=True)
class Cron:
    """The five fields as sets. As in cron, a restricted day of month and a restricted day of week are joined by "or"."""

    minutes: frozenset[int]
    hours: frozenset[int]
    days: frozenset[int]
    months: frozenset[int]
    weekdays: frozenset[int]
    either_day: bool

    def on(self, day: date) -> bool:
        """Whether the rule starts on ``day``."""
        of_month, of_week = day.day in self.days, day.isoweekday() % 7 in self.weekdays
        return day.month in self.months and (of_month or of_week if self.either_day else of_month and of_week)


@dataclass(frozen=True, slots=True)
class MuteRule:
    """A parsed PutAlarmMuteRule."""

    name: str
    alarms: tuple[str, ...]
    schedule: datetime | Cron
    """A single local start, or a repeating one."""
    duration_s: float
    zone: ZoneInfo
    starts: float | None
    expires: float | None
    params: Mapping[str, Any] = field(compare=False, repr=False)

    def window(self, now: float) -> tuple[float, float] | None:
        """Begin and end (epoch seconds) of the mute window ``now`` lies in; None outside of one."""
        begin = self._last_start(now)
        if begin is None or now >= begin + self.duration_s:
            return None
        end = begin + self.duration_s
        return begin, end if self.expires is None else min(end, self.expires)

    def status(self, now: float) -> Literal["SCHEDULED", "ACTIVE", "EXPIRED"]:
        """SCHEDULED before and between windows, ACTIVE in one, EXPIRED after the last."""
        if self.window(now):
            return "ACTIVE"
        if self.expires is not None and now >= self.expires:
            return "EXPIRED"
        if isinstance(self.schedule, datetime) and now >= self.schedule.timestamp() + self.duration_s:
            return "EXPIRED"
        return "SCHEDULED"

    def _last_start(self, now: float) -> float | None:
        if (self.starts is not None and now < self.starts) or (self.expires is not None and now >= self.expires):
            return None
        if isinstance(self.schedule, datetime):
            begin = self.schedule.timestamp()
            return begin if begin <= now else None
        today = datetime.fromtimestamp(now, self.zone).date()
        for back in range(int(self.duration_s // 86400) + 3):
            day = today - timedelta(days=back)
            if not self.schedule.on(day):
                continue
            for hour in sorted(self.schedule.hours, reverse=True):
                for minute in sorted(self.schedule.minutes, reverse=True):
                    begin = datetime(day.year, day.month, day.day, hour, minute, tzinfo=self.zone).timestamp()
                    if begin <= now:
                        return begin if self.starts is None or begin >= self.starts else None
        return None


def parse_mute_rule(params: Mapping[str, Any]) -> MuteRule:
    """A rule from PutAlarmMuteRule's parameters. Raises DefinitionError with every problem."""
    problems: list[Problem] = []
    unknown_keys(params, ("Name", "Description", "Rule", "MuteTargets", "Tags", "StartDate", "ExpireDate"), problems)
    name = text(params, "Name", problems, required=True) or ""
    text(params, "Description", problems, maximum=1024)
    schedule = _mapping(_mapping(params, "Rule", problems), "Schedule", problems, "Rule.")
    inner: list[Problem] = []
    unknown_keys(schedule, ("Expression", "Duration", "Timezone"), inner)
    zone = _zone(text(schedule, "Timezone", inner, maximum=50), inner)
    when = _expression(text(schedule, "Expression", inner, maximum=256, required=True), zone, inner)
    duration = _duration(text(schedule, "Duration", inner, maximum=50, required=True), inner)
    problems.extend(problem.under("Rule.Schedule") for problem in inner)
    alarms = _mapping(params, "MuteTargets", problems).get("AlarmNames")
    if not isinstance(alarms, list | tuple) or not all(isinstance(alarm, str) for alarm in alarms):
        problems.append(Problem("MuteTargets.AlarmNames", "must be a list of alarm names", "name the alarms to mute"))
        alarms = ()
    elif len(alarms) > MAX_TARGETS:
        problems.append(Problem("MuteTargets.AlarmNames", f"{len(alarms)} names, more than {MAX_TARGETS}", "use several rules"))
    elif any(alarm.startswith("arn:") for alarm in alarms):
        problems.append(Problem("MuteTargets.AlarmNames", "takes alarm names, not ARNs", "give the names"))
    starts, expires = _moment(params, "StartDate", problems), _moment(params, "ExpireDate", problems)
    if problems or when is None or duration is None:
        raise DefinitionError(problems)
    return MuteRule(name, tuple(alarms), when, duration, zone, starts, expires, params)


def _mapping(params: Mapping[str, Any], key: str, problems: list[Problem], prefix: str = "") -> Mapping[str, Any]:
    value = params.get(key)
    if not isinstance(value, Mapping):
        problems.append(Problem(prefix + key, f"{key} must not be null", f"give {key} as a mapping"))
        return {}
    return value


def _moment(params: Mapping[str, Any], key: str, problems: list[Problem]) -> float | None:
    value = params.get(key)
    if isinstance(value, str):
        try:
            value = datetime.fromisoformat(value)
        except ValueError:
            value = "no timestamp"
    if isinstance(value, datetime):
        return (value if value.tzinfo else value.replace(tzinfo=UTC)).timestamp()
    if isinstance(value, int | float) and not isinstance(value, bool):
        return float(value)
    if value is not None:
        problems.append(Problem(key, "is not a timestamp", "write it as 2026-01-31T00:00:00Z"))
    return None


def _zone(name: str | None, problems: list[Problem]) -> ZoneInfo:
    try:
        return ZoneInfo(name or "UTC")
    except (ZoneInfoNotFoundError, ValueError, OSError):
        problems.append(Problem("Timezone", f"'{name}' is not a time zone", "use a name such as Europe/Berlin"))
        return ZoneInfo("UTC")


def _duration(value: str | None, problems: list[Problem]) -> float | None:
    if value is None:
        return None
    match = _DURATION.match(value)
    days, hours, minutes = (int(part or 0) for part in match.groups()) if match else (0, 0, 0)
    seconds = float(days * 86400 + hours * 3600 + minutes * 60)
    if not 60 <= seconds <= MAX_DURATION_S:
        problems.append(Problem("Duration", f"'{value}' is not a duration from PT1M to P15D", "write it as PT30M, PT2H or P1D"))
        return None
    return seconds


def _expression(value: str | None, zone: ZoneInfo, problems: list[Problem]) -> datetime | Cron | None:
    if value is None:
        return None
    if match := re.fullmatch(r"at\((\d{4}-\d\d-\d\dT\d\d:\d\d)\)", value):
        try:
            return datetime.fromisoformat(match[1]).replace(tzinfo=zone)
        except ValueError:
            problems.append(Problem("Expression", f"'{value}' is not a date", "write it as at(2026-01-31T08:00)"))
            return None
    match = re.fullmatch(r"cron\(([^()]*)\)", value)
    parts = match[1].split() if match else []
    if len(parts) != 5:
        mend = "write it as cron(0 2 * * SUN) (minute hour day month weekday) or at(2026-01-31T08:00)"
        problems.append(Problem("Expression", f"'{value}' is neither at(…) nor cron(…) with five fields", mend))
        return None
    sets = []
    for part, (name, low, high) in zip(parts, _FIELDS, strict=True):
        found = _set(part, low, high, _MONTHS if name == "month" else _DAYS if name == "day of week" else {})
        if found is None:
            mend = f"use numbers from {low} to {high}, lists with ',' and ranges with '-'"
            problems.append(Problem("Expression", f"'{part}' is not a {name}", mend))
        sets.append(found or frozenset())
    minutes, hours, days, months, weekdays = sets
    weekdays = frozenset(day % 7 for day in weekdays)
    return Cron(minutes, hours, days, months, weekdays, parts[2] != "*" and parts[4] != "*")


def _set(part: str, low: int, high: int, names: Mapping[str, int]) -> frozenset[int] | None:
    if part == "*":
        return frozenset(range(low, high + 1))
    found: set[int] = set()
    for item in part.split(","):
        ends = [_cron_number(end, names) for end in item.split("-")]
        if len(ends) > 2 or any(end is None or not low <= end <= high for end in ends):
            return None
        first, last = ends[0] or 0, ends[-1] or 0
        if first > last:
            return None
        found.update(range(first, last + 1))
    return frozenset(found)


def _cron_number(word: str, names: Mapping[str, int]) -> int | None:
    if word.upper() in names:
        return names[word.upper()]
    return int(word) if re.fullmatch(r"\d{1,2}", word, re.ASCII) else None
