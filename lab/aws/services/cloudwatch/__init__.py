"""CloudWatch: metrics, alarms and dashboards, with AWS's limits and delays.

What is computed (statistics, metric math, alarm evaluation) is `alarms.engine`'s; this package stores, schedules, and speaks the API.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from lab.aws.services.cloudwatch.alarms import Alarms
from lab.aws.services.cloudwatch.dashboards import Dashboards
from lab.aws.services.cloudwatch.metrics import Metrics
from lab.aws.services.cloudwatch.otlp import OtlpMetrics

if TYPE_CHECKING:
    from lab.aws.world import LocalWorld


class Service:
    """The operations of CloudWatch: those of its parts, which share the metric stores."""

    def __init__(self, world: LocalWorld) -> None:
        self.metrics = Metrics(world)
        self.alarms = Alarms(world, self.metrics.stores)
        self.dashboards = Dashboards(world)
        self.raw_paths = OtlpMetrics(world).raw_paths
        self.vend = self.metrics.vend

    def __getattr__(self, name: str) -> Any:
        if not name.startswith("_"):
            for part in (self.metrics, self.alarms, self.dashboards):
                found = getattr(part, name, None)
                if found is not None:
                    return found
        raise AttributeError(name)

    def close(self) -> None:
        """Deliver what is under way, then end."""
        self.alarms.close()
