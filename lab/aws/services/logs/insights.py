"""Logs Insights: StartQuery runs at once, GetQueryResults answers. The language is in `query_language`."""

from __future__ import annotations

import contextlib
import datetime as dt
import json
import threading
import uuid
from collections import OrderedDict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from lab.aws.service import AwsError
from lab.aws.services.logs import query_language
from lab.aws.services.logs.query_expressions import Moment, QueryError, Row
from lab.aws.times import lab_interval

if TYPE_CHECKING:
    from lab.aws.service import Context
    from lab.aws.services.logs.operations import Logs
    from lab.aws.services.logs.store import LogEvent, LogGroup
    from lab.aws.world import LocalWorld

KEPT_QUERIES = 500
DEFAULT_LIMIT = 1000
MAX_LIMIT = 10_000
MAX_GROUPS = 50


@dataclass(slots=True)
class Query:
    """A query and its results."""

    id: str
    text: str
    group: str
    created_ms: int
    results: list[list[dict[str, str]]] = field(default_factory=list)
    statistics: dict[str, float] = field(default_factory=dict)


class Queries:
    """The query operations."""

    def __init__(self, world: LocalWorld, logs: Logs) -> None:
        self._world = world
        self._logs = logs
        self._queries: OrderedDict[tuple[str, str], Query] = OrderedDict()
        self._definitions: dict[tuple[str, str], dict[str, Any]] = {}
        self._lock = threading.Lock()

    def start_query(self, ctx: Context, params: dict[str, Any]) -> dict[str, Any]:
        """StartQuery. The query is complete when its id is answered."""
        if params.get("queryLanguage", "CWLI") != "CWLI":
            raise AwsError("InvalidParameterException", "The local AWS runs queries in Logs Insights QL (CWLI) only.")
        given = [params[key] for key in ("logGroupName", "logGroupNames", "logGroupIdentifiers") if key in params]
        if len(given) != 1:
            raise AwsError("InvalidParameterException", "Exactly one of logGroupName, logGroupNames and logGroupIdentifiers must be given.")
        names = [given[0]] if isinstance(given[0], str) else given[0]
        if len(names) > MAX_GROUPS:
            raise AwsError("InvalidParameterException", f"At most {MAX_GROUPS} log groups can be queried.")
        groups = [self._logs.group(ctx.region, name) for name in names]
        try:
            stages = query_language.parse(params["queryString"])
        except QueryError as error:
            raise AwsError("MalformedQueryException", str(error)) from error
        start, end = self._interval(params)
        rows = [
            _row(ctx, group, event) for group in groups for event in group.events(group.streams.values(), start * 1000, end * 1000 + 1000)
        ]
        limit = min(params.get("limit", DEFAULT_LIMIT), MAX_LIMIT)
        try:
            outcome = query_language.run(stages, rows, limit)
        except QueryError as error:
            raise AwsError("MalformedQueryException", str(error)) from error
        query = Query(str(uuid.uuid4()), params["queryString"], groups[0].name, round(ctx.now * 1000))
        query.results = [
            [{"field": name, "value": text(value)} for name, value in row.items() if value is not None] for row in outcome.rows
        ]
        query.statistics = {
            "recordsMatched": float(outcome.matched),
            "recordsScanned": float(len(rows)),
            "bytesScanned": float(sum(len(row["@message"]) for row in rows)),
            "logGroupsScanned": float(len(groups)),
        }
        with self._lock:
            self._queries[ctx.region, query.id] = query
            while len(self._queries) > KEPT_QUERIES:
                self._queries.popitem(last=False)
        return {"queryId": query.id}

    def get_query_results(self, ctx: Context, params: dict[str, Any]) -> dict[str, Any]:
        """GetQueryResults."""
        query = self._find(ctx, params["queryId"])
        return {"queryLanguage": "CWLI", "results": query.results, "statistics": query.statistics, "status": "Complete"}

    def stop_query(self, ctx: Context, params: dict[str, Any]) -> dict[str, Any]:
        """StopQuery: queries are over before they can be stopped."""
        self._find(ctx, params["queryId"])
        raise AwsError("InvalidParameterException", "Query is not in Scheduled or Running state.")

    def describe_queries(self, ctx: Context, params: dict[str, Any]) -> dict[str, Any]:
        """DescribeQueries, newest first."""
        found = [
            {"queryId": q.id, "queryString": q.text, "status": "Complete", "createTime": q.created_ms, "logGroupName": q.group}
            for (region, _), q in reversed(self._queries.items())
            if region == ctx.region and params.get("logGroupName") in {None, q.group} and params.get("status") in {None, "Complete"}
        ]
        return {"queries": found[: params.get("maxResults", 1000)]}

    def _find(self, ctx: Context, identity: str) -> Query:
        query = self._queries.get((ctx.region, identity))
        if query is None:
            raise AwsError("ResourceNotFoundException", "Query does not exist")
        return query

    def _interval(self, params: dict[str, Any]) -> tuple[int, int]:
        """startTime and endTime in lab seconds; both may be milliseconds."""
        start, end = (value / 1000 if value > 10**11 else float(value) for value in (params["startTime"], params["endTime"]))
        if start > end:
            raise AwsError("InvalidParameterException", "Query's start time must not be after its end time.")
        low, high = lab_interval(self._world.clock, start, end)
        return int(low), int(high)

    # -- saved queries ---------------------------------------------------------------------------------------------------------------------

    def put_query_definition(self, ctx: Context, params: dict[str, Any]) -> dict[str, Any]:
        """PutQueryDefinition."""
        try:
            query_language.parse(params["queryString"])
        except QueryError as error:
            raise AwsError("InvalidParameterException", str(error)) from error
        identity = params.get("queryDefinitionId") or str(uuid.uuid4())
        if "queryDefinitionId" in params and (ctx.region, identity) not in self._definitions:
            raise AwsError("ResourceNotFoundException", "The specified query definition does not exist.")
        kept = {key: params[key] for key in ("name", "queryString", "logGroupNames") if key in params}
        self._definitions[ctx.region, identity] = kept | {"queryDefinitionId": identity, "lastModified": round(ctx.now * 1000)}
        return {"queryDefinitionId": identity}

    def describe_query_definitions(self, ctx: Context, params: dict[str, Any]) -> dict[str, Any]:
        """DescribeQueryDefinitions."""
        prefix = params.get("queryDefinitionNamePrefix", "")
        found = [each for (region, _), each in self._definitions.items() if region == ctx.region and each["name"].startswith(prefix)]
        return {"queryDefinitions": sorted(found, key=lambda each: str(each["name"]))}

    def delete_query_definition(self, ctx: Context, params: dict[str, Any]) -> dict[str, Any]:
        """DeleteQueryDefinition."""
        if self._definitions.pop((ctx.region, params["queryDefinitionId"]), None) is None:
            raise AwsError("ResourceNotFoundException", "The specified query definition does not exist.")
        return {"success": True}


