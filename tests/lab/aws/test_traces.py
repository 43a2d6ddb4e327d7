"""X-Ray and the OTLP endpoints: limits, spans that become segments, summaries, filters and graphs; OTLP logs and metrics."""

from __future__ import annotations

import gzip
import json
import os
import time
from typing import TYPE_CHECKING, Any

import pytest
import requests
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials
from botocore.exceptions import ClientError
from google.rpc.status_pb2 import Status
from local_aws import EAST, WEST, LocalAws, local_aws
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest, ExportMetricsServiceResponse
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest, ExportTraceServiceResponse

if TYPE_CHECKING:
    from collections.abc import Iterator

PROTOBUF = "application/x-protobuf"
SERVER, CLIENT = 2, 3
SPEED = 20


@pytest.fixture(scope="module")
def aws(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalAws]:
    with local_aws(tmp_path_factory.mktemp("aws"), speed=SPEED) as running:
        yield running


def send(
    aws: LocalAws, service: str, path: str, body: bytes, kind: str = PROTOBUF, method: str = "POST", **headers: str
) -> requests.Response:
    """A signed request to a path that is no API operation."""
    admin = aws.plan.credentials["admin"]
    named = {"content-type": kind, **{name.replace("_", "-"): value for name, value in headers.items()}}
    request = AWSRequest(method, aws.plan.regions[EAST].aws_endpoint + path, data=body, headers=named)
    SigV4Auth(Credentials(admin.access_key, admin.secret_key), service, EAST).add_auth(request)
    return requests.request(method, request.url, data=body, headers=dict(request.prepare().headers))


def attribute(target: Any, key: str, value: Any) -> None:
    pair = target.add()
    pair.key = key
    if isinstance(value, int):
        pair.value.int_value = value
    else:
        pair.value.string_value = value


class Trace:
    """An OTLP request that is built span by span. Times are wall seconds from now."""

    def __init__(self) -> None:
        self.request = ExportTraceServiceRequest()
        self.id = os.urandom(16)
        self.now = time.time()
        self._scopes: dict[str, Any] = {}

    @property
    def xray_id(self) -> str:
        return f"1-{self.id.hex()[:8]}-{self.id.hex()[8:]}"

    def span(
        self, service: str, name: str, kind: int, parent: bytes = b"", start: float = -0.2, end: float = 0.0, **attributes: Any
    ) -> bytes:
        if service not in self._scopes:
            resource = self.request.resource_spans.add()
            attribute(resource.resource.attributes, "service.name", service)
            self._scopes[service] = resource.scope_spans.add()
        span = self._scopes[service].spans.add()
        span.trace_id, span.span_id, span.parent_span_id = self.id, os.urandom(8), parent
        span.name, span.kind = name, kind
        span.start_time_unix_nano, span.end_time_unix_nano = int((self.now + start) * 1e9), int((self.now + end) * 1e9)
        for key, value in attributes.items():
            attribute(span.attributes, key.replace("__", "."), value)
        return bytes(span.span_id)


@pytest.fixture(scope="module")
def cart(aws: LocalAws) -> Trace:
    """ui calls orders, whose database call is slow; orders answers 500 and ui 502. Sent in the stable and old conventions."""
    trace = Trace()
    root = trace.span(
        "ui", "GET /cart", SERVER, http__request__method="GET", http__response__status_code=502, url__full="http://store/cart"
    )
    call = trace.span("ui", "GET", CLIENT, root, -0.15, -0.05, http__method="GET", http__status_code=500, net__peer__name="orders")
    work = trace.span("orders", "GET /orders", SERVER, call, -0.14, -0.06, http__request__method="GET", http__response__status_code=500)
    trace.span("orders", "SELECT", CLIENT, work, -0.13, -0.07, db__system="postgresql", db__namespace="orders", server__address="pg")
    trace.span("orders", "work", 1, work, -0.12, -0.08)
    answer = send(aws, "xray", "/v1/traces", trace.request.SerializeToString())
    assert (answer.status_code, answer.content) == (200, b"")
    return trace


