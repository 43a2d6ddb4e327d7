"""A test's world: one book and one metric store for each Region, fed with the test's series, minus what its blackouts swallow."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain

import numpy as np

from alarms.definitions import Definition
from alarms.engine import Alarm, AlarmBook, CompositeAlarm, Datapoint, Event, MemorySource, MetricAlarm, MuteRule, Samples, State, Verdict
from alarms.engine.composite import deployment_order
from alarms.engine.vector import History, evaluate_history, merge_transitions
from alarms.engine.window import cadence
from alarms.testing.case import Blackout, Case, InputSeries

Parsed = Sequence[tuple[Definition, Alarm | MuteRule]]
Known = Mapping[tuple[str, str], Sequence[tuple[float, State]]]
Observe = Callable[[str, float, MetricAlarm, Sequence[Datapoint | None], Verdict], None]
NOWHERE = ""
"""The Region alarms live in where neither they nor the test name one: no blackout reaches it, and it sees every series."""


@dataclass(slots=True)
class World:
    """The Regions of one test."""

    case: Case
    books: dict[str, AlarmBook]
    sources: dict[str, MemorySource]
    known: Known = field(default_factory=dict)
    """Metric alarms whose changes are known from another run: (seconds after the start, state) by Region and name."""
    histories: dict[tuple[str, str], History] = field(default_factory=dict)

    @property
    def evaluations(self) -> int:
        """How many evaluations the test takes."""
        return sum(int(self.case.end_s // cadence(alarm)) for _, alarm in self._metric_alarms())

    @property
    def settled(self) -> bool:
        """Whether every evaluation sees what is known at the end: nothing comes late, no Region stands still, nothing warms up."""
        late = any(series.delay_s for series in self.case.series)
        standing = any(blackout.region in self.books for blackout in self.case.blackouts)
        return not late and not standing and not any(alarm.warm_up for _, alarm in self._metric_alarms())

    def _metric_alarms(self) -> Iterator[tuple[str, MetricAlarm]]:
        for region, book in self.books.items():
            for entry in book.entries.values():
                if isinstance(entry.alarm, MetricAlarm) and (region, entry.alarm.name) not in self.known:
                    yield region, entry.alarm

    def replay(self, to_s: float) -> list[Event]:
        """The same as `advance` from the start, for a settled test: all evaluations of an alarm at once."""
        events: list[Event] = []
        start, end = self.case.start, self.case.start + to_s
        for region, alarm in self._metric_alarms():
            initial = self.books[region].state(alarm.name)
            phase = (start + self.case.phase_s) % cadence(alarm)
            source, options = self.sources[region], self.case.options
            history = evaluate_history(alarm, source, start, end, initial=initial, options=options, phase=phase)
            self.histories[region, alarm.name] = history
        for region, book in self.books.items():
            mine = [(name, history) for (where, name), history in self.histories.items() if where == region]
            events += book.follow(merge_transitions(mine), end)
        return sorted(events, key=lambda event: event.at)

    def advance(self, to_s: float) -> list[Event]:
        """Let all Regions reach ``to_s`` seconds after the start; Regions that are gone stand still."""
        events: list[Event] = []
        for region, book in self.books.items():
            for gone, until in self._stretches(region, to_s):
                now = self.case.start + until
                if gone:
                    book.skip(now)
                else:
                    events += book.tick(now, self.sources[region])
        return sorted(events, key=lambda event: event.at)

    def _stretches(self, region: str, to_s: float) -> Iterable[tuple[bool, float]]:
        """The stretches until ``to_s``: whether the Region is gone, and the last instant of the stretch."""
        edges = sorted({t for b in self.case.blackouts if b.region == region for t in (b.begin_s, b.end_s) if t <= to_s})
        moment = 1e-6
        for edge in edges:
            yield gone(self.case.blackouts, region, edge - moment), edge - moment
        yield gone(self.case.blackouts, region, to_s), to_s


def gone(blackouts: Iterable[Blackout], region: str | None, at_s: float) -> bool:
    """Whether a Region is gone at ``at_s``."""
    return any(b.region == region and b.begin_s <= at_s < b.end_s for b in blackouts)


def build(case: Case, parsed: Parsed, observe: Observe | None = None, known: Known | None = None) -> World:
    """Put every alarm into its Region's book and every series into its Region's store. Alarms in ``known`` are not evaluated."""
    home = case.region or NOWHERE
    by_region: dict[str, list[Alarm | MuteRule]] = defaultdict(list)
    for definition, item in parsed:
        by_region[definition.region or home].append(item)
    by_region.setdefault(home, [])
    books = {region: _book(case, region, items, observe) for region, items in by_region.items()}
    sources = {region: MemorySource() for region in by_region}
    for series in case.series:
        stored = series.stored_in or case.region
        for region, source in sources.items():
            if region in (stored, NOWHERE) or stored is None:
                _feed(source, series, case, region)
    known = {key: changes for key, changes in (known or {}).items() if key[0] in books and key[1] in books[key[0]].entries}
    for (region, name), changes in known.items():
        books[region].preset([name], [(case.start + at, name, state) for at, state in changes])
    return World(case, books, sources, known)


def _book(case: Case, region: str, items: Sequence[Alarm | MuteRule], observe: Observe | None) -> AlarmBook:
    book = AlarmBook(region, options=case.options, phase=lambda alarm: (case.start + case.phase_s) % cadence(alarm))
    if observe is not None:
        book.observe = lambda at, alarm, points, verdict: observe(region, at, alarm, points, verdict)
    metrics = [item for item in items if isinstance(item, MetricAlarm)]
    composites = {item.name: item for item in items if isinstance(item, CompositeAlarm)}
    for alarm in metrics:
        book.put_metric_alarm(alarm.params, case.start)
    # a composite is first evaluated together with the first of its children, not before there is anything to see
    first = case.start + min((case.phase_s or cadence(alarm) for alarm in metrics), default=60)
    for name in deployment_order({name: alarm.depends_on for name, alarm in composites.items()})[0]:
        book.put_composite_alarm(composites[name].params, first)
    for item in items:
        if isinstance(item, MuteRule):
            book.put_alarm_mute_rule(item.params)
    for name, state in (case.previous or {}).items():
        if name in book.entries:
            book.restore(name, state, case.start)
    return book


def _feed(source: MemorySource, series: InputSeries, case: Case, region: str) -> None:
    """Store a series' samples with the time each becomes visible; what a blackout hits never arrives.

    A sample is on time when it is there at the end of its period, so a late one becomes visible that much after the end.
    """
    sizes = np.fromiter(map(len, series.periods), dtype=np.int64, count=len(series.periods))
    offsets = np.repeat(np.arange(len(series.periods)), sizes) * case.interval_s
    values = np.fromiter(chain.from_iterable(series.periods), dtype=np.float64, count=int(sizes.sum()))
    keep = np.ones(len(values), dtype=bool)
    emitter = series.emitted_by or series.stored_in or case.region
    for blackout in case.blackouts:
        sent = (offsets >= blackout.begin_s) & (offsets < blackout.end_s)
        arrived = (offsets + series.delay_s >= blackout.begin_s) & (offsets + series.delay_s < blackout.end_s)
        if blackout.region == emitter:
            keep &= ~sent
        if blackout.region == (series.stored_in or case.region or region):
            keep &= ~(sent | arrived)
    times = case.start + offsets[keep]
    late = case.interval_s + series.delay_s if series.delay_s else 0.0
    source.add(series.metric, Samples.of(values[keep], times=times), times + late)
    if series.lower or series.upper:
        source.add_band(series.metric, _edge(series.lower, case), _edge(series.upper, case))


def _edge(values: tuple[float | None, ...], case: Case) -> Samples:
    have = [(case.start + i * case.interval_s, value) for i, value in enumerate(values) if value is not None]
    return Samples.of([value for _, value in have], times=[time for time, _ in have])
