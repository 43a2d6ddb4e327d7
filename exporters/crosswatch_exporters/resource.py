"""The resource: what the environment says, and on ECS what the task says, including what the stock detector leaves out.

Region, account, availability zone, task and log groups: in a system of two Regions, telemetry without its Region is of little use.
https://docs.aws.amazon.com/AmazonECS/latest/developerguide/task-metadata-endpoint-v4-response.html
"""

import json
import logging
import os
import socket
from collections.abc import Mapping
from typing import Any

from opentelemetry.sdk.resources import Resource

from crosswatch_exporters import __version__
from crosswatch_exporters.aws.credentials import fetch
from crosswatch_exporters.settings import Settings

log = logging.getLogger(__name__)


def make_resource(settings: Settings, environ: Mapping[str, str] = os.environ) -> Resource:
    """The resource of this process. What OTEL_RESOURCE_ATTRIBUTES names wins over what is detected."""
    detected: dict[str, Any] = {}
    if settings.region:
        detected |= {"cloud.provider": "aws", "cloud.region": settings.region}
    if settings.account_id:
        detected["cloud.account.id"] = settings.account_id
    if address := environ.get("ECS_CONTAINER_METADATA_URI_V4"):
        try:
            detected |= ecs_attributes(json.loads(fetch(address, timeout=1.0)), json.loads(fetch(f"{address}/task", timeout=1.0)))
        except (OSError, ValueError, KeyError, TypeError) as error:
            log.warning("the ECS task metadata could not be read: %s", error)
    detected |= {
        "telemetry.distro.name": "crosswatch-exporters",
        "telemetry.distro.version": __version__,
        "host.name": socket.gethostname(),
    }
    detected |= process_attributes()
    return Resource(detected).merge(Resource.create())


def process_attributes() -> dict[str, Any]:
    """What differs between a process and its forked children."""
    return {"service.instance.id": _random_uuid(), "process.pid": os.getpid()}


def _random_uuid() -> str:
    """A version 4 UUID; importing `uuid` for it would cost the service's start as much as all of this package."""
    number = int.from_bytes(os.urandom(16), "big") & ~(0xF << 76) & ~(0x3 << 62) | 4 << 76 | 2 << 62
    digits = f"{number:032x}"
    return "-".join((digits[:8], digits[8:12], digits[12:16], digits[16:20], digits[20:]))


def ecs_attributes(container: Mapping[str, Any], task: Mapping[str, Any]) -> dict[str, Any]:
    """Attributes from the two documents of the task metadata endpoint, version 4."""
    task_arn, container_arn = str(task["TaskARN"]), str(container.get("ContainerARN", ""))
    _, partition, _, region, account, _ = task_arn.split(":", 5)
    cluster = str(task["Cluster"])
    found: dict[str, Any] = {
        "cloud.provider": "aws",
        "cloud.platform": "aws_ecs",
        "cloud.region": region,
        "cloud.account.id": account,
        "cloud.availability_zone": task.get("AvailabilityZone"),
        "cloud.resource_id": container_arn or task_arn,
        "container.id": container.get("DockerId"),
        "container.name": container.get("Name"),
        "container.image.name": str(container.get("Image", "")).rsplit(":", 1)[0] or None,
        "aws.ecs.container.arn": container_arn or None,
        "aws.ecs.cluster.arn": cluster if cluster.startswith("arn:") else f"arn:{partition}:ecs:{region}:{account}:cluster/{cluster}",
        "aws.ecs.launchtype": str(task.get("LaunchType", "ec2")).lower(),
        "aws.ecs.task.arn": task_arn,
        "aws.ecs.task.id": task_arn.rsplit("/", 1)[-1],
        "aws.ecs.task.family": task.get("Family"),
        "aws.ecs.task.revision": str(task["Revision"]) if "Revision" in task else None,
    }
    options = container.get("LogOptions") or {}
    if container.get("LogDriver") == "awslogs" and options:
        log_region = options.get("awslogs-region", region)
        group, stream = options.get("awslogs-group"), options.get("awslogs-stream")
        if group:
            arn = f"arn:{partition}:logs:{log_region}:{account}:log-group:{group}"
            found |= {"aws.log.group.names": (group,), "aws.log.group.arns": (f"{arn}:*",)}
            if stream:
                found |= {"aws.log.stream.names": (stream,), "aws.log.stream.arns": (f"{arn}:log-stream:{stream}",)}
    return {key: value for key, value in found.items() if value}


def log_group_of(resource: Resource) -> str:
    """The first log group the resource names: a list, or several joined with `&` as OTEL_RESOURCE_ATTRIBUTES has to write it."""
    names = resource.attributes.get("aws.log.group.names", "")
    first = names.split("&")[0] if isinstance(names, str) else next(iter(names), "") if isinstance(names, (list, tuple)) else ""
    return str(first)
