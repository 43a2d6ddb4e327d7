"""PutTraceSegments: documents that keep what the span knew, sent where Transaction Search is off."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from crosswatch_exporters.blocks import TRACE_LIMITS, Block
from crosswatch_exporters.encoding import decode
from crosswatch_exporters.packing import SpanPacker
from crosswatch_exporters.segments.causes import stack_of
from crosswatch_exporters.segments.translate import document, translate
from instrumented import Service
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import NonRecordingSpan, SpanContext, SpanKind, Status, StatusCode, TraceFlags, set_span_in_context
from receiver import Answer, Receiver, Request

ECS = {
    "service.name": "orders",
    "service.version": "1.2",
    "cloud.platform": "aws_ecs",
    "aws.ecs.launchtype": "fargate",
    "cloud.account.id": "123456789012",
    "aws.ecs.task.arn": "arn:aws:ecs:us-east-1:123456789012:task/c/1",
    "container.name": "app",
    "cloud.region": "us-east-1",
    "aws.log.group.arns": ("arn:aws:logs:us-east-1:123456789012:log-group:/ecs/orders:*",),
}


def pack(exporter: InMemorySpanExporter) -> list[Block]:
    """The finished spans as blocks."""
    packer = SpanPacker(TRACE_LIMITS)
    return packer([packer.prepare(span) for span in exporter.get_finished_spans()], lambda reason, count: pytest.fail(f"lost: {reason}"))


def one(
    name: str = "op", kind: SpanKind = SpanKind.SERVER, attributes: dict[str, Any] | None = None, error: Any = None, parent: bool = False
) -> dict[str, Any]:
    """The segment of one span, after a round through the wire."""
    exporter = InMemorySpanExporter()
    provider = TracerProvider(resource=Resource(ECS), shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    context = set_span_in_context(NonRecordingSpan(SpanContext(1 << 100, 7, False, TraceFlags(1)))) if parent else None
    span = provider.get_tracer("t").start_span(name, context, kind, attributes)
    if isinstance(error, BaseException):
        span.record_exception(error)
        span.set_status(Status(StatusCode.ERROR, "it failed"))
    elif error:
        span.set_status(Status(StatusCode.ERROR, error))
    span.end()
    [block] = pack(exporter)
    [data] = decode.spans(block.payload)
    return translate(data)


NEW = {"http.request.method": "GET", "url.full": "http://store/a?b=c", "user_agent.original": "ua", "client.address": "10.0.0.1"}
OLD = {"http.method": "GET", "http.url": "http://store/a?b=c", "http.user_agent": "ua", "http.client_ip": "10.0.0.1"}


@pytest.mark.parametrize(("names", "status"), [(NEW, "http.response.status_code"), (OLD, "http.status_code")], ids=["stable", "old"])
@pytest.mark.parametrize(
    ("code", "flags"), [(200, {}), (404, {"error": True}), (429, {"error": True, "throttle": True}), (503, {"fault": True})]
)
def test_http(names: dict[str, Any], status: str, code: int, flags: dict[str, bool]) -> None:
    """Request and response under stable and old names; 4xx is an error, 429 a throttle too, 5xx a fault."""
    segment = one(attributes={**names, status: code})
    assert segment["http"] == {
        "request": {"method": "GET", "url": "http://store/a?b=c", "user_agent": "ua", "client_ip": "10.0.0.1"},
        "response": {"status": code},
    }
    assert {key: segment[key] for key in ("error", "throttle", "fault") if key in segment} == flags


@pytest.mark.parametrize(
    "attributes",
    [
        {
            "db.system.name": "postgresql",
            "db.namespace": "catalog",
            "db.query.text": "SELECT 1",
            "db.user": "app",
            "server.address": "db",
            "server.port": 5432,
        },
        {
            "db.system": "postgresql",
            "db.name": "catalog",
            "db.statement": "SELECT 1",
            "db.user": "app",
            "net.peer.name": "db",
            "net.peer.port": 5432,
        },
    ],
    ids=["stable", "old"],
)
def test_sql(attributes: dict[str, Any]) -> None:
    """The SQL block is kept under stable and old names; the node is named database@host."""
    segment = one("SELECT", SpanKind.CLIENT, attributes, parent=True)
    assert segment["sql"] == {"database_type": "postgresql", "url": "db:5432/catalog", "user": "app", "sanitized_query": "SELECT 1"}
    assert segment["name"] == "catalog@db"
    assert segment["namespace"] == "remote"
    assert segment["type"] == "subsegment"
    assert segment["parent_id"] == "0000000000000007"


def test_exceptions_become_causes_with_frames() -> None:
    """Type, message and traceback; the span is a fault."""
    try:
        json.loads("{")
    except ValueError as error:
        segment = one(error=error)
    assert segment["fault"] is True
    [exception] = segment["cause"]["exceptions"]
    assert exception["type"] == "json.decoder.JSONDecodeError"
    assert "Expecting property name" in exception["message"]
    assert exception["stack"][0]["label"] == "raw_decode"
    assert all(frame["line"] > 0 and frame["path"].endswith(".py") for frame in exception["stack"])


def test_a_service_on_ecs_says_where_it_ran() -> None:
    """Origin, account, container, log groups, version, and the resource as metadata."""
    segment = one()
    assert segment["origin"] == "AWS::ECS::Fargate"
    assert segment["name"] == "orders"
    assert segment["service"] == {"version": "1.2"}
    assert segment["aws"]["account_id"] == "123456789012"
    assert segment["aws"]["ecs"]["task_arn"].endswith("task/c/1")
    assert segment["aws"]["cloudwatch_logs"] == [
        {"log_group": "/ecs/orders", "arn": "arn:aws:logs:us-east-1:123456789012:log-group:/ecs/orders"}
    ]
    assert segment["metadata"]["default"]["otel.resource.service.name"] == "orders"
    assert segment["annotations"] == {"cloud.region": "us-east-1"}


def test_annotations_are_what_was_named_and_the_synthetic_mark() -> None:
    """Keys X-Ray does not take are rewritten; the rest is metadata."""
    segment = one(attributes={"order-id": "7", "crosswatch.synthetic": True, "other": 1, "aws.xray.annotations": ["order-id"]})
    assert segment["annotations"] == {"order_id": "7", "crosswatch.synthetic": True, "cloud.region": "us-east-1"}
    assert segment["metadata"]["default"]["other"] == 1


def test_documents_stay_within_64_kb() -> None:
    """What is least needed is left out first."""
    exporter = InMemorySpanExporter()
    provider = TracerProvider(resource=Resource(ECS), shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    span = provider.get_tracer("t").start_span("op", kind=SpanKind.SERVER, attributes={"big": "é" * 80_000, "http.request.method": "GET"})
    span.end()
    [block] = pack(exporter)
    text = document(next(decode.spans(block.payload)))
    assert len(text.encode()) <= 64_000
    assert json.loads(text)["http"]["request"]["method"] == "GET"


def test_tracebacks_are_read_innermost_first() -> None:
    """As X-Ray shows stacks."""
    trace = (
        'Traceback (most recent call last):\n  File "a.py", line 1, in outer\n    inner()\n  File "b.py", line 2, in inner\n    raise X\nX'
    )
    assert stack_of(trace) == [{"path": "b.py", "line": 2, "label": "inner"}, {"path": "a.py", "line": 1, "label": "outer"}]


@pytest.mark.parametrize("mode", ["segments", "auto"])
def test_segments_are_sent_where_transaction_search_is_off(receiver: Receiver, spool: Path, mode: str) -> None:
    """`segments` uses the API at once; `auto` when the OTLP endpoint says that it needs Transaction Search. 50 a request; nothing is
    lost."""
    message = b"The OTLP API is supported with CloudWatch Logs as a Trace Segment Destination."

    def off(request: Request) -> Answer | None:
        return Answer(400, body=message) if request.signal == "traces" else None

    receiver.fault = off
    with Service(
        {**receiver.environ("traces"), "CROSSWATCH_SPOOL_DIR": str(spool), "CROSSWATCH_TRACES": mode, "CROSSWATCH_SIGV4": "never"}
    ) as service:
        service.spans(230)
        assert service.flush()
        balance = service.balances()["traces"]
    assert len(receiver.segments) == 230
    assert balance.delivered == 230
    assert receiver.violations == []


def test_unprocessed_segments_are_accounted(receiver: Receiver, spool: Path) -> None:
    """Documents that X-Ray refuses one by one are counted."""
    body = json.dumps({"UnprocessedTraceSegments": [{"Id": "1", "ErrorCode": "InvalidId", "Message": "bad"}]}).encode()
    receiver.fault = lambda request: Answer(200, body=body, take=True)
    with Service(
        {**receiver.environ("traces"), "CROSSWATCH_SPOOL_DIR": str(spool), "CROSSWATCH_TRACES": "segments", "CROSSWATCH_SIGV4": "never"}
    ) as service:
        service.spans(10)
        assert service.flush()
        balance = service.balances()["traces"]
    assert (balance.delivered, dict(balance.dropped)) == (9, {"partially_rejected": 1})
