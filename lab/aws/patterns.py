"""Event patterns: the content filtering that EventBridge rules and SNS filter policies share.

A pattern is a tree of the event's field names whose leaves are lists of alternatives: plain values or matchers such as ``{"prefix": "a"}``.
Reference: https://docs.aws.amazon.com/eventbridge/latest/userguide/eb-create-pattern-operators.html. `check` refuses what AWS refuses,
so that `matches` need not doubt its input.
"""

from __future__ import annotations

import fnmatch
import ipaddress
import operator
import re
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

_COMPARE: dict[str, Callable[[float, float], bool]] = {
    "=": operator.eq,
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}
_ABSENT = object()


class PatternError(ValueError):
    """The pattern is not one that AWS takes; the text says where and why."""


def check(pattern: Any, path: str = "") -> None:
    """Raise `PatternError` where ``pattern`` is malformed."""
    if not isinstance(pattern, dict) or not pattern:
        raise PatternError(f"Pattern{f' at {path}' if path else ''} must be a non-empty JSON object")
    for name, value in pattern.items():
        here = f"{path}.{name}" if path else name
        if name == "$or":
            if not isinstance(value, list) or len(value) < 2:
                raise PatternError(f"{here} must be a list of two or more patterns")
            for branch in value:
                check(branch, here)
        elif isinstance(value, dict):
            check(value, here)
        elif not isinstance(value, list):
            raise PatternError(f'"{here}" must be an object or an array')
        elif not value:
            raise PatternError(f'"{here}": empty arrays are not allowed')
        else:
            for item in value:
                _check_item(item, here)


def matches(pattern: Mapping[str, Any], event: Mapping[str, Any]) -> bool:
    """Whether the event fits the pattern: every named field fits one of its alternatives."""
    for name, wanted in pattern.items():
        if name == "$or":
            if not any(matches(branch, event) for branch in wanted):
                return False
            continue
        value = event.get(name, _ABSENT)
        if isinstance(wanted, dict):
            if not _nested(wanted, value):
                return False
        elif not any(_fits(item, value) for item in wanted):
            return False
    return True


def _nested(pattern: Mapping[str, Any], value: Any) -> bool:
    """A sub-pattern against an object, a list of objects, or nothing (where only ``exists: false`` can fit)."""
    if isinstance(value, list):
        return any(matches(pattern, item) for item in value if isinstance(item, dict))
    return matches(pattern, value if isinstance(value, dict) else {})


def _fits(item: Any, value: Any) -> bool:
    """One alternative against a field's value; a list fits where one of its elements does."""
    if isinstance(item, dict) and "exists" in item:
        present = value is not _ABSENT and not isinstance(value, dict)
        return present == bool(item["exists"])
    if value is _ABSENT:
        return False
    if isinstance(value, list):
        return any(_fits(item, element) for element in value)
    if not isinstance(item, dict):
        return _equal(item, value)
    ((name, operand),) = item.items()
    return _MATCHERS[name](operand, value)


def _equal(wanted: Any, value: Any) -> bool:
    if isinstance(wanted, bool) or isinstance(value, bool) or wanted is None:
        return wanted is value
    if isinstance(wanted, int | float) and isinstance(value, int | float):
        return float(wanted) == float(value)
    return type(wanted) is type(value) and bool(wanted == value)


def _text(test: Callable[[str, str], bool]) -> Callable[[Any, Any], bool]:
    """A matcher on strings; ``{"prefix": {"equals-ignore-case": "a"}}`` folds case."""

    def match(operand: Any, value: Any) -> bool:
        if not isinstance(value, str):
            return False
        if isinstance(operand, dict):
            return test(operand["equals-ignore-case"].lower(), value.lower())
        return test(operand, value)

    return match


def _numeric(operand: list[Any], value: Any) -> bool:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    return all(_COMPARE[name](value, bound) for name, bound in zip(operand[::2], operand[1::2], strict=True))


def _cidr(operand: str, value: Any) -> bool:
    try:
        return ipaddress.ip_address(value) in ipaddress.ip_network(operand, strict=False)
    except ValueError:
        return False


def _wildcard(operand: str, value: str) -> bool:
    escaped = operand.replace("[", "[[]").replace("?", "[?]")
    return re.fullmatch(fnmatch.translate(escaped), value) is not None


def _anything_but(operand: Any, value: Any) -> bool:
    if isinstance(operand, dict):
        ((name, inner),) = operand.items()
        return not any(_MATCHERS[name](choice, value) for choice in (inner if isinstance(inner, list) else [inner]))
    return not any(_equal(choice, value) for choice in (operand if isinstance(operand, list) else [operand]))


_MATCHERS: dict[str, Callable[[Any, Any], bool]] = {
    "prefix": _text(lambda operand, value: value.startswith(operand)),
    "suffix": _text(lambda operand, value: value.endswith(operand)),
    "equals-ignore-case": _text(lambda operand, value: value.lower() == operand.lower()),
    "wildcard": _text(_wildcard),
    "numeric": _numeric,
    "cidr": _cidr,
    "anything-but": _anything_but,
}


def _check_item(item: Any, path: str) -> None:
    if isinstance(item, list):
        raise PatternError(f'"{path}": an array within an array is not allowed')
    if not isinstance(item, dict):
        return
    if len(item) != 1:
        raise PatternError(f'"{path}": only one key is allowed in a match expression')
    ((name, operand),) = item.items()
    if name == "exists":
        if not isinstance(operand, bool):
            raise PatternError(f'"{path}": exists must be true or false')
    elif name not in _MATCHERS:
        raise PatternError(f'"{path}": unrecognized match type {name}')
    elif name == "numeric":
        _check_numeric(operand, path)
    elif name == "cidr":
        try:
            ipaddress.ip_network(operand, strict=False)
        except (ValueError, TypeError):
            raise PatternError(f'"{path}": malformed CIDR {operand}') from None
    elif name == "anything-but":
        _check_anything_but(operand, path)
    else:
        _check_text(name, operand, path)


def _check_text(name: str, operand: Any, path: str) -> None:
    folded = name in ("prefix", "suffix") and isinstance(operand, dict) and set(operand) == {"equals-ignore-case"}
    if not isinstance(operand["equals-ignore-case"] if folded else operand, str):
        raise PatternError(f'"{path}": {name} match pattern must be a string')


def _check_numeric(operand: Any, path: str) -> None:
    good = (
        isinstance(operand, list)
        and len(operand) in (2, 4)
        and all(name in _COMPARE for name in operand[::2])
        and all(isinstance(bound, int | float) and not isinstance(bound, bool) for bound in operand[1::2])
    )
    if not good:
        raise PatternError(f'"{path}": numeric must be a list of one or two comparisons, such as [">", 0, "<=", 5]')


def _check_anything_but(operand: Any, path: str) -> None:
    if isinstance(operand, dict):
        if len(operand) != 1 or next(iter(operand)) not in ("prefix", "suffix", "equals-ignore-case", "wildcard"):
            raise PatternError(f'"{path}": anything-but takes prefix, suffix, equals-ignore-case or wildcard')
        ((name, inner),) = operand.items()
        for choice in inner if isinstance(inner, list) else [inner]:
            _check_text(name, choice, path)
    elif operand is None or isinstance(operand, bool) or (isinstance(operand, list) and not operand):
        raise PatternError(f'"{path}": anything-but takes a string, a number or a list of them')
