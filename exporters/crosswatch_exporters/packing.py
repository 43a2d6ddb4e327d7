"""From a batch of spans or log records to blocks that keep every limit of their destination."""

from collections.abc import Callable, Sequence
from typing import Any

from crosswatch_exporters.blocks import MAX_RESOURCE_BYTES, Block, Limits
from crosswatch_exporters.encoding.common import Envelope
from crosswatch_exporters.encoding.logs import LogEncoder
from crosswatch_exporters.encoding.spans import SpanEncoder
from crosswatch_exporters.encoding.wire import Redactor, varint
from crosswatch_exporters.ledger import Loss

Lose = Callable[[Loss, int], None]
Prepared = tuple[bytes, int, Any, Any, int]
"""An encoded item with its tag and length, its weight, its resource and scope, and its time in nanoseconds."""
Pack = Callable[[Sequence[Any], Lose], list[Block]]
"""Encodes items into blocks; what cannot be sent is handed to `Lose` with a reason and a count."""

# An event is the JSON of record, resource and scope, in which every field repeats its name; this is how much longer than protobuf it can
# get.
_EVENT_OVERHEAD = 320
_ATTRIBUTE_OVERHEAD = 48
_PER_EVENT = 26


class OpenBlock:
    """A block under construction."""

    __slots__ = ("_parts", "_resource", "_scope", "groups", "items", "newest", "oldest", "weight")

    def __init__(self) -> None:
        self.groups: dict[tuple[int, int], tuple[Any, Any, list[bytes]]] = {}
        self.items = self.weight = self.newest = 0
        self.oldest = 1 << 63
        # Neighbours mostly share resource and scope.
        self._resource: Any = self
        self._scope: Any = self
        self._parts: list[bytes] = []

    def admits(self, weight: int, time: int, limits: Limits) -> bool:
        """Whether an item may join: block size, number, and time between the first and the last."""
        items = self.items
        if not items:
            return True
        if items >= limits.request_items or self.weight + weight > limits.block_bytes:
            return False
        return max(time, self.newest) - min(time, self.oldest) <= limits.max_gap_ns

    def add(self, resource: Any, scope: Any, item: bytes, weight: int, time: int) -> None:
        """Put an encoded item under its resource and scope."""
        if resource is not self._resource or scope is not self._scope:
            self._resource, self._scope = resource, scope
            self._parts = self.groups.setdefault((id(resource), id(scope)), (resource, scope, []))[2]
        self._parts.append(item)
        self.items += 1
        self.weight += weight
        if time < self.oldest:
            self.oldest = time
        if time > self.newest:
            self.newest = time

    def close(self, envelope: Envelope) -> Block:
        """The finished block."""
        payload = envelope.request(self.groups)
        return Block(payload, self.items, max(self.weight, len(payload)), self.oldest, self.newest)


class _Origins:
    """Which resources and scopes are small enough to be sent at all; the answer is kept for the pair that was asked for last."""

    def __init__(self, envelope: Envelope) -> None:
        self._envelope = envelope
        self._resource: Any = self
        self._scope: Any = self
        self._fits = True

    def fit(self, resource: Any, scope: Any) -> bool:
        """Whether both are within the limit; the endpoint would reject the whole request otherwise."""
        if resource is not self._resource or scope is not self._scope:
            self._resource, self._scope = resource, scope
            sizes = len(self._envelope.resource(resource)[0]), len(self._envelope.scope(scope)[0])
            self._fits = max(sizes) <= MAX_RESOURCE_BYTES
        return self._fits


