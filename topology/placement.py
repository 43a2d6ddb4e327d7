"""Where each kind of signal stands: for a topology, the Region that stores it, the Region that emits it, and its dimensions."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

from topology.model import NAME_TARGET, Topology, alb_target

HEALTH_CHECK_REGION = "us-east-1"
CanaryKind = Literal["probe", "journey", "ledger"]
Places = Iterator[tuple[str, str, dict[str, str]]]

# --- where the probe's series stand: every watched Region holds the whole matrix -----------------------------------------------------


def everywhere(topology: Topology, combinations: Iterator[tuple[str, dict[str, str]]]) -> Places:
    """Each (emitting Region, dimensions) in every watched Region's CloudWatch, the workload's dimension first."""
    for emitted_by, dimensions in combinations:
        for region in topology.watched_regions:
            yield region, emitted_by, {"Workload": topology.workload, **dimensions}


def by_vantage(topology: Topology) -> Places:
    return everywhere(topology, ((vantage, {"Vantage": vantage}) for vantage in topology.vantage_names))


def matrix(topology: Topology) -> Places:
    cells = ((vantage, {"Vantage": vantage, "Target": target}) for vantage in topology.vantage_names for target in topology.targets)
    return everywhere(topology, cells)


def by_target(topology: Topology) -> Places:
    """Emitted by every vantage; any one of them keeps it alive, so no single Region's loss silences it."""
    return everywhere(topology, (("*", {"Target": target}) for target in topology.targets))


def workload(topology: Topology) -> Places:
    return everywhere(topology, iter([("*", {})]))


def by_controlled_region(topology: Topology) -> Places:
    return everywhere(topology, (("*", {"Region": region}) for region in (topology.routing.controls if topology.routing else ())))


def by_database(topology: Topology) -> Places:
    """The global databases: every vantage asks RDS about each."""
    return everywhere(topology, (("*", {"Database": database}) for database in topology.databases))


def own_matrix(topology: Topology) -> Places:
    for vantage in topology.vantage_names:
        for target in topology.targets:
            yield vantage, vantage, {"Workload": topology.workload, "Vantage": vantage, "Target": target}


def own_certificates(topology: Topology) -> Places:
    for region, vantage, dimensions in own_matrix(topology):
        target = dimensions["Target"]
        url = (
            topology.store.url if target == NAME_TARGET else next(r.alb.url for n, r in topology.regions.items() if alb_target(n) == target)
        )
        if url.startswith("https:"):
            yield region, vantage, dimensions


def own_pooled(topology: Topology) -> Places:
    """Without routing controls no Region is drained, and nothing can be stale."""
    for vantage in topology.vantage_names if topology.routing else ():
        yield vantage, vantage, {"Workload": topology.workload, "Vantage": vantage}


def writes(topology: Topology) -> Places:
    for vantage in topology.vantage_names:
        for region in topology.watched_regions:
            yield vantage, vantage, {"Workload": topology.workload, "Vantage": vantage, "Region": region}


# --- where AWS's own series stand -----------------------------------------------------------------------------------------------------


def load_balancers(topology: Topology) -> Places:
    for name, region in topology.regions.items():
        yield name, name, {"LoadBalancer": region.alb.arn_suffix}


def target_groups(topology: Topology) -> Places:
    for name, region in topology.regions.items():
        yield name, name, {"LoadBalancer": region.alb.arn_suffix, "TargetGroup": region.alb.target_group}


def ecs_services(topology: Topology) -> Places:
    for name, region in topology.regions.items():
        for service in topology.services.values():
            yield name, name, {"ClusterName": region.ecs_cluster, "ServiceName": service.ecs_service}


def discovered(topology: Topology) -> Places:
    """The called service's own Service Connect proxy reports; the UI is called by the load balancer, not through Service Connect."""
    for name, service in _called(topology):
        yield name, name, {"DiscoveryName": service}


def target_discovered(topology: Topology) -> Places:
    """The calling services' proxies report about the called one."""
    for name, service in _called(topology):
        yield name, name, {"TargetDiscoveryName": service}


