"""What a trace comes to: the services in it, who called whom, and the summary that GetTraceSummaries answers and filters see."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from lab.aws.services.xray.segments import Segment
from lab.aws.services.xray.store import Trace


@dataclass(frozen=True, slots=True)
class Node:
    """A service, or what was called and tells nothing of itself (``inferred``)."""

    name: str
    type: str
    inferred: bool = False

    @property
    def key(self) -> tuple[str, str]:
        """What makes two nodes the same."""
        return (self.name, self.type)


@dataclass(frozen=True, slots=True)
class Visit:
    """One piece of work by a node, called by another (None: nobody in the trace)."""

    node: Node
    caller: Node | None
    document: dict[str, Any]
    root: bool = False

    @property
    def duration(self) -> float:
        """Seconds."""
        return float(self.document.get("end_time", self.document["start_time"])) - float(self.document["start_time"])

    @property
    def status(self) -> int | None:
        """The HTTP status of the response."""
        status = (self.document.get("http") or {}).get("response", {}).get("status")
        return int(status) if isinstance(status, int | float) else None

    @property
    def fault(self) -> bool:
        """A 5xx, or an exception."""
        return bool(self.document.get("fault"))

    @property
    def error(self) -> bool:
        """A 4xx."""
        return bool(self.document.get("error"))

    @property
    def throttle(self) -> bool:
        """A 429."""
        return bool(self.document.get("throttle"))

    @property
    def ok(self) -> bool:
        """None of the above."""
        return not (self.fault or self.error or self.throttle)


@dataclass(frozen=True, slots=True)
class Summary:
    """A trace as a whole."""

    trace: Trace
    root: Segment
    visits: tuple[Visit, ...]
    annotations: dict[str, list[tuple[Any, str]]] = field(default_factory=dict)
    users: tuple[str, ...] = ()

    @property
    def first(self) -> Visit:
        """The visit of the root segment."""
        return next(visit for visit in self.visits if visit.root)

    @property
    def duration(self) -> float:
        """Seconds from the first start to the last end."""
        return self.trace.end - self.trace.start

    @property
    def partial(self) -> bool:
        """Whether something is still in progress."""
        return any(segment.document.get("in_progress") for segment in self.trace.segments.values())


def node_of(segment: Segment) -> Node:
    """The node a segment tells of."""
    return Node(segment.service, str(segment.document.get("origin") or ""))


def subsegments(document: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """All subsegments inside a document."""
    for inner in document.get("subsegments") or ():
        if isinstance(inner, dict):
            yield inner
            yield from subsegments(inner)


def summarize(trace: Trace) -> Summary:
    """The summary of a trace that has at least one segment."""
    root = trace.root
    owners: dict[str, Node] = {}  # whose work an id is
    calls: dict[str, tuple[Node, dict[str, Any]]] = {}  # outgoing calls by id
    for segment in trace.segments.values():
        node = node_of(segment)
        if segment.is_subsegment:
            node = next(
                (node_of(each) for each in trace.segments.values() if each.service == segment.service and not each.is_subsegment), node
            )
        for part in (segment.document, *subsegments(segment.document)):
            owners[str(part.get("id"))] = node
            if part.get("namespace") in {"remote", "aws"}:
                calls[str(part.get("id"))] = (node, part)
    visits: list[Visit] = []
    answered: set[str] = set()
    for segment in trace.segments.values():
        if segment.is_subsegment and segment.id != root.id:
            continue
        if segment.parent_id in calls:
            answered.add(segment.parent_id or "")
        caller = owners.get(segment.parent_id or "")
        visits.append(Visit(node_of(segment), caller, segment.document, segment.id == root.id))
    for identity, (caller, document) in calls.items():
        if identity not in answered and identity != root.id:
            visits.append(Visit(Node(str(document["name"]), _inferred_type(document), True), caller, document))
    annotations: dict[str, list[tuple[Any, str]]] = {}
    users = []
    for segment in trace.segments.values():
        for part in (segment.document, *subsegments(segment.document)):
            for key, value in (part.get("annotations") or {}).items():
                annotations.setdefault(str(key), []).append((value, segment.service))
            if part.get("user"):
                users.append(str(part["user"]))
    return Summary(trace, root, tuple(visits), annotations, tuple(dict.fromkeys(users)))


def _inferred_type(document: dict[str, Any]) -> str:
    if "sql" in document:
        return "Database::SQL"
    if document.get("namespace") == "aws":
        return f"AWS::{document['name']}"
    return "remote"


def service_id(node: Node, account: str) -> dict[str, Any]:
    """A node as the API's ServiceId."""
    return {"Name": node.name, "Names": [node.name], "AccountId": account, **({"Type": node.type} if node.type else {})}


def as_json(summary: Summary, account: str) -> dict[str, Any]:
    """A TraceSummary of the API."""
    first = summary.first
    request = (first.document.get("http") or {}).get("request", {})
    http = {
        "HttpURL": request.get("url"),
        "HttpStatus": first.status,
        "HttpMethod": request.get("method"),
        "UserAgent": request.get("user_agent"),
        "ClientIp": request.get("client_ip"),
    }
    nodes = list(dict.fromkeys(visit.node for visit in summary.visits))
    return {
        "Id": summary.trace.id,
        "StartTime": summary.trace.start,
        "Duration": round(summary.duration, 3),
        "ResponseTime": round(first.duration, 3),
        "HasFault": first.fault,
        "HasError": first.error,
        "HasThrottle": first.throttle,
        "IsPartial": summary.partial,
        "Http": http,
        "Annotations": {
            key: [
                {"AnnotationValue": _annotation(value), "ServiceIds": [{"Name": service, "Names": [service], "AccountId": account}]}
                for value, service in found
            ]
            for key, found in summary.annotations.items()
        },
        "Users": [{"UserName": user, "ServiceIds": []} for user in summary.users],
        "ServiceIds": [service_id(node, account) for node in nodes],
        "EntryPoint": service_id(first.node, account),
        "FaultRootCauses": [],
        "ErrorRootCauses": [],
        "ResponseTimeRootCauses": [],
        "Revision": len(summary.trace.segments),
        "MatchedEventTime": summary.trace.start,
    }


def _annotation(value: Any) -> dict[str, Any]:
    if isinstance(value, bool):
        return {"BooleanValue": value}
    if isinstance(value, int | float):
        return {"NumberValue": float(value)}
    return {"StringValue": str(value)}
