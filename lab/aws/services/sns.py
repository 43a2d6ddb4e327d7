"""Amazon SNS: topics, subscriptions with filter policies, publishing. Delivery itself is `lab.aws.sns_delivery`.

Reference: https://docs.aws.amazon.com/sns/latest/api/. Standard topics only; FIFO topics, mobile push and SMS answer UnsupportedOperation.
A Region that is down delivers nothing: what it had accepted waits, as SNS keeps messages durably, and leaves when the Region is back.
"""

from __future__ import annotations

import json
import threading
import uuid
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from lab.aws import iam, patterns, sns_checks, sns_delivery
from lab.aws.protocol import Request, Response
from lab.aws.service import AwsError
from lab.aws.sns_delivery import Subscription
from lab.aws.sns_message import Message, Signer, text_for
from lab.aws.support import Arn, Vended, endpoint, page, vend

if TYPE_CHECKING:
    from collections.abc import Mapping

    from lab.aws.service import Context, World


@dataclass(slots=True)
class Topic:
    """A topic and its subscriptions, by ARN."""

    arn: str
    attributes: dict[str, str]
    tags: dict[str, str]
    statements: list[dict[str, Any]]
    subscriptions: dict[str, Subscription] = field(default_factory=dict)
    deleted: int = 0

    @property
    def name(self) -> str:
        """The last part of the ARN."""
        return self.arn.rpartition(":")[2]

    def policy(self) -> str:
        """The access policy as JSON."""
        return json.dumps({"Version": "2008-10-17", "Id": "__default_policy_ID", "Statement": self.statements})


