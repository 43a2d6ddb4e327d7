"""Where an alarm's points come from: the one thing the engine asks of its surroundings."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np

from alarms.engine.math import Callbacks, Series, evaluate_queries
from alarms.engine.metric import Datapoint
from alarms.engine.model import MetricAlarm
from alarms.engine.options import Options
from alarms.engine.query import MetricKey, MetricStat, Query
from alarms.engine.statistics import EMPTY, Floats, Samples, by_slot
from alarms.engine.window import Window


class MetricSource(Protocol):
    """A store of metrics, as CloudWatch is to its alarms."""

    def samples(self, key: MetricKey, start: float, end: float, known_at: float) -> Samples:
        """The samples of ``key`` with timestamps in ``[start, end)`` that were visible at ``known_at`` (all in epoch seconds).

        ``key.unit`` None asks for samples of any unit; `MetricKey.selects` says which stored metrics belong to a key. Samples may come in
        any order; `alarms.engine.statistics.EMPTY` is none.
        """
        ...


@runtime_checkable
class BandSource(Protocol):
    """A source that also knows anomaly bands. Without it an alarm on a band has no points."""

    def band(self, stat: MetricStat, width: float, start: int, slots: int, known_at: float) -> tuple[Floats, Floats]:
        """Lower and upper edge of the band for each of ``slots`` periods from ``start``; NaN where there is none."""
        ...


@runtime_checkable
class StatisticSource(Protocol):
    """A source that has statistics instead of samples, such as what GetMetricData exported. It is asked before `MetricSource.samples`."""

    def statistics(self, stat: MetricStat, start: int, slots: int, known_at: float) -> tuple[Floats, Floats]:
        """The statistic in each of ``slots`` periods from ``start`` (NaN where missing), and how many samples each is made of."""
        ...


def slot_values(source: MetricSource, stat: MetricStat, start: int, slots: int, known_at: float) -> tuple[Floats, Floats]:
    """The statistic in each of ``slots`` consecutive periods from ``start``, and the number of samples in each."""
    if isinstance(source, StatisticSource):
        return source.statistics(stat, start, slots, known_at)
    samples = source.samples(stat.metric, start, start + slots * stat.period, known_at)
    return by_slot(stat.stat, samples, start, stat.period, slots)


@dataclass(frozen=True, slots=True)
class Reading:
    """A metric's samples with, for each, the time it became visible."""

    samples: Samples
    visible: Floats


class MemorySource:
    """A source that holds everything in memory, for tests and replays. Samples may arrive later than their timestamps."""

    def __init__(self) -> None:
        self._parts: dict[MetricKey, list[Reading]] = defaultdict(list)
        self._by_metric: dict[tuple[str, str, tuple[tuple[str, str], ...]], list[MetricKey]] = defaultdict(list)
        self._bands: dict[MetricKey, tuple[Samples, Samples]] = {}

    def add(self, key: MetricKey, samples: Samples, visible: Iterable[float] | None = None) -> None:
        """Store ``samples`` under ``key``, each visible from its time in ``visible`` on (by default from its timestamp on)."""
        if visible is None:
            samples = samples.in_time_order()
            when = samples.times
        else:
            order = np.argsort(samples.times, kind="stable")
            samples, when = samples.select(order), np.asarray(visible, dtype=np.float64)[order]
        if key not in self._parts:
            self._by_metric[key.namespace, key.name, key.dimensions].append(key)
        self._parts[key].append(Reading(samples, when))

    def add_band(self, key: MetricKey, lower: Samples, upper: Samples) -> None:
        """Store a band's edges for the metric ``key``."""
        self._bands[key] = (lower.in_time_order(), upper.in_time_order())

    def samples(self, key: MetricKey, start: float, end: float, known_at: float) -> Samples:
        """See `MetricSource`."""
        found: list[Samples] = []
        for stored in self._by_metric.get((key.namespace, key.name, key.dimensions), ()):
            if not key.selects(stored):
                continue
            for part in self._parts[stored]:
                low, high = np.searchsorted(part.samples.times, (start, end))
                if low == high:
                    continue
                chosen = part.samples.select(slice(low, high))
                seen = part.visible[low:high] <= known_at
                found.append(chosen if bool(seen.all()) else chosen.select(seen))
        return Samples.concatenate(found)

    def band(self, stat: MetricStat, width: float, start: int, slots: int, known_at: float) -> tuple[Floats, Floats]:  # noqa: ARG002
        """See `BandSource`. Bands are taken as given: ``width`` does not scale them, and they are known beforehand."""
        edges = (edges for stored, edges in self._bands.items() if stat.metric.selects(stored))
        lower, upper = next(edges, (EMPTY, EMPTY))
        return (
            by_slot("Average", lower, start, stat.period, slots)[0],
            by_slot("Average", upper, start, stat.period, slots)[0],
        )


def datapoints(alarm: MetricAlarm, window: Window, source: MetricSource, known_at: float, options: Options) -> list[Datapoint | None]:
    """The points of an alarm's evaluation range as far as they were known at ``known_at``: what `metric.evaluate` takes."""
    counts: dict[str, Floats] = {}

    def fetch(query: Query) -> Series:
        stat = query.metric_stat
        assert stat is not None
        values, counts[query.id] = slot_values(source, stat, window.start, window.slots, known_at)
        times = window.start + window.period * np.arange(window.slots, dtype=np.int64)
        return Series(times, values, query.id, window.period, stat.metric).finite()

    wanted = [alarm.returned.id, *([alarm.threshold_metric_id] if alarm.threshold_metric_id else [])]
    callbacks = Callbacks(band=_bands(alarm, window, source, known_at))
    found = evaluate_queries(alarm.queries, fetch, window.start, window.end, wanted=wanted, options=options, callbacks=callbacks)
    grid = window.start + window.period * np.arange(window.slots, dtype=np.int64)
    shown = found[alarm.returned.id]
    values = shown[0].on(grid) if shown else np.full(window.slots, np.nan)
    number = counts.get(alarm.returned.id)
    edges: list[Floats] = []
    if alarm.threshold_metric_id:
        band = found[alarm.threshold_metric_id]
        # the two edges are told apart by their values, whatever order the options list them in
        rows = [one.on(grid) for one in band] or [np.full(window.slots, np.nan)]
        edges = [np.minimum.reduce(rows), np.maximum.reduce(rows)]
    return [
        None
        if np.isnan(values[i])
        else Datapoint(
            int(grid[i]),
            float(values[i]),
            None if number is None else float(number[i]),
            *((None if np.isnan(edge[i]) else float(edge[i])) for edge in edges),
        )
        for i in range(window.slots)
    ]


def _bands(alarm: MetricAlarm, window: Window, source: MetricSource, known_at: float) -> Callable[[Series, float], tuple[Series, Series]]:
    stats = {query.id: query.metric_stat for query in alarm.queries if query.metric_stat}

    def band(series: Series, width: float) -> tuple[Series, Series]:
        stat = stats.get(series.label)
        grid = window.start + window.period * np.arange(window.slots, dtype=np.int64)
        if series.metric is None or stat is None or not isinstance(source, BandSource):
            empty = Series.of([], [], series.label, series.period)
            return empty, empty
        lower, upper = source.band(stat, width, window.start, window.slots, known_at)
        return Series(grid, lower, "lower", window.period).finite(), Series(grid, upper, "upper", window.period).finite()

    return band
