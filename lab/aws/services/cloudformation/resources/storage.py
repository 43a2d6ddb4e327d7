"""AWS::S3, AWS::Logs and AWS::SSM: buckets, log groups, metric filters, queries, documents and parameters."""

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

_FLAGS = dict.fromkeys(("BlockPublicAcls", "BlockPublicPolicy", "IgnorePublicAcls", "RestrictPublicBuckets"), FLAG)
_LIFECYCLE = {
    "Rules": [
        {
            "Id": TEXT,
            "Status": TEXT,
            "Prefix": TEXT,
            "ExpirationInDays": NUMBER,
            "NoncurrentVersionExpiration": {"NoncurrentDays": NUMBER, "NewerNoncurrentVersions": NUMBER},
            "NoncurrentVersionExpirationInDays": NUMBER,
            "AbortIncompleteMultipartUpload": {"DaysAfterInitiation": NUMBER},
        }
    ]
}


class Bucket(ResourceType):
    """A bucket. Deleting one that is not empty fails, as on AWS."""

    name = "AWS::S3::Bucket"
    extra = {
        "BucketName": TEXT,
        "BucketEncryption": FREE,
        "LifecycleConfiguration": _LIFECYCLE,
        "OwnershipControls": FREE,
        "PublicAccessBlockConfiguration": _FLAGS,
        "Tags": TAGS,
        "VersioningConfiguration": {"Status": TEXT},
    }
    replacing = frozenset({"BucketName"})
    attributes = ("Arn", "DomainName", "RegionalDomainName")
    name_property = "BucketName"
    name_limit = 63
    lower_name = True

    def create(self, env: Env, props: Props) -> str:
        name = self.named(env, props)
        where = {} if env.region == "us-east-1" else {"CreateBucketConfiguration": {"LocationConstraint": env.region}}
        existing = [one["Name"] for one in env.call("s3", "list_buckets").get("Buckets", [])]
        if name in existing:
            raise ResourceError(f"{name} already exists", "BucketAlreadyExists")
        env.call("s3", "create_bucket", Bucket=name, **where)
        env.made(name)
        self.update(env, name, {}, props)
        return name

    def update(self, env: Env, identity: str, old: Props, new: Props) -> None:
        for key, put, remove in _BUCKET_SETTINGS:
            if old.get(key) == new.get(key):
                continue
            if key in new:
                operation, parameter = put
                value = (
                    _rules(new[key])
                    if key == "LifecycleConfiguration"
                    else _encryption(new[key])
                    if key == "BucketEncryption"
                    else new[key]
                )
                env.call("s3", operation, Bucket=identity, **{parameter: value})
            elif remove:
                env.call("s3", remove, Bucket=identity)
            else:
                env.call("s3", "put_bucket_versioning", Bucket=identity, VersioningConfiguration={"Status": "Suspended"})
        tags = env.tag_list(new.get("Tags"))
        if tags:
            env.call("s3", "put_bucket_tagging", Bucket=identity, Tagging={"TagSet": tags})

    def delete(self, env: Env, identity: str, props: Props) -> None:
        try:
            env.call("s3", "delete_bucket", Bucket=identity)
        except ResourceError as error:
            if not gone(error):
                raise

    def read(self, env: Env, identity: str, props: Props) -> Props | None:
        try:
            versioning = env.call("s3", "get_bucket_versioning", Bucket=identity).get("Status")
        except ResourceError as error:
            if gone(error):
                return None
            raise
        actual: Props = {"BucketName": identity}
        if versioning:
            actual["VersioningConfiguration"] = {"Status": versioning}
        if "PublicAccessBlockConfiguration" in props:
            try:
                found = env.call("s3", "get_public_access_block", Bucket=identity)["PublicAccessBlockConfiguration"]
                actual["PublicAccessBlockConfiguration"] = {key: found.get(key) for key in props["PublicAccessBlockConfiguration"]}
            except ResourceError as error:
                if not gone(error):
                    raise
        kept = {key: value for key, value in actual.items() if key in props}
        unread = ("BucketEncryption", "LifecycleConfiguration", "OwnershipControls")
        return {**kept, **{key: props[key] for key in unread if key in props}}

    def get(self, env: Env, identity: str, _props: Props) -> dict[str, Any]:
        return {
            "Arn": f"arn:aws:s3:::{identity}",
            "DomainName": f"{identity}.s3.amazonaws.com",
            "RegionalDomainName": f"{identity}.s3.{env.region}.amazonaws.com",
        }


