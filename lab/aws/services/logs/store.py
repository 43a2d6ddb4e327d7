"""Log groups, streams and events of one Region, in bounded memory. All times are milliseconds of lab time, as the API counts them.

A group holds at most `GROUP_BYTES` of messages; above that its oldest events go, as retention would take them.
"""

from __future__ import annotations

import bisect
import itertools
from dataclasses import dataclass, field
from operator import attrgetter
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

GROUP_BYTES = 8 * 1024 * 1024
EVENT_OVERHEAD_BYTES = 26

_sequence = itertools.count(1)
_key = attrgetter("key")


@dataclass(frozen=True, slots=True)
class LogEvent:
    """One event. ``sequence`` orders events of one millisecond and is unique."""

    timestamp: int
    sequence: int
    ingested: int
    message: str
    stream: str

    @property
    def key(self) -> tuple[int, int]:
        """Order in time, then in arrival."""
        return (self.timestamp, self.sequence)

    @property
    def id(self) -> str:
        """The eventId of the API."""
        return f"{self.timestamp:020d}{self.sequence:036d}"

    @property
    def size(self) -> int:
        """Bytes as AWS counts them."""
        length = len(self.message) if self.message.isascii() else len(self.message.encode("utf-8", "surrogatepass"))
        return length + EVENT_OVERHEAD_BYTES


@dataclass(slots=True)
class LogStream:
    """A stream; its events are in time order."""

    name: str
    created: int
    events: list[LogEvent] = field(default_factory=list)
    last_ingested: int | None = None
    stored: int = 0

    def add(self, events: Iterable[LogEvent]) -> int:
        """Store events; returns their bytes."""
        added = 0
        for event in events:
            if self.events and event.key < self.events[-1].key:
                bisect.insort(self.events, event, key=_key)
            else:
                self.events.append(event)
            added += event.size
            self.last_ingested = event.ingested
        self.stored += added
        return added

    def between(self, start: int | None, end: int | None) -> list[LogEvent]:
        """Events with ``start <= timestamp < end``."""
        low = 0 if start is None else bisect.bisect_left(self.events, (start, 0), key=_key)
        high = len(self.events) if end is None else bisect.bisect_left(self.events, (end, 0), key=_key)
        return self.events[low:high]

    def drop_before(self, timestamp: int) -> int:
        """Forget events older than ``timestamp``; returns their bytes."""
        cut = bisect.bisect_left(self.events, (timestamp, 0), key=_key)
        if not cut:
            return 0
        gone = sum(event.size for event in self.events[:cut])
        del self.events[:cut]
        self.stored -= gone
        return gone


@dataclass(slots=True)
class LogGroup:
    """A group with its streams and settings."""

    name: str
    created: int
    log_class: str = "STANDARD"
    retention_days: int | None = None
    tags: dict[str, str] = field(default_factory=dict)
    streams: dict[str, LogStream] = field(default_factory=dict)
    filters: dict[str, MetricFilter] = field(default_factory=dict)
    stored: int = 0

    def add(self, stream: LogStream, rows: Iterable[tuple[int, str]], now_ms: int) -> list[LogEvent]:
        """Store (timestamp, message) rows in ``stream``."""
        events = [LogEvent(timestamp, next(_sequence), now_ms, message, stream.name) for timestamp, message in rows]
        self.stored += stream.add(events)
        while self.stored > GROUP_BYTES:
            self._shrink()
        return events

    def _shrink(self) -> None:
        """Drop the older half of the stream that holds most."""
        largest = max(self.streams.values(), key=lambda each: each.stored)
        middle = largest.events[max(1, len(largest.events) // 2)].timestamp + 1 if len(largest.events) > 1 else 2**62
        self.stored -= largest.drop_before(middle)

    def expire(self, now_ms: int) -> None:
        """Drop what is older than the retention."""
        if self.retention_days is not None:
            limit = now_ms - self.retention_days * 86_400_000
            self.stored -= sum(stream.drop_before(limit) for stream in self.streams.values())

    def events(self, streams: Iterable[LogStream], start: int | None, end: int | None) -> Iterator[LogEvent]:
        """Events of several streams in time order."""
        return iter(sorted((event for stream in streams for event in stream.between(start, end)), key=_key))


@dataclass(frozen=True, slots=True)
class MetricFilter:
    """A metric filter as it was put."""

    name: str
    pattern: str
    transformation: dict[str, object]
    created: int
