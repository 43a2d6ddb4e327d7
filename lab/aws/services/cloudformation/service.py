"""The operations of CloudFormation: stacks, change sets, drift.

Reference: https://docs.aws.amazon.com/AWSCloudFormation/latest/APIReference/. Templates are planned while the caller waits; stacks are
made, changed and deleted in the background (`operation`). What the lab does not do (nested stacks, imports, hooks, stack policies, roles)
is refused.
"""

from __future__ import annotations

import re
import threading
import uuid
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from lab.aws.service import AwsError
from lab.aws.services.cloudformation import changes, drift, planning, template
from lab.aws.services.cloudformation.errors import ResourceError, invalid
from lab.aws.services.cloudformation.model import ChangeSet, Plan, Resource, Stack
from lab.aws.services.cloudformation.operation import Operation, Step
from lab.aws.services.cloudformation.stacks import Stacks
from lab.aws.support import page, stamp

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from lab.aws.service import Context, World

NO_CHANGES = "The submitted information didn't contain changes. Submit different information to create a change set."
_NAME = re.compile(r"[a-zA-Z][-a-zA-Z0-9]{0,127}")
_UPDATABLE = {"CREATE_COMPLETE", "UPDATE_COMPLETE", "UPDATE_ROLLBACK_COMPLETE"}
_UNSUPPORTED = (
    "RoleARN",
    "NotificationARNs",
    "StackPolicyBody",
    "StackPolicyURL",
    "ResourcesToImport",
    "IncludeNestedStacks",
    "DeploymentMode",
)


@dataclass(slots=True)
class _Detection:
    """One run of DetectStackDrift."""

    stack: Stack
    id: str
    started: float
    status: str = "DETECTION_IN_PROGRESS"
    reason: str = ""
    drifted: int = 0


