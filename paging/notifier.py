"""The notifier: an alarm's SNS message in, one page with everything the person on call needs out. Runs as a Lambda in every Region.

Imports only the standard library and boto3. Its bundle holds ``config.json`` beside it::

    {"workload", "region", "topic": ARN of the topic that people subscribe to, "dashboard", "console_url" or null,
     "endpoints": {service: url}, "vantages": [...], "targets": [...], "incidents": {alarm name: {"diagnosis", "severity", "subject",
     "summary", "description", "dedup_key", "runbook": {"document", "parameters", "region"} or null}}}

The page is published to that topic: as JSON for machines (https, lambda, sqs), as text for people (email, sms). What goes wrong on the
way costs the page its picture or its words, never its key: a bare page still opens and closes the same incident. Where nothing can be
published, Lambda tries again a minute later, and then sends the event as it is to the same topic (its failure destination).
"""

from __future__ import annotations

import json
import shlex
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path
from typing import Any

import boto3
from botocore.config import Config

FRESH_S = 45
ALIVE_S = 25
SUBJECT_LIMIT = 100
QUERY_LIMIT = 500
STATES = {"ALARM": "trigger", "OK": "resolve"}
STALE_S = 20
"""From this age on a trigger may have been overtaken by its own resolve, which found no incident to close."""
PATIENCE = {
    "cloudwatch": Config(connect_timeout=1, read_timeout=2, retries={"total_max_attempts": 1, "mode": "standard"}),
    "sns": Config(connect_timeout=1, read_timeout=4, retries={"total_max_attempts": 2, "mode": "standard"}),
}
"""A page must not wait for its picture: 3 s for each look, 11 s for each message, of the function's 30 s."""


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
    """The Lambda's entry point: an SNS event with one or more alarm messages.

    Every message is tried. Raises the first failure afterwards, so that Lambda tries again: a page that comes twice is one incident.
    """
    settings = config()
    published = 0
    failures: list[Exception] = []
    for record in event["Records"]:
        try:
            published += deliver(json.loads(record["Sns"]["Message"]), settings)
        except Exception as error:  # noqa: BLE001 - the other messages must not suffer from it
            _warn("a message could not be passed on", error)
            failures.append(error)
    if failures:
        raise failures[0]
    return {"published": published}


def deliver(alarm: dict[str, Any], settings: dict[str, Any]) -> int:
    """Publish what people have to know of the alarm's message. Returns the number of messages; raises where one could not be published."""
    page = page_for(alarm, settings)
    if page is None:
        return 0
    publish(page, settings)
    if page.event == "trigger" and over(alarm):
        publish(replace(page, event="resolve"), settings)
        return 2
    return 1


def page_for(alarm: dict[str, Any], settings: dict[str, Any]) -> Page | None:
    """The page with everything that can be found out in time: at worst the alarm's own words, under the incident's key."""
    matrix: list[dict[str, str]] = []
    try:
        if alarm.get("NewStateValue") == "ALARM":
            matrix = seen(settings, alarm)
    except Exception as error:  # noqa: BLE001 - a page without its picture is still a page
        _warn("the matrix could not be read; the page goes out without it", error)
    try:
        return compose(alarm, settings, matrix)
    except Exception as error:  # noqa: BLE001 - and so is one without its words
        _warn("the page could not be written; the alarm's own words go out", error)
        return bare(alarm, settings)


def over(alarm: dict[str, Any]) -> bool:
    """Whether a trigger came so late that its alarm is in ALARM no longer; False where that cannot be found out.

    A young one is not looked up: its resolve comes after it by itself, and CloudWatch may not know the new state everywhere yet.
    """
    try:
        if datetime.now(UTC) - datetime.fromisoformat(alarm["StateChangeTime"]) < timedelta(seconds=STALE_S):
            return False
        answer = client("cloudwatch").describe_alarms(AlarmNames=[alarm["AlarmName"]], AlarmTypes=["MetricAlarm", "CompositeAlarm"])
        found = [*answer.get("MetricAlarms", ()), *answer.get("CompositeAlarms", ())]
        return bool(found) and all(each["StateValue"] != "ALARM" for each in found)
    except Exception as error:  # noqa: BLE001 - the trigger is out; what follows is only tidier
        _warn("the alarm's state could not be read; the incident stays open until its OK comes", error)
        return False


