"""Who becomes the primary: the decisions of a replication group, played with nodes that die, hang, return and lose their link."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field

from hypothesis import given, settings
from hypothesis import strategies as st

from lab.data.replication_group import DEAD_END, GONE, SILENT, Follow, Group, Promote, Sight

PORTS = {"001": 1001, "002": 1002}
PATIENCE_S = 30.0


@dataclass
class Server:
    """A Redis server, as far as roles go: ``writes`` are the histories of what it holds."""

    port: int
    ids: itertools.count[int]
    up: bool = True
    hangs: bool = False
    follows: int = DEAD_END
    history: str = ""
    offset: int = 0

    def __post_init__(self) -> None:
        self.history = f"h{next(self.ids)}"

    def restart(self) -> None:
        self.up, self.hangs, self.follows, self.offset, self.history = True, False, DEAD_END, 0, f"h{next(self.ids)}"


@dataclass
class World:
    """Two servers and the group that decides about them."""

    ids: itertools.count[int] = field(default_factory=itertools.count)
    group: Group = field(default_factory=lambda: Group(PORTS, PATIENCE_S))
    now: float = 0.0
    current: str = ""

    def __post_init__(self) -> None:
        self.nodes = {node: Server(port, self.ids) for node, port in PORTS.items()}

    def see(self) -> dict[str, Sight]:
        return {node: self._sight(server) for node, server in self.nodes.items()}

    def _source(self, server: Server) -> Server | None:
        source = next((one for one in self.nodes.values() if one.port == server.follows), None)
        return source if source and source.up and not source.hangs and source.follows == 0 else None

    def _sight(self, server: Server) -> Sight:
        if not server.up:
            return GONE
        if server.hangs:
            return SILENT
        primary, in_sync = server.follows == 0, self._source(server) is not None
        feeds = frozenset(one.port for one in self.nodes.values() if one.up and not one.hangs and self._source(one) is server)
        return Sight("answers", primary, server.history, server.offset, server.follows, in_sync, feeds)

    def replicate(self) -> None:
        """What Redis does by itself: a replica of a primary that serves takes everything from it."""
        for server in self.nodes.values():
            if server.up and not server.hangs and (source := self._source(server)):
                server.history, server.offset = source.history, source.offset

    def write(self) -> None:
        """A client's write arrives where the endpoint leads."""
        server = self.nodes.get(self.group.primary or "")
        if server and server.up and not server.hangs and server.follows == 0:
            server.offset += 1

    def holders(self) -> set[str]:
        """The nodes that have what the primary last had, or a part of it: also those that hang, which may wake up."""
        primary = self.nodes.get(self.group.primary or "")
        if primary and primary.up and primary.follows == 0:
            self.current = primary.history
        return {node for node, server in self.nodes.items() if server.up and server.history == self.current}

    def check(self) -> list[Promote | Follow]:
        """One check of the keeper."""
        orders = self.group.decide(self.see(), self.now)
        for order in orders:
            server = self.nodes[order.node]
            if isinstance(order, Promote):
                server.follows, server.history = 0, f"h{next(self.ids)}"
                self.group.promoted(order.node)
            else:
                server.follows = DEAD_END if self.group.cut else PORTS[self.group.primary or ""]
        return orders

    def settle(self, seconds: float = 120.0) -> None:
        """Let checks and replication go on."""
        until = self.now + seconds
        while self.now < until:
            self.check()
            self.replicate()
            self.now += 1.0


def whole() -> World:
    """A group after its start."""
    world = World()
    world.settle(5)
    assert world.group.whole(world.see())
    return world


EVENTS = st.lists(
    st.tuples(st.sampled_from(["kill", "start", "hang", "wake", "write", "cut", "mend", "test", "pass"]), st.sampled_from(list(PORTS))),
    max_size=30,
)


