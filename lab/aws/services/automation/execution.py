"""One execution of an Automation document: its steps in order, in a thread of its own, with every state as the API shows it."""

from __future__ import annotations

import datetime as dt
import json
import logging
import threading
import time
import uuid
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from lab.aws.service import AwsError
from lab.aws.services.automation.actions import ACTIONS, ActionFailed, Approvals, Cancelled, Environment, Rejected, TimedOut
from lab.aws.services.automation.expressions import UnresolvedError, as_text, select, substitute

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from lab.aws.services.automation.document import Document, Step
    from lab.clock import LabClock

log = logging.getLogger(__name__)

PENDING, IN_PROGRESS, WAITING = "Pending", "InProgress", "Waiting"
SUCCESS, FAILED, TIMED_OUT, CANCELLED, CANCELLING, REJECTED = "Success", "Failed", "TimedOut", "Cancelled", "Cancelling", "Rejected"
FINAL = (SUCCESS, FAILED, TIMED_OUT, CANCELLED, REJECTED)
HELD_POLL_S = 0.2


@dataclass
class StepRun:
    """What happened to one step. Times are lab epoch seconds."""

    step: Step
    id: str
    status: str = PENDING
    started: float | None = None
    ended: float | None = None
    inputs: dict[str, str] = field(default_factory=dict)
    outputs: dict[str, Any] = field(default_factory=dict)
    response: str = ""
    failure: str = ""
    failure_kind: str = ""
    attempts: int = 0


@dataclass(frozen=True, slots=True)
class Start:
    """How an execution was started."""

    document_name: str
    document_version: str
    executed_by: str
    region: str
    account: str
    tags: tuple[tuple[str, str], ...] = ()


