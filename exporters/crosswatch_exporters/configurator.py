"""What `OTEL_PYTHON_CONFIGURATOR=crosswatch` does: read the environment and put the parts together.

    traces   -> SpanIntake -> SpanPacker   -> queue -> Sender -> X-Ray OTLP endpoint or a collector
    logs     -> LogIntake  -> LogPacker    -> queue -> Sender -> CloudWatch Logs OTLP endpoint or a collector
    metrics  -> ScheduledReader -> MetricPacker -> queue -> Sender -> CloudWatch OTLP endpoint or a collector
             -> ScheduledReader (delta) -> EmfPacker or MetricDataPacker -> queue -> Sender -> PutLogEvents or PutMetricData
"""

import logging
import os
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from opentelemetry import metrics, propagate, trace
from opentelemetry._logs import set_logger_provider
from opentelemetry.sdk._logs import LoggerProvider
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider

from crosswatch_exporters.aws.credentials import CredentialProvider
from crosswatch_exporters.blocks import LOG_LIMITS, METRIC_LIMITS, TRACE_LIMITS
from crosswatch_exporters.destinations import Destination, Otlp
from crosswatch_exporters.endpoint import Endpoint, open_endpoint
from crosswatch_exporters.endpoints import Route, aws_service_of
from crosswatch_exporters.guards.meters import GuardedMeterProvider
from crosswatch_exporters.guards.redaction import redactor
from crosswatch_exporters.guards.sampling import sampler_from
from crosswatch_exporters.health import Breaker
from crosswatch_exporters.intake import Intake, LogIntake, SpanIntake
from crosswatch_exporters.ledger import Account, Ledger
from crosswatch_exporters.lifecycle import Lifecycle
from crosswatch_exporters.metrics import MetricStore, ScheduledReader
from crosswatch_exporters.packing import LogPacker, MetricPacker, Pack, SpanPacker
from crosswatch_exporters.pipeline import Pipeline
from crosswatch_exporters.queues import BlockQueue, MemoryQueue
from crosswatch_exporters.resource import log_group_of, make_resource
from crosswatch_exporters.sender import Sender
from crosswatch_exporters.settings import Settings, read_settings

log = logging.getLogger(__name__)

# The other Region gets the traffic back to the own one only after this many probes in a row, over at least so many seconds.
_HYSTERESIS_PROBES = 3
_HYSTERESIS_SECONDS = 30.0


class CrosswatchConfigurator:
    """The configurator entry point. One instance is made, and `configure` called once, by opentelemetry-instrument."""

    def configure(self, **kwargs: Any) -> None:
        """Configure the process from its environment, unless OTEL_SDK_DISABLED is true."""
        if os.environ.get("OTEL_SDK_DISABLED", "").strip().lower() != "true":
            install(read_settings())


def install(settings: Settings) -> Lifecycle:
    """Make this process's telemetry go where `settings` say. Returns what flushes and closes it."""
    for problem in settings.problems:
        log.warning("%s", problem)
    resource = make_resource(settings)
    settings = _with_log_headers(settings, resource)
    assembly = _Assembly(settings)
    propagate.set_global_textmap(_propagator(settings))
    redact = redactor(settings.redact, settings.redact_allow)
    flush = lambda timeout: assembly.pipeline.flush(timeout)  # noqa: E731  # bound late: the pipeline is complete only below

    tracer_provider = TracerProvider(
        sampler=sampler_from(settings.sampler, settings.sampler_argument, settings.asgi_event_spans), resource=resource, shutdown_on_exit=False
    )
    logger_provider = LoggerProvider(resource=resource, shutdown_on_exit=False)
    if "traces" in settings.routes:
        put = assembly.intake(Otlp("traces", TRACE_LIMITS), SpanPacker(TRACE_LIMITS, redact))
        tracer_provider.add_span_processor(SpanIntake(put, flush))
    if "logs" in settings.routes:
        put = assembly.intake(Otlp("logs", LOG_LIMITS), LogPacker(LOG_LIMITS, redact))
        logger_provider.add_log_record_processor(LogIntake(put, flush))
    readers: list[Callable[[], ScheduledReader]] = []
    if "metrics" in settings.routes:
        store = assembly.store(Otlp("metrics", METRIC_LIMITS), MetricPacker(METRIC_LIMITS))
        exponential = settings.histogram == "base2_exponential_bucket_histogram"
        readers.append(lambda: ScheduledReader(store, settings.metric_interval, settings.temporality, exponential))
    if settings.classic != "off":
        from crosswatch_exporters.classic.install import classic_lane

        destination, packer, route = classic_lane(settings)
        classic_store = assembly.store(destination, packer, route)
        readers.append(lambda: ScheduledReader(classic_store, settings.metric_interval, "delta", exponential=True))

    def make_meters() -> MeterProvider:
        return MeterProvider([make() for make in readers], resource=lifecycle.resource, shutdown_on_exit=False)

    lifecycle = Lifecycle(assembly.build(), resource, settings.shutdown_timeout)
    meter_provider = GuardedMeterProvider(make_meters, settings.cardinality_limit, redact)
    lifecycle.adopt(tracer_provider, meter_provider, assembly.credentials)
    metrics.set_meter_provider(meter_provider)
    trace.set_tracer_provider(tracer_provider)
    set_logger_provider(logger_provider)
    lifecycle.start()
    return lifecycle


