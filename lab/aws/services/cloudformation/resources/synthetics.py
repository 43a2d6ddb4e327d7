"""AWS::Synthetics: canaries, which are started after creation where wished, and groups."""

from __future__ import annotations

import io
import zipfile
from typing import Any

from lab.aws.services.cloudformation.errors import ResourceError
from lab.aws.services.cloudformation.resources.base import FLAG, FREE, TAGS, TEXT, TEXTS, Env, Props, ResourceType, gone

POLL_S = 0.5
PATIENCE_S = 300.0
_MOVING = ("CREATING", "UPDATING", "STARTING", "STOPPING", "DELETING")
_PLAIN = ("ArtifactS3Location", "ArtifactConfig", "ExecutionRoleArn", "RuntimeVersion", "ProvisionedResourceCleanup", "BrowserConfigs")


class Canary(ResourceType):
    """A canary. Its code and environment variables cannot be read back, so they do not drift."""

    name = "AWS::Synthetics::Canary"
    service, operation = "synthetics", "CreateCanary"
    renamed = {
        "SuccessRetentionPeriod": "SuccessRetentionPeriodInDays",
        "FailureRetentionPeriod": "FailureRetentionPeriodInDays",
        "VPCConfig": "VpcConfig",
    }
    hidden = frozenset({"Tags", "Code", "AddReplicaLocations", "KmsKeyArn", "ResourcesToReplicateTags"})
    extra = {
        "Tags": TAGS,
        "Code": {
            "Handler": TEXT,
            "S3Bucket": TEXT,
            "S3Key": TEXT,
            "S3ObjectVersion": TEXT,
            "Script": TEXT,
            "Dependencies": FREE,
            "BlueprintTypes": TEXTS,
        },
        "StartCanaryAfterCreation": FLAG,
        "DeleteLambdaResourcesOnCanaryDeletion": FLAG,
        "DryRunAndUpdate": FLAG,
    }
    required = frozenset({"Name", "Code", "ArtifactS3Location", "ExecutionRoleArn", "RuntimeVersion", "Schedule"})
    replacing = frozenset({"Name"})
    attributes = ("Id", "State", "Code.SourceLocationArn")
    name_property = "Name"

    def create(self, env: Env, props: Props) -> str:
        name = str(props["Name"])
        if props.get("DryRunAndUpdate"):
            raise ResourceError("The lab's CloudFormation does not do DryRunAndUpdate", "UnsupportedOperation")
        env.call("synthetics", "create_canary", Name=name, **_tags(env, props), **_settings(props))
        env.made(name)
        self._settle(env, name, failed=True)
        if props.get("StartCanaryAfterCreation"):
            self._start(env, name)
        return name

    def update(self, env: Env, identity: str, old: Props, new: Props) -> None:
        before, after = _settings(old), _settings(new)
        changes = {key: value for key, value in after.items() if before.get(key) != value}
        if changes:
            self._settle(env, identity)
            if "RuntimeVersion" in changes or "RunConfig" in changes:
                changes["Code"] = after["Code"]
            env.call("synthetics", "update_canary", Name=identity, **changes)
            self._settle(env, identity, failed=True)
        given, removed = env.tag_changes(old, new)
        arn = f"arn:aws:synthetics:{env.region}:{env.account}:canary:{identity}"
        if given:
            env.call("synthetics", "tag_resource", ResourceArn=arn, Tags={tag["Key"]: tag["Value"] for tag in given})
        if removed:
            env.call("synthetics", "untag_resource", ResourceArn=arn, TagKeys=removed)
        if new.get("StartCanaryAfterCreation") and not old.get("StartCanaryAfterCreation"):
            self._start(env, identity)

    def delete(self, env: Env, identity: str, props: Props) -> None:
        try:
            if self._settle(env, identity) == "RUNNING":
                env.call("synthetics", "stop_canary", Name=identity)
                self._settle(env, identity)
            cleanup = bool(props.get("DeleteLambdaResourcesOnCanaryDeletion"))
            env.call("synthetics", "delete_canary", Name=identity, DeleteLambda=cleanup)
            self._settle(env, identity)
        except ResourceError as error:
            if not gone(error):
                raise

    def read(self, env: Env, identity: str, props: Props) -> Props | None:
        try:
            found = env.call("synthetics", "get_canary", Name=identity)["Canary"]
        except ResourceError as error:
            if gone(error):
                return None
            raise
        actual: Props = {
            "Name": found["Name"],
            "ArtifactS3Location": f"s3://{found['ArtifactS3Location']}",
            "ExecutionRoleArn": found["ExecutionRoleArn"],
            "RuntimeVersion": found["RuntimeVersion"],
            "Schedule": {key: found["Schedule"].get(key) for key in props["Schedule"]},
            "SuccessRetentionPeriod": found["SuccessRetentionPeriodInDays"],
            "FailureRetentionPeriod": found["FailureRetentionPeriodInDays"],
            "Code": {**props["Code"], "Handler": found["Code"]["Handler"]},
            "ProvisionedResourceCleanup": found["ProvisionedResourceCleanup"],
        }
        run = props.get("RunConfig", {})
        actual["RunConfig"] = {key: run[key] if key == "EnvironmentVariables" else found["RunConfig"].get(key) for key in run}
        return {key: value for key, value in actual.items() if key in props}

    def get(self, env: Env, identity: str, _props: Props) -> dict[str, Any]:
        found = env.call("synthetics", "get_canary", Name=identity)["Canary"]
        return {"Id": found["Id"], "State": found["Status"]["State"], "Code.SourceLocationArn": found["Code"]["SourceLocationArn"]}

    def _start(self, env: Env, name: str) -> None:
        env.call("synthetics", "start_canary", Name=name)
        self._settle(env, name)

    def _settle(self, env: Env, name: str, failed: bool = False) -> str:
        """Wait until the canary changes no more; its state. Raises `ResourceError` where it ended in ERROR and ``failed`` minds."""
        deadline = env.world.clock.now() + PATIENCE_S
        while True:
            status = env.call("synthetics", "get_canary", Name=name)["Canary"]["Status"]
            if status["State"] not in _MOVING:
                break
            if env.world.clock.now() > deadline:
                raise ResourceError(f"Exceeded attempts to wait: canary {name} is still {status['State']}", "NotStabilized")
            env.world.clock.sleep(POLL_S)
        if failed and (status["State"] == "ERROR" or status.get("StateReasonCode") == "ROLLBACK_COMPLETE"):
            raise ResourceError(f'Resource handler returned message: "{status.get("StateReason")}"', "NotStabilized")
        return str(status["State"])


