"""From a round to datapoints, one PutMetricData request a Region. Names and dimensions: the signal catalogue (docs/canaries.md)."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

from canaries.probe.verdict import Cell

if TYPE_CHECKING:
    from collections.abc import Mapping

    from canaries.probe.rounds import Round
    from canaries.probe.settings import ProbeSettings

NAMESPACE: Final = "Crosswatch/Probe"
LEASE_SLOTS: Final = 2


def data(settings: ProbeSettings, seen: Round, last: bool, writers: Mapping[str, int] | None = None) -> list[dict[str, Any]]:
    """What goes to every Region. ``last``: this is the run's last round, so Alive is also written ahead, over the pause until the next.
    ``writers``: how many clusters of each database take writes, where that was read since the last round."""
    put = _Datums(settings.workload)
    vantage = settings.vantage
    for target, cell in seen.cells.items():
        up = 0.0 if cell is Cell.DOWN else 1.0
        if seen.sighted:
            put.add("Up", up, seen.slot, Target=target)
            put.add("Whole", float(not any(look.failed for look in seen.looks if look.target == target)), seen.slot, Target=target)
        put.add("Up", up, seen.slot, Vantage=vantage, Target=target)
    put.add("Sighted", float(seen.sighted), seen.slot)
    put.add("Sighted", float(seen.sighted), seen.slot, Vantage=vantage)
    for ahead in range(LEASE_SLOTS + 1 if last else 1):
        put.add("Alive", 1.0, seen.slot + ahead * settings.rounds.every_s, Vantage=vantage)
    for region, on in seen.routing.items():
        put.add("RoutingOn", float(on), seen.slot, Region=region)
    if seen.agrees is not None:
        put.add("DnsAgrees", float(seen.agrees), seen.slot)
    for database, count in (writers or {}).items():
        put.add("Writers", float(count), seen.slot, Database=database)
    return put.datums


def own_data(settings: ProbeSettings, seen: Round, writes: Mapping[str, bool]) -> list[dict[str, Any]]:
    """What only the vantage's own Region gets: what is degraded, latencies, certificates, whether the pooled client is in a drained Region,
    and whether the last write to each Region went through."""
    put = _Datums(settings.workload)
    for name, cell in seen.cells.items():
        put.add("Degraded", 1.0 if cell is Cell.DEGRADED else 0.0, seen.slot, Vantage=settings.vantage, Target=name)
    for target in settings.targets:
        looks = [look for look in seen.looks if look.target == target.name]
        values = [look.last.phases.total for look in looks if look.last.ok]
        if values:
            put.add_values("LatencyMs", values, "Milliseconds", seen.slot, Vantage=settings.vantage, Target=target.name)
        days = [look.last.certificate_days for look in looks if look.last.certificate_days is not None]
        if days:
            put.add("CertificateDaysLeft", min(days), seen.slot, "Count", Vantage=settings.vantage, Target=target.name)
    if seen.stale is not None:
        put.add("PooledStale", float(seen.stale), seen.slot, Vantage=settings.vantage)
    for region, ok in writes.items():
        put.add("WriteOk", float(ok), seen.slot, Vantage=settings.vantage, Region=region)
    return put.datums


class _Datums:
    """A list of datums that share the workload and the resolution of one second."""

    def __init__(self, workload: str) -> None:
        self.datums: list[dict[str, Any]] = []
        self._workload = workload

    def add(self, name: str, value: float, slot: float, unit: str = "None", **dimensions: str) -> None:
        self.datums.append({**self._head(name, slot, unit, dimensions), "Value": value})

    def add_values(self, name: str, values: list[float], unit: str, slot: float, **dimensions: str) -> None:
        """Several observations in one datum: the percentiles stay, the request stays one."""
        self.datums.append({**self._head(name, slot, unit, dimensions), "Values": values, "Counts": [1.0] * len(values)})

    def _head(self, name: str, slot: float, unit: str, dimensions: dict[str, str]) -> dict[str, Any]:
        pairs = [{"Name": "Workload", "Value": self._workload}, *({"Name": key, "Value": value} for key, value in dimensions.items())]
        stamp = datetime.fromtimestamp(slot, UTC)
        return {"MetricName": name, "Dimensions": pairs, "Timestamp": stamp, "Unit": unit, "StorageResolution": 1}
