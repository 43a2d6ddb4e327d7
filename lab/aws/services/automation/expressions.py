"""The two little languages of Automation documents: ``{{ references }}`` and JSONPath selectors. Pure."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

_REFERENCE = re.compile(r"\{\{\s*([A-Za-z0-9_.:/-]+)\s*\}\}")
_PART = re.compile(r"\.([A-Za-z0-9_-]+)|\[(\d+)\]|\['([^']+)'\]|(\[\*\])")


class UnresolvedError(Exception):
    """A reference or a selector leads nowhere."""


def substitute(value: Any, lookup: Callable[[str], Any]) -> Any:
    """``value`` with every ``{{ name }}`` replaced by ``lookup(name)``.

    A text that is nothing but one reference becomes the value itself, of whatever type; within a longer text the value is written out.
    """
    if isinstance(value, dict):
        return {substitute(key, lookup): substitute(item, lookup) for key, item in value.items()}
    if isinstance(value, list):
        return [substitute(item, lookup) for item in value]
    if not isinstance(value, str):
        return value
    whole = _REFERENCE.fullmatch(value.strip())
    if whole:
        return lookup(whole[1])
    return _REFERENCE.sub(lambda match: as_text(lookup(match[1])), value)


def references(value: Any) -> set[str]:
    """The names that ``value`` refers to."""
    if isinstance(value, dict):
        return {name for item in (*value, *value.values()) for name in references(item)}
    if isinstance(value, list):
        return {name for item in value for name in references(item)}
    return set(_REFERENCE.findall(value)) if isinstance(value, str) else set()


def select(document: Any, path: str) -> Any:
    """The value at ``path`` (``$.A.B[0].C``, ``$.Items[*].Id``) of ``document``. Raises `UnresolvedError` where there is none."""
    if not path.startswith("$"):
        raise UnresolvedError(f"the selector {path} does not begin with $")
    at = 1
    value, spread = document, False
    while at < len(path):
        part = _PART.match(path, at)
        if part is None:
            raise UnresolvedError(f"the selector {path} is not one that is understood here, from {path[at:]!r} on")
        at = part.end()
        if part[4]:
            spread = True
            value = list(value)
            continue
        key: Any = int(part[2]) if part[2] else part[1] or part[3]
        value = [_member(item, key, path) for item in value] if spread else _member(value, key, path)
    return value


def as_text(value: Any) -> str:
    """A value as Automation writes it into text and into outputs: text as it is, everything else as JSON."""
    return value if isinstance(value, str) else json.dumps(value, default=str)


def _member(value: Any, key: Any, path: str) -> Any:
    try:
        return value[key]
    except (KeyError, IndexError, TypeError):
        raise UnresolvedError(f"the selector {path} finds nothing: there is no {key!r}") from None
