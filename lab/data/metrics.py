"""AWS's own metrics of the data stores, from what the stores say of themselves. Pure: a status in, CloudWatch data out.

Names, dimensions, units and absences follow AWS's pages "Amazon CloudWatch metrics for Amazon Aurora", "Metrics for Valkey and Redis OSS",
"Available CloudWatch metrics for Amazon MQ for RabbitMQ brokers" and "DynamoDB metrics and dimensions". Each function takes the span of
the period in wall seconds where it turns counters into rates.
"""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING, Any

from lab.data.dynamodb import NAMESPACE as DYNAMODB
from lab.store import names
from lab.store.datum import Datum, across

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

RDS = "AWS/RDS"
CACHE = "AWS/ElastiCache"
MQ = "AWS/AmazonMQ"
NODE = "rabbit@1"
INSTANCE_MEMORY = 8 << 30
IO_BYTES = 4096
THROTTLED = {"ProvisionedThroughputExceededException", "ThrottlingException", "RequestLimitExceeded"}
READS = {"GetItem", "Query", "Scan", "BatchGetItem"}


def database_data(region: str, database: str, now: Mapping[str, Any], before: Mapping[str, Any] | None, span_s: float) -> Iterator[Datum]:
    """One Aurora cluster in one Region, from two of the keeper's statuses. AuroraGlobalDB* exist where it is the secondary, only."""
    if not now["answering"]:
        return
    cluster, pulse = {"DBClusterIdentifier": names.db_cluster(database, region)}, now["pulse"]
    everywhere = [cluster, {"DBInstanceIdentifier": names.db_instance(database, region)}]
    yield from across(RDS, "DatabaseConnections", everywhere, [pulse["connections"]])
    yield from across(RDS, "DBLoad", everywhere, [float(pulse["active"])], "None")
    yield from across(RDS, "FreeableMemory", everywhere, [float(INSTANCE_MEMORY - now["memory"])], "Bytes")
    yield from across(RDS, "EngineUptime", everywhere, [now["uptime_s"]], "Seconds")
    yield from across(RDS, "ReadLatency", everywhere, [pulse["read_s"]] if pulse["read_s"] is not None else [], "Seconds")
    yield from across(RDS, "WriteLatency", everywhere, [pulse["write_s"]] if pulse["write_s"] is not None else [], "Seconds")
    if before and before["answering"]:
        commits = max(0, pulse["commits"] - before["pulse"]["commits"]) / span_s
        cpu = 100 * max(0.0, now["cpu_s"] - before["cpu_s"]) / span_s
        yield from across(RDS, "CommitThroughput", everywhere, [commits], "Count/Second")
        yield from across(RDS, "CPUUtilization", everywhere, [min(100.0, cpu)], "Percent")
    if now["role"] != "reader" or now["lag"] is None:
        return
    secondary = [cluster | {"SourceRegion": now["source"]}]
    yield from across(RDS, "AuroraGlobalDBReplicationLag", secondary, [now["lag"]["replication_ms"]], "Milliseconds")
    yield from across(RDS, "AuroraGlobalDBProgressLag", secondary, [now["lag"]["replication_ms"]], "Milliseconds")
    yield from across(RDS, "AuroraGlobalDBRPOLag", secondary, [now["lag"]["rpo_ms"]], "Milliseconds")
    if before and before["role"] == "reader":
        moved = max(0, pulse["received_bytes"] - before["pulse"]["received_bytes"])
        yield from across(RDS, "AuroraGlobalDBDataTransferBytes", secondary, [float(moved)], "Bytes")
        yield from across(RDS, "AuroraGlobalDBReplicatedWriteIO", secondary, [float(-(-moved // IO_BYTES))])


def cache_data(
    cluster_id: str, now: Mapping[str, Any], before: Mapping[str, Any] | None, span_s: float, lag_s: float | None
) -> Iterator[Datum]:
    """One ElastiCache node, from two answers to INFO. ReplicationLag (``lag_s``, lab seconds) exists for replicas, only.

    MasterLinkHealthStatus is not among them: AWS's page describes it for migrations from a Redis on EC2.
    """
    cluster = {"CacheClusterId": cluster_id}
    node = [cluster, cluster | {"CacheNodeId": "0001"}]

    def grown(key: str) -> list[float]:
        return [max(0.0, float(now[key]) - float(before[key]))] if before and float(now[key]) >= float(before[key]) else []

    limit = float(now["maxmemory"]) or float(now["total_system_memory"])
    for metric, value, unit in (
        ("CurrConnections", now["connected_clients"], "Count"),
        ("CurrItems", now.get("db0", {}).get("keys", 0), "Count"),
        ("BytesUsedForCache", now["used_memory"], "Bytes"),
        ("DatabaseMemoryUsagePercentage", 100 * now["used_memory"] / limit, "Percent"),
        ("FreeableMemory", max(0.0, limit - now["used_memory"]), "Bytes"),
        ("SwapUsage", 0, "Bytes"),
        ("IsMaster", now["role"] == "master", "Count"),
    ):
        yield from across(CACHE, metric, node, [float(value)], unit)
    for metric, key in (
        ("NewConnections", "total_connections_received"),
        ("Evictions", "evicted_keys"),
        ("Reclaimed", "expired_keys"),
        ("CacheHits", "keyspace_hits"),
        ("CacheMisses", "keyspace_misses"),
    ):
        yield from across(CACHE, metric, node, grown(key))
    for metric, key in (
        ("NetworkBytesIn", "total_net_input_bytes"),
        ("NetworkBytesOut", "total_net_output_bytes"),
        ("ReplicationBytes", "master_repl_offset"),
    ):
        yield from across(CACHE, metric, node, grown(key), "Bytes")
    if before:
        cpu = sum(float(now[key]) - float(before[key]) for key in ("used_cpu_sys", "used_cpu_user"))
        percent = [min(100.0, 100 * max(0.0, cpu) / span_s)]
        yield from across(CACHE, "EngineCPUUtilization", node, percent, "Percent")
        yield from across(CACHE, "CPUUtilization", node, percent, "Percent")
    if now["role"] == "slave" and lag_s is not None:
        yield from across(CACHE, "ReplicationLag", node, [lag_s], "Seconds")


def broker_data(
    region: str,
    overview: Mapping[str, Any],
    node: Mapping[str, Any],
    before: Mapping[str, Any] | None,
    queues: Iterable[Mapping[str, Any]],
    span_s: float,
) -> Iterator[Datum]:
    """One Amazon MQ broker, from the management API; ``before`` is the node's earlier answer."""
    broker = {"Broker": names.broker(region)}
    objects, messages = overview["object_totals"], overview["queue_totals"]
    for metric, key in (
        ("ConnectionCount", "connections"),
        ("ChannelCount", "channels"),
        ("ConsumerCount", "consumers"),
        ("QueueCount", "queues"),
        ("ExchangeCount", "exchanges"),
    ):
        yield from across(MQ, metric, [broker], [objects[key]])
    totals = (
        ("MessageCount", "messages"),
        ("MessageReadyCount", "messages_ready"),
        ("MessageUnacknowledgedCount", "messages_unacknowledged"),
    )
    for metric, key in totals:
        yield from across(MQ, metric, [broker], [messages.get(key, 0)])
    on_node = [broker | {"Node": NODE}]
    for metric, key, unit in (
        ("RabbitMQMemUsed", "mem_used", "Bytes"),
        ("RabbitMQMemLimit", "mem_limit", "Bytes"),
        ("RabbitMQDiskFree", "disk_free", "Bytes"),
        ("RabbitMQDiskFreeLimit", "disk_free_limit", "Bytes"),
        ("RabbitMQFdUsed", "fd_used", "Count"),
    ):
        yield from across(MQ, metric, on_node, [float(node[key])], unit)
    if before and "cpu_s" in node and node["cpu_s"] >= before["cpu_s"]:
        percent = min(100.0, 100 * (node["cpu_s"] - before["cpu_s"]) / span_s)
        yield from across(MQ, "SystemCpuUtilization", [broker, *on_node], [percent], "Percent")
    for queue in queues:
        place = [broker | {"VirtualHost": queue["vhost"], "Queue": queue["name"]}]
        for metric, key in (*totals, ("ConsumerCount", "consumers")):
            yield from across(MQ, metric, place, [queue.get(key, 0)])


def table_data(calls: Iterable[Mapping[str, Any]]) -> Iterator[Datum]:
    """The carts table in one Region, from the calls that the local AWS took. Counts of nothing are not reported."""
    table = {"TableName": names.CARTS_TABLE}
    latencies: dict[str, list[float]] = defaultdict(list)
    throttled: dict[str, int] = defaultdict(int)
    broken: dict[str, int] = defaultdict(int)
    wrong = 0
    for call in calls:
        if call["code"] in THROTTLED:
            throttled[call["operation"]] += 1
        elif call["status"] >= 500 or call["status"] == 0:
            broken[call["operation"]] += 1
        elif call["status"] >= 400:
            wrong += 1
        else:
            latencies[call["operation"]].append(call["ms"])
    for operation, values in latencies.items():
        yield from across(DYNAMODB, "SuccessfulRequestLatency", [table | {"Operation": operation}], values, "Milliseconds")
    for operation, count in throttled.items():
        yield from across(DYNAMODB, "ThrottledRequests", [table | {"Operation": operation}], [count])
    for operation, count in broken.items():
        yield from across(DYNAMODB, "SystemErrors", [table | {"Operation": operation}], [count])
    reads = sum(count for operation, count in throttled.items() if operation in READS)
    writes = sum(throttled.values()) - reads
    for metric, count, dimensions in (
        ("ReadThrottleEvents", reads, table),
        ("WriteThrottleEvents", writes, table),
        ("UserErrors", wrong, {}),
    ):
        yield from across(DYNAMODB, metric, [dimensions], [count] if count else [])
