"""Lean spans are the SDK's spans in everything but cost: the same is done to one of each, and what comes out is compared."""

from __future__ import annotations

import asyncio
import itertools
import logging
import threading
from collections.abc import Iterator
from typing import Any

import pytest
from crosswatch_exporters.encoding.spans import SpanEncoder
from crosswatch_exporters.intake import SpanIntake
from crosswatch_exporters.tracing.provider import LeanTracerProvider, fits_the_sdk, tracer_provider
from crosswatch_exporters.tracing.span import LeanSpan
from hypothesis import given, settings
from hypothesis import strategies as st
from opentelemetry import context as context_api
from opentelemetry import trace
from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans
from opentelemetry.proto.trace.v1.trace_pb2 import Span as Message
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan, SpanLimits, SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.id_generator import IdGenerator
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF, Decision, Sampler, SamplingResult
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

RESOURCE = Resource({"service.name": "s"})


class Counted(IdGenerator):
    """1, 2, 3: the same ids for both kinds."""

    def __init__(self, random: bool) -> None:
        self._numbers = itertools.count(1)
        self._random = random

    def generate_span_id(self) -> int:
        return next(self._numbers)

    def generate_trace_id(self) -> int:
        return next(self._numbers)

    def is_trace_id_random(self) -> bool:
        return self._random


def both(limits: SpanLimits, random: bool = True) -> Iterator[tuple[TracerProvider, list[Any], InMemorySpanExporter]]:
    """A provider of lean spans and one of the SDK's, each with what its own sink and what a service's processor got."""
    for kind in (LeanTracerProvider, TracerProvider):
        ended: list[Any] = []
        sink = SpanIntake(lambda timeout: True)
        sink.put = ended.append
        arguments: dict[str, Any] = {
            "resource": RESOURCE,
            "span_limits": limits,
            "id_generator": Counted(random),
            "shutdown_on_exit": False,
        }
        provider = (
            LeanTracerProvider(sink, **arguments) if kind is LeanTracerProvider else TracerProvider(active_span_processor=sink, **arguments)
        )
        exporter = InMemorySpanExporter()
        provider.add_span_processor(SimpleSpanProcessor(exporter))
        yield provider, ended, exporter


class Odd:
    """A value that has no place among attributes, but a text."""

    def __str__(self) -> str:
        return "odd"


text = st.text(st.characters(exclude_categories=("Cs",)), max_size=12)
scalar = st.one_of(
    text, st.booleans(), st.integers(-(1 << 63), (1 << 63) - 1), st.floats(allow_nan=False), st.binary(max_size=4), st.none()
)
value = st.one_of(scalar, st.lists(scalar, max_size=3), st.dictionaries(text, scalar, max_size=2), st.just(Odd()))
key: st.SearchStrategy[Any] = st.sampled_from([*"abcdabcdabcd", "", "a b", 7])
value = st.one_of(st.integers(0, 9), st.sampled_from(["x", "longer"]), value)
attributes = st.one_of(st.none(), st.dictionaries(key, value, max_size=4))
step = st.one_of(
    st.tuples(st.just("set_attribute"), key, value),
    st.tuples(st.just("set_attributes"), st.dictionaries(key, value, max_size=5)),
    st.tuples(st.just("add_event"), text, attributes, st.integers(1, 1 << 60)),
    st.tuples(st.just("add_link"), st.just(SpanContext(5, 6, True)), attributes),
    st.tuples(st.just("add_link"), st.just(SpanContext(0, 0, True)), st.none()),
    st.tuples(
        st.just("set_status"), st.sampled_from([Status(StatusCode.OK), Status(StatusCode.ERROR, "no"), StatusCode.UNSET, StatusCode.ERROR])
    ),
    st.tuples(st.just("update_name"), text),
)
late = st.one_of(step, st.tuples(st.just("end"), st.integers(1, 1 << 60)))
steps = st.builds(lambda before, after: before + after, st.lists(step, min_size=2, max_size=8), st.lists(late, max_size=3))
limit = st.sampled_from([SpanLimits.UNSET, None, 0, 1, 2, 3])
limits = st.builds(
    lambda count, length, events, links: SpanLimits(
        max_span_attributes=count, max_span_attribute_length=length, max_events=events, max_links=links
    ),
    limit,
    limit,
    limit,
    limit,
)
parents = st.sampled_from(
    [
        None,
        NonRecordingSpan(SpanContext(7, 8, True, TraceFlags(1), TraceState([("a", "1")]))),
        NonRecordingSpan(SpanContext(7, 8, False, TraceFlags(3))),
        NonRecordingSpan(SpanContext(0, 0, False)),
    ]
)


