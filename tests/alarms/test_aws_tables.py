"""AWS's own tables and examples, as tests named after the page they are printed on (CloudWatch User Guide)."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from alarms.engine import (
    ALARM,
    IMMEDIATE,
    INSUFFICIENT_DATA,
    OBSERVED,
    OK,
    AlarmBook,
    Datapoint,
    MemorySource,
    MetricKey,
    Options,
    Query,
    Samples,
    State,
    evaluate,
)
from alarms.engine.math import Series
from alarms.engine.math import evaluate as evaluate_math
from alarms.engine.model import MetricAlarm, parse_metric_alarm
from tests.alarms.kit import metric_alarm

RETAIN = "RETAIN"
SHORT = {"OK": OK, "ALARM": ALARM, "INSUFFICIENT": INSUFFICIENT_DATA, "RETAIN": RETAIN}
TREATMENTS = ("missing", "ignore", "breaching", "notBreaching")

# newest on the right; 0 fine, X breaching, - missing; then the state for each treatment in the order above
THREE_OF_THREE = """
0 - X - X | OK           OK     OK    OK
0 - - - - | OK           OK     OK    OK
- - - - - | INSUFFICIENT RETAIN ALARM OK
0 X X - X | ALARM        ALARM  ALARM ALARM
- - X - - | ALARM        RETAIN ALARM OK
"""
TWO_OF_THREE = """
0 - X - X | ALARM ALARM  ALARM ALARM
0 0 X 0 X | ALARM ALARM  ALARM ALARM
0 - X - - | OK    OK     ALARM OK
- - - - 0 | OK    OK     ALARM OK
- - - X - | ALARM RETAIN ALARM OK
"""


def cells() -> list[tuple[int, str, str, str]]:
    """(M, points, treatment, state) for each of the forty cells."""
    found = []
    for m, table in ((3, THREE_OF_THREE), (2, TWO_OF_THREE)):
        for row in table.strip().splitlines():
            points, verdicts = row.split("|")
            for treatment, verdict in zip(TREATMENTS, verdicts.split(), strict=True):
                found.append((m, points.strip(), treatment, SHORT[verdict]))
    return found


def alarm(m: int, treatment: str | None, n: int = 3, **changes: Any) -> MetricAlarm:
    """M of N at five minutes; above 0.5 is breaching."""
    limits: dict[str, Any] = {
        "EvaluationPeriods": n,
        "DatapointsToAlarm": m,
        "Threshold": 0.5,
        "Period": 300,
        "TreatMissingData": treatment,
    }
    return parse_metric_alarm(metric_alarm(**{**limits, **changes}))


def points(row: str) -> list[Datapoint | None]:
    """``0 - X`` as the points of an evaluation range."""
    return [None if mark == "-" else Datapoint(i * 300, float(mark == "X")) for i, mark in enumerate(row.split())]


@pytest.mark.parametrize(("m", "row", "treatment", "expected"), cells())
@pytest.mark.parametrize("previous", ["OK", "ALARM", "INSUFFICIENT_DATA"])
def test_alarms_and_missing_data(m: int, row: str, treatment: str, expected: str, previous: State) -> None:
    """Page alarms-and-missing-data: ten rows, four treatments, from every previous state."""
    verdict = evaluate(alarm(m, treatment), points(row), previous)
    assert verdict.state == (previous if expected == RETAIN else expected)
    assert verdict.retained == (expected == RETAIN)


def test_there_are_forty_cells() -> None:
    """No row of the tables is lost."""
    assert len(cells()) == 40
    assert len(set(cells())) == 40


@pytest.mark.parametrize(
    ("m", "row", "to_alarm"),
    [
        (3, "- - - - X", False),
        (3, "- - - X -", False),
        (3, "- - X - -", True),
        (3, "- - X X -", True),
        (2, "- - - X -", True),
        (2, "- - - - X", False),
    ],
)
@pytest.mark.parametrize("previous", ["OK", "INSUFFICIENT_DATA"])
def test_avoiding_premature_transitions_to_alarm_state(m: int, row: str, to_alarm: bool, previous: State) -> None:
    """Page alarms-and-missing-data: a lone breach counts once it is as old as DatapointsToAlarm, not before."""
    assert (evaluate(alarm(m, "missing"), points(row), previous).state == ALARM) is to_alarm


@pytest.mark.parametrize("row", ["- - - X 0", "- - X - 0"])
def test_a_good_point_after_a_lone_breach_keeps_the_alarm_quiet(row: str) -> None:
    """Page alarms-and-missing-data: what the premature rule waits for."""
    assert evaluate(alarm(3, "missing"), points(row), OK).state == OK


def test_the_next_evaluation_after_row_two() -> None:
    """Table 1, row 2: 'the next time this alarm is evaluated, if the data is still missing it will go to ALARM' (breaching)."""
    assert evaluate(alarm(3, "breaching"), points("0 - - - -"), OK).state == OK
    assert evaluate(alarm(3, "breaching"), points("- - - - -"), OK).state == ALARM


def test_multi_day_alarm() -> None:
    """Page alarm-evaluation: fails at 10:02, 10:03 still OK, 11:03 ALARM, fixed at 11:43, 12:03 OK.

    The metric is +1 for a failed run and -1 for its repair; the alarm sums it over 25 hours.
    """
    ten = 1_767_261_600.0  # 2026-01-01T10:00:00Z
    source = MemorySource()
    source.add(MetricKey.of("N", "M", {"D": "v"}), Samples.of([0, 1, -1], times=[ten - 7200, ten + 120, ten + 6180]))
    book = AlarmBook("us-east-1", phase=lambda _: 180.0)
    book.put_metric_alarm(metric_alarm(Period=90_000, Statistic="Sum"), ten - 3600)
    book.restore("a", OK, ten - 3600)
    seen = {}
    for clock, second in (("10:03", 180), ("11:02", 3720), ("11:03", 3780), ("11:44", 6240), ("12:03", 7380)):
        book.tick(ten + second, source)
        seen[clock] = book.state("a")
    assert seen == {"10:03": OK, "11:02": OK, "11:03": ALARM, "11:44": ALARM, "12:03": OK}


IF_SERIES: dict[str, list[float | None]] = {
    "metric1": [1, 1, 0, 0, None],
    "metric2": [30, None, 0, 0, 30],
    "metric3": [0, 0, 20, None, 20],
}


def math(expression: str, series: dict[str, list[float | None]], options: Options = OBSERVED) -> list[float | None]:
    """The expression's value in each period."""
    times = [0, 60, 120, 180, 240]

    def fetch(query: Query) -> Series:
        values = series[query.id]
        return Series.of(times[: len(values)], values)

    queries: list[dict[str, object]] = [
        {"Id": name, "MetricStat": {"Metric": {"Namespace": "N", "MetricName": name}, "Period": 60, "Stat": "Sum"}, "ReturnData": False}
        for name in series
    ]
    found = evaluate_math([*queries, {"Id": "e", "Expression": expression}], fetch, 0, 300, options=options)["e"][0]
    length = max(len(values) for values in series.values())
    return [None if np.isnan(value) else float(value) for value in found.on(np.asarray(times[:length]))]


