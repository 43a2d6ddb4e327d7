"""The alarms of one Region, evaluated over time: what CloudWatch keeps, with the clock and the metrics passed in.

How to use it::

    book = AlarmBook("us-west-2", "123456789012")
    book.put_metric_alarm({...}, now=t0)             # PutMetricAlarm's parameters; DefinitionError lists everything AWS would refuse
    book.put_composite_alarm({...}, now=t0)          # children must exist
    while True:
        for event in book.tick(now, source):         # everything that fell due since the last tick, in order of time
            if isinstance(event, Action): ...        # publish json.dumps(event.message) to event.arn, invoke a Lambda with event.payload
            if isinstance(event, Transition): ...    # put event.event on the event bus
        now = ...                                    # book.next_due() says when it is worth ticking again

All times are epoch seconds; they must not run backwards. ``source`` (`MetricSource`) is asked for samples as they were known at each
evaluation's own instant, so a late tick gives the same results as punctual ones. Calls that change state at once (`set_alarm_state`) return
their events. The book is not thread-safe: hold a lock around it.
"""

from __future__ import annotations

import heapq
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from alarms.engine import composite, suppression
from alarms.engine.entry import Entry
from alarms.engine.events import Action, Event, HistoryItem, Transition, Withheld
from alarms.engine.math import MathError
from alarms.engine.metric import Datapoint, Verdict, evaluate
from alarms.engine.model import Alarm, CompositeAlarm, MetricAlarm, parse_composite_alarm, parse_metric_alarm
from alarms.engine.mute import MuteRule, parse_mute_rule
from alarms.engine.options import OBSERVED, Options
from alarms.engine.payloads import Change, Snapshot, Where, composite_reason_data
from alarms.engine.problems import DefinitionError, Problem
from alarms.engine.reasons import CREATED, reason, reason_data
from alarms.engine.source import MemorySource, MetricSource, datapoints
from alarms.engine.states import ALARM, INSUFFICIENT_DATA, OK, STATES, State, long_stamp, stamp
from alarms.engine.window import cadence, next_evaluation, phase_of, window

MAX_DELETED = 100
REPLAYED = "Replayed from an evaluation of its history"


class AlarmNotFoundError(LookupError):
    """There is no alarm or mute rule of that name (AWS: ResourceNotFound)."""