class _Assembly:
    """Makes queue, sender and endpoints for each destination."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self.ledger = Ledger()
        self.credentials = CredentialProvider()
        self._intakes: dict[str, Intake] = {}
        self._senders: dict[str, Sender] = {}
        self.pipeline: Pipeline

    def intake(self, destination: Destination, pack: Pack) -> Callable[[Any], None]:
        """A signal whose items arrive one by one; returns what takes them."""
        account, queue, sender = self._lane(destination, None)
        self._intakes[destination.name] = intake = Intake(account, pack, queue, sender.notify, self._settings.queue_items)
        return intake.put

    def store(self, destination: Destination, pack: Pack, route: Route | None = None) -> MetricStore:
        """A signal whose items are collected; returns what takes collections."""
        account, queue, sender = self._lane(destination, route)
        return MetricStore(account, pack, queue, sender.notify)

    def build(self) -> Pipeline:
        """The pipeline of all that was made."""
        self.pipeline = Pipeline(self.ledger, self._intakes, self._senders, self._settings.tick)
        return self.pipeline

    def _lane(self, destination: Destination, route: Route | None) -> tuple[Account, BlockQueue, Sender]:
        account = self.ledger.account(destination.name)
        queue = MemoryQueue(account, self._settings.spool_max_bytes // 4)
        sender = Sender(destination, queue, account, self._endpoints(destination.name, route))
        self._senders[destination.name] = sender
        return account, queue, sender

    def _endpoints(self, name: str, route: Route | None) -> list[Endpoint]:
        settings = self._settings
        own = route or settings.routes[name]
        other = settings.failover_routes.get(name)
        breaker = Breaker(successes_to_close=_HYSTERESIS_PROBES, open_at_least=_HYSTERESIS_SECONDS) if other else Breaker()
        endpoints = [open_endpoint(name, own, settings, self.credentials, breaker)]
        if other:
            endpoints.append(open_endpoint(name, other, settings, self.credentials, Breaker()))
        return endpoints


def _with_log_headers(settings: Settings, resource: Resource) -> Settings:
    """CloudWatch Logs wants to be told the log group and stream; without a group there is no log signal."""
    if "logs" not in settings.routes:
        return settings
    group = log_group_of(resource)

    def completed(route: Route) -> Route:
        headers = {**({"x-aws-log-group": group} if group else {}), **route.headers}
        return replace(route, headers={"x-aws-log-stream": settings.service, **headers} if "x-aws-log-group" in headers else headers)

    routes = {**settings.routes, "logs": completed(settings.routes["logs"])}
    failover = {**settings.failover_routes}
    if "logs" in failover:
        failover["logs"] = completed(failover["logs"])
    if aws_service_of(routes["logs"].url) and "x-aws-log-group" not in routes["logs"].headers:
        log.warning(
            "logs are not sent: CloudWatch Logs needs a log group; set OTEL_EXPORTER_OTLP_LOGS_HEADERS=x-aws-log-group=<name>,x-aws-log-stream=<name>"
        )
        del routes["logs"]
    return replace(settings, routes=routes, failover_routes=failover)


def _propagator(settings: Settings) -> Any:
    """The composite of OTEL_PROPAGATORS, made here because the API reads the variable before a distro can set its default."""
    from opentelemetry.baggage.propagation import W3CBaggagePropagator
    from opentelemetry.propagators.composite import CompositePropagator
    from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
    from opentelemetry.util._importlib_metadata import entry_points

    known: Mapping[str, Callable[[], Any]] = {"tracecontext": TraceContextTextMapPropagator, "baggage": W3CBaggagePropagator}
    chosen = []
    for name in settings.propagators:
        if name in known:
            chosen.append(known[name]())
        elif name != "none":
            found = next(iter(entry_points(group="opentelemetry_propagator", name=name)), None)
            if found is None:
                log.warning("OTEL_PROPAGATORS: there is no propagator named %r; it is left out", name)
            else:
                chosen.append(found.load()())
    # A W3C parent is more exact than an X-Ray header that a load balancer added, so it is extracted last, which wins.
    chosen.sort(key=lambda propagator: isinstance(propagator, TraceContextTextMapPropagator))
    return CompositePropagator(chosen)
