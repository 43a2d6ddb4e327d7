"""From what a stack is and what it is to become: the changes, as DescribeChangeSet lists them, and what each does to the resource.

A change that stems from another resource's replacement is Dynamic: whether the value differs is only known when it is made.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from lab.aws.services.cloudformation.intrinsics import references
from lab.aws.services.cloudformation.resources import TYPES

if TYPE_CHECKING:
    from collections.abc import Mapping

    from lab.aws.services.cloudformation.model import Definition, Plan, Resource


def between(resources: Mapping[str, Resource], plan: Plan, old_tags: Mapping[str, str], order: list[str]) -> list[dict[str, Any]]:
    """The changes that bring ``resources`` to ``plan``; empty where there is nothing to do. ``order`` is that of the new template."""
    changes: list[dict[str, Any]] = []
    replaced: set[str] = set()
    for logical in order:
        definition = plan.definitions.get(logical)
        if definition is None:
            continue
        resource = resources.get(logical)
        if resource is None:
            changes.append(_change("Add", definition))
            continue
        details = _details(resource, definition, replaced, old_tags != plan.tags)
        if details:
            replacement = _replacement(details)
            if replacement != "False":
                replaced.add(logical)
            scope = list(dict.fromkeys(detail["Target"]["Attribute"] for detail in details))
            changes.append(_change("Modify", definition, resource.physical, Replacement=replacement, Scope=scope, Details=details))
    for logical, resource in resources.items():
        if logical not in plan.definitions:
            action = "Retain" if resource.definition.deletion == "Retain" else "Delete"
            changes.append(_change("Remove", resource.definition, resource.physical, PolicyAction=action))
    return changes


def _change(action: str, definition: Definition, physical: str = "", **more: Any) -> dict[str, Any]:
    change = {
        "Action": action,
        "LogicalResourceId": definition.logical,
        "PhysicalResourceId": physical or None,
        "ResourceType": definition.type,
        "Scope": [],
        "Details": [],
        **more,
    }
    return {"Type": "Resource", "ResourceChange": change}


def _details(resource: Resource, definition: Definition, replaced: set[str], tags_changed: bool) -> list[dict[str, Any]]:
    """What of a resource changes, property by property."""
    before, after = resource.definition.properties, definition.properties
    kind = TYPES[definition.type]
    details: list[dict[str, Any]] = []
    for name in sorted({*before, *after}):
        attribute = "Tags" if name == "Tags" else "Properties"
        if before.get(name) != after.get(name):
            target: dict[str, Any] = {
                "Attribute": attribute,
                "Name": name if attribute == "Properties" else None,
                "RequiresRecreation": kind.recreation(name),
                "Path": f"/Properties/{name}",
                "BeforeValue": _text(resource.properties.get(name, before.get(name))),
                "AfterValue": _text(after.get(name)),
                "AttributeChangeType": "Add" if name not in before else "Remove" if name not in after else "Modify",
            }
            details.append({"Target": target, "Evaluation": "Static", "ChangeSource": "DirectModification"})
            continue
        for source, read in references(after.get(name)):
            if source in replaced:
                target = {"Attribute": attribute, "Name": name, "RequiresRecreation": kind.recreation(name)}
                cause = f"{source}.{read}" if read else source
                origin = "ResourceAttribute" if read else "ResourceReference"
                details.append({"Target": target, "Evaluation": "Dynamic", "ChangeSource": origin, "CausingEntity": cause})
    for attribute, old, new in (
        ("Metadata", resource.definition.metadata, definition.metadata),
        ("DeletionPolicy", resource.definition.deletion, definition.deletion),
    ):
        if old != new:
            target = {"Attribute": attribute, "RequiresRecreation": "Never"}
            details.append({"Target": target, "Evaluation": "Static", "ChangeSource": "DirectModification"})
    if tags_changed and "Tags" in kind.shapes and not any(detail["Target"]["Attribute"] == "Tags" for detail in details):
        target = {"Attribute": "Tags", "RequiresRecreation": "Never"}
        details.append({"Target": target, "Evaluation": "Static", "ChangeSource": "DirectModification"})
    return details


def _replacement(details: list[dict[str, Any]]) -> str:
    """True, Conditional or False, as the details add up to."""
    needs = [(detail["Target"]["RequiresRecreation"], detail["Evaluation"]) for detail in details]
    if ("Always", "Static") in needs:
        return "True"
    return "Conditional" if any(need != "Never" for need, _ in needs) else "False"


def _text(value: Any) -> str | None:
    return value if value is None or isinstance(value, str) else json.dumps(value)
