"""What CloudWatch sends when an alarm changes state: the SNS message, the EventBridge event and the Lambda payload.

Pages: *Notifying users on alarm changes*, *Alarm events and EventBridge*, *Invoke a Lambda function from an alarm*.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from alarms.engine.model import Alarm, CompositeAlarm, MetricAlarm
from alarms.engine.query import MetricStat, Query
from alarms.engine.states import State, stamp, utc

REGION_NAMES = {
    "us-east-1": "US East (N. Virginia)",
    "us-east-2": "US East (Ohio)",
    "us-west-1": "US West (N. California)",
    "us-west-2": "US West (Oregon)",
    "ca-central-1": "Canada (Central)",
    "sa-east-1": "South America (Sao Paulo)",
    "eu-west-1": "EU (Ireland)",
    "eu-west-2": "EU (London)",
    "eu-west-3": "EU (Paris)",
    "eu-central-1": "EU (Frankfurt)",
    "eu-central-2": "Europe (Zurich)",
    "eu-north-1": "EU (Stockholm)",
    "eu-south-1": "EU (Milan)",
    "ap-south-1": "Asia Pacific (Mumbai)",
    "ap-northeast-1": "Asia Pacific (Tokyo)",
    "ap-northeast-2": "Asia Pacific (Seoul)",
    "ap-northeast-3": "Asia Pacific (Osaka)",
    "ap-southeast-1": "Asia Pacific (Singapore)",
    "ap-southeast-2": "Asia Pacific (Sydney)",
    "af-south-1": "Africa (Cape Town)",
    "me-south-1": "Middle East (Bahrain)",
}


@dataclass(frozen=True, slots=True)
class Where:
    """The Region and account an alarm lives in."""

    region: str
    account: str

    def arn(self, name: str) -> str:
        """The alarm's ARN."""
        return f"arn:aws:cloudwatch:{self.region}:{self.account}:alarm:{name}"

    @property
    def region_name(self) -> str:
        """The Region as messages name it."""
        return REGION_NAMES.get(self.region, self.region)


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A state with its reason; for a composite also what suppresses its actions."""

    value: State
    reason: str
    reason_data: str
    at: float
    suppressed_by: str | None = None
    suppressed_reason: str | None = None

    def as_event(self) -> dict[str, Any]:
        """The ``state`` of an EventBridge event."""
        body: dict[str, Any] = {}
        if self.suppressed_by:
            body["actionsSuppressedBy"] = self.suppressed_by
            body["actionsSuppressedReason"] = self.suppressed_reason
        body |= {"value": self.value, "reason": self.reason}
        if self.reason_data:
            body["reasonData"] = self.reason_data
        return {**body, "timestamp": stamp(self.at)}


@dataclass(frozen=True, slots=True)
class Change:
    """A state change: the alarm, from what to what, and the children that caused it."""

    where: Where
    alarm: Alarm
    configured_at: float
    before: Snapshot
    after: Snapshot
    children: tuple[tuple[str, State, float], ...] = ()
    """For a composite: (ARN, state, since) of the children behind the change."""


def subject(change: Change) -> str:
    """The SNS subject, at most 100 characters."""
    return f'{change.after.value}: "{change.alarm.name}" in {change.where.region_name}'[:100]


def sns_message(change: Change) -> dict[str, Any]:
    """The body of the notification."""
    alarm, where = change.alarm, change.where
    body: dict[str, Any] = {
        "AlarmName": alarm.name,
        "AlarmDescription": alarm.description or None,
        "AWSAccountId": where.account,
        "AlarmConfigurationUpdatedTimestamp": stamp(change.configured_at),
        "NewStateValue": change.after.value,
        "NewStateReason": change.after.reason,
        "StateChangeTime": stamp(change.after.at),
        "Region": where.region_name,
        "AlarmArn": where.arn(alarm.name),
        "OldStateValue": change.before.value,
        "OKActions": list(alarm.actions.ok),
        "AlarmActions": list(alarm.actions.alarm),
        "InsufficientDataActions": list(alarm.actions.insufficient_data),
    }
    if isinstance(alarm, CompositeAlarm):
        body["AlarmRule"] = alarm.rule.text
        body["TriggeringChildren"] = [
            {"Arn": arn, "State": {"Value": state, "Timestamp": stamp(since)}} for arn, state, since in change.children
        ]
    else:
        body["Trigger"] = _trigger(alarm)
    return body


def _trigger(alarm: MetricAlarm) -> dict[str, Any]:
    body: dict[str, Any] = {}
    stat = alarm.single_metric
    if stat is not None:
        plain = "Statistic" in alarm.params
        body = {
            "MetricName": stat.metric.name,
            "Namespace": stat.metric.namespace,
            "StatisticType": "Statistic" if plain else "ExtendedStatistic",
            ("Statistic" if plain else "ExtendedStatistic"): _upper(stat.stat) if plain else stat.stat,
            "Unit": stat.metric.unit,
            "Dimensions": [{"value": value, "name": name} for name, value in stat.metric.dimensions],
        }
    body |= {
        "Period": alarm.period,
        "EvaluationPeriods": alarm.evaluation_periods,
        "DatapointsToAlarm": alarm.datapoints_to_alarm,
        "ComparisonOperator": alarm.comparison,
    }
    if alarm.threshold is not None:
        body["Threshold"] = alarm.threshold
    else:
        body["ThresholdMetricId"] = alarm.threshold_metric_id
    body["TreatMissingData"] = alarm.treat_missing_data or "missing"
    body["EvaluateLowSampleCountPercentile"] = alarm.params.get("EvaluateLowSampleCountPercentile") or ""
    if stat is None:
        body["Metrics"] = [_sns_query(query) for query in alarm.queries]
    return body


def _upper(stat: str) -> str:
    return {"SampleCount": "SAMPLE_COUNT"}.get(stat, stat.upper())


def _sns_query(query: Query) -> dict[str, Any]:
    body: dict[str, Any] = {"Id": query.id}
    if query.expression is not None:
        body["Expression"] = query.expression
        if query.period:
            body["Period"] = query.period
    if query.label is not None:
        body["Label"] = query.label
    if query.metric_stat is not None:
        metric = query.metric_stat.metric
        body["MetricStat"] = {
            "Metric": {
                "Dimensions": [{"value": value, "name": name} for name, value in metric.dimensions],
                "MetricName": metric.name,
                "Namespace": metric.namespace,
            },
            "Period": query.metric_stat.period,
            "Stat": query.metric_stat.stat,
            **({"Unit": metric.unit} if metric.unit else {}),
        }
    body["ReturnData"] = query.return_data
    return body


def event(change: Change) -> dict[str, Any]:
    """The "CloudWatch Alarm State Change" event. Its id depends on alarm, time and state, so that a replay gives the same one."""
    where, alarm = change.where, change.alarm
    arn = where.arn(alarm.name)
    return {
        "version": "0",
        "id": str(uuid.uuid5(uuid.NAMESPACE_URL, f"{arn} {stamp(change.after.at)} {change.after.value}")),
        "detail-type": "CloudWatch Alarm State Change",
        "source": "aws.cloudwatch",
        "account": where.account,
        "time": f"{utc(change.after.at):%Y-%m-%dT%H:%M:%SZ}",
        "region": where.region,
        "resources": [arn],
        "detail": {
            "alarmName": alarm.name,
            "state": change.after.as_event(),
            "previousState": change.before.as_event(),
            "configuration": configuration(alarm),
        },
    }


def lambda_payload(change: Change) -> dict[str, Any]:
    """What a Lambda action receives."""
    detail = event(change)["detail"]
    return {
        "source": "aws.cloudwatch",
        "alarmArn": change.where.arn(change.alarm.name),
        "accountId": change.where.account,
        "time": stamp(change.after.at),
        "region": change.where.region,
        "alarmData": detail,
    }


def configuration(alarm: Alarm) -> dict[str, Any]:
    """The ``configuration`` of an event."""
    body: dict[str, Any] = {}
    if alarm.description:
        body["description"] = alarm.description
    if isinstance(alarm, CompositeAlarm):
        body["alarmRule"] = alarm.rule.text
        if alarm.suppressor:
            body["actionsSuppressor"] = alarm.suppressor
            body["actionsSuppressorWaitPeriod"] = int(alarm.wait_s)
            body["actionsSuppressorExtensionPeriod"] = int(alarm.extension_s)
        return body
    return {**body, "metrics": [_event_query(query) for query in alarm.queries]}


def _event_query(query: Query) -> dict[str, Any]:
    body: dict[str, Any] = {"id": query.id}
    if query.metric_stat is not None:
        body["metricStat"] = _event_stat(query.metric_stat)
    if query.expression is not None:
        body["expression"] = query.expression
    if query.label is not None:
        body["label"] = query.label
    return {**body, "returnData": query.return_data}


def _event_stat(stat: MetricStat) -> dict[str, Any]:
    metric = {"namespace": stat.metric.namespace, "name": stat.metric.name, "dimensions": dict(stat.metric.dimensions)}
    return {"metric": metric, "period": stat.period, "stat": stat.stat, **({"unit": stat.metric.unit} if stat.metric.unit else {})}


def composite_reason_data(children: Sequence[tuple[str, State, float]]) -> str:
    """``StateReasonData`` of a composite: the alarms behind the change."""
    alarms = [{"arn": arn, "state": {"value": state, "timestamp": stamp(since)}} for arn, state, since in children]
    return json.dumps({"triggeringAlarms": alarms}, separators=(",", ":"))
