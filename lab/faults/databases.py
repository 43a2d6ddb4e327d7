"""The Aurora global databases: writers, replication, lag, and what goes wrong in a failover."""

from __future__ import annotations

import contextlib
from functools import partial
from typing import TYPE_CHECKING, Any

from lab import admin
from lab.data.aurora import read_writer, set_writer
from lab.faults.fault import Fault, Where, the
from lab.faults.regions import LINKS, SLOWNESS
from lab.plan import DATABASES
from lab.store import names

if TYPE_CHECKING:
    from lab.faults.ground import Ground

CATCH_UP_WITHIN_S = 60.0
LAG_LAB_S = 90.0
CAUGHT_UP_MS = 5000.0


def _tell(ground: Ground, region: str, database: str, what: str, body: dict[str, Any] | None = None) -> Any:
    return admin.call(ground.region(region).aurora_port, "POST", f"/{database}/{what}", body, timeout_s=60.0)


def status(ground: Ground, region: str, database: str) -> dict[str, Any]:
    """What the keeper of the Region's databases says of one."""
    answer: dict[str, Any] = admin.call(ground.region(region).aurora_port, "GET", "/status")[database]
    return answer


def _standbys(ground: Ground, database: str) -> list[str]:
    return ground.others(read_writer(ground.plan, database))


def _await_replication(ground: Ground, database: str) -> None:
    """Wait until the writer answers and every standby has caught up."""
    writer = read_writer(ground.plan, database)

    def caught_up() -> bool:
        if not status(ground, writer, database)["answering"]:
            return False
        lags = [status(ground, region, database)["lag"] for region in _standbys(ground, database)]
        return all(lag is not None and lag["replication_ms"] < CAUGHT_UP_MS * max(1.0, ground.plan.clock.speed) for lag in lags)

    ground.await_(f"{database} replicates from {writer}", caught_up, CATCH_UP_WITHIN_S)


def _crash_writer(database: str, ground: Ground, _region: str) -> str:
    writer = read_writer(ground.plan, database)
    _tell(ground, writer, database, "stop", {"how": "crash"})
    return writer


def _start_writer(database: str, ground: Ground, _region: str, writer: str) -> None:
    """Start the writer again; if somebody failed over meanwhile, the old writer follows the new one."""
    now = read_writer(ground.plan, database)
    if now == writer:
        _tell(ground, writer, database, "start")
    else:
        _tell(ground, writer, database, "follow", {"region": now})
    _await_replication(ground, database)


def _on_standbys(database: str, what: str, ground: Ground, _region: str) -> list[str]:
    ground.begun = standbys = _standbys(ground, database)
    for region in standbys:
        body = {"ms": round(1000 * ground.plan.clock.wall_seconds(LAG_LAB_S))} if what == "delay" else None
        _tell(ground, region, database, what, body)
    return standbys


def _undo_on_standbys(database: str, what: str, ground: Ground, _region: str, standbys: list[str]) -> None:
    for region in standbys:
        if status(ground, region, database)["role"] == "reader":  # one that was promoted meanwhile has nothing to undo
            _tell(ground, region, database, what, {"ms": 0} if what == "delay" else None)
    _await_replication(ground, database)


def _second_writer(database: str, ground: Ground, _region: str) -> str:
    """Remove a secondary from the global database, as anybody may who has the right to: RDS promotes it to a database of its own."""
    usurper = _standbys(ground, database)[0]
    ground.client("rds", usurper).remove_from_global_cluster(
        GlobalClusterIdentifier=names.global_cluster(database), DbClusterIdentifier=_arn(ground, database, usurper)
    )
    return usurper


def _one_writer(database: str, ground: Ground, _region: str, usurper: str) -> None:
    """Delete the cluster, with what only it has, and make it a secondary again, unless somebody has done so meanwhile."""
    client, cluster, instance = ground.client("rds", usurper), names.db_cluster(database, usurper), names.db_instance(database, usurper)
    (found,) = client.describe_global_clusters(GlobalClusterIdentifier=names.global_cluster(database))["GlobalClusters"]
    if _arn(ground, database, usurper) not in {member["DBClusterArn"] for member in found["GlobalClusterMembers"]}:
        with contextlib.suppress(client.exceptions.DBInstanceNotFoundFault):
            client.delete_db_instance(DBInstanceIdentifier=instance, SkipFinalSnapshot=True)
        with contextlib.suppress(client.exceptions.DBClusterNotFoundFault):
            client.delete_db_cluster(DBClusterIdentifier=cluster, SkipFinalSnapshot=True)
        engine = {"DBClusterIdentifier": cluster, "Engine": found["Engine"]}
        client.create_db_cluster(GlobalClusterIdentifier=found["GlobalClusterIdentifier"], **engine)
        client.create_db_instance(DBInstanceIdentifier=instance, DBInstanceClass="db.r8g.large", **engine)
    _await_replication(ground, database)


def _arn(ground: Ground, database: str, region: str) -> str:
    return f"arn:aws:rds:{region}:{ground.plan.account}:cluster:{names.db_cluster(database, region)}"


