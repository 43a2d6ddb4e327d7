"""Composite action suppression: AWS's six timelines (page *Create a composite alarm*), by state machine and by the book."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from alarms.engine import ALARM, OK, Action, AlarmBook, State, Withheld
from alarms.engine.suppression import IDLE, Suppression, composite_changed, suppressor_changed, time_passed
from tests.alarms.kit import T0, TOPIC, metric_alarm, minutes

WAIT, EXTENSION = 2, 3
UNIT = 60.0


@dataclass(frozen=True)
class Timeline:
    """Who changes when (in units), and when the composite acts, in which state."""

    changes: tuple[tuple[int, str, State], ...]
    acts: tuple[tuple[int, State], ...]
    suppressor_at_start: State = OK


TIMELINES = {
    "example-1-suppressor-stays-ok": Timeline(((2, "child", ALARM),), ((4, ALARM),)),
    "example-2-suppressor-follows-within-the-wait": Timeline(((2, "child", ALARM), (3, "suppressor", ALARM)), ()),
    "example-3-composite-returns-within-the-wait": Timeline(((2, "child", ALARM), (3, "child", OK)), ((5, OK),)),
    "example-4-suppressor-was-first": Timeline(((2, "child", ALARM),), (), ALARM),
    "example-5-extension-then-act": Timeline(((2, "child", ALARM), (3, "suppressor", ALARM), (6, "suppressor", OK)), ((9, ALARM),)),
    "example-6-composite-returns-in-the-extension": Timeline(
        ((2, "child", ALARM), (3, "suppressor", ALARM), (6, "suppressor", OK), (7, "child", OK)), ((9, OK),)
    ),
}


@pytest.mark.parametrize("timeline", TIMELINES.values(), ids=TIMELINES)
def test_the_state_machine_follows_the_documented_timeline(timeline: Timeline) -> None:
    """Wait = 2 units, Extension = 3 units, one step a unit."""
    held: Suppression = IDLE
    suppressor, state = timeline.suppressor_at_start, OK
    acted: list[tuple[int, State]] = []
    for now in range(12):
        steps = []
        for at, who, new in timeline.changes:
            if at != now:
                continue
            if who == "suppressor":
                suppressor = new
                steps.append(suppressor_changed(now, held, new == ALARM, EXTENSION))
            else:
                state = new
                steps.append(composite_changed(now, held, suppressor == ALARM, WAIT))
            held = steps[-1][0]
        steps.append(time_passed(now, held))
        held = steps[-1][0]
        acted.extend((now, state) for _, acts in steps if acts)
    assert tuple(acted) == timeline.acts


@pytest.mark.parametrize("timeline", TIMELINES.values(), ids=TIMELINES)
def test_the_book_follows_the_documented_timeline(timeline: Timeline) -> None:
    """The same with real alarms: a child and a suppressor set by SetAlarmState, evaluated too seldom to interfere."""
    book = AlarmBook("us-west-2", phase=lambda _: 0.0)
    nothing = minutes()
    for name in ("child", "suppressor"):
        quiet = metric_alarm(name, TreatMissingData="ignore", AlarmActions=[], OKActions=[])
        book.put_metric_alarm(quiet, T0)
        book.restore(name, OK, T0)
    book.restore("suppressor", timeline.suppressor_at_start, T0)
    periods = {"ActionsSuppressorWaitPeriod": int(WAIT * UNIT), "ActionsSuppressorExtensionPeriod": int(EXTENSION * UNIT)}
    rule = {"AlarmRule": "ALARM(child)", "ActionsSuppressor": "suppressor", "AlarmActions": [TOPIC], "OKActions": [TOPIC]}
    book.put_composite_alarm({"AlarmName": "c", **rule, **periods}, T0)
    book.restore("c", OK, T0)
    events = book.tick(T0 + UNIT, nothing)
    for at, who, state in timeline.changes:
        now = T0 + at * UNIT
        events += book.tick(now, nothing)
        events += book.set_alarm_state(who, state, "timeline", now)
    events += book.tick(T0 + 12 * UNIT, nothing)
    acts = [((event.at - T0) / UNIT, event.state) for event in events if isinstance(event, Action)]
    assert acts == [(float(at), state) for at, state in timeline.acts]


def test_a_composite_tells_what_holds_it_back() -> None:
    """DescribeAlarms and the event name the wait period while it lasts."""
    book = AlarmBook("us-west-2")
    for name in ("child", "suppressor"):
        book.put_metric_alarm(metric_alarm(name, TreatMissingData="ignore", AlarmActions=[], OKActions=[]), T0)
    rule = {"AlarmRule": "ALARM(child)", "ActionsSuppressor": "suppressor", "AlarmActions": [TOPIC]}
    periods = {"ActionsSuppressorWaitPeriod": 120, "ActionsSuppressorExtensionPeriod": 60}
    book.put_composite_alarm({"AlarmName": "c", **rule, **periods}, T0)
    book.restore("c", OK, T0)
    events = book.set_alarm_state("child", ALARM, "test", T0 + 10)
    withheld = [event for event in events if isinstance(event, Withheld)]
    assert [(event.alarm, event.by, event.until) for event in withheld] == [("c", "WaitPeriod", T0 + 130)]
    described = book.describe_alarms(["c"])["CompositeAlarms"][0]
    assert described["ActionsSuppressedBy"] == "WaitPeriod"


def test_a_new_suppressor_discards_the_period_that_ran() -> None:
    """PutCompositeAlarm with another suppressor ends the wait without acting."""
    book = AlarmBook("us-west-2")
    for name in ("child", "suppressor", "other"):
        book.put_metric_alarm(metric_alarm(name, TreatMissingData="ignore", AlarmActions=[], OKActions=[]), T0)
    rule = {"AlarmName": "c", "AlarmRule": "ALARM(child)", "AlarmActions": [TOPIC]}
    periods = {"ActionsSuppressorWaitPeriod": 120, "ActionsSuppressorExtensionPeriod": 60}
    book.put_composite_alarm({**rule, "ActionsSuppressor": "suppressor", **periods}, T0)
    book.restore("c", OK, T0)
    book.set_alarm_state("child", ALARM, "test", T0 + 10)
    book.put_composite_alarm({**rule, "ActionsSuppressor": "other", **periods}, T0 + 20)
    events = book.tick(T0 + 600, minutes())
    assert not [event for event in events if isinstance(event, Action)]