def summaries(aws: LocalAws, expression: str | None = None) -> list[dict[str, Any]]:
    now = aws.world.clock.now()
    params: dict[str, Any] = {"StartTime": now - 3600, "EndTime": now + 60}
    return list(
        aws.client("xray").get_trace_summaries(**params, **({"FilterExpression": expression} if expression else {}))["TraceSummaries"]
    )


FILTERS = [
    ('service("orders") { fault }', True),
    ('service("catalog")', False),
    ("http.status = 502", True),
    ('http.url CONTAINS "/cart" AND http.method = "GET"', True),
    ("fault", True),
    ("!fault OR ok", False),
    ("error", False),
    ("responsetime > 0.15 AND duration < 0.25", True),
    ('edge("ui", "orders")', True),
    ('edge("orders", "ui")', False),
    ('service("orders@pg") { inferred }', True),
    ('service(id(name: "orders@pg", type: "Database::SQL"))', True),
    ('annotation.vantage = "us-east-1"', False),
    ('service() { http.status = 500 } AND NOT (service("carts"))', True),
]


@pytest.mark.parametrize(("expression", "matches"), FILTERS)
def test_filter_expressions(aws: LocalAws, cart: Trace, expression: str, matches: bool) -> None:
    """The common forms find the trace, or do not."""
    assert (cart.xray_id in {summary["Id"] for summary in summaries(aws, expression)}) is matches


@pytest.mark.parametrize(
    "expression", ['service("x" {', "weather = 1", "http.status ~ 5", "fault AND", "http.status CONTAINS 5", "service(5)"]
)
def test_filters_that_cannot_be_read_are_refused(aws: LocalAws, expression: str) -> None:
    """InvalidRequestException, not an empty answer."""
    with pytest.raises(ClientError, match="Invalid filter expression"):
        summaries(aws, expression)


def test_a_summary_tells_the_trace(aws: LocalAws, cart: Trace) -> None:
    """In lab time, with the wall's durations."""
    (found,) = [summary for summary in summaries(aws) if summary["Id"] == cart.xray_id]
    assert (found["Duration"], found["ResponseTime"]) == (pytest.approx(0.2, abs=0.002), pytest.approx(0.2, abs=0.002))
    assert found["Http"] == {"HttpURL": "http://store/cart", "HttpStatus": 502, "HttpMethod": "GET"}
    assert (found["HasFault"], found["HasError"], found["EntryPoint"]["Name"]) == (True, False, "ui")
    assert {service["Name"] for service in found["ServiceIds"]} == {"ui", "orders", "orders@pg"}
    assert abs(found["StartTime"].timestamp() - aws.world.clock.at(cart.now - 0.2)) < 1


def test_documents_hold_their_subsegments(aws: LocalAws, cart: Trace) -> None:
    """A service's inner spans are subsegments of its segment."""
    answer = aws.client("xray").batch_get_traces(TraceIds=[cart.xray_id, "1-00000000-000000000000000000000000"])
    documents = {each["name"]: each for each in (json.loads(segment["Document"]) for segment in answer["Traces"][0]["Segments"])}
    assert [inner["name"] for inner in documents["ui"]["subsegments"]] == ["orders"]
    assert sorted(inner["name"] for inner in documents["orders"]["subsegments"]) == ["orders@pg", "work"]
    assert answer["UnprocessedTraceIds"] == ["1-00000000-000000000000000000000000"]


def test_the_service_graph_has_edges_and_statistics(aws: LocalAws, cart: Trace) -> None:
    """Client to ui to orders to the database, with who failed."""
    services = aws.client("xray").get_trace_graph(TraceIds=[cart.xray_id])["Services"]
    names = {service["ReferenceId"]: service["Name"] for service in services}
    edges = {(service["Name"], names[edge["ReferenceId"]]) for service in services for edge in service["Edges"]}
    assert edges == {("client", "ui"), ("ui", "orders"), ("orders", "orders@pg")}
    (orders,) = [service for service in services if service["Name"] == "orders"]
    assert orders["SummaryStatistics"]["FaultStatistics"]["TotalCount"] == 1
    assert orders["SummaryStatistics"]["TotalResponseTime"] == pytest.approx(0.08, abs=0.001)
    now = aws.world.clock.now()
    assert {each["Name"] for each in aws.client("xray").get_service_graph(StartTime=now - 3600, EndTime=now + 60)["Services"]} >= {
        "ui",
        "orders",
    }


