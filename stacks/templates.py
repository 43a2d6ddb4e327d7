"""The CloudFormation templates of one Region: plain data in, plain data out; deployment is somewhere else (deployment.py).

``foundation`` holds the bucket, ``canaries`` the canaries and their roles, ``alarms`` the topics, the notifier, the alarms and, in the home
Region, the dashboards. Nothing in them has to be looked up: names follow stacks/names.py and code is addressed by its hash.
"""

from __future__ import annotations

import json
import re
from typing import Any

from alarms.engine.composite import parse
from stacks import policies
from stacks.names import Names
from topology import Problem, Topology, UnusableInput
from topology.schedules import every_s
from topology.signals import canary_kinds, canary_name

Template = dict[str, Any]
Resource = dict[str, Any]
SCHEDULES = {"probe": "rate(1 minute)"}
TIMEOUTS_S = {"probe": 59, "journey": 120, "ledger": 240}


def template(description: str, resources: dict[str, Resource], outputs: dict[str, Any] | None = None) -> Template:
    """A template with its fixed head."""
    result: Template = {"AWSTemplateFormatVersion": "2010-09-09", "Description": description, "Resources": resources}
    return {**result, "Outputs": outputs} if outputs else result


def logical_id(*parts: str) -> str:
    """A logical id from names: letters and digits only."""
    return "".join(word.capitalize() for part in parts for word in re.findall(r"[A-Za-z0-9]+", part))


def foundation(topology: Topology, region: str) -> Template:
    """The bucket that everything else is deployed from."""
    names = Names.of(topology, region)
    bucket: Resource = {
        "Type": "AWS::S3::Bucket",
        "Properties": {
            "BucketName": names.bucket,
            "VersioningConfiguration": {"Status": "Enabled"},
            "BucketEncryption": {"ServerSideEncryptionConfiguration": [{"ServerSideEncryptionByDefault": {"SSEAlgorithm": "AES256"}}]},
            "PublicAccessBlockConfiguration": {
                "BlockPublicAcls": True,
                "BlockPublicPolicy": True,
                "IgnorePublicAcls": True,
                "RestrictPublicBuckets": True,
            },
            "LifecycleConfiguration": {
                "Rules": [
                    {
                        "Id": "runs",
                        "Status": "Enabled",
                        "Prefix": "runs/",
                        "ExpirationInDays": topology.probe.retention_days,
                        "NoncurrentVersionExpiration": {"NoncurrentDays": 1},
                    }
                ]
            },
            "Tags": _tags(topology),
        },
    }
    policy: Resource = {
        "Type": "AWS::S3::BucketPolicy",
        "Properties": {
            "Bucket": {"Ref": "Bucket"},
            "PolicyDocument": policies.document(
                [
                    {
                        "Sid": "TlsOnly",
                        "Effect": "Deny",
                        "Principal": "*",
                        "Action": "s3:*",
                        "Resource": [f"arn:aws:s3:::{names.bucket}", f"arn:aws:s3:::{names.bucket}/*"],
                        "Condition": {"Bool": {"aws:SecureTransport": "false"}, "StringNotEquals": {"aws:PrincipalType": "AWSService"}},
                    }
                ]
            ),
        },
    }
    private = topology.endpoint(region, "s3")
    resources = {"Bucket": bucket}
    if not (private and private.startswith("http:")):
        resources["BucketPolicy"] = policy
    return template(f"Crosswatch: artifacts of {topology.workload} in {region}", resources, {"Bucket": {"Value": {"Ref": "Bucket"}}})