_BUCKET_SETTINGS: tuple[tuple[str, tuple[str, str], str], ...] = (
    ("VersioningConfiguration", ("put_bucket_versioning", "VersioningConfiguration"), ""),
    ("BucketEncryption", ("put_bucket_encryption", "ServerSideEncryptionConfiguration"), "delete_bucket_encryption"),
    ("PublicAccessBlockConfiguration", ("put_public_access_block", "PublicAccessBlockConfiguration"), "delete_public_access_block"),
    ("LifecycleConfiguration", ("put_bucket_lifecycle_configuration", "LifecycleConfiguration"), "delete_bucket_lifecycle"),
    ("OwnershipControls", ("put_bucket_ownership_controls", "OwnershipControls"), "delete_bucket_ownership_controls"),
)


def _rules(config: Props) -> Props:
    """Lifecycle rules in the API's spelling."""
    rules = []
    for rule in config["Rules"]:
        converted: Props = {"ID": rule.get("Id", ""), "Status": rule["Status"], "Filter": {"Prefix": rule.get("Prefix", "")}}
        if "ExpirationInDays" in rule:
            converted["Expiration"] = {"Days": rule["ExpirationInDays"]}
        if "NoncurrentVersionExpirationInDays" in rule:
            converted["NoncurrentVersionExpiration"] = {"NoncurrentDays": rule["NoncurrentVersionExpirationInDays"]}
        for key in ("NoncurrentVersionExpiration", "AbortIncompleteMultipartUpload"):
            if key in rule:
                converted[key] = rule[key]
        rules.append(converted)
    return {"Rules": rules}


def _encryption(config: Props) -> Props:
    """Encryption rules in the API's spelling."""
    rules = []
    for rule in config["ServerSideEncryptionConfiguration"]:
        default = dict(rule["ServerSideEncryptionByDefault"])
        converted = {"ApplyServerSideEncryptionByDefault": default}
        rules.append({**converted, **{key: rule[key] for key in ("BucketKeyEnabled",) if key in rule}})
    return {"Rules": rules}


class BucketPolicy(ResourceType):
    """A bucket's policy."""

    name = "AWS::S3::BucketPolicy"
    extra = {"Bucket": TEXT, "PolicyDocument": FREE}
    required = frozenset({"Bucket", "PolicyDocument"})
    replacing = frozenset({"Bucket"})

    def create(self, env: Env, props: Props) -> str:
        self.update(env, "", {}, props)
        return str(props["Bucket"])

    def update(self, env: Env, identity: str, old: Props, new: Props) -> None:
        env.call("s3", "put_bucket_policy", Bucket=new["Bucket"], Policy=as_json(new["PolicyDocument"]))

    def delete(self, env: Env, identity: str, props: Props) -> None:
        try:
            env.call("s3", "delete_bucket_policy", Bucket=props["Bucket"])
        except ResourceError as error:
            if not gone(error):
                raise

    def read(self, env: Env, identity: str, props: Props) -> Props | None:
        try:
            found = env.call("s3", "get_bucket_policy", Bucket=props["Bucket"])["Policy"]
        except ResourceError as error:
            if gone(error):
                return None
            raise
        return {"Bucket": props["Bucket"], "PolicyDocument": as_data(found)}


class LogGroup(ResourceType):
    """A log group."""

    name = "AWS::Logs::LogGroup"
    extra = {"LogGroupName": TEXT, "RetentionInDays": NUMBER, "LogGroupClass": TEXT, "Tags": TAGS}
    replacing = frozenset({"LogGroupName"})
    attributes = ("Arn",)
    name_property = "LogGroupName"
    name_limit = 512

    def create(self, env: Env, props: Props) -> str:
        name = self.named(env, props)
        if props.get("LogGroupClass", "STANDARD") != "STANDARD":
            raise ResourceError("The lab's log groups are of class STANDARD", "UnsupportedOperation")
        tags = env.tag_map(props.get("Tags"))
        env.call("logs", "create_log_group", logGroupName=name, **({"tags": tags} if tags else {}))
        env.made(name)
        if "RetentionInDays" in props:
            env.call("logs", "put_retention_policy", logGroupName=name, retentionInDays=props["RetentionInDays"])
        return name

    def update(self, env: Env, identity: str, old: Props, new: Props) -> None:
        if old.get("RetentionInDays") != new.get("RetentionInDays"):
            if "RetentionInDays" in new:
                env.call("logs", "put_retention_policy", logGroupName=identity, retentionInDays=new["RetentionInDays"])
            else:
                env.call("logs", "delete_retention_policy", logGroupName=identity)
        given, removed = env.tag_changes(old, new)
        arn = f"arn:aws:logs:{env.region}:{env.account}:log-group:{identity}"
        if given:
            env.call("logs", "tag_resource", resourceArn=arn, tags={tag["Key"]: tag["Value"] for tag in given})
        if removed:
            env.call("logs", "untag_resource", resourceArn=arn, tagKeys=removed)

    def delete(self, env: Env, identity: str, props: Props) -> None:
        try:
            env.call("logs", "delete_log_group", logGroupName=identity)
        except ResourceError as error:
            if not gone(error):
                raise

    def read(self, env: Env, identity: str, props: Props) -> Props | None:
        listed = env.call("logs", "describe_log_groups", logGroupNamePrefix=identity).get("logGroups", [])
        found = next((one for one in listed if one["logGroupName"] == identity), None)
        if found is None:
            return None
        actual = {"LogGroupName": identity, "RetentionInDays": found.get("retentionInDays")}
        return {key: value for key, value in actual.items() if key in props and value is not None}

    def get(self, env: Env, identity: str, _props: Props) -> dict[str, Any]:
        return {"Arn": f"arn:aws:logs:{env.region}:{env.account}:log-group:{identity}:*"}


