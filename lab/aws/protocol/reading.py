"""From the values of a request to an operation's parameters: types converted, and every constraint of the model checked.

`reader` compiles a shape of botocore's model to a function once; a request then costs one call a value. All violations are collected, in
the words AWS uses ("Value null at 'metricName' failed to satisfy constraint: Member must not be null").
"""

from __future__ import annotations

import base64
import binascii
import datetime as dt
import re
import warnings
from collections.abc import Callable
from typing import Any

Problems = list[str]
Reader = Callable[[Any, str, Problems], Any]

_INTEGERS = {"integer", "long", "short", "byte"}
_FLOATS = {"float", "double"}


class Readers:
    """The compiled readers of one service. ``wire`` says that structures are keyed by their names on the wire, not by member names."""

    def __init__(self, wire: bool) -> None:
        self._wire = wire
        self._compiled: dict[int, Reader] = {}
        self._kept: list[Any] = []  # the keys above are ids: the shapes must stay alive

    def read(self, shape: Any, value: Any) -> tuple[Any, Problems]:
        """``value`` as ``shape`` wants it, and what is wrong with it."""
        problems: Problems = []
        return self.reader(shape)(value, "", problems), problems

    def reader(self, shape: Any) -> Reader:
        """The function that reads ``shape``."""
        found = self._compiled.get(id(shape))
        if found is None:
            self._kept.append(shape)
            found = self._compiled[id(shape)] = self._compile(shape)
        return found

    def _compile(self, shape: Any) -> Reader:
        kind = shape.type_name
        if kind == "structure":
            return (lambda value, _path, _problems: value) if shape.is_document_type else self._structure(shape)
        if kind == "list":
            return self._list(shape)
        if kind == "map":
            return self._map(shape)
        if kind == "string":
            return _string(shape.metadata)
        if kind == "blob":
            return _blob
        if kind == "boolean":
            return _boolean
        if kind == "timestamp":
            return _timestamp
        if kind in _INTEGERS:
            return _number(shape.metadata, int, kind)
        if kind in _FLOATS:
            return _number(shape.metadata, float, kind)
        return lambda value, _path, _problems: value

    def _structure(self, shape: Any) -> Reader:
        required = set(shape.required_members)
        members: list[tuple[str, str, str, Reader, bool]] | None = None

        def read(value: Any, path: str, problems: Problems) -> Any:
            nonlocal members
            if members is None:  # compiled on first use: shapes refer to each other in circles
                members = [
                    (
                        name,
                        member.serialization.get("name", name) if self._wire else name,
                        _path_name(name),
                        self.reader(member),
                        name in required,
                    )
                    for name, member in shape.members.items()
                ]
            if not isinstance(value, dict):
                problems.append(f"Value at '{path}' failed to satisfy constraint: Member must be a structure")
                return {}
            out = {}
            for name, key, label, reader, needed in members:
                item = value.get(key)
                if item is not None:
                    out[name] = reader(item, f"{path}.{label}" if path else label, problems)
                elif needed:
                    where = f"{path}.{label}" if path else label
                    problems.append(f"Value null at '{where}' failed to satisfy constraint: Member must not be null")
            return out

        return read

    def _list(self, shape: Any) -> Reader:
        low, high = shape.metadata.get("min"), shape.metadata.get("max")
        member = shape.member

        def read(value: Any, path: str, problems: Problems) -> Any:
            if not isinstance(value, list | tuple):
                problems.append(f"Value at '{path}' failed to satisfy constraint: Member must be a list")
                return []
            _check_length(len(value), low, high, path, problems)
            reader = self.reader(member)
            return [reader(item, f"{path}.{index}.member", problems) for index, item in enumerate(value, 1)]

        return read

    def _map(self, shape: Any) -> Reader:
        low, high = shape.metadata.get("min"), shape.metadata.get("max")

        def read(value: Any, path: str, problems: Problems) -> Any:
            if not isinstance(value, dict):
                problems.append(f"Value at '{path}' failed to satisfy constraint: Member must be a map")
                return {}
            _check_length(len(value), low, high, path, problems)
            key_reader, reader = self.reader(shape.key), self.reader(shape.value)
            return {
                key_reader(key, f"{path}.key", problems): None if item is None else reader(item, f"{path}.{key}.member", problems)
                for key, item in value.items()
            }

        return read


def _path_name(name: str) -> str:
    return name[:1].lower() + name[1:]