@settings(max_examples=300, deadline=None)
@given(EVENTS)
def test_no_node_with_data_is_passed_over_and_the_group_becomes_whole_again(events: list[tuple[str, str]]) -> None:
    """One without data is never promoted while another has, or may have, some; one with data not before the patience is over."""
    world = whole()
    for what, node in events:
        server, group = world.nodes[node], world.group
        match what:
            case "kill":
                server.up = server.hangs = False
            case "start" if not server.up:
                server.restart()
            case "hang":
                server.hangs = server.up
            case "wake":
                server.hangs = False
            case "write":
                world.write()
            case "cut" | "mend":
                group.cut = what == "cut"
            case "test":
                group.condemned = group.condemned or group.whole(world.see())
            case "pass":
                world.now += 20.0
        holders, failing_since = world.holders(), group.failing_since
        promoted = [order.node for order in world.check() if isinstance(order, Promote)]
        assert len(promoted) <= 1
        for node in promoted:
            assert world.nodes[node].up
            assert not world.nodes[node].hangs
            assert not holders or node in holders
            assert not holders or (failing_since is not None and world.now - failing_since >= PATIENCE_S)
        world.replicate()
        world.now += 1.0
    for server in world.nodes.values():
        server.hangs = False
        if not server.up:
            server.restart()
    world.group.cut = False
    world.settle()
    assert world.group.whole(world.see())
    primaries = [node for node, server in world.nodes.items() if server.follows == 0]
    assert primaries == [world.group.primary]


def test_a_replica_waits_for_the_patience_and_three_checks() -> None:
    """Not for less, however long a check took."""
    world = whole()
    world.nodes["001"].up = False
    world.check()
    world.now += PATIENCE_S + 1
    assert world.check() == []
    assert world.check() == [Promote("002")]


def test_a_primary_that_answers_again_in_time_stays() -> None:
    """The failure is forgotten."""
    world = whole()
    world.nodes["001"].hangs = True
    for _ in range(20):
        world.check()
        world.now += 1.0
    world.nodes["001"].hangs = False
    assert world.check() == []
    world.nodes["001"].hangs = True
    for _ in range(20):
        assert world.check() == []
        world.now += 1.0


def test_a_new_primary_that_fails_at_once_gets_as_long_as_any() -> None:
    """What the old one took is not counted against it."""
    world = whole()
    world.nodes["001"].hangs = True
    while world.group.primary == "001":
        world.check()
        world.now += 1.0
    world.nodes["002"].up = world.nodes["001"].hangs = False
    since = world.now
    while world.group.primary == "002":
        world.check()
        world.now += 1.0
    assert world.now - since > PATIENCE_S


def test_what_an_older_primary_still_has_is_better_than_nothing() -> None:
    """The new one died with everything before anybody followed it; the old one wakes up."""
    world = whole()
    world.nodes["001"].up = False
    world.settle(60)
    world.nodes["001"].restart()
    world.settle(10)
    world.nodes["002"].hangs = True
    world.settle(60)
    assert world.group.primary == "001"
    world.nodes["001"].restart()
    world.nodes["002"].hangs = False
    world.settle(60)
    assert world.group.primary == "002"
    assert world.group.whole(world.see())


def test_a_failover_that_nobody_can_take_over_is_called_off() -> None:
    """The replica dies after TestFailover was accepted: the primary goes on."""
    world = whole()
    world.group.condemned = True
    world.nodes["002"].up = False
    world.check()
    assert not world.group.condemned
    world.settle()
    assert world.group.primary == "001"


def test_of_two_that_call_themselves_primary_the_one_that_got_further_is() -> None:
    """A keeper that starts again while the old primary has just come back."""
    world = whole()
    world.nodes["001"].hangs = True
    world.settle(60)
    assert world.group.primary == "002"
    world.write()
    world.nodes["001"].hangs = False
    world.group = Group(PORTS, PATIENCE_S)
    assert world.check() == [Follow("001")]
    assert world.group.primary == "002"


def test_a_keeper_that_starts_again_without_the_primary_promotes_its_replica() -> None:
    """The replica says whom it followed, and that it has its data."""
    world = whole()
    world.write()
    world.replicate()
    world.nodes["001"].hangs = True
    world.group = Group(PORTS, PATIENCE_S)
    world.settle(60)
    assert world.group.primary == "002"


def test_the_lag_is_the_age_of_the_oldest_write_that_is_missing() -> None:
    """Nothing is missing: 0; a write that came since the last look is not counted."""
    world = whole()
    assert world.group.lag_s(world.see(), world.now) == {"002": 0.0}
    world.group.cut = True
    world.check()
    world.now += 10
    world.write()
    assert world.group.lag_s(world.see(), world.now) == {"002": 0.0}
    world.now += 25
    assert world.group.lag_s(world.see(), world.now) == {"002": 25.0}
    world.group.cut = False
    world.check()
    world.replicate()
    assert world.group.lag_s(world.see(), world.now) == {"002": 0.0}
    world.nodes["002"].up = False
    assert world.group.lag_s(world.see(), world.now) == {}
