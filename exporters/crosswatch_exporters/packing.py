"""From a batch of SDK objects to blocks that keep every limit of their destination."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

from crosswatch_exporters.blocks import MAX_LABELS, MAX_RESOURCE_BYTES, Block, Limits
from crosswatch_exporters.encoding.common import Envelope
from crosswatch_exporters.encoding.logs import LogEncoder
from crosswatch_exporters.encoding.metrics import MetricEncoder
from crosswatch_exporters.encoding.spans import SpanEncoder
from crosswatch_exporters.encoding.wire import Redactor, varint
from crosswatch_exporters.ledger import Loss

Lose = Callable[[Loss, int], None]
Pack = Callable[[Sequence[Any], Lose], list[Block]]
"""Encodes items into blocks; what cannot be sent is handed to `Lose` with a reason and a count."""

# A block is at most this large, so that several fit a request and a lost one costs little.
_BLOCK_BYTES = 256_000
# An event is the JSON of record, resource and scope, in which every field repeats its name; this is how much longer than protobuf it can get.
_EVENT_OVERHEAD = 320
_ATTRIBUTE_OVERHEAD = 48
_PER_EVENT = 26


class _Open:
    """A block under construction."""

    def __init__(self) -> None:
        self.groups: dict[tuple[int, int], tuple[Any, Any, list[bytes]]] = {}
        self.items = self.weight = self.newest = 0
        self.oldest = 1 << 63

    def admits(self, weight: int, oldest: int, newest: int, limits: Limits) -> bool:
        """Whether an item may join: block size, number, and time between the first and the last."""
        return not self.items or (
            self.weight + weight <= min(_BLOCK_BYTES, limits.request_bytes)
            and self.items < limits.request_items
            and max(newest, self.newest) - min(oldest, self.oldest) <= limits.max_gap_ns
        )

    def add(self, resource: Any, scope: Any, item: bytes, weight: int, oldest: int, newest: int) -> None:
        """Put an encoded item, without tag and length, under its resource and scope."""
        key = (id(resource), id(scope))
        group = self.groups.get(key)
        if group is None:
            group = self.groups[key] = (resource, scope, [])
        group[2].append(b"\x12" + varint(len(item)) + item)
        self.items += 1
        self.weight += weight
        if oldest < self.oldest:
            self.oldest = oldest
        if newest > self.newest:
            self.newest = newest

    def close(self, envelope: Envelope) -> Block:
        """The finished block."""
        payload = envelope.request(self.groups)
        return Block(payload, self.items, max(self.weight, len(payload)), self.oldest, self.newest)


class SpanPacker:
    """Packs finished spans."""

    def __init__(self, limits: Limits, redact: Redactor | None = None) -> None:
        self._limits = limits
        self._encode = SpanEncoder(redact)
        self._envelope = Envelope(redact)

    def __call__(self, spans: Sequence[Any], lose: Lose) -> list[Block]:
        """Blocks with the spans in their order, grouped by resource and scope."""
        blocks, block, limits, encode = [], _Open(), self._limits, self._encode
        for span in spans:
            try:
                item = encode(span)
            except (AttributeError, TypeError, ValueError, OverflowError):
                lose(Loss.UNENCODABLE, 1)
                continue
            size = len(item)
            if size > limits.item_bytes or _too_large(self._envelope, span.resource, span.instrumentation_scope):
                lose(Loss.ITEM_TOO_LARGE, 1)
                continue
            end = span.end_time or 0
            if not block.admits(size + 4, end, end, limits):
                blocks.append(block.close(self._envelope))
                block = _Open()
            block.add(span.resource, span.instrumentation_scope, item, size + 4, end, end)
        if block.items:
            blocks.append(block.close(self._envelope))
        return blocks


class LogPacker:
    """Packs log records. A record's weight is an upper bound of the event that CloudWatch Logs makes of it."""

    def __init__(self, limits: Limits, redact: Redactor | None = None) -> None:
        self._limits = limits
        self._encode = LogEncoder(redact)
        self._envelope = Envelope(redact)

    def __call__(self, records: Sequence[Any], lose: Lose) -> list[Block]:
        """Blocks with the records in their order, grouped by resource and scope."""
        blocks, block, limits, encode = [], _Open(), self._limits, self._encode
        for readable in records:
            try:
                item = encode(readable)
            except (AttributeError, TypeError, ValueError, OverflowError):
                lose(Loss.UNENCODABLE, 1)
                continue
            resource, scope, record = readable.resource, readable.instrumentation_scope, readable.log_record
            around = len(self._envelope.resource(resource)[0]) + len(self._envelope.scope(scope)[0])
            attributes = len(record.attributes or ()) + len(resource.attributes)
            weight = len(item) + around + attributes * _ATTRIBUTE_OVERHEAD + _EVENT_OVERHEAD + _PER_EVENT
            if weight > limits.item_bytes or _too_large(self._envelope, resource, scope):
                lose(Loss.ITEM_TOO_LARGE, 1)
                continue
            time = record.timestamp or record.observed_timestamp or 0
            if not block.admits(weight, time, time, limits):
                blocks.append(block.close(self._envelope))
                block = _Open()
            block.add(resource, scope, item, weight, time, time)
        if block.items:
            blocks.append(block.close(self._envelope))
        return blocks


