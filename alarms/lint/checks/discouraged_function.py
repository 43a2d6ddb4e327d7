"""discouraged-function: the expression's value depends on how many extra points the evaluation happens to fetch."""

from __future__ import annotations

from collections.abc import Iterator

from alarms.engine.math import calls
from alarms.engine.math.functions import FUNCTIONS
from alarms.engine.math.grammar import Array, Call
from alarms.lint.context import Context
from topology.problems import Problem

NAME = "discouraged-function"
REDUCING = ("AVG", "SUM", "MIN", "MAX", "STDDEV", "DATAPOINT_COUNT")


def check(context: Context) -> Iterator[Problem]:
    """Functions AWS advises against in alarms (page *Using metric math*)."""
    for definition, alarm in context.metric_alarms():
        for query in alarm.queries:
            for call in calls(query.expression) if query.expression else ():
                spec = FUNCTIONS[call.name]
                if spec.in_alarms == "discouraged" and not (call.name in REDUCING and _over_array(call)):
                    mend = "give missing points a meaning with TreatMissingData, or compute without the window"
                    yield context.finding(NAME, definition, f"uses {call.name}: {spec.why}", mend, "warning", f"Metrics.{query.id}")


def _over_array(call: Call) -> bool:
    first = call.args[0]
    return isinstance(first, Array) or (isinstance(first, Call) and first.name in ("METRICS", "SLICE", "SORT"))
