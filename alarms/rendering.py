"""From the topology to alarm definitions: Jinja2 templates in, items in the shape of PutMetricAlarm and PutCompositeAlarm out.

Every item carries ``Region`` beside the API's parameters. Names and topics are the same in every Region, so the ARNs are known beforehand
and nothing has to be looked up. Children stand before the composites that name them: the list is a valid order of deployment.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jinja2
import yaml

from alarms import slo
from alarms.diagnosis import Diagnosis, Names, alarm_topic, diagnoses, ledger_period_s, page_topic, paged, targets
from topology import Topology
from topology.model import NAME_TARGET, alb_target

TEMPLATES = Path(__file__).parent / "templates"
TEMPLATE_NAMES = ("probe.yaml.j2", "writers.yaml.j2", "ledger.yaml.j2", "stores.yaml.j2", "diagnoses.yaml.j2", "delivery.yaml.j2")
DESCRIPTION_LIMIT = 1024

TICKETS = {
    "rpo": "The secondary of {subject} is further behind than the recovery point objective: a failover now would lose that much.",
    "replication": "Writes to {subject} take too long to arrive in the other Region.",
    "evictions": "The cache of {subject} evicts keys for want of memory: carts in checkout may be lost.",
    "cache-lag": "A replica of the cache {subject} is far behind its primary, or hears nothing of it: a failover now would lose that much. "
    "Look at the replication group's events, and at what its nodes say of each other.",
    "unconsumed": "Messages wait in the queue {subject} and nobody consumes them.",
    "unwritable": "Nothing can be written to CloudWatch in {subject} from here: its alarms do not see what this Region sees.",
    "orders-lost": "Orders that the store acknowledged to the ledger in {subject} are gone; its last run names them. "
    "After a failover, run the report of missing transactions; without one, look for two writers.",
    "certificate": "The certificate that {subject} shows expires soon.",
}


def definitions(topology: Topology) -> list[dict[str, Any]]:
    """Every alarm of every watched Region, each with its ``Region``."""
    return [{"Region": region, **item} for region in topology.watched_regions for item in region_definitions(topology, region)]


def region_definitions(topology: Topology, region: str) -> list[dict[str, Any]]:
    """The alarms that live in ``region``, in an order in which they can be created."""
    context = _context(topology, region)
    items: list[dict[str, Any]] = []
    for template in TEMPLATE_NAMES:
        text = environment().get_template(template).render(context)
        items += yaml.safe_load(text) or []
    return items + slo.region_definitions(topology, region, Names(topology)("paged"))


def ticket_incidents(topology: Topology, region: str) -> dict[str, dict[str, Any]]:
    """What the notifier says of the data stores' alarms and the objectives'; the diagnoses' texts are `alarms.diagnosis.incidents`."""
    incidents = {}
    for kind, subject, name in _tickets(topology, region):
        incidents[name] = {
            "diagnosis": kind,
            "severity": "warning",
            "subject": subject,
            "summary": f"{kind} of {subject} in {region}",
            "description": TICKETS[kind].format(subject=subject),
            "dedup_key": f"{topology.workload}/{name}/{region}",
            "runbook": None,
        }
    return incidents | slo.incidents(topology, region)


def describe(topology: Topology, diagnosis: Diagnosis) -> str:
    """The alarm's description: what a person needs who sees nothing but the bare SNS message."""
    text = f"[{diagnosis.severity}] {diagnosis.summary}. {diagnosis.description}"
    incident = diagnosis.incident()
    if incident["runbook"]:
        arguments = " ".join(f"{key}={value}" for key, value in incident["runbook"]["parameters"].items())
        text += f" Runbook: {incident['runbook']['document']} {arguments} (start it in {diagnosis.run_in})."
    if topology.runbooks.guide_url:
        text += f" Guide: {topology.runbooks.guide_url}"
    return text[:DESCRIPTION_LIMIT]


