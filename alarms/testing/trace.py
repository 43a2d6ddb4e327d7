"""What a test run remembers: every evaluation, every state, every action, and what was not as expected."""

from __future__ import annotations

from dataclasses import dataclass, field

from alarms.engine import Action, Datapoint, State, Verdict
from alarms.engine.vector import History
from alarms.testing.case import Case


@dataclass(frozen=True, slots=True)
class Glance:
    """One evaluation of a metric alarm: when (seconds after the start), what it saw, the state and how it was decided."""

    at_s: float
    points: tuple[Datapoint | None, ...]
    verdict: Verdict


@dataclass(slots=True)
class Trace:
    """What happened to one alarm of one Region in one test."""

    glances: list[Glance] = field(default_factory=list)
    states: list[tuple[float, State]] = field(default_factory=list)
    """(seconds after the start, state) of every transition; the first entry is the state before the test."""
    actions: list[Action] = field(default_factory=list)
    history: History | None = None
    """In a long test the evaluations as arrays, instead of as glances."""

    def state_at(self, at_s: float) -> State:
        """The state after everything that happened until ``at_s``."""
        state = self.states[0][1]
        for when, new in self.states[1:]:
            if when <= at_s + 1e-6:
                state = new
        return state


Traces = dict[tuple[str, str], Trace]
"""By (Region, alarm)."""


@dataclass(frozen=True, slots=True)
class Failure:
    """An expectation that was not met: a sentence, and the timeline that explains it."""

    key: str
    message: str
    timeline: str = ""


@dataclass(frozen=True, slots=True)
class CaseResult:
    """One test's outcome."""

    case: Case
    failures: tuple[Failure, ...]
    seconds: float
    traces: Traces = field(repr=False)

    @property
    def passed(self) -> bool:
        """Whether everything expected happened, and no unexpected action."""
        return not self.failures
