"""The alarm book: evaluation over time, composites, suppression, mute rules and the messages sent."""

from __future__ import annotations

import json
from typing import Any

import pytest

from alarms.engine import (
    ALARM,
    INSUFFICIENT_DATA,
    OK,
    Action,
    AlarmBook,
    DefinitionError,
    MemorySource,
    MetricKey,
    Samples,
    Transition,
    Withheld,
)
from tests.alarms.kit import ARN, T0, TOPIC, acts, book, metric_alarm, minutes, states


def test_an_alarm_follows_its_metric_minute_by_minute() -> None:
    """Two bad minutes: ALARM at the end of the first, OK at the end of the first good one after them."""
    alarms = book()
    alarms.put_metric_alarm(metric_alarm(), T0)
    events = alarms.tick(T0 + 600, minutes(0, 0, 1, 1, 0, 0))
    assert states(events) == [(1, "a", OK), (3, "a", ALARM), (5, "a", OK)]
    assert acts(events) == [(1, "a", OK), (3, "a", ALARM), (5, "a", OK)]


def test_a_late_tick_equals_punctual_ticks() -> None:
    """Evaluations happen at their own instants, however seldom the book is ticked."""
    source = minutes(0, 1, None, 1, 0, 1, 1, None, None, 0)
    late, punctual = book(), book()
    late.put_metric_alarm(metric_alarm(), T0)
    punctual.put_metric_alarm(metric_alarm(), T0)
    together = [event for second in range(0, 900, 7) for event in punctual.tick(T0 + second, source)]
    assert states(late.tick(T0 + 890, source)) == states(together)


def test_messages_have_the_shape_aws_sends() -> None:
    """The SNS message, the event and the history carry the state's reason and points."""
    alarms = book()
    alarms.put_metric_alarm(metric_alarm(DatapointsToAlarm=1, Unit="Count"), T0)
    source = MemorySource()
    source.add(MetricKey.of("N", "M", {"D": "v"}, "Count"), Samples.of([0, 2], times=[T0, T0 + 60]))
    events = alarms.tick(T0 + 120, source)
    action = [event for event in events if isinstance(event, Action)][-1]
    expected = (
        "Threshold Crossed: 1 out of the last 1 datapoints [2.0 (01/01/26 00:01:00)] was greater than or equal to the threshold (1.0)"
        " (minimum 1 datapoint for OK -> ALARM transition)."
    )
    message = action.message
    assert message["NewStateReason"] == expected
    assert message["NewStateValue"] == ALARM
    assert message["OldStateValue"] == OK
    assert message["Region"] == "US West (Oregon)"
    assert message["StateChangeTime"] == "2026-01-01T00:02:00.000+0000"
    assert message["Trigger"]["Dimensions"] == [{"value": "v", "name": "D"}]
    assert message["Trigger"]["Statistic"] == "MAXIMUM"
    assert action.subject == 'ALARM: "a" in US West (Oregon)'
    event = [event for event in events if isinstance(event, Transition)][-1].event
    assert event["detail-type"] == "CloudWatch Alarm State Change"
    data = json.loads(event["detail"]["state"]["reasonData"])
    assert data["recentDatapoints"] == [2.0]
    assert data["evaluatedDatapoints"] == [{"timestamp": "2026-01-01T00:01:00.000+0000", "sampleCount": 1.0, "value": 2.0}]
    assert [item.kind for item in alarms.history("a")].count("StateUpdate") == 2
    described = alarms.describe_alarms()["MetricAlarms"][0]
    assert described["StateValue"] == ALARM
    assert described["StateReason"] == expected


def test_a_composite_names_the_child_that_triggered_it() -> None:
    """A composite's message carries the rule and the children behind the change."""
    alarms = book()
    alarms.put_metric_alarm(metric_alarm(AlarmActions=[], OKActions=[]), T0)
    alarms.put_composite_alarm({"AlarmName": "c", "AlarmRule": "ALARM(a)", "AlarmActions": [TOPIC]}, T0)
    events = alarms.tick(T0 + 180, minutes(0, 1, 0))
    assert states(events) == [(0, "c", OK), (1, "a", OK), (2, "a", ALARM), (2, "c", ALARM), (3, "a", OK), (3, "c", OK)]
    message = next(event for event in events if isinstance(event, Action)).message
    assert message["AlarmRule"] == "ALARM(a)"
    arn = "arn:aws:cloudwatch:us-west-2:123456789012:alarm:a"
    assert message["TriggeringChildren"] == [{"Arn": arn, "State": {"Value": ALARM, "Timestamp": "2026-01-01T00:02:00.000+0000"}}]
    assert message["NewStateReason"] == f"{arn} transitioned to ALARM at Thursday 01 January, 2026 00:02:00 UTC"


def test_children_that_change_at_once_do_not_make_a_composite_flicker() -> None:
    """a goes off in the instant b comes on: 'ALARM(a) OR ALARM(b)' stays in ALARM throughout."""
    alarms = book()
    alarms.put_metric_alarm(metric_alarm("a"), T0)
    alarms.put_metric_alarm(metric_alarm("b", ComparisonOperator="LessThanThreshold"), T0)
    alarms.put_composite_alarm({"AlarmName": "c", "AlarmRule": "ALARM(a) OR ALARM(b)"}, T0)
    events = alarms.tick(T0 + 240, minutes(1, 0, 1, 0))
    assert [state for state in states(events) if state[1] == "c"] == [(0, "c", OK), (1, "c", ALARM)]


