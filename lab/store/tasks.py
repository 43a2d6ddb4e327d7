"""What a task of each service is started with: command, environment and log, as an ECS task definition says it."""

from __future__ import annotations

import os
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from lab.clock import CLOCK_VARIABLE
from lab.store import names
from lab.store.connect import CLIENTS

if TYPE_CHECKING:
    from lab.plan import LabPlan, RegionPlan

MODULES = {
    "ui": "lab.store.ui.app",
    "catalog": "lab.store.catalog",
    "carts": "lab.store.carts",
    "checkout": "lab.store.checkout",
    "orders": "lab.store.orders",
}
USED_LIBRARIES = {
    "ui": {"flask", "requests", "logging"},
    "catalog": {"flask", "psycopg", "logging"},
    "carts": {"flask", "botocore", "logging"},
    "checkout": {"flask", "redis", "requests", "logging"},
    "orders": {"flask", "psycopg", "pika", "logging"},
}
MEMORY_MB = 512
CPUS = 0.5


def command(service: str) -> tuple[str, ...]:
    """How a task of ``service`` is started."""
    return (sys.executable, "-m", MODULES[service])


def environment(plan: LabPlan, region: str, service: str, port: int, task: str) -> dict[str, str]:
    """The environment of one task: nothing but what it needs, so that it behaves the same wherever the lab was started."""
    here = plan.regions[region]
    root = str(Path(__file__).resolve().parents[2])
    values = {
        "PATH": os.environ.get("PATH", ""),
        "HOME": plan.directory,
        "PYTHONPATH": root,
        "PYTHONUNBUFFERED": "1",
        "PORT": str(port),
        "RETAIL_TASK_ID": task,
        CLOCK_VARIABLE: plan.clock.to_environment(),
        **plan.aws_environment("service", region),
        **_settings(here, service),
    }
    if identity := os.environ.get("CROSSWATCH_LAB_ID"):
        values["CROSSWATCH_LAB_ID"] = identity
    return values | telemetry(plan, region, service, root, task)


def _settings(here: RegionPlan, service: str) -> dict[str, str]:
    """The service's own settings."""

    def database(name: str) -> dict[str, str]:
        upper = name.upper()
        reader, writer = here.postgres_ports[name], here.writer_ports[name]
        return {
            f"RETAIL_{upper}_READER": f"host=127.0.0.1 port={reader} user=postgres dbname={name}",
            f"RETAIL_{upper}_WRITER": f"host=127.0.0.1 port={writer} user=postgres dbname={name}",
        }

    def endpoint(name: str) -> dict[str, str]:
        return {f"RETAIL_ENDPOINT_{name.upper()}": f"http://{CLIENTS[service]}:{here.connect_ports[name]}"}

    match service:
        case "ui":
            return endpoint("catalog") | endpoint("carts") | endpoint("checkout") | endpoint("orders")
        case "carts":
            return {"RETAIL_CARTS_TABLE": names.CARTS_TABLE}
        case "checkout":
            return {"RETAIL_CHECKOUT_REDIS": f"redis://127.0.0.1:{here.redis_port}/0"} | endpoint("orders")
        case "orders":
            return {"RETAIL_ORDERS_AMQP": f"amqp://retail:retail@127.0.0.1:{here.amqp_port}/%2F"} | database("orders")
        case _:
            return database(service)


def telemetry(plan: LabPlan, region: str, service: str, root: str, task: str) -> dict[str, str]:
    """What switches instrumentation on, from outside: nothing in the services knows of it.

    ``opentelemetry-instrument`` does no more than put its folder with a ``sitecustomize`` module in front of PYTHONPATH and start the
    program; we do the first and spare ten processes the second. Without the distribution ``crosswatch-exporters`` the tasks run bare.
    """
    spec = find_spec("opentelemetry.instrumentation.auto_instrumentation") if find_spec("opentelemetry.instrumentation") else None
    if spec is None or spec.origin is None or not _distro_installed():
        return {}
    others = [name for name in plan.regions if name != region]
    endpoint = plan.regions[region].aws_endpoint
    values = {
        "PYTHONPATH": os.pathsep.join([str(Path(spec.origin).parent), root]),
        "OTEL_PYTHON_DISTRO": "crosswatch",
        "OTEL_PYTHON_CONFIGURATOR": "crosswatch",
        "OTEL_SERVICE_NAME": service,
        "OTEL_RESOURCE_ATTRIBUTES": ",".join(
            (
                f"service.namespace={names.WORKLOAD}",
                f"service.instance.id={task}",
                "deployment.environment.name=production",
                f"aws.log.group.names={names.log_group(service)}",
                f"aws.ecs.cluster.name={names.CLUSTER}",
                f"cloud.region={region}",
            )
        ),
        "OTEL_PROPAGATORS": "tracecontext,baggage,xray",
        "OTEL_PYTHON_DISABLED_INSTRUMENTATIONS": ",".join(_installed_instrumentations() - USED_LIBRARIES[service]),
        "OTEL_PYTHON_EXCLUDED_URLS": "actuator/health,/health$,/chaos",
        "OTEL_METRIC_EXPORT_INTERVAL": str(max(2000, int(60_000 / plan.clock.speed))),
        "CROSSWATCH_SIGV4": "always",
        "CROSSWATCH_SPOOL_DIR": str(plan.path / "spool" / region / service),
        "OTEL_EXPORTER_OTLP_LOGS_HEADERS": f"x-aws-log-group={names.log_group(service)},x-aws-log-stream={service}",
        "CROSSWATCH_EMF_LOG_GROUP": names.metrics_log_group(service),
        "CROSSWATCH_EMF_LOG_STREAM": service,
    }
    for signal in ("traces", "logs", "metrics"):
        values[f"OTEL_EXPORTER_OTLP_{signal.upper()}_ENDPOINT"] = f"{endpoint}/v1/{signal}"
        if others:
            values[f"CROSSWATCH_FAILOVER_OTLP_{signal.upper()}_ENDPOINT"] = f"{plan.regions[others[0]].aws_endpoint}/v1/{signal}"
    if others:
        values["CROSSWATCH_FAILOVER_REGION"] = others[0]
    return values


def _distro_installed() -> bool:
    from importlib.metadata import entry_points

    return any(point.name == "crosswatch" for point in entry_points(group="opentelemetry_distro"))


def _installed_instrumentations() -> set[str]:
    from importlib.metadata import entry_points

    return {point.name for point in entry_points(group="opentelemetry_instrumentor")}
