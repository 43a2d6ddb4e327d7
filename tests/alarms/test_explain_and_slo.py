"""``alarms explain`` and the SLO alarms: what is told comes true in the engine, and budgets burn as computed."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner

from alarms import slo
from alarms.commands import app
from alarms.definitions import from_items, only_alarms, parse_all
from alarms.engine import (
    ALARM,
    OBSERVED,
    OK,
    AlarmBook,
    MemorySource,
    MetricAlarm,
    MetricKey,
    Samples,
    State,
    Transition,
    parse_metric_alarm,
)
from alarms.explain import Explanation, explain, time_of_silence
from alarms.rendering import definitions as render
from tests.alarms.kit import KEY, T0, TOPIC, metric_alarm
from topology import Topology, load
from topology.model import Objective

ROOT = Path(__file__).resolve().parent.parent.parent
RUNNER = CliRunner()


@pytest.fixture(scope="module")
def topology() -> Topology:
    """The example workload."""
    return load(ROOT / "topology.yaml")


def told(*items: dict[str, Any], name: str = "a") -> Explanation:
    """The explanation of one of the items."""
    alarms = only_alarms(parse_all(from_items(list(items))))
    definition, alarm = next(pair for pair in alarms if pair[1].name == name)
    return explain(definition, alarm, alarms)


SHAPES = [
    metric_alarm(),
    metric_alarm(EvaluationPeriods=3),
    metric_alarm(EvaluationPeriods=5, DatapointsToAlarm=2),
    metric_alarm(Period=10, EvaluationPeriods=3),
    metric_alarm(Period=300, EvaluationPeriods=2),
]


@pytest.mark.parametrize("params", SHAPES, ids=lambda p: f"{p['Period']}s-{p.get('DatapointsToAlarm')}of{p['EvaluationPeriods']}")
@pytest.mark.parametrize("to", [ALARM, OK])
def test_the_times_told_come_true(params: dict[str, Any], to: State) -> None:
    """A metric that turns at any moment of the minute, at any phase, changes the state within the span told."""
    span = told(params).to_fire if to == ALARM else told(params).to_clear
    assert span is not None
    before, after = (0.0, 1.0) if to == ALARM else (1.0, 0.0)
    period = params["Period"]
    for phase in (0.0, 9.0, 31.0, 59.0):
        for turn in (T0 + 1800, T0 + 1800 + period * 0.5, T0 + 1800 + period - 1):
            source = MemorySource()
            times = [T0 + 2 * i for i in range(1600)]
            source.add(KEY, Samples.of([before if time < turn else after for time in times], times=times))
            book = AlarmBook("us-west-2", options=OBSERVED, phase=lambda _, at=phase: at)  # type: ignore[misc]
            book.put_metric_alarm(params, T0 + 1500)
            book.restore("a", OK if to == ALARM else ALARM, T0 + 1500)
            events = [event for event in book.tick(T0 + 3190, source) if isinstance(event, Transition)]
            assert [event.state for event in events] == [to], (phase, turn)
            assert span.least <= events[0].at - turn <= span.most, (phase, turn)


def test_an_explanation_names_units_silence_and_cost() -> None:
    """What it watches in which unit, what silence does, what it costs."""
    alarm = metric_alarm(
        Namespace="AWS/RDS",
        MetricName="AuroraGlobalDBReplicationLag",
        Dimensions=[{"Name": "DBClusterIdentifier", "Value": "c"}, {"Name": "SourceRegion", "Value": "us-east-1"}],
        TreatMissingData="breaching",
        EvaluationPeriods=3,
    )
    text = "\n".join(told(alarm).lines())
    assert "in Milliseconds: how far the secondary is behind" in text
    assert "when it is greater than or equal to 1 in all 3 periods of 1m" in text
    assert "breaching: an OK becomes ALARM" in text
    assert "$0.10 a month" in text
    assert f"on ALARM: {TOPIC}" in text


@pytest.mark.parametrize(
    ("treatment", "words"),
    [
        ("notBreaching", "an OK stays OK; an ALARM becomes OK"),
        ("ignore", "an OK stays OK; an ALARM stays ALARM for ever"),
        ("missing", "an OK becomes INSUFFICIENT_DATA"),
        (None, "missing (by default)"),
    ],
)
def test_what_silence_does(treatment: str | None, words: str) -> None:
    """As the engine decides it."""
    assert words in told(metric_alarm(TreatMissingData=treatment)).silence


def test_the_time_of_silence_comes_true() -> None:
    """From the last good point to the state silence leads to, at any phase."""
    for params in (metric_alarm(TreatMissingData="breaching", EvaluationPeriods=2), metric_alarm(TreatMissingData="missing", Period=10)):
        alarm = parse_metric_alarm(params)
        silent = time_of_silence(alarm, OBSERVED)
        assert silent is not None
        state, span = silent
        for phase in (0.0, 4.0, 37.0):
            source = MemorySource()
            source.add(KEY, Samples.of([0.0] * 300, times=[T0 + 2 * i for i in range(300)]))
            book = AlarmBook("us-west-2", options=OBSERVED, phase=lambda _, at=phase: at)  # type: ignore[misc]
            book.put_metric_alarm(params, T0 + 500)
            book.restore("a", OK, T0 + 500)
            events = [event for event in book.tick(T0 + 1500, source) if isinstance(event, Transition)]
            assert [event.state for event in events] == [state]
            assert span.least <= events[0].at - (T0 + 598) <= span.most


def test_a_composite_is_explained_with_its_children_and_suppressor() -> None:
    """The children's conditions, the wait, and what total silence comes to."""
    composite = {
        "AlarmName": "c",
        "AlarmRule": "ALARM(a) AND NOT ALARM(s)",
        "ActionsSuppressor": "s",
        "ActionsSuppressorWaitPeriod": 180,
        "ActionsSuppressorExtensionPeriod": 0,
    }
    found = told(metric_alarm(TreatMissingData="breaching"), metric_alarm("s"), composite, name="c")
    assert found.watches[0].startswith("a: when it is greater than or equal to 1")
    assert "its actions wait 3m for s" in found.notes[0]
    assert found.silence == "when every metric below it falls silent it is in ALARM"
    assert found.to_json()["cost_per_month_usd"] == 0.5


