"""A metric, a statistic of it, and the MetricDataQuery list that alarms, dashboards and GetMetricData share."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from alarms.engine.problems import Problem
from alarms.engine.statistics import valid_statistic

_RATES = ("Bytes", "Kilobytes", "Megabytes", "Gigabytes", "Terabytes", "Bits", "Kilobits", "Megabits", "Gigabits", "Terabits", "Count")
UNITS = frozenset({"Seconds", "Microseconds", "Milliseconds", "Percent", "None", *_RATES, *(f"{unit}/Second" for unit in _RATES)})
ID = re.compile(r"[a-z][a-zA-Z0-9_]*\Z")
MAX_DIMENSIONS = 30


@dataclass(frozen=True, slots=True, order=True)
class MetricKey:
    """A metric: namespace, name, dimensions in name order, and the unit asked for (None: any unit)."""

    namespace: str
    name: str
    dimensions: tuple[tuple[str, str], ...] = ()
    unit: str | None = None

    @classmethod
    def of(cls, namespace: str, name: str, dimensions: Mapping[str, str] | None = None, unit: str | None = None) -> MetricKey:
        """A key from a mapping of dimensions in any order."""
        return cls(namespace, name, tuple(sorted((dimensions or {}).items())), unit)

    def selects(self, stored: MetricKey) -> bool:
        """Whether data stored under ``stored`` belongs to this key: the same dimensions, and the unit where one is asked for.

        Data stored without a unit has the unit None; a stored unit of ``*`` fits any.
        """
        return (
            self.namespace == stored.namespace
            and self.name == stored.name
            and self.dimensions == stored.dimensions
            and (self.unit is None or stored.unit == "*" or self.unit == (stored.unit or "None"))
        )

    def __str__(self) -> str:
        dimensions = ",".join(f"{name}={value}" for name, value in self.dimensions)
        unit = f" [{self.unit}]" if self.unit else ""
        return f"{self.namespace} {self.name}{{{dimensions}}}{unit}"


@dataclass(frozen=True, slots=True)
class MetricStat:
    """A statistic of a metric over a period in seconds."""

    metric: MetricKey
    period: int
    stat: str


@dataclass(frozen=True, slots=True)
class Query:
    """One MetricDataQuery: either a metric's statistic or an expression over other queries."""

    id: str
    metric_stat: MetricStat | None = None
    expression: str | None = None
    label: str | None = None
    return_data: bool = True
    period: int | None = None
    account_id: str | None = None

    @property
    def seconds(self) -> int | None:
        """The period asked for, in seconds, where this query says one."""
        return self.metric_stat.period if self.metric_stat else self.period


def text(params: Mapping[str, Any], key: str, problems: list[Problem], *, maximum: int = 255, required: bool = False) -> str | None:
    """The string under ``key``; wrong types and lengths become problems worded as AWS words them."""
    value = params.get(key)
    if value is None:
        if required:
            problems.append(Problem(key, f"{key} must not be null", f"give {key} a value"))
        return None
    if not isinstance(value, str):
        problems.append(Problem(key, f"must be a string, not {type(value).__name__}", "quote it"))
        return None
    if not value and required:
        problems.append(Problem(key, _constraint(value, key, "Member must have length greater than or equal to 1"), "give it a value"))
    if len(value) > maximum:
        limit = f"Member must have length less than or equal to {maximum}"
        problems.append(Problem(key, _constraint(value[:40] + "…", key, limit), f"shorten it to {maximum} characters"))
    return value


def integer(params: Mapping[str, Any], key: str, problems: list[Problem], *, minimum: int = 1, required: bool = False) -> int | None:
    """The whole number under ``key``, at least ``minimum``."""
    value = params.get(key)
    if value is None:
        if required:
            problems.append(Problem(key, f"{key} must not be null", f"give {key} a whole number"))
        return None
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int):
        problems.append(Problem(key, f"must be a whole number, not {value!r}", "write it without quotes or fraction"))
        return None
    if value < minimum:
        limit = f"Member must have value greater than or equal to {minimum}"
        problems.append(Problem(key, _constraint(value, key, limit), f"raise it to at least {minimum}"))
        return None
    if value > 2**31 - 1:
        problems.append(Problem(key, f"{value} is more than a 32-bit number holds", "lower it"))
        return None
    return int(value)


