"""Alarm definitions as they stand in files: lists of PutMetricAlarm, PutCompositeAlarm and PutAlarmMuteRule parameters, JSON or YAML.

A file holds a list of items, or a mapping of such lists by kind or Region (``MetricAlarms: […]``, ``us-west-2: […]``; what DescribeAlarms
answers is one of these), or a CloudFormation template without open references. The kind of an item shows by its keys. An item may carry
``Region``, and ``x-crosswatch-disable`` (a mapping from lint check to reason); in YAML a comment ``# crosswatch disable <check>: <reason>``
within the item does the same.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import yaml

from alarms.engine.model import Alarm, CompositeAlarm, MetricAlarm, parse_composite_alarm, parse_metric_alarm
from alarms.engine.mute import MuteRule, parse_mute_rule
from alarms.engine.problems import DefinitionError
from alarms.engine.problems import Problem as EngineProblem
from topology.problems import Problem, UnusableInput

Kind = Literal["metric", "composite", "mute"]
DISABLE_KEY = "x-crosswatch-disable"
_DISABLE = re.compile(r"#\s*crosswatch\s+disable\s+(?P<check>[a-z0-9-]+)\s*(?::\s*(?P<reason>.*\S))?\s*$")
_READ_ONLY = re.compile(
    r"AlarmArn|State\w*|AlarmConfigurationUpdatedTimestamp|EvaluationState|ActionsSuppressed(By|Reason)|AlarmMuteRuleArn"
)
_RESOURCES: dict[str, Kind] = {
    "AWS::CloudWatch::Alarm": "metric",
    "AWS::CloudWatch::CompositeAlarm": "composite",
    "AWS::CloudWatch::AlarmMuteRule": "mute",
}
MAX_NODES, MAX_LEVELS = 2_000_000, 60
_BASE: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # libyaml's where it is there: ten times as fast
_REGION = re.compile(r"[a-z]{2}(-[a-z]+)+-\d\Z")


@dataclass(frozen=True, slots=True)
class Definition:
    """One item: what AWS's operation would get, where it is meant to live, and where it was read."""

    kind: Kind
    params: Mapping[str, Any]
    region: str | None = None
    file: str = ""
    key: str = ""
    line: int | None = None
    disabled: Mapping[str, str] = field(default_factory=dict)
    """Lint checks switched off for this item, with the reason."""

    @property
    def name(self) -> str:
        """The alarm's or mute rule's name ("" where it has none)."""
        value = self.params.get("Name" if self.kind == "mute" else "AlarmName")
        return value if isinstance(value, str) else ""

    def parse(self, account: str | None = None) -> Alarm | MuteRule:
        """The typed alarm or mute rule. Raises DefinitionError."""
        if self.kind == "mute":
            return parse_mute_rule(self.params)
        if self.kind == "composite":
            return parse_composite_alarm(self.params, self.region, account)
        return parse_metric_alarm(self.params)

    def problems(self, found: Iterable[EngineProblem]) -> list[Problem]:
        """The engine's problems with the file and item they stand in."""
        return [
            Problem(problem.what, problem.mend or "see the API reference", self.file, _join(self.key, self.name, problem.where), self.line)
            for problem in found
        ]

    def moved(self, region: str | None) -> Definition:
        """The same item in another Region."""
        return replace(self, region=region)


def parse_all(definitions: Iterable[Definition]) -> list[tuple[Definition, Alarm | MuteRule]]:
    """Every definition with what it parses to. Raises UnusableInput with the problems of all of them."""
    problems: list[Problem] = []
    parsed: list[tuple[Definition, Alarm | MuteRule]] = []
    seen: dict[tuple[str | None, bool, str], Definition] = {}
    for definition in definitions:
        try:
            parsed.append((definition, definition.parse()))
        except DefinitionError as error:
            problems += definition.problems(error.problems)
            continue
        key = (definition.region, definition.kind == "mute", definition.name)
        if key in seen:
            what = f"{definition.name} is defined twice"
            problems += definition.problems([EngineProblem("", what, "give each alarm of a Region its own name")])
        seen[key] = definition
    if problems:
        raise UnusableInput(problems)
    return parsed


def only_alarms(parsed: Iterable[tuple[Definition, Alarm | MuteRule]]) -> list[tuple[Definition, Alarm]]:
    """Without the mute rules."""
    return [(definition, item) for definition, item in parsed if isinstance(item, MetricAlarm | CompositeAlarm)]


def load(value: object, base: Path, file: str, key: str = "definitions") -> list[Definition]:
    """Definitions from a list of file names (relative to ``base``) and inline items. Raises UnusableInput."""
    if isinstance(value, str | Mapping):
        value = [value]
    if not isinstance(value, list):
        raise UnusableInput([Problem("must be a list of files and inline definitions", "write it as a list", file, key)])
    problems: list[Problem] = []
    found: list[Definition] = []
    for i, item in enumerate(value):
        where = f"{key}[{i}]"
        try:
            if isinstance(item, str):
                found += _load_matching(base, item, file, where)
            elif isinstance(item, Mapping):
                found += _items(item, file, where)
            else:
                problems.append(Problem(f"{item!r} is neither a file nor a definition", "name a file or write the item", file, where))
        except UnusableInput as error:
            problems += error.problems
    if problems:
        raise UnusableInput(problems)
    return found


