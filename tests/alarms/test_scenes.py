"""What people on call are told, scene by scene: at which moment, by which Region, and that nothing else acts.

Every scene lists all actions of all rendered alarms. ``*`` stands for every watched Region. Most incidents begin after five minutes and
last ten. An OK that follows no ALARM is that of an alarm whose actions were suppressed: its pager knows no such incident.
"""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import yaml

from alarms import testing
from alarms.definitions import from_items
from alarms.diagnosis import incidents
from alarms.rendering import definitions, ticket_incidents
from alarms.testing.notation import parse_duration
from tests.alarms.scenes import (
    EXAMPLE,
    WITH_LEDGER,
    WITH_REPLICAS,
    WITH_THIRD,
    Astray,
    Cut,
    Down,
    Flaky,
    Gone,
    Late,
    Lost,
    Mute,
    Off,
    Part,
    Refused,
    Scene,
    Unread,
    Writers,
    loaded,
)
from tests.alarms.shapes import ELSEWHERE, SHAPES, Shape, Window

EAST, WEST, THIRD = "us-east-1", "us-west-2", "eu-west-1"
ALB_EAST, ALB_WEST, NAME = "alb-us-east-1", "alb-us-west-2", "name"


def down(begin: str, end: str, *targets: str, by: str = "") -> tuple[Down, ...]:
    """Several targets down at once."""
    return tuple(Down(target, by, begin=begin, end=end) for target in targets)


REGIONS = (
    Scene("all is well", ()),
    Scene(
        "a Region is lost with everything in it, and returns",
        (Gone(EAST, begin="5m", end="15m"),),
        (
            "5m20s us-west-2 impaired-us-east-1 ALARM",
            "15m10s us-west-2 impaired-us-east-1 OK",
            "19m us-east-1 blind-all OK",
            "19m us-west-2 blind-us-east-1 OK",
            "19m us-west-2 differ-us-east-1 OK",
        ),
        "30m",
    ),
    Scene(
        "a Region's load balancer does not answer; its vantage lives",
        down("5m", "15m", ALB_EAST),
        (
            "5m30s us-west-2 impaired-us-east-1 ALARM",
            "15m10s us-west-2 impaired-us-east-1 OK",
            "19m us-west-2 differ-us-east-1 OK",
        ),
        "22m",
    ),
    Scene(
        "three bad rounds are the shortest outage that pages",
        down("5m", "5m30s", ALB_EAST),
        (
            "5m30s us-west-2 impaired-us-east-1 ALARM",
            "5m40s us-west-2 impaired-us-east-1 OK",
        ),
    ),
    Scene("two bad rounds page nobody", down("5m", "5m20s", ALB_EAST)),
    Scene("two bad rounds around the pause of the canaries page nobody", down("5m40s", "6m10s", ALB_EAST)),
    Scene(
        "one vantage alone does not see a Region: a ticket",
        down("5m", "15m", ALB_EAST, by=WEST),
        (
            "13m us-west-2 differ-us-east-1 ALARM",
            "19m us-west-2 differ-us-east-1 OK",
        ),
        "30m",
    ),
    Scene("one vantage does not see a Region for four minutes", down("5m", "9m", ALB_EAST, by=WEST)),
    Scene(
        "a Region is drained, fails, heals and is enabled",
        (Off(EAST, begin="5m", end="25m"), *down("7m", "15m", ALB_EAST)),
        (
            "7m30s us-west-2 drained-us-east-1 ALARM",
            "15m10s us-west-2 drained-us-east-1 OK",
            "19m us-west-2 differ-us-east-1 OK",
        ),
        "40m",
    ),
    Scene(
        "a Region fails, is drained, heals and is enabled",
        (Off(EAST, begin="8m", end="25m"), *down("5m", "15m", ALB_EAST)),
        (
            "5m30s us-west-2 impaired-us-east-1 ALARM",
            "9m us-west-2 drained-us-east-1 ALARM",
            "9m us-west-2 impaired-us-east-1 OK",
            "15m10s us-west-2 drained-us-east-1 OK",
            "19m us-west-2 differ-us-east-1 OK",
        ),
        "40m",
    ),
    Scene("a planned drain", (Off(EAST, begin="5m", end="15m"),), (), "30m"),
    Scene(
        "a control that is off and cannot be read stays off, and nothing is said of it",
        (Off(EAST, begin="3m", end="20m"), Unread(begin="6m", end="10m")),
        (),
        "30m",
    ),
    Scene("controls that cannot be read are not off", (Unread(begin="5m", end="15m"),)),
    Scene(
        "every control is off",
        (Off(EAST, begin="5m", end="15m"), Off(WEST, begin="5m", end="15m")),
        (
            "6m * all-off ALARM",
            "16m * all-off OK",
        ),
    ),
    Scene(
        "a page fails in one Region",
        (Part(ALB_EAST, begin="5m", end="15m"),),
        (
            "7m us-west-2 partial-us-east-1 ALARM",
            "16m us-west-2 partial-us-east-1 OK",
        ),
    ),
    Scene("a page fails for one vantage only", (Part(ALB_EAST, WEST, begin="5m", end="15m"),)),
    Scene("a page fails for a minute", (Part(ALB_EAST, begin="5m", end="6m"),)),
    Scene("a page fails in a drained Region", (Off(EAST, begin="3m", end="18m"), Part(ALB_EAST, begin="5m", end="15m"))),
    Scene(
        "a page fails in every Region",
        (Part(ALB_EAST, begin="5m", end="15m"), Part(ALB_WEST, begin="5m", end="15m")),
        (
            "7m * store-partial ALARM",
            "16m * store-partial OK",
        ),
    ),
    Scene(
        "a page fails in one Region, and then all of it",
        (Part(ALB_EAST, begin="5m", end="20m"), *down("10m", "15m", ALB_EAST)),
        (
            "7m us-west-2 partial-us-east-1 ALARM",
            "10m30s us-west-2 impaired-us-east-1 ALARM",
            "10m30s us-west-2 partial-us-east-1 OK",
            "15m10s us-west-2 impaired-us-east-1 OK",
            "17m us-west-2 partial-us-east-1 ALARM",
            "19m us-west-2 differ-us-east-1 OK",
            "21m us-west-2 partial-us-east-1 OK",
        ),
        "25m",
    ),
)

