"""Which clusters take writes: what is counted, what is unknown, and that nothing waits for RDS. The RDS here speaks the real protocol."""

from __future__ import annotations

import threading
import time
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from xml.sax.saxutils import escape

import pytest
from flask import Flask, Response, request

from canaries.probe.settings import Database
from canaries.probe.writers import WriterReader, Writers, writes_alone, writing_members
from tests.canaries.servers import CREDENTIALS, served

if TYPE_CHECKING:
    from collections.abc import Iterator

EAST, WEST, SOUTH = "us-east-1", "us-west-2", "sa-east-1"
ORDERS = Database("retail-orders", {EAST: "Orders-East", WEST: "orders-west"})
NAMESPACE = 'xmlns="http://rds.amazonaws.com/doc/2014-10-31/"'


def arn(region: str, name: str) -> str:
    return f"arn:aws:rds:{region}:123456789012:cluster:{name}"


def member(region: str, name: str, writer: bool = False) -> dict[str, Any]:
    return {"DBClusterArn": arn(region, name), "IsWriter": writer}


WELL = [member(EAST, "orders-east", writer=True), member(WEST, "orders-west")]


@dataclass
class Rds:
    """One Region's RDS: a global cluster's members and state (None: it is not known here), its clusters, and what every call answers."""

    members: list[dict[str, Any]] | None = None
    state: str = ""
    clusters: dict[str, dict[str, str]] = field(default_factory=dict)
    error: tuple[str, int] | None = None
    gate: threading.Event = field(default_factory=threading.Event)
    asked: list[str] = field(default_factory=list)
    url: str = ""

    def app(self) -> Flask:
        app = Flask("rds")

        @app.post("/")
        def call() -> Response:
            action = request.form["Action"]
            self.asked.append(f"{action} {request.form.get('GlobalClusterIdentifier') or request.form.get('DBClusterIdentifier')}")
            self.gate.wait(10)
            if self.error:
                return refusal(*self.error)
            if action == "DescribeGlobalClusters":
                return refusal("GlobalClusterNotFoundFault", 404) if self.members is None else answer(action, self._global())
            found = self.clusters.get(request.form["DBClusterIdentifier"])
            return refusal("DBClusterNotFoundFault", 404) if found is None else answer(action, cluster(found))

        return app

    def _global(self) -> str:
        members = "".join(
            f"<GlobalClusterMember><DBClusterArn>{each['DBClusterArn']}</DBClusterArn>"
            f"<IsWriter>{str(each['IsWriter']).lower()}</IsWriter></GlobalClusterMember>"
            for each in self.members or ()
        )
        state = f"<FailoverState><Status>{self.state}</Status></FailoverState>" if self.state else "<FailoverState/>"
        shape = f"<GlobalClusterMember><GlobalClusterMembers>{members}</GlobalClusterMembers>{state}</GlobalClusterMember>"
        return f"<GlobalClusters>{shape}</GlobalClusters>"


def cluster(values: dict[str, str]) -> str:
    fields = "".join(f"<{name}>{escape(value)}</{name}>" for name, value in values.items())
    return f"<DBClusters><DBCluster>{fields}</DBCluster></DBClusters>"


def answer(action: str, result: str) -> Response:
    return Response(f"<{action}Response {NAMESPACE}><{action}Result>{result}</{action}Result></{action}Response>", content_type="text/xml")


def refusal(code: str, status: int) -> Response:
    text = f"<ErrorResponse {NAMESPACE}><Error><Type>Sender</Type><Code>{code}</Code><Message>no</Message></Error></ErrorResponse>"
    return Response(text, status, content_type="text/xml")


@pytest.fixture(scope="module")
def served_rds() -> Iterator[dict[str, Rds]]:
    with ExitStack() as stack:
        regions = {EAST: Rds(), WEST: Rds()}
        for made in regions.values():
            made.url = f"http://127.0.0.1:{stack.enter_context(served(made.app()))}"
        yield regions


@pytest.fixture
def rds(served_rds: dict[str, Rds], monkeypatch: pytest.MonkeyPatch) -> dict[str, Rds]:
    """RDS in two Regions; both know the orders' global cluster, whose writer is in the east."""
    for name, value in CREDENTIALS.items():
        monkeypatch.setenv(name, value)
    for each in served_rds.values():
        each.members, each.state, each.clusters, each.error = WELL, "", {}, None
        each.asked.clear()
        each.gate.set()
    return served_rds


def reader(rds: dict[str, Rds], vantage: str = WEST, **changes: Any) -> WriterReader:
    values = {"databases": {"orders": ORDERS}, "endpoints": {name: each.url for name, each in rds.items()}, "timeout_s": 2.0, **changes}
    return WriterReader(vantage, **values)


@pytest.mark.parametrize("state", ["", "pending"])
def test_the_member_that_is_the_writer_is_one(rds: dict[str, Rds], state: str) -> None:
    """One call in the own Region is enough; an operation that is only scheduled moves nobody yet."""
    rds[WEST].state = state
    assert reader(rds).read() == Writers({"orders": 1})
    assert (rds[WEST].asked, rds[EAST].asked) == (["DescribeGlobalClusters retail-orders"], [])


@pytest.mark.parametrize("state", ["failing-over", "switching-over", "cancelling"])
def test_while_roles_change_no_member_is_counted(rds: dict[str, Rds], state: str) -> None:
    rds[WEST].state = state
    assert reader(rds).read() == Writers({"orders": 0})


