"""The probe's configuration, as ``config.json`` holds it. `canaries.config.probe_config` renders it from the topology."""

from __future__ import annotations

from dataclasses import dataclass, field
from urllib.parse import urlsplit

NAME = "name"


@dataclass(frozen=True, slots=True)
class Target:
    """Something to probe: ``name`` (``alb-<region>`` or ``name``), its address, and the Region behind it, None for the Route 53 name."""

    name: str
    url: str
    region: str | None = None

    @property
    def host(self) -> str:
        """The host to resolve, connect to and name in SNI and Host."""
        return urlsplit(self.url).hostname or ""

    @property
    def secure(self) -> bool:
        """Whether it is asked over TLS."""
        return urlsplit(self.url).scheme == "https"

    @property
    def port(self) -> int:
        """The port, the scheme's own where the address has none."""
        return urlsplit(self.url).port or (443 if self.secure else 80)


@dataclass(frozen=True, slots=True)
class Page:
    """A page and what makes an answer a good one. ``body`` is a regular expression that has to be found in it."""

    name: str
    path: str
    status: int = 200
    body: str | None = None


@dataclass(frozen=True, slots=True)
class Rounds:
    """When rounds begin: on the grid ``offset_s + n * every_s`` of the clock, until ``until_s`` after the run's start."""

    every_s: float = 10.0
    offset_s: float = 6.0
    until_s: float = 50.0
    retry_after_s: float = 2.0


@dataclass(frozen=True, slots=True)
class Limits:
    """How long things may take, in seconds, and the milliseconds above which a page counts as degraded."""

    connect_s: float = 1.0
    total_s: float = 3.0
    write_s: float = 1.0
    degraded_ms: float = 1000.0
    body_bytes: int = 262_144


@dataclass(frozen=True, slots=True)
class Arc:
    """The ARC cluster's endpoints by Region, and the routing control of each Region of the workload."""

    endpoints: dict[str, str]
    controls: dict[str, str]


@dataclass(frozen=True, slots=True)
class ProbeSettings:
    """All of it. ``write_to`` maps every Region that observations go to onto a private CloudWatch endpoint, or None for AWS's own."""

    workload: str
    vantage: str
    targets: tuple[Target, ...]
    pages: tuple[Page, ...]
    write_to: dict[str, str | None]
    rounds: Rounds = field(default_factory=Rounds)
    limits: Limits = field(default_factory=Limits)
    resolver: str | None = None
    ca: str | None = None
    arc: Arc | None = None
    trace_to: str | None = None
    region_header: str = "X-Retail-Store-Metadata"
    traces: bool = True

    @property
    def regions(self) -> tuple[str, ...]:
        """The Regions that have a target of their own."""
        return tuple(target.region for target in self.targets if target.region is not None)
