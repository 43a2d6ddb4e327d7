"""What may leave the process: redaction, sampling, tail keeping, synthetic marks, series; and the resource on ECS."""

from __future__ import annotations

import json
import threading
import time
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any, ClassVar

import pytest
from crosswatch_exporters.classic.datums import Wanted, dimension_sets, distribution, unit_of
from crosswatch_exporters.guards.meters import AttributeGuard
from crosswatch_exporters.guards.redaction import MASK, redactor
from crosswatch_exporters.guards.sampling import CanarySampler
from crosswatch_exporters.resource import make_resource
from crosswatch_exporters.settings import read_settings
from hypothesis import given, settings
from hypothesis import strategies as st
from instrumented import LedgerWatch, Service
from opentelemetry import baggage, context
from opentelemetry.sdk.resources import Resource
from opentelemetry.trace import SpanKind, Status, StatusCode
from receiver import Receiver

SECRETS = redactor("secrets", frozenset({"http.request.header.cookie"}))
STRICT = redactor("strict", frozenset())
# Nothing to complain about.
HERE = {"AWS_REGION": "us-east-1", "HOME": "/home/shop"}


@pytest.mark.parametrize(
    ("key", "value", "left"),
    [
        ("db.password", "hunter2", MASK),
        ("http.request.header.authorization", ("Basic abc",), MASK),
        ("http.request.header.cookie", "a=b", "a=b"),
        ("gen_ai.usage.tokens", 17, 17),
        ("url.full", "https://user:pw@host/a?token=abc&x=1", f"https://{MASK}@host/a?token={MASK}&x=1"),
        ("message", "key AKIAIOSFODNN7EXAMPLE leaked", f"key {MASK} leaked"),
        ("body", "Authorization: Bearer abcdef123456", f"Authorization: Bearer {MASK}"),
        ("body", {"user": "x", "password": "y"}, {"user": "x", "password": MASK}),
        ("body", ["password=abc", 3], ("password=" + MASK, 3)),
        ("body", '{"password": "x y", "user": "z"}', f'{{"password": "{MASK}", "user": "z"}}'),
        ("body", '{"a": "{\\"password\\": \\"x\\"}"}', f'{{"a": "{{\\"password\\": \\"{MASK}"}}"}}'),
        ("body", "password: x", f"password: {MASK}"),
        ("body", "Password=x, pwd=y; PASSWD => z", f"Password={MASK}, pwd={MASK}; PASSWD => {MASK}"),
        ("body", "AWS_SECRET_ACCESS_KEY=ab/cd+ef", f"AWS_SECRET_ACCESS_KEY={MASK}"),
        ("body", "{'apiKey': 'x', 'clientSecret': 'y'}", f"{{'apiKey': '{MASK}', 'clientSecret': '{MASK}'}}"),
        ("body", "csrf_token=x&access-key: y", f"csrf_token={MASK}&access-key: {MASK}"),
        ("body", "Authorization: Basic dXNlcjpwYXNz", f"Authorization: Basic {MASK}"),
        ("body", "Basic authentication failed, Basic Authentication too", "Basic authentication failed, Basic Authentication too"),
        ("body", "cache key: a, keys=3, tokens=17, max_tokens: 5", "cache key: a, keys=3, tokens=17, max_tokens: 5"),
        ("db.query.text", "WHERE password = %s AND token = $1", "WHERE password = %s AND token = $1"),
        ("body", "İ password=x", f"İ password={MASK}"),
        ("token", "x", MASK),
        ("userPassword", "x", MASK),
        ("next.accessToken", "x", MASK),
        ("gen_ai.token.type", "input", "input"),
        (7, "x", "x"),
        ("order.id", "1234567890123456", "1234567890123456"),
        ("user.mail", "a.b@c.test", "a.b@c.test"),
    ],
)
def test_secrets_are_masked(key: Any, value: Any, left: Any) -> None:
    """By name and by look; what is allowed, counted or harmless stays."""
    assert SECRETS is not None
    assert SECRETS(key, value) == left


