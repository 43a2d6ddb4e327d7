"""Drift: what the services say of a stack's resources, compared with what the stack made.

Only properties that the template gives are compared, as on AWS. A type that cannot be read back stays NOT_CHECKED.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from lab.aws.services.cloudformation.errors import ResourceError
from lab.aws.services.cloudformation.resources import TYPES
from lab.aws.services.cloudformation.resources.base import Env
from lab.aws.support import stamp

if TYPE_CHECKING:
    from collections.abc import Iterator

    from lab.aws.service import World
    from lab.aws.services.cloudformation.model import Resource, Stack


def detect(world: World, stack: Stack) -> int:
    """Look at every resource; how many have drifted. Raises `ResourceError` where a service refuses to say."""
    drifted = 0
    for resource in list(stack.resources.values()):
        kind = TYPES[resource.definition.type]
        resource.drift_checked = world.clock.now()
        if not kind.drift or not resource.physical:
            resource.drift, resource.actual = "NOT_CHECKED", None
            continue
        env = Env(world, stack.region, stack.account, stack.name, stack.id, resource.definition.logical, {})
        try:
            resource.actual = kind.read(env, resource.physical, resource.properties)
        except ResourceError as error:
            raise ResourceError(f"{resource.definition.logical} cannot be read: {error.args[0]}", "DriftDetection") from error
        resource.drift = "DELETED" if resource.actual is None else "MODIFIED" if differences(resource) else "IN_SYNC"
        drifted += resource.drift != "IN_SYNC"
    stack.drift, stack.drift_checked = "DRIFTED" if drifted else "IN_SYNC", world.clock.now()
    return drifted


def differences(resource: Resource) -> list[dict[str, Any]]:
    """The API's PropertyDifferences."""
    if resource.actual is None:
        return []
    return list(_compare(_compared(resource), resource.actual, ""))


def shown(resource: Resource, stack: Stack) -> dict[str, Any]:
    """The API's StackResourceDrift."""
    return {
        "StackId": stack.id,
        "LogicalResourceId": resource.definition.logical,
        "PhysicalResourceId": resource.physical,
        "ResourceType": resource.definition.type,
        "ExpectedProperties": json.dumps(_compared(resource), sort_keys=True, default=str),
        "ActualProperties": json.dumps(resource.actual, sort_keys=True, default=str) if resource.actual is not None else None,
        "PropertyDifferences": differences(resource),
        "StackResourceDriftStatus": resource.drift,
        "Timestamp": stamp(resource.drift_checked or 0.0),
    }


def _compared(resource: Resource) -> dict[str, Any]:
    """The expected properties; tags, which stack tags join, and what the service does not show are left out."""
    hidden = {"Tags", "StartCanaryAfterCreation", "DeleteLambdaResourcesOnCanaryDeletion"}
    return {key: value for key, value in resource.properties.items() if key not in hidden}


def _compare(expected: Any, actual: Any, path: str) -> Iterator[dict[str, Any]]:
    if isinstance(expected, dict) and isinstance(actual, dict):
        for key, value in expected.items():
            yield from _compare(value, actual.get(key), f"{path}/{key}")
        return
    if _plain(expected) != _plain(actual):
        kind = "REMOVE" if actual is None else "NOT_EQUAL"
        yield {
            "PropertyPath": path,
            "ExpectedValue": _text(expected),
            "ActualValue": _text(actual),
            "DifferenceType": kind,
        }


def _plain(value: Any) -> Any:
    """Values as they compare: numbers by value, lists of names in any order, nothing like empty."""
    if isinstance(value, list):
        items = [_plain(item) for item in value]
        return sorted(items, key=lambda item: json.dumps(item, sort_keys=True, default=str))
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items() if item is not None}
    if isinstance(value, bool):
        return value
    return float(value) if isinstance(value, int | float) else value


def _text(value: Any) -> str:
    return "null" if value is None else value if isinstance(value, str) else json.dumps(value, sort_keys=True, default=str)
