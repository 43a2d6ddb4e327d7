"""Segment documents: what PutTraceSegments accepts, and how OTLP spans become segments.

https://docs.aws.amazon.com/xray/latest/devguide/xray-api-segmentdocuments.html
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import Any

MAX_SEGMENT_BYTES = 64 * 1024
MAX_AGE_S = 30 * 86400.0
_TRACE_ID = re.compile(r"1-([0-9a-f]{8})-([0-9a-f]{24})|([0-9a-f]{32})")
_ID = re.compile(r"[0-9a-f]{16}")
_NAME_BAD = re.compile(r"[^\w\s.:/%&#=+\\\-@]", re.UNICODE)
_ANNOTATION_BAD = re.compile(r"[^A-Za-z0-9_.]")
MAX_NAME = 200


@dataclass(frozen=True, slots=True)
class Segment:
    """A document with the service that it tells of. ``document`` is in lab time."""

    trace_id: str
    id: str
    parent_id: str | None
    service: str
    document: dict[str, Any]
    size: int

    @property
    def is_subsegment(self) -> bool:
        """Whether it is sent apart from its segment."""
        return self.document.get("type") == "subsegment"

    @property
    def start(self) -> float:
        """Epoch seconds, lab."""
        return float(self.document["start_time"])

    @property
    def end(self) -> float:
        """Epoch seconds, lab; the start while it is in progress."""
        return float(self.document.get("end_time", self.document["start_time"]))


class SegmentError(ValueError):
    """A document that X-Ray does not process; ``code`` as in UnprocessedTraceSegments."""

    def __init__(self, code: str, message: str, identity: str | None = None) -> None:
        super().__init__(message)
        self.code = code
        self.identity = identity


def trace_id(text: str) -> str | None:
    """A trace id in X-Ray's form ``1-xxxxxxxx-…``, from that form or W3C's 32 digits; None where it is neither."""
    match = _TRACE_ID.fullmatch(text)
    if match is None:
        return None
    return text if match[1] else f"1-{text[:8]}-{text[8:]}"


def read(text: str) -> dict[str, Any]:
    """A document that was sent, checked. Raises SegmentError."""
    if len(text.encode()) > MAX_SEGMENT_BYTES:
        raise SegmentError("SegmentTooLarge", f"Segment size {len(text.encode())} exceeds the limit of {MAX_SEGMENT_BYTES} bytes")
    try:
        document = json.loads(text)
    except ValueError as error:
        raise SegmentError("ParseError", f"Invalid segment. ErrorCode: ParseError. {error}") from error
    if not isinstance(document, dict):
        raise SegmentError("ParseError", "Invalid segment. ErrorCode: ParseError. A segment is a JSON object.")
    identity = document.get("id") if isinstance(document.get("id"), str) else None
    missing = [key for key in ("name", "id", "trace_id", "start_time") if key not in document]
    if missing:
        raise SegmentError("MissingField", f"Invalid segment. Missing: {', '.join(missing)}", identity)
    if identity is None or not _ID.fullmatch(identity):
        raise SegmentError("InvalidId", "Invalid segment. ErrorCode: InvalidId", identity)
    if not isinstance(document["trace_id"], str) or (normal := trace_id(document["trace_id"])) is None:
        raise SegmentError("InvalidTraceId", "Invalid segment. ErrorCode: InvalidTraceId", identity)
    name = document["name"]
    if not isinstance(name, str) or not 0 < len(name) <= MAX_NAME:
        raise SegmentError("InvalidName", f"Invalid segment. The name must have 1 to {MAX_NAME} characters.", identity)
    times = [document[key] for key in ("start_time", "end_time") if key in document]
    if any(isinstance(time, bool) or not isinstance(time, int | float) for time in times):
        raise SegmentError("InvalidTime", "Invalid segment. start_time and end_time are numbers of seconds.", identity)
    if "end_time" not in document and not document.get("in_progress"):
        raise SegmentError("MissingField", "Invalid segment. It needs an end_time or in_progress: true.", identity)
    if document.get("type") == "subsegment" and not document.get("parent_id"):
        raise SegmentError("MissingField", "Invalid segment. A subsegment needs a parent_id.", identity)
    return {**document, "trace_id": normal}


def shifted(document: dict[str, Any], offset: float) -> dict[str, Any]:
    """The document with its times, and its subsegments', moved by ``offset`` seconds."""
    moved = {key: value + offset if key in {"start_time", "end_time"} else value for key, value in document.items()}
    if isinstance(document.get("subsegments"), list):
        moved["subsegments"] = [shifted(each, offset) if isinstance(each, dict) else each for each in document["subsegments"]]
    return moved


# -- OTLP spans ----------------------------------------------------------------------------------------------------------------------------

SERVER, CLIENT, PRODUCER, CONSUMER = 2, 3, 4, 5
STATUS_ERROR = 2


