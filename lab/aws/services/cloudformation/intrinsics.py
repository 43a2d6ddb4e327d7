"""Evaluation of the intrinsic functions.

`evaluate` replaces every function whose arguments are known and leaves the rest in place: before a stack is touched nothing is known of
its resources, so ``{"Ref": "Topic"}`` stays; when it is evaluated again with the resources at hand, nothing stays. `references` finds what
stayed.

Reference: https://docs.aws.amazon.com/AWSCloudFormation/latest/TemplateReference/intrinsic-function-reference.html
"""

from __future__ import annotations

import base64
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

from lab.aws.services.cloudformation.errors import invalid

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

PSEUDO = (
    "AWS::AccountId",
    "AWS::NoValue",
    "AWS::NotificationARNs",
    "AWS::Partition",
    "AWS::Region",
    "AWS::StackId",
    "AWS::StackName",
    "AWS::URLSuffix",
)
_VARIABLE = re.compile(r"\$\{([^!${}][^${}]*)\}")
_DYNAMIC = re.compile(r"\{\{resolve:([a-z-]+):([^}]+)\}\}")
NO_VALUE = type("NoValue", (), {"__repr__": lambda _: "AWS::NoValue"})()


class Lookup(Protocol):
    """What is known of resources, exports and parameters kept elsewhere. The first two return None for "not yet"."""

    def ref(self, name: str) -> Any:
        """What Ref gives for a resource."""

    def attribute(self, name: str, attribute: str) -> Any:
        """What GetAtt gives."""

    def export(self, name: str) -> Any:
        """The value of another stack's export. Raises AwsError where there is none."""

    def dynamic(self, service: str, reference: str) -> str:
        """The value behind ``{{resolve:service:reference}}``. Raises AwsError."""


@dataclass(slots=True)
class Scope:
    """Where a template's names get their values. ``values`` has the parameters and pseudo parameters."""

    values: Mapping[str, Any]
    mappings: Mapping[str, Any]
    conditions: Mapping[str, Any]
    resources: frozenset[str]
    lookup: Lookup
    decided: dict[str, bool] = field(default_factory=dict)
    deciding: list[str] = field(default_factory=list)

    def condition(self, name: str) -> bool:
        """Whether a condition of the template holds."""
        if name not in self.decided:
            if name not in self.conditions:
                raise invalid(f"Template error: unresolved condition dependency {name} in Conditions block of template")
            if name in self.deciding:
                raise invalid(f"Template format error: Circular dependencies in Conditions: {', '.join(self.deciding)}")
            self.deciding.append(name)
            self.decided[name] = bool(evaluate_condition(self.conditions[name], self))
            self.deciding.pop()
        return self.decided[name]


def evaluate(node: Any, scope: Scope) -> Any:
    """``node`` with every function that can be computed replaced by its value."""
    if isinstance(node, dict):
        if len(node) == 1:
            ((name, argument),) = node.items()
            if name in _FUNCTIONS:
                return _FUNCTIONS[name](argument, scope)
            if isinstance(name, str) and name.startswith("Fn::"):
                raise invalid(f"Template error: the lab's CloudFormation does not know the function {name}")
        pairs = ((key, evaluate(value, scope)) for key, value in node.items())
        return {key: value for key, value in pairs if value is not NO_VALUE}
    if isinstance(node, list):
        return [value for value in (evaluate(item, scope) for item in node) if value is not NO_VALUE]
    if isinstance(node, str) and "{{resolve:" in node:
        return _DYNAMIC.sub(lambda match: scope.lookup.dynamic(match[1], match[2]), node)
    return node


def references(node: Any) -> Iterator[tuple[str, str]]:
    """The resources that an evaluated ``node`` still waits for: pairs of logical name and attribute ("" for Ref)."""
    if isinstance(node, dict):
        if set(node) == {"Ref"}:
            yield node["Ref"], ""
        elif set(node) == {"Fn::GetAtt"}:
            yield node["Fn::GetAtt"][0], node["Fn::GetAtt"][1]
        else:
            for value in node.values():
                yield from references(value)
    elif isinstance(node, list):
        for item in node:
            yield from references(item)


def walk(node: Any) -> Iterator[tuple[str, Any]]:
    """Every function call in an unevaluated ``node``: its name and argument; the variables of Sub come as Ref and Fn::GetAtt."""
    if isinstance(node, dict):
        for name, argument in node.items():
            if len(node) == 1 and (name in ("Ref", "Condition") or name.startswith("Fn::")):
                yield name, argument
                if name == "Fn::Sub":
                    yield from _sub_calls(argument)
            yield from walk(argument)
    elif isinstance(node, list):
        for item in node:
            yield from walk(item)


def _sub_calls(argument: Any) -> Iterator[tuple[str, Any]]:
    text, own = argument if isinstance(argument, list) and len(argument) == 2 else (argument, {})
    for name in _VARIABLE.findall(text if isinstance(text, str) else ""):
        if name not in own:
            yield ("Fn::GetAtt", name.split(".", 1)) if "." in name else ("Ref", name)


def is_pending(value: Any) -> bool:
    """Whether something in ``value`` waits for a resource."""
    return next(references(value), None) is not None


def _ref(name: Any, scope: Scope) -> Any:
    if name == "AWS::NoValue":
        return NO_VALUE
    if name in scope.values:
        return scope.values[name]
    if name not in scope.resources:
        raise invalid(f"Template format error: Unresolved resource dependencies [{name}] in the Resources block of the template")
    found = scope.lookup.ref(name)
    return {"Ref": name} if found is None else found