class MetricPacker:
    """Packs one collection of metrics. An item is a data point."""

    def __init__(self, limits: Limits, redact: Redactor | None = None) -> None:
        self._limits = limits
        self._encode = MetricEncoder(redact)
        self._envelope = Envelope(redact)

    def __call__(self, collections: Sequence[Any], lose: Lose) -> list[Block]:
        """Blocks with the points of each MetricsData in their order."""
        return list(self._blocks(collections, lose))

    def _blocks(self, collections: Sequence[Any], lose: Lose) -> Iterator[Block]:
        block = _Open()
        for resource, scope, metric, points in self._metrics(collections, lose):
            while points:
                room = self._limits.request_items - block.items
                part, size, times = _take(points, room, min(_BLOCK_BYTES, self._limits.request_bytes) - block.weight)
                if part and block.admits(size, min(times), max(times), self._limits):
                    block.add(resource, scope, self._encode.message(metric, part), size, min(times), max(times))
                    block.items += len(part) - 1
                    points = points[len(part) :]
                elif block.items:
                    yield block.close(self._envelope)
                    block = _Open()
                else:  # points of one metric that lie more than a day apart
                    block.add(resource, scope, self._encode.message(metric, points[0][1:2]), size, points[0][0], points[0][0])
                    points = points[1:]
        if block.items:
            yield block.close(self._envelope)

    def _metrics(self, collections: Iterable[Any], lose: Lose) -> Iterator[tuple[Any, Any, Any, list[tuple[int, bytes]]]]:
        """(resource, scope, metric, [(time, encoded point)]) without the points that would be refused."""
        for data in collections:
            for resource_metrics in data.resource_metrics:
                resource = resource_metrics.resource
                for scope_metrics in resource_metrics.scope_metrics:
                    scope = scope_metrics.scope
                    shared = len(resource.attributes) + len(scope.attributes or ())
                    around = len(self._envelope.resource(resource)[0]) + len(self._envelope.scope(scope)[0])
                    for metric in scope_metrics.metrics:
                        points = []
                        for point, encoded in self._encode.points(metric):
                            if shared + len(point.attributes or ()) > MAX_LABELS:
                                lose(Loss.TOO_MANY_LABELS, 1)
                            elif len(encoded) + around > self._limits.item_bytes:
                                lose(Loss.ITEM_TOO_LARGE, 1)
                            else:
                                points.append((point.time_unix_nano, encoded))
                        yield resource, scope, metric, points


def _take(points: list[tuple[int, bytes]], most: int, room: int) -> tuple[list[bytes], int, list[int]]:
    """As many of the first points as fit: encoded, their size, their times. Always at least one, if `most` allows it."""
    part: list[bytes] = []
    times: list[int] = []
    size = 200  # the metric's name, description and unit
    for time, encoded in points[: max(0, most)]:
        if part and size + len(encoded) > room:
            break
        part.append(encoded)
        times.append(time)
        size += len(encoded)
    return part, size, times or [0]


def _too_large(envelope: Envelope, resource: Any, scope: Any) -> bool:
    return len(envelope.resource(resource)[0]) > MAX_RESOURCE_BYTES or len(envelope.scope(scope)[0]) > MAX_RESOURCE_BYTES


