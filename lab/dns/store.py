"""The store's names: its zone, one alias record per Region on a RECOVERY_CONTROL health check, and the routing controls behind them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lab.aws.services.routing_control import ON, SafetyRule
from lab.dns.checks import HealthCheck
from lab.dns.records import Alias, RecordSet, Zone, canonical
from lab.plan import DOMAIN, STORE_NAME
from lab.store.names import WORKLOAD
from lab.topology import CONTROL_PANEL, health_check_id, routing_control_arn

if TYPE_CHECKING:
    from lab.aws.service import World
    from lab.aws.services.routing_control import RoutingControls
    from lab.plan import LabPlan

ZONE_ID = "Z0LAB000000000000001"
# Where Elastic Load Balancing keeps its names, by Region (AWS General Reference).
BALANCER_ZONES = {"us-east-1": "Z35SXDOTRQ7X7K", "us-west-2": "Z1H1FL5HABSF5"}
OTHER_BALANCER_ZONE = "Z0LABBALANCERS"
BALANCER_TTL_S = 60
SOA_TTL_S, NS_TTL_S = 900, 172_800
LATENCY, FAILOVER = "latency", "failover"


def make(world: World, plan: LabPlan, policy: str = LATENCY) -> None:
    """See `lab.dns.setup`."""
    if policy not in (LATENCY, FAILOVER):
        raise ValueError(f"policy must be {LATENCY} or {FAILOVER}, not {policy!r}")
    controls: RoutingControls = world.service("route53-recovery-cluster").controls
    route53 = world.service("route53")
    if not controls.controls:
        _make_controls(controls, plan, world)
    if route53.zones.get(ZONE_ID) is None:
        for name, region in plan.regions.items():
            arn = routing_control_arn(plan.account, region.index)
            config = {"Type": "RECOVERY_CONTROL", "RoutingControlArn": arn, "Inverted": False, "Disabled": False}
            route53.checks.put(HealthCheck(health_check_id(region.index), f"{WORKLOAD}-{name}", config))
        route53.zones.put(_zone(plan, policy))


def _make_controls(controls: RoutingControls, plan: LabPlan, world: World) -> None:
    """A cluster, a panel with one control per Region, all on, and the rule that at least one stays on."""
    cluster = controls.add_cluster(WORKLOAD)
    panel_arn = f"arn:aws:route53-recovery-control::{plan.account}:controlpanel/{CONTROL_PANEL}"
    panel = controls.add_panel(f"{WORKLOAD}-regions", cluster.arn, arn=panel_arn)
    arns = {name: routing_control_arn(plan.account, region.index) for name, region in plan.regions.items()}
    for name, arn in arns.items():
        controls.add_control(f"{WORKLOAD}-{name}", panel.arn, arn=arn)
    controls.update("us-west-2", dict.fromkeys(arns.values(), ON), (), world.clock.now())
    controls.add_rule(SafetyRule("", "at-least-one-region-on", panel.arn, tuple(arns.values()), "ATLEAST", 1, False, 0))
    world.service("route53-recovery-control-config").endpoints = {name: f"http://127.0.0.1:{port}" for name, port in plan.arc_ports.items()}


def _zone(plan: LabPlan, policy: str) -> Zone:
    name = canonical(DOMAIN)
    servers = (f"ns.{name}",)
    records = [
        RecordSet(name, "SOA", SOA_TTL_S, (f"ns.{name} hostmaster.{name} 1 7200 900 1209600 86400",)),
        RecordSet(name, "NS", NS_TTL_S, servers),
        RecordSet(servers[0], "A", NS_TTL_S, ("127.0.0.1",)),
    ]
    for region in plan.regions.values():
        balancer = canonical(region.alb_name)
        records.append(RecordSet(balancer, "A", BALANCER_TTL_S, (region.ip,)))
        records.append(
            RecordSet(
                canonical(STORE_NAME),
                "A",
                alias=Alias(BALANCER_ZONES.get(region.name, OTHER_BALANCER_ZONE), balancer, True),
                set_identifier=region.name,
                region=region.name if policy == LATENCY else None,
                failover=None if policy == LATENCY else ("SECONDARY" if region.index else "PRIMARY"),
                health_check_id=health_check_id(region.index),
            )
        )
    return Zone(ZONE_ID, name, f"lab-{WORKLOAD}", "The store's names").with_records(records)
