"""The catalogue of faults and the board that keeps account of them. What each fault really breaks is in test_faults_live.py."""

from __future__ import annotations

import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from lab.clock import LabClock
from lab.control import Refused, Unusable
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


def settle(*faults: Fault) -> Board:
    """A board of these faults."""
    return Board(GROUND, Catalogue(faults))


def setting(name: str, where: Where = Where.REGION, touches: tuple[str, ...] = (), forgets: tuple[str, ...] = ()) -> Fault:
    """A fault that does nothing and says what it has to do with."""

    def nothing(*_: Any) -> None:
        pass

    return Fault(name, "test", "S.", "s", where, nothing, nothing, frozenset(touches), frozenset(forgets))


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
        "vantage-network-down", "orders-consumer-gone",
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
    """As input that no state of the lab could use, with the reason and, where there is one, the mend."""
    with pytest.raises(Unusable, match=message):
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


def test_who_heals_what_there_is_not_is_told_so() -> None:
    """A name or a Region that nothing has."""
    with pytest.raises(Unusable, match="did you mean regional"):
        make([]).heal("regionl")
    with pytest.raises(Unusable, match="mars is not a Region of this lab"):
        make([]).heal(region="mars")


def test_two_faults_of_one_setting_are_not_in_force_together() -> None:
    """In one Region; in another it is another setting, and after healing it is free."""
    board = settle(setting("slow", touches=("conduct of {region}",)), setting("wrong", touches=("conduct of {region}",)))
    board.inject("slow", "us-east-1")
    with pytest.raises(Refused, match=r"slow is in force in us-east-1 .* conduct of us-east-1. Heal slow first."):
        board.inject("wrong", "us-east-1")
    board.inject("wrong", "us-west-2")
    board.heal("slow")
    board.inject("wrong", "us-east-1")


def test_a_fault_of_the_lab_has_to_do_with_the_setting_of_every_region() -> None:
    """And a setting that is the lab's is one, wherever it is struck from."""
    board = settle(setting("one", touches=("switch of {region}", "link")), setting("all", Where.LAB, touches=("switch of {region}",)))
    board.inject("one", "us-west-2")
    with pytest.raises(Refused, match="Heal one first"):
        board.inject("all")
    with pytest.raises(Refused, match="has to do with the same: link"):
        board.inject("one", "us-east-1")


def test_what_a_fault_would_make_forgotten_is_not_in_force_with_it() -> None:
    """Whichever comes first; two that only make things forgotten do overlap."""
    told = setting("told", touches=("memory",))
    for first, second in (("told", "killed"), ("killed", "told")):
        board = settle(told, setting("killed", forgets=("memory",)), setting("lost", forgets=("memory",)))
        board.inject(first)
        with pytest.raises(Refused, match=f"Heal {first} first"):
            board.inject(second)
    board.inject("lost")


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("alb-without-targets", "ui-down"),
        ("redis-full", "redis-evicting"),
        ("redis-full", "redis-primary-down"),
        ("dns-down", "dns-stuck"),
        ("resolver-slow", "ttl-ignored"),
        ("arc-endpoint-down", "arc-down"),
        ("drained", "all-controls-off"),
        ("ui-slow", "ui-erroring"),
        ("ui-slow", "ui-down"),
        ("ui-slow", "region-down"),
        ("catalog-slow", "catalog-stuck-deploy"),
        ("certificate-expiring", "certificate-expired"),
        ("certificate-expired", "alb-down"),
        ("alb-wrong-port", "ui-without-assets"),
        ("region-cut-off", "peering-refused"),
        ("orders-lag", "orders-replication-cut"),
        ("orders-writer-down", "orders-two-writers"),
        ("broker-blocked", "broker-down"),
        ("orders-consumer-gone", "orders-bad-deploy"),
    ],
)
def test_pairs_of_the_catalogue_that_would_undo_one_another(one: str, other: str) -> None:
    """Whichever comes first."""
    regions = ("us-east-1", "us-west-2")
    first, second = CATALOGUE.get(one), CATALOGUE.get(other)
    here = ["us-east-1" if each.where is Where.REGION else "" for each in (first, second)]
    assert first.clash(here[0], second, here[1], regions)
    assert second.clash(here[1], first, here[0], regions)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("region-down", "redis-primary-down"),
        ("region-down", "redis-hanging"),
        ("region-down", "orders-failover-stuck"),
        ("region-down", "orders-replication-cut"),
        ("ui-slow", "catalog-erroring"),
        ("dns-stuck", "drained"),
        ("region-down", "drained"),
        ("peering-slow", "peering-refused"),
        ("broker-blocked", "broker-disk-full"),
    ],
)
def test_pairs_of_the_catalogue_that_overlap(one: str, other: str) -> None:
    """Each has what it heals for itself."""
    assert not CATALOGUE.get(one).clash("us-east-1", CATALOGUE.get(other), "us-east-1", ("us-east-1", "us-west-2"))


def test_the_same_links_are_not_cut_from_both_ends() -> None:
    """Of two Regions there is one link: healing one end would mend the other's cut."""
    cut = CATALOGUE.get("region-cut-off")
    assert cut.clash("us-east-1", cut, "us-west-2", ("us-east-1", "us-west-2"))


def test_healing_goes_on_over_what_cannot_be_healed_and_comes_back_to_it() -> None:
    """What was in the way may be gone by then; what still cannot be healed stays in force, and the reason is told."""
    healed: list[str] = []

    def fault(name: str, needs: str = "") -> Fault:
        def heal(*_: Any) -> None:
            if needs and needs not in healed:
                raise ConnectionRefusedError(f"{needs} is away")
            healed.append(name)

        return Fault(name, "test", "S.", "s", Where.LAB, lambda *_: None, heal)

    board = settle(fault("first"), fault("second", needs="first"), fault("third", needs="nothing"))
    for name in ("first", "second", "third"):
        board.inject(name)
    with pytest.raises(Refused, match=r"^third could not be healed: ConnectionRefusedError: nothing is away$"):
        board.heal()
    assert healed == ["first", "second"]
    assert [each.fault.name for each in board.active()] == ["third"]


def test_what_a_failed_injection_had_begun_is_undone() -> None:
    """With what it had noted; where that fails as well the fault is in force, to be healed later."""
    undone: list[Any] = []

    def begin(ground: Ground, _region: str) -> None:
        ground.begun = 2
        raise ConnectionResetError("half-way")

    def undo(_ground: Ground, _region: str, memory: Any) -> None:
        undone.append(memory)
        if len(undone) == 2:
            raise ConnectionRefusedError("nobody listens")

    board = settle(Fault("half", "test", "S.", "s", Where.LAB, begin, undo))
    with pytest.raises(Refused, match=r"half could not be injected: ConnectionResetError: half-way$"):
        board.inject("half")
    assert (undone, board.active()) == ([2], [])
    with pytest.raises(Refused, match=r"could not be undone \(nobody listens\): it counts as in force"):
        board.inject("half")
    assert [each.fault.name for each in board.active()] == ["half"]
    board.heal("half")
    assert (undone, board.active()) == ([2, 2, 2], [])
