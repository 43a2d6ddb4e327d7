"""A strict receiver: an OTLP/HTTP and AWS-shaped server on the loopback that decodes with the stock protobuf classes, checks every
documented limit,
and misbehaves on demand.

    with Receiver() as receiver:
        ... export to receiver.url("traces") ...
        assert receiver.spans and not receiver.violations
"""

from __future__ import annotations

import gzip
import json
import re
import socket
import struct
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest, ExportLogsServiceResponse
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest, ExportMetricsServiceResponse
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest, ExportTraceServiceResponse

HOUR = 3600 * 10**9
DAY = 24 * HOUR
MESSAGES = {
    "traces": (ExportTraceServiceRequest, ExportTraceServiceResponse),
    "logs": (ExportLogsServiceRequest, ExportLogsServiceResponse),
    "metrics": (ExportMetricsServiceRequest, ExportMetricsServiceResponse),
}


@dataclass(frozen=True)
class Request:
    """One request as it arrived, decompressed."""

    signal: str
    path: str
    headers: dict[str, str]
    body: bytes
    at: float


@dataclass(frozen=True)
class Answer:
    """What to answer instead of the truth. `hang` seconds before anything; `cut` closes the connection with a reset and no answer."""

    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""
    hang: float = 0.0
    cut: bool = False
    take: bool = False
    """Whether the items are taken all the same (an answer that is lost on its way back)."""


Fault = Callable[[Request], Answer | None]


