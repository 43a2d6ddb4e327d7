"""What a resource type is: its properties (checked against the API's own model), and how to create, update, delete and read it back.

A property that is also a parameter of the API's create operation is declared by that parameter's shape in botocore's model, so that names,
nesting and types are refused as CloudFormation refuses them ("extraneous key [X] is not permitted"), and text such as "300" becomes a
number where the API wants one. `FREE` marks properties that are any JSON, such as policies.
"""

from __future__ import annotations

import functools
import json
import random
import string
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar

import botocore.session

from lab.aws.service import AwsError
from lab.aws.services.cloudformation.errors import ResourceError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from lab.aws.service import World

Props = dict[str, Any]
FREE = object()
TEXT, NUMBER, FLAG, TEXTS = "string", "integer", "boolean", ["string"]
TAGS = [{"Key": TEXT, "Value": TEXT}]
REGION_POLL_S = 1.0


def _forget(_identity: str) -> None:
    """Nobody wants to know."""


@dataclass(frozen=True, slots=True)
class Env:
    """Where a resource is made: its stack and logical name, and the services, called as CloudFormation.

    A creation of several steps tells ``made`` the physical id after the first, so that a failure of a later one leaves nothing behind.
    """

    world: World
    region: str
    account: str
    stack: str
    stack_id: str
    logical: str
    tags: Mapping[str, str]
    previous_tags: Mapping[str, str] = field(default_factory=dict)
    made: Callable[[str], None] = _forget

    def call(self, service: str, operation: str, **params: Any) -> dict[str, Any]:
        """Call a service of the stack's Region; while that Region is down, wait for it. Raises `ResourceError` with the service's words."""
        while True:
            try:
                return self.world.call(self.region, service, operation, **params)
            except AwsError as error:
                if error.code != "RegionUnavailable":
                    raise ResourceError(_handler_message(service, error), error.code) from error
                self.world.clock.sleep(REGION_POLL_S)

    def name(self, limit: int = 64, lower: bool = False) -> str:
        """A name for a resource without one: ``stack-logical-RANDOM``."""
        suffix = "".join(random.choices(string.ascii_uppercase + string.digits, k=12))
        room = limit - len(suffix) - 1
        made = f"{self.stack}-{self.logical}"[:room].rstrip("-") + "-" + suffix
        return made.lower() if lower else made

    def tag_list(self, own: list[dict[str, str]] | None) -> list[dict[str, str]]:
        """The resource's own tags and the stack's, the own ones first in rank."""
        return [{"Key": key, "Value": value} for key, value in self.tag_map(own).items()]

    def tag_map(self, own: list[dict[str, str]] | None) -> dict[str, str]:
        """As `tag_list`, as a map."""
        return {**self.tags, **{tag["Key"]: tag["Value"] for tag in own or []}}

    def tag_changes(self, old: Props, new: Props) -> tuple[list[dict[str, str]], list[str]]:
        """Which tags to set and which to remove when the properties go from ``old`` to ``new``, and the stack's tags with them."""
        before = {**self.previous_tags, **{tag["Key"]: tag["Value"] for tag in old.get("Tags", [])}}
        after = self.tag_map(new.get("Tags"))
        given = [{"Key": key, "Value": value} for key, value in after.items() if before.get(key) != value]
        return given, sorted(set(before) - set(after))


