"""Small things that the services of the local AWS share: timestamps as AWS writes them, streamed bodies, vended metrics, addresses."""

from __future__ import annotations

import datetime as dt
import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from lab.aws.service import AwsError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from lab.aws.service import World

log = logging.getLogger(__name__)


def stamp(epoch_s: float) -> dt.datetime:
    """The timestamp of a response: aware, in UTC, to the millisecond as most AWS APIs give it."""
    return dt.datetime.fromtimestamp(round(epoch_s, 3), dt.UTC)


def iso(epoch_s: float) -> str:
    """``2026-01-01T00:00:00.000Z``, as SNS, Lambda and EventBridge write it into their messages."""
    return stamp(epoch_s).strftime("%Y-%m-%dT%H:%M:%S.") + f"{stamp(epoch_s).microsecond // 1000:03d}Z"


def body_bytes(body: Any) -> bytes:
    """The content of a streamed member, whether it came as bytes, text or something to read."""
    if hasattr(body, "read"):
        body = body.read()
    return body.encode() if isinstance(body, str) else bytes(body or b"")


@dataclass(frozen=True, slots=True)
class Arn:
    """``arn:aws:service:region:account:resource``, taken apart."""

    service: str
    region: str
    account: str
    resource: str

    @classmethod
    def parse(cls, text: str) -> Arn | None:
        """The parts of ``text``; None where it is no ARN."""
        parts = text.split(":", 5)
        if len(parts) != 6 or parts[0] != "arn":
            return None
        return cls(*parts[2:])


def page(items: list[Any], token: str | None, size: int) -> tuple[list[Any], str | None]:
    """One page of ``items`` and the token of the next, None at the end. A token is the offset, as text."""
    try:
        start = int(token) if token else 0
    except ValueError:
        raise AwsError("InvalidParameterValue", "The token is not one that this operation gave out") from None
    following = start + size
    return items[start:following], f"{following:04d}" if following < len(items) else None


def endpoint(world: World, region: str) -> str:
    """The URL of the local AWS in ``region``."""
    return str(world.client("sts", region).meta.endpoint_url)


def read_object(world: World, region: str, bucket: str, key: str, version: str | None = None) -> bytes:
    """The content of an S3 object. Raises `AwsError` as S3 would."""
    extra: dict[str, Any] = {"VersionId": version} if version else {}
    return body_bytes(world.call(region, "s3", "get_object", Bucket=bucket, Key=key, **extra)["Body"])


@dataclass(frozen=True, slots=True)
class Vended:
    """One datapoint that a service publishes about itself."""

    name: str
    value: float
    unit: str = "Count"


def vend(world: World, region: str, namespace: str, dimensions: Mapping[str, str], data: Iterable[Vended]) -> None:
    """Publish a service's own metrics (namespaces ``AWS/...``), now. A Region that is down publishes none."""
    items = [
        {
            "MetricName": item.name,
            "Dimensions": [{"Name": name, "Value": value} for name, value in dimensions.items()],
            "Timestamp": stamp(world.clock.now()),
            "Value": float(item.value),
            "Unit": item.unit,
        }
        for item in data
    ]
    publish = getattr(world, "vend", None)
    try:
        if publish is not None:
            publish(region, namespace, items)
        else:
            world.call(region, "cloudwatch", "put_metric_data", Namespace=namespace, MetricData=items)
    except AwsError as error:
        log.warning("%s: metrics of %s not published: %s", region, namespace, error)