def canaries(topology: Topology, region: str, code: dict[str, tuple[str, str]]) -> Template:
    """The canaries of ``region``. ``code`` maps a kind to (S3 key, handler)."""
    names = Names.of(topology, region)
    resources: dict[str, Resource] = {}
    for kind in canary_kinds(topology):
        key, handler = code[kind]
        role = logical_id(kind, "role")
        resources[role] = _role(topology, names.role(kind), "lambda.amazonaws.com", kind, policies.canary(topology, names, kind))
        resources[logical_id(kind, "canary")] = {
            "Type": "AWS::Synthetics::Canary",
            "Properties": {
                "Name": canary_name(topology, kind),
                "RuntimeVersion": topology.probe.runtime,
                "Code": {"Handler": handler, "S3Bucket": names.bucket, "S3Key": key},
                "ArtifactS3Location": f"s3://{names.bucket}/runs/{kind}",
                "ExecutionRoleArn": {"Fn::GetAtt": [role, "Arn"]},
                "Schedule": {"Expression": schedule(topology, kind), "DurationInSeconds": "0"},
                "RunConfig": {"TimeoutInSeconds": timeout_s(topology, kind), "MemoryInMB": topology.probe.memory_mb},
                "SuccessRetentionPeriod": topology.probe.retention_days,
                "FailureRetentionPeriod": topology.probe.retention_days,
                "StartCanaryAfterCreation": True,
                "ProvisionedResourceCleanup": "AUTOMATIC",
                "Tags": [*_tags(topology), {"Key": "crosswatch:code", "Value": key.rsplit("/", 1)[-1]}],
                **_vpc(topology, region),
            },
        }
    return template(f"Crosswatch: canaries of {topology.workload} in {region}", resources)


def alarms(
    topology: Topology, region: str, definitions: list[dict[str, Any]], notifier_key: str, notifier_handler: str, dashboards: dict[str, str]
) -> Template:
    """The alarms of ``region``, the way from them to a person, and the ``dashboards`` (name -> body) deployed from here.

    Raises `UnusableInput` where two alarms would have one name or one logical id: the second would silently stand in place of the first.
    """
    _check_distinct([item["AlarmName"] for item in definitions])
    names = Names.of(topology, region)
    resources = _notification(topology, names, notifier_key, notifier_handler)
    ids = {item["AlarmName"]: logical_id("alarm", item["AlarmName"]) for item in definitions}
    for item in definitions:
        resources[ids[item["AlarmName"]]] = _alarm(topology, item, ids)
    for name, body in dashboards.items():
        resources[logical_id("dashboard", name)] = {
            "Type": "AWS::CloudWatch::Dashboard",
            "Properties": {"DashboardName": name, "DashboardBody": body},
        }
    return template(f"Crosswatch: alarms of {topology.workload} in {region}", resources)


def schedule(topology: Topology, kind: str) -> str:
    """The schedule expression of a canary."""
    own = {"journey": topology.journeys.journey_schedule, "ledger": topology.journeys.ledger_schedule}
    return own.get(kind) or SCHEDULES["probe"]


def timeout_s(topology: Topology, kind: str) -> int:
    """After how many seconds a run of a canary is ended: Synthetics takes no timeout beyond the next run."""
    return min(TIMEOUTS_S[kind], every_s(schedule(topology, kind)))


def body(value: Template) -> str:
    """The template as text; the same input gives the same text."""
    return json.dumps(value, indent=1, sort_keys=True)


def _check_distinct(names: list[str]) -> None:
    """Raise `UnusableInput` where alarms share a name, or differ only in what a logical id does not keep: punctuation and case."""
    groups: dict[str, list[str]] = {}
    for name in names:
        groups.setdefault(logical_id("alarm", name), []).append(name)
    mend = "rename one of the things that they watch: a queue, a broker, a database, a cache, a table"
    problems = [Problem("alarms cannot be told apart: " + ", ".join(group), mend) for group in groups.values() if len(group) > 1]
    if problems:
        raise UnusableInput(problems)


