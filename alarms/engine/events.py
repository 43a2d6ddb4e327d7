"""What comes out of the book: state changes, actions to run, actions held back, and history."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

from alarms.engine.metric import Verdict
from alarms.engine.payloads import Change, event, lambda_payload, sns_message, subject
from alarms.engine.states import State, utc


@dataclass(frozen=True, slots=True)
class Transition:
    """An alarm changed state. ``event`` is the EventBridge event, which is sent whether or not actions run."""

    at: float
    alarm: str
    alarm_arn: str
    composite: bool
    previous: State
    state: State
    reason: str
    reason_data: str
    verdict: Verdict | None = field(repr=False)
    """How a metric alarm decided; None for a composite and for SetAlarmState."""
    change: Change = field(repr=False, compare=False)

    @property
    def event(self) -> dict[str, Any]:
        """The EventBridge event."""
        return event(self.change)


@dataclass(frozen=True, slots=True)
class Action:
    """An action to run now. ``arn`` says what: publish ``message`` as JSON to an SNS topic, invoke a Lambda with ``payload``, …"""

    at: float
    alarm: str
    alarm_arn: str
    arn: str
    state: State
    change: Change = field(repr=False, compare=False)
    repeated: bool = False
    """Set for an Auto Scaling action run again because the alarm stays in its state."""

    @property
    def message(self) -> dict[str, Any]:
        """The SNS message, to be sent as JSON."""
        return sns_message(self.change)

    @property
    def subject(self) -> str:
        """The SNS subject."""
        return subject(self.change)

    @property
    def payload(self) -> dict[str, Any]:
        """What a Lambda function gets."""
        return lambda_payload(self.change)


@dataclass(frozen=True, slots=True)
class Withheld:
    """Actions that did not run: held by a composite's suppressor, its wait or extension period, or by a mute rule."""

    at: float
    alarm: str
    state: State
    by: Literal["Alarm", "WaitPeriod", "ExtensionPeriod", "MuteRule", "WarmUp"]
    arns: tuple[str, ...]
    until: float | None


Event = Transition | Action | Withheld


@dataclass(frozen=True, slots=True)
class HistoryItem:
    """One line of DescribeAlarmHistory. ``data`` is JSON."""

    at: float
    alarm: str
    composite: bool
    kind: Literal["ConfigurationUpdate", "StateUpdate", "Action"]
    summary: str
    data: str

    def describe(self) -> dict[str, Any]:
        """The item in the shape of DescribeAlarmHistory."""
        return {
            "AlarmName": self.alarm,
            "AlarmType": "CompositeAlarm" if self.composite else "MetricAlarm",
            "Timestamp": utc(self.at),
            "HistoryItemType": self.kind,
            "HistorySummary": self.summary,
            "HistoryData": self.data,
        }
