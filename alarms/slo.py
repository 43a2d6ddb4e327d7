"""Service level objectives as CloudWatch alarms: multi-window, multi-burn-rate, one composite for the pairs of one severity.

The burn rate is the error ratio over the error budget (1 - objective). A pair fires while both its windows burn faster than its factor:
the long one so that a fixed share of the budget is really gone, the short one (a twelfth) so that it stops soon after the errors do.
Factors follow from that share, the objective's window and the pair's long window; for 30 days they are 14.4, 6 and 1. A factor no error
ratio can reach (low objectives) is left out: `unreachable` lists these.

The pairs that page are one composite, and one incident: a burn that both notice wakes somebody once, and ends when both have cleared. The
pair that is a ticket is another one with a key of its own: a pager does not raise the urgency of an incident that is open.

Each window is one alarm with Period = window and one datapoint, which CloudWatch slides every minute (three days: every hour).
Objectives on the probe stand in every Region for the store's name, and for each load balancer in every Region but its own; those on the
load balancer's own metrics can only stand in its Region, because alarms read no other Region's metrics.

For a load balancer the best vantage's view counts, as for the diagnoses: one bad path between Regions is a ticket there and no page here.
For the name every vantage counts, because each stands for the customers who are led like it.

An outage that a diagnosis has paged burns the budget too. That is no second page: the composites' actions are suppressed while the alarm
``paged`` (alarms.diagnosis.paged) is in ALARM, and for the short window after it. Those about one Region are suppressed also while its
routing control is off. That is no term of their rule: it would change when the control is turned on, which ends an extension period.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

from alarms.diagnosis import Names, alarm, alarm_topic, all_of, any_of
from topology import Topology
from topology.model import NAME_TARGET, Objective, alb_target
from topology.signals import PROBE

Severity = Literal["error", "warning"]


@dataclass(frozen=True, slots=True)
class Pair:
    """A long and a short window, in seconds, the share of the budget gone when it fires, and how bad that is."""

    name: str
    long_s: int
    short_s: int
    share: float
    severity: Severity

    def factor(self, objective: Objective) -> float:
        """The burn rate at which ``share`` of the budget is gone after the long window."""
        return self.share * objective.window_days * 86_400 / self.long_s


PAIRS = (
    Pair("fast", 3600, 300, 0.02, "error"),
    Pair("slow", 21_600, 1800, 0.05, "error"),
    Pair("trickle", 259_200, 21_600, 0.10, "warning"),
)
SETTLE_S = 180
"""How long a diagnosis may take to page after the budget began to burn, and a window to clear after its end."""
LEAST_REQUESTS_PER_MINUTE = 2
"""Low-traffic guard: with fewer requests a minute (on the average of the window) a window is not judged."""
LEAST_ROUNDS_SHARE = 0.5
"""The same for the probe: with less than this share of its rounds heard, a window is not judged."""


@dataclass(frozen=True, slots=True)
class Subject:
    """What an objective is about in one Region's alarms: the store, or one Region's load balancer."""

    name: str
    target: str
    words: str


def region_definitions(topology: Topology, region: str, suppressor: str = "") -> list[dict[str, Any]]:
    """The SLO alarms of ``region`` in the shape of PutMetricAlarm and PutCompositeAlarm, children first.

    ``suppressor`` names the alarm that is in ALARM while an outage has been paged already.
    """
    found: list[dict[str, Any]] = []
    hushes = {}
    for objective, subject, pairs in _judged(topology, region):
        if subject.name not in hushes:
            hushes[subject.name], extra = _hush(topology, subject, suppressor)
            found += extra
        burns = []
        for pair in pairs:
            windows = {
                f"{_window_name(topology, objective, subject, w)}-x{pair.factor(objective):g}": w for w in (pair.long_s, pair.short_s)
            }
            present = {item["AlarmName"] for item in found}
            for name, window in windows.items():
                if name not in present:
                    found.append(_window_alarm(topology, region, objective, subject, pair, name, window))
            burns.append(all_of(alarm(name) for name in windows))
        found.append(_composite(topology, region, objective, subject, pairs, any_of(burns), hushes[subject.name]))
    return found


def incidents(topology: Topology, region: str) -> dict[str, dict[str, Any]]:
    """What the notifier says of each composite, in the shape of `alarms.rendering.ticket_incidents`."""
    found = {}
    for objective, subject, pairs in _judged(topology, region):
        severity, least = pairs[0].severity, min(pair.factor(objective) for pair in pairs)
        found[_composite_name(topology, objective, subject, pairs)] = {
            "diagnosis": "slo-burn",
            "severity": severity,
            "subject": subject.name,
            "summary": f"{subject.words} burns the error budget of {objective.name} more than {least:g} times too fast",
            "description": _description(objective, subject, pairs),
            "dedup_key": f"{topology.workload}/slo-{objective.name}/{subject.name}/{severity}",
            "runbook": None,
        }
    return found


def unreachable(topology: Topology) -> list[str]:
    """The pairs that were left out because no error ratio reaches them, in words."""
    return [
        f"{objective.name}: {pair.name} needs an error ratio of {pair.factor(objective) * budget(objective):.0%}"
        for objective in topology.objectives
        for pair in PAIRS
        if pair.factor(objective) * budget(objective) >= 1
    ]


def budget(objective: Objective) -> float:
    """The share of requests that may fail."""
    return 1 - objective.target_percent / 100


def _judged(topology: Topology, region: str) -> Iterator[tuple[Objective, Subject, tuple[Pair, ...]]]:
    """The composites of ``region``: an objective, its subject, and the pairs of one severity that an error ratio can reach."""
    for objective in topology.objectives:
        reachable = [pair for pair in PAIRS if pair.factor(objective) * budget(objective) < 1]
        for subject in _subjects(topology, region, objective):
            for _, pairs in itertools.groupby(reachable, key=lambda pair: pair.severity):
                yield objective, subject, tuple(pairs)


def _subjects(topology: Topology, region: str, objective: Objective) -> Iterator[Subject]:
    if objective.source == "alb":
        if region in topology.regions:
            yield Subject(region, alb_target(region), f"the load balancer of {region}")
        return
    yield Subject("store", NAME_TARGET, f"{topology.workload} as a whole")
    if objective.kind == "latency":
        return  # latencies are written to the vantage's own Region only
    for other in topology.regions:
        if other != region:
            yield Subject(other, alb_target(other), f"{topology.workload} in {other}")


def _window_alarm(
    topology: Topology, region: str, objective: Objective, subject: Subject, pair: Pair, name: str, window: int
) -> dict[str, Any]:
    limit = pair.factor(objective) * budget(objective)
    return {
        "AlarmName": name,
        "AlarmDescription": f"More than {limit:.3%} of the last {_words(window)} failed the objective {objective.name}.",
        "Metrics": _ratio(topology, region, objective, subject, window, guarded=window == pair.long_s),
        "ComparisonOperator": "GreaterThanThreshold",
        "Threshold": round(limit, 9),
        "EvaluationPeriods": 1,
        "DatapointsToAlarm": 1,
        "TreatMissingData": "notBreaching",
    }


def _ratio(topology: Topology, region: str, objective: Objective, subject: Subject, window: int, guarded: bool) -> list[dict[str, Any]]:
    """The error ratio from 0 to 1, and 0 where there was too little to judge by. The probe's short windows need no guard of their own: the
    long window beside them has one, and rounds come as regularly as the clock (customers do not)."""
    latency_s = (objective.latency_ms or 0) / 1000
    if objective.source == "alb":
        balancer = {"LoadBalancer": topology.regions[region].alb.arn_suffix}
        least = LEAST_REQUESTS_PER_MINUTE * window // 60
        requests = _metric("requests", "AWS/ApplicationELB", "RequestCount", balancer, window, "Sum")
        if objective.kind == "latency":
            good = _metric("good", "AWS/ApplicationELB", "TargetResponseTime", balancer, window, f"PR(:{latency_s:g})")
            return [_expression(f"IF(requests >= {least}, 1 - good / 100, 0)"), requests, good]
        errors = _metric("errors", "AWS/ApplicationELB", "HTTPCode_ELB_5XX_Count", balancer, window, "Sum")
        faults = _metric("faults", "AWS/ApplicationELB", "HTTPCode_Target_5XX_Count", balancer, window, "Sum")
        return [_expression(f"IF(requests >= {least}, (errors + faults) / requests, 0)"), requests, errors, faults]
    rounds = topology.probe.rounds
    a_minute = max(1, int((rounds.until_s - rounds.offset_s) // rounds.every_s) + 1)
    least = max(1, int(LEAST_ROUNDS_SHARE * a_minute * window / 60))
    if objective.kind == "latency":
        dimensions = {"Workload": topology.workload, "Vantage": region, "Target": subject.target}
        bad, seen = "1 - good / 100", [_metric("good", PROBE, "LatencyMs", dimensions, window, f"PR(:{objective.latency_ms or 0:g})")]
        heard = _metric("heard", PROBE, "LatencyMs", dimensions, window, "SampleCount")
    else:
        dimensions = {"Workload": topology.workload, "Target": subject.target}
        views = [dimensions] if subject.target == NAME_TARGET else [dimensions | {"Vantage": vantage} for vantage in topology.vantage_names]
        seen = [_metric(f"up{i}", PROBE, "Up", view, window, "Average") for i, view in enumerate(views)]
        bad = f"1 - MAX([{', '.join(view['Id'] for view in seen)}])" if len(views) > 1 else "1 - up0"
        heard = _metric("heard", PROBE, "Up", dimensions, window, "SampleCount")
    if not guarded:
        return [_expression(bad), *seen]
    return [_expression(f"IF(heard >= {least}, {bad}, 0)"), heard, *seen]


def _metric(ident: str, namespace: str, name: str, dimensions: dict[str, str], period: int, stat: str) -> dict[str, Any]:
    metric = {
        "Namespace": namespace,
        "MetricName": name,
        "Dimensions": [{"Name": key, "Value": value} for key, value in dimensions.items()],
    }
    return {"Id": ident, "MetricStat": {"Metric": metric, "Period": period, "Stat": stat}, "ReturnData": False}


def _expression(text: str) -> dict[str, Any]:
    return {"Id": "ratio", "Expression": text, "Label": "error ratio", "ReturnData": True}


def _composite(
    topology: Topology, region: str, objective: Objective, subject: Subject, pairs: tuple[Pair, ...], rule: str, suppressor: str
) -> dict[str, Any]:
    topic = alarm_topic(topology, region)
    composite = {
        "AlarmName": _composite_name(topology, objective, subject, pairs),
        "AlarmDescription": f"[{pairs[0].severity}] {_description(objective, subject, pairs)}",
        "AlarmRule": rule,
        "ActionsEnabled": True,
        "AlarmActions": [topic],
        "OKActions": [topic],
    }
    if not suppressor:
        return composite
    return composite | {
        "ActionsSuppressor": suppressor,
        "ActionsSuppressorWaitPeriod": SETTLE_S,
        "ActionsSuppressorExtensionPeriod": max(pair.short_s for pair in pairs) + SETTLE_S,
    }


def _hush(topology: Topology, subject: Subject, paged: str) -> tuple[str, list[dict[str, Any]]]:
    """The suppressor of the composites about ``subject``, and its definition where it is one of its own."""
    names = Names(topology)
    if not topology.routing or subject.name not in topology.routing.controls:
        return paged, []
    off = names("off", subject.name)
    if not paged:
        return off, []
    known = {
        "AlarmName": names("known", subject.name),
        "AlarmDescription": f"A diagnosis has paged, or {subject.name} is drained: what burns its error budgets is known.",
        "AlarmRule": f"{alarm(paged)} OR {alarm(off)}",
        "ActionsEnabled": False,
    }
    return names("known", subject.name), [known]


def _description(objective: Objective, subject: Subject, pairs: tuple[Pair, ...]) -> str:
    goal = f"{objective.name} ({objective.target_percent:g} % over {objective.window_days} days)"
    burns = ", or ".join(
        f"more than {pair.factor(objective):g} times too fast over {_words(pair.long_s)} and over the last {_words(pair.short_s)}"
        f" ({pair.share:.0%} of it is gone)"
        for pair in pairs
    )
    which = " The alarm's reason names the windows." if len(pairs) > 1 else ""
    return (
        f"{subject.words} burns the error budget of {goal}: {burns}.{which}"
        " Look at the probe's and the services' dashboards for what fails."
    )


def _composite_name(topology: Topology, objective: Objective, subject: Subject, pairs: tuple[Pair, ...]) -> str:
    return f"{topology.workload}-slo-{objective.name}-{subject.name}-{'-or-'.join(pair.name for pair in pairs)}"


def _window_name(topology: Topology, objective: Objective, subject: Subject, window: int) -> str:
    return f"{topology.workload}-slo-{objective.name}-{subject.name}-burn-{_short(window)}"


def _short(seconds: int) -> str:
    for unit, length in (("d", 86_400), ("h", 3600), ("m", 60)):
        if seconds % length == 0 and seconds >= length:
            return f"{seconds // length}{unit}"
    return f"{seconds}s"


def _words(seconds: int) -> str:
    for unit, length in (("day", 86_400), ("hour", 3600), ("minute", 60)):
        if seconds % length == 0 and seconds >= length:
            count = seconds // length
            return unit if count == 1 else f"{count} {unit}s"
    return f"{seconds} seconds"
