"""Run test files: every test in a world of its own, compared with what it expects, remembered for coverage."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from alarms.definitions import Definition, parse_all
from alarms.engine import Action, CompositeAlarm, Datapoint, DefinitionError, MetricAlarm, Transition, Verdict
from alarms.engine.composite import deployment_order
from alarms.engine.problems import Problem as EngineProblem
from alarms.testing.case import Case, Expectation, Suite, load_suite
from alarms.testing.explain import explain_state
from alarms.testing.notation import show_duration
from alarms.testing.trace import CaseResult, Failure, Glance, Trace, Traces
from alarms.testing.world import NOWHERE, Known, Parsed, World, build
from topology.problems import Problem, UnusableInput

MANY = 3000
"""From so many evaluations on a test is run on arrays."""


def load_suites(files: Iterable[Path], default: Callable[[], list[Definition]] | None) -> list[tuple[Suite, Parsed]]:
    """Read test files with their definitions. Raises UnusableInput with the problems of all of them."""
    rendered: list[list[Definition]] = []

    def once() -> list[Definition]:
        if not rendered:
            rendered.append(default() if default else [])
        return rendered[0]

    problems: list[Problem] = []
    suites: list[tuple[Suite, Parsed]] = []
    for path in files:
        try:
            suite = load_suite(path, once if default else None)
            parsed = parse_all(suite.definitions)
            check_children(parsed)
            suites.append((suite, parsed))
        except UnusableInput as error:
            problems += error.problems
    if problems:
        raise UnusableInput(dict.fromkeys(problems))
    return suites


def check_children(parsed: Parsed) -> None:
    """Refuse composites whose children are not defined in their Region, or that depend on themselves. Raises UnusableInput."""
    problems: list[Problem] = []
    alarms = [(d, item) for d, item in parsed if isinstance(item, MetricAlarm | CompositeAlarm)]
    for region in {definition.region for definition, _ in alarms}:
        here = {item.name: (d, item) for d, item in alarms if d.region in (region, None) or region is None}
        rules = {name: item.depends_on for name, (_, item) in here.items() if isinstance(item, CompositeAlarm)}
        for name, children in rules.items():
            definition = here[name][0]
            for child in children:
                if child not in here:
                    what = f"the alarm {child} is not defined" + (f" in {region}" if region else "")
                    problems += definition.problems([EngineProblem("AlarmRule", what, "define the child in the same Region")])
        for cycle in deployment_order(rules)[1]:
            what = "composite alarms depend on each other in a circle: " + " -> ".join((*cycle, cycle[0]))
            problems += here[cycle[0]][0].problems([EngineProblem("AlarmRule", what, "take one of them out of a rule")])
    if problems:
        raise UnusableInput(dict.fromkeys(problems))


def run_case(case: Case, parsed: Parsed, known: Known | None = None) -> CaseResult:
    """Run one test. Raises UnusableInput where a definition cannot live in the test's Region.

    ``known`` holds the changes of alarms that need not be evaluated, as another run of the same test found them.
    """
    began = time.perf_counter()
    traces: Traces = defaultdict(Trace)

    def observe(region: str, at: float, alarm: MetricAlarm, points: Sequence[Datapoint | None], verdict: Verdict) -> None:
        traces[region, alarm.name].glances.append(Glance(at - case.start, tuple(points), verdict))

    try:
        world = build(case, parsed, observe, known)
    except DefinitionError as error:
        raise UnusableInput(Problem(p.what, p.mend, case.file, f"{case.key}: {p.where}") for p in error.problems) from error
    for region, book in world.books.items():
        for name, entry in book.entries.items():
            traces[region, name].states.append((0.0, entry.state))
    if world.evaluations > MANY and world.settled:
        events = world.replay(case.end_s)
        for key, history in world.histories.items():
            traces[key].history = history
    else:
        events = world.advance(case.end_s)
    for event in events:
        region = event.change.where.region if isinstance(event, Transition | Action) else ""
        if isinstance(event, Transition):
            traces[region, event.alarm].states.append((event.at - case.start, event.state))
        elif isinstance(event, Action):
            traces[region, event.alarm].actions.append(event)
    failures = [failure for item in case.expect if (failure := _state_failure(item, world, traces))]
    if case.expect_actions is not None:
        failures += _action_failures(case, case.expect_actions, traces)
    return CaseResult(case, tuple(failures), time.perf_counter() - began, dict(traces))


def _regions_of(item: Expectation, world: World) -> list[str]:
    """The Regions an expectation may mean: the one it names, the test's if the alarm is there, else all that have the alarm."""
    if item.region:
        return [region for region in (item.region, NOWHERE) if region in world.books and item.alarm in world.books[region].entries][:1]
    having = [region for region, book in world.books.items() if item.alarm in book.entries]
    return [world.case.region] if world.case.region in having else having


