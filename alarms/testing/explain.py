"""A failed expectation drawn as a timeline: the alarm's points, its states, and the rule that decided each evaluation."""

from __future__ import annotations

import numpy as np

from alarms.engine import CompositeAlarm, Datapoint, State, evaluate
from alarms.engine.metric import longest_range
from alarms.engine.model import MetricAlarm
from alarms.engine.reasons import plainly
from alarms.engine.source import datapoints
from alarms.engine.states import STATES
from alarms.engine.vector import History
from alarms.engine.window import window
from alarms.testing.notation import show_duration
from alarms.testing.trace import Glance, Traces
from alarms.testing.world import World

COLUMNS = 14
_SHORT: dict[State, str] = {"OK": "ok", "ALARM": "ALARM", "INSUFFICIENT_DATA": "no data"}


def explain_state(world: World, region: str, name: str, traces: Traces, at_s: float) -> str:
    """Why an alarm is in its state ``at_s`` seconds after the start: a composite's children, or a metric alarm's timeline."""
    alarm = world.books[region].entries[name].alarm
    if isinstance(alarm, CompositeAlarm):
        children = [f"{child} is {traces[region, child].state_at(at_s)}" for child in alarm.children]
        return f"rule: {alarm.rule.text}\nwhere {', '.join(children)}" if children else f"rule: {alarm.rule.text}"
    trace = traces[region, name]
    glances = _glances(world, region, alarm, trace.history, at_s) if trace.history else trace.glances
    glances = [glance for glance in glances if glance.at_s <= at_s + 1e-6]
    if not glances:
        return f"the alarm was not evaluated before {show_duration(at_s)}"
    return "\n".join((*_table(glances[-COLUMNS:]), _decided(world, region, alarm, glances[-1])))


def _glances(world: World, region: str, alarm: MetricAlarm, history: History, at_s: float) -> list[Glance]:
    """The last evaluations of a long test, done again one by one."""
    case = world.case
    last = int(np.searchsorted(history.times, case.start + at_s + 1e-6))
    found = []
    for i in range(max(0, last - COLUMNS), last):
        at = float(history.times[i])
        points = datapoints(alarm, window(alarm, at, case.options), world.sources[region], at, case.options)
        before = STATES[history.codes[i - 1]] if i else history.initial
        found.append(Glance(at - case.start, tuple(points), evaluate(alarm, points, before, case.options)))
    return found


def _table(shown: list[Glance]) -> list[str]:
    rows = [
        ["evaluated at", *(show_duration(round(glance.at_s, 3)) for glance in shown)],
        ["newest point", *(_point(glance, glance.points[-1] if glance.points else None) for glance in shown)],
        ["state", *(_SHORT[glance.verdict.state] for glance in shown)],
        ["rule", *(str(glance.verdict.rule) for glance in shown)],
    ]
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    lines = []
    for row in rows:
        cells = (cell.rjust(width) if i else cell.ljust(width) for i, (cell, width) in enumerate(zip(row, widths, strict=True)))
        lines.append("  ".join(cells))
    last = shown[-1]
    points = " ".join(_point(last, point) for point in last.points)
    lines.append(f"range at {show_duration(round(last.at_s, 3))}: {points}  (oldest first, * breaching, - missing)")
    return lines


def _point(glance: Glance, point: Datapoint | None) -> str:
    if point is None:
        return "-"
    return f"{point.value:g}" + ("*" if point in glance.verdict.evidence.bad else "")


def _decided(world: World, region: str, alarm: MetricAlarm, glance: Glance) -> str:
    """The deciding rule, with the options it hangs on: the same evaluation again, on the longest range any option allows."""
    options = world.case.options
    wide = longest_range(alarm, options)
    at = world.case.start + glance.at_s
    points = datapoints(alarm, window(alarm, at, wide), world.sources[region], at, options)
    return plainly(alarm, evaluate(alarm, points, glance.verdict.evidence.previous, options, explain=True))