class ResourceType:
    """One type. The defaults suit a type whose properties are the parameters of one operation."""

    name: ClassVar[str]
    service: ClassVar[str] = ""
    operation: ClassVar[str] = ""
    renamed: ClassVar[Mapping[str, str]] = {}  # property -> parameter, where they differ
    hidden: ClassVar[frozenset[str]] = frozenset()  # parameters that are no properties
    extra: ClassVar[Mapping[str, Any]] = {}  # properties that are no parameters: shape in our notation, or FREE
    required: ClassVar[frozenset[str]] = frozenset()
    replacing: ClassVar[frozenset[str]] = frozenset()  # a change makes a new resource
    attributes: ClassVar[tuple[str, ...]] = ()
    name_property: ClassVar[str] = ""
    name_limit: ClassVar[int] = 64
    lower_name: ClassVar[bool] = False
    drift: ClassVar[bool] = True

    # ---- properties

    @functools.cached_property
    def shapes(self) -> dict[str, Any]:
        """Every property's shape."""
        found: dict[str, Any] = {}
        if self.operation:
            shape = _service(self.service).operation_model(self.operation).input_shape
            back = {parameter: name for name, parameter in self.renamed.items()}
            found = {back.get(name, name): member for name, member in shape.members.items() if name not in self.hidden}
        return {**found, **self.extra}

    def checked(self, props: Props) -> Props:
        """The properties with text made into numbers and flags. Raises `ResourceError` that says all that is wrong."""
        problems: list[str] = []
        result: Props = {}
        for name, value in props.items():
            if name not in self.shapes:
                problems.append(f"#: extraneous key [{name}] is not permitted")
            else:
                result[name] = coerce(self.shapes[name], value, f"#/{name}", problems)
        problems += [f"#: required key [{name}] not found" for name in sorted(self.required) if name not in props]
        if problems:
            raise ResourceError(f"Properties validation failed for resource with message: {'; '.join(problems)}", "ValidationException")
        return result

    def recreation(self, name: str) -> str:
        """Whether a change of the property makes a new resource: Always or Never."""
        return "Always" if name in self.replacing else "Never"

    def named(self, env: Env, props: Props) -> str:
        """The resource's name, the given one or one made up."""
        return str(props[self.name_property]) if self.name_property in props else env.name(self.name_limit, self.lower_name)

    def parameters(self, props: Props, without: tuple[str, ...] = ()) -> Props:
        """The properties that are parameters of the operation, under the parameters' names."""
        shape = _service(self.service).operation_model(self.operation).input_shape
        pairs = ((self.renamed.get(name, name), value) for name, value in props.items() if name not in without and name not in self.extra)
        return {name: value for name, value in pairs if name in shape.members}

    # ---- what happens to a resource

    def create(self, env: Env, props: Props) -> str:
        """Make it; its physical id."""
        raise NotImplementedError

    def update(self, env: Env, identity: str, old: Props, new: Props) -> None:
        """Change it in place."""
        raise NotImplementedError

    def delete(self, env: Env, identity: str, props: Props) -> None:
        """Remove it; no error where it is gone."""
        raise NotImplementedError

    def read(self, env: Env, identity: str, props: Props) -> Props | None:
        """The properties as the service has them, of those that can be read; None where the resource is gone."""
        raise NotImplementedError

    def ref(self, _env: Env, identity: str, _props: Props) -> str:
        """What Ref gives."""
        return identity

    def get(self, _env: Env, _identity: str, _props: Props) -> dict[str, Any]:
        """What GetAtt gives, by attribute."""
        return {}


def gone(error: ResourceError) -> bool:
    """Whether a refusal says that the resource does not exist."""
    code = error.args[1] if len(error.args) > 1 else ""
    return any(word in code for word in ("NotFound", "NoSuch", "NonExistent", "DoesNotExist", "InvalidDocument"))


def as_json(value: Any) -> str:
    """A policy or document as JSON text."""
    return value if isinstance(value, str) else json.dumps(value)


def as_data(value: Any) -> Any:
    """A policy or document as data."""
    return json.loads(value) if isinstance(value, str) else value


