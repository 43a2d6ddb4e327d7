"""What GetMetricData calls its series: given labels with their ``${…}`` parts filled in, or the shortest names that tell the series apart.

https://docs.aws.amazon.com/AmazonCloudWatch/latest/monitoring/graph-dynamic-labels.html
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import numpy as np

from alarms.engine.states import utc

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from alarms.engine.math import Series
    from alarms.engine.query import MetricKey

_DYNAMIC = re.compile(r"\$\{(?:PROP\('(?P<prop>[^']+)'\)|(?P<name>[A-Z_]+))\}")
_VALUES: dict[str, Callable[[Series], float]] = {
    "AVG": lambda series: float(np.mean(series.values)),
    "FIRST": lambda series: float(series.values[0]),
    "LAST": lambda series: float(series.values[-1]),
    "MAX": lambda series: float(np.max(series.values)),
    "MIN": lambda series: float(np.min(series.values)),
    "SUM": lambda series: float(np.sum(series.values)),
    "FIRST_LAST_RANGE": lambda series: float(series.values[-1] - series.values[0]),
    "MIN_MAX_RANGE": lambda series: float(np.max(series.values) - np.min(series.values)),
}
_TIMES: dict[str, Callable[[Series], int]] = {
    "FIRST": lambda _series: 0,
    "LAST": lambda series: len(series) - 1,
    "MAX": lambda series: int(np.argmax(series.values)),
    "MIN": lambda series: int(np.argmin(series.values)),
}


def fill(label: str, default: str, series: Series, metric: MetricKey | None, stat: str | None, region: str, account: str) -> str:
    """``label`` with its dynamic parts replaced; what is unknown stays as written."""
    properties = {"Region": region, "AccountId": account, "Stat": stat or "", "Period": str(series.period)}
    if metric is not None:
        properties |= {"MetricName": metric.name, "Namespace": metric.namespace}
        properties |= {f"Dim.{name}": value for name, value in metric.dimensions}

    def part(match: re.Match[str]) -> str:
        if match["prop"]:
            return properties.get(match["prop"], match[0])
        name = match["name"]
        if name == "LABEL":
            return default
        if name == "DATAPOINT_COUNT":
            return str(len(series))
        if not len(series):
            return "--"
        if name in _VALUES:
            return f"{_VALUES[name](series):g}"
        for suffix in ("_TIME_RELATIVE", "_TIME"):
            if name.endswith(suffix) and name.removesuffix(suffix) in _TIMES:
                at = utc(float(series.times[_TIMES[name.removesuffix(suffix)](series)]))
                return f"{at:%Y-%m-%d %H:%M:%S UTC}"
        return match[0]

    return _DYNAMIC.sub(part, label)


def defaults(metrics: Sequence[MetricKey]) -> list[str]:
    """A name for each metric: the metric's name where that tells them apart, else with the dimension values that differ."""
    names = [metric.name for metric in metrics]
    if len(set(names)) == len(names):
        return names
    keys = sorted({name for metric in metrics for name, _ in metric.dimensions})
    differing = [key for key in keys if len({dict(metric.dimensions).get(key) for metric in metrics}) > 1]
    one_name = len(set(names)) == 1
    labels = []
    for metric in metrics:
        parts = [dict(metric.dimensions)[key] for key in differing if key in dict(metric.dimensions)]
        labels.append(" ".join(parts if one_name and parts else [*parts, metric.name]))
    return labels
