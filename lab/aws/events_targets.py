"""From a matched event to a rule's target: what is sent, to whom, and what happens when it cannot be.

Failed deliveries are tried again, later and later, for up to the target's RetryPolicy (default: 185 times within 24 hours of lab time),
then go to its dead-letter queue. Targets need a resource policy that lets ``events.amazonaws.com`` in, as on AWS.
"""

from __future__ import annotations

import json
import logging
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from lab.aws import iam
from lab.aws.service import AwsError
from lab.aws.support import Arn, Vended, vend

if TYPE_CHECKING:
    from lab.aws.agenda import Agenda
    from lab.aws.service import World

log = logging.getLogger(__name__)

ATTEMPTS = 185
OLDEST_S = 86_400
LONGEST_BACKOFF_S = 600.0
_SERVICES = ("sns", "sqs", "lambda", "logs")
_PRINCIPAL = "events.amazonaws.com"
_STEP = re.compile(r"\.([A-Za-z0-9_-]+)|\[(\d+)\]|\['([^']+)'\]")
_PLACE = re.compile(r"<([A-Za-z0-9_.-]+)>")


@dataclass(slots=True)
class _Parcel:
    """One event on its way to one target."""

    region: str
    rule: str
    rule_arn: str
    target: dict[str, Any]
    event: dict[str, Any]
    accepted: float
    attempts: int = 0


def check(target: dict[str, Any]) -> None:
    """Raise `AwsError` for a target the lab cannot serve or AWS would not take."""
    arn = Arn.parse(target["Arn"])
    if arn is None:
        raise AwsError("ValidationException", f"Parameter {target['Arn']} is not valid. Reason: Provided Arn is not in correct format.")
    if arn.service not in _SERVICES:
        raise AwsError("UnsupportedOperation", f"The lab's EventBridge does not deliver to {arn.service}")
    if sum(key in target for key in ("Input", "InputPath", "InputTransformer")) > 1:
        raise AwsError(
            "ValidationException", f"Only one of Input, InputPath, or InputTransformer must be provided for target {target['Id']}."
        )
    if "Input" in target:
        try:
            json.loads(target["Input"])
        except ValueError:
            raise AwsError("ValidationException", f"JSON syntax error in input for target {target['Id']}") from None


def payload(target: dict[str, Any], event: dict[str, Any], rule: str = "", rule_arn: str = "") -> str:
    """What the target gets: the event, a part of it, a constant, or a text made of it."""
    if "Input" in target:
        return str(target["Input"])
    if "InputPath" in target:
        return json.dumps(select(event, target["InputPath"]))
    if "InputTransformer" not in target:
        return json.dumps(event)
    transformer = target["InputTransformer"]
    found: dict[str, Any] = {name: select(event, path) for name, path in transformer.get("InputPathsMap", {}).items()}
    found["aws.events.rule-name"], found["aws.events.rule-arn"] = rule, rule_arn
    found["aws.events.event.ingestion-time"] = event["time"]
    found["aws.events.event.json"] = found["aws.events.event"] = event
    template = transformer["InputTemplate"]

    def fill(match: re.Match[str]) -> str:
        value = found.get(match[1], "")
        quoted = template[: match.start()].count('"') - template[: match.start()].count('\\"')
        if isinstance(value, str):
            return json.dumps(value)[1:-1] if quoted % 2 else value if template.lstrip().startswith('"') else json.dumps(value)
        text = json.dumps(value)
        return json.dumps(text)[1:-1] if quoted % 2 else text

    return _PLACE.sub(fill, template)


def select(event: dict[str, Any], path: str) -> Any:
    """The part of an event that a JSON path (``$.detail.state``) names; an empty text where there is none."""
    node: Any = event
    for match in _STEP.finditer(path.removeprefix("$")):
        key: Any = int(match[2]) if match[2] else match[1] or match[3]
        try:
            node = node[key]
        except (KeyError, IndexError, TypeError):
            return ""
    return node


