"""Fetch the history a backtest needs with GetMetricData: exactly the statistics the alarms read, Region by Region, page by page."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import UTC, datetime
from typing import Any

from alarms.definitions import Definition
from alarms.engine import Alarm, MetricAlarm, MetricStat
from topology import Topology

QUERIES_A_CALL = 100
POINTS_A_CALL = 90_000
"""GetMetricData gives at most 100,800 points a call; less leaves room for the ends."""


def wanted(alarms: Iterable[tuple[Definition, Alarm]]) -> dict[str, list[MetricStat]]:
    """The statistics to fetch in each Region. An alarm without a Region is fetched nowhere."""
    found: dict[str, dict[MetricStat, None]] = {}
    for definition, alarm in alarms:
        if isinstance(alarm, MetricAlarm) and definition.region:
            found.setdefault(definition.region, {}).update(dict.fromkeys(alarm.metric_stats))
    return {region: list(stats) for region, stats in found.items()}


def fetch(
    stats: Mapping[str, list[MetricStat]],
    start: float,
    end: float,
    client: Callable[[str], Any],
    progress: Callable[[str, int, int], None] | None = None,
) -> list[dict[str, Any]]:
    """Parts for `alarms.backtest.data`: queries and results, one part a call.

    ``client(region)`` gives a boto3 CloudWatch client; ``progress(region, done, total)`` is told after each call. Raises botocore's
    ClientError and BotoCoreError as they come.
    """
    parts: list[dict[str, Any]] = []
    for region, needed in stats.items():
        calls = list(_calls(needed, start, end))
        cloudwatch = client(region)
        for done, (queries, begin, until) in enumerate(calls, 1):
            pages = cloudwatch.get_paginator("get_metric_data").paginate(
                MetricDataQueries=queries,
                StartTime=datetime.fromtimestamp(begin, UTC),
                EndTime=datetime.fromtimestamp(until, UTC),
                ScanBy="TimestampAscending",
            )
            results = [
                {"Id": r["Id"], "Timestamps": [t.timestamp() for t in r["Timestamps"]], "Values": list(r["Values"])}
                for page in pages
                for r in page["MetricDataResults"]
            ]
            parts.append({"Region": region, "MetricDataQueries": queries, "MetricDataResults": results})
            if progress is not None:
                progress(region, done, len(calls))
    return parts


def _calls(stats: list[MetricStat], start: float, end: float) -> Iterator[tuple[list[dict[str, Any]], float, float]]:
    """Queries with the stretch to ask for, so that no call exceeds the limits."""
    for first in range(0, len(stats), QUERIES_A_CALL):
        chunk = stats[first : first + QUERIES_A_CALL]
        queries = [_query(f"q{first + i}", stat) for i, stat in enumerate(chunk)]
        shortest = min(stat.period for stat in chunk)
        step = max(shortest, POINTS_A_CALL // len(chunk) * shortest)
        begin = start
        while begin < end:
            yield queries, begin, min(begin + step, end)
            begin += step


def _query(ident: str, stat: MetricStat) -> dict[str, Any]:
    dimensions = [{"Name": name, "Value": value} for name, value in stat.metric.dimensions]
    return {
        "Id": ident,
        "MetricStat": {
            "Metric": {"Namespace": stat.metric.namespace, "MetricName": stat.metric.name, "Dimensions": dimensions},
            "Period": stat.period,
            "Stat": stat.stat,
            **({"Unit": stat.metric.unit} if stat.metric.unit else {}),
        },
    }


def clients(topology: Topology | None) -> Callable[[str], Any]:
    """boto3 clients by Region, at the topology's private endpoints where it has some."""

    def client(region: str) -> Any:
        import boto3

        endpoint = (topology.endpoint(region, "monitoring") or topology.endpoint(region, "cloudwatch")) if topology else None
        return boto3.client("cloudwatch", region_name=region, endpoint_url=endpoint)

    return client
