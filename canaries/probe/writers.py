"""Which clusters of each Aurora global database take writes, as RDS says: 1 is well, 2 is a split, 0 while the writer is being moved.

Once a run, in a thread of its own, so that no round waits for RDS. What is counted:

* the members of the global database with ``IsWriter`` (API reference, GlobalClusterMember: "has read-write capability");
* none of them while ``FailoverState`` (empty unless a switchover or failover is scheduled or in progress) says that roles are changing:
  the old writer is being demoted and the new one is not promoted yet;
* each cluster of the topology that is no member, runs, and replicates from nobody: RemoveFromGlobalCluster makes a secondary "a standalone
  cluster with read-write capability".

A database about which any of this could not be read has no count: unknown is not 0. Whether RDS tells of a global database in a Region
that holds no member of it is not documented, so "not found" in one Region is no answer while another Region may know it.
"""

from __future__ import annotations

import time
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from botocore.exceptions import ClientError

from canaries.shared import aws

if TYPE_CHECKING:
    from collections.abc import Mapping

    from canaries.probe.settings import Database

PATIENCE_S: Final = 5.0  # of wall time, for one call; nothing waits for it
FRESH_S: Final = 60.0
CHANGING_ROLES: Final = frozenset({"failing-over", "switching-over", "cancelling"})
NOT_RUNNING: Final = frozenset({"creating", "deleting", "stopping", "stopped"})
NO_GLOBAL_CLUSTER: Final = "GlobalClusterNotFoundFault"
NO_CLUSTER: Final = "DBClusterNotFoundFault"

Place = tuple[str, str]
"""A cluster: its Region and its identifier, in lower case as RDS keeps it."""


@dataclass(frozen=True, slots=True)
class Writers:
    """What one reading came to: how many clusters of each database take writes, or why that is not known."""

    counts: Mapping[str, int] = field(default_factory=dict)
    unknown: Mapping[str, str] = field(default_factory=dict)


def writing_members(cluster: Mapping[str, Any]) -> frozenset[Place]:
    """The members of a global cluster (an item of DescribeGlobalClusters) that take writes."""
    if cluster.get("FailoverState", {}).get("Status") in CHANGING_ROLES:
        return frozenset()
    return frozenset(_place(member) for member in cluster.get("GlobalClusterMembers", ()) if member.get("IsWriter"))


def members(cluster: Mapping[str, Any]) -> frozenset[Place]:
    """All members of a global cluster."""
    return frozenset(_place(member) for member in cluster.get("GlobalClusterMembers", ()))


def writes_alone(cluster: Mapping[str, Any]) -> bool:
    """Whether a cluster (an item of DescribeDBClusters) that is no member of the global database takes writes of its own."""
    return not cluster.get("ReplicationSourceIdentifier") and cluster.get("Status") not in NOT_RUNNING


@dataclass(slots=True)
class WriterReader:
    """Reads in the background, one reading at a time. ``endpoints`` are private RDS endpoints by Region, None for AWS's own."""

    vantage: str
    databases: Mapping[str, Database]
    endpoints: Mapping[str, str | None]
    timeout_s: float = PATIENCE_S
    _clients: dict[str, Any] = field(default_factory=dict)
    _thread: ThreadPoolExecutor = field(init=False)
    _pending: Future[Writers] | None = None
    _asked: float = 0.0

    def __post_init__(self) -> None:
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="writers")
        if any(self.vantage in database.clusters for database in self.databases.values()):
            self._client(self.vantage)  # RDS's model is large: read it before the first round, not during it

    def begin(self) -> None:
        """Start reading, unless there is nothing to read or the last reading is still under way."""
        if self.databases and (self._pending is None or self._pending.done()):
            self._asked = time.time()
            self._pending = self._thread.submit(self.read)

    def take(self) -> Writers:
        """What was read since the last call; nothing while it is under way, or when the process was frozen over it."""
        if self._pending is None or not self._pending.done():
            return Writers()
        found, self._pending = self._pending.result(), None
        return found if time.time() - self._asked < FRESH_S else Writers()

    def close(self) -> None:
        """Let the thread go; a call under way ends by its own timeout."""
        self._thread.shutdown(wait=False, cancel_futures=True)

    def read(self) -> Writers:
        """Ask RDS about every database, now."""
        counts: dict[str, int] = {}
        unknown: dict[str, str] = {}
        for name, database in self.databases.items():
            try:
                counts[name] = self._count(database)
            except _UnknownError as error:
                unknown[name] = str(error)
            except Exception as error:  # noqa: BLE001 - an answer that we stumble over must not end a run
                unknown[name] = f"{type(error).__name__}: {error}"
        return Writers(counts, unknown)

    def _count(self, database: Database) -> int:
        """Raises _UnknownError where it cannot be told."""
        cluster = self._global_cluster(database)
        outside = {(region, name.lower()) for region, name in database.clusters.items()} - members(cluster)
        found = {place: self._cluster(*place) for place in sorted(outside)}
        if not members(cluster) and not any(found.values()):
            raise _UnknownError(f"there is no {database.global_cluster}, and none of its clusters")
        return len(writing_members(cluster)) + sum(writes_alone(each) for each in found.values() if each)

    def _global_cluster(self, database: Database) -> Mapping[str, Any]:
        """The global cluster as the first Region describes it that knows it; empty where every Region says that there is none."""
        problems = []
        for region in sorted(database.clusters, key=lambda region: region != self.vantage):
            try:
                answer = self._client(region).describe_global_clusters(GlobalClusterIdentifier=database.global_cluster)
            except aws.errors() as error:
                if not _says(error, NO_GLOBAL_CLUSTER):
                    problems.append(f"{region}: {aws.short(error)}")
                continue
            for cluster in answer.get("GlobalClusters", ()):
                found: Mapping[str, Any] = cluster
                return found
        if problems:
            raise _UnknownError("; ".join(problems))
        return {}

    def _cluster(self, region: str, name: str) -> Mapping[str, Any]:
        """A Region's cluster; empty where there is none."""
        try:
            answer = self._client(region).describe_db_clusters(DBClusterIdentifier=name)
        except aws.errors() as error:
            if _says(error, NO_CLUSTER):
                return {}
            raise _UnknownError(f"{region}: {aws.short(error)}") from error
        return next(iter(answer.get("DBClusters", ())), {})

    def _client(self, region: str) -> Any:
        if region not in self._clients:
            self._clients[region] = aws.client("rds", region, self.endpoints.get(region), self.timeout_s)
        return self._clients[region]


class _UnknownError(Exception):
    """How many clusters take writes could not be read; the text says where it failed, and how."""


def _place(member: Mapping[str, Any]) -> Place:
    """Region and identifier out of ``arn:aws:rds:<region>:<account>:cluster:<identifier>``."""
    _, _, _, region, _, _, name = (*str(member.get("DBClusterArn", "")).split(":", 6), *[""] * 7)[:7]
    return region, name.lower()


def _says(error: Exception, code: str) -> bool:
    return isinstance(error, ClientError) and error.response.get("Error", {}).get("Code") == code
