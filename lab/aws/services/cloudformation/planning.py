"""From a request to a `Plan`: the template's text, parameter values, conditions, and every property that does not depend on a resource."""

from __future__ import annotations

import json
import urllib.parse
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from lab.aws.service import AwsError
from lab.aws.services.cloudformation import parameters, template
from lab.aws.services.cloudformation.errors import invalid
from lab.aws.services.cloudformation.intrinsics import Scope, evaluate
from lab.aws.services.cloudformation.model import Definition, Plan
from lab.aws.support import read_object

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from lab.aws.service import Context, World
    from lab.aws.services.cloudformation.model import Resource

MAX_BODY_BYTES = 51_200
MAX_OBJECT_BYTES = 1_048_576


@dataclass(slots=True)
class Lookup:
    """What is known while a stack is planned or made (see `intrinsics.Lookup`). ``imports`` collects the exports that were read."""

    world: World
    region: str
    resources: Mapping[str, Resource]
    exported: Callable[[str], Any]
    imports: set[str] = field(default_factory=set)

    def ref(self, name: str) -> Any:
        """Ref of a resource that exists."""
        resource = self.resources.get(name)
        return resource.ref or None if resource else None

    def attribute(self, name: str, attribute: str) -> Any:
        """GetAtt of a resource that exists."""
        resource = self.resources.get(name)
        return resource.attributes.get(attribute) if resource else None

    def export(self, name: str) -> Any:
        """Another stack's export."""
        self.imports.add(name)
        return self.exported(name)

    def dynamic(self, service: str, reference: str) -> str:
        """A parameter of Systems Manager."""
        if service != "ssm":
            raise invalid(f"The lab's CloudFormation resolves ssm references only, not {service}")
        return self.stored(reference)

    def stored(self, name: str) -> str:
        """A parameter of Systems Manager, by name, with its version after a colon where wished."""
        try:
            return str(self.world.call(self.region, "ssm", "get_parameter", Name=name)["Parameter"]["Value"])
        except AwsError:
            raise invalid(f"Parameters: [{name}] cannot be resolved: it does not exist in Systems Manager") from None


def body_of(world: World, ctx: Context, params: Mapping[str, Any], previous: str | None) -> str:
    """The template's text. Raises `AwsError` where there is none or it is too long."""
    if params.get("UsePreviousTemplate"):
        if previous is None:
            raise invalid("Cannot use the previous template: the stack has none")
        return previous
    if "TemplateBody" in params:
        body = str(params["TemplateBody"])
        if len(body.encode()) > MAX_BODY_BYTES:
            raise invalid(
                f"1 validation error detected: Value '{body[:40]}...' at 'templateBody' failed to satisfy constraint: "
                f"Member must have length less than or equal to {MAX_BODY_BYTES}"
            )
        return body
    if "TemplateURL" not in params:
        raise invalid("Either Template URL or Template Body must be specified.")
    content = _download(world, ctx, str(params["TemplateURL"]))
    if len(content) > MAX_OBJECT_BYTES:
        raise invalid(f"Template may not exceed {MAX_OBJECT_BYTES} bytes in size.")
    return content.decode()


def make(
    world: World,
    ctx: Context,
    stack: tuple[str, str],
    body: str,
    params: Mapping[str, Any],
    previous: Plan | None,
    exported: Callable[[str], Any],
) -> Plan:
    """The plan of a request for the stack ``(name, id)``. Raises `AwsError` for everything that is wrong before a resource is touched."""
    parsed = template.parse(body)
    parsed.check_capabilities(list(params.get("Capabilities", [])))
    lookup = Lookup(world, ctx.region, {}, exported)
    texts = parameters.texts(parsed, list(params.get("Parameters", [])), previous.parameters if previous else {})
    values = {**parameters.values(parsed, texts, lookup.stored), **pseudo(ctx, *stack)}
    scope = Scope(values, parsed.mappings, parsed.conditions, frozenset(), lookup)
    for condition in parsed.conditions:
        scope.condition(condition)
    active = frozenset(name for name, one in parsed.resources.items() if "Condition" not in one or scope.condition(one["Condition"]))
    scope.resources = active
    definitions = {
        name: Definition(
            logical=name,
            type=one["Type"],
            properties=evaluate(one.get("Properties", {}), scope),
            metadata=evaluate(one.get("Metadata"), scope),
            deletion=_policy(one.get("DeletionPolicy")),
            replacement=_policy(one.get("UpdateReplacePolicy")),
            needs=parsed.dependencies[name] & active,
        )
        for name, one in parsed.resources.items()
        if name in active
    }
    outputs = {
        name: {key: evaluate(value, scope) for key, value in one.items() if key != "Condition"}
        for name, one in parsed.outputs.items()
        if "Condition" not in one or scope.condition(one["Condition"])
    }
    tags = {tag["Key"]: tag["Value"] for tag in params["Tags"]} if "Tags" in params else dict(previous.tags) if previous else {}
    return Plan(parsed, texts, definitions, outputs, tags, tuple(params.get("Capabilities", [])), frozenset(lookup.imports))


def resolved(world: World, region: str, resources: Mapping[str, Resource], node: Any) -> Any:
    """``node`` of a plan with the resources at hand. Raises `AwsError` where one is missing after all."""
    lookup = Lookup(world, region, resources, _no_exports)
    return evaluate(node, Scope({}, {}, {}, frozenset(resources), lookup))


def pseudo(ctx: Context, name: str, identity: str) -> dict[str, Any]:
    """The pseudo parameters."""
    return {
        "AWS::AccountId": ctx.account,
        "AWS::NotificationARNs": [],
        "AWS::Partition": "aws",
        "AWS::Region": ctx.region,
        "AWS::StackId": identity,
        "AWS::StackName": name,
        "AWS::URLSuffix": "amazonaws.com",
    }


def canonical(value: Any) -> str:
    """Text that is equal for equal data."""
    return json.dumps(value, sort_keys=True, default=str)


def _policy(policy: str | None) -> str:
    return "Retain" if policy in ("Retain", "RetainExceptOnCreate") else "Delete"


def _no_exports(name: str) -> Any:
    raise invalid(f"No export named {name} found.")


def _download(world: World, ctx: Context, url: str) -> bytes:
    """A template from S3, by any of the forms its address may have."""
    parts = urllib.parse.urlsplit(url)
    host, path = parts.hostname or "", urllib.parse.unquote(parts.path).lstrip("/")
    if host.split(".")[0] == "s3" or host.startswith("s3-") or host.replace(".", "").isdigit() or host == "localhost":
        bucket, _, key = path.partition("/")
    elif ".s3." in host or ".s3-" in host:
        bucket, key = host.split(".s3")[0], path
    else:
        raise invalid("TemplateURL must be a supported URL.")
    version = urllib.parse.parse_qs(parts.query).get("versionId", [None])[0]
    try:
        return read_object(world, ctx.region, bucket, key, version)
    except AwsError as error:
        raise invalid(f"S3 error: {error.message}") from error
