"""Evaluate a MetricDataQuery list: fetch the metrics, then compute the expressions in the order they need each other."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from alarms.engine.math import grammar
from alarms.engine.math.functions import FUNCTIONS, FunctionError
from alarms.engine.math.series import Series, Times, Value, combine
from alarms.engine.options import OBSERVED, Options
from alarms.engine.problems import DefinitionError, Problem
from alarms.engine.query import Query, parse_queries


class MathError(ValueError):
    """An expression that cannot be computed; the message names the query."""


Fetch = Callable[[Query], Series]


def _refuse_search(_expression: str, _stat: str, _period: int) -> list[Series]:
    raise FunctionError("SEARCH is not supported here")


def _refuse_band(_series: Series, _width: float) -> tuple[Series, Series]:
    raise FunctionError("ANOMALY_DETECTION_BAND needs a band to be supplied")


def _refuse_outside(name: str, _args: Sequence[Value]) -> Value:
    raise FunctionError(f"{name} is not supported here")


@dataclass(frozen=True, slots=True)
class Callbacks:
    """What needs more than the named metrics. Each may raise ValueError to say it cannot.

    ``search(expression, statistic, period)`` lists series, ``band(series, width)`` gives (lower, upper), ``outside(name, args)`` answers
    SERVICE_QUOTA, LAMBDA, DB_PERF_INSIGHTS and INSIGHT_RULE_METRIC, ``insights(sql)`` a Metrics Insights query.
    """

    search: Callable[[str, str, int], list[Series]] = _refuse_search
    band: Callable[[Series, float], tuple[Series, Series]] = _refuse_band
    outside: Callable[[str, Sequence[Value]], Value] = _refuse_outside
    insights: Callable[[str], list[Series]] | None = None


@dataclass(slots=True)
class Context:
    """What functions see besides their arguments."""

    queries: Mapping[str, Query]
    fetch: Fetch
    start: int
    end: int
    period: int
    options: Options
    callbacks: Callbacks
    values: dict[str, Value] = field(default_factory=dict)
    open: list[str] = field(default_factory=list)

    def grid(self, period: int) -> Times:
        """The starts of all periods of the window."""
        return np.arange(self.start, self.end, max(1, period), dtype=np.int64)

    def metrics(self, wanted: str) -> list[Series]:
        """Every metric (not expression) whose id contains ``wanted``."""
        found = [self.value(q.id) for q in self.queries.values() if q.metric_stat and wanted in q.id]
        return [one for one in found if isinstance(one, Series)]

    def search(self, expression: str, stat: str, period: int) -> list[Series]:
        """The SEARCH callback."""
        return self.callbacks.search(expression, stat, period)

    def band(self, series: Series, width: float) -> tuple[Series, Series]:
        """The band callback."""
        return self.callbacks.band(series, width)

    def outside(self, name: str, args: Sequence[Value]) -> Value:
        """The callback for functions that ask another service."""
        return self.callbacks.outside(name, args)

    def value(self, ident: str) -> Value:
        """The value of a query, computed once."""
        if ident in self.values:
            return self.values[ident]
        query = self.queries.get(ident)
        if query is None:
            raise MathError(f"the id '{ident}' is not defined")
        if ident in self.open or len(self.open) > 2 * grammar.MAX_DEPTH:
            raise MathError(f"'{ident}' depends on itself ({' -> '.join([*self.open, ident])})")
        if query.metric_stat is not None:
            self.values[ident] = self.fetch(query)
            return self.values[ident]
        self.open.append(ident)
        try:
            self.values[ident] = self.compute(query)
        except (FunctionError, grammar.MathSyntaxError) as error:
            raise MathError(f"Error in expression '{ident}' [{error}]") from error
        finally:
            self.open.pop()
        return self.values[ident]

    def compute(self, query: Query) -> Value:
        """The value of an expression (or Metrics Insights query)."""
        text = query.expression or ""
        if text.lstrip()[:7].upper() == "SELECT ":
            if self.callbacks.insights is None:
                raise FunctionError("Metrics Insights queries are not supported here")
            return self.callbacks.insights(text)
        return self.node(grammar.parse(text))

    def node(self, node: grammar.Node) -> Value:
        """The value of a part of an expression."""
        if isinstance(node, grammar.Number):
            return node.value
        if isinstance(node, grammar.Text | grammar.Word):
            return node.value
        if isinstance(node, grammar.Ref):
            return self.value(node.id)
        if isinstance(node, grammar.Negate):
            return self.binary("-", 0.0, self.node(node.operand))
        if isinstance(node, grammar.Chain):
            value = self.node(node.first)
            for op, right in node.rest:
                value = self.binary(op, value, self.node(right))
            return value
        if isinstance(node, grammar.Array):
            return self.array([self.node(item) for item in node.items])
        return self.call(node)

    def array(self, items: Sequence[Value]) -> Value:
        """``[a, b]``: series, and lists of series, side by side."""
        if items and all(isinstance(item, str) for item in items):
            return [str(item) for item in items]
        flat: list[Series] = []
        for item in items:
            if isinstance(item, Series):
                flat.append(item)
            elif isinstance(item, list):
                flat.extend(one for one in item if isinstance(one, Series))
            else:
                raise FunctionError("an array holds time series")
        return flat

    def binary(self, op: str, left: Value, right: Value) -> Value:
        """An operator between scalars, series, and a list of series and one of the former."""
        if isinstance(left, str) or isinstance(right, str):
            raise FunctionError(f"'{op}' does not take strings")
        if isinstance(left, list) and isinstance(right, list):
            raise FunctionError(f"'{op}' does not combine two arrays of time series")
        if isinstance(left, list):
            return [_series(combine(op, one, right)) for one in left if isinstance(one, Series) and not isinstance(right, list)]
        if isinstance(right, list):
            return [_series(combine(op, left, one)) for one in right if isinstance(one, Series)]
        return combine(op, left, right)

    def call(self, node: grammar.Call) -> Value:
        """A function's value."""
        spec = FUNCTIONS.get(node.name)
        if spec is None:
            raise FunctionError(f"Unknown function '{node.name}' at character {node.position}")
        if not len(spec.takes) - spec.optional <= len(node.args) <= len(spec.takes):
            raise FunctionError(f"{node.name} takes {_arity(spec.takes, spec.optional)}, not {len(node.args)}")
        return spec.run(self, [self.node(arg) for arg in node.args])


