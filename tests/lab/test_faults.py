"""The catalogue of faults and the board that keeps account of them. What each fault really breaks is in test_faults_live.py."""

from __future__ import annotations

import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from lab.clock import LabClock
from lab.control import Refused
from lab.faults import CATALOGUE, Board, Catalogue, Fault, Ground, Where
from lab.faults.__main__ import page

GROUND = cast("Ground", SimpleNamespace(plan=SimpleNamespace(clock=LabClock.start(), regions={"us-east-1": None, "us-west-2": None})))


def make(done: list[Any]) -> Board:
    """A board of two faults that write down what they do."""

    def fault(name: str, where: Where) -> Fault:
        return Fault(
            name,
            "test",
            "A sentence.",
            "a sign",
            where,
            lambda _ground, region: (done.append((name, "broken", region)), f"memory of {name}")[1],
            lambda _ground, region, memory: done.append((name, "mended", region, memory)),
        )

    return Board(GROUND, Catalogue([fault("regional", Where.REGION), fault("global", Where.LAB)]))


def test_the_catalogue_explains_each_fault_in_a_sentence() -> None:
    """At least 35, each with a sentence that begins and ends like one, and where its damage shows."""
    assert len(CATALOGUE) >= 35
    for fault in CATALOGUE:
        assert re.fullmatch(r"[a-z][a-z0-9-]+", fault.name)
        assert re.fullmatch(r"[A-Z].*\.", fault.sentence), fault.name
        assert fault.shows, fault.name
        assert not fault.shows.endswith("."), fault.name


def test_the_page_about_faults_is_up_to_date() -> None:
    """docs/lab/faults.md is what `python -m lab.faults` prints."""
    assert (Path(__file__).parents[2] / "docs" / "lab" / "faults.md").read_text() == page()


def test_the_catalogue_has_what_the_architecture_can_suffer() -> None:
    """One name of each kind that the lab promises."""
    names = {fault.name for fault in CATALOGUE}
    assert names >= {
        "region-down", "region-cut-off", "catalog-down", "orders-slow", "carts-erroring", "ui-wrong-body", "ui-without-assets",
        "alb-without-targets", "dns-stuck", "dns-down", "ttl-ignored", "certificate-expiring", "certificate-expired", "orders-writer-down",
        "orders-replication-paused", "orders-lag", "orders-two-writers", "orders-failover-stuck", "redis-down", "redis-full", "broker-down",
        "redis-primary-down", "redis-failover",
        "broker-blocked", "orders-consumer-stuck", "carts-replication-cut", "carts-table-throttled", "canary-hanging", "cloudwatch-down",
        "all-controls-off", "arc-down", "telemetry-throttled", "vantage-clock-skewed", "orders-bad-deploy", "carts-memory-leak",
        "vantage-network-down",
    }  # fmt: skip


def test_a_fault_strikes_the_first_region_by_default_and_heals_with_its_memory() -> None:
    """What inject returned, heal gets; the healed one is remembered with its end."""
    done: list[Any] = []
    board = make(done)
    assert board.inject("regional").region == "us-east-1"
    assert [each.fault.name for each in board.heal("regional")] == ["regional"]
    assert done == [("regional", "broken", "us-east-1"), ("regional", "mended", "us-east-1", "memory of regional")]
    assert board.active() == []
    (past,) = board.past()
    assert past.until is not None
    assert past.until >= past.since


def test_faults_heal_in_reverse_order() -> None:
    """The last broken is the first mended."""
    done: list[Any] = []
    board = make(done)
    board.inject("regional", "us-west-2")
    board.inject("global")
    board.inject("regional", "us-east-1")
    board.heal()
    assert [entry[0::2] for entry in done[3:]] == [("regional", "us-east-1"), ("global", ""), ("regional", "us-west-2")]


@pytest.mark.parametrize(
    ("name", "region", "message"),
    [
        ("regionl", None, "did you mean regional"),
        ("xyz", None, "'lab fault list' shows all"),
        ("regional", "eu-west-1", "eu-west-1 is not a Region of this lab: us-east-1, us-west-2"),
        ("global", "us-east-1", "global has no Region"),
    ],
)
def test_what_makes_no_sense_is_refused(name: str, region: str | None, message: str) -> None:
    """With the reason and, where there is one, the mend."""
    with pytest.raises(Refused, match=message):
        make([]).inject(name, region)


def test_a_fault_in_force_is_not_injected_twice_and_one_that_is_not_is_not_healed() -> None:
    """But the same fault may strike two Regions."""
    board = make([])
    board.inject("regional", "us-east-1")
    board.inject("regional", "us-west-2")
    with pytest.raises(Refused, match="regional is in force already in us-east-1"):
        board.inject("regional", "us-east-1")
    with pytest.raises(Refused, match="global is not in force"):
        board.heal("global")
    assert len(board.heal(region="us-west-2")) == 1
    assert len(board.heal()) == 1
    assert board.heal() == []


def test_a_fault_that_cannot_be_injected_is_not_in_force() -> None:
    """What stopped it is told; the board does not claim that it happened."""

    def fail(*_: Any) -> None:
        raise ConnectionRefusedError("nobody listens")

    board = Board(GROUND, Catalogue([Fault("broken", "test", "S.", "s", Where.LAB, fail, fail)]))
    with pytest.raises(Refused, match="broken could not be injected: ConnectionRefusedError: nobody listens"):
        board.inject("broken")
    assert board.active() == []
