"""From the topology to the configuration that goes into a canary's bundle."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from canaries.probe.settings import Arc, Page, ProbeSettings, Rounds
from canaries.shared.settings import encode
from canaries.shared.target import NAME, Limits, Target
from topology.model import NAME_TARGET, alb_target

if TYPE_CHECKING:
    from topology.model import Topology

assert NAME == NAME_TARGET  # the probe may not import the topology; the two have to agree


def probe_config(topology: Topology, vantage: str) -> dict[str, Any]:
    """The probe's ``config.json`` for one vantage. Reads the certificate authority's file where the topology names one."""
    return _as_json(
        ProbeSettings(
            workload=topology.workload,
            vantage=vantage,
            targets=targets(topology),
            pages=tuple(Page(page.name, page.path, page.status, page.body) for page in topology.pages),
            write_to={region: topology.endpoint(region, "monitoring") for region in topology.watched_regions},
            rounds=Rounds(**topology.probe.rounds.model_dump()),
            limits=Limits(
                connect_s=topology.probe.connect_timeout_s,
                total_s=topology.probe.total_timeout_s,
                write_s=topology.probe.write_timeout_s,
                degraded_ms=topology.probe.degraded_ms,
            ),
            resolver=topology.probe.resolvers.get(vantage),
            ca=authority(topology),
            arc=Arc(dict(topology.routing.cluster_endpoints), dict(topology.routing.controls)) if topology.routing else None,
            trace_to=topology.endpoint(vantage, "xray"),
        )
    )


def targets(topology: Topology) -> tuple[Target, ...]:
    """Every Region's load balancer, then the Route 53 name."""
    balancers = [Target(alb_target(name), region.alb.url, name) for name, region in topology.regions.items()]
    return (*balancers, Target(NAME_TARGET, topology.store.url))


def authority(topology: Topology) -> str | None:
    """The PEM text of the store's own certificate authority, None where the public ones do. Raises OSError where it cannot be read."""
    return Path(topology.store.ca_file).read_text(encoding="ascii") if topology.store.ca_file else None


def _as_json(settings: object) -> dict[str, Any]:
    encoded: dict[str, Any] = encode(settings)
    return encoded
