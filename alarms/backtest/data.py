"""History for backtests: what GetMetricData answered, as JSON or CSV, read into a source for the engine.

JSON: one object, or a list of them, each with ``Region`` (optional), ``MetricDataQueries`` and ``MetricDataResults`` as GetMetricData takes
and gives them. CSV: a header with ``timestamp``, ``namespace``, ``metric``, ``dimensions`` (``A=x;B=y``), ``stat``, ``period`` (seconds),
``value``, and optionally ``region`` and ``unit``. Timestamps are ISO 8601 or epoch seconds.
"""

from __future__ import annotations

import csv
import io
import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from alarms.definitions import document, read
from alarms.engine import EMPTY, MetricKey, MetricStat, Samples
from alarms.engine.problems import Problem as EngineProblem
from alarms.engine.query import parse_queries
from alarms.engine.statistics import Floats, by_slot
from topology.problems import Problem, UnusableInput


@dataclass(slots=True)
class Export:
    """The exported statistics of one Region: a source for the engine."""

    series: dict[MetricStat, tuple[Floats, Floats]] = field(default_factory=dict)
    """Times (epoch seconds, in order) and values by statistic."""

    def add(self, stat: MetricStat, times: Floats, values: Floats) -> None:
        """Add points; later additions of the same statistic join the earlier ones."""
        if stat in self.series:
            times = np.concatenate((self.series[stat][0], times))
            values = np.concatenate((self.series[stat][1], values))
        times, first = np.unique(times, return_index=True)
        self.series[stat] = (times, values[first])

    @property
    def span(self) -> tuple[float, float] | None:
        """From the first point to the end of the last one's period."""
        have = [(times[0], times[-1] + stat.period) for stat, (times, _) in self.series.items() if len(times)]
        return (float(min(first for first, _ in have)), float(max(last for _, last in have))) if have else None

    def best(self, stat: MetricStat) -> MetricStat | None:
        """The exported statistic that ``stat`` can be made of: the same with a period that divides it, percentiles only with the same."""
        usable = [
            have
            for have in self.series
            if have.stat == stat.stat
            and have.metric == replace(stat.metric, unit=have.metric.unit)
            and (stat.metric.unit is None or have.metric.unit in (None, stat.metric.unit))
            and stat.period % have.period == 0
            and (have.period == stat.period or stat.stat in ("Sum", "Minimum", "Maximum", "SampleCount", "Average"))
        ]
        return max(usable, key=_period, default=None)

    def samples(self, key: MetricKey, start: float, end: float, known_at: float) -> Samples:  # noqa: ARG002
        """Exports hold statistics, no samples."""
        return EMPTY

    def statistics(self, stat: MetricStat, start: int, slots: int, known_at: float) -> tuple[Floats, Floats]:  # noqa: ARG002
        """See `alarms.engine.source.StatisticSource`. Longer periods are made of shorter ones; averages are weighted by SampleCount."""
        have = self.best(stat)
        if have is None:
            return np.full(slots, np.nan), np.zeros(slots)
        times, values = self.series[have]
        counts = self._counts(have, times)
        if stat.stat == "SampleCount":
            return by_slot("Sum", Samples.of(values, times=times), start, stat.period, slots)
        how = stat.stat if stat.stat in ("Sum", "Minimum", "Maximum", "Average") else "Average"
        weights = counts if how == "Average" else None
        result, _ = by_slot(how, Samples.of(values, weights, times), start, stat.period, slots)
        number, _ = by_slot("Sum", Samples.of(counts, times=times), start, stat.period, slots)
        return result, np.nan_to_num(number)

    def _counts(self, have: MetricStat, times: Floats) -> Floats:
        """How many samples each exported point stands for: as exported, else enough for any percentile."""
        known = self.series.get(replace(have, stat="SampleCount"))
        counts = np.full(len(times), 1e9 if have.stat not in ("Average", "Sum", "Minimum", "Maximum") else 1.0)
        if known is not None and len(known[0]) and len(times):
            at = np.clip(np.searchsorted(known[0], times), 0, len(known[0]) - 1)
            counts = np.where(known[0][at] == times, known[1][at], counts)
        positive: Floats = np.maximum(counts, 1e-9)
        return positive


def _period(stat: MetricStat) -> int:
    return stat.period


Exports = dict[str | None, Export]
"""By Region; None where the data names none."""


