"""AWS::CloudWatch: alarms, composite alarms, dashboards, mute rules."""

from __future__ import annotations

import json
from typing import Any

from lab.aws.services.cloudformation.errors import ResourceError
from lab.aws.services.cloudformation.resources.base import Env, Props, ResourceType, gone, present
from lab.aws.support import iso


class _AnyAlarm(ResourceType):
    service = "cloudwatch"
    name_property = "AlarmName"
    name_limit = 255
    replacing = frozenset({"AlarmName"})
    attributes = ("Arn",)
    put = ""
    kind = ""
    listed = ""

    def create(self, env: Env, props: Props) -> str:
        name = self.named(env, props)
        if self._described(env, name) is not None:
            raise ResourceError(f"{name} already exists in stack or account", "AlreadyExists")
        env.call("cloudwatch", self.put, **{**self.parameters(props), "AlarmName": name, "Tags": env.tag_list(props.get("Tags"))})
        return name

    def update(self, env: Env, identity: str, old: Props, new: Props) -> None:
        env.call("cloudwatch", self.put, **{**self.parameters(new, ("Tags",)), "AlarmName": identity})
        _update_tags(env, self._arn(env, identity), old, new)

    def delete(self, env: Env, identity: str, props: Props) -> None:
        try:
            env.call("cloudwatch", "delete_alarms", AlarmNames=[identity])
        except ResourceError as error:
            if not gone(error):
                raise

    def read(self, env: Env, identity: str, props: Props) -> Props | None:
        found = self._described(env, identity)
        return None if found is None else present(found, {name: 1 for name in props if name != "Tags"})

    def get(self, env: Env, identity: str, _props: Props) -> dict[str, Any]:
        return {"Arn": self._arn(env, identity)}

    def _described(self, env: Env, name: str) -> Props | None:
        found: list[Props] = env.call("cloudwatch", "describe_alarms", AlarmNames=[name], AlarmTypes=[self.kind]).get(self.listed, [])
        return found[0] if found else None

    def _arn(self, env: Env, name: str) -> str:
        return f"arn:aws:cloudwatch:{env.region}:{env.account}:alarm:{name}"


class Alarm(_AnyAlarm):
    """A metric alarm."""

    name = "AWS::CloudWatch::Alarm"
    operation = "PutMetricAlarm"
    put, kind, listed = "put_metric_alarm", "MetricAlarm", "MetricAlarms"


class CompositeAlarm(_AnyAlarm):
    """A composite alarm; its children must exist."""

    name = "AWS::CloudWatch::CompositeAlarm"
    operation = "PutCompositeAlarm"
    required = frozenset({"AlarmRule"})
    put, kind, listed = "put_composite_alarm", "CompositeAlarm", "CompositeAlarms"


class Dashboard(ResourceType):
    """A dashboard."""

    name = "AWS::CloudWatch::Dashboard"
    service, operation = "cloudwatch", "PutDashboard"
    required = frozenset({"DashboardBody"})
    replacing = frozenset({"DashboardName"})
    name_property = "DashboardName"
    name_limit = 255

    def create(self, env: Env, props: Props) -> str:
        name = self.named(env, props)
        env.call("cloudwatch", "put_dashboard", **{**self.parameters(props, ("Tags",)), "DashboardName": name})
        return name

    def update(self, env: Env, identity: str, old: Props, new: Props) -> None:
        env.call("cloudwatch", "put_dashboard", DashboardName=identity, DashboardBody=new["DashboardBody"])

    def delete(self, env: Env, identity: str, props: Props) -> None:
        try:
            env.call("cloudwatch", "delete_dashboards", DashboardNames=[identity])
        except ResourceError as error:
            if not gone(error):
                raise

    def read(self, env: Env, identity: str, props: Props) -> Props | None:
        try:
            body = env.call("cloudwatch", "get_dashboard", DashboardName=identity)["DashboardBody"]
        except ResourceError as error:
            if gone(error):
                return None
            raise
        same = json.loads(body) == json.loads(props["DashboardBody"])
        return {"DashboardName": identity, "DashboardBody": props["DashboardBody"] if same else body}


class AlarmMuteRule(ResourceType):
    """A rule that mutes alarms' actions at times."""

    name = "AWS::CloudWatch::AlarmMuteRule"
    service, operation = "cloudwatch", "PutAlarmMuteRule"
    required = frozenset({"Rule"})
    replacing = frozenset({"Name"})
    name_property = "Name"
    name_limit = 255
    attributes = ("Arn", "Status", "LastUpdatedTimestamp", "MuteType")

    def create(self, env: Env, props: Props) -> str:
        name = self.named(env, props)
        env.call("cloudwatch", "put_alarm_mute_rule", **{**self.parameters(props), "Name": name, "Tags": env.tag_list(props.get("Tags"))})
        return name

    def update(self, env: Env, identity: str, old: Props, new: Props) -> None:
        env.call("cloudwatch", "put_alarm_mute_rule", **{**self.parameters(new, ("Tags",)), "Name": identity})
        _update_tags(env, str(self.get(env, identity, new)["Arn"]), old, new)

    def delete(self, env: Env, identity: str, props: Props) -> None:
        try:
            env.call("cloudwatch", "delete_alarm_mute_rule", AlarmMuteRuleName=identity)
        except ResourceError as error:
            if not gone(error):
                raise

    def read(self, env: Env, identity: str, props: Props) -> Props | None:
        try:
            found = env.call("cloudwatch", "get_alarm_mute_rule", AlarmMuteRuleName=identity)
        except ResourceError as error:
            if gone(error):
                return None
            raise
        return present(found, {name: 1 for name in ("Name", "Description", "Rule", "MuteTargets") if name in props})

    def get(self, env: Env, identity: str, _props: Props) -> dict[str, Any]:
        found = env.call("cloudwatch", "get_alarm_mute_rule", AlarmMuteRuleName=identity)
        updated = found.get("LastUpdatedTimestamp")
        text = iso(updated) if isinstance(updated, int | float) else str(updated)
        arn = found.get("AlarmMuteRuleArn") or f"arn:aws:cloudwatch:{env.region}:{env.account}:alarm-mute-rule:{identity}"
        return {"Arn": arn, "Status": found.get("Status", ""), "MuteType": found.get("MuteType", ""), "LastUpdatedTimestamp": text}


def _update_tags(env: Env, arn: str, old: Props, new: Props) -> None:
    given, removed = env.tag_changes(old, new)
    if given:
        env.call("cloudwatch", "tag_resource", ResourceARN=arn, Tags=given)
    if removed:
        env.call("cloudwatch", "untag_resource", ResourceARN=arn, TagKeys=removed)


TYPES = (Alarm(), CompositeAlarm(), Dashboard(), AlarmMuteRule())
