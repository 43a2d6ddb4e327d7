"""CloudWatch Logs: groups, streams, events with AWS's limits, filter patterns, metric filters, EMF, Logs Insights and the OTLP endpoint."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from lab.aws.services.logs.insights import Queries
from lab.aws.services.logs.operations import Logs
from lab.aws.services.logs.otlp import OtlpLogs

if TYPE_CHECKING:
    from lab.aws.world import LocalWorld


class Service:
    """The operations of CloudWatch Logs."""

    def __init__(self, world: LocalWorld) -> None:
        self.logs = Logs(world)
        self.queries = Queries(world, self.logs)
        self.raw_paths = OtlpLogs(world, self.logs).raw_paths

    def __getattr__(self, name: str) -> Any:
        if not name.startswith("_"):
            for part in (self.logs, self.queries):
                found = getattr(part, name, None)
                if found is not None:
                    return found
        raise AttributeError(name)
