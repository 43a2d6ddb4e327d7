"""The contract "this fault -> that page, and no other": its table is complete, its verdicts are right, and it holds on a running lab."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any
from xml.etree import ElementTree as ET

import pytest
from typer.testing import CliRunner

from alarms.diagnosis import diagnoses
from alarms.rendering import TICKETS
from lab.commands import app
from lab.faults import CATALOGUE
from lab.matrix import flow, pages
from lab.matrix.expected import CELLS, HERE, Expectation, Page, expected
from lab.matrix.flow import Result, as_junit, summary
from lab.matrix.record import Heard, Points, Record, Seen, load
from lab.matrix.vended import MOVES, moved, problem
from lab.matrix.verdict import findings, observed
from lab.matrix.watch import as_heard, as_seen, classify
from topology import load as load_topology
from topology.signals import CATALOGUE as SIGNALS

if TYPE_CHECKING:
    from tests.lab.conftest import Lab

EAST, WEST = "us-east-1", "us-west-2"
IMPAIRED = Expectation(
    Page("region-impaired", "{here}"), sees=dict.fromkeys(("here>here", "there>here", "here>name"), frozenset({"refused"}))
)
PATIENCES = (1.0, 3.0)
WOKEN = "somebody was woken for nothing:"
NO_GAP = "region-impaired us-east-1 was paged: this is no gap any more, correct lab/matrix/expected.py"


def heard(**changes: Any) -> Heard:
    """The right page for an impaired us-east-1, resolved."""
    return replace(Heard("region-impaired", EAST, WEST, "critical", True, "us-east-1 does not serve", 45.0, 200.0, 2), **changes)


def ticket(diagnosis: str) -> Heard:
    """A resolved ticket."""
    return heard(diagnosis=diagnosis, subject="orders", severity="warning", urgent=False)


def rounds(east: dict[str, str], west: dict[str, str]) -> list[Seen]:
    """Ten rounds of both vantages; classes by target, ``ok`` where not given."""
    targets = (f"alb-{EAST}", f"alb-{WEST}", "name")
    return [
        Seen(
            50.0 + 10 * number,
            vantage,
            {target: wrong.get(target, "ok") for target in targets},
            {target: [] for target in targets},
            True,
            False,
        )
        for number in range(10)
        for vantage, wrong in ((EAST, east), (WEST, west))
    ]


DOWN = rounds({f"alb-{EAST}": "refused", "name": "refused"}, {f"alb-{EAST}": "refused"})


def record(**changes: Any) -> Record:
    """A good record of alb-down in us-east-1."""
    values: dict[str, Any] = {"healed": 1160.0, "green": 1260.0, "heard": [heard()], "seen": DOWN, **changes}
    return Record("alb-down", EAST, WEST, 5.0, 1.0, 1000.0, **values)


def test_every_fault_says_what_it_must_lead_to() -> None:
    """No fault without an expectation, no expectation without a fault, whatever the lab's speed."""
    for patience in PATIENCES:
        assert set(expected(patience)) == {fault.name for fault in CATALOGUE}


def test_what_must_come_is_something_that_can() -> None:
    """Pages and tickets of the table are diagnoses of the product; only a gap may name one that does not exist yet."""
    topology = load_topology(Path(__file__).parents[2] / "topology.yaml")
    urgent = {each.kind for region in topology.regions for each in diagnoses(topology, region) if each.pages}
    calm = {each.kind for region in topology.regions for each in diagnoses(topology, region) if not each.pages}
    calm |= TICKETS.keys()  # more than the example has: the lab's caches have replicas
    for patience in PATIENCES:
        for name, wanted in expected(patience).items():
            if wanted.page and not wanted.gap:
                assert wanted.page.diagnosis in urgent, name
            assert wanted.tickets <= calm, name
            assert set(wanted.sees) <= set(CELLS), name


def test_who_is_not_woken_has_a_reason() -> None:
    """Nobody is woken only where the table says why that is right."""
    assert [name for name, wanted in expected(1.0).items() if (wanted.page is None or wanted.or_nobody) and not wanted.why] == []