VANTAGES = (
    Scene(
        "a vantage is silent: a ticket",
        (Mute(EAST, begin="5m", end="15m"),),
        (
            "13m us-west-2 blind-us-east-1 ALARM",
            "19m us-west-2 blind-us-east-1 OK",
        ),
        "25m",
    ),
    Scene("a vantage misses two runs", (Mute(EAST, begin="5m", end="7m"),)),
    Scene("a vantage is silent, and one round of the other is bad", (Mute(EAST, begin="5m", end="8m"), *down("7m", "7m10s", ALB_EAST))),
    Scene(
        "a vantage that has been silent for long does not lower the bar",
        (Mute(EAST, begin="5m", end="20m"), *down("15m", "15m20s", ALB_EAST)),
        (
            "13m us-west-2 blind-us-east-1 ALARM",
            "24m us-west-2 blind-us-east-1 OK",
        ),
        "30m",
    ),
    Scene(
        "a vantage that sees nothing at all is blind, and has no vote",
        down("5m", "15m", ALB_EAST, ALB_WEST, NAME, by=EAST),
        (
            "11m us-west-2 blind-us-east-1 ALARM",
            "19m us-west-2 blind-us-east-1 OK",
        ),
        "25m",
    ),
    Scene(
        "every vantage is silent: it is not the store that is reported",
        (Mute(EAST, begin="5m", end="15m"), Mute(WEST, begin="5m", end="15m")),
        (
            "13m * blind-all ALARM",
            "19m * blind-all OK",
        ),
        "25m",
    ),
    Scene(
        "the Regions are cut off from each other: both sides page, under one key",
        (
            Cut(EAST, WEST, begin="5m", end="15m"),
            Cut(WEST, EAST, begin="5m", end="15m"),
            *down("5m", "15m", ALB_WEST, by=EAST),
            *down("5m", "15m", ALB_EAST, by=WEST),
        ),
        (
            "5m30s us-west-2 impaired-us-east-1 ALARM",
            "5m30s us-east-1 impaired-us-west-2 ALARM",
            "15m10s us-west-2 impaired-us-east-1 OK",
            "15m10s us-east-1 impaired-us-west-2 OK",
            "19m us-west-2 blind-us-east-1 OK",
            "19m us-east-1 blind-us-west-2 OK",
            "19m us-west-2 differ-us-east-1 OK",
            "19m us-east-1 differ-us-west-2 OK",
        ),
        "25m",
    ),
    Scene(
        "a third vantage decides a cut between two Regions: nobody is woken",
        (
            Cut(EAST, WEST, begin="5m", end="10m"),
            Cut(WEST, EAST, begin="5m", end="10m"),
            *down("5m", "10m", ALB_WEST, by=EAST),
            *down("5m", "10m", ALB_EAST, by=WEST),
        ),
        (
            "14m us-west-2 blind-us-east-1 OK",
            "14m us-east-1 blind-us-west-2 OK",
            "14m eu-west-1 differ-us-east-1 OK",
            "14m us-west-2 differ-us-east-1 OK",
            "14m eu-west-1 differ-us-west-2 OK",
            "14m us-east-1 differ-us-west-2 OK",
        ),
        "25m",
        WITH_THIRD,
    ),
    Scene(
        "a Region is lost before three vantages: both others page, under one key",
        (Gone(EAST, begin="5m", end="15m"),),
        (
            "5m20s eu-west-1 impaired-us-east-1 ALARM",
            "5m20s us-west-2 impaired-us-east-1 ALARM",
            "15m10s eu-west-1 impaired-us-east-1 OK",
            "15m10s us-west-2 impaired-us-east-1 OK",
            "19m us-east-1 blind-all OK",
            "19m eu-west-1 blind-us-east-1 OK",
            "19m us-west-2 blind-us-east-1 OK",
            "19m eu-west-1 differ-us-east-1 OK",
            "19m us-west-2 differ-us-east-1 OK",
        ),
        "25m",
        WITH_THIRD,
    ),
    Scene(
        "one of three Regions is cut off: those who hear each other decide, and it accuses nobody",
        (
            *(Cut(vantage, WEST, begin="5m", end="7m") for vantage in (EAST, THIRD)),
            *(Cut(WEST, region, begin="5m", end="7m") for region in (EAST, THIRD)),
            *down("5m", "7m", ALB_EAST, by=WEST),
            *(cell for vantage in (EAST, THIRD) for cell in down("5m", "7m", ALB_WEST, by=vantage)),
        ),
        (
            "5m30s us-east-1 impaired-us-west-2 ALARM",
            "5m30s eu-west-1 impaired-us-west-2 ALARM",
            "7m10s us-east-1 impaired-us-west-2 OK",
            "7m10s eu-west-1 impaired-us-west-2 OK",
        ),
        "20m",
        WITH_THIRD,
    ),
    Scene(
        "the vantage without a workload is cut off, and sees nothing: the store is not down",
        (
            *(Cut(vantage, THIRD, begin="5m50s", end="8m") for vantage in (EAST, WEST)),
            *(Cut(THIRD, region, begin="5m50s", end="8m") for region in (EAST, WEST)),
            *down("5m50s", "8m", ALB_EAST, ALB_WEST, NAME, by=THIRD),
        ),
        (),
        "20m",
        WITH_THIRD,
    ),
    Scene(
        "only what the vantages write to each other's Region is lost: tickets",
        (Cut(EAST, WEST, begin="5m", end="15m"), Cut(WEST, EAST, begin="5m", end="15m")),
        (
            "13m us-west-2 blind-us-east-1 ALARM",
            "13m us-east-1 blind-us-west-2 ALARM",
            "19m us-west-2 blind-us-east-1 OK",
            "19m us-east-1 blind-us-west-2 OK",
        ),
        "25m",
    ),
    Scene("one vantage's datapoints come half a minute late", (Late(EAST, WEST, begin="0s", end="20m"),)),
    Scene(
        "one vantage's datapoints come late, and the other has a bad round",
        (Late(EAST, WEST, begin="0s", end="20m"), *down("5m", "5m10s", ALB_EAST, by=WEST)),
    ),
    Scene(
        "both vantages' datapoints come late: the page does, too",
        (Late(EAST, WEST, begin="0s", end="20m"), Late(WEST, WEST, begin="0s", end="20m"), *down("5m", "10m", ALB_EAST)),
        (
            "6m us-west-2 impaired-us-east-1 ALARM",
            "10m40s us-west-2 impaired-us-east-1 OK",
            "14m us-west-2 differ-us-east-1 OK",
        ),
        "25m",
    ),
)

