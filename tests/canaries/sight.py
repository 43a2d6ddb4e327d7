"""What the probe sees of a running lab, from each of its vantages, round by round and without a canary around it."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from canaries.config import probe_config
from canaries.probe.arc import RoutingReader
from canaries.probe.rounds import Prober, Round
from canaries.probe.settings import ProbeSettings
from canaries.shared import trace
from canaries.shared.settings import decode

if TYPE_CHECKING:
    from lab.plan import LabPlan
    from topology import Topology

SOON = 21.0
Sight = dict[str, dict[str, str]]
"""Vantage -> target -> ``up``, ``degraded: slow`` or ``down: kind in phase`` (every kind there is, sorted)."""


@dataclass
class Watcher:
    """A prober at every vantage of a lab."""

    plan: LabPlan
    topology: Topology
    probers: dict[str, Prober] = field(default_factory=dict)
    _before: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._before = dict(os.environ)
        os.environ.update(self.plan.aws_environment("admin", next(iter(self.plan.regions))))
        os.environ.pop("AWS_ENDPOINT_URL")
        for vantage in self.topology.vantage_names:
            problems: list[str] = []
            settings: ProbeSettings = decode(ProbeSettings, probe_config(self.topology, vantage), "", problems)
            assert not problems
            self.probers[vantage] = Prober(settings, RoutingReader(settings.arc, 1.0, 2.0))

    def close(self) -> None:
        for prober in self.probers.values():
            prober.close()
        os.environ.clear()
        os.environ.update(self._before)

    def look(self) -> Sight:
        """One round from everywhere."""
        now = time.time()
        return {vantage: describe(prober.round(now, trace.TraceId.new(now)), prober.settings) for vantage, prober in self.probers.items()}

    def settled(self, within_s: float, least_s: float = 0.0) -> Sight:
        """Look until two looks in a row agree, not before ``least_s``."""
        began = time.monotonic()
        last: Sight = {}
        while time.monotonic() - began < within_s:
            now = self.look()
            if now == last and time.monotonic() - began >= least_s:
                return now
            last = now
            time.sleep(0.5)
        return last


def describe(seen: Round, settings: ProbeSettings) -> dict[str, str]:
    """A round in words."""
    words = {}
    for target, cell in seen.cells.items():
        looks = [look for look in seen.looks if look.target == target]
        kinds = sorted({f"{look.last.failure.kind} in {look.last.failure.phase}" for look in looks if look.last.failure})
        slow = any(look.last.ok and look.last.phases.total > settings.limits.degraded_ms for look in looks)
        words[target] = f"{cell}: {', '.join(kinds) or 'slow'}" if kinds or slow else str(cell)
    words["routing"] = " ".join(f"{region}={'on' if on else 'off'}" for region, on in sorted(seen.routing.items())) or "unknown"
    days = {look.target: look.last.certificate_days for look in seen.looks if look.last.certificate_days is not None}
    words["certificates"] = (
        ", ".join(f"{target} ends in {round(left)} days" for target, left in sorted(days.items()) if left < SOON) or "good"
    )
    words["dns"] = {True: "agrees", False: "disagrees", None: "unknown"}[seen.agrees]
    return words
