"""A span's exceptions as X-Ray's cause: type, message, and Python's traceback taken apart into frames."""

import hashlib
import re
from typing import Any

from crosswatch_exporters.encoding.decode import SpanData

_FRAME = re.compile(r'^\s*File "(?P<path>[^"]+)", line (?P<line>\d+), in (?P<label>.+)$')
_MAX_FRAMES = 64


def cause_of(span: SpanData) -> dict[str, Any]:
    """The cause block; empty when the span neither failed nor saw an exception."""
    exceptions = [_exception(span, i, event.attributes) for i, event in enumerate(span.events) if event.name == "exception"]
    if not exceptions and span.status == 2 and span.status_message:
        exceptions = [{"id": _identifier(span, 0), "message": span.status_message}]
    return {"exceptions": exceptions} if exceptions else {}


def _exception(span: SpanData, index: int, attributes: dict[str, Any]) -> dict[str, Any]:
    exception: dict[str, Any] = {"id": _identifier(span, index)}
    if kind := attributes.get("exception.type"):
        exception["type"] = kind
    if message := attributes.get("exception.message"):
        exception["message"] = message
    if frames := stack_of(str(attributes.get("exception.stacktrace", ""))):
        exception["stack"] = frames
    return exception


def stack_of(trace: str) -> list[dict[str, Any]]:
    """Frames of a Python traceback, innermost first as X-Ray shows them."""
    matches = [match for line in trace.splitlines() if (match := _FRAME.match(line))]
    return [{"path": m["path"], "line": int(m["line"]), "label": m["label"].strip()} for m in matches[::-1][:_MAX_FRAMES]]


def _identifier(span: SpanData, index: int) -> str:
    """16 hexadecimal digits, the same whenever the span is sent again."""
    return hashlib.sha256(f"{span.span_id}/{index}".encode()).hexdigest()[:16]
