"""Whatever is thrown at the parsers and the engine: an answer or a named problem, never a traceback, never a hang.

Runs some hundred inputs of each kind; ``CROSSWATCH_FUZZ=100000 pytest tests/alarms/test_fuzz.py`` runs that many, spread over the kinds.
"""

# ruff: noqa: PT017 - an error is one of the two allowed outcomes, and is looked at where it occurs
from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from alarms import definitions as reading
from alarms.backtest.data import load as load_history
from alarms.engine import DefinitionError, parse_composite_alarm, parse_metric_alarm, parse_mute_rule, valid_statistic
from alarms.engine.composite import RuleError
from alarms.engine.composite import parse as parse_rule
from alarms.engine.math import MathError, MathSyntaxError, Series, check, evaluate_queries
from alarms.engine.math import parse as parse_math
from alarms.engine.math.functions import FUNCTIONS
from alarms.engine.query import MetricKey, MetricStat, Query
from alarms.lint import lint
from alarms.testing.case import parse_suite
from alarms.testing.notation import NotationError, parse_series
from alarms.testing.runner import check_children, run_case
from tests.alarms.kit import metric_alarm
from topology.problems import UnusableInput

EACH = max(100, int(os.environ.get("CROSSWATCH_FUZZ", "0")) // 8)
LONGEST_S = 10.0
fuzz = settings(
    max_examples=EACH,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture, HealthCheck.large_base_example],
)
pytestmark = pytest.mark.timeout(3600)

SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**70), 2**70),
    st.floats(),
    st.text(max_size=12),
    st.sampled_from(["OK", "ALARM", "Average", "p99", "TM(1%:2%)", "60", "missing", "us-west-2", "m1", "a", "8m", "0x5", "_x3", "Count"]),
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)
RULE_WORDS = (
    *("ALARM", "OK", "INSUFFICIENT_DATA", "AT_LEAST", "AND", "OR", "NOT", "TRUE", "FALSE", "(", ")", ",", '"', "a", "b c", "50%"),
    *("2", "\\", " ", "\n", "é"),
)
MATH_WORDS = (
    *FUNCTIONS,
    *("m1", "m2", "e1", "(", ")", "[", "]", ",", "+", "-", "*", "/", "^", "<", ">=", "==", "AND", "||", "1", ".5", "1e9", "'x'"),
    *("REPEAT", "ASC", " "),
)
STATISTIC_WORDS = ("p", "TM", "tc", "(", ")", ":", "%", "1", "99.9", "-", "e")


class Watch:
    """Fails a test whose one input takes too long (in CPU seconds: the machine may be busy)."""

    def __enter__(self) -> None:
        self.began = time.process_time()

    def __exit__(self, *_: object) -> None:
        assert time.process_time() - self.began < LONGEST_S


@fuzz
@given(text=st.one_of(st.text(max_size=300), st.lists(st.sampled_from(RULE_WORDS), max_size=60).map(" ".join)))
def test_rules(text: str) -> None:
    """Composite rules: a program, or an error that points into the text."""
    with Watch():
        try:
            rule = parse_rule(text)
        except RuleError as error:
            assert 0 <= error.position <= len(text)
            assert "Error in AlarmRule [" in error.pointed()
        else:
            assert rule.holds(lambda _: "ALARM") in (True, False)


@fuzz
@given(text=st.one_of(st.text(max_size=300), st.lists(st.sampled_from(MATH_WORDS), max_size=40).map("".join)))
def test_expressions(text: str) -> None:
    """Metric math: parsed, checked and computed, or refused with a message."""
    with Watch():
        try:
            parse_math(text)
        except MathSyntaxError as error:
            assert 0 <= error.position <= max(len(text), 2048)
        stats = {name: MetricStat(MetricKey.of("N", name), 60, "Sum") for name in ("m1", "m2")}
        queries = [*(Query(name, stat, return_data=False) for name, stat in stats.items()), Query("e", None, text)]
        problems = check(queries, alarm=False)
        series = {"m1": Series.of([0, 60, 180], [1.0, 0.0, -3.0]), "m2": Series.of([60, 120], [2.0, 5.0])}
        try:
            found = evaluate_queries(queries, lambda query: series[query.id], 0, 240)
        except MathError:
            return
        assert not problems or "not supported" in str(problems) or found


KEYS = (
    *("AlarmName", "Namespace", "MetricName", "Dimensions", "Statistic", "ExtendedStatistic", "Period", "EvaluationPeriods"),
    *("DatapointsToAlarm", "Threshold", "ComparisonOperator", "TreatMissingData", "Metrics", "ThresholdMetricId", "AlarmActions"),
    *("Unit", "EvaluationWindow", "WarmUpConfiguration", "EvaluateLowSampleCountPercentile", "ActionsEnabled", "AlarmRule"),
    *("ActionsSuppressor", "Rule", "MuteTargets"),
)


@fuzz
@given(changes=st.dictionaries(st.sampled_from(KEYS) | st.text(max_size=6), VALUES, max_size=5), base=st.booleans())
def test_definitions(changes: dict[str, Any], base: bool) -> None:
    """Alarm parameters of any shape: an alarm, or all the problems."""
    params = (metric_alarm() if base else {}) | changes
    with Watch():
        for parse in (parse_metric_alarm, parse_composite_alarm, parse_mute_rule):
            try:
                parse(params)
            except DefinitionError as error:
                assert error.problems
                assert all(problem.what for problem in error.problems)
                assert isinstance(error.aws_message, str)