class AlarmBook:
    """The alarms, composites and mute rules of one Region and account."""

    def __init__(
        self, region: str, account: str = "123456789012", options: Options = OBSERVED, phase: Callable[[MetricAlarm], float] | None = None
    ) -> None:
        """``phase`` gives an alarm's evaluation phase in seconds; by default it is derived from the alarm's name."""
        self.where = Where(region, account)
        self.options = options
        self.entries: dict[str, Entry] = {}
        self.mute_rules: dict[str, MuteRule] = {}
        self.observe: Callable[[float, MetricAlarm, Sequence[Datapoint | None], Verdict], None] | None = None
        """Called after every evaluation of a metric alarm with its instant, the points seen and the verdict."""
        self._phase = phase or (lambda alarm: phase_of(alarm.name, cadence(alarm)))
        self._timers: list[tuple[float, str, str]] = []  # (when, what, alarm): a heap; outdated entries are skipped when they come up
        self._order: list[str] | None = None

    # -- definitions -------------------------------------------------------------------------------------------------------------------

    def put_metric_alarm(self, params: Mapping[str, Any], now: float) -> MetricAlarm:
        """PutMetricAlarm. An existing alarm keeps its state and gets the new configuration as a whole."""
        alarm = parse_metric_alarm(params)
        entry = self._put(alarm, now)
        entry.due = next_evaluation(now, cadence(alarm), self._phase(alarm))
        if alarm.warm_up and not alarm.warm_up.evaluate:
            begin = entry.created_at + alarm.warm_up.seconds
            entry.due = max(entry.due, next_evaluation(begin, cadence(alarm), self._phase(alarm)))
        self._wake(entry.due, "evaluate", alarm.name)
        return alarm

    def put_composite_alarm(self, params: Mapping[str, Any], now: float) -> CompositeAlarm:
        """PutCompositeAlarm. Children and suppressor must exist, here, already."""
        alarm = parse_composite_alarm(params, self.where.region, self.where.account)
        problems = []
        missing = [child for child in alarm.children if child not in self.entries]
        if missing:
            arns = ", ".join(self.where.arn(name) for name in missing)
            what = f"Could not save the composite alarm as alarms [{arns}] in the alarm rule do not exist"
            problems.append(Problem("AlarmRule", what, "create the children first"))
        suppressor = composite.alarm_name(alarm.suppressor) if alarm.suppressor else None
        if suppressor and suppressor not in self.entries:
            what = f"Could not save the composite alarm as its actions suppressor {self.where.arn(suppressor)} does not exist"
            problems.append(Problem("ActionsSuppressor", what, "create the suppressor first"))
        for child in alarm.children:
            parents = [name for name in self.parents(child) if name != alarm.name]
            if len(parents) >= composite.MAX_PARENTS:
                what = f"{child} already is in the rules of {len(parents)} composite alarms, at most {composite.MAX_PARENTS} are allowed"
                problems.append(Problem("AlarmRule", what, "share an intermediate composite"))
        if problems:
            raise DefinitionError(problems)
        before = self.entries.get(alarm.name)
        replaced = before is not None and isinstance(before.alarm, CompositeAlarm) and before.alarm.suppressor != alarm.suppressor
        entry = self._put(alarm, now)
        if replaced:
            entry.held = suppression.IDLE
        self._wake(now, "rule", alarm.name)
        return alarm

    def put_alarm_mute_rule(self, params: Mapping[str, Any]) -> MuteRule:
        """PutAlarmMuteRule."""
        rule = parse_mute_rule(params)
        self.mute_rules[rule.name] = rule
        return rule

    def delete_alarm_mute_rule(self, name: str, now: float) -> None:
        """DeleteAlarmMuteRule. Actions it withheld are run at the next tick, if the alarm still is in that state."""
        if self.mute_rules.pop(name, None) is None:
            raise AlarmNotFoundError(f"There is no mute rule {name}")
        for entry in self.entries.values():
            if entry.muted is not None:
                self._wake(now, "unmute", entry.alarm.name)

    def delete_alarms(self, names: Iterable[str]) -> None:
        """DeleteAlarms: all of them or, where one cannot be deleted, none. Unknown names are passed over."""
        wanted = [name for name in dict.fromkeys(names) if name in self.entries]
        if len(wanted) > MAX_DELETED:
            raise DefinitionError([Problem("AlarmNames", f"{len(wanted)} names, at most {MAX_DELETED}", "delete them in parts")])
        if sum(self.entries[name].composite for name in wanted) > 1:
            what = "At most one composite alarm can be deleted in one call"
            raise DefinitionError([Problem("AlarmNames", what, "delete them one by one")])
        needed = [name for name in wanted if any(parent not in wanted for parent in self.parents(name))]
        if needed:
            what = f"Cannot delete {','.join(needed)} as there are composite alarm(s) depending on {'it' if len(needed) == 1 else 'them'}."
            raise DefinitionError([Problem("AlarmNames", what, "delete the composites first")])
        for name in wanted:
            del self.entries[name]
        self._order = None

    def parents(self, name: str) -> list[str]:
        """The composites that have ``name`` as a child or suppressor."""
        return [other for other, e in self.entries.items() if isinstance(e.alarm, CompositeAlarm) and name in e.alarm.depends_on]

    def set_actions_enabled(self, names: Iterable[str], enabled: bool, now: float) -> None:
        """EnableAlarmActions and DisableAlarmActions. Unknown names are passed over."""
        for name in names:
            if entry := self.entries.get(name):
                actions = replace(entry.alarm.actions, enabled=enabled)
                entry.alarm = replace(entry.alarm, actions=actions, params={**entry.alarm.params, "ActionsEnabled": enabled})
                entry.configured_at = now

    # -- state -------------------------------------------------------------------------------------------------------------------------

    def state(self, name: str) -> State:
        """The state of an alarm. Raises AlarmNotFoundError."""
        return self._entry(name).state

    def set_alarm_state(self, name: str, state: str, why: str, now: float, why_data: str = "") -> list[Event]:
        """SetAlarmState: holds until the alarm's next evaluation (a composite's: until a child changes)."""
        entry = self._entry(name)
        if state not in STATES:
            rule = f"Member must satisfy enum value set: [{', '.join(STATES)}]"
            what = f"Value '{state}' at 'stateValue' failed to satisfy constraint: {rule}"
            raise DefinitionError([Problem("StateValue", what, "use one of the set")])
        if state == entry.state:
            entry.current = replace(entry.current, reason=why, reason_data=why_data, at=now)
            return []
        events: list[Event] = []
        self._change(entry, Snapshot(state, why, why_data, now), None, (), events)
        self._settle({name}, now, events)
        return events

    def restore(self, name: str, state: State, now: float) -> None:
        """Put an alarm into a state without history or actions, as if it had been in it for long (for tests and replays)."""
        entry = self._entry(name)
        entry.current, entry.transitioned_at = Snapshot(state, entry.current.reason, "", now), now

    def next_due(self) -> float | None:
        """When the next tick has something to do; None while there is nothing."""
        return self._timers[0][0] if self._timers else None

    def tick(self, now: float, source: MetricSource) -> list[Event]:
        """Do everything that fell due until ``now``, instant by instant: alarms, the composites above them, then what has run out."""
        events: list[Event] = []
        while self._timers and self._timers[0][0] <= now:
            at = self._timers[0][0]
            changed: set[str] = set()
            rules: set[str] = set()
            ends: list[tuple[str, str]] = []
            while self._timers and self._timers[0][0] == at:
                _, what, name = heapq.heappop(self._timers)
                entry = self.entries.get(name)
                if entry is None:
                    continue
                if what == "rule":
                    rules.add(name)
                elif what in STATES:
                    self._change(entry, Snapshot(what, REPLAYED, "", at), None, (), events)
                    changed.add(name)
                elif what != "evaluate":
                    ends.append((what, name))
                elif entry.due == at and self._evaluate(entry, at, source, events):
                    changed.add(name)
            self._settle(changed, at, events, rules)
            for what, name in ends:
                self._end(what, self.entries[name], at, events)
        return events

    def follow(self, changes: Iterable[tuple[float, str, State]], now: float) -> list[Event]:
        """Take the metric alarms' changes (when, name, new state) from elsewhere instead of evaluating; do all the rest until ``now``."""
        self.preset(self.entries, changes)
        return self.tick(now, MemorySource())

    def preset(self, names: Iterable[str], changes: Iterable[tuple[float, str, State]]) -> None:
        """Never evaluate the alarms ``names``: their changes (when, name, new state) are known."""
        for name in names:
            self.entries[name].due = None
        for at, name, state in changes:
            self._wake(at, state, name)

    def skip(self, now: float) -> None:
        """Let time pass without evaluating anything: this Region's CloudWatch is away. What ran out meanwhile ends when it is back."""
        late: list[tuple[str, str]] = []
        while self._timers and self._timers[0][0] <= now:
            _, what, name = heapq.heappop(self._timers)
            entry = self.entries.get(name)
            if entry is None:
                continue
            if what != "evaluate":
                late.append((what, name))
            elif isinstance(entry.alarm, MetricAlarm) and entry.due is not None and entry.due <= now:
                entry.due = next_evaluation(now, cadence(entry.alarm), self._phase(entry.alarm))
                self._wake(entry.due, "evaluate", name)
        for what, name in dict.fromkeys(late):
            self._wake(now, what, name)

    def action_failed(self, action: Action, error: str) -> None:
        """Put into the history that an action could not be executed, in place of what `tick` took for granted."""
        entry = self.entries.get(action.alarm)
        for i, item in reversed(list(enumerate(entry.history if entry else ()))):
            if entry and item.kind == "Action" and item.at == action.at and json.loads(item.data)["notificationResource"] == action.arn:
                data = json.dumps({**json.loads(item.data), "actionState": "Failed", "error": error}, separators=(",", ":"))
                summary = f'Failed to execute action {action.arn}. Received error: "{error}"'
                entry.history[i] = replace(item, summary=summary, data=data)
                return

    # -- reading -----------------------------------------------------------------------------------------------------------------------

    def describe_alarms(self, names: Iterable[str] | None = None) -> dict[str, list[dict[str, Any]]]:
        """``MetricAlarms`` and ``CompositeAlarms`` in the shape of DescribeAlarms, in the order of their names."""
        wanted = self.entries if names is None else set(names)
        found: dict[str, list[dict[str, Any]]] = {"MetricAlarms": [], "CompositeAlarms": []}
        for name in sorted(self.entries):
            if name in wanted:
                entry = self.entries[name]
                found["CompositeAlarms" if entry.composite else "MetricAlarms"].append(entry.describe(self.where))
        return found

    def history(self, name: str | None = None) -> list[HistoryItem]:
        """The history of one alarm or of all, newest first."""
        entries = self.entries.values() if name is None else [self._entry(name)]
        return sorted((item for entry in entries for item in entry.history), key=lambda item: item.at, reverse=True)

    # -- inside ------------------------------------------------------------------------------------------------------------------------

    def _entry(self, name: str) -> Entry:
        try:
            return self.entries[composite.alarm_name(name)]
        except KeyError:
            raise AlarmNotFoundError(f"There is no alarm {name}") from None

    def _wake(self, at: float, what: str, name: str) -> None:
        heapq.heappush(self._timers, (at, what, name))

    def _put(self, alarm: Alarm, now: float) -> Entry:
        entry = self.entries.get(alarm.name)
        if entry is None:
            entry = Entry(alarm, now, now, Snapshot(INSUFFICIENT_DATA, CREATED, "", now), now)
            self.entries[alarm.name] = entry
            verb = "created"
        elif type(entry.alarm) is not type(alarm):
            what = f"An alarm named {alarm.name} of another type already exists"
            raise DefinitionError([Problem("AlarmName", what, "choose another name, or delete that alarm first")])
        else:
            entry.alarm, entry.configured_at = alarm, now
            verb = "updated"
        self._order = None
        data = json.dumps({"version": "1.0", "type": "Create" if verb == "created" else "Update"}, separators=(",", ":"))
        entry.history.append(HistoryItem(now, alarm.name, entry.composite, "ConfigurationUpdate", f'Alarm "{alarm.name}" {verb}', data))
        return entry

    def _evaluate(self, entry: Entry, at: float, source: MetricSource, events: list[Event]) -> bool:
        """Evaluate a metric alarm at its instant and plan the next time. True where its state changed."""
        alarm = entry.alarm
        assert isinstance(alarm, MetricAlarm)
        entry.due = next_evaluation(at, cadence(alarm), self._phase(alarm))
        self._wake(entry.due, "evaluate", alarm.name)
        try:
            points = datapoints(alarm, window(alarm, at, self.options), source, at, self.options)
        except MathError:
            points = []  # AWS: EvaluationState EVALUATION_ERROR; there is no data to judge by
        verdict = evaluate(alarm, points, entry.state, self.options)
        entry.verdict = verdict
        if self.observe is not None:
            self.observe(at, alarm, points, verdict)
        if verdict.state == entry.state:
            self._repeat(entry, at, events)
            return False
        words = reason(alarm, verdict, entry.state)
        self._change(entry, Snapshot(verdict.state, words, reason_data(alarm, verdict, at), at), verdict, (), events)
        return True

    def _settle(self, changed: set[str], at: float, events: list[Event], fresh: Iterable[str] = ()) -> None:
        """Pass state changes on to suppressed composites and up through the rules, each composite after its children."""
        fresh = set(fresh)
        for name in self._composites_in_order():
            entry = self.entries[name]
            assert isinstance(entry.alarm, CompositeAlarm)
            if entry.alarm.suppressor and (suppressor := composite.alarm_name(entry.alarm.suppressor)) in changed:
                in_alarm = self.entries[suppressor].state == ALARM
                self._hold(entry, suppression.suppressor_changed(at, entry.held, in_alarm, entry.alarm.extension_s), at, events)
            causes = [child for child in entry.alarm.children if child in changed]
            if (causes or name in fresh) and self._apply_rule(entry, causes, at, events):
                changed.add(name)

    def _apply_rule(self, entry: Entry, causes: list[str], at: float, events: list[Event]) -> bool:
        alarm = entry.alarm
        assert isinstance(alarm, CompositeAlarm)
        state = ALARM if alarm.rule.holds(lambda child: self.entries[composite.alarm_name(child)].state) else OK
        if state == entry.state:
            return False
        children = tuple((self.where.arn(name), self.entries[name].state, self.entries[name].current.at) for name in causes)
        if children:
            arn, child_state, since = children[-1]
            words = f"{arn} transitioned to {child_state} at {long_stamp(since)}"
        else:
            verb = "created" if entry.configured_at == entry.created_at else "updated"
            words = f"{self.where.arn(alarm.name)} was {verb} and its alarm rule evaluates to {state}"
        self._change(entry, Snapshot(state, words, composite_reason_data(children), at), None, children, events)
        return True

    def _composites_in_order(self) -> list[str]:
        if self._order is None:
            rules = {name: e.alarm.depends_on for name, e in self.entries.items() if isinstance(e.alarm, CompositeAlarm)}
            self._order, _ = composite.deployment_order(rules)
        return self._order

    def _change(
        self, entry: Entry, after: Snapshot, verdict: Verdict | None, children: tuple[tuple[str, State, float], ...], events: list[Event]
    ) -> None:
        """Record a state change and act on it as far as nothing holds the actions back."""
        before, at, alarm = entry.current, after.at, entry.alarm
        entry.muted = None
        acts = True
        if isinstance(alarm, CompositeAlarm) and alarm.suppressor and alarm.actions.enabled and not self._muting(alarm.name, at):
            in_alarm = self.entries[composite.alarm_name(alarm.suppressor)].state == ALARM
            entry.held, acts = suppression.composite_changed(at, entry.held, in_alarm, alarm.wait_s)
            if entry.held.by:
                after = replace(after, suppressed_by=entry.held.by, suppressed_reason=f"Actions suppressed by {entry.held.by}")
        entry.current, entry.transitioned_at = after, at
        entry.last_change = Change(self.where, alarm, entry.configured_at, before, after, children)
        arn = self.where.arn(alarm.name)
        fields = (before.value, after.value, after.reason, after.reason_data)
        events.append(Transition(at, alarm.name, arn, entry.composite, *fields, verdict, entry.last_change))
        summary = f"Alarm updated from {before.value} to {after.value}"
        data = {"version": "1.0", "oldState": _state_json(before), "newState": _state_json(after)}
        entry.history.append(HistoryItem(at, alarm.name, entry.composite, "StateUpdate", summary, json.dumps(data, separators=(",", ":"))))
        if acts:
            self._act(entry, at, events)
        else:
            self._held_back(entry, at, events)

    def _act(self, entry: Entry, at: float, events: list[Event]) -> None:
        """Run the actions of the alarm's state, unless it warms up or is muted."""
        alarm = entry.alarm
        arns = alarm.actions.on(entry.state)
        if not alarm.actions.enabled or not arns:
            return
        if entry.warming_up(at):
            events.append(Withheld(at, alarm.name, entry.state, "WarmUp", arns, None))
            return
        if muted_until := self._muting(alarm.name, at):
            entry.muted = entry.state
            self._wake(muted_until, "unmute", alarm.name)
            events.append(Withheld(at, alarm.name, entry.state, "MuteRule", arns, muted_until))
            return
        for arn in arns:
            events.append(Action(at, alarm.name, self.where.arn(alarm.name), arn, entry.state, entry.last_change))
            summary = f"Successfully executed action {arn}"
            data = {"actionState": "Succeeded", "stateUpdateTimestamp": stamp(entry.current.at), "notificationResource": arn}
            entry.history.append(HistoryItem(at, alarm.name, entry.composite, "Action", summary, json.dumps(data, separators=(",", ":"))))

    def _repeat(self, entry: Entry, at: float, events: list[Event]) -> None:
        """Auto Scaling actions run again at every evaluation while the state lasts."""
        actions = entry.alarm.actions
        if not actions.enabled or entry.last_change is None or self._muting(entry.alarm.name, at):
            return
        arn = self.where.arn(entry.alarm.name)
        repeating = [action for action in actions.on(entry.state) if ":autoscaling:" in action]
        events.extend(Action(at, entry.alarm.name, arn, action, entry.state, entry.last_change, True) for action in repeating)

    def _muting(self, name: str, at: float) -> float | None:
        """Until when a mute rule withholds the alarm's actions; None where none does."""
        ends = [found[1] for rule in self.mute_rules.values() if name in rule.alarms and (found := rule.window(at))]
        return max(ends, default=None)

    def _hold(self, entry: Entry, step: tuple[suppression.Suppression, bool], at: float, events: list[Event]) -> None:
        entry.held, acts = step
        if acts:
            self._act(entry, at, events)
        elif entry.held.pending:
            self._held_back(entry, at, events)
        elif entry.held.until is not None:
            self._wake(entry.held.until, "release", entry.alarm.name)

    def _held_back(self, entry: Entry, at: float, events: list[Event]) -> None:
        held = entry.held
        if held.until is not None:
            self._wake(held.until, "release", entry.alarm.name)
        if held.by and (arns := entry.alarm.actions.on(entry.state)):
            events.append(Withheld(at, entry.alarm.name, entry.state, held.by, arns, held.until))

    def _end(self, what: str, entry: Entry, at: float, events: list[Event]) -> None:
        """A wait, an extension or a mute window has run out."""
        if what == "release":
            entry.held, acts = suppression.time_passed(at, entry.held)
            if acts:
                self._act(entry, at, events)
            return
        muted, entry.muted = entry.muted, None
        if muted != entry.state:
            return
        alarm = entry.alarm
        if isinstance(alarm, CompositeAlarm) and alarm.suppressor:
            in_alarm = self.entries[composite.alarm_name(alarm.suppressor)].state == ALARM
            self._hold(entry, suppression.composite_changed(at, entry.held, in_alarm, alarm.wait_s), at, events)
        else:
            self._act(entry, at, events)


def _state_json(snapshot: Snapshot) -> dict[str, Any]:
    body: dict[str, Any] = {"stateValue": snapshot.value, "stateReason": snapshot.reason}
    if snapshot.reason_data:
        body["stateReasonData"] = json.loads(snapshot.reason_data) if snapshot.reason_data.startswith("{") else snapshot.reason_data
    return body
