"""The clusters behind the RDS API: which there are, what their servers say, and how roles move between Regions.

`Fleet` knows every cluster of the lab's global databases and talks to the keepers of their servers. `failover` and `switchover` move the
writer; `mend` has what is left over follow the writer again. All three take as long as the servers do.
"""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from lab import admin
from lab.data.aurora import read_writer, set_writer
from lab.store import names

if TYPE_CHECKING:
    from collections.abc import Callable

    from lab.aws.service import World
    from lab.plan import LabPlan

AVAILABLE = "available"
FAILING_OVER = "failing-over"
SWITCHING_OVER = "switching-over"
CATCH_UP_WITHIN_S = 30.0
CAUGHT_UP_MS = 2000.0
STEP_TIMEOUT_S = 90.0


class MoveFailed(Exception):
    """A role could not be moved; the message says what the servers said."""


@dataclass(slots=True)
class Member:
    """One Region's cluster of a global database. ``attached`` is False after RemoveFromGlobalCluster or DeleteDBCluster."""

    database: str
    region: str
    attached: bool = True
    exists: bool = True
    instances: set[str] = field(default_factory=set)
    owes_snapshot: str | None = None
    behind: bool = False

    @property
    def name(self) -> str:
        """The DBClusterIdentifier."""
        return names.db_cluster(self.database, self.region)


@dataclass(slots=True)
class Global:
    """A global database. ``moving`` is (status, from Region, to Region, whether data may be lost) while its writer moves."""

    database: str
    members: dict[str, Member]
    moving: tuple[str, str, str, bool] | None = None
    lock: threading.RLock = field(default_factory=threading.RLock)

    @property
    def name(self) -> str:
        """The GlobalClusterIdentifier."""
        return names.global_cluster(self.database)