class MetricFilter(ResourceType):
    """A metric filter of a log group."""

    name = "AWS::Logs::MetricFilter"
    extra = {
        "FilterName": TEXT,
        "FilterPattern": TEXT,
        "LogGroupName": TEXT,
        "MetricTransformations": [
            {
                "MetricName": TEXT,
                "MetricNamespace": TEXT,
                "MetricValue": TEXT,
                "DefaultValue": "double",
                "Unit": TEXT,
                "Dimensions": [{"Key": TEXT, "Value": TEXT}],
            }
        ],
    }
    required = frozenset({"FilterPattern", "LogGroupName", "MetricTransformations"})
    replacing = frozenset({"FilterName", "LogGroupName"})
    name_property = "FilterName"
    name_limit = 512

    def create(self, env: Env, props: Props) -> str:
        name = self.named(env, props)
        self.update(env, name, {}, props)
        return name

    def update(self, env: Env, identity: str, old: Props, new: Props) -> None:
        transformations = []
        for one in new["MetricTransformations"]:
            converted = {key[:1].lower() + key[1:]: value for key, value in one.items() if key != "Dimensions"}
            if one.get("Dimensions"):
                converted["dimensions"] = {item["Key"]: item["Value"] for item in one["Dimensions"]}
            transformations.append(converted)
        env.call(
            "logs",
            "put_metric_filter",
            filterName=identity,
            filterPattern=new["FilterPattern"],
            logGroupName=new["LogGroupName"],
            metricTransformations=transformations,
        )

    def delete(self, env: Env, identity: str, props: Props) -> None:
        try:
            env.call("logs", "delete_metric_filter", filterName=identity, logGroupName=props["LogGroupName"])
        except ResourceError as error:
            if not gone(error):
                raise

    def read(self, env: Env, identity: str, props: Props) -> Props | None:
        try:
            filters = env.call("logs", "describe_metric_filters", logGroupName=props["LogGroupName"], filterNamePrefix=identity)
        except ResourceError as error:
            if gone(error):
                return None
            raise
        found = next((one for one in filters["metricFilters"] if one["filterName"] == identity), None)
        return None if found is None else {**props, "FilterPattern": found["filterPattern"]}


class QueryDefinition(ResourceType):
    """A saved query of Logs Insights."""

    name = "AWS::Logs::QueryDefinition"
    extra = {"Name": TEXT, "QueryString": TEXT, "LogGroupNames": TEXTS}
    required = frozenset({"Name", "QueryString"})
    attributes = ("QueryDefinitionId",)
    drift = False

    def create(self, env: Env, props: Props) -> str:
        return self._put(env, props)

    def update(self, env: Env, identity: str, old: Props, new: Props) -> None:
        self._put(env, new, queryDefinitionId=identity)

    def delete(self, env: Env, identity: str, props: Props) -> None:
        try:
            env.call("logs", "delete_query_definition", queryDefinitionId=identity)
        except ResourceError as error:
            if not gone(error):
                raise

    def get(self, _env: Env, identity: str, _props: Props) -> dict[str, Any]:
        return {"QueryDefinitionId": identity}

    def _put(self, env: Env, props: Props, **identity: str) -> str:
        groups = {"logGroupNames": props["LogGroupNames"]} if "LogGroupNames" in props else {}
        made = env.call("logs", "put_query_definition", name=props["Name"], queryString=props["QueryString"], **groups, **identity)
        return str(made["queryDefinitionId"])


