"""The RDS API over real databases: roles move, losses are real, and the old primary's snapshot holds them."""

from __future__ import annotations

import signal
import sys
import time
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import boto3
import pytest
from botocore.config import Config

from canaries.probe.settings import Database
from canaries.probe.writers import WriterReader
from lab import admin, data
from lab.data.aurora import read_writer, set_writer
from lab.faults import CATALOGUE, Ground
from lab.process import ProcessSpec
from tests.lab.data.test_aurora import EAST, WEST, behind, orders, place, tell
from tests.lab.rig import rig, wait_for

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.lab.rig import Rig

GLOBAL = "retail-orders"


@pytest.fixture
def cloud() -> Iterator[Rig]:
    """The databases and the local AWS, at speed 10."""
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


def rds(lab: Rig, region: str) -> Any:
    """A client of the local RDS."""
    pair = lab.plan.credentials["admin"]
    return boto3.client(
        "rds",
        region_name=region,
        endpoint_url=lab.plan.regions[region].aws_endpoint,
        aws_access_key_id=pair.access_key,
        aws_secret_access_key=pair.secret_key,
        config=Config(retries={"total_max_attempts": 1}),
    )


def writer(client: Any) -> str:
    """The Region of the writer, when the global cluster is available and all members are in step; empty before."""
    (one,) = client.describe_global_clusters(GlobalClusterIdentifier=GLOBAL)["GlobalClusters"]
    if one["Status"] != "available" or any(member["SynchronizationStatus"] != "connected" for member in one["GlobalClusterMembers"]):
        return ""
    return next(str(member["DBClusterArn"]).split(":")[3] for member in one["GlobalClusterMembers"] if member["IsWriter"])


def arn(lab: Rig, region: str) -> str:
    """The ARN of the orders cluster in a Region."""
    return f"arn:aws:rds:{region}:{lab.plan.account}:cluster:retail-orders-{region}"


@pytest.mark.slow
def test_a_failover_with_loss_leaves_a_snapshot_with_what_was_lost(cloud: Rig) -> None:
    """The new writer lacks what was not replicated; a restore of the old primary's snapshot has it; the old primary follows again."""
    east, west = cloud.plan.regions[EAST], cloud.plan.regions[WEST]
    client = rds(cloud, WEST)
    place(east.writer_ports["orders"], 1)
    wait_for("replication", lambda: orders(west.postgres_ports["orders"]) == [1] and behind(cloud) < 1000)
    tell(cloud, WEST, "cut")
    wait_for("the cut", lambda: 5000 < behind(cloud, "rpo_ms") < float("inf"))
    place(east.writer_ports["orders"], 2)

    moving = client.failover_global_cluster(GlobalClusterIdentifier=GLOBAL, TargetDbClusterIdentifier=arn(cloud, WEST), AllowDataLoss=True)
    assert moving["GlobalCluster"]["Status"] == "failing-over"
    assert moving["GlobalCluster"]["FailoverState"]["IsDataLossAllowed"] is True
    wait_for("the failover", lambda: writer(client) == WEST, 40)
    place(east.writer_ports["orders"], 3)
    wait_for("the old primary to follow", lambda: orders(east.postgres_ports["orders"]) == [1, 3])

    (snapshot,) = rds(cloud, EAST).describe_db_cluster_snapshots(DBClusterIdentifier=f"retail-orders-{EAST}")["DBClusterSnapshots"]
    assert snapshot["DBClusterSnapshotIdentifier"].startswith(f"rds:unplanned-global-failover-retail-orders-{EAST}-")
    old = rds(cloud, EAST)
    old.restore_db_cluster_from_snapshot(
        DBClusterIdentifier="look", SnapshotIdentifier=snapshot["DBClusterSnapshotIdentifier"], Engine="aurora-postgresql"
    )
    old.create_db_instance(
        DBInstanceIdentifier="look-1", DBClusterIdentifier="look", Engine="aurora-postgresql", DBInstanceClass="db.r8g.large"
    )
    (restored,) = old.describe_db_clusters(DBClusterIdentifier="look")["DBClusters"]
    assert orders(restored["Port"]) == [1, 2]
    old.delete_db_instance(DBInstanceIdentifier="look-1")
    old.delete_db_cluster(DBClusterIdentifier="look", SkipFinalSnapshot=True)
    messages = [event["Message"] for event in client.describe_events(SourceType="db-cluster")["Events"]]
    assert any("Global failover" in message and message.endswith("completed.") for message in messages)


