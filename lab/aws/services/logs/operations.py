"""The operations on log groups, streams, events and metric filters.

https://docs.aws.amazon.com/AmazonCloudWatchLogs/latest/APIReference/API_PutLogEvents.html
"""

from __future__ import annotations

import itertools
import math
import re
import threading
from collections import defaultdict
from typing import TYPE_CHECKING, Any

from lab.aws.service import AwsError
from lab.aws.services.logs.metrics import EmfError, Point, embedded, filtered
from lab.aws.services.logs.patterns import compile_pattern
from lab.aws.services.logs.store import EVENT_OVERHEAD_BYTES, LogEvent, LogGroup, LogStream, MetricFilter
from lab.aws.times import lab_interval

if TYPE_CHECKING:
    from collections.abc import Iterable

    from lab.aws.service import Context
    from lab.aws.world import LocalWorld

MAX_BATCH_BYTES = 1_048_576
MAX_EVENT_BYTES = 1_048_576
MAX_SPAN_MS = 24 * 3_600_000
OLDEST_MS = 14 * 86_400_000
NEWEST_MS = 2 * 3_600_000
MAX_PAGE = 10_000
MAX_PAGE_BYTES = 1_048_576
MAX_FILTERS = 100
RETENTIONS = (1, 3, 5, 7, 14, 30, 60, 90, 120, 150, 180, 365, 400, 545, 731, 1096, 1827, 2192, 2557, 2922, 3288, 3653)
EXPIRE_EVERY_S = 3600.0
_ARN = re.compile(r"arn:aws:logs:(?P<region>[^:]+):(?P<account>\d+):log-group:(?P<name>[^:]+)(?::\*)?")


