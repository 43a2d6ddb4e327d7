"""What an API call is called in IAM policies: its action, the resources it touches, the condition keys it carries.

Reference: https://docs.aws.amazon.com/service-authorization/latest/reference/
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

# botocore's service names where IAM has another prefix
_PREFIX = {
    "stepfunctions": "states",
    "elbv2": "elasticloadbalancing",
    "elb": "elasticloadbalancing",
    "resourcegroupstaggingapi": "tag",
    "monitoring": "cloudwatch",
}

# operations whose action has another name
_ACTION = {
    "s3:HeadBucket": "s3:ListBucket",
    "s3:ListObjects": "s3:ListBucket",
    "s3:ListObjectsV2": "s3:ListBucket",
    "s3:ListObjectVersions": "s3:ListBucketVersions",
    "s3:ListBuckets": "s3:ListAllMyBuckets",
    "s3:HeadObject": "s3:GetObject",
    "s3:CopyObject": "s3:PutObject",
    "s3:CreateMultipartUpload": "s3:PutObject",
    "s3:UploadPart": "s3:PutObject",
    "s3:CompleteMultipartUpload": "s3:PutObject",
    "s3:DeleteObjects": "s3:DeleteObject",
    "s3:GetBucketLifecycleConfiguration": "s3:GetLifecycleConfiguration",
    "s3:PutBucketLifecycleConfiguration": "s3:PutLifecycleConfiguration",
    "s3:GetBucketEncryption": "s3:GetEncryptionConfiguration",
    "s3:PutBucketEncryption": "s3:PutEncryptionConfiguration",
    "s3:GetPublicAccessBlock": "s3:GetBucketPublicAccessBlock",
    "s3:PutPublicAccessBlock": "s3:PutBucketPublicAccessBlock",
    "lambda:Invoke": "lambda:InvokeFunction",
    "lambda:InvokeAsync": "lambda:InvokeFunction",
    "sns:PublishBatch": "sns:Publish",
    "sqs:SendMessageBatch": "sqs:SendMessage",
    "sqs:DeleteMessageBatch": "sqs:DeleteMessage",
}


def action_of(service: str, operation: str) -> str:
    """``("cloudwatch", "put_metric_data")`` is ``cloudwatch:PutMetricData``. Takes either spelling of the operation."""
    name = operation if operation[:1].isupper() else "".join(part[:1].upper() + part[1:] for part in operation.split("_"))
    action = f"{_PREFIX.get(service, service)}:{name}"
    return _ACTION.get(action, action)


def context_of(service: str, operation: str, params: Mapping[str, Any]) -> dict[str, Any]:
    """The service's own condition keys."""
    action = action_of(service, operation)
    if action == "cloudwatch:PutMetricData" and "Namespace" in params:
        return {"cloudwatch:namespace": params["Namespace"]}
    if action.startswith("s3:ListBucket") and "Prefix" in params:
        return {"s3:prefix": params["Prefix"]}
    if action == "sns:Subscribe":
        return {"sns:Protocol": params.get("Protocol", ""), "sns:Endpoint": params.get("Endpoint", "")}
    return {}


def resources_of(service: str, operation: str, params: Mapping[str, Any], region: str, account: str) -> list[str]:
    """The ARNs the call touches; ``["*"]`` where the action knows no resources or the lab does not tell them apart."""
    find = _RESOURCES.get(service)
    return (find(action_of(service, operation), params, region, account) if find else []) or ["*"]


def _s3(_action: str, params: Mapping[str, Any], _region: str, _account: str) -> list[str]:
    bucket = params.get("Bucket")
    if not bucket:
        return []
    if "Delete" in params:
        return [f"arn:aws:s3:::{bucket}/{item['Key']}" for item in params["Delete"].get("Objects", [])]
    return [f"arn:aws:s3:::{bucket}/{params['Key']}" if "Key" in params else f"arn:aws:s3:::{bucket}"]