def choice(params: Mapping[str, Any], key: str, allowed: Iterable[str], problems: list[Problem], *, required: bool = False) -> str | None:
    """The string under ``key``, one of ``allowed``."""
    value = text(params, key, problems, required=required)
    allowed = list(allowed)
    if value is not None and value not in allowed:
        limit = f"Member must satisfy enum value set: [{', '.join(allowed)}]"
        problems.append(Problem(key, _constraint(value, key, limit), "use one of the set"))
        return None
    return value


def flag(params: Mapping[str, Any], key: str, default: bool, problems: list[Problem]) -> bool:
    """The boolean under ``key``, or its default."""
    value = params.get(key, default)
    if not isinstance(value, bool):
        problems.append(Problem(key, f"must be true or false, not {value!r}", "write true or false without quotes"))
        return default
    return value


def unknown_keys(params: Mapping[str, Any], known: Iterable[str], problems: list[Problem]) -> None:
    """A problem for every key that is not a parameter."""
    known = sorted(known)
    mend = "must be one of: " + ", ".join(known)
    problems.extend(Problem(str(key), f'Unknown parameter in input: "{key}"', mend) for key in params if key not in known)


def parse_dimensions(value: object, problems: list[Problem]) -> tuple[tuple[str, str], ...]:
    """``[{Name, Value}, …]`` in name order. No dimensions is a metric of its own."""
    if value is None:
        return ()
    if not isinstance(value, Sequence) or isinstance(value, str):
        problems.append(Problem("Dimensions", "must be a list of {Name, Value}", "write each dimension as a Name and a Value"))
        return ()
    if len(value) > MAX_DIMENSIONS:
        limit = f"Member must have length less than or equal to {MAX_DIMENSIONS}"
        problems.append(Problem("Dimensions", _constraint(f"{len(value)} items", "Dimensions", limit), "a metric has at most 30"))
    found: dict[str, str] = {}
    for i, item in enumerate(value):
        inner: list[Problem] = []
        if not isinstance(item, Mapping):
            inner.append(Problem("", "must be {Name, Value}", "write the dimension as a mapping"))
        else:
            name = text(item, "Name", inner, required=True)
            content = text(item, "Value", inner, maximum=1024, required=True)
            unknown_keys(item, ("Name", "Value"), inner)
            if name is not None and content is not None:
                if name in found:
                    inner.append(Problem("Name", f"the dimension {name} is given twice", "keep one"))
                found[name] = content
        problems.extend(problem.under(f"Dimensions[{i}]") for problem in inner)
    return tuple(sorted(found.items()))


def parse_metric(params: Mapping[str, Any], unit: str | None, problems: list[Problem]) -> MetricKey:
    """Namespace, MetricName and Dimensions of ``params``."""
    namespace = text(params, "Namespace", problems, required=True) or ""
    if namespace.startswith(":"):
        limit = "Member must satisfy regular expression pattern: [^:].*"
        problems.append(Problem("Namespace", _constraint(namespace, "Namespace", limit), "start it with another character"))
    name = text(params, "MetricName", problems, required=True) or ""
    return MetricKey(namespace, name, parse_dimensions(params.get("Dimensions"), problems), unit)


def parse_statistic(value: str | None, key: str, problems: list[Problem]) -> str:
    """A statistic's name, checked."""
    if value is not None and not valid_statistic(value):
        problems.append(Problem(key, f"The value {value} for parameter {key} is not supported.", "use e.g. Average, p99, tm90, PR(:300)"))
    return value or "Average"


