"""AWS's own metrics: names agree with the topology, and each exists only where and when AWS's does."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from lab import topology as lab_topology
from lab.data.metrics import broker_data, cache_data, database_data, table_data
from lab.plan import CACHE_NODES, LabPlan
from lab.store import names
from lab.store.connect import Window as Mesh
from lab.store.ecs import Service, backoff_s, service_data
from lab.store.http import End, Outcome
from lab.store.traffic import share_of_peak


def keeper(role: str = "reader", **changes: Any) -> dict[str, Any]:
    """A keeper's status of one database."""
    pulse = {"connections": 4, "active": 1, "commits": 100, "received_bytes": 5000, "read_s": 0.001, "write_s": None}
    lag = {"replication_ms": 120.0, "rpo_ms": 40.0} if role == "reader" else None
    status = {
        "role": role,
        "answering": True,
        "source": "us-east-1",
        "lag": lag,
        "pulse": pulse,
        "cpu_s": 2.0,
        "memory": 1e6,
        "uptime_s": 60.0,
    }
    return status | changes


def by_name(data: Any) -> dict[str, Any]:
    """Metric -> its first datum."""
    found: dict[str, Any] = {}
    for datum in data:
        found.setdefault(datum.metric, datum)
    return found


def test_the_names_are_those_of_the_labs_topology() -> None:
    """What is vended is what dashboards and alarms look for."""
    document = lab_topology.document(LabPlan.make(Path("/nowhere")))
    for index, (region, about) in enumerate(document["regions"].items()):
        assert about["alb"]["arn_suffix"] == names.load_balancer(index)
        assert about["alb"]["target_group"] == names.target_group(index)
        assert about["ecs_cluster"] == names.CLUSTER
        for database, entry in document["databases"].items():
            assert entry["global_cluster"] == names.global_cluster(database)
            assert entry["clusters"][region] == names.db_cluster(database, region)
        assert document["caches"]["checkout"]["clusters"][region] == [names.cache_node(region, node) for node in CACHE_NODES]
        assert document["brokers"]["orders"]["brokers"][region] == names.broker(region)
    assert document["brokers"]["orders"]["queues"] == [names.QUEUE]
    assert document["tables"]["carts"]["table"] == names.CARTS_TABLE
    assert {name: entry["log_group"] for name, entry in document["services"].items()} == {
        name: names.log_group(name) for name in document["services"]
    }


def test_aurora_reports_lag_from_the_secondary_only() -> None:
    """With the source's Region as a dimension, in milliseconds; a server that does not answer reports nothing."""
    reader = by_name(database_data("us-west-2", "orders", keeper(), keeper(), 60))
    lag = reader["AuroraGlobalDBReplicationLag"]
    assert lag.dimensions == {"DBClusterIdentifier": "retail-orders-us-west-2", "SourceRegion": "us-east-1"}
    assert (lag.values, lag.unit) == ((120.0,), "Milliseconds")
    assert reader["AuroraGlobalDBRPOLag"].values == (40.0,)
    writer = by_name(database_data("us-east-1", "orders", keeper("writer"), keeper("writer"), 60))
    assert "DatabaseConnections" in writer
    assert not [name for name in writer if name.startswith("AuroraGlobalDB")]
    assert list(database_data("us-east-1", "orders", keeper(answering=False), None, 60)) == []


def test_rates_need_two_answers() -> None:
    """The first period after a start has no counters to subtract."""
    now = keeper()
    assert "CommitThroughput" not in by_name(database_data("us-west-2", "orders", now, None, 60))
    later = keeper(pulse=now["pulse"] | {"commits": 160, "received_bytes": 13_192})
    data = by_name(database_data("us-west-2", "orders", later, now, 60))
    assert data["CommitThroughput"].values == (1.0,)
    assert data["AuroraGlobalDBDataTransferBytes"].values == (8192.0,)
    assert data["AuroraGlobalDBReplicatedWriteIO"].values == (2.0,)


def cache_info(**changes: Any) -> dict[str, Any]:
    """A Redis server's INFO."""
    counters = ("total_connections_received", "evicted_keys", "expired_keys", "keyspace_hits", "keyspace_misses")
    info = dict.fromkeys((*counters, "total_net_input_bytes", "total_net_output_bytes", "master_repl_offset"), 5.0)
    info |= {"maxmemory": 1000, "used_memory": 250, "connected_clients": 3, "used_cpu_sys": 1.0, "used_cpu_user": 1.0}
    return info | {"role": "master"} | changes


def test_a_cache_reports_evictions_of_the_period_even_when_there_are_none() -> None:
    """They are a count since the last period."""
    data = by_name(cache_data("retail-checkout-us-east-1-001", cache_info(evicted_keys=12, used_cpu_user=7.0), cache_info(), 60, None))
    assert data["Evictions"].values == (7.0,)
    assert data["CacheHits"].values == (0.0,)
    assert data["DatabaseMemoryUsagePercentage"].values == (25.0,)
    assert data["EngineCPUUtilization"].values == (10.0,)
    assert data["CurrConnections"].dimensions == {"CacheClusterId": "retail-checkout-us-east-1-001"}


