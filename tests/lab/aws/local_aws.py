"""A local AWS for tests: the real gateway of two Regions on free ports, at any speed, with a role that functions and canaries can take."""

from __future__ import annotations

import contextlib
import io
import json
import time
import zipfile
from typing import TYPE_CHECKING, Any, TypeVar

import boto3
from botocore.config import Config
from moto.moto_api._internal import moto_api_backend

from lab.aws.gateway import Gateway
from lab.aws.world import LocalWorld
from lab.plan import LabPlan

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path

T = TypeVar("T")
EAST, WEST = "us-east-1", "us-west-2"
TRUST = {
    "Version": "2012-10-17",
    "Statement": [{"Effect": "Allow", "Principal": {"Service": "lambda.amazonaws.com"}, "Action": "sts:AssumeRole"}],
}


class LocalAws:
    """A running gateway and clients for it."""

    def __init__(self, directory: Path, speed: float) -> None:
        self.plan = LabPlan.make(directory, speed=speed)
        self.world = LocalWorld(self.plan)
        self.gateway = Gateway(self.world)
        self._clients: dict[tuple[str, str], Any] = {}

    def client(self, service: str, region: str = EAST, credentials: Mapping[str, str] | None = None) -> Any:
        """A boto3 client: the admin's (made once), or that of a session of AssumeRole."""
        if credentials is None:
            if (service, region) not in self._clients:
                self._clients[service, region] = self._new_client(service, region, None)
            return self._clients[service, region]
        return self._new_client(service, region, credentials)

    def _new_client(self, service: str, region: str, credentials: Mapping[str, str] | None) -> Any:
        admin = self.plan.credentials["admin"]
        keys = credentials or {"AccessKeyId": admin.access_key, "SecretAccessKey": admin.secret_key}
        return boto3.session.Session().client(
            service,
            region_name=region,
            endpoint_url=self.plan.regions[region].aws_endpoint,
            aws_access_key_id=keys["AccessKeyId"],
            aws_secret_access_key=keys["SecretAccessKey"],
            aws_session_token=keys.get("SessionToken"),
            config=Config(retries={"total_max_attempts": 1}, s3={"addressing_style": "path"}, read_timeout=90),
        )

    def role(self, name: str, *statements: Mapping[str, Any]) -> str:
        """A role that Lambda may assume, with one inline policy of ``statements`` (default: everything). Its ARN."""
        iam = self.client("iam")
        everything = {"Effect": "Allow", "Action": "*", "Resource": "*"}
        arn = iam.create_role(RoleName=name, AssumeRolePolicyDocument=json.dumps(TRUST))["Role"]["Arn"]
        policy = {"Version": "2012-10-17", "Statement": list(statements) or [everything]}
        iam.put_role_policy(RoleName=name, PolicyName="inline", PolicyDocument=json.dumps(policy))
        return str(arn)

    def session(self, role_arn: str) -> dict[str, str]:
        """Credentials of a session of a role."""
        return dict(self.client("sts").assume_role(RoleArn=role_arn, RoleSessionName="test")["Credentials"])

    def take_down(self, region: str, *, down: bool = True) -> None:
        """Take the Region's AWS away, or give it back."""
        if down:
            self.world.conditions.add({"kind": "down", "region": region})
        else:
            self.world.conditions.remove(region=region)
        self.gateway.apply_conditions()


@contextlib.contextmanager
def local_aws(directory: Path, speed: float = 1.0, fresh: bool = True) -> Iterator[LocalAws]:
    """A gateway that is open inside the block. moto's part is one for the whole process: ``fresh`` empties it first."""
    if fresh:
        moto_api_backend.reset()
    aws = LocalAws(directory, speed)
    aws.gateway.open()
    try:
        yield aws
    finally:
        aws.gateway.close()


def package(**files: str) -> bytes:
    """A zip of modules: ``package(app="def handler(event, context): ...")``; two underscores stand for a folder."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as bundle:
        for name, text in files.items():
            bundle.writestr(name.replace("__", "/") + ".py", text)
    return buffer.getvalue()


def eventually(look: Callable[[], T], within_s: float = 15.0) -> T:
    """What ``look`` gives once it is true; fails where that takes longer than ``within_s`` of wall time."""
    deadline = time.monotonic() + within_s
    while True:
        found = look()
        if found:
            return found
        if time.monotonic() > deadline:
            raise AssertionError(f"still {found!r} after {within_s} s")
        time.sleep(0.05)
