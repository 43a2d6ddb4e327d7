"""Failover of telemetry to the other Region, and back with hysteresis."""

from __future__ import annotations

from pathlib import Path

import pytest
from crosswatch_exporters.encoding.read import fields
from crosswatch_exporters.health import Backoff, Breaker
from hypothesis import given
from hypothesis import strategies as st
from instrumented import LedgerWatch, Service
from receiver import Answer, Receiver


def resource(group: object) -> dict[str, str]:
    """A decoded resource's string attributes."""
    return {a.key: a.value.string_value for a in group.resource.attributes}  # type: ignore[attr-defined]


@pytest.mark.slow
@pytest.mark.parametrize("fault", [Answer(503), Answer(cut=True), Answer(hang=5)], ids=["503", "reset", "hanging"])
def test_telemetry_goes_to_the_other_region_and_comes_back(spool: Path, fault: Answer) -> None:
    """While the own endpoint is impaired everything goes to the other, stamped with where it came from and where it was delivered; later
    it comes back."""
    with Receiver() as own, Receiver() as other:
        environ = {
            **own.environ(),
            "CROSSWATCH_SPOOL_DIR": str(spool),
            "OTEL_EXPORTER_OTLP_TIMEOUT": "1",
            "CROSSWATCH_FAILOVER_REGION": "us-west-2",
            **{f"CROSSWATCH_FAILOVER_OTLP_{s.upper()}_ENDPOINT": other.url(s) for s in ("traces", "logs", "metrics")},
        }
        with Service(environ) as service, LedgerWatch(service) as watch:
            for sender in service.lifecycle.pipeline.senders.values():  # minutes of hysteresis made seconds
                sender.endpoints[0].breaker.open_at_least = 2.0
                sender.endpoints[0].breaker.probe_every = 0.3
            service.spans(100)
            assert service.flush()
            assert len(own.spans) == 100
            own.fault = lambda request: fault
            service.spans(100)
            service.logs(50)
            assert other.wait_for(lambda: len(other.spans) == 100 and len(other.records) == 50, 20)
            for request in other.decoded("traces"):
                for group in request.resource_spans:
                    assert resource(group)["cloud.region"] == "us-east-1"
                    assert resource(group)["telemetry.delivery.region"] == "us-west-2"
            own.fault = lambda request: None

            def back() -> bool:
                before = len(own.spans)
                service.spans(1)
                service.flush(3)
                return len(own.spans) > before

            assert own.wait_for(back, 20)
            assert own.wait_for(lambda: not service.lifecycle.pipeline.senders["traces"].endpoints[0].breaker.open or back() is None, 20)
            service.flush()
            balance = service.balances()["traces"]
        assert watch.wrong == []
        ids = [span.span_id for span in own.spans + other.spans]
        assert len(ids) == len(set(ids)) == balance.delivered == balance.emitted
        assert own.violations == other.violations == []


def test_a_breaker_probes_and_closes_only_after_enough_successes_over_enough_time() -> None:
    """The state machine, step by step."""
    breaker = Breaker(failures_to_open=3, successes_to_close=3, open_at_least=30.0, probe_every=5.0, probe_at_most=20.0)
    for now in (0.0, 1.0):
        breaker.failed(now)
        assert breaker.may_send(now)
    breaker.failed(2.0)
    assert breaker.open
    assert not breaker.may_send(6.9)
    assert breaker.may_send(7.0)
    breaker.failed(7.0)
    assert not breaker.may_send(16.9)
    assert breaker.may_send(17.0)
    for now in (17.0, 22.0, 27.0):
        breaker.succeeded(now)
        assert breaker.open
    breaker.succeeded(32.0)
    assert not breaker.open


def test_a_slow_failure_counts_for_more() -> None:
    """Two timeouts are enough: each cost seconds."""
    breaker = Breaker(failures_to_open=3)
    breaker.failed(10.0, took=10.0)
    assert not breaker.open
    breaker.failed(20.0, took=10.0)
    assert breaker.open


@given(st.lists(st.one_of(st.none(), st.floats(0, 7200)), max_size=30), st.floats(0, 1))
def test_backoff_waits_at_least_what_was_asked_and_never_longer_than_its_limits(asked: list[float | None], chance: float) -> None:
    """Between half and all of an exponentially growing delay up to 30 s; a Retry-After is obeyed in full, up to an hour."""
    backoff = Backoff(draw=lambda: chance)
    for wish in asked:
        delay = backoff.next(wish)
        if wish is None:
            assert 0.25 <= delay <= 30.0
        else:
            assert min(wish, 3600.0) <= delay <= 3600.5


def test_fields_refuse_what_is_not_protobuf() -> None:
    """Every cut of a message either reads as a shorter message or raises ValueError, never anything else."""
    message = b"\x0a\x05hello\x10\x96\x01\x1d\x01\x02\x03\x04\x21\x01\x02\x03\x04\x05\x06\x07\x08"
    whole = {0, 7, 10, 15}
    for cut in range(len(message)):
        if cut in whole:
            assert list(fields(message[:cut])) == list(fields(message))[: sorted(whole).index(cut)]
        else:
            with pytest.raises(ValueError, match="protobuf"):
                list(fields(message[:cut]))
