"""Small things that the services of the local AWS share: timestamps as AWS writes them, streamed bodies, vended metrics, addresses."""

from __future__ import annotations

import atexit
import datetime as dt
import itertools
import logging
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lab.aws.service import AwsError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from lab.aws.service import World
    from lab.plan import LabPlan

log = logging.getLogger(__name__)

MAX_LOG_BYTES = 256 * 1024


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
    publish = getattr(world, "vend", None)
    if publish is not None:
        for item in data:
            publish(region, namespace, item.name, dimensions, float(item.value), item.unit)


def workspace(world: World, name: str) -> Path:
    """A fresh folder for unpacked code, in the lab's state directory where there is one; removed when this process ends."""
    plan: LabPlan | None = getattr(world, "plan", None)
    parent = plan.path / "aws" if plan else None
    if parent:
        parent.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix=f"crosswatch-{name}-", dir=parent))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder


def role_environment(world: World, region: str, role_arn: str, session: str) -> dict[str, str]:
    """``AWS_*`` variables of a session of ``role_arn`` in ``region``, as Lambda gives them to what it runs. Raises `AwsError`."""
    issued = world.call(region, "sts", "assume_role", RoleArn=role_arn, RoleSessionName=session[:64])["Credentials"]
    return {
        "AWS_ACCESS_KEY_ID": issued["AccessKeyId"],
        "AWS_SECRET_ACCESS_KEY": issued["SecretAccessKey"],
        "AWS_SESSION_TOKEN": issued["SessionToken"],
        "AWS_REGION": region,
        "AWS_DEFAULT_REGION": region,
        "AWS_ENDPOINT_URL": endpoint(world, region),
        "AWS_EC2_METADATA_DISABLED": "true",
    }


def trusts(world: World, region: str, role_arn: str, service: str) -> bool:
    """Whether the role exists and its trust policy lets ``service`` (``lambda.amazonaws.com``) assume it."""
    from lab.aws import iam

    try:
        role = world.call(region, "iam", "get_role", RoleName=role_arn.rpartition("/")[2])["Role"]
    except AwsError:
        return False
    policy = iam.document(role["AssumeRolePolicyDocument"])
    return iam.decide_resource(policy, service, "sts:AssumeRole", role_arn) is iam.Decision.ALLOWED


class LogWriter:
    """Writes lines to a log group as a role would, creating group and stream; silent where the role may not, as Lambda is."""

    def __init__(self, world: World, region: str, group: str, principal: str) -> None:
        self._world = world
        self._region = region
        self._group = group
        self._principal = principal
        self._made: set[str] = set()

    def write(self, stream: str, lines: Iterable[tuple[float, str]]) -> None:
        """``lines`` are pairs of lab time and text, in the order they were written; a clock that lags does not put one before another."""
        from lab.aws import iam

        chosen = [(int(time_s * 1000), text) for time_s, text in lines if text]
        times = itertools.accumulate((time_ms for time_ms, _ in chosen), max)
        events = [{"timestamp": time_ms, "message": text[:MAX_LOG_BYTES]} for time_ms, (_, text) in zip(times, chosen, strict=True)]
        if not events:
            return
        names = {"logGroupName": self._group, "logStreamName": stream}
        if not iam.allowed(self._world, self._principal, "logs", "put_log_events", names, self._region):
            return
        try:
            if stream not in self._made:
                self._make(stream)
            for start in range(0, len(events), 500):
                self._world.call(self._region, "logs", "put_log_events", logEvents=events[start : start + 500], **names)
        except AwsError as error:
            log.warning("%s: %s not written: %s", self._region, self._group, error)

    def _make(self, stream: str) -> None:
        for operation, names in (("create_log_group", {}), ("create_log_stream", {"logStreamName": stream})):
            try:
                self._world.call(self._region, "logs", operation, logGroupName=self._group, **names)
            except AwsError as error:
                if error.code != "ResourceAlreadyExistsException":
                    raise
        self._made.add(stream)