def test_a_slow_page_is_no_answer_to_an_impatient_probe() -> None:
    """A lab at high speed waits 1 s, at most: what takes 1.5 s is slow at speed 1 and a timeout there."""
    assert expected(3.0)["ui-slow"].page is None
    assert expected(3.0)["ui-slow"].sees["here>here"] == {"slow"}
    assert expected(1.0)["ui-slow"].page == Page("region-impaired", "{here}")
    assert expected(1.0)["ui-slow"].sees["here>here"] == {"timeout"}


def test_what_must_come_and_nothing_else_is_good() -> None:
    assert findings(record(), IMPAIRED) == []


@pytest.mark.parametrize(
    ("changes", "wanted", "finding"),
    [
        ({"heard": []}, IMPAIRED, "no page says region-impaired us-east-1"),
        ({"heard": [heard(), heard(opened=100.0)]}, IMPAIRED, "region-impaired us-east-1 was paged 2 times"),
        ({"heard": [heard(opened=300.0)]}, IMPAIRED, "region-impaired us-east-1 was paged after 300 s, and not within 240 s"),
        ({"heard": [heard(), heard(diagnosis="store-down", subject="retail")]}, IMPAIRED, f"{WOKEN} store-down retail"),
        ({"heard": [heard(subject=WEST)]}, IMPAIRED, f"{WOKEN} region-impaired us-west-2"),
        ({"heard": [heard(diagnosis="plain text", subject="ALARM")]}, IMPAIRED, f"{WOKEN} plain text ALARM"),
        ({"heard": [heard(), ticket("rpo")]}, IMPAIRED, "a ticket about something else: rpo orders"),
        ({}, replace(IMPAIRED, tickets=frozenset({"rpo"})), "no ticket says rpo"),
        ({"heard": [heard(resolved=None)]}, IMPAIRED, "region-impaired us-east-1 was never resolved"),
        ({"green": None}, IMPAIRED, "not all is well again"),
        ({"troubles": ["alb-down could not be healed"]}, IMPAIRED, "alb-down could not be healed"),
        ({}, replace(IMPAIRED, gap="not observed"), NO_GAP),
        ({"seen": rounds({}, {})}, IMPAIRED, "the probe says ok of here>here, not refused"),
        ({"seen": DOWN}, replace(IMPAIRED, sees={}), "the probe says refused of there>here, not ok"),
        ({"seen": [each for each in DOWN if each.vantage == EAST]}, IMPAIRED, "the probe says silent of there>there, not ok"),
    ],
)  # fmt: skip
def test_what_does_not_hold_is_said(changes: dict[str, Any], wanted: Expectation, finding: str) -> None:
    """One broken contract, one sentence about it."""
    assert finding in findings(record(**changes), wanted)


def test_a_gap_may_stay_silent_and_nobody_else_may_be_woken() -> None:
    gap = replace(IMPAIRED, gap="not observed")
    assert findings(record(heard=[]), gap) == []
    assert findings(record(heard=[heard(diagnosis="store-down", subject="retail")]), gap) == [f"{WOKEN} store-down retail"]


def test_a_page_from_the_dead_region_is_wrong() -> None:
    dead = record(heard=[heard(region=EAST)])
    dead.fault = "region-down"
    assert "the page comes from us-east-1, which is dead" in findings(dead, IMPAIRED)


def test_the_first_rounds_do_not_count_and_a_busy_machine_is_forgiven() -> None:
    """DNS caches hold for a while, and one odd round among ten is noise; slow where ok was declared is no wrong class."""
    early = [replace(each, at=10.0, classes=dict.fromkeys(each.classes, "timeout")) for each in DOWN * 3]
    slow = [replace(each, classes=each.classes | {f"alb-{WEST}": "slow"}) for each in DOWN]
    assert findings(record(seen=early + slow), IMPAIRED) == []
    assert observed(record(seen=early + slow))["here>there"] == "slow"


