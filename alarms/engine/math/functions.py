"""Metric math's functions, each a plain function of a context and its arguments.

`FUNCTIONS` is the table of page *Using metric math*: arguments, result, and whether an alarm may use the function.
Types: S scalar, TS series, TS[] series list, STR string or word.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Literal

import numpy as np

from alarms.engine.math.series import Floats, Series, Times, Value, union

if TYPE_CHECKING:
    from alarms.engine.math.evaluate import Context


class FunctionError(ValueError):
    """A function was called with arguments it cannot take."""


Standing = Literal["ok", "discouraged", "forbidden"]
Function = Callable[["Context", Sequence[Value]], Value]


@dataclass(frozen=True, slots=True)
class Spec:
    """One row of the table. ``takes`` lists the types each argument may have; the last ``optional`` of them may be left out."""

    run: Function
    takes: tuple[tuple[str, ...], ...]
    gives: Callable[[Sequence[str]], str]
    optional: int = 0
    in_alarms: Standing = "ok"
    why: str = ""


def each(value: Value, change: Callable[[Series], Series]) -> Value:
    """``change`` of a series, or of every series of a list."""
    if isinstance(value, Series):
        return change(value)
    if isinstance(value, list):
        return [change(one) for one in value if isinstance(one, Series)]
    raise FunctionError("needs a time series")


def series_list(value: Value) -> list[Series]:
    """The series of a TS[] (a single TS counts as a list of one)."""
    if isinstance(value, Series):
        return [value]
    if isinstance(value, list):
        return [one for one in value if isinstance(one, Series)]
    raise FunctionError("needs an array of time series")


def _elementwise(compute: Callable[[Floats], Floats]) -> Function:
    def run(_: Context, args: Sequence[Value]) -> Value:
        value = args[0]
        with np.errstate(all="ignore"):
            if isinstance(value, float):
                return float(compute(np.float64(value)))  # type: ignore[arg-type]
            return each(value, lambda one: one.with_values(np.asarray(compute(one.values), dtype=np.float64)))

    return run


def _aggregate(scalar: Callable[[Floats], float], pointwise: Callable[[Floats], Floats], missing_is_zero: bool) -> Function:
    """Of one series its scalar; of a list the series of each timestamp's aggregate. A series without points has no scalar: 0."""

    def run(context: Context, args: Sequence[Value]) -> Value:
        value = args[0]
        if isinstance(value, Series):
            return float(scalar(value.values)) if len(value) else 0.0
        many = series_list(value)
        times = union(many)
        if not len(times):
            return Series(times, np.empty(0), period=context.period)
        rows = np.vstack([one.on(times) for one in many])
        if missing_is_zero:
            rows = np.nan_to_num(rows)
        return Series(times, pointwise(rows), period=many[0].period).finite()

    return run


def _count(context: Context, args: Sequence[Value]) -> Value:
    value = args[0]
    if isinstance(value, Series):
        return float(len(value))
    many = series_list(value)
    times = union(many)
    rows = np.vstack([one.on(times) for one in many]) if many else np.empty((0, 0))
    return Series(times, np.isfinite(rows).sum(axis=0).astype(np.float64), period=context.period)


def _difference(of: Callable[[Floats, Floats], Floats]) -> Function:
    """Point minus the point before it; the first point has none and is dropped."""

    def change(one: Series) -> Series:
        steps = np.diff(one.times).astype(np.float64)
        return replace(one, times=one.times[1:], values=of(np.diff(one.values), steps)).finite()

    return lambda _, args: each(args[0], change)


def _fill(context: Context, args: Sequence[Value]) -> Value:
    by = args[1]

    def change(one: Series) -> Series:
        grid = context.grid(one.period)
        values = one.on(grid)
        missing = np.isnan(values)
        if isinstance(by, float):
            values[missing] = by
        elif isinstance(by, Series):
            values[missing] = by.on(grid)[missing]
        elif by == "REPEAT":
            last = np.maximum.accumulate(np.where(missing, -1, np.arange(len(grid))))
            values = np.where(last >= 0, values[np.maximum(last, 0)], np.nan)
        elif by == "LINEAR":
            have = np.flatnonzero(~missing)
            if len(have):
                between = (np.arange(len(grid)) > have[0]) & (np.arange(len(grid)) < have[-1])
                drawn = np.interp(np.arange(len(grid)), have, values[have])
                values = np.where(missing & between, drawn, values)
        else:
            raise FunctionError("FILL takes a number, a time series, REPEAT or LINEAR")
        return replace(one, times=grid, values=values).finite()

    return each(args[0], change)


def _if(context: Context, args: Sequence[Value]) -> Value:
    """IF(condition, then[, otherwise]) by the user guide's table; see `Options.if_missing`."""
    condition, then = args[0], args[1]
    otherwise = args[2] if len(args) > 2 else None
    if isinstance(condition, float):
        if condition != 0:
            return then
        return Series(np.empty(0, dtype=np.int64), np.empty(0), period=context.period) if otherwise is None else otherwise
    if not isinstance(condition, Series):
        raise FunctionError("IF's condition must be a number or one time series")
    times = condition.times
    when_true = _choices(then, times, 0.0)
    dropped = context.options.if_missing == "docs-2023" or not isinstance(then, Series)
    when_false = np.full(len(times), np.nan) if otherwise is None else _choices(otherwise, times, np.nan if dropped else 0.0)
    return condition.with_values(np.where(condition.values != 0, when_true, when_false))