def _half_way(database: str, ground: Ground, _region: str) -> str:
    writer = read_writer(ground.plan, database)
    set_writer(ground.plan, database, ground.others(writer)[0])
    return writer


def _back(database: str, ground: Ground, _region: str, writer: str) -> None:
    """Have the endpoint lead to the old writer again and the old writer write, unless somebody finished the failover meanwhile.

    A writer that was lost and came back while the endpoint led elsewhere is fenced; one that was made to follow is a reader.
    """
    if not any(status(ground, region, database)["role"] == "writer" for region in ground.others(writer)):
        set_writer(ground.plan, database, writer)
        match status(ground, writer, database)["role"]:
            case "fenced":
                _tell(ground, writer, database, "start")
            case "reader":
                _tell(ground, writer, database, "promote")
    _await_replication(ground, database)


def _pin(database: str, ground: Ground, region: str) -> None:
    admin.call(ground.region(region).peering_port, "PUT", f"/writers/{database}", {"region": _standbys(ground, database)[0]})


def _unpin(database: str, ground: Ground, region: str, _memory: None) -> None:
    admin.call(ground.region(region).peering_port, "PUT", f"/writers/{database}", {"region": None})


def _link(link: dict[str, Any], ground: Ground, region: str, _memory: None = None) -> None:
    for other in ground.others(region):
        admin.call(ground.region(region).peering_port, "PUT", f"/links/{other}", link)
        admin.call(ground.region(other).peering_port, "PUT", f"/links/{region}", link)


def _of(database: str) -> tuple[Fault, ...]:
    title = database.capitalize()
    roles = _roles(database)
    return (
        Fault(
            f"{database}-writer-down",
            "databases",
            f"The writer of {title}'s global database crashes and stays down.",
            f"writes to {database} fail; the writer instance is not available",
            Where.LAB,
            partial(_crash_writer, database),
            partial(_start_writer, database),
            touches=roles,
        ),
        Fault(
            f"{database}-replication-paused",
            "databases",
            f"The standbys of {title} receive changes and do not apply them.",
            "AuroraGlobalDBReplicationLag grows, AuroraGlobalDBRPOLag does not",
            Where.LAB,
            partial(_on_standbys, database, "pause"),
            partial(_undo_on_standbys, database, "resume"),
            touches=roles,
        ),
        Fault(
            f"{database}-replication-cut",
            "databases",
            f"Replication of {title} to the other Regions is cut: what is written now would be lost in a failover.",
            "AuroraGlobalDBRPOLag grows",
            Where.LAB,
            partial(_on_standbys, database, "cut"),
            partial(_undo_on_standbys, database, "mend"),
            touches=roles,
        ),
        Fault(
            f"{database}-lag",
            "databases",
            f"The standbys of {title} are {LAG_LAB_S:g} s behind, beyond what was promised.",
            f"AuroraGlobalDBReplicationLag is about {LAG_LAB_S:g} s",
            Where.LAB,
            partial(_on_standbys, database, "delay"),
            partial(_undo_on_standbys, database, "delay"),
            touches=roles,
        ),
    )


def _roles(database: str) -> frozenset[str]:
    """What the faults of a global database touch: each waits, when it is healed, until the standbys replicate from the writer."""
    return the(f"the writer of {database} and its standbys")


FAULTS = (
    *(fault for database in DATABASES for fault in _of(database)),
    Fault(
        "orders-two-writers",
        "databases",
        "A standby of Orders was removed from the global database, which promotes it: two Regions take writes, and drift apart.",
        "two clusters of orders say that they are writers; RDS names one of them no member of the global database",
        Where.LAB,
        partial(_second_writer, "orders"),
        partial(_one_writer, "orders"),
        touches=_roles("orders"),
    ),
    Fault(
        "orders-failover-stuck",
        "databases",
        "A failover of Orders stops half-way: the endpoint points to the new Region, whose database is still a reader.",
        "writes to orders fail as read-only; RDS says failing-over and names no writer",
        Where.LAB,
        partial(_half_way, "orders"),
        partial(_back, "orders"),
        touches=_roles("orders"),
    ),
    Fault(
        "orders-endpoint-stale",
        "databases",
        "One Region resolves the global writer endpoint of Orders to a Region that is not the writer.",
        "writes to orders from the Region fail as read-only",
        Where.REGION,
        partial(_pin, "orders"),
        partial(_unpin, "orders"),
        touches=the("the writer endpoint of orders in {region}"),
    ),
    Fault(
        "peering-refused",
        "databases",
        "The peering between a Region and the others resets every connection.",
        "AuroraGlobalDBRPOLag grows; the standbys' connections are refused",
        Where.REGION,
        partial(_link, {"state": "refused"}),
        partial(_link, {"state": "up"}),
        touches=the(LINKS),
    ),
    Fault(
        "peering-slow",
        "databases",
        "Every packet between a Region and the others takes 300 ms more.",
        "writes through the global endpoint from a Region without the writer take longer",
        Where.REGION,
        partial(_link, {"delay_ms": 300}),
        partial(_link, {"delay_ms": 0}),
        touches=the(SLOWNESS),
    ),
)
