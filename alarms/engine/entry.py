"""One alarm in the book: its definition, its state, and what is pending for it."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from typing import Any

from alarms.engine.events import HistoryItem
from alarms.engine.metric import Verdict
from alarms.engine.model import Alarm, CompositeAlarm, MetricAlarm
from alarms.engine.payloads import Snapshot, Where
from alarms.engine.states import State, utc
from alarms.engine.suppression import IDLE, Suppression

HISTORY = 2000


@dataclass(slots=True)
class Entry:
    """The mutable record of an alarm. Times are epoch seconds."""

    alarm: Alarm
    created_at: float
    configured_at: float
    current: Snapshot
    transitioned_at: float
    due: float | None = None
    """When a metric alarm is evaluated next."""
    held: Suppression = IDLE
    muted: State | None = None
    """The state whose actions a mute rule withheld."""
    verdict: Verdict | None = None
    last_change: Any = None
    history: deque[HistoryItem] = field(default_factory=lambda: deque(maxlen=HISTORY))

    @property
    def state(self) -> State:
        """The state the alarm is in."""
        return self.current.value

    @property
    def composite(self) -> bool:
        """Whether it is a composite alarm."""
        return isinstance(self.alarm, CompositeAlarm)

    def warming_up(self, at: float) -> bool:
        """Whether the alarm is within its warm-up period."""
        warm_up = self.alarm.warm_up if isinstance(self.alarm, MetricAlarm) else None
        return warm_up is not None and at < self.created_at + warm_up.seconds

    def describe(self, where: Where) -> dict[str, Any]:
        """The alarm in the shape of DescribeAlarms. Optional parameters that were not given are absent, as in AWS's answer."""
        alarm, now = self.alarm, self.current
        body = {key: value for key, value in alarm.params.items() if key != "Tags" and value is not None}
        body |= {
            "AlarmArn": where.arn(alarm.name),
            "ActionsEnabled": alarm.actions.enabled,
            "OKActions": list(alarm.actions.ok),
            "AlarmActions": list(alarm.actions.alarm),
            "InsufficientDataActions": list(alarm.actions.insufficient_data),
            "AlarmConfigurationUpdatedTimestamp": utc(self.configured_at),
            "StateValue": now.value,
            "StateReason": now.reason,
            "StateUpdatedTimestamp": utc(now.at),
            "StateTransitionedTimestamp": utc(self.transitioned_at),
        }
        if now.reason_data:
            body["StateReasonData"] = now.reason_data
        if isinstance(alarm, CompositeAlarm):
            if self.held.by:
                body["ActionsSuppressedBy"] = self.held.by
                body["ActionsSuppressedReason"] = f"Actions suppressed by {self.held.by}"
            return body
        if alarm.single_metric is not None:
            body["Dimensions"] = [{"Name": name, "Value": value} for name, value in alarm.single_metric.metric.dimensions]
        return body