def load(paths: Sequence[Path]) -> Exports:
    """Read export files. Raises UnusableInput with the problems of all of them."""
    problems: list[Problem] = []
    exports: Exports = defaultdict(Export)
    for path in paths:
        try:
            text = read(path)
            if path.suffix.lower() == ".csv":
                _from_csv(text, str(path), exports)
            else:
                _from_json(document(text, str(path)), str(path), exports)
        except UnusableInput as error:
            problems += error.problems
    if problems:
        raise UnusableInput(problems)
    return dict(exports)


def _from_json(value: Any, file: str, exports: Exports) -> None:
    problems: list[Problem] = []
    for i, part in enumerate(value if isinstance(value, list) else [value]):
        key = f"[{i}]" if isinstance(value, list) else ""
        if not isinstance(part, Mapping) or not isinstance(part.get("MetricDataResults"), list):
            problems.append(Problem("holds no MetricDataResults", "export with `alarms backtest --fetch --save`", file, key))
            continue
        inner: list[EngineProblem] = []
        queries = parse_queries(part.get("MetricDataQueries"), inner)
        problems += [Problem(p.what, p.mend, file, f"{key}MetricDataQueries{p.where}") for p in inner]
        stats = {query.id: query.metric_stat for query in queries}
        region = part.get("Region")
        for j, result in enumerate(part["MetricDataResults"]):
            where = f"{key}MetricDataResults[{j}]"
            try:
                stat = stats.get(str(result["Id"]))
                times = np.asarray([_epoch(moment) for moment in result["Timestamps"]], dtype=np.float64)
                values = np.asarray([float(number) for number in result["Values"]], dtype=np.float64)
                if len(times) != len(values):
                    raise ValueError(f"{len(times)} timestamps and {len(values)} values")
            except (KeyError, TypeError, ValueError, OverflowError) as error:
                what = f"is no result of GetMetricData: {error}"
                problems.append(Problem(what, "it needs Id, Timestamps and Values of equal length", file, where))
                continue
            if stat is not None:
                keep: Any = np.isfinite(values)
                exports.setdefault(region if isinstance(region, str) else None, Export()).add(stat, times[keep], values[keep])
    if problems:
        raise UnusableInput(problems)


_COLUMNS = ("timestamp", "namespace", "metric", "dimensions", "stat", "period", "value")


def _from_csv(text: str, file: str, exports: Exports) -> None:
    rows = csv.DictReader(io.StringIO(text))
    lacking = [name for name in _COLUMNS if name not in (rows.fieldnames or ())]
    if lacking:
        raise UnusableInput([Problem(f"lacks the columns {', '.join(lacking)}", f"begin with {','.join(_COLUMNS)}", file, "", 1)])
    found: dict[tuple[str | None, MetricStat], list[tuple[float, float]]] = defaultdict(list)
    problems: list[Problem] = []
    try:
        for row in rows:
            try:
                pairs = [pair.split("=", 1) for pair in (row["dimensions"] or "").split(";") if pair]
                key = MetricKey.of(row["namespace"], row["metric"], dict(pairs), row.get("unit") or None)
                stat = MetricStat(key, int(row["period"]), row["stat"])
                if stat.period < 1:
                    raise ValueError(f"the period {stat.period}")
                value = float(row["value"])
                if np.isfinite(value):
                    found[row.get("region") or None, stat].append((_epoch(row["timestamp"]), value))
            except (TypeError, ValueError, OverflowError) as error:
                mend = "see docs/alarms/backtest.md for the columns"
                problems.append(Problem(f"cannot be read: {error}", mend, file, "", rows.line_num))
                if len(problems) >= 20:
                    break
    except csv.Error as error:
        problems.append(Problem(f"is not valid CSV: {error}", "correct the syntax", file, "", rows.line_num))
    if problems:
        raise UnusableInput(problems)
    for (region, stat), points in found.items():
        array = np.asarray(points, dtype=np.float64)
        exports.setdefault(region, Export()).add(stat, array[:, 0], array[:, 1])


def _epoch(value: object) -> float:
    """Epoch seconds from ISO 8601 or a number."""
    if isinstance(value, int | float) and not isinstance(value, bool):
        return float(value)
    if isinstance(value, datetime):
        moment = value
    elif isinstance(value, str):
        try:
            return float(value)
        except ValueError:
            moment = datetime.fromisoformat(value)
    else:
        raise TypeError(f"{value!r} is not a timestamp")
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()


def save(parts: Sequence[Mapping[str, Any]], path: Path) -> None:
    """Write fetched parts as JSON. Raises OSError."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(list(parts), separators=(",", ":")), "utf-8")
