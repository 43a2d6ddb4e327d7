"""The service graph: nodes and edges of a set of traces, with counts, response times and histograms."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from lab.aws.services.xray.summary import Node, Summary, Visit

CLIENT = Node("client", "client", True)


@dataclass(slots=True)
class Tally:
    """Visits of a node or along an edge."""

    total: int = 0
    ok: int = 0
    faults: int = 0
    errors: int = 0
    throttles: int = 0
    seconds: float = 0.0
    start: float = float("inf")
    end: float = float("-inf")
    durations: Counter[float] = field(default_factory=Counter)

    def add(self, visit: Visit) -> None:
        """Count one visit."""
        self.total += 1
        self.ok += visit.ok
        self.faults += visit.fault
        self.throttles += visit.throttle
        self.errors += visit.error and not visit.throttle
        self.seconds += visit.duration
        self.start = min(self.start, float(visit.document["start_time"]))
        self.end = max(self.end, float(visit.document.get("end_time", visit.document["start_time"])))
        self.durations[_bucket(visit.duration)] += 1

    def statistics(self) -> dict[str, Any]:
        """SummaryStatistics of the API."""
        return {
            "OkCount": self.ok,
            "ErrorStatistics": {"ThrottleCount": self.throttles, "OtherCount": self.errors, "TotalCount": self.throttles + self.errors},
            "FaultStatistics": {"OtherCount": self.faults, "TotalCount": self.faults},
            "TotalCount": self.total,
            "TotalResponseTime": self.seconds,
        }

    def histogram(self) -> list[dict[str, Any]]:
        """Counts by duration in seconds."""
        return [{"Value": value, "Count": count} for value, count in sorted(self.durations.items())]


def _bucket(seconds: float) -> float:
    """Durations to two digits, as X-Ray's histograms group them."""
    return float(f"{max(seconds, 0.0):.2g}") if seconds >= 0.001 else 0.001


def build(summaries: Iterable[Summary], account: str) -> list[dict[str, Any]]:
    """The Services of GetServiceGraph and GetTraceGraph."""
    nodes: dict[tuple[str, str], Tally] = {}
    edges: dict[tuple[str, str], dict[tuple[str, str], Tally]] = {}
    known: dict[tuple[str, str], Node] = {}
    roots: set[tuple[str, str]] = set()
    for summary in summaries:
        for visit in summary.visits:
            caller = visit.caller or (CLIENT if visit.root else None)
            known[visit.node.key] = visit.node
            nodes.setdefault(visit.node.key, Tally()).add(visit)
            if visit.root:
                roots.add(visit.node.key)
            if caller is not None and caller.key != visit.node.key:
                known.setdefault(caller.key, caller)
                nodes.setdefault(caller.key, Tally())
                edges.setdefault(caller.key, {}).setdefault(visit.node.key, Tally()).add(visit)
                if caller is CLIENT:
                    nodes[CLIENT.key].add(visit)
    numbers = {key: index for index, key in enumerate(nodes)}
    return [
        {
            "ReferenceId": numbers[key],
            "Name": known[key].name,
            "Names": [known[key].name],
            "Root": key in roots,
            "AccountId": account,
            "Type": known[key].type or None,
            "State": "unknown" if known[key].inferred else "active",
            "StartTime": tally.start if tally.total else None,
            "EndTime": tally.end if tally.total else None,
            "Edges": [
                {
                    "ReferenceId": numbers[target],
                    "StartTime": edge.start,
                    "EndTime": edge.end,
                    "SummaryStatistics": edge.statistics(),
                    "ResponseTimeHistogram": edge.histogram(),
                    "Aliases": [],
                }
                for target, edge in edges.get(key, {}).items()
            ],
            "SummaryStatistics": tally.statistics(),
            "DurationHistogram": tally.histogram(),
            "ResponseTimeHistogram": tally.histogram(),
        }
        for key, tally in nodes.items()
    ]
