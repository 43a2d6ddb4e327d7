"""One SDK span to the payload of an OTLP Span message."""

from struct import Struct
from typing import Any

from crosswatch_exporters.encoding.wire import FIXED64, AttributeEncoder, Redactor, delimited, items_of, text, utf8, varint

# Trace id, span id, kind, start, end and flags stand at the head of every span, at fixed width, in one pack.
# Tags: 1 trace_id, 2 span_id, 6 kind, 7 start, 8 end (fixed64), 16 flags (fixed32).
_HEAD = Struct("<2s16s2s8scBcQcQ2sI")
_PARENT_TAG = b"\x22\x08"
_HAS_REMOTE, _IS_REMOTE = 0x100, 0x200  # SpanFlags: the remote bit is known; the parent is remote
_STATUS_UNSET = b"\x7a\x00"


class SpanEncoder:
    """Encodes finished spans. `redact` is asked for every attribute value, exception text and status description."""

    def __init__(self, redact: Redactor | None = None) -> None:
        self._redact = redact
        self._attributes = AttributeEncoder(0x4A, redact)
        self._event_attributes = AttributeEncoder(0x1A, redact)
        self._link_attributes = AttributeEncoder(0x22, redact)
        self._names: dict[str, bytes] = {}
        self._plain_status: Any = self

    def __call__(self, span: Any) -> bytes:
        """The Span message without tag and length. Never-ended spans have end 0, as in the stock encoder."""
        context = span.context
        parent = span.parent
        name = span.name
        named = self._names.get(name)
        if named is None:
            named = self._remember_name(name)
        attributes = span._attributes
        out = [
            _HEAD.pack(
                b"\x0a\x10",
                context.trace_id.to_bytes(16, "big"),
                b"\x12\x08",
                context.span_id.to_bytes(8, "big"),
                b"\x30",
                span.kind._value_ + 1,  # the SDK's kinds begin at 0 with INTERNAL, OTLP's at 1
                b"\x39",
                span.start_time or 0,
                b"\x41",
                span.end_time or 0,
                b"\x85\x01",
                _HAS_REMOTE if parent is None or not parent.is_remote else _HAS_REMOTE | _IS_REMOTE,
            ),
            named,
            self._attributes(items_of(attributes)),
        ]
        if parent is not None:
            out.append(_PARENT_TAG + parent.span_id.to_bytes(8, "big"))
        if context.trace_state:
            out.append(text(b"\x1a", ",".join(f"{key}={value}" for key, value in context.trace_state.items())))
        status = span.status
        if status is self._plain_status:
            out.append(_STATUS_UNSET)
        else:
            out.append(self._status(status))
        events, links = span._events, span._links
        if events:
            out.extend(self._event(event) for event in events)
        if links:
            out.extend(self._link(link) for link in links)
        if getattr(attributes, "dropped", 0) or getattr(events, "dropped", 0) or getattr(links, "dropped", 0):
            dropped = span.dropped_attributes, span.dropped_events, span.dropped_links
            out.extend(tag + varint(n) for tag, n in zip((b"\x50", b"\x60", b"\x70"), dropped, strict=True) if n)
        return b"".join(out)

    def _remember_name(self, name: str) -> bytes:
        if len(self._names) > 1024:
            self._names.clear()
        self._names[name] = named = text(b"\x2a", name)
        return named

    def _status(self, status: Any) -> bytes:
        if status is None or status.is_unset:
            self._plain_status = status  # the SDK shares one such object among all spans
            return _STATUS_UNSET
        message = status.description or ""
        if message and self._redact is not None:
            message = str(self._redact("status.description", message))
        return delimited(b"\x7a", text(b"\x12", message) + (b"\x18" + varint(status.status_code.value)))

    def _event(self, event: Any) -> bytes:
        fields = [b"\x09" + FIXED64.pack(event.timestamp or 0), delimited(b"\x12", utf8(event.name))]
        fields.append(self._event_attributes(items_of(event._attributes)))
        if event.dropped_attributes:
            fields.append(b"\x20" + varint(event.dropped_attributes))
        return delimited(b"\x5a", b"".join(fields))

    def _link(self, link: Any) -> bytes:
        context = link.context
        flags = _HAS_REMOTE | (_IS_REMOTE if context.is_remote else 0)
        fields = [
            b"\x0a\x10" + context.trace_id.to_bytes(16, "big"),
            b"\x12\x08" + context.span_id.to_bytes(8, "big"),
            self._link_attributes(items_of(link.attributes)),
            b"\x35" + flags.to_bytes(4, "little"),
        ]
        if link.dropped_attributes:
            fields.append(b"\x28" + varint(link.dropped_attributes))
        return delimited(b"\x6a", b"".join(fields))
