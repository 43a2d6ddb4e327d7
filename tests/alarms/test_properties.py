"""Properties of the engine: the fast path equals the slow one, monotone, indifferent to when it happens, and to how it is written.

``CROSSWATCH_FUZZ=100000`` tries the comparison of the two paths on a hundredth of that many alarms.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from alarms.engine import ALARM, IMMEDIATE, OK, AlarmBook, Datapoint, MemorySource, MetricKey, Samples, State, Transition, evaluate
from alarms.engine.model import BAND_COMPARISONS, COMPARISONS, TREATMENTS, MetricAlarm, parse_metric_alarm
from alarms.engine.options import OBSERVED, Options
from alarms.engine.states import STATES
from alarms.engine.vector import evaluate_history
from alarms.engine.window import cadence
from tests.alarms.kit import KEY, T0, metric_alarm

PLAIN = sorted(set(COMPARISONS) - BAND_COMPARISONS)
PLAIN_STATISTICS = ("Average", "Sum", "Minimum", "Maximum", "SampleCount")
OTHER_STATISTICS = ("p50", "p90", "tm90", "PR(0:1)", "IQM", "TC(25%:75%)")
EXPRESSIONS = (None, "m1 * 2 - m2", "IF(m1 > 1, m1, m2)", "FILL(m1, 0) / m2", "SUM([m1, m2])", "m1 - AVG(m1)", "RATE(m1)")
STATES_ = st.sampled_from(STATES)


@st.composite
def definitions(draw: st.DrawFn, periods: tuple[int, ...] = (10, 20, 30, 60, 120, 300)) -> dict[str, Any]:
    """A metric alarm of any shape: one metric or an expression, any M of N, operator, treatment and statistic."""
    n = draw(st.integers(1, 6))
    stat = draw(st.sampled_from(PLAIN_STATISTICS + OTHER_STATISTICS))
    plain = stat in PLAIN_STATISTICS
    params = metric_alarm(
        Period=draw(st.sampled_from(periods)),
        EvaluationPeriods=n,
        DatapointsToAlarm=draw(st.integers(1, n)),
        ComparisonOperator=draw(st.sampled_from(PLAIN)),
        TreatMissingData=draw(st.sampled_from([*TREATMENTS, None])),
        Threshold=draw(st.sampled_from([0, 0.5, 1, 2])),
        Statistic=stat if plain else None,
        ExtendedStatistic=None if plain else stat,
        EvaluateLowSampleCountPercentile=draw(st.sampled_from(["evaluate", "ignore", None])),
    )
    expression = draw(
        st.sampled_from([None, "m1 * 2 - m2", "IF(m1 > 1, m1, m2)", "FILL(m1, 0) / m2", "SUM([m1, m2])", "m1 - AVG(m1)", "RATE(m1)"])
    )
    if expression is None:
        return params
    metric = {"Namespace": "N", "MetricName": "M", "Dimensions": params["Dimensions"]}
    queries: list[dict[str, Any]] = [{"Id": "e", "Expression": expression}]
    for ident, name in (("m1", "Sum"), ("m2", "Maximum")):
        queries.append({"Id": ident, "MetricStat": {"Metric": metric, "Period": params["Period"], "Stat": name}, "ReturnData": False})
    single = {"Namespace", "MetricName", "Dimensions", "Period", "Statistic", "ExtendedStatistic"}
    return {key: value for key, value in params.items() if key not in single} | {"Metrics": queries}


@st.composite
def stores(draw: st.DrawFn, seconds: int = 1500) -> MemorySource:
    """A metric with bursts, gaps and several samples at once."""
    times = draw(st.lists(st.integers(-600, seconds), max_size=60))
    values = draw(st.lists(st.sampled_from([0.0, 0.4, 1.0, 1.5, 3.0]), min_size=len(times), max_size=len(times)))
    source = MemorySource()
    source.add(KEY, Samples.of(values, times=[T0 + time for time in times]), np.full(len(times), -np.inf))
    return source


@settings(max_examples=max(100, int(os.environ.get("CROSSWATCH_FUZZ", "0")) // 100), deadline=None)
@given(
    definition=definitions(),
    source=stores(),
    initial=STATES_,
    phase=st.sampled_from([0.0, 3.25]),
    hold=st.sampled_from([0.0, 10.0]),
    fresh=st.sampled_from(["insufficient-data", "retain"]),
)
def test_the_vectorised_path_equals_the_scalar_one(
    definition: dict[str, Any], source: MemorySource, initial: State, phase: float, hold: float, fresh: Any
) -> None:
    """Every evaluation of half an hour, by the book and by numpy."""
    options = replace(OBSERVED, hold_back_high_resolution_s=hold, fresh_breach=fresh)
    alarm = parse_metric_alarm(definition)
    book = AlarmBook("us-west-2", options=options, phase=lambda _: phase)
    book.put_metric_alarm(definition, T0)
    book.restore("a", initial, T0)
    events = book.tick(T0 + 1500, source)
    slow = [(event.at, event.previous, event.state) for event in events if isinstance(event, Transition)]
    fast = evaluate_history(alarm, source, T0, T0 + 1500, initial=initial, options=options, phase=phase)
    assert fast.transitions() == slow
    assert len(fast.times) == sum(1 for at in np.arange(phase, 1501, cadence(alarm)) if 0 < at <= 1500)


@settings(max_examples=25, deadline=None)
@given(n=st.sampled_from([2, 25, 30]), m=st.integers(1, 2), treatment=st.sampled_from(TREATMENTS), source=stores(seconds=3 * 86_400))
def test_the_vectorised_path_equals_the_scalar_one_for_multi_day_alarms(n: int, m: int, treatment: str, source: MemorySource) -> None:
    """Alarms that look back more than a day, evaluated hourly."""
    period = {2: 86_400, 25: 3600, 30: 5400}[n]
    definition = metric_alarm(Period=period, EvaluationPeriods=n, DatapointsToAlarm=m, TreatMissingData=treatment)
    book = AlarmBook("us-west-2", phase=lambda _: 180.0)
    book.put_metric_alarm(definition, T0)
    events = book.tick(T0 + 3 * 86_400, source)
    slow = [(event.at, event.previous, event.state) for event in events if isinstance(event, Transition)]
    fast = evaluate_history(parse_metric_alarm(definition), source, T0, T0 + 3 * 86_400, phase=180.0)
    assert fast.transitions() == slow


MARKS = st.lists(st.sampled_from("0X-"), min_size=1, max_size=10)


def alarm_of(m: int, n: int, treatment: str) -> MetricAlarm:
    """M of N above 0.5."""
    return parse_metric_alarm(metric_alarm(EvaluationPeriods=n, DatapointsToAlarm=m, TreatMissingData=treatment, Threshold=0.5))


def points(marks: list[str], shift: int = 0) -> list[Datapoint | None]:
    """Marks as points."""
    return [None if mark == "-" else Datapoint(shift + 60 * i, float(mark == "X")) for i, mark in enumerate(marks)]


WORSE = {"OK": 0, "INSUFFICIENT_DATA": 1, "ALARM": 2}


@settings(max_examples=250)
@given(marks=MARKS, n=st.integers(1, 6), data=st.data(), treatment=st.sampled_from(TREATMENTS), previous=STATES_)
def test_a_point_that_turns_bad_never_calms_an_alarm(
    marks: list[str], n: int, data: st.DataObject, treatment: str, previous: State
) -> None:
    """Monotone in breaching points: what was ALARM stays ALARM, and OK is never reached by making a point worse."""
    alarm = alarm_of(data.draw(st.integers(1, n)), n, treatment)
    before = evaluate(alarm, points(marks), previous)
    at = data.draw(st.integers(0, len(marks) - 1))
    if marks[at] == "-":
        return
    worse = evaluate(alarm, points([*marks[:at], "X", *marks[at + 1 :]]), previous)
    if before.state == ALARM:
        assert worse.state == ALARM
    if before.state != OK:
        assert worse.state != OK


@settings(max_examples=150)
@given(
    marks=MARKS, n=st.integers(1, 6), data=st.data(), treatment=st.sampled_from(TREATMENTS), previous=STATES_, shift=st.integers(-50, 50)
)
def test_a_shift_in_time_changes_nothing(
    marks: list[str], n: int, data: st.DataObject, treatment: str, previous: State, shift: int
) -> None:
    """The same points earlier or later give the same verdict."""
    alarm = alarm_of(data.draw(st.integers(1, n)), n, treatment)
    assert evaluate(alarm, points(marks), previous).state == evaluate(alarm, points(marks, shift * 60), previous).state


@settings(max_examples=30, deadline=None)
@given(definition=definitions(), source_seed=st.integers(0, 2**32 - 1), days=st.integers(1, 400))
def test_a_history_shifted_by_days_is_the_same_history(definition: dict[str, Any], source_seed: int, days: int) -> None:
    """Invariant under shifts by whole days, with samples and all."""
    random = np.random.default_rng(source_seed)
    times, values = random.uniform(0, 1200, 40), random.choice([0.0, 1.0, 2.0], 40)
    alarm = parse_metric_alarm(definition)
    shift = days * 86_400

    def history(offset: float) -> list[tuple[float, State, State]]:
        source = MemorySource()
        source.add(KEY, Samples.of(values, times=T0 + offset + times))
        return evaluate_history(alarm, source, T0 + offset, T0 + offset + 1200).transitions()

    assert [(at - shift, a, b) for at, a, b in history(shift)] == history(0)


def same_transitions(one: dict[str, Any], other: dict[str, Any], source: MemorySource) -> None:
    """Both alarms have the same history on ``source``."""
    histories = [evaluate_history(parse_metric_alarm(params), source, T0, T0 + 1500, options=IMMEDIATE) for params in (one, other)]
    assert histories[0].transitions() == histories[1].transitions()


def mirrored(
    source: MemorySource, change: Callable[[np.ndarray[Any, np.dtype[np.float64]]], np.ndarray[Any, np.dtype[np.float64]]]
) -> MemorySource:
    """A store whose values are changed one by one."""
    samples = source.samples(KEY, -1e12, 1e12, 1e12)
    other = MemorySource()
    other.add(KEY, Samples.of(change(samples.low), times=samples.times), np.full(len(samples), -np.inf))
    return other


@settings(max_examples=100, deadline=None)
@given(source=stores(), n=st.integers(1, 4), treatment=st.sampled_from(TREATMENTS), threshold=st.sampled_from([0.0, 0.4, 1.0]))
def test_equivalent_forms_are_equal(source: MemorySource, n: int, treatment: str, threshold: float) -> None:
    """An alarm on a metric equals one on the expression 'm1', and M = N equals M left out."""
    plain = metric_alarm(EvaluationPeriods=n, TreatMissingData=treatment, Threshold=threshold)
    same_transitions(plain, plain | {"DatapointsToAlarm": n}, source)
    metric = {"Namespace": "N", "MetricName": "M", "Dimensions": plain["Dimensions"]}
    stat = {"Metric": metric, "Period": 60, "Stat": "Maximum"}
    queries = [{"Id": "m1", "MetricStat": stat, "ReturnData": False}, {"Id": "e", "Expression": "m1 + 0"}]
    single = {"Namespace", "MetricName", "Dimensions", "Period", "Statistic"}
    math = {key: value for key, value in plain.items() if key not in single} | {"Metrics": queries}
    same_transitions(plain, math, source)


@settings(max_examples=100, deadline=None)
@given(source=stores(), n=st.integers(1, 4), treatment=st.sampled_from(TREATMENTS))
def test_negated_values_with_the_mirrored_operator_are_equal(source: MemorySource, n: int, treatment: str) -> None:
    """max(x) > t is min(-x) < -t."""
    above = metric_alarm(EvaluationPeriods=n, TreatMissingData=treatment, ComparisonOperator="GreaterThanThreshold", Threshold=0.4)
    below = above | {"ComparisonOperator": "LessThanThreshold", "Threshold": -0.4, "Statistic": "Minimum"}
    one = evaluate_history(parse_metric_alarm(above), source, T0, T0 + 1500)
    other = evaluate_history(parse_metric_alarm(below), mirrored(source, np.negative), T0, T0 + 1500)
    assert one.transitions() == other.transitions()


@settings(max_examples=200)
@given(marks=MARKS, n=st.integers(1, 6), data=st.data(), treatment=st.sampled_from(TREATMENTS), previous=STATES_)
def test_the_verdict_names_the_options_it_hangs_on(marks: list[str], n: int, data: st.DataObject, treatment: str, previous: State) -> None:
    """Where no option is named, no alternative of any option gives another state."""
    alarm = alarm_of(data.draw(st.integers(1, n)), n, treatment)
    verdict = evaluate(alarm, points(marks), previous, explain=True)
    for changes in ({"fresh_breach": "retain"}, {"ignore_with_good": "retain"}, {"range_extra_periods": 1}, {"range_extra_periods": 3}):
        other = replace(Options(), **changes)
        if evaluate(alarm, points(marks), previous, other).state != verdict.state:
            assert next(iter(changes)) in verdict.depends_on


def test_a_key_without_unit_reads_every_unit() -> None:
    """Asking for a unit selects it, asking for none takes all."""
    stored = MetricKey.of("N", "M", unit="Count")
    assert MetricKey.of("N", "M").selects(stored)
    assert not MetricKey.of("N", "M", unit="Seconds").selects(stored)
    assert MetricKey.of("N", "M", unit="None").selects(MetricKey.of("N", "M"))
