"""Log records by a shorter way: what the SDK does to most of them changes nothing.

The SDK puts a record's attributes into a container with a lock, wraps the record, and goes through its list of processors. A record whose
attributes are a few texts and numbers, in a process whose only processor is ours, comes out of that as it went in. It is handed over at
once; everything else (values that must be cleaned, limits, exceptions as fields, the service's own processors, the SDK's internal metrics)
is left to the SDK's own code. The tests do the same to records by both ways and compare what comes out.
"""

import logging
import os
from typing import Any, Protocol

from opentelemetry._logs import Logger as ApiLogger
from opentelemetry._logs import LogRecord, SeverityNumber
from opentelemetry.sdk._logs import Logger, LoggerProvider, LogRecordProcessor
from opentelemetry.sdk.resources import Resource
from opentelemetry.util.types import AnyValue, Attributes

from crosswatch_exporters.encoding.logs import LogEncoder

log = logging.getLogger(__name__)

_PLAIN = frozenset({str, int, bool, float})


class RecordSink(Protocol):
    """The log processor, as lean loggers use it."""

    def on_emit(self, log_record: Any, /) -> None:
        """Take a record, the SDK's or a lean one."""


class LeanRecord:
    """A log record with its resource and scope: as much of an SDK ReadableLogRecord as is read of it."""

    __slots__ = ("instrumentation_scope", "log_record", "resource")

    dropped_attributes = 0

    def __init__(self, log_record: LogRecord, resource: Any, instrumentation_scope: Any) -> None:
        self.log_record = log_record
        self.resource = resource
        self.instrumentation_scope = instrumentation_scope


class LeanLogger(ApiLogger):
    """An SDK logger with the short way before it."""

    def __init__(self, made: Logger, sink: RecordSink) -> None:
        scope = made.instrumentation_scope
        super().__init__(scope.name, scope.version, scope.schema_url, scope.attributes)
        self._made = made
        self._sink = sink
        self._scope = scope
        self._processors = made._multi_log_record_processor
        self._most = made._log_record_limits.max_log_record_attributes
        self._any_length = made._log_record_limits.max_log_record_attribute_length is None

    @property
    def instrumentation_scope(self) -> Any:
        """As the SDK's logger has it."""
        return self._scope

    @property
    def resource(self) -> Any:
        """As the SDK's logger has it."""
        return self._made.resource

    def enabled(self, **what: Any) -> bool:
        """See `opentelemetry._logs.Logger`."""
        return bool(self._made.enabled(**what))

    def emit(
        self,
        record: LogRecord | None = None,
        *,
        timestamp: int | None = None,
        observed_timestamp: int | None = None,
        context: Any = None,
        severity_number: SeverityNumber | None = None,
        severity_text: str | None = None,
        body: AnyValue | None = None,
        attributes: Attributes = None,
        event_name: str | None = None,
        exception: BaseException | None = None,
    ) -> None:
        """See `opentelemetry._logs.Logger`."""
        made = self._made
        if record is None:
            made.emit(
                timestamp=timestamp,
                observed_timestamp=observed_timestamp,
                context=context,
                severity_number=severity_number,
                severity_text=severity_text,
                body=body,
                attributes=attributes,
                event_name=event_name,
                exception=exception,
            )
        elif (
            record.__class__ is LogRecord
            and record.exception is None
            and self._processors._log_record_processors == (self._sink,)
            and self._is_plain(record.attributes)
        ):
            if made._is_enabled():
                self._sink.on_emit(LeanRecord(record, made._resource, self._scope))
        else:
            made.emit(record)

    def _is_plain(self, attributes: Any) -> bool:
        """Whether the SDK would keep the attributes as they are."""
        if not attributes:
            return True
        return (
            attributes.__class__ is dict
            and self._any_length
            and (self._most is None or len(attributes) <= self._most)
            and all(key.__class__ is str and key and value.__class__ in _PLAIN for key, value in attributes.items())
        )


class LeanLoggerProvider(LoggerProvider):
    """The SDK's provider with lean loggers. `sink` is its first log processor."""

    def __init__(self, sink: Any, resource: Resource) -> None:
        super().__init__(resource=resource, shutdown_on_exit=False)
        self.add_log_record_processor(sink)
        self._sink: RecordSink = sink
        self._lean: dict[tuple[str, str | None, str | None], LeanLogger] = {}

    def get_logger(self, name: str, version: str | None = None, schema_url: str | None = None, attributes: Attributes = None) -> ApiLogger:
        """See `opentelemetry._logs.LoggerProvider`."""
        known = self._lean.get((name, version, schema_url)) if attributes is None else None
        if known is not None:
            return known
        made = super().get_logger(name, version, schema_url, attributes)
        if not isinstance(made, Logger):
            return made  # the SDK is disabled
        lean = LeanLogger(made, self._sink)
        return self._lean.setdefault((name, version, schema_url), lean) if attributes is None else lean


def logger_provider(sink: LogRecordProcessor | None, resource: Resource) -> LoggerProvider:
    """A provider whose records reach `sink` by the short way; by the SDK's own where it is asked to measure itself, or where ours does not
    fit it. Without a sink, records go nowhere."""
    measured = os.environ.get("OTEL_PYTHON_SDK_INTERNAL_METRICS_ENABLED", "").strip().lower() == "true"
    if sink is not None and not measured:
        if fits_the_sdk():
            return LeanLoggerProvider(sink, resource)
        log.warning("this release of opentelemetry-sdk is not known to us; its own way of log records is used, which costs more")
    provider = LoggerProvider(resource=resource, shutdown_on_exit=False)
    if sink is not None:
        provider.add_log_record_processor(sink)
    return provider


class _Taken(LogRecordProcessor):
    """Keeps what records are on the wire."""

    def __init__(self) -> None:
        self.records: list[tuple[type, bytes]] = []

    def on_emit(self, log_record: Any) -> None:
        self.records.append((type(log_record), LogEncoder()(log_record)))

    def shutdown(self) -> None: ...

    def force_flush(self, timeout_millis: int = 30000) -> bool:
        return True


def fits_the_sdk() -> bool:
    """Whether the short way gets on with the SDK that is installed: it reads some of its inner names, which may change with any release."""
    lean, plain = _Taken(), _Taken()
    try:
        other = LoggerProvider(resource=Resource({}), shutdown_on_exit=False)
        other.add_log_record_processor(plain)
        for provider in (LeanLoggerProvider(lean, Resource({})), other):
            record = LogRecord(
                timestamp=1, observed_timestamp=2, severity_number=SeverityNumber.INFO, severity_text="INFO", body="a", attributes={"b": 1}
            )
            provider.get_logger("trial").emit(record)
        return [kind for kind, _ in lean.records] == [LeanRecord] and [w for _, w in lean.records] == [w for _, w in plain.records]
    except (AttributeError, TypeError, ValueError, LookupError):
        log.debug("lean records do not fit", exc_info=True)
        return False
