"""What happened between two times: the failover report, from what every Region's CloudWatch and Systems Manager kept.

Nothing has to be recorded beforehand: alarm histories, the probe's matrix, routing states, runbook executions and the missing-transaction
and ledger metrics are read after the fact, from every Region that answers. The report is HTML with pictures, and JSON.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

import jinja2
from botocore.exceptions import BotoCoreError, ClientError
from rich.console import Console
from rich.markup import escape

from alarms.diagnosis import diagnoses
from dashboards.drawing import LIGHT, Theme, chart
from dashboards.series import Data, Line, fetch
from dashboards.times import instant
from stacks.session import Session
from topology import Problem, Topology, UnusableInput, load
from topology.signals import LEDGER, RECOVERY

PAGES = Path(__file__).parent / "pages"


@dataclass(frozen=True, slots=True)
class Event:
    """One thing that happened. ``kind`` is page, ticket, ok, runbook or note; ``at`` is ISO 8601, UTC."""

    at: str
    region: str
    kind: str
    what: str
    detail: str = ""


@dataclass(frozen=True, slots=True)
class Report:
    """A failover as the Regions remember it. ``lost`` maps a database to the rows that its new writer lacks."""

    workload: str
    start: str
    end: str
    events: tuple[Event, ...]
    matrix: dict[str, list[tuple[float, float]]] = field(default_factory=dict)
    routing: dict[str, list[tuple[float, float]]] = field(default_factory=dict)
    lost: dict[str, float] = field(default_factory=dict)
    unread: tuple[str, ...] = ()


def collect(topology: Topology, start: datetime, end: datetime, session: Session | None = None) -> Report:
    """Read everything that every Region kept between ``start`` and ``end``. Regions that do not answer are named in ``unread``."""
    opened = session or Session(topology)
    events: list[Event] = []
    unread = []
    for region in topology.watched_regions:
        try:
            events += _alarm_events(topology, region, start, end, opened)
            events += _runbook_events(topology, region, start, end, opened)
        except (ClientError, BotoCoreError) as error:
            unread.append(f"{region}: {error}")
    witness = next((region for region in reversed(topology.watched_regions) if not any(text.startswith(region) for text in unread)), None)
    matrix, routing, lost, notes = ({}, {}, {}, []) if witness is None else _series(topology, witness, start, end, opened)
    return Report(
        topology.workload,
        start.isoformat(),
        end.isoformat(),
        tuple(sorted(events, key=lambda event: event.at)),
        matrix,
        routing,
        lost,
        (*unread, *notes),
    )


def write(report: Report, out: Path) -> list[Path]:
    """Write ``failover.html`` and ``failover.json`` to ``out``."""
    out.mkdir(parents=True, exist_ok=True)
    page, data = out / "failover.html", out / "failover.json"
    data.write_text(json.dumps(asdict(report), indent=1), encoding="utf-8")
    page.write_text(render(report), encoding="utf-8")
    return [page, data]


def render(report: Report) -> str:
    """The report as one HTML file that needs nothing else."""
    loader = jinja2.FileSystemLoader(PAGES)
    environment = jinja2.Environment(loader=loader, undefined=jinja2.StrictUndefined, autoescape=True, trim_blocks=True, lstrip_blocks=True)
    pictures = [
        picture(report, series, title) for series, title in ((report.matrix, "Seen up"), (report.routing, "Routing controls on")) if series
    ]
    return environment.get_template("failover.html.j2").render(report=report, pictures=pictures, clock=_clock)


def picture(report: Report, series: dict[str, list[tuple[float, float]]], title: str, theme: Theme = LIGHT) -> str:
    """A step chart of 0/1 series as SVG."""
    import vl_convert

    start, end = (datetime.fromisoformat(text).timestamp() for text in (report.start, report.end))
    lines = [Line(name, tuple(points)) for name, points in series.items()]
    properties = {"title": title, "metrics": [], "yAxis": {"left": {"min": 0, "max": 1, "label": title}}}
    widget = {"type": "metric", "width": 18, "height": 5, "properties": properties}
    drawn: str = vl_convert.vegalite_to_svg(chart(widget, lines, Data(start, end), theme))
    return drawn


def command(file: Path, start: str, end: str, out: Path, console: Console) -> int:
    """The command line's `failover report`."""
    topology = load(file)
    span = _times(start, end)
    report = collect(topology, *span)
    for path in write(report, out):
        console.print(str(path), highlight=False)
    for text in report.unread:
        console.print(f"[yellow]not read[/] {escape(text)}", highlight=False)
    return 1 if report.unread else 0


def _times(start: str, end: str) -> tuple[datetime, datetime]:
    problems: list[Problem] = []
    times: list[datetime] = []
    for option, text in (("--from", start), ("--to", end)):
        try:
            times.append(instant(text, option))
        except UnusableInput as error:
            problems += error.problems
    if not problems and times[0] >= times[1]:
        problems.append(Problem("the end is not after the start", "give --from the earlier time", key="--to"))
    if problems:
        raise UnusableInput(problems)
    return times[0], times[1]


