"""What each action of an Automation step does. An action takes the step's substituted inputs and an `Environment`, and returns the response
that the step's outputs are selected from; it raises `ActionFailed`, `TimedOut`, `Cancelled` or `Rejected`.

https://docs.aws.amazon.com/systems-manager/latest/userguide/automation-actions.html
"""

from __future__ import annotations

import datetime as dt
import re
import time
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import boto3
from botocore import xform_name
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

from lab.aws.services.automation import script
from lab.aws.services.automation.expressions import UnresolvedError, as_text, select

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from lab.clock import LabClock

POLL_EVERY_S = 5.0  # of lab time, between two looks of aws:waitForAwsResourceProperty
SHORTEST_POLL_WALL_S = 0.1
_DURATION = re.compile(r"P(?:(\d+)D)?(?:T(?:(\d+)H)?(?:(\d+)M)?(?:(\d+(?:\.\d+)?)S)?)?")
_INPUTS_OF_THE_ACTION = ("Service", "Api", "PropertySelector", "DesiredValues")


class ActionFailed(Exception):
    """The step failed; ``kind`` is FailureDetails.FailureType."""

    def __init__(self, message: str, kind: str = "Execution") -> None:
        super().__init__(message)
        self.kind = kind


class TimedOut(Exception):
    """The step took longer than its timeoutSeconds."""


class Cancelled(Exception):
    """Somebody stopped the execution."""


class Rejected(Exception):
    """An approver said no."""


@dataclass(slots=True)
class Approvals:
    """Who has approved or rejected the step that waits for it."""

    approved: set[str]
    rejected_by: str | None = None


@dataclass
class Environment:
    """What a running step has around it. ``variables`` are the ``AWS_*`` variables of the role; ``deadline`` is lab time."""

    clock: LabClock
    variables: Mapping[str, str]
    deadline: float
    is_cancelled: Callable[[], bool]
    approvals: Approvals
    branch_to: str | None = None
    printed: str = ""

    @cached_property
    def session(self) -> boto3.session.Session:
        """A boto3 session of the role."""
        return boto3.session.Session(
            aws_access_key_id=self.variables["AWS_ACCESS_KEY_ID"],
            aws_secret_access_key=self.variables["AWS_SECRET_ACCESS_KEY"],
            aws_session_token=self.variables.get("AWS_SESSION_TOKEN"),
            region_name=self.variables["AWS_REGION"],
        )

    def check(self) -> None:
        """Raise where the step may not go on."""
        if self.is_cancelled():
            raise Cancelled
        if self.clock.now() >= self.deadline:
            raise TimedOut

    def wait(self, lab_seconds: float) -> None:
        """Wait; raises as soon as the step may not go on."""
        until = self.clock.now() + lab_seconds
        while (left := min(until, self.deadline) - self.clock.now()) > 0:
            self.check()
            time.sleep(min(SHORTEST_POLL_WALL_S, max(0.001, self.clock.wall_seconds(left))))
        self.check()


def execute_aws_api(inputs: dict[str, Any], environment: Environment) -> dict[str, Any]:
    """aws:executeAwsApi: any operation of any service, as the role."""
    service, api = str(inputs["Service"]), str(inputs["Api"])
    parameters = {key: value for key, value in inputs.items() if key not in _INPUTS_OF_THE_ACTION and value not in ("", None)}
    config = Config(connect_timeout=5, read_timeout=60, retries={"mode": "standard", "total_max_attempts": 3})
    try:
        client = environment.session.client(service, endpoint_url=environment.variables.get("AWS_ENDPOINT_URL"), config=config)
        response: dict[str, Any] = getattr(client, xform_name(api))(**parameters)
    except ClientError as error:
        details = error.response.get("Error", {})
        raise ActionFailed(
            f"{details.get('Code')}: {details.get('Message')} (calling {service}:{api})", str(details.get("Code"))
        ) from error
    except (BotoCoreError, AttributeError) as error:
        raise ActionFailed(f"{service}:{api} could not be called: {error}") from error
    response.pop("ResponseMetadata", None)
    return response


def assert_property(inputs: dict[str, Any], environment: Environment) -> dict[str, Any]:
    """aws:assertAwsResourceProperty: the property has one of the desired values now."""
    response = execute_aws_api(inputs, environment)
    actual = _property(response, inputs)
    if actual not in [str(value) for value in inputs["DesiredValues"]]:
        raise ActionFailed(
            f"{inputs['PropertySelector']} is {actual}, not one of {', '.join(map(str, inputs['DesiredValues']))}", "Verification"
        )
    return response


def wait_for_property(inputs: dict[str, Any], environment: Environment) -> dict[str, Any]:
    """aws:waitForAwsResourceProperty: until the property has one of the desired values, or the step's time is over."""
    desired = [str(value) for value in inputs["DesiredValues"]]
    while True:
        environment.check()
        response = execute_aws_api(inputs, environment)
        if _property(response, inputs) in desired:
            return response
        environment.wait(POLL_EVERY_S)


