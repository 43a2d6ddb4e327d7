"""All stacks of the lab: found by name, id, resource or change set, and tied together by exports."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

from lab.aws.service import AwsError
from lab.aws.services.cloudformation.errors import invalid, missing

if TYPE_CHECKING:
    from collections.abc import Mapping

    from lab.aws.service import Context
    from lab.aws.services.cloudformation.model import ChangeSet, Stack


class Stacks:
    """Every stack that was ever made, deleted ones included. Hold ``lock`` to look and change in one step."""

    def __init__(self) -> None:
        self.all: list[Stack] = []
        self.lock = threading.RLock()

    def active(self, region: str, name: str) -> Stack | None:
        """The stack of that name that is not deleted."""
        return next((one for one in self.all if (one.region, one.name) == (region, name) and one.status != "DELETE_COMPLETE"), None)

    def find(self, region: str, name: str) -> Stack | None:
        """By name (not deleted) or id."""
        with self.lock:
            if name.startswith("arn:"):
                return next((one for one in self.all if one.id == name and one.region == region), None)
            return self.active(region, name)

    def get(self, ctx: Context, name: str, deleted: bool = False) -> Stack:
        """One that exists, by name or id. Raises `AwsError` where there is none."""
        stack = self.find(ctx.region, name)
        if stack is None or (stack.status == "DELETE_COMPLETE" and not deleted):
            raise missing(name)
        return stack

    def holder(self, ctx: Context, physical: str) -> Stack:
        """The stack that has a resource."""
        with self.lock:
            for stack in self.all:
                if stack.region == ctx.region and any(one.physical == physical for one in stack.resources.values()):
                    return stack
        raise invalid(f"Stack for {physical} does not exist")

    def change_set(self, stack: Stack, name: str) -> ChangeSet:
        """A change set of a stack, by name or id. Raises `AwsError`."""
        found = next((one for one in stack.change_sets.values() if name in (one.name, one.id)), None)
        if found is None:
            raise AwsError("ChangeSetNotFound", f"ChangeSet [{name}] does not exist", 404)
        return found

    def both(self, ctx: Context, params: dict[str, Any]) -> tuple[Stack, ChangeSet]:
        """A stack and one of its change sets, named in a request."""
        name = params["ChangeSetName"]
        if "StackName" in params:
            stack = self.get(ctx, params["StackName"])
            return stack, self.change_set(stack, name)
        with self.lock:
            for stack in self.all:
                for one in stack.change_sets.values():
                    if one.id == name and stack.region == ctx.region:
                        return stack, one
        raise AwsError("ChangeSetNotFound", f"ChangeSet [{name}] does not exist", 404)

    def exports(self, region: str) -> dict[str, tuple[Stack, str]]:
        """Every export of the Region: whose it is and its value."""
        with self.lock:
            return {
                output["ExportName"]: (stack, output["OutputValue"])
                for stack in self.all
                if stack.region == region and stack.status != "DELETE_COMPLETE"
                for output in stack.outputs.values()
                if output.get("ExportName")
            }

    def exported(self, region: str, name: str) -> str:
        """The value of an export. Raises `AwsError` where there is none."""
        found = self.exports(region).get(name)
        if found is None:
            raise invalid(f"No export named {name} found.")
        return found[1]

    def importers(self, region: str, export: str) -> list[str]:
        """The stacks that import an export."""
        with self.lock:
            return [
                one.name
                for one in self.all
                if one.region == region and one.status != "DELETE_COMPLETE" and one.plan and export in one.plan.imports
            ]

    def check_exports_free(self, stack: Stack, kept: Mapping[str, str]) -> None:
        """Raise where an export that another stack imports would change or go."""
        for output in stack.outputs.values():
            name = output.get("ExportName") or ""
            users = self.importers(stack.region, name) if name else []
            if not users or kept.get(name) == output["OutputValue"]:
                continue
            verb = "updated" if name in kept else "deleted"
            raise invalid(f"Export {name} cannot be {verb} as it is in use by {', '.join(users)}")