class Receiver:
    """The server. `fault` is asked for every request; what it returns is answered, None means: behave."""

    def __init__(self, port: int = 0, check_limits: bool = True, keep: bool = True) -> None:
        self.fault: Fault = lambda request: None
        self.check_limits = check_limits
        self.keep = keep
        self.requests: list[Request] = []
        self.accepted: list[Request] = []
        self.violations: list[str] = []
        self.counts: Counter[str] = Counter()
        self.lock = threading.Lock()
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            disable_nagle_algorithm = True

            def do_POST(self) -> None:
                receiver._handle(self)

            def log_message(self, *args: Any) -> None:
                pass

        class Server(ThreadingHTTPServer):
            daemon_threads = True
            allow_reuse_address = True
            request_queue_size = 128

            def handle_error(self, request: Any, client_address: Any) -> None:
                pass  # a client that went away, which the tests do on purpose

        self._server = Server(("127.0.0.1", port), Handler)
        self.port = self._server.server_address[1]
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True)

    def __enter__(self) -> Receiver:
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    def url(self, signal: str) -> str:
        """The endpoint of a signal."""
        return f"http://127.0.0.1:{self.port}/v1/{signal}"

    def environ(self, *signals: str) -> dict[str, str]:
        """Variables that point the standard exporters here."""
        return {f"OTEL_EXPORTER_OTLP_{s.upper()}_ENDPOINT": self.url(s) for s in signals or ("traces", "logs", "metrics")}

    # --- what was accepted ---

    def decoded(self, signal: str) -> list[Any]:
        """The accepted requests of a signal as stock protobuf messages."""
        message = MESSAGES[signal][0]
        with self.lock:
            return [message.FromString(request.body) for request in self.accepted if request.signal == signal]

    @property
    def spans(self) -> list[Any]:
        """Every accepted span."""
        return [span for r in self.decoded("traces") for rs in r.resource_spans for ss in rs.scope_spans for span in ss.spans]

    @property
    def records(self) -> list[Any]:
        """Every accepted log record."""
        return [record for r in self.decoded("logs") for rl in r.resource_logs for sl in rl.scope_logs for record in sl.log_records]

    @property
    def segments(self) -> list[dict[str, Any]]:
        """Every accepted X-Ray document."""
        with self.lock:
            return [
                json.loads(text)
                for r in self.accepted
                if r.signal == "TraceSegments"
                for text in json.loads(r.body)["TraceSegmentDocuments"]
            ]

    @property
    def points(self) -> list[tuple[Any, Any]]:
        """(metric, data point) of everything accepted."""
        return [
            (metric, point)
            for r in self.decoded("metrics")
            for rm in r.resource_metrics
            for sm in rm.scope_metrics
            for metric in sm.metrics
            for point in getattr(metric, metric.WhichOneof("data")).data_points
        ]

    def wait_for(self, condition: Callable[[], bool], timeout: float = 10.0) -> bool:
        """Poll until the condition holds."""
        by = time.monotonic() + timeout
        while time.monotonic() < by:
            if condition():
                return True
            time.sleep(0.02)
        return condition()

    # --- serving ---

    def _handle(self, handler: BaseHTTPRequestHandler) -> None:
        size = int(handler.headers.get("content-length") or 0)
        body = handler.rfile.read(size)
        if len(body) < size:
            handler.close_connection = True  # the rest never came
            return
        headers = {name.lower(): value for name, value in handler.headers.items()}
        if headers.get("content-encoding") == "gzip":
            body = gzip.decompress(body)
        signal = handler.path.split("?")[0].rsplit("/", 1)[-1]
        if "x-amz-target" in headers:
            signal = headers["x-amz-target"].rsplit(".", 1)[-1]
        request = Request(signal, handler.path, headers, body, time.time())
        if self.keep:
            with self.lock:
                self.requests.append(request)
        answer = self.fault(request)
        if answer is None or answer.take:
            problem, accepted = self._accept(request)
            if answer is None:
                answer = problem or accepted
        if answer.hang:
            time.sleep(answer.hang)
        if answer.cut:
            handler.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            handler.connection.close()
            handler.close_connection = True
            return
        handler.send_response(answer.status)
        for name, value in {"content-type": "application/x-protobuf", **answer.headers}.items():
            handler.send_header(name, value)
        handler.send_header("content-length", str(len(answer.body)))
        handler.end_headers()
        handler.wfile.write(answer.body)

    def _accept(self, request: Request) -> tuple[Answer | None, Answer]:
        """(refusal or None, acceptance)."""
        ok = Answer()
        if request.signal in MESSAGES:
            message = MESSAGES[request.signal][0].FromString(request.body)
            problems = list(OTLP_CHECKS[request.signal](message, request)) if self.check_limits else []
        elif request.signal in JSON_CHECKS:
            document = json.loads(request.body)
            problems = list(JSON_CHECKS[request.signal](document, request)) if self.check_limits else []
            ok = Answer(headers={"content-type": "application/json"}, body=b"{}")
        else:
            problems = [f"unknown target {request.signal!r} {request.path}"]
        with self.lock:
            if problems:
                self.violations.extend(problems)
                return Answer(400, body="; ".join(problems).encode()), ok
            if self.keep:
                self.accepted.append(request)
            elif request.signal in MESSAGES:
                self.counts[request.signal] += _count(message)
        return None, ok


def _count(message: Any) -> int:
    """Spans or records in a request; for metrics, metrics."""
    groups = next(getattr(message, name) for name in ("resource_spans", "resource_logs", "resource_metrics") if hasattr(message, name))
    scopes = [scope for group in groups for scope in (getattr(group, f"scope_{_plural(group)}"))]
    return sum(
        len(getattr(scope, {"spans": "spans", "logs": "log_records", "metrics": "metrics"}[_plural(group)]))
        for group in groups[:1]
        for scope in scopes
    )


def _plural(group: Any) -> str:
    return str(type(group).__name__).removeprefix("Resource").lower()


def _times_ok(times: list[int], ahead: int, now: float) -> list[str]:
    now_ns = int(now * 1e9)
    problems = []
    if times and max(times) - min(times) > DAY:
        problems.append("items are more than 24 h apart")
    if any(t < now_ns - 14 * DAY for t in times):
        problems.append("an item is older than 14 days")
    if any(t > now_ns + ahead for t in times):
        problems.append("an item lies too far in the future")
    return problems


