"""Whole Regions: lost, or cut off from the others."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lab import admin
from lab.faults.fault import Fault, Where, the
from lab.plan import SERVICES

if TYPE_CHECKING:
    from lab.faults.ground import Ground

LINKS, SLOWNESS = "whether the peering lets anything pass", "how slow the peering is"
IN_PROCESSES = the(
    *(f"{what} of {service} in {{region}}" for service in SERVICES for what in ("the tasks", "the conduct")),
    *(f"the load balancer's {what} in {{region}}" for what in ("health check", "targets", "certificate")),
    *(f"the cache's {what} in {{region}}" for what in ("memory", "replication")),
    *(f"the broker's {what} in {{region}}" for what in ("memory alarm", "disk alarm", "consumers")),
    "the writer endpoint of orders in {region}",
    LINKS,
    SLOWNESS,
)
"""What the processes of a Region are told, and forget when they end."""


def _lose(ground: Ground, region: str) -> str:
    ground.begun = condition = ground.impose("down", region)
    ground.processes.hold(ground.processes.names(region=region), f"region-down/{region}")
    return condition


def _return(ground: Ground, region: str, condition: str) -> None:
    ground.lift(condition)
    ground.processes.release(ground.processes.names(region=region), f"region-down/{region}")


def _cut(ground: Ground, region: str) -> None:
    for here, there in _links(ground, region):
        admin.call(ground.region(here).peering_port, "PUT", f"/links/{there}", {"state": "silent"})


def _reconnect(ground: Ground, region: str, _memory: None) -> None:
    for here, there in _links(ground, region):
        admin.call(ground.region(here).peering_port, "PUT", f"/links/{there}", {"state": "up"})


def _links(ground: Ground, region: str) -> list[tuple[str, str]]:
    return [pair for other in ground.others(region) for pair in ((region, other), (other, region))]


FAULTS = (
    Fault(
        "region-down",
        "region",
        "A whole Region is gone at once: its load balancer, services, data stores, canaries, alarms and AWS endpoints.",
        "every process of the Region is dead and its AWS endpoint refuses connections",
        Where.REGION,
        _lose,
        _return,
        forgets=IN_PROCESSES,
    ),
    Fault(
        "region-cut-off",
        "region",
        "The peering between a Region and the others swallows every packet; users reach both, the databases do not reach each other.",
        "the replicas' lag grows on both sides of the cut",
        Where.REGION,
        _cut,
        _reconnect,
        touches=the(LINKS),
    ),
)