@settings(max_examples=600, deadline=None)
@given(text, attributes, steps, limits, parents, st.sampled_from(SpanKind), st.booleans(), st.sampled_from([*[False] * 9, True]))
def test_the_same_life_leaves_the_same_span(
    name: str, first: Any, steps: list[Any], bounds: SpanLimits, parent: Any, kind: SpanKind, random: bool, linked: bool
) -> None:
    """Whatever is done to it, before and after its end: to both encoders and to a service's processor it is the same."""
    logging.disable(logging.CRITICAL)
    try:
        outcomes = []
        for provider, ended, exporter in both(bounds, random):
            tracer = provider.get_tracer("scope", "1", "https://schema", {"x": "y"})
            within = set_span_in_context(parent) if parent is not None else None
            links = [Link(SpanContext(5, 6, True), {"k": ["v"]})] if linked else None
            span: Any = tracer.start_span(name, within, kind, first, links, start_time=17)
            for action, *arguments in steps:
                getattr(span, action)(*arguments)
            seen = dict(span.attributes), span.name, span.is_recording(), span.dropped_attributes, span.dropped_events, span.dropped_links
            span.end(23)
            [own], [copy] = ended, exporter.get_finished_spans()
            encoded = SpanEncoder()(own)
            assert Message.FromString(encoded) == encode_spans([copy]).resource_spans[0].scope_spans[0].spans[0]
            outcomes.append((seen, encoded, encode_spans([copy]).SerializeToString(deterministic=True), span.get_span_context()))
        assert outcomes[0] == outcomes[1]
    finally:
        logging.disable(logging.NOTSET)


def lean() -> tuple[Any, list[Any]]:
    """A tracer of lean spans and where they end up."""
    provider, ended, _ = next(both(SpanLimits()))
    return provider.get_tracer("scope"), ended


def test_lean_is_what_is_used() -> None:
    """The span is the lean one, is an SDK span to whoever asks, and only links at the start need the SDK's own."""
    tracer, ended = lean()
    tracer.start_span("a").end()
    tracer.start_span("b", links=[Link(SpanContext(5, 6, True))]).end()
    assert [type(span) for span in ended] == [LeanSpan, ReadableSpan]
    assert isinstance(ended[0], ReadableSpan)


@pytest.mark.parametrize(
    ("error", "events", "status"), [(ValueError("no"), 1, StatusCode.ERROR), (KeyboardInterrupt(), 0, StatusCode.UNSET)]
)
def test_exceptions(error: BaseException, events: int, status: StatusCode) -> None:
    """An exception is recorded and goes on; an interrupt goes on unrecorded, as in the SDK. The span ends and is current no more."""
    for provider, ended, _ in both(SpanLimits()):
        with pytest.raises(type(error)), provider.get_tracer("scope").start_as_current_span("a"):
            raise error
        assert trace.get_current_span() is trace.INVALID_SPAN
        assert (len(ended[0].events), ended[0].status.status_code) == (events, status)
        if events:
            assert ended[0].events[0].attributes["exception.message"] == "no"
            assert ended[0].status.description == "ValueError: no"


def test_exceptions_are_left_alone_when_told_so() -> None:
    """`record_exception`, `set_status_on_exception` and `end_on_exit` are obeyed."""
    tracer, ended = lean()
    told = tracer.start_as_current_span("a", record_exception=False, set_status_on_exception=False, end_on_exit=False)
    with pytest.raises(ValueError, match="no"), told as span:
        raise ValueError("no")
    assert ended == []
    assert (span.events, span.status.status_code) == ((), StatusCode.UNSET)
    span.end()
    assert len(ended) == 1


def test_decorated_functions() -> None:
    """As a decorator each call has its own span; that of a coroutine function lasts until the coroutine ends."""
    tracer, ended = lean()

    @tracer.start_as_current_span("plain")
    def plain(number: int) -> int:
        return number + 1

    @tracer.start_as_current_span("awaited")
    async def awaited() -> int:
        await asyncio.sleep(0.02)
        return 3

    assert (plain(1), plain(2), asyncio.run(awaited())) == (2, 3, 3)
    assert [span.name for span in ended] == ["plain", "plain", "awaited"]
    assert len({span.context.span_id for span in ended}) == 3
    assert ended[2].end_time - ended[2].start_time > 15_000_000


