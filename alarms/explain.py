"""``alarms explain``: an alarm in plain words. What it watches, when it fires, how soon at best, what silence does, what it costs.

The times follow from periods, cadence and hold-back, from the luckiest to the unluckiest phase; what silence does is asked of the engine.

"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

from alarms.definitions import Definition
from alarms.engine import ALARM, OK, Alarm, CompositeAlarm, Datapoint, MetricAlarm, State, evaluate
from alarms.engine.metric import breaches, treatment
from alarms.engine.model import COMPARISONS
from alarms.engine.options import OBSERVED, Options
from alarms.engine.window import cadence, hold_back, range_slots
from alarms.testing.notation import show_duration
from topology.signals import find

PRICE_METRIC, PRICE_METRIC_HIGH, PRICE_COMPOSITE = 0.10, 0.30, 0.50
"""US dollars a month: per metric an alarm reads, the same at 10/20/30 seconds, per composite (us-east-1, first tier)."""


@dataclass(frozen=True, slots=True)
class Span:
    """From the shortest to the longest, in seconds."""

    least: float
    most: float

    def __str__(self) -> str:
        return show_duration(self.least) if self.least == self.most else f"{show_duration(self.least)} to {show_duration(self.most)}"


@dataclass(frozen=True, slots=True)
class Explanation:
    """One alarm, explained."""

    name: str
    region: str | None
    watches: tuple[str, ...]
    fires: str
    to_fire: Span | None
    to_clear: Span | None
    silence: str
    acts: tuple[str, ...]
    cost_per_month: float
    notes: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """The explanation as JSON values; times in seconds."""
        span = {name: None if s is None else [s.least, s.most] for name, s in (("to_fire_s", self.to_fire), ("to_clear_s", self.to_clear))}
        return {
            "name": self.name,
            "region": self.region,
            "watches": self.watches,
            "fires": self.fires,
            **span,
            "silence": self.silence,
            "acts": self.acts,
            "cost_per_month_usd": round(self.cost_per_month, 2),
            "notes": self.notes,
        }

    def lines(self) -> list[str]:
        """The explanation for people."""
        place = f" in {self.region}" if self.region else ""
        found = [f"{self.name}{place}", "", "watches   " + "\n          ".join(self.watches), f"fires     {self.fires}"]
        if self.to_fire:
            found.append(f"to fire   {self.to_fire} after the trouble begins and stays")
        if self.to_clear:
            found.append(f"to clear  {self.to_clear} after it is over")
        found.append(f"silence   {self.silence}")
        found.append("acts      " + ("\n          ".join(self.acts) if self.acts else "runs no action"))
        found.append(f"costs     ${self.cost_per_month:.2f} a month")
        found += [f"note      {note}" for note in self.notes]
        return found


def explain(
    definition: Definition, alarm: Alarm, others: Iterable[tuple[Definition, Alarm]] = (), options: Options = OBSERVED
) -> Explanation:
    """Explain one alarm; ``others`` are the alarms a composite's rule may name."""
    if isinstance(alarm, CompositeAlarm):
        here = {other.name: other for d, other in others if d.region in (definition.region, None)}
        return _composite(definition, alarm, here, options)
    return _metric(definition, alarm, options)


def _metric(definition: Definition, alarm: MetricAlarm, options: Options) -> Explanation:
    reads = len(alarm.metric_stats)
    price = (PRICE_METRIC_HIGH if alarm.high_resolution else PRICE_METRIC) * max(reads, 1)
    return Explanation(
        alarm.name,
        definition.region,
        tuple(_watched(alarm)),
        _condition(alarm),
        time_to(alarm, ALARM, options),
        time_to(alarm, OK, options),
        _silence(alarm, options),
        _acts(alarm),
        price,
        tuple(_notes(alarm, options)),
    )


def _watched(alarm: MetricAlarm) -> list[str]:
    lines = []
    for query in alarm.queries:
        if query.expression is not None:
            lines.append(f"{query.id} = {query.expression}" + (f" ({query.label})" if query.label else ""))
            continue
        stat = query.metric_stat
        assert stat is not None
        signal = find(stat.metric.namespace, stat.metric.name, tuple(name for name, _ in stat.metric.dimensions))
        unit = stat.metric.unit or (signal.unit if signal and signal.unit != "None" else None)
        what = f": {signal.what}" if signal else ""
        prefix = f"{query.id} = " if len(alarm.queries) > 1 else ""
        in_unit = f", in {unit}" if unit else ", unit unknown" if signal is None else ""
        lines.append(f"{prefix}{stat.stat} of {replace(stat.metric, unit=None)} over {show_duration(stat.period)}{in_unit}{what}")
    return lines


def _condition(alarm: MetricAlarm) -> str:
    n, m = alarm.evaluation_periods, alarm.datapoints_to_alarm
    limit = f"{alarm.threshold:g}" if alarm.threshold is not None else f"of {alarm.threshold_metric_id}"
    words = COMPARISONS[alarm.comparison].removesuffix("the threshold").strip()
    subject = f"{alarm.returned.id} is" if alarm.is_math else "it is"
    period = show_duration(alarm.period)
    if n == 1:
        return f"when {subject} {words} {limit} in one period of {period}"
    many = f"all {n}" if m == n else f"{m} of the last {n}"
    return f"when {subject} {words} {limit} in {many} periods of {period}"