@fuzz
@given(value=VALUES, name=st.sampled_from(["m1", "Rule"]))
def test_nested_parts(value: Any, name: str) -> None:
    """Queries, schedules and windows in place of real ones."""
    queries = {"AlarmName": "a", "Metrics": value, "EvaluationPeriods": 1, "Threshold": 1, "ComparisonOperator": "GreaterThanThreshold"}
    rule = {"Name": name, "Rule": {"Schedule": value}, "MuteTargets": {"AlarmNames": ["a"]}}
    with Watch():
        for parse, params in ((parse_metric_alarm, queries), (parse_mute_rule, rule)):
            with pytest.raises(DefinitionError):
                parse(params)


@fuzz
@given(
    text=st.one_of(
        st.text(max_size=40),
        st.lists(st.sampled_from(STATISTIC_WORDS), max_size=9).map("".join),
    )
)
def test_names_of_statistics_and_series(text: str) -> None:
    """Statistics are valid or not; series are read or refused."""
    with Watch():
        assert valid_statistic(text) in (True, False)
        try:
            parse_series(text)
        except NotationError as error:
            assert str(error)


CASES = st.fixed_dictionaries(
    {},
    optional={
        "name": SCALARS,
        "region": SCALARS,
        "start": SCALARS | st.sampled_from(["2026-01-01T00:00:00Z", "0001-01-01", "9999-12-31"]),
        "interval": SCALARS,
        "phase": SCALARS,
        "previous_state": VALUES,
        "input_series": st.lists(
            st.fixed_dictionaries(
                {},
                optional={
                    "metric": st.just({"namespace": "N", "name": "M", "dimensions": {"D": "v"}}) | VALUES,
                    "values": st.sampled_from(["0x5 1", "1x3 _x2", "1+x", "9e307+9e307x3"]) | SCALARS,
                    "samples": VALUES,
                    "band": VALUES,
                    "delay": SCALARS,
                    "stored_in": SCALARS,
                },
            )
            | VALUES,
            max_size=2,
        ),
        "blackout": st.lists(st.just({"region": "us-east-1", "from": "1m", "to": "2m"}) | VALUES, max_size=2),
        "expect": st.lists(st.just({"at": "3m", "alarm": "a", "state": "OK"}) | VALUES, max_size=2),
        "expect_actions": st.lists(st.just({"at": "3m", "alarm": "a", "state": "OK"}) | VALUES, max_size=2),
        "options": VALUES,
    },
)


@fuzz
@given(case=CASES, extra=st.dictionaries(st.text(max_size=5), VALUES, max_size=1))
def test_test_files(case: dict[str, Any], extra: dict[str, Any]) -> None:
    """Test files: a run, or problems that name the file."""
    with Watch():
        try:
            suite = parse_suite({"definitions": [metric_alarm()], "tests": [case], **extra}, Path("fuzz.yaml"), None)
            parsed = reading.parse_all(suite.definitions)
            check_children(parsed)
            for one in suite.cases:
                if one.end_s < 86_400:
                    run_case(one, parsed)
        except UnusableInput as error:
            assert error.problems
            assert all(problem.file for problem in error.problems)


@fuzz
@given(data=st.one_of(st.text(max_size=200), VALUES.map(lambda value: yaml.safe_dump(value, allow_unicode=True)), st.binary(max_size=80)))
def test_files_of_any_content(data: str | bytes, tmp_path: Path) -> None:
    """Definition and history files of any bytes: read, or refused with the reason."""
    with Watch():
        for name in ("any.yaml", "any.json", "any.csv"):
            path = tmp_path / name
            path.write_bytes(data if isinstance(data, bytes) else data.encode("utf-8", "replace"))
            try:
                if name.endswith("csv"):
                    load_history([path])
                else:
                    reading.parse_all(reading.load_file(path))
                    load_history([path])
            except UnusableInput as error:
                assert all(problem.file.endswith(name) for problem in error.problems)


@fuzz
@given(
    changes=st.dictionaries(st.sampled_from(KEYS), VALUES, max_size=2), rule=st.lists(st.sampled_from(RULE_WORDS), max_size=9).map(" ".join)
)
def test_lint(changes: dict[str, Any], rule: str) -> None:
    """Whatever can be parsed can be linted."""
    items = [metric_alarm() | changes, {"AlarmName": "c", "AlarmRule": rule}]
    with Watch():
        try:
            for finding in lint(reading.from_items(items)):
                assert finding.check
                assert finding.mend
        except UnusableInput as error:
            assert error.problems


def test_files_that_grow_by_aliases_or_depth_are_refused(tmp_path: Path) -> None:
    """A few lines that stand for billions of values, and brackets without end."""
    bomb = "a: &a [x,x,x,x,x,x,x,x,x]\n" + "".join(
        f"{b}: &{b} [{','.join(['*' + a] * 9)}]\n" for a, b in zip("abcdefgh", "bcdefghi", strict=True)
    )
    for name, text in (("bomb.yaml", bomb), ("self.yaml", "&a [*a]"), ("deep.yaml", "[" * 5000), ("deep.json", "[" * 100_000)):
        path = tmp_path / name
        path.write_text(text)
        with Watch(), pytest.raises(UnusableInput):
            reading.load_file(path)
