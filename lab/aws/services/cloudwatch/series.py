"""OTLP metrics of one Region in bounded memory: the newest `POINTS` of each series that was written within `IDLE_S`.

Every restart of a service begins new series (its instance is among the labels), so old ones have to go by themselves. Where all of them
take more than `MAX_BYTES`, those go first that were written longest ago. A histogram takes ten times the memory of its JSON as a
dictionary, so it is kept as JSON.
"""

from __future__ import annotations

import json
import threading
from collections import OrderedDict, deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

POINTS = 30
IDLE_S = 3600.0
MAX_SERIES = 20_000
MAX_BYTES = 32 * 1024 * 1024
SERIES_BYTES = 1000  # what Python takes for a series, a label and a point, beside their text
LABEL_BYTES = 200
POINT_BYTES = 170

Labels = tuple[tuple[str, str], ...]
Point = tuple[float, Any]  # lab seconds, and a number or a native histogram (a dictionary; here its JSON)


@dataclass(slots=True)
class _Series:
    """The points of one series, oldest first."""

    memory: int
    written: float = 0.0
    points: deque[tuple[float, float | str]] = field(default_factory=deque)

    def keep(self, time: float, value: float | str) -> int:
        """Add a point; the oldest goes where there are too many. By how many bytes that changes the memory."""
        change = _memory(value)
        if len(self.points) == POINTS:
            change -= _memory(self.points.popleft()[1])
        self.points.append((time, value))
        self.memory += change
        return change


class SeriesStore:
    """Safe to use from any thread."""

    def __init__(self) -> None:
        self._series: OrderedDict[Labels, _Series] = OrderedDict()  # in the order in which they were last written
        self._bytes = 0
        self._lock = threading.Lock()

    def put(self, points: Iterable[tuple[dict[str, str], float, Any]], now: float) -> None:
        """Store (labels, lab seconds, number or histogram) that arrived at ``now``."""
        kept = [
            (tuple(sorted(labels.items())), time, json.dumps(value, separators=(",", ":")) if isinstance(value, dict) else value)
            for labels, time, value in points
        ]
        with self._lock:
            for labels, time, value in kept:
                series = self._series.get(labels)
                if series is None:
                    series = self._series[labels] = _Series(_label_memory(labels))
                    self._bytes += series.memory
                series.written = now
                self._series.move_to_end(labels)
                self._bytes += series.keep(time, value)
            self._forget(now)

    def labels(self, wanted: Callable[[dict[str, str]], bool], now: float) -> list[dict[str, str]]:
        """The labels of all series that are ``wanted``."""
        return [dict(labels) for labels in self._chosen(wanted, now)]

    def newest(self, wanted: Callable[[dict[str, str]], bool], start: float, end: float, now: float) -> list[tuple[dict[str, str], Point]]:
        """Of all series that are ``wanted``, the newest point with ``start < time <= end``; series without one are left out."""
        found = []
        for labels in self._chosen(wanted, now):
            with self._lock:
                series = self._series.get(labels)
                known = [point for point in series.points if start < point[0] <= end] if series else []
            if known:
                time, value = max(known, key=lambda point: point[0])
                found.append((dict(labels), (time, json.loads(value) if isinstance(value, str) else value)))
        return found

    def _chosen(self, wanted: Callable[[dict[str, str]], bool], now: float) -> list[Labels]:
        with self._lock:
            self._forget(now)
            every = list(self._series)
        return [labels for labels in every if wanted(dict(labels))]

    def _forget(self, now: float) -> None:
        """Drop what is idle, and what was written longest ago while there is too much. The lock is held."""
        while self._series:
            oldest = next(iter(self._series.values()))
            if oldest.written >= now - IDLE_S and len(self._series) <= MAX_SERIES and self._bytes <= MAX_BYTES:
                return
            self._series.popitem(last=False)
            self._bytes -= oldest.memory

    @property
    def memory(self) -> int:
        """Bytes that the store takes, about."""
        return self._bytes


def _memory(value: float | str) -> int:
    return POINT_BYTES + (len(value) if isinstance(value, str) else 0)


def _label_memory(labels: Labels) -> int:
    return SERIES_BYTES + sum(LABEL_BYTES + len(key) + len(value) for key, value in labels)
