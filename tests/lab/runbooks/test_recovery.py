"""Failing databases over by runbook, with real losses: refusal before the drain, promotion, rebuild, and the missing-transaction report."""

from __future__ import annotations

import contextlib
import csv
import io
import json
import random
import sys
import threading
import uuid
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import boto3
import psycopg
import pytest
from botocore.config import Config
from hypothesis import given
from hypothesis import strategies as st

from lab import admin, data
from lab.process import ProcessSpec
from lab.runbooks.rendering import render
from lab.runbooks.scripts import missing, snapshot
from tests.lab.rig import rig, wait_for

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.lab.rig import Rig

EAST, WEST = "us-east-1", "us-west-2"
FINAL = {"Success", "Failed", "TimedOut", "Cancelled", "Rejected"}


@contextlib.contextmanager
def recovering() -> Iterator[Rig]:
    """The databases of both Regions and the local AWS with its runbooks, at speed 10."""
    with rig(speed=10) as made:
        aws = ProcessSpec(
            name="aws",
            argv=(sys.executable, "-m", "lab.aws", "--plan", str(made.path / "plan.json")),
            directory=data.ROOT,
            environment=data.environment(made.plan),
            ready=lambda: bool(admin.call(made.plan.control_port, "GET", "/health")),
        )
        made.start([aws, *(spec for spec in data.processes(made.plan) if spec.name.endswith(("/aurora", "/peering")))])
        yield made


@pytest.fixture
def cloud() -> Iterator[Rig]:
    """One for a test."""
    with recovering() as made:
        yield made


def client(cloud: Rig, service: str, region: str = WEST) -> Any:
    """A boto3 client of the lab's administrator."""
    pair = cloud.plan.credentials["admin"]
    return boto3.client(
        service,
        region_name=region,
        endpoint_url=cloud.plan.regions[region].aws_endpoint,
        aws_access_key_id=pair.access_key,
        aws_secret_access_key=pair.secret_key,
        config=Config(retries={"total_max_attempts": 1}, s3={"addressing_style": "path"}),
    )


def run(cloud: Rig, document: str, within_s: float = 90.0, **parameters: str) -> dict[str, Any]:
    """Run a runbook in the surviving Region to its end."""
    ssm = client(cloud, "ssm")
    given_ = {name: [value] for name, value in parameters.items()}
    started = ssm.start_automation_execution(DocumentName=f"retail-{document}", Parameters=given_)["AutomationExecutionId"]

    def over() -> dict[str, Any] | None:
        execution: dict[str, Any] = ssm.get_automation_execution(AutomationExecutionId=started)["AutomationExecution"]
        return execution if execution["AutomationExecutionStatus"] in FINAL else None

    found: dict[str, Any] = wait_for(f"{document} to end", over, within_s, lambda: cloud.log("aws"))
    return found


def status(execution: dict[str, Any]) -> str:
    """Its status, with its failure for the reader of a failed test."""
    return str(execution["AutomationExecutionStatus"]) + (
        ": " + execution.get("FailureMessage", "") if "FailureMessage" in execution else ""
    )


class Shoppers:
    """Order through the writer endpoint of us-east-1, and keep a journal of what was acknowledged; so does a canary, beside the journal."""

    def __init__(self, cloud: Rig) -> None:
        self.acknowledged: dict[str, dict[str, Any]] = {}
        self._port = cloud.plan.regions[EAST].writer_ports["orders"]
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._shop, daemon=True)
        self._thread.start()

    def stop(self) -> None:
        self._stop.set()
        self._thread.join(20)

    def _shop(self) -> None:
        chance = random.Random(11)
        while not self._stop.is_set():
            order, item = str(uuid.uuid4()), str(uuid.uuid4())
            row = {"email": f"{order[:8]}@example.com", "quantity": chance.randint(1, 5), "product": item}
            try:
                with psycopg.connect(
                    host="127.0.0.1",
                    port=self._port,
                    user="postgres",
                    dbname="orders",
                    connect_timeout=2,
                    options="-c statement_timeout=2000",
                ) as connection:
                    connection.execute(
                        "INSERT INTO customer_order (id, first_name, last_name, email, created_on, region)"
                        " VALUES (%s, 'Ada', 'L', %s, now(), %s)",
                        (order, row["email"], EAST),
                    )
                    connection.execute("INSERT INTO order_item VALUES (%s, %s, 'Watch', %s, 100)", (order, item, row["quantity"]))
                    connection.execute(
                        "INSERT INTO customer_order (id, first_name, last_name, email, created_on, region, synthetic)"
                        " VALUES (%s, 'Canary', 'L', 'canary@example.com', now(), %s, true)",
                        (str(uuid.uuid4()), EAST),
                    )
                self.acknowledged[order] = row
            except psycopg.Error:
                self._stop.wait(0.1)
            self._stop.wait(0.02)


