"""One Region's metrics: samples with the moment each becomes visible, in bounded memory.

Raw samples are kept for three hours of lab time; older ones become one row a minute and value, at most `ROLLED_VALUES` of them (so
percentiles stay close and minimum, maximum, sum and count exact), and are dropped after 15 days. A row takes 48 bytes. Samples of standard
resolution are stored at their minute, those of high resolution at their second, as CloudWatch does.

`MetricStore` is a `alarms.engine.source.MetricSource`.
"""

from __future__ import annotations

import math
import random
import threading
from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from alarms.engine.query import MetricKey
from alarms.engine.statistics import EMPTY, Samples

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from numpy.typing import NDArray

    from lab.aws.ingestion import Ingestion

RAW_S = 3 * 3600.0
KEEP_S = 15 * 86400.0
ROLLED_VALUES = 20
ACTIVE_S = 3 * 3600.0
LISTED_S = 14 * 86400.0
_COLUMNS = 6  # time, low, high, sum, count, visible

Identity = tuple[str, str, tuple[tuple[str, str], ...]]


@dataclass(frozen=True, slots=True)
class Datum:
    """One row to store: a value with a count, or a statistic set."""

    time: float
    low: float
    high: float
    total: float
    count: float


class _Line:
    """The samples of one metric in one unit, in arrival order until they are read."""

    def __init__(self) -> None:
        self._rows: NDArray[np.float64] = np.empty((16, _COLUMNS))
        self._used = 0
        self._sorted = True
        self.last_time = -math.inf

    def add(self, datum: Datum, visible: float) -> None:
        if self._used == len(self._rows):
            self._rows = np.concatenate((self._rows, np.empty_like(self._rows)))
        self._rows[self._used] = (datum.time, datum.low, datum.high, datum.total, datum.count, visible)
        self._used += 1
        if datum.time < self.last_time:
            self._sorted = False
        else:
            self.last_time = datum.time

    @property
    def rows(self) -> NDArray[np.float64]:
        """All rows in time order."""
        if not self._sorted:
            used = self._rows[: self._used]
            self._rows[: self._used] = used[np.argsort(used[:, 0], kind="stable")]
            self._sorted = True
        return self._rows[: self._used]

    def between(self, start: float, end: float, known_at: float) -> Samples:
        rows = self.rows
        low, high = np.searchsorted(rows[:, 0], (start, end))
        if low == high:
            return EMPTY
        rows = rows[low:high]
        rows = rows[rows[:, 5] <= known_at]  # a copy, so later additions do not touch it
        return Samples(rows[:, 0], rows[:, 1], rows[:, 2], rows[:, 3], rows[:, 4])

    def compact(self, now: float) -> None:
        rows = self.rows
        raw_from, keep_from = np.searchsorted(rows[:, 0], (math.floor((now - RAW_S) / 60) * 60, now - KEEP_S))
        old = rows[keep_from:raw_from]
        minutes = np.floor(old[:, 0] / 60) * 60
        parts = [_rolled(old[minutes == minute], minute) for minute in np.unique(minutes)]
        kept = np.concatenate([*parts, rows[raw_from:]]) if parts else rows[raw_from:]
        self._used = len(kept)
        self._rows = np.concatenate((kept, np.empty((max(16, len(kept) // 4), _COLUMNS))))

    def __len__(self) -> int:
        return self._used


def _rolled(rows: NDArray[np.float64], minute: float) -> NDArray[np.float64]:
    """The rows of one minute as few rows at its start. Sum, count, minimum and maximum stay exact; percentiles stay close."""
    single = rows[rows[:, 1] == rows[:, 2]]
    sets = rows[rows[:, 1] != rows[:, 2]]
    parts = [sets] if len(sets) <= 1 else [_merged(sets)]
    if len(single) > ROLLED_VALUES:
        single = single[np.argsort(single[:, 1], kind="stable")]
        middle = [_merged(group) for group in np.array_split(single[1:-1], ROLLED_VALUES - 2)]
        for group in middle:
            group[:, 1] = group[:, 2] = group[:, 3] / group[:, 4]
        single = np.concatenate((single[:1], *middle, single[-1:]))
    out = np.concatenate((*parts, single))
    out[:, 0] = minute
    return out


def _merged(rows: NDArray[np.float64]) -> NDArray[np.float64]:
    """Rows as one statistic set."""
    return np.array([[rows[0, 0], rows[:, 1].min(), rows[:, 2].max(), rows[:, 3].sum(), rows[:, 4].sum(), rows[:, 5].max()]])


class MetricStore:
    """The metrics of one Region; safe to use from any thread."""

    def __init__(self, ingestion: Ingestion) -> None:
        self._ingestion = ingestion
        self._random = random.Random(ingestion.seed)
        self._lines: dict[Identity, dict[str, _Line]] = {}
        self._by_name: dict[tuple[str, str], set[Identity]] = defaultdict(set)
        self._lock = threading.Lock()

    def put(self, namespace: str, name: str, dimensions: dict[str, str], unit: str, data: Iterable[Datum], now: float) -> None:
        """Store samples that arrived at ``now``."""
        identity = (namespace, name, tuple(sorted(dimensions.items())))
        with self._lock:
            visible = now + self._random.uniform(self._ingestion.low_s, self._ingestion.high_s)
            lines = self._lines.get(identity)
            if lines is None:
                lines = self._lines[identity] = {}
                self._by_name[namespace, name].add(identity)
            line = lines.get(unit)
            if line is None:
                line = lines[unit] = _Line()
            for datum in data:
                line.add(datum, visible)

    def samples(self, key: MetricKey, start: float, end: float, known_at: float) -> Samples:
        """See `alarms.engine.source.MetricSource`."""
        with self._lock:
            lines = self._lines.get((key.namespace, key.name, key.dimensions), {})
            chosen = list(lines.values()) if key.unit is None else [lines[key.unit]] if key.unit in lines else []
            return Samples.concatenate([part for line in chosen if len(part := line.between(start, end, known_at))])

    def units(self, key: MetricKey) -> list[str]:
        """The units in which a metric was sent."""
        return sorted(self._lines.get((key.namespace, key.name, key.dimensions), {}))

    def list(
        self, now: float, namespace: str | None = None, name: str | None = None, recently_active: bool = False
    ) -> Iterator[tuple[MetricKey, float]]:
        """Metrics with data of the last two weeks (or three hours), with the time of their newest sample, in name order."""
        limit = now - (ACTIVE_S if recently_active else LISTED_S)
        with self._lock:
            if namespace is not None and name is not None:
                identities = set(self._by_name.get((namespace, name), ()))
            else:
                identities = set(self._lines)
            newest = {identity: max(line.last_time for line in self._lines[identity].values()) for identity in identities}
        for identity in sorted(identities):
            if namespace in {None, identity[0]} and name in {None, identity[1]} and newest[identity] >= limit:
                yield MetricKey(*identity), newest[identity]

    def compact(self, now: float) -> None:
        """Roll up and drop what is old."""
        with self._lock:
            for identity, lines in list(self._lines.items()):
                for unit, line in list(lines.items()):
                    line.compact(now)
                    if not len(line):
                        del lines[unit]
                if not lines:
                    del self._lines[identity]
                    self._by_name[identity[:2]].discard(identity)

    def __len__(self) -> int:
        """How many rows are held."""
        return sum(len(line) for lines in self._lines.values() for line in lines.values())
