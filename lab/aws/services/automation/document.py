"""An Automation document (schema 0.3): parsed and checked before anything runs. All problems are reported at once.

https://docs.aws.amazon.com/systems-manager/latest/userguide/documents-schemas-features.html
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import yaml

if TYPE_CHECKING:
    from collections.abc import Mapping

ACTIONS = (
    "aws:approve",
    "aws:assertAwsResourceProperty",
    "aws:branch",
    "aws:executeAwsApi",
    "aws:executeScript",
    "aws:sleep",
    "aws:waitForAwsResourceProperty",
)
PARAMETER_TYPES = ("String", "StringList", "Integer", "Boolean", "StringMap", "MapList")
DEFAULT_TIMEOUT_S = 3600.0
STEP_KEYS = {
    "name", "action", "inputs", "outputs", "onFailure", "onCancel", "isCritical", "isEnd", "nextStep", "timeoutSeconds", "maxAttempts",
    "description",
}  # fmt: skip
_NAME = re.compile(r"[A-Za-z0-9_]{1,128}")


class DocumentError(Exception):
    """The document is not a valid Automation document; ``problems`` says where and why."""

    def __init__(self, problems: list[str]) -> None:
        super().__init__("; ".join(problems))
        self.problems = problems


@dataclass(frozen=True, slots=True)
class Parameter:
    """A parameter of the document. ``default`` is None where it is required."""

    name: str
    type: str
    default: Any = None
    allowed: tuple[Any, ...] = ()
    pattern: str | None = None


@dataclass(frozen=True, slots=True)
class Output:
    """What a step gives to later steps: the value at ``selector`` (a JSONPath) of its response."""

    name: str
    selector: str
    type: str = "String"


@dataclass(frozen=True, slots=True)
class Step:
    """One step. ``on_failure`` is Abort, Continue or ``step:NAME``; ``timeout_s`` is lab seconds."""

    name: str
    action: str
    inputs: Mapping[str, Any]
    outputs: tuple[Output, ...] = ()
    on_failure: str = "Abort"
    is_critical: bool = True
    is_end: bool = False
    next_step: str | None = None
    timeout_s: float = DEFAULT_TIMEOUT_S
    max_attempts: int = 1


@dataclass(frozen=True, slots=True)
class Document:
    """A whole document. ``outputs`` are ``step.Output`` names."""

    description: str
    assume_role: str | None
    parameters: Mapping[str, Parameter]
    steps: tuple[Step, ...]
    outputs: tuple[str, ...] = ()

    def index(self, name: str) -> int:
        """The position of the step ``name``."""
        return next(position for position, step in enumerate(self.steps) if step.name == name)


@dataclass
class _Findings:
    problems: list[str] = field(default_factory=list)

    def require(self, condition: bool, text: str) -> None:
        if not condition:
            self.problems.append(text)


def parse(content: str) -> Document:
    """The document of ``content`` (YAML or JSON). Raises `DocumentError`."""
    try:
        raw = json.loads(content) if content.lstrip().startswith("{") else yaml.safe_load(content)
    except (json.JSONDecodeError, yaml.YAMLError) as error:
        raise DocumentError([f"the document is neither JSON nor YAML: {error}"]) from error
    if not isinstance(raw, dict):
        raise DocumentError(["the document is not a mapping"])
    found = _Findings()
    found.require(str(raw.get("schemaVersion")) == "0.3", f"schemaVersion must be '0.3', not {raw.get('schemaVersion')!r}")
    parameters = {name: _parameter(name, shape, found) for name, shape in (raw.get("parameters") or {}).items() if isinstance(shape, dict)}
    main = raw.get("mainSteps")
    found.require(isinstance(main, list) and bool(main), "mainSteps must be a list with at least one step")
    steps = [_step(shape, found) for shape in main or () if isinstance(shape, dict)] if isinstance(main, list) else []
    _check_flow(steps, found)
    if found.problems:
        raise DocumentError(found.problems)
    return Document(str(raw.get("description") or ""), raw.get("assumeRole"), parameters, tuple(steps), tuple(raw.get("outputs") or ()))


def _parameter(name: str, shape: dict[str, Any], found: _Findings) -> Parameter:
    kind = str(shape.get("type"))
    known = kind in PARAMETER_TYPES or kind.startswith("AWS::")
    found.require(known, f"parameters.{name}.type must be one of {', '.join(PARAMETER_TYPES)}, not {kind}")
    return Parameter(name, kind, shape.get("default"), tuple(shape.get("allowedValues") or ()), shape.get("allowedPattern"))


def _step(shape: dict[str, Any], found: _Findings) -> Step:
    name, action = str(shape.get("name")), str(shape.get("action"))
    where = f"step {name}"
    found.require(bool(_NAME.fullmatch(name)), f"{where}: a name has letters, digits and underscores")
    found.require(action in ACTIONS, f"{where}: the action {action} is not supported here; supported are {', '.join(ACTIONS)}")
    for key in sorted(set(shape) - STEP_KEYS):
        found.require(False, f"{where}: unknown key {key}")
    inputs = shape.get("inputs") or {}
    needed = {
        "aws:executeAwsApi": ("Service", "Api"),
        "aws:waitForAwsResourceProperty": ("Service", "Api", "PropertySelector", "DesiredValues"),
        "aws:assertAwsResourceProperty": ("Service", "Api", "PropertySelector", "DesiredValues"),
        "aws:executeScript": ("Runtime", "Handler", "Script"),
        "aws:branch": ("Choices",),
        "aws:approve": ("Approvers",),
    }.get(action, ())
    for key in needed:
        found.require(key in inputs, f"{where}: inputs.{key} is required for {action}")
    if action == "aws:sleep":
        found.require(
            "Duration" in inputs or "Timestamp" in inputs, f"{where}: inputs.Duration or inputs.Timestamp is required for aws:sleep"
        )
    if action == "aws:executeScript":
        found.require(str(inputs.get("Runtime")).startswith("python3"), f"{where}: only Python runtimes are supported here")
    on_failure = str(shape.get("onFailure", "Abort"))
    found.require(
        on_failure in ("Abort", "Continue") or on_failure.startswith("step:"), f"{where}: onFailure must be Abort, Continue or step:NAME"
    )
    return Step(
        name=name,
        action=action,
        inputs=inputs,
        outputs=tuple(
            Output(str(item["Name"]), str(item["Selector"]), str(item.get("Type", "String"))) for item in shape.get("outputs") or ()
        ),
        on_failure=on_failure,
        is_critical=_truth(shape.get("isCritical", True)),
        is_end=_truth(shape.get("isEnd", False)),
        next_step=shape.get("nextStep"),
        timeout_s=float(shape.get("timeoutSeconds", DEFAULT_TIMEOUT_S)),
        max_attempts=int(shape.get("maxAttempts", 1)),
    )


def _check_flow(steps: list[Step], found: _Findings) -> None:
    names = [step.name for step in steps]
    for name in sorted({name for name in names if names.count(name) > 1}):
        found.require(False, f"step {name}: the name is used more than once")
    for step in steps:
        targets = [step.next_step] if step.next_step else []
        if step.on_failure.startswith("step:"):
            targets.append(step.on_failure.removeprefix("step:"))
        if step.action == "aws:branch":
            targets += [choice.get("NextStep") for choice in step.inputs.get("Choices", ())]
            targets += [step.inputs["Default"]] if step.inputs.get("Default") else []
        for target in targets:
            found.require(target in names, f"step {step.name}: there is no step {target} to go to")


def _truth(value: Any) -> bool:
    return value if isinstance(value, bool) else str(value).lower() == "true"
