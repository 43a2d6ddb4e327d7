"""Failover of telemetry to the other Region, and back with hysteresis."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest
from crosswatch_exporters.blocks import Block
from crosswatch_exporters.destinations import Otlp
from crosswatch_exporters.encoding.read import fields
from crosswatch_exporters.encoding.wire import FIXED64, delimited
from crosswatch_exporters.health import Backoff, Breaker
from crosswatch_exporters.ledger import Account
from crosswatch_exporters.queues import MemoryQueue
from crosswatch_exporters.sender import Sender
from crosswatch_exporters.settings import read_settings
from hypothesis import given
from hypothesis import strategies as st
from instrumented import LedgerWatch, Service
from receiver import Answer, Receiver
from test_exporters_ledger import LIMITS, ScriptedEndpoint


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
                sender.endpoints[0].breaker.well_for = 2.0
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
    """The state machine, step by step: however long it was open, it is the good probes that have to span the time."""
    breaker = Breaker(failures_to_open=3, successes_to_close=3, well_for=30.0, probe_every=5.0, probe_at_most=20.0)
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
    for now in (600.0, 605.0, 610.0, 629.9):
        breaker.succeeded(now)
        assert breaker.open
    breaker.failed(630.0)
    for now in (640.0, 655.0, 669.9):
        breaker.succeeded(now)
        assert breaker.open
    breaker.succeeded(670.0)
    assert not breaker.open


def test_an_answer_that_is_no_delivery_is_no_good_probe() -> None:
    """Throttled, forbidden, not found: neither a reason to leave an endpoint nor one to return to it."""
    breaker = Breaker(failures_to_open=2, successes_to_close=2, probe_every=5.0)
    for now in range(10):
        breaker.answered(now)
    assert not breaker.open
    breaker.failed(10.0)
    breaker.failed(11.0)
    breaker.succeeded(20.0)
    breaker.answered(25.0)
    assert not breaker.may_send(29.9)
    breaker.succeeded(30.0)
    assert breaker.open
    breaker.succeeded(35.0)
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


class Regions:
    """A sender of one span at a time between two scripted endpoints, with a clock of its own."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.own, self.other = ScriptedEndpoint(), ScriptedEndpoint()
        self.own.breaker = Breaker(failures_to_open=3, successes_to_close=3, well_for=30.0, probe_every=5.0)
        self.account = Account("traces")
        self.queue = MemoryQueue(self.account, 1 << 20)
        self.account.spooled = lambda: self.queue.items
        endpoints: list[Any] = [self.own, self.other]
        self.sender = Sender(Otlp("traces", LIMITS), self.queue, self.account, endpoints, 0.0, monotonic=lambda: self.now)

    def send(self, name: str, until: float = 60.0) -> None:
        """Emit a span, and let time pass until it has been delivered."""
        at = time.time_ns()
        span = delimited(b"\x12", delimited(b"\x2a", name.encode()) + b"\x41" + FIXED64.pack(at))
        payload = delimited(b"\x0a", delimited(b"\x12", span))
        self.account.taken += 1
        self.queue.append(Block(payload, 1, len(payload), at, at))
        by = self.now + until
        while self.queue.items and self.now < by:
            self.now += self.sender.step()
        assert self.queue.items == 0
        assert self.account.balance().exact


@pytest.mark.parametrize("answer", ["403", "429"])
def test_probes_that_are_refused_do_not_bring_the_traffic_back(answer: str) -> None:
    """While the own endpoint answers, but does not take anything, the other one keeps the traffic; afterwards three good probes in 30 s."""
    regions = Regions()
    regions.own.answer = "503"
    regions.send("a")
    assert regions.other.taken == ["a"]
    regions.own.answer = answer
    for i in range(20):
        regions.now += 6.0
        regions.send(f"b{i}", until=1.0)
    assert regions.own.breaker.open
    assert regions.own.taken == []
    regions.own.answer = "200"
    began = regions.now
    while regions.own.breaker.open:
        regions.now += 1.0
        regions.send("c", until=1.0)
    assert 30.0 <= regions.now - began < 50.0
    assert len(regions.own.taken) >= 3