def _choices(value: Value, times: Times, missing: float) -> Floats:
    if isinstance(value, float):
        return np.full(len(times), value)
    if isinstance(value, Series):
        return np.nan_to_num(value.on(times), nan=missing)
    raise FunctionError("IF chooses between numbers and single time series")


def _clock(part: Callable[[datetime], float]) -> Function:
    def run(context: Context, args: Sequence[Value]) -> Value:
        def change(one: Series) -> Series:
            grid = context.grid(one.period)
            return replace(one, times=grid, values=np.asarray([part(datetime.fromtimestamp(int(t), UTC)) for t in grid], dtype=np.float64))

        return each(args[0], change)

    return run


def _metrics(context: Context, args: Sequence[Value]) -> Value:
    wanted = str(args[0]) if args else ""
    return context.metrics(wanted)


def _remove_empty(_: Context, args: Sequence[Value]) -> Value:
    return [one for one in series_list(args[0]) if len(one)]


def _slice(_: Context, args: Sequence[Value]) -> Value:
    many = series_list(args[0])
    start = int(_number(args[1]))
    end = int(_number(args[2])) if len(args) > 2 else None
    if start < 0 or (end is not None and end < 0):
        raise FunctionError("SLICE's bounds start at 0")
    return many[start:end] if end is not None else many[start:]


def _number(value: Value) -> float:
    if not isinstance(value, float):
        raise FunctionError("needs a number")
    return value


_KEYS: dict[str, Callable[[Floats], float]] = {
    "AVG": lambda values: float(values.mean()),
    "MIN": lambda values: float(values.min()),
    "MAX": lambda values: float(values.max()),
    "SUM": lambda values: float(values.sum()),
}


def _sort(_: Context, args: Sequence[Value]) -> Value:
    many = series_list(args[0])
    key, order = _KEYS.get(str(args[1])), args[2]
    if key is None or order not in ("ASC", "DESC"):
        raise FunctionError("SORT takes AVG, MIN, MAX or SUM, then ASC or DESC")
    with_points = sorted((one for one in many if len(one)), key=lambda one: key(one.values), reverse=order == "DESC")
    ordered = with_points + [one for one in many if not len(one)]
    return ordered[: int(_number(args[3]))] if len(args) > 3 else ordered


def _pick(index: int) -> Function:
    def run(context: Context, args: Sequence[Value]) -> Value:
        many = series_list(args[0])
        return many[index] if many else Series(np.empty(0, dtype=np.int64), np.empty(0), period=context.period)

    return run


def _time_series(context: Context, args: Sequence[Value]) -> Value:
    grid = context.grid(context.period)
    return Series(grid, np.full(len(grid), _number(args[0])), period=context.period)


def _period(_: Context, args: Sequence[Value]) -> Value:
    if not isinstance(args[0], Series) or args[0].metric is None:
        raise FunctionError("PERIOD takes a metric, not an expression")
    return float(args[0].period)


def _search(context: Context, args: Sequence[Value]) -> Value:
    period = int(_number(args[2])) if len(args) > 2 else context.period
    return context.search(str(args[0]), str(args[1]) if len(args) > 1 else "Average", period)


def _band(context: Context, args: Sequence[Value]) -> Value:
    if not isinstance(args[0], Series):
        raise FunctionError("ANOMALY_DETECTION_BAND takes one time series")
    lower, upper = context.band(args[0], _number(args[1]) if len(args) > 1 else 2.0)
    return [upper, lower] if context.options.band_order == "upper-lower" else [lower, upper]


def _outside(name: str) -> Function:
    return lambda context, args: context.outside(name, args)


def _running_sum(_: Context, args: Sequence[Value]) -> Value:
    return each(args[0], lambda one: one.with_values(np.cumsum(one.values)))


_ONE = ("TS", "TS[]")
_ANY = ("S", "TS", "TS[]")


def _same(types: Sequence[str]) -> str:
    return types[0]


def _always(result: str) -> Callable[[Sequence[str]], str]:
    return lambda _: result


def _reduced(types: Sequence[str]) -> str:
    return "TS" if types[0] == "TS[]" else "S"


def _chosen(types: Sequence[str]) -> str:
    return "TS" if "TS" in types else "S"


