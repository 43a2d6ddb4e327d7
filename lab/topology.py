"""The lab's store as a topology: the same file format that a user writes for AWS, with the lab's addresses in it.

`document` gives the mapping, `write` puts it as ``topology.yaml`` into the state directory, from where the command line reads it like any
other. Only what is different in the lab stands here: names, ports, endpoints, and timeouts that suit the lab's speed. It has no objectives:
their windows are hours and days long, and a lab in which five Regions are lost in twenty minutes has no error budget worth a page.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from lab.plan import CACHE_NODES, STORE_NAME, LabPlan
from lab.store import names
from lab.store.names import WORKLOAD
from topology import Topology, load

CONTROL_PANEL = "0123456789abcdef0123456789abcdef"


def routing_control_arn(account: str, index: int) -> str:
    """The ARN of the routing control of the lab's Region ``index``."""
    return f"arn:aws:route53-recovery-control::{account}:controlpanel/{CONTROL_PANEL}/routingcontrol/{index + 1:016x}"


def health_check_id(index: int) -> str:
    """The id of the RECOVERY_CONTROL health check of the lab's Region ``index``."""
    return f"{index + 1:08d}-0000-4000-8000-000000000000"


def document(plan: LabPlan) -> dict[str, Any]:
    """The topology of the lab with ``plan`` as plain data."""
    return {
        "workload": WORKLOAD,
        "account": plan.account,
        "environment": "lab",
        "store": {"name": STORE_NAME, "scheme": "https", "port": plan.alb_port, "ttl_s": 60, "ca_file": str(plan.ca_file)},
        "pages": [
            {"name": "home", "path": "/home", "body": "Retail Store"},
            {"name": "catalog", "path": "/catalog", "body": "Catalog"},
            {"name": "cart", "path": "/cart", "body": "Cart"},
            {"name": "orders", "path": "/orders?email=probe@crosswatch.invalid&size=1", "body": "Orders"},
        ],
        "regions": {
            name: {
                "alb": {
                    "url": f"https://{region.alb_name}:{plan.alb_port}",
                    "arn_suffix": names.load_balancer(region.index),
                    "target_group": names.target_group(region.index),
                },
                "ecs_cluster": names.CLUSTER,
            }
            for name, region in plan.regions.items()
        },
        "services": {
            service: {"ecs_service": service, "log_group": names.log_group(service)}
            for service in ("ui", "catalog", "carts", "checkout", "orders")
        },
        "routing": {
            "cluster_endpoints": {name: f"http://127.0.0.1:{port}" for name, port in plan.arc_ports.items()},
            "controls": {name: routing_control_arn(plan.account, region.index) for name, region in plan.regions.items()},
            "health_checks": {name: health_check_id(region.index) for name, region in plan.regions.items()},
        },
        "databases": {
            database: {
                "global_cluster": names.global_cluster(database),
                "engine": "aurora-postgresql",
                "clusters": {name: names.db_cluster(database, name) for name in plan.regions},
                "rpo_s": rpo_s,
            }
            for database, rpo_s in (("catalog", 60), ("orders", 30))
        },
        "tables": {"carts": {"table": names.CARTS_TABLE, "replication_s": 60}},
        "caches": {"checkout": {"clusters": {name: [names.cache_node(name, node) for node in CACHE_NODES] for name in plan.regions}}},
        "brokers": {"orders": {"brokers": {name: names.broker(name) for name in plan.regions}, "queues": [names.QUEUE]}},
        "runbooks": {
            "drain": {"document": f"{WORKLOAD}-DrainRegion", "parameters": {"Region": "{region}"}},
            "enable": {"document": f"{WORKLOAD}-EnableRegion", "parameters": {"Region": "{region}"}},
            "failover": {
                "catalog": {"document": f"{WORKLOAD}-FailoverCatalog", "parameters": {"FromRegion": "{region}"}},
                "orders": {"document": f"{WORKLOAD}-FailoverOrders", "parameters": {"FromRegion": "{region}"}},
            },
            "rebuild": {
                database: {"document": f"{WORKLOAD}-RebuildRegion", "parameters": {"Region": "{region}", "Database": database}}
                for database in ("catalog", "orders")
            },
            "missing_transactions": {"document": f"{WORKLOAD}-MissingTransactions", "parameters": {"FromRegion": "{region}"}},
        },
        "paging": {
            "subscriptions": [{"protocol": "http", "endpoint": f"http://127.0.0.1:{plan.oncall_port}/sns"}],
            "console_url": f"http://127.0.0.1:{plan.console_port}",
        },
        # Timeouts are wall seconds in every lab, since latencies are; a busy laptop needs some, whatever the speed.
        "probe": {
            "connect_timeout_s": max(0.4, round(1.0 / plan.clock.speed, 3)),
            "total_timeout_s": max(1.0, round(3.0 / plan.clock.speed, 3)),
            "write_timeout_s": max(0.5, round(1.0 / plan.clock.speed, 3)),
            "degraded_ms": 1000,
            "resolvers": {name: f"127.0.0.1:{region.resolver_port}" for name, region in plan.regions.items()},
        },
        "endpoints": {name: {"*": region.aws_endpoint} for name, region in plan.regions.items()},
    }


def topology_file(plan: LabPlan) -> Path:
    """Where the lab's topology stands."""
    return plan.path / "topology.yaml"


def write(plan: LabPlan) -> Path:
    """Write the lab's topology into the state directory."""
    file = topology_file(plan)
    file.write_text("# The lab's own store; written by `lab up`.\n" + yaml.safe_dump(document(plan), sort_keys=False, width=140))
    return file


def lab_topology(plan: LabPlan) -> Topology:
    """The lab's topology, read back from its file as a user's would be."""
    return load(write(plan))