def _called(topology: Topology) -> Iterator[tuple[str, str]]:
    return ((name, service.ecs_service) for name in topology.regions for key, service in topology.services.items() if key != "ui")


def secondaries(topology: Topology) -> Places:
    """Aurora's lag metrics exist in the secondary's Region only; which Region that is changes with every failover, so all may hold it."""
    for database in topology.databases.values():
        for region, cluster in database.clusters.items():
            for source in database.clusters:
                if source != region:
                    yield region, region, {"DBClusterIdentifier": cluster, "SourceRegion": source}


def db_clusters(topology: Topology) -> Places:
    for database in topology.databases.values():
        for region, cluster in database.clusters.items():
            yield region, region, {"DBClusterIdentifier": cluster}


def replicas(topology: Topology) -> Places:
    """DynamoDB's replication latency stands in the source Region, one series for each receiving Region."""
    for table in topology.tables.values():
        for source in topology.regions:
            for receiver in topology.regions:
                if receiver != source:
                    yield source, source, {"TableName": table.table, "ReceivingRegion": receiver}


def tables(topology: Topology) -> Places:
    for table in topology.tables.values():
        for region in topology.regions:
            yield region, region, {"TableName": table.table}


def caches(topology: Topology) -> Places:
    for cache in topology.caches.values():
        for region, clusters in cache.clusters.items():
            for cluster in clusters:
                yield region, region, {"CacheClusterId": cluster}


def cache_replicas(topology: Topology) -> Places:
    """Any node of a replication group may be its replica; a single node is nobody's."""
    for cache in topology.caches.values():
        for region, clusters in cache.clusters.items():
            for cluster in clusters if len(clusters) > 1 else ():
                yield region, region, {"CacheClusterId": cluster}


def brokers(topology: Topology) -> Places:
    for broker in topology.brokers.values():
        for region, name in broker.brokers.items():
            yield region, region, {"Broker": name}


def queues(topology: Topology) -> Places:
    for broker in topology.brokers.values():
        for region, name in broker.brokers.items():
            for queue in broker.queues:
                yield region, region, {"Broker": name, "VirtualHost": broker.virtual_host, "Queue": queue}


def health_checks(topology: Topology) -> Places:
    for check in topology.routing.health_checks.values() if topology.routing else ():
        yield HEALTH_CHECK_REGION, HEALTH_CHECK_REGION, {"HealthCheckId": check}


def canary_name(topology: Topology, kind: str) -> str:
    """The name of a canary; the same in every Region."""
    return f"{topology.workload}-{kind}"


def canary_kinds(topology: Topology) -> tuple[CanaryKind, ...]:
    """The canaries that this topology asks for."""
    kinds: list[CanaryKind] = ["probe"]
    if topology.journeys.journey_schedule:
        kinds.append("journey")
    if topology.journeys.ledger_schedule:
        kinds.append("ledger")
    return tuple(kinds)


def canaries(topology: Topology) -> Places:
    for vantage in topology.vantage_names:
        for kind in canary_kinds(topology):
            yield vantage, vantage, {"CanaryName": canary_name(topology, kind)}


def recovered(topology: Topology) -> Places:
    for database in topology.databases:
        for region in topology.regions:
            yield region, region, {"Workload": topology.workload, "Database": database}


def ledger(topology: Topology) -> Places:
    if topology.journeys.ledger_schedule:
        yield from by_vantage(topology)


def ledger_all(topology: Topology) -> Places:
    if topology.journeys.ledger_schedule:
        yield from workload(topology)


def ledger_replication(topology: Topology) -> Places:
    if topology.journeys.ledger_schedule:
        cells = ((vantage, {"Vantage": vantage, "Region": region}) for vantage in topology.vantage_names for region in topology.regions)
        yield from everywhere(topology, cells)


def services(topology: Topology) -> Places:
    for name in topology.regions:
        for service in topology.services:
            yield name, name, {"service.name": service}