STORE = (
    Scene(
        "two clusters of a database take writes",
        (Writers("orders", 2, begin="5m", end="15m"),),
        ("8m * split-writer-orders ALARM", "16m * split-writer-orders OK"),
    ),
    Scene("two clusters take writes for two minutes, as RDS may say in a failover", (Writers("orders", 2, begin="5m", end="7m"),)),
    Scene(
        "a failover does not end",
        (Writers("orders", 0, begin="5m", end="15m"),),
        ("10m * failover-stuck-orders ALARM", "16m * failover-stuck-orders OK"),
    ),
    Scene("a switchover takes four minutes", (Writers("orders", 0, begin="5m", end="9m"),)),
    Scene(
        "the store is down everywhere",
        down("5m", "15m", ALB_EAST, ALB_WEST, NAME),
        (
            "5m30s * store-down ALARM",
            "15m10s * store-down OK",
            "19m * blind-all OK",
        ),
        "25m",
    ),
    Scene(
        "every Region is down, the name is a page on a static site",
        down("5m", "15m", ALB_EAST, ALB_WEST),
        (
            "5m30s * store-down ALARM",
            "15m10s * store-down OK",
            "19m us-west-2 differ-us-east-1 OK",
            "19m us-east-1 differ-us-west-2 OK",
            "23m us-west-2 slo-availability-us-east-1-fast-or-slow OK",
            "23m us-east-1 slo-availability-us-west-2-fast-or-slow OK",
        ),
        "25m",
    ),
    Scene(
        "the name does not answer although the Regions do",
        down("5m", "15m", NAME),
        (
            "5m30s * name-down ALARM",
            "15m10s * name-down OK",
        ),
        "22m",
    ),
    Scene(
        "a Region fails and is drained; the name follows when old answers have run out",
        (Off(EAST, begin="8m", end="40m"), *down("5m", "25m", ALB_EAST), *down("5m", "10m", NAME)),
        (
            "5m30s us-west-2 impaired-us-east-1 ALARM",
            "9m us-west-2 drained-us-east-1 ALARM",
            "9m us-west-2 impaired-us-east-1 OK",
            "25m10s us-west-2 drained-us-east-1 OK",
            "29m us-west-2 differ-us-east-1 OK",
        ),
        "35m",
    ),
    Scene(
        "the name fails while a Region is down and drained",
        (Off(EAST, begin="6m", end="40m"), *down("5m", "35m", ALB_EAST), *down("15m", "25m", NAME)),
        (
            "5m30s us-west-2 impaired-us-east-1 ALARM",
            "7m us-west-2 drained-us-east-1 ALARM",
            "7m us-west-2 impaired-us-east-1 OK",
            "18m * name-down ALARM",
            "25m10s * name-down OK",
            "33m us-west-2 slo-availability-store-fast-or-slow OK",
        ),
        "34m",
    ),
    Scene(
        "the same, and the routing controls cannot be read meanwhile: what was off stays off",
        (Off(EAST, begin="3m", end="40m"), Unread(begin="10m", end="33m"), *down("5m", "35m", ALB_EAST), *down("15m", "25m", NAME)),
        (
            "5m30s us-west-2 drained-us-east-1 ALARM",
            "18m * name-down ALARM",
            "25m10s * name-down OK",
            "33m us-west-2 slo-availability-store-fast-or-slow OK",
        ),
        "34m",
    ),
    Scene(
        "a name that fails for three minutes after a drain is that of old answers",
        (Off(EAST, begin="7m", end="40m"), *down("5m", "25m", ALB_EAST), *down("5m", "10m", NAME)),
        (
            "5m30s us-west-2 impaired-us-east-1 ALARM",
            "8m us-west-2 drained-us-east-1 ALARM",
            "8m us-west-2 impaired-us-east-1 OK",
        ),
        "20m",
    ),
    Scene("the name does not answer for two rounds", down("5m", "5m20s", NAME)),
    Scene("the name does not answer one vantage", down("5m", "9m", NAME, by=EAST)),
    Scene(
        "the name leads to a drained Region: a ticket",
        (Off(EAST, begin="5m", end="15m"), Astray(begin="5m", end="15m")),
        (
            "11m * dns-disagrees ALARM",
            "19m * dns-disagrees OK",
        ),
        "25m",
    ),
    Scene(
        "a resolver keeps the old answer for two minutes after a drain", (Off(EAST, begin="5m", end="15m"), Astray(begin="5m", end="7m"))
    ),
)