_WINDOW = "its value depends on the extra points of the evaluation range"
_SCALAR = "its scalar form " + _WINDOW.removeprefix("its value ")
FUNCTIONS: dict[str, Spec] = {
    "ABS": Spec(_elementwise(np.abs), (_ANY,), _same),
    "CEIL": Spec(_elementwise(np.ceil), (_ANY,), _same),
    "FLOOR": Spec(_elementwise(np.floor), (_ANY,), _same),
    "LOG": Spec(_elementwise(np.log), (_ANY,), _same),
    "LOG10": Spec(_elementwise(np.log10), (_ANY,), _same),
    "AVG": Spec(_aggregate(np.mean, lambda m: m.mean(axis=0), True), (_ONE,), _reduced, in_alarms="discouraged", why=_SCALAR),
    "SUM": Spec(_aggregate(np.sum, lambda m: m.sum(axis=0), True), (_ONE,), _reduced, in_alarms="discouraged", why=_SCALAR),
    "MIN": Spec(_aggregate(np.min, lambda m: np.nanmin(m, axis=0), False), (_ONE,), _reduced, in_alarms="discouraged", why=_SCALAR),
    "MAX": Spec(_aggregate(np.max, lambda m: np.nanmax(m, axis=0), False), (_ONE,), _reduced, in_alarms="discouraged", why=_SCALAR),
    "STDDEV": Spec(_aggregate(np.std, lambda m: np.nanstd(m, axis=0), False), (_ONE,), _reduced, in_alarms="discouraged", why=_SCALAR),
    "ANOMALY_DETECTION_BAND": Spec(_band, (("TS",), ("S",)), _always("TS[]"), optional=1),
    "DATAPOINT_COUNT": Spec(_count, (_ONE,), _reduced, in_alarms="discouraged", why=_WINDOW),
    "DB_PERF_INSIGHTS": Spec(_outside("DB_PERF_INSIGHTS"), (("STR",), ("STR",), ("STR", "STR[]")), _always("TS[]")),
    "DIFF": Spec(_difference(lambda change, _: change), (_ONE,), _same),
    "DIFF_TIME": Spec(_difference(lambda _, step: step), (_ONE,), _same),
    "FILL": Spec(
        _fill, (_ONE, ("S", "TS", "STR")), _same, in_alarms="discouraged", why="a newest minute that always comes late holds the alarm"
    ),
    "FIRST": Spec(_pick(0), (("TS[]",),), _always("TS")),
    "LAST": Spec(_pick(-1), (("TS[]",),), _always("TS")),
    "IF": Spec(_if, (("S", "TS"), ("S", "TS"), ("S", "TS")), _chosen, optional=1),
    "INSIGHT_RULE_METRIC": Spec(_outside("INSIGHT_RULE_METRIC"), (("STR",), ("STR",)), _always("TS")),
    "LAMBDA": Spec(_outside("LAMBDA"), (("STR",), *((("S", "TS", "TS[]", "STR"),) * 10)), _always("TS[]"), optional=10),
    "METRIC_COUNT": Spec(lambda _, args: float(len(series_list(args[0]))), (("TS[]",),), _always("S")),
    "METRICS": Spec(_metrics, (("STR",),), _always("TS[]"), optional=1),
    "MINUTE": Spec(_clock(lambda t: t.minute), (("TS",),), _same),
    "HOUR": Spec(_clock(lambda t: t.hour), (("TS",),), _same),
    "DAY": Spec(_clock(lambda t: t.isoweekday()), (("TS",),), _same),
    "DATE": Spec(_clock(lambda t: t.day), (("TS",),), _same),
    "MONTH": Spec(_clock(lambda t: t.month), (("TS",),), _same),
    "YEAR": Spec(_clock(lambda t: t.year), (("TS",),), _same),
    "EPOCH": Spec(_clock(lambda t: t.timestamp()), (("TS",),), _same),
    "PERIOD": Spec(_period, (("TS",),), _always("S")),
    "RATE": Spec(
        _difference(lambda change, step: change / step), (_ONE,), _same, in_alarms="discouraged", why="it is unpredictable on sparse data"
    ),
    "REMOVE_EMPTY": Spec(_remove_empty, (("TS[]",),), _always("TS[]"), in_alarms="discouraged", why=_WINDOW),
    "RUNNING_SUM": Spec(_running_sum, (_ONE,), _same, in_alarms="discouraged", why=_WINDOW),
    "SEARCH": Spec(_search, (("STR",), ("STR",), ("S",)), _always("TS[]"), optional=2, in_alarms="forbidden"),
    "SERVICE_QUOTA": Spec(_outside("SERVICE_QUOTA"), (("TS",),), _always("TS")),
    "SLICE": Spec(_slice, (("TS[]",), ("S",), ("S",)), _always("TS[]"), optional=1),
    "SORT": Spec(_sort, (("TS[]",), ("STR",), ("STR",), ("S",)), _always("TS[]"), optional=1),
    "TIME_SERIES": Spec(_time_series, (("S",),), _always("TS")),
}
WINDOW_DEPENDENT = frozenset(
    {"AVG", "SUM", "MIN", "MAX", "STDDEV", "DATAPOINT_COUNT", "DIFF", "DIFF_TIME", "RATE", "FILL", "RUNNING_SUM", "REMOVE_EMPTY", "SORT"}
)
"""Functions whose value at one timestamp may depend on other points of the window (AVG and its like: in their scalar form)."""
