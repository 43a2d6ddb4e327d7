"""The diagnoses: over every combination of evidence, one incident is one page, and the right one."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path

import pytest

from alarms.diagnosis import alarm_topic, diagnoses, page_topic
from alarms.engine import composite
from alarms.rendering import definitions, region_definitions, ticket_incidents
from stacks.names import Names
from topology import Topology, load, loads

EXAMPLE = Path(__file__).parents[2] / "topology.yaml"
HERE, THERE = "us-west-2", "us-east-1"


@pytest.fixture(scope="module")
def topology() -> Topology:
    """The example workload."""
    return load(EXAMPLE)


def worlds(names: list[str]) -> Iterator[frozenset[str]]:
    """Every set of alarms that could be in ALARM."""
    for states in itertools.product((False, True), repeat=len(names)):
        yield frozenset(name for name, on in zip(names, states, strict=True) if on)


def raised(topology: Topology, here: str, on: frozenset[str]) -> dict[str, str]:
    """Diagnosis -> severity of those whose rule holds when ``on`` are in ALARM."""
    rules = [(diagnosis, RULES[here, diagnosis.name]) for diagnosis in diagnoses(topology, here)]
    return {d.kind + ":" + d.subject: d.severity for d, rule in rules if rule.holds(lambda name: "ALARM" if name in on else "OK")}


CATALOGS_WRITERS = {"retail-writers-many-catalog", "retail-writers-none-catalog"}
OFF_LONG = {"retail-off-long-us-east-1", "retail-off-long-us-west-2"}
"""Only ever read together with ``name-unreachable-long``, which is in every world, and so always in ALARM."""
RULES = {(here, diagnosis.name): composite.parse(diagnosis.rule) for here in (HERE, THERE) for diagnosis in diagnoses(load(EXAMPLE), here)}


def test_no_evidence_makes_two_pages(topology: Topology) -> None:
    """Over all 65,536 states of the evidence in a Region, one database's writers among it, at most one diagnosis pages."""
    names = sorted({child for (here, _), rule in RULES.items() if here == HERE for child in rule.children} - CATALOGS_WRITERS - OFF_LONG)
    assert len(names) == 16
    rules = [rule for each in diagnoses(topology, HERE) if each.pages and each.subject != "catalog" for rule in [RULES[HERE, each.name]]]
    for on in worlds(names):
        states = dict.fromkeys(on | OFF_LONG, "ALARM")
        assert sum(rule.holds(lambda name, states=states: states.get(name, "OK")) for rule in rules) <= 1, sorted(on)


def test_each_database_is_an_incident_of_its_own() -> None:
    """Two databases may each have a page, and never one that has another; what customers meet at once goes before both."""
    topology = load(EXAMPLE)
    writers = [f"retail-writers-{how}-{database}" for how in ("many", "none") for database in ("catalog", "orders")]
    for on in worlds([*writers, "retail-down-us-east-1", "retail-broken-us-east-1"]):
        pages = [kind for kind, severity in raised(topology, HERE, on).items() if severity in ("critical", "error")]
        subjects = [kind.partition(":")[2] for kind in pages]
        assert len(set(subjects)) == len(subjects), (sorted(on), pages)
        assert len(pages) <= 1 or set(subjects) == {"catalog", "orders"}, (sorted(on), pages)


