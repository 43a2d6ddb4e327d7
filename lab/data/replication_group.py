"""Which node of an ElastiCache replication group is its primary, and when another becomes it: decisions only, the clock is an argument.

`Group.decide` takes what each node just said (a `Sight`) and answers with orders, which the keeper (`lab.data.cache`) carries out. Nodes
keep nothing on disk and start *fenced*: as replicas of nobody, without data, read-only. So a node that restarted is told from one that
lived on by the history of writes it holds (Redis's replication id), and no order is ever given to promote a node without data while
another may have some.

- The primary fails when it does not answer, or answers as something else than a primary (it restarted). Its replica is promoted when that
  has lasted for the group's patience and for three checks; of several replicas, the one with the least lag.
- If no node holds the primary's data and none can (all of them answer, or are gone), an older primary that is back goes on with what it
  has; without one, the first node that answers begins anew, empty.
- Whoever answers and is not the primary is told to follow it. What only it had is lost.

https://docs.aws.amazon.com/AmazonElastiCache/latest/dg/AutoFailover.html
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from collections.abc import Mapping

FAILED_CHECKS = 3
SAMPLES = 7200
DEAD_END = 1  # a port of nobody: what a fenced node follows

State = Literal["answers", "silent", "gone"]


@dataclass(frozen=True, slots=True)
class Sight:
    """What a node said when it was asked.

    ``silent``: its port is open and nothing comes, so that it may hold data; ``gone``: nobody listens, what it held is lost.
    ``history`` names the writes that it holds, ``offset`` how many bytes of them. ``follows`` is the port of its source (0: none), and
    ``in_sync`` whether it is connected to that. ``feeds`` are the ports of the replicas that it sends its writes to.
    """

    state: State = "answers"
    primary: bool = False
    history: str = ""
    offset: int = 0
    follows: int = 0
    in_sync: bool = False
    feeds: frozenset[int] = frozenset()

    @property
    def answers(self) -> bool:
        """Whether it said anything."""
        return self.state == "answers"


SILENT, GONE = Sight("silent"), Sight("gone")


@dataclass(frozen=True, slots=True)
class Promote:
    """Make ``node`` the primary, and lead the endpoint to it."""

    node: str


@dataclass(frozen=True, slots=True)
class Follow:
    """Have ``node`` replicate from the primary."""

    node: str


@dataclass(slots=True)
class Group:
    """A replication group of ``ports`` (node -> port). ``patience_s`` is how long its primary may fail, in seconds of the given clock.

    ``primary`` is where the endpoint leads; None until a node has been found or made it. ``condemned``: somebody asked for a failover,
    and the primary counts as failed. ``cut``: replicas are to hear nothing of the primary.
    """

    ports: Mapping[str, int]
    patience_s: float
    primary: str | None = None
    condemned: bool = False
    cut: bool = False
    failing_since: float | None = None
    _failed_checks: int = 0
    _history: str = ""
    _written: deque[tuple[float, int]] = field(default_factory=lambda: deque(maxlen=SAMPLES))

    def decide(self, seen: Mapping[str, Sight], now: float) -> list[Promote | Follow]:
        """What has to be done, given what every node said at the time ``now``."""
        if self.primary is None:
            self.primary = self._found(seen)
        if self.primary is not None and not self.condemned and seen[self.primary].primary:
            self.failing_since, self._failed_checks = None, 0
            self._history = seen[self.primary].history
            source = DEAD_END if self.cut else self.ports[self.primary]
            return [Follow(node) for node in self._others() if seen[node].answers and seen[node].follows != source]
        self._failed_checks += 1
        self.failing_since = now if self.failing_since is None else self.failing_since
        return self._replace(seen, self._failed_checks >= FAILED_CHECKS and now - self.failing_since >= self.patience_s)

    def promoted(self, node: str) -> None:
        """Take note that ``node`` has become the primary."""
        self.primary, self.condemned, self.cut = node, False, False
        self.failing_since, self._failed_checks, self._history = None, 0, ""
        self._written.clear()

    def lag_s(self, seen: Mapping[str, Sight], now: float) -> dict[str, float]:
        """How far each replica is behind that has the primary's data: the age of the oldest write that it lacks, 0 where it lacks none.

        It is compared with what the primary had at the last call: within one check nobody can tell.
        """
        replicas = {node: seen[node] for node in self._others() if self._history and seen[node].history == self._history}
        lags = {node: next((now - at for at, offset in self._written if offset > sight.offset), 0.0) for node, sight in replicas.items()}
        known = [sight.offset for sight in replicas.values()]
        while self._written and known and self._written[0][1] <= min(known):
            self._written.popleft()
        if self.primary is not None and seen[self.primary].primary:
            offset = seen[self.primary].offset
            if not self._written or (offset > self._written[-1][1] and now - self._written[-1][0] >= 1.0):
                self._written.append((now, offset))
        return lags

    def is_well(self, node: str, seen: Mapping[str, Sight]) -> bool:
        """Whether a node is what it should be: the primary, or a replica that gets the primary's writes."""
        if self.primary is None or node == self.primary:
            return node == self.primary and seen[node].primary
        port = self.ports[self.primary]
        return seen[node].in_sync and seen[node].follows == port and self.ports[node] in seen[self.primary].feeds

    def whole(self, seen: Mapping[str, Sight]) -> bool:
        """Whether every node is well, and nobody has asked for anything else."""
        return not self.condemned and not self.cut and all(self.is_well(node, seen) for node in self.ports)

    def _others(self) -> list[str]:
        return [node for node in self.ports if node != self.primary]

    def _found(self, seen: Mapping[str, Sight]) -> str | None:
        """Who is the primary, as far as the nodes tell: one that says so (the one that got further), or one that is followed."""
        primaries = [node for node in self.ports if seen[node].primary]
        if primaries:
            return max(primaries, key=lambda node: seen[node].offset)
        for node, port in self.ports.items():
            if followers := [sight for sight in seen.values() if sight.follows == port and sight.offset > 0]:
                self._history = followers[0].history
                return node
        return None

    def _replace(self, seen: Mapping[str, Sight], is_time: bool) -> list[Promote | Follow]:
        """Somebody for a primary that fails; nobody where it would lose what another node may hold."""
        heirs = [node for node in self._others() if seen[node].answers and self._history and seen[node].history == self._history]
        if heirs:
            return [Promote(max(heirs, key=lambda node: seen[node].offset))] if is_time else []
        if self.condemned:
            self.condemned = False
            return []
        answering = [node for node in self.ports if seen[node].answers]
        sure = is_time or self.primary is None or len(answering) == len(self.ports)
        lost = all(sight.state != "silent" for sight in seen.values())
        if not (answering and sure and lost):
            return []
        return [Promote(next((node for node in answering if seen[node].primary), answering[0]))]
