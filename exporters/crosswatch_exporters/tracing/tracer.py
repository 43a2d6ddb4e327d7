"""The tracer that makes lean spans, and its `start_as_current_span`."""

import inspect
from collections.abc import Callable, Sequence
from functools import wraps
from time import time_ns
from types import TracebackType
from typing import Any

from opentelemetry import trace
from opentelemetry.context import Context, attach, detach
from opentelemetry.sdk.trace import Tracer
from opentelemetry.sdk.trace.sampling import Decision
from opentelemetry.trace import (
    NonRecordingSpan,
    SpanContext,
    SpanKind,
    Status,
    StatusCode,
    TraceFlags,
    get_current_span,
    set_span_in_context,
)
from opentelemetry.util.types import Attributes

from crosswatch_exporters.tracing.span import LeanSpan, Rules, SpanSink

_SAMPLED, _RANDOM = TraceFlags.SAMPLED, TraceFlags.RANDOM_TRACE_ID
_FLAGS = tuple(TraceFlags(number) for number in range((_SAMPLED | _RANDOM) + 1))


class CurrentSpan:
    """What `start_as_current_span` gives: a context manager, and a decorator for functions and coroutine functions."""

    __slots__ = ("_end_on_exit", "_record_exception", "_set_status", "_span", "_start", "_token")

    def __init__(self, start: Callable[[], trace.Span], record_exception: bool, set_status: bool, end_on_exit: bool) -> None:
        self._start = start
        self._record_exception = record_exception
        self._set_status = set_status
        self._end_on_exit = end_on_exit

    def __enter__(self) -> trace.Span:
        self._span = span = self._start()
        self._token = attach(set_span_in_context(span))
        return span

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        span = self._span
        try:
            detach(self._token)
            if isinstance(error, Exception) and span.is_recording():
                if self._record_exception:
                    span.record_exception(error)
                if self._set_status:
                    span.set_status(Status(StatusCode.ERROR, f"{type(error).__name__}: {error}"))
        finally:
            if self._end_on_exit:
                span.end()

    def __call__(self, function: Any) -> Any:
        """Decorate: each call has a span of its own, which for a coroutine function ends with the coroutine."""
        if inspect.iscoroutinefunction(function):

            @wraps(function)
            async def awaited(*arguments: Any, **named: Any) -> Any:
                with self._again():
                    return await function(*arguments, **named)

            return awaited

        @wraps(function)
        def called(*arguments: Any, **named: Any) -> Any:
            with self._again():
                return function(*arguments, **named)

        return called

    def _again(self) -> "CurrentSpan":
        return CurrentSpan(self._start, self._record_exception, self._set_status, self._end_on_exit)


class LeanTracer(trace.Tracer):
    """Starts lean spans where that is possible and leaves the rest to the SDK's tracer of the same scope."""

    def __init__(self, sdk: Tracer, sink: SpanSink) -> None:
        self._sdk = sdk
        self._rules = Rules(sdk, sink)
        self._new_trace_id = sdk.id_generator.generate_trace_id
        self._new_span_id = sdk.id_generator.generate_span_id
        self._sample = sdk.sampler.should_sample
        self._random = _RANDOM if sdk.id_generator.is_trace_id_random() else 0

    def start_span(
        self,
        name: str,
        context: Context | None = None,
        kind: SpanKind = SpanKind.INTERNAL,
        attributes: Attributes = None,
        links: Sequence[trace.Link] | None = (),
        start_time: int | None = None,
        record_exception: bool = True,
        set_status_on_exception: bool = True,
    ) -> trace.Span:
        """See `opentelemetry.trace.Tracer`."""
        sdk = self._sdk
        parent: SpanContext | None = get_current_span(context).get_span_context()
        if links or parent.__class__ is not SpanContext or not sdk._is_enabled():
            return sdk.start_span(name, context, kind, attributes, links, start_time, record_exception, set_status_on_exception)
        if parent is not None and parent.is_valid:
            trace_id, random = parent.trace_id, parent.trace_flags & _RANDOM
        else:
            parent, trace_id, random = None, self._new_trace_id(), self._random
        sampled = self._sample(context, trace_id, name, kind, attributes, links)
        decision = sampled.decision
        flags = _FLAGS[random | _SAMPLED if decision is Decision.RECORD_AND_SAMPLE else random]
        own = SpanContext(trace_id, self._new_span_id(), False, flags, sampled.trace_state)
        if decision is Decision.DROP:
            return NonRecordingSpan(own)
        rules = self._rules
        began = time_ns() if start_time is None else start_time
        span = LeanSpan(rules, name, own, parent, kind, sdk.resource, sampled.attributes, began, record_exception, set_status_on_exception)
        rules.sink.on_start(span, context)
        return span

    def start_as_current_span(  # type: ignore[override]  # the API names the class of its own context manager
        self,
        name: str,
        context: Context | None = None,
        kind: SpanKind = SpanKind.INTERNAL,
        attributes: Attributes = None,
        links: Sequence[trace.Link] | None = (),
        start_time: int | None = None,
        record_exception: bool = True,
        set_status_on_exception: bool = True,
        end_on_exit: bool = True,
    ) -> CurrentSpan:
        """See `opentelemetry.trace.Tracer`."""

        def start() -> trace.Span:
            return self.start_span(name, context, kind, attributes, links, start_time, record_exception, set_status_on_exception)

        return CurrentSpan(start, record_exception, set_status_on_exception, end_on_exit)
