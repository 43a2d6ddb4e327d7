"""The same verdicts as `metric.evaluate`, for every evaluation of a long stretch of settled data at once, with numpy.

The evaluations of an alarm fall into residue classes: those whose windows end on the same grid of periods (a five-minute alarm looked at
every minute has five such grids). On each grid the statistic is computed once, the windows are views into it, and the seven rules become
array operations; only "the state is retained" looks back, and that is a forward fill. A property test holds this path equal to the scalar.

Late data, warm-up and wall-clock windows are the book's business; expressions whose value at one time depends on the rest of the window are
evaluated window by window (`depends_on_window`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from alarms.engine.math import Callbacks, MathError, MathSyntaxError, Series, evaluate_queries, parse
from alarms.engine.math.functions import WINDOW_DEPENDENT
from alarms.engine.math.grammar import Array, Call, Node, Number, walk
from alarms.engine.metric import evaluate, treatment
from alarms.engine.model import MetricAlarm
from alarms.engine.options import OBSERVED, Options
from alarms.engine.query import Query
from alarms.engine.source import BandSource, MetricSource, datapoints, slot_values
from alarms.engine.states import ALARM, INSUFFICIENT_DATA, OK, STATES, State
from alarms.engine.statistics import Floats, least_samples
from alarms.engine.window import cadence, hold_back, range_slots, window

Codes = NDArray[np.int8]
"""States as indices into `STATES`; RETAINED where the state before is kept."""

RETAINED = -1
_OK, _ALARM, _NO_DATA = (STATES.index(state) for state in (OK, ALARM, INSUFFICIENT_DATA))
_CELLS = 4_000_000
"""How many cells of windows are looked at together: bounds the memory to some tens of megabytes."""


@dataclass(frozen=True, slots=True)
class History:
    """Every evaluation of one alarm: the instants (epoch seconds), the states after them (indices into `STATES`), and how many of the N
    points were lacking."""

    times: NDArray[np.float64]
    codes: Codes
    lacking: NDArray[np.int16]
    initial: State

    def transitions(self) -> list[tuple[float, State, State]]:
        """(when, from, to) of every state change."""
        before = np.concatenate(([STATES.index(self.initial)], self.codes[:-1])) if len(self.codes) else self.codes
        at = np.flatnonzero(self.codes != before)
        return [(float(self.times[i]), STATES[before[i]], STATES[self.codes[i]]) for i in at]


def evaluate_history(
    alarm: MetricAlarm,
    source: MetricSource,
    start: float,
    end: float,
    *,
    initial: State = INSUFFICIENT_DATA,
    options: Options = OBSERVED,
    phase: float = 0.0,
) -> History:
    """All evaluations of ``alarm`` after ``start`` up to ``end``, on data as it is known at the end."""
    every = cadence(alarm)
    first = np.floor((start - phase) / every) + 1
    last = np.floor((end - phase) / every)
    times = np.arange(first, last + 1) * every + phase
    if not len(times):
        return History(times, np.empty(0, dtype=np.int8), np.empty(0, dtype=np.int16), initial)
    if alarm.wall_clock_zone is not None or depends_on_window(alarm):
        return _one_by_one(alarm, source, times, end, initial, options)
    held = hold_back(alarm, options)
    ends = (np.floor((times - held) / every) * every).astype(np.int64)
    codes = np.empty(len(times), dtype=np.int8)
    lacking = np.full(len(times), alarm.evaluation_periods, dtype=np.int16)
    try:
        for residue in np.unique(ends % alarm.period):
            chosen = ends % alarm.period == residue
            codes[chosen], lacking[chosen] = _on_grid(alarm, source, ends[chosen], end, options)
    except MathError:
        none = np.zeros(1, dtype=np.int64)
        codes[:] = _decide(alarm, none, none, none, none, options)[0]
    return History(times, _carried(codes, initial), lacking, initial)


def depends_on_window(alarm: MetricAlarm) -> bool:
    """Whether some expression's value at one time may depend on the other points of the evaluation range."""
    for query in alarm.queries:
        if query.expression is None:
            continue
        try:
            tree = parse(query.expression)
        except MathSyntaxError:
            return True
        if any(isinstance(node, Call) and _looks_around(node) for node in walk(tree)):
            return True
    return False


def _looks_around(call: Call) -> bool:
    if call.name not in WINDOW_DEPENDENT:
        return False
    if call.name in ("AVG", "SUM", "MIN", "MAX", "STDDEV", "DATAPOINT_COUNT"):
        return not _is_array(call.args[0])
    if call.name == "FILL":
        return not isinstance(call.args[1], Number)
    return True


def _is_array(node: Node) -> bool:
    return isinstance(node, Array) or (isinstance(node, Call) and node.name in ("METRICS", "SLICE"))


def _one_by_one(alarm: MetricAlarm, source: MetricSource, times: Floats, known_at: float, initial: State, options: Options) -> History:
    codes = np.empty(len(times), dtype=np.int8)
    lacking = np.empty(len(times), dtype=np.int16)
    state = initial
    for i, at in enumerate(times):
        try:
            points = datapoints(alarm, window(alarm, float(at), options), source, known_at, options)
        except MathError:
            points = []
        verdict = evaluate(alarm, points, state, options)
        state = verdict.state
        codes[i], lacking[i] = STATES.index(state), verdict.evidence.missing
    return History(times, codes, lacking, initial)