class Logs:
    """Groups by Region and name."""

    def __init__(self, world: LocalWorld) -> None:
        self._world = world
        self._groups: dict[str, dict[str, LogGroup]] = defaultdict(dict)
        self._lock = threading.RLock()
        for region in world.regions:
            world.every(EXPIRE_EVERY_S, lambda now, region=region: self._expire(region, now), region, f"log-retention-{region}")  # type: ignore[misc]

    def _expire(self, region: str, now: float) -> None:
        with self._lock:
            for group in self._groups[region].values():
                group.expire(round(now * 1000))

    # -- groups ----------------------------------------------------------------------------------------------------------------------------

    def create_log_group(self, ctx: Context, params: dict[str, Any]) -> None:
        """CreateLogGroup."""
        name = params["logGroupName"]
        with self._lock:
            if name in self._groups[ctx.region]:
                raise AwsError("ResourceAlreadyExistsException", "The specified log group already exists")
            tags = dict(params.get("tags") or {})
            self._groups[ctx.region][name] = LogGroup(name, round(ctx.now * 1000), params.get("logGroupClass", "STANDARD"), tags=tags)

    def delete_log_group(self, ctx: Context, params: dict[str, Any]) -> None:
        """DeleteLogGroup."""
        with self._lock:
            self.group(ctx.region, params["logGroupName"])
            del self._groups[ctx.region][params["logGroupName"]]

    def describe_log_groups(self, ctx: Context, params: dict[str, Any]) -> dict[str, Any]:
        """DescribeLogGroups by name prefix or pattern (any part, in any case)."""
        prefix, pattern = params.get("logGroupNamePrefix", ""), params.get("logGroupNamePattern", "").lower()
        if prefix and pattern:
            raise AwsError("InvalidParameterException", "LogGroup name prefix and LogGroup name pattern are mutually exclusive parameters.")
        found = [
            self._group_json(ctx, group)
            for name, group in sorted(self._groups[ctx.region].items())
            if name.startswith(prefix) and pattern in name.lower()
        ]
        page, token = _page(found, params.get("nextToken"), params.get("limit", 50))
        return {"logGroups": page, "nextToken": token}

    def _group_json(self, ctx: Context, group: LogGroup) -> dict[str, Any]:
        arn = f"arn:aws:logs:{ctx.region}:{ctx.account}:log-group:{group.name}"
        return {
            "logGroupName": group.name,
            "creationTime": group.created,
            "retentionInDays": group.retention_days,
            "metricFilterCount": len(group.filters),
            "arn": f"{arn}:*",
            "logGroupArn": arn,
            "storedBytes": group.stored,
            "logGroupClass": group.log_class,
        }

    def put_retention_policy(self, ctx: Context, params: dict[str, Any]) -> None:
        """PutRetentionPolicy: one of the documented numbers of days."""
        days = params["retentionInDays"]
        if days not in RETENTIONS:
            rule = f"Member must satisfy enum value set: {list(RETENTIONS)}"
            raise AwsError(
                "InvalidParameterException",
                f"1 validation error detected: Value '{days}' at 'retentionInDays' failed to satisfy constraint: {rule}",
            )
        self.group(ctx.region, params["logGroupName"]).retention_days = params["retentionInDays"]

    def delete_retention_policy(self, ctx: Context, params: dict[str, Any]) -> None:
        """DeleteRetentionPolicy."""
        self.group(ctx.region, params["logGroupName"]).retention_days = None

    def list_tags_for_resource(self, ctx: Context, params: dict[str, Any]) -> dict[str, Any]:
        """ListTagsForResource of a log group."""
        return {"tags": dict(self.group(ctx.region, params["resourceArn"]).tags)}

    def tag_resource(self, ctx: Context, params: dict[str, Any]) -> None:
        """TagResource of a log group."""
        self.group(ctx.region, params["resourceArn"]).tags.update(params["tags"])

    def untag_resource(self, ctx: Context, params: dict[str, Any]) -> None:
        """UntagResource of a log group."""
        tags = self.group(ctx.region, params["resourceArn"]).tags
        for key in params["tagKeys"]:
            tags.pop(key, None)

    def group(self, region: str, identifier: str) -> LogGroup:
        """The group with this name or ARN. Raises AwsError (ResourceNotFoundException)."""
        match = _ARN.fullmatch(identifier)
        found = self._groups[region].get(match["name"] if match else identifier)
        if found is None or (match and match["region"] != region):
            raise AwsError("ResourceNotFoundException", "The specified log group does not exist.")
        return found

    def _named(self, region: str, params: dict[str, Any]) -> LogGroup:
        name, identifier = params.get("logGroupName"), params.get("logGroupIdentifier")
        if (name is None) == (identifier is None):
            raise AwsError("InvalidParameterException", "Exactly one of logGroupName and logGroupIdentifier must be given.")
        return self.group(region, name or identifier or "")

    # -- streams ---------------------------------------------------------------------------------------------------------------------------

    def create_log_stream(self, ctx: Context, params: dict[str, Any]) -> None:
        """CreateLogStream."""
        with self._lock:
            group = self.group(ctx.region, params["logGroupName"])
            name = params["logStreamName"]
            if name in group.streams:
                raise AwsError("ResourceAlreadyExistsException", "The specified log stream already exists")
            group.streams[name] = LogStream(name, round(ctx.now * 1000))

    def delete_log_stream(self, ctx: Context, params: dict[str, Any]) -> None:
        """DeleteLogStream."""
        with self._lock:
            group = self.group(ctx.region, params["logGroupName"])
            stream = self.stream(group, params["logStreamName"])
            group.stored -= stream.stored
            del group.streams[stream.name]

    def describe_log_streams(self, ctx: Context, params: dict[str, Any]) -> dict[str, Any]:
        """DescribeLogStreams, by name or by the time of the last event."""
        group = self._named(ctx.region, params)
        by_time, prefix = params.get("orderBy") == "LastEventTime", params.get("logStreamNamePrefix", "")
        if by_time and prefix:
            raise AwsError("InvalidParameterException", "Cannot order by LastEventTime with a logStreamNamePrefix.")
        streams = [stream for stream in group.streams.values() if stream.name.startswith(prefix)]
        streams.sort(
            key=lambda each: ((each.events[-1].timestamp if each.events else 0) if by_time else 0, each.name),
            reverse=bool(params.get("descending")),
        )
        page, token = _page(streams, params.get("nextToken"), params.get("limit", 50))
        base = f"arn:aws:logs:{ctx.region}:{ctx.account}:log-group:{group.name}:log-stream:"
        return {"logStreams": [_stream_json(stream, base) for stream in page], "nextToken": token}

    def stream(self, group: LogGroup, name: str) -> LogStream:
        """The stream of that name. Raises AwsError (ResourceNotFoundException)."""
        found = group.streams.get(name)
        if found is None:
            raise AwsError("ResourceNotFoundException", "The specified log stream does not exist.")
        return found

    # -- events ----------------------------------------------------------------------------------------------------------------------------

    def put_log_events(self, ctx: Context, params: dict[str, Any]) -> dict[str, Any]:
        """PutLogEvents: whole-call refusals, and the indexes of events that are too new, too old or expired."""
        group = self.group(ctx.region, params["logGroupName"])
        stream = self.stream(group, params["logStreamName"])
        events = params["logEvents"]
        if not events:
            raise AwsError("InvalidParameterException", "Log events must not be empty.")
        to_lab = self._world.clock.to_lab
        rows = [(round(to_lab(event["timestamp"] / 1000) * 1000), event["message"]) for event in events]
        check_batch(rows)
        now_ms = round(ctx.now * 1000)
        accepted, rejected = _by_age(rows, now_ms, group.retention_days)
        self.ingest(ctx.region, group, stream, accepted, now_ms)
        return {"nextSequenceToken": f"{now_ms:056d}", "rejectedLogEventsInfo": rejected or None}

    def ingest(self, region: str, group: LogGroup, stream: LogStream, rows: Iterable[tuple[int, str]], now_ms: int) -> None:
        """Store rows that were checked, and publish the metrics in them."""
        with self._lock:
            events = group.add(stream, rows, now_ms)
            filters = list(group.filters.values())
        size = sum(event.size for event in events)
        vend = self._world.vend
        for namespace_metric, value, unit in (("IncomingLogEvents", float(len(events)), "None"), ("IncomingBytes", float(size), "Bytes")):
            if events:
                vend(region, "AWS/Logs", namespace_metric, {"LogGroupName": group.name}, value, unit)
        self._extract(region, group.name, events, filters, now_ms / 1000)

    def _extract(self, region: str, group: str, events: list[LogEvent], filters: list[MetricFilter], now: float) -> None:
        points: list[Point] = []
        for event in events:
            try:
                points += embedded(event.message, self._world.clock.to_lab)
            except EmfError as error:
                self._world.vend(region, "AWS/Logs", error.metric, {"LogGroupName": group}, 1.0, "Count")
        for metric_filter in filters:
            points += filtered(metric_filter, events)
        cloudwatch = self._world.find("cloudwatch")
        if cloudwatch is not None:
            cloudwatch.metrics.put_points(region, points, now)

    def get_log_events(self, ctx: Context, params: dict[str, Any]) -> dict[str, Any]:
        """GetLogEvents: a page forwards or backwards in one stream; the token repeats at the end."""
        group = self._named(ctx.region, params)
        stream = self.stream(group, params["logStreamName"])
        start, end = self._interval(params)
        events = stream.between(start, end)
        limit = params.get("limit", MAX_PAGE)
        token = params.get("nextToken")
        forward = bool(params.get("startFromHead"))
        if token is not None:
            forward, key = _read_token(token)
            events = [event for event in events if (event.key > key if forward else event.key < key)]
        page = events[:limit] if forward else events[-limit:]
        first = page[0].key if page else _read_token(token)[1] if token else (0, 0)
        last = page[-1].key if page else _read_token(token)[1] if token else (0, 0)
        return {
            "events": [{"timestamp": event.timestamp, "message": event.message, "ingestionTime": event.ingested} for event in page],
            "nextForwardToken": f"f/{last[0]}/{last[1]}",
            "nextBackwardToken": f"b/{first[0]}/{first[1]}",
        }

    def filter_log_events(self, ctx: Context, params: dict[str, Any]) -> dict[str, Any]:
        """FilterLogEvents over the streams of a group, oldest first, at most 10,000 events or 1 MB a page."""
        group = self._named(ctx.region, params)
        names, prefix = params.get("logStreamNames"), params.get("logStreamNamePrefix")
        if names and prefix:
            raise AwsError("InvalidParameterException", "logStreamNames and logStreamNamePrefix are mutually exclusive.")
        streams = (
            [self.stream(group, name) for name in names]
            if names
            else [s for s in group.streams.values() if s.name.startswith(prefix or "")]
        )
        match = compile_pattern(params.get("filterPattern", ""))
        start, end = self._interval(params)
        after = _read_token(params["nextToken"])[1] if "nextToken" in params else (-1, 0)
        limit, size = params.get("limit", MAX_PAGE), 0
        found: list[LogEvent] = []
        more = False
        for event in group.events(streams, start, end):
            if event.key <= after or match(event.message) is None:
                continue
            size += event.size
            if len(found) == limit or size > MAX_PAGE_BYTES:
                more = True
                break
            found.append(event)
        return {
            "events": [
                {"logStreamName": e.stream, "timestamp": e.timestamp, "message": e.message, "ingestionTime": e.ingested, "eventId": e.id}
                for e in found
            ],
            "searchedLogStreams": [],
            "nextToken": f"f/{found[-1].timestamp}/{found[-1].sequence}" if more and found else None,
        }

    def _interval(self, params: dict[str, Any]) -> tuple[int | None, int | None]:
        """startTime and endTime in lab milliseconds. Where an end is given, it tells which clock the caller reads."""
        clock = self._world.clock
        start, end = params.get("startTime"), params.get("endTime")
        if start is not None and end is not None:
            low, high = lab_interval(clock, start / 1000, end / 1000)
            return round(low * 1000), round(high * 1000)
        if end is not None:
            return None, round(clock.to_lab(end / 1000) * 1000)
        return (None if start is None else round(clock.to_lab(start / 1000) * 1000)), None

    # -- metric filters --------------------------------------------------------------------------------------------------------------------

    def put_metric_filter(self, ctx: Context, params: dict[str, Any]) -> None:
        """PutMetricFilter."""
        compile_pattern(params["filterPattern"])
        transformation = params["metricTransformations"][0]
        if transformation.get("dimensions") and transformation.get("defaultValue") is not None:
            raise AwsError(
                "InvalidParameterException",
                "Invalid metric transformation: dimensions and default value are mutually exclusive properties.",
            )
        if len(transformation.get("dimensions") or {}) > 3:
            raise AwsError("InvalidParameterException", "Invalid metric transformation: at most 3 dimensions are allowed.")
        if transformation["metricNamespace"].startswith("AWS/"):
            raise AwsError("InvalidParameterException", "Invalid metric transformation: the namespace must not start with AWS/.")
        with self._lock:
            group = self.group(ctx.region, params["logGroupName"])
            if params["filterName"] not in group.filters and len(group.filters) >= MAX_FILTERS:
                raise AwsError("LimitExceededException", "Resource limit exceeded.")
            group.filters[params["filterName"]] = MetricFilter(
                params["filterName"], params["filterPattern"], dict(transformation), round(ctx.now * 1000)
            )

    def describe_metric_filters(self, ctx: Context, params: dict[str, Any]) -> dict[str, Any]:
        """DescribeMetricFilters of a group, or of all that publish a metric."""
        groups = [self.group(ctx.region, params["logGroupName"])] if "logGroupName" in params else list(self._groups[ctx.region].values())
        found = [
            {
                "filterName": each.name,
                "filterPattern": each.pattern,
                "metricTransformations": [each.transformation],
                "creationTime": each.created,
                "logGroupName": group.name,
            }
            for group in groups
            for each in group.filters.values()
            if each.name.startswith(params.get("filterNamePrefix", ""))
            and params.get("metricName") in {None, each.transformation["metricName"]}
            and params.get("metricNamespace") in {None, each.transformation["metricNamespace"]}
        ]
        page, token = _page(found, params.get("nextToken"), params.get("limit", 50))
        return {"metricFilters": page, "nextToken": token}

    def delete_metric_filter(self, ctx: Context, params: dict[str, Any]) -> None:
        """DeleteMetricFilter."""
        with self._lock:
            if self.group(ctx.region, params["logGroupName"]).filters.pop(params["filterName"], None) is None:
                raise AwsError("ResourceNotFoundException", "The specified metric filter does not exist.")

    def test_metric_filter(self, ctx: Context, params: dict[str, Any]) -> dict[str, Any]:
        """TestMetricFilter."""
        del ctx
        match = compile_pattern(params["filterPattern"])
        matches = []
        for number, message in enumerate(params["logEventMessages"], 1):
            found = match(message)
            if found is not None:
                values = {key: value if isinstance(value, str) else str(value) for key, value in found.items()}
                matches.append({"eventNumber": number, "eventMessage": message, "extractedValues": values})
        return {"matches": matches}


