"""ElastiCache, Amazon MQ and the DynamoDB global table: down, full, blocked, or cut off from their other half."""

from __future__ import annotations

import contextlib
from functools import partial
from typing import TYPE_CHECKING, Any

from lab import admin
from lab.data import broker, rabbitmq
from lab.data.cache import FAILS_OVER_AFTER_S
from lab.faults.fault import Fault, Where, the
from lab.faults.services import deploy, lost_with_tasks, roll_back, tasks_of
from lab.plan import RABBITMQ
from lab.store import names

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from lab.faults.ground import Ground

FILLER = "crosswatch:filler:"
FILLER_BYTES = 64 * 1024
SLOW_REPLICATION_MS = 5000

MEMORY = the("the cache's memory in {region}")
REPLICATION = the("the cache's replication in {region}")
MEMORY_ALARM = the("the broker's memory alarm in {region}")
DISK_ALARM = the("the broker's disk alarm in {region}")
CONSUMERS = the("the broker's consumers in {region}")


def _kill(part: str, ground: Ground, region: str) -> None:
    ground.processes.hold([f"{region}/{part}"], f"{part}-down")


def _start(part: str, ground: Ground, region: str, _memory: None) -> None:
    ground.processes.release([f"{region}/{part}"], f"{part}-down")


def _cache(ground: Ground, region: str) -> Any:
    """What the keeper says of the Region's cache."""
    return admin.call(ground.region(region).cache_port, "GET", "/status")


def _primary(ground: Ground, region: str) -> str:
    """Which node is the cache's primary."""
    primary = _cache(ground, region)["primary"]
    if primary is None:
        raise admin.Refusal(409, f"the cache of {region} has no primary")
    return str(primary)


def _await_cache(ground: Ground, region: str) -> None:
    """Wait until the cache has a primary and its replica is in step; less is not asked while other faults hold a node or its keeper."""
    parts = {f"{region}/cache", *(f"{region}/redis-{node}" for node in ground.region(region).redis_node_ports)}
    if not any(each.held_by or each.frozen_by for each in ground.processes.status() if each.name in parts):
        ground.await_(f"the cache of {region}", lambda: _cache(ground, region)["whole"] or _cache(ground, region)["cut"])


def _kill_nodes(ground: Ground, region: str) -> None:
    ground.processes.hold([f"{region}/redis-{node}" for node in ground.region(region).redis_node_ports], "redis-down")


def _start_nodes(ground: Ground, region: str, _memory: None) -> None:
    ground.processes.release([f"{region}/redis-{node}" for node in ground.region(region).redis_node_ports], "redis-down")
    _await_cache(ground, region)


def _strike_primary(fault: str, ground: Ground, region: str) -> str:
    primary = f"{region}/redis-{_primary(ground, region)}"
    strike: Callable[[Iterable[str], str], None] = ground.processes.freeze if fault == "redis-hanging" else ground.processes.hold
    strike([primary], fault)
    return primary


def _give_back(fault: str, ground: Ground, region: str, node: str) -> None:
    give: Callable[[Iterable[str], str], None] = ground.processes.thaw if fault == "redis-hanging" else ground.processes.release
    give([node], fault)
    _await_cache(ground, region)


def _fail_over(ground: Ground, region: str) -> None:
    ground.client("elasticache", region).test_failover(ReplicationGroupId=names.cache(region), NodeGroupId="0001")


def _await_failover(ground: Ground, region: str, _memory: None) -> None:
    _await_cache(ground, region)


def _replicate(cut: bool, ground: Ground, region: str, _memory: None = None) -> None:
    admin.call(ground.region(region).cache_port, "PUT", "/replication", {"cut": cut})
    if not cut:
        _await_cache(ground, region)


def _redis(port: int) -> Any:
    import redis

    return redis.Redis(host="127.0.0.1", port=port, socket_timeout=5, decode_responses=True)


def _settings(ground: Ground, region: str) -> tuple[Any, dict[str, Any]]:
    """The cache's primary, and what is changed of it: its port and its settings as they are."""
    port = ground.region(region).redis_node_ports[_primary(ground, region)]
    client = _redis(port)
    return client, {"port": port, "settings": {name: client.config_get(name)[name] for name in ("maxmemory", "maxmemory-policy")}}


