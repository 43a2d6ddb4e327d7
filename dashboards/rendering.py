"""From the topology to dashboard bodies: one template a dashboard, placement computed here.

A template is YAML: a list of widgets in reading order, each with a width and a height. Placing them on CloudWatch's grid of 24 columns is
arithmetic and stays out of the templates.
"""

from __future__ import annotations

import functools
import json
from pathlib import Path
from typing import Any

import jinja2
import yaml

from topology import NAME_TARGET, Topology, alb_target
from topology.signals import canary_kinds, canary_name

TEMPLATES = Path(__file__).parent / "templates"
GRID = 24
PALETTE = ("#1f6fb2", "#c96a12", "#3a8f5c", "#8a56a8", "#a83a50", "#5f6b76")
"""One colour a Region, the same in every widget; red is kept for faults."""
DIAGNOSES = ("store-down", "all-off", "name-down", "store-partial", "blind-all", "dns-disagrees")
ABOUT_REGION = ("impaired", "partial", "drained", "differ")
ABOUT_DATABASE = ("split-writer", "failover-stuck")


def bodies(topology: Topology) -> dict[str, str]:
    """Dashboard name -> body (JSON text as PutDashboard takes it)."""
    return {topology.workload: json.dumps({"start": "-PT1H", "widgets": place(widgets(topology))}, indent=1)}


def widgets(topology: Topology) -> list[dict[str, Any]]:
    """The store's widgets in reading order, not yet placed."""
    text = environment().get_template("store.yaml.j2").render(context(topology))
    rendered: list[dict[str, Any]] = yaml.safe_load(text)
    return rendered


def place(items: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Put widgets on the grid from left to right; a row is as high as its highest widget."""
    placed = []
    x = y = row = 0
    for item in items:
        if x + item["width"] > GRID:
            x, y, row = 0, y + row, 0
        placed.append({"type": item["type"], "x": x, "y": y, **{key: value for key, value in item.items() if key != "type"}})
        x, row = x + item["width"], max(row, item["height"])
    return placed


@functools.cache
def environment() -> jinja2.Environment:
    """The templates' environment: a name that is not defined is an error."""
    return jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES), undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True, autoescape=False
    )


def context(topology: Topology) -> dict[str, Any]:
    """What the template may name."""
    regions, watched = list(topology.regions), list(topology.watched_regions)
    titles = {**{alb_target(region): region for region in regions}, NAME_TARGET: topology.store.name}
    return {
        "workload": topology.workload,
        "store": topology.store.name,
        "home": regions[0],
        "survivor": regions[-1],
        "regions": regions,
        "watched": watched,
        "vantages": list(topology.vantage_names),
        "targets": titles,
        "column": max(6, GRID // len(titles)),
        "service_column": 6,
        "colors": {region: PALETTE[index % len(PALETTE)] for index, region in enumerate(watched)},
        "controls": list(topology.routing.controls) if topology.routing else [],
        "health_checks": dict(topology.routing.health_checks) if topology.routing else {},
        "degraded_ms": topology.probe.degraded_ms,
        "load_balancers": {name: region.alb.arn_suffix for name, region in topology.regions.items()},
        "services": list(topology.services),
        "writers": list(topology.databases),
        "databases": [
            {"name": name, "region": region, "cluster": cluster, "source": source}
            for name, database in topology.databases.items()
            for region, cluster in database.clusters.items()
            for source in database.clusters
            if source != region
        ],
        "tables": [
            {"name": name, "table": table.table, "region": source, "receiver": receiver}
            for name, table in topology.tables.items()
            for source in regions
            for receiver in regions
            if receiver != source
        ],
        "caches": [
            {"name": name if len(clusters) == 1 else cluster, "region": region, "cluster": cluster, "replicated": len(clusters) > 1}
            for name, cache in topology.caches.items()
            for region, clusters in cache.clusters.items()
            for cluster in clusters
        ],
        "queues": [
            {"name": queue, "region": region, "dimensions": {"Broker": name, "VirtualHost": broker.virtual_host, "Queue": queue}}
            for broker in topology.brokers.values()
            for region, name in broker.brokers.items()
            for queue in broker.queues
        ],
        "canaries": [canary_name(topology, kind) for kind in canary_kinds(topology)],
        "alarms": {region: alarm_arns(topology, region) for region in watched},
    }


def alarm_arns(topology: Topology, here: str) -> list[str]:
    """The ARNs of the diagnoses that live in ``here``: the whole store's, each database's, then those about each other Region."""
    names = [f"{topology.workload}-{kind}" for kind in DIAGNOSES if topology.routing or kind != "all-off"]
    names += [f"{topology.workload}-{kind}-{database}" for database in topology.databases for kind in ABOUT_DATABASE]
    others = [region for region in topology.regions if region != here]
    names += [f"{topology.workload}-{kind}-{region}" for region in others for kind in ABOUT_REGION if topology.routing or kind != "drained"]
    names += [f"{topology.workload}-blind-{vantage}" for vantage in topology.vantage_names if vantage != here]
    return [f"arn:aws:cloudwatch:{here}:{topology.account}:alarm:{name}" for name in names]
