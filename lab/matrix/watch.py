"""Reads from outside what a fault does: incidents at the on-call receiver, the probes' own log lines, AWS's metrics in every Region."""

from __future__ import annotations

import json
from collections import Counter
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from lab.control import ask
from lab.matrix.record import OK, SLOW, Heard, Points, Seen
from topology.signals import CATALOGUE, series

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from lab.plan import LabPlan
    from lab.sight import Sight
    from topology import Topology
    from topology.signal import Signal

SLOT_MARGIN_S = 30.0
PERIOD_S = 60
OBJECTIVE = "-slo-"


class Watcher:
    """Looks at one running lab through its control socket and its AWS."""

    def __init__(self, plan: LabPlan, topology: Topology, sight: Sight) -> None:
        self._plan = plan
        self._topology = topology
        self._sight = sight
        self._before: set[int] = set()

    def incidents(self) -> list[dict[str, Any]]:
        """Every incident since the lab started, pages and tickets."""
        found: list[dict[str, Any]] = ask(self._plan.path, "details")["pages"]
        return found

    def hush_objectives(self, hush: bool) -> None:
        """Take the actions off the objectives' burn-rate alarms, or put them back. They look back for hours, and a pass burns a month's
        budget in one: what they say is true, and is not about one fault. On AWS one would do the same for a game day."""
        for region in self._plan.regions:
            client = self._sight.client("cloudwatch", region)
            pages = client.get_paginator("describe_alarms").paginate(
                AlarmNamePrefix=f"{self._topology.workload}{OBJECTIVE}", AlarmTypes=["CompositeAlarm"]
            )
            names = [alarm["AlarmName"] for page in pages for alarm in page.get("CompositeAlarms", ())]
            for chunk in (names[i : i + 100] for i in range(0, len(names), 100)):
                (client.disable_alarm_actions if hush else client.enable_alarm_actions)(AlarmNames=chunk)
        self._before = {each["number"] for each in self.incidents()} if hush else set()

    def heard(self, since: float) -> list[Heard]:
        """The incidents that were opened at or after ``since`` (lab time)."""
        return [as_heard(each, since) for each in self.incidents() if each["opened"] >= since]

    def troubles(self) -> list[str]:
        """What keeps the lab from being all-green: every alarm but the objectives', every canary, control and cell, and any incident that
        was opened since they were hushed and is open still."""
        open_ones = [
            f"incident #{each['number']} is open: {each['summary']}"
            for each in self.incidents()
            if each["state"] == "open" and each["number"] not in self._before
        ]
        return [each for each in self._sight.look().troubles() if OBJECTIVE not in each] + open_ones

    def seen(self, since: float, until: float) -> list[Seen]:
        """What the probes said in the rounds from ``since`` to ``until``, as far as their logs can be read."""
        lines = (line for region in self._plan.regions for line in self._lines(region, since, until))
        return sorted((as_seen(line, since) for line in lines if since <= line["slot"] <= until), key=lambda each: each.at)

    def _lines(self, region: str, since: float, until: float) -> Iterator[dict[str, Any]]:
        logs = self._sight.client("logs", region)
        for canary in self._sight.client("synthetics", region).describe_canaries()["Canaries"]:
            if not canary["Name"].endswith("-probe"):
                continue
            pages = logs.get_paginator("filter_log_events").paginate(
                logGroupName=f"/aws/lambda/{canary['EngineArn'].split(':')[6]}",
                filterPattern='{ $.crosswatch = "probe" }',
                startTime=int((since - SLOT_MARGIN_S) * 1000),
                endTime=int((until + SLOT_MARGIN_S) * 1000),
            )
            yield from (json.loads(event["message"]) for page in pages for event in page["events"])

    def points(self, statistics: Mapping[Signal, str], origin: float, since: float, until: float) -> list[Points]:
        """Every series of the vended signals in ``statistics``, in the Regions where the catalogue has them. The unit is part of the
        question: what stands there in another unit is not found."""
        wanted = [(signal, each) for signal in statistics for each in series(self._topology, signal)]
        found = []
        for region in self._plan.regions:
            here = [(signal, each) for signal, each in wanted if each.region == region]
            for chunk in (here[i : i + 400] for i in range(0, len(here), 400)):
                queries = [
                    {
                        "Id": f"q{index}",
                        "MetricStat": {
                            "Metric": {"Namespace": each.namespace, "MetricName": each.name, "Dimensions": as_pairs(each.dimensions)},
                            "Period": PERIOD_S,
                            "Stat": statistics[signal],
                            "Unit": signal.unit,
                        },
                    }
                    for index, (signal, each) in enumerate(chunk)
                ]
                answer = self._sight.client("cloudwatch", region).get_metric_data(
                    MetricDataQueries=queries,
                    StartTime=datetime.fromtimestamp(since // PERIOD_S * PERIOD_S, UTC),
                    EndTime=datetime.fromtimestamp(until, UTC),
                    ScanBy="TimestampAscending",
                )
                values = {result["Id"]: result for result in answer["MetricDataResults"]}
                for index, (signal, each) in enumerate(chunk):
                    result = values[f"q{index}"]
                    at = [moment.timestamp() - origin for moment in result["Timestamps"]]
                    points = list(zip(at, result["Values"], strict=True))
                    found.append(Points(each.namespace, each.name, dict(each.dimensions), region, statistics[signal], points))
        return found

    def strays(self) -> list[str]:
        """Series of vended signals that stand in a Region where the catalogue says that AWS does not report them."""
        vended = [signal for signal in CATALOGUE if signal.vended]
        known = {(each.region, *each.key) for signal in vended for each in series(self._topology, signal)}
        elsewhere = {key[1:] for key in known}
        found = []
        for region in self._plan.regions:
            client = self._sight.client("cloudwatch", region)
            for namespace in sorted({signal.namespace for signal in vended}):
                for page in client.get_paginator("list_metrics").paginate(Namespace=namespace):
                    for metric in page["Metrics"]:
                        pairs = {each["Name"]: each["Value"] for each in metric["Dimensions"]}
                        key = (region, namespace, metric["MetricName"], tuple(sorted(pairs.items())))
                        if key[1:] in elsewhere and key not in known:
                            found.append(f"{region}: {namespace} {metric['MetricName']} {pairs}")
        return found


def as_pairs(dimensions: Mapping[str, str]) -> list[dict[str, str]]:
    """Dimensions as the API has them."""
    return [{"Name": name, "Value": value} for name, value in dimensions.items()]


def as_heard(incident: dict[str, Any], origin: float) -> Heard:
    """An incident of the receiver; a message that is no page of ours has its summary for a diagnosis."""
    page = incident["page"] or {}
    return Heard(
        diagnosis=page.get("diagnosis", "plain text"),
        subject=page.get("subject", incident["summary"]),
        region=page.get("region", ""),
        severity=incident["severity"],
        urgent=incident["urgent"],
        summary=incident["summary"],
        opened=incident["opened"] - origin,
        resolved=incident["resolved"] - origin if incident["resolved"] else None,
        notifications=len(incident["notifications"]),
    )


def as_seen(line: dict[str, Any], origin: float) -> Seen:
    """One line of a probe's log."""
    looks = {target: [look for look in line["looks"] if look["target"] == target] for target in line["cells"]}
    return Seen(
        at=line["slot"] - origin,
        vantage=line["vantage"],
        classes={target: classify(line["cells"][target], [look["kind"] for look in looks[target] if not look["ok"]]) for target in looks},
        pages={target: [look["page"] for look in looks[target] if not look["ok"]] for target in looks},
        dns_agrees=line["dns_agrees"],
        stale=bool(line.get("pooled", {}).get("stale")),
    )


def classify(cell: str, kinds: Sequence[str]) -> str:
    """One word for what a vantage saw of a target: the most frequent kind of failure of its pages, else whether they were slow."""
    if kinds:
        return Counter(kinds).most_common(1)[0][0]
    return OK if cell == "up" else SLOW


def most_common(classes: Iterable[str], otherwise: str) -> str:
    """The class of most rounds."""
    counted = Counter(classes).most_common(1)
    return counted[0][0] if counted else otherwise