class Service:
    """CloudFormation of all Regions."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._stacks = Stacks()
        self._detections: dict[str, _Detection] = {}
        self._unfinished: dict[str, list[Step]] = {}

    # ---- templates

    def validate_template(self, ctx: Context, params: dict[str, Any]) -> dict[str, Any]:
        """What a template asks for."""
        parsed = template.parse(planning.body_of(self._world, ctx, params, None))
        return _summary(parsed)

    def get_template_summary(self, ctx: Context, params: dict[str, Any]) -> dict[str, Any]:
        """As ValidateTemplate, also for a stack."""
        body = self._stacks.get(ctx, params["StackName"]).plan if "StackName" in params else None
        parsed = body.template if body else template.parse(planning.body_of(self._world, ctx, params, None))
        types = sorted({one["Type"] for one in parsed.resources.values()})
        return {**_summary(parsed), "ResourceTypes": types, "Version": "2010-09-09"}

    def get_template(self, ctx: Context, params: dict[str, Any]) -> dict[str, Any]:
        """The text a stack or change set was made from."""
        stack = self._stacks.get(ctx, params["StackName"])
        plan = self._stacks.change_set(stack, params["ChangeSetName"]).plan if "ChangeSetName" in params else stack.plan
        return {"TemplateBody": plan.template.body if plan else "", "StagesAvailable": ["Original", "Processed"]}

    # ---- stacks

    def create_stack(self, ctx: Context, params: dict[str, Any]) -> dict[str, Any]:
        """Make a stack, in the background."""
        _refuse_unsupported(params)
        name = params["StackName"]
        with self._stacks.lock:
            if self._stacks.active(ctx.region, name):
                raise AwsError("AlreadyExistsException", f"Stack [{name}] already exists")
            stack = self._new(ctx, name, "CREATE_IN_PROGRESS")
            plan = self._plan(ctx, stack, params)
            stack.plan, stack.description = plan, plan.template.description
            stack.protected = bool(params.get("EnableTerminationProtection"))
            stack.disable_rollback = bool(params.get("DisableRollback"))
            self._stacks.all.append(stack)
        stack.become(ctx.now, "CREATE_IN_PROGRESS", "User Initiated")
        on_failure = params.get("OnFailure") or ("DO_NOTHING" if stack.disable_rollback else "ROLLBACK")
        self._background(stack, lambda: self._create(stack, plan, on_failure))
        return {"StackId": stack.id}

    def update_stack(self, ctx: Context, params: dict[str, Any]) -> dict[str, Any]:
        """Change a stack, in the background."""
        _refuse_unsupported(params)
        stack = self._stacks.get(ctx, params["StackName"])
        with stack.lock:
            _check_updatable(stack)
            plan = self._plan(ctx, stack, params)
            if not self._changes(stack, plan) and not _outputs_differ(stack.plan, plan):
                raise invalid("No updates are to be performed.")
            stack.updated = ctx.now
            stack.become(ctx.now, "UPDATE_IN_PROGRESS", "User Initiated")
        self._background(stack, lambda: self._update(stack, plan))
        return {"StackId": stack.id}

    def delete_stack(self, ctx: Context, params: dict[str, Any]) -> None:
        """Delete a stack, in the background; no error where there is none."""
        stack = self._stacks.find(ctx.region, params["StackName"])
        if stack is None or stack.status == "DELETE_COMPLETE":
            return
        with stack.lock:
            if stack.protected:
                raise invalid(f"Stack [{stack.name}] cannot be deleted while TerminationProtection is enabled")
            if stack.busy:
                raise invalid(f"Stack [{stack.name}] cannot be deleted while in status {stack.status}")
            retained = frozenset(params.get("RetainResources", []))
            if retained and stack.status != "DELETE_FAILED":
                raise invalid("Invalid operation on stack: specify resources to retain only when the stack is in the DELETE_FAILED state.")
            unknown = retained - stack.resources.keys()
            if unknown:
                raise invalid(f"Resources to retain [{', '.join(sorted(unknown))}] are not in the stack")
            self._stacks.check_exports_free(stack, {})
            stack.become(ctx.now, "DELETE_IN_PROGRESS", "User Initiated")
        self._background(stack, lambda: self._delete(stack, retained))

    def describe_stacks(self, ctx: Context, params: dict[str, Any]) -> dict[str, Any]:
        """One stack, by name or id, or all that are not deleted."""
        if "StackName" in params:
            return {"Stacks": [self._stacks.get(ctx, params["StackName"], deleted=True).shown()]}
        with self._stacks.lock:
            found = [one.shown() for one in self._stacks.all if one.region == ctx.region and one.status != "DELETE_COMPLETE"]
        shown, token = page(found, params.get("NextToken"), 100)
        return {"Stacks": shown, "NextToken": token}

    def list_stacks(self, ctx: Context, params: dict[str, Any]) -> dict[str, Any]:
        """All stacks, deleted ones too, unless filtered."""
        wanted = params.get("StackStatusFilter")
        with self._stacks.lock:
            found = [_summary_of(one) for one in self._stacks.all if one.region == ctx.region and (not wanted or one.status in wanted)]
        shown, token = page(found, params.get("NextToken"), 100)
        return {"StackSummaries": shown, "NextToken": token}

    def describe_stack_events(self, ctx: Context, params: dict[str, Any]) -> dict[str, Any]:
        """What happened, the latest first."""
        stack = self._stacks.get(ctx, params["StackName"], deleted=True)
        with stack.lock:
            events = list(stack.events)
        shown, token = page(events, params.get("NextToken"), 100)
        return {"StackEvents": shown, "NextToken": token}

    def describe_stack_resources(self, ctx: Context, params: dict[str, Any]) -> dict[str, Any]:
        """The resources of a stack, or the one with a physical id."""
        physical = params.get("PhysicalResourceId")
        stack = self._stacks.holder(ctx, physical) if physical else self._stacks.get(ctx, params.get("StackName", ""), deleted=True)
        only = params.get("LogicalResourceId")
        with stack.lock:
            chosen = [one for one in stack.resources.values() if only in (None, one.definition.logical)]
            return {"StackResources": [{**_placed(stack, one), "Timestamp": stamp(one.updated)} for one in chosen]}

    def describe_stack_resource(self, ctx: Context, params: dict[str, Any]) -> dict[str, Any]:
        """One resource."""
        stack = self._stacks.get(ctx, params["StackName"], deleted=True)
        resource = stack.resources.get(params["LogicalResourceId"])
        if resource is None:
            raise invalid(f"Resource {params['LogicalResourceId']} does not exist for stack {stack.name}")
        return {"StackResourceDetail": {**_placed(stack, resource), "LastUpdatedTimestamp": stamp(resource.updated)}}

    def list_stack_resources(self, ctx: Context, params: dict[str, Any]) -> dict[str, Any]:
        """The resources of a stack."""
        stack = self._stacks.get(ctx, params["StackName"], deleted=True)
        with stack.lock:
            found = [{**one.shown(), "LastUpdatedTimestamp": stamp(one.updated)} for one in stack.resources.values()]
        shown, token = page(found, params.get("NextToken"), 100)
        return {"StackResourceSummaries": shown, "NextToken": token}

    def update_termination_protection(self, ctx: Context, params: dict[str, Any]) -> dict[str, Any]:
        """Guard a stack against deletion, or not."""
        stack = self._stacks.get(ctx, params["StackName"])
        stack.protected = params["EnableTerminationProtection"]
        return {"StackId": stack.id}

    def continue_update_rollback(self, ctx: Context, params: dict[str, Any]) -> None:
        """Go on with a rollback that failed, leaving ResourcesToSkip as they are."""
        stack = self._stacks.get(ctx, params["StackName"])
        if stack.status != "UPDATE_ROLLBACK_FAILED":
            raise invalid(f"Stack:{stack.id} is in {stack.status} state and can not continue rollback")
        steps = self._unfinished.pop(stack.id, [])
        skip = frozenset(params.get("ResourcesToSkip", []))
        stack.become(ctx.now, "UPDATE_ROLLBACK_IN_PROGRESS", "User Initiated")
        self._background(stack, lambda: self._undo(stack, steps, skip))

    def list_exports(self, ctx: Context, params: dict[str, Any]) -> dict[str, Any]:
        """The Region's exports."""
        exports = sorted(self._stacks.exports(ctx.region).items())
        found = [{"ExportingStackId": stack.id, "Name": name, "Value": value} for name, (stack, value) in exports]
        shown, token = page(found, params.get("NextToken"), 100)
        return {"Exports": shown, "NextToken": token}

    def list_imports(self, ctx: Context, params: dict[str, Any]) -> dict[str, Any]:
        """Which stacks import an export."""
        users = self._stacks.importers(ctx.region, params["ExportName"])
        if not users:
            raise invalid(f"Export '{params['ExportName']}' is not imported by any stack.")
        return {"Imports": users}

    # ---- change sets

    def create_change_set(self, ctx: Context, params: dict[str, Any]) -> dict[str, Any]:
        """Work out what would change. One without changes is FAILED."""
        _refuse_unsupported(params)
        name, wanted, kind = params["StackName"], params["ChangeSetName"], params.get("ChangeSetType", "UPDATE")
        if kind == "IMPORT":
            raise AwsError("UnsupportedOperation", "The lab's CloudFormation does not import resources")
        with self._stacks.lock:
            stack = self._stacks.active(ctx.region, name)
            if kind == "CREATE":
                if stack is not None and stack.status != "REVIEW_IN_PROGRESS":
                    raise invalid(f"Stack [{name}] already exists and cannot be created again with the changeSet [{wanted}].")
                fresh = stack is None
                stack = stack or self._new(ctx, name, "REVIEW_IN_PROGRESS")
            else:
                if stack is None or stack.status == "REVIEW_IN_PROGRESS":
                    raise invalid(f"Stack [{name}] does not exist")
                fresh = False
                _check_updatable(stack)
            if wanted in stack.change_sets:
                raise AwsError("AlreadyExistsException", f"ChangeSet {wanted} cannot be created: it exists already")
            plan = self._plan(ctx, stack, params)
            if fresh:
                self._stacks.all.append(stack)
                stack.become(ctx.now, "REVIEW_IN_PROGRESS", "User Initiated")
        listed = self._changes(stack, plan)
        differs = bool(listed) or _outputs_differ(stack.plan, plan)
        arn = f"arn:aws:cloudformation:{ctx.region}:{ctx.account}:changeSet/{params['ChangeSetName']}/{uuid.uuid4()}"
        change_set = ChangeSet(
            name=params["ChangeSetName"],
            id=arn,
            kind=kind,
            plan=plan,
            changes=listed,
            created=ctx.now,
            status="CREATE_COMPLETE" if differs else "FAILED",
            reason="" if differs else NO_CHANGES,
            execution="AVAILABLE" if differs else "UNAVAILABLE",
            description=params.get("Description", ""),
            on_failure=params.get("OnStackFailure", "ROLLBACK"),
        )
        stack.change_sets[change_set.name] = change_set
        return {"Id": arn, "StackId": stack.id}

    def describe_change_set(self, ctx: Context, params: dict[str, Any]) -> dict[str, Any]:
        """A change set with its changes, a hundred a page."""
        stack, change_set = self._stacks.both(ctx, params)
        shown, token = page(change_set.changes, params.get("NextToken"), 100)
        plan = change_set.plan
        return {
            "ChangeSetName": change_set.name,
            "ChangeSetId": change_set.id,
            "StackId": stack.id,
            "StackName": stack.name,
            "Description": change_set.description or None,
            "Parameters": [{"ParameterKey": key, "ParameterValue": value} for key, value in (plan.parameters.items() if plan else ())],
            "CreationTime": stamp(change_set.created),
            "ExecutionStatus": change_set.execution,
            "Status": change_set.status,
            "StatusReason": change_set.reason or None,
            "NotificationARNs": [],
            "RollbackConfiguration": {},
            "Capabilities": list(plan.capabilities) if plan else [],
            "Tags": [{"Key": key, "Value": value} for key, value in (plan.tags.items() if plan else ())],
            "Changes": shown,
            "NextToken": token,
            "OnStackFailure": change_set.on_failure if change_set.kind == "CREATE" else None,
        }

    def list_change_sets(self, ctx: Context, params: dict[str, Any]) -> dict[str, Any]:
        """The change sets of a stack."""
        stack = self._stacks.get(ctx, params["StackName"])
        found = [
            {
                "StackId": stack.id,
                "StackName": stack.name,
                "ChangeSetId": one.id,
                "ChangeSetName": one.name,
                "ExecutionStatus": one.execution,
                "Status": one.status,
                "StatusReason": one.reason or None,
                "CreationTime": stamp(one.created),
                "Description": one.description or None,
            }
            for one in stack.change_sets.values()
        ]
        shown, token = page(found, params.get("NextToken"), 100)
        return {"Summaries": shown, "NextToken": token}

    def delete_change_set(self, ctx: Context, params: dict[str, Any]) -> None:
        """Drop a change set; no error where it is gone."""
        try:
            stack, change_set = self._stacks.both(ctx, params)
        except AwsError as error:
            if error.code == "ChangeSetNotFound":
                return
            raise
        if change_set.execution == "EXECUTE_IN_PROGRESS":
            raise AwsError("InvalidChangeSetStatus", f"ChangeSet [{change_set.id}] is being executed")
        stack.change_sets.pop(change_set.name, None)

    def execute_change_set(self, ctx: Context, params: dict[str, Any]) -> None:
        """Do what a change set says, in the background; the stack's other change sets are void then."""
        stack, change_set = self._stacks.both(ctx, params)
        with stack.lock:
            plan = change_set.plan
            if change_set.execution != "AVAILABLE" or plan is None:
                raise AwsError(
                    "InvalidChangeSetStatus",
                    f"ChangeSet [{change_set.id}] cannot be executed in its current execution status of [{change_set.execution}]",
                )
            if change_set.kind == "UPDATE":
                _check_updatable(stack)
            change_set.execution = "EXECUTE_IN_PROGRESS"
            stack.change_sets = {change_set.name: change_set}
            stack.last_change_set = change_set.id
            stack.disable_rollback = bool(params.get("DisableRollback"))
            if change_set.kind == "CREATE":
                stack.plan, stack.description = plan, plan.template.description
                stack.become(ctx.now, "CREATE_IN_PROGRESS", "User Initiated")
            else:
                stack.updated = ctx.now
                stack.become(ctx.now, "UPDATE_IN_PROGRESS", "User Initiated")
        on_failure = "DO_NOTHING" if stack.disable_rollback else change_set.on_failure

        def work() -> None:
            if change_set.kind == "CREATE":
                self._create(stack, plan, on_failure)
            else:
                self._update(stack, plan)
            good = stack.status in ("CREATE_COMPLETE", "UPDATE_COMPLETE")
            change_set.execution = "EXECUTE_COMPLETE" if good else "EXECUTE_FAILED"

        self._background(stack, work)

    # ---- drift

    def detect_stack_drift(self, ctx: Context, params: dict[str, Any]) -> dict[str, Any]:
        """Compare a stack with what is, in the background."""
        stack = self._stacks.get(ctx, params["StackName"])
        if stack.busy or stack.status == "REVIEW_IN_PROGRESS":
            raise invalid(f"Drift detection cannot be performed on stack {stack.name} in status {stack.status}")
        detection = _Detection(stack, str(uuid.uuid4()), ctx.now)
        self._detections[detection.id] = detection

        def work() -> None:
            try:
                detection.drifted = drift.detect(self._world, stack)
                detection.status = "DETECTION_COMPLETE"
            except ResourceError as error:
                detection.status, detection.reason = "DETECTION_FAILED", str(error.args[0])

        threading.Thread(target=work, name=f"drift-{stack.name}", daemon=True).start()
        return {"StackDriftDetectionId": detection.id}

    def describe_stack_drift_detection_status(self, _ctx: Context, params: dict[str, Any]) -> dict[str, Any]:
        """How far a detection is."""
        found = self._detections.get(params["StackDriftDetectionId"])
        if found is None:
            raise invalid(f"Drift detection id {params['StackDriftDetectionId']} does not exist")
        done = found.status == "DETECTION_COMPLETE"
        return {
            "StackId": found.stack.id,
            "StackDriftDetectionId": found.id,
            "StackDriftStatus": found.stack.drift if done else None,
            "DetectionStatus": found.status,
            "DetectionStatusReason": found.reason or None,
            "DriftedStackResourceCount": found.drifted if done else None,
            "Timestamp": stamp(found.started),
        }

    def describe_stack_resource_drifts(self, ctx: Context, params: dict[str, Any]) -> dict[str, Any]:
        """What the last detection found, resource by resource."""
        stack = self._stacks.get(ctx, params["StackName"])
        wanted = params.get("StackResourceDriftStatusFilters")
        checked = [one for one in stack.resources.values() if one.drift_checked is not None]
        found = [drift.shown(one, stack) for one in checked if not wanted or one.drift in wanted]
        shown, token = page(found, params.get("NextToken"), params.get("MaxResults", 100))
        return {"StackResourceDrifts": shown, "NextToken": token}

    # ---- in the background

    def _background(self, stack: Stack, work: Callable[[], None]) -> None:
        threading.Thread(target=work, name=f"cloudformation-{stack.name}", daemon=True).start()

    def _create(self, stack: Stack, plan: Plan, on_failure: str) -> None:
        Operation(self._world, stack).create(plan, lambda one: self._publish(stack, one), on_failure)

    def _update(self, stack: Stack, plan: Plan) -> None:
        def publish(one: Plan) -> None:
            self._publish(stack, one)
            stack.plan, stack.description = one, one.template.description

        left = Operation(self._world, stack).update(plan, publish)
        if left:
            self._unfinished[stack.id] = left

    def _undo(self, stack: Stack, steps: list[Step], skip: frozenset[str]) -> None:
        left = Operation(self._world, stack).undo(steps, stack.plan, lambda one: self._publish(stack, one), skip)
        if left:
            self._unfinished[stack.id] = left

    def _delete(self, stack: Stack, retained: frozenset[str]) -> None:
        if Operation(self._world, stack).delete(retained):
            stack.outputs = {}

    def _publish(self, stack: Stack, plan: Plan) -> None:
        """Compute the outputs of ``plan`` and let them be the stack's. Raises `AwsError` where an export is taken or in use."""
        outputs: dict[str, dict[str, Any]] = {}
        exports: dict[str, str] = {}
        for name, one in plan.outputs.items():
            value = planning.resolved(self._world, stack.region, stack.resources, one)
            exported = value.get("Export", {}).get("Name")
            text = ",".join(map(str, value["Value"])) if isinstance(value["Value"], list) else str(value["Value"])
            outputs[name] = {"OutputKey": name, "OutputValue": text, "Description": value.get("Description"), "ExportName": exported}
            if exported:
                exports[exported] = text
        taken = self._stacks.exports(stack.region)
        for exported in exports:
            if exported in taken and taken[exported][0] is not stack:
                raise invalid(f"Export with name {exported} is already exported by stack {taken[exported][0].name}.")
        self._stacks.check_exports_free(stack, exports)
        stack.outputs = outputs

    # ---- what the operations have in common

    def _plan(self, ctx: Context, stack: Stack, params: dict[str, Any]) -> Plan:
        body = planning.body_of(self._world, ctx, params, stack.plan.template.body if stack.plan else None)
        identity = (stack.name, stack.id)
        return planning.make(self._world, ctx, identity, body, params, stack.plan, lambda name: self._stacks.exported(ctx.region, name))

    def _changes(self, stack: Stack, plan: Plan) -> list[dict[str, Any]]:
        order = template.order(plan.template.dependencies)
        tags: Mapping[str, str] = stack.plan.tags if stack.plan else {}
        return changes.between(stack.resources, plan, tags, order)

    def _new(self, ctx: Context, name: str, status: str) -> Stack:
        if not _NAME.fullmatch(name):
            raise invalid(
                f"1 validation error detected: Value '{name}' at 'stackName' failed to satisfy constraint: "
                "Member must satisfy regular expression pattern: [a-zA-Z][-a-zA-Z0-9]*"
            )
        identity = f"arn:aws:cloudformation:{ctx.region}:{ctx.account}:stack/{name}/{uuid.uuid4()}"
        return Stack(name, identity, ctx.region, ctx.account, ctx.now, status)


