"""Alarms: definitions, states, history, mute rules and actions, evaluated by `alarms.engine.AlarmBook` in lab time, one book per Region.

A Region that is down evaluates nothing and sends nothing; what its alarms would have said in that time is never said.
"""

from __future__ import annotations

import json
import logging
import threading
from collections import defaultdict
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

from alarms.engine import Action, AlarmBook, AlarmNotFoundError, CompositeAlarm, DefinitionError, Event, MetricAlarm, MetricKey, Transition
from alarms.engine.composite import alarm_name
from lab.aws.service import AwsError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from alarms.engine import MuteRule
    from lab.aws.service import Context
    from lab.aws.services.cloudwatch.store import MetricStore
    from lab.aws.world import LocalWorld

log = logging.getLogger(__name__)

TICK_S = 0.5
DELIVERIES = 4
PAGE = 50
LAMBDA_PRINCIPAL = "lambda.alarms.cloudwatch.amazonaws.com"
_OWN_REGION_ONLY = ("sns", "lambda", "ssm", "ssm-incidents")


class Alarms:
    """The alarm operations."""

    def __init__(self, world: LocalWorld, stores: dict[str, MetricStore]) -> None:
        self._world = world
        self._stores = stores
        self._books = {region: AlarmBook(region, world.account) for region in world.regions}
        self._tags: dict[str, dict[str, str]] = defaultdict(dict)
        self._mute_updated: dict[tuple[str, str], float] = {}
        self._lock = threading.RLock()
        self._deliveries = ThreadPoolExecutor(DELIVERIES, "alarm-actions")
        for region in world.regions:
            world.every(TICK_S, self._ticker(region), name=f"alarms-{region}")

    def close(self) -> None:
        """End after the deliveries that have begun."""
        self._deliveries.shutdown(wait=False, cancel_futures=True)

    # -- evaluation --------------------------------------------------------------------------------------------------------------------

    def _ticker(self, region: str) -> Callable[[float], None]:
        def tick(now: float) -> None:
            book = self._books[region]
            with self._lock:
                due = book.next_due()
                if due is None or due > now:
                    return
                if self._world.is_down(region):
                    book.skip(now)
                    return
                events = book.tick(now, self._stores[region])
            self._deliver(region, events)

        return tick

    def _deliver(self, region: str, events: Iterable[Event]) -> None:
        """Hand state changes to EventBridge and actions to their targets, without holding up the next evaluation."""
        for event in events:
            if isinstance(event, Transition):
                self._deliveries.submit(self._emit, region, event)
            elif isinstance(event, Action):
                self._deliveries.submit(self._act, region, event)

    def _emit(self, region: str, change: Transition) -> None:
        events = self._world.find("events")
        if events is not None:
            event = change.event
            try:
                events.emit(region, event["source"], event["detail-type"], event["detail"], event["resources"])
            except AwsError as error:
                log.warning("%s: event about %s not delivered: %s", region, change.alarm, error)

    def _act(self, region: str, action: Action) -> None:
        service = action.arn.split(":")[2] if action.arn.count(":") >= 5 else ""
        principal = "service/cloudwatch.amazonaws.com"
        try:
            if service == "sns":
                self._world.service("sns").admit(action.arn, principal.partition("/")[2], action.alarm_arn, self._world.account)
                self._world.call(
                    region, "sns", "publish", principal, TopicArn=action.arn, Subject=action.subject, Message=json.dumps(action.message)
                )
            elif service == "lambda":
                payload = json.dumps(action.payload).encode()
                self._world.service("lambda").invoke_from(LAMBDA_PRINCIPAL, action.alarm_arn, action.arn, payload)
            else:
                log.warning("%s: alarm %s: the local AWS runs no action of the kind %s", region, action.alarm, action.arn)
        except (AwsError, LookupError) as error:
            log.warning("%s: alarm %s: action %s failed: %s", region, action.alarm, action.arn, error)
            with self._lock:
                self._books[region].action_failed(action, error.message if isinstance(error, AwsError) else str(error))

    # -- definitions -------------------------------------------------------------------------------------------------------------------

    def put_metric_alarm(self, ctx: Context, params: dict[str, Any]) -> None:
        """PutMetricAlarm."""
        self._put(ctx, params, lambda book: book.put_metric_alarm(params, ctx.now))

    def put_composite_alarm(self, ctx: Context, params: dict[str, Any]) -> None:
        """PutCompositeAlarm."""
        self._put(ctx, params, lambda book: book.put_composite_alarm(params, ctx.now))

    def _put(self, ctx: Context, params: dict[str, Any], put: Callable[[AlarmBook], object]) -> None:
        for key in ("OKActions", "AlarmActions", "InsufficientDataActions"):
            for arn in params.get(key, ()):
                parts = arn.split(":")
                if len(parts) > 4 and parts[2] in _OWN_REGION_ONLY and parts[3] != ctx.region:
                    raise AwsError("ValidationError", f"Invalid region {parts[3]} specified. Only {ctx.region} is supported.")
        with self._lock:
            book = self._books[ctx.region]
            new = params["AlarmName"] not in book.entries
            try:
                put(book)
            except DefinitionError as error:
                raise AwsError("ValidationError", error.aws_message) from error
            if new and params.get("Tags"):  # tags of an update are ignored, as AWS documents
                self._tags[book.where.arn(params["AlarmName"])] = {tag["Key"]: tag["Value"] for tag in params["Tags"]}

    def delete_alarms(self, ctx: Context, params: dict[str, Any]) -> None:
        """DeleteAlarms: all or none."""
        with self._lock:
            book = self._books[ctx.region]
            try:
                book.delete_alarms(params["AlarmNames"])
            except DefinitionError as error:
                raise AwsError("ValidationError", error.aws_message) from error
            for name in params["AlarmNames"]:
                self._tags.pop(book.where.arn(name), None)

    def set_alarm_state(self, ctx: Context, params: dict[str, Any]) -> None:
        """SetAlarmState, with its actions."""
        data = params.get("StateReasonData", "")
        if data:
            try:
                json.loads(data)
            except ValueError as error:
                raise AwsError("InvalidFormat", "StateReasonData is not valid JSON") from error
        with self._lock:
            try:
                events = self._books[ctx.region].set_alarm_state(
                    params["AlarmName"], params["StateValue"], params["StateReason"], ctx.now, data
                )
            except AlarmNotFoundError as error:
                raise AwsError("ResourceNotFound", str(error), 404) from error
            except DefinitionError as error:
                raise AwsError("ValidationError", error.aws_message) from error
        self._deliver(ctx.region, events)

    def enable_alarm_actions(self, ctx: Context, params: dict[str, Any]) -> None:
        """EnableAlarmActions."""
        with self._lock:
            self._books[ctx.region].set_actions_enabled(params["AlarmNames"], True, ctx.now)

    def disable_alarm_actions(self, ctx: Context, params: dict[str, Any]) -> None:
        """DisableAlarmActions."""
        with self._lock:
            self._books[ctx.region].set_actions_enabled(params["AlarmNames"], False, ctx.now)

    # -- reading -----------------------------------------------------------------------------------------------------------------------

    def describe_alarms(self, ctx: Context, params: dict[str, Any]) -> dict[str, Any]:
        """DescribeAlarms. Without AlarmTypes only metric alarms are answered, as AWS documents."""
        _one_way_to_select(params)
        with self._lock:
            book = self._books[ctx.region]
            names = self._selected(book, params)
            described = book.describe_alarms(names)
        types = params.get("AlarmTypes") or ["MetricAlarm"]
        everything = [("MetricAlarms", each) for each in described["MetricAlarms"] if "MetricAlarm" in types]
        everything += [("CompositeAlarms", each) for each in described["CompositeAlarms"] if "CompositeAlarm" in types]
        state, prefix = params.get("StateValue"), params.get("ActionPrefix")
        chosen = [
            (kind, each)
            for kind, each in everything
            if state in {None, each["StateValue"]}
            and (
                prefix is None
                or any(arn.startswith(prefix) for key in ("OKActions", "AlarmActions", "InsufficientDataActions") for arn in each[key])
            )
        ]
        page, token = _paged(chosen, params)
        out: dict[str, Any] = {"MetricAlarms": [], "CompositeAlarms": [], "LogAlarms": [], "NextToken": token}
        for kind, each in page:
            out[kind].append(each)
        return out

    def _selected(self, book: AlarmBook, params: dict[str, Any]) -> list[str] | None:
        if "AlarmNames" in params:
            return list(params["AlarmNames"])
        if "AlarmNamePrefix" in params:
            return [name for name in book.entries if name.startswith(params["AlarmNamePrefix"])]
        if "ParentsOfAlarmName" in params:
            return book.parents(alarm_name(params["ParentsOfAlarmName"]))
        if "ChildrenOfAlarmName" in params:
            entry = book.entries.get(alarm_name(params["ChildrenOfAlarmName"]))
            return list(entry.alarm.children) if entry is not None and isinstance(entry.alarm, CompositeAlarm) else []
        return None

    def describe_alarms_for_metric(self, ctx: Context, params: dict[str, Any]) -> dict[str, Any]:
        """DescribeAlarmsForMetric: alarms on exactly this metric."""
        key = MetricKey.of(
            params["Namespace"], params["MetricName"], {each["Name"]: each["Value"] for each in params.get("Dimensions", ())}
        )
        stat = params.get("Statistic") or params.get("ExtendedStatistic")

        def matches(alarm: MetricAlarm) -> bool:
            return any(
                MetricKey(each.metric.namespace, each.metric.name, each.metric.dimensions) == key
                and stat in {None, each.stat}
                and params.get("Period") in {None, each.period}
                and params.get("Unit") in {None, each.metric.unit}
                for each in alarm.metric_stats
            )

        with self._lock:
            book = self._books[ctx.region]
            names = [name for name, entry in book.entries.items() if isinstance(entry.alarm, MetricAlarm) and matches(entry.alarm)]
            return {"MetricAlarms": book.describe_alarms(names)["MetricAlarms"]}

    def describe_alarm_history(self, ctx: Context, params: dict[str, Any]) -> dict[str, Any]:
        """DescribeAlarmHistory, newest first unless asked otherwise."""
        with self._lock:
            book = self._books[ctx.region]
            name = params.get("AlarmName")
            if name is not None and name not in book.entries:
                return {"AlarmHistoryItems": []}
            items = book.history(name)
        clock = self._world.clock
        start = clock.to_lab(params["StartDate"]) if "StartDate" in params else float("-inf")
        end = clock.to_lab(params["EndDate"]) if "EndDate" in params else float("inf")
        types = params.get("AlarmTypes") or ["MetricAlarm"] if name is None else None
        chosen = [
            described
            for item in items
            if start <= item.at <= end and params.get("HistoryItemType") in {None, item.kind}
            for described in [item.describe()]
            if types is None or described["AlarmType"] in types
        ]
        if params.get("ScanBy") == "TimestampAscending":
            chosen.reverse()
        page, token = _paged(chosen, params)
        return {"AlarmHistoryItems": page, "NextToken": token}

    # -- tags --------------------------------------------------------------------------------------------------------------------------

    def list_tags_for_resource(self, ctx: Context, params: dict[str, Any]) -> dict[str, Any]:
        """ListTagsForResource of an alarm."""
        self._exists(ctx, params["ResourceARN"])
        return {"Tags": [{"Key": key, "Value": value} for key, value in self._tags.get(params["ResourceARN"], {}).items()]}

    def tag_resource(self, ctx: Context, params: dict[str, Any]) -> None:
        """TagResource of an alarm."""
        self._exists(ctx, params["ResourceARN"])
        self._tags[params["ResourceARN"]] |= {tag["Key"]: tag["Value"] for tag in params["Tags"]}

    def untag_resource(self, ctx: Context, params: dict[str, Any]) -> None:
        """UntagResource of an alarm."""
        self._exists(ctx, params["ResourceARN"])
        for key in params["TagKeys"]:
            self._tags[params["ResourceARN"]].pop(key, None)

    def _exists(self, ctx: Context, arn: str) -> None:
        book = self._books[ctx.region]
        known = {book.where.arn(name) for name in book.entries} | {self._mute_arn(ctx.region, name) for name in book.mute_rules}
        if arn not in known:
            raise AwsError("ResourceNotFoundException", f"Unknown resource: {arn}", 404)

    # -- mute rules --------------------------------------------------------------------------------------------------------------------

    def put_alarm_mute_rule(self, ctx: Context, params: dict[str, Any]) -> None:
        """PutAlarmMuteRule."""
        with self._lock:
            try:
                self._books[ctx.region].put_alarm_mute_rule(params)
            except DefinitionError as error:
                raise AwsError("ValidationError", error.aws_message) from error
            self._mute_updated[ctx.region, params["Name"]] = ctx.now

    def get_alarm_mute_rule(self, ctx: Context, params: dict[str, Any]) -> dict[str, Any]:
        """GetAlarmMuteRule."""
        name = params["AlarmMuteRuleName"]
        rule = self._books[ctx.region].mute_rules.get(name)
        if rule is None:
            raise AwsError("ResourceNotFoundException", f"There is no mute rule {name}", 404)
        kept = {
            key: value
            for key, value in rule.params.items()
            if key in {"Name", "Description", "Rule", "MuteTargets", "StartDate", "ExpireDate"}
        }
        return kept | self._mute_summary(ctx, rule)

    def list_alarm_mute_rules(self, ctx: Context, params: dict[str, Any]) -> dict[str, Any]:
        """ListAlarmMuteRules."""
        rules = [self._books[ctx.region].mute_rules[name] for name in sorted(self._books[ctx.region].mute_rules)]
        alarm, statuses = params.get("AlarmName"), params.get("Statuses")
        found = [self._mute_summary(ctx, rule) for rule in rules if alarm is None or alarm in rule.alarms]
        page, token = _paged([each for each in found if not statuses or each["Status"] in statuses], params)
        return {"AlarmMuteRuleSummaries": page, "NextToken": token}

    def delete_alarm_mute_rule(self, ctx: Context, params: dict[str, Any]) -> None:
        """DeleteAlarmMuteRule."""
        with self._lock:
            try:
                self._books[ctx.region].delete_alarm_mute_rule(params["AlarmMuteRuleName"], ctx.now)
            except AlarmNotFoundError as error:
                raise AwsError("ResourceNotFoundException", str(error), 404) from error

    def _mute_arn(self, region: str, name: str) -> str:
        return f"arn:aws:cloudwatch:{region}:{self._world.account}:alarm-mute-rule:{name}"

    def _mute_summary(self, ctx: Context, rule: MuteRule) -> dict[str, Any]:
        return {
            "AlarmMuteRuleArn": self._mute_arn(ctx.region, rule.name),
            "ExpireDate": rule.expires,
            "Status": rule.status(ctx.now),
            "MuteType": "recurring" if str(rule.params["Rule"]["Schedule"]["Expression"]).startswith("cron") else "one-time",
            "LastUpdatedTimestamp": self._mute_updated.get((ctx.region, rule.name)),
        }


def _one_way_to_select(params: dict[str, Any]) -> None:
    given = [key for key in ("AlarmNames", "AlarmNamePrefix", "ChildrenOfAlarmName", "ParentsOfAlarmName") if key in params]
    if len(given) > 1:
        raise AwsError("ValidationError", f"{given[0]} and {given[1]} cannot be specified together.")


def _paged(items: list[Any], params: dict[str, Any]) -> tuple[list[Any], str | None]:
    """One page of ``items`` and the token of the next."""
    token, size = params.get("NextToken"), params.get("MaxRecords", PAGE)
    if token is not None and not token.isdigit():
        raise AwsError("InvalidNextToken", "The next token provided is invalid")
    start = int(token or 0)
    return items[start : start + size], str(start + size) if start + size < len(items) else None
