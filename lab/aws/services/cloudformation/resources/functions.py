"""AWS::Lambda: functions, permissions, and what happens to asynchronous events."""

from __future__ import annotations

import io
import json
import zipfile
from typing import Any

from lab.aws.services.cloudformation.errors import ResourceError
from lab.aws.services.cloudformation.resources.base import NUMBER, TAGS, TEXT, Env, Props, ResourceType, gone, present


class Function(ResourceType):
    """A function. Its code cannot be read back and does not drift."""

    name = "AWS::Lambda::Function"
    service, operation = "lambda", "CreateFunction"
    hidden = frozenset({"Tags", "Code", "Publish"})
    extra = {
        "Tags": TAGS,
        "Code": {"S3Bucket": TEXT, "S3Key": TEXT, "S3ObjectVersion": TEXT, "ZipFile": TEXT, "ImageUri": TEXT, "SourceKMSKeyArn": TEXT},
        "ReservedConcurrentExecutions": NUMBER,
    }
    required = frozenset({"Code", "Role"})
    replacing = frozenset({"FunctionName", "PackageType"})
    attributes = ("Arn",)
    name_property = "FunctionName"

    def create(self, env: Env, props: Props) -> str:
        name = self.named(env, props)
        params = {**self.parameters(props), "FunctionName": name, "Code": _code(props), "Tags": env.tag_map(props.get("Tags"))}
        env.call("lambda", "create_function", **params)
        env.made(name)
        if "ReservedConcurrentExecutions" in props:
            reserved = props["ReservedConcurrentExecutions"]
            env.call("lambda", "put_function_concurrency", FunctionName=name, ReservedConcurrentExecutions=reserved)
        return name

    def update(self, env: Env, identity: str, old: Props, new: Props) -> None:
        before, after = (self.parameters(props, ("FunctionName", "PackageType", "Architectures")) for props in (old, new))
        if before != after:
            defaults: Props = {"Environment": {"Variables": {}}, "Description": "", "Timeout": 3, "MemorySize": 128}
            defaults["DeadLetterConfig"] = {"TargetArn": ""}
            reset = {key: defaults[key] for key in before if key not in after and key in defaults}
            env.call("lambda", "update_function_configuration", FunctionName=identity, **{**reset, **after})
        if _code(old) != _code(new):
            env.call("lambda", "update_function_code", FunctionName=identity, **_code(new))
        reserved = new.get("ReservedConcurrentExecutions")
        if reserved != old.get("ReservedConcurrentExecutions"):
            if reserved is None:
                env.call("lambda", "delete_function_concurrency", FunctionName=identity)
            else:
                env.call("lambda", "put_function_concurrency", FunctionName=identity, ReservedConcurrentExecutions=reserved)
        given, removed = env.tag_changes(old, new)
        if given:
            env.call("lambda", "tag_resource", Resource=_arn(env, identity), Tags={tag["Key"]: tag["Value"] for tag in given})
        if removed:
            env.call("lambda", "untag_resource", Resource=_arn(env, identity), TagKeys=removed)

    def delete(self, env: Env, identity: str, props: Props) -> None:
        try:
            env.call("lambda", "delete_function", FunctionName=identity)
        except ResourceError as error:
            if not gone(error):
                raise

    def read(self, env: Env, identity: str, props: Props) -> Props | None:
        try:
            found = env.call("lambda", "get_function_configuration", FunctionName=identity)
        except ResourceError as error:
            if gone(error):
                return None
            raise
        return {**present(found, {name: 1 for name in props if name not in ("Code", "Tags")}), "Code": props["Code"]}

    def get(self, env: Env, identity: str, _props: Props) -> dict[str, Any]:
        return {"Arn": _arn(env, identity)}


def _arn(env: Env, name: str) -> str:
    return f"arn:aws:lambda:{env.region}:{env.account}:function:{name}"


def _code(props: Props) -> Props:
    """The code as the API takes it; inline text becomes ``index.py`` in a zip."""
    code = dict(props["Code"])
    if "ZipFile" in code:
        buffer = io.BytesIO()
        with zipfile.ZipFile(buffer, "w") as package:
            package.writestr(zipfile.ZipInfo("index.py"), code["ZipFile"])
        code["ZipFile"] = buffer.getvalue()
    return code


class Permission(ResourceType):
    """A statement of a function's policy."""

    name = "AWS::Lambda::Permission"
    service, operation = "lambda", "AddPermission"
    hidden = frozenset({"StatementId", "Qualifier", "RevisionId", "InvokedViaFunctionUrl"})
    required = frozenset({"Action", "FunctionName", "Principal"})
    attributes = ("Id",)

    def create(self, env: Env, props: Props) -> str:
        sid = env.name(100)
        env.call("lambda", "add_permission", StatementId=sid, **props)
        return sid

    def recreation(self, _name: str) -> str:
        return "Always"

    def delete(self, env: Env, identity: str, props: Props) -> None:
        try:
            env.call("lambda", "remove_permission", FunctionName=props["FunctionName"], StatementId=identity)
        except ResourceError as error:
            if not gone(error):
                raise

    def read(self, env: Env, identity: str, props: Props) -> Props | None:
        try:
            policy = json.loads(env.call("lambda", "get_policy", FunctionName=props["FunctionName"])["Policy"])
        except ResourceError as error:
            if gone(error):
                return None
            raise
        return dict(props) if any(one["Sid"] == identity for one in policy["Statement"]) else None

    def get(self, _env: Env, identity: str, _props: Props) -> dict[str, Any]:
        return {"Id": identity}


class EventInvokeConfig(ResourceType):
    """Retries and destinations of asynchronous events."""

    name = "AWS::Lambda::EventInvokeConfig"
    service, operation = "lambda", "PutFunctionEventInvokeConfig"
    required = frozenset({"FunctionName", "Qualifier"})
    replacing = frozenset({"FunctionName", "Qualifier"})

    def create(self, env: Env, props: Props) -> str:
        if props["Qualifier"] != "$LATEST":
            raise ResourceError("The lab's Lambda keeps $LATEST only", "UnsupportedOperation")
        self.update(env, "", {}, props)
        return env.name()

    def update(self, env: Env, identity: str, old: Props, new: Props) -> None:
        env.call("lambda", "put_function_event_invoke_config", **{key: value for key, value in new.items() if key != "Qualifier"})

    def delete(self, env: Env, identity: str, props: Props) -> None:
        try:
            env.call("lambda", "delete_function_event_invoke_config", FunctionName=props["FunctionName"])
        except ResourceError as error:
            if not gone(error):
                raise

    def read(self, env: Env, identity: str, props: Props) -> Props | None:
        try:
            found = env.call("lambda", "get_function_event_invoke_config", FunctionName=props["FunctionName"])
        except ResourceError as error:
            if gone(error):
                return None
            raise
        actual = present(found, {name: 1 for name in ("MaximumRetryAttempts", "MaximumEventAgeInSeconds") if name in props})
        if "DestinationConfig" in props:
            actual["DestinationConfig"] = {side: found["DestinationConfig"].get(side) for side in props["DestinationConfig"]}
        return {**actual, "FunctionName": props["FunctionName"], "Qualifier": props["Qualifier"]}


TYPES = (Function(), Permission(), EventInvokeConfig())
