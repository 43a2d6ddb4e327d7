"""The numbers of the rendered metric alarms, in tables of their own: thresholds, periods, windows, and what silence does.

Every `Shape` is one alarm of the example topology with the series that drives it. Its test walks the alarm through: values exactly at
the limit, a run one period too short, a run with a gap of one good period, the shortest run that fires, recovery, and silence. Where a
number in a template changes and the table does not, a test fails; `alarms test --mutate` shows which numbers nothing holds.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from alarms.testing.notation import parse_duration
from tests.alarms.scenes import EXAMPLE, WITH_LEDGER, WITH_REPLICAS

EAST, WEST = "us-east-1", "us-west-2"
OTHER = {EAST: WEST, WEST: EAST}
Metric = tuple[str, str, Mapping[str, str]]
"""Namespace, name, dimensions."""


@dataclass(frozen=True)
class Shape:
    """``good``, ``limit`` and ``bad`` are values of ``metric``: what is well, what just is not bad, and what just is.

    ``steady`` holds other metrics that the alarm reads, with the value they keep. ``silent`` is the state that ALARM becomes when
    ``metric`` falls silent.
    """

    alarm: str
    region: str
    metric: Metric
    good: float
    limit: float
    bad: float
    periods: int
    period: str
    silent: str
    unit: str | None = None
    steady: tuple[tuple[Metric, float], ...] = ()
    text: str = field(default=EXAMPLE, repr=False)

    def test(self) -> dict[str, Any]:
        """The walk, as an entry of ``tests:`` in an alarm test file."""
        n, step = self.periods, parse_duration(self.period)
        good, limit, bad = self.good, self.limit, self.bad
        walk: list[float | None] = [good] * 2
        expect = []

        def go(values: list[float | None], state: str) -> None:
            walk.extend(values)
            expect.append({"at": f"{round(len(walk) * step)}s", "region": self.region, "alarm": f"retail-{self.alarm}", "state": state})

        go([limit] * (n + 1), "OK")
        go([good] * (n + 1), "OK")
        if n > 1:
            go([bad] * (n - 1), "OK")
            go([good], "OK")
            go([bad] * (n - 1), "OK")
            go([good] * (n + 1), "OK")
        go([bad] * n, "ALARM")
        go([good], "OK")
        go([bad] * n, "ALARM")
        go([None] * (n + 10), self.silent)
        return {
            "name": f"{self.alarm} in {self.region}",
            "region": self.region,
            "interval": self.period,
            "previous_state": {f"retail-{self.alarm}": "OK"},
            "input_series": list(self._series(walk)),
            "expect": expect,
        }

    def _series(self, walk: list[float | None]) -> Iterator[dict[str, Any]]:
        words = " ".join("_" if value is None else f"{value:.10g}" for value in walk)
        yield {**_metric(self.metric, self.unit), "values": words}
        for metric, value in self.steady:
            yield {**_metric(metric, None), "values": f"{value:g}x{len(walk) - 1}"}


@dataclass(frozen=True)
class Window:
    """A burn-rate window of an objective: it burns above ``limit`` (a share of all rounds) and is well at or below it.

    ``views`` are the metrics of the share of good rounds, the best of which counts; None: ``latency`` is, in milliseconds."""

    alarm: str
    region: str
    limit: float
    window: str
    step: str
    views: tuple[Metric, ...] = ()
    latency: Metric | None = None
    heard: Metric | None = None
    text: str = field(default=EXAMPLE, repr=False)

    def test(self) -> dict[str, Any]:
        """A window of good rounds, two that just do not burn, one that does; recovery as soon as the window has passed; silence."""
        steps = int(parse_duration(self.window) // parse_duration(self.step))
        step = parse_duration(self.step)
        walk: list[float | None] = []
        expect = []

        def go(share: float | None, count: int, state: str) -> None:
            walk.extend([share] * count)
            expect.append({"at": f"{round(len(walk) * step)}s", "region": self.region, "alarm": f"retail-{self.alarm}", "state": state})

        go(0.0, steps, "OK")
        go(self.limit * 0.95, 2 * steps, "OK")
        go(self.limit * 1.05, steps, "ALARM")
        go(0.0, steps, "OK")
        go(self.limit * 1.05, steps, "ALARM")
        go(None, 4 * steps, "OK")  # a point counts for as long as the evaluation range reaches back: three windows
        return {
            "name": f"{self.alarm} in {self.region}",
            "region": self.region,
            "interval": self.step,
            "previous_state": {f"retail-{self.alarm}": "OK"},
            "input_series": list(self._series(walk, max(10, int(step // 6)))),
            "expect": expect,
        }

    def _series(self, walk: list[float | None], rounds: int) -> Iterator[dict[str, Any]]:
        """``rounds`` samples a step: ten a minute, as two vantages write them."""
        if self.latency:
            many = 2000
            slow = [None if share is None else round(share * many) for share in walk]
            yield {
                **_metric(self.latency, None),
                "samples": [[] if n is None else [word for word in (_run(1200, n), _run(100, many - n)) if word] for n in slow],
            }
        for i, view in enumerate(self.views):
            # every view but one is worse: the best counts
            shares = [None if share is None else 1 - share * (1 if i == len(self.views) - 1 else 3) for share in walk]
            yield {**_metric(view, None), "samples": [[] if share is None else [_run(share, rounds)] for share in shares]}
        if self.heard:
            yield {**_metric(self.heard, None), "samples": [[] if share is None else [_run(1, rounds)] for share in walk]}


def _run(value: float, count: int) -> str:
    return f"{value:.10g}x{count - 1}" if count else ""


def _metric(metric: Metric, unit: str | None) -> dict[str, Any]:
    namespace, name, dimensions = metric
    return {"metric": {"namespace": namespace, "name": name, "dimensions": dict(dimensions)}, **({"unit": unit} if unit else {})}


def probe(name: str, **dimensions: str) -> Metric:
    """A metric of the probe."""
    return "Crosswatch/Probe", name, {"Workload": "retail", **dimensions}


def _evidence(here: str) -> Iterator[Shape]:
    """What the matrix says: down, lost, broken, silent … of ones and zeros. ``ignore`` keeps ALARM through silence."""
    there = OTHER[here]
    for region in (EAST, WEST):
        up = probe("Up", Target=f"alb-{region}")
        yield Shape(f"down-{region}", here, up, 1, 1, 0, 3, "10s", "ALARM")
        whole = probe("Whole", Target=f"alb-{region}")
        yield Shape(f"broken-{region}", here, whole, 1, 1, 0, 2, "60s", "ALARM", steady=((up, 1),))
        yield Shape(f"silent-{region}", here, probe("Sighted", Vantage=region), 1, 1, 0, 3, "60s", "ALARM")
        yield Shape(f"off-{region}", here, probe("RoutingOn", Region=region), 1, 1, 0, 1, "60s", "ALARM")
        yield Shape(f"off-long-{region}", here, probe("RoutingOn", Region=region), 1, 1, 0, 4, "60s", "ALARM")
    yield Shape("name-unreachable", here, probe("Up", Target="name"), 1, 1, 0, 3, "10s", "ALARM")
    yield Shape("name-unreachable-long", here, probe("Up", Target="name"), 1, 1, 0, 3, "60s", "ALARM")
    yield Shape("dark", here, probe("Sighted"), 1, 1, 0, 3, "10s", "ALARM")
    yield Shape(f"lost-{there}", here, probe("Up", Target=f"alb-{there}"), 1, 1, 0, 2, "10s", "ALARM")
    yield Shape(f"uneven-{there}", here, probe("Up", Target=f"alb-{there}"), 1, 1, 0, 5, "60s", "OK")
    for database in ("catalog", "orders"):
        writers = probe("Writers", Database=database)
        yield Shape(f"writers-many-{database}", here, writers, 1, 1, 2, 3, "60s", "ALARM")
        yield Shape(f"writers-none-{database}", here, writers, 1, 1, 0, 5, "60s", "ALARM")
    yield Shape("dns-mismatch", here, probe("DnsAgrees"), 1, 1, 0, 3, "60s", "OK")


def _tickets(here: str) -> Iterator[Shape]:
    """What the stores say of themselves. Silence is the other side's business: OK."""
    there = OTHER[here]
    for database, rpo_ms in (("catalog", 60_000), ("orders", 30_000)):
        lag = ("AWS/RDS", "AuroraGlobalDBReplicationLag", {"DBClusterIdentifier": f"retail-{database}-{here}", "SourceRegion": there})
        yield Shape(f"rpo-{database}-from-{there}", here, lag, 90, rpo_ms, rpo_ms * 1.05, 3, "60s", "OK", "Milliseconds")
    replication = ("AWS/DynamoDB", "ReplicationLatency", {"TableName": "retail-carts", "ReceivingRegion": there})
    yield Shape(f"replication-carts-to-{there}", here, replication, 800, 60_000, 63_000, 5, "60s", "OK", "Milliseconds")
    evictions = ("AWS/ElastiCache", "Evictions", {"CacheClusterId": f"retail-checkout-{here}"})
    yield Shape("evictions-checkout", here, evictions, 0, 0, 1, 5, "60s", "OK", "Count")
    queue = {"Broker": f"retail-orders-{here}", "VirtualHost": "/", "Queue": "orders"}
    waiting, consumers = ("AWS/AmazonMQ", "MessageReadyCount", queue), ("AWS/AmazonMQ", "ConsumerCount", queue)
    yield Shape("unconsumed-orders-orders", here, waiting, 0, 0, 1, 5, "60s", "OK", steady=((consumers, 0),))
    yield Shape(f"unwritable-{there}", here, probe("WriteOk", Vantage=here, Region=there), 1, 1, 0, 5, "60s", "OK")
    for target in (f"alb-{EAST}", f"alb-{WEST}", "name"):
        days = probe("CertificateDaysLeft", Vantage=here, Target=target)
        yield Shape(f"certificate-{target}", here, days, 60, 21, 20, 1, "300s", "OK")


