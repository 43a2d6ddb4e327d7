"""OTLP over HTTP as CloudWatch's endpoints speak it: protobuf or JSON, gzip or plain, and refusals as a `google.rpc.Status`.

What the three endpoints share is here; what they do with spans, records and datapoints is the services' (`services/*/otlp.py`).
https://docs.aws.amazon.com/AmazonCloudWatch/latest/monitoring/CloudWatch-OTLPEndpoint.html
"""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Iterable
from typing import Any, TypeVar

from google.protobuf import json_format
from google.protobuf.message import DecodeError, Message
from google.rpc.status_pb2 import Status

from lab.aws.protocol import Request, Response
from lab.aws.service import AwsError, Context

PROTOBUF = "application/x-protobuf"
JSON = "application/json"
MAX_RESOURCE_BYTES = 16 * 1024
OLDEST_S = 14 * 86400.0
MAX_SPAN_S = 24 * 3600.0
_IDS = {"traceId", "spanId", "parentSpanId", "trace_id", "span_id", "parent_span_id"}

_M = TypeVar("_M", bound=Any)


class RefusedError(Exception):
    """The whole request is refused with this HTTP status."""

    def __init__(self, message: str, status: int = 400) -> None:
        super().__init__(message)
        self.status = status


def endpoint(kind: type[_M], max_bytes: int, handle: Callable[[Context, Request, _M], Message]) -> Callable[[Context, Request], Response]:
    """A raw path that decodes a request of type ``kind``, lets ``handle`` answer it, and encodes the answer or refusal alike."""

    def answer(ctx: Context, request: Request) -> Response:
        encoding = request.headers.get("content-type", "").partition(";")[0].strip().lower()
        try:
            if encoding not in {PROTOBUF, JSON}:
                raise RefusedError(f"Unsupported content type {encoding!r}: use {PROTOBUF} or {JSON}", 415)
            try:
                content = request.content
            except AwsError as error:
                raise RefusedError(error.message) from error
            if len(content) > max_bytes:
                raise RefusedError(f"Request size {len(content)} exceeds the limit of {max_bytes} bytes")
            response = handle(ctx, request, _decode(content, encoding, kind))
            return Response(200, {"content-type": encoding}, _encode(response, encoding))
        except RefusedError as error:
            body = Status(code=3, message=str(error))
            known = encoding if encoding in {PROTOBUF, JSON} else JSON
            return Response(error.status, {"content-type": known}, _encode(body, known))

    return answer


def _decode(content: bytes, encoding: str, kind: type[_M]) -> _M:
    message: _M = kind()
    try:
        if encoding == PROTOBUF:
            message.ParseFromString(content)
        else:
            json_format.ParseDict(_base64_ids(json.loads(content or b"{}")), message, ignore_unknown_fields=True)
    except (DecodeError, json_format.ParseError, ValueError) as error:
        raise RefusedError(f"The request cannot be parsed: {error}") from error
    return message


def _base64_ids(value: Any) -> Any:
    """OTLP's JSON writes ids in hexadecimal where protobuf's JSON wants base64."""
    if isinstance(value, dict):
        return {
            key: base64.b64encode(bytes.fromhex(item)).decode() if key in _IDS and isinstance(item, str) else _base64_ids(item)
            for key, item in value.items()
        }
    return [_base64_ids(item) for item in value] if isinstance(value, list) else value


def _encode(message: Message, encoding: str) -> bytes:
    return bytes(message.SerializeToString()) if encoding == PROTOBUF else str(json_format.MessageToJson(message, indent=None)).encode()


def plain(value: Any) -> Any:
    """An OTLP AnyValue as a Python value."""
    kind = value.WhichOneof("value")
    if kind is None:
        return None
    if kind == "array_value":
        return [plain(item) for item in value.array_value.values]
    if kind == "kvlist_value":
        return attributes(value.kvlist_value.values)
    if kind == "bytes_value":
        return base64.b64encode(value.bytes_value).decode()
    return getattr(value, kind)


def attributes(pairs: Iterable[Any]) -> dict[str, Any]:
    """Attributes as a dict."""
    return {pair.key: plain(pair.value) for pair in pairs}


def check_envelopes(resources: Iterable[tuple[Any, Iterable[Any]]]) -> None:
    """Refuse the call where a resource, or a scope, is larger than 16 KB."""
    for resource, scopes in resources:
        for what, part in (("Resource", resource), *(("Scope", scope) for scope in scopes)):
            if part.ByteSize() > MAX_RESOURCE_BYTES:
                raise RefusedError(f"{what} size {part.ByteSize()} exceeds the limit of {MAX_RESOURCE_BYTES} bytes")


def check_times(times: list[float], now: float, newest_s: float, max_span_s: float | None = MAX_SPAN_S) -> None:
    """Refuse the call where an item is too old or too new, or where items lie too far apart. All in lab seconds."""
    if not times:
        return
    first, last = min(times), max(times)
    if first < now - OLDEST_S:
        raise RefusedError("Timestamp is older than 14 days")
    if last > now + newest_s:
        raise RefusedError(f"Timestamp is more than {newest_s / 60:g} minutes in the future")
    if max_span_s is not None and last - first > max_span_s:
        raise RefusedError("The timestamps of a request must not span more than 24 hours")
