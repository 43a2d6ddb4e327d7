"""Amazon EventBridge: rules on the default bus, by pattern or schedule, and their targets.

Reference: https://docs.aws.amazon.com/eventbridge/latest/APIReference/. Targets are SNS topics, SQS queues, Lambda functions and log
groups; others are refused. Delivery is in `lab.aws.events_targets`. Schedules run in lab time; in a Region that is down nothing matches
and nothing is due.
"""

from __future__ import annotations

import json
import re
import threading
import uuid
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from lab.aws import events_targets, patterns, schedules
from lab.aws.agenda import Agenda
from lab.aws.service import AwsError
from lab.aws.support import Arn, Vended, iso, page, vend

if TYPE_CHECKING:
    from lab.aws.service import Context, World

MAX_TARGETS = 5
MAX_ENTRIES = 10
MAX_ENTRY_BYTES = 1024 * 1024
_NAME = re.compile(r"[.\-_A-Za-z0-9]{1,64}")
_STATES = ("ENABLED", "DISABLED", "ENABLED_WITH_ALL_CLOUDTRAIL_MANAGEMENT_EVENTS")


@dataclass(slots=True)
class Rule:
    """A rule. ``epoch`` counts what makes an older schedule void."""

    name: str
    region: str
    account: str
    pattern: str | None
    schedule: str | None
    state: str
    description: str
    role: str | None
    tags: dict[str, str]
    targets: dict[str, dict[str, Any]] = field(default_factory=dict)
    epoch: int = 0

    @property
    def arn(self) -> str:
        """The rule's ARN."""
        return f"arn:aws:events:{self.region}:{self.account}:rule/{self.name}"

    def shown(self) -> dict[str, Any]:
        """The API's Rule."""
        return {
            "Name": self.name,
            "Arn": self.arn,
            "EventPattern": self.pattern,
            "ScheduleExpression": self.schedule,
            "State": self.state,
            "Description": self.description or None,
            "RoleArn": self.role,
            "EventBusName": "default",
        }