def test_the_own_endpoint_is_not_probed_before_the_time_it_asked_for() -> None:
    """Retry-After of an endpoint that is left alone holds for its probes, while the traffic goes elsewhere at once."""
    regions = Regions()
    regions.own.answer = "503"
    regions.send("a")
    regions.own.answer = "429"  # with Retry-After: 3
    regions.own.breaker.probe_every = regions.own.breaker._interval = 0.1
    regions.now = regions.own.breaker.next_probe_at
    asked = regions.now
    regions.send("b", until=0.1)
    assert regions.other.taken == ["a", "b"]
    assert regions.own.breaker.next_probe_at >= asked + 3.0


def test_failures_without_end_use_the_budget_up() -> None:
    """An endpoint that fails again and again between successes is asked as seldom as one that is down; deliveries pay the budget back."""
    backoff = Backoff(draw=lambda: 1.0)
    delays = []
    for _ in range(200):
        delays.append(backoff.next(None))
        backoff.reset()
    assert delays[0] == 0.5
    assert max(delays[:50]) == 0.5
    assert set(delays[100:]) == {0.5, 30.0}
    for _ in range(60):
        backoff.reset()
    assert [backoff.next(None) for _ in range(3)] == [0.5, 1.0, 2.0]


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["emf", "putmetricdata"])
def test_classic_metrics_go_to_the_other_region_too(spool: Path, monkeypatch: pytest.MonkeyPatch, mode: str) -> None:
    """What alarms read is delivered to the other Region's CloudWatch, with its origin as a dimension: its own series stay its own."""
    with Receiver() as own, Receiver() as other:
        for name, value in {
            "AWS_ACCESS_KEY_ID": "a",
            "AWS_SECRET_ACCESS_KEY": "b",
            "AWS_ENDPOINT_URL": f"http://127.0.0.1:{own.port}",
        }.items():
            monkeypatch.setenv(name, value)
        environ = {
            "OTEL_TRACES_EXPORTER": "none",
            "OTEL_LOGS_EXPORTER": "none",
            "AWS_ENDPOINT_URL": f"http://127.0.0.1:{own.port}",
            "CROSSWATCH_SPOOL_DIR": str(spool),
            "CROSSWATCH_CLASSIC_METRICS": mode,
            "CROSSWATCH_FAILOVER_REGION": "us-west-2",
            "CROSSWATCH_FAILOVER_AWS_ENDPOINT_URL": f"http://127.0.0.1:{other.port}",
        }
        own.fault = lambda request: Answer(503)
        with Service(environ) as service, LedgerWatch(service) as watch:
            service.meter.create_counter("orders").add(7)
            service.collect()
            assert other.wait_for(lambda: bool(other.accepted), 20)
            assert service.flush()
            assert service.balances()["classic_metrics"].delivered == 1
    assert watch.wrong == []
    assert own.accepted == []
    assert own.violations == other.violations == []
    [request] = other.accepted
    assert "/us-west-2/" in request.headers["authorization"]
    document = json.loads(request.body)
    if mode == "emf":
        event = json.loads(document["logEvents"][0]["message"])
        assert event["_aws"]["CloudWatchMetrics"][0]["Dimensions"] == [["service.name", "cloud.region"]]
        assert (event["cloud.region"], event["orders"]) == ("us-east-1", 7)
    else:
        [datum] = document["MetricData"]
        assert {d["Name"]: d["Value"] for d in datum["Dimensions"]} == {"service.name": "shop", "cloud.region": "us-east-1"}
        assert datum["Value"] == 7


def test_where_classic_metrics_fail_over_to() -> None:
    """With AWS's own endpoints the Region is enough; a private one has to be named; no Region, no failover."""
    base = {"AWS_REGION": "us-east-1", "CROSSWATCH_CLASSIC_METRICS": "emf", "HOME": "/nonexistent"}
    away = {"CROSSWATCH_FAILOVER_REGION": "us-west-2"}
    assert "classic_metrics" not in read_settings(base).failover_routes
    assert read_settings(base | away).failover_routes["classic_metrics"].url == "https://logs.us-west-2.amazonaws.com/"
    assert "classic_metrics" not in read_settings(base | away | {"AWS_ENDPOINT_URL": "http://own"}).failover_routes
    named = base | away | {"AWS_ENDPOINT_URL": "http://own", "CROSSWATCH_FAILOVER_AWS_ENDPOINT_URL": "http://other"}
    assert read_settings(named).failover_routes["classic_metrics"].url == "http://other/"
    data = base | away | {"CROSSWATCH_CLASSIC_METRICS": "putmetricdata"}
    assert read_settings(data).failover_routes["classic_metrics"].url == "https://monitoring.us-west-2.amazonaws.com/"
