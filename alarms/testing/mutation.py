"""Mutants of the alarms: would a test notice if a threshold, M, N, an operator or a missing-data treatment were another?

A mutant that all tests still pass survives: no test pins that number down. Only tests that say something about the alarm, or about a
composite above it, are run again, and in them only the mutant is evaluated: the other alarms change as they did before. Where it goes
through the same states as the alarm, nothing above it can differ, and the test is not run any further.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Any

from alarms.definitions import Definition
from alarms.engine import Alarm, CompositeAlarm, DefinitionError, MetricAlarm, MuteRule
from alarms.engine.model import TREATMENTS
from alarms.testing.case import Case, Expectation, Suite
from alarms.testing.runner import run_case
from alarms.testing.trace import CaseResult
from alarms.testing.world import NOWHERE, Parsed

_OPERATORS = {
    "GreaterThanThreshold": ("GreaterThanOrEqualToThreshold", "LessThanOrEqualToThreshold"),
    "GreaterThanOrEqualToThreshold": ("GreaterThanThreshold", "LessThanThreshold"),
    "LessThanThreshold": ("LessThanOrEqualToThreshold", "GreaterThanOrEqualToThreshold"),
    "LessThanOrEqualToThreshold": ("LessThanThreshold", "GreaterThanThreshold"),
    "LessThanLowerThreshold": ("GreaterThanUpperThreshold",),
    "GreaterThanUpperThreshold": ("LessThanLowerThreshold",),
    "LessThanLowerOrGreaterThanUpperThreshold": ("LessThanLowerThreshold", "GreaterThanUpperThreshold"),
}


@dataclass(frozen=True, slots=True)
class Mutant:
    """One change to one alarm, and whether a test failed because of it. ``tests`` is how many were asked."""

    alarm: str
    region: str | None
    change: str
    killed: bool
    tests: int


def mutants(alarm: MetricAlarm) -> Iterator[tuple[str, dict[str, Any]]]:
    """Each mutation as words and as the parameters it changes."""
    n, m = alarm.evaluation_periods, alarm.datapoints_to_alarm
    if alarm.threshold is not None:
        step = abs(alarm.threshold) / 10 or 1.0
        for value in (alarm.threshold + step, alarm.threshold - step):
            yield f"Threshold {alarm.threshold:g} -> {value:g}", {"Threshold": value}
    for value in (m - 1, m + 1):
        if 1 <= value <= n:
            yield f"DatapointsToAlarm {m} -> {value}", {"DatapointsToAlarm": value}
    for value in (n - 1, n + 1):
        if value >= 1:
            kept = min(m, value)
            yield f"EvaluationPeriods {n} -> {value} (M {kept})", {"EvaluationPeriods": value, "DatapointsToAlarm": kept}
    for operator in _OPERATORS[alarm.comparison]:
        yield f"{alarm.comparison} -> {operator}", {"ComparisonOperator": operator}
    present = alarm.treat_missing_data or "missing"
    for treatment in TREATMENTS:
        if treatment != present:
            yield f"TreatMissingData {present} -> {treatment}", {"TreatMissingData": treatment}


def mutate(suites: Iterable[tuple[Suite, Parsed]], results: Iterable[CaseResult]) -> list[Mutant]:
    """Try every mutant of every metric alarm against the tests that concern it, leaving out those that fail anyway.

    Definitions that several files share are mutated once, and killed by a test of any of them.
    """
    suites = list(suites)
    passed = {id(result.case): result for result in results if result.passed}
    alarms: dict[tuple[str | None, str], tuple[Definition, MetricAlarm]] = {}
    for _, parsed in suites:
        for definition, item in parsed:
            if isinstance(item, MetricAlarm):
                alarms.setdefault((definition.region, item.name), (definition, item))
    found = []
    for definition, alarm in alarms.values():
        asked = [
            (passed[id(case)], parsed)
            for suite, parsed in suites
            for case in suite.cases
            if id(case) in passed and _concerns(case, definition, parsed)
        ]
        # likely killers first: tests that name the alarm, and short ones
        asked.sort(key=lambda pair: (alarm.name not in {item.alarm for item in pair[0].case.expect}, pair[0].case.end_s))
        for words, changes in mutants(alarm):
            changed = replace(definition, params={**definition.params, **changes})
            try:
                mutant = changed.parse()
            except DefinitionError:
                continue  # AWS would refuse it, so nobody can deploy it by mistake
            killed = any(_noticed(result, parsed, changed, mutant) for result, parsed in asked)
            found.append(Mutant(alarm.name, definition.region, words, killed, len(asked)))
    return found


def _swapped(parsed: Parsed, changed: Definition, mutant: Alarm | MuteRule) -> Parsed:
    return [
        (changed, mutant) if (d.region, d.name, d.kind) == (changed.region, changed.name, "metric") else (d, item) for d, item in parsed
    ]


def _above(names: set[str], parsed: Parsed) -> set[str]:
    """``names`` and every composite that depends on one of them."""
    found = set(names)
    while more := {i.name for _, i in parsed if isinstance(i, CompositeAlarm) and i.name not in found and found & set(i.depends_on)}:
        found |= more
    return found


def _below(names: set[str], parsed: Parsed) -> set[str]:
    """``names`` and everything they depend on."""
    found = set(names)
    while more := {c for _, i in parsed if isinstance(i, CompositeAlarm) and i.name in found for c in i.depends_on} - found:
        found |= more
    return found


def _concerns(case: Case, definition: Definition, parsed: Parsed) -> bool:
    """Whether a test says something that the alarm can change."""
    if case.expect_actions is not None:
        return True
    homes = {(d.region, d.name) for d, _ in parsed}

    def meant(item: Expectation) -> bool:
        """Whether the expectation is about the alarm's own Region."""
        region = item.region or case.region
        return definition.region in (None, region) or region is None or (region, item.alarm) not in homes

    return bool({item.alarm for item in case.expect if meant(item)} & _above({definition.name}, parsed))


def _noticed(result: CaseResult, parsed: Parsed, changed: Definition, mutant: Alarm | MuteRule) -> bool:
    """Whether the test fails with the mutant in it."""
    home = (changed.region or result.case.region or NOWHERE, mutant.name)
    alone = run_case(result.case, [(changed, mutant)])
    return alone.traces[home].states != result.traces[home].states and not _again(result, parsed, changed, mutant).passed


def _again(result: CaseResult, parsed: Parsed, changed: Definition, mutant: Alarm | MuteRule) -> CaseResult:
    """The test with the mutant in it, and only with those alarms its expectations need (all where it lists the complete actions)."""
    case = result.case
    swapped = _swapped(parsed, changed, mutant)
    if case.expect_actions is None:
        needed = _below({item.alarm for item in case.expect}, swapped)
        swapped = [(d, item) for d, item in swapped if isinstance(item, MuteRule) or item.name in needed]
    others = {(d.region or case.region or NOWHERE, item.name) for d, item in swapped if isinstance(item, MetricAlarm) and d is not changed}
    known = {key: trace.states[1:] for key, trace in result.traces.items() if key in others}
    return run_case(case, swapped, known)
