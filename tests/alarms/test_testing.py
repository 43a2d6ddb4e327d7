"""``alarms test``: the file format, the runner, coverage and mutation."""

from __future__ import annotations

import json
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Any

import pytest
import yaml
from rich.console import Console

from alarms import testing
from alarms.definitions import from_items
from alarms.testing.notation import NotationError, parse_duration, parse_series, show_duration
from alarms.testing.runner import load_suites, run_case
from tests.alarms.kit import TOPIC, metric_alarm
from topology.problems import UnusableInput

SERIES = {"metric": {"namespace": "N", "name": "M", "dimensions": {"D": "v"}}}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("-2+4x3", [-2, 2, 6, 10]),
        ("1-2x4", [1, -1, -3, -5, -7]),
        ("1x4", [1, 1, 1, 1, 1]),
        ("4 _x3", [4, None, None, None]),
        ("0x5 1 _ 1x3", [0, 0, 0, 0, 0, 0, 1, None, 1, 1, 1, 1]),
        ("0.5+0.25x2 1e3", [0.5, 0.75, 1, 1000]),
        ("", []),
    ],
)
def test_series_notation_is_promtools(text: str, expected: list[float | None]) -> None:
    """promtool's own examples: a+bxn is a and n more."""
    assert parse_series(text) == expected


@pytest.mark.parametrize("text", ["x", "1+x", "1+2", "__", "1x99999999", "0x1000000", "NaN", "1e999", "1x-1", "١"])
def test_series_notation_refuses_what_it_does_not_know(text: str) -> None:
    """The message quotes the item."""
    with pytest.raises(NotationError):
        parse_series(text)


@pytest.mark.parametrize(("text", "seconds"), [("8m", 480), ("1h30m", 5400), ("90s", 90), ("0", 0), (30, 30), ("1d", 86_400)])
def test_durations(text: object, seconds: float) -> None:
    """Durations read and shown."""
    assert parse_duration(text) == seconds
    assert parse_duration(show_duration(seconds)) == seconds


def write(directory: Path, definitions: object, *tests: dict[str, Any]) -> Path:
    """A test file."""
    path = directory / "alarms.test.yaml"
    content: dict[str, Any] = {"tests": list(tests)}
    if definitions is not None:
        content["definitions"] = definitions
    path.write_text(yaml.safe_dump(content))
    return path


def run(directory: Path, definitions: object, *tests: dict[str, Any], **options: Any) -> testing.Report:
    """Run one file made of ``tests``."""
    return testing.run([write(directory, definitions, *tests)], **options)


def messages(report: testing.Report) -> list[str]:
    """All failures, in one list."""
    return [failure.message for result in report.results for failure in result.failures]


def at(minute: int, state: str, alarm: str = "a", **more: Any) -> dict[str, Any]:
    """An expectation."""
    return {"at": f"{minute}m", "alarm": alarm, "state": state, **more}


def test_a_test_passes_and_fails(tmp_path: Path) -> None:
    """3 of 3: the third bad minute makes the alarm; a wrong expectation is told with its timeline."""
    definition = metric_alarm(EvaluationPeriods=3)
    case = {"name": "t", "input_series": [{**SERIES, "values": "0x5 1x4 0x5"}]}
    good = [at(8, "OK"), at(9, "ALARM"), at(11, "ALARM"), at(12, "OK")]
    assert run(tmp_path, [definition], {**case, "expect": good}).passed
    report = run(tmp_path, [definition], {**case, "expect": [*good, at(8, "ALARM")]})
    assert messages(report) == ["at 8m the alarm a is OK, expected ALARM"]
    timeline = report.results[0].failures[0].timeline
    assert "newest point" in timeline
    assert "1 1" not in timeline.splitlines()[2]
    assert "rule 2" in timeline.splitlines()[-1]


