"""Metric math: operators, functions, missing values, and what alarms may not use."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from alarms.engine import DefinitionError, parse_metric_alarm
from alarms.engine.math import Callbacks, MathError, Series, check, evaluate
from alarms.engine.math.functions import FUNCTIONS
from alarms.engine.query import Query, parse_queries

TIMES = [0, 60, 120, 180]
A: list[float | None] = [1, None, 3, 4]
B: list[float | None] = [2, 5, 0, None]


def queries(*expressions: str, period: int = 60) -> list[dict[str, Any]]:
    """m1 and m2, then expressions e1, e2, …, of which the last is returned."""
    items: list[dict[str, Any]] = [
        {"Id": name, "MetricStat": {"Metric": {"Namespace": "N", "MetricName": name}, "Period": period, "Stat": "Sum"}, "ReturnData": False}
        for name in ("m1", "m2")
    ]
    items += [{"Id": f"e{i}", "Expression": text, "ReturnData": i == len(expressions)} for i, text in enumerate(expressions, 1)]
    return items


def compute(*expressions: str, callbacks: Callbacks | None = None) -> list[list[float | None]]:
    """The last expression's series over four minutes."""
    stored = {"m1": Series.of(TIMES, A), "m2": Series.of(TIMES, B)}

    def fetch(query: Query) -> Series:
        assert query.metric_stat is not None
        return replace(stored[query.id], label=query.id, metric=query.metric_stat.metric)

    found = evaluate(queries(*expressions), fetch, 0, 240, callbacks=callbacks)
    return [[None if np.isnan(v) else float(v) for v in one.on(np.asarray(TIMES))] for one in found[f"e{len(expressions)}"]]


@pytest.mark.parametrize(
    ("expression", "expected"),
    [
        ("m1 + m2", [3, 5, 3, 4]),
        ("m1 - m2", [-1, -5, 3, 4]),
        ("m1 * m2", [2, 0, 0, 0]),
        ("m1 / m2", [0.5, 0, None, None]),
        ("m2 / m1", [2, None, 0, 0]),
        ("m1 ^ 2", [1, None, 9, 16]),
        ("2 ^ 3 ^ 2 + m1 * 0", [512, None, 512, 512]),
        ("-m1 + 10", [9, None, 7, 6]),
        ("10 - 2 - m1", [7, None, 5, 4]),
        ("m1 > 2", [0, None, 1, 1]),
        ("m1 == m2", [0, 0, 0, 0]),
        ("m1 && m2", [1, 0, 0, 0]),
        ("m1 OR m2", [1, 1, 1, 1]),
        ("m1 > 1 AND m1 < 4 OR m2 == 2", [1, 0, 1, 0]),
        ("ABS(-m1)", [1, None, 3, 4]),
        ("CEIL(m1 / 2)", [1, None, 2, 2]),
        ("FLOOR(m1 / 2)", [0, None, 1, 2]),
        ("LOG10(m1 * 0 + 100)", [2, None, 2, 2]),
        ("LOG(m2)", [np.log(2), np.log(5), None, None]),
        ("m1 * 0 + AVG(m1)", [8 / 3, None, 8 / 3, 8 / 3]),
        ("m1 - MIN(m1) + MAX(m1) - SUM(m1)", [-4, None, -2, -1]),
        ("AVG([m1, m2])", [1.5, 2.5, 1.5, 2]),
        ("SUM(METRICS())", [3, 5, 3, 4]),
        ("MAX([m1, m2])", [2, 5, 3, 4]),
        ("MIN([m1, m2])", [1, 5, 0, 4]),
        ("STDDEV([m1, m2])", [0.5, 0, 1.5, 0]),
        ("DATAPOINT_COUNT([m1, m2])", [2, 1, 2, 1]),
        ("TIME_SERIES(DATAPOINT_COUNT(m1))", [3, 3, 3, 3]),
        ("DIFF(m1)", [None, None, 2, 1]),
        ("DIFF_TIME(m1)", [None, None, 120, 60]),
        ("RATE(m1)", [None, None, 2 / 120, 1 / 60]),
        ("RUNNING_SUM(m1)", [1, None, 4, 8]),
        ("FILL(m1, 7)", [1, 7, 3, 4]),
        ("FILL(m1, m2)", [1, 5, 3, 4]),
        ("FILL(m1, REPEAT)", [1, 1, 3, 4]),
        ("FILL(m1, LINEAR)", [1, 2, 3, 4]),
        ("FIRST([m1, m2])", [1, None, 3, 4]),
        ("LAST([m1, m2])", [2, 5, 0, None]),
        ("IF(m1 > 2, m1)", [None, None, 3, 4]),
        ("IF(0, m1, m2)", [2, 5, 0, None]),
        ("TIME_SERIES(METRIC_COUNT(METRICS()))", [2, 2, 2, 2]),
        ("TIME_SERIES(PERIOD(m1))", [60, 60, 60, 60]),
        ("MINUTE(m1)", [0, 1, 2, 3]),
        ("DAY(m1)", [4, 4, 4, 4]),
        ("EPOCH(m1)", [0, 60, 120, 180]),
        ("YEAR(m1) * 100 + MONTH(m1)", [197001] * 4),
        ("HOUR(m1) + DATE(m1)", [1, 1, 1, 1]),
        ("FIRST(SLICE([m1, m2], 1))", [2, 5, 0, None]),
        ("FIRST(SORT([m1, m2], AVG, ASC))", [2, 5, 0, None]),
        ("FIRST(SORT([m1, m2], SUM, DESC, 1))", [1, None, 3, 4]),
        ("FIRST(REMOVE_EMPTY([m1 / 0, m2]))", [2, 5, 0, None]),
    ],
)
def test_operators_and_functions(expression: str, expected: list[float | None]) -> None:
    """Each with a missing point on either side."""
    found = compute(expression)
    assert len(found) == 1
    assert found[0] == [None if value is None else pytest.approx(value) for value in expected]


