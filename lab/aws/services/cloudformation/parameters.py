"""Parameter values of a stack: defaults, previous values, constraints, types.

Reference: https://docs.aws.amazon.com/AWSCloudFormation/latest/UserGuide/parameters-section-structure.html
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from lab.aws.services.cloudformation.errors import invalid

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from lab.aws.services.cloudformation.template import Template

_STORED = re.compile(r"AWS::SSM::Parameter::Value<(.+)>")


def texts(template: Template, given: list[Mapping[str, Any]], previous: Mapping[str, str]) -> dict[str, str]:
    """Each parameter's value as text, as DescribeStacks shows it (NoEcho aside). Raises `AwsError`."""
    unknown = sorted({one["ParameterKey"] for one in given} - set(template.parameters))
    if unknown:
        raise invalid(f"Parameters: [{', '.join(unknown)}] do not exist in the template")
    found: dict[str, str] = {}
    for one in given:
        key = one["ParameterKey"]
        if one.get("UsePreviousValue"):
            if key not in previous:
                raise invalid(
                    f"Invalid input for parameter key {key}. Cannot specify usePreviousValue as true for a parameter key "
                    "not in the previous template"
                )
            found[key] = previous[key]
        else:
            found[key] = one.get("ParameterValue", "")
    missing = []
    for key, definition in template.parameters.items():
        if key not in found:
            if "Default" in definition:
                found[key] = _as_text(definition["Default"])
            else:
                missing.append(key)
    if missing:
        raise invalid(f"Parameters: [{', '.join(missing)}] must have values")
    for key, definition in template.parameters.items():
        _check(key, definition, found[key])
    return found


def values(template: Template, found: Mapping[str, str], stored: Callable[[str], str]) -> dict[str, Any]:
    """What Ref gives for each parameter; ``stored`` reads a parameter of Systems Manager."""
    result: dict[str, Any] = {}
    for key, text in found.items():
        kind = template.parameters[key].get("Type", "String")
        match = _STORED.fullmatch(kind)
        value = stored(text) if match else text
        kind = match[1] if match else kind
        result[key] = [item.strip() for item in value.split(",")] if kind == "CommaDelimitedList" or kind.startswith("List<") else value
    return result


def _as_text(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value)


def _check(key: str, definition: Mapping[str, Any], value: str) -> None:
    kind = definition.get("Type", "String")
    allowed = [_as_text(item) for item in definition.get("AllowedValues", [])]
    items = [item.strip() for item in value.split(",")] if kind == "CommaDelimitedList" or kind.startswith("List<") else [value]
    for item in items:
        if allowed and item not in allowed:
            raise invalid(f"Parameter '{key}' must be one of AllowedValues")
        pattern = definition.get("AllowedPattern")
        if pattern and not re.fullmatch(pattern, item):
            raise invalid(definition.get("ConstraintDescription") or f"Parameter '{key}' must match pattern {pattern}")
        if kind in ("Number", "List<Number>"):
            _check_number(key, definition, item)
        elif kind == "String":
            _check_length(key, definition, item)


def _check_number(key: str, definition: Mapping[str, Any], item: str) -> None:
    try:
        number = float(item)
    except ValueError:
        raise invalid(f"Parameter '{key}' must be a number.") from None
    if "MinValue" in definition and number < float(definition["MinValue"]):
        raise invalid(f"Parameter '{key}' must be a number not less than {definition['MinValue']}")
    if "MaxValue" in definition and number > float(definition["MaxValue"]):
        raise invalid(f"Parameter '{key}' must be a number not greater than {definition['MaxValue']}")


def _check_length(key: str, definition: Mapping[str, Any], item: str) -> None:
    if "MinLength" in definition and len(item) < int(definition["MinLength"]):
        raise invalid(f"Parameter '{key}' must contain at least {definition['MinLength']} characters")
    if "MaxLength" in definition and len(item) > int(definition["MaxLength"]):
        raise invalid(f"Parameter '{key}' must contain at most {definition['MaxLength']} characters")