def test_expected_actions_are_the_complete_list(tmp_path: Path) -> None:
    """Each expected action must run, and no other may."""
    case = {"input_series": [{**SERIES, "values": "0x2 1x2 0x2"}]}
    complete = [at(1, "OK"), at(4, "ALARM"), at(7, "OK", action=TOPIC)]
    assert run(tmp_path, [metric_alarm()], {**case, "expect_actions": complete}).passed
    lacking = messages(run(tmp_path, [metric_alarm()], {**case, "expect_actions": complete[:2]}))
    assert lacking == [f"at 7m the alarm a ran {TOPIC} for OK, which is not expected"]
    too_many = messages(run(tmp_path, [metric_alarm()], {**case, "expect_actions": [*complete, at(5, "ALARM")]}))
    assert too_many == ["at 5m no action of a for ALARM"]
    assert messages(run(tmp_path, [metric_alarm()], {**case, "expect_actions": [*complete[:2], at(7, "OK", action="arn:x")]}))


def test_an_empty_list_of_actions_means_none(tmp_path: Path) -> None:
    """``expect_actions: []`` fails on any action."""
    case = {"input_series": [{**SERIES, "values": "1x3"}]}
    assert not run(tmp_path, [metric_alarm()], {**case, "expect_actions": []}).passed


def test_a_previous_state_is_where_the_test_begins(tmp_path: Path) -> None:
    """With ignore and no data the alarm stays in the state it was given."""
    definition = metric_alarm(TreatMissingData="ignore")
    case = {"previous_state": {"a": "ALARM"}, "expect": [at(0, "ALARM"), at(5, "ALARM")], "expect_actions": []}
    assert run(tmp_path, [definition], case).passed


def test_delay_makes_samples_late(tmp_path: Path) -> None:
    """A sample 30 s late is not seen at the end of its minute, but a minute after."""
    series = {**SERIES, "values": "0x3 1 0x5", "delay": "30s"}
    expectations = [at(5, "OK"), at(6, "ALARM"), at(7, "OK")]
    definition = metric_alarm(TreatMissingData="missing")
    assert run(tmp_path, [definition], {"input_series": [series], "expect": expectations}).passed


def test_samples_carry_percentiles_and_counts(tmp_path: Path) -> None:
    """99 samples are too few for p90 when such points are ignored, 100 are enough."""
    definition = metric_alarm(
        Statistic=None, ExtendedStatistic="p90", EvaluateLowSampleCountPercentile="ignore", TreatMissingData="missing", Threshold=0.5
    )
    samples = ["1x98", "1x99", "0.1x98", "0.1x99"]
    expectations = [at(1, "INSUFFICIENT_DATA"), at(2, "ALARM"), at(3, "ALARM"), at(4, "OK")]
    assert run(tmp_path, [definition], {"input_series": [{**SERIES, "samples": samples}], "expect": expectations}).passed


def test_a_band_is_given_as_two_series(tmp_path: Path) -> None:
    """ANOMALY_DETECTION_BAND takes the band from the test."""
    stat = {"Metric": {"Namespace": "N", "MetricName": "M", "Dimensions": [{"Name": "D", "Value": "v"}]}, "Period": 60, "Stat": "Average"}
    definition = {
        "AlarmName": "a",
        "Metrics": [{"Id": "m1", "MetricStat": stat}, {"Id": "ad1", "Expression": "ANOMALY_DETECTION_BAND(m1, 2)"}],
        "EvaluationPeriods": 1,
        "ThresholdMetricId": "ad1",
        "ComparisonOperator": "LessThanLowerOrGreaterThanUpperThreshold",
    }
    series = [{**SERIES, "values": "5x2 20 5 0 5"}, {**SERIES, "band": {"lower": "1x9", "upper": "9x9"}}]
    expectations = [at(3, "OK"), at(4, "ALARM"), at(5, "OK"), at(6, "ALARM"), at(7, "OK")]
    assert run(tmp_path, [definition], {"input_series": series, "expect": expectations}).passed