def test_arrays_stay_arrays() -> None:
    """An operator with a number, and a function of each, apply to every series."""
    assert compute("METRICS() * 10") == [[10, None, 30, 40], [20, 50, 0, None]]
    assert compute('METRICS("2")') == [[2, 5, 0, None]]
    assert compute("ABS(METRICS())")[1] == [2, 5, 0, None]


def test_expressions_build_on_each_other() -> None:
    """In any order of definition."""
    assert compute("e2 + 1", "m1 + m2", "e1 * 2") == [[8, 12, 8, 10]]


def test_what_needs_more_asks_its_callback() -> None:
    """SEARCH, bands and other services."""
    callbacks = Callbacks(
        search=lambda text, stat, period: [Series.of(TIMES, [period] * 4, f"{text} {stat}")],
        band=lambda series, width: (series.with_values(series.values - width), series.with_values(series.values + width)),
        outside=lambda name, args: 100.0 if name == "SERVICE_QUOTA" else [],
    )
    assert compute("SEARCH('{N,D} m', 'Sum', 300)", callbacks=callbacks) == [[300] * 4]
    assert compute("FIRST(ANOMALY_DETECTION_BAND(m1, 3))", callbacks=callbacks) == [[4, None, 6, 7]]
    assert compute("m1 / SERVICE_QUOTA(m1) * 100", callbacks=callbacks) == [[1, None, 3, 4]]
    with pytest.raises(MathError, match="SEARCH is not supported here"):
        compute("SEARCH('x')")


@pytest.mark.parametrize(
    ("expression", "message"),
    [
        ("m1 +", "Unexpected"),
        ("m1 + m9", "the id 'm9' at character 5 is not defined"),
        ("NOPE(m1)", "Unknown function 'NOPE' at character 0"),
        ("FILL(m1)", "FILL takes 2 arguments, not 1"),
        ("e1 + 1", "'e1' depends on itself"),
        ("'x' + m1", "does not take strings"),
        ("METRICS() + METRICS()", "does not combine two arrays"),
        ("PERIOD(5)", "argument 1 of PERIOD must be TS, not S"),
        ("1 + 1", "the result must be a time series"),
        ("[m1, 5]", "an array holds time series"),
        ("(" * 60 + "m1" + ")" * 60 + "+", "Unexpected"),
        ("ABS(" * 60 + "m1" + ")" * 60, "nested deeper"),
    ],
)
def test_what_is_wrong_is_said_where_it_is(expression: str, message: str) -> None:
    """check finds without data what evaluate would stumble over."""
    problems = check(parse_queries(queries(expression), []), alarm=False)
    assert any(message in problem.what for problem in problems), problems
    with pytest.raises(MathError):
        compute(expression)


@pytest.mark.parametrize(
    ("expression", "message"),
    [
        ("SEARCH('{N} x', 'Sum', 60)", "SEARCH is not supported on Metric Alarms."),
        ("METRICS()", "An alarm expression must return one time series"),
    ],
)
def test_restrictions_of_alarms_in_awss_words(expression: str, message: str) -> None:
    """What is fine on a dashboard and refused in an alarm."""
    params = {"AlarmName": "a", "EvaluationPeriods": 1, "Threshold": 1, "ComparisonOperator": "GreaterThanThreshold"}
    with pytest.raises(DefinitionError) as error:
        parse_metric_alarm(params | {"Metrics": queries(expression)})
    assert message in str(error.value)
    assert not check(parse_queries(queries(expression), []), alarm=False)


def test_limits_of_alarms() -> None:
    """Ten metrics, one period, one returned series."""
    params = {"AlarmName": "a", "EvaluationPeriods": 1, "Threshold": 1, "ComparisonOperator": "GreaterThanThreshold"}
    many = [{**queries("m1")[0], "Id": f"m{i}"} for i in range(1, 12)]
    mixed = [queries("m1 + m2")[0], queries("m1", period=300)[1], queries("m1 + m2")[2]]
    two = [{**query, "ReturnData": True} for query in queries("m1 + m2")]
    for items, message in (
        ([*many, {"Id": "e1", "Expression": "m1"}], "more than the 10 an alarm may"),
        (mixed, "must have the same period"),
        (two, "Exactly one element of the metrics list should return data."),
    ):
        with pytest.raises(DefinitionError, match=message):
            parse_metric_alarm(params | {"Metrics": items})


def test_every_documented_function_is_here() -> None:
    """The functions of page *Using metric math*."""
    documented = (
        "ABS ANOMALY_DETECTION_BAND AVG CEIL DATAPOINT_COUNT DB_PERF_INSIGHTS DIFF DIFF_TIME FILL FIRST LAST FLOOR IF INSIGHT_RULE_METRIC"
        " LAMBDA LOG LOG10 MAX METRIC_COUNT METRICS MIN MINUTE HOUR DAY DATE MONTH YEAR EPOCH PERIOD RATE REMOVE_EMPTY RUNNING_SUM SEARCH"
        " SERVICE_QUOTA SLICE SORT STDDEV SUM TIME_SERIES"
    )
    assert set(FUNCTIONS) == set(documented.split())
