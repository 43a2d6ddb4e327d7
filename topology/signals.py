"""The signal catalogue: every metric by name, and the series that it becomes in one topology.

A `Signal` is a metric's name, namespace, dimensions, unit, the statistics that are valid for it, who emits it, in which Regions'
CloudWatch it stands, and what it means when it is absent. `series` turns it into the concrete `Series` of one topology.
"""

from __future__ import annotations

from collections.abc import Iterator

from topology.catalogue import CATALOGUE, LEDGER, PROBE, RECOVERY, SERVICE
from topology.model import Topology
from topology.placement import HEALTH_CHECK_REGION, canary_kinds, canary_name
from topology.signal import Series, Signal

__all__ = [
    "CATALOGUE",
    "HEALTH_CHECK_REGION",
    "LEDGER",
    "PROBE",
    "RECOVERY",
    "SERVICE",
    "Series",
    "Signal",
    "all_series",
    "canary_kinds",
    "canary_name",
    "find",
    "series",
]


def series(topology: Topology, signal: Signal) -> Iterator[Series]:
    """Every series of ``signal`` in this topology."""
    for region, emitted_by, dimensions in signal.expand(topology):
        yield Series(signal.namespace, signal.name, dimensions, region, emitted_by)


def all_series(topology: Topology) -> Iterator[tuple[Signal, Series]]:
    """Every series of every signal in this topology."""
    for signal in CATALOGUE:
        for item in series(topology, signal):
            yield signal, item


def find(namespace: str, name: str, dimensions: tuple[str, ...] | None = None) -> Signal | None:
    """The signal with this name, and with this set of dimension names where one is given."""
    for signal in CATALOGUE:
        if (signal.namespace, signal.name) == (namespace, name) and (dimensions is None or set(signal.dimensions) == set(dimensions)):
            return signal
    return None
