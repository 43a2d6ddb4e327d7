"""One measured process of exporters_cpu.py; runs in the environment of the tool it measures and prints one line of JSON."""

from __future__ import annotations

import json
import logging
import os
import sys
import time
from typing import Any

SINK = os.environ["SINK"]
BATCH = 400


def configure(tool: str, signals: tuple[str, ...]) -> Any:  # noqa: C901  # one branch a tool and signal
    """Set the tool up for some signals; returns a function that delivers everything."""
    if tool == "crosswatch":
        for signal in ("traces", "logs", "metrics"):
            if signal in signals:
                os.environ[f"OTEL_EXPORTER_OTLP_{signal.upper()}_ENDPOINT"] = f"{SINK}/v1/{signal}"
            else:
                os.environ[f"OTEL_{signal.upper()}_EXPORTER"] = "none"
        from crosswatch_exporters.configurator import install
        from crosswatch_exporters.settings import read_settings

        lifecycle = install(read_settings())

        def flush() -> None:
            assert lifecycle.flush(30), "not everything was delivered"

        return flush
    from opentelemetry import trace
    from opentelemetry._logs import set_logger_provider
    from opentelemetry.sdk._logs import LoggerProvider
    from opentelemetry.sdk._logs.export import BatchLogRecordProcessor
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult

    resource = Resource.create({"service.name": "bench", "cloud.region": "us-east-1", "service.instance.id": "x", "host.name": "h"})
    flushes = []
    if "traces" in signals:
        provider = TracerProvider(resource=resource)
        if tool == "null":

            class Null(SpanExporter):
                def export(self, spans: Any) -> SpanExportResult:
                    return SpanExportResult.SUCCESS

            exporter: Any = Null()
        elif tool == "otlp":
            from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter

            exporter = OTLPSpanExporter(endpoint=f"{SINK}/v1/traces")
        else:
            from amazon.opentelemetry.distro.exporter.otlp.aws.traces.otlp_aws_span_exporter import OTLPAwsSpanExporter
            from botocore.session import Session

            exporter = OTLPAwsSpanExporter(session=Session(), aws_region="us-east-1", endpoint=f"{SINK}/v1/traces")
        provider.add_span_processor(BatchSpanProcessor(exporter))
        trace.set_tracer_provider(provider)
        flushes.append(provider.force_flush)
    if "logs" in signals:
        loggers = LoggerProvider(resource=resource)
        processor: Any
        if tool == "adot":
            from amazon.opentelemetry.distro.exporter.otlp.aws.logs._aws_cw_otlp_batch_log_record_processor import (
                AwsCloudWatchOtlpBatchLogRecordProcessor,
            )
            from amazon.opentelemetry.distro.exporter.otlp.aws.logs.otlp_aws_log_record_exporter import OTLPAwsLogRecordExporter
            from botocore.session import Session

            processor = AwsCloudWatchOtlpBatchLogRecordProcessor(
                exporter=OTLPAwsLogRecordExporter(session=Session(), aws_region="us-east-1", endpoint=f"{SINK}/v1/logs")
            )
        elif tool == "otlp":
            from opentelemetry.exporter.otlp.proto.http._log_exporter import OTLPLogExporter

            processor = BatchLogRecordProcessor(OTLPLogExporter(endpoint=f"{SINK}/v1/logs"))
        else:
            from opentelemetry.sdk._logs.export import LogRecordExporter, LogRecordExportResult

            class NullLogs(LogRecordExporter):
                def export(self, batch: Any) -> LogRecordExportResult:
                    return LogRecordExportResult.SUCCESS

                def shutdown(self) -> None: ...

                def force_flush(self, timeout_millis: int = 10_000) -> bool:
                    return True

            processor = BatchLogRecordProcessor(NullLogs())
        loggers.add_log_record_processor(processor)
        set_logger_provider(loggers)
        flushes.append(loggers.force_flush)

    if "metrics" in signals:
        flushes.append(_peer_metrics(tool, resource))

    def flush_all() -> None:
        for flush in flushes:
            flush()

    return flush_all


