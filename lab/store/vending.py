"""AWS's own metrics: once a minute of lab time it asks every part of the store what happened, and hands the answers to CloudWatch.

``python -m lab.store.vending``. A part that does not answer has nothing to report, so that its metrics are absent as they are on AWS; which
metrics exist when, their names, dimensions and units stand next to what they measure (`lab.store.albmetrics`, `lab.store.connect`,
`lab.store.ecs`, `lab.data.metrics`, `lab.data.dynamodb`). Data is stamped with the beginning of its minute.
"""

from __future__ import annotations

import signal
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from lab.admin import Refusal, call
from lab.data import broker
from lab.data.metrics import broker_data, cache_data, database_data, table_data
from lab.plan import LabPlan
from lab.store import names

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from lab.store.datum import Datum

PERIOD_S = 60.0
TIMEOUT_S = 1.5
ONCE = Retry(NoBackoff(), 0)
ADMIN = "user/admin"
Item = dict[str, Any]


@dataclass(slots=True)
class Publisher:
    """Collects and publishes; ``_before`` holds each part's last answer, for what is a counter there and a rate here."""

    plan: LabPlan
    _before: dict[str, Any] = field(default_factory=dict)
    _last: float = field(default_factory=time.monotonic)
    _since: float = 0.0

    def collect(self) -> list[Item]:
        """The data of the period that ends now, with Regions and without times."""
        now = time.monotonic()
        span_s, self._last = max(0.1, now - self._last), now
        work: list[Callable[[], Iterable[Item]]] = [self._replication, self._tables]
        for name, region in self.plan.regions.items():
            work += [lambda n=name, p=port: _window(n, p) for port in (region.alb_admin_port, region.connect_admin_port, region.ecs_port)]  # type: ignore[misc]
            work += [lambda n=name, part=part: _in(n, part(n, span_s)) for part in (self._databases, self.cache, self._broker)]  # type: ignore[misc]
        with ThreadPoolExecutor(8) as pool:
            return [item for found in pool.map(_or_nothing, work) for item in found]

    def publish(self, items: list[Item], stamp: float) -> None:
        """Give data to CloudWatch. Raises OSError where the local AWS is not there."""
        samples = [
            {key: item[key] for key in ("region", "namespace", "metric", "dimensions", "unit")} | {"value": value, "timestamp": stamp}
            for item in items
            for value in item["values"]
        ]
        if samples:
            call(self.plan.control_port, "POST", "/vend", samples, timeout_s=10)

    def run(self, stop: threading.Event) -> None:
        """Publish at the end of every minute of lab time until ``stop``."""
        clock = self.plan.clock
        begin = clock.now() // PERIOD_S * PERIOD_S
        self._since = clock.now()
        while not stop.wait(max(0.0, clock.wall_at(begin + PERIOD_S) - time.time())):
            try:
                self.publish(self.collect(), begin)
            except (OSError, Refusal) as error:
                print(f"could not publish: {error}", file=sys.stderr, flush=True)
            begin = max(begin + PERIOD_S, clock.now() // PERIOD_S * PERIOD_S)

    def _databases(self, region: str, span_s: float) -> Iterable[Datum]:
        status = call(self.plan.regions[region].aurora_port, "GET", "/status", timeout_s=TIMEOUT_S)
        before = self._swap(f"{region}/aurora", status)
        return [datum for name, now in status.items() for datum in database_data(region, name, now, before and before[name], span_s)]

    def cache(self, region: str, span_s: float) -> list[Datum]:
        """What the nodes of a Region's cache say that answer, with the replicas' lag as the group's keeper measures it."""
        lags = {node: about["lag_s"] for node, about in _cache_nodes(self.plan.regions[region].cache_port).items()}
        found: list[Datum] = []
        for node, port in self.plan.regions[region].redis_node_ports.items():
            try:
                with redis.Redis(port=port, socket_timeout=TIMEOUT_S, socket_connect_timeout=TIMEOUT_S, retry=ONCE) as client:
                    now = client.info()
            except (OSError, redis.RedisError):
                self._before.pop(f"{region}/redis-{node}", None)
                continue
            before = self._swap(f"{region}/redis-{node}", now)
            found += cache_data(names.cache_node(region, node), now, before, span_s, lags.get(node))
        return found

    def _broker(self, region: str, span_s: float) -> Iterable[Datum]:
        port = self.plan.regions[region].amqp_admin_port
        overview, queues, node = broker.overview(port, TIMEOUT_S), broker.queues(port, TIMEOUT_S), broker.node(port, TIMEOUT_S)
        if not overview.get("listening", True):
            return []
        return list(broker_data(region, overview, node, self._swap(f"{region}/amqp", node), queues, span_s))

    def _replication(self) -> Iterable[Item]:
        found: list[Item] = call(self.plan.replicator_port, "POST", "/window", timeout_s=TIMEOUT_S)
        return found

    def _tables(self) -> Iterable[Item]:
        calls = call(self.plan.control_port, "GET", "/calls?service=dynamodb&limit=100000", timeout_s=TIMEOUT_S)
        since, self._since = self._since, self.plan.clock.now()
        recent = [one for one in calls if since <= one["at"] < self._since and one["principal"] != ADMIN]
        return [item for name in self.plan.regions for item in _in(name, table_data(one for one in recent if one["region"] == name))]

    def _swap(self, key: str, now: Any) -> Any:
        before = self._before.get(key)
        self._before[key] = now
        return before


def _window(region: str, port: int) -> list[Item]:
    return [{"region": region} | item for item in call(port, "POST", "/window", timeout_s=TIMEOUT_S)]


def _in(region: str, data: Iterable[Datum]) -> list[Item]:
    return [{"region": region} | datum.as_dict() for datum in data]


def _cache_nodes(port: int) -> dict[str, Any]:
    """The cache's nodes as their keeper sees them; none where it does not answer."""
    try:
        nodes: dict[str, Any] = call(port, "GET", "/status", timeout_s=TIMEOUT_S)["nodes"]
    except (OSError, Refusal):
        return {}
    return nodes


def _or_nothing(work: Callable[[], Iterable[Item]]) -> Iterable[Item]:
    """What ``work`` returns; nothing where the part that it asks does not answer."""
    try:
        return work()
    except (OSError, Refusal, redis.RedisError):
        return []


def main() -> None:
    """Run until SIGTERM."""
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    Publisher(LabPlan.load()).run(stop)


if __name__ == "__main__":
    main()
