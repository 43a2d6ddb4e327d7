"""What an Application Load Balancer reports: its CloudWatch metrics and its access log.

Names, units and "reported when" follow AWS's pages "CloudWatch metrics for your Application Load Balancer" and "Access logs for your
Application Load Balancer". Counts are reported only when they are not zero; TargetResponseTime is in seconds.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from lab.store import names
from lab.store.datum import Datum, across
from lab.store.http import End, Head, Outcome

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

NAMESPACE = "AWS/ApplicationELB"
ERRORS_BY_STATUS = {500, 502, 503, 504}
LCU_CONNECTIONS, LCU_ACTIVE, LCU_BYTES = 25 * 60, 3000, 1e9 / 60  # one LCU for a minute: new connections, active ones, bytes


@dataclass(slots=True)
class Window:
    """Everything counted since the last publication."""

    region: str
    index: int
    active_peak: int = 0
    new_connections: int = 0
    requests: int = 0
    bytes: int = 0
    target_codes: Counter[int] = field(default_factory=Counter)
    elb_codes: Counter[int] = field(default_factory=Counter)
    connection_errors: int = 0
    response_times: list[float] = field(default_factory=list)

    @property
    def balancer(self) -> str:
        """The LoadBalancer dimension."""
        return names.load_balancer(self.index)

    @property
    def group(self) -> str:
        """The TargetGroup dimension."""
        return names.target_group(self.index)

    def count_elb(self, status: int) -> None:
        """Count an answer that is the load balancer's own."""
        self.elb_codes[status] += 1

    def count(self, outcome: Outcome, status: int, had_target: bool) -> None:
        """Count one request. RequestCount counts those for which a target could be chosen."""
        self.requests += had_target
        self.bytes += outcome.received + outcome.sent
        if outcome.status is not None:
            self.target_codes[outcome.status] += 1
            if outcome.target_s is not None:
                self.response_times.append(outcome.target_s)
        else:
            self.count_elb(status)
        self.connection_errors += had_target and outcome.end in {End.CONNECT_FAILED, End.CONNECT_TIMEOUT}

    def data(self, healthy: int, unhealthy: int, targets: int) -> Iterator[Datum]:
        """The metrics of the period that ends now."""
        zone = f"{self.region}a"
        balancer = {"LoadBalancer": self.balancer}
        group = balancer | {"TargetGroup": self.group}
        by_balancer = [balancer, balancer | {"AvailabilityZone": zone}]
        by_group = [group, group | {"AvailabilityZone": zone}]
        everywhere = by_balancer + by_group
        if targets:
            yield from across(NAMESPACE, "HealthyHostCount", by_group, [healthy])
            yield from across(NAMESPACE, "UnHealthyHostCount", by_group, [unhealthy])
            for state in ("DNS", "Routing"):
                yield from across(NAMESPACE, f"HealthyState{state}", by_group, [float(healthy > 0)])
                yield from across(NAMESPACE, f"UnhealthyState{state}", by_group, [float(healthy == 0)])
        yield from across(NAMESPACE, "ConsumedLCUs", [balancer], [self._capacity()])
        for metric, value, sets, unit in (
            ("RequestCount", self.requests, everywhere, "Count"),
            ("NewConnectionCount", self.new_connections, by_balancer, "Count"),
            ("ActiveConnectionCount", self.active_peak, by_balancer, "Count"),
            ("ProcessedBytes", self.bytes, by_balancer, "Bytes"),
            ("TargetConnectionErrorCount", self.connection_errors, everywhere, "Count"),
        ):
            yield from self._unless_zero(metric, value, sets, unit)
        if targets:
            yield from self._unless_zero("RequestCountPerTarget", self.requests / targets, [{"TargetGroup": self.group}, group], "Count")
        for hundreds in (2, 3, 4, 5):
            from_target = sum(n for code, n in self.target_codes.items() if code // 100 == hundreds)
            own = sum(n for code, n in self.elb_codes.items() if code // 100 == hundreds)
            yield from self._unless_zero(f"HTTPCode_Target_{hundreds}XX_Count", from_target, everywhere, "Count")
            if hundreds >= 3:
                yield from self._unless_zero(f"HTTPCode_ELB_{hundreds}XX_Count", own, by_balancer, "Count")
        for status in sorted(ERRORS_BY_STATUS):
            yield from self._unless_zero(f"HTTPCode_ELB_{status}_Count", self.elb_codes[status], by_balancer, "Count")
        yield from across(NAMESPACE, "TargetResponseTime", everywhere, self.response_times, "Seconds")

    def _unless_zero(self, metric: str, value: float, sets: list[Mapping[str, str]] | list[dict[str, str]], unit: str) -> list[Datum]:
        return across(NAMESPACE, metric, sets, [value] if value else [], unit)

    def _capacity(self) -> float:
        return max(self.new_connections / LCU_CONNECTIONS, self.active_peak / LCU_ACTIVE, self.bytes / LCU_BYTES)


def access_line(
    *,
    now: float,
    balancer: str,
    group: str,
    client: str,
    target: str,
    request: Head,
    outcome: Outcome,
    status: int,
    cipher: tuple[str, str, int] | None,
    host: str,
    trace: str,
    taken_s: float,
    reason: str,
) -> str:
    """One line of the access log: the documented fields in their order. ``now`` is lab time; -1 stands for a time that there is not."""
    done = datetime.fromtimestamp(now, UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")
    began = datetime.fromtimestamp(now - taken_s, UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")
    reached = outcome.status is not None
    request_s, target_s = (outcome.request_s, outcome.target_s) if reached else (-1, -1)
    response_s = max(0.0, taken_s - outcome.request_s - (outcome.target_s or 0)) if reached else -1
    seconds = " ".join(f"{value:.3f}" if value is not None and value >= 0 else "-1" for value in (request_s, target_s, response_s))
    url = f"https://{host}{request.second}"
    agent = request.get(b"user-agent").decode("latin-1").replace('"', "%22") or "-"
    redirect = f'"{outcome.location}"' if outcome.location else '"-"'
    target_status = str(outcome.status) if reached else "-"
    error = f'"{reason}"' if reason != "-" and not reached else '"-"'
    return (
        f"https {done} {balancer} {client} {target} {seconds} {status} {target_status} {outcome.received} {outcome.sent} "
        f'"{request.first} {url} {request.third}" "{agent}" {cipher[0] if cipher else "-"} {cipher[1] if cipher else "-"} '
        f'arn:aws:elasticloadbalancing:{group} "{trace}" "{host.partition(":")[0]}" "session-reused" 0 {began} "forward" '
        f"{redirect} {error} "
        f'"{target}" "{target_status}" "-" "-"'
    )
