"""The notifier: an alarm's SNS message in, one page with everything the person on call needs out. Runs as a Lambda in every Region.

Imports only the standard library and boto3. Its bundle holds ``config.json`` beside it::

    {"workload", "region", "topic": ARN of the topic that people subscribe to, "dashboard", "console_url" or null,
     "endpoints": {service: url}, "vantages": [...], "targets": [...], "incidents": {alarm name: {"diagnosis", "severity", "subject",
     "summary", "description", "dedup_key", "runbook": {"document", "parameters", "region"} or null}}}

The page is published to that topic: as JSON for machines (https, lambda, sqs), as text for people (email, sms). Where the notifier itself
fails, Lambda sends the bare alarm to the same topic (its failure destination), whose description still names the runbook.
"""

from __future__ import annotations

import json
import shlex
from dataclasses import asdict, dataclass, field
from datetime import datetime, timedelta
from functools import cache
from pathlib import Path
from typing import Any

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

FRESH_S = 45
ALIVE_S = 25
SUBJECT_LIMIT = 100
QUERY_LIMIT = 500
STATES = {"ALARM": "trigger", "OK": "resolve"}


@dataclass(frozen=True)
class Page:
    """One message to the person on call. ``since`` is ISO 8601; ``seen_from`` holds {vantage, target, state}."""

    event: str
    dedup_key: str
    severity: str
    summary: str
    workload: str
    region: str
    subject: str
    diagnosis: str
    since: str
    description: str = ""
    seen_from: list[dict[str, str]] = field(default_factory=list)
    what_to_do: dict[str, Any] | None = None
    links: dict[str, str] = field(default_factory=dict)
    alarm: dict[str, str] = field(default_factory=dict)


def handler(event: dict[str, Any], _context: object) -> dict[str, int]:
    """The Lambda's entry point: an SNS event with one or more alarm messages. Raises when a page could not be published."""
    settings = config()
    published = 0
    for record in event.get("Records", ()):
        alarm = json.loads(record["Sns"]["Message"])
        page = compose(alarm, settings, seen(settings, alarm) if alarm.get("NewStateValue") == "ALARM" else [])
        if page:
            publish(page, settings)
            published += 1
    return {"published": published}


def compose(alarm: dict[str, Any], settings: dict[str, Any], matrix: list[dict[str, str]]) -> Page | None:
    """The page for CloudWatch's alarm message, or None where nobody has to know.

    A return to OK resolves only what was in ALARM before: a new alarm that finds all well is no news. An alarm that the configuration does
    not know is passed on as it is, with severity ``error``: nothing is lost.
    """
    state = alarm.get("NewStateValue", "")
    if state not in STATES or (state == "OK" and alarm.get("OldStateValue") != "ALARM"):
        return None
    name = alarm.get("AlarmName", "unknown")
    incident = settings["incidents"].get(name) or {
        "diagnosis": "unknown",
        "severity": "error",
        "subject": name,
        "summary": f"{name}: {alarm.get('NewStateReason', '')}"[:200],
        "description": alarm.get("AlarmDescription") or "",
        "dedup_key": f"{settings['workload']}/{name}/{settings['region']}",
        "runbook": None,
    }
    return Page(
        event=STATES[state],
        dedup_key=incident["dedup_key"],
        severity=incident["severity"],
        summary=incident["summary"],
        workload=settings["workload"],
        region=settings["region"],
        subject=incident["subject"],
        diagnosis=incident["diagnosis"],
        since=alarm.get("StateChangeTime", ""),
        description=incident["description"],
        seen_from=matrix,
        what_to_do=_what_to_do(incident["runbook"]),
        links=_links(settings),
        alarm={
            "name": name,
            "arn": alarm.get("AlarmArn", ""),
            "region": settings["region"],
            "reason": alarm.get("NewStateReason", ""),
        },
    )


def text(page: Page) -> str:
    """The page as a person reads it in an e-mail."""
    head = "RESOLVED" if page.event == "resolve" else page.severity.upper()
    lines = [f"{head}: {page.summary}", "", page.description, "", f"Since      {page.since}, as decided in {page.region}"]
    if page.seen_from:
        width = max(len(cell["vantage"]) for cell in page.seen_from)
        cells = [f"{cell['vantage']:<{width}}  sees {cell['target']} {cell['state']}" for cell in page.seen_from]
        lines += [f"{'Seen' if not index else '':<10} {cell}" for index, cell in enumerate(cells)]
    if page.what_to_do and page.event == "trigger":
        lines += [f"{'Do':<10} {page.what_to_do['command']}"]
    lines += [f"{name.capitalize():<10} {link}" for name, link in page.links.items()]
    lines += [f"Alarm      {page.alarm.get('arn', '')}", "", page.alarm.get("reason", "")]
    return "\n".join(lines)


