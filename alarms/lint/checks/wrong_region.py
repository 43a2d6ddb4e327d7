"""wrong-region: the metric does not exist in the Region the alarm lives in."""

from __future__ import annotations

from collections.abc import Iterator

from alarms.lint.context import Context
from topology.problems import Problem
from topology.signals import HEALTH_CHECK_REGION

NAME = "wrong-region"


def check(context: Context) -> Iterator[Problem]:
    """No alarm reads another Region's metrics: Route 53's are in us-east-1, Aurora's lag is in the secondary, and so on."""
    for definition, alarm in context.metric_alarms():
        if definition.region is None:
            continue
        for stat in alarm.metric_stats:
            if stat.metric.namespace == "AWS/Route53" and definition.region != HEALTH_CHECK_REGION:
                what = f"Route 53's metrics exist in {HEALTH_CHECK_REGION} only; in {definition.region} this alarm never sees data"
                mend = f"move it to {HEALTH_CHECK_REGION}, and do not rely on it when that Region fails: let the probe watch as well"
                yield context.finding(NAME, definition, what, mend, "error", "Region")
                continue
            regions = {series.region for _, series in context.stored(stat.metric)}
            if regions and definition.region not in regions:
                what = f"{stat.metric.name} with these dimensions stands in {' and '.join(sorted(regions))}, not in {definition.region}"
                mend = "put the alarm where the metric is, or write the metric to this Region too"
                yield context.finding(NAME, definition, what, mend, "error", "Region")
