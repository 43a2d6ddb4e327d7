"""Delivery of SNS messages: to HTTP endpoints, queues and functions, retried in lab time, and at last to the dead-letter queue.

The retries are those of https://docs.aws.amazon.com/sns/latest/dg/sns-message-delivery-retries.html: HTTP endpoints by the delivery policy
(default: three retries, 20 s apart), AWS's own services for 23 days. An answer of 4xx other than 429 is final for HTTP endpoints, a missing
queue, function or permission for the others. Mail is not sent; `Delivery.mailbox` keeps it.
"""

from __future__ import annotations

import base64
import http.client
import itertools
import json
import logging
import ssl
import threading
import urllib.parse
import uuid
from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from lab.aws import iam
from lab.aws.agenda import Agenda
from lab.aws.service import AwsError
from lab.aws.sns_message import Message, Signer, text_for, typed_attributes
from lab.aws.support import Arn, Vended, endpoint, iso, vend

if TYPE_CHECKING:
    from collections.abc import Iterator

    from lab.aws.service import World

log = logging.getLogger(__name__)

HTTP_TIMEOUT_WALL_S = 15.0
REGION_POLL_S = 1.0
MAILBOX_SIZE = 1000
_DEFAULT_RETRIES: dict[str, Any] = {
    "minDelayTarget": 20,
    "maxDelayTarget": 20,
    "numRetries": 3,
    "numMaxDelayRetries": 0,
    "numNoDelayRetries": 0,
    "numMinDelayRetries": 0,
    "backoffFunction": "linear",
}
_BACKOFFS = ("linear", "arithmetic", "geometric", "exponential")
_SERVICE_RETRIES = 100_015


class UndeliverableError(Exception):
    """The endpoint did not take the message. ``final``: it never will, so do not try again."""

    def __init__(self, reason: str, final: bool) -> None:
        super().__init__(reason)
        self.final = final


@dataclass(slots=True)
class Subscription:
    """One endpoint of a topic. Unconfirmed ones have a ``token`` and receive nothing."""

    arn: str
    topic: str
    protocol: str
    endpoint: str
    owner: str
    attributes: dict[str, str] = field(default_factory=dict)
    token: str = ""
    confirmed: bool = False

    @property
    def shown_arn(self) -> str:
        """What lists show: SNS gives no ARN before the confirmation."""
        return self.arn if self.confirmed else "PendingConfirmation"


@dataclass(frozen=True, slots=True)
class Mail:
    """A mail that SNS would have sent."""

    to: str
    subject: str
    body: str
    time: float


@dataclass(slots=True)
class _Parcel:
    """One message on its way to one subscription."""

    subscription: Subscription
    message: Message
    delays: Iterator[float]
    attempts: int = 0


def effective_policy(policy: dict[str, Any]) -> dict[str, Any]:
    """A topic's delivery policy with the defaults filled in."""
    http_policy = policy.get("http", {})
    retry = _DEFAULT_RETRIES | http_policy.get("defaultHealthyRetryPolicy", {})
    return {"http": {"disableSubscriptionOverrides": False, **http_policy, "defaultHealthyRetryPolicy": retry}}


def check_policy(text: str) -> None:
    """Raise `AwsError` where a delivery policy (a topic's or a subscription's) is malformed."""
    try:
        policy = json.loads(text)
        retry = policy.get("http", {}).get("defaultHealthyRetryPolicy") or policy.get("healthyRetryPolicy") or {}
        counts = [value for key, value in retry.items() if key != "backoffFunction"]
        good = set(retry) <= set(_DEFAULT_RETRIES) and all(isinstance(value, int) and value >= 0 for value in counts)
        merged = _DEFAULT_RETRIES | retry
        good = good and merged["backoffFunction"] in _BACKOFFS and merged["numRetries"] <= 100
        good = good and 1 <= merged["minDelayTarget"] <= merged["maxDelayTarget"] <= 3600
    except (ValueError, AttributeError):
        good = False
    if not good:
        raise AwsError("InvalidParameter", "Invalid parameter: DeliveryPolicy: healthyRetryPolicy is malformed or out of range")