def publish(page: Page, settings: dict[str, Any]) -> None:
    """Send the page to the topic of this Region."""
    machine = json.dumps(asdict(page))
    head = "Resolved" if page.event == "resolve" else page.severity.capitalize()
    subject = f"{head}: {page.summary}".encode("ascii", "replace").decode()[:SUBJECT_LIMIT]
    human = text(page)
    bodies = {"default": machine, "email": human, "sms": subject, "email-json": machine}
    attributes = {"severity": page.severity, "event": page.event, "diagnosis": page.diagnosis, "workload": page.workload}
    client("sns").publish(
        TopicArn=settings["topic"],
        Subject=subject,
        Message=json.dumps(bodies),
        MessageStructure="json",
        MessageAttributes={key: {"DataType": "String", "StringValue": value} for key, value in attributes.items()},
    )


def seen(settings: dict[str, Any], alarm: dict[str, Any]) -> list[dict[str, str]]:
    """Each cell of the matrix in this Region's CloudWatch when the alarm changed; empty where it cannot be read, which stops no page.

    A cell is ``up`` or ``down`` by its newest value; all cells of a vantage that has let its lease run out are ``silent``, however
    recent its last values are.
    """
    workload, vantages = settings["workload"], settings["vantages"]
    cells = [(vantage, target) for vantage in vantages for target in settings["targets"]][: QUERY_LIMIT - len(vantages)]
    queries = [_query(f"c{i}", "Up", {"Workload": workload, "Vantage": v, "Target": t}) for i, (v, t) in enumerate(cells)]
    queries += [_query(f"v{i}", "Alive", {"Workload": workload, "Vantage": vantage}) for i, vantage in enumerate(vantages)]
    try:
        end = datetime.fromisoformat(alarm["StateChangeTime"])
        answer = client("cloudwatch").get_metric_data(
            MetricDataQueries=queries, StartTime=end - timedelta(seconds=FRESH_S), EndTime=end, ScanBy="TimestampDescending"
        )
    except (KeyError, ValueError, BotoCoreError, ClientError) as error:
        print(
            json.dumps({"level": "warning", "message": "the matrix could not be read; the page goes out without it", "error": str(error)})
        )
        return []
    return cells_at(end, answer["MetricDataResults"], cells, vantages)


def cells_at(end: datetime, answer: list[dict[str, Any]], cells: list[tuple[str, str]], vantages: list[str]) -> list[dict[str, str]]:
    """The matrix at ``end`` from GetMetricData's results, newest value first; ``c<i>`` is cell i, ``v<i>`` the lease of vantage i."""
    results = {result["Id"]: result for result in answer if result["Values"]}
    leased = {key: result["Timestamps"][0] >= end - timedelta(seconds=ALIVE_S) for key, result in results.items()}
    alive = {vantage: leased.get(f"v{i}", False) for i, vantage in enumerate(vantages)}
    return [
        {"vantage": vantage, "target": target, "state": _state(results.get(f"c{i}"), alive[vantage])}
        for i, (vantage, target) in enumerate(cells)
    ]


def _query(key: str, metric_name: str, dimensions: dict[str, str]) -> dict[str, Any]:
    metric = {
        "Namespace": "Crosswatch/Probe",
        "MetricName": metric_name,
        "Dimensions": [{"Name": name, "Value": value} for name, value in dimensions.items()],
    }
    return {"Id": key, "MetricStat": {"Metric": metric, "Period": 10, "Stat": "Maximum"}}


def _state(result: dict[str, Any] | None, alive: bool) -> str:
    if result is None or not alive:
        return "silent"
    return "up" if result["Values"][0] >= 1 else "down"


def _what_to_do(runbook: dict[str, Any] | None) -> dict[str, Any] | None:
    if not runbook:
        return None
    words = ["aws", "ssm", "start-automation-execution", "--region", runbook["region"], "--document-name", runbook["document"]]
    if runbook["parameters"]:
        words += ["--parameters", ",".join(f"{key}={value}" for key, value in runbook["parameters"].items())]
    return {
        "runbook": runbook["document"],
        "parameters": runbook["parameters"],
        "region": runbook["region"],
        "command": shlex.join(words),
    }


def _links(settings: dict[str, Any]) -> dict[str, str]:
    region = settings["region"]
    base = settings.get("console_url") or f"https://{region}.console.aws.amazon.com/cloudwatch/home?region={region}"
    return {"dashboard": f"{base}#dashboards/dashboard/{settings['dashboard']}"}


@cache
def config() -> dict[str, Any]:
    """The bundle's configuration."""
    settings: dict[str, Any] = json.loads((Path(__file__).parent / "config.json").read_text())
    return settings


@cache
def client(service: str) -> Any:
    """A client of this Region's ``service``, quick to give up: a page must not wait for a picture."""
    endpoint = config().get("endpoints", {}).get(service)
    short = Config(connect_timeout=2, read_timeout=5, retries={"max_attempts": 2, "mode": "standard"})
    return boto3.client(service, region_name=config()["region"], endpoint_url=endpoint, config=short)