def check_traces(message: Any, request: Request) -> list[str]:
    """CloudWatch-OTLPEndpoint: 5 MB, 10,000 spans, 200 KB a span, 16 KB a resource or scope, -14 d to +2 h, 24 h."""
    problems, times, count = [], [], 0
    if len(request.body) > 5_000_000:
        problems.append("traces: request over 5 MB")
    for group in message.resource_spans:
        if group.resource.ByteSize() > 16_384:
            problems.append("traces: resource over 16 KB")
        for scope in group.scope_spans:
            if scope.scope.ByteSize() > 16_384:
                problems.append("traces: scope over 16 KB")
            for span in scope.spans:
                count += 1
                times.append(span.end_time_unix_nano)
                if span.ByteSize() > 200_000:
                    problems.append("traces: span over 200 KB")
                if len(span.trace_id) != 16 or len(span.span_id) != 8:
                    problems.append("traces: malformed ids")
    if count > 10_000:
        problems.append("traces: over 10,000 spans")
    return problems + _times_ok(times, 2 * HOUR, request.at)


def check_logs(message: Any, request: Request) -> list[str]:
    """CloudWatch-OTLPEndpoint: 1,048,576 bytes of events with 26 each, 10,000 records, 1 MB an event, 16 KB a resource, -14 d to +2 h,
    24 h.

    An event is taken to be record, resource and scope in JSON, the larger of the readings of the documentation.
    """
    from google.protobuf.json_format import MessageToJson

    problems, times, count, size = [], [], 0, 0
    for group in message.resource_logs:
        around = len(MessageToJson(group.resource, indent=None))
        if group.resource.ByteSize() > 16_384:
            problems.append("logs: resource over 16 KB")
        for scope in group.scope_logs:
            around_scope = around + len(MessageToJson(scope.scope, indent=None))
            for record in scope.log_records:
                count += 1
                times.append(record.time_unix_nano or record.observed_time_unix_nano)
                event = around_scope + (len(MessageToJson(record, indent=None)) if count <= 50 else record.ByteSize() + 200)
                size += event + 26
                if event > 1_048_576:
                    problems.append("logs: event over 1 MB")
    if size > 1_048_576:
        problems.append(f"logs: request of {size} bytes over 1,048,576")
    if count > 10_000:
        problems.append("logs: over 10,000 records")
    return problems + _times_ok(times, 2 * HOUR, request.at)


def check_metrics(message: Any, request: Request) -> list[str]:
    """CloudWatch-OTLPEndpoint: 1 MB, 1,000 points, 150 labels and 40 KB a point, -14 d to +10 min, 24 h."""
    problems, times, count = [], [], 0
    if len(request.body) > 1_000_000:
        problems.append("metrics: request over 1 MB")
    for group in message.resource_metrics:
        for scope in group.scope_metrics:
            shared = len(group.resource.attributes) + len(scope.scope.attributes)
            for metric in scope.metrics:
                for point in getattr(metric, metric.WhichOneof("data")).data_points:
                    count += 1
                    times.append(point.time_unix_nano)
                    if shared + len(point.attributes) > 150:
                        problems.append("metrics: over 150 labels")
                    if sum(a.ByteSize() for a in point.attributes) > 40_000:
                        problems.append("metrics: labels over 40 KB")
    if count > 1_000:
        problems.append(f"metrics: {count} points, over 1,000")
    return problems + _times_ok(times, 600 * 10**9, request.at)


def check_trace_segments(document: Any, request: Request) -> list[str]:
    """PutTraceSegments: documents of 64 KB that are JSON with id, trace_id, name, start_time; 50 of them."""
    problems = []
    if len(document["TraceSegmentDocuments"]) > 50:
        problems.append("segments: over 50 documents")
    for text in document["TraceSegmentDocuments"]:
        segment = json.loads(text)
        if len(text.encode()) > 64 * 1024:
            problems.append("segments: document over 64 KB")
        if not re.fullmatch(r"1-[0-9a-f]{8}-[0-9a-f]{24}", segment["trace_id"]) or not re.fullmatch(r"[0-9a-f]{16}", segment["id"]):
            problems.append("segments: malformed ids")
        if not 0 < len(segment["name"]) <= 200 or segment["end_time"] < segment["start_time"]:
            problems.append("segments: bad name or times")
        if segment.get("type") == "subsegment" and "parent_id" not in segment:
            problems.append("segments: subsegment without parent")
        if len(segment.get("annotations", {})) > 50:
            problems.append("segments: over 50 annotations")
    return problems


