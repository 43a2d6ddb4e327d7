"""What `OTEL_PYTHON_CONFIGURATOR=crosswatch` does: read the environment and put the parts together.

traces   -> SpanIntake -> SpanPacker   -> queue -> Sender -> X-Ray OTLP endpoint or a collector
logs     -> LogIntake  -> LogPacker    -> queue -> Sender -> CloudWatch Logs OTLP endpoint or a collector
metrics  -> ScheduledReader -> MetricPacker -> queue -> Sender -> CloudWatch OTLP endpoint or a collector
         -> ScheduledReader (delta) -> EmfPacker or MetricDataPacker -> queue -> Sender -> PutLogEvents or PutMetricData
"""

import logging
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from opentelemetry import metrics, propagate, trace
from opentelemetry._logs import set_logger_provider
from opentelemetry.metrics import NoOpMeterProvider
from opentelemetry.sdk.resources import Resource

from crosswatch_exporters.aws.credentials import CredentialProvider
from crosswatch_exporters.blocks import LOG_LIMITS, MAX_LABELS, METRIC_LIMITS, TRACE_LIMITS, Limits
from crosswatch_exporters.destinations import Destination, Otlp
from crosswatch_exporters.endpoint import Endpoint, open_endpoint
from crosswatch_exporters.endpoints import Route, aws_service_of
from crosswatch_exporters.guards.meters import GuardedMeterProvider
from crosswatch_exporters.guards.redaction import redactor
from crosswatch_exporters.guards.sampling import sampler_from
from crosswatch_exporters.health import Breaker
from crosswatch_exporters.intake import Intake, LogIntake, Packer, SpanIntake
from crosswatch_exporters.journal.recovery import Recovery
from crosswatch_exporters.journal.spool import Spool, UnsafeSpool
from crosswatch_exporters.ledger import Account, Ledger
from crosswatch_exporters.lifecycle import Lifecycle
from crosswatch_exporters.logger import logger_provider
from crosswatch_exporters.packing import LogPacker, Pack, SpanPacker
from crosswatch_exporters.pipeline import Pipeline
from crosswatch_exporters.queues import Backlog, BlockQueue, MemoryQueue
from crosswatch_exporters.resource import log_group_of, make_resource, process_attributes
from crosswatch_exporters.self_metrics import observe_ledger
from crosswatch_exporters.sender import Sender
from crosswatch_exporters.settings import MIB, Settings, read_settings
from crosswatch_exporters.tracing.provider import tracer_provider

# The SDK's metrics take a sixth of a service's start; where no metrics are sent, nobody waits for them.
if TYPE_CHECKING:
    from crosswatch_exporters.metrics import MetricStore, ScheduledReader

log = logging.getLogger(__name__)

# The other Region gets the traffic back to the own one only after this many probes in a row, over at least so many seconds.
_HYSTERESIS_PROBES = 3
_HYSTERESIS_SECONDS = 30.0

# How the spool's size is divided. Fixed shares keep a flood of one signal from displacing the others.
_SHARES = {"traces": 0.4, "logs": 0.4, "metrics": 0.1, "classic_metrics": 0.1}
_MEMORY_BYTES = 16 * MIB


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
    propagate.set_global_textmap(make_propagator(settings.propagators))
    providers = Providers(settings, resource)
    lifecycle = Lifecycle(providers.build, settings.shutdown_timeout)
    providers.flush = lifecycle.flush
    trace.set_tracer_provider(providers.tracers)
    set_logger_provider(providers.loggers)
    metrics.set_meter_provider(providers.meters)
    lifecycle.start()
    return lifecycle


def drain_pipeline(settings: Settings) -> Pipeline:
    """A pipeline without providers, for delivering what ended processes of any Region left in the spool. Its threads are not started."""
    settings = _with_log_headers(settings, Resource({}))
    assembly = _Assembly(settings)
    for signal, limits in (("traces", TRACE_LIMITS), ("logs", LOG_LIMITS), ("metrics", METRIC_LIMITS)):
        if signal in settings.routes:
            assembly.lane(Otlp(signal, limits))
    if settings.classic != "off":
        from crosswatch_exporters.classic.install import classic_lane

        destination, _, route = classic_lane(settings, _lane_bytes(settings, "classic_metrics"))
        assembly.lane(destination, route)
    return assembly.build(any_region=True)


