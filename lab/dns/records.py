"""Hosted zones and record sets as Route 53 keeps them, as values, and the book that holds them.

Names are lower case and end in a dot; ``*.`` leads a wildcard. A zone never changes: a change batch makes a new one, so that a reader
always sees a batch whole or not at all.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

ALIAS_TO_LOAD_BALANCER_TTL_S = 60
WEIGHTED, LATENCY, FAILOVER, MULTIVALUE, SIMPLE = "weighted", "latency", "failover", "multivalue", "simple"


def canonical(name: str) -> str:
    """``Store.Retail.test`` -> ``store.retail.test.``"""
    return name.lower().replace("\\052", "*").rstrip(".") + "."


@dataclass(frozen=True, slots=True)
class Alias:
    """Where an alias record points."""

    zone_id: str
    name: str
    evaluate_target_health: bool


@dataclass(frozen=True, slots=True)
class RecordSet:
    """One resource record set. ``ttl`` is in seconds and None for an alias."""

    name: str
    type: str
    ttl: int | None = None
    values: tuple[str, ...] = ()
    alias: Alias | None = None
    set_identifier: str | None = None
    weight: int | None = None
    region: str | None = None
    failover: str | None = None
    multivalue: bool = False
    health_check_id: str | None = None

    @property
    def policy(self) -> str:
        """The routing policy, as the console names it, in lower case."""
        if self.weight is not None:
            return WEIGHTED
        if self.region is not None:
            return LATENCY
        if self.failover is not None:
            return FAILOVER
        return MULTIVALUE if self.multivalue else SIMPLE


@dataclass(frozen=True, slots=True)
class Vpc:
    """A VPC that may ask for a private zone's names."""

    region: str
    id: str


@dataclass(frozen=True, slots=True)
class Zone:
    """A hosted zone. ``records`` maps (name, type) to the record sets of that name and type."""

    id: str
    name: str
    caller_reference: str
    comment: str = ""
    private: bool = False
    vpcs: tuple[Vpc, ...] = ()
    records: Mapping[tuple[str, str], tuple[RecordSet, ...]] = field(default_factory=dict)

    def with_records(self, records: Iterable[RecordSet]) -> Zone:
        """This zone with exactly these records."""
        grouped: dict[tuple[str, str], tuple[RecordSet, ...]] = {}
        for record in records:
            key = (record.name, record.type)
            grouped[key] = (*grouped.get(key, ()), record)
        return replace(self, records=grouped)

    def all_records(self) -> list[RecordSet]:
        """Every record set, in the order ListResourceRecordSets gives: by name with its labels reversed, then type and identifier."""
        return sorted(
            (record for group in self.records.values() for record in group),
            key=lambda record: (record.name.rstrip(".").split(".")[::-1], record.type, record.set_identifier or ""),
        )

    def find(self, name: str, kind: str) -> tuple[RecordSet, ...]:
        """The record sets that answer for ``name`` and type ``kind``; a wildcard only where the name has no records of its own."""
        for owner in self._owners(name):
            found = self.records.get((owner, kind))
            if found:
                return found
            if self.has_name(owner):
                return ()
        return ()

    def covers(self, name: str) -> bool:
        """Whether the name exists, by itself, through a name below it or through a wildcard."""
        return any(self.has_name(owner) for owner in self._owners(name)) or any(other.endswith("." + name) for other, _ in self.records)

    def has_name(self, name: str) -> bool:
        """Whether the name itself has a record of any type."""
        return any(other == name for other, _ in self.records)

    def _owners(self, name: str) -> Iterable[str]:
        yield name
        labels = name.split(".")
        for start in range(1, len(labels) - 1):
            parent = ".".join(labels[start:])
            if parent.endswith(self.name):
                yield f"*.{parent}"


class ZoneBook:
    """All hosted zones of the account. Safe to use from several threads; ``version`` rises with each change."""

    def __init__(self) -> None:
        self._zones: dict[str, Zone] = {}
        self._lock = threading.Lock()
        self.version = 0

    def put(self, zone: Zone) -> None:
        """Add the zone, or put it in the place of the one with its id."""
        with self._lock:
            self._zones = {**self._zones, zone.id: zone}
            self.version += 1

    def remove(self, zone_id: str) -> None:
        """Forget a zone."""
        with self._lock:
            self._zones = {key: zone for key, zone in self._zones.items() if key != zone_id}
            self.version += 1

    def get(self, zone_id: str) -> Zone | None:
        """The zone with this id."""
        return self._zones.get(zone_id)

    def all(self) -> list[Zone]:
        """Every zone, by name."""
        return sorted(self._zones.values(), key=lambda zone: (zone.name, zone.id))

    def answering(self, name: str, vpc_region: str | None) -> Zone | None:
        """The zone that answers for ``name``: the longest match; a private one before a public one of the same name, and only for its VPCs.

        ``vpc_region`` is the Region whose VPC resolver asks, None for a resolver of the internet.
        """
        candidates = [
            zone
            for zone in self._zones.values()
            if (name == zone.name or name.endswith("." + zone.name))
            and (not zone.private or (vpc_region is not None and any(vpc.region == vpc_region for vpc in zone.vpcs)))
        ]
        return max(candidates, key=lambda zone: (len(zone.name), zone.private), default=None)