def _check_length(length: int, low: int | None, high: int | None, path: str, problems: Problems) -> None:
    if low is not None and length < low:
        problems.append(f"Value at '{path}' failed to satisfy constraint: Member must have length greater than or equal to {low}")
    if high is not None and length > high:
        problems.append(f"Value at '{path}' failed to satisfy constraint: Member must have length less than or equal to {high}")


def _string(metadata: dict[str, Any]) -> Reader:
    low, high, allowed = metadata.get("min"), metadata.get("max"), metadata.get("enum")
    pattern = _pattern(metadata.get("pattern"))

    def read(value: Any, path: str, problems: Problems) -> Any:
        if not isinstance(value, str):
            problems.append(f"Value '{value}' at '{path}' failed to satisfy constraint: Member must be a string")
            return str(value)
        if low is not None and len(value) < low:
            problems.append(
                f"Value '{value}' at '{path}' failed to satisfy constraint: Member must have length greater than or equal to {low}"
            )
        if high is not None and len(value) > high:
            problems.append(
                f"Value '{value[:80]}' at '{path}' failed to satisfy constraint: Member must have length less than or equal to {high}"
            )
        if allowed and value not in allowed:
            problems.append(
                f"Value '{value}' at '{path}' failed to satisfy constraint: Member must satisfy enum value set: [{', '.join(allowed)}]"
            )
        if pattern is not None and not pattern.fullmatch(value):
            problems.append(
                f"Value '{value[:80]}' at '{path}' failed to satisfy constraint: "
                f"Member must satisfy regular expression pattern: {metadata['pattern']}"
            )
        return value

    return read


def _pattern(text: str | None) -> re.Pattern[str] | None:
    """The model's pattern, which is Java's dialect and means the whole value; what Python does not understand is not checked."""
    if not text:
        return None
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # Python warns of what it would read differently, such as nested sets
        try:
            return re.compile(text)
        except (re.error, FutureWarning):
            return None


def _number(metadata: dict[str, Any], convert: type[int] | type[float], kind: str) -> Reader:
    low, high = metadata.get("min"), metadata.get("max")

    def read(value: Any, path: str, problems: Problems) -> Any:
        try:
            if isinstance(value, bool) or (convert is int and isinstance(value, float) and value != int(value)):
                raise ValueError(value)
            number = convert(value)
        except (TypeError, ValueError, OverflowError):
            problems.append(f"Value '{value}' at '{path}' failed to satisfy constraint: Member must be of type {kind}")
            return 0
        if low is not None and number < low:
            problems.append(
                f"Value '{value}' at '{path}' failed to satisfy constraint: Member must have value greater than or equal to {low}"
            )
        if high is not None and number > high:
            problems.append(
                f"Value '{value}' at '{path}' failed to satisfy constraint: Member must have value less than or equal to {high}"
            )
        return number

    return read


def _boolean(value: Any, path: str, problems: Problems) -> Any:
    if isinstance(value, bool):
        return value
    if isinstance(value, str) and value.lower() in {"true", "false"}:
        return value.lower() == "true"
    problems.append(f"Value '{value}' at '{path}' failed to satisfy constraint: Member must be a boolean")
    return False


def _blob(value: Any, path: str, problems: Problems) -> Any:
    if isinstance(value, bytes | bytearray):
        return bytes(value)
    try:
        return base64.b64decode(value, validate=True)
    except (TypeError, ValueError, binascii.Error):
        problems.append(f"Value at '{path}' failed to satisfy constraint: Member must be base64")
        return b""


def _timestamp(value: Any, path: str, problems: Problems) -> Any:
    try:
        return epoch_seconds(value)
    except ValueError:
        problems.append(f"Value '{value}' at '{path}' failed to satisfy constraint: Member must be a timestamp")
        return 0.0


def epoch_seconds(value: Any) -> float:
    """A timestamp in any of the forms the protocols use (number, datetime, ISO 8601, RFC 822) as epoch seconds. Raises ValueError."""
    if isinstance(value, dt.datetime):
        return (value if value.tzinfo else value.replace(tzinfo=dt.UTC)).timestamp()
    if isinstance(value, bool):
        raise ValueError(value)
    if isinstance(value, int | float):
        return float(value)
    text = str(value).strip()
    try:
        return float(text)
    except ValueError:
        pass
    try:
        moment = dt.datetime.fromisoformat(text)
    except ValueError:
        moment = dt.datetime.strptime(text, "%a, %d %b %Y %H:%M:%S GMT").replace(tzinfo=dt.UTC)
    return (moment if moment.tzinfo else moment.replace(tzinfo=dt.UTC)).timestamp()