def _peer_metrics(tool: str, resource: Any) -> Any:
    """A meter provider that exports over OTLP, or nowhere; returns its flush."""
    from opentelemetry import metrics
    from opentelemetry.sdk.metrics import MeterProvider
    from opentelemetry.sdk.metrics.export import InMemoryMetricReader, MetricReader, PeriodicExportingMetricReader

    reader: MetricReader = InMemoryMetricReader()
    if tool == "otlp":
        from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter

        reader = PeriodicExportingMetricReader(OTLPMetricExporter(endpoint=f"{SINK}/v1/metrics"))
    metrics.set_meter_provider(MeterProvider([reader], resource=resource))
    return lambda: None


def spans(tool: str, items: int) -> float:
    """A server span with 8 attributes and in it a client span with 6, again and again; attributes are given as instrumentations give
    them."""
    if tool == "xray":
        return _xray_spans(items)
    flush = configure(tool, ("traces",))
    from opentelemetry import trace
    from opentelemetry.trace import SpanKind

    tracer = trace.get_tracer("bench", "1.0")

    def unit(i: int) -> None:
        server = {
            "http.request.method": "GET",
            "url.path": f"/catalogue/{i % 1000}",
            "url.scheme": "http",
            "server.address": "store.retail.test",
            "client.address": "10.0.0.1",
            "user_agent.original": "Mozilla/5.0 (X11; Linux x86_64)",
        }
        with tracer.start_as_current_span("GET /catalogue/{id}", kind=SpanKind.SERVER, attributes=server) as span:
            client = {
                "db.system.name": "postgresql",
                "db.namespace": "catalog",
                "db.query.text": "SELECT id, name, price FROM product WHERE id = %s",
                "db.operation.name": "SELECT",
                "server.address": "catalog.cluster-ro.us-east-1.rds.amazonaws.com",
                "server.port": 5432,
            }
            with tracer.start_as_current_span("SELECT catalog", kind=SpanKind.CLIENT, attributes=client):
                pass
            span.set_attribute("http.route", "/catalogue/{id}")
            span.set_attribute("http.response.status_code", 200)

    return _timed(unit, items, 2, flush)


def _xray_spans(items: int) -> float:
    from aws_xray_sdk.core import xray_recorder

    xray_recorder.configure(service="bench", sampling=False, context_missing="LOG_ERROR")

    def unit(i: int) -> None:
        segment = xray_recorder.begin_segment("bench")
        segment.put_http_meta("method", "GET")
        segment.put_http_meta("url", f"/catalogue/{i % 1000}")
        segment.put_annotation("scheme", "http")
        segment.put_annotation("server_address", "store.retail.test")
        segment.put_http_meta("client_ip", "10.0.0.1")
        segment.put_http_meta("user_agent", "Mozilla/5.0 (X11; Linux x86_64)")
        sub = xray_recorder.begin_subsegment("SELECT catalog", namespace="remote")
        sub.put_annotation("system", "postgresql")
        sub.put_annotation("namespace", "catalog")
        sub.put_annotation("text", "SELECT id, name, price FROM product WHERE id = %s")
        sub.put_annotation("operation", "SELECT")
        sub.put_annotation("address", "catalog.cluster-ro.us-east-1.rds.amazonaws.com")
        sub.put_annotation("port", 5432)
        xray_recorder.end_subsegment()
        segment.put_annotation("route", "/catalogue/{id}")
        segment.put_http_meta("status", 200)
        xray_recorder.end_segment()

    return _timed(unit, items, 2, lambda: None)


def logs(tool: str, items: int) -> float:
    """Log records of 2 KB through the standard library's logging."""
    flush = configure(tool, ("logs",))
    try:
        from opentelemetry.instrumentation.logging.handler import LoggingHandler
    except ImportError:
        from opentelemetry.sdk._logs import LoggingHandler
    logger = logging.getLogger("bench")
    logger.setLevel(logging.INFO)
    logger.propagate = False
    logger.addHandler(LoggingHandler())
    tail = " ".join(f"field{i}=value-{i * 7919 % 1000}" for i in range(95))
    return _timed(lambda i: logger.info("order %d placed %s", i, tail), items, 1, flush)


