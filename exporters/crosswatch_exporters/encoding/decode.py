"""Encoded OTLP spans as plain values again, for translation."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from struct import pack, unpack
from typing import Any

from crosswatch_exporters.encoding.read import fields

Attributes = dict[str, Any]


@dataclass(frozen=True, slots=True)
class SpanEvent:
    """An event of a span; time in nanoseconds since the epoch."""

    name: str
    time_ns: int
    attributes: Attributes


@dataclass(frozen=True, slots=True)
class SpanData:
    """A span; ids are lower-case hexadecimal, `kind` is OTLP's (1 internal, 2 server, 3 client, 4 producer, 5 consumer), `status` 0, 1
    or 2 (error)."""

    trace_id: str
    span_id: str
    parent_id: str
    parent_remote: bool
    name: str
    kind: int
    start_ns: int
    end_ns: int
    status: int
    status_message: str
    attributes: Attributes
    events: tuple[SpanEvent, ...]
    resource: Attributes = field(default_factory=dict)
    scope: str = ""


def spans(request: bytes) -> Iterator[SpanData]:
    """Every span of an ExportTraceServiceRequest, with its resource."""
    for _, group in fields(request):
        resource: Attributes = {}
        scopes = []
        for number, value in fields(_bytes(group)):
            if number == 1:
                resource = attributes(v for n, v in fields(_bytes(value)) if n == 1)
            elif number == 2:
                scopes.append(_bytes(value))
        for scope in scopes:
            yield from _scope_spans(scope, resource)


def _scope_spans(message: bytes, resource: Attributes) -> Iterator[SpanData]:
    name = ""
    items = []
    for number, value in fields(message):
        if number == 1:
            name = next((_text(v) for n, v in fields(_bytes(value)) if n == 1), "")
        elif number == 2:
            items.append(_bytes(value))
    for item in items:
        yield _span(item, resource, name)


def _span(message: bytes, resource: Attributes, scope: str) -> SpanData:
    one: dict[int, Any] = {}
    pairs, events = [], []
    for number, value in fields(message):
        if number == 9:
            pairs.append(value)
        elif number == 11:
            events.append(_event(_bytes(value)))
        else:
            one[number] = value
    status = dict(fields(_bytes(one.get(15, b""))))
    return SpanData(
        trace_id=_bytes(one.get(1, b"")).hex(),
        span_id=_bytes(one.get(2, b"")).hex(),
        parent_id=_bytes(one.get(4, b"")).hex(),
        parent_remote=bool(int(one.get(16, 0)) & 0x200),
        name=_text(one.get(5, b"")),
        kind=int(one.get(6, 0)),
        start_ns=int(one.get(7, 0)),
        end_ns=int(one.get(8, 0)),
        status=int(status.get(3, 0)),
        status_message=_text(status.get(2, b"")),
        attributes=attributes(pairs),
        events=tuple(events),
        resource=resource,
        scope=scope,
    )


def _event(message: bytes) -> SpanEvent:
    parts = list(fields(message))
    name = next((_text(value) for number, value in parts if number == 2), "")
    time_ns = next((value for number, value in parts if number == 1 and isinstance(value, int)), 0)
    return SpanEvent(name, time_ns, attributes(value for number, value in parts if number == 3))


def attributes(messages: Iterable[int | bytes]) -> Attributes:
    """KeyValue messages as a dictionary."""
    found: Attributes = {}
    for message in messages:
        pair = dict(fields(_bytes(message)))
        found[_text(pair.get(1, b""))] = any_value(_bytes(pair.get(2, b"")))
    return found


def any_value(message: bytes) -> Any:
    """An AnyValue message as a Python value."""
    for number, value in fields(message):
        match number:
            case 1:
                return _text(value)
            case 2:
                return bool(value)
            case 3:
                return unpack("<q", pack("<Q", int(value)))[0]
            case 4:
                return unpack("<d", pack("<Q", int(value)))[0]
            case 5:
                return [any_value(_bytes(item)) for _, item in fields(_bytes(value))]
            case 6:
                return attributes(item for _, item in fields(_bytes(value)))
            case 7:
                return value
    return None


def first(attributes: Mapping[str, Any], *names: str) -> Any:
    """The value of the first attribute that is there and not empty, None when none is."""
    return next((value for name in names if (value := attributes.get(name)) not in (None, "")), None)


def _bytes(value: int | bytes) -> bytes:
    if isinstance(value, bytes):
        return value
    raise ValueError("not an OTLP span: a number stands where a message should")


def _text(value: int | bytes) -> str:
    return _bytes(value).decode(errors="replace")
