"""What tests made the alarms do: each into ALARM, back to OK, through missing data, and each of its actions run."""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from alarms.definitions import Definition
from alarms.engine import ALARM, OK, Alarm, MetricAlarm, MuteRule
from alarms.engine.states import STATES
from alarms.testing.trace import CaseResult, Trace
from alarms.testing.world import NOWHERE, Parsed


@dataclass(frozen=True, slots=True)
class AlarmCoverage:
    """What was seen of one alarm. ``missing_data`` is None for a composite, which has no data of its own."""

    alarm: str
    region: str | None
    to_alarm: bool
    to_ok: bool
    missing_data: bool | None
    actions_seen: int
    actions: int

    @property
    def complete(self) -> bool:
        """Whether everything was seen."""
        return self.to_alarm and self.to_ok and self.missing_data is not False and self.actions_seen == self.actions

    @property
    def lacking(self) -> tuple[str, ...]:
        """What was not seen, in words."""
        lacking = []
        if not self.to_alarm:
            lacking.append("never goes into ALARM")
        if not self.to_ok:
            lacking.append("never comes back to OK")
        if self.missing_data is False:
            lacking.append("never meets missing data")
        if self.actions_seen < self.actions:
            lacking.append(f"{self.actions - self.actions_seen} of {self.actions} actions never run")
        return tuple(lacking)


def coverage(parsed: Parsed, results: Iterable[CaseResult]) -> list[AlarmCoverage]:
    """The coverage of every alarm by the given tests, in the order of the definitions."""
    results = list(results)
    return [_of(definition, item, results) for definition, item in parsed if not isinstance(item, MuteRule)]


def _of(definition: Definition, alarm: Alarm, results: list[CaseResult]) -> AlarmCoverage:
    traces = [
        trace
        for result in results
        if (trace := result.traces.get((definition.region or result.case.region or NOWHERE, alarm.name))) is not None
    ]
    wanted = {(state, arn) for state in STATES for arn in alarm.actions.on(state)} if alarm.actions.enabled else set()
    ran = {(action.state, action.arn) for trace in traces for action in trace.actions}
    return AlarmCoverage(
        alarm.name,
        definition.region,
        any(_reaches(trace, ALARM) for trace in traces),
        any(_recovers(trace) for trace in traces),
        any(_misses(trace) for trace in traces) if isinstance(alarm, MetricAlarm) else None,
        len(wanted & ran),
        len(wanted),
    )


def _reaches(trace: Trace, state: str) -> bool:
    return any(new == state for _, new in trace.states[1:])


def _recovers(trace: Trace) -> bool:
    states = [state for _, state in trace.states]
    return any(before == ALARM and after == OK for before, after in itertools.pairwise(states))


def _misses(trace: Trace) -> bool:
    """Whether some evaluation, after a point had been seen, had to do without points."""
    if trace.history is not None:
        lacking = trace.history.lacking
        first = int(np.argmin(lacking)) if len(lacking) else 0
        return bool((lacking[first:] > 0).any() and lacking.min() < lacking.max())
    seen = False
    for glance in trace.glances:
        if seen and glance.verdict.evidence.missing:
            return True
        seen = seen or bool(glance.verdict.evidence.real)
    return False
