"""The probe's configuration, as ``config.json`` holds it. `canaries.config.probe_config` renders it from the topology."""

from __future__ import annotations

from dataclasses import dataclass, field

from canaries.shared.target import Common


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
class Arc:
    """The ARC cluster's endpoints by Region, and the routing control of each Region of the workload."""

    endpoints: dict[str, str]
    controls: dict[str, str]


@dataclass(frozen=True, slots=True)
class Database:
    """An Aurora global database: its GlobalClusterIdentifier, and the DBClusterIdentifier of its cluster in each Region."""

    global_cluster: str
    clusters: dict[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class ProbeSettings(Common):
    """All of it. ``write_to`` maps every Region that observations go to onto a private CloudWatch endpoint, or None for AWS's own;
    ``rds`` does the same for the Regions in which RDS is asked about ``databases``."""

    pages: tuple[Page, ...]
    write_to: dict[str, str | None]
    rounds: Rounds = Rounds()
    arc: Arc | None = None
    databases: dict[str, Database] = field(default_factory=dict)
    rds: dict[str, str | None] = field(default_factory=dict)