LEDGER = (
    Scene(
        "nothing can be ordered",
        (Refused(begin="10m", end="25m"),),
        (
            "18m * writes-fail ALARM",
            "33m * writes-fail OK",
        ),
        "45m",
        WITH_LEDGER,
    ),
    Scene("one run of the ledgers is refused", (Refused(begin="10m", end="15m"),), ("23m * writes-fail OK",), "45m", WITH_LEDGER),
    Scene(
        "the ledgers are as silent as their canaries",
        (Mute(EAST, begin="5m", end="15m"), Mute(WEST, begin="5m", end="15m")),
        (
            "13m * blind-all ALARM",
            "19m * blind-all OK",
        ),
        "30m",
        WITH_LEDGER,
    ),
    Scene(
        "the store is down, so nothing can be ordered: one page",
        (Refused(begin="10m", end="20m"), *down("10m", "20m", ALB_EAST, ALB_WEST, NAME)),
        (
            "10m30s * store-down ALARM",
            "20m10s * store-down OK",
            "28m * writes-fail OK",
        ),
        "45m",
        WITH_LEDGER,
    ),
    Scene(
        "acknowledged orders are gone: a ticket",
        (Lost(EAST, begin="10m", end="15m"),),
        (
            "11m * orders-lost-us-east-1 ALARM",
            "16m * orders-lost-us-east-1 OK",
        ),
        "30m",
        WITH_LEDGER,
    ),
)

