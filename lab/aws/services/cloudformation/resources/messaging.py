"""AWS::SNS, AWS::SQS and AWS::Events: topics, subscriptions, queues, their policies, and rules."""

from __future__ import annotations

import json
from typing import Any

from lab.aws.services.cloudformation.errors import ResourceError
from lab.aws.services.cloudformation.resources.base import (
    FLAG,
    FREE,
    NUMBER,
    TAGS,
    TEXT,
    TEXTS,
    Env,
    Props,
    ResourceType,
    as_data,
    as_json,
    gone,
)

_TOPIC_ATTRIBUTES = ("DisplayName", "SignatureVersion", "TracingConfig", "KmsMasterKeyId")


class Topic(ResourceType):
    """A topic, with the subscriptions declared in it."""

    name = "AWS::SNS::Topic"
    extra = {
        "TopicName": TEXT,
        "DisplayName": TEXT,
        "KmsMasterKeyId": TEXT,
        "SignatureVersion": TEXT,
        "TracingConfig": TEXT,
        "FifoTopic": FLAG,
        "Subscription": [{"Endpoint": TEXT, "Protocol": TEXT}],
        "Tags": TAGS,
    }
    replacing = frozenset({"TopicName", "FifoTopic"})
    attributes = ("TopicArn", "TopicName")
    name_property = "TopicName"
    name_limit = 256

    def create(self, env: Env, props: Props) -> str:
        name = self.named(env, props)
        attributes = {key: props[key] for key in _TOPIC_ATTRIBUTES if key in props}
        if props.get("FifoTopic"):
            attributes["FifoTopic"] = "true"
        tags = env.tag_list(props.get("Tags"))
        arn = str(env.call("sns", "create_topic", Name=name, Attributes=attributes, Tags=tags)["TopicArn"])
        env.made(arn)
        for one in props.get("Subscription", []):
            env.call("sns", "subscribe", TopicArn=arn, **one)
        return arn

    def update(self, env: Env, identity: str, old: Props, new: Props) -> None:
        for key in _TOPIC_ATTRIBUTES:
            if old.get(key) != new.get(key):
                env.call("sns", "set_topic_attributes", TopicArn=identity, AttributeName=key, AttributeValue=new.get(key, ""))
        before, after = old.get("Subscription", []), new.get("Subscription", [])
        for one in after:
            if one not in before:
                env.call("sns", "subscribe", TopicArn=identity, **one)
        listed = env.call("sns", "list_subscriptions_by_topic", TopicArn=identity)["Subscriptions"]
        for one in listed:
            declared = {"Endpoint": one["Endpoint"], "Protocol": one["Protocol"]}
            if declared in before and declared not in after and one["SubscriptionArn"].startswith("arn:"):
                env.call("sns", "unsubscribe", SubscriptionArn=one["SubscriptionArn"])
        given, removed = env.tag_changes(old, new)
        if given:
            env.call("sns", "tag_resource", ResourceArn=identity, Tags=given)
        if removed:
            env.call("sns", "untag_resource", ResourceArn=identity, TagKeys=removed)

    def delete(self, env: Env, identity: str, props: Props) -> None:
        env.call("sns", "delete_topic", TopicArn=identity)

    def read(self, env: Env, identity: str, props: Props) -> Props | None:
        try:
            found = env.call("sns", "get_topic_attributes", TopicArn=identity)["Attributes"]
        except ResourceError as error:
            if gone(error):
                return None
            raise
        actual = {"TopicName": identity.rpartition(":")[2], **{key: found[key] for key in _TOPIC_ATTRIBUTES if key in found}}
        return {key: value for key, value in actual.items() if key in props}

    def get(self, _env: Env, identity: str, _props: Props) -> dict[str, Any]:
        return {"TopicArn": identity, "TopicName": identity.rpartition(":")[2]}


_JSON_ATTRIBUTES = ("FilterPolicy", "RedrivePolicy", "DeliveryPolicy")
_PLAIN_ATTRIBUTES = ("FilterPolicyScope", "RawMessageDelivery")