@functools.cache
def environment() -> jinja2.Environment:
    """The templates' environment: a name that is not defined is an error, never an empty text."""
    return jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        autoescape=False,
    )


def _context(topology: Topology, here: str) -> dict[str, Any]:
    in_workload = here in topology.regions
    return {
        "here": here,
        "workload": topology.workload,
        "store": topology.store.name,
        "name": Names(topology),
        "targets": targets(topology),
        "vantages": topology.vantage_names,
        "witnesses": [each for each in topology.vantage_names if each != here] if len(topology.vantage_names) > 2 else [],
        "controls": list(topology.routing.controls) if topology.routing else [],
        "topic": alarm_topic(topology, here),
        "page_topic": page_topic(topology, here),
        "diagnoses": list(diagnoses(topology, here)),
        "paging": paged(topology, here),
        "described": functools.partial(describe, topology),
        "text": lambda kind, subject: TICKETS[kind].format(subject=subject),
        "writers": [{"name": name, "failover_minutes": database.failover_s // 60} for name, database in topology.databases.items()],
        "databases": [
            {
                "name": name,
                "cluster": database.clusters[here],
                "rpo_s": database.rpo_s,
                "sources": [r for r in database.clusters if r != here],
            }
            for name, database in topology.databases.items()
            if here in database.clusters
        ],
        "tables": [
            {
                "name": name,
                "table": table.table,
                "replication_s": table.replication_s,
                "receivers": [r for r in topology.regions if r != here],
            }
            for name, table in topology.tables.items()
            if in_workload
        ],
        "caches": [
            {"name": name, "cluster": cluster, "subject": name if len(cache.clusters[here]) == 1 else cluster}
            for name, cache in topology.caches.items()
            for cluster in cache.clusters.get(here, ())
        ],
        "groups": [
            {"name": name, "clusters": nodes, "lag_s": cache.lag_s}
            for name, cache in topology.caches.items()
            if len(nodes := cache.clusters.get(here, ())) > 1
        ],
        "queues": [
            {
                "name": queue,
                "subject": f"{name}-{queue}",
                "dimensions": {"Broker": broker.brokers[here], "VirtualHost": broker.virtual_host, "Queue": queue},
            }
            for name, broker in topology.brokers.items()
            if here in broker.brokers
            for queue in broker.queues
        ],
        "ledger_period_s": ledger_period_s(topology),
        "written": [region for region in topology.watched_regions if region != here],
        "certificates": [{"target": target, "days": topology.probe.certificate_days} for target in _tls_targets(topology)],
    }


def _tls_targets(topology: Topology) -> Iterator[str]:
    """The targets that show a certificate."""
    for region, part in topology.regions.items():
        if part.alb.url.startswith("https:"):
            yield alb_target(region)
    if topology.store.scheme == "https":
        yield NAME_TARGET


def _tickets(topology: Topology, here: str) -> Iterator[tuple[str, str, str]]:
    """(kind, subject, alarm name) of each alarm that stores.yaml.j2 or ledger.yaml.j2 makes in ``here``."""
    context, name = _context(topology, here), Names(topology)
    for database in context["databases"]:
        yield from (("rpo", database["name"], name("rpo", f"{database['name']}-from-{source}")) for source in database["sources"])
    for table in context["tables"]:
        yield from (("replication", table["name"], name("replication", f"{table['name']}-to-{r}")) for r in table["receivers"])
    yield from (("evictions", cache["name"], name("evictions", cache["subject"])) for cache in context["caches"])
    yield from (("cache-lag", group["name"], name("cache-lag", group["name"])) for group in context["groups"])
    yield from (("unconsumed", queue["subject"], name("unconsumed", queue["subject"])) for queue in context["queues"])
    if context["ledger_period_s"]:
        yield from (("orders-lost", vantage, name("orders-lost", vantage)) for vantage in context["vantages"])
    yield from (("unwritable", region, name("unwritable", region)) for region in context["written"])
    yield from (("certificate", item["target"], name("certificate", item["target"])) for item in context["certificates"])