class Providers:
    """The SDK's providers, which live as long as the process and its children, and how a pipeline is connected to them."""

    def __init__(self, settings: Settings, resource: Resource) -> None:
        self.flush: Callable[[float], bool] = lambda timeout: False
        self._settings = settings
        self._resource = resource
        self._redact = redactor(settings.redact, settings.redact_allow, settings.redact_rules)
        self._spans = SpanIntake(self._flush_now)
        self._records = LogIntake(self._flush_now)
        self._built_before = False
        self._ledger = Ledger()
        sampler = sampler_from(settings.sampler, settings.sampler_argument, settings.asgi_event_spans, settings.tail == "on")
        self.tracers = tracer_provider(self._spans, sampler=sampler, resource=resource, shutdown_on_exit=False)
        self.loggers = logger_provider(self._records if "logs" in settings.routes else None, resource)
        self._readers: list[Callable[[], ScheduledReader]] = []
        self.meters: GuardedMeterProvider

    def _flush_now(self, timeout: float) -> bool:
        return self.flush(timeout)

    def build(self) -> Pipeline:
        """A pipeline, connected; the providers' former one is forgotten."""
        settings = self._settings
        if self._built_before:
            self._become_another_process()
        assembly = _Assembly(settings)
        closing: list[Callable[[], object]] = []
        if "traces" in settings.routes:
            packer = SpanPacker(_for_queue(settings, "traces", TRACE_LIMITS), self._redact)
            intake = assembly.intake(Otlp("traces", TRACE_LIMITS), packer)
            self._spans.put = intake.put
            if settings.tail == "on":
                from crosswatch_exporters.guards.tail import TailBuffer

                account = assembly.ledger.account("traces")
                tail = TailBuffer(account, packer.prepare, intake.put_prepared, settings.tail_slow, settings.tail_max_bytes)
                self._spans.put_unsampled = tail.add
                closing.append(tail.close)
        if "logs" in settings.routes:
            records = LogPacker(_for_queue(settings, "logs", LOG_LIMITS), self._redact)
            self._records.put = assembly.intake(Otlp("logs", LOG_LIMITS), records).put
        self._readers = list(self._metric_readers(assembly))
        pipeline = assembly.build()
        if self._built_before:
            self.meters.after_fork()
        else:
            self.meters = GuardedMeterProvider(self._make_meters, settings.cardinality_limit, self._redact, self._flush_now)
            self._built_before = True
            if settings.self_metrics != "off" and self._readers:
                observe_ledger(self.meters, lambda: self._ledger)
        closing.append(self.meters.shutdown)
        pipeline.collect = lambda: [finish() for finish in closing]
        self._ledger = assembly.ledger
        return pipeline

    def _metric_readers(self, assembly: "_Assembly") -> "Iterator[Callable[[], ScheduledReader]]":
        settings, interval = self._settings, self._settings.metric_interval
        if "metrics" not in settings.routes and settings.classic == "off":
            return
        from crosswatch_exporters.metric_packing import MetricPacker
        from crosswatch_exporters.metrics import ScheduledReader

        if "metrics" in settings.routes:
            # Away from home each resource gets one more attribute.
            most_labels = MAX_LABELS - ("metrics" in settings.failover_routes)
            points = MetricPacker(_for_queue(settings, "metrics", METRIC_LIMITS), self._redact, most_labels)
            store = assembly.store(Otlp("metrics", METRIC_LIMITS), points)
            exponential = settings.histogram == "base2_exponential_bucket_histogram"
            yield lambda: ScheduledReader(store, interval, settings.temporality, exponential)
        if settings.classic != "off":
            from crosswatch_exporters.classic.install import classic_lane

            destination, packer, route = classic_lane(settings, _lane_bytes(settings, "classic_metrics"))
            classic = assembly.store(destination, packer, route)
            yield lambda: ScheduledReader(classic, interval, "delta", exponential=True)

    def _make_meters(self) -> Any:
        if not self._readers:
            return NoOpMeterProvider()  # measuring costs more than the rest of a request's telemetry; not for nobody
        from opentelemetry.sdk.metrics import MeterProvider

        return MeterProvider([make() for make in self._readers], resource=self._resource, shutdown_on_exit=False)

    def _become_another_process(self) -> None:
        """A forked child is another instance of the service: its cumulative metrics are its own."""
        update = Resource(process_attributes())
        self._resource = self._resource.merge(update)
        for provider in (self.tracers, self.loggers):
            provider._update_resource(update)


