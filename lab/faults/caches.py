"""ElastiCache, Amazon MQ and the DynamoDB global table: down, full, blocked, or cut off from their other half."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

from lab import admin
from lab.data import broker, rabbitmq
from lab.faults.fault import Fault, Where
from lab.plan import RABBITMQ

if TYPE_CHECKING:
    from lab.faults.ground import Ground

FILLER = "crosswatch:filler:"
FILLER_BYTES = 64 * 1024
SLOW_REPLICATION_MS = 5000


def _kill(part: str, ground: Ground, region: str) -> None:
    ground.processes.hold([f"{region}/{part}"], f"{part}-down")


def _start(part: str, ground: Ground, region: str, _memory: None) -> None:
    ground.processes.release([f"{region}/{part}"], f"{part}-down")


def _freeze(part: str, ground: Ground, region: str) -> None:
    ground.processes.freeze([f"{region}/{part}"], f"{part}-hanging")


def _thaw(part: str, ground: Ground, region: str, _memory: None) -> None:
    ground.processes.thaw([f"{region}/{part}"], f"{part}-hanging")


def _redis(ground: Ground, region: str) -> Any:
    import redis

    return redis.Redis(host="127.0.0.1", port=ground.region(region).redis_port, socket_timeout=5, decode_responses=True)


def _shrink(ground: Ground, region: str) -> dict[str, str]:
    """Leave the cache less memory than it uses, and nothing that it may evict; returns the settings as they were."""
    client = _redis(ground, region)
    before: dict[str, str] = {name: client.config_get(name)[name] for name in ("maxmemory", "maxmemory-policy")}
    client.config_set("maxmemory-policy", "noeviction")
    client.config_set("maxmemory", int(client.info("memory")["used_memory"]) // 2)
    return before


def _overfill(ground: Ground, region: str) -> dict[str, str]:
    """Write until something is evicted, whatever it is; returns the settings as they were."""
    client = _redis(ground, region)
    before: dict[str, str] = {name: client.config_get(name)[name] for name in ("maxmemory", "maxmemory-policy")}
    client.config_set("maxmemory-policy", "allkeys-lru")
    evicted = int(client.info("stats")["evicted_keys"])
    for number in range(2 * int(before["maxmemory"]) // FILLER_BYTES):
        client.set(f"{FILLER}{number}", "x" * FILLER_BYTES)
        if int(client.info("stats")["evicted_keys"]) > evicted:
            break
    return before


def _empty(ground: Ground, region: str, before: dict[str, str]) -> None:
    client = _redis(ground, region)
    for name, value in before.items():
        client.config_set(name, value)
    for key in client.scan_iter(f"{FILLER}*", count=1000):
        client.delete(key)


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
    """Consume the queue of order events and acknowledge nothing."""
    import pika

    from lab.store.events import QUEUE

    credentials = pika.PlainCredentials("retail", "retail")
    port = ground.region(region).amqp_port

    def consume(stopping: Any) -> None:
        connection = pika.BlockingConnection(pika.ConnectionParameters("127.0.0.1", port, credentials=credentials, heartbeat=60))
        channel = connection.channel()
        for index in range(9):  # more than the real consumers, so that most events come here
            channel.basic_consume(QUEUE, lambda *_: None, consumer_tag=f"stuck-{index}")
        while not stopping.is_set():
            connection.process_data_events(time_limit=0.2)
        connection.close()

    ground.keep_doing(f"stuck consumer in {region}", consume)


def _let_go(ground: Ground, region: str, _memory: None) -> None:
    ground.stop_doing(f"stuck consumer in {region}")


def _direction(state: dict[str, Any], ground: Ground, region: str, _memory: None = None) -> None:
    """Both directions between a Region's table and the others."""
    for other in ground.others(region):
        for source, target in ((region, other), (other, region)):
            admin.call(ground.plan.replicator_port, "PUT", f"/directions/{source}/{target}", state)


FAULTS = (
    Fault(
        "redis-down",
        "caches",
        "The Redis node of one Region dies; Checkout loses the carts that it held.",
        "connections to Redis are refused",
        Where.REGION,
        partial(_kill, "redis"),
        partial(_start, "redis"),
    ),
    Fault(
        "redis-hanging",
        "caches",
        "The Redis node of one Region accepts connections and never answers.",
        "commands to Redis time out",
        Where.REGION,
        partial(_freeze, "redis"),
        partial(_thaw, "redis"),
    ),
    Fault(
        "redis-full",
        "caches",
        "The Redis node of one Region is full and may not evict: reads work, writes fail.",
        "writes to Redis answer OOM; DatabaseMemoryUsagePercentage is 100",
        Where.REGION,
        _shrink,
        _empty,
    ),
    Fault(
        "redis-evicting",
        "caches",
        "The Redis node of one Region is full and evicts: carts vanish in the middle of a checkout.",
        "Evictions rise",
        Where.REGION,
        _overfill,
        _empty,
    ),
    Fault(
        "broker-down",
        "broker",
        "The message broker of one Region dies; Orders keeps its events in the outbox.",
        "AMQP connections are refused",
        Where.REGION,
        partial(_kill, "amqp"),
        partial(_start, "amqp"),
    ),
    Fault(
        "broker-blocked",
        "broker",
        "The message broker of one Region raises its memory alarm and blocks every publisher.",
        "the management API says mem_alarm; publishers get connection.blocked",
        Where.REGION,
        partial(_alarm, "memory", True),
        partial(_alarm, "memory", False),
    ),
    Fault(
        "broker-disk-full",
        "broker",
        "The message broker of one Region is short of disk and blocks every publisher.",
        "the management API says disk_free_alarm",
        Where.REGION,
        partial(_alarm, "disk", True),
        partial(_alarm, "disk", False),
    ),
    Fault(
        "orders-consumer-stuck",
        "broker",
        "Somebody's consumer takes the order events of one Region and never acknowledges: the queue grows.",
        "MessageUnacknowledgedCount of the queue rises",
        Where.REGION,
        _stick,
        _let_go,
    ),
    Fault(
        "carts-replication-cut",
        "tables",
        "The carts table of one Region neither sends its changes to the others nor gets theirs.",
        "PendingReplicationCount grows; a cart written in one Region is missing in the other",
        Where.REGION,
        partial(_direction, {"cut": True}),
        partial(_direction, {"cut": False}),
    ),
    Fault(
        "carts-replication-slow",
        "tables",
        f"Changes to the carts table take {SLOW_REPLICATION_MS / 1000:g} s more between a Region and the others.",
        "ReplicationLatency rises in both directions",
        Where.REGION,
        partial(_direction, {"delay_ms": SLOW_REPLICATION_MS}),
        partial(_direction, {"delay_ms": 0}),
    ),
)
