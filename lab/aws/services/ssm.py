"""Systems Manager: Automation executions (botocore: ssm). Documents and parameters are kept by moto, which does those right.

https://docs.aws.amazon.com/systems-manager/latest/APIReference/API_StartAutomationExecution.html
"""

from __future__ import annotations

import datetime as dt
import json
import re
import threading
from typing import TYPE_CHECKING, Any

from lab.aws.service import AwsError
from lab.aws.services.automation.document import Document, DocumentError, Parameter, parse
from lab.aws.services.automation.execution import CANCELLING, FINAL, WAITING, Execution, Start, StepRun, as_list
from lab.aws.services.automation.expressions import references, substitute
from lab.aws.support import page, role_environment, stamp

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from lab.aws.service import Context, World

MOST_CONCURRENT = 100
MOST_KEPT = 1000
PARAMETER_REFERENCE = re.compile(r"\{\{\s*ssm:([A-Za-z0-9_./-]+)\s*\}\}")


class Service:
    """The service; executions are kept per Region, newest last, at most a thousand."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._executions: dict[str, dict[str, Execution]] = {region: {} for region in world.regions}
        self._lock = threading.Lock()

    def close(self) -> None:
        """Cancel what runs."""
        for executions in self._executions.values():
            for execution in executions.values():
                if execution.status not in FINAL:
                    execution.cancel()

    def start_automation_execution(self, ctx: Context, params: dict[str, Any]) -> dict[str, Any]:
        """Start a document. Wrong parameters are all reported at once."""
        for key in ("Targets", "TargetMaps", "TargetLocations", "TargetParameterName", "AlarmConfiguration"):
            if params.get(key):
                raise AwsError("UnsupportedOperation", f"StartAutomationExecution with {key} is not implemented here.", 501)
        if params.get("Mode") == "Interactive":
            raise AwsError("UnsupportedOperation", "Interactive mode is not implemented here.", 501)
        name, version, document = self._document(ctx, params)
        given = params.get("Parameters") or {}
        values = self._parameters(ctx, document, given)
        running = [execution for execution in self._executions[ctx.region].values() if execution.status not in FINAL]
        if len(running) >= MOST_CONCURRENT:
            raise AwsError(
                "AutomationExecutionLimitExceededException", "The number of concurrently running Automations exceeded the limit."
            )
        role = substitute(document.assume_role or "", lambda reference: values.get(reference, ""))
        caller = f"arn:aws:iam::{ctx.account}:{ctx.principal}"
        tags = tuple((tag["Key"], tag["Value"]) for tag in params.get("Tags") or ())
        execution = Execution(
            document,
            values,
            Start(name, version, caller, ctx.region, ctx.account, tags),
            self._world.clock,
            lambda: self._variables(ctx, role, execution.id),
            self._tell,
            lambda: self._world.is_down(ctx.region),
        )
        with self._lock:
            kept = self._executions[ctx.region]
            kept[execution.id] = execution
            for old in [key for key, run in kept.items() if run.status in FINAL][: max(0, len(kept) - MOST_KEPT)]:
                del kept[old]
        execution.begin()
        return {"AutomationExecutionId": execution.id}

    def get_automation_execution(self, ctx: Context, params: dict[str, Any]) -> dict[str, Any]:
        """One execution with its steps."""
        execution = self._find(ctx, params)
        shape = _metadata(execution) | {
            "StepExecutions": [_step(run) for run in execution.runs],
            "StepExecutionsTruncated": False,
            "Parameters": {name: as_list(value) for name, value in execution.parameters.items()},
        }
        del shape["AutomationType"]
        return {"AutomationExecution": shape}

    def describe_automation_executions(self, ctx: Context, params: dict[str, Any]) -> dict[str, Any]:
        """Executions, newest first."""
        found = [_metadata(execution) for execution in reversed(self._executions[ctx.region].values())]
        for wanted in params.get("Filters") or ():
            found = [shape for shape in found if _matches(shape, wanted["Key"], wanted["Values"])]
        shown, token = page(found, params.get("NextToken"), int(params.get("MaxResults") or 50))
        return {"AutomationExecutionMetadataList": shown, **({"NextToken": token} if token else {})}

    def describe_automation_step_executions(self, ctx: Context, params: dict[str, Any]) -> dict[str, Any]:
        """The steps of one execution that have begun."""
        steps = [_step(run) for run in self._find(ctx, params).runs if run.started is not None]
        keys = {"StepName": "StepName", "Action": "Action", "StepExecutionStatus": "StepStatus", "StepExecutionId": "StepExecutionId"}
        for wanted in params.get("Filters") or ():
            if wanted["Key"] not in keys:
                raise AwsError("InvalidFilterKey", f"The filter {wanted['Key']} is not implemented here.")
            steps = [step for step in steps if step[keys[wanted["Key"]]] in wanted["Values"]]
        if params.get("ReverseOrder"):
            steps.reverse()
        shown, token = page(steps, params.get("NextToken"), int(params.get("MaxResults") or 50))
        return {"StepExecutions": shown, **({"NextToken": token} if token else {})}

    def stop_automation_execution(self, ctx: Context, params: dict[str, Any]) -> dict[str, Any]:
        """Cancel an execution; the running step is ended."""
        execution = self._find(ctx, params)
        if execution.status in (*FINAL, CANCELLING):
            raise AwsError("InvalidAutomationStatusUpdateException", f"The automation is {execution.status} and cannot be stopped.")
        execution.cancel()
        return {}

    def send_automation_signal(self, ctx: Context, params: dict[str, Any]) -> dict[str, Any]:
        """Approve or reject the step that waits."""
        execution = self._find(ctx, params)
        if execution.current is None or execution.current.status != WAITING:
            raise AwsError("AutomationStepNotFoundException", "No step of the automation waits for a signal.")
        kind = params["SignalType"]
        if kind == "Approve":
            execution.approvals.approved.add(ctx.principal)
        elif kind == "Reject":
            execution.approvals.rejected_by = ctx.principal
        else:
            raise AwsError("InvalidAutomationSignalException", f"The signal {kind} is not implemented here.")
        return {}

    def _document(self, ctx: Context, params: dict[str, Any]) -> tuple[str, str, Document]:
        name = str(params["DocumentName"]).rpartition("/")[2]
        version = params.get("DocumentVersion") or "$DEFAULT"
        try:
            wanted = {} if version == "$DEFAULT" else {"DocumentVersion": version}
            found = self._world.call(ctx.region, "ssm", "get_document", Name=name, **wanted)
        except AwsError as error:
            raise AwsError(
                "AutomationDefinitionNotFoundException", f"Automation definition {name} with version {version} is not found."
            ) from error
        if found.get("DocumentType") != "Automation":
            raise AwsError(
                "AutomationDefinitionNotFoundException", f"The document {name} is of type {found.get('DocumentType')}, not Automation."
            )
        try:
            return name, str(found.get("DocumentVersion") or "1"), parse(found["Content"])
        except DocumentError as error:
            raise AwsError("AutomationDefinitionNotFoundException", f"The document {name} is not valid: {error}") from error

    def _parameters(self, ctx: Context, document: Document, given: Mapping[str, list[str]]) -> dict[str, Any]:
        problems = [f"the document has no parameter {name}" for name in given if name not in document.parameters]
        values: dict[str, Any] = {}
        for parameter in document.parameters.values():
            raw: Any = given.get(parameter.name, parameter.default)
            if raw is None:
                problems.append(f"{parameter.name} is required")
                continue
            try:
                values[parameter.name] = self._resolved(ctx, _typed(parameter, raw))
            except (ValueError, AwsError) as error:
                problems.append(f"{parameter.name}: {error}")
                continue
            problems += _limits(parameter, values[parameter.name])
        for name, value in values.items():
            if unknown := {each for each in references(value) if each not in values}:
                problems.append(f"{name} refers to {', '.join(sorted(unknown))}, which is no parameter")
        if problems:
            raise AwsError("InvalidAutomationExecutionParametersException", "Invalid parameters: " + "; ".join(problems))
        return {name: substitute(value, values.__getitem__) for name, value in values.items()}

    def _resolved(self, ctx: Context, value: Any) -> Any:
        """``value`` with ``{{ssm:name}}`` replaced by the parameter of that name."""
        if isinstance(value, list):
            return [self._resolved(ctx, item) for item in value]
        if not isinstance(value, str):
            return value

        def fetch(match: re.Match[str]) -> str:
            return str(self._world.call(ctx.region, "ssm", "get_parameter", Name=match[1])["Parameter"]["Value"])

        return PARAMETER_REFERENCE.sub(fetch, value)

    def _variables(self, ctx: Context, role: str, execution_id: str) -> dict[str, str]:
        """Credentials of the role, or of the caller where the document assumes none."""
        if role:
            return role_environment(self._world, ctx.region, role, f"Automation-{execution_id}")
        key = self._world.keys.find(ctx.access_key) if hasattr(self._world, "keys") else None
        if key is None:
            raise AwsError(
                "InvalidAutomationExecutionParametersException", "the document names no assumeRole and the caller has no key pair"
            )
        token = {"AWS_SESSION_TOKEN": key.token} if key.token else {}
        url = str(self._world.client("sts", ctx.region).meta.endpoint_url)
        pair = {"AWS_ACCESS_KEY_ID": key.access_key, "AWS_SECRET_ACCESS_KEY": key.secret_key, **token}
        return {**pair, "AWS_REGION": ctx.region, "AWS_DEFAULT_REGION": ctx.region, "AWS_ENDPOINT_URL": url}

    def _find(self, ctx: Context, params: dict[str, Any]) -> Execution:
        execution = self._executions[ctx.region].get(params["AutomationExecutionId"])
        if execution is None:
            wanted = params["AutomationExecutionId"]
            raise AwsError("AutomationExecutionNotFoundException", f"Automation execution with id {wanted} is not found.")
        return execution

    def _tell(self, execution: Execution, run: StepRun | None) -> None:
        """Put the change of status on the Region's event bus."""
        start = execution.start_info
        status, began, ended = (run.status, run.started, run.ended) if run else (execution.status, execution.started, execution.ended)
        detail = {
            "ExecutionId": execution.id,
            "Definition": start.document_name,
            "DefinitionVersion": float(start.document_version),
            "Status": status,
            "StartTime": _event_time(began),
            "Time": self._world.clock.now(),
            "ExecutedBy": start.executed_by,
            **({"EndTime": _event_time(ended)} if ended else {}),
            **({"StepName": run.step.name, "Action": run.step.action} if run else {}),
        }
        arn = f"arn:aws:ssm:{start.region}:{start.account}"
        resources = [
            f"{arn}:automation-execution/{execution.id}",
            f"{arn}:automation-definition/{start.document_name}:{start.document_version}",
        ]
        kind = "EC2 Automation Step Status-change Notification" if run else "EC2 Automation Execution Status-change Notification"
        emit(self._world, start.region, "aws.ssm", kind, resources, detail)