def coerce(shape: Any, value: Any, path: str, problems: list[str]) -> Any:
    """``value`` as ``shape`` (of botocore, or in our notation) wants it; what does not fit is told."""
    if shape is FREE:
        return value
    kind, members, member = _shape(shape)
    if kind == "structure":
        if not isinstance(value, dict):
            problems.append(f"{path}: expected type: JSONObject, found: {_type(value)}")
            return value
        extra = sorted(set(value) - set(members))
        problems += [f"{path}: extraneous key [{name}] is not permitted" for name in extra]
        return {name: coerce(members[name], item, f"{path}/{name}", problems) for name, item in value.items() if name in members}
    if kind == "list":
        if not isinstance(value, list):
            problems.append(f"{path}: expected type: JSONArray, found: {_type(value)}")
            return value
        return [coerce(member, item, f"{path}/{index}", problems) for index, item in enumerate(value)]
    if kind == "map":
        if not isinstance(value, dict):
            problems.append(f"{path}: expected type: JSONObject, found: {_type(value)}")
            return value
        return {name: coerce(member, item, f"{path}/{name}", problems) for name, item in value.items()}
    return _scalar(kind, value, path, problems)


def _scalar(kind: str, value: Any, path: str, problems: list[str]) -> Any:
    if isinstance(value, dict | list):
        problems.append(f"{path}: expected type: {_TYPES.get(kind, 'String')}, found: {_type(value)}")
        return value
    if kind in ("string", "blob", "timestamp"):
        return "true" if value is True else "false" if value is False else str(value)
    if kind == "boolean":
        if isinstance(value, bool) or str(value).lower() in ("true", "false"):
            return value if isinstance(value, bool) else str(value).lower() == "true"
    elif not isinstance(value, bool):
        try:
            number = float(value)
            if kind in ("integer", "long") and number == int(number):
                return int(number)
            if kind in ("float", "double"):
                return number
        except (TypeError, ValueError):
            pass
    problems.append(f"{path}: expected type: {_TYPES.get(kind, 'Number')}, found: {_type(value)}")
    return value


_TYPES = {"string": "String", "boolean": "Boolean", "integer": "Integer", "long": "Integer", "float": "Number", "double": "Number"}


def _shape(shape: Any) -> tuple[str, Mapping[str, Any], Any]:
    """Kind, members and element of a shape, botocore's or ours (text, a list of one, a dict of members)."""
    if isinstance(shape, str):
        return shape, {}, None
    if isinstance(shape, list):
        return "list", {}, shape[0]
    if isinstance(shape, dict):
        return ("map", {}, shape["*"]) if "*" in shape else ("structure", shape, None)
    kind = shape.type_name
    return kind, shape.members if kind == "structure" else {}, shape.member if kind == "list" else shape.value if kind == "map" else None


def _type(value: Any) -> str:
    names = {dict: "JSONObject", list: "JSONArray", str: "String", bool: "Boolean", int: "Integer", float: "Double"}
    return names.get(type(value), type(value).__name__)


@functools.cache
def _service(name: str) -> Any:
    return botocore.session.get_session().get_service_model(name)


def _handler_message(service: str, error: AwsError) -> str:
    return (
        f'Resource handler returned message: "{error.message} (Service: {service.capitalize()}, Status Code: {error.status})" '
        f"(RequestToken: -, HandlerErrorCode: {_HANDLER_CODES.get(error.code, 'GeneralServiceException')}) [{error.code}]"
    )


_HANDLER_CODES = {
    "AccessDenied": "AccessDenied",
    "AccessDeniedException": "AccessDenied",
    "ConflictException": "AlreadyExists",
    "EntityAlreadyExists": "AlreadyExists",
    "ResourceAlreadyExistsException": "AlreadyExists",
    "ResourceConflictException": "AlreadyExists",
    "ValidationException": "InvalidRequest",
    "ValidationError": "InvalidRequest",
    "InvalidParameterValue": "InvalidRequest",
    "InvalidParameterValueException": "InvalidRequest",
    "ResourceNotFoundException": "NotFound",
}


def present(found: Mapping[str, Any], names: Iterator[str] | Mapping[str, Any]) -> Props:
    """Of what a service gave, what the template speaks of."""
    return {name: found[name] for name in names if name in found}