def _alarm_events(topology: Topology, region: str, start: datetime, end: datetime, session: Session) -> Iterator[Event]:
    """The diagnoses' changes of state."""
    known = {diagnosis.name: diagnosis for diagnosis in diagnoses(topology, region)}
    paginator = session.client("cloudwatch", region).get_paginator("describe_alarm_history")
    for page in paginator.paginate(AlarmTypes=["CompositeAlarm"], HistoryItemType="StateUpdate", StartDate=start, EndDate=end):
        for item in page["AlarmHistoryItems"]:
            diagnosis = known.get(item["AlarmName"])
            states = json.loads(item["HistoryData"])
            new, old = states["newState"]["stateValue"], states.get("oldState", {}).get("stateValue")
            if diagnosis is None or old == "INSUFFICIENT_DATA":
                continue
            kind = ("page" if diagnosis.pages else "ticket") if new == "ALARM" else "ok"
            yield Event(
                item["Timestamp"].astimezone(UTC).isoformat(), region, kind, diagnosis.summary, f"{item['AlarmName']}: {old} to {new}"
            )


def _runbook_events(topology: Topology, region: str, start: datetime, end: datetime, session: Session) -> Iterator[Event]:
    """Executions of the topology's runbooks, when they began and how they ended."""
    ssm, documents = session.client("ssm", region), _documents(topology)
    seconds = timedelta(seconds=1)
    filters = [
        {"Key": "StartTimeAfter", "Values": [_second(start - seconds)]},
        {"Key": "StartTimeBefore", "Values": [_second(end + seconds)]},
    ]
    token: dict[str, str] = {}
    while True:
        answer = ssm.describe_automation_executions(Filters=filters, **token)
        for execution in answer["AutomationExecutionMetadataList"]:
            began, ended = execution["ExecutionStartTime"].astimezone(UTC), execution.get("ExecutionEndTime")
            if execution["DocumentName"] not in documents or not start <= began <= end:
                continue
            detail = f"{execution['AutomationExecutionId']} {execution['AutomationExecutionStatus']}"
            yield Event(began.isoformat(), region, "runbook", f"{execution['DocumentName']} started", detail)
            if ended:
                what = f"{execution['DocumentName']} ended: {execution['AutomationExecutionStatus']}"
                yield Event(ended.astimezone(UTC).isoformat(), region, "runbook", what, execution.get("FailureMessage", ""))
        if not answer.get("NextToken"):
            return
        token = {"NextToken": answer["NextToken"]}


def _documents(topology: Topology) -> set[str]:
    """The runbooks' documents; one that is named by its ARN is listed by its name or by its ARN."""
    books = topology.runbooks
    every = [books.drain, books.enable, *books.failover.values(), *books.rebuild.values(), books.missing_transactions]
    named = {book.document for book in every if book}
    return named | {name.rsplit("/", 1)[-1] for name in named if name.startswith("arn:")}


def _second(moment: datetime) -> str:
    """A time as Systems Manager's filters take it."""
    return f"{moment.astimezone(UTC):%Y-%m-%dT%H:%M:%SZ}"


Series = dict[str, list[tuple[float, float]]]


def _series(
    topology: Topology, witness: str, start: datetime, end: datetime, session: Session
) -> tuple[Series, Series, dict[str, float], list[str]]:
    """The matrix, the routing states, and what is gone, as one surviving Region has them; and what could not be read of them."""
    workload = topology.workload
    up = [
        ["Crosswatch/Probe", "Up", "Workload", workload, "Vantage", v, "Target", t, {"label": f"{t} from {v}"}]
        for v in topology.vantage_names
        for t in topology.targets
    ]
    controls = list(topology.routing.controls) if topology.routing else []
    routing = [["Crosswatch/Probe", "RoutingOn", "Workload", workload, "Region", r, {"label": r}] for r in controls]
    lost = [[RECOVERY, "MissingTransactions", "Workload", workload, "Database", d, {"label": f"rows of {d}"}] for d in topology.databases]
    lost += [
        [LEDGER, "OrdersMissing", "Workload", workload, "Vantage", v, {"label": f"ledger orders from {v}"}] for v in topology.vantage_names
    ]
    widgets = [
        {"type": "metric", "properties": {"region": witness, "metrics": rows, "stat": "Maximum", "period": period}}
        for rows, period in ((up, 10), (routing, 60), (lost, 60))
    ]
    data = fetch({"widgets": widgets}, lambda region: session.client("cloudwatch", region), start.timestamp(), end.timestamp())
    found = [{line.label: list(line.points) for line in data.lines.get(index, ())} for index in range(3)]
    gone = {label: max(value for _, value in points) for label, points in found[2].items() if points}
    notes = sorted({line.note for lines in data.lines.values() for line in lines if line.note})
    return found[0], found[1], gone, notes


def _clock(text: str, date: bool = False) -> str:
    return f"{datetime.fromisoformat(text):{'%Y-%m-%d ' if date else ''}%H:%M:%S}"