@pytest.mark.parametrize(
    ("on", "expected"),
    [
        ((), {}),
        (("retail-lost-us-east-1",), {"region-impaired:us-east-1": "critical"}),
        (("retail-down-us-east-1",), {"region-impaired:us-east-1": "critical"}),
        (("retail-lost-us-east-1", "retail-silent-us-east-1"), {"vantage-blind:us-east-1": "warning"}),
        (("retail-down-us-east-1", "retail-silent-us-east-1"), {"region-impaired:us-east-1": "critical"}),
        (("retail-down-us-east-1", "retail-off-us-east-1"), {"region-impaired-drained:us-east-1": "info"}),
        (("retail-off-us-east-1",), {}),
        (("retail-down-us-east-1", "retail-down-us-west-2"), {"store-down:retail": "critical"}),
        (("retail-dark", "retail-name-unreachable", "retail-down-us-east-1"), {"store-down:retail": "critical"}),
        (("retail-name-unreachable",), {"name-down:store.example.com": "critical"}),
        (("retail-name-unreachable", "retail-down-us-east-1"), {"region-impaired:us-east-1": "critical"}),
        (
            ("retail-name-unreachable", "retail-down-us-east-1", "retail-off-us-east-1"),
            {"region-impaired-drained:us-east-1": "info"},
        ),
        (
            (
                "retail-name-unreachable",
                "retail-name-unreachable-long",
                "retail-down-us-east-1",
                "retail-off-us-east-1",
                "retail-off-long-us-east-1",
            ),
            {"name-down:store.example.com": "critical", "region-impaired-drained:us-east-1": "info"},
        ),
        (
            (
                "retail-name-unreachable",
                "retail-name-unreachable-long",
                "retail-down-us-east-1",
                "retail-off-us-west-2",
                "retail-off-long-us-west-2",
            ),
            {"region-impaired:us-east-1": "critical"},
        ),
        (("retail-off-us-east-1", "retail-off-us-west-2"), {"all-off:retail": "critical"}),
        (("retail-silent-us-east-1", "retail-silent-us-west-2"), {"blind-all:retail": "error"}),
        (("retail-uneven-us-east-1",), {"vantages-differ:us-east-1": "warning"}),
        (("retail-broken-us-east-1",), {"region-partial:us-east-1": "error"}),
        (("retail-broken-us-east-1", "retail-down-us-east-1"), {"region-impaired:us-east-1": "critical"}),
        (("retail-broken-us-east-1", "retail-off-us-east-1"), {}),
        (("retail-broken-us-east-1", "retail-broken-us-west-2"), {"store-partial:retail": "critical"}),
        (("retail-writers-many-orders",), {"split-writer:orders": "critical"}),
        (("retail-writers-none-orders",), {"failover-stuck:orders": "critical"}),
        (("retail-writers-none-orders", "retail-broken-us-east-1"), {"region-partial:us-east-1": "error"}),
        (("retail-writers-none-orders", "retail-broken-us-east-1", "retail-off-us-east-1"), {"failover-stuck:orders": "critical"}),
        (("retail-writers-none-orders", "retail-down-us-east-1"), {"region-impaired:us-east-1": "critical"}),
        (
            ("retail-writers-none-orders", "retail-down-us-east-1", "retail-off-us-east-1"),
            {"failover-stuck:orders": "critical", "region-impaired-drained:us-east-1": "info"},
        ),
        (("retail-writers-many-orders", "retail-broken-us-east-1"), {"split-writer:orders": "critical"}),
        (("retail-writers-many-orders", "retail-broken-us-east-1", "retail-broken-us-west-2"), {"split-writer:orders": "critical"}),
        (("retail-writers-many-orders", "retail-silent-us-east-1", "retail-silent-us-west-2"), {"split-writer:orders": "critical"}),
        (("retail-dns-mismatch",), {"dns-disagrees:store.example.com": "warning"}),
    ],
)
def test_the_evidence_names_the_incident(topology: Topology, on: tuple[str, ...], expected: dict[str, str]) -> None:
    """What us-west-2 says of typical evidence; a planned drain says nothing."""
    assert raised(topology, HERE, frozenset(on)) == expected


WITH_THIRD = EXAMPLE.read_text() + "\nvantages: {eu-west-1: {}}\n"


@pytest.mark.parametrize(
    ("on", "expected"),
    [
        (("down-us-east-1",), {"region-impaired"}),
        (("alone", "down-us-east-1"), set()),
        (("alone", "lost-us-east-1"), set()),
        (("alone", "dark"), set()),
        (("alone", "name-unreachable"), set()),
        (("alone", "down-us-east-1", "silent-eu-west-1"), {"region-impaired"}),
        (("alone", "dark", "silent-us-east-1", "silent-eu-west-1"), {"store-down"}),
    ],
)
def test_a_region_that_hears_nobody_else_accuses_nobody(on: tuple[str, ...], expected: set[str]) -> None:
    """Until it knows for good that one of the others is silent; what is known to be dead confirms nothing, and holds nothing up."""
    rules = [(each, composite.parse(each.rule)) for each in diagnoses(loads(WITH_THIRD), HERE) if each.pages]
    assert {
        each.kind for each, rule in rules if rule.holds(lambda name: "ALARM" if name.removeprefix("retail-") in on else "OK")
    } == expected


def test_with_three_vantages_a_page_says_that_its_region_may_be_the_one_that_is_cut_off() -> None:
    """Where it has waited for the others in vain, the reader has to know."""
    for diagnosis in diagnoses(loads(WITH_THIRD), HERE):
        if diagnosis.kind in ("region-impaired", "store-down"):
            assert f"{HERE} may be what is cut off" in diagnosis.description