@pytest.mark.parametrize(
    ("cell", "kinds", "word"),
    [
        ("up", [], "ok"),
        ("degraded", [], "slow"),
        ("degraded", ["status"], "status"),
        ("down", ["timeout", "refused", "refused"], "refused"),
    ],
)
def test_one_word_for_what_was_seen(cell: str, kinds: list[str], word: str) -> None:
    assert classify(cell, kinds) == word


def test_a_line_of_the_probes_log_is_understood() -> None:
    line = {
        "slot": 1060.0,
        "vantage": EAST,
        "cells": {"name": "degraded"},
        "dns_agrees": None,
        "pooled": {"stale": True},
        "looks": [
            {"target": "name", "page": "home", "ok": True},
            {"target": "name", "page": "cart", "ok": False, "kind": "status"},
        ],
    }
    assert as_seen(line, 1000.0) == Seen(60.0, EAST, {"name": "status"}, {"name": ["cart"]}, None, True)


def test_a_bare_alarm_is_heard_as_plain_text() -> None:
    """What comes past the notifier is a page like any other, and its Region is not known."""
    incident = {"page": None, "summary": "ALARM: retail-impaired", "severity": "", "urgent": True, "opened": 1010.0, "resolved": None}
    got = as_heard({**incident, "notifications": [1]}, 1000.0)
    assert (got.diagnosis, got.subject, got.region, got.opened) == ("plain text", "ALARM: retail-impaired", "", 10.0)


@pytest.mark.parametrize(
    ("way", "before", "during", "after", "what"),
    [
        ("up", [10], [30], [11], ""),
        ("up", [10], [11], [11], "did not rise"),
        ("up", [0], [0], [0], "did not rise"),
        ("up", [10], [30], [30], "did not fall again"),
        ("up", [10], [], [10], "not there under it"),
        ("down", [1], [0], [1], ""),
        ("down", [1], [1], [1], "did not fall"),
        ("down", [1], [0], [0], "did not rise again"),
        ("absent", [5], [], [5], ""),
        ("absent", [5], [5], [5], "still there under it"),
        ("absent", [], [], [5], "not there before the fault"),
        ("absent", [5], [], [], "not back after it"),
        ("appears", [], [3], [], ""),
        ("appears", [0], [3], [2, 0], ""),
        ("appears", [], [], [], "did not appear"),
        ("appears", [1], [3], [], "there before the fault"),
        ("appears", [], [3], [3], "still there after it"),
    ],
)  # fmt: skip
def test_a_movement_there_and_back(way: Any, before: list[float], during: list[float], after: list[float], what: str) -> None:
    assert problem(way, before, during, after) == what


def test_every_vended_metric_has_a_fault_that_moves_it() -> None:
    """No metric of AWS's in the catalogue goes untried, and none is tried that is not there."""
    assert {move.signal for move in MOVES} == {signal for signal in SIGNALS if signal.vended}
    assert {move.fault for move in MOVES} <= {fault.name for fault in CATALOGUE}
    assert all(move.statistic in move.signal.statistics for move in MOVES)


def balancer_points(*values: tuple[float, float]) -> Points:
    """RequestCount of the struck Region's load balancer."""
    return Points("AWS/ApplicationELB", "RequestCount", {"LoadBalancer": "app/retail/1"}, EAST, "Sum", list(values))


def test_minutes_that_the_fault_began_or_ended_in_do_not_count() -> None:
    points = balancer_points((-90.0, 40.0), (-30.0, 20.0), (90.0, 7.0), (150.0, 12.0), (210.0, 41.0))
    (found,) = [each for each in moved(record(healed=1120.0, points=[points])) if each.move.name == "RequestCount"]
    assert (found.before, found.during, found.after, found.problem) == ((40.0,), (), (12.0, 41.0), "")