def _on_grid(
    alarm: MetricAlarm, source: MetricSource, ends: NDArray[np.int64], known_at: float, options: Options
) -> tuple[Codes, NDArray[np.int16]]:
    """The verdicts of evaluations whose windows all end on one grid of periods, and how many points each was lacking."""
    slots = range_slots(alarm, options)
    first = int(ends[0]) - slots * alarm.period
    count = (int(ends[-1]) - first) // alarm.period
    values, bad, low = _points(alarm, source, first, count, known_at, options)
    # one row per evaluation, oldest slot first; the ends are consecutive periods, or (two evaluations in one period) repeated
    rows = (ends - first) // alarm.period - slots
    codes = np.empty(len(ends), dtype=np.int8)
    lacking = np.empty(len(ends), dtype=np.int16)
    height = max(1, _CELLS // slots)
    present = np.isfinite(values)
    for begin in range(0, len(rows), height):
        part = rows[begin : begin + height]
        here = sliding_window_view(present, slots)[part]
        newer = np.cumsum(here[:, ::-1], axis=1)[:, ::-1]
        used = here & (newer <= alarm.evaluation_periods)
        breach = used & sliding_window_view(bad, slots)[part]
        few = used & sliding_window_view(low, slots)[part]
        breach &= ~few
        oldest = np.where(breach.any(axis=1), slots - breach.argmax(axis=1), 0)
        n_bad, n_low = breach.sum(axis=1), few.sum(axis=1)
        real = used.sum(axis=1)
        codes[begin : begin + height] = _decide(alarm, n_bad, real - n_bad - n_low, n_low, oldest, options)
        lacking[begin : begin + height] = alarm.evaluation_periods - real
    return codes, lacking


def _points(
    alarm: MetricAlarm, source: MetricSource, first: int, count: int, known_at: float, options: Options
) -> tuple[Floats, NDArray[np.bool_], NDArray[np.bool_]]:
    """The compared values on a grid of ``count`` periods from ``first``, which of them breach, and which have too few samples."""
    end = first + count * alarm.period
    grid = first + alarm.period * np.arange(count, dtype=np.int64)
    counts: dict[str, Floats] = {}

    def fetch(query: Query) -> Series:
        stat = query.metric_stat
        assert stat is not None
        values, counts[query.id] = slot_values(source, stat, first, count, known_at)
        return Series(grid, values, query.id, alarm.period, stat.metric).finite()

    def band(series: Series, width: float) -> tuple[Series, Series]:
        stats = {query.id: query.metric_stat for query in alarm.queries if query.metric_stat}
        stat = stats.get(series.label) if series.metric else None
        if stat is None or not isinstance(source, BandSource):
            return Series.of([], []), Series.of([], [])
        lower, upper = source.band(stat, width, first, count, known_at)
        return Series(grid, lower).finite(), Series(grid, upper).finite()

    wanted = [alarm.returned.id, *([alarm.threshold_metric_id] if alarm.threshold_metric_id else [])]
    found = evaluate_queries(alarm.queries, fetch, first, end, wanted=wanted, options=options, callbacks=Callbacks(band=band))
    shown = found[alarm.returned.id]
    values = shown[0].on(grid) if shown else np.full(count, np.nan)
    low = np.zeros(count, dtype=bool)
    if alarm.low_sample_percentile == "ignore" and not alarm.is_math and alarm.returned.metric_stat:
        low = counts[alarm.returned.id] < least_samples(alarm.returned.metric_stat.stat)
    if alarm.threshold_metric_id is None:
        return values, _breaching(alarm, values), low
    rows = [one.on(grid) for one in found[alarm.threshold_metric_id]] or [np.full(count, np.nan)]
    lower, upper = np.minimum.reduce(rows), np.maximum.reduce(rows)
    values = np.where(np.isfinite(lower) | np.isfinite(upper), values, np.nan)
    below, above = values < lower, values > upper
    bad = {"LessThanLowerThreshold": below, "GreaterThanUpperThreshold": above}.get(alarm.comparison, below | above)
    return values, bad, low


def _breaching(alarm: MetricAlarm, values: Floats) -> NDArray[np.bool_]:
    threshold = alarm.threshold or 0.0
    match alarm.comparison:
        case "GreaterThanThreshold":
            return values > threshold
        case "GreaterThanOrEqualToThreshold":
            return values >= threshold
        case "LessThanThreshold":
            return values < threshold
        case _:
            return values <= threshold


def _decide(
    alarm: MetricAlarm,
    bad: NDArray[np.int64],
    good: NDArray[np.int64],
    low: NDArray[np.int64],
    oldest: NDArray[np.int64],
    options: Options,
) -> Codes:
    """The seven rules of `alarms.engine.metric` over arrays of counts."""
    n, m = alarm.evaluation_periods, alarm.datapoints_to_alarm
    missing = n - bad - good - low
    match treatment(alarm, options):
        case "ignore":
            rest = np.where((good > 0) & (options.ignore_with_good == "ok"), _OK, RETAINED)
        case "breaching":
            rest = np.where(bad + missing >= m, _ALARM, _OK)
        case "notBreaching":
            rest = np.full(len(bad), _OK)
        case _:
            fresh = _NO_DATA if options.fresh_breach == "insufficient-data" else RETAINED
            rest = np.select([bad + good + low == 0, good > 0, oldest >= m], [_NO_DATA, _OK, _ALARM], fresh)
    return np.select([bad >= m, good >= n - m + 1, low > 0], [_ALARM, _OK, RETAINED], rest).astype(np.int8)


def _carried(codes: Codes, initial: State) -> Codes:
    """The states with every RETAINED replaced by the state before it."""
    decided = codes != RETAINED
    last = np.maximum.accumulate(np.where(decided, np.arange(len(codes)), -1))
    return np.where(last >= 0, codes[np.maximum(last, 0)], STATES.index(initial)).astype(np.int8)


def merge_transitions(histories: Sequence[tuple[str, History]]) -> list[tuple[float, str, State]]:
    """(when, alarm, new state) of several alarms' changes, in order of time."""
    return sorted((at, name, after) for name, history in histories for at, _, after in history.transitions())
