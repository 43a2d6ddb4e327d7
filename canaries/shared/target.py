"""What canaries look at, and how long anything may take: the parts of their configuration that all of them share."""

from __future__ import annotations

from dataclasses import dataclass
from urllib.parse import urlsplit

NAME = "name"


@dataclass(frozen=True, slots=True)
class Target:
    """Something to ask: ``name`` (``alb-<region>`` or ``name``), its address, and the Region behind it, None for the Route 53 name."""

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
class Limits:
    """How long things may take, in seconds, and the milliseconds above which a page counts as degraded."""

    connect_s: float = 1.0
    total_s: float = 3.0
    write_s: float = 1.0
    degraded_ms: float = 1000.0
    body_bytes: int = 262_144


@dataclass(frozen=True, slots=True, kw_only=True)
class Common:
    """What every canary's configuration has.

    workload, vantage   whose store is looked at, and from which Region
    targets             the Regions' load balancers and the Route 53 name
    resolver            ``ip:port`` of a DNS server, None for the system's
    ca                  PEM text of the store's own certificate authority, None for the public ones
    trace_to            a private X-Ray endpoint, None for AWS's own
    """

    workload: str
    vantage: str
    targets: tuple[Target, ...]
    limits: Limits = Limits()
    resolver: str | None = None
    ca: str | None = None
    trace_to: str | None = None
    traces: bool = True
    region_header: str = "X-Retail-Store-Metadata"

    @property
    def regions(self) -> tuple[str, ...]:
        """The Regions that have a target of their own."""
        return tuple(target.region for target in self.targets if target.region is not None)

    @property
    def name(self) -> Target:
        """The store's Route 53 name."""
        return next(target for target in self.targets if target.region is None)
