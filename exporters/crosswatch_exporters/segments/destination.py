"""PutTraceSegments as a destination of the traces' queue."""

import json
from collections.abc import Mapping, Sequence
from urllib.parse import urlsplit, urlunsplit

from crosswatch_exporters.blocks import SEGMENT_LIMITS, Block
from crosswatch_exporters.encoding.decode import spans
from crosswatch_exporters.encoding.rewrite import split_request
from crosswatch_exporters.endpoints import Route
from crosswatch_exporters.segments.translate import document
from crosswatch_exporters.transport import Reply
from crosswatch_exporters.verdicts import Action, Verdict, json_object, judge

_JSON = {"content-type": "application/json"}


class TraceSegments:
    """https://docs.aws.amazon.com/xray/latest/api/API_PutTraceSegments.html, 50 documents a request."""

    name = "traces"
    limits = SEGMENT_LIMITS

    def request(self, blocks: Sequence[Block], route: Route, away: bool) -> tuple[bytes, Mapping[str, str]]:
        """The spans translated; each document is a string in the request, as the API has it."""
        region = route.region if away else ""
        documents = [document(span, region) for block in blocks for span in spans(block.payload)]
        return json.dumps({"TraceSegmentDocuments": documents}, separators=(",", ":")).encode(), _JSON

    def judge(self, reply: Reply, items: int, now: float) -> Verdict:
        """By status, and by UnprocessedTraceSegments where the status is 200."""
        verdict = judge(reply, now)
        if verdict.action is not Action.DELIVERED or b"UnprocessedTraceSegments" not in reply.body:
            return verdict
        unprocessed = json_object(reply.body).get("UnprocessedTraceSegments")
        if not isinstance(unprocessed, list) or not unprocessed:
            return verdict
        reasons = {str(entry.get("Message") or entry.get("ErrorCode")) for entry in unprocessed if isinstance(entry, dict)}
        return Verdict(Action.DELIVERED, rejected=len(unprocessed), reason="; ".join(sorted(reasons))[:300])

    def split(self, block: Block) -> list[Block]:
        """Halves, by spans."""
        return split_request(block, "traces")

    def mend(self, reply: Reply) -> list[tuple[bytes, Mapping[str, str]]]:
        """Nothing can be missing."""
        return []


def segments_route(traces: Route) -> Route:
    """The API's address on the host of the OTLP endpoint."""
    parts = urlsplit(traces.url)
    return Route(urlunsplit((parts.scheme, parts.netloc, "/TraceSegments", "", "")), {}, traces.region, api="xray")
