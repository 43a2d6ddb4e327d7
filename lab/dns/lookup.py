"""What Route 53 answers to a question, as a pure function of what it knows: zones, health checks, load balancers, and who asks."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from lab.dns.records import ALIAS_TO_LOAD_BALANCER_TTL_S, RecordSet, Zone, ZoneBook
from lab.dns.routing import choose

if TYPE_CHECKING:
    from random import Random

DEEPEST_ALIAS = 8
NOERROR, NXDOMAIN, REFUSED = 0, 3, 5


@dataclass(frozen=True, slots=True)
class Asker:
    """Who asks: ``region`` is where the resolver is (or the client, where it says so), ``vpc_region`` the Region of the VPC it serves."""

    region: str
    vpc_region: str | None = None


@dataclass(frozen=True, slots=True)
class View:
    """What the name servers know at one moment.

    ``unhealthy`` holds the ids of health checks that are unhealthy, ``balancers`` the load balancers' names with whether each has a
    healthy target.
    """

    zones: ZoneBook
    unhealthy: frozenset[str] = frozenset()
    balancers: dict[str, bool] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Line:
    """One record of an answer; ``ttl`` in seconds."""

    name: str
    type: str
    ttl: int
    value: str


@dataclass(frozen=True, slots=True)
class Answer:
    """An answer: DNS response code, records, the zone that answered and whether the same question always gets this answer."""

    code: int
    lines: tuple[Line, ...] = ()
    zone: Zone | None = None
    steady: bool = True


def look_up(view: View, name: str, kind: str, asker: Asker, random: Random) -> Answer:
    """Answer the question for ``name`` (canonical) and record type ``kind``."""
    zone = view.zones.answering(name, asker.vpc_region)
    if zone is None:
        return Answer(REFUSED)
    lines: list[Line] = []
    steady = True
    owner = name
    for _ in range(DEEPEST_ALIAS):
        chosen, steady_here = _chosen(view, zone, owner, kind, asker, random)
        steady = steady and steady_here
        lines += _lines(view, zone, owner, kind, chosen, asker, random)
        if chosen or kind == "CNAME":
            break
        cname = _lines(view, zone, owner, "CNAME", _chosen(view, zone, owner, "CNAME", asker, random)[0], asker, random)
        if not cname:
            break
        lines += cname
        owner = cname[0].value
        if not (owner == zone.name or owner.endswith("." + zone.name)):
            break
    if not lines and not zone.covers(name):
        return Answer(NXDOMAIN, (), zone, steady)
    return Answer(NOERROR, tuple(lines), zone, steady)


def is_healthy(view: View, zone: Zone, record: RecordSet, depth: int = 0) -> bool:
    """Whether Route 53 takes ``record`` for healthy: its health check, and its alias target where the record says to evaluate it.

    A health check that no longer exists counts as healthy, as on AWS.
    """
    if record.health_check_id in view.unhealthy:
        return False
    if record.alias is None or not record.alias.evaluate_target_health or depth >= DEEPEST_ALIAS:
        return True
    target = record.alias.name
    if target in view.balancers:
        return view.balancers[target]
    targets = zone.find(target, record.type)
    return not targets or any(is_healthy(view, zone, other, depth + 1) for other in targets)


def _chosen(view: View, zone: Zone, name: str, kind: str, asker: Asker, random: Random) -> tuple[list[RecordSet], bool]:
    records = zone.find(name, kind)
    chosen = choose(records, lambda record: is_healthy(view, zone, record), asker.region, random)
    return chosen, not records or records[0].policy in ("simple", "latency", "failover")


def _lines(
    view: View, zone: Zone, owner: str, kind: str, chosen: list[RecordSet], asker: Asker, random: Random, depth: int = 0
) -> list[Line]:
    lines: list[Line] = []
    for record in chosen:
        if record.alias is None:
            lines += [Line(owner, kind, record.ttl or 0, value) for value in record.values]
        elif depth < DEEPEST_ALIAS:
            target = record.alias.name
            below, _ = _chosen(view, zone, target, kind, asker, random)
            found = _lines(view, zone, owner, kind, below, asker, random, depth + 1)
            if target in view.balancers:
                found = [Line(line.name, line.type, ALIAS_TO_LOAD_BALANCER_TTL_S, line.value) for line in found]
            lines += found
    return lines
