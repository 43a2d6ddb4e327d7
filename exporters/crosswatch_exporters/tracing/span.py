"""The lean span: what the SDK's span is and does, with a dict for its attributes and nothing made before it is needed."""

import logging
import threading
from collections.abc import Mapping
from time import time_ns
from typing import Any, Protocol

from opentelemetry.attributes import BoundedAttributes
from opentelemetry.context import Context
from opentelemetry.sdk.trace import ReadableSpan, Span, Tracer
from opentelemetry.sdk.util import BoundedList
from opentelemetry.trace import Link, SpanContext, SpanKind, Status, StatusCode
from opentelemetry.util.types import Attributes

log = logging.getLogger(__name__)

_UNSET = Status(StatusCode.UNSET)
# Types whose values are attributes as they are. Texts are too, unless their length is limited.
_PLAIN = frozenset({bool, int, float, bytes, type(None)})
_NONE: Any = ()


class SpanSink(Protocol):
    """Where the spans of a provider go."""

    def on_start(self, span: Span, parent_context: Context | None = None) -> None:
        """A span has started."""

    def on_lean_end(self, span: "LeanSpan") -> None:
        """A span has ended and does not change any more."""


class Rules:
    """What the spans of one tracer have in common."""

    __slots__ = ("info", "limits", "most", "plain", "sampler", "scope", "sink")

    def __init__(self, tracer: Tracer, sink: SpanSink) -> None:
        self.sink = sink
        self.sampler = tracer.sampler
        self.limits = tracer._span_limits
        self.scope = tracer._instrumentation_scope
        self.info = tracer.instrumentation_info
        self.plain = _PLAIN if self.limits.max_span_attribute_length is not None else _PLAIN | {str}
        self.most = 1 << 62 if self.limits.max_span_attributes is None else self.limits.max_span_attributes


class _Attributes(dict[str, Any]):
    """A span's attributes. `dropped` counts those that were invalid or gave way to later ones."""

    __slots__ = ("dropped",)

    def __init__(self, dropped: int) -> None:
        self.dropped = dropped


class LeanSpan(Span):
    """An SDK span in all but its making: `Span.__init__` is not called, and containers are made when there is something to hold."""

    _attributes: _Attributes
    _end_time: int | None = None
    _status = _UNSET
    _events: Any = _NONE
    _links: Any = _NONE
    _trace_config = None
    _record_end_metrics = None

    def __init__(
        self,
        rules: Rules,
        name: str,
        context: SpanContext,
        parent: SpanContext | None,
        kind: SpanKind,
        resource: Any,
        attributes: Attributes,
        start_time: int,
        record_exception: bool,
        set_status_on_exception: bool,
    ) -> None:
        self._rules = rules
        self._name = name
        self._context = context
        self._parent = parent
        self._kind = kind
        self._resource = resource
        self._instrumentation_scope = rules.scope
        self._start_time = start_time
        self._record_exception = record_exception
        self._set_status_on_exception = set_status_on_exception
        self._lock = threading.Lock()
        self._attributes = _Attributes(0)
        if attributes:
            self._set(attributes)

    # What only the SDK's own methods ask for.
    _sampler = property(lambda self: self._rules.sampler)
    _limits = property(lambda self: self._rules.limits)
    _instrumentation_info = property(lambda self: self._rules.info)
    _span_processor = property(lambda self: self._rules.sink)

    def set_attribute(self, key: str, value: Any) -> None:
        """See `opentelemetry.trace.Span`."""
        with self._lock:
            if self._end_time is not None:
                log.warning("Setting attribute on ended span.")
                return
            attributes, rules = self._attributes, self._rules
            if value.__class__ in rules.plain and key and key.__class__ is str and len(attributes) < rules.most:
                if key in attributes:
                    del attributes[key]  # the order is that of the last setting
                attributes[key] = value
            elif key and isinstance(key, str):
                self._set_uncommon({key: value})
            else:
                log.warning("invalid key `%s`. must be non-empty string. Dropping key from attributes.", key)
                attributes.dropped += 1

    def set_attributes(self, attributes: Mapping[str, Any]) -> None:
        """See `opentelemetry.trace.Span`."""
        with self._lock:
            if self._end_time is not None:
                log.warning("Setting attribute on ended span.")
                return
            self._set(attributes)

    def _set(self, attributes: Mapping[str, Any]) -> None:
        """Set several; as they are if all of them are plain and fit."""
        have, rules = self._attributes, self._rules
        plain = rules.plain
        if not have and len(attributes) <= rules.most:
            for key, value in attributes.items():
                if value.__class__ not in plain or key.__class__ is not str or not key:
                    have.clear()
                    break
                have[key] = value
            else:
                return
        self._set_uncommon(attributes)

    def _set_uncommon(self, attributes: Mapping[str, Any]) -> None:
        """Set what the SDK has to clean first."""
        cleaned = BoundedAttributes(None, attributes, max_value_len=self._rules.limits.max_span_attribute_length)
        self._attributes.dropped += cleaned.dropped
        self._insert(cleaned)

    def _insert(self, attributes: Mapping[str, Any]) -> None:
        """Add valid attributes; each that does not fit displaces the oldest."""
        have, most = self._attributes, self._rules.most
        for key, value in attributes.items():
            have.pop(key, None)
            if len(have) >= most:
                have.dropped += 1
                if not have:
                    continue
                log.warning("Attributes dict is full. Dropping the oldest key-value pair from attributes.")
                del have[next(iter(have))]
            have[key] = value

    def _add_event(self, event: Any) -> None:
        with self._lock:
            if self._end_time is not None:
                log.warning("Tried calling _add_event on an ended span.")
                return
            if self._events is _NONE:
                self._events = BoundedList(self._rules.limits.max_events)
            self._events.append(event)

    def _add_link(self, link: Link) -> None:
        with self._lock:
            if self._end_time is not None:
                log.warning("Tried calling _add_link on an ended span.")
                return
            if self._links is _NONE:
                self._links = BoundedList(self._rules.limits.max_links)
            self._links.append(link)

    @property
    def dropped_attributes(self) -> int:
        """Attributes that were invalid or gave way to later ones."""
        return self._attributes.dropped

    def end(self, end_time: int | None = None) -> None:
        """See `opentelemetry.trace.Span`."""
        with self._lock:
            if self._end_time is not None:
                log.warning("Calling end() on an ended span.")
                return
            self._end_time = time_ns() if end_time is None else end_time
        self._rules.sink.on_lean_end(self)

    def _readable_span(self) -> ReadableSpan:
        """The copy that the service's own span processors get."""
        attributes = BoundedAttributes(attributes=self._attributes)
        attributes.dropped = self._attributes.dropped
        return ReadableSpan(
            name=self._name,
            context=self._context,
            parent=self._parent,
            resource=self._resource,
            attributes=attributes,
            events=BoundedList(0) if self._events is _NONE else self._events,
            links=BoundedList(0) if self._links is _NONE else self._links,
            kind=self._kind,
            status=self._status,
            start_time=self._start_time,
            end_time=self._end_time,
            instrumentation_info=self._instrumentation_info,
            instrumentation_scope=self._instrumentation_scope,
        )
