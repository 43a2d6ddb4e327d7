"""PutLogEvents and PutMetricData as destinations.

What is delivered to another Region than its own carries its origin as the dimension `cloud.region`. The other Region has series of the same
names, on which its own alarms stand: our numbers must not be counted in them.
"""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from crosswatch_exporters.blocks import EMF_LIMITS, METRIC_DATA_LIMITS, Block
from crosswatch_exporters.classic.packers import split_lines
from crosswatch_exporters.endpoints import Route
from crosswatch_exporters.settings import MAX_DIMENSIONS
from crosswatch_exporters.transport import Reply
from crosswatch_exporters.verdicts import Action, Verdict, json_object, judge

ACCOUNT = "classic_metrics"
_ORIGIN = "cloud.region"
_JSON_1_1 = {"content-type": "application/x-amz-json-1.1"}
_JSON_1_0 = {"content-type": "application/x-amz-json-1.0"}


class LogEvents:
    """PutLogEvents into one stream. The log group and stream are made when the service says that they are missing."""

    name = ACCOUNT
    limits = EMF_LIMITS

    def __init__(self, group: str, stream: str, region: str = "") -> None:
        self._region = region
        self._group = group
        self._stream = stream
        self._head = f'{{"logGroupName":{json.dumps(group)},"logStreamName":{json.dumps(stream)},"logEvents":['.encode()

    def request(self, blocks: Sequence[Block], route: Route, away: bool) -> tuple[bytes, Mapping[str, str]]:
        """The blocks' events in order of time, as the API demands; away from home each says where it comes from."""
        # Lines begin with {"timestamp": and 13 digits, so their order as bytes is that of time.
        lines = sorted((line for block in blocks for line in block.payload.splitlines()), key=lambda line: line[:27])
        if away and self._region:
            lines = [_event_from(self._region, line) for line in lines]
        return self._head + b",".join(lines) + b"]}", {
            **_JSON_1_1,
            "x-amz-target": "Logs_20140328.PutLogEvents",
            "x-amzn-logs-format": "json/emf",
        }

    def judge(self, reply: Reply, items: int, now: float) -> Verdict:
        """By status, and by rejectedLogEventsInfo where the status is 200."""
        verdict = judge(reply, now)
        if b"ResourceNotFoundException" in reply.body and verdict.action is not Action.DELIVERED:
            return Verdict(Action.RETRY, reason=verdict.reason)
        if verdict.action is not Action.DELIVERED or b"rejectedLogEventsInfo" not in reply.body:
            return verdict
        rejected = _rejected(json_object(reply.body).get("rejectedLogEventsInfo"), items)
        return Verdict(Action.DELIVERED, rejected=rejected, reason="events too old, too new, or past the group's retention")

    def split(self, block: Block) -> list[Block]:
        """Halves, by events."""
        return split_lines(block)

    def mend(self, reply: Reply) -> list[tuple[bytes, Mapping[str, str]]]:
        """Requests that may make the next attempt succeed: create what does not exist."""
        if b"ResourceNotFoundException" not in reply.body:
            return []
        group = json.dumps({"logGroupName": self._group}).encode()
        stream = json.dumps({"logGroupName": self._group, "logStreamName": self._stream}).encode()
        return [
            (group, {**_JSON_1_1, "x-amz-target": "Logs_20140328.CreateLogGroup"}),
            (stream, {**_JSON_1_1, "x-amz-target": "Logs_20140328.CreateLogStream"}),
        ]


def _rejected(info: Any, items: int) -> int:
    """How many events a rejectedLogEventsInfo stands for: those before the later of two ends (exclusive), and those from a start on."""
    ends = {name: at for name, at in info.items() if isinstance(at, int)} if isinstance(info, dict) else {}
    old = max(ends.get("tooOldLogEventEndIndex", 0), ends.get("expiredLogEventEndIndex", 0))
    new = items - ends.get("tooNewLogEventStartIndex", items)
    return max(0, min(items, old + new))


def _event_from(region: str, line: bytes) -> bytes:
    """An EMF event with its Region of origin as a member, and as one more dimension of every set that has room for it."""
    event = json.loads(line)
    document = json.loads(event["message"])
    document[_ORIGIN] = region
    for directive in document["_aws"]["CloudWatchMetrics"]:
        sets = ((names if _ORIGIN in names else [*names, _ORIGIN]) for names in directive["Dimensions"])
        directive["Dimensions"] = [names for names in sets if len(names) <= MAX_DIMENSIONS]
    message = json.dumps(document, separators=(",", ":"))
    return f'{{"timestamp":{event["timestamp"]},"message":{json.dumps(message)}}}'.encode()


def _datum_from(region: str, line: bytes) -> bytes:
    """A datum with its Region of origin as one more dimension."""
    datum = json.loads(line)
    if all(dimension["Name"] != _ORIGIN for dimension in datum["Dimensions"]):
        datum["Dimensions"].append({"Name": _ORIGIN, "Value": region})
    return json.dumps(datum, separators=(",", ":")).encode()


class MetricData:
    """PutMetricData into one namespace, by the service's JSON protocol."""

    name = ACCOUNT
    limits = METRIC_DATA_LIMITS

    def __init__(self, namespace: str, region: str = "") -> None:
        self._region = region
        self._head = f'{{"Namespace":{json.dumps(namespace)},"MetricData":['.encode()

    def request(self, blocks: Sequence[Block], route: Route, away: bool) -> tuple[bytes, Mapping[str, str]]:
        """The blocks' datums; away from home each says where it comes from."""
        lines = [line for block in blocks for line in block.payload.splitlines()]
        if away and self._region:
            lines = [_datum_from(self._region, line) for line in lines]
        return self._head + b",".join(lines) + b"]}", {**_JSON_1_0, "x-amz-target": "GraniteServiceVersion20100801.PutMetricData"}

    def judge(self, reply: Reply, items: int, now: float) -> Verdict:
        """By status: the API takes a request whole or not at all."""
        return judge(reply, now)

    def split(self, block: Block) -> list[Block]:
        """Halves, by datums."""
        return split_lines(block)

    def mend(self, reply: Reply) -> list[tuple[bytes, Mapping[str, str]]]:
        """Nothing can be missing."""
        return []
