"""Every fault of the caches, and the loss of their Region, with caches and the local AWS alone: it shows, and all is whole afterwards."""

from __future__ import annotations

import sys
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, cast

import pytest

from lab import admin, data
from lab.faults import CATALOGUE, Board, Ground
from lab.plan import LabPlan
from lab.process import ProcessSpec
from lab.state import StateDirectory, processes_of
from lab.supervisor import Supervisor
from tests.lab.damage import SIGNS, Eyes
from tests.lab.rig import wait_for

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.lab.conftest import Lab

pytestmark = pytest.mark.slow
EAST = "us-east-1"
SPEED = 10.0
FAULTS = [fault.name for fault in CATALOGUE if fault.name.startswith("redis-")]


class Caches:
    """The caches of a lab under its supervisor, with a board of faults."""

    def __init__(self, plan: LabPlan, supervisor: Supervisor) -> None:
        self.plan = plan
        self.ground = Ground(plan, supervisor)
        self.board = Board(self.ground, CATALOGUE)
        self.eyes = Eyes(cast("Lab", SimpleNamespace(plan=plan, client=self.ground.client)))

    def whole(self) -> None:
        """Wait until the groups of all Regions are whole."""
        for region in self.plan.regions:
            wait_for(f"the cache of {region}", lambda region=region: self.eyes.cache(region)["whole"], 30.0)
            wait_for(f"the endpoint of {region}", lambda region=region: not self.eyes.set_redis(region), 10.0)


@pytest.fixture(scope="module")
def caches(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Caches]:
    """Two Regions' caches and the local AWS."""
    directory: Path = tmp_path_factory.mktemp("caches") / "lab"
    state = StateDirectory.claim(directory)
    plan = LabPlan.make(directory, speed=SPEED)
    plan.save()
    supervisor = Supervisor(plan, state)
    try:
        aws = ProcessSpec(
            name="aws",
            argv=(sys.executable, "-m", "lab.aws", "--plan", str(directory / "plan.json")),
            directory=data.ROOT,
            environment=data.environment(plan),
            ready=lambda: bool(admin.call(plan.control_port, "GET", "/health")),
            ready_within_s=60.0,
        )
        supervisor.start([aws, *(spec for region in plan.regions.values() for spec in data.cache_processes(plan, region))])
        made = Caches(plan, supervisor)
        made.whole()
        yield made
    finally:
        supervisor.close()
    assert not list(processes_of(state.identity))


@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_shows_and_heals(caches: Caches, name: str) -> None:
    """Not before, under it, and not after; the other Region's cache has nothing of it."""
    sign, other = SIGNS[name], next(region for region in caches.plan.regions if region != EAST)
    assert not sign(caches.eyes, EAST)
    caches.board.inject(name, EAST)
    try:
        wait_for(f"the damage of {name}", lambda: sign(caches.eyes, EAST), 25.0)
        assert caches.eyes.set_redis(other) == ""
    finally:
        caches.board.heal()
    caches.whole()
    assert not sign(caches.eyes, EAST)


def test_a_lost_region_takes_its_cache_along_and_brings_it_back_whole(caches: Caches) -> None:
    """Nodes and keeper die with it; also when the primary was lost before, and is given back after."""
    caches.board.inject("redis-primary-down", EAST)
    wait_for("the failover", lambda: SIGNS["redis-primary-down"](caches.eyes, EAST), 25.0)
    caches.board.inject("region-down", EAST)
    states: dict[str, Any] = {each.name: each.state for each in caches.ground.processes.status() if each.region == EAST}
    assert set(states.values()) == {"stopped"}
    assert caches.eyes.set_redis(EAST) == "ConnectionError"
    caches.board.heal("region-down", EAST)
    assert not caches.eyes.cache(EAST)["whole"]
    caches.board.heal("redis-primary-down", EAST)
    caches.whole()


def test_a_region_comes_back_while_a_node_of_its_cache_hangs(caches: Caches) -> None:
    """The keeper does not wait for the node that the other fault keeps frozen."""
    caches.board.inject("redis-hanging", EAST)
    caches.board.inject("region-down", EAST)
    caches.board.heal("region-down", EAST)
    states = sorted(each.state for each in caches.ground.processes.status() if each.region == EAST)
    assert states == ["frozen", "ready", "ready"]
    caches.board.heal("redis-hanging", EAST)
    caches.whole()
