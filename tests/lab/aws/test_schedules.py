"""Schedule expressions, as EventBridge and Synthetics read them."""

from __future__ import annotations

import datetime as dt

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lab.aws.schedules import Rate, ScheduleError, parse, parse_canary


def at(text: str) -> float:
    """``2026-01-31 12:00`` (UTC) as epoch seconds."""
    return dt.datetime.strptime(text, "%Y-%m-%d %H:%M").replace(tzinfo=dt.UTC).timestamp()


@pytest.mark.parametrize(
    ("expression", "after", "expected"),
    [
        ("rate(5 minutes)", "2026-01-01 00:00", "2026-01-01 00:05"),
        ("rate(1 hour)", "2026-01-01 00:00", "2026-01-01 01:00"),
        ("cron(0 12 * * ? *)", "2026-01-01 12:00", "2026-01-02 12:00"),
        ("cron(0/15 8-9 ? * MON-FRI *)", "2026-01-02 09:45", "2026-01-05 08:00"),
        ("cron(0 0 L * ? *)", "2026-02-01 00:00", "2026-02-28 00:00"),
        ("cron(0 0 ? * 6L *)", "2026-01-01 00:00", "2026-01-30 00:00"),
        ("cron(0 0 ? * TUE#2 *)", "2026-01-01 00:00", "2026-01-13 00:00"),
        ("cron(0 0 1W * ? *)", "2026-07-31 00:00", "2026-08-03 00:00"),
        ("cron(30 6 29 2 ? *)", "2026-01-01 00:00", "2028-02-29 06:30"),
        ("cron(0 0 1 JAN ? 2027-2028)", "2026-01-01 00:00", "2027-01-01 00:00"),
    ],
)
def test_the_next_time(expression: str, after: str, expected: str) -> None:
    """The first matching time after a moment."""
    assert parse(expression).after(at(after)) == at(expected)


def test_a_schedule_may_end() -> None:
    """A year that is over never comes again."""
    assert parse("cron(0 0 1 1 ? 2020)").after(at("2026-01-01 00:00")) is None


@pytest.mark.parametrize(
    "expression",
    [
        "whenever you like",
        "rate(1 minutes)",
        "rate(2 minute)",
        "rate(5 seconds)",
        "cron(0 12 * * *)",
        "cron(0 12 * * * *)",
        "cron(60 12 * * ? *)",
        "cron(0 12 ? * ? *)",
        "cron(0/0 12 * * ? *)",
    ],
)
def test_what_is_no_schedule(expression: str) -> None:
    """Malformed expressions are refused, with a reason."""
    with pytest.raises(ScheduleError):
        parse(expression)


@pytest.mark.parametrize(
    ("expression", "seconds"), [("rate(1 minute)", 60), ("rate(5 minute)", 300), ("rate(1 hour)", 3600), ("rate(0 minute)", 0)]
)
def test_canaries_take_more_liberal_rates(expression: str, seconds: int) -> None:
    """Synthetics does not mind the plural, and runs once at rate 0."""
    assert parse_canary(expression) == Rate(seconds)


@pytest.mark.parametrize("expression", ["rate(2 hours)", "rate(1 day)", "rate(61 minutes)"])
def test_canaries_run_at_least_hourly(expression: str) -> None:
    """A rate beyond an hour is refused."""
    with pytest.raises(ScheduleError):
        parse_canary(expression)


@given(
    st.integers(0, 59),
    st.integers(0, 23),
    st.integers(int(at("2026-01-01 00:00")), int(at("2030-01-01 00:00"))),
)
def test_cron_agrees_with_the_calendar(minute: int, hour: int, now: int) -> None:
    """A daily time comes within a day, at that minute."""
    found = parse(f"cron({minute} {hour} * * ? *)").after(now)
    assert found is not None
    moment = dt.datetime.fromtimestamp(found, dt.UTC)
    assert (moment.minute, moment.hour, moment.second) == (minute, hour, 0)
    assert now < found <= now + 86_400
