"""Reading ``config.json`` out of a bundle: a small strict decoder from JSON to frozen dataclasses.

Configuration is in the bundle, not in environment variables: it is versioned with the code, has no 4 KB limit, and what runs is what was
rendered. Every problem is collected before `ConfigurationError` is raised.
"""

from __future__ import annotations

import dataclasses
import json
import types
import typing
from pathlib import Path
from typing import Any, TypeVar

T = TypeVar("T")


class ConfigurationError(Exception):
    """A bundle's configuration cannot be used; the text names file, key and mend, one problem a line."""


def load(kind: type[T], path: Path) -> T:
    """Read ``path`` as the dataclass ``kind``. Raises ConfigurationError."""
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ConfigurationError(f"{path}: there is no such file; build the bundle with canaries.bundle.build") from None
    except json.JSONDecodeError as error:
        raise ConfigurationError(f"{path}: not JSON ({error}); build the bundle again") from error
    problems: list[str] = []
    value = decode(kind, data, "", problems)
    if problems:
        raise ConfigurationError("\n".join(f"{path.name}: {problem}" for problem in problems))
    return typing.cast("T", value)


def decode(kind: Any, data: Any, where: str, problems: list[str]) -> Any:
    """``data`` as a ``kind``: a dataclass, tuple, dict, optional or plain type. Appends to ``problems`` what does not fit."""
    origin = typing.get_origin(kind)
    if origin in (types.UnionType, typing.Union):
        if data is None:
            return None
        return decode(next(each for each in typing.get_args(kind) if each is not types.NoneType), data, where, problems)
    if dataclasses.is_dataclass(kind):
        return _decode_dataclass(typing.cast("type", kind), data, where, problems)
    if origin is tuple:
        if not isinstance(data, list):
            problems.append(f"{where}: a list is expected, not {data!r}")
            return ()
        return tuple(decode(typing.get_args(kind)[0], item, f"{where}[{index}]", problems) for index, item in enumerate(data))
    if origin is dict:
        if not isinstance(data, dict):
            problems.append(f"{where}: an object is expected, not {data!r}")
            return {}
        return {key: decode(typing.get_args(kind)[1], value, f"{where}.{key}", problems) for key, value in data.items()}
    if kind is float and isinstance(data, int) and not isinstance(data, bool):
        return float(data)
    if not isinstance(data, kind) or (isinstance(data, bool) and kind is not bool):
        problems.append(f"{where}: a {kind.__name__} is expected, not {data!r}")
    return data


def encode(value: Any) -> Any:
    """The other way: a dataclass as plain JSON values."""
    return json.loads(json.dumps(dataclasses.asdict(value)))


def _decode_dataclass(kind: type, data: Any, where: str, problems: list[str]) -> Any:
    if not isinstance(data, dict):
        problems.append(f"{where or 'the file'}: an object is expected, not {data!r}")
        return None
    hints = typing.get_type_hints(kind)
    fields = {field.name: field for field in dataclasses.fields(kind)}
    dot = f"{where}." if where else ""
    problems += [f"{dot}{key}: unknown key; known are {', '.join(sorted(fields))}" for key in sorted(set(data) - set(fields))]
    values = {}
    for name, field in fields.items():
        if name in data:
            values[name] = decode(hints[name], data[name], f"{dot}{name}", problems)
        elif field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING:
            problems.append(f"{dot}{name}: missing")
    if problems:
        return None
    return kind(**values)