def test_strict_masks_what_identifies_a_person() -> None:
    """Mail addresses and card numbers (by their check digit), but no other numbers."""
    assert STRICT is not None
    assert STRICT("body", "mail a.b@c.test card 4111 1111 1111 1111 order 1234567890123") == f"mail {MASK} card {MASK} order 1234567890123"


def test_nothing_secret_leaves(receiver: Receiver, spool: Path) -> None:
    """In spans, exceptions, status, log bodies and metric attributes."""
    with Service({**receiver.environ(), "CROSSWATCH_SPOOL_DIR": str(spool)}) as service:
        with service.tracer.start_as_current_span("op", attributes={"api_key": "S3CRET"}) as span:
            span.record_exception(ValueError("password=S3CRET"))
            span.set_status(Status(StatusCode.ERROR, "token=S3CRET"))
        service.logs(1, "postgresql://u:S3CRET@db/x")
        service.meter.create_counter("c").add(1, {"session_id": "S3CRET"})
        service.collect()
        assert service.flush()
    assert {request.signal for request in receiver.accepted} == {"traces", "logs", "metrics"}
    assert all(b"S3CRET" not in request.body for request in receiver.accepted)


@given(st.floats(0, 1), st.integers(1, (1 << 128) - 1))
def test_a_canarys_trace_is_always_sampled(ratio: float, trace_id: int) -> None:
    """Whatever the ratio; and it is marked."""
    sampler = CanarySampler(ratio)
    carried = baggage.set_baggage("crosswatch.synthetic", "true")
    result = sampler.should_sample(carried, trace_id, "op", SpanKind.SERVER, {"a": 1})
    assert result.decision.is_sampled()
    assert result.attributes == {"a": 1, "crosswatch.synthetic": True}
    plain = sampler.should_sample(None, trace_id, "op")
    assert plain.decision.is_sampled() == ((trace_id & ((1 << 64) - 1)) < round(ratio * (1 << 64)))


def test_synthetic_traffic_is_kept_apart_in_metrics(receiver: Receiver, spool: Path) -> None:
    """A measurement under a marked span or marked baggage goes to a marked series."""
    with Service({**receiver.environ(), "CROSSWATCH_SPOOL_DIR": str(spool)}) as service:
        counter = service.meter.create_counter("orders")
        counter.add(1)
        token = context.attach(baggage.set_baggage("synthetic", "true"))
        try:
            counter.add(10)
        finally:
            context.detach(token)
        with service.tracer.start_as_current_span("op", attributes={"crosswatch.synthetic": True}):
            counter.add(100)
    values = {tuple(a.key for a in point.attributes): point.as_int for metric, point in receiver.points if metric.name == "orders"}
    assert values == {(): 1, ("crosswatch.synthetic",): 110}


def test_tail_keeping(receiver: Receiver, spool: Path) -> None:
    """With nothing sampled at the head, failed and slow traces arrive whole, the others are counted; the ledger holds all along."""
    environ = {
        **receiver.environ("traces"),
        "CROSSWATCH_SPOOL_DIR": str(spool),
        "OTEL_TRACES_SAMPLER": "always_off",
        "CROSSWATCH_TAIL": "on",
        "CROSSWATCH_TAIL_SLOW_MS": "500",
    }
    with Service(environ) as service, LedgerWatch(service) as watch:
        for i in range(300):
            with service.tracer.start_as_current_span("root") as root, service.tracer.start_as_current_span("child") as child:
                if i % 100 == 7:
                    child.set_status(Status(StatusCode.ERROR, "x"))
                assert root.is_recording()
        slow = service.tracer.start_span("slow", start_time=1)
        slow.end(1 + 10**9)
        waiting = service.tracer.start_span("waiting")
        assert service.flush()
        held = service.balances()["traces"]
        waiting.end()
        service.flush()
        balance = service.balances()["traces"]
    assert watch.wrong == []
    assert held.exact
    assert sorted(span.name for span in receiver.spans if span.name != "slow") == ["child"] * 3 + ["root"] * 3
    assert balance.emitted == 602
    assert balance.dropped["tail"] == 602 - balance.delivered - balance.dropped.get("too_old", 0)


