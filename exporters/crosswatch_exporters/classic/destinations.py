"""PutLogEvents and PutMetricData as destinations."""

import json
from collections.abc import Mapping, Sequence

from crosswatch_exporters.blocks import EMF_LIMITS, METRIC_DATA_LIMITS, Block
from crosswatch_exporters.classic.packers import split_lines
from crosswatch_exporters.endpoints import Route
from crosswatch_exporters.transport import Reply
from crosswatch_exporters.verdicts import Action, Verdict, judge

ACCOUNT = "classic_metrics"
_JSON_1_1 = {"content-type": "application/x-amz-json-1.1"}
_JSON_1_0 = {"content-type": "application/x-amz-json-1.0"}


class LogEvents:
    """PutLogEvents into one stream. The log group and stream are made when the service says that they are missing."""

    name = ACCOUNT
    limits = EMF_LIMITS

    def __init__(self, group: str, stream: str) -> None:
        self._group = group
        self._stream = stream
        self._head = f'{{"logGroupName":{json.dumps(group)},"logStreamName":{json.dumps(stream)},"logEvents":['.encode()

    def request(self, blocks: Sequence[Block], route: Route, away: bool) -> tuple[bytes, Mapping[str, str]]:
        """The blocks' events in order of time, as the API demands."""
        # Lines begin with {"timestamp": and 13 digits, so their order as bytes is that of time.
        lines = sorted((line for block in blocks for line in block.payload.splitlines()), key=lambda line: line[:27])
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
        rejected = _rejected(json.loads(reply.body)["rejectedLogEventsInfo"], items)
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


def _rejected(info: Mapping[str, int], items: int) -> int:
    """How many events a rejectedLogEventsInfo stands for: those before the later of two ends (exclusive), and those from a start on."""
    old = max(info.get("tooOldLogEventEndIndex", 0), info.get("expiredLogEventEndIndex", 0))
    new = items - info["tooNewLogEventStartIndex"] if "tooNewLogEventStartIndex" in info else 0
    return max(0, min(items, old + new))


class MetricData:
    """PutMetricData into one namespace, by the service's JSON protocol."""

    name = ACCOUNT
    limits = METRIC_DATA_LIMITS

    def __init__(self, namespace: str) -> None:
        self._head = f'{{"Namespace":{json.dumps(namespace)},"MetricData":['.encode()

    def request(self, blocks: Sequence[Block], route: Route, away: bool) -> tuple[bytes, Mapping[str, str]]:
        """The blocks' datums."""
        lines = [line for block in blocks for line in block.payload.splitlines()]
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