def _get_att(argument: Any, scope: Scope) -> Any:
    name, attribute = argument[0], evaluate(argument[1], scope)
    if name not in scope.resources:
        raise invalid(f"Template error: instance of Fn::GetAtt references undefined resource {name}")
    found = scope.lookup.attribute(name, attribute)
    return {"Fn::GetAtt": [name, attribute]} if found is None else found


def _text(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, list):
        return ",".join(_text(item) for item in value)
    return str(value)


def _join(argument: Any, scope: Scope) -> Any:
    if not isinstance(argument, list) or len(argument) != 2:
        raise invalid("Template error: every Fn::Join object requires two parameters, (1) a string delimiter and (2) a list of strings")
    delimiter, items = argument[0], evaluate(argument[1], scope)
    if is_pending(items):
        return {"Fn::Join": [delimiter, items]}
    if not isinstance(items, list):
        raise invalid("Template error: every Fn::Join object requires a list of strings to be joined")
    return str(delimiter).join(_text(item) for item in items)


def _sub(argument: Any, scope: Scope) -> Any:
    text, own = (argument, {}) if isinstance(argument, str) else (argument[0], argument[1])
    if not isinstance(text, str) or not isinstance(own, dict):
        raise invalid("Template error: One or more Fn::Sub intrinsic functions don't specify expected arguments")
    local = evaluate(own, scope)
    parts: list[Any] = []
    end = 0
    for match in _VARIABLE.finditer(text):
        name = match[1].strip()
        parts.append(text[end : match.start()])
        end = match.end()
        if name in local:
            parts.append(local[name])
        else:
            parts.append(_get_att(name.split(".", 1), scope) if "." in name else _ref(name, scope))
    parts.append(text[end:])
    parts = [part.replace("${!", "${") if isinstance(part, str) else part for part in parts if part != ""]
    return {"Fn::Join": ["", parts]} if is_pending(parts) else "".join(_text(part) for part in parts)


def _select(argument: Any, scope: Scope) -> Any:
    index, items = evaluate(argument[0], scope), evaluate(argument[1], scope)
    if isinstance(items, dict) or is_pending(index):
        return {"Fn::Select": [index, items]}
    try:
        return items[int(index)]
    except (IndexError, ValueError, TypeError):
        raise invalid(f"Template error: Fn::Select cannot select nonexistent value at index {index}") from None


def _split(argument: Any, scope: Scope) -> Any:
    text = evaluate(argument[1], scope)
    return {"Fn::Split": [argument[0], text]} if is_pending(text) else str(text).split(argument[0])


def _if(argument: Any, scope: Scope) -> Any:
    if not isinstance(argument, list) or len(argument) != 3:
        raise invalid("Template error: Fn::If requires a list argument with three elements")
    return evaluate(argument[1] if scope.condition(argument[0]) else argument[2], scope)


def _equals(argument: Any, scope: Scope) -> bool:
    if not isinstance(argument, list) or len(argument) != 2:
        raise invalid("Template error: Fn::Equals requires a list argument with two elements")
    left, right = (evaluate(item, scope) for item in argument)
    return _text(left) == _text(right)


def _find_in_map(argument: Any, scope: Scope) -> Any:
    names = [evaluate(item, scope) for item in argument[:3]]
    try:
        return scope.mappings[names[0]][names[1]][names[2]]
    except (KeyError, TypeError):
        if len(argument) == 4 and "DefaultValue" in argument[3]:
            return evaluate(argument[3]["DefaultValue"], scope)
        raise invalid(f"Template error: Unable to get mapping for {'::'.join(map(str, names))}") from None


def _import(argument: Any, scope: Scope) -> Any:
    return scope.lookup.export(_text(evaluate(argument, scope)))


def _base64(argument: Any, scope: Scope) -> Any:
    text = evaluate(argument, scope)
    return {"Fn::Base64": text} if is_pending(text) else base64.b64encode(_text(text).encode()).decode()


def _zones(argument: Any, scope: Scope) -> list[str]:
    region = evaluate(argument, scope) or scope.values["AWS::Region"]
    return [f"{region}{letter}" for letter in "abc"]


def _all(argument: Any, scope: Scope) -> bool:
    return all(evaluate(item, scope) for item in argument)


def _any(argument: Any, scope: Scope) -> bool:
    return any(evaluate(item, scope) for item in argument)


_FUNCTIONS: dict[str, Callable[[Any, Scope], Any]] = {
    "Ref": _ref,
    "Fn::GetAtt": _get_att,
    "Fn::Join": _join,
    "Fn::Sub": _sub,
    "Fn::Select": _select,
    "Fn::Split": _split,
    "Fn::If": _if,
    "Fn::Equals": _equals,
    "Fn::And": _all,
    "Fn::Or": _any,
    "Fn::Not": lambda argument, scope: not evaluate(argument[0], scope),
    "Fn::FindInMap": _find_in_map,
    "Fn::ImportValue": _import,
    "Fn::Base64": _base64,
    "Fn::GetAZs": _zones,
}


def evaluate_condition(node: Any, scope: Scope) -> Any:
    """A node of the Conditions block, where ``{"Condition": name}`` stands for another condition."""
    return evaluate(_inline_conditions(node, scope), scope)


def _inline_conditions(node: Any, scope: Scope) -> Any:
    if isinstance(node, dict):
        if set(node) == {"Condition"} and isinstance(node["Condition"], str):
            return scope.condition(node["Condition"])
        return {key: _inline_conditions(value, scope) for key, value in node.items()}
    return [_inline_conditions(item, scope) for item in node] if isinstance(node, list) else node
