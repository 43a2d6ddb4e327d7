"""OTLP requests that are already encoded: cut in halves, or given one more resource attribute, without decoding what is in them.

All three signals have the same outer shape (see `common.Envelope`); metrics have two levels more, since the items are data points.
"""

from collections.abc import Iterator
from dataclasses import replace

from crosswatch_exporters.blocks import Block
from crosswatch_exporters.encoding.read import fields
from crosswatch_exporters.encoding.wire import delimited, key_value, varint


def field(number: int, value: int | bytes) -> bytes:
    """A field again, as `fields` gave it; integers as fixed64 or varint do not occur above the items, but for varints."""
    if isinstance(value, bytes):
        return delimited(varint(number << 3 | 2), value)
    return varint(number << 3) + varint(value)


def add_resource_attribute(request: bytes, key: str, value: str) -> bytes:
    """The request with one more attribute on every resource."""
    addition = delimited(b"\x0a", key_value(key, value))
    out = []
    for number, group in fields(request):
        if number == 1 and isinstance(group, bytes):
            inner = [(n, v + addition if n == 1 and isinstance(v, bytes) else v) for n, v in fields(group)]
            if not any(n == 1 for n, _ in inner):
                inner.insert(0, (1, addition))
            out.append(field(number, b"".join(field(n, v) for n, v in inner)))
        else:
            out.append(field(number, group))
    return b"".join(out)


def single_items(request: bytes, signal: str) -> Iterator[tuple[bytes, bytes]]:
    """(item, request with only this item) for every span, log record or data point in the request."""
    for _, group in fields(request):
        if not isinstance(group, bytes):
            continue
        group_rest, scopes = _apart(group, 2)
        for scope in scopes:
            scope_rest, items = _apart(scope, 2)
            for item in items:
                for inner, whole in _points(item) if signal == "metrics" else [(item, item)]:
                    yield inner, delimited(b"\x0a", group_rest + delimited(b"\x12", scope_rest + delimited(b"\x12", whole)))


def split_request(block: Block, signal: str) -> list[Block]:
    """The block in two halves, each with exact counts, times and (for spans and points) weights; itself when it holds one item or none."""
    if block.items < 2:
        return [block]
    singles = list(single_items(block.payload, signal))
    middle = (len(singles) + 1) // 2
    return [_merge(block, part, signal, len(singles)) for part in (singles[:middle], singles[middle:]) if part]


def _merge(block: Block, singles: list[tuple[bytes, bytes]], signal: str, of: int) -> Block:
    times = [time for item, _ in singles for time in item_times(item, signal) if time]
    return replace(
        block,
        payload=b"".join(request for _, request in singles),
        items=len(singles),
        weight=max(block.weight * len(singles) // of, sum(len(request) for _, request in singles)),
        oldest_ns=min(times, default=block.oldest_ns),
        newest_ns=max(times, default=block.newest_ns),
    )


# Field numbers of the times that an endpoint may judge an item by: span start and end, record time and observed time, point time.
_TIMES = {"traces": (7, 8), "logs": (1, 11), "metrics": (3,)}


def item_times(item: bytes, signal: str) -> list[int]:
    """The times of an encoded span, log record or data point, in nanoseconds since the epoch."""
    wanted = _TIMES[signal]
    return [value for number, value in fields(item) if number in wanted and isinstance(value, int)]


def _apart(message: bytes, number: int) -> tuple[bytes, list[bytes]]:
    """A message without its fields of that number, and those fields' payloads."""
    rest, taken = [], []
    for n, value in fields(message):
        if n == number and isinstance(value, bytes):
            taken.append(value)
        else:
            rest.append(field(n, value))
    return b"".join(rest), taken


_METRIC_KINDS = (5, 7, 9, 10, 11)


def _points(metric: bytes) -> Iterator[tuple[bytes, bytes]]:
    """(data point, metric with only this point)."""
    head, data_number, data = [], 0, b""
    for number, value in fields(metric):
        if number in _METRIC_KINDS and isinstance(value, bytes):
            data_number, data = number, value
        else:
            head.append(field(number, value))
    rest, points = _apart(data, 1)
    for point in points:
        yield point, b"".join(head) + delimited(varint(data_number << 3 | 2), rest + delimited(b"\x0a", point))
