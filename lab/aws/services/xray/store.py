"""Traces of one Region, in bounded memory: at most `MAX_TRACES` traces and `MAX_BYTES` of memory, the oldest go first.

A document as a dictionary takes ten times the memory of its JSON, and most are never asked for. So they are kept compressed, and unpacked
when a trace is asked for.
"""

from __future__ import annotations

import json
import threading
import zlib
from collections import OrderedDict
from dataclasses import dataclass, field, replace
from operator import itemgetter
from typing import TYPE_CHECKING, Any

from lab.aws.services.xray.segments import Segment

if TYPE_CHECKING:
    from collections.abc import Iterable

# Two minutes of a service at 200 requests a second fit, that they are there to be looked at when an outage's backlog arrives all at once.
MAX_TRACES = 40_000
MAX_BYTES = 64 * 1024 * 1024
MAX_TRACE_BYTES = 500 * 1024
OVERHEAD_BYTES = 500  # what Python takes for a kept segment beside its document
_json = json.JSONEncoder(separators=(",", ":")).encode


@dataclass(slots=True)
class Trace:
    """The segments of one trace by id; a segment that is sent again (first in progress, then complete) replaces itself."""

    id: str
    segments: dict[str, Segment] = field(default_factory=dict)
    size: int = 0
    limit_exceeded: bool = False

    @property
    def start(self) -> float:
        """The earliest start."""
        return min(segment.start for segment in self.segments.values())

    @property
    def end(self) -> float:
        """The latest end."""
        return max(segment.end for segment in self.segments.values())

    @property
    def root(self) -> Segment:
        """The segment nothing in the trace calls; the earliest of several."""
        known = self.all_ids()
        roots = [segment for segment in self.segments.values() if segment.parent_id not in known]
        proper = [segment for segment in roots if not segment.is_subsegment] or roots or list(self.segments.values())
        return min(proper, key=lambda segment: (segment.parent_id is not None, segment.start))

    def all_ids(self) -> set[str]:
        """Ids of segments and of the subsegments inside them."""
        found = set(self.segments)
        for segment in self.segments.values():
            stack = list(segment.document.get("subsegments") or ())
            while stack:
                inner = stack.pop()
                if isinstance(inner, dict):
                    found.add(str(inner.get("id")))
                    stack += inner.get("subsegments") or ()
        return found

    def documents(self) -> list[dict[str, Any]]:
        """The segment documents with their separately sent subsegments inside, as BatchGetTraces answers them."""
        children: dict[str, list[Segment]] = {}
        for segment in self.segments.values():
            if segment.is_subsegment and segment.parent_id in self.segments and self.segments[segment.parent_id].service == segment.service:
                children.setdefault(segment.parent_id, []).append(segment)
        placed = {child.id for group in children.values() for child in group}

        def whole(segment: Segment) -> dict[str, Any]:
            document = dict(segment.document)
            inner = [
                {key: value for key, value in whole(child).items() if key not in {"trace_id", "parent_id", "type"}}
                for child in children.get(segment.id, ())
            ]
            if inner:
                document["subsegments"] = [*(document.get("subsegments") or ()), *sorted(inner, key=lambda each: float(each["start_time"]))]
            return document

        tops = sorted((segment for segment in self.segments.values() if segment.id not in placed), key=lambda segment: segment.start)
        return [whole(segment) for segment in tops]


@dataclass(frozen=True, slots=True)
class _Packed:
    """A segment with its document compressed; ``size`` is the document's as it was sent."""

    parent_id: str | None
    service: str
    start: float
    end: float
    size: int
    packed: bytes

    @classmethod
    def of(cls, segment: Segment) -> _Packed:
        packed = zlib.compress(_json(segment.document).encode(), 1)
        return cls(segment.parent_id, segment.service, segment.start, segment.end, segment.size, packed)

    @property
    def memory(self) -> int:
        return len(self.packed) + OVERHEAD_BYTES