def _shrink(ground: Ground, region: str) -> dict[str, Any]:
    """Leave the primary less memory than it uses, and nothing that it may evict; returns what it was."""
    client, before = _settings(ground, region)
    ground.begun = before
    client.config_set("maxmemory-policy", "noeviction")
    client.config_set("maxmemory", int(client.info("memory")["used_memory"]) // 2)
    return before


def _overfill(ground: Ground, region: str) -> dict[str, Any]:
    """Write until something is evicted, whatever it is; returns the settings as they were."""
    client, before = _settings(ground, region)
    ground.begun = before
    client.config_set("maxmemory-policy", "allkeys-lru")
    evicted = int(client.info("stats")["evicted_keys"])
    for number in range(2 * int(before["settings"]["maxmemory"]) // FILLER_BYTES):
        client.set(f"{FILLER}{number}", "x" * FILLER_BYTES)
        if int(client.info("stats")["evicted_keys"]) > evicted:
            break
    return before


def _empty(ground: Ground, region: str, before: dict[str, Any]) -> None:
    struck = _redis(before["port"])
    for name, value in before["settings"].items():
        struck.config_set(name, value)
    primary = _redis(ground.region(region).redis_port)
    for key in primary.scan_iter(f"{FILLER}*", count=1000):
        primary.delete(key)


def _alarm(kind: str, on: bool, ground: Ground, region: str, _memory: None = None) -> None:
    """Have the broker block its publishers, or let them go on, and wait until it says so."""
    port = ground.region(region).amqp_admin_port
    if ground.plan.broker == RABBITMQ:
        rabbitmq.alarm(ground.plan, ground.region(region), kind, on)
    else:
        admin.call(port, "PUT", "/alarms", {kind: on})
    shown = {"memory": "mem_alarm", "disk": "disk_free_alarm"}[kind]
    ground.await_(f"the broker's {kind} alarm in {region}", lambda: broker.node(port)[shown] is on)


def _stick(ground: Ground, region: str) -> None:
    """Consume the queue of order events and acknowledge nothing. Raises ConnectionError where the broker does not let us."""
    import pika
    from pika.exceptions import AMQPError

    from lab.store.events import QUEUE

    credentials = pika.PlainCredentials("retail", "retail")
    address = pika.ConnectionParameters(
        "127.0.0.1", ground.region(region).amqp_port, credentials=credentials, heartbeat=60, blocked_connection_timeout=10
    )
    with contextlib.ExitStack() as undo:
        try:
            connection = pika.BlockingConnection(address)
            undo.callback(lambda: connection.is_open and connection.close())
            channel = connection.channel()
            for index in range(9):  # more than the real consumers, so that most events come here
                channel.basic_consume(QUEUE, lambda *_: None, consumer_tag=f"stuck-{index}")
        except AMQPError as error:
            raise ConnectionError(f"the broker of {region} takes no consumer: {error!r}") from error
        undo.pop_all()

    def hold(stopping: Any) -> None:
        with contextlib.suppress(AMQPError):  # the broker died: it has taken its messages back
            while not stopping.is_set():
                connection.process_data_events(time_limit=0.2)
            connection.close()

    ground.keep_doing(f"stuck consumer in {region}", hold)


def _let_go(ground: Ground, region: str, _memory: None) -> None:
    ground.stop_doing(f"stuck consumer in {region}")


def _deafen(ground: Ground, region: str) -> None:
    """Deploy Orders without its consumer, and wait until the queue has none."""
    deploy("orders", {"RETAIL_ORDERS_CONSUMER": "off"}, ground, region)
    ground.await_(f"the consumer of {region} is gone", lambda: _consumers(ground, region) == 0)


def _attend(ground: Ground, region: str, _memory: None) -> None:
    roll_back("orders", ground, region, None)
    ground.await_(f"the queue of {region} has a consumer", lambda: _consumers(ground, region) > 0)


def _consumers(ground: Ground, region: str) -> int:
    """How many consumers the queue of order events has."""
    queues = broker.queues(ground.region(region).amqp_admin_port)
    return sum(int(queue.get("consumers", 0)) for queue in queues if queue["name"] == names.QUEUE)


def _direction(state: dict[str, Any], ground: Ground, region: str, _memory: None = None) -> None:
    """Both directions between a Region's table and the others."""
    for other in ground.others(region):
        for source, target in ((region, other), (other, region)):
            admin.call(ground.plan.replicator_port, "PUT", f"/directions/{source}/{target}", state)


FAULTS = (
    Fault(
        "redis-down",
        "caches",
        "Both Redis nodes of one Region die, so that nothing can be promoted; Checkout loses the carts that they held.",
        "connections to the primary endpoint break at once; no node answers",
        Where.REGION,
        _kill_nodes,
        _start_nodes,
        forgets=MEMORY,
    ),
    Fault(
        "redis-primary-down",
        "caches",
        f"The primary Redis node of one Region dies; after {FAILS_OVER_AFTER_S:g} s its replica is promoted, "
        "with all carts but those that it had not got.",
        "connections to the primary endpoint break, then lead to the other node; IsMaster moves, DescribeEvents tells of the failover",
        Where.REGION,
        partial(_strike_primary, "redis-primary-down"),
        partial(_give_back, "redis-primary-down"),
        forgets=MEMORY,
    ),
    Fault(
        "redis-hanging",
        "caches",
        "The primary Redis node of one Region accepts connections and never answers; it fails its health checks, and its replica is "
        "promoted.",
        "commands to Redis time out until the failover; the node has no metrics",
        Where.REGION,
        partial(_strike_primary, "redis-hanging"),
        partial(_give_back, "redis-hanging"),
        forgets=MEMORY,
    ),
    Fault(
        "redis-failover",
        "caches",
        "Somebody tests the failover of one Region's Redis: its primary is taken away and its replica promoted; it mends itself.",
        "the replication group is modifying; connections to the primary endpoint break",
        Where.REGION,
        _fail_over,
        _await_failover,
        forgets=MEMORY,
    ),
    Fault(
        "redis-replication-cut",
        "caches",
        "The Redis replica of one Region hears nothing of the primary: a failover now would lose the carts since then.",
        "ReplicationLag rises; what is written to the primary is not on the replica",
        Where.REGION,
        partial(_replicate, True),
        partial(_replicate, False),
        touches=REPLICATION,
    ),
    Fault(
        "redis-full",
        "caches",
        "The primary Redis node of one Region is full and may not evict: reads work, writes fail.",
        "writes to Redis answer OOM; DatabaseMemoryUsagePercentage is 100",
        Where.REGION,
        _shrink,
        _empty,
        touches=MEMORY,
    ),
    Fault(
        "redis-evicting",
        "caches",
        "The primary Redis node of one Region is full and evicts: carts vanish in the middle of a checkout.",
        "Evictions rise",
        Where.REGION,
        _overfill,
        _empty,
        touches=MEMORY,
    ),
    Fault(
        "broker-down",
        "broker",
        "The message broker of one Region dies; Orders keeps its events in the outbox.",
        "AMQP connections are refused",
        Where.REGION,
        partial(_kill, "amqp"),
        partial(_start, "amqp"),
        forgets=MEMORY_ALARM | DISK_ALARM | CONSUMERS,
    ),
    Fault(
        "broker-blocked",
        "broker",
        "The message broker of one Region raises its memory alarm and blocks every publisher.",
        "the management API says mem_alarm; publishers get connection.blocked",
        Where.REGION,
        partial(_alarm, "memory", True),
        partial(_alarm, "memory", False),
        touches=MEMORY_ALARM,
    ),
    Fault(
        "broker-disk-full",
        "broker",
        "The message broker of one Region is short of disk and blocks every publisher.",
        "the management API says disk_free_alarm",
        Where.REGION,
        partial(_alarm, "disk", True),
        partial(_alarm, "disk", False),
        touches=DISK_ALARM,
    ),
    Fault(
        "orders-consumer-stuck",
        "broker",
        "Somebody's consumer takes the order events of one Region and never acknowledges: the queue grows.",
        "MessageUnacknowledgedCount of the queue rises",
        Where.REGION,
        _stick,
        _let_go,
        touches=CONSUMERS,
    ),
    Fault(
        "orders-consumer-gone",
        "broker",
        "A release of Orders that publishes its events and has lost their consumer, in one Region: the queue is fed, and nobody takes.",
        "ConsumerCount of the queue is 0; MessageCount and MessageReadyCount rise",
        Where.REGION,
        _deafen,
        _attend,
        touches=CONSUMERS | tasks_of("orders"),
        forgets=lost_with_tasks("orders"),
    ),
    Fault(
        "carts-replication-cut",
        "tables",
        "The carts table of one Region neither sends its changes to the others nor gets theirs.",
        "PendingReplicationCount grows; a cart written in one Region is missing in the other",
        Where.REGION,
        partial(_direction, {"cut": True}),
        partial(_direction, {"cut": False}),
        touches=the("whether carts are replicated"),
    ),
    Fault(
        "carts-replication-slow",
        "tables",
        f"Changes to the carts table take {SLOW_REPLICATION_MS / 1000:g} s more between a Region and the others.",
        "ReplicationLatency rises in both directions",
        Where.REGION,
        partial(_direction, {"delay_ms": SLOW_REPLICATION_MS}),
        partial(_direction, {"delay_ms": 0}),
        touches=the("how late carts are replicated"),
    ),
)
