"""What a signal is: a metric with everything that is known about it, and the series it becomes in one topology."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Literal

from topology.model import Topology

BASIC = ("Average", "Sum", "Minimum", "Maximum", "SampleCount")
PERCENTILES = (*BASIC, "p50", "p90", "p95", "p99")

Emitter = Literal[
    "probe",
    "ledger",
    "recovery",
    "service",
    "alb",
    "ecs",
    "service-connect",
    "aurora",
    "dynamodb",
    "elasticache",
    "mq",
    "route53",
    "synthetics",
]


@dataclass(frozen=True, slots=True)
class Series:
    """One metric as it stands in one Region's CloudWatch. ``emitted_by`` is the Region whose loss silences it."""

    namespace: str
    name: str
    dimensions: Mapping[str, str]
    region: str
    emitted_by: str

    @property
    def key(self) -> tuple[str, str, tuple[tuple[str, str], ...]]:
        """What identifies the metric within a Region."""
        return self.namespace, self.name, tuple(sorted(self.dimensions.items()))


Expansion = Callable[[Topology], Iterator[tuple[str, str, dict[str, str]]]]
"""Yields (Region that stores it, Region that emits it, dimensions)."""


@dataclass(frozen=True, slots=True)
class Signal:
    """One metric. ``resolution_s`` is how often it is emitted; ``absence`` says what its silence means."""

    namespace: str
    name: str
    dimensions: tuple[str, ...]
    unit: str
    emitter: Emitter
    what: str
    absence: str
    expand: Expansion = field(repr=False)
    statistics: tuple[str, ...] = BASIC
    resolution_s: int = 60

    @property
    def vended(self) -> bool:
        """Whether AWS emits it (and not we)."""
        return not self.namespace.startswith("Crosswatch/")