def segment(**changes: Any) -> str:
    now = time.time()
    document: dict[str, Any] = {
        "name": "canary",
        "id": os.urandom(8).hex(),
        "trace_id": f"1-{int(now):08x}-{os.urandom(12).hex()}",
        "start_time": now - 1,
        "end_time": now,
    }
    return json.dumps({key: value for key, value in (document | changes).items() if value is not None})


def test_segments_are_taken_one_by_one(aws: LocalAws) -> None:
    """Good ones are stored; each bad one is answered with its id and a code."""
    remote = {
        "name": "store",
        "id": os.urandom(8).hex(),
        "start_time": time.time() - 0.9,
        "end_time": time.time() - 0.1,
        "namespace": "remote",
        "fault": True,
    }
    good = segment(annotations={"vantage": "us-east-1", "round": 3}, subsegments=[remote])
    bad = ["{", segment(id="zz"), segment(trace_id="7"), segment(name=None), segment(end_time=None), segment(metadata={"x": "y" * 70_000})]
    bad.append(segment(start_time=time.time() - 31 * 86400))
    refused = aws.client("xray").put_trace_segments(TraceSegmentDocuments=[good, *bad])["UnprocessedTraceSegments"]
    assert [each["ErrorCode"] for each in refused] == [
        "ParseError", "InvalidId", "InvalidTraceId", "MissingField", "MissingField", "SegmentTooLarge", "InvalidTime",
    ]  # fmt: skip
    identity = json.loads(good)["trace_id"]
    assert [each["Id"] for each in summaries(aws, 'annotation.vantage = "us-east-1" AND annotation[round] >= 3')] == [identity]
    assert [each["Id"] for each in summaries(aws, 'service("store") { fault }')] == [identity]


def refusal(answer: requests.Response) -> str:
    assert answer.headers["content-type"] == PROTOBUF
    return str(Status.FromString(answer.content).message)


def test_otlp_in_json_and_gzip(aws: LocalAws) -> None:
    """Both encodings, compressed or not; ids are hexadecimal in JSON."""
    trace = Trace()
    trace.span("gz", "GET", SERVER)
    packed = gzip.compress(trace.request.SerializeToString())
    assert send(aws, "xray", "/v1/traces", packed, content_encoding="gzip").status_code == 200
    text = Trace()
    span = {"traceId": text.id.hex(), "spanId": "00f067aa0ba902b7", "name": "j", "kind": 2}
    span |= {"startTimeUnixNano": str(int(text.now * 1e9)), "endTimeUnixNano": str(int((text.now + 0.1) * 1e9))}
    resource = {"attributes": [{"key": "service.name", "value": {"stringValue": "js"}}]}
    body = json.dumps({"resourceSpans": [{"resource": resource, "scopeSpans": [{"spans": [span]}]}]}).encode()
    answer = send(aws, "xray", "/v1/traces", body, kind="application/json")
    assert (answer.status_code, answer.json()) == (200, {})
    found = aws.client("xray").batch_get_traces(TraceIds=[trace.xray_id, text.xray_id])["Traces"]
    assert {json.loads(each["Segments"][0]["Document"])["name"] for each in found} == {"gz", "js"}


def test_otlp_requests_out_of_bounds_are_refused_whole(aws: LocalAws) -> None:
    """Too large a resource, times too far apart or out of range (an hour of the wall is twenty of the lab), no protobuf, another type."""
    large, apart, recent, old = Trace(), Trace(), Trace(), Trace()
    large.span("x" * 17_000, "GET", SERVER)
    apart.span("a", "GET", SERVER, start=-3 * 3600, end=-3 * 3600)
    recent.span("b", "GET", SERVER)
    apart.request.MergeFrom(recent.request)
    old.span("a", "GET", SERVER, start=-20 * 3600, end=-20 * 3600)
    for trace, why in ((large, "exceeds the limit of 16384"), (apart, "more than 24 hours"), (old, "older than 14 days")):
        answer = send(aws, "xray", "/v1/traces", trace.request.SerializeToString())
        assert answer.status_code == 400
        assert why in refusal(answer)
    assert "cannot be parsed" in refusal(send(aws, "xray", "/v1/traces", b"\xff\xff"))
    assert send(aws, "xray", "/v1/traces", b"", kind="text/plain").status_code == 415
    many = Trace()
    for _ in range(10_001):
        many.span("a", "s", 1)
    assert "10001 spans" in refusal(send(aws, "xray", "/v1/traces", many.request.SerializeToString()))