def test_tail_keeping_is_bounded(receiver: Receiver, spool: Path) -> None:
    """Traces whose root never ends are forgotten, oldest first, when the memory is full."""
    environ = {
        **receiver.environ("traces"),
        "CROSSWATCH_SPOOL_DIR": str(spool),
        "OTEL_TRACES_SAMPLER": "always_off",
        "CROSSWATCH_TAIL": "on",
        "CROSSWATCH_TAIL_MAX_BYTES": "1MiB",
    }
    roots = []
    with Service(environ) as service:
        for _ in range(100):
            root = service.tracer.start_span("root")
            roots.append(root)
            from opentelemetry.trace import set_span_in_context

            service.tracer.start_span("child", set_span_in_context(root), attributes={"big": "x" * 50_000}).end()
        balance = service.balances()["traces"]
        assert balance.exact
        assert 0 < balance.held <= 21
        assert balance.dropped["tail"] == 100 - balance.held


def test_asgi_event_spans_are_left_out() -> None:
    """The instrumentation's spans for each event of a response, unless they are asked for."""
    assert not CanarySampler().should_sample(None, 1, "GET / http send", SpanKind.INTERNAL).decision.is_recording()
    assert CanarySampler(asgi_events=True).should_sample(None, 1, "GET / http send", SpanKind.INTERNAL).decision.is_recording()


def test_the_ledger_is_readable_as_metrics(receiver: Receiver, spool: Path) -> None:
    """Delivered and dropped items by signal."""
    with Service({**receiver.environ(), "CROSSWATCH_SPOOL_DIR": str(spool)}) as service:
        service.spans(5)
        assert service.flush()
        service.collect()
        assert service.flush()
    found = {
        (a["signal"], a.get("outcome", a.get("place"))): point.as_int
        for metric, point in receiver.points
        if metric.name.startswith("crosswatch.exporter.")
        for a in [{a.key: a.value.string_value for a in point.attributes}]
    }
    assert found["traces", "emitted"] == found["traces", "delivered"] == 5
    assert found["traces", "queued"] == 0


