"""Head sampling that never loses a canary's trace."""

from collections.abc import Sequence

from opentelemetry.context import Context
from opentelemetry.sdk.trace.sampling import Decision, Sampler, SamplingResult
from opentelemetry.trace import Link, SpanKind, TraceState, get_current_span
from opentelemetry.util.types import Attributes

from crosswatch_exporters.guards.synthetic import ATTRIBUTE, is_synthetic

_MASK = (1 << 64) - 1
# The ASGI instrumentation makes a span for every event a response is sent in; they triple the spans and say nothing the server span does
# not.
_ASGI_EVENTS = (" http send", " http receive", " websocket send", " websocket receive")
_STANDARD = {"always_on": 1.0, "always_off": 0.0, "traceidratio": None}


class CanarySampler(Sampler):
    """Samples a share of the traces, follows the parent's decision if `parent_based`, and always samples synthetic traffic.

    Spans of synthetic traffic are marked with `crosswatch.synthetic`.
    """

    def __init__(self, ratio: float = 1.0, parent_based: bool = True, asgi_events: bool = False, record_all: bool = False) -> None:
        """`record_all` records what is not sampled, for tail keeping to decide on."""
        self._otherwise = Decision.RECORD_ONLY if record_all else Decision.DROP
        self._ratio = ratio
        self._bound = round(ratio * (1 << 64))
        self._parent_based = parent_based
        self._asgi_events = asgi_events

    def should_sample(
        self,
        parent_context: Context | None,
        trace_id: int,
        name: str,
        kind: SpanKind | None = None,
        attributes: Attributes = None,
        links: Sequence[Link] | None = None,
        trace_state: TraceState | None = None,
    ) -> SamplingResult:
        """See `opentelemetry.sdk.trace.sampling.Sampler`."""
        parent = get_current_span(parent_context).get_span_context()
        if parent is None or not parent.is_valid:
            sampled, state = (trace_id & _MASK) < self._bound, None
        else:
            sampled = bool(parent.trace_flags & 1) if self._parent_based else (trace_id & _MASK) < self._bound
            state = parent.trace_state
        if kind is SpanKind.INTERNAL and not self._asgi_events and name.endswith(_ASGI_EVENTS):
            return SamplingResult(Decision.DROP, None, state)
        if is_synthetic(parent_context):
            return SamplingResult(Decision.RECORD_AND_SAMPLE, {**(attributes or {}), ATTRIBUTE: True}, state)
        if sampled:
            return SamplingResult(Decision.RECORD_AND_SAMPLE, attributes, state)
        return SamplingResult(self._otherwise, attributes if self._otherwise is Decision.RECORD_ONLY else None, state)

    def get_description(self) -> str:
        """As the specification asks."""
        return f"CanarySampler{{ratio={self._ratio:g},parent_based={self._parent_based}}}"


def sampler_from(name: str, argument: float, asgi_events: bool, record_all: bool) -> Sampler | None:
    """The sampler OTEL_TRACES_SAMPLER names; None when it is not one of the standard ones."""
    parent_based, base = name.startswith("parentbased_"), name.removeprefix("parentbased_")
    if base not in _STANDARD:
        return None
    fixed = _STANDARD[base]
    return CanarySampler(argument if fixed is None else fixed, parent_based, asgi_events, record_all)
