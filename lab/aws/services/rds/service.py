"""The RDS API's operations, over the `Fleet`. Answers have the shape of botocore's model; identifiers are case-insensitive, as on AWS."""

from __future__ import annotations

import threading
from collections import defaultdict, deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from lab.aws.service import AwsError
from lab.aws.services.rds.fleet import AVAILABLE, FAILING_OVER, SWITCHING_OVER, Fleet, Global, Member, MoveFailed
from lab.aws.support import Arn, stamp
from lab.aws.times import asked_period

if TYPE_CHECKING:
    from lab.aws.service import Context, World
    from lab.plan import LabPlan

ENGINE, VERSION = "aurora-postgresql", "17.7"
EVENTS_KEPT = 500
MEND_EVERY_LAB_S = 10.0


@dataclass(slots=True)
class Snapshot:
    """A cluster snapshot; ``at`` is lab time."""

    name: str
    member: Member
    at: float
    automatic: bool


@dataclass(slots=True)
class Restored:
    """A cluster that was restored from a snapshot: a server of its own, reachable once it has an instance."""

    name: str
    snapshot: Snapshot
    at: float
    port: int | None = None
    instances: frozenset[str] = frozenset()


class Service:
    """RDS in all Regions of the lab."""

    def __init__(self, world: World) -> None:
        self._world = world
        plan: LabPlan = world.plan  # type: ignore[attr-defined]  # the gateway's world has the plan
        self._fleet = Fleet(world, plan, self._say, lambda member, name: self._keep(member, name, automatic=True))
        self._snapshots: dict[str, dict[str, Snapshot]] = defaultdict(dict)
        self._restored: dict[str, dict[str, Restored]] = defaultdict(dict)
        self._events: dict[str, deque[dict[str, Any]]] = defaultdict(lambda: deque(maxlen=EVENTS_KEPT))
        self._lock = threading.RLock()
        world.every(MEND_EVERY_LAB_S, self._mend, name="rds resynchronize")

    # --- global databases ---

    def describe_global_clusters(self, _ctx: Context, params: dict[str, Any]) -> dict[str, Any]:
        """The global databases; the same from every Region."""
        wanted = params.get("GlobalClusterIdentifier")
        return {"GlobalClusters": [self._global(one) for one in ([self._find_global(wanted)] if wanted else self._fleet.globals.values())]}

    def failover_global_cluster(self, ctx: Context, params: dict[str, Any]) -> dict[str, Any]:
        """With AllowDataLoss a failover; without, or with Switchover, a switchover."""
        if params.get("AllowDataLoss") and params.get("Switchover"):
            raise AwsError("InvalidParameterCombination", "AllowDataLoss and Switchover can't be specified together.")
        return self._move(ctx, params, bool(params.get("AllowDataLoss")))

    def switchover_global_cluster(self, ctx: Context, params: dict[str, Any]) -> dict[str, Any]:
        """Swap the roles of the writer and a secondary, without loss."""
        return self._move(ctx, params, False)

    def _move(self, ctx: Context, params: dict[str, Any], lossy: bool) -> dict[str, Any]:
        database = self._find_global(params["GlobalClusterIdentifier"])
        target = self._find_member(params["TargetDbClusterIdentifier"], ctx.region, database)
        with database.lock:
            writer = self._fleet.writer(database.database)
            if moving := self._fleet.moving(database):
                raise AwsError("InvalidGlobalClusterStateFault", f"The global cluster {database.name} is already {moving[0]}.")
            if target.region == writer or not target.attached:
                raise AwsError("InvalidDBClusterStateFault", f"{target.name} is not a secondary cluster of {database.name}.")
            status = self._fleet.status(target)
            if status is None or not status["answering"]:
                raise AwsError("InvalidDBClusterStateFault", f"The target DB cluster {target.name} is not available.")
            old = database.members[writer]
            old_status = self._fleet.status(old)
            if not lossy and (old_status is None or not old_status["answering"]):
                raise AwsError("InvalidDBClusterStateFault", f"The primary DB cluster {old.name} is not available: a switchover needs it.")
            database.moving = (FAILING_OVER if lossy else SWITCHING_OVER, writer, target.region, lossy)
        kind = "failover" if lossy else "switchover"
        self._say(
            target.region,
            database.database,
            "RDS-EVENT-0181",
            f"Global {kind} to DB cluster {target.name} in Region {target.region} started.",
        )
        threading.Thread(target=self._carry_out, args=(database, target, lossy), name=f"{kind} of {database.name}", daemon=True).start()
        return {"GlobalCluster": self._global(database)}

    def _carry_out(self, database: Global, target: Member, lossy: bool) -> None:
        try:
            with database.lock:
                (self._fleet.failover if lossy else self._fleet.switchover)(database, target)
        except MoveFailed as error:
            kind, event = ("failover", "RDS-EVENT-0239") if lossy else ("switchover", "RDS-EVENT-0187")
            self._say(
                target.region,
                database.database,
                event,
                f"Global {kind} to DB cluster {target.name} in Region {target.region} failed: {error}",
            )
        finally:
            database.moving = None

    def remove_from_global_cluster(self, ctx: Context, params: dict[str, Any]) -> dict[str, Any]:
        """Detach a secondary: it is promoted to a database of its own."""
        database = self._find_global(params["GlobalClusterIdentifier"])
        member = self._find_member(params["DbClusterIdentifier"], ctx.region, database)
        with database.lock:
            if member.region == self._fleet.writer(database.database):
                raise AwsError("InvalidGlobalClusterStateFault", f"{member.name} is the primary; a secondary can be removed.")
            status = self._fleet.status(member)
            if status is not None and status["role"] == "reader" and status["answering"]:
                self._tell(member, "promote")
            member.attached, member.behind = False, False
        return {"GlobalCluster": self._global(database)}

    # --- clusters and instances ---

    def describe_db_clusters(self, ctx: Context, params: dict[str, Any]) -> dict[str, Any]:
        """The clusters of this Region, by identifier or ARN if given."""
        found = [self._cluster(member) for member in self._members(ctx.region)]
        found += [self._restored_cluster(ctx, one) for one in self._restored[ctx.region].values()]
        if wanted := params.get("DBClusterIdentifier"):
            name = _identifier(wanted)
            found = [cluster for cluster in found if cluster["DBClusterIdentifier"] == name]
            if not found:
                raise AwsError("DBClusterNotFoundFault", f"DBCluster {name} not found.", 404)
        return {"DBClusters": found}

    def describe_db_instances(self, ctx: Context, params: dict[str, Any]) -> dict[str, Any]:
        """The instances of this Region's clusters."""
        found = [
            {
                "DBInstanceIdentifier": one["DBInstanceIdentifier"],
                "DBClusterIdentifier": cluster["DBClusterIdentifier"],
                "DBInstanceStatus": cluster["Status"],
                "DBInstanceClass": "db.r8g.large",
                "Engine": ENGINE,
                "Endpoint": {"Address": cluster["Endpoint"], "Port": cluster["Port"]},
            }
            for cluster in self.describe_db_clusters(ctx, {})["DBClusters"]
            for one in cluster["DBClusterMembers"]
        ]
        if wanted := params.get("DBInstanceIdentifier"):
            found = [one for one in found if one["DBInstanceIdentifier"] == _identifier(wanted)]
            if not found:
                raise AwsError("DBInstanceNotFound", f"DBInstance {wanted} not found.", 404)
        return {"DBInstances": found}

    def create_db_cluster(self, ctx: Context, params: dict[str, Any]) -> dict[str, Any]:
        """A secondary cluster of a global database, in a Region whose own was deleted or removed; it has no instance yet."""
        if "GlobalClusterIdentifier" not in params:
            raise AwsError("UnsupportedOperation", "Only secondary clusters of the lab's global databases can be created here.", 501)
        database = self._find_global(params["GlobalClusterIdentifier"])
        member = database.members[ctx.region]
        if _identifier(params["DBClusterIdentifier"]) != member.name:
            raise AwsError("InvalidParameterValue", f"In the lab this cluster is called {member.name}.")
        with database.lock:
            if member.exists:
                raise AwsError("DBClusterAlreadyExistsFault", f"DBCluster {member.name} already exists.")
            member.exists, member.attached, member.behind, member.owes_snapshot = True, True, True, None
            member.instances.clear()
        return {"DBCluster": self._cluster(member)}

    def delete_db_cluster(self, ctx: Context, params: dict[str, Any]) -> dict[str, Any]:
        """Delete a restored cluster, or a former member of a global database, once it has no instances."""
        name = _identifier(params["DBClusterIdentifier"])
        if restored := self._restored[ctx.region].get(name):
            if restored.instances:
                raise AwsError(
                    "InvalidDBClusterStateFault", "Cluster cannot be deleted, it still contains DB instances in non-deleting state."
                )
            answer = self._restored_cluster(ctx, restored)
            if restored.port is not None:
                self._tell(restored.snapshot.member, f"restored/{name}", method="DELETE")
            del self._restored[ctx.region][name]
            return {"DBCluster": answer | {"Status": "deleting"}}
        member = self._find_member(name, ctx.region)
        if member.attached:
            raise AwsError(
                "InvalidDBClusterStateFault", "This cluster is a part of a global cluster, please remove it from globalcluster first."
            )
        if member.instances:
            raise AwsError("InvalidDBClusterStateFault", "Cluster cannot be deleted, it still contains DB instances in non-deleting state.")
        answer = self._cluster(member)
        member.exists = False
        self._tell(member, "stop", {"how": "fast"})
        return {"DBCluster": answer | {"Status": "deleting"}}

    def create_db_instance(self, ctx: Context, params: dict[str, Any]) -> dict[str, Any]:
        """An instance in a cluster: only then does the cluster's server run."""
        name, cluster = _identifier(params["DBInstanceIdentifier"]), _identifier(params.get("DBClusterIdentifier") or "")
        if restored := self._restored[ctx.region].get(cluster):
            if restored.port is None:
                answer = self._tell(restored.snapshot.member, "restore", {"snapshot": restored.snapshot.name, "name": cluster})
                restored.port = int(answer["port"])
            restored.instances |= {name}
        else:
            member = self._find_member(cluster, ctx.region)
            member.instances.add(name)
            for database in self._fleet.globals.values():
                if database.members.get(ctx.region) is member:
                    threading.Thread(target=self._fleet.mend, args=(database,), name=f"build {member.name}", daemon=True).start()
        instance = {"DBInstanceIdentifier": name, "DBClusterIdentifier": cluster, "DBInstanceStatus": "creating", "Engine": ENGINE}
        return {"DBInstance": instance}

    def delete_db_instance(self, ctx: Context, params: dict[str, Any]) -> dict[str, Any]:
        """Take an instance out of its cluster."""
        name = _identifier(params["DBInstanceIdentifier"])
        for restored in self._restored[ctx.region].values():
            if name in restored.instances:
                restored.instances -= {name}
                return {"DBInstance": {"DBInstanceIdentifier": name, "DBInstanceStatus": "deleting"}}
        for member in self._members(ctx.region):
            if name in member.instances:
                member.instances.discard(name)
                return {"DBInstance": {"DBInstanceIdentifier": name, "DBInstanceStatus": "deleting"}}
        raise AwsError("DBInstanceNotFound", f"DBInstance {name} not found.", 404)

    # --- snapshots ---

    def create_db_cluster_snapshot(self, ctx: Context, params: dict[str, Any]) -> dict[str, Any]:
        """A snapshot of a cluster, as it is now."""
        member, name = self._find_member(params["DBClusterIdentifier"], ctx.region), _identifier(params["DBClusterSnapshotIdentifier"])
        if name in self._snapshots[ctx.region]:
            raise AwsError(
                "DBClusterSnapshotAlreadyExistsFault", f"Cannot create the snapshot because one with the identifier {name} already exists."
            )
        self._tell(member, "snapshot", {"name": name})
        return {"DBClusterSnapshot": self._snapshot(ctx, self._keep(member, name, automatic=False))}

    def describe_db_cluster_snapshots(self, ctx: Context, params: dict[str, Any]) -> dict[str, Any]:
        """The snapshots of this Region, by cluster, identifier and type if given, oldest first."""
        found = sorted(self._snapshots[ctx.region].values(), key=lambda one: one.at)
        if cluster := params.get("DBClusterIdentifier"):
            found = [one for one in found if one.member.name == _identifier(cluster)]
        if kind := params.get("SnapshotType"):
            found = [one for one in found if ("automated" if one.automatic else "manual") == kind]
        if name := params.get("DBClusterSnapshotIdentifier"):
            found = [one for one in found if one.name == _identifier(name)]
            if not found:
                raise AwsError("DBClusterSnapshotNotFoundFault", f"DBClusterSnapshot {name} not found.", 404)
        return {"DBClusterSnapshots": [self._snapshot(ctx, one) for one in found]}

    def delete_db_cluster_snapshot(self, ctx: Context, params: dict[str, Any]) -> dict[str, Any]:
        """Remove a snapshot."""
        snapshot = self._find_snapshot(ctx, params["DBClusterSnapshotIdentifier"])
        self._tell(snapshot.member, f"snapshots/{snapshot.name}", method="DELETE")
        del self._snapshots[ctx.region][snapshot.name]
        return {"DBClusterSnapshot": self._snapshot(ctx, snapshot) | {"Status": "deleted"}}

    def restore_db_cluster_from_snapshot(self, ctx: Context, params: dict[str, Any]) -> dict[str, Any]:
        """A new cluster from a snapshot. As on AWS it has no instance, and cannot be queried, until CreateDBInstance."""
        name = _identifier(params["DBClusterIdentifier"])
        if name in self._restored[ctx.region] or any(member.name == name for member in self._members(ctx.region)):
            raise AwsError("DBClusterAlreadyExistsFault", f"DB Cluster already exists: {name}")
        restored = Restored(name, self._find_snapshot(ctx, params["SnapshotIdentifier"]), ctx.now)
        self._restored[ctx.region][name] = restored
        return {"DBCluster": self._restored_cluster(ctx, restored)}

    # --- events ---

    def describe_events(self, ctx: Context, params: dict[str, Any]) -> dict[str, Any]:
        """The events of this Region's clusters, of the last hour unless told otherwise (Duration is in minutes)."""
        since, until = asked_period(self._world.clock, params, ctx.now)
        wanted = params.get("SourceIdentifier")
        return {
            "Events": [
                event
                for event in list(self._events[ctx.region])
                if since <= event["Date"].timestamp() <= until and wanted in {None, event["SourceIdentifier"]}
            ]
        }

    def list_tags_for_resource(self, _ctx: Context, _params: dict[str, Any]) -> dict[str, Any]:
        """The lab's databases have no tags."""
        return {"TagList": []}

    def _say(self, region: str, database: str, identity: str, text: str) -> None:
        """Record an event, and put it on EventBridge."""
        from lab.aws.services.ssm import emit

        now = self._world.clock.now()
        member = next(one.members[region] for one in self._fleet.globals.values() if one.database == database)
        arn = self._arn(member)
        event = {"SourceIdentifier": member.name, "SourceType": "db-cluster", "Message": text, "EventCategories": ["global-failover"]}
        self._events[region].append(event | {"Date": stamp(now), "SourceArn": arn})
        detail = event | {"SourceArn": arn, "Date": stamp(now).isoformat(), "EventID": identity}
        emit(self._world, region, "aws.rds", "RDS DB Cluster Event", [arn], detail)

    # --- shapes ---

    def _global(self, database: Global) -> dict[str, Any]:
        writer, moving = self._fleet.writer(database.database), self._fleet.moving(database)
        half_way = moving is not None and database.moving is None
        attached = [member for member in database.members.values() if member.attached and member.exists]
        readers = [self._arn(member) for member in attached if member.region != writer]
        answer: dict[str, Any] = {
            "GlobalClusterIdentifier": database.name,
            "GlobalClusterResourceId": f"cluster-{database.name}",
            "GlobalClusterArn": f"arn:aws:rds::{self._world.account}:global-cluster:{database.name}",
            "Status": moving[0] if moving else AVAILABLE,
            "Engine": ENGINE,
            "EngineVersion": VERSION,
            "DatabaseName": database.database,
            "Endpoint": f"{database.name}.global.{self._world.account}.global.rds.amazonaws.com",
            "GlobalClusterMembers": [
                {
                    "DBClusterArn": self._arn(member),
                    "Readers": readers if member.region == writer else [],
                    "IsWriter": member.region == writer and not half_way,
                    "SynchronizationStatus": "pending-resync" if member.behind else "connected",
                }
                for member in attached
            ],
        }
        if moving:
            status, source, target, lossy = moving
            answer["FailoverState"] = {
                "Status": status,
                "FromDbClusterArn": self._arn(database.members[source]),
                "ToDbClusterArn": self._arn(database.members[target]),
                "IsDataLossAllowed": lossy,
            }
        return answer

    def _cluster(self, member: Member) -> dict[str, Any]:
        status = self._fleet.status(member)
        database = next(one for one in self._fleet.globals.values() if one.database == member.database)
        moving = self._fleet.moving(database)
        if not member.instances or member.behind:
            state = "creating"
        elif moving and member.attached and member.region in moving[1:3]:
            state = moving[0]
        else:
            state = AVAILABLE if status and status["answering"] else "stopped"
        writes = bool(status and status["role"] == "writer")
        answer = {
            "DBClusterIdentifier": member.name,
            "DBClusterArn": self._arn(member),
            "Status": state,
            "Engine": ENGINE,
            "EngineVersion": VERSION,
            "EngineMode": "provisioned",
            "DatabaseName": member.database,
            "Endpoint": "127.0.0.1",
            "ReaderEndpoint": "127.0.0.1",
            "Port": self._fleet.port(member),
            "MasterUsername": "postgres",
            "HttpEndpointEnabled": True,
            "DBClusterMembers": [{"DBInstanceIdentifier": name, "IsClusterWriter": writes} for name in sorted(member.instances)],
            "ReadReplicaIdentifiers": [],
            "TagList": [],
        }
        if member.attached:
            answer["GlobalClusterIdentifier"] = database.name
        if status and status["source"]:
            answer["ReplicationSourceIdentifier"] = self._arn(database.members[status["source"]])
        return answer

    def _restored_cluster(self, ctx: Context, one: Restored) -> dict[str, Any]:
        return {
            "DBClusterIdentifier": one.name,
            "DBClusterArn": f"arn:aws:rds:{ctx.region}:{ctx.account}:cluster:{one.name}",
            "Status": AVAILABLE,
            "Engine": ENGINE,
            "EngineVersion": VERSION,
            "DatabaseName": one.snapshot.member.database,
            "Endpoint": "127.0.0.1",
            "Port": one.port or 0,
            "MasterUsername": "postgres",
            "HttpEndpointEnabled": True,
            "ClusterCreateTime": stamp(one.at),
            "DBClusterMembers": [{"DBInstanceIdentifier": name, "IsClusterWriter": True} for name in sorted(one.instances)],
            "TagList": [],
        }

    def _snapshot(self, ctx: Context, one: Snapshot) -> dict[str, Any]:
        return {
            "DBClusterSnapshotIdentifier": one.name,
            "DBClusterSnapshotArn": f"arn:aws:rds:{ctx.region}:{ctx.account}:cluster-snapshot:{one.name}",
            "DBClusterIdentifier": one.member.name,
            "SnapshotCreateTime": stamp(one.at),
            "SnapshotType": "automated" if one.automatic else "manual",
            "Status": AVAILABLE,
            "PercentProgress": 100,
            "Engine": ENGINE,
            "EngineVersion": VERSION,
            "TagList": [],
        }

    # --- finding ---

    def _members(self, region: str) -> list[Member]:
        return [one.members[region] for one in self._fleet.globals.values() if region in one.members and one.members[region].exists]

    def _find_global(self, name: str) -> Global:
        found = self._fleet.globals.get(_identifier(name))
        if found is None:
            raise AwsError("GlobalClusterNotFoundFault", f"Global cluster {name} not found.", 404)
        return found

    def _find_member(self, text: str, region: str, database: Global | None = None) -> Member:
        """A cluster by its ARN, in whichever Region it is, or by its name in ``region``."""
        arn = Arn.parse(text)
        where, name = (arn.region, _identifier(text)) if arn else (region, _identifier(text))
        for one in [database] if database else self._fleet.globals.values():
            member = one.members.get(where)
            if member and member.name == name and member.exists:
                return member
        raise AwsError("DBClusterNotFoundFault", f"DBCluster {text} not found.", 404)

    def _find_snapshot(self, ctx: Context, text: str) -> Snapshot:
        name = text.partition(":cluster-snapshot:")[2] or text
        found = self._snapshots[ctx.region].get(name.lower())
        if found is None:
            raise AwsError("DBClusterSnapshotNotFoundFault", f"DBClusterSnapshot {name} not found.", 404)
        return found

    def _keep(self, member: Member, name: str, automatic: bool) -> Snapshot:
        snapshot = Snapshot(name, member, self._world.clock.now(), automatic)
        self._snapshots[member.region][name] = snapshot
        return snapshot

    def _tell(self, member: Member, action: str, body: dict[str, Any] | None = None, method: str = "POST") -> Any:
        try:
            return self._fleet.tell(member, action, body, method)
        except MoveFailed as error:
            raise AwsError("InvalidDBClusterStateFault", str(error)) from error

    def _arn(self, member: Member) -> str:
        return f"arn:aws:rds:{member.region}:{self._world.account}:cluster:{member.name}"

    def _mend(self, _now: float) -> None:
        for database in self._fleet.globals.values():
            if not database.moving:
                for member in database.members.values():
                    status = None if member.behind else self._fleet.status(member)
                    if status and status["role"] == "fenced":
                        member.behind = member.attached
                self._fleet.mend(database)


def _identifier(text: str) -> str:
    """The name in an ARN of a cluster or instance, or the name itself; lower case, as RDS keeps them."""
    if text.startswith("arn:"):
        return text.split(":", 6)[-1].lower()
    return text.lower()