def check_batch(rows: list[tuple[int, str]]) -> None:
    """What refuses a whole PutLogEvents call: order, span and sizes."""
    size = 0
    for _, message in rows:
        event_size = len(message.encode("utf-8", "surrogatepass")) + EVENT_OVERHEAD_BYTES
        if event_size > MAX_EVENT_BYTES + EVENT_OVERHEAD_BYTES:
            raise AwsError("InvalidParameterException", f"Log event too large: {event_size} bytes exceeds limit of {MAX_EVENT_BYTES}")
        size += event_size
    if size > MAX_BATCH_BYTES:
        raise AwsError("InvalidParameterException", f"Upload too large: {size} bytes exceeds limit of {MAX_BATCH_BYTES}")
    if any(later[0] < earlier[0] for earlier, later in itertools.pairwise(rows)):
        raise AwsError("InvalidParameterException", "Log events in a single PutLogEvents request must be in chronological order.")
    if rows[-1][0] - rows[0][0] > MAX_SPAN_MS:
        raise AwsError(
            "InvalidParameterException", "The batch of log events in a single PutLogEvents request cannot span more than 24 hours."
        )


def _by_age(rows: list[tuple[int, str]], now_ms: int, retention_days: int | None) -> tuple[list[tuple[int, str]], dict[str, int]]:
    """The rows that are young and old enough, and where the others begin and end."""
    expired_before = now_ms - retention_days * 86_400_000 if retention_days is not None else -math.inf
    old = sum(timestamp < now_ms - OLDEST_MS for timestamp, _ in rows)
    expired = sum(timestamp < expired_before for timestamp, _ in rows)
    new = sum(timestamp > now_ms + NEWEST_MS for timestamp, _ in rows)
    info = {}
    if new:
        info["tooNewLogEventStartIndex"] = len(rows) - new
    if old:
        info["tooOldLogEventEndIndex"] = old
    if expired:
        info["expiredLogEventEndIndex"] = expired
    return rows[max(old, expired) : len(rows) - new], info


def _stream_json(stream: LogStream, base: str) -> dict[str, Any]:
    events = stream.events
    return {
        "logStreamName": stream.name,
        "creationTime": stream.created,
        "firstEventTimestamp": events[0].timestamp if events else None,
        "lastEventTimestamp": events[-1].timestamp if events else None,
        "lastIngestionTime": stream.last_ingested,
        "uploadSequenceToken": f"{stream.last_ingested or 0:056d}",
        "arn": base + stream.name,
        "storedBytes": 0,  # AWS answers 0 for every stream since June 2019
    }


def _page(items: list[Any], token: str | None, limit: int) -> tuple[list[Any], str | None]:
    if token is not None and not token.isdigit():
        raise AwsError("InvalidParameterException", "The specified nextToken is invalid.")
    start = int(token or 0)
    return items[start : start + limit], str(start + limit) if start + limit < len(items) else None


def _read_token(token: str) -> tuple[bool, tuple[int, int]]:
    match = re.fullmatch(r"(f|b)/(\d+)/(\d+)", token)
    if match is None:
        raise AwsError("InvalidParameterException", "The specified nextToken is invalid.")
    return match[1] == "f", (int(match[2]), int(match[3]))
