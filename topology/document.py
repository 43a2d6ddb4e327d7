"""YAML with a memory of where everything stood: values, the line of every key path, and duplicate keys as problems."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from topology.problems import Problem, UnusableInput

KeyPath = tuple[str | int, ...]


@dataclass(frozen=True, slots=True)
class Document:
    """A parsed YAML file. ``lines`` maps a key path to its line, from 1."""

    file: str
    value: Any
    lines: dict[KeyPath, int]
    problems: tuple[Problem, ...] = field(default=())

    def line(self, path: KeyPath) -> int | None:
        """The line of ``path`` or of its nearest parent that has one."""
        while path and path not in self.lines:
            path = path[:-1]
        return self.lines.get(path)


def dotted(path: KeyPath) -> str:
    """A key path as people write it: ``pages[0].path``."""
    text = ""
    for part in path:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else str(part)
    return text


def read(path: Path) -> Document:
    """Read a YAML mapping. Raises `UnusableInput` where the file cannot be read, is not YAML, is empty or is no mapping."""
    name = str(path)
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise _unusable(name, "there is no such file", "give the path of a topology file, such as topology.yaml") from None
    except IsADirectoryError:
        raise _unusable(name, "this is a folder", "give the path of a topology file in it, such as topology.yaml") from None
    except (OSError, UnicodeDecodeError) as error:
        raise _unusable(name, f"the file cannot be read as UTF-8 text ({error})", "check its permissions and encoding") from error
    return parse(text, name)


def parse(text: str, file: str) -> Document:
    """Parse YAML text; ``file`` is only for messages. Raises as `read`."""
    lines: dict[KeyPath, int] = {}
    problems: list[Problem] = []
    try:
        value = _construct(text, lines, problems, file)
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else None
        raise _unusable(file, f"this is not YAML: {error.problem or error.context}", "mend the syntax at that line", line) from error
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise _unusable(file, f"this is not YAML: {str(error).splitlines()[0]}", "save the file as plain YAML text") from error
    if value is None:
        raise _unusable(file, "the file is empty", "describe the workload; copy topology.yaml from the repository to start")
    if not isinstance(value, dict):
        raise _unusable(
            file, f"a mapping is expected at the top, not a {_kind(value)}", "start with keys such as 'workload:' and 'regions:'", 1
        )
    return Document(file, value, lines, tuple(problems))


def _construct(text: str, lines: dict[KeyPath, int], problems: list[Problem], file: str) -> Any:
    """The value of the one document in ``text``; None where there is none. Fills ``lines`` and ``problems`` on the way."""
    loader = yaml.SafeLoader(text)
    try:
        node = loader.get_single_node()
        if node is None:
            return None
        _walk(node, (), lines, problems, file, frozenset())
        return loader.construct_document(node)
    finally:
        loader.dispose()


def _walk(node: yaml.Node, path: KeyPath, lines: dict[KeyPath, int], problems: list[Problem], file: str, above: frozenset[int]) -> None:
    """Note the line of everything below ``node``; report keys that stand twice and anchors that contain themselves."""
    lines.setdefault(path, node.start_mark.line + 1)
    if id(node) in above:
        raise yaml.constructor.ConstructorError(None, None, "an alias that contains itself", node.start_mark)
    above |= {id(node)}
    if isinstance(node, yaml.MappingNode):
        seen: dict[str, int] = {}
        for key, child in node.value:
            name = str(key.value)
            line = key.start_mark.line + 1
            if name in seen and name != "<<":
                problems.append(
                    Problem(
                        f"the name {name!r} stands twice (first at line {seen[name]}); the second would silently win",
                        "rename or remove one of the two",
                        file,
                        dotted((*path, name)),
                        line,
                    )
                )
            seen.setdefault(name, line)
            lines[(*path, name)] = line
            _walk(child, (*path, name), lines, problems, file, above)
    elif isinstance(node, yaml.SequenceNode):
        for index, child in enumerate(node.value):
            _walk(child, (*path, index), lines, problems, file, above)


def _kind(value: object) -> str:
    return {list: "list", str: "text", int: "number", float: "number", bool: "yes/no value"}.get(type(value), type(value).__name__)


def _unusable(file: str, what: str, mend: str, line: int | None = None) -> UnusableInput:
    return UnusableInput([Problem(what, mend, file, "", line)])