def test_a_blackout_silences_what_the_region_emits_and_freezes_its_alarms(tmp_path: Path) -> None:
    """Seen from the other Region the metric stops; the Region's own alarms stand still and wake afterwards."""
    here = metric_alarm("here", EvaluationPeriods=3, TreatMissingData="breaching") | {"Region": "us-west-2"}
    there = metric_alarm("there", EvaluationPeriods=3, TreatMissingData="breaching") | {"Region": "us-east-1"}
    east = {**SERIES, "values": "0x30", "emitted_by": "us-east-1"}
    case = {
        "region": "us-west-2",
        "previous_state": {"here": "OK", "there": "OK"},
        "input_series": [{**east, "stored_in": "us-west-2"}, {**east, "stored_in": "us-east-1"}],
        "blackout": [{"region": "us-east-1", "from": "5m", "to": "20m"}],
        "expect": [
            at(9, "OK", "here"),
            at(10, "ALARM", "here"),
            at(19, "OK", "there", region="us-east-1"),
            at(20, "ALARM", "there", region="us-east-1"),
            at(21, "OK", "there", region="us-east-1"),
            at(21, "OK", "here"),
        ],
    }
    report = run(tmp_path, [here, there], case)
    assert messages(report) == []


def test_where_no_region_is_named_no_blackout_freezes_the_alarm(tmp_path: Path) -> None:
    """The alarm stands outside of all Regions; only what the lost Region emits or stores is gone."""
    series = [{**SERIES, "values": "0x30", "emitted_by": "us-east-1"}, {**SERIES, "values": "0x3 _x26", "stored_in": "us-west-2"}]
    case = {
        "previous_state": {"a": "OK"},
        "input_series": series,
        "blackout": [{"region": "us-east-1", "from": "5m", "to": "20m"}],
        "expect": [at(9, "ALARM"), at(21, "OK"), at(9, "ALARM", region="us-west-2")],
    }
    definition = metric_alarm(EvaluationPeriods=2, TreatMissingData="breaching")
    assert messages(run(tmp_path, [definition], case)) == []


def test_composites_and_mute_rules_take_part(tmp_path: Path) -> None:
    """A composite in ALARM while a mute rule holds its action back."""
    composite = {"AlarmName": "c", "AlarmRule": "ALARM(a)", "AlarmActions": [TOPIC]}
    schedule = {"Expression": "at(2026-01-01T00:02)", "Duration": "PT5M"}
    mute = {"Name": "deploy", "Rule": {"Schedule": schedule}, "MuteTargets": {"AlarmNames": ["c"]}}
    case = {
        "start": "2026-01-01T00:00:00Z",
        "input_series": [{**SERIES, "values": "0x2 1x9"}],
        "expect": [at(4, "ALARM", "c")],
        "expect_actions": [at(7, "ALARM", "c")],
    }
    assert messages(run(tmp_path, [composite, metric_alarm(AlarmActions=[], OKActions=[]), mute], case)) == []


def test_definitions_come_from_files_of_several_shapes(tmp_path: Path) -> None:
    """A list in YAML, a mapping by kind in JSON, by Region, and a CloudFormation template."""
    (tmp_path / "list.yaml").write_text(yaml.safe_dump([metric_alarm("one")]))
    (tmp_path / "kinds.json").write_text(json.dumps({"MetricAlarms": [metric_alarm("two")], "CompositeAlarms": []}))
    (tmp_path / "regions.yaml").write_text(yaml.safe_dump({"us-east-1": [metric_alarm("three")]}))
    properties = {key: value for key, value in metric_alarm("four").items() if key != "AlarmName"}
    (tmp_path / "template.json").write_text(
        json.dumps({"Resources": {"four": {"Type": "AWS::CloudWatch::Alarm", "Properties": properties}}})
    )
    names = ["list.yaml", "kinds.json", "regions.yaml", "template.json"]
    expectations = [at(1, "ALARM", name) for name in ("one", "two", "three", "four")]
    assert messages(run(tmp_path, names, {"input_series": [{**SERIES, "values": "1x3"}], "expect": expectations})) == []


