"""Schedules of canaries: what Synthetics takes, and how often it comes round."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from topology.schedules import every_s, is_schedule, longest_pause_s, runs_a_day


@pytest.mark.parametrize(
    ("expression", "shortest", "longest", "runs"),
    [
        ("rate(1 minute)", 60, 60, 1440),
        ("rate(7 minutes)", 420, 420, 205),
        ("rate(60 minutes)", 3600, 3600, 24),
        ("rate(1 hour)", 3600, 3600, 24),
        ("cron(* * * * ? *)", 60, 60, 1440),
        ("cron(0/15 * ? * MON-FRI *)", 900, 900, 96),
        ("cron(0,5 8-17 * * ? *)", 300, 54000 - 300, 20),
        ("cron(30 3 1 * ? *)", 86400, 86400, 1),
        ("cron(10-50/20 0/12 * * ? *)", 1200, 43200 - 2400, 6),
    ],
)
def test_how_often_a_schedule_comes_round(expression: str, shortest: int, longest: int, runs: int) -> None:
    """The shortest and the longest time between two runs, and the runs of a day."""
    assert (every_s(expression), longest_pause_s(expression), runs_a_day(expression)) == (shortest, longest, runs)


@pytest.mark.parametrize(
    "expression",
    [
        "",
        "rate(0 minutes)",
        "rate(1 minutes)",
        "rate(5minutes)",
        "rate(x minutes)",
        "rate(61 minutes)",
        "rate(2 hours)",
        "rate(5 minutes",
        "rate(٣ minutes)",
        "cron(* * * * * *)",
        "cron(60 * * * ? *)",
        "cron(* 24 * * ? *)",
        "cron(0/0 * * * ? *)",
        "cron(5-1 * * * ? *)",
        "cron(* * * ? *)",
        "every minute",
    ],
)
def test_what_synthetics_would_refuse(expression: str) -> None:
    """Rates outside a minute to an hour, cron expressions that are none."""
    assert not is_schedule(expression)
    with pytest.raises(ValueError, match=r"."):
        every_s(expression)


@given(st.text(alphabet="rateconminuhs()*?/,-0123456789 ", max_size=30))
def test_no_text_makes_another_error(text: str) -> None:
    """Whatever it is, it is a schedule or it is none."""
    if is_schedule(text):
        assert every_s(text) >= 60