def emit(world: World, region: str, source: str, kind: str, resources: Iterable[str], detail: Mapping[str, Any]) -> None:
    """Put an event of an AWS service on the Region's default bus, where the lab serves EventBridge and the Region is up."""
    try:
        events = world.service("events")
    except LookupError:
        return
    if not world.is_down(region):
        events.emit(region, source, kind, json.loads(json.dumps(dict(detail), default=str)), list(resources))


def _typed(parameter: Parameter, raw: Any) -> Any:
    """A parameter's value of its type; the API gives each as a list of texts, a default comes as it stands in the document."""
    many = parameter.type in ("StringList", "MapList") or parameter.type.startswith("List<")
    if many:
        items = raw if isinstance(raw, list) else [raw]
        return [json.loads(item) if parameter.type == "MapList" and isinstance(item, str) else item for item in items]
    if isinstance(raw, list):
        if len(raw) != 1:
            raise ValueError(f"takes one value, not {len(raw)}")
        raw = raw[0]
    if parameter.type == "Integer":
        return int(raw)
    if parameter.type == "Boolean":
        if str(raw).lower() not in ("true", "false"):
            raise ValueError(f"must be true or false, not {raw}")
        return str(raw).lower() == "true"
    if parameter.type == "StringMap":
        return json.loads(raw) if isinstance(raw, str) else raw
    return str(raw)


