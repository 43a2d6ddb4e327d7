"""Route 53 health checks: what they watch, when they count as healthy, and the book that runs them in lab time.

The rules follow the Developer Guide, "How Amazon Route 53 determines whether a health check is healthy":
an endpoint is healthy when more than 18 % of the checkers say so; each checker changes its mind after ``FailureThreshold`` results in a
row; a new check is healthy until there is data; a disabled one is healthy; ``Inverted`` turns the result around.
"""

from __future__ import annotations

import logging
import operator
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from lab.dns.probing import Endpoint, Sighting, probe

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from lab.clock import LabClock

log = logging.getLogger(__name__)

CHECKER_REGIONS = (
    "us-east-1", "us-west-1", "us-west-2", "eu-west-1", "ap-southeast-1", "ap-southeast-2", "ap-northeast-1", "sa-east-1",
)  # fmt: skip
HEALTHY_SHARE = 0.18
METRIC_EVERY_S = 30.0
ENDPOINT_TYPES = ("HTTP", "HTTPS", "HTTP_STR_MATCH", "HTTPS_STR_MATCH", "TCP")
DERIVED_TYPES = ("CALCULATED", "RECOVERY_CONTROL", "CLOUDWATCH_METRIC")
COMPARISONS = {
    "GreaterThanOrEqualToThreshold": operator.ge,
    "GreaterThanThreshold": operator.gt,
    "LessThanThreshold": operator.lt,
    "LessThanOrEqualToThreshold": operator.le,
}


@dataclass(frozen=True, slots=True)
class HealthCheck:
    """A health check as Route 53 keeps it. ``config`` has the API's shape (HealthCheckConfig), with the defaults filled in.

    ``alarm`` is the metric of a CLOUDWATCH_METRIC check as its alarm defined it when the check was made or last changed.
    """

    id: str
    caller_reference: str
    config: Mapping[str, Any]
    version: int = 1
    alarm: Mapping[str, Any] | None = None

    @property
    def type(self) -> str:
        """The check's type, as in the API."""
        return str(self.config["Type"])

    @property
    def is_endpoint(self) -> bool:
        """Whether checkers probe something."""
        return self.type in ENDPOINT_TYPES


@dataclass(frozen=True, slots=True)
class Checker:
    """What the checker in one Region thinks: ``healthy``, and how many results in a row said otherwise."""

    region: str
    healthy: bool = True
    contrary: int = 0
    checked_at: float | None = None
    due_at: float = 0.0
    last: Sighting | None = None
    last_failure: Sighting | None = None

    def after(self, sighting: Sighting, threshold: int, now: float) -> Checker:
        """This checker after one more result."""
        contrary = 0 if sighting.ok == self.healthy else self.contrary + 1
        turned = contrary >= threshold
        return replace(
            self,
            healthy=sighting.ok if turned else self.healthy,
            contrary=0 if turned else contrary,
            checked_at=now,
            last=sighting,
            last_failure=self.last_failure if sighting.ok else sighting,
        )


def endpoint_is_healthy(checkers: Mapping[str, Checker]) -> bool:
    """Whether the checkers together say that the endpoint is healthy."""
    return sum(checker.healthy for checker in checkers.values()) > HEALTHY_SHARE * len(checkers)