def _state_failure(item: Expectation, world: World, traces: Traces) -> Failure | None:
    regions = _regions_of(item, world)
    when = show_duration(item.at_s)
    if len(regions) != 1:
        several = " and ".join(regions) or "no Region of this test"
        where = f"is not defined in {item.region}" if item.region else f"is defined in {several}: name a region"
        return Failure(item.key, f"the alarm {item.alarm} {where}")
    trace = traces[regions[0], item.alarm]
    state = trace.state_at(item.at_s)
    if state == item.state:
        return None
    place = f" ({regions[0]})" if len(world.books) > 1 else ""
    message = f"at {when} the alarm {item.alarm}{place} is {state}, expected {item.state}"
    return Failure(item.key, message, explain_state(world, regions[0], item.alarm, traces, item.at_s))


def _action_failures(case: Case, expected: Sequence[Expectation], traces: Traces) -> list[Failure]:
    """The complete list of actions: each expected line has an action of its own, and no action is left that no line expects.

    A line that names neither Region nor ARN expects all actions of its alarm at that time; written twice, it expects two or more.
    """
    actions = [(region, action) for (region, _), trace in traces.items() for action in trace.actions if not action.repeated]
    fits = [[index for index, (region, action) in enumerate(actions) if _fits(case, item, region, action)] for item in expected]
    mine = _assigned(fits)
    failures = []
    for number, item in enumerate(expected):
        if number not in mine:
            wanted = f" {item.action}" if item.action else ""
            other = "other " if fits[number] else ""
            message = f"at {show_duration(item.at_s)} no {other}action{wanted} of {item.alarm} for {item.state}"
            failures.append(Failure(item.key, message, _listed(case, traces, item.alarm)))
    wanted_actions = {index for hits in fits for index in hits}
    left = [action for index, (_, action) in enumerate(actions) if index not in wanted_actions]
    for action in sorted(left, key=lambda each: each.at):
        at = show_duration(round(action.at - case.start, 3))
        message = f"at {at} the alarm {action.alarm} ran {action.arn} for {action.state}, which is not expected"
        failures.append(Failure(f"{case.key}.expect_actions", message))
    return failures


def _fits(case: Case, item: Expectation, region: str, action: Action) -> bool:
    """Whether an action is what a line expects."""
    return (
        action.alarm == item.alarm
        and action.state == item.state
        and abs(action.at - case.start - item.at_s) < 1e-3
        and (item.region in (None, region) or region == NOWHERE)
        and item.action in (None, action.arn)
    )


def _assigned(fits: Sequence[Sequence[int]]) -> dict[int, int]:
    """Line -> an action of its own, for as many lines as can be: a line that can take another action makes room (a bipartite matching)."""
    taken: dict[int, int] = {}

    def take(line: int, tried: set[int]) -> bool:
        for action in fits[line]:
            if action not in tried:
                tried.add(action)
                if action not in taken or take(taken[action], tried):
                    taken[action] = line
                    return True
        return False

    for line in range(len(fits)):
        take(line, set())
    return {line: action for action, line in taken.items()}


def _listed(case: Case, traces: Traces, name: str) -> str:
    changes = [
        f"{region + ' ' if region else ''}{show_duration(round(at, 3))} {state}"
        for (region, alarm), trace in traces.items()
        if alarm == name
        for at, state in trace.states[1:]
    ]
    return f"transitions of {name}: " + (", ".join(changes) if changes else "none") + f" (test ends at {show_duration(case.end_s)})"