def test_nested_spans_and_threads() -> None:
    """A span's child is in its trace; another thread begins with no span."""
    tracer, ended = lean()
    elsewhere: list[Any] = []
    with tracer.start_as_current_span("outer") as outer:
        with tracer.start_as_current_span("inner") as inner:
            assert trace.get_current_span() is inner
            thread = threading.Thread(target=lambda: elsewhere.append(trace.get_current_span()))
            thread.start()
            thread.join()
        assert trace.get_current_span() is outer
    assert ended[0].parent == ended[1].context
    assert ended[0].context.trace_id == ended[1].context.trace_id
    assert elsewhere == [trace.INVALID_SPAN]


def test_ends_once_among_threads() -> None:
    """However many threads end a span, it is handed over once; what they set meanwhile does not disturb its encoding."""
    for _ in range(30):
        tracer, ended = lean()
        span = tracer.start_span("a", attributes={"a": 1})
        gate = threading.Barrier(4)

        def race(span: Any = span, gate: threading.Barrier = gate) -> None:
            gate.wait()
            for i in range(50):
                span.set_attribute(f"k{i}", i)
            span.end()

        threads = [threading.Thread(target=race) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(ended) == 1
        assert len(Message.FromString(SpanEncoder()(ended[0])).attributes) == len(ended[0].attributes)


def test_what_is_not_sampled_is_not_recorded() -> None:
    """A dropped span carries its context on and records nothing."""
    sink = SpanIntake(lambda timeout: True)
    ended: list[Any] = []
    sink.put = ended.append
    span = LeanTracerProvider(sink, sampler=ALWAYS_OFF, resource=RESOURCE, shutdown_on_exit=False).get_tracer("a").start_span("b")
    span.end()
    assert isinstance(span, NonRecordingSpan)
    assert span.get_span_context().is_valid
    assert not span.get_span_context().trace_flags.sampled
    assert ended == []


def test_recorded_but_not_sampled() -> None:
    """Such a span goes where unsampled ones go, for tail keeping."""

    class RecordOnly(Sampler):
        def should_sample(self, *arguments: Any, **named: Any) -> SamplingResult:
            return SamplingResult(Decision.RECORD_ONLY)

        def get_description(self) -> str:
            return "record only"

    sink = SpanIntake(lambda timeout: True)
    sampled: list[Any] = []
    unsampled: list[Any] = []
    sink.put, sink.put_unsampled = sampled.append, unsampled.append
    LeanTracerProvider(sink, sampler=RecordOnly(), resource=RESOURCE, shutdown_on_exit=False).get_tracer("a").start_span("b").end()
    assert (len(sampled), len(unsampled)) == (0, 1)


def test_the_services_processors_see_every_step() -> None:
    """A processor that the service adds may still change the span when it starts, and gets an unchangeable copy when it ended."""
    seen: list[Any] = []

    class Watching(SpanProcessor):
        def on_start(self, span: Any, parent_context: Any = None) -> None:
            span.set_attribute("by", "processor")
            seen.append((type(span), parent_context))

        def on_end(self, span: ReadableSpan) -> None:
            seen.append(type(span))

    provider, ended, _ = next(both(SpanLimits()))
    provider.add_span_processor(Watching())
    here = context_api.get_current()
    provider.get_tracer("a").start_span("b", context=here).end()
    assert seen == [(LeanSpan, here), ReadableSpan]
    assert ended[0].attributes == {"by": "processor"}


def test_a_resource_that_changes_is_that_of_later_spans() -> None:
    """After a fork the provider's resource is another one; tracers that were there before use it too."""
    provider, ended, _ = next(both(SpanLimits()))
    tracer = provider.get_tracer("a")
    tracer.start_span("before").end()
    provider._update_resource(Resource({"process.pid": 2}))
    tracer.start_span("after").end()
    assert [span.resource.attributes.get("process.pid") for span in ended] == [None, 2]
    assert provider.get_tracer("a") is tracer


def test_the_sdks_own_spans_where_lean_ones_do_not_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    """An SDK whose spans work differently inside, or that is to measure itself, keeps its own tracer."""
    sink = SpanIntake(lambda timeout: True)
    assert fits_the_sdk()
    assert isinstance(tracer_provider(sink, shutdown_on_exit=False), LeanTracerProvider)
    with monkeypatch.context() as changed:
        changed.delattr("opentelemetry.sdk.trace.Tracer._is_enabled")
        assert not fits_the_sdk()
    with monkeypatch.context() as changed:
        changed.setattr("opentelemetry.sdk.trace.ReadableSpan.name", property(lambda span: span._title))
        assert not fits_the_sdk()
        assert type(tracer_provider(sink, shutdown_on_exit=False)) is TracerProvider
    monkeypatch.setenv("OTEL_PYTHON_SDK_INTERNAL_METRICS_ENABLED", "true")
    assert type(tracer_provider(sink, shutdown_on_exit=False)) is TracerProvider
