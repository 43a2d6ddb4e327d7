"""Signatures, credentials and endpoints, compared with botocore; delivery to moto, which checks what AWS checks."""

from __future__ import annotations

import datetime as dt
import json
import subprocess
import sys
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread
from typing import Any
from urllib.request import urlopen

import boto3
import pytest
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials as BotoCredentials
from crosswatch_exporters.aws.credentials import CredentialProvider, find_credentials
from crosswatch_exporters.aws.sigv4 import Credentials, Signer
from crosswatch_exporters.endpoints import aws_service_of, aws_url
from crosswatch_exporters.settings import read_settings
from hypothesis import given, settings
from hypothesis import strategies as st
from instrumented import BIN, Service
from receiver import Answer, Receiver, Request

token = st.text("abcdefghijklmnopqrstuvwxyzABCDEFG0123456789+/=", min_size=8, max_size=40)


@settings(max_examples=200, deadline=None)
@given(
    keys=st.tuples(token, token, st.one_of(st.just(""), token)),
    headers=st.dictionaries(
        st.sampled_from(["content-type", "x-aws-log-group", "x-aws-log-stream", "content-encoding", "x-amz-target", "user-agent"]),
        st.text("abc/ -_.0", min_size=1, max_size=30).filter(lambda text: text.strip()),
    ),
    body=st.binary(max_size=200),
    query=st.lists(
        st.tuples(st.text("ab c/é", min_size=1, max_size=5), st.text("x=y&+ ", max_size=5)), max_size=3, unique_by=lambda pair: pair[0]
    ),
)
def test_signatures_equal_botocores(keys: tuple[str, str, str], headers: dict[str, str], body: bytes, query: list[tuple[str, str]]) -> None:
    """Any keys, headers, query and body: the signature is the one botocore computes at the same second."""
    from unittest import mock
    from urllib.parse import quote, urlencode

    url = "https://xray.us-east-1.amazonaws.com/v1/traces" + (f"?{urlencode(query, quote_via=quote)}" if query else "")
    now = 1_790_000_000
    request = AWSRequest("POST", url, headers=dict(headers), data=body)
    fixed = dt.datetime.fromtimestamp(now, dt.UTC)
    with mock.patch(
        "botocore.auth.get_current_datetime", lambda remove_tzinfo=True: fixed.replace(tzinfo=None) if remove_tzinfo else fixed
    ):
        SigV4Auth(BotoCredentials(keys[0], keys[1], keys[2] or None), "xray", "us-east-1").add_auth(request)
    ours = Signer("xray", "us-east-1").sign(Credentials(*keys), "POST", url, headers, body, now)
    assert ours["authorization"] == request.headers["Authorization"]


@pytest.mark.parametrize(
    ("url", "found"),
    [
        ("https://xray.us-east-1.amazonaws.com/v1/traces", ("xray", "us-east-1")),
        ("https://logs.us-gov-west-1.amazonaws.com/v1/logs", ("logs", "us-gov-west-1")),
        ("https://monitoring.cn-north-1.amazonaws.com.cn/v1/metrics", ("monitoring", "cn-north-1")),
        ("https://vpce-0a1-b2c.xray.us-east-1.vpce.amazonaws.com/v1/traces", ("xray", "us-east-1")),
        ("https://logs.eu-west-1.api.aws/v1/logs", ("logs", "eu-west-1")),
        ("http://localhost:4318/v1/traces", None),
        ("https://xray.us-east-1.amazonaws.com.evil.test/v1/traces", None),
        ("https://evil-xray.us-east-1.amazonaws.com/v1/traces", None),
    ],
)
def test_aws_endpoints_are_told_from_others(url: str, found: tuple[str, str] | None) -> None:
    """Only AWS's hosts, with their service and Region, are signed by themselves."""
    assert aws_service_of(url) == found


def test_endpoints_are_found_as_the_sdks_find_them() -> None:
    """AWS_ENDPOINT_URL_<SERVICE>, AWS_ENDPOINT_URL, then the public endpoint."""
    assert aws_url("logs", "us-east-1", {}) == "https://logs.us-east-1.amazonaws.com"
    assert aws_url("monitoring", "us-east-1", {"AWS_ENDPOINT_URL": "http://a"}) == "http://a"
    assert aws_url("monitoring", "us-east-1", {"AWS_ENDPOINT_URL": "http://a", "AWS_ENDPOINT_URL_CLOUDWATCH": "http://b/"}) == "http://b"
    assert aws_url("logs", "us-east-1", {"AWS_ENDPOINT_URL_LOGS": "http://c"}) == "http://c"