@pytest.mark.slow
def test_a_switchover_loses_nothing_and_back_again(cloud: Rig) -> None:
    """Roles swap both ways, every order stays, and what cannot be done is refused with RDS's own errors."""
    east, west = cloud.plan.regions[EAST], cloud.plan.regions[WEST]
    client = rds(cloud, WEST)
    with pytest.raises(client.exceptions.InvalidDBClusterStateFault):
        client.switchover_global_cluster(GlobalClusterIdentifier=GLOBAL, TargetDbClusterIdentifier=arn(cloud, EAST))
    with pytest.raises(client.exceptions.GlobalClusterNotFoundFault):
        client.switchover_global_cluster(GlobalClusterIdentifier="nothing", TargetDbClusterIdentifier=arn(cloud, EAST))
    with pytest.raises(client.exceptions.DBClusterNotFoundFault):
        client.describe_db_clusters(DBClusterIdentifier="nothing")
    place(east.writer_ports["orders"], 1)
    client.switchover_global_cluster(GlobalClusterIdentifier=GLOBAL, TargetDbClusterIdentifier=arn(cloud, WEST))
    wait_for("the switchover", lambda: writer(client) == WEST, 40)
    place(east.writer_ports["orders"], 2)
    client.switchover_global_cluster(GlobalClusterIdentifier=GLOBAL, TargetDbClusterIdentifier=arn(cloud, EAST))
    wait_for("the way back", lambda: writer(client) == EAST, 40)
    place(west.writer_ports["orders"], 3)
    wait_for("all orders everywhere", lambda: orders(west.postgres_ports["orders"]) == orders(east.postgres_ports["orders"]) == [1, 2, 3])


@pytest.mark.slow
def test_a_failover_that_stopped_half_way_names_no_writer(cloud: Rig) -> None:
    """The endpoint leads to a cluster that is still a reader: failing-over, with from and to, until the endpoint leads to the writer."""
    client = rds(cloud, WEST)
    assert writer(client) == EAST
    set_writer(cloud.plan, "orders", WEST)
    (found,) = client.describe_global_clusters(GlobalClusterIdentifier=GLOBAL)["GlobalClusters"]
    assert found["Status"] == found["FailoverState"]["Status"] == "failing-over"
    assert (found["FailoverState"]["FromDbClusterArn"], found["FailoverState"]["ToDbClusterArn"]) == (arn(cloud, EAST), arn(cloud, WEST))
    assert [member["IsWriter"] for member in found["GlobalClusterMembers"]] == [False, False]
    with pytest.raises(client.exceptions.InvalidGlobalClusterStateFault):
        client.failover_global_cluster(GlobalClusterIdentifier=GLOBAL, TargetDbClusterIdentifier=arn(cloud, EAST), AllowDataLoss=True)
    (catalog,) = client.describe_global_clusters(GlobalClusterIdentifier="retail-catalog")["GlobalClusters"]
    assert catalog["Status"] == "available"
    set_writer(cloud.plan, "orders", EAST)
    assert writer(client) == EAST
    (found,) = client.describe_global_clusters(GlobalClusterIdentifier=GLOBAL)["GlobalClusters"]
    assert not found.get("FailoverState")


def roles(lab: Rig) -> dict[str, str]:
    """What each Region's keeper says of the orders database."""
    return {name: admin.call(here.aurora_port, "GET", "/status")["orders"]["role"] for name, here in lab.plan.regions.items()}