def _tags(env: Env, props: Props) -> Props:
    """The tags, where there are any: the API wants at least one."""
    tags = env.tag_map(props.get("Tags"))
    return {"Tags": tags} if tags else {}


def _settings(props: Props) -> Props:
    """The parameters that creation and update share."""
    settings = {key: props[key] for key in _PLAIN if key in props}
    settings["Schedule"] = {key: value for key, value in props["Schedule"].items() if value is not None}
    settings["RunConfig"] = {"EnvironmentVariables": {}, **props.get("RunConfig", {})}
    for key, parameter in Canary.renamed.items():
        if key in props:
            settings[parameter] = props[key]
    code = {key: value for key, value in props["Code"].items() if key not in ("Script", "S3ObjectVersion")}
    if "S3ObjectVersion" in props["Code"]:
        code["S3Version"] = props["Code"]["S3ObjectVersion"]
    if "Script" in props["Code"]:
        code["ZipFile"] = _bundle(str(code.get("Handler", "index.handler")), props["Code"]["Script"])
    settings["Code"] = code
    return settings


def _bundle(handler: str, script: str) -> bytes:
    """A zip with the inline script where its handler is looked for; the same script gives the same bytes."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as bundle:
        bundle.writestr(zipfile.ZipInfo(f"python/{handler.rpartition('.')[0]}.py"), script)
    return buffer.getvalue()


class Group(ResourceType):
    """A group of canaries."""

    name = "AWS::Synthetics::Group"
    extra = {"Name": TEXT, "ResourceArns": TEXTS, "Tags": TAGS}
    required = frozenset({"Name"})
    replacing = frozenset({"Name"})
    attributes = ("Id",)
    name_property = "Name"

    def create(self, env: Env, props: Props) -> str:
        env.call("synthetics", "create_group", Name=props["Name"], **_tags(env, props))
        env.made(str(props["Name"]))
        for arn in props.get("ResourceArns", []):
            env.call("synthetics", "associate_resource", GroupIdentifier=props["Name"], ResourceArn=arn)
        return str(props["Name"])

    def update(self, env: Env, identity: str, old: Props, new: Props) -> None:
        before, after = set(old.get("ResourceArns", [])), set(new.get("ResourceArns", []))
        for arn in sorted(after - before):
            env.call("synthetics", "associate_resource", GroupIdentifier=identity, ResourceArn=arn)
        for arn in sorted(before - after):
            env.call("synthetics", "disassociate_resource", GroupIdentifier=identity, ResourceArn=arn)

    def delete(self, env: Env, identity: str, props: Props) -> None:
        try:
            env.call("synthetics", "delete_group", GroupIdentifier=identity)
        except ResourceError as error:
            if not gone(error):
                raise

    def read(self, env: Env, identity: str, props: Props) -> Props | None:
        try:
            found = env.call("synthetics", "list_group_resources", GroupIdentifier=identity)["Resources"]
        except ResourceError as error:
            if gone(error):
                return None
            raise
        return {"Name": identity, **({"ResourceArns": found} if "ResourceArns" in props else {})}

    def get(self, env: Env, identity: str, _props: Props) -> dict[str, Any]:
        return {"Id": env.call("synthetics", "get_group", GroupIdentifier=identity)["Group"]["Id"]}


TYPES = (Canary(), Group())