def ids(port: int) -> set[str]:
    """The customers' orders that a server shows."""
    with psycopg.connect(host="127.0.0.1", port=port, user="postgres", dbname="orders", connect_timeout=2) as connection:
        return {str(row[0]) for row in connection.execute("SELECT id FROM customer_order WHERE NOT synthetic")}


def writer(cloud: Rig) -> str:
    """The Region of the orders database's writer."""
    (one,) = client(cloud, "rds").describe_global_clusters(GlobalClusterIdentifier="retail-orders")["GlobalClusters"]
    return str(next(member["DBClusterArn"].split(":")[3] for member in one["GlobalClusterMembers"] if member["IsWriter"]))


@dataclass(frozen=True, slots=True)
class Losses:
    """What a failover cost: orders that clients had seen acknowledged, and how many of them are gone. The report named exactly those."""

    acknowledged: int
    lost: int


def lose_and_recover(cloud: Rig) -> Losses:
    """Cut replication, let orders come, fail over and rebuild by runbook, and hold the report against the clients' journal."""
    west = cloud.plan.regions[WEST]
    shoppers = Shoppers(cloud)
    wait_for("orders in the west", lambda: len(ids(west.postgres_ports["orders"])) > 20)
    admin.call(west.aurora_port, "POST", "/orders/cut")
    before = len(shoppers.acknowledged)
    wait_for("orders that are not replicated", lambda: len(shoppers.acknowledged) > before + 30)

    refused = run(cloud, "FailoverOrders", FromRegion=EAST)
    assert refused["AutomationExecutionStatus"] == "Failed"
    assert f"The routing control of {EAST} is On" in refused["FailureMessage"]
    assert writer(cloud) == EAST

    assert status(run(cloud, "DrainRegion", Region=EAST)) == "Success"
    failed_over = run(cloud, "FailoverOrders", FromRegion=EAST)
    assert status(failed_over) == "Success"
    assert failed_over["Outputs"]["VerifyWriter.Writer"] == [WEST]
    shoppers.stop()
    assert writer(cloud) == WEST

    report = run(cloud, "MissingTransactions", FromRegion=EAST)
    assert status(report) == "Success"
    lost = set(shoppers.acknowledged) - ids(west.postgres_ports["orders"])
    assert len(lost) > 30
    bucket, _, key = report["Outputs"]["Compare.Json"][0].removeprefix("s3://").partition("/")
    found = json.loads(client(cloud, "s3").get_object(Bucket=bucket, Key=key)["Body"].read())
    assert {row["id"] for row in found["missing"]} == lost
    assert report["Outputs"]["Compare.Missing"] == [str(len(lost))]
    for row in found["missing"]:
        ordered = shoppers.acknowledged[row["id"]]
        assert row["email"] == ordered["email"]
        assert [(item["product_id"], item["quantity"]) for item in row["items"]] == [(ordered["product"], ordered["quantity"])]
    table = client(cloud, "s3").get_object(Bucket=bucket, Key=key.removesuffix("json") + "csv")["Body"].read().decode()
    assert {row["id"] for row in csv.DictReader(io.StringIO(table))} == lost
    clusters = client(cloud, "rds", EAST).describe_db_clusters()["DBClusters"]
    assert not [one for one in clusters if "recovered" in one["DBClusterIdentifier"]]

    listed = client(cloud, "cloudwatch").list_metrics(Namespace="Crosswatch/Recovery")["Metrics"]
    dimensions = {(item["Name"], item["Value"]) for metric in listed for item in metric["Dimensions"]}
    assert dimensions == {("Workload", "retail"), ("Database", "orders")}

    rebuilt = run(cloud, "RebuildRegion", Region=EAST, Database="orders")
    assert status(rebuilt) == "Success"
    assert rebuilt["Outputs"]["Rebuild.Writer"] == [WEST]
    wait_for(
        "the old primary to follow",
        lambda: ids(cloud.plan.regions[EAST].postgres_ports["orders"]) == ids(west.postgres_ports["orders"]),
        30,
    )
    return Losses(len(shoppers.acknowledged), len(lost))


@pytest.mark.slow
def test_failover_with_loss_from_the_drain_to_the_report(cloud: Rig) -> None:
    """The whole recovery by runbook: refused before the drain, promoted after it, the losses named exactly, the old primary rebuilt; and
    after the way back, which loses nothing, the snapshot of then is not taken for one of now."""
    lose_and_recover(cloud)
    again = run(cloud, "RebuildRegion", Region=WEST, Database="orders")
    assert "holds the writer" in again["FailureMessage"]
    assert status(run(cloud, "FailoverOrders", FromRegion=WEST, Mode="Switchover")) == "Success"
    stale = run(cloud, "MissingTransactions", FromRegion=EAST, WithinSeconds="1")
    assert stale["AutomationExecutionStatus"] == "Failed"
    assert "before the writer moved" in stale["FailureMessage"]
    assert "it is not nothing" in stale["FailureMessage"]