class SpanPacker:
    """Packs finished spans."""

    def __init__(self, limits: Limits, redact: Redactor | None = None) -> None:
        self._limits = limits
        self._encode = SpanEncoder(redact)
        self._envelope = Envelope(redact)
        self._origins = _Origins(self._envelope)

    def prepare(self, span: Any) -> Prepared:
        """Encode a span. Raises whatever its values raise when it is not what the SDK makes."""
        item = self._encode(span)
        item = b"\x12" + varint(len(item)) + item
        return item, len(item), span.resource, span.instrumentation_scope, span.end_time or 0

    def __call__(self, prepared: Sequence[Prepared], lose: Lose) -> list[Block]:
        """Blocks with the spans in their order, grouped by resource and scope."""
        return _blocks(prepared, lose, self._limits, self._origins, self._envelope)


class LogPacker:
    """Packs log records. A record's weight is an upper bound of the event that CloudWatch Logs makes of it."""

    def __init__(self, limits: Limits, redact: Redactor | None = None) -> None:
        self._limits = limits
        self._encode = LogEncoder(redact)
        self._envelope = Envelope(redact)
        self._origins = _Origins(self._envelope)
        # Resource and scope of the last record, and what they add to its event.
        self._around: tuple[Any, Any, int] = (self, self, 0)

    def prepare(self, readable: Any) -> Prepared:
        """Encode a record. Raises whatever its values raise when it is not what the SDK makes."""
        item = self._encode(readable)
        item = b"\x12" + varint(len(item)) + item
        resource, scope, record = readable.resource, readable.instrumentation_scope, readable.log_record
        around = self._around
        if resource is not around[0] or scope is not around[1]:
            size = len(self._envelope.resource(resource)[0]) + len(self._envelope.scope(scope)[0])
            around = self._around = (resource, scope, size + len(resource.attributes) * _ATTRIBUTE_OVERHEAD + _EVENT_OVERHEAD + _PER_EVENT)
        weight = len(item) + around[2] + len(record.attributes or ()) * _ATTRIBUTE_OVERHEAD
        return item, weight, resource, scope, record.timestamp or record.observed_timestamp or 0

    def __call__(self, prepared: Sequence[Prepared], lose: Lose) -> list[Block]:
        """Blocks with the records in their order, grouped by resource and scope."""
        return _blocks(prepared, lose, self._limits, self._origins, self._envelope)


def _blocks(prepared: Sequence[Prepared], lose: Lose, limits: Limits, origins: "_Origins", envelope: Envelope) -> list[Block]:
    """Blocks of prepared items. Nearly always all of them fit one block, which is found out for all at once; otherwise one by one."""
    if not prepared:
        return []
    items, weights, resources, scopes, times = zip(*prepared, strict=True)
    oldest, newest, weight = min(times), max(times), sum(weights)
    one_block = weight <= limits.block_bytes and len(items) <= limits.request_items and newest - oldest <= limits.max_gap_ns
    if one_block and max(weights) <= limits.item_bytes:
        groups: dict[tuple[int, int], tuple[Any, Any, list[bytes]]] = {}
        for item, resource, scope in zip(items, resources, scopes, strict=True):
            key = (id(resource), id(scope))
            if key not in groups:
                groups[key] = (resource, scope, [])
            groups[key][2].append(item)
        if all(origins.fit(resource, scope) for resource, scope, _ in groups.values()):
            payload = envelope.request(groups)
            return [Block(payload, len(items), max(weight, len(payload)), oldest, newest)]
    return _blocks_one_by_one(prepared, lose, limits, origins, envelope)


def _blocks_one_by_one(prepared: Sequence[Prepared], lose: Lose, limits: Limits, origins: "_Origins", envelope: Envelope) -> list[Block]:
    blocks, block, largest = [], OpenBlock(), limits.item_bytes
    for item, weight, resource, scope, time in prepared:
        if weight > largest or not origins.fit(resource, scope):
            lose(Loss.ITEM_TOO_LARGE, 1)
            continue
        if not block.admits(weight, time, limits):
            blocks.append(block.close(envelope))
            block = OpenBlock()
        block.add(resource, scope, item, weight, time)
    if block.items:
        blocks.append(block.close(envelope))
    return blocks