def _limits(parameter: Parameter, value: Any) -> list[str]:
    problems = []
    for item in value if isinstance(value, list) else [value]:
        if parameter.allowed and item not in parameter.allowed:
            problems.append(f"{parameter.name} must be one of {', '.join(map(str, parameter.allowed))}, not {item}")
        if parameter.pattern and not re.search(parameter.pattern, str(item)):
            problems.append(f"{parameter.name} must match {parameter.pattern}: {item}")
    return problems


def _metadata(execution: Execution) -> dict[str, Any]:
    start = execution.start_info
    current = execution.current if execution.status not in FINAL else None
    shape: dict[str, Any] = {
        "AutomationExecutionId": execution.id,
        "DocumentName": start.document_name,
        "DocumentVersion": start.document_version,
        "AutomationExecutionStatus": execution.status,
        "ExecutionStartTime": stamp(execution.started),
        "ExecutedBy": start.executed_by,
        "Mode": "Auto",
        "AutomationType": "Local",
        "Outputs": execution.outputs(),
        "Targets": [],
        "ResolvedTargets": {"ParameterValues": [], "Truncated": False},
    }
    optional = {
        "ExecutionEndTime": stamp(execution.ended) if execution.ended else None,
        "FailureMessage": execution.failure or None,
        "CurrentStepName": current.step.name if current else None,
        "CurrentAction": current.step.action if current else None,
    }
    return shape | {key: value for key, value in optional.items() if value is not None}