@dataclass(slots=True)
class _Shelf:
    """A trace as it is kept: packed segments by id. ``start`` and ``end`` are kept for who searches by time."""

    segments: dict[str, _Packed] = field(default_factory=dict)
    size: int = 0
    limit_exceeded: bool = False
    start: float = 0.0
    end: float = 0.0

    def put(self, key: str, segment: _Packed) -> None:
        if self.segments and key not in self.segments:
            self.start, self.end = min(self.start, segment.start), max(self.end, segment.end)
            self.segments[key] = segment
            return
        self.segments[key] = segment
        self.start = min(each.start for each in self.segments.values())
        self.end = max(each.end for each in self.segments.values())

    @property
    def memory(self) -> int:
        return sum(segment.memory for segment in self.segments.values())

    def unpacked(self, identity: str) -> Trace:
        segments = {
            key: Segment(identity, key, each.parent_id, each.service, json.loads(zlib.decompress(each.packed)), each.size)
            for key, each in self.segments.items()
        }
        return Trace(identity, segments, self.size, self.limit_exceeded)


class TraceStore:
    """Safe to use from any thread."""

    def __init__(self) -> None:
        self._traces: OrderedDict[str, _Shelf] = OrderedDict()
        self._bytes = 0
        self._offsets: OrderedDict[str, float] = OrderedDict()
        self._lock = threading.Lock()

    def offset(self, trace_id: str, first: float) -> float:
        """By how much the times of a trace are moved to be lab time: what its first segment needed, so that durations stay.

        ``first`` is that offset for the segment at hand.
        """
        with self._lock:
            if trace_id not in self._offsets:
                self._offsets[trace_id] = first
                while len(self._offsets) > MAX_TRACES:
                    self._offsets.popitem(last=False)
            return self._offsets[trace_id]

    def add(self, segments: Iterable[Segment]) -> None:
        """Store segments; those of a trace that is larger than 500 KB are dropped, and the trace says so."""
        packed = [(segment, _Packed.of(segment)) for segment in segments]
        with self._lock:
            for segment, kept in packed:
                shelf = self._traces.get(segment.trace_id)
                if shelf is None:
                    shelf = self._traces[segment.trace_id] = _Shelf()
                if shelf.size + segment.size > MAX_TRACE_BYTES:
                    shelf.limit_exceeded = True
                    if not shelf.segments:
                        del self._traces[segment.trace_id]
                    continue
                previous = shelf.segments.get(segment.id)
                shelf.put(segment.id, kept)
                shelf.size += kept.size - (previous.size if previous else 0)
                self._bytes += kept.memory - (previous.memory if previous else 0)
            while len(self._traces) > MAX_TRACES or self._bytes > MAX_BYTES:
                _, gone = self._traces.popitem(last=False)
                self._bytes -= gone.memory

    def get(self, trace_id: str) -> Trace | None:
        """A trace by its id."""
        with self._lock:
            shelf = self._traces.get(trace_id)
            kept = replace(shelf, segments=dict(shelf.segments)) if shelf else None
        return kept.unpacked(trace_id) if kept else None

    def service_of(self, trace_id: str, segment_id: str | None) -> str | None:
        """The service that a segment tells of; None where the segment is not known."""
        with self._lock:
            shelf = self._traces.get(trace_id)
            segment = shelf.segments.get(segment_id or "") if shelf else None
        return segment.service if segment else None

    def identities(self, start: float, end: float, overlap: bool) -> list[str]:
        """Ids of the traces that began in the interval (or, with ``overlap``, were under way in it), newest first; none is unpacked."""
        with self._lock:
            chosen = [
                (shelf.start, identity)
                for identity, shelf in self._traces.items()
                if (shelf.start <= end and shelf.end >= start if overlap else start <= shelf.start <= end)
            ]
        return [identity for _, identity in sorted(chosen, key=itemgetter(0), reverse=True)]

    def between(self, start: float, end: float, overlap: bool) -> list[Trace]:
        """The traces of `identities`."""
        found = map(self.get, self.identities(start, end, overlap))
        return [trace for trace in found if trace is not None]
