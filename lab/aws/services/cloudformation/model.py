"""What CloudFormation keeps of a stack: its resources, events and change sets, and how the API shows them. Times are lab time."""

from __future__ import annotations

import threading
import uuid
from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from lab.aws.support import stamp

if TYPE_CHECKING:
    from lab.aws.services.cloudformation.template import Template

EVENTS_KEPT = 5000


@dataclass(frozen=True, slots=True)
class Definition:
    """A resource as the template wants it: ``properties`` with everything computed that does not depend on other resources."""

    logical: str
    type: str
    properties: dict[str, Any]
    metadata: Any = None
    deletion: str = "Delete"
    replacement: str = "Delete"
    needs: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Plan:
    """A template with its parameters: what a stack is to become."""

    template: Template
    parameters: dict[str, str]
    definitions: dict[str, Definition]
    outputs: dict[str, dict[str, Any]]
    tags: dict[str, str]
    capabilities: tuple[str, ...]
    imports: frozenset[str] = frozenset()


@dataclass(slots=True)
class Resource:
    """A resource that exists (or existed). ``properties`` are those it was made with, fully resolved."""

    definition: Definition
    physical: str = ""
    properties: dict[str, Any] = field(default_factory=dict)
    status: str = ""
    reason: str = ""
    updated: float = 0.0
    ref: str = ""
    attributes: dict[str, Any] = field(default_factory=dict)
    drift: str = "NOT_CHECKED"
    drift_checked: float | None = None
    actual: dict[str, Any] | None = None

    def shown(self) -> dict[str, Any]:
        """What the lists of resources have in common."""
        return {
            "LogicalResourceId": self.definition.logical,
            "PhysicalResourceId": self.physical or None,
            "ResourceType": self.definition.type,
            "ResourceStatus": self.status,
            "ResourceStatusReason": self.reason or None,
            "DriftInformation": self.drift_shown(),
        }

    def drift_shown(self) -> dict[str, Any]:
        """The resource's drift as of the last detection."""
        checked = None if self.drift_checked is None else stamp(self.drift_checked)
        return {"StackResourceDriftStatus": self.drift, "LastCheckTimestamp": checked}


@dataclass(slots=True)
class ChangeSet:
    """A change set. ``changes`` are in the API's shape."""

    name: str
    id: str
    kind: str
    plan: Plan | None
    changes: list[dict[str, Any]]
    created: float
    status: str
    reason: str = ""
    execution: str = "AVAILABLE"
    description: str = ""
    on_failure: str = "ROLLBACK"


@dataclass(slots=True)
class Stack:
    """A stack. ``plan`` is what it was last brought to; ``lock`` guards everything in it."""

    name: str
    id: str
    region: str
    account: str
    created: float
    status: str
    reason: str = ""
    plan: Plan | None = None
    description: str = ""
    updated: float | None = None
    deleted: float | None = None
    protected: bool = False
    disable_rollback: bool = False
    resources: dict[str, Resource] = field(default_factory=dict)
    outputs: dict[str, dict[str, Any]] = field(default_factory=dict)
    events: deque[dict[str, Any]] = field(default_factory=lambda: deque(maxlen=EVENTS_KEPT))
    change_sets: dict[str, ChangeSet] = field(default_factory=dict)
    last_change_set: str = ""
    drift: str = "NOT_CHECKED"
    drift_checked: float | None = None
    lock: threading.RLock = field(default_factory=threading.RLock)

    @property
    def busy(self) -> bool:
        """Whether an operation is under way."""
        return self.status.endswith("_IN_PROGRESS") and self.status != "REVIEW_IN_PROGRESS"

    def record(self, now: float, logical: str, kind: str, physical: str, status: str, reason: str = "", properties: str = "") -> None:
        """Add an event."""
        event = {
            "StackId": self.id,
            "EventId": f"{logical}-{status}-{stamp(now).isoformat()}" if kind != "AWS::CloudFormation::Stack" else str(uuid.uuid4()),
            "StackName": self.name,
            "LogicalResourceId": logical,
            "PhysicalResourceId": physical,
            "ResourceType": kind,
            "Timestamp": stamp(now),
            "ResourceStatus": status,
            "ResourceStatusReason": reason or None,
            "ResourceProperties": properties or None,
        }
        with self.lock:
            self.events.appendleft(event)

    def become(self, now: float, status: str, reason: str = "") -> None:
        """Change the stack's status, with an event."""
        with self.lock:
            self.status, self.reason = status, reason
            self.record(now, self.name, "AWS::CloudFormation::Stack", self.id, status, reason)

    def shown(self) -> dict[str, Any]:
        """The API's Stack."""
        plan = self.plan
        with self.lock:
            parameters = plan.template.parameters if plan else {}
            return {
                "StackId": self.id,
                "StackName": self.name,
                "ChangeSetId": self.last_change_set or None,
                "Description": self.description or None,
                "Parameters": [
                    {"ParameterKey": key, "ParameterValue": "****" if str(parameters[key].get("NoEcho")).lower() == "true" else value}
                    for key, value in (plan.parameters.items() if plan else ())
                ],
                "CreationTime": stamp(self.created),
                "DeletionTime": None if self.deleted is None else stamp(self.deleted),
                "LastUpdatedTime": None if self.updated is None else stamp(self.updated),
                "RollbackConfiguration": {},
                "StackStatus": self.status,
                "StackStatusReason": self.reason or None,
                "DisableRollback": self.disable_rollback,
                "NotificationARNs": [],
                "Capabilities": list(plan.capabilities) if plan else [],
                "Outputs": list(self.outputs.values()),
                "Tags": [{"Key": key, "Value": value} for key, value in (plan.tags.items() if plan else ())],
                "EnableTerminationProtection": self.protected,
                "DriftInformation": self.drift_shown(),
            }

    def drift_shown(self) -> dict[str, Any]:
        """The stack's drift as of the last detection."""
        return {"StackDriftStatus": self.drift, "LastCheckTimestamp": None if self.drift_checked is None else stamp(self.drift_checked)}
