"""What SNS refuses: names, attributes, policies, endpoints, messages; each function raises `AwsError` in SNS's words."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

from lab.aws import patterns, sns_delivery
from lab.aws.service import AwsError
from lab.aws.support import Arn

if TYPE_CHECKING:
    from collections.abc import Mapping

    from lab.aws.service import Context

MAX_MESSAGE_BYTES = 262_144
MAX_TAGS = 50
NAME = re.compile(r"[A-Za-z0-9_-]{1,256}")
_PROTOCOLS = {"http", "https", "email", "email-json", "sqs", "lambda"}
_UNSUPPORTED_PROTOCOLS = {"sms", "application", "firehose"}
_TOPIC_ATTRIBUTES = {"DisplayName", "Policy", "DeliveryPolicy", "TracingConfig", "SignatureVersion", "KmsMasterKeyId", "FifoTopic"}
_SUBSCRIPTION_ATTRIBUTES = {"DeliveryPolicy", "FilterPolicy", "FilterPolicyScope", "RawMessageDelivery", "RedrivePolicy"}


def invalid(what: str, reason: str = "") -> AwsError:
    """The error of SNS for almost everything."""
    return AwsError("InvalidParameter", f"Invalid parameter: {what}{f' Reason: {reason}' if reason else ''}")


def check_arn(arn: str, ctx: Context) -> None:
    """Raise unless ``arn`` is a topic of the caller's Region."""
    parsed = Arn.parse(arn)
    if parsed is None or parsed.service != "sns" or parsed.region != ctx.region:
        raise invalid("TopicArn")


def check_tags(tags: Mapping[str, str]) -> None:
    """Raise where there are too many."""
    if len(tags) > MAX_TAGS:
        raise AwsError("TagLimitExceeded", "Could not complete request: tag quota of per resource exceeded")


def statements(policy: str) -> list[dict[str, Any]]:
    """The statements of a policy. Raises where it is malformed."""
    try:
        listed = json.loads(policy)["Statement"]
        statements = listed if isinstance(listed, list) else [listed]
        complete = all("Effect" in one and "Principal" in one and ("Action" in one or "NotAction" in one) for one in statements)
    except (ValueError, KeyError, TypeError):
        complete = False
    if not complete:
        raise invalid("Policy", "Policy statement must be a JSON document whose statements have Effect, Principal and Action")
    return list(statements)


def default_statements(arn: str, account: str) -> list[dict[str, Any]]:
    """The owner's account may do everything with the topic."""
    actions = ("GetTopicAttributes", "SetTopicAttributes", "AddPermission", "RemovePermission", "DeleteTopic")
    return [
        {
            "Sid": "__default_statement_ID",
            "Effect": "Allow",
            "Principal": {"AWS": "*"},
            "Action": [f"SNS:{name}" for name in (*actions, "Subscribe", "ListSubscriptionsByTopic", "Publish")],
            "Resource": arn,
            "Condition": {"StringEquals": {"AWS:SourceAccount": account}},
        }
    ]


def check_topic_attribute(name: str, value: str) -> None:
    """Raise where a topic has no such attribute or value."""
    if name not in _TOPIC_ATTRIBUTES:
        raise invalid("AttributeName")
    if name == "KmsMasterKeyId" and value:
        raise AwsError("UnsupportedOperation", "The lab's SNS does not encrypt topics")
    if name == "SignatureVersion" and value not in ("1", "2"):
        raise invalid("SignatureVersion", f"Invalid value [{value}]. Must be 1 or 2")
    if name == "DeliveryPolicy" and value:
        sns_delivery.check_policy(value)
    if name == "TracingConfig" and value not in ("PassThrough", "Active"):
        raise invalid("TracingConfig", f"Invalid value [{value}]. Must be PassThrough or Active")


def check_subscription_attribute(name: str, value: str) -> None:
    """Raise where a subscription has no such attribute or value."""
    if name not in _SUBSCRIPTION_ATTRIBUTES:
        raise invalid("AttributeName")
    if name == "RawMessageDelivery" and value.lower() not in ("true", "false"):
        raise invalid("Attributes", f"RawMessageDelivery: Invalid value [{value}]. Must be true or false.")
    if name == "FilterPolicyScope" and value not in ("MessageAttributes", "MessageBody"):
        raise invalid("Attributes", f"FilterPolicyScope: Invalid value [{value}]. Please use either MessageBody or MessageAttributes")
    if name == "FilterPolicy" and value not in ("", "{}"):
        try:
            patterns.check(json.loads(value))
        except ValueError as error:  # PatternError is one
            raise invalid("FilterPolicy", str(error)) from None
    if name == "RedrivePolicy" and value not in ("", "{}"):
        try:
            target = Arn.parse(json.loads(value)["deadLetterTargetArn"])
        except (ValueError, KeyError, TypeError):
            target = None
        if target is None or target.service != "sqs":
            raise invalid("RedrivePolicy", "deadLetterTargetArn must be the ARN of an SQS queue")
    if name == "DeliveryPolicy" and value:
        sns_delivery.check_policy(value)


def check_endpoint(protocol: str, endpoint: str) -> None:
    """Raise where a protocol is unknown or the endpoint does not fit it."""
    if protocol in _UNSUPPORTED_PROTOCOLS:
        raise AwsError("UnsupportedOperation", f"The lab's SNS does not deliver by {protocol}")
    if protocol not in _PROTOCOLS:
        raise invalid("Amazon SNS Protocol", f"{protocol} is not one of {', '.join(sorted(_PROTOCOLS))}")
    if protocol in ("http", "https") and not endpoint.startswith(f"{protocol}://"):
        raise invalid("Endpoint", "Endpoint must match the specified protocol")
    if protocol.startswith("email") and "@" not in endpoint:
        raise invalid("Email address")
    if protocol in ("sqs", "lambda"):
        arn = Arn.parse(endpoint)
        if arn is None or arn.service != protocol:
            raise invalid(f"{'SQS' if protocol == 'sqs' else 'Lambda'} endpoint ARN")


def check_message(params: Mapping[str, Any]) -> None:
    """Raise where Publish would refuse the message."""
    message, subject = params["Message"], params.get("Subject")
    if not message:
        raise invalid("Empty message")
    if len(message.encode()) > MAX_MESSAGE_BYTES:
        raise invalid("Message too long")
    if subject is not None and (not 0 < len(subject) <= 100 or "\n" in subject or not subject.isprintable()):
        raise invalid("Subject")
    structure = params.get("MessageStructure")
    if structure == "json":
        try:
            versions = json.loads(message)
        except ValueError:
            raise invalid("Message Structure", "JSON message body failed to parse") from None
        if not isinstance(versions, dict) or not isinstance(versions.get("default"), str):
            raise invalid("Message Structure", "No default entry in JSON message body")
    elif structure:
        raise invalid("MessageStructure", f"{structure} is not json")
    for name, attribute in params.get("MessageAttributes", {}).items():
        if "StringValue" not in attribute and "BinaryValue" not in attribute:
            raise AwsError("ParameterValueInvalid", f"The message attribute '{name}' must contain non-empty message attribute value.")
