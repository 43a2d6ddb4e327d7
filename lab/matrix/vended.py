"""Which fault moves which of AWS's own metrics, which way, and whether it did: a table and a pure comparison.

A `Move` names one signal of the catalogue, one fault that should move it, and how: ``up`` or ``down`` by value, ``appears`` where it is
only reported when it is not zero, ``absent`` where what reports it is gone. Afterwards it has to be as it was before.
"""

from __future__ import annotations

from dataclasses import dataclass
from statistics import mean
from typing import TYPE_CHECKING, Literal

from topology.signals import CATALOGUE, find

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from lab.matrix.record import Points, Record
    from topology.signal import Signal

MINUTE_S = 60.0
HIGHER, LOWER = 1.3, 0.7
Way = Literal["up", "down", "appears", "absent"]


@dataclass(frozen=True, slots=True)
class Move:
    """``statistic`` is how the signal is read; ``where``: the Region that was struck (``here``) or the other one (``there``); ``only``: the
    dimension value that a series must have to be one that moves."""

    namespace: str
    name: str
    dimensions: tuple[str, ...]
    statistic: str
    fault: str
    way: Way
    where: Literal["here", "there"] = "here"
    only: str = ""

    @property
    def signal(self) -> Signal:
        """The catalogue's entry. Raises LookupError where there is none."""
        found = find(self.namespace, self.name, self.dimensions)
        if found is None:
            raise LookupError(f"{self.namespace} {self.name} {self.dimensions} is not in the signal catalogue")
        return found


ALB, ECS, INSIGHTS, RDS = "AWS/ApplicationELB", "AWS/ECS", "ECS/ContainerInsights", "AWS/RDS"
DYNAMODB, CACHE, MQ, DNS, CANARY = "AWS/DynamoDB", "AWS/ElastiCache", "AWS/AmazonMQ", "AWS/Route53", "CloudWatchSynthetics"
BALANCER, GROUP = ("LoadBalancer",), ("LoadBalancer", "TargetGroup")
TASKS, CALLED, SERVED = ("ClusterName", "ServiceName"), ("TargetDiscoveryName",), ("DiscoveryName",)
SECONDARY, NODE, QUEUE = ("DBClusterIdentifier", "SourceRegion"), ("Broker", "Node"), ("Broker", "VirtualHost", "Queue")

MOVES = (
    Move(ALB, "RequestCount", BALANCER, "Sum", "alb-down", "absent"),
    Move(ALB, "HTTPCode_ELB_5XX_Count", BALANCER, "Sum", "alb-without-targets", "appears"),
    Move(ALB, "HTTPCode_Target_5XX_Count", BALANCER, "Sum", "ui-erroring", "appears"),
    Move(ALB, "TargetConnectionErrorCount", BALANCER, "Sum", "alb-wrong-port", "appears"),
    Move(ALB, "TargetResponseTime", BALANCER, "Average", "ui-slow", "up"),
    Move(ALB, "HealthyHostCount", GROUP, "Minimum", "alb-health-check-wrong", "down"),
    Move(ALB, "UnHealthyHostCount", GROUP, "Maximum", "alb-health-check-wrong", "up"),
    Move(ECS, "CPUUtilization", TASKS, "Average", "catalog-down", "absent", only="catalog"),
    Move(ECS, "MemoryUtilization", TASKS, "Average", "carts-memory-leak", "up", only="carts"),
    Move(INSIGHTS, "RunningTaskCount", TASKS, "Average", "catalog-down", "down", only="catalog"),
    Move(INSIGHTS, "DesiredTaskCount", TASKS, "Average", "alb-without-targets", "down", only="ui"),
    Move(ECS, "RequestCount", SERVED, "Sum", "ui-down", "absent", only="catalog"),
    Move(ECS, "HTTPCode_Target_5XX_Count", CALLED, "Sum", "catalog-erroring", "appears", only="catalog"),
    Move(ECS, "TargetResponseTime", CALLED, "Average", "catalog-slow", "up", only="catalog"),
    Move(RDS, "AuroraGlobalDBReplicationLag", SECONDARY, "Maximum", "orders-replication-paused", "up", "there", "retail-orders-{there}"),
    Move(RDS, "AuroraGlobalDBRPOLag", SECONDARY, "Maximum", "orders-replication-cut", "up", "there", "retail-orders-{there}"),
    Move(RDS, "DatabaseConnections", ("DBClusterIdentifier",), "Average", "orders-writer-down", "absent", only="retail-orders-{here}"),
    Move(DYNAMODB, "ReplicationLatency", ("TableName", "ReceivingRegion"), "Average", "carts-replication-slow", "up"),
    Move(DYNAMODB, "ThrottledRequests", ("TableName", "Operation"), "Sum", "carts-table-throttled", "appears"),
    Move(DYNAMODB, "WriteThrottleEvents", ("TableName",), "Sum", "carts-table-throttled", "appears"),
    Move(CACHE, "EngineCPUUtilization", ("CacheClusterId",), "Average", "redis-down", "absent"),
    Move(CACHE, "DatabaseMemoryUsagePercentage", ("CacheClusterId",), "Maximum", "redis-full", "up"),
    Move(CACHE, "Evictions", ("CacheClusterId",), "Sum", "redis-evicting", "up"),
    Move(CACHE, "CurrConnections", ("CacheClusterId",), "Average", "redis-hanging", "absent"),
    Move(CACHE, "IsMaster", ("CacheClusterId",), "Maximum", "redis-primary-down", "absent"),
    Move(CACHE, "ReplicationLag", ("CacheClusterId",), "Maximum", "redis-replication-cut", "up"),
    Move(MQ, "MessageCount", ("Broker",), "Maximum", "orders-consumer-stuck", "up"),
    Move(MQ, "ConnectionCount", ("Broker",), "Average", "broker-down", "absent"),
    Move(MQ, "RabbitMQMemUsed", NODE, "Maximum", "broker-down", "absent"),
    Move(MQ, "RabbitMQMemLimit", NODE, "Minimum", "broker-down", "absent"),
    Move(MQ, "MessageReadyCount", QUEUE, "Maximum", "broker-down", "absent"),
    Move(MQ, "ConsumerCount", QUEUE, "Maximum", "orders-consumer-stuck", "up"),
    Move(DNS, "HealthCheckStatus", ("HealthCheckId",), "Minimum", "drained", "down", only="00000001-0000-4000-8000-000000000000"),
    Move(CANARY, "SuccessPercent", ("CanaryName",), "Average", "alb-down", "down"),
    Move(CANARY, "Duration", ("CanaryName",), "Average", "canary-stopped", "absent"),
    Move(CANARY, "Failed", ("CanaryName",), "Sum", "alb-down", "appears"),
)