def from_items(items: object, file: str = "rendered") -> list[Definition]:
    """Definitions from parameters in memory, in any of the shapes a file may have. Raises UnusableInput."""
    return _items(items, file, "")


def load_file(path: Path) -> list[Definition]:
    """The definitions of one file. Raises UnusableInput."""
    text = read(path)
    value = document(text, str(path))
    lines = _YamlLines(text) if path.suffix.lower() != ".json" else None
    return [lines.place(definition) if lines else definition for definition in _items(value, str(path), "")]


def read(path: Path) -> str:
    """A file's text. Raises UnusableInput."""
    try:
        return path.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        what = getattr(error, "strerror", None) or str(error)
        raise UnusableInput([Problem(f"cannot be read: {what}", "check the name and the encoding (UTF-8)", str(path))]) from error


def document(text: str, file: str) -> Any:
    """What a JSON or YAML text stands for. Raises UnusableInput with the line that is wrong."""
    try:
        return _bounded(json.loads(text) if file.lower().endswith(".json") else yaml.load(text, Loader=_Loader))
    except (yaml.YAMLError, ValueError, RecursionError, OverflowError) as error:
        mark = getattr(error, "problem_mark", None)
        line = mark.line + 1 if mark is not None else getattr(error, "lineno", None)
        what = getattr(error, "problem", None) or getattr(error, "msg", None) or str(error) or type(error).__name__
        raise UnusableInput([Problem(f"is not valid: {what}", "correct the syntax", file, "", line)]) from error


class _Loader(_BASE):  # type: ignore[misc]  # libyaml's loader or its twin
    """Safe YAML in which ``0x5`` is a series of six zeros and ``1:30`` is text, not numbers of other bases."""


_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag != "tag:yaml.org,2002:int" or first not in "0123456789+-"]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_Loader.add_implicit_resolver("tag:yaml.org,2002:int", re.compile(r"[-+]?(0|[1-9][0-9]*)\Z"), list("-+0123456789"))


def _bounded(value: Any) -> Any:
    """``value`` unless aliases (or depth) make it larger than any real file. Raises ValueError."""
    left = MAX_NODES
    level = [value]
    for _ in range(MAX_LEVELS):
        below: list[Any] = []
        for node in level:
            below += node.values() if isinstance(node, dict) else node if isinstance(node, list) else ()
            if len(below) > left:
                raise ValueError(f"it has more than {MAX_NODES} values (aliases count as often as they are used)")
        if not below:
            return value
        left -= len(below)
        level = below
    raise ValueError(f"it is nested deeper than {MAX_LEVELS} levels")


def _load_matching(base: Path, pattern: str, file: str, where: str) -> list[Definition]:
    paths = sorted(base.glob(pattern)) if any(mark in pattern for mark in "*?[") and not Path(pattern).is_absolute() else [base / pattern]
    if not paths:
        raise UnusableInput([Problem(f"no file matches {pattern}", f"name a file relative to {base}", file, where)])
    return [definition for path in paths for definition in load_file(path)]


def _items(value: object, file: str, key: str) -> list[Definition]:
    """The definitions in a parsed document."""
    if isinstance(value, Mapping) and isinstance(value.get("Resources"), Mapping):
        return list(_from_template(value["Resources"], file))
    if isinstance(value, Mapping) and not _looks_like_item(value):
        found = []
        for kind, items in value.items():
            where = _join(key, str(kind))
            if isinstance(items, list | Mapping):
                region = str(kind) if _REGION.match(str(kind)) else None
                found += [item if item.region or not region else item.moved(region) for item in _items(items, file, where)]
            elif str(kind) not in ("NextToken", "ResponseMetadata", "Version", "Description"):
                raise UnusableInput([Problem("is no list of definitions", "write a list of alarms under it", file, where)])
        return found
    if isinstance(value, Mapping):
        return [_item(value, file, key)]
    if not isinstance(value, list):
        what = "holds no list of alarm definitions" if value is not None else "is empty"
        raise UnusableInput([Problem(what, "write a list of PutMetricAlarm parameters", file, key)])
    found, problems = [], []
    for i, item in enumerate(value):
        where = f"{key}[{i}]"
        if isinstance(item, Mapping):
            found.append(_item(item, file, where))
        else:
            problems.append(Problem("is not an alarm definition", "write a mapping of PutMetricAlarm parameters", file, where))
    if problems:
        raise UnusableInput(problems)
    return found