def _series(value: float | Series) -> Series:
    if isinstance(value, Series):
        return value
    raise FunctionError("needs a time series")


def _arity(takes: Sequence[object], optional: int) -> str:
    least, most = len(takes) - optional, len(takes)
    span = f"{least}" if least == most else f"{least} to {most}"
    return f"{span} argument{'' if most == 1 else 's'}"


def evaluate(
    queries: Sequence[Mapping[str, Any]],
    fetch: Fetch,
    start: int,
    end: int,
    *,
    options: Options = OBSERVED,
    callbacks: Callbacks | None = None,
) -> dict[str, tuple[Series, ...]]:
    """Every query with ReturnData, by id, from MetricDataQuery dictionaries.

    ``fetch(query)`` gives the statistic of one metric as a `Series` whose times are slot starts within ``[start, end)`` (epoch seconds).
    A TS[] result has several series. Raises DefinitionError for a malformed list, MathError for what cannot be computed.
    """
    problems: list[Problem] = []
    parsed = parse_queries(queries, problems)
    if problems:
        raise DefinitionError(problem.under("MetricDataQueries") for problem in problems)
    found = evaluate_queries(parsed, fetch, start, end, options=options, callbacks=callbacks)
    return {query.id: found[query.id] for query in parsed if query.return_data}


def evaluate_queries(
    queries: Sequence[Query],
    fetch: Fetch,
    start: int,
    end: int,
    *,
    wanted: Sequence[str] | None = None,
    options: Options = OBSERVED,
    callbacks: Callbacks | None = None,
) -> dict[str, tuple[Series, ...]]:
    """The same for parsed queries; ``wanted`` are the ids to compute (by default those with ReturnData)."""
    periods = [query.seconds for query in queries if query.seconds]
    context = Context({q.id: q for q in queries}, fetch, start, end, min(periods, default=60), options, callbacks or Callbacks())
    results: dict[str, tuple[Series, ...]] = {}
    for ident in [query.id for query in queries if query.return_data] if wanted is None else wanted:
        try:
            value = context.value(ident)
        except FunctionError as error:
            raise MathError(f"Error in expression '{ident}' [{error}]") from error
        if isinstance(value, Series):
            results[ident] = (value,)
        elif isinstance(value, list):
            results[ident] = tuple(one for one in value if isinstance(one, Series))
        else:
            raise MathError(f"Error in expression '{ident}' [the result must be a time series, not a single value]")
    return results