def test_definitions_are_rendered_where_none_are_named(tmp_path: Path) -> None:
    """The command line passes a function that renders the topology."""
    path = write(tmp_path, None, {"input_series": [{**SERIES, "values": "1"}], "expect": [at(1, "ALARM")]})
    assert testing.run([path], lambda: from_items([metric_alarm()])).passed
    with pytest.raises(UnusableInput, match="there are no definitions"):
        testing.run([path])


def test_all_problems_of_a_file_are_told_at_once(tmp_path: Path) -> None:
    """Each with the file, the key and the mend."""
    bad = metric_alarm(Period=45, ComparisonOperator="Above", EvaluationPeriods=0)
    case = {
        "interval": "soon",
        "colour": "red",
        "input_series": [{**SERIES, "values": "0y5"}, {"values": "1"}],
        "expect": [at(1, "BROKEN"), at(1, "OK", "b")],
    }
    with pytest.raises(UnusableInput) as error:
        run(tmp_path, [bad], case)
    keys = {problem.key for problem in error.value.problems}
    expected = {
        "tests[0].interval",
        "tests[0].colour",
        "tests[0].input_series[0].values",
        "tests[0].input_series[1].metric",
        "tests[0].expect[0].state",
        "tests[0].expect[1].alarm",
    }
    assert expected <= keys
    assert all(problem.file.endswith("alarms.test.yaml") and problem.mend for problem in error.value.problems)
    with pytest.raises(UnusableInput) as error:
        run(tmp_path, [bad], {"input_series": [], "expect": [at(1, "OK")]})
    assert {problem.key.rsplit(".", 1)[-1] for problem in error.value.problems} == {"Period", "ComparisonOperator", "EvaluationPeriods"}


def test_a_composite_with_an_undefined_child_is_refused(tmp_path: Path) -> None:
    """Before any test runs."""
    composite = {"AlarmName": "c", "AlarmRule": "ALARM(a) AND ALARM(nobody)"}
    with pytest.raises(UnusableInput, match="the alarm nobody is not defined"):
        run(tmp_path, [metric_alarm(), composite], {"expect": [at(1, "OK", "c")]})


def test_composites_in_a_circle_are_refused(tmp_path: Path) -> None:
    """CloudWatch stops evaluating them."""
    circle = [{"AlarmName": "x", "AlarmRule": "ALARM(y)"}, {"AlarmName": "y", "AlarmRule": "ALARM(x)"}]
    with pytest.raises(UnusableInput, match="in a circle"):
        run(tmp_path, circle, {"expect": [at(1, "OK", "x")]})


def test_coverage_tells_what_was_not_driven(tmp_path: Path) -> None:
    """An alarm that never recovers in the tests, and never meets missing data."""
    case = {"input_series": [{**SERIES, "values": "0 1x3"}], "expect": [at(2, "ALARM")]}
    report = run(tmp_path, [metric_alarm()], case, with_coverage=True)
    assert report.coverage is not None
    assert report.coverage[0].lacking == (
        "never comes back to OK",
        "never meets missing data",
    )
    full = {"input_series": [{**SERIES, "values": "0 1x3 0 _x5"}], "expect": [at(2, "ALARM")]}
    complete = run(tmp_path, [metric_alarm()], full, with_coverage=True).coverage
    assert complete is not None
    assert complete[0].complete