def test_two_vantages_have_no_alarm_for_being_alone(topology: Topology) -> None:
    """Neither could tell."""
    assert not [item for item in definitions(topology) if item["AlarmName"].endswith("-alone")]


def test_who_is_told_to_drain_the_last_region_is_told_what_comes_first(topology: Topology) -> None:
    """The runbook does not turn the last control off; without routing controls nothing of the kind is said."""
    enable = "If us-west-2 is off, enable it first with the runbook retail-EnableRegion Region=<region>"
    for diagnosis in diagnoses(topology, HERE):
        assert (enable in diagnosis.description) == (diagnosis.kind in ("region-impaired", "region-partial"))
    assert not any("enable" in d.description for d in diagnoses(topology.model_copy(update={"routing": None}), HERE) if d.pages)


def test_no_command_guesses_which_region_to_turn_on(topology: Topology) -> None:
    """With all controls off the alarm does not know who is well: the page names the runbook, and who does know."""
    for here in topology.regions:
        (page,) = [each for each in diagnoses(topology, here) if each.kind == "all-off"]
        assert page.incident()["runbook"] is None
        assert "Look at the matrix" in page.description
        assert "retail-EnableRegion Region=<region>" in page.description


WITH_LEDGER = EXAMPLE.read_text() + "\njourneys: {ledger_schedule: rate(5 minutes)}\n"


@pytest.mark.parametrize(
    ("on", "expected"),
    [
        (("retail-unplaced",), {"writes-fail:retail": "critical"}),
        (("retail-unplaced", "retail-broken-us-east-1"), {"region-partial:us-east-1": "error"}),
        (("retail-unplaced", "retail-down-us-east-1"), {"region-impaired:us-east-1": "critical"}),
        (("retail-unplaced", "retail-down-us-east-1", "retail-off-us-east-1"), {"writes-fail:retail": "critical"}),
        (("retail-unplaced", "retail-dark"), {"store-down:retail": "critical"}),
        (("retail-unplaced", "retail-silent-us-east-1", "retail-silent-us-west-2"), {"writes-fail:retail": "critical"}),
        (("retail-unplaced", "retail-writers-none-orders"), {"failover-stuck:orders": "critical"}),
    ],
)
def test_a_store_that_takes_no_orders_pages_where_a_ledger_runs(on: tuple[str, ...], expected: dict[str, str]) -> None:
    """What fails more openly is paged instead; without a ledger there is no such diagnosis."""
    topology = loads(WITH_LEDGER)
    rules = [(each, composite.parse(each.rule)) for each in diagnoses(topology, HERE)]
    found = {f"{d.kind}:{d.subject}": d.severity for d, rule in rules if rule.holds(lambda name: "ALARM" if name in on else "OK")}
    assert {name: severity for name, severity in found.items() if severity in ("critical", "error")} == expected
    assert "writes-fail" not in {each.kind for each in diagnoses(load(EXAMPLE), HERE)}


def test_how_long_a_failover_may_take_is_the_topologys() -> None:
    """`databases.<name>.failover_s`, in whole minutes; a split pages after three of them, whatever a failover may take."""
    topology = loads(EXAMPLE.read_text().replace("rpo_s: 30", "rpo_s: 30\n    failover_s: 600"))
    items = {item["AlarmName"]: item for item in region_definitions(topology, HERE)}
    assert items["retail-writers-none-orders"]["EvaluationPeriods"] == 10
    assert items["retail-writers-none-catalog"]["EvaluationPeriods"] == 5
    assert items["retail-writers-many-orders"]["EvaluationPeriods"] == 3
    assert "For 10 minutes" in items["retail-failover-stuck-orders"]["AlarmDescription"]


def test_the_ledgers_alarms_last_one_run_of_it() -> None:
    """The period is the schedule's; a flicker at the end of another outage is shorter than the wait before the page."""
    items = {item["AlarmName"]: item for item in region_definitions(loads(WITH_LEDGER), HERE)}
    assert items["retail-unplaced"]["Period"] == 300
    assert items["retail-writes-fail"]["ActionsSuppressorWaitPeriod"] > 300
    assert set(ticket_incidents(loads(WITH_LEDGER), HERE)) >= {"retail-orders-lost-us-east-1", "retail-orders-lost-us-west-2"}


def test_no_alarm_about_a_region_acts_in_that_region(topology: Topology) -> None:
    """What would die with the Region must not be what reports its death."""
    for region in topology.regions:
        assert not [d.name for d in diagnoses(topology, region) if d.kind.startswith("region-") and d.subject == region]


