"""DNS and routing: name servers, resolvers, the routing controls and the cluster that holds them."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

from lab import admin
from lab.faults.fault import Fault, Where, the
from lab.topology import lab_topology

if TYPE_CHECKING:
    from lab.faults.ground import Ground

CONTROL = the("the routing control of {region}")
CLUSTER = the("the endpoints of the recovery cluster")
NAME_SERVERS = the("the name servers")
RESOLVER = the("the resolver of {region}")


def _name_servers(fault: str, ground: Ground, _region: str) -> None:
    admin.call(ground.plan.dns_admin_port, "POST", "/authority", {fault: True})


def _whole_name_servers(ground: Ground, _region: str, _memory: None) -> None:
    admin.call(ground.plan.dns_admin_port, "POST", "/authority", {})


def _resolver(faults: dict[str, Any], ground: Ground, region: str) -> None:
    admin.call(ground.plan.dns_admin_port, "POST", f"/resolvers/{region}", faults)


def _whole_resolver(ground: Ground, region: str, _memory: None) -> None:
    admin.call(ground.plan.dns_admin_port, "POST", f"/resolvers/{region}", {"forget": True})


def _cluster(endpoints: int | None, ground: Ground, _region: str) -> None:
    for name in list(ground.plan.arc_ports)[:endpoints]:
        admin.call(ground.plan.dns_admin_port, "POST", f"/arc/{name}", {"down": True})


def _whole_cluster(ground: Ground, _region: str, _memory: None) -> None:
    for name in ground.plan.arc_ports:
        admin.call(ground.plan.dns_admin_port, "POST", f"/arc/{name}", {})


def _switch(ground: Ground, states: dict[str, str]) -> None:
    """Set routing controls through the first cluster endpoint that answers, overriding the safety rule."""
    from botocore.exceptions import BotoCoreError, ClientError

    routing = lab_topology(ground.plan).routing
    assert routing is not None
    rules = ground.client("route53-recovery-control-config", "us-west-2" if "us-west-2" in ground.plan.regions else next(iter(states)))
    panel = next(iter(routing.controls.values())).rpartition("/routingcontrol/")[0]
    overridden = [
        rule[kind]["SafetyRuleArn"]
        for rule in rules.list_safety_rules(ControlPanelArn=panel)["SafetyRules"]
        for kind in ("ASSERTION", "GATING")
        if kind in rule
    ]
    entries = [{"RoutingControlArn": routing.controls[name], "RoutingControlState": state} for name, state in states.items()]
    failure: Exception | None = None
    for region, url in routing.cluster_endpoints.items():
        client = ground.client("route53-recovery-cluster", region, endpoint_url=url)
        try:
            client.update_routing_control_states(UpdateRoutingControlStateEntries=entries, SafetyRulesToOverride=overridden)
        except (BotoCoreError, ClientError) as error:
            failure = error
        else:
            return
    raise ConnectionError(f"no endpoint of the cluster took the routing controls: {failure}")


def _drain(ground: Ground, region: str) -> None:
    _switch(ground, {region: "Off"})


def _enable(ground: Ground, region: str, _memory: None) -> None:
    _switch(ground, {region: "On"})


def _all_off(ground: Ground, _region: str) -> None:
    _switch(ground, dict.fromkeys(ground.plan.regions, "Off"))


def _all_on(ground: Ground, _region: str, _memory: None) -> None:
    _switch(ground, dict.fromkeys(ground.plan.regions, "On"))


FAULTS = (
    Fault(
        "drained",
        "routing",
        "No fault at all: somebody drains a healthy Region by turning its routing control off.",
        "the name answers with the other Regions only",
        Where.REGION,
        _drain,
        _enable,
        touches=CONTROL,
    ),
    Fault(
        "all-controls-off",
        "routing",
        "Every routing control is off, the safety rule overridden: Route 53 answers as if all were on.",
        "every routing control reads Off",
        Where.LAB,
        _all_off,
        _all_on,
        touches=CONTROL,
    ),
    Fault(
        "arc-endpoint-down",
        "routing",
        "One of the recovery cluster's five endpoints is down; the others serve.",
        "the first endpoint closes every connection without an answer",
        Where.LAB,
        partial(_cluster, 1),
        _whole_cluster,
        touches=CLUSTER,
    ),
    Fault(
        "arc-down",
        "routing",
        "All five endpoints of the recovery cluster are down: routing can be neither read nor changed.",
        "every endpoint closes connections without an answer; the routing state is unknown",
        Where.LAB,
        partial(_cluster, None),
        _whole_cluster,
        touches=CLUSTER,
    ),
    Fault(
        "dns-down",
        "dns",
        "The name servers of the store's zone do not answer.",
        "queries to the authoritative servers time out",
        Where.LAB,
        partial(_name_servers, "down"),
        _whole_name_servers,
        touches=NAME_SERVERS,
    ),
    Fault(
        "dns-stuck",
        "dns",
        "The name servers go on answering as things are now: no drain and no failed health check changes the answer.",
        "after a drain the name still answers with the drained Region",
        Where.LAB,
        partial(_name_servers, "stuck"),
        _whole_name_servers,
        touches=NAME_SERVERS,
    ),
    Fault(
        "resolver-down",
        "dns",
        "The resolver of one Region does not answer: its clients find no name at all.",
        "queries to the Region's resolver time out",
        Where.REGION,
        partial(_resolver, {"down": True}),
        _whole_resolver,
        touches=RESOLVER,
    ),
    Fault(
        "resolver-servfail",
        "dns",
        "The resolver of one Region answers SERVFAIL to everything.",
        "queries to the Region's resolver get SERVFAIL",
        Where.REGION,
        partial(_resolver, {"servfail": True}),
        _whole_resolver,
        touches=RESOLVER,
    ),
    Fault(
        "resolver-slow",
        "dns",
        "The resolver of one Region takes two seconds for every answer.",
        "queries to the Region's resolver take 2 s",
        Where.REGION,
        partial(_resolver, {"delay_s": 2.0}),
        _whole_resolver,
        touches=RESOLVER,
    ),
    Fault(
        "ttl-ignored",
        "dns",
        "The clients of one Region hold DNS answers for an hour, as pooled clients and some runtimes do.",
        "the Region's resolver goes on answering when the TTL is 0, and misses a drain",
        Where.REGION,
        partial(_resolver, {"least_ttl_s": 3600.0}),
        _whole_resolver,
        touches=RESOLVER,
    ),
)