def _step(run: StepRun) -> dict[str, Any]:
    step = run.step
    shape: dict[str, Any] = {
        "StepName": step.name,
        "Action": step.action,
        "StepStatus": run.status,
        "StepExecutionId": run.id,
        "TimeoutSeconds": int(step.timeout_s),
        "OnFailure": step.on_failure,
        "MaxAttempts": step.max_attempts,
        "IsEnd": step.is_end,
        "IsCritical": step.is_critical,
        "Inputs": run.inputs,
        "Outputs": {name: as_list(value) for name, value in run.outputs.items()},
        "Response": run.response[:2500],
    }
    if run.started is not None:
        shape["ExecutionStartTime"] = stamp(run.started)
    if run.ended is not None:
        shape["ExecutionEndTime"] = stamp(run.ended)
    if step.next_step:
        shape["NextStep"] = step.next_step
    if run.failure:
        shape["FailureMessage"] = run.failure
        shape["FailureDetails"] = {"FailureStage": "Invocation", "FailureType": run.failure_kind, "Details": {}}
    return shape


def _matches(shape: dict[str, Any], key: str, values: list[str]) -> bool:
    fields = {"ExecutionStatus": "AutomationExecutionStatus", "ExecutionId": "AutomationExecutionId", "CurrentAction": "CurrentAction"}
    if key == "DocumentNamePrefix":
        return any(str(shape["DocumentName"]).startswith(value) for value in values)
    if key in ("StartTimeBefore", "StartTimeAfter"):
        limit = dt.datetime.fromisoformat(values[0])
        return bool(shape["ExecutionStartTime"] < limit if key == "StartTimeBefore" else shape["ExecutionStartTime"] > limit)
    if key == "AutomationType":
        return shape["AutomationType"] in values
    if key not in fields:
        raise AwsError("InvalidFilterKey", f"The filter {key} is not implemented here.")
    return shape.get(fields[key]) in values


def _event_time(at: float | None) -> str:
    """``Nov 29, 2016 7:43:20 PM``, as Automation's events have it."""
    moment = dt.datetime.fromtimestamp(at or 0.0, dt.UTC)
    return f"{moment:%b} {moment.day}, {moment:%Y} {moment.hour % 12 or 12}:{moment:%M:%S %p}"