def test_a_span_above_200_kb_is_refused_alone(aws: LocalAws) -> None:
    """The others are stored, and the answer says how many are not."""
    trace = Trace()
    trace.span("ok", "GET", SERVER)
    trace.span("big", "GET", SERVER, blob="x" * 210_000)
    answer = ExportTraceServiceResponse.FromString(send(aws, "xray", "/v1/traces", trace.request.SerializeToString()).content)
    assert answer.partial_success.rejected_spans == 1
    assert trace.xray_id in {each["Id"] for each in summaries(aws)}


def test_without_transaction_search_spans_are_refused(aws: LocalAws) -> None:
    """The OTLP endpoint needs CloudWatch Logs as the destination."""
    xray = aws.client("xray")
    xray.update_trace_segment_destination(Destination="XRay")
    try:
        assert "Trace Segment Destination" in refusal(send(aws, "xray", "/v1/traces", ExportTraceServiceRequest().SerializeToString()))
    finally:
        xray.update_trace_segment_destination(Destination="CloudWatchLogs")


def log_request(*messages: str, at: float | None = None) -> bytes:
    request = ExportLogsServiceRequest()
    resource = request.resource_logs.add()
    attribute(resource.resource.attributes, "service.name", "ui")
    scope = resource.scope_logs.add()
    for message in messages:
        record = scope.log_records.add()
        record.time_unix_nano = int((at or time.time()) * 1e9)
        record.body.string_value = message
        record.severity_text = "ERROR"
        record.trace_id = bytes(range(16))
    return bytes(request.SerializeToString())


def test_otlp_logs_need_their_group_and_stream(aws: LocalAws) -> None:
    """Both headers, both existing; then a record is a JSON event with its trace id."""
    headers = {"x_aws_log_group": "otlp", "x_aws_log_stream": "ui"}
    assert "are required" in refusal(send(aws, "logs", "/v1/logs", log_request("m")))
    assert "log group does not exist" in refusal(send(aws, "logs", "/v1/logs", log_request("m"), **headers))
    logs = aws.client("logs")
    logs.create_log_group(logGroupName="otlp")
    assert "log stream does not exist" in refusal(send(aws, "logs", "/v1/logs", log_request("m"), **headers))
    logs.create_log_stream(logGroupName="otlp", logStreamName="ui")
    assert send(aws, "logs", "/v1/logs", log_request("m"), **headers).status_code == 200
    (event,) = logs.filter_log_events(logGroupName="otlp", filterPattern=f'{{ $.traceId = "{bytes(range(16)).hex()}" }}')["events"]
    document = json.loads(event["message"])
    assert (document["body"], document["severityText"], document["resource"]["attributes"]["service.name"]) == ("m", "ERROR", "ui")
    for body, why in (
        (log_request("m" * 600_000, "m" * 600_000), "Upload too large"),
        (log_request("m", at=time.time() - 15 * 86400), "14 days"),
    ):
        assert why in refusal(send(aws, "logs", "/v1/logs", body, **headers))


def metric_request(points: int = 1, labels: int = 1, crowded: int = 0) -> bytes:
    """A sum with ``points`` datapoints of ``labels`` labels each, and ``crowded`` more with 151."""
    request = ExportMetricsServiceRequest()
    resource = request.resource_metrics.add()
    attribute(resource.resource.attributes, "service.name", "ui")
    metric = resource.scope_metrics.add().metrics.add()
    metric.name = "requests.total"
    metric.sum.aggregation_temporality = 1
    for index in range(points + crowded):
        point = metric.sum.data_points.add()
        point.time_unix_nano = int(time.time() * 1e9)
        point.as_int = index
        for label in range(labels if index < points else 151):
            attribute(point.attributes, f"l{label}", f"v{index}")
    return bytes(request.SerializeToString())