MOVERS = frozenset(move.fault for move in MOVES)


def statistics() -> dict[Signal, str]:
    """Every vended signal of the catalogue with the statistic it is read with."""
    read = {move.signal: move.statistic for move in MOVES}
    return {signal: read.get(signal, "Average") for signal in CATALOGUE if signal.vended}


@dataclass(frozen=True, slots=True)
class Moved:
    """What became of one series under its fault: values by the minute before, while and after, and what is wrong (empty: nothing)."""

    move: Move
    points: Points
    before: tuple[float, ...]
    during: tuple[float, ...]
    after: tuple[float, ...]
    problem: str


def moved(record: Record) -> Iterator[Moved]:
    """The series that the record's fault should have moved."""
    names = {"here": record.struck, "there": record.other}
    for move in MOVES:
        if move.fault != record.fault:
            continue
        only = move.only.format(**names)
        mine = [
            points
            for points in record.points
            if (points.namespace, points.name, points.region) == (move.namespace, move.name, names[move.where])
            and set(points.dimensions) == set(move.dimensions)
            and only in {"", *points.dimensions.values()}
        ]
        found = [_moved(move, points, record) for points in mine]
        whole = [each for each in found if not each.problem]
        yield from whole[:1] or found[:1]


def _moved(move: Move, points: Points, record: Record) -> Moved:
    """Minutes that lie wholly before or after the fault, and under it: wholly within it where something has to be gone or low, in part at
    least where something has to show. A minute's data is stamped with its beginning."""
    edge = 0.0 if move.way in {"absent", "down"} else MINUTE_S
    lasted, end = record.lasted, (record.green or record.injected) - record.injected
    before = tuple(value for at, value in points.points if at + MINUTE_S <= 0)
    during = tuple(value for at, value in points.points if at >= -edge and at + MINUTE_S <= lasted + edge)
    after = tuple(value for at, value in points.points if at >= lasted and at + MINUTE_S <= end + 2 * MINUTE_S)
    return Moved(move, points, before, during, after, problem(move.way, before, during, after))


def problem(way: Way, before: Sequence[float], during: Sequence[float], after: Sequence[float]) -> str:
    """What is wrong with a movement, in words; empty where it is as it must be."""
    if way == "appears":
        if any(before):
            return "there before the fault"
        if not any(during):
            return "did not appear"
        return "still there after it" if after and after[-1] else ""
    if not before:
        return "not there before the fault"
    if not after:
        return "not back after it"
    if way == "absent":
        return "" if not during else "still there under it"
    if not during:
        return "not there under it"
    usual, last = mean(before), after[-1]
    if way == "up":
        if max(during) <= max(HIGHER * usual, 0):
            return "did not rise"
        return "" if last < max(during) else "did not fall again"
    if min(during) >= LOWER * usual:
        return "did not fall"
    return "" if last > min(during) else "did not rise again"
