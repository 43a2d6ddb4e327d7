"""STS: who am I, and temporary credentials for a role that exists in IAM.

https://docs.aws.amazon.com/STS/latest/APIReference/API_AssumeRole.html
"""

from __future__ import annotations

import re
import time
from typing import TYPE_CHECKING, Any

from lab.aws.service import AwsError

if TYPE_CHECKING:
    from lab.aws.service import Context
    from lab.aws.world import LocalWorld

_ROLE_ARN = re.compile(r"arn:aws:iam::(?P<account>\d{12}):role/(?P<path>.*/)?(?P<name>[\w+=,.@-]+)")
DEFAULT_DURATION_S = 3600


class Service:
    """Temporary keys are kept in the gateway's key store; their lifetime is wall time, as their signatures are."""

    def __init__(self, world: LocalWorld) -> None:
        self._world = world

    def get_caller_identity(self, ctx: Context, _params: dict[str, Any]) -> dict[str, Any]:
        """Account, ARN and id of the caller."""
        kind, _, name = ctx.principal.partition("/")
        service = "sts" if kind in {"assumed-role", "federated-user"} else "iam"
        return {"Account": ctx.account, "Arn": f"arn:aws:{service}::{ctx.account}:{kind}/{name}", "UserId": ctx.access_key}

    def assume_role(self, ctx: Context, params: dict[str, Any]) -> dict[str, Any]:
        """Credentials of a role. AccessDenied where IAM has no such role."""
        match = _ROLE_ARN.fullmatch(params["RoleArn"])
        if match is None:
            raise AwsError("ValidationError", f"{params['RoleArn']} is invalid")
        if match["account"] != ctx.account or not self._exists(ctx, match["name"]):
            arn = f"arn:aws:iam::{ctx.account}:{ctx.principal}"
            raise AwsError(
                "AccessDenied", f"User: {arn} is not authorized to perform: sts:AssumeRole on resource: {params['RoleArn']}", 403
            )
        session = params["RoleSessionName"]
        expires = time.time() + params.get("DurationSeconds", DEFAULT_DURATION_S)
        key = self._world.keys.issue(f"assumed-role/{match['name']}/{session}", expires)
        return {
            "Credentials": {
                "AccessKeyId": key.access_key,
                "SecretAccessKey": key.secret_key,
                "SessionToken": key.token,
                "Expiration": expires,
            },
            "AssumedRoleUser": {
                "AssumedRoleId": f"{key.access_key}:{session}",
                "Arn": f"arn:aws:sts::{ctx.account}:assumed-role/{match['name']}/{session}",
            },
        }

    def _exists(self, ctx: Context, role: str) -> bool:
        try:
            self._world.call(ctx.region, "iam", "get_role", RoleName=role)
        except AwsError as error:
            if error.code == "NoSuchEntity":
                return False
            raise
        return True