def _notification(topology: Topology, names: Names, key: str, handler: str) -> dict[str, Resource]:
    """Topics, subscriptions and the notifier between them."""
    resources: dict[str, Resource] = {
        "AlarmTopic": _topic(topology, names.topic("alarms")),
        "PageTopic": _topic(topology, names.topic("pages")),
        "AlarmTopicPolicy": {
            "Type": "AWS::SNS::TopicPolicy",
            "Properties": {
                "Topics": [{"Ref": "AlarmTopic"}],
                "PolicyDocument": policies.document(
                    [
                        {
                            "Sid": "AlarmsPublish",
                            "Effect": "Allow",
                            "Principal": {"Service": "cloudwatch.amazonaws.com"},
                            "Action": "sns:Publish",
                            "Resource": names.topic_arn("alarms"),
                            "Condition": {"StringEquals": {"aws:SourceAccount": topology.account}},
                        }
                    ]
                ),
            },
        },
        "NotifierRole": _role(topology, names.role("notifier"), "lambda.amazonaws.com", "notifier", policies.notifier(names)),
        "NotifierLogs": {
            "Type": "AWS::Logs::LogGroup",
            "Properties": {"LogGroupName": f"/aws/lambda/{names.notifier}", "RetentionInDays": 30},
        },
        "Notifier": {
            "Type": "AWS::Lambda::Function",
            "DependsOn": ["NotifierLogs"],
            "Properties": {
                "FunctionName": names.notifier,
                "Description": "From alarm to one page per incident",
                "Runtime": "python3.12",
                "Handler": handler,
                "Code": {"S3Bucket": names.bucket, "S3Key": key},
                "Role": {"Fn::GetAtt": ["NotifierRole", "Arn"]},
                "Timeout": 30,
                "MemorySize": 256,
                "Tags": _tags(topology),
            },
        },
        "NotifierPermission": {
            "Type": "AWS::Lambda::Permission",
            "Properties": {
                "FunctionName": {"Fn::GetAtt": ["Notifier", "Arn"]},
                "Action": "lambda:InvokeFunction",
                "Principal": "sns.amazonaws.com",
                "SourceArn": {"Ref": "AlarmTopic"},
            },
        },
        "NotifierFailure": {
            "Type": "AWS::Lambda::EventInvokeConfig",
            "Properties": {
                "FunctionName": {"Ref": "Notifier"},
                "Qualifier": "$LATEST",
                "MaximumRetryAttempts": 1,
                "MaximumEventAgeInSeconds": 300,
                "DestinationConfig": {"OnFailure": {"Destination": {"Ref": "PageTopic"}}},
            },
        },
        "NotifierSubscription": {
            "Type": "AWS::SNS::Subscription",
            "DependsOn": ["NotifierPermission"],
            "Properties": {"TopicArn": {"Ref": "AlarmTopic"}, "Protocol": "lambda", "Endpoint": {"Fn::GetAtt": ["Notifier", "Arn"]}},
        },
    }
    for index, subscription in enumerate(topology.paging.subscriptions):
        resources[f"OnCall{index + 1}"] = {
            "Type": "AWS::SNS::Subscription",
            "Properties": {"TopicArn": {"Ref": "PageTopic"}, "Protocol": subscription.protocol, "Endpoint": subscription.endpoint},
        }
    return resources


def _topic(topology: Topology, name: str) -> Resource:
    return {"Type": "AWS::SNS::Topic", "Properties": {"TopicName": name, "Tags": _tags(topology)}}


def _alarm(topology: Topology, item: dict[str, Any], ids: dict[str, str]) -> Resource:
    """An alarm as a resource; a composite waits for its children and its suppressor, which CloudWatch requires to exist."""
    properties = {key: value for key, value in item.items() if key != "Region"}
    properties["Tags"] = _tags(topology)
    if "AlarmRule" not in item:
        waits = ["NotifierSubscription"] if item.get("AlarmActions") else []
        kind = "AWS::CloudWatch::Alarm"
    else:
        mentioned = {*parse(item["AlarmRule"]).children, item.get("ActionsSuppressor", "")}
        waits = [*sorted(ids[name] for name in mentioned if name in ids), "NotifierSubscription"]
        kind = "AWS::CloudWatch::CompositeAlarm"
    resource: Resource = {"Type": kind, "Properties": properties}
    return {**resource, "DependsOn": waits} if waits else resource


def _role(topology: Topology, name: str, service: str, purpose: str, statements: list[policies.Statement]) -> Resource:
    return {
        "Type": "AWS::IAM::Role",
        "Properties": {
            "RoleName": name,
            "AssumeRolePolicyDocument": policies.assumed_by(service),
            "Policies": [{"PolicyName": purpose, "PolicyDocument": policies.document(statements)}],
            "Tags": _tags(topology),
        },
    }


def _vpc(topology: Topology, region: str) -> dict[str, Any]:
    network = topology.network(region)
    if network is None:
        return {}
    return {"VPCConfig": {"SubnetIds": list(network.subnets), "SecurityGroupIds": list(network.security_groups)}}


def _tags(topology: Topology) -> list[dict[str, str]]:
    return [{"Key": "crosswatch:workload", "Value": topology.workload}, {"Key": "crosswatch:environment", "Value": topology.environment}]
