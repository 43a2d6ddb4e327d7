"""unknown-dimensions: nobody emits the metric with these dimensions."""

from __future__ import annotations

from collections.abc import Iterator

from alarms.definitions import Definition
from alarms.engine import MetricKey
from alarms.lint.context import Context, signal_of
from topology.problems import Problem
from topology.signals import CATALOGUE

NAME = "unknown-dimensions"

AWS_SETS: dict[tuple[str, str], tuple[tuple[str, ...], ...]] = {
    ("AWS/DynamoDB", "SystemErrors"): (("Operation", "TableName"),),
    ("AWS/DynamoDB", "UserErrors"): ((),),
    ("AWS/DynamoDB", "SuccessfulRequestLatency"): (("Operation", "TableName"),),
    ("AWS/DynamoDB", "ThrottledRequests"): (("Operation", "TableName"), ("IndexName", "Operation", "TableName")),
    ("AWS/DynamoDB", "ReplicationLatency"): (("ReceivingRegion", "TableName"),),
    ("AWS/RDS", "AuroraGlobalDBReplicationLag"): (("DBClusterIdentifier", "SourceRegion"),),
    ("AWS/RDS", "AuroraGlobalDBRPOLag"): (("DBClusterIdentifier", "SourceRegion"),),
    ("AWS/Route53", "HealthCheckStatus"): (("HealthCheckId",),),
    ("AWS/ApplicationELB", "HealthyHostCount"): (("LoadBalancer", "TargetGroup"), ("AvailabilityZone", "LoadBalancer", "TargetGroup")),
}
"""Dimension sets AWS documents for metrics that are often asked for with others."""


def check(context: Context) -> Iterator[Problem]:
    """Dimension names that do not go with the metric, and values no part of the topology emits."""
    for definition, alarm in context.metric_alarms():
        for stat in alarm.metric_stats:
            yield from _names(context, definition, stat.metric)


def _names(context: Context, definition: Definition, key: MetricKey) -> Iterator[Problem]:
    names = tuple(name for name, _ in key.dimensions)
    sets = set(AWS_SETS.get((key.namespace, key.name), ()))
    sets |= {tuple(sorted(s.dimensions)) for s in CATALOGUE if (s.namespace, s.name) == (key.namespace, key.name)}
    if sets and names not in sets:
        shown = " or ".join("{" + ", ".join(one) + "}" for one in sorted(sets))
        what = f"nobody emits {key.name} with the dimensions {{{', '.join(names)}}}: it comes with {shown}"
        yield context.finding(NAME, definition, what, "give exactly these dimensions", "error", "Dimensions")
        return
    if names == () and (key.namespace, key.name) in AWS_SETS and sets == {()}:
        what = f"{key.name} has no dimensions: it counts the whole account and Region, not this workload"
        yield context.finding(NAME, definition, what, "watch a metric with the table's dimensions", "warning", "Dimensions")
        return
    signal = signal_of(key)
    if context.topology is not None and signal is not None and signal.emitter != "mq" and not context.stored(key):
        values = ", ".join(f"{name}={value}" for name, value in key.dimensions)
        what = f"nothing in the topology emits {key.name} with {values}"
        yield context.finding(NAME, definition, what, "correct the value, or complete the topology", "error", "Dimensions")
