"""The test file: parsed into frozen values, every problem named with its key.

See docs/alarms/testing.md for the format.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, replace
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

from alarms import definitions
from alarms.definitions import Definition
from alarms.engine import IMMEDIATE, MetricKey, Options, State
from alarms.engine.problems import Problem as EngineProblem
from alarms.engine.query import UNITS, choice, text, unknown_keys
from alarms.engine.states import STATES
from alarms.testing.notation import NotationError, parse_duration, parse_series
from topology.problems import Problem, UnusableInput

ANY_UNIT = "*"
DEFAULT_START = datetime(2026, 1, 1, tzinfo=UTC).timestamp()


@dataclass(frozen=True, slots=True)
class InputSeries:
    """What one metric does in a test. ``periods[i]`` are the samples of the period that begins at start + i*interval."""

    metric: MetricKey
    periods: tuple[tuple[float, ...], ...] = ()
    lower: tuple[float | None, ...] = ()
    upper: tuple[float | None, ...] = ()
    stored_in: str | None = None
    emitted_by: str | None = None
    delay_s: float = 0.0

    @property
    def length(self) -> int:
        """How many periods it covers."""
        return max(len(self.periods), len(self.lower), len(self.upper))


@dataclass(frozen=True, slots=True)
class Blackout:
    """A Region is gone from ``begin_s`` to before ``end_s``, counted from the test's start."""

    region: str
    begin_s: float
    end_s: float


@dataclass(frozen=True, slots=True)
class Expectation:
    """An alarm's state after the evaluation ``at_s`` seconds after the start, or an action it then runs."""

    at_s: float
    alarm: str
    state: State
    region: str | None = None
    action: str | None = None
    key: str = ""


@dataclass(frozen=True, slots=True)
class Case:
    """One test."""

    name: str
    file: str
    key: str
    start: float
    interval_s: float
    series: tuple[InputSeries, ...]
    expect: tuple[Expectation, ...]
    expect_actions: tuple[Expectation, ...] | None
    region: str | None = None
    previous: Mapping[str, State] | None = None
    blackouts: tuple[Blackout, ...] = ()
    phase_s: float = 0.0
    options: Options = IMMEDIATE

    @property
    def end_s(self) -> float:
        """How long the test runs: to the end of its data and the last thing expected."""
        data = max((one.length * self.interval_s + one.delay_s for one in self.series), default=0.0)
        return max(data, *(item.at_s for item in (*self.expect, *(self.expect_actions or ()))), 0.0)


@dataclass(frozen=True, slots=True)
class Suite:
    """A test file: its definitions and its tests."""

    file: str
    definitions: tuple[Definition, ...]
    cases: tuple[Case, ...]


def load_suite(path: Path, default: Callable[[], list[Definition]] | None) -> Suite:
    """Read a test file. ``default`` renders the definitions for a file that names none. Raises UnusableInput."""
    value = definitions.document(definitions.read(path), str(path))
    return parse_suite(value, path, default)


def parse_suite(value: object, path: Path, default: Callable[[], list[Definition]] | None) -> Suite:
    """A test file that has been parsed as YAML."""
    file = str(path)
    if not isinstance(value, Mapping):
        raise UnusableInput([Problem("is no alarm test file", "write a mapping with tests", file)])
    reader = _Reader(file)
    reader.unknown(value, ("definitions", "tests", "options"), "")
    options = reader.options(value.get("options"), "options", IMMEDIATE)
    found: list[Definition] = []
    try:
        if value.get("definitions") is not None:
            found = definitions.load(value["definitions"], path.parent, file)
        elif default is not None:
            found = default()
        else:
            reader.add("definitions", "there are no definitions", "name files or write alarms under definitions")
    except UnusableInput as error:
        reader.problems += error.problems
    tests = value.get("tests")
    cases = []
    if not isinstance(tests, list) or not tests:
        reader.add("tests", "must be a list with at least one test", "write a list of tests")
    else:
        cases = [reader.case(item, i, options) for i, item in enumerate(tests)]
    known = {definition.name for definition in found if definition.kind != "mute"}
    for case in cases:
        reader.names(case, known)
    if reader.problems:
        raise UnusableInput(reader.problems)
    return Suite(file, tuple(found), tuple(cases))