class Fleet:
    """All global databases. ``say(region, database, event id, text)`` records an event, ``kept(member, name)`` a snapshot."""

    def __init__(
        self, world: World, plan: LabPlan, say: Callable[[str, str, str, str], None], kept: Callable[[Member, str], object]
    ) -> None:
        self._world = world
        self._plan = plan
        self._say = say
        self._kept = kept
        self.globals = {
            names.global_cluster(database): Global(
                database, {region: Member(database, region, instances={names.db_instance(database, region)}) for region in plan.regions}
            )
            for database in next(iter(plan.regions.values())).postgres_ports
        }

    def writer(self, database: str) -> str:
        """The Region that the global writer endpoint leads to."""
        return read_writer(self._plan, database)

    def moving(self, database: Global) -> tuple[str, str, str, bool] | None:
        """What is moving the writer: an operation under way, or one that stopped half-way, with the endpoint at a cluster that is still a
        reader (the same four values as `Global.moving`)."""
        if database.moving:
            return database.moving
        target = database.members[self.writer(database.database)]
        status = self.status(target)
        if status is None or status["role"] != "reader":
            return None
        others = [member for member in database.members.values() if member is not target]
        demoted = next((member for member in others if (self.status(member) or {}).get("role") == "writer"), others[0])
        return (FAILING_OVER, demoted.region, target.region, True)

    def port(self, member: Member) -> int:
        """Where a member's server listens."""
        return self._plan.regions[member.region].postgres_ports[member.database]

    def status(self, member: Member) -> dict[str, Any] | None:
        """What the member's keeper says; None where nobody answers, as from a Region that is down."""
        if self._world.is_down(member.region):
            return None
        try:
            answer: dict[str, Any] = admin.call(self._plan.regions[member.region].aurora_port, "GET", "/status", timeout_s=1.0)[
                member.database
            ]
        except (OSError, admin.Refusal, KeyError):
            return None
        return answer

    def tell(self, member: Member, action: str, body: dict[str, Any] | None = None, method: str = "POST") -> Any:
        """Have the member's keeper do something. Raises `MoveFailed`."""
        if self._world.is_down(member.region):
            raise MoveFailed(f"{member.region} does not answer")
        try:
            port = self._plan.regions[member.region].aurora_port
            return admin.call(port, method, f"/{member.database}/{action}", body, timeout_s=STEP_TIMEOUT_S)
        except (OSError, admin.Refusal) as error:
            raise MoveFailed(f"{member.name}: {action}: {error}") from error

    # --- moving roles ---

    def failover(self, database: Global, target: Member) -> None:
        """Make ``target`` the writer, whatever the old writer's state; what was not replicated is lost.

        The old writer is fenced off where it can be reached, and follows the new one as soon as it can (`mend`); before that a snapshot of
        it is taken, which holds the lost rows.
        """
        old = database.members[self.writer(database.database)]
        try:
            self.tell(old, "stop", {"how": "fast"})
        except MoveFailed:
            self._say(target.region, database.database, "", f"The old primary DB cluster {old.name} in {old.region} could not be fenced.")
        self.tell(target, "promote")
        set_writer(self._plan, database.database, target.region)
        stamp = time.strftime("%Y-%m-%d-%H-%M", time.gmtime(self._world.clock.now()))
        old.owes_snapshot, old.behind = f"rds:unplanned-global-failover-{old.name}-{stamp}", True
        self._say(
            target.region,
            database.database,
            "RDS-EVENT-0238",
            f"Global failover to DB cluster {target.name} in Region {target.region} completed.",
        )
        for member in database.members.values():
            member.behind = member.behind or (member is not target and member.attached)
        self.mend(database)

    def switchover(self, database: Global, target: Member) -> None:
        """Swap roles without losing anything: stop the writer, wait until the target has everything, promote it. Raises `MoveFailed`."""
        old = database.members[self.writer(database.database)]
        self._await_sync(target)
        self.tell(old, "stop", {"how": "fast"})
        try:
            self._say(
                old.region,
                database.database,
                "RDS-EVENT-0182",
                f"Old primary DB cluster {old.name} in Region {old.region} successfully shut down.",
            )
            self.tell(target, "promote")
        except MoveFailed:
            self.tell(old, "start")
            raise
        set_writer(self._plan, database.database, target.region)
        self._say(
            target.region,
            database.database,
            "RDS-EVENT-0184",
            f"New primary DB cluster {target.name} in Region {target.region} was successfully promoted.",
        )
        for member in database.members.values():
            member.behind = member is not target and member.attached
        self.mend(database)
        self._say(
            target.region,
            database.database,
            "RDS-EVENT-0185",
            f"Global switchover to DB cluster {target.name} in Region {target.region} finished.",
        )

    def _await_sync(self, target: Member) -> None:
        deadline = time.monotonic() + CATCH_UP_WITHIN_S
        while True:
            status = self.status(target)
            behind = status["lag"] if status else None
            if status and behind and behind["rpo_ms"] < CAUGHT_UP_MS * max(1.0, self._world.clock.speed) and not status["paused"]:
                return
            if time.monotonic() > deadline:
                raise MoveFailed(f"{target.name} did not catch up with the primary: {behind or 'it does not answer'}")
            time.sleep(0.2)

    def mend(self, database: Global) -> None:
        """Have every member that fell behind follow the writer; one that cannot be reached stays behind until the next call."""
        with database.lock:
            for member in database.members.values():
                if member.behind and member.attached and member.exists:
                    self._rejoin(database, member)

    def _rejoin(self, database: Global, member: Member) -> None:
        """Have a member follow the writer; later, while the server that the endpoint leads to does not write: whoever followed it would
        leave the database without a writer."""
        writer = self.writer(database.database)
        status = self.status(member)
        if status is not None and member.region == writer and status["role"] == "writer":
            member.behind = False  # it was fenced, and leads again
        if not member.behind or status is None:
            return
        leader = self.status(database.members[writer])
        if leader is None or leader["role"] != "writer" or not leader["answering"]:
            return
        try:
            if member.owes_snapshot:
                self._leave_snapshot(member, member.owes_snapshot)
                member.owes_snapshot = None
            self.tell(member, "follow", {"region": writer})
        except MoveFailed as error:
            self._say(member.region, database.database, "", f"DB cluster {member.name} could not be resynchronized: {error}")
            return
        member.behind = False
        self._say(
            member.region,
            database.database,
            "RDS-EVENT-0241",
            f"Finished resynchronizing members of DB cluster {member.name} in Region {member.region} post global failover.",
        )

    def _leave_snapshot(self, member: Member, name: str) -> None:
        """Keep a copy of the old primary as it was, best effort: without one, the failover goes on."""
        try:
            self.tell(member, "stop", {"how": "fast"})
            self.tell(member, "snapshot", {"name": name})
        except MoveFailed as error:
            self._say(
                member.region, member.database, "", f"No snapshot of the old primary DB cluster {member.name} could be taken: {error}"
            )
            return
        self._kept(member, name)
