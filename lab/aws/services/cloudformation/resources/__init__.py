"""The resource types that really act. A template with any other type is refused."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lab.aws.services.cloudformation.resources import cloudwatch, functions, identity, messaging, storage, synthetics

if TYPE_CHECKING:
    from lab.aws.services.cloudformation.resources.base import ResourceType

TYPES: dict[str, ResourceType] = {
    one.name: one for module in (cloudwatch, functions, identity, messaging, storage, synthetics) for one in module.TYPES
}
