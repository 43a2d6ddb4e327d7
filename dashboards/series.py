"""The data of a dashboard: what its metric widgets ask for, fetched with GetMetricData from each Region they name.

Rows are expanded first (``.`` repeats the value above, ``...`` all that is left of it). One GetMetricData call holds as many queries as the
API takes. An expression may only name metrics of its own Region: CloudWatch's console can mix Regions, the API cannot.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

QUERIES_PER_CALL = 500
POINTS_WANTED = 360
PERIODS = (10, 30, 60, 300, 900, 3600, 21600, 86400)
KEPT = ((63 * 86400, 3600), (15 * 86400, 300), (3 * 3600, 60))
"""(older than, finest period) in seconds: GetMetricData gives nothing for a start of that age with a period that is no multiple of it."""

ClientFor = Callable[[str], Any]
"""Region -> a boto3 CloudWatch client."""


@dataclass(frozen=True, slots=True)
class Query:
    """One row of a widget's metrics, complete. ``dimensions`` keep their order; ``expression`` rows have no metric."""

    id: str
    region: str
    label: str
    stat: str
    period: int
    namespace: str = ""
    name: str = ""
    dimensions: tuple[tuple[str, str], ...] = ()
    expression: str = ""
    color: str = ""
    axis: str = "left"
    visible: bool = True


@dataclass(frozen=True, slots=True)
class Line:
    """One series as drawn: points are (epoch seconds, value) in order of time."""

    label: str
    points: tuple[tuple[float, float], ...]
    color: str = ""
    axis: str = "left"
    note: str = ""


@dataclass(frozen=True, slots=True)
class Data:
    """What was fetched: lines by widget index, and the states of alarms by ARN."""

    start: float
    end: float
    lines: Mapping[int, list[Line]] = field(default_factory=dict)
    alarms: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)


def queries(widget: Mapping[str, Any]) -> list[Query]:
    """The rows of a metric widget, complete; empty for other widgets."""
    if widget.get("type") != "metric":
        return []
    properties = widget["properties"]
    result: list[Query] = []
    above: list[str] = []
    for index, row in enumerate(properties.get("metrics", ())):
        render = row[-1] if row and isinstance(row[-1], dict) else {}
        fields = _expand([item for item in row if isinstance(item, str)], above)
        above = fields or above
        result.append(_query(index, fields, render, properties))
    return result


def _query(index: int, fields: list[str], render: Mapping[str, Any], properties: Mapping[str, Any]) -> Query:
    dimensions = tuple(zip(fields[2::2], fields[3::2], strict=False))
    name = fields[1] if len(fields) > 1 else ""
    return Query(
        id=render.get("id") or f"m{index}",
        region=render.get("region") or properties.get("region", ""),
        label=render.get("label") or name or render.get("expression", ""),
        stat=render.get("stat") or properties.get("stat", "Average"),
        period=int(render.get("period") or properties.get("period", 300)),
        namespace=fields[0] if fields else "",
        name=name,
        dimensions=dimensions,
        expression=render.get("expression", ""),
        color=render.get("color", ""),
        axis=render.get("yAxis", "left"),
        visible=render.get("visible", True),
    )


def _expand(fields: list[str], above: list[str]) -> list[str]:
    """Replace ``.`` by the value above and ``...`` by all that is left of the row above."""
    if "..." in fields:
        at = fields.index("...")
        tail = fields[at + 1 :]
        fields = fields[:at] + above[at : len(above) - len(tail)] + tail
    return [above[index] if value == "." and index < len(above) else value for index, value in enumerate(fields)]


def fetch(body: Mapping[str, Any], client_for: ClientFor, start: float, end: float) -> Data:
    """Fetch everything that ``body`` shows between ``start`` and ``end`` (epoch seconds). A Region that fails leaves a note."""
    wanted = [(index, query) for index, widget in enumerate(body["widgets"]) for query in queries(widget)]
    lines: dict[int, list[Line]] = {}
    regions = sorted({query.region for _, query in wanted})
    answers: dict[tuple[int, str], tuple[tuple[float, float], ...]] = {}
    notes: dict[str, str] = {}
    for region in regions:
        mine = [(index, query) for index, query in wanted if query.region == region]
        try:
            answers.update(_ask(client_for(region), mine, start, end))
        except _aws_errors() as error:
            notes[region] = f"{region}: {error}"
    for index, query in wanted:
        if query.visible:
            points = answers.get((index, query.id), ())
            lines.setdefault(index, []).append(Line(query.label, points, query.color, query.axis, notes.get(query.region, "")))
    return Data(start, end, lines, _alarm_states(body, client_for))


