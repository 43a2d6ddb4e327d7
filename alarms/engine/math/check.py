"""What AWS refuses in a list of queries, found without evaluating it: syntax, unknown ids and functions, types, cycles, alarm limits."""

from __future__ import annotations

from collections.abc import Sequence

from alarms.engine.math import grammar
from alarms.engine.math.functions import FUNCTIONS
from alarms.engine.problems import Problem
from alarms.engine.query import Query

MAX_ALARM_METRICS = 10
MAX_ALARM_EXPRESSIONS = 10


def check(queries: Sequence[Query], *, alarm: bool, band: str | None = None) -> list[Problem]:
    """All problems of ``queries``; with ``alarm`` also the restrictions PutMetricAlarm adds.

    ``band`` is the id of the query an alarm compares with, which alone may give two series. ``where`` starts with the list index.
    """
    problems: list[Problem] = []
    known = {query.id: (i, query) for i, query in enumerate(queries)}
    types = _Types(known, alarm)
    for i, query in enumerate(queries):
        if query.expression is None:
            continue
        where = f"[{i}].Expression"
        result, wrong = types.of(query.id)
        problems.extend(Problem(where, _worded(query.id, what), mend) for what, mend in wrong)
        if wrong:
            continue
        if alarm and query.return_data and result == "TS[]" and query.id != band:
            what = "An alarm expression must return one time series"
            problems.append(Problem(where, what, "reduce the array, for example with SUM, MAX or FIRST"))
        elif result not in ("TS", "TS[]") and query.return_data:
            problems.append(Problem(where, _worded(query.id, "the result must be a time series"), "wrap a number in TIME_SERIES()"))
    if alarm:
        problems.extend(_limits(queries))
    return problems


def _worded(ident: str, what: str) -> str:
    return what if what.startswith("SEARCH is not") else f"Error in expression '{ident}' [{what}]"


def _limits(queries: Sequence[Query]) -> list[Problem]:
    problems = []
    metrics = sum(query.metric_stat is not None for query in queries)
    if metrics > MAX_ALARM_METRICS:
        what = f"The alarm watches {metrics} metrics, more than the {MAX_ALARM_METRICS} an alarm may"
        problems.append(Problem("", what, "split the alarm and combine the parts with a composite alarm"))
    if len(queries) - metrics > MAX_ALARM_EXPRESSIONS:
        what = f"The alarm has {len(queries) - metrics} expressions, more than the {MAX_ALARM_EXPRESSIONS} an alarm may"
        problems.append(Problem("", what, "write fewer, longer expressions"))
    periods = {query.seconds for query in queries if query.seconds}
    if len(periods) > 1:
        what = "All metrics of an alarm must have the same period, not " + " and ".join(str(p) for p in sorted(periods))
        problems.append(Problem("", what, "give every MetricStat the same Period"))
    return problems


Wrong = list[tuple[str, str]]


class _Types:
    """The type of every query's result, inferred once; wrong expressions have the type ``?``."""

    def __init__(self, known: dict[str, tuple[int, Query]], alarm: bool) -> None:
        self.known = known
        self.alarm = alarm
        self.done: dict[str, tuple[str, Wrong]] = {}
        self.open: list[str] = []

    def of(self, ident: str) -> tuple[str, Wrong]:
        """Type and problems of one query."""
        if ident in self.done:
            return self.done[ident]
        query = self.known[ident][1]
        if query.expression is None:
            return "TS", []
        wrong: Wrong = []
        kind = "?"
        if query.expression.lstrip()[:7].upper() == "SELECT ":
            kind = "TS" if self.alarm else "TS[]"
        else:
            try:
                self.open.append(ident)
                kind = self.node(grammar.parse(query.expression), wrong)
            except grammar.MathSyntaxError as error:
                wrong.append((str(error), f"look at character {error.position} of the expression"))
            finally:
                self.open.pop()
        self.done[ident] = ("?" if wrong else kind, wrong)
        return self.done[ident]

    def node(self, node: grammar.Node, wrong: Wrong) -> str:
        """The type of a part of an expression."""
        if isinstance(node, grammar.Number):
            return "S"
        if isinstance(node, grammar.Text | grammar.Word):
            return "STR"
        if isinstance(node, grammar.Ref):
            return self.reference(node, wrong)
        if isinstance(node, grammar.Negate):
            return self.operator("-", "S", self.node(node.operand, wrong), wrong)
        if isinstance(node, grammar.Chain):
            kind = self.node(node.first, wrong)
            for op, right in node.rest:
                kind = self.operator(op, kind, self.node(right, wrong), wrong)
            return kind
        if isinstance(node, grammar.Array):
            kinds = [self.node(item, wrong) for item in node.items]
            if set(kinds) <= {"TS", "TS[]", "?"}:
                return "TS[]"
            if set(kinds) == {"STR"}:
                return "STR[]"
            wrong.append(("an array holds time series", "wrap numbers in TIME_SERIES()"))
            return "?"
        return self.call(node, wrong)

    def reference(self, node: grammar.Ref, wrong: Wrong) -> str:
        if node.id not in self.known:
            wrong.append((f"the id '{node.id}' at character {node.position} is not defined", f"add a query with the Id {node.id}"))
            return "?"
        if node.id in self.open or len(self.open) > grammar.MAX_DEPTH:
            wrong.append((f"'{node.id}' depends on itself ({' -> '.join([*self.open, node.id])})", "break the circle"))
            return "?"
        return self.of(node.id)[0]

    def operator(self, op: str, left: str, right: str, wrong: Wrong) -> str:
        if "?" in (left, right):
            return "?"
        if not {left, right} <= {"S", "TS", "TS[]"}:
            wrong.append((f"'{op}' does not take strings", "use numbers and time series"))
            return "?"
        if left == right == "TS[]":
            wrong.append((f"'{op}' does not combine two arrays of time series", "reduce one of them first"))
            return "?"
        return max(left, right, key=("S", "TS", "TS[]").index)

    def call(self, node: grammar.Call, wrong: Wrong) -> str:
        kinds = [self.node(arg, wrong) for arg in node.args]
        spec = FUNCTIONS.get(node.name)
        if spec is None:
            wrong.append((f"Unknown function '{node.name}' at character {node.position}", "see the metric math functions"))
            return "?"
        if self.alarm and spec.in_alarms == "forbidden":
            wrong.append((f"{node.name} is not supported on Metric Alarms.", "name the metrics one by one"))
            return "?"
        least = len(spec.takes) - spec.optional
        if not least <= len(kinds) <= len(spec.takes):
            wanted = str(least) if not spec.optional else f"{least} to {len(spec.takes)}"
            wrong.append((f"{node.name} takes {wanted} arguments, not {len(kinds)}", "see the metric math functions"))
            return "?"
        if "?" in kinds:
            return "?"
        for i, (kind, allowed) in enumerate(zip(kinds, spec.takes, strict=False)):
            if kind not in allowed:
                what = f"argument {i + 1} of {node.name} must be {' or '.join(allowed)}, not {kind}"
                wrong.append((what, "see the metric math functions"))
                return "?"
        return spec.gives(kinds)