def test_the_last_move_is_the_last_that_did_not_fail() -> None:
    """By its beginning, which comes before the snapshot; one under way counts, one that failed does not, and other events tell nothing."""

    def told(*messages: str) -> list[tuple[datetime, str]]:
        return [(datetime(2026, 1, 1, hour, tzinfo=UTC), message) for hour, message in enumerate(messages)]

    over = "Global failover to DB cluster retail-orders-us-west-2 in Region us-west-2"
    switch = "Global switchover to DB cluster retail-orders-us-east-1 in Region us-east-1"
    assert snapshot.last_move(told("DB cluster retail-orders-us-west-2 could not be resynchronized")) is None
    for messages, hour in (
        ((f"{over} started.", f"{over} completed."), 0),
        ((f"{over} started.", f"{over} completed.", f"{switch} started.", "New primary DB cluster", f"{switch} finished."), 2),
        ((f"{over} started.", f"{over} completed.", f"{switch} started.", f"{switch} failed: it does not answer"), 0),
        ((f"{over} started.", f"{over} completed.", f"{over} started."), 2),
    ):
        assert snapshot.last_move(told(*messages)) == datetime(2026, 1, 1, hour, tzinfo=UTC)


@pytest.mark.slow
def test_a_switchover_loses_nothing_and_leaves_no_snapshot_to_compare(cloud: Rig) -> None:
    """Switchover needs no drain; the report afterwards says that there is no snapshot, which is not the same as nothing missing."""
    shoppers = Shoppers(cloud)
    wait_for("orders", lambda: len(shoppers.acknowledged) > 20)
    moved = run(cloud, "FailoverOrders", FromRegion=EAST, Mode="Switchover")
    assert status(moved) == "Success"
    shoppers.stop()
    assert set(shoppers.acknowledged) <= ids(cloud.plan.regions[WEST].postgres_ports["orders"])
    done = run(cloud, "FailoverOrders", FromRegion=EAST)
    assert status(done) == "Success"
    assert [step["StepStatus"] for step in done["StepExecutions"]][2:5] == ["Pending"] * 3
    report = run(cloud, "MissingTransactions", FromRegion=EAST, WithinSeconds="1")
    assert report["AutomationExecutionStatus"] == "Failed"
    assert "does not exist. What is missing is not known; it is not nothing." in report["FailureMessage"]
    assert client(cloud, "cloudwatch").list_metrics(Namespace="Crosswatch/Recovery")["Metrics"] == []


def rows(keys: dict[str, int]) -> Iterator[tuple[str, dict[str, Any]]]:
    return iter([(key, {"id": key, "n": number}) for key, number in sorted(keys.items())])


@given(st.dictionaries(st.uuids().map(str), st.integers(0, 2)), st.dictionaries(st.uuids().map(str), st.integers(0, 2)), st.data())
def test_differences_are_those_of_sets(old: dict[str, int], new: dict[str, int], data_: st.DataObject) -> None:
    """Whatever the two copies hold: missing is what only the old one has, different what both have otherwise."""
    shared = data_.draw(st.sets(st.sampled_from(sorted(old)))) if old else set()
    new = new | {key: data_.draw(st.integers(0, 2)) for key in shared}
    lost, different, compared = missing._differences(rows(old), rows(new))
    assert [row["id"] for row in lost] == sorted(set(old) - set(new))
    assert [pair["old"]["id"] for pair in different] == sorted(key for key in old.keys() & new.keys() if old[key] != new[key])
    assert compared == len(old)


def test_the_table_holds_every_column() -> None:
    """Rows of different columns, text with separators, and nested values survive the CSV."""
    table = missing._as_csv([{"id": "1", "name": 'a, "b"\nc'}, {"id": "2", "items": [{"n": 1}]}])
    read = list(csv.DictReader(io.StringIO(table)))
    assert read[0]["name"] == 'a, "b"\nc'
    assert json.loads(read[1]["items"]) == [{"n": 1}]


def test_the_documents_are_within_systems_managers_limit() -> None:
    """With their scripts in them, and room for a role's longer name; a lab whose documents do not fit does not come up."""
    for name, content in render("retail", "arn:aws:iam::123456789012:role/" + "r" * 64).items():
        assert len(content.encode()) < 60_000, name
