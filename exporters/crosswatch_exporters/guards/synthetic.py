"""Traffic that is not from customers: marked by baggage where it begins, visible on every span and metric it causes."""

from typing import Any

from opentelemetry import baggage
from opentelemetry.context import Context
from opentelemetry.trace import get_current_span

ATTRIBUTE = "crosswatch.synthetic"
_KEYS = (ATTRIBUTE, "synthetic")


def is_synthetic(context: Context | None = None) -> bool:
    """Whether the baggage in `context` (None: the current one) says `crosswatch.synthetic=true`, or `synthetic=true` for short."""
    carried = baggage.get_all(context)
    return bool(carried) and any(str(carried.get(key, "")).lower() == "true" for key in _KEYS)


def caused_by_synthetic(context: Context | None = None) -> bool:
    """Whether a measurement belongs to synthetic traffic: by its baggage, or by the span it is recorded under.

    Some instrumentations record after the request's baggage is gone, but name the span.
    """
    if is_synthetic(context):
        return True
    attributes: Any = getattr(get_current_span(context), "attributes", None)
    return attributes is not None and ATTRIBUTE in attributes
