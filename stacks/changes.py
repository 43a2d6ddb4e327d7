"""One CloudFormation stack, brought to a template by a change set; resumes what an earlier, interrupted deployment left behind."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from botocore.exceptions import ClientError

TEMPLATE_LIMIT = 51_200
CAPABILITIES = ["CAPABILITY_NAMED_IAM"]
POLL_S = 0.25
POLL_MOST_S = 5.0
STEADY = ("CREATE_COMPLETE", "UPDATE_COMPLETE", "UPDATE_ROLLBACK_COMPLETE")
"""The states in which a stack stands as its template says and can be changed."""
HALF_MADE = ("ROLLBACK_COMPLETE", "ROLLBACK_FAILED", "CREATE_FAILED", "DELETE_FAILED")
"""What an earlier attempt left; `Stack.settle` removes it."""

Progress = Callable[[str, str, str], None]
"""Told of each event: (logical id, status, reason)."""


class DeploymentFailed(Exception):
    """A stack did not reach its template; the text says which resource failed and why."""


@dataclass(frozen=True, slots=True)
class Change:
    """One change that a change set would make. ``replacement`` is CloudFormation's True, False or Conditional, or empty."""

    action: str
    resource: str
    kind: str
    replacement: str = ""
    details: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Stack:
    """A stack in one Region. ``template_url`` is used for bodies over the limit of an inline template."""

    client: Any
    name: str
    tags: dict[str, str]

    def describe(self) -> dict[str, Any] | None:
        """CloudFormation's description, or None where there is no such stack."""
        try:
            stacks: list[dict[str, Any]] = self.client.describe_stacks(StackName=self.name)["Stacks"]
        except ClientError as error:
            if "does not exist" in str(error):
                return None
            raise
        return stacks[0]

    def settle(self, progress: Progress) -> dict[str, Any] | None:
        """Wait until nothing is in progress, and clear what an earlier attempt left: half-made stacks and stuck rollbacks."""
        description = self._wait(progress)
        status = description["StackStatus"] if description else ""
        if status in HALF_MADE:
            progress(self.name, status, "an earlier first deployment failed: the stack is removed and made anew")
            self.client.delete_stack(StackName=self.name)
            return self._wait(progress)
        if status == "UPDATE_ROLLBACK_FAILED":
            progress(self.name, status, "an earlier rollback is continued")
            self.client.continue_update_rollback(StackName=self.name)
            return self._wait(progress)
        return description

    def propose(self, body: str, template_url: str | None, change_set: str) -> list[Change]:
        """Create a change set towards ``body`` and return its changes; an empty list means that nothing would change.

        The stack has to be steady, absent or empty (`settle` sees to that). Raises `DeploymentFailed` where the change set is refused.
        """
        description = self.describe()
        fresh = description is None or description["StackStatus"] == "REVIEW_IN_PROGRESS"
        source = {"TemplateURL": template_url} if template_url and len(body.encode()) > TEMPLATE_LIMIT else {"TemplateBody": body}
        self._drop(change_set)
        self.client.create_change_set(
            StackName=self.name,
            ChangeSetName=change_set,
            ChangeSetType="CREATE" if fresh else "UPDATE",
            Capabilities=CAPABILITIES,
            Tags=[{"Key": key, "Value": value} for key, value in self.tags.items()],
            **source,
        )
        answer = self._wait_for_change_set(change_set)
        if answer["Status"] == "FAILED":
            reason = answer.get("StatusReason", "")
            self._drop(change_set)
            if "didn't contain changes" in reason or "No updates are to be performed" in reason:
                return []
            raise DeploymentFailed(f"{self.name}: the change set was refused: {reason}")
        return [_change(item["ResourceChange"]) for item in answer["Changes"]]

    def clock(self, change_set: str) -> datetime:
        """The service's own time when the change set was made; a laptop's clock may be wrong."""
        created: datetime = self.client.describe_change_set(StackName=self.name, ChangeSetName=change_set)["CreationTime"]
        return created.astimezone(UTC)

    def execute(self, change_set: str, progress: Progress) -> dict[str, Any]:
        """Execute the change set and follow it to its end. Raises `DeploymentFailed` with the first failures."""
        seen = self._event_ids()
        self.client.execute_change_set(StackName=self.name, ChangeSetName=change_set)
        description = self._wait(progress, seen)
        if description is None or description["StackStatus"] not in ("CREATE_COMPLETE", "UPDATE_COMPLETE"):
            raise DeploymentFailed(self._failures(description, seen))
        return description

    def discard(self, change_set: str) -> None:
        """Drop a change set that was only a question, and the empty stack that it made."""
        self._drop(change_set)
        description = self.describe()
        if description and description["StackStatus"] == "REVIEW_IN_PROGRESS":
            self.client.delete_stack(StackName=self.name)

    def delete(self, progress: Progress) -> None:
        """Delete the stack, once what runs has ended, and follow it to its end. Raises `DeploymentFailed`."""
        if self._wait(progress) is None:
            return
        seen = self._event_ids()
        self.client.delete_stack(StackName=self.name)
        description = self._wait(progress, seen)
        if description is not None and description["StackStatus"] != "DELETE_COMPLETE":
            raise DeploymentFailed(self._failures(description, seen))

    def _wait(self, progress: Progress, seen: set[str] | None = None) -> dict[str, Any] | None:
        """Poll until no operation runs; each new event goes to ``progress``."""
        known = self._event_ids() if seen is None else set(seen)
        pause = POLL_S
        while True:
            description = self.describe()
            for event in self._events(known):
                progress(event["LogicalResourceId"], event["ResourceStatus"], event.get("ResourceStatusReason", ""))
            if description is None or not description["StackStatus"].endswith("IN_PROGRESS") or _in_review(description):
                return description
            time.sleep(pause)
            pause = min(pause * 1.3, POLL_MOST_S)

    def _wait_for_change_set(self, change_set: str) -> dict[str, Any]:
        pause = POLL_S
        while True:
            answer: dict[str, Any] = self.client.describe_change_set(StackName=self.name, ChangeSetName=change_set)
            token = answer.get("NextToken")
            while token:
                page = self.client.describe_change_set(StackName=self.name, ChangeSetName=change_set, NextToken=token)
                answer["Changes"] += page["Changes"]
                token = page.get("NextToken")
            if answer["Status"] in ("CREATE_COMPLETE", "FAILED"):
                return answer
            time.sleep(pause)
            pause = min(pause * 1.3, POLL_MOST_S)

    def _drop(self, change_set: str) -> None:
        try:
            self.client.delete_change_set(StackName=self.name, ChangeSetName=change_set)
        except ClientError as error:
            if error.response["Error"]["Code"] not in ("ChangeSetNotFound", "ChangeSetNotFoundException", "ValidationError"):
                raise

    def _events(self, known: set[str]) -> list[dict[str, Any]]:
        """Events that were not known yet, oldest first; ``known`` learns them.

        AWS lists the newest first, a hundred a page: pages are read until one holds a known event. Where none is known, one page is enough.
        """
        fresh: list[dict[str, Any]] = []
        token: dict[str, str] = {}
        while True:
            try:
                answer = self.client.describe_stack_events(StackName=self.name, **token)
            except ClientError as error:
                if "does not exist" in str(error):
                    break
                raise
            unknown = [event for event in answer["StackEvents"] if event["EventId"] not in known]
            fresh += unknown
            if not known or len(unknown) < len(answer["StackEvents"]) or not answer.get("NextToken"):
                break
            token = {"NextToken": answer["NextToken"]}
        known.update(event["EventId"] for event in fresh)
        return fresh[::-1]

    def _event_ids(self) -> set[str]:
        known: set[str] = set()
        self._events(known)
        return known

    def _failures(self, description: dict[str, Any] | None, seen: set[str]) -> str:
        status = description["StackStatus"] if description else "gone"
        events = [event for event in self._events(set(seen)) if event["ResourceStatus"].endswith("FAILED")]
        reasons = [f"{event['LogicalResourceId']}: {event.get('ResourceStatusReason', 'no reason given')}" for event in events[:5]]
        return f"{self.name} ended as {status}" + "".join(f"\n    {reason}" for reason in reasons)


def _in_review(description: dict[str, Any]) -> bool:
    return bool(description["StackStatus"] == "REVIEW_IN_PROGRESS")


def _change(item: dict[str, Any]) -> Change:
    details = {
        ".".join(part for part in (detail["Target"].get("Attribute"), detail["Target"].get("Name")) if part)
        for detail in item.get("Details", ())
        if "Target" in detail
    }
    return Change(item["Action"], item["LogicalResourceId"], item["ResourceType"], item.get("Replacement") or "", tuple(sorted(details)))


def planned(body: str) -> list[Change]:
    """The changes that creating a stack from ``body`` would make, without asking AWS."""
    resources = json.loads(body)["Resources"]
    return [Change("Add", name, resource["Type"]) for name, resource in resources.items()]