_CASE_KEYS = (
    *("name", "region", "start", "interval", "previous_state", "input_series", "blackout", "expect", "expect_actions", "phase", "options"),
)
_SERIES_KEYS = ("metric", "stored_in", "emitted_by", "delay", "values", "samples", "band", "unit")


class _Reader:
    """Collects problems while it reads."""

    def __init__(self, file: str) -> None:
        self.file = file
        self.problems: list[Problem] = []

    def add(self, key: str, what: str, mend: str) -> None:
        self.problems.append(Problem(what, mend, self.file, key))

    def unknown(self, value: Mapping[Any, Any], known: tuple[str, ...], key: str) -> None:
        found: list[EngineProblem] = []
        unknown_keys(value, known, found)
        for problem in found:
            self.add(_dot(key, problem.where), f"the key {problem.where} is not known", problem.mend)

    def seconds(self, value: object, key: str, default: float = 0.0) -> float:
        if value is None:
            return default
        try:
            return parse_duration(value)
        except NotationError as error:
            self.add(key, str(error), "write it as 8m or 90s")
            return default

    def string(self, value: Mapping[Any, Any], name: str, key: str) -> str | None:
        found = value.get(name)
        if found is not None and not isinstance(found, str):
            self.add(_dot(key, name), f"must be a string, not {found!r}", "quote it")
            return None
        return found

    def case(self, item: object, index: int, options: Options) -> Case:
        key = f"tests[{index}]"
        if not isinstance(item, Mapping):
            self.add(key, "must be a mapping", "write name, input_series and expect")
            item = {}
        self.unknown(item, _CASE_KEYS, key)
        interval = self.seconds(item.get("interval"), _dot(key, "interval"), 60.0)
        if interval < 1:
            self.add(_dot(key, "interval"), "must be at least 1s", "write it as 1m or 10s")
            interval = 60.0
        expect_actions = item.get("expect_actions")
        case = Case(
            self.string(item, "name", key) or f"test {index + 1}",
            self.file,
            key,
            self.start(item.get("start"), _dot(key, "start")),
            interval,
            tuple(self.series(one, where) for one, where in self.each(item, "input_series", key)),
            tuple(self.expectation(one, where, False) for one, where in self.each(item, "expect", key)),
            None
            if expect_actions is None
            else tuple(self.expectation(one, where, True) for one, where in self.each(item, "expect_actions", key)),
            self.string(item, "region", key),
            self.previous(item.get("previous_state"), _dot(key, "previous_state")),
            tuple(self.blackout(one, where) for one, where in self.each(item, "blackout", key)),
            self.seconds(item.get("phase"), _dot(key, "phase")),
            self.options(item.get("options"), _dot(key, "options"), options),
        )
        if not case.expect and case.expect_actions is None:
            self.add(key, "expects nothing", "write expect or expect_actions")
        if case.end_s > 400 * 86_400:
            self.add(key, "lasts longer than 400 days", "shorten the series or the times")
            return replace(case, series=(), expect=(), expect_actions=None)
        return case

    def each(self, item: Mapping[Any, Any], name: str, key: str) -> list[tuple[Mapping[Any, Any], str]]:
        value = item.get(name)
        if value is None:
            return []
        if not isinstance(value, list):
            self.add(_dot(key, name), "must be a list", "begin each entry with '- '")
            return []
        found = []
        for i, one in enumerate(value):
            where = f"{_dot(key, name)}[{i}]"
            if isinstance(one, Mapping):
                found.append((one, where))
            else:
                self.add(where, "must be a mapping", "write it as {key: value}")
        return found

    def start(self, value: object, key: str) -> float:
        if value is None:
            return DEFAULT_START
        if isinstance(value, str):
            try:
                value = datetime.fromisoformat(value)
            except ValueError:
                value = None
        if isinstance(value, date) and not isinstance(value, datetime):
            value = datetime(value.year, value.month, value.day, tzinfo=UTC)
        if not isinstance(value, datetime) or not 1971 <= value.year <= 9000:
            self.add(key, "is not a time", "write it as 2026-01-01T00:00:00Z")
            return DEFAULT_START
        return (value if value.tzinfo else value.replace(tzinfo=UTC)).timestamp()

    def previous(self, value: object, key: str) -> dict[str, State]:
        if value is None:
            return {}
        if not isinstance(value, Mapping):
            self.add(key, "must be a mapping from alarm to state", "write it as {a: OK}")
            return {}
        found: dict[str, State] = {}
        for name, state in value.items():
            if state in STATES:
                found[str(name)] = state
            else:
                self.add(_dot(key, str(name)), f"{state!r} is not a state", f"use {', '.join(STATES)}")
        return found

    def expectation(self, item: Mapping[Any, Any], key: str, action: bool) -> Expectation:
        self.unknown(item, ("at", "alarm", "state", "region", *(("action",) if action else ())), key)
        for name in ("at", "alarm", "state"):
            if item.get(name) is None:
                self.add(_dot(key, name), "is missing", "write {at: 8m, alarm: name, state: ALARM}")
        state = item.get("state")
        if state is not None and state not in STATES:
            self.add(_dot(key, "state"), f"{state!r} is not a state", f"use {', '.join(STATES)}")
        at = self.seconds(item.get("at"), _dot(key, "at"))
        alarm = self.string(item, "alarm", key) or ""
        settled: State = state if state in STATES else "OK"
        return Expectation(at, alarm, settled, self.string(item, "region", key), self.string(item, "action", key), key)

    def blackout(self, item: Mapping[Any, Any], key: str) -> Blackout:
        self.unknown(item, ("region", "from", "to"), key)
        region = self.string(item, "region", key)
        begin = self.seconds(item.get("from"), _dot(key, "from"))
        end = self.seconds(item.get("to"), _dot(key, "to"), float("inf"))
        if region is None:
            self.add(_dot(key, "region"), "is missing", "name the Region that is gone")
        if begin >= end:
            self.add(key, "ends before it begins", "write from before to")
        return Blackout(region or "", begin, end)

    def series(self, item: Mapping[Any, Any], key: str) -> InputSeries:
        self.unknown(item, _SERIES_KEYS, key)
        metric = self.metric(item, key)
        given = [name for name in ("values", "samples", "band") if item.get(name) is not None]
        if not given or ("values" in given and "samples" in given):
            self.add(key, "needs one of values, samples and band", "write values: '0x5 1'")
        band = item.get("band")
        lower: tuple[float | None, ...] = ()
        upper: tuple[float | None, ...] = ()
        if band is not None:
            if isinstance(band, Mapping) and {"lower", "upper"} == set(band):
                lower = tuple(self.notation(band["lower"], _dot(key, "band.lower")))
                upper = tuple(self.notation(band["upper"], _dot(key, "band.upper")))
            else:
                self.add(_dot(key, "band"), "must have a lower and an upper series", "write {lower: '0x5', upper: '9x5'}")
        return InputSeries(
            metric,
            self.periods(item, key),
            lower,
            upper,
            self.string(item, "stored_in", key),
            self.string(item, "emitted_by", key),
            self.seconds(item.get("delay"), _dot(key, "delay")),
        )

    def metric(self, item: Mapping[Any, Any], key: str) -> MetricKey:
        value = item.get("metric")
        where = _dot(key, "metric")
        if not isinstance(value, Mapping):
            self.add(where, "must be {namespace, name, dimensions}", "name the metric")
            return MetricKey("", "")
        self.unknown(value, ("namespace", "name", "dimensions", "unit"), where)
        found: list[EngineProblem] = []
        namespace, name = text(value, "namespace", found, required=True), text(value, "name", found, required=True)
        unit = choice(value, "unit", sorted(UNITS), found) or choice(item, "unit", sorted(UNITS), found)
        for problem in found:
            self.add(_dot(where, problem.where), problem.what, problem.mend)
        dimensions = value.get("dimensions") or {}
        if not isinstance(dimensions, Mapping) or not all(isinstance(part, str | int | float) for part in dimensions.values()):
            self.add(_dot(where, "dimensions"), "must be a mapping from dimension to value", "write {Workload: shop}")
            dimensions = {}
        named = {str(dimension): str(content) for dimension, content in dimensions.items()}
        return MetricKey.of(namespace or "", name or "", named, unit or ANY_UNIT)

    def notation(self, value: object, key: str) -> list[float | None]:
        if isinstance(value, int | float) and not isinstance(value, bool):
            value = repr(value)
        if not isinstance(value, str):
            self.add(key, "must be a series such as '0x5 1 _'", "quote the series")
            return []
        try:
            return parse_series(value)
        except NotationError as error:
            self.add(key, str(error), "see promtool's notation in docs/alarms/testing.md")
            return []

    def periods(self, item: Mapping[Any, Any], key: str) -> tuple[tuple[float, ...], ...]:
        if item.get("values") is not None:
            values = self.notation(item["values"], _dot(key, "values"))
            return tuple(() if value is None else (value,) for value in values)
        samples = item.get("samples")
        if samples is None:
            return ()
        if not isinstance(samples, list):
            self.add(_dot(key, "samples"), "must be a list with one entry a period", "write [[1, 2, 3], [], [4]]")
            return ()
        return tuple(self.one_period(entry, f"{_dot(key, 'samples')}[{i}]") for i, entry in enumerate(samples))

    def one_period(self, entry: object, key: str) -> tuple[float, ...]:
        if entry is None:
            return ()
        parts = entry if isinstance(entry, list) else [entry]
        found: list[float | None] = []
        for part in parts:
            found += self.notation(part, key)
        return tuple(value for value in found if value is not None)

    def options(self, value: object, key: str, base: Options) -> Options:
        if value is None:
            return base
        if not isinstance(value, Mapping):
            self.add(key, "must be a mapping of engine options", "see docs/alarms/engine.md")
            return base
        types = {one.name: getattr(base, one.name) for one in fields(Options)}
        changes: dict[str, Any] = {}
        for name, content in value.items():
            default = types.get(str(name))
            if default is None:
                self.add(_dot(key, str(name)), "is not an engine option", f"use one of {', '.join(types)}")
            elif isinstance(default, str):
                allowed = _LITERALS[str(name)]
                if content in allowed:
                    changes[str(name)] = content
                else:
                    self.add(_dot(key, str(name)), f"{content!r} is not a value of it", f"use {' or '.join(allowed)}")
            else:
                seconds = self.seconds(content, _dot(key, str(name)))
                changes[str(name)] = type(default)(min(seconds, 86_400.0))
        return replace(base, **changes)

    def names(self, case: Case, known: set[str]) -> None:
        """Every alarm a test names must be defined."""
        named = [(f"{item.key}.alarm", item.alarm) for item in (*case.expect, *(case.expect_actions or ()))]
        named += [(_dot(case.key, f"previous_state.{name}"), name) for name in case.previous or {}]
        for key, name in named:
            if name and name not in known:
                close = sorted(known, key=lambda other: (_distance(other, name), other))[:3]
                self.add(key, f"there is no alarm {name}", f"did you mean {', '.join(close)}?" if close else "define it")


_LITERALS: dict[str, tuple[str, ...]] = {
    "fresh_breach": ("insufficient-data", "retain"),
    "ignore_with_good": ("ok", "retain"),
    "if_missing": ("docs-2026", "docs-2023"),
    "dynamodb_missing": ("explicit", "always-ignore"),
    "band_order": ("upper-lower", "lower-upper"),
}


def _distance(a: str, b: str) -> float:
    """How unlike two names are: 0 for equal ones, 1 for nothing in common."""
    from difflib import SequenceMatcher

    return 1 - SequenceMatcher(None, a, b).ratio()


def _dot(key: str, name: str) -> str:
    return f"{key}.{name}" if key and not name.startswith("[") else key + name