def _looks_like_item(value: Mapping[Any, Any]) -> bool:
    return bool({"AlarmName", "AlarmRule", "MetricName", "Metrics", "MuteTargets", "Rule", "ComparisonOperator"} & value.keys())


def _item(item: Mapping[Any, Any], file: str, key: str, kind: Kind | None = None) -> Definition:
    params = {str(name): content for name, content in item.items()}
    region = params.pop("Region", None)
    disabled = params.pop(DISABLE_KEY, None)
    problems = []
    if region is not None and not (isinstance(region, str) and _REGION.match(region)):
        problems.append(Problem(f"{region!r} is not a Region", "write it as us-west-2", file, _join(key, "Region")))
    if disabled is not None and not (isinstance(disabled, Mapping) and all(isinstance(r, str) and r.strip() for r in disabled.values())):
        what = f"{DISABLE_KEY} must give each disabled check a reason"
        problems.append(Problem(what, "write {check: reason}", file, _join(key, DISABLE_KEY)))
    if problems:
        raise UnusableInput(problems)
    if kind is None:
        kind = "composite" if "AlarmRule" in params else "mute" if "MuteTargets" in params or "Rule" in params else "metric"
    params = {name: content for name, content in params.items() if not _READ_ONLY.fullmatch(name)}
    return Definition(kind, params, region, file, key, None, {str(k): str(v) for k, v in (disabled or {}).items()})


def _from_template(resources: Mapping[Any, Any], file: str) -> Iterator[Definition]:
    """A template's alarms in an order CloudFormation may create them in: after what they depend on, otherwise composites first."""
    alarms = {str(name): one for name, one in resources.items() if isinstance(one, Mapping) and str(one.get("Type")) in _RESOURCES}
    waiting = {name: _depends_on(one) & alarms.keys() - {name} for name, one in alarms.items()}
    order: list[str] = []
    while waiting:
        ready = [name for name, needs in waiting.items() if not needs] or list(waiting)
        chosen = min(ready, key=lambda name: _RESOURCES[str(alarms[name]["Type"])] != "composite")
        order.append(chosen)
        del waiting[chosen]
        for needs in waiting.values():
            needs.discard(chosen)
    for logical in order:
        resource = alarms[logical]
        kind = _RESOURCES[str(resource["Type"])]
        properties = resource.get("Properties")
        if not isinstance(properties, Mapping):
            continue
        name = {"AlarmName": logical} if kind != "mute" and "AlarmName" not in properties else {}
        metadata = resource.get("Metadata")
        disabled = {DISABLE_KEY: metadata[DISABLE_KEY]} if isinstance(metadata, Mapping) and DISABLE_KEY in metadata else {}
        yield _item({**name, **properties, **disabled}, file, f"Resources.{logical}", kind)


def _depends_on(resource: Mapping[Any, Any]) -> set[str]:
    """The logical ids a resource waits for."""
    value = resource.get("DependsOn")
    return {value} if isinstance(value, str) else {str(one) for one in value} if isinstance(value, list) else set()


class _YamlLines:
    """Finds the line of each item of a YAML text, and the disabling comments within it."""

    def __init__(self, text: str) -> None:
        self.lines = text.splitlines()
        self.named: dict[str, list[int]] = {}
        for number, line in enumerate(self.lines):
            if match := re.match(r"""\s*(?:-\s+|\{\s*)*["']?(?:AlarmName|Name)["']?\s*:\s*["']?([^"',}#]+)""", line):
                self.named.setdefault(match[1].strip(), []).append(number)

    def place(self, definition: Definition) -> Definition:
        """The definition with its line, and with the checks its comments disable."""
        places = self.named.get(definition.name)
        if not places:
            return definition
        at = places.pop(0) if len(places) > 1 else places[0]
        first, last = self._extent(at)
        comments = {match["check"]: match["reason"] or "" for line in self.lines[first : last + 1] if (match := _DISABLE.search(line))}
        return replace(definition, line=at + 1, disabled={**comments, **definition.disabled})

    def _extent(self, at: int) -> tuple[int, int]:
        """First and last line of the list item that line ``at`` belongs to.

        Comments right above the item, level with its dash, belong to it; so do comments below it that are indented deeper than the dash.
        """
        first, column = at, self._indent(at)
        while first > 0 and not (self.lines[first].lstrip().startswith("- ") and (first == at or self._indent(first) < column)):
            first -= 1
        dash = self._indent(first)
        last = first
        while last + 1 < len(self.lines) and (not self.lines[last + 1].strip() or self._indent(last + 1) > dash):
            last += 1
        while first > 0 and self.lines[first - 1].lstrip().startswith("#") and self._indent(first - 1) == dash:
            first -= 1
        return first, last

    def _indent(self, number: int) -> int:
        return len(self.lines[number]) - len(self.lines[number].lstrip())


def _join(*parts: str) -> str:
    return ".".join(part for part in parts if part).replace(".[", "[")