def _delivery(here: str) -> Iterator[Shape]:
    """Whether the alarms' messages get to people: of every message one that has arrived is well."""
    lost = ("AWS/Lambda", "DestinationDeliveryFailures", {"FunctionName": "retail-notifier"})
    yield Shape("page-lost", here, lost, 0, 0, 1, 1, "60s", "OK")
    topic = {"TopicName": "retail-alarms"}
    sent, delivered = ("AWS/SNS", "NumberOfMessagesPublished", topic), ("AWS/SNS", "NumberOfNotificationsDelivered", topic)
    yield Shape("undelivered-now", here, sent, 1, 2, 3, 1, "1h", "OK", steady=((delivered, 2.0),))


def _replicas(here: str) -> Iterator[Shape]:
    """A cache of two nodes, of which the second is the replica now: the primary reports no lag."""
    lag = ("AWS/ElastiCache", "ReplicationLag", {"CacheClusterId": f"retail-checkout-{here}-002"})
    yield Shape("cache-lag-checkout", here, lag, 0, 60, 61, 3, "60s", "OK", "Seconds", text=WITH_REPLICAS)


def _ledger(here: str) -> Iterator[Shape]:
    """What the synthetic orders say, each five minutes."""
    placed = ("Crosswatch/Ledger", "OrdersPlaced", {"Workload": "retail"})
    yield Shape("unplaced", here, placed, 4, 1, 0, 1, "300s", "ALARM", text=WITH_LEDGER)
    for vantage in (EAST, WEST):
        missing = ("Crosswatch/Ledger", "OrdersMissing", {"Workload": "retail", "Vantage": vantage})
        yield Shape(f"orders-lost-{vantage}", here, missing, 0, 0, 1, 1, "300s", "OK", text=WITH_LEDGER)