class Metadata:
    """A credentials endpoint as ECS has it; each answer's keys are numbered and live `lifetime` seconds."""

    def __init__(self, lifetime: float) -> None:
        self.asked = 0
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                outer.asked += 1
                expires = dt.datetime.now(dt.UTC) + dt.timedelta(seconds=lifetime)
                body = json.dumps(
                    {
                        "AccessKeyId": f"AKID{outer.asked}",
                        "SecretAccessKey": "s",
                        "Token": f"{self.headers['Authorization']}",
                        "Expiration": expires.strftime("%Y-%m-%dT%H:%M:%SZ"),
                    }
                ).encode()
                self.send_response(200)
                self.send_header("content-length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *arguments: Any) -> None: ...

        self._server = HTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}/creds"

    def __enter__(self) -> Metadata:
        Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()
        return self

    def __exit__(self, *error: object) -> None:
        self._server.shutdown()
        self._server.server_close()


def test_credentials_of_a_container_are_renewed() -> None:
    """Keys that soon expire are asked for again, with the authorization token; keys that live long are kept."""
    with Metadata(lifetime=3600) as metadata:
        provider = CredentialProvider({"AWS_CONTAINER_CREDENTIALS_FULL_URI": metadata.url, "AWS_CONTAINER_AUTHORIZATION_TOKEN": "secret"})
        first = provider.get()
        assert first is not None
        assert (first.access_key, first.token) == ("AKID1", "secret")
        assert provider.get() is first
        provider.forget()
        provider._ask_again_at = 0
        second = provider.get()
        assert second is not None
        assert second.access_key == "AKID2"


def test_credentials_from_shared_files(tmp_path: Path) -> None:
    """The profile that AWS_PROFILE names."""
    (tmp_path / "c").write_text(
        "[default]\naws_access_key_id=D\naws_secret_access_key=E\n[x]\naws_access_key_id=A\naws_secret_access_key=B\n"
    )
    environ = {"AWS_SHARED_CREDENTIALS_FILE": str(tmp_path / "c"), "AWS_CONFIG_FILE": str(tmp_path / "none"), "HOME": str(tmp_path)}
    assert find_credentials(environ) == Credentials("D", "E")
    assert find_credentials(environ | {"AWS_PROFILE": "x"}) == Credentials("A", "B")