def _row(ctx: Context, group: LogGroup, event: LogEvent) -> Row:
    """An event's fields: the system's, and those of a JSON message under dotted names."""
    row: Row = {
        "@timestamp": Moment(event.timestamp / 1000),
        "@message": event.message,
        "@logStream": event.stream,
        "@log": f"{ctx.account}:{group.name}",
        "@ingestionTime": Moment(event.ingested / 1000),
        "@ptr": event.id,
    }
    if event.message.lstrip().startswith("{"):
        with contextlib.suppress(ValueError):  # not JSON after all: only the system's fields
            _flatten(json.loads(event.message), "", row)
    return row


def _flatten(value: Any, name: str, row: Row) -> None:
    if isinstance(value, dict):
        for key, item in value.items():
            _flatten(item, f"{name}.{key}" if name else str(key), row)
    elif isinstance(value, list):
        for index, item in enumerate(value):
            _flatten(item, f"{name}.{index}", row)
    elif value is not None:
        row[name] = "true" if value is True else "false" if value is False else value


def text(value: Any) -> str:
    """A value as results show it."""
    if isinstance(value, Moment):
        moment = dt.datetime.fromtimestamp(round(float(value), 3), dt.UTC)
        return f"{moment:%Y-%m-%d %H:%M:%S}.{moment.microsecond // 1000:03d}"
    if isinstance(value, bool):
        return "1" if value else "0"
    if isinstance(value, float):
        return str(int(value)) if value == int(value) and abs(value) < 1e15 else f"{value:.4f}".rstrip("0")
    return str(value)