def metric_is_healthy(values: list[float | None], alarm: Mapping[str, Any], insufficient: str, last_known: bool) -> bool:
    """Whether a CLOUDWATCH_METRIC check is healthy, from the newest ``EvaluationPeriods`` values (None: no data), newest last.

    Route 53 follows the metric's data stream, not the alarm's state: unhealthy when every period breaches, insufficient when the newest
    periods hold no data.
    """
    known = [value for value in values if value is not None]
    if not known:
        return last_known if insufficient == "LastKnownStatus" else insufficient == "Healthy"
    threshold = float(alarm["Threshold"])
    breaches = COMPARISONS[str(alarm["ComparisonOperator"])]
    return not all(breaches(value, threshold) for value in known)


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What health checks need from the rest of the world.

    ``routing_control_is_on`` takes a routing control's ARN; ``resolve`` a domain name and gives an IPv4 address or None; ``metric``
    gives the newest values (oldest first, None for no data) of a CLOUDWATCH_METRIC check's metric in a Region.
    """

    routing_control_is_on: Callable[[str], bool]
    resolve: Callable[[str], str | None]
    metric: Callable[[str, Mapping[str, Any]], list[float | None]]
    outside_version: Callable[[], int] = field(default=lambda: 0)


class HealthChecks:
    """All health checks of the account. `tick` has to be called about once a lab second."""

    def __init__(self, clock: LabClock, around: Surroundings) -> None:
        self._clock = clock
        self._around = around
        self._lock = threading.RLock()
        self._checks: dict[str, HealthCheck] = {}
        self._checkers: dict[str, dict[str, Checker]] = {}
        self._metric_healthy: dict[str, bool] = {}
        self._busy: set[tuple[str, str]] = set()
        self._metric_due: dict[str, float] = {}
        self._pool = ThreadPoolExecutor(16, thread_name_prefix="route53-checker")
        self._version = 0

    @property
    def version(self) -> tuple[int, int]:
        """Changes whenever the result of `is_healthy` may have."""
        return (self._version, self._around.outside_version())

    def put(self, check: HealthCheck) -> None:
        """Add a check, or change it. A change of what is probed starts the checkers afresh."""
        with self._lock:
            old = self._checks.get(check.id)
            if check.is_endpoint and (old is None or old.config != check.config):
                now = self._clock.now()
                regions = check.config.get("Regions") or CHECKER_REGIONS
                interval = float(check.config["RequestInterval"])
                self._checkers[check.id] = {
                    region: Checker(region, due_at=now + interval * index / len(regions)) for index, region in enumerate(regions)
                }
            self._checks = {**self._checks, check.id: check}  # readers do not take the lock
            self._version += 1

    def remove(self, check_id: str) -> None:
        """Forget a check."""
        with self._lock:
            self._checks = {key: check for key, check in self._checks.items() if key != check_id}
            self._checkers.pop(check_id, None)
            self._metric_healthy.pop(check_id, None)
            self._version += 1

    def get(self, check_id: str) -> HealthCheck | None:
        """The check with this id."""
        return self._checks.get(check_id)

    def all(self) -> list[HealthCheck]:
        """Every check, by id."""
        return sorted(self._checks.values(), key=lambda check: check.id)

    def checkers(self, check_id: str) -> list[Checker]:
        """What each Region's checker thinks; empty for a check that probes nothing."""
        return list(self._checkers.get(check_id, {}).values())

    def is_healthy(self, check_id: str) -> bool:
        """Whether the check is healthy; one that does not exist is."""
        check = self._checks.get(check_id)
        return check is None or self._evaluate(check, 0)

    def children_healthy(self, check: HealthCheck) -> int:
        """How many children of a CALCULATED check are healthy."""
        return sum(self.is_healthy(child) for child in check.config.get("ChildHealthChecks", ()))

    def unhealthy(self) -> frozenset[str]:
        """The ids of all unhealthy checks."""
        return frozenset(check.id for check in self.all() if not self.is_healthy(check.id))

    def close(self) -> None:
        """Probe no more."""
        self._pool.shutdown(wait=False, cancel_futures=True)

    def tick(self, now: float) -> None:
        """Start what is due at lab time ``now``; returns at once."""
        with self._lock:
            for check in self._checks.values():
                if check.config.get("Disabled"):
                    continue
                if check.is_endpoint:
                    self._start_probes(check, now)
                elif check.type == "CLOUDWATCH_METRIC" and self._metric_due.get(check.id, 0.0) <= now:
                    self._metric_due[check.id] = now + METRIC_EVERY_S
                    self._pool.submit(self._read_metric, check)

    def _evaluate(self, check: HealthCheck, depth: int) -> bool:
        config = check.config
        inverted = bool(config.get("Inverted"))
        if config.get("Disabled"):
            return not inverted
        if check.is_endpoint:
            checkers = self._checkers.get(check.id)
            healthy = checkers is None or endpoint_is_healthy(checkers)
        elif check.type == "RECOVERY_CONTROL":
            healthy = self._around.routing_control_is_on(str(config["RoutingControlArn"]))
        elif check.type == "CALCULATED":
            children = [self._checks.get(child) for child in config.get("ChildHealthChecks", ())]
            good = sum(child is None or depth > 8 or self._evaluate(child, depth + 1) for child in children)
            healthy = good >= int(config.get("HealthThreshold", 0))
        else:
            healthy = self._metric_healthy.get(check.id, True)
        return healthy != inverted

    def _start_probes(self, check: HealthCheck, now: float) -> None:
        interval = float(check.config["RequestInterval"])
        for region, checker in self._checkers[check.id].items():
            key = (check.id, region)
            if checker.due_at > now or key in self._busy:
                continue
            behind = now - checker.due_at
            due = checker.due_at + interval if behind < interval else now + interval
            self._checkers[check.id][region] = replace(checker, due_at=due)
            self._busy.add(key)
            self._pool.submit(self._probe, check, region)

    def _probe(self, check: HealthCheck, region: str) -> None:
        try:
            sighting = self._look(check)
        finally:
            self._busy.discard((check.id, region))
        with self._lock:
            checker = self._checkers.get(check.id, {}).get(region)
            if checker is None or self._checks.get(check.id) != check:
                return
            after = checker.after(sighting, int(check.config["FailureThreshold"]), self._clock.now())
            self._checkers[check.id][region] = after
            if after.healthy != checker.healthy:
                self._version += 1

    def _look(self, check: HealthCheck) -> Sighting:
        config = check.config
        name = str(config.get("FullyQualifiedDomainName") or config.get("IPAddress"))
        address = config.get("IPAddress") or self._around.resolve(name)
        if address is None:
            return Sighting(False, f"Failure: DNS resolution failed: the name {name} has no IPv4 address.")
        kind = check.type.removesuffix("_STR_MATCH")
        return probe(
            Endpoint(
                kind=kind,
                address=str(address),
                port=int(config["Port"]),
                host=name,
                path=str(config.get("ResourcePath") or "/"),
                search=config.get("SearchString"),
                sni=bool(config.get("EnableSNI", True)),
                check_id=check.id,
                scale=self._clock.wall_seconds(1.0),
            )
        )

    def _read_metric(self, check: HealthCheck) -> None:
        if check.alarm is None:
            return
        values = self._around.metric(str(check.config["AlarmIdentifier"]["Region"]), check.alarm)
        last = self._metric_healthy.get(check.id, True)
        insufficient = str(check.config.get("InsufficientDataHealthStatus") or "LastKnownStatus")
        healthy = metric_is_healthy(values, check.alarm, insufficient, last)
        with self._lock:
            if healthy != last:
                self._version += 1
            self._metric_healthy[check.id] = healthy