def _ask(client: Any, wanted: list[tuple[int, Query]], start: float, end: float) -> dict[tuple[int, str], tuple[tuple[float, float], ...]]:
    """GetMetricData for the queries of one Region; ids are made unique over widgets."""
    ids = {f"w{index}_{query.id}": (index, query.id) for index, query in wanted}
    age = max(time.time(), end) - start  # a lab's time may be ahead of the clock
    asked = [_metric_data_query(index, query, wanted, end - start, age) for index, query in wanted]
    answers: dict[tuple[int, str], list[tuple[float, float]]] = {}
    span = {"StartTime": datetime.fromtimestamp(start, UTC), "EndTime": datetime.fromtimestamp(end, UTC)}
    for chunk in _chunks(asked):
        token: dict[str, str] = {}
        while True:
            answer = client.get_metric_data(MetricDataQueries=chunk, ScanBy="TimestampAscending", **span, **token)
            for result in answer["MetricDataResults"]:
                points = zip((t.timestamp() for t in result["Timestamps"]), result["Values"], strict=True)
                answers.setdefault(ids[result["Id"]], []).extend(points)
            if not answer.get("NextToken"):
                break
            token = {"NextToken": answer["NextToken"]}
    return {key: tuple(points) for key, points in answers.items()}


def _chunks(asked: list[dict[str, Any]]) -> Iterator[list[dict[str, Any]]]:
    for first in range(0, len(asked), QUERIES_PER_CALL):
        yield asked[first : first + QUERIES_PER_CALL]


def _metric_data_query(index: int, query: Query, wanted: list[tuple[int, Query]], span: float, age: float) -> dict[str, Any]:
    head = {"Id": f"w{index}_{query.id}", "Label": query.label or query.id, "ReturnData": True}
    if query.expression:
        expression = query.expression
        for other_index, other in wanted:
            if other_index == index and other.id in expression:
                expression = _rename(expression, other.id, f"w{index}_{other.id}")
        return {**head, "Expression": expression, "Period": _period(query.period, age)}
    metric = {"Namespace": query.namespace, "MetricName": query.name, "Dimensions": [{"Name": k, "Value": v} for k, v in query.dimensions]}
    return {**head, "MetricStat": {"Metric": metric, "Period": _period(max(query.period, _readable(span)), age), "Stat": query.stat}}


def _rename(expression: str, old: str, new: str) -> str:
    import re

    return re.sub(rf"\b{re.escape(old)}\b(?!\()", new, expression)


def _readable(span: float) -> int:
    """The shortest period that gives no more points than a picture can show."""
    return next((period for period in PERIODS if span / period <= POINTS_WANTED), PERIODS[-1])


def _period(wanted: int, age: float) -> int:
    """The shortest period from ``wanted`` on that CloudWatch still has for data whose oldest is ``age`` seconds old."""
    kept = next((finest for older, finest in KEPT if age > older), 1)
    return -(-wanted // kept) * kept


def _alarm_states(body: Mapping[str, Any], client_for: ClientFor) -> dict[str, Mapping[str, Any]]:
    """State and time of change of every alarm that a widget names, by ARN; an alarm that does not exist is left out."""
    arns = {arn for widget in body["widgets"] if widget["type"] == "alarm" for arn in widget["properties"].get("alarms", ())}
    states: dict[str, Mapping[str, Any]] = {}
    for region in sorted({arn.split(":")[3] for arn in arns}):
        names = sorted(arn.split(":alarm:", 1)[1] for arn in arns if arn.split(":")[3] == region)
        try:
            for first in range(0, len(names), 100):
                answer = client_for(region).describe_alarms(
                    AlarmNames=names[first : first + 100], AlarmTypes=["MetricAlarm", "CompositeAlarm"]
                )
                for alarm in (*answer.get("MetricAlarms", ()), *answer.get("CompositeAlarms", ())):
                    states[alarm["AlarmArn"]] = alarm
        except _aws_errors():
            continue
    return states


def _aws_errors() -> tuple[type[Exception], ...]:
    from botocore.exceptions import BotoCoreError, ClientError

    return BotoCoreError, ClientError
