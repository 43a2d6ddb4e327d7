"""X-Ray: segments and OTLP spans in, trace summaries, documents and service graphs out.

https://docs.aws.amazon.com/xray/latest/api/API_Operations.html
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest, ExportTraceServiceResponse

from lab.aws import otlp
from lab.aws.otlp import RefusedError
from lab.aws.service import AwsError
from lab.aws.services.xray import graph, segments
from lab.aws.services.xray.filters import Rule, compile_filter
from lab.aws.services.xray.segments import Segment, SegmentError
from lab.aws.services.xray.store import TraceStore
from lab.aws.services.xray.summary import Summary, as_json, summarize
from lab.aws.times import lab_interval

if TYPE_CHECKING:
    from google.protobuf.message import Message

    from lab.aws.protocol import Request
    from lab.aws.service import Context
    from lab.aws.world import LocalWorld

MAX_SUMMARY_RANGE_S = 24 * 3600.0
MAX_GRAPH_RANGE_S = 6 * 3600.0
MAX_IDS = 5
MAX_GRAPH_IDS = 50
PAGE = 100
NEWEST_S = 2 * 3600.0
MAX_SPANS = 10_000
MAX_SPAN_BYTES = 200 * 1024
MAX_OTLP_BYTES = 5 * 1024 * 1024
LOGS, XRAY = "CloudWatchLogs", "XRay"


class Service:
    """The operations of X-Ray. Transaction Search (the destination CloudWatchLogs) is on, which the OTLP endpoint needs."""

    def __init__(self, world: LocalWorld) -> None:
        self._clock = world.clock
        self._stores = {region: TraceStore() for region in world.regions}
        self._destination = dict.fromkeys(world.regions, LOGS)
        self.raw_paths = {"POST /v1/traces": otlp.endpoint(ExportTraceServiceRequest, MAX_OTLP_BYTES, self._export)}

    # -- in --------------------------------------------------------------------------------------------------------------------------------

    def put_trace_segments(self, ctx: Context, params: dict[str, Any]) -> dict[str, Any]:
        """PutTraceSegments; what cannot be processed is answered document by document."""
        accepted, refused = [], []
        for text in params["TraceSegmentDocuments"]:
            try:
                accepted.append(self._segment(ctx, segments.read(text), len(text.encode())))
            except SegmentError as error:
                refused.append({"Id": error.identity, "ErrorCode": error.code, "Message": str(error)})
        self._stores[ctx.region].add(accepted)
        return {"UnprocessedTraceSegments": refused}

    def _segment(self, ctx: Context, document: dict[str, Any], size: int) -> Segment:
        moved = self._moved(ctx, document)
        if moved["start_time"] < ctx.now - segments.MAX_AGE_S:
            raise SegmentError("InvalidTime", "Invalid segment. The trace is older than 30 days.", document["id"])
        service = document["name"]
        if document.get("type") == "subsegment":
            service = self._stores[ctx.region].service_of(document["trace_id"], document["parent_id"]) or service
        return Segment(document["trace_id"], document["id"], document.get("parent_id"), service, moved, size)

    def _moved(self, ctx: Context, document: dict[str, Any]) -> dict[str, Any]:
        """The document in lab time; all of a trace moves by the same amount, so durations stay those of the wall."""
        first = self._clock.to_lab(document["start_time"]) - document["start_time"]
        offset = self._stores[ctx.region].offset(document["trace_id"], first) if first else 0.0
        return segments.shifted(document, offset) if offset else document

    def _export(self, ctx: Context, _request: Request, message: Any) -> Message:
        """OTLP: one span in bounds is not enough, the call's limits refuse it whole; a span above 200 KB alone is refused."""
        if self._destination[ctx.region] != LOGS:
            raise RefusedError("The OTLP API is supported with CloudWatch Logs as a Trace Segment Destination.")
        otlp.check_envelopes((each.resource, [part.scope for part in each.scope_spans]) for each in message.resource_spans)
        spans = [(each.resource, span) for each in message.resource_spans for part in each.scope_spans for span in part.spans]
        if len(spans) > MAX_SPANS:
            raise RefusedError(f"The request has {len(spans)} spans, more than {MAX_SPANS}")
        found, refused = [], 0
        resources: dict[int, dict[str, Any]] = {}
        for resource, span in spans:
            size = span.ByteSize()
            if size > MAX_SPAN_BYTES or len(span.trace_id) != 16 or len(span.span_id) != 8 or not span.start_time_unix_nano:
                refused += 1
                continue
            described = resources.setdefault(id(resource), otlp.attributes(resource.attributes))
            service, document = segments.from_span(span, otlp.attributes(span.attributes), described)
            moved = self._moved(ctx, document)
            found.append(Segment(moved["trace_id"], moved["id"], moved.get("parent_id"), service, moved, size))
        otlp.check_times([each.start for each in found], ctx.now, NEWEST_S)
        self._stores[ctx.region].add(found)
        response = ExportTraceServiceResponse()
        if refused:
            response.partial_success.rejected_spans = refused
            response.partial_success.error_message = (
                f"{refused} spans are larger than {MAX_SPAN_BYTES} bytes, or have no valid ids or start time"
            )
        return response

    def get_trace_segment_destination(self, ctx: Context, _params: dict[str, Any]) -> dict[str, Any]:
        """GetTraceSegmentDestination."""
        return {"Destination": self._destination[ctx.region], "Status": "ACTIVE"}

    def update_trace_segment_destination(self, ctx: Context, params: dict[str, Any]) -> dict[str, Any]:
        """UpdateTraceSegmentDestination: XRay turns Transaction Search, and with it the OTLP endpoint, off."""
        self._destination[ctx.region] = params.get("Destination", self._destination[ctx.region])
        return self.get_trace_segment_destination(ctx, params)

    # -- out -------------------------------------------------------------------------------------------------------------------------------

    def get_trace_summaries(self, ctx: Context, params: dict[str, Any]) -> dict[str, Any]:
        """GetTraceSummaries: newest first, 100 a page."""
        start, end = self._interval(params, MAX_SUMMARY_RANGE_S)
        rule = compile_filter(params.get("FilterExpression"))
        store = self._stores[ctx.region]
        identities = store.identities(start, end, params.get("TimeRangeType") == "Event")
        page, following = _page(store, identities, rule, _offset(params.get("NextToken")))
        return {
            "TraceSummaries": [as_json(summary, ctx.account) for summary in page],
            "ApproximateTime": ctx.now,
            "TracesProcessedCount": len(identities),
            "NextToken": None if following is None else str(following),
        }

    def batch_get_traces(self, ctx: Context, params: dict[str, Any]) -> dict[str, Any]:
        """BatchGetTraces: at most five."""
        ids = params["TraceIds"]
        if not 1 <= len(ids) <= MAX_IDS:
            raise AwsError("InvalidRequestException", f"TraceIds must have 1 to {MAX_IDS} ids")
        found, missing = [], []
        for text in ids:
            identity = segments.trace_id(text)
            trace = self._stores[ctx.region].get(identity) if identity else None
            if trace is None:
                missing.append(text)
                continue
            documents = trace.documents()
            found.append(
                {
                    "Id": trace.id,
                    "Duration": round(trace.end - trace.start, 3),
                    "LimitExceeded": trace.limit_exceeded,
                    "Segments": [{"Id": document["id"], "Document": json.dumps(document, separators=(",", ":"))} for document in documents],
                }
            )
        return {"Traces": found, "UnprocessedTraceIds": missing}

    def get_service_graph(self, ctx: Context, params: dict[str, Any]) -> dict[str, Any]:
        """GetServiceGraph of an interval of at most six hours."""
        start, end = self._interval(params, MAX_GRAPH_RANGE_S)
        traces = self._stores[ctx.region].between(start, end, overlap=True)
        services = graph.build((summarize(trace) for trace in traces), ctx.account)
        return {"StartTime": start, "EndTime": end, "Services": services, "ContainsOldGroupVersions": False}

    def get_trace_graph(self, ctx: Context, params: dict[str, Any]) -> dict[str, Any]:
        """GetTraceGraph of some traces."""
        if len(params["TraceIds"]) > MAX_GRAPH_IDS:
            raise AwsError("InvalidRequestException", f"At most {MAX_GRAPH_IDS} trace ids are allowed")
        store = self._stores[ctx.region]
        traces = [trace for text in params["TraceIds"] if (identity := segments.trace_id(text)) and (trace := store.get(identity))]
        return {"Services": graph.build((summarize(trace) for trace in traces), ctx.account)}

    def _interval(self, params: dict[str, Any], longest_s: float) -> tuple[float, float]:
        if params["StartTime"] > params["EndTime"]:
            raise AwsError("InvalidRequestException", "EndTime must be after StartTime")
        # The length is checked as it was asked for: a minute of the wall may be an hour of the lab.
        if params["EndTime"] - params["StartTime"] > longest_s:
            raise AwsError("InvalidRequestException", f"Time range cannot be longer than {longest_s / 3600:g} hours")
        return lab_interval(self._clock, params["StartTime"], params["EndTime"])


def _page(store: TraceStore, identities: list[str], rule: Rule, start: int) -> tuple[list[Summary], int | None]:
    """A page of the traces that a rule lets pass, from place ``start`` of ``identities`` on, and the place of the next that it would.

    Unpacking a trace is most of the work, so no trace is unpacked that is neither on the page nor before its end.
    """
    found: list[Summary] = []
    for place in range(start, len(identities)):
        trace = store.get(identities[place])
        if trace is None:  # the oldest go when there is no more room
            continue
        summary = summarize(trace)
        if rule(summary):
            if len(found) == PAGE:
                return found, place
            found.append(summary)
    return found, None


def _offset(token: str | None) -> int:
    if token is not None and not token.isdigit():
        raise AwsError("InvalidRequestException", "Invalid next token")
    return int(token or 0)