def execute_script(inputs: dict[str, Any], environment: Environment) -> dict[str, Any]:
    """aws:executeScript: ``Handler(InputPayload, context)`` in a Python process of its own; its result is ``Payload``."""
    stopped: list[BaseException] = []

    def should_stop() -> bool:
        try:
            environment.check()
        except (Cancelled, TimedOut) as reason:
            stopped.append(reason)
        return bool(stopped)

    try:
        result = script.run(
            str(inputs["Script"]),
            str(inputs["Handler"]),
            inputs.get("InputPayload") or {},
            environment.variables,
            environment.clock.to_environment(),
            should_stop,
        )
    except script.ScriptFailedError as error:
        environment.printed = error.printed
        raise ActionFailed(str(error), "ScriptFailure") from error
    if result is None:
        raise stopped[0]
    environment.printed = result.printed
    return {"Payload": result.payload}


def sleep(inputs: dict[str, Any], environment: Environment) -> dict[str, Any]:
    """aws:sleep: an ISO 8601 duration, or until a timestamp; the step's own timeout does not end it."""
    if "Duration" in inputs:
        lab_seconds = duration_s(str(inputs["Duration"]))
    else:
        lab_seconds = dt.datetime.fromisoformat(str(inputs["Timestamp"])).timestamp() - environment.clock.now()
    environment.deadline = max(environment.deadline, environment.clock.now() + lab_seconds + 1)
    environment.wait(lab_seconds)
    return {}


def branch(inputs: dict[str, Any], environment: Environment) -> dict[str, Any]:
    """aws:branch: the first choice that holds says where to go; else ``Default``; else the next step."""
    environment.branch_to = next((choice["NextStep"] for choice in inputs["Choices"] if holds(choice)), inputs.get("Default"))
    return {}


def approve(inputs: dict[str, Any], environment: Environment) -> dict[str, Any]:
    """aws:approve: until enough of the approvers have sent their signal; a single rejection ends it."""
    approvers = [str(approver) for approver in inputs["Approvers"]]
    needed = int(inputs.get("MinRequiredApprovals") or 1)
    if inputs.get("NotificationArn"):
        message = {
            "Service": "sns",
            "Api": "Publish",
            "TopicArn": inputs["NotificationArn"],
            "Message": str(inputs.get("Message") or "Approve?"),
        }
        execute_aws_api(message, environment)
    while True:
        if environment.approvals.rejected_by:
            raise Rejected(environment.approvals.rejected_by)
        allowed = {
            who for who in environment.approvals.approved if any(who.endswith(approver.rpartition(":")[2]) for approver in approvers)
        }
        if len(allowed) >= needed:
            return {"approvalStatus": "Approved", "approverDecisions": sorted(allowed)}
        environment.wait(1.0)


def duration_s(text: str) -> float:
    """Seconds of an ISO 8601 duration such as ``PT10S`` or ``P1DT2H``. Raises `ActionFailed`."""
    match = _DURATION.fullmatch(text)
    if match is None or not any(match.groups()):
        raise ActionFailed(f"{text} is not an ISO 8601 duration such as PT10S", "Verification")
    days, hours, minutes, seconds = (float(part or 0) for part in match.groups())
    return ((days * 24 + hours) * 60 + minutes) * 60 + seconds


def holds(choice: Mapping[str, Any]) -> bool:
    """Whether one choice of aws:branch (after substitution) is true."""
    if "And" in choice:
        return all(holds(inner) for inner in choice["And"])
    if "Or" in choice:
        return any(holds(inner) for inner in choice["Or"])
    if "Not" in choice:
        return not holds(choice["Not"])
    variable = choice.get("Variable")
    for name, test in _TESTS.items():
        if name in choice:
            return bool(test(variable, choice[name]))
    raise ActionFailed(f"a choice needs one of {', '.join(_TESTS)}", "Verification")


def _property(response: dict[str, Any], inputs: dict[str, Any]) -> str:
    try:
        return as_text(select(response, str(inputs["PropertySelector"])))
    except UnresolvedError as error:
        raise ActionFailed(str(error), "Verification") from error


_TESTS: dict[str, Callable[[Any, Any], bool]] = {
    "StringEquals": lambda have, want: as_text(have) == str(want),
    "EqualsIgnoreCase": lambda have, want: as_text(have).lower() == str(want).lower(),
    "StartsWith": lambda have, want: as_text(have).startswith(str(want)),
    "EndsWith": lambda have, want: as_text(have).endswith(str(want)),
    "Contains": lambda have, want: str(want) in as_text(have),
    "NumericEquals": lambda have, want: float(have) == float(want),
    "NumericGreater": lambda have, want: float(have) > float(want),
    "NumericLesser": lambda have, want: float(have) < float(want),
    "NumericGreaterOrEquals": lambda have, want: float(have) >= float(want),
    "NumericLesserOrEquals": lambda have, want: float(have) <= float(want),
    "BooleanEquals": lambda have, want: as_text(have).lower() == str(want).lower(),
}

ACTIONS: dict[str, Callable[[dict[str, Any], Environment], dict[str, Any]]] = {
    "aws:approve": approve,
    "aws:assertAwsResourceProperty": assert_property,
    "aws:branch": branch,
    "aws:executeAwsApi": execute_aws_api,
    "aws:executeScript": execute_script,
    "aws:sleep": sleep,
    "aws:waitForAwsResourceProperty": wait_for_property,
}
