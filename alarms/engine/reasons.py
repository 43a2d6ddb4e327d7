"""Why an alarm changed state, in the words and the JSON of CloudWatch."""

from __future__ import annotations

import json
from typing import Any

from alarms.engine.metric import Datapoint, Verdict, treatment
from alarms.engine.model import COMPARISONS, MetricAlarm
from alarms.engine.states import ALARM, INSUFFICIENT_DATA, State, short_stamp, stamp

_TREATED = {"breaching": "Breaching", "notBreaching": "NonBreaching", "ignore": "Ignored", "missing": "Missing"}
CREATED = "Unchecked: Initial alarm creation"


def reason(alarm: MetricAlarm, verdict: Verdict, previous: State) -> str:
    """``NewStateReason`` for a metric alarm's transition from ``previous``."""
    e = verdict.evidence
    if verdict.state == INSUFFICIENT_DATA:
        return f"Insufficient Data: {_plural(e.missing or e.n, 'datapoint')} {_were(e.missing or e.n)} unknown."
    shown = e.bad if verdict.state == ALARM else e.good
    missing = ""
    # points are only filled in where there are too few real ones and the treatment says with what
    if e.missing and verdict.rule in (1, 2, 4, 5, 6) and e.treatment in ("breaching", "notBreaching"):
        missing = f"{_plural(e.missing, 'missing datapoint')} {_were(e.missing)} treated as [{_TREATED[e.treatment]}]"
    if not shown:
        received = "no datapoints were" if not e.real else f"{_plural(e.real, 'datapoint')} {_were(e.real)}"
        return f"Threshold Crossed: {received} received for {_plural(e.n, 'period')} and {missing or 'the rest was missing'}."
    listed = ", ".join(f"{_number(point.value)} ({short_stamp(point.time)})" for point in shown)
    explicit = alarm.params.get("DatapointsToAlarm") is not None
    counted = f"{len(shown)} out of the last {e.n} datapoints" if explicit else _plural(len(shown), "datapoint")
    negation = "" if verdict.state == ALARM else "not "
    text = f"Threshold Crossed: {counted} [{listed}] {_were(len(shown))} {negation}{COMPARISONS[alarm.comparison]} {_limit(alarm, shown)}"
    if missing:
        text += f" and {missing}"
    if explicit:
        needed = e.m if verdict.state == ALARM else e.n - e.m + 1
        text += f" (minimum {_plural(needed, 'datapoint')} for {previous} -> {verdict.state} transition)"
    return text + "."


def reason_data(alarm: MetricAlarm, verdict: Verdict, now: float) -> str:
    """``StateReasonData``: the points behind the verdict, as JSON."""
    e = verdict.evidence
    points = sorted((*e.good, *e.bad, *e.low_sample), key=lambda point: point.time)
    stat = alarm.single_metric
    data: dict[str, Any] = {"version": "1.0", "queryDate": stamp(now)}
    if points:
        data["startDate"] = stamp(points[0].time)
    if stat is not None:
        if stat.metric.unit:
            data["unit"] = stat.metric.unit
        data["statistic"] = stat.stat
    data["period"] = alarm.period
    data["recentDatapoints"] = [point.value for point in points]
    if alarm.threshold is not None:
        data["threshold"] = alarm.threshold
    else:
        data["recentLowerThresholds"] = [point.lower for point in points]
        data["recentUpperThresholds"] = [point.upper for point in points]
    data["evaluatedDatapoints"] = [
        {"timestamp": stamp(point.time), **({"sampleCount": point.samples} if point.samples is not None else {}), "value": point.value}
        for point in reversed(points)
    ]
    return json.dumps(data, separators=(",", ":"))


def plainly(alarm: MetricAlarm, verdict: Verdict) -> str:
    """One line for people: the rule that decided and the options it hangs on."""
    e = verdict.evidence
    seen = f"{len(e.bad)} breaching, {len(e.good)} not, {len(e.low_sample)} low-sample, {e.missing} missing of N={e.n} (M={e.m})"
    line = f"rule {verdict.rule}: {verdict.why}; {seen}; missing data: {treatment(alarm, e.options)}"
    if verdict.depends_on:
        line += "; hangs on " + ", ".join(verdict.depends_on)
    return line


def _limit(alarm: MetricAlarm, points: tuple[Datapoint, ...]) -> str:
    if alarm.threshold is not None:
        return f"({_number(alarm.threshold)})"
    return "[" + ", ".join(f"{_edge(point.lower)}..{_edge(point.upper)}" for point in points) + "]"


def _edge(value: float | None) -> str:
    return "-" if value is None else _number(value)


def _number(value: float) -> str:
    """As Java prints a double within everyday sizes."""
    return repr(float(value))


def _plural(count: int, noun: str) -> str:
    return f"{count} {noun}{'' if count == 1 else 's'}"


def _were(count: int) -> str:
    return "was" if count == 1 else "were"