class Subscription(ResourceType):
    """A subscription. One by HTTP or mail is complete before it is confirmed, as on AWS."""

    name = "AWS::SNS::Subscription"
    extra = {
        "TopicArn": TEXT,
        "Protocol": TEXT,
        "Endpoint": TEXT,
        "FilterPolicy": FREE,
        "FilterPolicyScope": TEXT,
        "RawMessageDelivery": FLAG,
        "RedrivePolicy": FREE,
        "DeliveryPolicy": FREE,
    }
    required = frozenset({"TopicArn", "Protocol"})
    replacing = frozenset({"TopicArn", "Protocol", "Endpoint"})

    def create(self, env: Env, props: Props) -> str:
        params = {key: props[key] for key in ("TopicArn", "Protocol", "Endpoint") if key in props}
        made = env.call("sns", "subscribe", **params, Attributes=_attributes(props), ReturnSubscriptionArn=True)
        return str(made["SubscriptionArn"])

    def update(self, env: Env, identity: str, old: Props, new: Props) -> None:
        before, after = _attributes(old), _attributes(new)
        for key in sorted({*before, *after}):
            if before.get(key) != after.get(key):
                default = {"RawMessageDelivery": "false", "FilterPolicyScope": "MessageAttributes"}.get(key, "{}")
                value = after.get(key, default)
                env.call("sns", "set_subscription_attributes", SubscriptionArn=identity, AttributeName=key, AttributeValue=value)

    def delete(self, env: Env, identity: str, props: Props) -> None:
        env.call("sns", "unsubscribe", SubscriptionArn=identity)

    def read(self, env: Env, identity: str, props: Props) -> Props | None:
        try:
            found = env.call("sns", "get_subscription_attributes", SubscriptionArn=identity)["Attributes"]
        except ResourceError as error:
            if gone(error):
                return None
            raise
        actual: Props = {key: found[key] for key in ("TopicArn", "Protocol", "Endpoint", "FilterPolicyScope") if key in found}
        actual["RawMessageDelivery"] = found.get("RawMessageDelivery") == "true"
        actual.update({key: json.loads(found[key]) for key in _JSON_ATTRIBUTES if key in found})
        return {key: value for key, value in actual.items() if key in props}


def _attributes(props: Props) -> dict[str, str]:
    """A subscription's attributes as the API takes them: text."""
    found = {key: as_json(props[key]) for key in _JSON_ATTRIBUTES if key in props}
    for key in _PLAIN_ATTRIBUTES:
        if key in props:
            found[key] = str(props[key]).lower() if isinstance(props[key], bool) else str(props[key])
    return found


class TopicPolicy(ResourceType):
    """The access policy of topics."""

    name = "AWS::SNS::TopicPolicy"
    extra = {"Topics": TEXTS, "PolicyDocument": FREE}
    required = frozenset({"Topics", "PolicyDocument"})

    def create(self, env: Env, props: Props) -> str:
        self._set(env, props["Topics"], as_json(props["PolicyDocument"]))
        return env.name()

    def update(self, env: Env, identity: str, old: Props, new: Props) -> None:
        self._set(env, [arn for arn in old["Topics"] if arn not in new["Topics"]], "")
        self._set(env, new["Topics"], as_json(new["PolicyDocument"]))

    def delete(self, env: Env, identity: str, props: Props) -> None:
        self._set(env, props["Topics"], "")

    def read(self, env: Env, identity: str, props: Props) -> Props | None:
        for arn in props["Topics"]:
            try:
                found = json.loads(env.call("sns", "get_topic_attributes", TopicArn=arn)["Attributes"]["Policy"])
            except ResourceError as error:
                if gone(error):
                    return None
                raise
            wanted = as_data(props["PolicyDocument"])
            if found["Statement"] != wanted["Statement"]:
                return {"Topics": props["Topics"], "PolicyDocument": found}
        return {"Topics": props["Topics"], "PolicyDocument": props["PolicyDocument"]}

    def _set(self, env: Env, topics: list[str], policy: str) -> None:
        for arn in topics:
            try:
                env.call("sns", "set_topic_attributes", TopicArn=arn, AttributeName="Policy", AttributeValue=policy)
            except ResourceError as error:
                if policy or not gone(error):
                    raise


_QUEUE_ATTRIBUTES = {
    "DelaySeconds": NUMBER,
    "KmsMasterKeyId": TEXT,
    "MaximumMessageSize": NUMBER,
    "MessageRetentionPeriod": NUMBER,
    "ReceiveMessageWaitTimeSeconds": NUMBER,
    "SqsManagedSseEnabled": FLAG,
    "VisibilityTimeout": NUMBER,
    "ContentBasedDeduplication": FLAG,
}


class Queue(ResourceType):
    """A queue."""

    name = "AWS::SQS::Queue"
    extra = {**_QUEUE_ATTRIBUTES, "QueueName": TEXT, "FifoQueue": FLAG, "RedrivePolicy": FREE, "RedriveAllowPolicy": FREE, "Tags": TAGS}
    replacing = frozenset({"QueueName", "FifoQueue"})
    attributes = ("Arn", "QueueName", "QueueUrl")
    name_property = "QueueName"
    name_limit = 80

    def create(self, env: Env, props: Props) -> str:
        attributes = self._api_attributes(props)
        if props.get("FifoQueue"):
            attributes["FifoQueue"] = "true"
        made = env.call("sqs", "create_queue", QueueName=self.named(env, props), Attributes=attributes, tags=env.tag_map(props.get("Tags")))
        return str(made["QueueUrl"])

    def update(self, env: Env, identity: str, old: Props, new: Props) -> None:
        before, after = self._api_attributes(old), self._api_attributes(new)
        changes = {key: after.get(key, "") for key in {*before, *after} if before.get(key) != after.get(key)}
        if changes:
            env.call("sqs", "set_queue_attributes", QueueUrl=identity, Attributes=changes)

    def delete(self, env: Env, identity: str, props: Props) -> None:
        try:
            env.call("sqs", "delete_queue", QueueUrl=identity)
        except ResourceError as error:
            if not gone(error):
                raise

    def read(self, env: Env, identity: str, props: Props) -> Props | None:
        try:
            found = env.call("sqs", "get_queue_attributes", QueueUrl=identity, AttributeNames=["All"])["Attributes"]
        except ResourceError as error:
            if gone(error):
                return None
            raise
        actual: Props = {key: int(found[key]) for key, kind in _QUEUE_ATTRIBUTES.items() if kind == NUMBER and key in found}
        actual["QueueName"] = identity.rpartition("/")[2]
        if "RedrivePolicy" in found:
            actual["RedrivePolicy"] = json.loads(found["RedrivePolicy"])
        return {key: value for key, value in actual.items() if key in props}

    def get(self, env: Env, identity: str, _props: Props) -> dict[str, Any]:
        name = identity.rpartition("/")[2]
        return {"Arn": f"arn:aws:sqs:{env.region}:{env.account}:{name}", "QueueName": name, "QueueUrl": identity}

    def _api_attributes(self, props: Props) -> dict[str, str]:
        found = {
            key: str(props[key]).lower() if isinstance(props[key], bool) else str(props[key]) for key in _QUEUE_ATTRIBUTES if key in props
        }
        found.update({key: as_json(props[key]) for key in ("RedrivePolicy", "RedriveAllowPolicy") if key in props})
        return found