class Delivery:
    """Carries events to targets."""

    def __init__(self, world: World, agenda: Agenda) -> None:
        self._world = world
        self._agenda = agenda

    def send(self, region: str, rule: str, rule_arn: str, target: dict[str, Any], event: dict[str, Any]) -> None:
        """Deliver, now and in the background."""
        parcel = _Parcel(region, rule, rule_arn, target, event, self._world.clock.now())
        self._agenda.soon(lambda: self._attempt(parcel))

    def _attempt(self, parcel: _Parcel) -> None:
        parcel.attempts += 1
        dimensions = {"RuleName": parcel.rule}
        try:
            self._carry(parcel, parcel.target["Arn"], payload(parcel.target, parcel.event, parcel.rule, parcel.rule_arn))
        except AwsError as error:
            policy = parcel.target.get("RetryPolicy", {})
            final = error.status in (403, 404) or parcel.attempts > policy.get("MaximumRetryAttempts", ATTEMPTS)
            now = self._world.clock.now()
            if not final and now - parcel.accepted < policy.get("MaximumEventAgeInSeconds", OLDEST_S):
                self._agenda.after(min(LONGEST_BACKOFF_S, 2.0 ** (parcel.attempts - 1)), lambda: self._attempt(parcel))
                return
            log.warning("%s: event %s not delivered to %s: %s", parcel.rule, parcel.event["id"], parcel.target["Arn"], error)
            vend(self._world, parcel.region, "AWS/Events", dimensions, [Vended("FailedInvocations", 1)])
            self._bury(parcel)
        else:
            vend(self._world, parcel.region, "AWS/Events", dimensions, [Vended("Invocations", 1)])

    def _carry(self, parcel: _Parcel, target: str, body: str) -> None:
        """One attempt. Raises `AwsError`; status 403 and 404 are final."""
        if self._world.is_down(parcel.region):
            raise AwsError("RegionUnavailable", f"{parcel.region} does not answer", 503)
        arn = Arn.parse(target)
        if arn is None:
            raise AwsError("ValidationException", f"{target} is no ARN", 404)
        context = {"aws:SourceArn": parcel.rule_arn, "aws:SourceAccount": self._world.account}
        if arn.service == "lambda":
            self._world.service("lambda").invoke_from(_PRINCIPAL, parcel.rule_arn, target, body.encode())
        elif arn.service == "sns":
            attributes = self._world.call(arn.region, "sns", "get_topic_attributes", TopicArn=target)["Attributes"]
            _allow(attributes["Policy"], "sns:Publish", target, context)
            self._world.call(arn.region, "sns", "publish", TopicArn=target, Message=body)
        elif arn.service == "sqs":
            url = self._world.call(arn.region, "sqs", "get_queue_url", QueueName=arn.resource)["QueueUrl"]
            found = self._world.call(arn.region, "sqs", "get_queue_attributes", QueueUrl=url, AttributeNames=["Policy"])
            _allow(found.get("Attributes", {}).get("Policy") or "{}", "sqs:SendMessage", target, context)
            self._world.call(arn.region, "sqs", "send_message", QueueUrl=url, MessageBody=body)
        else:
            self._to_log(arn, parcel, body)

    def _to_log(self, arn: Arn, parcel: _Parcel, body: str) -> None:
        names = {"logGroupName": arn.resource.removeprefix("log-group:").removesuffix(":*"), "logStreamName": parcel.event["id"]}
        try:
            self._world.call(arn.region, "logs", "create_log_stream", **names)
        except AwsError as error:
            if error.code != "ResourceAlreadyExistsException":
                raise
        events = [{"timestamp": int(self._world.clock.now() * 1000), "message": body}]
        self._world.call(arn.region, "logs", "put_log_events", logEvents=events, **names)

    def _bury(self, parcel: _Parcel) -> None:
        queue = parcel.target.get("DeadLetterConfig", {}).get("Arn")
        if not queue:
            return
        try:
            self._carry(parcel, queue, json.dumps(parcel.event))
        except AwsError as error:
            log.warning("%s: dead-letter queue %s: %s", parcel.rule, queue, error)


def _allow(policy: str, action: str, resource: str, context: dict[str, Any]) -> None:
    """Raise where the resource's policy does not let EventBridge in."""
    if iam.decide_resource(json.loads(policy), _PRINCIPAL, action, resource, context) is not iam.Decision.ALLOWED:
        raise AwsError("AccessDenied", f"The policy of {resource} does not let {_PRINCIPAL} do {action}", 403)