class Execution:
    """Runs ``document`` with ``parameters`` (already checked).

    ``variables`` gives the role's ``AWS_*`` variables when the run begins; ``tell`` is called with each change of status, and with the step
    where it is a step's; while ``is_held`` is true (the Region is down) nothing goes on.
    """

    def __init__(
        self,
        document: Document,
        parameters: Mapping[str, Any],
        start: Start,
        clock: LabClock,
        variables: Callable[[], Mapping[str, str]],
        tell: Callable[[Execution, StepRun | None], None],
        is_held: Callable[[], bool],
    ) -> None:
        self.id = str(uuid.uuid4())
        self.document = document
        self.parameters = dict(parameters)
        self.start_info = start
        self.status = PENDING
        self.started = clock.now()
        self.ended: float | None = None
        self.failure = ""
        self.approvals = Approvals(set())
        self.runs = [StepRun(step, str(uuid.uuid4())) for step in document.steps]
        self.current: StepRun | None = None
        self._clock = clock
        self._variables = variables
        self._tell = tell
        self._is_held = is_held
        self._cancel = threading.Event()
        self._finished = threading.Event()

    def begin(self) -> None:
        """Start to run, in a thread."""
        threading.Thread(target=self._run, name=f"automation-{self.start_info.document_name}", daemon=True).start()

    def cancel(self) -> None:
        """Stop as soon as the running step can be stopped."""
        self.status = CANCELLING
        self._cancel.set()

    def wait(self, wall_seconds: float) -> bool:
        """Wait until it is over; False where that took longer."""
        return self._finished.wait(wall_seconds)

    def outputs(self) -> dict[str, list[str]]:
        """The outputs of the execution that are known so far, as the API gives them."""
        found: dict[str, list[str]] = {}
        for name in self.document.outputs:
            step, _, output = name.partition(".")
            run = next((run for run in self.runs if run.step.name == step), None)
            if run is not None and output in run.outputs:
                found[name] = as_list(run.outputs[output])
        return found

    def _run(self) -> None:
        try:
            self._set(IN_PROGRESS)
            try:
                variables = self._variables()
            except AwsError as error:
                self.failure = f"The automation cannot assume its role: {error.message}"
                self._set(FAILED)
                return
            self._set(self._walk(variables))
        except Exception as error:  # an execution must end; what is wrong with the runner is logged and shown
            log.exception("execution %s of %s broke", self.id, self.start_info.document_name)
            self.failure = f"The automation runner failed: {error!r}"
            self._set(FAILED)
        finally:
            self._finished.set()

    def _walk(self, variables: Mapping[str, str]) -> str:
        """Run the steps; returns the final status."""
        position, result = 0, SUCCESS
        while position < len(self.runs):
            run = self.current = self.runs[position]
            environment = self._attempt_all(run, variables)
            if run.status == CANCELLED:
                return CANCELLED
            step = run.step
            if run.status != SUCCESS:
                if step.is_critical and step.on_failure != "Continue":
                    result = run.status if run.status in (TIMED_OUT, REJECTED) else FAILED
                    self.failure = self.failure or f"Step {step.name} {run.status.lower()}. {run.failure}"
                if step.on_failure == "Abort":
                    return result if step.is_critical else SUCCESS
                if step.on_failure.startswith("step:"):
                    position = self.document.index(step.on_failure.removeprefix("step:"))
                    continue
            chosen = environment.branch_to if environment else None
            if step.is_end and chosen is None:
                return result
            following = chosen or step.next_step
            position = self.document.index(following) if following else position + 1
        return result

    def _attempt_all(self, run: StepRun, variables: Mapping[str, str]) -> Environment | None:
        """Run one step, with its retries."""
        run.started = self._clock.now()
        environment: Environment | None = None
        while run.attempts < max(1, run.step.max_attempts):
            run.attempts += 1
            while self._is_held() and not self._cancel.is_set():
                time.sleep(HELD_POLL_S)
            environment = self._attempt(run, variables)
            if run.status not in (FAILED, TIMED_OUT):
                break
        run.ended = self._clock.now()
        self._tell(self, run)
        return environment

    def _attempt(self, run: StepRun, variables: Mapping[str, str]) -> Environment:
        step = run.step
        environment = Environment(self._clock, variables, self._clock.now() + step.timeout_s, self._cancel.is_set, self.approvals)
        run.status = WAITING if step.action == "aws:approve" else IN_PROGRESS
        run.failure = run.failure_kind = ""
        self._tell(self, run)
        try:
            environment.check()
            inputs = substitute(dict(step.inputs), self._look_up)
            run.inputs = {key: json.dumps(value, default=str) for key, value in inputs.items() if key != "Script"}
            response = ACTIONS[step.action](inputs, environment)
            run.outputs = {output.name: select(response, output.selector) for output in step.outputs}
            if step.action == "aws:executeScript":
                run.outputs["OutputPayload"] = response
            run.status = SUCCESS
        except Cancelled:
            run.status = CANCELLED
        except TimedOut:
            run.status, run.failure, run.failure_kind = TIMED_OUT, f"The step took longer than {step.timeout_s:g} seconds.", "TimedOut"
        except Rejected as error:
            run.status, run.failure, run.failure_kind = REJECTED, f"Rejected by {error}.", "Rejected"
        except ActionFailed as error:
            run.status, run.failure, run.failure_kind = FAILED, str(error), error.kind
        except UnresolvedError as error:
            run.status, run.failure, run.failure_kind = FAILED, str(error), "Verification"
        run.response = environment.printed
        return environment

    def _look_up(self, name: str) -> Any:
        """The value of a reference in the document."""
        if name in self.parameters:
            return self.parameters[name]
        now = dt.datetime.fromtimestamp(self._clock.now(), dt.UTC)
        fixed = {
            "automation:EXECUTION_ID": self.id,
            "global:DATE": now.strftime("%Y-%m-%d"),
            "global:DATE_TIME": now.strftime("%Y-%m-%d_%H.%M.%S"),
            "global:REGION": self.start_info.region,
            "global:ACCOUNT_ID": self.start_info.account,
        }
        if name in fixed:
            return fixed[name]
        step, _, output = name.partition(".")
        for run in self.runs:
            if run.step.name == step and output in run.outputs:
                return run.outputs[output]
        raise UnresolvedError(f"{{{{ {name} }}}} is not known: no parameter, and no output of a step that has run")

    def _set(self, status: str) -> None:
        self.status = status
        if status in FINAL:
            self.ended = self._clock.now()
        self._tell(self, None)


def as_list(value: Any) -> list[str]:
    """An output as the API gives it: a list of texts."""
    return [as_text(item) for item in value] if isinstance(value, list) else [as_text(value)]