class Service:
    """The operations of EventBridge."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._lock = threading.RLock()
        self._rules: dict[tuple[str, str], Rule] = {}
        self._agenda = Agenda(world.clock, "events", workers=8)
        self._targets = events_targets.Delivery(world, self._agenda)

    def close(self) -> None:
        """End all schedules and deliveries."""
        self._agenda.close()

    # ---- rules

    def put_rule(self, ctx: Context, params: dict[str, Any]) -> dict[str, Any]:
        """Create or change a rule; its targets stay."""
        _check_bus(params)
        name, pattern, schedule = params["Name"], params.get("EventPattern"), params.get("ScheduleExpression")
        if not _NAME.fullmatch(name):
            raise AwsError(
                "ValidationException", f"Value '{name}' at 'name' failed to satisfy constraint: Member must satisfy [.-_A-Za-z0-9]+"
            )
        if not pattern and not schedule:
            raise AwsError("ValidationException", "Parameter(s) EventPattern or ScheduleExpression must be specified.")
        state = params.get("State", "ENABLED")
        if state not in _STATES:
            raise AwsError("ValidationException", f"State {state} is not one of {', '.join(_STATES)}")
        _check_pattern(pattern)
        if schedule:
            _parse_schedule(schedule)
        with self._lock:
            old = self._rules.get((ctx.region, name))
            tags = {tag["Key"]: tag["Value"] for tag in params.get("Tags", [])}
            rule = Rule(
                name=name,
                region=ctx.region,
                account=ctx.account,
                pattern=pattern,
                schedule=schedule,
                state=state,
                description=params.get("Description", ""),
                role=params.get("RoleArn"),
                tags={**(old.tags if old else {}), **tags},
                targets=old.targets if old else {},
                epoch=old.epoch + 1 if old else 1,
            )
            if old:
                old.epoch += 1  # its schedule is void
            self._rules[ctx.region, name] = rule
            self._begin(rule)
        return {"RuleArn": rule.arn}

    def delete_rule(self, ctx: Context, params: dict[str, Any]) -> None:
        """Delete a rule without targets; no error where there is none."""
        _check_bus(params)
        with self._lock:
            rule = self._rules.get((ctx.region, params["Name"]))
            if rule is None:
                return
            if rule.targets:
                raise AwsError("ValidationException", "Rule can't be deleted since it has targets.")
            rule.epoch += 1
            del self._rules[ctx.region, params["Name"]]

    def describe_rule(self, ctx: Context, params: dict[str, Any]) -> dict[str, Any]:
        """One rule."""
        _check_bus(params)
        return self._rule(ctx, params["Name"]).shown()

    def list_rules(self, ctx: Context, params: dict[str, Any]) -> dict[str, Any]:
        """Rules by prefix."""
        _check_bus(params)
        prefix = params.get("NamePrefix", "")
        with self._lock:
            found = [
                rule.shown() for (region, name), rule in sorted(self._rules.items()) if region == ctx.region and name.startswith(prefix)
            ]
        shown, token = page(found, params.get("NextToken"), params.get("Limit", 100))
        return {"Rules": shown, "NextToken": token}

    def enable_rule(self, ctx: Context, params: dict[str, Any]) -> None:
        """Let a rule act."""
        self._switch(ctx, params, "ENABLED")

    def disable_rule(self, ctx: Context, params: dict[str, Any]) -> None:
        """Let a rule rest."""
        self._switch(ctx, params, "DISABLED")

    # ---- targets

    def put_targets(self, ctx: Context, params: dict[str, Any]) -> dict[str, Any]:
        """Add or change targets, at most five a rule."""
        _check_bus({"EventBusName": params.get("EventBusName", "default")})
        with self._lock:
            rule = self._rule(ctx, params["Rule"])
            new = {target["Id"]: target for target in params["Targets"]}
            for target in new.values():
                events_targets.check(target)
            if len({**rule.targets, **new}) > MAX_TARGETS:
                raise AwsError(
                    "LimitExceededException", f"The requested resource exceeds the maximum number allowed: {MAX_TARGETS} targets"
                )
            rule.targets.update(new)
        return {"FailedEntryCount": 0, "FailedEntries": []}

    def remove_targets(self, ctx: Context, params: dict[str, Any]) -> dict[str, Any]:
        """Remove targets by id."""
        with self._lock:
            rule = self._rule(ctx, params["Rule"])
            for identity in params["Ids"]:
                rule.targets.pop(identity, None)
        return {"FailedEntryCount": 0, "FailedEntries": []}

    def list_targets_by_rule(self, ctx: Context, params: dict[str, Any]) -> dict[str, Any]:
        """A rule's targets."""
        with self._lock:
            found = list(self._rule(ctx, params["Rule"]).targets.values())
        shown, token = page(found, params.get("NextToken"), params.get("Limit", 100))
        return {"Targets": shown, "NextToken": token}

    def list_rule_names_by_target(self, ctx: Context, params: dict[str, Any]) -> dict[str, Any]:
        """The rules that have a target."""
        with self._lock:
            found = [
                rule.name
                for (region, _), rule in sorted(self._rules.items())
                if region == ctx.region and any(target["Arn"] == params["TargetArn"] for target in rule.targets.values())
            ]
        shown, token = page(found, params.get("NextToken"), params.get("Limit", 100))
        return {"RuleNames": shown, "NextToken": token}

    # ---- events

    def put_events(self, ctx: Context, params: dict[str, Any]) -> dict[str, Any]:
        """Up to ten events; each is taken or refused on its own."""
        entries = params["Entries"]
        if len(entries) > MAX_ENTRIES:
            raise AwsError("ValidationException", f"Value at 'entries' failed to satisfy constraint: at most {MAX_ENTRIES} entries")
        answers = [self._put(ctx, entry) for entry in entries]
        return {"FailedEntryCount": sum("ErrorCode" in one for one in answers), "Entries": answers}

    def test_event_pattern(self, _ctx: Context, params: dict[str, Any]) -> dict[str, Any]:  # noqa: PT019 - an operation
        """Whether an event fits a pattern."""
        _check_pattern(params["EventPattern"])
        try:
            event = json.loads(params["Event"])
        except ValueError:
            raise AwsError("InvalidEventPatternException", "Parameter Event is not valid JSON.") from None
        needed = ("id", "account", "source", "time", "region", "resources", "detail-type")
        lacking = [name for name in needed if name not in event]
        if lacking:
            raise AwsError("ValidationException", f"Parameter Event is not valid. Reason: missing {', '.join(lacking)}")
        return {"Result": patterns.matches(json.loads(params["EventPattern"]), event)}

    def list_event_buses(self, ctx: Context, _params: dict[str, Any]) -> dict[str, Any]:
        """The default bus."""
        return {"EventBuses": [self._bus(ctx)]}

    def describe_event_bus(self, ctx: Context, params: dict[str, Any]) -> dict[str, Any]:
        """The default bus."""
        _check_bus({"EventBusName": params.get("Name", "default")})
        return self._bus(ctx)

    def tag_resource(self, ctx: Context, params: dict[str, Any]) -> None:
        """Add or replace a rule's tags."""
        self._tagged(ctx, params).tags.update({tag["Key"]: tag["Value"] for tag in params["Tags"]})

    def untag_resource(self, ctx: Context, params: dict[str, Any]) -> None:
        """Remove a rule's tags."""
        tags = self._tagged(ctx, params).tags
        for key in params["TagKeys"]:
            tags.pop(key, None)

    def list_tags_for_resource(self, ctx: Context, params: dict[str, Any]) -> dict[str, Any]:
        """A rule's tags."""
        return {"Tags": [{"Key": key, "Value": value} for key, value in self._tagged(ctx, params).tags.items()]}

    def emit(self, region: str, source: str, detail_type: str, detail: dict[str, Any], resources: list[str]) -> None:
        """An event of an AWS service (``aws.synthetics``), which PutEvents would not take. Nothing happens in a Region that is down."""
        if not self._world.is_down(region):
            self._match(self._envelope(region, source, detail_type, detail, resources, self._world.clock.now()))

    # ---- inside

    def _put(self, ctx: Context, entry: dict[str, Any]) -> dict[str, Any]:
        for key in ("Source", "DetailType", "Detail"):
            if not entry.get(key):
                return {
                    "ErrorCode": "InvalidArgument",
                    "ErrorMessage": f"Parameter {key} is not valid. Reason: {key} is a required argument.",
                }
        if entry["Source"].startswith("aws."):
            return {"ErrorCode": "NotAuthorizedForSourceException", "ErrorMessage": "Not authorized for the source."}
        try:
            detail = json.loads(entry["Detail"])
        except ValueError:
            detail = None
        if not isinstance(detail, dict):
            return {"ErrorCode": "MalformedDetail", "ErrorMessage": "Detail is malformed."}
        if len(entry["Detail"].encode()) > MAX_ENTRY_BYTES:
            return {
                "ErrorCode": "InvalidArgument",
                "ErrorMessage": f"Total size of the entry is over the limit of {MAX_ENTRY_BYTES} bytes.",
            }
        _check_bus(entry)
        time_s = self._world.clock.to_lab(float(entry["Time"])) if "Time" in entry else ctx.now
        event = self._envelope(ctx.region, entry["Source"], entry["DetailType"], detail, entry.get("Resources", []), time_s)
        self._match(event)
        return {"EventId": event["id"]}

    def _envelope(
        self, region: str, source: str, detail_type: str, detail: dict[str, Any], resources: list[str], time_s: float
    ) -> dict[str, Any]:
        return {
            "version": "0",
            "id": str(uuid.uuid4()),
            "detail-type": detail_type,
            "source": source,
            "account": self._world.account,
            "time": iso(time_s)[:19] + "Z",
            "region": region,
            "resources": resources,
            "detail": detail,
        }

    def _match(self, event: dict[str, Any]) -> None:
        with self._lock:
            rules = [rule for (region, _), rule in self._rules.items() if region == event["region"] and rule.pattern]
        for rule in rules:
            if rule.state != "DISABLED" and patterns.matches(json.loads(rule.pattern or "{}"), event):
                self._invoke(rule, event)

    def _invoke(self, rule: Rule, event: dict[str, Any]) -> None:
        dimensions = {"RuleName": rule.name}
        vend(self._world, rule.region, "AWS/Events", dimensions, [Vended("MatchedEvents", 1), Vended("TriggeredRules", 1)])
        for target in list(rule.targets.values()):
            self._targets.send(rule.region, rule.name, rule.arn, target, event)

    def _begin(self, rule: Rule) -> None:
        """Put the next time of a scheduled rule on the agenda."""
        if not rule.schedule or rule.state == "DISABLED":
            return
        schedule = _parse_schedule(rule.schedule)
        epoch = rule.epoch

        def plan(after: float) -> None:
            tick = schedule.after(after)
            if tick is not None:
                self._agenda.at(tick, lambda: due(tick))

        def due(tick: float) -> None:
            if rule.epoch != epoch:
                return
            plan(tick)
            if not self._world.is_down(rule.region):
                self._invoke(rule, self._envelope(rule.region, "aws.events", "Scheduled Event", {}, [rule.arn], tick))

        plan(self._world.clock.now())

    def _switch(self, ctx: Context, params: dict[str, Any], state: str) -> None:
        with self._lock:
            rule = self._rule(ctx, params["Name"])
            rule.state, rule.epoch = state, rule.epoch + 1
            self._begin(rule)

    def _rule(self, ctx: Context, name: str) -> Rule:
        rule = self._rules.get((ctx.region, name))
        if rule is None:
            raise AwsError("ResourceNotFoundException", f"Rule {name} does not exist on EventBus default.")
        return rule

    def _tagged(self, ctx: Context, params: dict[str, Any]) -> Rule:
        arn = Arn.parse(params["ResourceARN"])
        return self._rule(ctx, arn.resource.rpartition("/")[2] if arn else params["ResourceARN"])

    def _bus(self, ctx: Context) -> dict[str, Any]:
        return {"Name": "default", "Arn": f"arn:aws:events:{ctx.region}:{ctx.account}:event-bus/default"}


def _check_bus(params: dict[str, Any]) -> None:
    if params.get("EventBusName", "default").rpartition("/")[2] != "default":
        raise AwsError("UnsupportedOperation", "The lab's EventBridge has the default bus only")


def _check_pattern(pattern: str | None) -> None:
    if pattern is None:
        return
    try:
        patterns.check(json.loads(pattern))
    except ValueError as error:  # PatternError is one
        raise AwsError("InvalidEventPatternException", f"Event pattern is not valid. Reason: {error}") from None


def _parse_schedule(expression: str) -> schedules.Rate | schedules.Cron:
    try:
        parsed = schedules.parse(expression)
    except schedules.ScheduleError:
        parsed = schedules.Rate(0)
    if isinstance(parsed, schedules.Rate) and parsed.seconds == 0:
        raise AwsError("ValidationException", "Parameter ScheduleExpression is not valid.")
    return parsed