def _silence(alarm: MetricAlarm, options: Options) -> str:
    how = treatment(alarm, options)
    given = how if alarm.treat_missing_data else f"{how} (by default)"
    after = time_of_silence(alarm, options)
    if after is None:
        kept = "an OK stays OK"
        from_alarm = {"ignore": "; an ALARM stays ALARM for ever", "notBreaching": "; an ALARM becomes OK"}.get(how, "")
        return f"{given}: {kept}{from_alarm}"
    state, span = after
    return f"{given}: an OK becomes {state} {span} after the last good point"


def _acts(alarm: Alarm) -> tuple[str, ...]:
    if not alarm.actions.enabled:
        return ("its actions are switched off",)
    states: tuple[State, ...] = (ALARM, OK, "INSUFFICIENT_DATA")
    return tuple(f"on {state}: {arn}" for state in states for arn in alarm.actions.on(state))


def _notes(alarm: MetricAlarm, options: Options) -> list[str]:
    notes = []
    if alarm.multi_day:
        notes.append("looks back more than a day: evaluated once an hour, on data up to the full hour")
    elif alarm.period > 60:
        notes.append(f"the window slides: every minute it looks at the last {show_duration(alarm.period)}, not at clock periods")
    if not alarm.multi_day and range_slots(alarm, options) != alarm.evaluation_periods:
        extra = range_slots(alarm, options) - alarm.evaluation_periods
        notes.append(f"when points are missing it falls back on up to {extra} older ones (AWS documents this number for 3 periods only)")
    return notes


def time_to(alarm: MetricAlarm, state: State, options: Options = OBSERVED) -> Span:
    """How long until ``state`` after the metric turned for good (bad for ALARM, good for OK), every period having its point.

    Windows end on multiples of the cadence and are looked at within another one. The least: the period in which the metric turned already
    counts (a Maximum that turned bad), and the evaluation comes at once. The most: it does not count, and both steps are just missed.
    """
    n, m = alarm.evaluation_periods, alarm.datapoints_to_alarm
    needed = m if state == ALARM else n - m + 1
    held, every = hold_back(alarm, options), cadence(alarm)
    return Span((needed - 1) * alarm.period + held, needed * alarm.period + held + 2 * every)


def time_of_silence(alarm: MetricAlarm, options: Options) -> tuple[State, Span] | None:
    """The state an OK changes to when the metric falls silent, and when."""
    good = next((p for value in _probe_values(alarm) if not breaches(alarm, p := Datapoint(0, value, 1e9))), None)
    if good is None:
        return None
    slots = range_slots(alarm, options)
    for silent in range(1, slots + 1):
        points = [replace(good, time=i) for i in range(slots - silent)] + [None] * silent
        state = evaluate(alarm, points, OK, options).state
        if state != OK:
            held, every = hold_back(alarm, options), cadence(alarm)
            return state, Span(silent * alarm.period + held, silent * alarm.period + held + 2 * every)
    return None


def _probe_values(alarm: MetricAlarm) -> tuple[float, ...]:
    base = alarm.threshold or 0.0
    return (base - 1, base + 1, base)


def _composite(definition: Definition, alarm: CompositeAlarm, here: dict[str, Alarm], options: Options) -> Explanation:
    watched = []
    for name in alarm.children:
        child = here.get(name)
        if isinstance(child, MetricAlarm):
            watched.append(f"{name}: {_condition(child)}")
        else:
            watched.append(f"{name}: {'a composite' if child else 'not defined here'}")
    spans = [
        span for name in alarm.children if isinstance(child := here.get(name), MetricAlarm) and (span := time_to(child, ALARM, options))
    ]
    notes = []
    if alarm.suppressor:
        notes.append(
            f"its actions wait {show_duration(alarm.wait_s)} for {alarm.suppressor}, are withheld while that is in ALARM"
            f" and for {show_duration(alarm.extension_s)} after"
        )
    to_fire = Span(min(s.least for s in spans), max(s.most for s in spans)) if spans else None
    silent = _silent_outcome(alarm, here, options)
    fires = f"when {alarm.rule.text}"
    return Explanation(
        alarm.name, definition.region, tuple(watched), fires, to_fire, None, silent, _acts(alarm), PRICE_COMPOSITE, tuple(notes)
    )


def _silent_outcome(alarm: CompositeAlarm, here: dict[str, Alarm], options: Options, above: frozenset[str] = frozenset()) -> str:
    def state_of(name: str, above: frozenset[str]) -> State:
        child = here.get(name)
        if child is None or name in above:
            return "INSUFFICIENT_DATA"
        if isinstance(child, CompositeAlarm):
            return ALARM if child.rule.holds(lambda one: state_of(one, above | {name})) else OK
        silent: dict[str, State] = {"breaching": ALARM, "notBreaching": OK, "ignore": OK, "missing": "INSUFFICIENT_DATA"}
        return silent[treatment(child, options)]

    fires = alarm.rule.holds(lambda name: state_of(name, above | {alarm.name}))
    return f"when every metric below it falls silent it is {'in ALARM' if fires else 'OK'}"