def test_otlp_metrics_have_a_store_of_their_own(aws: LocalAws) -> None:
    """A selector finds them, GetMetricData's world does not."""
    assert send(aws, "monitoring", "/v1/metrics", metric_request()).status_code == 200
    url = "/api/v1/query?query=%7B%22requests.total%22%2C%22%40resource.service.name%22%3D%22ui%22%7D"
    (found,) = send(aws, "monitoring", url, b"", method="GET").json()["data"]["result"]
    assert (found["metric"]["l0"], found["metric"]["__temporality__"], found["value"][1]) == ("v0", "delta", "0")
    assert aws.client("cloudwatch").list_metrics(MetricName="requests.total")["Metrics"] == []
    unreadable = send(aws, "monitoring", "/api/v1/query?query=sum%28x%29", b"", method="GET")
    assert (unreadable.status_code, unreadable.json()["errorType"]) == (400, "bad_data")


def test_otlp_metric_limits(aws: LocalAws) -> None:
    """1,000 datapoints; 150 labels: all bad is 400, some bad is 200 with the number of those that are not stored."""
    assert "1001 datapoints" in refusal(send(aws, "monitoring", "/v1/metrics", metric_request(points=1001)))
    assert "Maximum number of attributes exceeded: 150" in refusal(
        send(aws, "monitoring", "/v1/metrics", metric_request(points=0, crowded=2))
    )
    answer = send(aws, "monitoring", "/v1/metrics", metric_request(points=3, crowded=2))
    assert answer.status_code == 200
    assert ExportMetricsServiceResponse.FromString(answer.content).partial_success.rejected_data_points == 2


@pytest.mark.parametrize(("expression", "sizes"), [(None, [100, 100, 30]), ("annotation.odd = 1", [100, 15]), ("annotation.odd = 2", [0])])
def test_summaries_come_in_pages(aws: LocalAws, many: list[str], expression: str | None, sizes: list[int]) -> None:
    """What the filter lets through, newest first, each trace once, and no page after the last."""
    now = aws.world.clock.now()
    chosen = {"FilterExpression": expression} if expression else {}
    pages = list(aws.client("xray", WEST).get_paginator("get_trace_summaries").paginate(StartTime=now - 86_000, EndTime=now, **chosen))
    assert [len(page["TraceSummaries"]) for page in pages] == sizes
    assert {page["TracesProcessedCount"] for page in pages} == {len(many)}
    wanted = [identity for number, identity in enumerate(many) if expression is None or f"annotation.odd = {number % 2}" == expression]
    assert [each["Id"] for page in pages for each in page["TraceSummaries"]] == wanted[::-1]


@pytest.fixture(scope="module")
def many(aws: LocalAws) -> list[str]:
    """230 traces of the other Region, a second apart, oldest first; every second one is odd."""
    began = time.time() - 300
    times = [{"start_time": began + number, "end_time": began + number + 0.1} for number in range(230)]
    sent = [segment(**each, annotations={"odd": number % 2}) for number, each in enumerate(times)]
    for start in range(0, len(sent), 50):
        answer = aws.client("xray", WEST).put_trace_segments(TraceSegmentDocuments=sent[start : start + 50])
        assert answer["UnprocessedTraceSegments"] == []
    return [json.loads(each)["trace_id"] for each in sent]


def test_a_subsegment_is_of_its_segments_service(aws: LocalAws) -> None:
    """Also where it is sent apart and later."""
    parent = json.loads(segment(name="checkout"))
    part = {"type": "subsegment", "name": "redis", "parent_id": parent["id"], "trace_id": parent["trace_id"], "namespace": "remote"}
    for document in (json.dumps(parent), segment(**part)):
        aws.client("xray").put_trace_segments(TraceSegmentDocuments=[document])
    (trace,) = aws.client("xray").batch_get_traces(TraceIds=[parent["trace_id"]])["Traces"]
    (whole,) = [json.loads(each["Document"]) for each in trace["Segments"]]
    assert (whole["name"], [each["name"] for each in whole["subsegments"]]) == ("checkout", ["redis"])