WINDOWS = (
    # pair, factor, window, step of the test; the SRE workbook's for 30 days
    ("1h-x14.4", 14.4, "1h", "5m"),
    ("5m-x14.4", 14.4, "5m", "1m"),
    ("6h-x6", 6.0, "6h", "30m"),
    ("30m-x6", 6.0, "30m", "5m"),
    ("3d-x1", 1.0, "3d", "6h"),
    ("6h-x1", 1.0, "6h", "30m"),
)


def _windows(here: str) -> Iterator[Window]:
    """The objectives: 99.9 % of rounds find the name, and each other Region, up; 99 % of answers come within a second."""
    there = OTHER[here]
    for words, factor, window, step in WINDOWS:
        name = probe("Up", Target="name")
        yield Window(f"slo-availability-store-burn-{words}", here, 0.001 * factor, window, step, (name,))
        views = tuple(probe("Up", Vantage=vantage, Target=f"alb-{there}") for vantage in (EAST, WEST))
        heard = probe("Up", Target=f"alb-{there}")
        yield Window(f"slo-availability-{there}-burn-{words}", here, 0.001 * factor, window, step, views, heard=heard)
        latency = probe("LatencyMs", Vantage=here, Target="name")
        yield Window(f"slo-latency-store-burn-{words}", here, 0.01 * factor, window, step, latency=latency)


SHAPES: tuple[Shape | Window, ...] = tuple(
    shape for here in (EAST, WEST) for shapes in (_evidence, _tickets, _delivery, _ledger, _windows) for shape in shapes(here)
)
ELSEWHERE: tuple[Shape, ...] = tuple(shape for here in (EAST, WEST) for shape in _replicas(here))
"""Of alarms that the example does not have."""