@pytest.mark.parametrize(
    ("expression", "expected"),
    [
        ("IF(metric1, metric2, metric3)", [30, 0, 20, 0, None]),
        ("IF(metric1, 5, metric3)", [5, 5, 20, None, None]),
        ("IF(metric1, metric2, 5)", [30, 0, 5, 5, None]),
    ],
)
def test_using_metric_math_if(expression: str, expected: list[float | None]) -> None:
    """Page using-metric-math: the table of IF with missing values (2026)."""
    assert math(expression, IF_SERIES) == expected


def test_using_metric_math_if_2023() -> None:
    """The 2023 page drops the point where the condition is false and metric3 is missing: an option."""
    older = replace(OBSERVED, if_missing="docs-2023")
    assert math("IF(metric1, metric2, metric3)", IF_SERIES, older) == [30, 0, 20, None, None]


@pytest.mark.parametrize(
    ("expression", "expected"),
    [
        ("metric1 < metric2", [0, 0, 1, 0]),
        ("metric1 >= 30", [1, 0, 0, 0]),
        ("metric1 > 15 AND metric2 > 15", [1, 0, 0, 0]),
    ],
)
def test_using_metric_math_comparisons(expression: str, expected: list[float]) -> None:
    """Page using-metric-math: comparison and logical operators."""
    assert math(expression, {"metric1": [30, 20, 0, 0], "metric2": [20, None, 20, None]}) == expected


def test_immediate_and_observed_differ_only_in_hold_back() -> None:
    """Test files evaluate without a hold-back, everything else is the same."""
    assert replace(IMMEDIATE, hold_back_high_resolution_s=10.0) == OBSERVED