class Metadata:
    """The ECS task metadata endpoint, version 4."""

    CONTAINER: ClassVar = {
        "DockerId": "cd189a933e5849daa93386466019ab50-2495160603",
        "Name": "shop",
        "Image": "123456789012.dkr.ecr.us-west-2.amazonaws.com/shop:7",
        "LogDriver": "awslogs",
        "LogOptions": {"awslogs-group": "/ecs/shop", "awslogs-region": "us-west-2", "awslogs-stream": "ecs/shop/cd18"},
        "ContainerARN": "arn:aws:ecs:us-west-2:123456789012:container/default/cd18/05966557",
    }
    TASK: ClassVar = {
        "Cluster": "arn:aws:ecs:us-west-2:123456789012:cluster/default",
        "TaskARN": "arn:aws:ecs:us-west-2:123456789012:task/default/cd189a933e58",
        "Family": "shop",
        "Revision": "7",
        "AvailabilityZone": "us-west-2a",
        "LaunchType": "FARGATE",
    }

    def __enter__(self) -> str:
        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                body = json.dumps(Metadata.TASK if self.path.endswith("/task") else Metadata.CONTAINER).encode()
                self.send_response(200)
                self.send_header("content-length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *arguments: Any) -> None: ...

        self._server = HTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()
        return f"http://127.0.0.1:{self._server.server_address[1]}/v4/x"

    def __exit__(self, *error: object) -> None:
        self._server.shutdown()
        self._server.server_close()


def test_the_resource_on_ecs() -> None:
    """Region, account, zone, task, container, cluster and log group, which the stock detector leaves out in part."""
    with Metadata() as address:
        found = make_resource(read_settings({"OTEL_SERVICE_NAME": "shop"}), {"ECS_CONTAINER_METADATA_URI_V4": address}).attributes
    expected = {
        "cloud.provider": "aws",
        "cloud.platform": "aws_ecs",
        "cloud.region": "us-west-2",
        "cloud.account.id": "123456789012",
        "cloud.availability_zone": "us-west-2a",
        "cloud.resource_id": Metadata.CONTAINER["ContainerARN"],
        "aws.ecs.task.id": "cd189a933e58",
        "aws.ecs.task.family": "shop",
        "aws.ecs.launchtype": "fargate",
        "container.id": Metadata.CONTAINER["DockerId"],
        "aws.log.group.names": ("/ecs/shop",),
        "aws.log.stream.names": ("ecs/shop/cd18",),
    }
    assert {key: found.get(key) for key in expected} == expected


def test_the_resource_without_ecs() -> None:
    """An endpoint that does not answer costs a second at most and nothing else."""
    found = make_resource(read_settings({"AWS_REGION": "us-east-1"}), {"ECS_CONTAINER_METADATA_URI_V4": "http://127.0.0.1:9/v4"}).attributes
    assert found["cloud.region"] == "us-east-1"
    assert found["telemetry.distro.name"] == "crosswatch-exporters"


@settings(deadline=None)
@given(st.lists(st.floats(0, 1e6), min_size=1, max_size=300))
def test_classic_distributions_keep_count_sum_and_extremes(values: list[float]) -> None:
    """Of any histogram, exponential buckets in CloudWatch's terms have the same count, sum, minimum and maximum."""
    from opentelemetry.sdk.metrics import MeterProvider
    from opentelemetry.sdk.metrics.export import InMemoryMetricReader
    from opentelemetry.sdk.metrics.view import ExponentialBucketHistogramAggregation, View

    reader = InMemoryMetricReader()
    provider = MeterProvider(
        [reader], shutdown_on_exit=False, views=[View(instrument_name="h", aggregation=ExponentialBucketHistogramAggregation())]
    )
    histogram = provider.get_meter("t").create_histogram("h")
    for value in values:
        histogram.record(value)
    data: Any = reader.get_metrics_data()
    [point] = data.resource_metrics[0].scope_metrics[0].metrics[0].data.data_points
    found, counts = distribution(point)
    assert sum(counts) == point.count
    assert min(found) == point.min
    assert max(found) == point.max
    total = sum(value * count for value, count in zip(found, counts, strict=True))
    assert total == pytest.approx(point.sum, rel=1e-6, abs=1e-6)


def test_dimension_sets() -> None:
    """`*` is all attributes; marked traffic never counts in an unmarked set."""
    attributes = (("service.name", "shop"), ("http.route", "/a"))
    wanted = Wanted(dimensions=(("service.name",), ("service.name", "*")), synthetic=(("service.name",), ("*",), ("absent",)))
    assert dimension_sets(attributes, wanted) == [(("service.name", "shop"),), attributes]
    marked = (*attributes, ("crosswatch.synthetic", "true"))
    assert dimension_sets(marked, wanted) == [(("service.name", "shop"), ("crosswatch.synthetic", "true")), marked]
    assert dimension_sets(attributes, Wanted(dimensions=(("absent",),))) == []


def test_few_classic_series_by_default() -> None:
    """Every series is paid for: a service's requests are one, synthetic ones are counted apart, for all services of a Region."""
    read = read_settings({})
    wanted = Wanted(read.classic_names, read.classic_dimensions, read.classic_synthetic)
    attributes = (("service.name", "shop"), ("http.route", "/a"), ("http.request.method", "GET"))
    assert dimension_sets(attributes, wanted) == [(("service.name", "shop"),)]
    assert dimension_sets((*attributes, ("crosswatch.synthetic", "true")), wanted) == [(("crosswatch.synthetic", "true"),)]


@pytest.mark.parametrize(
    ("scope", "name", "taken"),
    [
        ("opentelemetry.instrumentation.flask", "http.server.request.duration", True),
        ("opentelemetry.instrumentation.flask", "http.server.active_requests", False),
        ("opentelemetry.instrumentation.requests", "http.client.request.duration", True),
        ("shop", "orders", True),
        ("crosswatch_exporters", "crosswatch.exporter.items", False),
    ],
)
def test_which_metrics_are_classic(scope: str, name: str, taken: bool) -> None:
    """Of the instrumentations' metrics those whose names match; all of the service's own."""
    wanted = Wanted(names=("http.server.request.duration", "http.client.*"), skip=frozenset({"crosswatch_exporters"}))
    assert wanted.takes(scope, name) is taken


@pytest.mark.parametrize("value", [";", "a,b;,", "ü", "a b", ":a", "x" * 256, ",".join(f"a{i}" for i in range(31))])
@pytest.mark.parametrize("variable", ["CROSSWATCH_METRIC_DIMENSIONS", "CROSSWATCH_METRIC_SYNTHETIC_DIMENSIONS"])
def test_unusable_dimensions_are_named_with_their_mend(variable: str, value: str) -> None:
    """What CloudWatch does not take as dimensions gives way to the default, and a message says which variable and how to mend it."""
    read = read_settings(HERE | {variable: value})
    assert (read.classic_dimensions, read.classic_synthetic) == ((("service.name",),), (("crosswatch.synthetic",),))
    [problem] = read.problems
    assert problem.variable == variable
    assert "service.name;service.name,http.route" in str(problem)


@pytest.mark.parametrize(
    ("unit", "expected"),
    [("s", ("Seconds", 1)), ("KiBy", ("Bytes", 1024)), ("{request}", ("Count", 1)), ("%", ("Percent", 1)), ("furlong", ("None", 1))],
)
def test_units(unit: str, expected: tuple[str, float]) -> None:
    """CloudWatch's words for OpenTelemetry's units."""
    assert unit_of(unit) == expected


def test_long_texts_full_of_names_take_no_longer_than_their_length() -> None:
    """A megabyte of names without a blank, of quotes that never close, of bare names: each character is looked at once a name."""
    assert SECRETS is not None
    began = time.process_time()
    for text in ("apikey=" * 150_000, 'password="' * 100_000, "password" * 120_000, "token: " * 140_000, "\\" * 1_000_000 + "secret="):
        assert len(SECRETS("body", text)) <= len(text) * 2
    assert time.process_time() - began < 10


def test_rules_of_ones_own() -> None:
    """CROSSWATCH_REDACT_RULES: regular expressions, separated by blanks; a group is what is masked; what is none is named and left out."""
    read = read_settings(HERE | {"CROSSWATCH_REDACT_RULES": r"\bCUST-\d+ iban=(\w+) *("})
    [problem] = read.problems
    assert (problem.variable, problem.value) == ("CROSSWATCH_REDACT_RULES", "*(")
    own = redactor("secrets", frozenset({"customer"}), read.redact_rules)
    assert own is not None
    assert own("body", "CUST-17 paid, iban=DE02 ok, password=x") == f"{MASK} paid, iban={MASK} ok, password={MASK}"
    assert own("customer", "CUST-17") == "CUST-17"


def test_resource_attributes_of_metrics_are_redacted(receiver: Receiver, spool: Path) -> None:
    """As those of spans and records are."""
    with Service({**receiver.environ(), "CROSSWATCH_SPOOL_DIR": str(spool)}) as service:
        service.providers._resource = Resource({"service.name": "shop", "api_key": "S3CRET"})
        service.providers.meters.shutdown()
        service.providers.meters.after_fork()  # a provider of the new resource
        service.meter.create_counter("c").add(1)
        service.collect()
        assert service.flush()
    assert any(metric.name == "c" for metric, _ in receiver.points)
    assert all(b"S3CRET" not in request.body for request in receiver.accepted)


def test_synthetic_traffic_overflows_apart() -> None:
    """Beyond the limit, marked measurements go to a marked series: customers' numbers never contain them."""
    guard = AttributeGuard(3, None)
    marked = baggage.set_baggage("synthetic", "true")
    recorded = [dict(guard({"customer": i}, marked if i % 2 else None)) for i in range(6)]
    assert (
        recorded[2:]
        == [
            {"otel.metric.overflow": True},
            {"otel.metric.overflow": True, "crosswatch.synthetic": True},
        ]
        * 2
    )


@pytest.mark.parametrize(
    ("variables", "variable", "says"),
    [
        ({"OTEL_TRACES_EXPORTER": "console"}, "OTEL_TRACES_EXPORTER", "only otlp and none"),
        ({"OTEL_METRICS_EXPORTER": "otlp,prometheus"}, "OTEL_METRICS_EXPORTER", "prometheus is left out"),
        ({"OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"}, "OTEL_EXPORTER_OTLP_PROTOCOL", "http/protobuf is used"),
        ({"OTEL_EXPORTER_OTLP_LOGS_PROTOCOL": "http/json"}, "OTEL_EXPORTER_OTLP_LOGS_PROTOCOL", "http/protobuf is used"),
        ({"OTEL_BLRP_SCHEDULE_DELAY": "100"}, "OTEL_BLRP_SCHEDULE_DELAY", "CROSSWATCH_TICK_MS"),
        ({"OTEL_BSP_MAX_EXPORT_BATCH_SIZE": "1"}, "OTEL_BSP_MAX_EXPORT_BATCH_SIZE", "has no effect"),
        ({"OTEL_EXPORTER_OTLP_TIMEOUT": "soon"}, "OTEL_EXPORTER_OTLP_TIMEOUT", "give a number"),
        ({"OTEL_EXPORTER_OTLP_LOGS_COMPRESSION": "br"}, "OTEL_EXPORTER_OTLP_LOGS_COMPRESSION", "gzip, none"),
        ({"AWS_REGION": ""}, "AWS_REGION", "traces and logs are not sent"),
        ({"AWS_REGION": "", "OTEL_TRACES_EXPORTER": "none"}, "AWS_REGION", "logs are not sent"),
        ({"HOME": ""}, "CROSSWATCH_SPOOL_DIR", "waits in memory"),
    ],
    ids=lambda value: str(value)[:50],
)
def test_what_is_not_acted_on_is_named(variables: dict[str, str], variable: str, says: str) -> None:
    """A standard variable, or the lack of one, that changes what is sent and how: one problem, with its mend."""
    [problem] = read_settings(HERE | variables).problems
    assert problem.variable == variable
    assert says in str(problem)


@pytest.mark.parametrize(
    "variables",
    [
        {},
        {"OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf", "OTEL_TRACES_EXPORTER": "otlp", "OTEL_LOGS_EXPORTER": "otlp_proto_http"},
        {"AWS_REGION": "", "OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:4318"},
        {"AWS_REGION": "", "OTEL_TRACES_EXPORTER": "none", "OTEL_LOGS_EXPORTER": "none"},
        {"HOME": "", "CROSSWATCH_SPOOL_DIR": "off"},
    ],
    ids=str,
)
def test_what_is_as_it_should_be_is_no_problem(variables: dict[str, str]) -> None:
    """Usual settings cost no line."""
    assert read_settings(HERE | variables).problems == ()


def test_each_signal_may_have_its_own_wire() -> None:
    """Timeout, compression, certificates and queue of one signal win over the common ones."""
    read = read_settings(
        HERE
        | {
            "OTEL_EXPORTER_OTLP_TIMEOUT": "7",
            "OTEL_EXPORTER_OTLP_LOGS_TIMEOUT": "3",
            "OTEL_EXPORTER_OTLP_TRACES_COMPRESSION": "none",
            "OTEL_EXPORTER_OTLP_CERTIFICATE": "/all.pem",
            "OTEL_EXPORTER_OTLP_METRICS_CERTIFICATE": "/metrics.pem",
            "OTEL_EXPORTER_OTLP_TRACES_CLIENT_KEY": "/key.pem",
            "OTEL_BLRP_MAX_QUEUE_SIZE": "5",
        }
    )
    assert read.problems == ()
    assert [read.wires[signal].timeout for signal in ("traces", "logs", "metrics", "")] == [7, 3, 7, 7]
    assert [read.wires[signal].compression for signal in ("traces", "logs", "metrics", "")] == [False, True, True, True]
    assert [read.wires[signal].certificate for signal in ("traces", "metrics")] == ["/all.pem", "/metrics.pem"]
    assert [read.wires[signal].client_key for signal in ("traces", "metrics")] == ["/key.pem", ""]
    assert read.queue_items == {"traces": 16384, "logs": 5}