def test_a_mutant_survives_where_no_test_pins_a_number_down(tmp_path: Path) -> None:
    """Values of 0 and 5 say nothing about a threshold of 1; a value of exactly 1 does."""
    definition = metric_alarm(EvaluationPeriods=2)
    loose = {"input_series": [{**SERIES, "values": "0x2 5x3 0x3"}], "expect": [at(5, "ALARM"), at(8, "OK")]}
    changes = {mutant.change for mutant in (run(tmp_path, [definition], loose, with_mutants=True).survivors)}
    assert "Threshold 1 -> 1.1" in changes
    assert "GreaterThanOrEqualToThreshold -> GreaterThanThreshold" in changes
    tight = {"input_series": [{**SERIES, "values": "0.95x2 1x3 0.95x3"}], "expect": [at(4, "OK"), at(5, "ALARM"), at(8, "OK")]}
    changes = {mutant.change for mutant in (run(tmp_path, [definition], loose, tight, with_mutants=True).survivors)}
    assert not {change for change in changes if "Threshold" in change}


def test_junit_and_json_tell_the_same(tmp_path: Path) -> None:
    """A failed test is a failure element, and false in JSON."""
    path = tmp_path / "out" / "junit.xml"
    case = {"name": "t\x00", "input_series": [{**SERIES, "values": "1x3"}], "expect": [at(1, "OK")]}
    report = run(tmp_path, [metric_alarm()], case, junit=path)
    root = ET.parse(path).getroot()
    assert root.find("testsuite").get("failures") == "1"  # type: ignore[union-attr]
    assert root.find("testsuite/testcase/failure") is not None
    console = Console(record=True, width=200, quiet=True)
    testing.print_report(report, console, json=True)
    assert report.to_json()["passed"] is False
    assert report.exit_code == 1


@pytest.mark.parametrize("treatment", ["missing", "breaching", "notBreaching", "ignore"])
def test_a_long_test_run_on_arrays_gives_the_same_states_and_actions(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, treatment: str
) -> None:
    """The fast path of long tests and the scalar book agree, composites, suppression and mute rules included."""
    composite = {"AlarmName": "c", "AlarmRule": "ALARM(a) AND NOT ALARM(b)", "AlarmActions": [TOPIC], "OKActions": [TOPIC]}
    suppressed = composite | {
        "AlarmName": "s",
        "ActionsSuppressor": "b",
        "ActionsSuppressorWaitPeriod": 90,
        "ActionsSuppressorExtensionPeriod": 150,
    }
    schedule = {"Expression": "cron(0,30 * * * *)", "Duration": "PT5M"}
    mute = {"Name": "deploy", "Rule": {"Schedule": schedule}, "MuteTargets": {"AlarmNames": ["c", "s"]}}
    other = metric_alarm("b", MetricName="B", Dimensions=[], TreatMissingData=treatment, Period=10, EvaluationPeriods=2)
    definitions = [metric_alarm(EvaluationPeriods=3, DatapointsToAlarm=2, TreatMissingData=treatment), other, composite, suppressed, mute]
    pieces = "0x20 1x5 _x7 1x2 0 1 0 1 _x3 0x30 1x90 _x40 0x10"
    series = [{**SERIES, "values": pieces}, {"metric": {"namespace": "N", "name": "B"}, "values": "0x25 1x3 0x40 _x9 1x2 0x60"}]
    path = write(tmp_path, definitions, {"input_series": series, "expect": [at(1, "OK")], "expect_actions": []})
    suites = load_suites([path], None)
    case, parsed = suites[0][0].cases[0], suites[0][1]
    monkeypatch.setattr("alarms.testing.runner.MANY", 10**9)
    slow = run_case(case, parsed)
    monkeypatch.setattr("alarms.testing.runner.MANY", 0)
    fast = run_case(case, parsed)
    assert fast.traces.keys() == slow.traces.keys()
    for key, trace in slow.traces.items():
        assert fast.traces[key].states == trace.states
        assert [(act.at, act.arn, act.state) for act in fast.traces[key].actions] == [(a.at, a.arn, a.state) for a in trace.actions]
    assert [failure.message for failure in fast.failures] == [failure.message for failure in slow.failures]
    assert sum(len(trace.states) for trace in slow.traces.values()) > 12