def retry_delays(policy: dict[str, Any]) -> Iterator[float]:
    """The pauses (lab seconds) of a healthy retry policy: at once, at the shortest delay, backing off, at the longest delay."""
    retry = _DEFAULT_RETRIES | policy
    low, high = retry["minDelayTarget"], retry["maxDelayTarget"]
    immediate, early, late = retry["numNoDelayRetries"], retry["numMinDelayRetries"], retry["numMaxDelayRetries"]
    between = max(0, retry["numRetries"] - immediate - early - late)
    yield from itertools.repeat(0.0, immediate)
    yield from itertools.repeat(float(low), early)
    for index in range(between):
        share = (index + 1) / between
        grown = {
            "linear": low + (high - low) * share,
            "arithmetic": low + (high - low) * share * (index + 2) / (between + 1),
            "geometric": low * (high / low) ** share,
            "exponential": min(high, low * 2.0**index),
        }[retry["backoffFunction"]]
        yield min(float(high), grown)
    yield from itertools.repeat(float(high), late)


def service_delays() -> Iterator[float]:
    """The pauses for queues and functions: 3 at once, 2 of a second, 10 growing to 20 s, then 20 s each."""
    yield from (0.0, 0.0, 0.0, 1.0, 1.0)
    yield from (min(20.0, 20 ** (index / 10)) for index in range(1, 11))
    yield from itertools.repeat(20.0, _SERVICE_RETRIES - 15)


