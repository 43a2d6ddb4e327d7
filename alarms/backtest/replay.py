"""Replay definitions over history: every episode of every alarm, and every action, old definitions beside new ones."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from alarms.backtest.data import Export, Exports
from alarms.definitions import Definition
from alarms.engine import ALARM, Action, Alarm, AlarmBook, CompositeAlarm, MetricAlarm, MuteRule, State, Transition
from alarms.engine.composite import deployment_order
from alarms.engine.options import OBSERVED, Options
from alarms.engine.vector import evaluate_history, merge_transitions

Parsed = Sequence[tuple[Definition, Alarm | MuteRule]]


@dataclass(frozen=True, slots=True)
class Episode:
    """A stretch in ALARM, in epoch seconds; ``end`` is None where it lasts beyond the history."""

    start: float
    end: float | None


@dataclass(frozen=True, slots=True)
class Outcome:
    """One alarm over the whole history."""

    alarm: str
    region: str | None
    composite: bool
    episodes: tuple[Episode, ...]
    actions: int
    lacks: tuple[str, ...]
    """Metrics the history has no data of."""

    def minutes(self, until: float) -> float:
        """Minutes in ALARM altogether."""
        return sum((episode.end or until) - episode.start for episode in self.episodes) / 60

    def longest(self, until: float) -> float:
        """Minutes of the longest episode."""
        return max(((episode.end or until) - episode.start for episode in self.episodes), default=0.0) / 60


def replay(parsed: Parsed, exports: Exports, start: float, end: float, options: Options = OBSERVED) -> list[Outcome]:
    """The outcome of every alarm between ``start`` and ``end`` (epoch seconds).

    Alarms begin in OK, each once the history reaches back over all of its evaluation periods: what lies before an export is not missing
    data. An alarm sees its Region's data, or where it or the data has no Region whatever there is.
    """
    outcomes: dict[tuple[str | None, str], Outcome] = {}
    for region in dict.fromkeys(definition.region for definition, _ in parsed):
        here = [item for definition, item in parsed if definition.region == region]
        source = _source(exports, region)
        for outcome in _region(region, here, source, start, end, options):
            outcomes[region, outcome.alarm] = outcome
    keys = [(definition.region, definition.name) for definition, item in parsed if not isinstance(item, MuteRule)]
    return [outcomes[key] for key in keys if key in outcomes]


def _source(exports: Exports, region: str | None) -> Export:
    if region in exports:
        return exports[region]
    if None in exports:
        return exports[None]
    return next(iter(exports.values())) if region is None and len(exports) == 1 else Export()


def _region(
    region: str | None, items: Iterable[Alarm | MuteRule], source: Export, start: float, end: float, options: Options
) -> list[Outcome]:
    items = list(items)
    book = AlarmBook(region or "us-east-1", options=options)
    metrics = [item for item in items if isinstance(item, MetricAlarm)]
    composites = {item.name: item for item in items if isinstance(item, CompositeAlarm)}
    for alarm in metrics:
        book.put_metric_alarm(alarm.params, start)
    for name in deployment_order({name: alarm.depends_on for name, alarm in composites.items()})[0]:
        book.put_composite_alarm(composites[name].params, start)
    for item in items:
        if isinstance(item, MuteRule):
            book.put_alarm_mute_rule(item.params)
    for name in book.entries:
        book.restore(name, "OK", start)
    since = source.span[0] if source.span else start
    histories = []
    for alarm in metrics:
        begin = max(start, since + alarm.evaluation_periods * alarm.period - 1)
        histories.append((alarm.name, evaluate_history(alarm, source, begin, end, initial="OK", options=options)))
    events = book.follow(merge_transitions(histories), end)
    found = []
    for name, entry in book.entries.items():
        changes = [(event.at, event.state) for event in events if isinstance(event, Transition) and event.alarm == name]
        acted = sum(isinstance(event, Action) and event.alarm == name and event.state == ALARM for event in events)
        lacks: tuple[str, ...] = ()
        if isinstance(entry.alarm, MetricAlarm):
            lacks = tuple(f"{stat.stat} of {stat.metric}" for stat in entry.alarm.metric_stats if source.best(stat) is None)
        found.append(Outcome(name, region, entry.composite, _episodes(changes), acted, lacks))
    return found


def _episodes(changes: list[tuple[float, State]]) -> tuple[Episode, ...]:
    episodes: list[Episode] = []
    began: float | None = None
    for at, state in changes:
        if state == ALARM:
            began = at
        elif began is not None:
            episodes.append(Episode(began, at))
            began = None
    if began is not None:
        episodes.append(Episode(began, None))
    return tuple(episodes)
