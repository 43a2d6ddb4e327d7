"""Which of a name's record sets Route 53 answers with: the rules, pure.

They follow the Developer Guide's "How Amazon Route 53 chooses records when health checking is configured": a record without a health check
is always healthy; where no record is healthy, all are treated as if they were; with failover records that means the primary; records
of weight 0 are only considered when no other is healthy.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from lab.dns.distance import distance_km
from lab.dns.records import FAILOVER, LATENCY, MULTIVALUE, WEIGHTED, RecordSet

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from random import Random

MOST_MULTIVALUE_ANSWERS = 8


def choose(records: Sequence[RecordSet], is_healthy: Callable[[RecordSet], bool], asking_region: str, random: Random) -> list[RecordSet]:
    """The record sets to answer with: one for most policies, all for a simple record, up to eight for multivalue.

    ``records`` share a name, a type and a routing policy. ``asking_region`` is where the asking resolver is.
    """
    if not records:
        return []
    policy = records[0].policy
    if policy == FAILOVER:
        return [_failover(records, is_healthy)]
    if policy == WEIGHTED:
        return [_weighted(records, is_healthy, random)]
    usable = [record for record in records if is_healthy(record)] or list(records)
    if policy == LATENCY:
        return [min(usable, key=lambda record: (distance_km(asking_region, record.region or ""), record.region or ""))]
    if policy == MULTIVALUE:
        return random.sample(usable, min(len(usable), MOST_MULTIVALUE_ANSWERS))
    return list(records)


def _failover(records: Sequence[RecordSet], is_healthy: Callable[[RecordSet], bool]) -> RecordSet:
    primary_first = sorted(records, key=lambda record: record.failover != "PRIMARY")
    return next((record for record in primary_first if is_healthy(record)), primary_first[0])


def _weighted(records: Sequence[RecordSet], is_healthy: Callable[[RecordSet], bool], random: Random) -> RecordSet:
    heavy = [record for record in records if record.weight]
    light = [record for record in records if not record.weight]
    for group in (heavy, light):
        healthy = [record for record in group if is_healthy(record)]
        if healthy:
            return _draw(healthy, random)
    return _draw(heavy or light, random)


def _draw(records: Sequence[RecordSet], random: Random) -> RecordSet:
    weights = [record.weight or 0 for record in records]
    return random.choices(records, weights=weights if any(weights) else None)[0]