def test_nothing_goes_unsigned_to_aws(receiver: Receiver, spool: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where signing is asked for and there are no credentials, items wait; once there are some, they are sent signed."""
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(spool.parent))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    with Service({**receiver.environ(), "CROSSWATCH_SPOOL_DIR": str(spool), "CROSSWATCH_SIGV4": "always"}) as service:
        service.spans(10)
        assert not service.flush(1.0)
        assert receiver.requests == []
        assert service.balances()["traces"].spooled == 10
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIDEXAMPLE")
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
        assert receiver.wait_for(lambda: len(receiver.spans) == 10, 15)
    assert "Credential=AKIDEXAMPLE/" in receiver.requests[0].headers["authorization"]
    assert "/us-east-1/xray/aws4_request" in receiver.requests[0].headers["authorization"]


def test_a_wrong_clock_is_corrected(receiver: Receiver, spool: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A service whose clock is two hours ahead refuses the first signature; the second is made with its time, at once."""
    from email.utils import formatdate

    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIDEXAMPLE")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    ahead = time.time() + 7200

    def strict(request: Request) -> Answer | None:
        signed = dt.datetime.strptime(request.headers["x-amz-date"], "%Y%m%dT%H%M%SZ").replace(tzinfo=dt.UTC).timestamp()
        if abs(signed - ahead) < 300:
            return None
        return Answer(403, headers={"Date": formatdate(ahead, usegmt=True)}, body=b"Signature expired: ...")

    receiver.fault = strict
    with Service({**receiver.environ("traces"), "CROSSWATCH_SPOOL_DIR": str(spool), "CROSSWATCH_SIGV4": "always"}) as service:
        service.spans(10)
        assert service.flush(5)
    assert len(receiver.spans) == 10
    assert len(receiver.requests) == 2


def test_logs_carry_group_and_stream(receiver: Receiver, spool: Path) -> None:
    """From the variable that names headers."""
    headers = "x-aws-log-group=/ecs/shop,x-aws-log-stream=web%2F1"
    with Service({**receiver.environ("logs"), "CROSSWATCH_SPOOL_DIR": str(spool), "OTEL_EXPORTER_OTLP_LOGS_HEADERS": headers}) as service:
        service.logs(1)
        assert service.flush()
    assert receiver.requests[0].headers["x-aws-log-group"] == "/ecs/shop"
    assert receiver.requests[0].headers["x-aws-log-stream"] == "web/1"


def test_bad_settings_are_named_and_replaced() -> None:
    """Every problem at once, each with its variable, value and mend; the service runs on with defaults."""
    settings_ = read_settings(
        {
            "AWS_REGION": "us-east-1",
            "HOME": "/home/shop",
            "CROSSWATCH_SIGV4": "perhaps",
            "CROSSWATCH_SPOOL_MAX_BYTES": "lots",
            "OTEL_TRACES_SAMPLER_ARG": "7",
            "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "localhost:4318",
        }
    )
    assert {problem.variable for problem in settings_.problems} == {
        "CROSSWATCH_SIGV4",
        "CROSSWATCH_SPOOL_MAX_BYTES",
        "OTEL_TRACES_SAMPLER_ARG",
        "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT",
    }
    assert "auto, always, never" in str(settings_.problems[0])
    assert "traces" not in settings_.routes
    assert settings_.sigv4 == "auto"


@pytest.fixture(scope="module")
def moto() -> Iterator[str]:
    """moto's server, on a port of its own choice."""
    process = subprocess.Popen(
        [sys.executable, "-c", "import sys; from moto.server import main; sys.exit(main(['-H','127.0.0.1','-p','0']))"],
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stderr is not None
        url = next(line.rsplit("http://", 1)[1].split()[0] for line in process.stderr if "http://127" in line)
        Thread(target=process.stderr.read, daemon=True).start()
        with urlopen(f"http://{url}/moto-api/", timeout=20):
            pass
        yield f"http://{url}"
    finally:
        process.terminate()
        process.wait()


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["emf", "putmetricdata"])
def test_moto_understands_classic_metrics(moto: str, spool: Path, monkeypatch: pytest.MonkeyPatch, mode: str) -> None:
    """PutLogEvents into a group that did not exist, and PutMetricData with exact count, sum, minimum and maximum, marked traffic apart."""
    for name, value in {
        "AWS_ACCESS_KEY_ID": "a",
        "AWS_SECRET_ACCESS_KEY": "b",
        "AWS_ENDPOINT_URL": moto,
        "AWS_DEFAULT_REGION": "us-east-1",
    }.items():
        monkeypatch.setenv(name, value)
    environ = {
        "OTEL_TRACES_EXPORTER": "none",
        "OTEL_LOGS_EXPORTER": "none",
        "CROSSWATCH_CLASSIC_METRICS": mode,
        "CROSSWATCH_METRIC_DIMENSIONS": "service.name;service.name,*",
        "CROSSWATCH_SPOOL_DIR": str(spool),
    }
    with Service(environ) as service:
        histogram = service.meter.create_histogram(f"latency.{mode}", "ms")
        for i in range(1, 101):
            histogram.record(i, {"http.route": "/a"})
        if mode == "emf":  # moto adds up every series whose dimensions include the asked ones
            histogram.record(5000, {"http.route": "/a", "crosswatch.synthetic": True})
    if mode == "emf":
        events = boto3.client("logs").get_log_events(logGroupName="/crosswatch/metrics/shop", logStreamName="default")["events"]
        documents = [json.loads(event["message"]) for event in events]
        [real] = [document for document in documents if "crosswatch.synthetic" not in document]
        assert sorted(real["_aws"]["CloudWatchMetrics"][0]["Dimensions"]) == [["service.name"], ["service.name", "http.route"]]
        assert sum(real["latency.emf"]) == pytest.approx(5050)
        [marked] = [document for document in documents if "crosswatch.synthetic" in document]
        assert marked["_aws"]["CloudWatchMetrics"][0]["Dimensions"] == [["crosswatch.synthetic"]]
        return
    now = dt.datetime.now(dt.UTC)
    [found] = boto3.client("cloudwatch").get_metric_statistics(
        Namespace="Crosswatch/Services",
        MetricName="latency.putmetricdata",
        Dimensions=[{"Name": "service.name", "Value": "shop"}, {"Name": "http.route", "Value": "/a"}],
        StartTime=now - dt.timedelta(hours=1),
        EndTime=now + dt.timedelta(hours=1),
        Period=86400,
        Statistics=["Sum", "SampleCount", "Minimum", "Maximum"],
    )["Datapoints"]
    assert (found["SampleCount"], found["Minimum"], found["Maximum"], found["Unit"]) == (100, 1, 100, "Milliseconds")
    assert found["Sum"] == pytest.approx(5050)


def test_what_a_flask_service_pays_for(receiver: Receiver, spool: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of all that the instrumentation measures, one series a service goes out, one of synthetic requests, and the service's own metrics."""
    import flask
    from opentelemetry.instrumentation.flask import FlaskInstrumentor

    for name, value in {
        "AWS_ACCESS_KEY_ID": "a",
        "AWS_SECRET_ACCESS_KEY": "b",
        "AWS_ENDPOINT_URL": f"http://127.0.0.1:{receiver.port}",
    }.items():
        monkeypatch.setenv(name, value)
    application = flask.Flask("shop")
    environ = {"OTEL_TRACES_EXPORTER": "none", "OTEL_LOGS_EXPORTER": "none", "CROSSWATCH_CLASSIC_METRICS": "emf"}
    with Service(environ | {"CROSSWATCH_SPOOL_DIR": str(spool)}) as service:
        orders = service.meter.create_counter("orders")

        @application.route("/orders/<identifier>")
        def order(identifier: str) -> str:
            orders.add(1)
            return identifier

        instrumentor = FlaskInstrumentor()
        instrumentor.instrument_app(application, tracer_provider=service.providers.tracers, meter_provider=service.providers.meters)
        try:
            client = application.test_client()
            for path in ("/orders/1", "/orders/2", "/nowhere"):
                client.get(path)
            client.get("/orders/3", headers={"baggage": "crosswatch.synthetic=true"})
        finally:
            instrumentor.uninstrument_app(application)
    series = set()
    for request in receiver.accepted:
        for event in json.loads(request.body)["logEvents"]:
            document = json.loads(event["message"])
            for directive in document["_aws"]["CloudWatchMetrics"]:
                for metric in directive["Metrics"]:
                    series |= {(metric["Name"], tuple((name, document[name]) for name in names)) for names in directive["Dimensions"]}
    assert receiver.violations == []
    customers, synthetic = (("service.name", "shop"),), (("crosswatch.synthetic", "true"),)
    duration = next(name for name, _ in series if name.startswith("http.server"))
    assert series == {(duration, customers), (duration, synthetic), ("orders", customers), ("orders", synthetic)}


@pytest.mark.slow
def test_moto_takes_trace_segments(moto: str, spool: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """PutTraceSegments, signed; the trace can be read back."""
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "a")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "b")
    environ = {
        "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": f"{moto}/v1/traces",
        "CROSSWATCH_TRACES": "segments",
        "CROSSWATCH_SPOOL_DIR": str(spool),
    }
    with Service(environ) as service:
        with service.tracer.start_as_current_span("op") as span:
            trace_id = f"{span.get_span_context().trace_id:032x}"
        assert service.flush()
    client = boto3.client("xray", endpoint_url=moto, region_name="us-east-1")
    [trace] = client.batch_get_traces(TraceIds=[f"1-{trace_id[:8]}-{trace_id[8:]}"])["Traces"]
    assert json.loads(trace["Segments"][0]["Document"])["name"] == "shop"


@pytest.mark.slow
def test_rotel_understands_all_signals(tmp_path: Path) -> None:
    """rotel, an OTLP receiver of somebody else's making, decodes traces, logs and metrics with every kind of instrument."""
    import socket

    import rotel

    agent = Path(rotel.__file__).parent / "rotel-agent"
    with socket.socket() as first, socket.socket() as second:
        first.bind(("127.0.0.1", 0))
        second.bind(("127.0.0.1", 0))
        http, grpc = first.getsockname()[1], second.getsockname()[1]
    log = tmp_path / "rotel.log"
    command = [
        str(agent),
        "start",
        "--otlp-http-endpoint",
        f"127.0.0.1:{http}",
        "--otlp-grpc-endpoint",
        f"127.0.0.1:{grpc}",
        "--exporter",
        "blackhole",
        "--debug-log",
        "traces",
        "--debug-log",
        "metrics",
        "--debug-log",
        "logs",
        "--debug-log-verbosity",
        "detailed",
    ]
    with log.open("w") as out, subprocess.Popen(command, stdout=out, stderr=subprocess.STDOUT) as process:
        try:
            for _ in range(100):
                with socket.socket() as probe:
                    if probe.connect_ex(("127.0.0.1", http)) == 0:
                        break
                time.sleep(0.1)
            base = f"http://127.0.0.1:{http}"
            histogram = "base2_exponential_bucket_histogram"
            environ = {
                "OTEL_EXPORTER_OTLP_ENDPOINT": base,
                "CROSSWATCH_SPOOL_DIR": str(tmp_path / "spool"),
                "OTEL_EXPORTER_OTLP_METRICS_DEFAULT_HISTOGRAM_AGGREGATION": histogram,
            }
            with Service(environ) as service:
                with service.tracer.start_as_current_span("a span of ours", attributes={"answer": 42, "list": ["a", "b"]}) as span:
                    span.add_event("an event of ours")
                    service.logs(1, "a record of ours")
                    service.meter.create_counter("ours.counter", "By").add(7, {"k": "v"})
                    service.meter.create_histogram("ours.histogram").record(3.5)
                assert service.flush()
            time.sleep(0.5)
        finally:
            process.terminate()
            process.wait()
    text = log.read_text()
    for expected in ("a span of ours", "an event of ours", "a record of ours", "ours.counter", "ours.histogram", "answer"):
        assert expected in text
    assert "rror" not in text.replace("error_", "")


def test_the_command_is_installed() -> None:
    """`crosswatch-spool` comes with the distribution."""
    assert (BIN / "crosswatch-spool").exists()