class Service:
    """The operations of SNS."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._topics: dict[str, Topic] = {}
        self._lock = threading.RLock()
        self.signer = Signer(lambda region: endpoint(world, region))
        self.public_paths = {f"GET {self.signer.path}": self._certificate}
        self.delivery = sns_delivery.Delivery(world, self.signer)

    def close(self) -> None:
        """Stop delivering."""
        self.delivery.close()

    def _certificate(self, _ctx: Context, _request: Request) -> Response:
        """What the SigningCertURL of every message leads to."""
        return Response(200, {"content-type": "application/x-pem-file"}, self.signer.certificate.encode())

    # ---- topics

    def create_topic(self, ctx: Context, params: dict[str, Any]) -> dict[str, Any]:
        """Idempotent; a topic that exists with other attributes or tags is refused."""
        name, attributes = params["Name"], dict(params.get("Attributes", {}))
        tags = {tag["Key"]: tag["Value"] for tag in params.get("Tags", [])}
        if name.endswith(".fifo") or attributes.get("FifoTopic") == "true":
            raise AwsError("UnsupportedOperation", "The lab's SNS has standard topics only, not FIFO topics")
        if not sns_checks.NAME.fullmatch(name):
            raise sns_checks.invalid("Topic Name")
        arn = f"arn:aws:sns:{ctx.region}:{ctx.account}:{name}"
        statements = sns_checks.default_statements(arn, ctx.account)
        for key, value in attributes.items():
            sns_checks.check_topic_attribute(key, value)
        if "Policy" in attributes:
            statements = sns_checks.statements(attributes.pop("Policy"))
        with self._lock:
            topic = self._topics.get(arn)
            if topic is None:
                sns_checks.check_tags(tags)
                self._topics[arn] = Topic(arn, attributes, tags, statements)
            elif any(topic.attributes.get(key, "") != value for key, value in attributes.items()):
                raise AwsError("InvalidParameter", "Invalid parameter: Attributes Reason: Topic already exists with different attributes")
            elif tags and tags != topic.tags:
                raise AwsError("InvalidParameter", "Invalid parameter: Tags Reason: Topic already exists with different tags")
        return {"TopicArn": arn}

    def delete_topic(self, ctx: Context, params: dict[str, Any]) -> None:
        """Delete the topic and its subscriptions; no error where it is gone already."""
        sns_checks.check_arn(params["TopicArn"], ctx)
        with self._lock:
            self._topics.pop(params["TopicArn"], None)

    def list_topics(self, ctx: Context, params: dict[str, Any]) -> dict[str, Any]:
        """A hundred topics a page."""
        with self._lock:
            arns = sorted(arn for arn in self._topics if arn.split(":")[3] == ctx.region)
        shown, token = page(arns, params.get("NextToken"), 100)
        return {"Topics": [{"TopicArn": arn} for arn in shown], "NextToken": token}

    def get_topic_attributes(self, ctx: Context, params: dict[str, Any]) -> dict[str, Any]:
        """Attributes, with the counts of subscriptions."""
        with self._lock:
            topic = self._topic(params["TopicArn"], ctx)
            confirmed = sum(one.confirmed for one in topic.subscriptions.values())
            policy = json.loads(topic.attributes.get("DeliveryPolicy", "{}"))
            return {
                "Attributes": {
                    "TopicArn": topic.arn,
                    "Owner": ctx.account,
                    "DisplayName": "",
                    "Policy": topic.policy(),
                    "EffectiveDeliveryPolicy": json.dumps(sns_delivery.effective_policy(policy)),
                    "SubscriptionsConfirmed": str(confirmed),
                    "SubscriptionsPending": str(len(topic.subscriptions) - confirmed),
                    "SubscriptionsDeleted": str(topic.deleted),
                    **topic.attributes,
                }
            }

    def set_topic_attributes(self, ctx: Context, params: dict[str, Any]) -> None:
        """Set one attribute."""
        name, value = params["AttributeName"], params.get("AttributeValue", "")
        sns_checks.check_topic_attribute(name, value)
        with self._lock:
            topic = self._topic(params["TopicArn"], ctx)
            if name == "Policy":
                topic.statements = sns_checks.statements(value) if value else sns_checks.default_statements(topic.arn, ctx.account)
            else:
                topic.attributes[name] = value

    def add_permission(self, ctx: Context, params: dict[str, Any]) -> None:
        """Add a statement for other accounts to the policy."""
        with self._lock:
            topic = self._topic(params["TopicArn"], ctx)
            if any(one.get("Sid") == params["Label"] for one in topic.statements):
                raise AwsError("InvalidParameter", "Invalid parameter: Statement already exists")
            principals = [f"arn:aws:iam::{account}:root" for account in params["AWSAccountId"]]
            topic.statements.append(
                {
                    "Sid": params["Label"],
                    "Effect": "Allow",
                    "Principal": {"AWS": principals},
                    "Action": [f"SNS:{name}" for name in params["ActionName"]],
                    "Resource": topic.arn,
                }
            )

    def remove_permission(self, ctx: Context, params: dict[str, Any]) -> None:
        """Remove a statement by its label."""
        with self._lock:
            topic = self._topic(params["TopicArn"], ctx)
            topic.statements = [one for one in topic.statements if one.get("Sid") != params["Label"]]

    def tag_resource(self, ctx: Context, params: dict[str, Any]) -> None:
        """Add or replace tags."""
        with self._lock:
            topic = self._topic(params["ResourceArn"], ctx, code="ResourceNotFound")
            tags = topic.tags | {tag["Key"]: tag["Value"] for tag in params["Tags"]}
            sns_checks.check_tags(tags)
            topic.tags = tags

    def untag_resource(self, ctx: Context, params: dict[str, Any]) -> None:
        """Remove tags."""
        with self._lock:
            topic = self._topic(params["ResourceArn"], ctx, code="ResourceNotFound")
            topic.tags = {key: value for key, value in topic.tags.items() if key not in params["TagKeys"]}

    def list_tags_for_resource(self, ctx: Context, params: dict[str, Any]) -> dict[str, Any]:
        """The topic's tags."""
        topic = self._topic(params["ResourceArn"], ctx, code="ResourceNotFound")
        return {"Tags": [{"Key": key, "Value": value} for key, value in topic.tags.items()]}

    # ---- subscriptions

    def subscribe(self, ctx: Context, params: dict[str, Any]) -> dict[str, Any]:
        """Idempotent for the same endpoint. HTTP endpoints and mail addresses have to confirm; queues and functions do not."""
        protocol, endpoint = params["Protocol"], params.get("Endpoint", "")
        attributes = dict(params.get("Attributes", {}))
        sns_checks.check_endpoint(protocol, endpoint)
        for name, value in attributes.items():
            sns_checks.check_subscription_attribute(name, value)
        with self._lock:
            topic = self._topic(params["TopicArn"], ctx)
            same = (one for one in topic.subscriptions.values() if (one.protocol, one.endpoint) == (protocol, endpoint))
            subscription = next(same, None)
            if subscription is None:
                subscription = Subscription(f"{topic.arn}:{uuid.uuid4()}", topic.arn, protocol, endpoint, ctx.account, attributes)
                topic.subscriptions[subscription.arn] = subscription
            elif any(subscription.attributes.get(name) != value for name, value in attributes.items()):
                raise AwsError(
                    "InvalidParameter", "Invalid parameter: Attributes Reason: Subscription already exists with different attributes"
                )
            if protocol in ("sqs", "lambda"):
                subscription.confirmed = True
            elif not subscription.confirmed:
                subscription.token = uuid.uuid4().hex * 4
                self.delivery.ask(subscription)
        given = subscription.arn if subscription.confirmed or params.get("ReturnSubscriptionArn") else "pending confirmation"
        return {"SubscriptionArn": given}

    def confirm_subscription(self, ctx: Context, params: dict[str, Any]) -> dict[str, Any]:
        """The endpoint's answer: the token it was sent."""
        with self._lock:
            topic = self._topic(params["TopicArn"], ctx)
            for subscription in topic.subscriptions.values():
                if subscription.token and subscription.token == params["Token"]:
                    subscription.confirmed = True
                    return {"SubscriptionArn": subscription.arn}
        raise AwsError("InvalidParameter", "Invalid parameter: Token")

    def unsubscribe(self, _ctx: Context, params: dict[str, Any]) -> None:
        """Remove a subscription; no error where it is gone already."""
        arn = params["SubscriptionArn"]
        if Arn.parse(arn) is None or arn.count(":") != 6:
            raise sns_checks.invalid("SubscriptionArn")
        with self._lock:
            topic = self._topics.get(arn.rpartition(":")[0])
            if topic and topic.subscriptions.pop(arn, None):
                topic.deleted += 1

    def list_subscriptions(self, ctx: Context, params: dict[str, Any]) -> dict[str, Any]:
        """All subscriptions of the Region, a hundred a page."""
        with self._lock:
            found = [
                one
                for arn, topic in sorted(self._topics.items())
                if arn.split(":")[3] == ctx.region
                for one in topic.subscriptions.values()
            ]
        return _listed(found, params)

    def list_subscriptions_by_topic(self, ctx: Context, params: dict[str, Any]) -> dict[str, Any]:
        """The subscriptions of one topic, a hundred a page."""
        with self._lock:
            return _listed(list(self._topic(params["TopicArn"], ctx).subscriptions.values()), params)

    def get_subscription_attributes(self, _ctx: Context, params: dict[str, Any]) -> dict[str, Any]:
        """Attributes of one subscription."""
        with self._lock:
            one = self._subscription(params["SubscriptionArn"])
            extra = {"FilterPolicyScope": "MessageAttributes"} if "FilterPolicy" in one.attributes else {}
            return {
                "Attributes": {
                    "SubscriptionArn": one.arn,
                    "TopicArn": one.topic,
                    "Protocol": one.protocol,
                    "Endpoint": one.endpoint,
                    "Owner": one.owner,
                    "PendingConfirmation": "false" if one.confirmed else "true",
                    "ConfirmationWasAuthenticated": "true" if one.confirmed and not one.token else "false",
                    "RawMessageDelivery": "false",
                    "SubscriptionPrincipal": f"arn:aws:iam::{one.owner}:root",
                    **extra,
                    **one.attributes,
                }
            }

    def set_subscription_attributes(self, _ctx: Context, params: dict[str, Any]) -> None:
        """Set one attribute; an empty value removes a filter, redrive or delivery policy."""
        name, value = params["AttributeName"], params.get("AttributeValue", "")
        sns_checks.check_subscription_attribute(name, value)
        with self._lock:
            one = self._subscription(params["SubscriptionArn"])
            if value in ("", "{}") and name in ("FilterPolicy", "RedrivePolicy", "DeliveryPolicy"):
                one.attributes.pop(name, None)
            else:
                one.attributes[name] = value

    # ---- publishing

    def publish(self, ctx: Context, params: dict[str, Any]) -> dict[str, Any]:
        """Accept a message and hand it to the subscriptions whose filter it passes."""
        if "PhoneNumber" in params:
            raise AwsError("UnsupportedOperation", "The lab's SNS sends no SMS")
        arn = params.get("TopicArn") or params.get("TargetArn")
        if not arn:
            raise AwsError("InvalidParameter", "Invalid parameter: TopicArn or TargetArn Reason: no value for required parameter")
        sns_checks.check_message(params)
        return {"MessageId": self._send(ctx, arn, params)}

    def publish_batch(self, ctx: Context, params: dict[str, Any]) -> dict[str, Any]:
        """Up to ten messages; each is accepted or refused on its own."""
        entries = params["PublishBatchRequestEntries"]
        if not entries:
            raise AwsError("EmptyBatchRequest", "The batch request doesn't contain any entries.")
        if len(entries) > 10:
            raise AwsError("TooManyEntriesInBatchRequest", "The batch request contains more entries than permissible.")
        ids = [entry["Id"] for entry in entries]
        if len(set(ids)) != len(ids):
            raise AwsError("BatchEntryIdsNotDistinct", "Two or more batch entries in the request have the same Id.")
        if sum(len(entry["Message"].encode()) for entry in entries) > sns_checks.MAX_MESSAGE_BYTES:
            raise AwsError("BatchRequestTooLong", "The length of all the batch messages put together is more than the limit.")
        self._topic(params["TopicArn"], ctx)
        done: list[dict[str, Any]] = []
        failed: list[dict[str, Any]] = []
        for entry in entries:
            try:
                sns_checks.check_message(entry)
                done.append({"Id": entry["Id"], "MessageId": self._send(ctx, params["TopicArn"], entry)})
            except AwsError as error:
                failed.append({"Id": entry["Id"], "Code": error.code, "Message": error.message, "SenderFault": True})
        return {"Successful": done, "Failed": failed}

    def _send(self, ctx: Context, arn: str, params: Mapping[str, Any]) -> str:
        with self._lock:
            topic = self._topic(arn, ctx)
            receivers = [one for one in topic.subscriptions.values() if one.confirmed]
            version = topic.attributes.get("SignatureVersion", "1")
            default_policy = topic.attributes.get("DeliveryPolicy", "")
        message = Message(
            id=str(uuid.uuid4()),
            topic=arn,
            subject=params.get("Subject"),
            text=params["Message"],
            structured=params.get("MessageStructure") == "json",
            attributes=params.get("MessageAttributes", {}),
            time=ctx.now,
            signature_version=version,
        )
        vend(
            self._world,
            ctx.region,
            "AWS/SNS",
            {"TopicName": topic.name},
            [Vended("NumberOfMessagesPublished", 1), Vended("PublishSize", len(message.text.encode()), "Bytes")],
        )
        filtered = 0
        for one in receivers:
            if _passes(one, message):
                self.delivery.send(one, message, default_policy)
            else:
                filtered += 1
        if filtered:
            vend(self._world, ctx.region, "AWS/SNS", {"TopicName": topic.name}, [Vended("NumberOfNotificationsFilteredOut", filtered)])
        return message.id

    def admit(self, arn: str, principal: str, source: str, account: str) -> None:
        """Raise unless the topic's policy lets a service (``cloudwatch.amazonaws.com``) publish for ``source``, an ARN of ``account``.

        The policy that every topic begins with lets in whoever acts for the owner's account; one that was set lets in whom it names.
        """
        with self._lock:
            topic = self._topics.get(arn)
            policy = json.loads(topic.policy()) if topic else {}
        context = {"aws:SourceAccount": account, "aws:SourceOwner": account, "aws:SourceArn": source}
        said = {iam.decide_resource(policy, who, "SNS:Publish", arn, context) for who in (principal, "*")}
        if topic and (iam.Decision.EXPLICIT_DENY in said or iam.Decision.ALLOWED not in said):
            raise AwsError("AuthorizationError", f"User: {principal} is not authorized to perform: SNS:Publish on resource: {arn}", 403)

    # ---- what the operations have in common

    def _topic(self, arn: str, ctx: Context, code: str = "NotFound") -> Topic:
        sns_checks.check_arn(arn, ctx)
        topic = self._topics.get(arn)
        if topic is None:
            raise AwsError(code, "Topic does not exist" if code == "NotFound" else "Resource does not exist", 404)
        return topic

    def _subscription(self, arn: str) -> Subscription:
        topic = self._topics.get(arn.rpartition(":")[0])
        found = topic.subscriptions.get(arn) if topic else None
        if found is None:
            raise AwsError("NotFound", "Subscription does not exist", 404)
        return found


def _passes(subscription: Subscription, message: Message) -> bool:
    """Whether the subscription's filter lets the message through; a body that is no JSON object passes no body filter."""
    policy = subscription.attributes.get("FilterPolicy")
    if not policy:
        return True
    if subscription.attributes.get("FilterPolicyScope") != "MessageBody":
        return patterns.matches(json.loads(policy), message.plain_attributes())
    try:
        body = json.loads(text_for(message, subscription.protocol))
    except ValueError:
        return False
    return isinstance(body, dict) and patterns.matches(json.loads(policy), body)


def _listed(found: list[Subscription], params: Mapping[str, Any]) -> dict[str, Any]:
    shown, token = page(found, params.get("NextToken"), 100)
    return {
        "Subscriptions": [
            {
                "SubscriptionArn": one.shown_arn,
                "Owner": one.owner,
                "Protocol": one.protocol,
                "Endpoint": one.endpoint,
                "TopicArn": one.topic,
            }
            for one in shown
        ],
        "NextToken": token,
    }