def from_span(span: Any, attributes: dict[str, Any], resource: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    """The service's name and the segment document of a span. Both the old and the stable semantic conventions are read."""
    service = str(resource.get("service.name", "UnknownService"))

    def pick(*names: str) -> Any:
        return next((attributes[name] for name in names if attributes.get(name) not in (None, "")), None)

    is_segment = span.kind in {SERVER, CONSUMER} or not span.parent_span_id
    document: dict[str, Any] = {
        "name": _name(service if is_segment else _callee(span, pick)),
        "id": span.span_id.hex(),
        "trace_id": trace_id(span.trace_id.hex()),
        "start_time": span.start_time_unix_nano / 1e9,
        "end_time": span.end_time_unix_nano / 1e9,
    }
    if span.parent_span_id:
        document["parent_id"] = span.parent_span_id.hex()
    if not is_segment:
        document["type"] = "subsegment"
        if span.kind in {CLIENT, PRODUCER}:
            document["namespace"] = "aws" if pick("rpc.system", "rpc.system.name") == "aws-api" else "remote"
    document |= _http(pick) | _sql(pick) | _verdict(span, pick)
    if is_segment:
        document |= _origin(resource)
        if resource.get("service.version"):
            document["service"] = {"version": str(resource["service.version"])}
    user = pick("enduser.id", "user.id")
    if user is not None:
        document["user"] = str(user)
    indexed = set(attributes.get("aws.xray.annotations") or ())
    document["annotations"] = {_ANNOTATION_BAD.sub("_", key): value for key, value in attributes.items() if key in indexed}
    default = {key: value for key, value in attributes.items() if key not in indexed} | {"otel.span.name": span.name}
    if is_segment:
        default |= {f"otel.resource.{key}": value for key, value in resource.items()}
    document["metadata"] = {"default": default}
    if not document["annotations"]:
        del document["annotations"]
    return service, document


def _name(text: str) -> str:
    return _NAME_BAD.sub("", text)[:MAX_NAME] or "unknown"


def _callee(span: Any, pick: Any) -> str:
    """What a client span calls: the peer, the database, the AWS service or the host; the span's own name for internal work."""
    if span.kind not in {CLIENT, PRODUCER}:
        return str(span.name)
    if pick("rpc.system", "rpc.system.name") == "aws-api":
        return str(pick("rpc.service", "aws.service") or span.name)
    database = pick("db.namespace", "db.name")
    host = pick("server.address", "net.peer.name", "http.host")
    if pick("db.system.name", "db.system") is not None:
        return f"{database}@{host}" if database and host else str(database or pick("db.system.name", "db.system"))
    return str(pick("aws.remote.service", "peer.service", "messaging.destination.name") or host or span.name)


def _http(pick: Any) -> dict[str, Any]:
    method, status = pick("http.request.method", "http.method"), pick("http.response.status_code", "http.status_code")
    url = pick("url.full", "http.url")
    if url is None and (path := pick("url.path", "http.target")) is not None:
        url = f"{pick('url.scheme', 'http.scheme') or 'http'}://{pick('server.address', 'http.host', 'net.host.name') or 'localhost'}{path}"
    request = {
        "method": method,
        "url": url,
        "user_agent": pick("user_agent.original", "http.user_agent"),
        "client_ip": pick("client.address", "http.client_ip", "net.peer.ip"),
    }
    request = {key: str(value) for key, value in request.items() if value is not None}
    if method is None and status is None:
        return {}
    http: dict[str, Any] = {"request": request} if request else {}
    if status is not None:
        http["response"] = {"status": int(status)}
    return {"http": http} if http else {}


def _sql(pick: Any) -> dict[str, Any]:
    system = pick("db.system.name", "db.system")
    if system is None:
        return {}
    fields = {
        "database_type": system,
        "url": pick("db.connection_string", "server.address", "net.peer.name"),
        "user": pick("db.user"),
        "sanitized_query": pick("db.query.text", "db.statement"),
    }
    return {"sql": {key: str(value) for key, value in fields.items() if value is not None}}


def _verdict(span: Any, pick: Any) -> dict[str, Any]:
    """error, throttle and fault from the status code, else from the span's status; the cause from exception events."""
    status = pick("http.response.status_code", "http.status_code")
    code = int(status) if status is not None else 0
    out: dict[str, Any] = {}
    if 400 <= code < 500:
        out["error"] = True
        if code == 429:
            out["throttle"] = True
    elif code >= 500 or span.status.code == STATUS_ERROR:
        out["fault"] = True
    exceptions = []
    for event in span.events:
        if event.name == "exception":
            values = {pair.key: pair.value.string_value for pair in event.attributes}
            exceptions.append(
                {
                    "id": span.span_id.hex(),
                    "type": values.get("exception.type", ""),
                    "message": values.get("exception.message", ""),
                    "remote": False,
                }
            )
    if exceptions:
        out["cause"] = {"exceptions": exceptions}
    return out


def _origin(resource: dict[str, Any]) -> dict[str, Any]:
    platform = str(resource.get("cloud.platform", ""))
    if platform == "aws_ecs":
        launch = str(resource.get("aws.ecs.launchtype", "")).lower()
        return {"origin": "AWS::ECS::Fargate" if launch == "fargate" else "AWS::ECS::EC2" if launch == "ec2" else "AWS::ECS::Container"}
    named = {"aws_ec2": "AWS::EC2::Instance", "aws_lambda": "AWS::Lambda::Function", "aws_eks": "AWS::EKS::Container"}
    return {"origin": named[platform]} if platform in named else {}