def _logs(_action: str, params: Mapping[str, Any], region: str, account: str) -> list[str]:
    group = params.get("logGroupName")
    if not group:
        arn = params.get("logGroupIdentifier") or params.get("resourceArn")
        return [arn] if arn else []
    base = f"arn:aws:logs:{region}:{account}:log-group:{group}"
    stream = params.get("logStreamName")
    return [f"{base}:log-stream:{stream}" if stream else f"{base}:*" if not group.endswith(":*") else base]


def _sns(_action: str, params: Mapping[str, Any], region: str, account: str) -> list[str]:
    if "TopicArn" in params or "ResourceArn" in params:
        return [params.get("TopicArn") or params["ResourceArn"]]
    if "TargetArn" in params:
        return [params["TargetArn"]]
    if "SubscriptionArn" in params:
        return [params["SubscriptionArn"].rpartition(":")[0]]
    return [f"arn:aws:sns:{region}:{account}:{params['Name']}"] if "Name" in params else []


def _lambda(_action: str, params: Mapping[str, Any], region: str, account: str) -> list[str]:
    name = params.get("FunctionName") or params.get("Resource")
    if not name:
        return []
    return [name if name.startswith("arn:") else f"arn:aws:lambda:{region}:{account}:function:{name.rpartition(':')[2]}"]


def _synthetics(action: str, params: Mapping[str, Any], region: str, account: str) -> list[str]:
    if "Group" in action:
        return [params["GroupIdentifier"]] if str(params.get("GroupIdentifier", "")).startswith("arn:") else []
    arn = params.get("ResourceArn") or params.get("resourceArn")
    if arn:
        return [arn]
    name = params.get("Name") or params.get("name")
    return [f"arn:aws:synthetics:{region}:{account}:canary:{name}"] if name else []


def _cloudwatch(action: str, params: Mapping[str, Any], region: str, account: str) -> list[str]:
    if "Dashboard" in action:
        names = [params["DashboardName"]] if "DashboardName" in params else params.get("DashboardNames", [])
        return [f"arn:aws:cloudwatch::{account}:dashboard/{name}" for name in names]
    if "MuteRule" in action:
        name = params.get("AlarmMuteRuleName") or params.get("Name")
        return [f"arn:aws:cloudwatch:{region}:{account}:alarm-mute-rule:{name}"] if name else []
    names = [params["AlarmName"]] if "AlarmName" in params else params.get("AlarmNames", [])
    return [f"arn:aws:cloudwatch:{region}:{account}:alarm:{name}" for name in names]


def _sqs(_action: str, params: Mapping[str, Any], region: str, account: str) -> list[str]:
    name = params.get("QueueName") or str(params.get("QueueUrl", "")).rpartition("/")[2]
    return [f"arn:aws:sqs:{region}:{account}:{name}"] if name else []


def _iam(_action: str, params: Mapping[str, Any], _region: str, account: str) -> list[str]:
    if "RoleName" in params:
        return [f"arn:aws:iam::{account}:role/{params['RoleName']}"]
    return [params["PolicyArn"]] if "PolicyArn" in params else []


def _sts(_action: str, params: Mapping[str, Any], _region: str, _account: str) -> list[str]:
    return [params["RoleArn"]] if "RoleArn" in params else []


def _ssm(action: str, params: Mapping[str, Any], region: str, account: str) -> list[str]:
    if action == "ssm:StartAutomationExecution":
        return [
            f"arn:aws:ssm:{region}:{account}:automation-definition/{params.get('DocumentName')}:{params.get('DocumentVersion', '$DEFAULT')}"
        ]
    if "Parameter" in action:
        names = [params["Name"]] if "Name" in params else params.get("Names", [])
        return [f"arn:aws:ssm:{region}:{account}:parameter/{name.lstrip('/')}" for name in names]
    if "Document" in action and "Name" in params:
        return [f"arn:aws:ssm:{region}:{account}:document/{params['Name']}"]
    return []


def _dynamodb(_action: str, params: Mapping[str, Any], region: str, account: str) -> list[str]:
    table = params.get("TableName")
    return [table if table.startswith("arn:") else f"arn:aws:dynamodb:{region}:{account}:table/{table}"] if table else []