def parse_queries(value: object, problems: list[Problem]) -> tuple[Query, ...]:
    """A MetricDataQuery list (``Metrics`` of an alarm, ``MetricDataQueries`` of GetMetricData); expressions are not parsed here."""
    if not isinstance(value, Sequence) or isinstance(value, str) or not value:
        mend = "give each query an Id and a MetricStat or Expression"
        problems.append(Problem("", "must be a list with at least one MetricDataQuery", mend))
        return ()
    queries: list[Query] = []
    seen: set[str] = set()
    for i, item in enumerate(value):
        inner: list[Problem] = []
        if isinstance(item, Mapping):
            query = _query(item, inner)
            if query.id in seen:
                inner.append(Problem("Id", f"The ID '{query.id}' is used more than once.", "give every query its own Id"))
            seen.add(query.id)
            queries.append(query)
        else:
            inner.append(Problem("", "must be a mapping with Id and MetricStat or Expression", "write the query as a mapping"))
        problems.extend(problem.under(f"[{i}]") for problem in inner)
    return tuple(queries)


_QUERY_KEYS = ("Id", "MetricStat", "Expression", "Label", "ReturnData", "Period", "AccountId")


def _query(item: Mapping[str, Any], problems: list[Problem]) -> Query:
    unknown_keys(item, _QUERY_KEYS, problems)
    ident = text(item, "Id", problems, required=True) or ""
    if ident and not ID.match(ident):
        what = f"The value '{ident}' for parameter Id is not matching the expected pattern ^[a-z][a-zA-Z0-9_]*$."
        problems.append(Problem("Id", what, "start it with a small letter, then letters, digits and _"))
    expression = text(item, "Expression", problems, maximum=2048)
    stat = _metric_stat(item.get("MetricStat"), problems)
    if (item.get("MetricStat") is None) == (expression is None):
        problems.append(Problem("", f"exactly one of MetricStat and Expression must be set for '{ident}'", "keep one of the two"))
    return Query(
        ident,
        stat,
        expression,
        text(item, "Label", problems, maximum=2048),
        flag(item, "ReturnData", True, problems),
        _period(item, problems),
        text(item, "AccountId", problems),
    )


def _metric_stat(value: object, problems: list[Problem]) -> MetricStat | None:
    if value is None:
        return None
    if not isinstance(value, Mapping):
        problems.append(Problem("MetricStat", "must be a mapping with Metric, Period and Stat", "write it as a mapping"))
        return None
    inner: list[Problem] = []
    unknown_keys(value, ("Metric", "Period", "Stat", "Unit"), inner)
    unit = choice(value, "Unit", sorted(UNITS), inner)
    metric = value.get("Metric")
    key = MetricKey("", "")
    if isinstance(metric, Mapping):
        nested: list[Problem] = []
        unknown_keys(metric, ("Namespace", "MetricName", "Dimensions"), nested)
        key = parse_metric(metric, unit, nested)
        inner.extend(problem.under("Metric") for problem in nested)
    else:
        inner.append(Problem("Metric", "Metric must not be null", "give Namespace, MetricName and Dimensions"))
    if value.get("Period") is None:
        inner.append(Problem("Period", "Period must not be null", "give the period in seconds"))
    period = _period(value, inner) or 60
    stat = parse_statistic(text(value, "Stat", inner, required=True), "Stat", inner)
    problems.extend(problem.under("MetricStat") for problem in inner)
    return MetricStat(key, period, stat)


def _period(params: Mapping[str, Any], problems: list[Problem]) -> int | None:
    period = integer(params, "Period", problems)
    if period is not None and period % 60 and period not in (1, 5, 10, 20, 30):
        problems.append(Problem("Period", f"Period must be 1, 5, 10, 20, 30 or a multiple of 60, not {period}", "round it"))
        return None
    return period


def _constraint(value: object, key: str, rule: str) -> str:
    return f"Value '{value}' at '{key[:1].lower() + key[1:]}' failed to satisfy constraint: {rule}"
