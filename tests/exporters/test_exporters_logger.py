"""Lean log records are the SDK's in everything but cost: the same is logged both ways, and what comes out is compared."""

from __future__ import annotations

import logging
from typing import Any

import pytest
from crosswatch_exporters import logger as logger_module
from crosswatch_exporters.encoding.logs import LogEncoder
from crosswatch_exporters.intake import LogIntake
from crosswatch_exporters.logger import LeanLogger, LeanLoggerProvider, LeanRecord, fits_the_sdk, logger_provider
from hypothesis import given, settings
from hypothesis import strategies as st
from opentelemetry._logs import LogRecord, NoOpLogger, SeverityNumber
from opentelemetry.instrumentation.logging.handler import LoggingHandler
from opentelemetry.sdk._logs import LoggerProvider, LogRecordProcessor
from opentelemetry.sdk.resources import Resource

RESOURCE = Resource({"service.name": "s"})
LIMITS = ("OTEL_LOGRECORD_ATTRIBUTE_COUNT_LIMIT", "OTEL_LOGRECORD_ATTRIBUTE_VALUE_LENGTH_LIMIT")
scalar = st.one_of(st.text(max_size=8), st.integers(), st.booleans(), st.floats(), st.binary(max_size=4), st.none())
values = scalar | st.lists(scalar, max_size=3) | st.dictionaries(st.text(max_size=3), scalar, max_size=3)
keys = st.text(max_size=4) | st.integers(0, 3)


class Seen(LogRecordProcessor):
    """What a processor of the service's own gets."""

    def __init__(self) -> None:
        self.records: list[Any] = []

    def on_emit(self, log_record: Any) -> None:
        self.records.append(log_record)

    def shutdown(self) -> None: ...

    def force_flush(self, timeout_millis: int = 30000) -> bool:
        return True


def pair() -> list[tuple[LoggerProvider, list[Any]]]:
    """A lean provider and the SDK's, each with what its intake was handed."""
    both: list[tuple[LoggerProvider, list[Any]]] = []
    for lean in (True, False):
        taken: list[Any] = []
        intake = LogIntake(lambda timeout: True)
        intake.put = taken.append
        if lean:
            provider: LoggerProvider = LeanLoggerProvider(intake, RESOURCE)
        else:
            provider = LoggerProvider(resource=RESOURCE, shutdown_on_exit=False)
            provider.add_log_record_processor(intake)
        both.append((provider, taken))
    return both


def wire(taken: list[Any]) -> list[tuple[bytes, int, Any, Any]]:
    """What is read of records."""
    return [(LogEncoder()(each), each.dropped_attributes, each.resource, each.instrumentation_scope) for each in taken]


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("limits", [(None, None), ("2", None), ("0", None), (None, "3")])
def test_any_record_comes_out_as_the_sdk_would_have_it(limits: tuple[str | None, str | None], monkeypatch: pytest.MonkeyPatch) -> None:
    """Any attributes, within the limits and beyond; as a record, as fields, with an exception."""
    for name, limit in zip(LIMITS, limits, strict=True):
        if limit is None:
            monkeypatch.delenv(name, raising=False)
        else:
            monkeypatch.setenv(name, limit)
    logging.getLogger("opentelemetry.attributes").setLevel(logging.CRITICAL)

    @settings(max_examples=60, deadline=None)
    @given(st.dictionaries(keys, values, max_size=4) | st.none(), values, st.booleans(), st.booleans())
    def compare(attributes: Any, body: Any, as_fields: bool, raised: bool) -> None:
        outcomes = []
        for provider, taken in pair():
            fields: dict[str, Any] = {
                "timestamp": 1,
                "observed_timestamp": 2,
                "severity_number": SeverityNumber.WARN,
                "severity_text": "WARN",
                "body": body,
                "attributes": dict(attributes) if attributes is not None else None,
                "event_name": "placed",
                "exception": ValueError("sold out") if raised else None,
            }
            emitting = provider.get_logger("shop", "1")
            if as_fields:
                emitting.emit(**fields)
            else:
                emitting.emit(LogRecord(**fields))
            outcomes.append(wire(taken))
        assert outcomes[0] == outcomes[1]
        assert len(outcomes[0]) == 1

    compare()


def test_the_short_way_is_taken_where_it_may_be() -> None:
    """By what the logging instrumentation's handler emits; not for what the SDK would change."""
    (provider, taken), _ = pair()
    log = logging.Logger("shop", logging.INFO)
    log.addHandler(LoggingHandler(logger_provider=provider))
    log.info("order %d placed", 7, extra={"order": 7, "total": 9.5, "gift": False, "by": "ann"})
    log.info("basket", extra={"items": ["a", "b"]})
    assert [type(each).__name__ for each in taken] == ["LeanRecord", "ReadWriteLogRecord"]
    assert taken[0].log_record.body == "order 7 placed"
    assert dict(taken[1].log_record.attributes) == {"items": ("a", "b")}


def test_the_services_own_processors_get_what_the_sdk_gives() -> None:
    """From the record after they were added."""
    (provider, taken), _ = pair()
    emitting = provider.get_logger("shop")
    emitting.emit(LogRecord(body="before", attributes={"a": 1}))
    seen = Seen()
    provider.add_log_record_processor(seen)
    emitting.emit(LogRecord(body="after", attributes={"a": 1}))
    assert [type(each) is LeanRecord for each in taken] == [True, False]
    assert seen.records == taken[1:]


def test_loggers_are_remembered_and_follow_their_provider(monkeypatch: pytest.MonkeyPatch) -> None:
    """One a name, version and schema; a new resource, as after a fork, reaches them; a disabled logger is silent; so is a disabled SDK."""
    (provider, taken), _ = pair()
    emitting = provider.get_logger("shop", "1")
    assert provider.get_logger("shop", "1") is emitting
    assert provider.get_logger("shop", "2") is not emitting
    assert isinstance(emitting, LeanLogger)
    assert emitting.enabled(severity_number=SeverityNumber.INFO)
    provider._update_resource(Resource({"process.pid": 7}))
    emitting.emit(LogRecord(body="x"))
    assert taken[-1].resource.attributes["process.pid"] == 7
    assert emitting.resource is provider.resource
    provider._set_logger_configurator(logger_configurator=lambda scope: type(emitting._made._logger_config)(is_enabled=False))
    emitting.emit(LogRecord(body="y"))
    assert len(taken) == 1
    assert not emitting.enabled()
    monkeypatch.setenv("OTEL_SDK_DISABLED", "true")
    assert isinstance(pair()[0][0].get_logger("shop"), NoOpLogger)


def test_an_sdk_that_is_not_known_gets_its_own_way(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    """A release whose logger has lost one of the inner names does not break the service; neither does one that measures itself."""
    intake = LogIntake(lambda timeout: True)
    assert fits_the_sdk()
    assert type(logger_provider(intake, RESOURCE)) is LeanLoggerProvider
    assert type(logger_provider(None, RESOURCE)) is LoggerProvider
    with monkeypatch.context() as patch:
        patch.setenv("OTEL_PYTHON_SDK_INTERNAL_METRICS_ENABLED", "true")
        assert type(logger_provider(intake, RESOURCE)) is LoggerProvider
    monkeypatch.setattr(logger_module.Logger, "_is_enabled", property(lambda self: None))
    assert not fits_the_sdk()
    assert type(logger_provider(intake, RESOURCE)) is LoggerProvider
    assert "is not known to us" in caplog.text
