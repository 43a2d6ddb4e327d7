"""What the store's AWS resources are called: the dimension values of the metrics that the lab publishes for them.

The lab's topology (lab/topology.py) takes them from here, so that dashboards and alarms find the metrics. They stand in a module of their
own because the store's processes start without the topology's model.
"""

from __future__ import annotations

WORKLOAD = "retail"
CARTS_TABLE = f"{WORKLOAD}-carts"
CLUSTER = WORKLOAD
QUEUE = "orders"
VIRTUAL_HOST = "/"


def load_balancer(index: int) -> str:
    """The LoadBalancer dimension of the lab's Region ``index``."""
    return f"app/{WORKLOAD}/{index + 1:016x}"


def target_group(index: int) -> str:
    """The TargetGroup dimension of the lab's Region ``index``."""
    return f"targetgroup/{WORKLOAD}-ui/{index + 1:016x}"


def global_cluster(database: str) -> str:
    """The Aurora global database."""
    return f"{WORKLOAD}-{database}"


def db_cluster(database: str, region: str) -> str:
    """The Aurora cluster of a database in a Region."""
    return f"{WORKLOAD}-{database}-{region}"


def db_instance(database: str, region: str) -> str:
    """The one instance of that cluster."""
    return f"{db_cluster(database, region)}-1"


def cache(region: str) -> str:
    """The ElastiCache replication group of a Region."""
    return f"{WORKLOAD}-checkout-{region}"


def cache_node(region: str, node: str) -> str:
    """The CacheClusterId of one of its nodes (``001``, ``002``)."""
    return f"{cache(region)}-{node}"


def broker(region: str) -> str:
    """The Amazon MQ broker."""
    return f"{WORKLOAD}-orders-{region}"


def log_group(service: str) -> str:
    """The CloudWatch log group of a service, in every Region."""
    return f"/{WORKLOAD}/{service}"


def metrics_log_group(service: str) -> str:
    """The log group that takes a service's metrics in the embedded metric format."""
    return f"/{WORKLOAD}/metrics/{service}"