class Delivery:
    """Carries messages to subscriptions, several at a time."""

    def __init__(self, world: World, signer: Signer) -> None:
        self._world = world
        self._signer = signer
        self._agenda = Agenda(world.clock, "sns", workers=16)
        self._lock = threading.Lock()
        self.mailbox: deque[Mail] = deque(maxlen=MAILBOX_SIZE)

    def close(self) -> None:
        """Drop what is still on its way."""
        self._agenda.close()

    def send(self, subscription: Subscription, message: Message, topic_policy: str = "") -> None:
        """Deliver ``message``, now and in the background."""
        delays = service_delays()
        if subscription.protocol in ("http", "https"):
            own = json.loads(subscription.attributes.get("DeliveryPolicy", "{}")).get("healthyRetryPolicy")
            shared = json.loads(topic_policy or "{}").get("http", {}).get("defaultHealthyRetryPolicy")
            delays = retry_delays(own or shared or {})
        parcel = _Parcel(subscription, message, delays)
        self._agenda.soon(lambda: self._attempt(parcel))

    def ask(self, subscription: Subscription) -> None:
        """Ask an HTTP endpoint or a mail address to confirm its subscription."""
        region = subscription.topic.split(":")[3]
        query = {"Action": "ConfirmSubscription", "TopicArn": subscription.topic, "Token": subscription.token}
        envelope = {
            "Type": "SubscriptionConfirmation",
            "MessageId": str(uuid.uuid4()),
            "Token": subscription.token,
            "TopicArn": subscription.topic,
            "Message": (
                f"You have chosen to subscribe to the topic {subscription.topic}.\n"
                "To confirm the subscription, visit the SubscribeURL included in this message."
            ),
            "SubscribeURL": f"{endpoint(self._world, region)}/?{urllib.parse.urlencode(query)}",
            "Timestamp": iso(self._world.clock.now()),
        }
        self._signer.sign(envelope, "1")
        if subscription.protocol.startswith("email"):
            self._keep_mail(subscription.endpoint, "AWS Notification - Subscription Confirmation", json.dumps(envelope))
            return
        delays = retry_delays({})

        def attempt() -> None:
            if self._world.is_down(region):
                self._agenda.after(REGION_POLL_S, attempt)
                return
            try:
                _post(subscription, json.dumps(envelope), envelope["MessageId"], "SubscriptionConfirmation", raw=False)
            except UndeliverableError as error:
                log.info("%s: confirmation not delivered: %s", subscription.endpoint, error)
                delay = None if error.final else next(delays, None)
                if delay is not None:
                    self._agenda.after(delay, attempt)

        self._agenda.soon(attempt)

    def _attempt(self, parcel: _Parcel) -> None:
        region = parcel.message.topic.split(":")[3]
        if self._world.is_down(region):  # the message waits in SNS until the Region is back
            self._agenda.after(REGION_POLL_S, lambda: self._attempt(parcel))
            return
        parcel.attempts += 1
        dimensions = {"TopicName": parcel.message.topic.rpartition(":")[2]}
        try:
            self._carry(parcel)
        except UndeliverableError as error:
            delay = None if error.final else next(parcel.delays, None)
            log.info("%s to %s, attempt %d: %s", parcel.message.id, parcel.subscription.endpoint, parcel.attempts, error)
            if delay is not None:
                self._agenda.after(delay, lambda: self._attempt(parcel))
                return
            vend(self._world, region, "AWS/SNS", dimensions, [Vended("NumberOfNotificationsFailed", 1)])
            self._bury(parcel, str(error))
        else:
            vend(self._world, region, "AWS/SNS", dimensions, [Vended("NumberOfNotificationsDelivered", 1)])

    def _carry(self, parcel: _Parcel) -> None:
        """One attempt. Raises `UndeliverableError`."""
        subscription, message = parcel.subscription, parcel.message
        raw = subscription.attributes.get("RawMessageDelivery", "false").lower() == "true"
        body = text_for(message, subscription.protocol) if raw else json.dumps(self._envelope(parcel), indent=2)
        if subscription.protocol == "sqs":
            self._to_queue(subscription.endpoint, body, message if raw else None, message.topic)
        elif subscription.protocol == "lambda":
            self._to_function(parcel)
        elif subscription.protocol.startswith("email"):
            text = body if subscription.protocol == "email-json" else text_for(message, "email")
            self._keep_mail(subscription.endpoint, message.subject or "AWS Notification Message", text)
        else:
            _post(subscription, body, message.id, "Notification", raw)

    def _envelope(self, parcel: _Parcel) -> dict[str, Any]:
        region = parcel.message.topic.split(":")[3]
        query = urllib.parse.urlencode({"Action": "Unsubscribe", "SubscriptionArn": parcel.subscription.arn})
        return self._signer.envelope(parcel.message, parcel.subscription.protocol, f"{endpoint(self._world, region)}/?{query}")

    def _to_queue(self, arn: str, body: str, raw: Message | None, topic: str) -> None:
        """Send to an SQS queue whose policy allows it; raw messages keep their attributes."""
        queue = Arn.parse(arn)
        if queue is None:
            raise UndeliverableError(f"{arn} is no queue", final=True)
        try:
            url = self._world.call(queue.region, "sqs", "get_queue_url", QueueName=queue.resource)["QueueUrl"]
            found = self._world.call(queue.region, "sqs", "get_queue_attributes", QueueUrl=url, AttributeNames=["Policy"])
            policy = json.loads(found.get("Attributes", {}).get("Policy") or "{}")
            context = {"aws:SourceArn": topic, "aws:SourceAccount": topic.split(":")[4]}
            if iam.decide_resource(policy, "sns.amazonaws.com", "sqs:SendMessage", arn, context) is not iam.Decision.ALLOWED:
                raise UndeliverableError(f"the policy of {arn} does not let SNS send", final=True)
            extra: dict[str, Any] = {"MessageAttributes": dict(raw.attributes)} if raw and raw.attributes else {}
            self._world.call(queue.region, "sqs", "send_message", QueueUrl=url, MessageBody=body, **extra)
        except AwsError as error:
            raise UndeliverableError(str(error), final=error.code.endswith("NonExistentQueue")) from error

    def _to_function(self, parcel: _Parcel) -> None:
        """Invoke a function asynchronously, with the event that Lambda gets from SNS."""
        if Arn.parse(parcel.subscription.endpoint) is None:
            raise UndeliverableError(f"{parcel.subscription.endpoint} is no function", final=True)
        message = parcel.message
        envelope = self._envelope(parcel)
        record = {
            "EventSource": "aws:sns",
            "EventVersion": "1.0",
            "EventSubscriptionArn": parcel.subscription.arn,
            "Sns": {
                **{
                    key: envelope.get(key)
                    for key in ("Type", "MessageId", "TopicArn", "Subject", "Message", "Timestamp", "SignatureVersion")
                },
                "Signature": envelope["Signature"],
                "SigningCertUrl": envelope["SigningCertURL"],
                "UnsubscribeUrl": envelope["UnsubscribeURL"],
                "MessageAttributes": typed_attributes(message),
            },
        }
        try:
            functions = self._world.service("lambda")
            functions.invoke_from(
                "sns.amazonaws.com", message.topic, parcel.subscription.endpoint, json.dumps({"Records": [record]}).encode()
            )
        except AwsError as error:
            raise UndeliverableError(str(error), final=error.status in (403, 404)) from error

    def _bury(self, parcel: _Parcel, reason: str) -> None:
        """Move what could not be delivered to the dead-letter queue, where there is one."""
        policy = json.loads(parcel.subscription.attributes.get("RedrivePolicy", "{}"))
        region = parcel.message.topic.split(":")[3]
        dimensions = {"TopicName": parcel.message.topic.rpartition(":")[2]}
        if not policy:
            log.warning("%s: lost after %d attempts to %s: %s", parcel.message.id, parcel.attempts, parcel.subscription.endpoint, reason)
            return
        outcome = "NumberOfNotificationsRedrivenToDlq"
        try:
            self._to_queue(policy["deadLetterTargetArn"], json.dumps(self._envelope(parcel)), None, parcel.message.topic)
        except UndeliverableError as error:
            log.warning("%s: dead-letter queue: %s", parcel.message.id, error)
            outcome = "NumberOfNotificationsFailedToRedriveToDlq"
        vend(self._world, region, "AWS/SNS", dimensions, [Vended(outcome, 1)])

    def _keep_mail(self, to: str, subject: str, body: str) -> None:
        self.mailbox.append(Mail(to, subject, body, self._world.clock.now()))


