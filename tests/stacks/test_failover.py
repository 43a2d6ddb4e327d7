"""The failover report: its own runbooks only, its matrix also when it is old, and what could not be read."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from botocore.exceptions import ClientError

from stacks import failover
from topology import UnusableInput, load

if TYPE_CHECKING:
    from collections.abc import Iterator

TOPOLOGY = load(Path(__file__).parents[2] / "topology.yaml")
KEPT = ((63 * 86400, 3600), (15 * 86400, 300), (3 * 3600, 60))


class Account:
    """CloudWatch and Systems Manager of every Region, as far as the report asks them; metrics are kept as long as CloudWatch keeps them."""

    def __init__(self, executions: list[dict[str, Any]], *, throttled: bool = False) -> None:
        self.executions, self.throttled = executions, throttled
        self.filters: list[dict[str, Any]] = []
        self.periods: set[int] = set()

    def client(self, _service: str, _region: str) -> Account:
        return self

    def get_paginator(self, _operation: str) -> Account:
        return self

    def paginate(self, **_: Any) -> Iterator[dict[str, Any]]:
        return iter(())

    def describe_automation_executions(self, Filters: list[dict[str, Any]]) -> dict[str, Any]:  # noqa: N803 - boto3's name
        self.filters += Filters
        return {"AutomationExecutionMetadataList": self.executions}

    def get_metric_data(self, **request: Any) -> dict[str, Any]:
        """One point a query; none where the period is finer than what is kept of that time."""
        if self.throttled:
            raise ClientError({"Error": {"Code": "ThrottlingException", "Message": "Rate exceeded"}}, "GetMetricData")
        finest = next((period for age, period in KEPT if time.time() - request["StartTime"].timestamp() > age), 1)
        results = []
        for query in request["MetricDataQueries"]:
            period = query["MetricStat"]["Period"]
            self.periods.add(period)
            found = [] if period % finest else [(request["StartTime"], 1.0)]
            results.append({"Id": query["Id"], "Timestamps": [at for at, _ in found], "Values": [value for _, value in found]})
        return {"MetricDataResults": results}


def execution(document: str, began: datetime) -> dict[str, Any]:
    """An execution that has ended."""
    return {
        "DocumentName": document,
        "AutomationExecutionId": document,
        "AutomationExecutionStatus": "Success",
        "ExecutionStartTime": began,
        "ExecutionEndTime": began + timedelta(minutes=1),
    }


@pytest.mark.parametrize("days", [0, 1, 20, 100])
def test_the_matrix_of_a_failover_is_read_however_old_it_is(days: int) -> None:
    """CloudWatch thins out what it keeps; the report asks for what is still there."""
    start = datetime.now(UTC) - timedelta(days=days, minutes=30)
    report = failover.collect(TOPOLOGY, start, start + timedelta(minutes=20), Account([]))  # type: ignore[arg-type]
    assert report.unread == ()
    assert len(report.matrix) == 6
    assert all(report.matrix.values())


def test_a_fresh_failover_keeps_its_ten_seconds() -> None:
    """Within three hours the matrix is read as it was written."""
    start, account = datetime.now(UTC) - timedelta(hours=1), Account([])
    failover.collect(TOPOLOGY, start, start + timedelta(minutes=20), account)  # type: ignore[arg-type]
    assert 10 in account.periods


def test_a_matrix_that_cannot_be_read_is_said() -> None:
    """An empty picture must not look like a quiet day."""
    start = datetime.now(UTC) - timedelta(hours=1)
    report = failover.collect(TOPOLOGY, start, start + timedelta(minutes=20), Account([], throttled=True))  # type: ignore[arg-type]
    assert any("Rate exceeded" in text for text in report.unread)


def test_only_the_topologys_runbooks_of_that_time_are_listed() -> None:
    """Other teams' automations, and earlier runs, are none of this failover's; the service is asked for the time only."""
    start = datetime(2026, 11, 1, 12, tzinfo=UTC)
    end = start + timedelta(hours=1)
    account = Account(
        [
            execution("AWS-PatchInstances", start + timedelta(minutes=5)),
            execution("retail-DrainRegion", start + timedelta(minutes=6)),
            execution("retail-DrainRegion", start - timedelta(days=1)),
        ]
    )
    report = failover.collect(TOPOLOGY, start, end, account)  # type: ignore[arg-type]
    assert {(event.what, event.at) for event in report.events} == {
        ("retail-DrainRegion started", "2026-11-01T12:06:00+00:00"),
        ("retail-DrainRegion ended: Success", "2026-11-01T12:07:00+00:00"),
    }
    assert {each["Key"]: each["Values"] for each in account.filters} == {
        "StartTimeAfter": ["2026-11-01T11:59:59Z"],
        "StartTimeBefore": ["2026-11-01T13:00:01Z"],
    }


@pytest.mark.parametrize("text", ["yesterday", "0001-01-01", "9999-12-31T23:59:59+00:00", ""])
def test_what_is_no_time_is_refused(text: str) -> None:
    """Also years that no clock of AWS knows."""
    with pytest.raises(UnusableInput) as caught:
        failover._times(text, text)
    assert [problem.key for problem in caught.value.problems] == ["--from", "--to"]