def requests(tool: str, items: int) -> float:
    """Requests to a Flask application in the same process, through its WSGI interface; traces and metrics (aws-xray-sdk has no metrics)."""
    import flask

    flush: Any = lambda: None  # noqa: E731
    if tool == "xray":
        from aws_xray_sdk.core import xray_recorder
        from aws_xray_sdk.ext.flask.middleware import XRayMiddleware

        xray_recorder.configure(service="bench", sampling=False)
        application = flask.Flask("bench")
        XRayMiddleware(application, xray_recorder)
    else:
        flush = configure(tool, ("traces", "metrics"))
        from opentelemetry.instrumentation.flask import FlaskInstrumentor

        application = flask.Flask("bench")
        FlaskInstrumentor().instrument_app(application)

    @application.route("/catalogue/<identifier>")
    def product(identifier: str) -> str:
        return identifier

    environ = {
        "REQUEST_METHOD": "GET", "SERVER_NAME": "store", "SERVER_PORT": "80", "wsgi.url_scheme": "http", "SERVER_PROTOCOL": "HTTP/1.1",
        "HTTP_HOST": "store", "HTTP_USER_AGENT": "bench", "REMOTE_ADDR": "10.0.0.1", "wsgi.version": (1, 0), "wsgi.errors": sys.stderr,
        "wsgi.multithread": True, "wsgi.multiprocess": False, "wsgi.run_once": False, "QUERY_STRING": "",
    }  # fmt: skip

    def unit(i: int) -> None:
        import io

        result = application.wsgi_app(
            {**environ, "PATH_INFO": f"/catalogue/{i % 100}", "wsgi.input": io.BytesIO()}, lambda *a, **k: lambda b: None
        )
        b"".join(result)
        close = getattr(result, "close", None)
        if close:
            close()

    return _timed(unit, items, 1, flush)


def _timed(unit: Any, items: int, each: int, flush: Any) -> float:
    """Microseconds of CPU an item; everything is delivered after each 400, so that nobody drops anything."""
    for i in range(200):
        unit(i)
    flush()
    start = time.process_time()
    for i in range(items // each):
        unit(i)
        if (i + 1) % (BATCH // each) == 0:
            flush()
    flush()
    return (time.process_time() - start) / items * 1e6


def import_time(tool: str) -> float:
    """Milliseconds of CPU to import what opentelemetry-instrument loads of the tool: distro, configurator, exporters."""
    start = time.process_time()
    if tool == "crosswatch":
        from crosswatch_exporters.configurator import CrosswatchConfigurator
        from crosswatch_exporters.distro import CrosswatchDistro

        loaded: list[Any] = [CrosswatchConfigurator, CrosswatchDistro]
    elif tool == "adot":
        from amazon.opentelemetry.distro.aws_opentelemetry_configurator import AwsOpenTelemetryConfigurator
        from amazon.opentelemetry.distro.aws_opentelemetry_distro import AwsOpenTelemetryDistro

        loaded = [AwsOpenTelemetryConfigurator, AwsOpenTelemetryDistro]
    elif tool == "otlp":
        from opentelemetry.distro import OpenTelemetryConfigurator, OpenTelemetryDistro
        from opentelemetry.exporter.otlp.proto.http._log_exporter import OTLPLogExporter
        from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter

        loaded = [OpenTelemetryConfigurator, OpenTelemetryDistro, OTLPLogExporter, OTLPMetricExporter, OTLPSpanExporter]
    else:
        import aws_xray_sdk.core

        loaded = [aws_xray_sdk.core.xray_recorder]
    assert loaded
    return (time.process_time() - start) * 1000


if __name__ == "__main__":
    what, name, number = sys.argv[1], sys.argv[2], int(sys.argv[3])
    if what == "import":
        print(json.dumps({"ms": import_time(name)}), flush=True)
    else:
        print(json.dumps({"us_per_item": {"spans": spans, "logs": logs, "requests": requests}[what](name, number)}), flush=True)
    os._exit(0)
