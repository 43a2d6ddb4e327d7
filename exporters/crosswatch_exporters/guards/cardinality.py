"""A limit on the series of one instrument, as the OpenTelemetry specification asks for and the Python SDK lacks.

https://opentelemetry.io/docs/specs/otel/metrics/sdk/#cardinality-limits
"""

from collections.abc import Mapping
from typing import Any

from crosswatch_exporters.guards.synthetic import ATTRIBUTE

OVERFLOW: Mapping[str, Any] = {"otel.metric.overflow": True}
# Synthetic traffic overflows apart: customers' numbers never contain it.
MARKED_OVERFLOW: Mapping[str, Any] = {**OVERFLOW, ATTRIBUTE: True}


class SeriesLimit:
    """Admits the first `limit - 1` attribute sets; everything later is recorded in one overflow series (one more for
    synthetic traffic), so that totals stay right."""

    def __init__(self, limit: int) -> None:
        self._room = max(0, limit - 1)
        self._seen: set[frozenset[tuple[str, Any]]] = set()
        self.overflowed = False

    def __call__(self, attributes: Mapping[str, Any]) -> Mapping[str, Any]:
        """The attributes to record under."""
        try:
            key = frozenset(attributes.items())
            seen = key in self._seen
        except TypeError:  # lists as values
            key = frozenset((name, repr(value)) for name, value in attributes.items())
            seen = key in self._seen
        if seen:
            return attributes
        if len(self._seen) < self._room:
            self._seen.add(key)
            return attributes
        self.overflowed = True
        return MARKED_OVERFLOW if ATTRIBUTE in attributes else OVERFLOW