def _refuse_unsupported(params: Mapping[str, Any]) -> None:
    for key in _UNSUPPORTED:
        if params.get(key):
            raise AwsError("UnsupportedOperation", f"The lab's CloudFormation does not do {key}")
    if params.get("RollbackConfiguration", {}).get("RollbackTriggers"):
        raise AwsError("UnsupportedOperation", "The lab's CloudFormation does not do rollback triggers")


def _check_updatable(stack: Stack) -> None:
    if stack.status not in _UPDATABLE:
        raise invalid(f"Stack:{stack.id} is in {stack.status} state and can not be updated.")


def _outputs_differ(old: Plan | None, new: Plan) -> bool:
    return old is None or planning.canonical(old.outputs) != planning.canonical(new.outputs)


def _summary(parsed: template.Template) -> dict[str, Any]:
    """What ValidateTemplate tells."""
    return {
        "Parameters": [
            {
                "ParameterKey": key,
                "DefaultValue": None if "Default" not in one else str(one["Default"]),
                "NoEcho": str(one.get("NoEcho", False)).lower() == "true",
                "Description": one.get("Description"),
                "ParameterType": one.get("Type", "String"),
            }
            for key, one in parsed.parameters.items()
        ],
        "Description": parsed.description or None,
        "Capabilities": parsed.capabilities(),
        "CapabilitiesReason": parsed.capabilities_reason(),
    }


def _summary_of(stack: Stack) -> dict[str, Any]:
    return {
        "StackId": stack.id,
        "StackName": stack.name,
        "TemplateDescription": stack.description or None,
        "CreationTime": stamp(stack.created),
        "LastUpdatedTime": None if stack.updated is None else stamp(stack.updated),
        "DeletionTime": None if stack.deleted is None else stamp(stack.deleted),
        "StackStatus": stack.status,
        "StackStatusReason": stack.reason or None,
        "DriftInformation": stack.drift_shown(),
    }


def _placed(stack: Stack, resource: Resource) -> dict[str, Any]:
    return {"StackName": stack.name, "StackId": stack.id, **resource.shown()}
