"""Lambda's queue of asynchronous events: two retries, one and two minutes later, then the failure destination or the dead-letter queue.

Reference: https://docs.aws.amazon.com/lambda/latest/dg/invocation-async.html. Times are lab time. Events that are throttled, or that
Lambda itself fails to run, are tried again for up to their maximum age, later and later. At most `AT_ONCE` events of a function run at a
time; the others wait in its lane and hold no worker meanwhile.
"""

from __future__ import annotations

import json
import logging
import threading
import uuid
from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from lab.aws.agenda import Agenda
from lab.aws.service import AwsError
from lab.aws.support import Arn, Vended, iso, vend

if TYPE_CHECKING:
    from collections.abc import Callable

    from lab.aws.lambda_config import Function
    from lab.aws.lambda_sandbox import Outcome
    from lab.aws.service import World

log = logging.getLogger(__name__)

RETRY_DELAYS_S = (60.0, 120.0)
LONGEST_BACKOFF_S = 300.0
OLDEST_S = 21_600
REGION_POLL_S = 1.0
WORKERS = 16  # of a Region; one Region's slow functions do not hold up another's
AT_ONCE = 2  # of one function; AWS would start a sandbox for each event, which a laptop feels more than a short wait


@dataclass(slots=True)
class _Event:
    """One event in the queue."""

    function: Function
    id: str
    payload: bytes
    accepted: float
    attempts: int = 0
    postponed: int = 0


@dataclass(slots=True)
class _Lane:
    """One function's events: how many run, and those that wait for one of these to end."""

    running: int = 0
    waiting: deque[_Event] = field(default_factory=deque)