@pytest.mark.parametrize(
    ("params", "message"),
    [
        (
            {"AlarmName": "c", "AlarmRule": "ALARM(none)"},
            f"Could not save the composite alarm as alarms [{ARN}none] in the alarm rule do not exist",
        ),
        (
            {"AlarmName": "c", "AlarmRule": "ALARM(arn:aws:cloudwatch:us-east-1:123456789012:alarm:a)"},
            "Wrong ARN region, it was us-east-1 but us-west-2 was expected instead",
        ),
        (
            {"AlarmName": "c", "AlarmRule": "ALARM(arn:aws:cloudwatch:us-west-2:999999999999:alarm:a)"},
            "A composite alarm cannot have a child relation with alarms from another AWS account",
        ),
        ({"AlarmName": "c", "AlarmRule": "NOT ALARM(c)"}, "A composite alarm cannot have itself as a child"),
    ],
)
def test_composites_with_wrong_children_are_refused(params: dict[str, Any], message: str) -> None:
    """Missing, foreign and own children, in AWS's words."""
    alarms = book()
    alarms.put_metric_alarm(metric_alarm(), T0)
    with pytest.raises(DefinitionError) as error:
        alarms.put_composite_alarm(params, T0)
    assert error.value.aws_message == message


def test_a_child_of_a_composite_cannot_be_deleted() -> None:
    """The composite goes first."""
    alarms = book()
    alarms.put_metric_alarm(metric_alarm(), T0)
    alarms.put_composite_alarm({"AlarmName": "c", "AlarmRule": "ALARM(a)"}, T0)
    with pytest.raises(DefinitionError, match="Cannot delete a as there are composite alarm"):
        alarms.delete_alarms(["a"])
    alarms.delete_alarms(["c"])
    alarms.delete_alarms(["a"])
    assert not alarms.entries


def test_set_alarm_state_holds_until_the_next_evaluation() -> None:
    """SetAlarmState acts at once and is undone by the metric."""
    alarms = book()
    alarms.put_metric_alarm(metric_alarm(), T0)
    source = minutes(*[0] * 20)
    alarms.tick(T0 + 90, source)
    events = alarms.set_alarm_state("a", ALARM, "a drill", T0 + 95)
    assert states(events)[0][1:] == ("a", ALARM)
    assert len(acts(events)) == 1
    assert states(alarms.tick(T0 + 180, source)) == [(2, "a", OK)]


def test_a_mute_rule_withholds_actions_and_runs_them_at_its_end() -> None:
    """Actions of every state are withheld in the window; at its end they run if the alarm still is in that state."""
    alarms = book()
    alarms.put_metric_alarm(metric_alarm(), T0)
    schedule = {"Expression": "at(2026-01-01T00:02)", "Duration": "PT5M"}
    alarms.put_alarm_mute_rule({"Name": "deploy", "Rule": {"Schedule": schedule}, "MuteTargets": {"AlarmNames": ["a"]}})
    events = alarms.tick(T0 + 1200, minutes(0, 0, 0, 1, 1, 1, 1, 1, 1, 0))
    assert acts(events) == [(1, "a", OK), (7, "a", ALARM), (10, "a", OK)]
    assert [(event.at - T0) / 60 for event in events if isinstance(event, Withheld)] == [4]


def test_what_happened_while_muted_and_passed_is_not_told() -> None:
    """The alarm is back in OK when the window ends: the OK action is run, the ALARM action never."""
    alarms = book()
    alarms.put_metric_alarm(metric_alarm(OKActions=[]), T0)
    schedule = {"Expression": "cron(2 0 * * *)", "Duration": "PT5M"}
    alarms.put_alarm_mute_rule({"Name": "deploy", "Rule": {"Schedule": schedule}, "MuteTargets": {"AlarmNames": ["a"]}})
    assert acts(alarms.tick(T0 + 1200, minutes(0, 0, 1, 1, 0, 0, 0, 0, 0))) == []


def test_a_frozen_region_resumes_where_time_is() -> None:
    """While CloudWatch is away nothing is evaluated; afterwards the next evaluation sees the data of that time."""
    alarms = book()
    alarms.put_metric_alarm(metric_alarm(), T0)
    source = minutes(0, 0, 1, 1, 1, 0, 0, 1)
    alarms.tick(T0 + 120, source)
    alarms.skip(T0 + 360)
    assert states(alarms.tick(T0 + 480, source)) == [(8, "a", ALARM)]


def test_a_phase_shifts_evaluations() -> None:
    """An alarm with a phase of 40 s sees the minute that ended 40 s ago."""
    alarms = AlarmBook("us-west-2", phase=lambda _: 40.0)
    alarms.put_metric_alarm(metric_alarm(), T0)
    transitions = [event for event in alarms.tick(T0 + 300, minutes(0, 1, 1, 1)) if isinstance(event, Transition)]
    assert [(event.at - T0, event.state) for event in transitions] == [(40, OK), (160, ALARM)]


def test_new_alarms_have_insufficient_data() -> None:
    """The initial state, before any evaluation."""
    alarms = book()
    alarms.put_metric_alarm(metric_alarm(), T0)
    assert alarms.state("a") == INSUFFICIENT_DATA