def check_log_events(document: Any, request: Request) -> list[str]:
    """PutLogEvents: 1,048,576 bytes with 26 an event, 10,000 events, 1 MB an event, in order, 24 h; and the metrics in them as EMF."""
    events = document["logEvents"]
    times = [event["timestamp"] for event in events]
    sizes = [len(event["message"].encode()) + 26 for event in events]
    problems = []
    if sum(sizes) > 1_048_576 or max(sizes) > 1_048_576:
        problems.append("PutLogEvents: too large")
    if len(events) > 10_000:
        problems.append("PutLogEvents: over 10,000 events")
    if times != sorted(times):
        problems.append("PutLogEvents: not in chronological order")
    for event in events:
        problems += check_emf(json.loads(event["message"]))
    return problems + _times_ok([time * 10**6 for time in times], 2 * HOUR, request.at)


def check_emf(event: Any) -> list[str]:
    """Embedded metric format: 100 definitions, 30 dimensions, 1,024 characters a value, 100 elements an array, members of the right
    type."""
    problems = []
    for directive in event["_aws"]["CloudWatchMetrics"]:
        if len(directive["Metrics"]) > 100:
            problems.append("EMF: over 100 definitions")
        names = [definition["Name"] for definition in directive["Metrics"]]
        if len(names) != len(set(names)):
            problems.append("EMF: a metric twice")
        for dimensions in directive["Dimensions"]:
            if len(dimensions) > 30:
                problems.append("EMF: over 30 dimensions")
            texts = [event[dimension] for dimension in dimensions]
            if not all(isinstance(text, str) and 0 < len(text) <= 1024 for text in texts):
                problems.append("EMF: bad dimension value")
        for name in names:
            value = event[name]
            if isinstance(value, list) and len(value) > 100:
                problems.append("EMF: over 100 values")
            if isinstance(value, dict) and (
                len(value["Values"]) > 100 or len(value["Values"]) != len(value["Counts"]) or sum(value["Counts"]) != value["Count"]
            ):
                problems.append("EMF: bad Values and Counts")
            if not isinstance(value, (int, float, list, dict)):
                problems.append("EMF: value is not a number")
    return problems


def check_metric_data(document: Any, request: Request) -> list[str]:
    """PutMetricData: 1 MB, 1,000 datums, 30 dimensions, 150 values with counts, no NaN, 2^360, -2 weeks to +2 h."""
    problems = []
    if len(request.body) > 1_000_000:
        problems.append("PutMetricData: over 1 MB")
    if len(document["MetricData"]) > 1_000:
        problems.append("PutMetricData: over 1,000 datums")
    for datum in document["MetricData"]:
        values = datum.get("Values", [datum.get("Value")])
        if len(datum["Dimensions"]) > 30 or len(values) > 150:
            problems.append("PutMetricData: too many dimensions or values")
        if len(values) != len(datum.get("Counts", values)) or any(not abs(value) <= 2.0**360 for value in values):
            problems.append("PutMetricData: bad values")
        if not request.at - 14 * 86400 <= datum["Timestamp"] <= request.at + 7200:
            problems.append("PutMetricData: time out of range")
    return problems


OTLP_CHECKS: dict[str, Callable[[Any, Request], list[str]]] = {"traces": check_traces, "logs": check_logs, "metrics": check_metrics}
JSON_CHECKS: dict[str, Callable[[Any, Request], list[str]]] = {
    "TraceSegments": check_trace_segments,
    "PutLogEvents": check_log_events,
    "PutMetricData": check_metric_data,
    "CreateLogGroup": lambda document, request: [],
    "CreateLogStream": lambda document, request: [],
}
