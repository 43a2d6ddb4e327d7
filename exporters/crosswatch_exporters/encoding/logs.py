"""One SDK log record to the payload of an OTLP LogRecord message."""

from struct import Struct
from typing import Any

from crosswatch_exporters.encoding.wire import AttributeEncoder, Redactor, any_value, delimited, items_of, text, varint

_MASK_32 = 0xFFFFFFFF
_TIMES = Struct("<cQcQ")


class LogEncoder:
    """Encodes log records. `redact` is asked for the body, if it is text, and for every attribute."""

    def __init__(self, redact: Redactor | None = None) -> None:
        self._redact = redact
        self._attributes = AttributeEncoder(0x32, redact)

    def __call__(self, readable: Any) -> bytes:
        """The LogRecord message, without tag and length, of an SDK ReadableLogRecord or ReadWriteLogRecord."""
        record = readable.log_record
        body = record.body
        if self._redact is not None and body is not None:
            body = self._redact("body", body)
        number = record.severity_number
        out = [
            _TIMES.pack(b"\x09", record.timestamp or 0, b"\x59", record.observed_timestamp or 0),
            # A missing body is written as an empty AnyValue, as the stock encoder does.
            delimited(b"\x2a", any_value(body)),
            text(b"\x1a", record.severity_text),
        ]
        if record.attributes:
            out.append(self._attributes(items_of(record.attributes)))
        if number is not None and number.value:
            out.append(b"\x10" + varint(number.value))
        if record.trace_id:
            out.append(b"\x4a\x10" + record.trace_id.to_bytes(16, "big"))
        if record.span_id:
            out.append(b"\x52\x08" + record.span_id.to_bytes(8, "big"))
        if record.trace_flags:
            out.append(b"\x45" + (int(record.trace_flags) & _MASK_32).to_bytes(4, "little"))
        if readable.dropped_attributes:
            out.append(b"\x38" + varint(readable.dropped_attributes))
        if record.event_name:
            out.append(text(b"\x62", record.event_name))
        return b"".join(out)
