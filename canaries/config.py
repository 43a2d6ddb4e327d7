"""From the topology to the configuration that goes into a canary's bundle."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from canaries.journey.settings import JourneySettings
from canaries.ledger.settings import LedgerSettings
from canaries.probe.settings import Arc, Database, Page, ProbeSettings, Rounds
from canaries.shared.settings import encode
from canaries.shared.target import NAME, Limits, Target
from topology.model import NAME_TARGET, alb_target

if TYPE_CHECKING:
    from canaries.bundle import Kind
    from topology.model import Topology

assert NAME == NAME_TARGET  # what runs in a bundle may not import the topology; the two have to agree


def canary_config(kind: Kind, topology: Topology, vantage: str) -> dict[str, Any]:
    """The ``config.json`` of a canary of this kind for one vantage. Raises OSError where the store's ``ca_file`` cannot be read."""
    return {"probe": probe_config, "journey": journey_config, "ledger": ledger_config}[kind](topology, vantage)


def probe_config(topology: Topology, vantage: str) -> dict[str, Any]:
    """The probe's configuration."""
    probe = topology.probe
    return _as_json(
        ProbeSettings(
            **_common(topology, vantage),
            pages=tuple(Page(page.name, page.path, page.status, page.body) for page in topology.pages),
            write_to=write_to(topology),
            rounds=Rounds(**probe.rounds.model_dump()),
            arc=Arc(dict(topology.routing.cluster_endpoints), dict(topology.routing.controls)) if topology.routing else None,
            databases={name: Database(each.global_cluster, dict(each.clusters)) for name, each in topology.databases.items()},
            rds={region: topology.endpoint(region, "rds") for each in topology.databases.values() for region in each.clusters},
        )
    )


def journey_config(topology: Topology, vantage: str) -> dict[str, Any]:
    """The journey's configuration."""
    return _as_json(JourneySettings(**_common(topology, vantage)))


def ledger_config(topology: Topology, vantage: str) -> dict[str, Any]:
    """The ledger's configuration."""
    return _as_json(LedgerSettings(**_common(topology, vantage), write_to=write_to(topology), s3_endpoint=topology.endpoint(vantage, "s3")))


def targets(topology: Topology) -> tuple[Target, ...]:
    """Every Region's load balancer, then the Route 53 name."""
    balancers = [Target(alb_target(name), region.alb.url, name) for name, region in topology.regions.items()]
    return (*balancers, Target(NAME_TARGET, topology.store.url))


def write_to(topology: Topology) -> dict[str, str | None]:
    """Every Region that observations go to, with its private CloudWatch endpoint where there is one."""
    return {region: topology.endpoint(region, "monitoring") for region in topology.watched_regions}


def authority(topology: Topology) -> str | None:
    """The PEM text of the store's own certificate authority, None where the public ones do. Raises OSError where it cannot be read."""
    return Path(topology.store.ca_file).read_text(encoding="ascii") if topology.store.ca_file else None


def _common(topology: Topology, vantage: str) -> dict[str, Any]:
    probe = topology.probe
    return {
        "workload": topology.workload,
        "vantage": vantage,
        "targets": targets(topology),
        "limits": Limits(probe.connect_timeout_s, probe.total_timeout_s, probe.write_timeout_s, probe.degraded_ms),
        "resolver": probe.resolvers.get(vantage),
        "ca": authority(topology),
        "trace_to": topology.endpoint(vantage, "xray"),
    }


def _as_json(settings: object) -> dict[str, Any]:
    encoded: dict[str, Any] = encode(settings)
    return encoded