def test_only_a_replica_of_a_cache_has_a_lag() -> None:
    """IsMaster says which is which."""
    primary = by_name(cache_data("c-001", cache_info(), None, 60, 4.0))
    replica = by_name(cache_data("c-002", cache_info(role="slave"), None, 60, 4.0))
    assert primary["IsMaster"].values == (1.0,)
    assert "ReplicationLag" not in primary
    assert replica["IsMaster"].values == (0.0,)
    assert (replica["ReplicationLag"].values, replica["ReplicationLag"].unit) == ((4.0,), "Seconds")
    assert "ReplicationLag" not in by_name(cache_data("c-002", cache_info(role="slave"), None, 60, None))


def test_a_brokers_metrics_have_three_kinds_of_dimensions() -> None:
    """Of the broker, of its node, of each queue."""
    overview = {
        "object_totals": dict.fromkeys(("connections", "channels", "consumers", "queues", "exchanges"), 2),
        "queue_totals": {"messages": 9, "messages_ready": 7, "messages_unacknowledged": 2},
    }
    node = {"mem_used": 10, "mem_limit": 100, "disk_free": 1000, "disk_free_limit": 10, "fd_used": 5, "cpu_s": 3.0}
    queue = {"vhost": "/", "name": "orders", "messages": 9, "messages_ready": 7, "messages_unacknowledged": 2, "consumers": 1}
    found = {(d.metric, frozenset(d.dimensions)): d.values for d in broker_data("us-east-1", overview, node, node, [queue], 60)}
    assert found["MessageCount", frozenset({"Broker"})] == (9,)
    assert found["RabbitMQMemUsed", frozenset({"Broker", "Node"})] == (10.0,)
    assert found["ConsumerCount", frozenset({"Broker", "VirtualHost", "Queue"})] == (1,)


def test_throttling_counts_by_operation_and_by_direction() -> None:
    """Nothing is reported of what did not happen."""
    good = {"code": "", "status": 200, "operation": "Query", "ms": 4.5}
    throttled = {"code": "ProvisionedThroughputExceededException", "status": 400, "operation": "UpdateItem", "ms": 1}
    data = by_name(table_data([good, throttled, throttled]))
    assert data["SuccessfulRequestLatency"].values == (4.5,)
    assert data["ThrottledRequests"].dimensions == {"TableName": "retail-carts", "Operation": "UpdateItem"}
    assert data["WriteThrottleEvents"].values == (2,)
    assert not {"ReadThrottleEvents", "SystemErrors", "UserErrors"} & set(data)
    assert list(table_data([])) == []


def test_service_connect_reports_nothing_without_traffic() -> None:
    """No zeros: as with the load balancer, counts exist when they are not zero."""
    assert list(Mesh().data("ui", "orders", 1)) == []


def test_a_service_without_running_tasks_has_counts_and_no_utilisation() -> None:
    """So an alarm on CPU goes quiet, and one on RunningTaskCount does not."""
    data = by_name(service_data(Service("orders"), [], []))
    assert data["RunningTaskCount"].values == (0.0,)
    assert data["DesiredTaskCount"].values == (1.0,)
    assert "CPUUtilization" not in data


def test_restarts_back_off_to_a_limit() -> None:
    """Doubling from a second to five minutes of lab time."""
    assert [backoff_s(failed) for failed in (0, 1, 2, 3, 20)] == [0, 1, 2, 4, 300]


def test_a_target_that_fails_before_it_answers_has_no_response_time() -> None:
    """TargetResponseTime is of answers only."""
    from lab.store.albmetrics import Window

    window = Window("us-east-1", 0)
    window.count(Outcome(End.CONNECT_FAILED), 502, had_target=True)
    window.count(Outcome(End.DONE, 200, 0.25), 200, had_target=True)
    data = by_name(window.data(1, 0, 1))
    assert data["TargetResponseTime"].values == (0.25,)
    assert data["TargetResponseTime"].unit == "Seconds"
    assert data["HTTPCode_ELB_502_Count"].values == (1,)
    assert data["RequestCount"].values == (2,)


@pytest.mark.parametrize("region", ["us-east-1", "us-west-2", "eu-west-1"])
def test_the_day_has_a_peak_and_a_night(region: str) -> None:
    """Over a day the load runs from the night's share to the whole, once."""
    shares = [share_of_peak(hour * 3600, region) for hour in range(24)]
    assert max(shares) == pytest.approx(1.0)
    assert min(shares) == pytest.approx(0.15, abs=0.01)
    assert share_of_peak(0, region) == pytest.approx(share_of_peak(86_400, region))
