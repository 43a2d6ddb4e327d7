"""CloudWatch metric math: parse, check and evaluate expressions over time series.

`check` reports what AWS would refuse (for an alarm or for a dashboard), `evaluate` computes. Page: *Using metric math*.
"""

from alarms.engine.math.check import check
from alarms.engine.math.evaluate import Callbacks, MathError, evaluate, evaluate_queries
from alarms.engine.math.grammar import MathSyntaxError, calls, parse, references
from alarms.engine.math.series import Series

__all__ = [
    "Callbacks",
    "MathError",
    "MathSyntaxError",
    "Series",
    "calls",
    "check",
    "evaluate",
    "evaluate_queries",
    "parse",
    "references",
]