class Document(ResourceType):
    """A document of Systems Manager, such as a runbook."""

    name = "AWS::SSM::Document"
    extra = {
        "Content": FREE,
        "DocumentFormat": TEXT,
        "DocumentType": TEXT,
        "Name": TEXT,
        "Tags": TAGS,
        "TargetType": TEXT,
        "UpdateMethod": TEXT,
        "VersionName": TEXT,
    }
    required = frozenset({"Content"})
    replacing = frozenset({"Name", "DocumentType"})
    name_property = "Name"
    name_limit = 128

    def create(self, env: Env, props: Props) -> str:
        name = self.named(env, props)
        settings = {key: props[key] for key in ("DocumentFormat", "DocumentType", "TargetType", "VersionName") if key in props}
        env.call("ssm", "create_document", Name=name, Content=as_json(props["Content"]), Tags=env.tag_list(props.get("Tags")), **settings)
        return name

    def recreation(self, name: str) -> str:
        return "Always" if name in self.replacing else "Conditionally" if name != "Tags" else "Never"

    def update(self, env: Env, identity: str, old: Props, new: Props) -> None:
        if new.get("UpdateMethod", "Replace") == "Replace" and "Name" in new and old["Content"] != new["Content"]:
            raise ResourceError(
                f"CloudFormation cannot update a stack when a custom-named resource requires replacing. Rename {identity} or use "
                "UpdateMethod NewVersion",
                "InvalidRequest",
            )
        if old["Content"] != new["Content"]:
            settings = {key: new[key] for key in ("DocumentFormat", "TargetType", "VersionName") if key in new}
            made = env.call("ssm", "update_document", Name=identity, Content=as_json(new["Content"]), DocumentVersion="$LATEST", **settings)
            version = made["DocumentDescription"]["DocumentVersion"]
            env.call("ssm", "update_document_default_version", Name=identity, DocumentVersion=str(version))

    def delete(self, env: Env, identity: str, props: Props) -> None:
        try:
            env.call("ssm", "delete_document", Name=identity)
        except ResourceError as error:
            if not gone(error):
                raise

    def read(self, env: Env, identity: str, props: Props) -> Props | None:
        try:
            found = env.call("ssm", "get_document", Name=identity)
        except ResourceError as error:
            if gone(error):
                return None
            raise
        content: Any = found["Content"]
        if not isinstance(props["Content"], str):
            content = json.loads(content)
        return {**props, "Content": content}


class Parameter(ResourceType):
    """A parameter of Systems Manager."""

    name = "AWS::SSM::Parameter"
    extra = {
        "AllowedPattern": TEXT,
        "DataType": TEXT,
        "Description": TEXT,
        "Name": TEXT,
        "Tags": {"*": TEXT},
        "Tier": TEXT,
        "Type": TEXT,
        "Value": TEXT,
    }
    required = frozenset({"Type", "Value"})
    replacing = frozenset({"Name"})
    attributes = ("Type", "Value")
    name_property = "Name"
    name_limit = 128

    def create(self, env: Env, props: Props) -> str:
        name = self.named(env, props)
        self._put(env, name, props, overwrite=False)
        return name

    def update(self, env: Env, identity: str, old: Props, new: Props) -> None:
        self._put(env, identity, new, overwrite=True)

    def delete(self, env: Env, identity: str, props: Props) -> None:
        try:
            env.call("ssm", "delete_parameter", Name=identity)
        except ResourceError as error:
            if not gone(error):
                raise

    def read(self, env: Env, identity: str, props: Props) -> Props | None:
        try:
            found = env.call("ssm", "get_parameter", Name=identity)["Parameter"]
        except ResourceError as error:
            if gone(error):
                return None
            raise
        return {**props, "Type": found["Type"], "Value": found["Value"]}

    def get(self, _env: Env, _identity: str, props: Props) -> dict[str, Any]:
        return {"Type": props["Type"], "Value": props["Value"]}

    def _put(self, env: Env, name: str, props: Props, overwrite: bool) -> None:
        settings = {key: value for key, value in props.items() if key not in ("Name", "Tags")}
        tags = [{"Key": key, "Value": value} for key, value in {**env.tags, **props.get("Tags", {})}.items()]
        extra: Props = {"Overwrite": True} if overwrite else {"Tags": tags} if tags else {}
        env.call("ssm", "put_parameter", Name=name, **settings, **extra)


TYPES = (Bucket(), BucketPolicy(), LogGroup(), MetricFilter(), QueryDefinition(), Document(), Parameter())