BUDGETS = (
    Scene(
        "a Region fails and is drained; it heals, and is enabled while the windows still remember",
        (Off(EAST, begin="6h10m", end="6h40m"), *down("6h", "6h20m", ALB_EAST), *down("6h", "6h10m", NAME, by=EAST)),
        (
            "6h30s us-west-2 impaired-us-east-1 ALARM",
            "6h11m us-west-2 drained-us-east-1 ALARM",
            "6h11m us-west-2 impaired-us-east-1 OK",
            "6h20m10s us-west-2 drained-us-east-1 OK",
            "6h24m us-west-2 differ-us-east-1 OK",
            "6h43m * slo-availability-store-fast-or-slow OK",
            "6h53m us-west-2 slo-availability-us-east-1-fast-or-slow OK",
        ),
        "7h30m",
    ),
    Scene(
        "a Region is drained for hours while it fails",
        (Off(EAST, begin="6h10m", end="8h"), *down("6h", "7h50m", ALB_EAST)),
        (
            "6h30s us-west-2 impaired-us-east-1 ALARM",
            "6h11m us-west-2 drained-us-east-1 ALARM",
            "6h11m us-west-2 impaired-us-east-1 OK",
            "7h50m10s us-west-2 drained-us-east-1 OK",
            "7h54m us-west-2 differ-us-east-1 OK",
            "8h23m us-west-2 slo-availability-us-east-1-fast-or-slow OK",
        ),
        "8h50m",
    ),
    Scene(
        "the store was down for twenty minutes",
        down("6h", "6h20m", ALB_EAST, ALB_WEST, NAME),
        (
            "6h30s * store-down ALARM",
            "6h20m10s * store-down OK",
            "6h24m * blind-all OK",
            "6h53m us-west-2 slo-availability-us-east-1-fast-or-slow OK",
            "6h53m us-east-1 slo-availability-us-west-2-fast-or-slow OK",
        ),
        "7h30m",
    ),
    Scene(
        "the name was down for twenty minutes",
        down("6h", "6h20m", NAME),
        (
            "6h30s * name-down ALARM",
            "6h20m10s * name-down OK",
            "6h53m * slo-availability-store-fast-or-slow OK",
        ),
        "7h30m",
    ),
    Scene(
        "one vantage does not reach a Region for half an hour: no budget of customers burns",
        down("6h", "6h30m", ALB_EAST, by=WEST),
        (
            "6h8m us-west-2 differ-us-east-1 ALARM",
            "6h34m us-west-2 differ-us-east-1 OK",
        ),
        "7h30m",
    ),
    Scene(
        "the name does not answer one vantage for ten minutes: its customers burn the budget, which pages",
        down("6h", "6h10m", NAME, by=EAST),
        (
            "6h5m * slo-availability-store-fast-or-slow ALARM",
            "6h43m * slo-availability-store-fast-or-slow OK",
        ),
        "7h30m",
    ),
    Scene(
        "one round in a hundred fails: a slow burn pages once",
        (Flaky(NAME, 100, begin="6h", end="10h30m"),),
        (
            "9h24m * slo-availability-store-fast-or-slow ALARM",
            "10h54m * slo-availability-store-fast-or-slow OK",
        ),
        "11h30m",
    ),
    Scene(
        "one round in five hundred fails: the budget bears it for the hours", (Flaky(NAME, 500, begin="6h", end="10h30m"),), (), "11h30m"
    ),
)

