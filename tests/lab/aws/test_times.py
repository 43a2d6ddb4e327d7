"""Periods in requests: of either clock, in part or not at all."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import pytest

from lab.aws.times import asked_period
from lab.clock import LabClock
from tests.lab.aws.local_aws import local_aws

if TYPE_CHECKING:
    from pathlib import Path

CLOCK = LabClock.start(10.0)
HOUR_S = 3600.0


@pytest.mark.parametrize(
    ("params", "since", "until"),
    [
        ({}, -HOUR_S, 0.0),
        ({"Duration": 5}, -300.0, 0.0),
        ({"StartTime": -600.0}, -600.0, 0.0),
        ({"StartTime": -7200.0, "EndTime": -60.0}, -7200.0, -60.0),
        ({"EndTime": -60.0}, -60.0 - HOUR_S, -60.0),
    ],
)
def test_a_period_of_lab_time(params: dict[str, Any], since: float, until: float) -> None:
    """The last hour, a duration, or between two moments; all relative to now here."""
    now = CLOCK.now()
    asked = {key: value if key == "Duration" else now + value for key, value in params.items()}
    assert asked_period(CLOCK, asked, now) == pytest.approx((now + since, now + until), abs=1.0)


def test_a_period_of_wall_time_is_converted() -> None:
    """Somebody asks with the wall clock: a wall minute is ten of the lab's."""
    wall = time.time()
    since, until = asked_period(CLOCK, {"StartTime": wall - 60, "EndTime": wall}, CLOCK.now())
    assert until == pytest.approx(CLOCK.now(), abs=5.0)
    assert until - since == pytest.approx(600.0)


@pytest.mark.parametrize("service", ["rds", "elasticache"])
def test_events_can_be_asked_for_by_time(tmp_path: Path, service: str) -> None:
    """There are none; the question is understood."""
    with local_aws(tmp_path) as aws:
        moment = datetime.fromtimestamp(aws.plan.clock.now() - 600, UTC)
        assert aws.client(service).describe_events(StartTime=moment, EndTime=datetime.now(UTC))["Events"] == []