class _Assembly:
    """Makes queue, sender and endpoints for each destination."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self.ledger = Ledger()
        self.credentials = CredentialProvider()
        self._intakes: dict[str, Intake] = {}
        self._senders: dict[str, Sender] = {}
        self._lanes: dict[str, tuple[Account, Backlog, Sender]] = {}
        self._spool = _open_spool(settings)
        self.pipeline: Pipeline

    def intake(self, destination: Destination, packer: Packer) -> Intake:
        """A signal whose items arrive one by one."""
        account, queue, sender = self.lane(destination)
        self._intakes[destination.name] = intake = Intake(
            account, packer, queue, sender.notify, self._settings.queue_items[destination.name]
        )
        return intake

    def store(self, destination: Destination, pack: Pack, route: Route | None = None) -> "MetricStore":
        """A signal whose items are collected; returns what takes collections."""
        from crosswatch_exporters.metrics import MetricStore

        account, queue, sender = self.lane(destination, route)
        return MetricStore(account, pack, queue, sender.notify)

    def build(self, any_region: bool = False) -> Pipeline:
        """The pipeline of all that was made."""
        recovery = Recovery(self._spool, self._lanes, self._settings.spool_max_bytes, any_region) if self._spool else None
        self.pipeline = Pipeline(self.ledger, self._intakes, self._senders, self._settings.tick, self._spool, recovery)
        return self.pipeline

    def lane(self, destination: Destination, route: Route | None = None) -> tuple[Account, BlockQueue, Sender]:
        """Account, queue and sender of a destination."""
        account = self.ledger.account(destination.name)
        backlog = Backlog(self._queue(account))
        account.spooled = lambda: backlog.items
        sender = Sender(destination, backlog, account, self._endpoints(destination.name, route))
        if destination.name == "traces":
            self._offer_segments(sender)
        self._senders[destination.name] = sender
        self._lanes[destination.name] = (account, backlog, sender)
        return account, backlog, sender

    def _offer_segments(self, sender: Sender) -> None:
        """PutTraceSegments instead of OTLP: at once where that is wanted, otherwise once the endpoint says that Transaction Search is
        off."""
        if self._settings.traces_as == "otlp":
            return

        def segments() -> tuple[Destination, list[Endpoint]]:
            from crosswatch_exporters.segments.destination import TraceSegments, segments_route

            return TraceSegments(), [
                open_endpoint("traces", segments_route(endpoint.route), self._settings, self.credentials, endpoint.breaker)
                for endpoint in sender.endpoints
            ]

        if self._settings.traces_as == "segments":
            sender.destination, sender.endpoints = segments()
        else:
            sender.fallback = segments

    def _queue(self, account: Account) -> BlockQueue:
        share = _SHARES[account.signal]
        if self._spool is not None:
            try:
                return self._spool.lane(account, share)
            except OSError as error:
                log.warning("the spool cannot be used (%s); telemetry waits in memory", error)
                self._spool = None
        return MemoryQueue(account, min(_MEMORY_BYTES, int(self._settings.spool_max_bytes * share)))

    def _endpoints(self, name: str, route: Route | None) -> list[Endpoint]:
        settings = self._settings
        own = route or settings.routes[name]
        other = settings.failover_routes.get(name)
        breaker = (
            Breaker(failures_to_open=3, successes_to_close=_HYSTERESIS_PROBES, well_for=_HYSTERESIS_SECONDS, probe_every=5.0)
            if other
            else Breaker()
        )
        endpoints = [open_endpoint(name, own, settings, self.credentials, breaker)]
        if other:
            endpoints.append(open_endpoint(name, other, settings, self.credentials, Breaker()))
        return endpoints


def _lane_bytes(settings: Settings, signal: str) -> int:
    """The signal's share of the spool."""
    return int(settings.spool_max_bytes * _SHARES[signal])


def _for_queue(settings: Settings, signal: str, limits: Limits) -> Limits:
    return limits.for_queue(_lane_bytes(settings, signal))


def _open_spool(settings: Settings) -> Spool | None:
    """The spool, or None (with a warning) where there cannot be one."""
    if settings.spool_dir is None:
        return None
    try:
        return Spool(settings.spool_dir, settings.region, settings.service, settings.spool_max_bytes, settings.spool_fsync)
    except (UnsafeSpool, OSError) as error:
        log.warning("%s; telemetry waits in memory and does not survive the process", error)
        return None


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
            "logs are not sent: CloudWatch Logs needs a log group; set "
            "OTEL_EXPORTER_OTLP_LOGS_HEADERS=x-aws-log-group=<name>,x-aws-log-stream=<name>"
        )
        del routes["logs"]
    return replace(settings, routes=routes, failover_routes=failover)


def make_propagator(names: Sequence[str]) -> Any:
    """The composite of OTEL_PROPAGATORS, made here because the API reads the variable before a distro can set its default."""
    from opentelemetry.baggage.propagation import W3CBaggagePropagator
    from opentelemetry.propagators.composite import CompositePropagator
    from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
    from opentelemetry.util._importlib_metadata import entry_points

    known: Mapping[str, Callable[[], Any]] = {"tracecontext": TraceContextTextMapPropagator, "baggage": W3CBaggagePropagator}
    chosen = []
    for name in names:
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