def test_rules_fit_and_name_only_alarms_that_exist(topology: Topology) -> None:
    """Every child and suppressor of every composite stands in the same Region, before the composite."""
    for region in topology.regions:
        seen: set[str] = set()
        for item in region_definitions(topology, region):
            if "AlarmRule" in item:
                rule = composite.parse(item["AlarmRule"])
                assert len(item["AlarmRule"]) <= composite.MAX_RULE
                assert set(rule.children) <= seen
                assert item.get("ActionsSuppressor", "retail-dark") in seen
            seen.add(item["AlarmName"])


def test_two_vantages_share_one_key_for_what_they_cannot_tell_apart(topology: Topology) -> None:
    """A cut link pages from both sides under one deduplication key; with a third vantage each Region has its own."""
    keys = {d.dedup_key for here in topology.regions for d in diagnoses(topology, here) if d.kind == "region-impaired"}
    assert len(keys) == 1
    three = loads(EXAMPLE.read_text() + "\nvantages: {eu-west-1: {}}\n")
    keys = {d.dedup_key for here in three.watched_regions for d in diagnoses(three, here) if d.kind == "region-impaired"}
    assert len(keys) == 2


def test_every_page_names_a_runbook_or_says_where_to_look(topology: Topology) -> None:
    """A page that does not say what to do wakes somebody for nothing."""
    for region in topology.regions:
        for diagnosis in diagnoses(topology, region):
            if diagnosis.pages:
                assert diagnosis.runbook or "Look at" in diagnosis.description or "look for" in diagnosis.description
            if diagnosis.kind == "region-impaired":
                assert diagnosis.incident()["runbook"] == {
                    "document": "retail-DrainRegion",
                    "parameters": {"Region": diagnosis.subject},
                    "region": region,
                }


def test_tickets_have_texts_and_alarms(topology: Topology) -> None:
    """Each data store alarm that acts has its text, and the other way round."""
    for region in topology.regions:
        told = {diagnosis.name for diagnosis in diagnoses(topology, region)}
        items = region_definitions(topology, region)
        acting = {item["AlarmName"] for item in items if alarm_topic(topology, region) in item.get("AlarmActions", ())} - told
        assert acting == set(ticket_incidents(topology, region))


def test_what_tells_of_the_way_to_people_goes_past_it(topology: Topology) -> None:
    """Alarms about the notifier notify the topic of the pages; their names for topics and function are those of the stacks."""
    for region in topology.watched_regions:
        names = Names.of(topology, region)
        assert page_topic(topology, region) == names.topic_arn("pages")
        items = {item["AlarmName"]: item for item in region_definitions(topology, region)}
        past = {name for name, item in items.items() if page_topic(topology, region) in item.get("AlarmActions", ())}
        assert past == {"retail-page-lost", "retail-undelivered"}
        assert items["retail-page-lost"]["Dimensions"] == [{"Name": "FunctionName", "Value": names.notifier}]
        metrics = [query["MetricStat"]["Metric"] for query in items["retail-undelivered-now"]["Metrics"] if "MetricStat" in query]
        assert all(metric["Dimensions"] == [{"Name": "TopicName", "Value": names.topic("alarms")}] for metric in metrics)


def test_two_brokers_may_have_a_queue_of_the_same_name() -> None:
    """The broker is part of the alarm's name; a queue may be called as it likes."""
    old = EXAMPLE.read_text()
    brokers = (
        "brokers:\n"
        "  orders: {brokers: {us-east-1: a-1, us-west-2: a-2}, queues: [orders]}\n"
        "  events: {brokers: {us-east-1: b-1, us-west-2: b-2}, queues: [orders, 'no']}\n\n"
    )
    topology = loads(old[: old.index("brokers:  ")] + brokers + old[old.index("runbooks:  ") :])
    names = [item["AlarmName"] for item in region_definitions(topology, HERE) if "unconsumed" in item["AlarmName"]]
    assert names == ["retail-unconsumed-orders-orders", "retail-unconsumed-events-orders", "retail-unconsumed-events-no"]
    assert set(names) <= set(ticket_incidents(topology, HERE))


def test_a_cache_of_one_node_has_no_replica_that_could_be_behind(topology: Topology) -> None:
    """The alarm stands for a replication group, and its limit is the topology's, where that has one."""
    assert not [item for item in definitions(topology) if "cache-lag" in item["AlarmName"]]


def test_every_definition_says_how_silence_counts(topology: Topology) -> None:
    """TreatMissingData is never left to a default."""
    assert all("TreatMissingData" in item for item in definitions(topology) if "AlarmRule" not in item)