class QueuePolicy(ResourceType):
    """The access policy of queues."""

    name = "AWS::SQS::QueuePolicy"
    extra = {"Queues": TEXTS, "PolicyDocument": FREE}
    required = frozenset({"Queues", "PolicyDocument"})
    drift = False

    def create(self, env: Env, props: Props) -> str:
        for url in props["Queues"]:
            env.call("sqs", "set_queue_attributes", QueueUrl=url, Attributes={"Policy": as_json(props["PolicyDocument"])})
        return env.name()

    def update(self, env: Env, identity: str, old: Props, new: Props) -> None:
        self.delete(env, identity, {"Queues": [url for url in old["Queues"] if url not in new["Queues"]]})
        for url in new["Queues"]:
            env.call("sqs", "set_queue_attributes", QueueUrl=url, Attributes={"Policy": as_json(new["PolicyDocument"])})

    def delete(self, env: Env, identity: str, props: Props) -> None:
        for url in props["Queues"]:
            try:
                env.call("sqs", "set_queue_attributes", QueueUrl=url, Attributes={"Policy": ""})
            except ResourceError as error:
                if not gone(error):
                    raise


class Rule(ResourceType):
    """An EventBridge rule on the default bus, with its targets."""

    name = "AWS::Events::Rule"
    service, operation = "events", "PutRule"
    hidden = frozenset({"Tags", "EventPattern", "Name"})
    extra = {"Name": TEXT, "EventPattern": FREE, "Targets": FREE, "Tags": TAGS}
    replacing = frozenset({"Name", "EventBusName"})
    attributes = ("Arn",)
    name_property = "Name"

    def create(self, env: Env, props: Props) -> str:
        name = self.named(env, props)
        env.made(name)
        self._put(env, name, props)
        return name

    def update(self, env: Env, identity: str, old: Props, new: Props) -> None:
        self._put(env, identity, new)
        left = {target["Id"] for target in old.get("Targets", [])} - {target["Id"] for target in new.get("Targets", [])}
        if left:
            env.call("events", "remove_targets", Rule=identity, Ids=sorted(left))

    def delete(self, env: Env, identity: str, props: Props) -> None:
        try:
            ids = [target["Id"] for target in props.get("Targets", [])]
            if ids:
                env.call("events", "remove_targets", Rule=identity, Ids=ids)
            env.call("events", "delete_rule", Name=identity)
        except ResourceError as error:
            if not gone(error):
                raise

    def read(self, env: Env, identity: str, props: Props) -> Props | None:
        try:
            found = env.call("events", "describe_rule", Name=identity)
            targets = env.call("events", "list_targets_by_rule", Rule=identity)["Targets"]
        except ResourceError as error:
            if gone(error):
                return None
            raise
        actual = {**found, "Targets": targets}
        if "EventPattern" in found:
            actual["EventPattern"] = json.loads(found["EventPattern"])
        return {key: actual[key] for key in props if key in actual}

    def get(self, env: Env, identity: str, _props: Props) -> dict[str, Any]:
        return {"Arn": f"arn:aws:events:{env.region}:{env.account}:rule/{identity}"}

    def _put(self, env: Env, name: str, props: Props) -> None:
        params = self.parameters(props)
        if "EventPattern" in props:
            params["EventPattern"] = as_json(props["EventPattern"])
        env.call("events", "put_rule", Name=name, Tags=env.tag_list(props.get("Tags")), **params)
        if props.get("Targets"):
            answer = env.call("events", "put_targets", Rule=name, Targets=props["Targets"])
            if answer.get("FailedEntryCount"):
                raise ResourceError(f"{answer['FailedEntries'][0]['ErrorMessage']}", answer["FailedEntries"][0]["ErrorCode"])


TYPES = (Topic(), Subscription(), TopicPolicy(), Queue(), QueuePolicy(), Rule())