def _post(subscription: Subscription, body: str, message_id: str, kind: str, raw: bool) -> None:
    """POST to the subscription's URL as SNS does. Raises `UndeliverableError` for everything but 2xx."""
    url = urllib.parse.urlsplit(subscription.endpoint)
    headers = {
        "x-amz-sns-message-type": kind,
        "x-amz-sns-message-id": message_id,
        "x-amz-sns-topic-arn": subscription.topic,
        "Content-Type": "text/plain; charset=UTF-8",
        "User-Agent": "Amazon Simple Notification Service Agent",
    }
    if kind == "Notification":
        headers["x-amz-sns-subscription-arn"] = subscription.arn
    if raw:
        headers["x-amz-sns-rawdelivery"] = "true"
    if url.username:
        headers["Authorization"] = "Basic " + base64.b64encode(f"{url.username}:{url.password or ''}".encode()).decode()
    connection: http.client.HTTPConnection
    if url.scheme == "https":
        context = ssl.create_default_context()
        connection = http.client.HTTPSConnection(url.hostname or "", url.port, timeout=HTTP_TIMEOUT_WALL_S, context=context)
    else:
        connection = http.client.HTTPConnection(url.hostname or "", url.port, timeout=HTTP_TIMEOUT_WALL_S)
    try:
        path = urllib.parse.urlunsplit(("", "", url.path or "/", url.query, ""))
        connection.request("POST", path, body.encode(), headers)
        status = connection.getresponse().status
    except (OSError, http.client.HTTPException) as error:
        raise UndeliverableError(f"{type(error).__name__}: {error}", final=False) from error
    finally:
        connection.close()
    if not 200 <= status < 300:
        raise UndeliverableError(f"HTTP {status}", final=400 <= status < 500 and status != 429)