class Events:
    """Runs accepted events in the background with ``run``."""

    def __init__(self, world: World, run: Callable[[Function, str, bytes], Outcome]) -> None:
        self._world = world
        self._run = run
        self._agendas = {region: Agenda(world.clock, f"lambda-{region}", WORKERS) for region in world.regions}
        self._lanes: dict[str, _Lane] = {}
        self._lock = threading.Lock()

    def accept(self, function: Function, payload: bytes) -> None:
        """Queue one event."""
        event = _Event(function, str(uuid.uuid4()), payload, self._world.clock.now())
        self._agendas[function.region].soon(lambda: self._attempt(event))

    def close(self) -> None:
        """Forget what is queued."""
        for agenda in self._agendas.values():
            agenda.close()

    def _again(self, event: _Event, lab_seconds: float) -> None:
        self._agendas[event.function.region].after(lab_seconds, lambda: self._attempt(event))

    def _attempt(self, event: _Event) -> None:
        """Run the event now, or let it wait in its function's lane."""
        with self._lock:
            lane = self._lanes.setdefault(event.function.arn, _Lane())
            if lane.running >= AT_ONCE:
                lane.waiting.append(event)
                return
            lane.running += 1
        self._in_lane(event, lane)

    def _in_lane(self, event: _Event, lane: _Lane) -> None:
        """One attempt, by who holds a place in the lane; the next that waits takes the place over."""
        try:
            self._try(event)
        finally:
            with self._lock:
                following = lane.waiting.popleft() if lane.waiting else None
                if following is None:
                    lane.running -= 1
            if following is not None:
                waited = following
                self._agendas[event.function.region].soon(lambda: self._in_lane(waited, lane))

    def _try(self, event: _Event) -> None:
        region = event.function.region
        config = event.function.event_config or {}
        if self._world.is_down(region):
            self._again(event, REGION_POLL_S)
            return
        if self._world.clock.now() - event.accepted > config.get("MaximumEventAgeInSeconds", OLDEST_S):
            self._finish(event, "EventAgeExceeded", None)
            return
        try:
            self._world.obey(region, "lambda", "Invoke")
            outcome = self._run(event.function, event.id, event.payload)
        except AwsError as error:
            if error.status == 429 or error.status >= 500:
                event.postponed += 1
                self._again(event, min(LONGEST_BACKOFF_S, 2.0 ** (event.postponed - 1)))
                return
            log.warning("%s: %s", event.function.name, error)
            outcome = None
        event.attempts += 1
        if outcome is not None and self._world.is_down(region):
            event.attempts -= 1  # killed with its Region, not failed: it runs again
            self._again(event, REGION_POLL_S)
        elif outcome is not None and not outcome.error:
            self._finish(event, "Success", outcome)
        elif event.attempts <= min(config.get("MaximumRetryAttempts", 2), len(RETRY_DELAYS_S)):
            self._again(event, RETRY_DELAYS_S[event.attempts - 1])
        else:
            self._finish(event, "RetriesExhausted", outcome)

    def _finish(self, event: _Event, condition: str, outcome: Outcome | None) -> None:
        """Tell the destination, and for failures the dead-letter queue."""
        function = event.function
        config = (function.event_config or {}).get("DestinationConfig", {})
        side = "OnSuccess" if condition == "Success" else "OnFailure"
        target = config.get(side, {}).get("Destination")
        dead_letter = function.shown.get("DeadLetterConfig", {}).get("TargetArn")
        try:
            if target:
                self._deliver(function, target, json.dumps(_record(event, condition, outcome, self._world.clock.now())))
        except AwsError as error:
            log.warning("%s: destination %s: %s", function.name, target, error)
            vend(self._world, function.region, "AWS/Lambda", {"FunctionName": function.name}, [Vended("DestinationDeliveryFailures", 1)])
        try:
            if dead_letter and condition != "Success":
                self._deliver(function, dead_letter, event.payload.decode())
        except AwsError as error:
            log.warning("%s: dead-letter queue %s: %s", function.name, dead_letter, error)
            vend(self._world, function.region, "AWS/Lambda", {"FunctionName": function.name}, [Vended("DeadLetterErrors", 1)])
        if condition != "Success":
            level = logging.INFO if target or dead_letter else logging.WARNING
            log.log(level, "%s: event %s given up: %s after %d attempts", function.name, event.id, condition, event.attempts)

    def _deliver(self, function: Function, target: str, body: str) -> None:
        """Send ``body`` as the function's role would. Raises `AwsError`."""
        arn = Arn.parse(target)
        if arn is None:
            raise AwsError("InvalidParameterValueException", f"{target} is not an ARN")
        from lab.aws import iam

        principal = f"assumed-role/{function.role.rpartition('/')[2]}/{function.name}"
        if arn.service == "sns":
            iam.authorize(self._world, principal, "sns", "publish", {"TopicArn": target}, function.region)
            self._world.call(arn.region, "sns", "publish", TopicArn=target, Message=body)
        elif arn.service == "sqs":
            iam.authorize(self._world, principal, "sqs", "send_message", {"QueueName": arn.resource}, function.region)
            url = self._world.call(arn.region, "sqs", "get_queue_url", QueueName=arn.resource)["QueueUrl"]
            self._world.call(arn.region, "sqs", "send_message", QueueUrl=url, MessageBody=body)
        elif arn.service == "lambda":
            iam.authorize(self._world, principal, "lambda", "invoke", {"FunctionName": target}, function.region)
            self._world.call(arn.region, "lambda", "invoke", FunctionName=target, InvocationType="Event", Payload=body.encode())
        elif arn.service == "events":
            entry = {"Source": "lambda", "DetailType": "Lambda Function Invocation Result", "Detail": body, "Resources": [function.arn]}
            self._world.call(arn.region, "events", "put_events", Entries=[entry])
        else:
            raise AwsError("UnsupportedOperation", f"The lab's Lambda does not deliver to {arn.service}")


def _record(event: _Event, condition: str, outcome: Outcome | None, now: float) -> dict[str, Any]:
    """The record that a destination receives."""
    record: dict[str, Any] = {
        "version": "1.0",
        "timestamp": iso(now),
        "requestContext": {
            "requestId": event.id,
            "functionArn": f"{event.function.arn}:$LATEST",
            "condition": condition,
            "approximateInvokeCount": event.attempts,
        },
        "requestPayload": json.loads(event.payload),
    }
    if outcome is not None:
        record["responseContext"] = {"statusCode": 200, "executedVersion": "$LATEST"}
        if outcome.error:
            record["responseContext"]["functionError"] = "Unhandled"
        record["responsePayload"] = json.loads(outcome.payload)
    return record