def _events(_action: str, params: Mapping[str, Any], region: str, account: str) -> list[str]:
    if "Entries" in params:
        buses = {entry.get("EventBusName", "default").rpartition("/")[2] for entry in params["Entries"]}
        return [f"arn:aws:events:{region}:{account}:event-bus/{bus}" for bus in sorted(buses)]
    name = params.get("Rule") or params.get("Name")
    return [f"arn:aws:events:{region}:{account}:rule/{name}"] if name else []


def _rds(_action: str, params: Mapping[str, Any], region: str, account: str) -> list[str]:
    kinds = {"DBClusterIdentifier": "cluster", "DBInstanceIdentifier": "db"}
    found = [f"arn:aws:rds:{region}:{account}:{kind}:{params[key]}" for key, kind in kinds.items() if params.get(key)]
    if params.get("GlobalClusterIdentifier"):
        found.append(f"arn:aws:rds::{account}:global-cluster:{params['GlobalClusterIdentifier']}")
    return found


def _rds_data(_action: str, params: Mapping[str, Any], _region: str, _account: str) -> list[str]:
    return [params["resourceArn"]] if "resourceArn" in params else []


def _routing_controls(_action: str, params: Mapping[str, Any], _region: str, _account: str) -> list[str]:
    entries = params.get("UpdateRoutingControlStateEntries") or [params]
    return [entry["RoutingControlArn"] for entry in entries if "RoutingControlArn" in entry]


_RESOURCES: dict[str, Callable[[str, Mapping[str, Any], str, str], list[str]]] = {
    "s3": _s3,
    "logs": _logs,
    "sns": _sns,
    "lambda": _lambda,
    "synthetics": _synthetics,
    "cloudwatch": _cloudwatch,
    "sqs": _sqs,
    "iam": _iam,
    "sts": _sts,
    "ssm": _ssm,
    "dynamodb": _dynamodb,
    "events": _events,
    "rds": _rds,
    "rds-data": _rds_data,
    "route53-recovery-cluster": _routing_controls,
}

# What an S3 request with one of these query parameters is about; the plain ones are listed by method and whether there is a key.
_S3_SUBRESOURCES = {
    "acl": "{verb}{kind}Acl",
    "encryption": "{verb}EncryptionConfiguration",
    "lifecycle": "{verb}LifecycleConfiguration",
    "location": "GetBucketLocation",
    "policy": "{verb}BucketPolicy",
    "publicAccessBlock": "{verb}BucketPublicAccessBlock",
    "tagging": "{verb}{kind}Tagging",
    "versioning": "{verb}BucketVersioning",
    "versions": "ListBucketVersions",
}
_S3_VERBS = {"GET": "Get", "HEAD": "Get", "PUT": "Put", "POST": "Put", "DELETE": "Delete"}
_S3_PLAIN = {
    ("GET", False): "ListBucket",
    ("HEAD", False): "ListBucket",
    ("PUT", False): "CreateBucket",
    ("POST", False): "DeleteObject",
    ("DELETE", False): "DeleteBucket",
    ("GET", True): "GetObject",
    ("HEAD", True): "GetObject",
    ("PUT", True): "PutObject",
    ("POST", True): "PutObject",
    ("DELETE", True): "DeleteObject",
}


def s3_call(method: str, path: str, query: Mapping[str, str]) -> tuple[str, dict[str, Any]]:
    """The action's name and the parameters that matter for it, of a path-style S3 request (several operations share a method and path)."""
    bucket, _, key = path.lstrip("/").partition("/")
    if not bucket:
        return "ListBuckets", {}
    params: dict[str, Any] = {"Bucket": bucket, **({"Key": key} if key else {})}
    if "prefix" in query:
        params["Prefix"] = query["prefix"]
    for name, action in _S3_SUBRESOURCES.items():
        if name in query:
            return action.format(verb=_S3_VERBS.get(method, "Get"), kind="Object" if key else "Bucket"), params
    if key and method == "GET" and "versionId" in query:
        return "GetObjectVersion", params
    return _S3_PLAIN.get((method, bool(key)), method.capitalize()), params
