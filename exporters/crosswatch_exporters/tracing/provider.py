"""The tracer provider, and the trial that lean spans have to pass before they are used."""

import logging
import os
from collections.abc import Mapping
from typing import Any

from opentelemetry import trace
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan, SynchronousMultiSpanProcessor, Tracer, TracerProvider
from opentelemetry.sdk.trace.sampling import ALWAYS_ON
from opentelemetry.trace import SpanKind, StatusCode
from opentelemetry.util.types import Attributes

from crosswatch_exporters.encoding.spans import SpanEncoder
from crosswatch_exporters.tracing.span import LeanSpan, SpanSink
from crosswatch_exporters.tracing.tracer import LeanTracer

log = logging.getLogger(__name__)

_PLAINLY: Mapping[str, Any] = {"sampler": ALWAYS_ON, "resource": Resource({}), "shutdown_on_exit": False}


class LeanTracerProvider(TracerProvider):
    """The SDK's provider with lean tracers. `sink` is its span processor as well."""

    def __init__(self, sink: Any, **arguments: Any) -> None:
        super().__init__(active_span_processor=sink, **arguments)
        self._sink: SpanSink = sink
        self._lean: dict[Tracer, LeanTracer] = {}

    def get_tracer(
        self,
        instrumenting_module_name: str,
        instrumenting_library_version: str | None = None,
        schema_url: str | None = None,
        attributes: Attributes = None,
    ) -> trace.Tracer:
        """See `opentelemetry.trace.TracerProvider`."""
        made = super().get_tracer(instrumenting_module_name, instrumenting_library_version, schema_url, attributes)
        if not isinstance(made, Tracer):
            return made  # the SDK is disabled
        known = self._lean.get(made)
        return known if known is not None else self._lean.setdefault(made, LeanTracer(made, self._sink))


def tracer_provider(sink: Any, **arguments: Any) -> TracerProvider:
    """A provider of lean spans; the SDK's own where it is asked to measure itself, or where lean spans do not fit it."""
    if os.environ.get("OTEL_PYTHON_SDK_INTERNAL_METRICS_ENABLED", "").strip().lower() == "true":
        return TracerProvider(active_span_processor=sink, **arguments)
    if not fits_the_sdk():
        log.warning("this release of opentelemetry-sdk is not known to us; its own spans are used, which cost more")
        return TracerProvider(active_span_processor=sink, **arguments)
    return LeanTracerProvider(sink, **arguments)


class _Ended(SynchronousMultiSpanProcessor):
    """Keeps the spans that ended."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.spans: list[ReadableSpan] = []

    def on_end(self, span: ReadableSpan) -> None:
        self.spans.append(span)

    def on_lean_end(self, span: LeanSpan) -> None:
        self.spans += (span, span._readable_span())


def fits_the_sdk() -> bool:
    """Whether the lean span gets on with the SDK that is installed.

    It inherits from the SDK's span, whose inner names may change with any release. So one span of each kind lives through the same things;
    if they do not end up alike, or one of them stumbles, lean spans are not for this SDK.
    """
    lean, plain = _Ended(), _Ended()
    try:
        _live(LeanTracerProvider(lean, **_PLAINLY))
        _live(TracerProvider(active_span_processor=plain, **_PLAINLY))
        [expected] = map(_facts, plain.spans)
        return [_facts(span) for span in lean.spans] == [expected, expected]
    except (AttributeError, TypeError, ValueError, LookupError):
        log.debug("lean spans do not fit", exc_info=True)
        return False


def _live(provider: TracerProvider) -> None:
    """Do to one span what a service does to its spans."""
    with provider.get_tracer("trial").start_as_current_span("a", kind=SpanKind.CLIENT, attributes={"a": 1, "b": ("c", "d")}) as span:
        span.set_attribute("e", "f")
        span.set_attributes({"a": 2.5, "g": [True, False]})
        span.add_event("h", {"i": "j"})
        span.add_link(span.get_span_context(), {"k": "l"})
        span.set_status(StatusCode.ERROR, "m")
        span.update_name("n")


def _facts(span: ReadableSpan) -> tuple[Any, ...]:
    """What can be compared: everything but ids and times, and how long the encoded span is."""
    return (
        span.name,
        span.kind,
        dict(span.attributes or {}),
        [(event.name, dict(event.attributes or {})) for event in span.events],
        [dict(link.attributes or {}) for link in span.links],
        (span.status.status_code, span.status.description),
        (span.dropped_attributes, span.dropped_events, span.dropped_links),
        len(SpanEncoder()(span)),
    )