# --- SLOs -----------------------------------------------------------------------------------------------------------------------------


def test_the_factors_are_those_of_the_sre_workbook() -> None:
    """2 % in an hour is 14.4, 5 % in six hours is 6, 10 % in three days is 1, of 30 days."""
    objective = Objective(name="o", kind="availability", target_percent=99.9)
    assert [pair.factor(objective) for pair in slo.PAIRS] == pytest.approx([14.4, 6.0, 1.0])
    four_weeks = Objective(name="o", kind="availability", target_percent=99.9, window_days=28)
    assert slo.PAIRS[0].factor(four_weeks) == pytest.approx(13.44)


def slo_items(topology: Topology, region: str = "us-west-2") -> list[dict[str, Any]]:
    """The SLO alarms of one Region."""
    return slo.region_definitions(topology, region)


def test_what_pages_is_one_composite_and_what_is_a_ticket_another(topology: Topology) -> None:
    """One for each severity of an objective and its subject, named after its pairs; no Region reports on itself."""
    composites = {item["AlarmName"] for item in slo_items(topology) if "AlarmRule" in item}
    about = ("availability-store", "availability-us-east-1", "latency-store")
    assert composites == {f"{topology.workload}-slo-{each}-{pairs}" for each in about for pairs in ("fast-or-slow", "trickle")}
    assert composites == set(slo.incidents(topology, "us-west-2"))