@pytest.mark.parametrize(
    ("found", "count"),
    [
        ({"Status": "available"}, 2),
        ({"Status": "available", "ReplicationSourceIdentifier": arn(EAST, "orders-east")}, 1),
        ({"Status": "creating"}, 1),
        ({"Status": "stopped"}, 1),
        (None, 1),
    ],
)
def test_a_cluster_that_is_no_member_counts_when_it_runs_and_replicates_from_nobody(
    rds: dict[str, Rds], found: dict[str, str] | None, count: int
) -> None:
    """It is asked about in its own Region, by the name that the topology has for it."""
    for region in rds.values():
        region.members = WELL[:1]
    rds[WEST].clusters = {"orders-west": found} if found else {}
    assert reader(rds, EAST).read() == Writers({"orders": count})
    assert rds[WEST].asked == ["DescribeDBClusters orders-west"]


def test_where_the_own_region_does_not_answer_the_next_one_does(rds: dict[str, Rds]) -> None:
    rds[WEST].error = ("Throttling", 400)
    assert reader(rds).read() == Writers({"orders": 1})


def test_not_found_here_is_no_answer_while_another_region_may_know_it(rds: dict[str, Rds]) -> None:
    """A Region whose cluster was removed may not list the global cluster; the cluster that it still has is a second writer."""
    rds[WEST].members = None
    rds[EAST].members = WELL[:1]
    rds[WEST].clusters = {"orders-west": {"Status": "available"}}
    assert reader(rds).read() == Writers({"orders": 2})
    rds[EAST].error = ("InternalFailure", 500)
    assert reader(rds).read() == Writers({}, {"orders": "us-east-1: InternalFailure"})


def test_without_a_global_cluster_the_clusters_speak_for_themselves(rds: dict[str, Rds]) -> None:
    """Two clusters of their own are two writers; where there is nothing at all, the topology is wrong and nothing is known."""
    for region in rds.values():
        region.members = None
    rds[EAST].clusters, rds[WEST].clusters = {"orders-east": {"Status": "available"}}, {"orders-west": {"Status": "available"}}
    assert reader(rds).read() == Writers({"orders": 2})
    rds[EAST].clusters, rds[WEST].clusters = {}, {}
    assert reader(rds).read() == Writers({}, {"orders": "there is no retail-orders, and none of its clusters"})


@pytest.mark.parametrize("error", [("AccessDenied", 403), ("Throttling", 400), ("InternalFailure", 500)])
def test_what_cannot_be_read_is_unknown_and_never_none(rds: dict[str, Rds], error: tuple[str, int]) -> None:
    """Also when only the cluster outside of the global database cannot be looked at."""
    for region in rds.values():
        region.members = WELL[:1]
    rds[WEST].error = error
    assert reader(rds, EAST).read() == Writers({}, {"orders": f"us-west-2: {error[0]}"})
    rds[EAST].error = error
    assert reader(rds).read() == Writers({}, {"orders": f"us-west-2: {error[0]}; us-east-1: {error[0]}"})


def test_nobody_listens_and_the_other_database_is_read_all_the_same(rds: dict[str, Rds]) -> None:
    elsewhere = Database("retail-catalog", {SOUTH: "catalog-south"})
    endpoints = {**{name: each.url for name, each in rds.items()}, SOUTH: "http://127.0.0.1:1"}
    found = reader(rds, databases={"catalog": elsewhere, "orders": ORDERS}, endpoints=endpoints).read()
    assert found == Writers({"orders": 1}, {"catalog": "sa-east-1: EndpointConnectionError"})


def test_nothing_waits_and_what_was_read_is_told_once(rds: dict[str, Rds]) -> None:
    """While RDS hangs there is no answer, and no second question; when it answers, the next round has it, and the one after has not."""
    rds[WEST].gate.clear()
    reading = reader(rds, timeout_s=10.0)
    began = time.perf_counter()
    assert reading.take() == Writers()
    reading.begin()
    reading.begin()
    assert reading.take() == Writers()
    assert time.perf_counter() - began < 0.5
    rds[WEST].gate.set()
    deadline = time.monotonic() + 5
    while not (found := reading.take()).counts:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    assert found == Writers({"orders": 1})
    assert reading.take() == Writers()
    assert rds[WEST].asked == ["DescribeGlobalClusters retail-orders"]
    reading.close()


def test_an_answer_from_before_the_process_was_frozen_is_not_told(rds: dict[str, Rds], monkeypatch: pytest.MonkeyPatch) -> None:
    """Lambda freezes a process between runs, with what is under way in it."""
    reading = reader(rds)
    reading.begin()
    deadline = time.monotonic() + 5
    while not rds[WEST].asked and time.monotonic() < deadline:
        time.sleep(0.01)
    reading.close()
    later = time.time() + 61
    monkeypatch.setattr("canaries.probe.writers.time.time", lambda: later)
    time.sleep(0.3)
    assert reading.take() == Writers()


def test_answers_that_lack_everything_are_understood() -> None:
    """Fields that AWS leaves out are neither writers nor errors."""
    assert writing_members({}) == frozenset()
    assert writing_members({"GlobalClusterMembers": [{"IsWriter": True}, {}], "FailoverState": {}}) == {("", "")}
    assert writes_alone({})
