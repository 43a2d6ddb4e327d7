"""Dashboards: global, so every Region's endpoint shows the same ones; bodies are validated as PutDashboard does.

https://docs.aws.amazon.com/AmazonCloudWatch/latest/APIReference/API_PutDashboard.html
"""

from __future__ import annotations

import json
import re
import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from dashboards.validation import errors, validate_body
from lab.aws.service import AwsError

if TYPE_CHECKING:
    from lab.aws.service import Context
    from lab.aws.world import LocalWorld

_NAME = re.compile(r"[A-Za-z0-9_-]{1,255}")
PAGE = 1000


@dataclass(frozen=True, slots=True)
class Dashboard:
    """A stored dashboard; ``modified`` is lab time."""

    name: str
    body: str
    modified: float


class Dashboards:
    """The dashboard operations."""

    def __init__(self, world: LocalWorld) -> None:
        self._account = world.account
        self._dashboards: dict[str, Dashboard] = {}
        self._lock = threading.Lock()

    def put_dashboard(self, ctx: Context, params: dict[str, Any]) -> dict[str, Any]:
        """PutDashboard: refuses what CloudWatch refuses, warns of what it ignores."""
        name, body = params["DashboardName"], params["DashboardBody"]
        if not _NAME.fullmatch(name):
            raise AwsError(
                "InvalidParameterInput",
                f"The value {name} for field DashboardName contains invalid characters. "
                "It can only contain alphanumerics, dash (-) and underscore (_).",
            )
        messages = _validated(body)
        with self._lock:
            self._dashboards[name] = Dashboard(name, body, ctx.now)
        return {"DashboardValidationMessages": messages}

    def get_dashboard(self, _ctx: Context, params: dict[str, Any]) -> dict[str, Any]:
        """GetDashboard."""
        found = self._dashboards.get(params["DashboardName"])
        if found is None:
            raise AwsError("ResourceNotFound", f"Dashboard {params['DashboardName']} does not exist", 404)
        return {"DashboardArn": self._arn(found.name), "DashboardBody": found.body, "DashboardName": found.name}

    def list_dashboards(self, _ctx: Context, params: dict[str, Any]) -> dict[str, Any]:
        """ListDashboards."""
        prefix = params.get("DashboardNamePrefix", "")
        names = sorted(name for name in self._dashboards if name.startswith(prefix))
        after = params.get("NextToken", "")
        page = [self._dashboards[name] for name in names if name > after][: PAGE + 1]
        entries = [
            {
                "DashboardName": each.name,
                "DashboardArn": self._arn(each.name),
                "LastModified": each.modified,
                "Size": len(each.body.encode()),
            }
            for each in page[:PAGE]
        ]
        return {"DashboardEntries": entries, "NextToken": page[PAGE - 1].name if len(page) > PAGE else None}

    def delete_dashboards(self, _ctx: Context, params: dict[str, Any]) -> None:
        """DeleteDashboards: all or none."""
        with self._lock:
            missing = [name for name in params["DashboardNames"] if name not in self._dashboards]
            if missing:
                raise AwsError("ResourceNotFound", f"The specified dashboard does not exist. [{', '.join(missing)}]", 404)
            for name in params["DashboardNames"]:
                self._dashboards.pop(name, None)

    def _arn(self, name: str) -> str:
        return f"arn:aws:cloudwatch::{self._account}:dashboard/{name}"


def _validated(body: str) -> list[dict[str, str]]:
    """The warnings about a body. Raises AwsError where it has errors."""
    findings = validate_body(body)
    messages = [{"DataPath": finding.path, "Message": finding.message} for finding in findings]
    wrong = errors(findings)
    if not wrong:
        return messages
    if not wrong[0].path and len(wrong) == 1:
        raise AwsError("InvalidParameterInput", wrong[0].message, dashboardValidationMessages=messages)
    listed = json.dumps([{"dataPath": finding.path, "message": finding.message} for finding in wrong], indent=2)
    count = f"there are {len(wrong)} validation errors" if len(wrong) > 1 else "there is 1 validation error"
    raise AwsError("InvalidParameterInput", f"The dashboard body is invalid, {count}:\n{listed}", dashboardValidationMessages=messages)
