"""A template, taken apart and checked: sections, parameters, references, dependencies, capabilities.

What is wrong is refused as ValidateTemplate and CreateStack refuse it. The properties of resources are checked by their types
(`resources`), when a stack is made.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from lab.aws.services.cloudformation import document
from lab.aws.services.cloudformation.errors import invalid
from lab.aws.services.cloudformation.intrinsics import PSEUDO, walk
from lab.aws.services.cloudformation.resources import TYPES

if TYPE_CHECKING:
    from collections.abc import Mapping

MAX_RESOURCES = 500
_SECTIONS = {
    "AWSTemplateFormatVersion",
    "Conditions",
    "Description",
    "Mappings",
    "Metadata",
    "Outputs",
    "Parameters",
    "Resources",
    "Rules",
    "Transform",
}
_RESOURCE_KEYS = {
    "Condition",
    "CreationPolicy",
    "DeletionPolicy",
    "DependsOn",
    "Description",
    "Metadata",
    "Properties",
    "Type",
    "UpdatePolicy",
    "UpdateReplacePolicy",
}
_LOGICAL_ID = re.compile(r"[A-Za-z0-9]{1,255}")
_IAM = {"AWS::IAM::Role", "AWS::IAM::Policy", "AWS::IAM::ManagedPolicy"}
_IAM_NAMES = {"AWS::IAM::Role": "RoleName", "AWS::IAM::ManagedPolicy": "ManagedPolicyName"}


@dataclass(frozen=True, slots=True)
class Template:
    """The sections of a template. ``body`` is the text it came from."""

    body: str
    description: str
    parameters: Mapping[str, Mapping[str, Any]]
    mappings: Mapping[str, Any]
    conditions: Mapping[str, Any]
    resources: Mapping[str, Mapping[str, Any]]
    outputs: Mapping[str, Mapping[str, Any]]
    dependencies: Mapping[str, frozenset[str]] = field(default_factory=dict)

    def capabilities(self) -> list[str]:
        """What the caller has to acknowledge."""
        used = [one for one in self.resources.values() if one["Type"] in _IAM]
        if any(_IAM_NAMES.get(one["Type"], "-") in one.get("Properties", {}) for one in used):
            return ["CAPABILITY_NAMED_IAM"]
        return ["CAPABILITY_IAM"] if used else []

    def check_capabilities(self, given: list[str]) -> None:
        """Raise InsufficientCapabilitiesException where something was not acknowledged."""
        from lab.aws.service import AwsError

        for needed in self.capabilities():
            if needed not in given and not (needed == "CAPABILITY_IAM" and "CAPABILITY_NAMED_IAM" in given):
                raise AwsError("InsufficientCapabilitiesException", f"Requires capabilities : [{needed}]")

    def capabilities_reason(self) -> str | None:
        """Why capabilities are needed."""
        types = sorted({one["Type"] for one in self.resources.values()} & _IAM)
        return f"The following resource(s) require capabilities: [{', '.join(types)}]" if types else None


def parse(body: str) -> Template:
    """The template in ``body``. Raises `AwsError` (ValidationError) for everything that can be told without parameters."""
    data = document.parse(body)
    _check_sections(data)
    resources = data["Resources"]
    for name, resource in resources.items():
        _check_resource(name, resource)
    unknown = sorted({one["Type"] for one in resources.values()} - set(TYPES))
    if unknown:
        raise invalid(f"Template format error: Unrecognized resource types: [{', '.join(unknown)}]")
    template = Template(
        body,
        str(data.get("Description", "")),
        data.get("Parameters") or {},
        data.get("Mappings") or {},
        data.get("Conditions") or {},
        resources,
        data.get("Outputs") or {},
        {name: _dependencies(name, resource, resources) for name, resource in resources.items()},
    )
    _check_references(template)
    order(template.dependencies)
    return template


def order(dependencies: Mapping[str, frozenset[str]]) -> list[str]:
    """The resources, each after those it depends on. Raises `AwsError` where they go in circles."""
    done: list[str] = []
    left = dict(dependencies)
    while left:
        ready = sorted(name for name, needs in left.items() if not needs & left.keys())
        if not ready:
            raise invalid(f"Circular dependency between resources: [{', '.join(sorted(left))}]")
        done += ready
        for name in ready:
            del left[name]
    return done


def _check_sections(data: Mapping[str, Any]) -> None:
    unknown = sorted(set(data) - _SECTIONS)
    if unknown:
        raise invalid(f"Invalid template property or properties [{', '.join(unknown)}]")
    for section in ("Transform", "Rules"):
        if data.get(section):
            raise invalid(f"Template format error: the lab's CloudFormation does not do {section}")
    if str(data.get("AWSTemplateFormatVersion", "2010-09-09")) != "2010-09-09":
        raise invalid(f"Template format error: {data['AWSTemplateFormatVersion']} is not a supported value for AWSTemplateFormatVersion.")
    if not isinstance(data.get("Resources"), dict) or not data["Resources"]:
        raise invalid("Template format error: At least one Resources member must be defined.")
    if len(data["Resources"]) > MAX_RESOURCES:
        count = len(data["Resources"])
        raise invalid(f"Template format error: Number of resources, {count}, is greater than maximum allowed, {MAX_RESOURCES}")
    for section in ("Parameters", "Mappings", "Conditions", "Outputs"):
        if not isinstance(data.get(section) or {}, dict):
            raise invalid(f"Template format error: Every {section} member must be a map.")
    for name, output in (data.get("Outputs") or {}).items():
        if not isinstance(output, dict) or "Value" not in output:
            raise invalid(f"Template format error: Output {name} is malformed. It must have a Value.")


def _check_resource(name: str, resource: Any) -> None:
    if not _LOGICAL_ID.fullmatch(name):
        raise invalid(f"Template format error: Resource name {name} is non alphanumeric.")
    if not isinstance(resource, dict) or not isinstance(resource.get("Type"), str):
        raise invalid(f"Template format error: [/Resources/{name}] Every Resources object must contain a Type member.")
    extra = sorted(set(resource) - _RESOURCE_KEYS)
    if extra:
        raise invalid(f"Invalid template resource property '{extra[0]}'")
    if not isinstance(resource.get("Properties", {}), dict):
        raise invalid(f"Template format error: [/Resources/{name}/Properties] must be a map.")
    for key in ("DeletionPolicy", "UpdateReplacePolicy"):
        if resource.get(key, "Delete") not in ("Delete", "Retain", "RetainExceptOnCreate"):
            raise invalid(f"Template error: {key} {resource[key]} of {name} is not Delete, Retain or RetainExceptOnCreate")
    for key in ("CreationPolicy", "UpdatePolicy"):
        if key in resource:
            raise invalid(f"Template format error: [/Resources/{name}] the lab's CloudFormation does not do {key}")


def _dependencies(name: str, resource: Mapping[str, Any], resources: Mapping[str, Any]) -> frozenset[str]:
    explicit = resource.get("DependsOn", [])
    found = set(explicit if isinstance(explicit, list) else [explicit])
    unknown = sorted(found - set(resources))
    if unknown:
        listed = ", ".join(unknown)
        raise invalid(f"Template format error: Unresolved resource dependencies [{listed}] in the Resources block of the template")
    for function, argument in walk(resource.get("Properties", {})):
        if function == "Ref" and argument in resources:
            found.add(argument)
        elif function == "Fn::GetAtt" and isinstance(argument, list) and argument[0] in resources:
            found.add(argument[0])
    if name in found:
        raise invalid(f"Circular dependency between resources: [{name}]")
    return frozenset(found)


def _check_references(template: Template) -> None:
    known = {*template.parameters, *template.resources, *PSEUDO}
    for block, nodes in (("Resources", template.resources), ("Outputs", template.outputs)):
        missing = []
        for node in nodes.values():
            for function, argument in walk({key: value for key, value in node.items() if key != "Condition"}):
                if function == "Ref" and argument not in known:
                    missing.append(str(argument))
                elif function == "Fn::GetAtt":
                    _check_attribute(template, argument)
                elif function == "Fn::If" and isinstance(argument, list) and argument and argument[0] not in template.conditions:
                    raise invalid(f"Template error: unresolved condition dependency {argument[0]} in {block} block of the template")
            if "Condition" in node and node["Condition"] not in template.conditions:
                name = node["Condition"]
                raise invalid(f"Template format error: Unresolved condition dependency {name} in the {block} block of the template")
        if missing:
            listed = ", ".join(dict.fromkeys(missing))
            raise invalid(f"Template format error: Unresolved resource dependencies [{listed}] in the {block} block of the template")


def _check_attribute(template: Template, argument: Any) -> None:
    if not isinstance(argument, list) or len(argument) != 2 or not isinstance(argument[0], str):
        raise invalid("Template error: Fn::GetAtt object requires two non-empty parameters, the resource name and the resource attribute")
    name, attribute = argument
    resource = template.resources.get(name)
    if resource is None:
        raise invalid(f"Template error: instance of Fn::GetAtt references undefined resource {name}")
    if isinstance(attribute, str) and attribute not in TYPES[resource["Type"]].attributes:
        raise invalid(f"Template error: resource {name} does not support attribute type {attribute} in Fn::GetAtt")