@pytest.mark.slow
def test_a_writer_that_is_lost_in_the_middle_of_a_failover_is_not_lost_for_good(cloud: Rig) -> None:
    """The endpoint leads to a reader when the writer's Region dies and comes back: fenced, it follows nobody, since nobody writes; with
    the fault healed it is the writer again, with all that it had."""
    stuck = CATALOGUE.get("orders-failover-stuck")
    ground = Ground(cloud.plan, SimpleNamespace())  # type: ignore[arg-type]  # this fault needs no processes
    client = rds(cloud, WEST)
    place(cloud.plan.regions[EAST].writer_ports["orders"], 1)
    memory = stuck.inject(ground, "")
    assert (memory, read_writer(cloud.plan, "orders")) == (EAST, WEST)
    cloud.stop(f"{EAST}/aurora", signal.SIGKILL)
    cloud.start(spec for spec in data.processes(cloud.plan) if spec.name == f"{EAST}/aurora")
    assert roles(cloud) == {EAST: "fenced", WEST: "reader"}
    time.sleep(2.5)  # 25 lab seconds: RDS has looked for what is to follow at least twice
    assert roles(cloud) == {EAST: "fenced", WEST: "reader"}
    stuck.heal(ground, "", memory)
    assert roles(cloud) == {EAST: "writer", WEST: "reader"}
    wait_for("the writer to be named again", lambda: writer(client) == EAST, 20)
    place(cloud.plan.regions[WEST].writer_ports["orders"], 2)
    wait_for("all orders everywhere", lambda: orders(cloud.plan.regions[WEST].postgres_ports["orders"]) == [1, 2])


@pytest.mark.slow
def test_who_is_told_to_follow_a_dead_server_says_so(cloud: Rig) -> None:
    """A refusal with the reason, and no data thrown away."""
    tell(cloud, EAST, "stop", {"how": "crash"})
    with pytest.raises(admin.Refusal, match="orders follow"):
        tell(cloud, WEST, "follow", {"region": EAST})
    tell(cloud, EAST, "start")
    tell(cloud, WEST, "follow", {"region": EAST})
    assert roles(cloud) == {EAST: "writer", WEST: "reader"}


@pytest.mark.slow
def test_the_probe_counts_the_writers_of_real_databases(cloud: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    """One writer; two when a secondary was removed; one when it is deleted, and when it is rebuilt; none while a failover stands still."""
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", cloud.plan.credentials["admin"].access_key)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", cloud.plan.credentials["admin"].secret_key)
    clusters = {region: f"retail-orders-{region}" for region in (EAST, WEST)}
    endpoints = {region: cloud.plan.regions[region].aws_endpoint for region in (EAST, WEST)}
    reader = WriterReader(WEST, {"orders": Database(GLOBAL, clusters)}, endpoints)

    def count() -> int:
        found = reader.read()
        assert not found.unknown
        return found.counts["orders"]

    assert count() == 1
    client = rds(cloud, WEST)
    client.remove_from_global_cluster(GlobalClusterIdentifier=GLOBAL, DbClusterIdentifier=arn(cloud, WEST))
    wait_for("the removed cluster to run", lambda: count() == 2)
    client.delete_db_instance(DBInstanceIdentifier=f"{clusters[WEST]}-1")
    client.delete_db_cluster(DBClusterIdentifier=clusters[WEST], SkipFinalSnapshot=True)
    assert count() == 1
    client.create_db_cluster(DBClusterIdentifier=clusters[WEST], GlobalClusterIdentifier=GLOBAL, Engine="aurora-postgresql")
    client.create_db_instance(
        DBInstanceIdentifier=f"{clusters[WEST]}-1",
        DBClusterIdentifier=clusters[WEST],
        DBInstanceClass="db.r8g.large",
        Engine="aurora-postgresql",
    )
    wait_for("the secondary to be rebuilt", lambda: writer(client) == EAST, 40)
    assert count() == 1
    set_writer(cloud.plan, "orders", WEST)
    assert count() == 0