def news(alarm: dict[str, Any]) -> str | None:
    """``trigger``, ``resolve``, or None where nobody has to know.

    A return to OK resolves only what was in ALARM before: a new alarm that finds all well is no news.
    """
    state = alarm.get("NewStateValue", "")
    return None if state == "OK" and alarm.get("OldStateValue") != "ALARM" else STATES.get(state)


def compose(alarm: dict[str, Any], settings: dict[str, Any], matrix: list[dict[str, str]]) -> Page | None:
    """The page for CloudWatch's alarm message, or None where nobody has to know.

    An alarm that the configuration does not know is passed on as it is, with severity ``error``: nothing is lost.
    """
    page = bare(alarm, settings)
    if page is None:
        return None
    page = replace(page, seen_from=matrix, links=_links(settings))
    incident = settings["incidents"].get(page.alarm["name"])
    if incident is None:
        return page
    what_to_do = _what_to_do(incident["runbook"])
    return replace(page, summary=incident["summary"], description=incident["description"], what_to_do=what_to_do)


def bare(alarm: dict[str, Any], settings: dict[str, Any]) -> Page | None:
    """The page in the alarm's own words, or None where nobody has to know; key and severity are its incident's, where that is known."""
    event, name = news(alarm), str(alarm.get("AlarmName") or "unknown")
    if event is None:
        return None
    known = settings["incidents"].get(name)
    incident = known if isinstance(known, dict) else {}
    workload, region, reason = settings["workload"], settings["region"], str(alarm.get("NewStateReason") or "")
    return Page(
        event=event,
        dedup_key=str(incident.get("dedup_key") or f"{workload}/{name}/{region}"),
        severity=str(incident.get("severity") or "error"),
        summary=f"{name}: {reason}"[:200],
        workload=workload,
        region=region,
        subject=str(incident.get("subject") or name),
        diagnosis=str(incident.get("diagnosis") or "unknown"),
        since=str(alarm.get("StateChangeTime") or ""),
        description=str(alarm.get("AlarmDescription") or ""),
        alarm={"name": name, "arn": str(alarm.get("AlarmArn") or ""), "region": region, "reason": reason},
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
    subject = " ".join(f"{head}: {page.summary}".split()).encode("ascii", "replace").decode()[:SUBJECT_LIMIT]
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
    """Each cell of the matrix in this Region's CloudWatch when the alarm changed. Raises where it cannot be read.

    A cell is ``up`` or ``down`` by its newest value; all cells of a vantage that has let its lease run out are ``silent``, however
    recent its last values are.
    """
    workload, vantages = settings["workload"], settings["vantages"]
    cells = [(vantage, target) for vantage in vantages for target in settings["targets"]][: QUERY_LIMIT - len(vantages)]
    queries = [_query(f"c{i}", "Up", {"Workload": workload, "Vantage": v, "Target": t}) for i, (v, t) in enumerate(cells)]
    queries += [_query(f"v{i}", "Alive", {"Workload": workload, "Vantage": vantage}) for i, vantage in enumerate(vantages)]
    end = datetime.fromisoformat(alarm["StateChangeTime"])
    answer = client("cloudwatch").get_metric_data(
        MetricDataQueries=queries, StartTime=end - timedelta(seconds=FRESH_S), EndTime=end, ScanBy="TimestampDescending"
    )
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
    """A client of this Region's ``service``, as patient as `PATIENCE` says."""
    endpoint = config().get("endpoints", {}).get(service)
    return boto3.client(service, region_name=config()["region"], endpoint_url=endpoint, config=PATIENCE[service])


def _warn(message: str, error: Exception) -> None:
    print(json.dumps({"level": "warning", "message": message, "error": f"{type(error).__name__}: {error}"}))