def test_a_ticket_that_is_open_does_not_swallow_the_page(topology: Topology) -> None:
    """A pager takes a second trigger of an open incident for news of it, and wakes nobody: severities have keys of their own."""
    found = slo.incidents(topology, "us-west-2").values()
    keys = {(each["dedup_key"], each["severity"]) for each in found}
    assert len({key for key, _ in keys}) == len(keys) == len(found)
    assert {severity for _, severity in keys} == {"error", "warning"}


def test_the_definitions_are_valid_and_stand_in_order(topology: Topology) -> None:
    """A book takes them as they come, beside the others."""
    book = AlarmBook("us-west-2", topology.account)
    items = [item for item in render(topology) if item["Region"] == "us-west-2"]
    for item in items:
        params = {key: value for key, value in item.items() if key != "Region"}
        if "AlarmRule" in params:
            book.put_composite_alarm(params, T0)
        else:
            book.put_metric_alarm(params, T0)
    assert {item["AlarmName"] for item in slo_items(topology)} < set(book.entries)


def test_pairs_no_error_ratio_can_reach_are_left_out(topology: Topology) -> None:
    """A 50 % objective has no pair of factor 14.4."""
    low = topology.model_copy(update={"objectives": (Objective(name="half", kind="availability", target_percent=50),)})
    assert slo.unreachable(low) == ["half: fast needs an error ratio of 720%", "half: slow needs an error ratio of 300%"]
    names = {item["AlarmName"] for item in slo_items(low)}
    assert not [name for name in names if "fast" in name or "slow" in name]


