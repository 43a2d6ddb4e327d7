"""Failure scenarios of a topology, played through on the probe's signals: does some surviving alarm act?

Twenty quiet minutes, then the failure. A Region that is gone emits nothing, stores nothing and runs no actions; the other vantages see its
load balancer down. Values of healthy signals are those in `HEALTHY`; signals without one are silent throughout.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from alarms.definitions import Definition
from alarms.engine import ALARM, Action, Alarm, CompositeAlarm, MetricAlarm, MetricKey, MuteRule
from alarms.lint.context import Context
from alarms.testing.case import ANY_UNIT, DEFAULT_START, Case, InputSeries
from alarms.testing.world import build
from topology import Topology
from topology.model import alb_target
from topology.signals import PROBE, all_series

STEP_S = 10
BEFORE_S, WITHIN_S = 1200, 1500
SLOW_S = 3600
HEALTHY = {
    "Up": 1.0,
    "Whole": 1.0,
    "Sighted": 1.0,
    "Alive": 1.0,
    "RoutingOn": 1.0,
    "DnsAgrees": 1.0,
    "Writers": 1.0,
    "WriteOk": 1.0,
    "Degraded": 0.0,
    "PooledStale": 0.0,
    "LatencyMs": 120.0,
    "CertificateDaysLeft": 90.0,
    "SuccessPercent": 100.0,
    "HealthCheckStatus": 1.0,
    "HealthyHostCount": 2.0,
    "RunningTaskCount": 2.0,
}


@dataclass(frozen=True, slots=True)
class Scenario:
    """What fails. ``silent`` emit nothing any more, ``deaf`` Regions neither store metrics nor act, ``down`` targets are down."""

    name: str
    words: str
    silent: frozenset[str] = frozenset()
    deaf: frozenset[str] = frozenset()
    down: frozenset[str] = frozenset()
    within_s: float = WITHIN_S


def scenarios(topology: Topology) -> Iterator[Scenario]:
    """Each Region gone, each vantage gone, each Region's CloudWatch gone."""
    for region in topology.regions:
        only = frozenset({region})
        yield Scenario(f"region-gone:{region}", f"the Region {region} is gone", only, only, frozenset({alb_target(region)}))
    for vantage in topology.vantage_names:
        yield Scenario(f"vantage-gone:{vantage}", f"the vantage in {vantage} is gone", frozenset({vantage}))
    for region in topology.watched_regions:
        yield Scenario(f"cloudwatch-gone:{region}", f"CloudWatch in {region} is gone", deaf=frozenset({region}))


def pages(context: Context, scenario: Scenario) -> list[Action]:
    """The ALARM actions that surviving Regions run after the failure."""
    topology = context.topology
    assert topology is not None
    surviving: list[tuple[Definition, Alarm | MuteRule]] = [
        (definition, item) for definition, item in context.parsed if definition.region and definition.region not in scenario.deaf
    ]
    surviving = _prompt(surviving)
    if not surviving:
        return []
    series = tuple(_play(topology, scenario))
    case = Case(scenario.name, "", "", DEFAULT_START, STEP_S, series, (), None)
    world = build(case, surviving)
    for book in world.books.values():
        for name in book.entries:
            book.restore(name, "OK", case.start)
    events = world.replay(BEFORE_S + WITHIN_S)
    broke = DEFAULT_START + BEFORE_S
    return [event for event in events if isinstance(event, Action) and event.state == ALARM and event.at > broke]


def _prompt(items: list[tuple[Definition, Alarm | MuteRule]]) -> list[tuple[Definition, Alarm | MuteRule]]:
    """Without the alarms that look at an hour or more at once, and the composites on them: budgets burn, Regions fail."""
    left_out = {(d.region, item.name) for d, item in items if isinstance(item, MetricAlarm) and item.period >= SLOW_S}
    while (
        more := {
            (d.region, item.name)
            for d, item in items
            if isinstance(item, CompositeAlarm) and any((d.region, child) in left_out for child in item.depends_on)
        }
        - left_out
    ):
        left_out |= more
    return [(d, item) for d, item in items if (d.region, item.name) not in left_out]


def _play(topology: Topology, scenario: Scenario) -> Iterator[InputSeries]:
    """Every healthy signal as a series for each vantage that emits it, with the failure in it."""
    before, after = int(BEFORE_S // STEP_S), int(WITHIN_S // STEP_S)
    for signal, series in all_series(topology):
        healthy = HEALTHY.get(signal.name)
        if healthy is None or series.region in scenario.deaf:
            continue
        for emitter in topology.vantage_names if series.emitted_by == "*" else (series.emitted_by,):
            values = series.dimensions
            broken: float | None = healthy
            if signal.namespace == PROBE and signal.name == "Up" and values.get("Target") in scenario.down:
                broken = 0.0
            if signal.name == "WriteOk" and values.get("Region") in scenario.deaf:
                broken = 0.0
            if emitter in scenario.silent:
                broken = None
            every = max(1, round(signal.resolution_s / STEP_S))
            play = [*([healthy] * before), *([broken] * after)]
            periods = tuple((value,) if value is not None and i % every == 0 else () for i, value in enumerate(play))
            key = MetricKey.of(series.namespace, series.name, dict(values), ANY_UNIT)
            yield InputSeries(key, periods, stored_in=series.region, emitted_by=emitter)
