"""The hand-written encoder writes what the stock encoder writes."""

from __future__ import annotations

from typing import Any

from crosswatch_exporters.blocks import LOG_LIMITS, METRIC_LIMITS, TRACE_LIMITS, Block
from crosswatch_exporters.ledger import Loss
from crosswatch_exporters.metric_packing import MetricPacker
from crosswatch_exporters.packing import LogPacker, SpanPacker
from hypothesis import given, settings
from hypothesis import strategies as st
from opentelemetry._logs import LogRecord, SeverityNumber
from opentelemetry.exporter.otlp.proto.common._log_encoder import encode_logs
from opentelemetry.exporter.otlp.proto.common.metrics_encoder import encode_metrics
from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.sdk._logs import ReadWriteLogRecord
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.metrics.view import ExponentialBucketHistogramAggregation, View
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import (
    Link,
    NonRecordingSpan,
    SpanContext,
    SpanKind,
    Status,
    StatusCode,
    TraceFlags,
    TraceState,
    set_span_in_context,
)

text = st.text(st.characters(exclude_categories=("Cs",)), max_size=20)
key = st.text(st.characters(exclude_categories=("Cs",)), min_size=1, max_size=12)
number = st.integers(-(1 << 63), (1 << 63) - 1)
scalar = st.one_of(text, st.booleans(), number, st.floats(allow_nan=False), st.binary(max_size=8))
value: st.SearchStrategy[Any] = st.one_of(
    scalar,
    st.none(),
    st.lists(text, max_size=3),
    st.lists(number, max_size=3),
    st.recursive(scalar, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(key, inner, max_size=3), max_leaves=6),
)
attributes = st.dictionaries(key, value, max_size=6)
ids = st.integers(1, (1 << 128) - 1), st.integers(1, (1 << 64) - 1)


def nothing_lost(reason: Loss, count: int) -> None:
    """For packers: losing anything fails the test."""
    raise AssertionError(f"{count} lost: {reason}")


def pack(packer: Any, items: list[Any]) -> list[Block]:
    """Items through both steps of a packer."""
    return list(packer([packer.prepare(item) for item in items], nothing_lost))


@st.composite
def context(draw: Any) -> SpanContext:
    """Any valid span context."""
    state = TraceState([("a", "1"), ("b", "2")][: draw(st.integers(0, 2))])
    return SpanContext(draw(ids[0]), draw(ids[1]), draw(st.booleans()), TraceFlags(1), state)


@st.composite
def spans(draw: Any) -> list[Any]:
    """A few finished spans of one provider."""
    exporter = InMemorySpanExporter()
    provider = TracerProvider(resource=Resource(draw(attributes), "https://schema/1"), shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    for _ in range(draw(st.integers(1, 4))):
        tracer = provider.get_tracer(
            draw(st.sampled_from(["a", "b"])), draw(st.sampled_from(["", "1.0"])), "https://schema/2", {"scope": True}
        )
        parent = set_span_in_context(NonRecordingSpan(draw(context()))) if draw(st.booleans()) else None
        links = [Link(draw(context()), draw(attributes)) for _ in range(draw(st.integers(0, 2)))]
        span = tracer.start_span(draw(text), parent, draw(st.sampled_from(list(SpanKind))), draw(attributes), links)
        for _ in range(draw(st.integers(0, 2))):
            span.add_event(draw(text), draw(attributes), draw(st.integers(1, 1 << 62)))
        if draw(st.booleans()):
            span.set_status(Status(draw(st.sampled_from([StatusCode.OK, StatusCode.ERROR])), None))
        elif draw(st.booleans()):
            span.set_status(Status(StatusCode.ERROR, draw(text)))
        span.end()
    return list(exporter.get_finished_spans())


@settings(max_examples=40, deadline=None)
@given(spans())
def test_spans(batch: list[Any]) -> None:
    """Spans with every kind of attribute, event, link, status and parent are encoded as the stock encoder does."""
    [block] = pack(SpanPacker(TRACE_LIMITS), batch)
    assert ExportTraceServiceRequest.FromString(block.payload) == encode_spans(batch)
    assert block.items == len(batch)
    assert block.weight >= len(block.payload)


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(value, attributes, text, st.sampled_from([None, *SeverityNumber]), st.booleans(), text), min_size=1, max_size=5))
def test_logs(parts: list[tuple[Any, ...]]) -> None:
    """Log records with any body, severity, attributes and trace context are encoded as the stock encoder does."""
    resource = Resource({"service.name": "s"})
    batch = [
        ReadWriteLogRecord(
            LogRecord(
                timestamp=1_700_000_000_000_000_000 + i,
                observed_timestamp=1_700_000_000_000_000_005,
                trace_id=7 if traced else 0,
                span_id=9 if traced else 0,
                trace_flags=TraceFlags(1 if traced else 0),
                severity_text=severity_text,
                severity_number=severity,
                body=body,
                attributes=pairs,
                event_name=event,
            ),
            resource,
            None,
        )
        for i, (body, pairs, severity_text, severity, traced, event) in enumerate(parts)
    ]
    [block] = pack(LogPacker(LOG_LIMITS), batch)
    assert ExportLogsServiceRequest.FromString(block.payload) == encode_logs(batch)


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(st.floats(-1e6, 1e6), st.dictionaries(key, scalar, max_size=3)), max_size=12), st.booleans())
def test_metrics(measurements: list[tuple[float, dict[str, Any]]], exponential: bool) -> None:
    """All instruments and both histograms are encoded as the stock encoder does."""
    reader = InMemoryMetricReader()
    views = [View(instrument_name="h", aggregation=ExponentialBucketHistogramAggregation())] if exponential else []
    provider = MeterProvider([reader], Resource({"a": 1}), shutdown_on_exit=False, views=views)
    meter = provider.get_meter("m", "1", "https://schema")
    counter, updown, gauge = meter.create_counter("c", "By", "d"), meter.create_up_down_counter("u"), meter.create_gauge("g")
    histogram = meter.create_histogram("h", "s")
    for amount, pairs in measurements:
        counter.add(abs(int(amount)), pairs)
        updown.add(amount, pairs)
        gauge.set(int(amount), pairs)
        histogram.record(amount, pairs)
    data = reader.get_metrics_data()
    if data is None:
        return
    [block] = MetricPacker(METRIC_LIMITS)([data], nothing_lost)
    assert ExportMetricsServiceRequest.FromString(block.payload).SerializeToString(deterministic=True) == _merged(encode_metrics(data))


def _merged(request: Any) -> bytes:
    return bytes(request.SerializeToString(deterministic=True))