GROUPS = {"regions": REGIONS, "vantages": VANTAGES, "store": STORE, "ledger": LEDGER, "budgets": BUDGETS}
TOPOLOGIES = {"example": EXAMPLE, "ledger": WITH_LEDGER, "third": WITH_THIRD, "replicas": WITH_REPLICAS}


def played(folder: Path, *tests: Scene | Shape | Window, only: str = "") -> testing.Report:
    """Run scenes or shapes of one topology as `alarms test` would; ``only`` leaves out all other alarms."""
    path = folder / "scenes.test.yaml"
    path.write_text(yaml.safe_dump({"tests": [each.test() for each in tests]}), encoding="utf-8")
    items = [item for item in definitions(loaded(tests[0].text)) if not only or item["AlarmName"] == only]
    return testing.run([path], lambda: from_items(items))


def told(report: testing.Report) -> str:
    """All failures of a report, with their timelines."""
    return "\n".join(f"{result.case.name}: {fail.message}\n{fail.timeline}" for result in report.results for fail in result.failures)


@pytest.mark.parametrize("scene", [*REGIONS, *VANTAGES, *STORE, *LEDGER], ids=lambda scene: scene.name)
def test_a_scene_ends_in_these_actions_and_no_others(scene: Scene, tmp_path: Path) -> None:
    """Each at its moment, in its Region; the list is complete."""
    assert not (failures := told(played(tmp_path, scene))), failures


@pytest.mark.slow
@pytest.mark.parametrize("scene", BUDGETS, ids=lambda scene: scene.name)
def test_what_was_paged_does_not_page_again_as_a_burnt_budget(scene: Scene, tmp_path: Path) -> None:
    """Neither during an outage nor in the hours that remember it; a burn that no diagnosis sees pages."""
    assert not (failures := told(played(tmp_path, scene))), failures


@pytest.mark.parametrize("shape", [*SHAPES, *ELSEWHERE], ids=lambda shape: f"{shape.region}/{shape.alarm}")
def test_an_alarm_fires_and_clears_at_its_numbers(shape: Shape | Window, tmp_path: Path) -> None:
    """Threshold, periods and what silence does, held against tables of their own."""
    assert not (failures := told(played(tmp_path, shape, only=f"retail-{shape.alarm}"))), failures


def test_the_tables_have_every_metric_alarm() -> None:
    """A new alarm needs its numbers written down twice."""
    rendered = {(item["Region"], item["AlarmName"]) for item in definitions(loaded(WITH_LEDGER)) if "AlarmRule" not in item}
    assert rendered == {(shape.region, f"retail-{shape.alarm}") for shape in SHAPES}


@pytest.mark.parametrize("scene", [scene for group in GROUPS.values() for scene in group], ids=lambda scene: scene.name)
def test_whoever_pages_for_an_incident_uses_one_key(scene: Scene) -> None:
    """Pages of several Regions, and of several windows of a budget, are one incident at the pager: never are two open at once."""
    topology = scene.topology
    texts = {region: incidents(topology, region) | ticket_incidents(topology, region) for region in topology.watched_regions}
    paging: dict[tuple[str, str], str] = {}
    for act in sorted(scene.test()["expect_actions"], key=lambda act: (parse_duration(act["at"]), act["state"] == "ALARM")):
        alarm, incident = (act["region"], act["alarm"]), texts[act["region"]][act["alarm"]]
        paging.pop(alarm, None)
        if act["state"] == "ALARM" and incident["severity"] in ("critical", "error"):
            paging[alarm] = incident["dedup_key"]
        assert len(set(paging.values())) <= 1, act


def write(folder: Path) -> None:
    """Every scene and shape as alarm test files, for each topology; those that last for hours in files of their own."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in TOPOLOGIES.items():
        (folder / f"{name}.topology.yaml").write_text(text, encoding="utf-8")
        short: list[Scene | Shape | Window] = [scene for group in GROUPS.values() if group is not BUDGETS for scene in group]
        for kind, found in (("", [*short, *SHAPES, *ELSEWHERE]), (".hours", [*BUDGETS])):
            if tests := [each.test() for each in found if each.text == text]:
                (folder / f"{name}{kind}.test.yaml").write_text(
                    yaml.safe_dump({"tests": tests}, sort_keys=False, width=400), encoding="utf-8"
                )


if __name__ == "__main__":
    write(Path(sys.argv[1]))