def test_what_shows_in_the_first_minute_has_shown() -> None:
    """A burst at the start of the fault lies in a minute that began before it."""
    points = Points(
        "AWS/ElastiCache", "Evictions", {"CacheClusterId": "c"}, EAST, "Sum", [(-90.0, 0.0), (-20.0, 3.0), (40.0, 0.0), (190.0, 0.0)]
    )
    bursts = replace(record(healed=1120.0, points=[points]), fault="redis-evicting")
    (found,) = moved(bursts)
    assert (found.before, found.during, found.after, found.problem) == ((0.0,), (3.0, 0.0), (0.0,), "")


def test_a_record_survives_the_disk(tmp_path: Path) -> None:
    whole = record(points=[balancer_points((-90.0, 40.0))], strays=["x"])
    whole.save(tmp_path)
    assert list(load(tmp_path)) == [whole]


def test_junit_and_the_table_at_the_end() -> None:
    """A test case a fault; a broken contract is a failure with its sentences."""
    good, bad = record(), record(heard=[])
    suite = ET.fromstring(as_junit([Result(good, IMPAIRED, []), Result(bad, IMPAIRED, findings(bad, IMPAIRED))]))
    assert (suite.get("tests"), suite.get("failures")) == ("2", "1")
    assert suite.findall("testcase/failure")[0].get("message") == "no page says region-impaired us-east-1"
    assert summary([Result(good, IMPAIRED, [])]).row_count == 1


def test_the_pages_tell_what_was_tried(tmp_path: Path) -> None:
    """Each fault has a row, tried or not; a wrong class is bold; a movement shows its values."""
    points = balancer_points((-90.0, 40.0), (210.0, 41.0))
    seen = rounds({f"alb-{EAST}": "timeout", "name": "refused"}, {f"alb-{EAST}": "refused"})
    records = {"alb-down": record(points=[points], seen=seen)}
    matrix = pages.matrix(records)
    assert "| `alb-down` | region-impaired us-east-1 | region-impaired us-east-1 | 45 s |" in matrix
    assert matrix.count("not tried") == len(CATALOGUE) - 1
    assert "- `alb-down`: the probe says timeout of here>here, not refused" in matrix
    assert "| `alb-down` | **timeout** (refused) | ok | refused | refused | ok | ok |" in pages.probe_classes(records).replace(
        " (ok or refused)", ""
    )
    assert "| `alb-down` | absent | 40 | – | 41 | ✔ |" in pages.vended(records)


def test_a_name_that_is_no_faults_is_unusable_input() -> None:
    result = CliRunner().invoke(app, ["matrix", "--only", "alb-dwon", "catalog-dwon"])
    assert result.exit_code == 2
    assert "alb-down" in result.output
    assert "catalog-down" in result.output


@pytest.mark.lab
@pytest.mark.slow
def test_the_contract_holds_on_a_running_lab(watched_lab: Lab, tmp_path: Path) -> None:
    """In the lab that runs: a Region's load balancer dies and one page says so; a drain wakes nobody."""
    faults = ("alb-down", "drained") if not os.environ.get("CROSSWATCH_MATRIX") else [fault.name for fault in CATALOGUE]
    run = watched_lab.run("matrix", "--only", *faults, "--junit", str(tmp_path / "junit.xml"), "--out", str(tmp_path / "records"))
    assert run.returncode == 0, run.stdout + run.stderr
    assert ET.parse(tmp_path / "junit.xml").getroot().get("tests") == str(len(faults))
    assert {each.fault for each in load(tmp_path / "records")} == set(faults)
    assert observed(next(each for each in load(tmp_path / "records") if each.fault == "alb-down"))[f"{HERE}>{HERE}"] == "refused"


def test_the_folder_of_the_results_is_made_before_the_pass(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not missed after it, when all that was seen would be lost."""
    monkeypatch.setattr(flow, "state_directory", lambda: tmp_path / "no lab")
    monkeypatch.setattr(flow, "up", lambda *_, **__: 1)
    assert flow.matrix(["drained"], tmp_path / "results" / "matrix.xml", tmp_path / "out", 5.0) == 1
    assert (tmp_path / "results").is_dir()