def up_rounds(topology: Topology, failing: range, hours: int = 3, every: int = 12) -> tuple[MemorySource, int]:
    """The probe's rounds for the store's name: five a minute from each of two vantages, down in the given minutes."""
    source = MemorySource()
    times = [T0 + i * every for i in range(hours * 3600 // every)]
    values = [0.0 if int((time - T0) // 60) in failing else 1.0 for time in times]
    key = MetricKey.of("Crosswatch/Probe", "Up", {"Workload": topology.workload, "Target": "name"})
    source.add(key, Samples.of(values * 2, times=times * 2))
    return source, hours * 3600


def slo_transitions(topology: Topology, source: MemorySource, seconds: int) -> list[Transition]:
    """What the availability composites of the store do."""
    book = AlarmBook("us-west-2", topology.account, phase=lambda _: 0.0)
    wanted = store_prefix(topology)
    for item in slo_items(topology):
        if item["AlarmName"].startswith(wanted):
            (book.put_composite_alarm if "AlarmRule" in item else book.put_metric_alarm)(item, T0)
    for name in book.entries:
        book.restore(name, "OK", T0)
    return [event for event in book.tick(T0 + seconds, source) if isinstance(event, Transition) and event.composite]


def run_slo(topology: Topology, source: MemorySource, seconds: int) -> list[tuple[float, str, State]]:
    """(minute, composite, state) of the same."""
    found = slo_transitions(topology, source, seconds)
    return [((event.at - T0) / 60, event.alarm.removeprefix(store_prefix(topology)), event.state) for event in found]


def store_prefix(topology: Topology) -> str:
    """What the alarms of the store's availability are called."""
    return f"{topology.workload}-slo-availability-store-"


def test_an_outage_burns_the_budget_and_the_short_window_clears_it(topology: Topology) -> None:
    """Five minutes down are 8 % of an hour, beyond 14.4 times 0.1 %: on within two minutes, off with the longer of the short windows."""
    source, seconds = up_rounds(topology, range(90, 95))
    changes = [change for change in run_slo(topology, source, seconds) if change[1] == "fast-or-slow"]
    assert [state for _, _, state in changes] == [ALARM, OK]
    assert 90 < changes[0][0] <= 93
    assert 125 <= changes[1][0] <= 127


def test_the_reason_says_which_window_burns(topology: Topology) -> None:
    """One composite looks at four windows: the one that fired last is named in what the page passes on."""
    source, seconds = up_rounds(topology, range(90, 95))
    reasons = [event.reason for event in slo_transitions(topology, source, seconds) if event.state == ALARM]
    assert len(reasons) == 1
    assert "retail-slo-availability-store-burn-" in reasons[0]
    assert re.search(r"-x(14\.4|6) transitioned to ALARM", reasons[0])


def test_a_single_failed_round_does_not_page(topology: Topology) -> None:
    """A tenth of a minute of one hour is within the fast pair's limit."""
    source, seconds = up_rounds(topology, range(0), hours=2)
    one_bad = MetricKey.of("Crosswatch/Probe", "Up", {"Workload": topology.workload, "Target": "name"})
    source.add(one_bad, Samples.of([0.0], times=[T0 + 5400]))
    assert [change for change in run_slo(topology, source, seconds) if change[1] == "fast-or-slow"] == []


def test_too_few_rounds_are_not_judged(topology: Topology) -> None:
    """The low-traffic guard: a probe that is hardly heard does not burn a budget."""
    source, seconds = up_rounds(topology, range(60, 120), hours=2, every=600)
    assert run_slo(topology, source, seconds) == []


@pytest.mark.parametrize(("kind", "source"), [("latency", "probe"), ("availability", "alb"), ("latency", "alb")])
def test_other_kinds_of_objectives_are_valid(topology: Topology, kind: Any, source: Any) -> None:
    """Latency and the load balancer's own metrics; each parses, and none stands where its metric is not."""
    objective = Objective(name="o", kind=kind, target_percent=99, latency_ms=400, source=source)
    items = slo_items(topology.model_copy(update={"objectives": (objective,)}))
    alarms = [item for _, item in parse_all(from_items(items)) if isinstance(item, MetricAlarm)]
    assert alarms
    expected = "AWS/ApplicationELB" if source == "alb" else "Crosswatch/Probe"
    assert {stat.metric.namespace for alarm in alarms for stat in alarm.metric_stats} == {expected}


# --- the commands ---------------------------------------------------------------------------------------------------------------------


def test_the_commands_exit_with_0_1_and_2(tmp_path: Path) -> None:
    """Success, findings; unusable input is raised to the command line's frame."""
    path = tmp_path / "alarms.yaml"
    path.write_text(yaml.safe_dump([metric_alarm(AlarmDescription="Look.", MetricName="X", AlarmActions=[TOPIC])]))
    missing = str(tmp_path / "none.yaml")
    assert RUNNER.invoke(app, ["lint", str(path), "-t", missing]).exit_code == 0
    path.write_text(yaml.safe_dump([metric_alarm(AlarmActions=[])]))
    found = RUNNER.invoke(app, ["lint", str(path), "-t", missing, "--json"])
    assert found.exit_code == 1
    assert {finding["check"] for finding in json.loads(found.stdout)["findings"]} == {"no-action"}
    explained = RUNNER.invoke(app, ["explain", "a", "-d", str(path), "--json"])
    assert json.loads(explained.stdout)[0]["name"] == "a"
    wrong = RUNNER.invoke(app, ["explain", "b", "-d", str(path)])
    assert type(wrong.exception).__name__ == "UnusableInput"
    series = {"metric": {"namespace": "N", "name": "M", "dimensions": {"D": "v"}}, "values": "1"}
    case = {"input_series": [series], "expect": [{"at": "1m", "alarm": "a", "state": "ALARM"}]}
    test = tmp_path / "a.test.yaml"
    test.write_text(yaml.safe_dump({"definitions": ["alarms.yaml"], "tests": [case]}))
    junit = tmp_path / "junit.xml"
    passed = RUNNER.invoke(app, ["test", str(test), "--junit", str(junit), "--coverage", "--json"])
    assert passed.exit_code == 0
    assert junit.exists()
    assert json.loads(passed.stdout)["coverage"][0]["to_alarm"] is True
