"""Rounds against real servers: how long they take, what they tell of routing, and that nothing of ours or of the world ends one."""

from __future__ import annotations

import json
import threading
import time
from contextlib import ExitStack, closing
from typing import TYPE_CHECKING, Any

import pytest

from canaries.probe.arc import RoutingReader
from canaries.probe.rounds import Prober, Round
from canaries.probe.settings import Arc, Page, ProbeSettings, Rounds
from canaries.probe.verdict import Cell, owners
from canaries.probe.writers import WriterReader
from canaries.shared import trace
from canaries.shared.exchange import Kind
from canaries.shared.target import Limits, Target
from tests.canaries.servers import CREDENTIALS, Recorder, answering, page, raw_server

if TYPE_CHECKING:
    import socket
    from collections.abc import Iterator, Mapping

EAST, WEST = "us-east-1", "us-west-2"
LIMITS = Limits(connect_s=0.5, total_s=1.0)
SHORT = Limits(connect_s=0.5, total_s=0.6)


def settings(ports: Mapping[str, int], **changes: Any) -> ProbeSettings:
    """A probe of load balancers on one address, each on a port of its own; the name leads to the east's."""
    values: dict[str, Any] = {
        "workload": "retail",
        "vantage": EAST,
        "targets": (
            *(Target(f"alb-{region}", f"http://127.0.0.1:{port}", region) for region, port in ports.items()),
            Target("name", f"http://127.0.0.1:{ports[EAST]}"),
        ),
        "pages": (Page("home", "/home"),),
        "write_to": {},
        "limits": LIMITS,
        "rounds": Rounds(retry_after_s=0.1),
        **changes,
    }
    return ProbeSettings(**values)


def two_ports(east: int, west: int) -> Prober:
    """A probe of two Regions of which the east is off."""
    return Prober(settings({EAST: east, WEST: west}), lambda: {EAST: False, WEST: True})


def look(prober: Prober) -> Round:
    return prober.round(time.time(), trace.TraceId.new(time.time()))


def hang(connection: socket.socket) -> None:
    time.sleep(2)


@pytest.fixture
def ports() -> Iterator[dict[str, int]]:
    """Two Regions' load balancers, whose pages name their Region."""
    with ExitStack() as stack:
        yield {region: stack.enter_context(raw_server(answering(page(f"Retail Store {region}")))) for region in (EAST, WEST)}


# ---------------------------------------------------------------------- time


def test_a_round_in_which_every_page_hangs_takes_two_tries() -> None:
    """Forty pages: none waits for another one's thread."""
    pages = tuple(Page(f"page{number}", f"/{number}") for number in range(20))
    with raw_server(hang) as port, closing(Prober(settings({EAST: port}, pages=pages, limits=SHORT), dict)) as prober:
        began = time.perf_counter()
        seen = look(prober)
        took = time.perf_counter() - began
    assert {str(each.last.failure and each.last.failure.kind) for each in seen.looks} == {"timeout"}
    assert took < 2.2, "two tries of 0.6 s and what a busy machine adds; with sixteen threads it would be 3.6 s"


def test_a_reading_of_the_controls_that_hangs_is_waited_for_no_longer_than_a_page(ports: dict[str, int]) -> None:
    """It is not asked again while it is under way, and what it says at last is not told as news."""
    gate, asked = threading.Event(), []

    def read() -> dict[str, bool]:
        asked.append(1)
        gate.wait(10)
        return {EAST: len(asked) > 1}

    with closing(Prober(settings(ports), read)) as prober:
        first = look(prober)
        second = look(prober)
        assert (first.routing, second.routing, len(asked)) == ({}, {}, 1)
        assert first.seconds < 1.6
        assert second.seconds < 0.6
        gate.set()
        time.sleep(0.1)
        assert look(prober).routing == {EAST: True}


def test_a_trace_that_cannot_be_sent_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in CREDENTIALS.items():
        monkeypatch.setenv(name, value)
    segment = trace.RunSegment(trace.TraceId.new(0), "a" * 16, "retail-probe", 0, 1, {}, ())
    gate = threading.Event()

    def wait(_: socket.socket) -> None:
        gate.wait(5)

    with raw_server(wait) as port:
        sender = trace.Sender(EAST, f"http://127.0.0.1:{port}", 3.0)
        sender.timeout_s = 0.2  # the wait ends before the call does, as when a name does not resolve
        began = time.perf_counter()
        assert sender.send(segment) == ["no answer within 0.2 s"]
        assert sender.send(segment) == ["the one before is still on its way: nothing was sent"]
        assert time.perf_counter() - began < 1.5
        gate.set()


# ---------------------------------------------------------------------- nothing ends a round


def test_a_page_that_we_stumble_over_is_a_failed_page(ports: dict[str, int]) -> None:
    """A pattern that is none is found out in every round, and by no other page."""
    pages = (Page("home", "/home", body="Retail"), Page("bad", "/bad", body="("))
    with closing(Prober(settings(ports, pages=pages), dict)) as prober:
        seen = look(prober)
    assert {each.page: each.last.failure and each.last.failure.kind for each in seen.looks} == {"home": None, "bad": Kind.INTERNAL}
    assert set(seen.cells.values()) == {Cell.DEGRADED}


def test_a_reading_of_the_controls_that_stumbles_is_no_reading(ports: dict[str, int]) -> None:
    def read() -> dict[str, bool]:
        raise KeyError("RoutingControlState")

    with closing(Prober(settings(ports), read)) as prober:
        assert look(prober).routing == {}


def test_a_kept_connection_that_we_stumble_over_is_opened_again(ports: dict[str, int], monkeypatch: pytest.MonkeyPatch) -> None:
    with closing(Prober(settings(ports), dict)) as prober:
        with monkeypatch.context() as patch:
            patch.setattr("canaries.shared.exchange.judge", lambda *_: 1 / 0)
            seen = look(prober)
        assert seen.pooled is not None
        assert seen.pooled.exchange.failure is not None
        assert "ZeroDivisionError" in str(seen.pooled.exchange.failure)
        again = look(prober).pooled
    assert again is not None
    assert again.exchange.ok


def test_an_answer_of_rds_that_we_stumble_over_is_unknown(monkeypatch: pytest.MonkeyPatch) -> None:
    from canaries.probe.settings import Database

    def stumble(*_: object) -> int:
        raise KeyError("GlobalClusterMembers")

    monkeypatch.setattr(WriterReader, "_count", stumble)
    with closing(WriterReader(WEST, {"orders": Database("retail-orders", {EAST: "orders-east"})}, {})) as reader:
        assert reader.read().unknown == {"orders": "KeyError: 'GlobalClusterMembers'"}


# ---------------------------------------------------------------------- where the name leads


@pytest.mark.parametrize(("east", "west", "agrees"), [(True, False, True), (False, True, False), (True, True, True)])
def test_on_one_address_with_two_ports_the_answers_tell_where_the_name_leads(
    east: bool, west: bool, agrees: bool, ports: dict[str, int]
) -> None:
    """Both Regions claim the address, so that it tells nothing; what the name answers says which one served it."""
    with closing(Prober(settings(ports), lambda: {EAST: east, WEST: west})) as prober:
        seen = look(prober)
    assert seen.agrees is agrees
    assert seen.served_by["name", "home"] == EAST
    assert seen.stale is (not east)


def test_an_address_that_two_claim_and_an_answer_that_says_nothing_cannot_be_told() -> None:
    nameless = answering(page("Retail Store"))
    with raw_server(nameless) as one, raw_server(nameless) as other, closing(two_ports(one, other)) as prober:
        seen = look(prober)
    assert (seen.agrees, seen.stale, set(seen.served_by.values())) == (None, None, {None})


def test_an_address_belongs_to_who_alone_claims_it() -> None:
    assert owners({"10.0.0.1": [EAST, EAST], "10.0.0.2": [EAST, WEST], "10.0.0.3": {WEST: 7}}) == {"10.0.0.1": EAST, "10.0.0.3": WEST}


# ---------------------------------------------------------------------- traces


def test_no_subsegment_is_there_twice() -> None:
    """Also where the page that is sampled in any case is one that fails."""
    broken = answering(b"HTTP/1.1 503 No\r\nContent-Length: 0\r\n\r\n")
    with raw_server(broken) as port, closing(Prober(settings({EAST: port}), dict)) as prober:
        ids = [span.id for span in look(prober).spans]
    assert len(ids) == len(set(ids)) == 4


@pytest.mark.parametrize(("traces", "flags"), [(True, {"01", "00"}), (False, {"00"})])
def test_what_is_not_recorded_is_not_said_to_be(traces: bool, flags: set[str]) -> None:
    seen: list[str] = []

    def talk(connection: socket.socket) -> None:
        head = connection.recv(65536).decode()
        seen.append(next(line for line in head.split("\r\n") if line.startswith("traceparent"))[-2:])
        connection.sendall(page("Retail Store"))

    with raw_server(talk) as port, closing(Prober(settings({EAST: port}, traces=traces), dict)) as prober:
        look(prober)
    assert set(seen) == flags


# ---------------------------------------------------------------------- routing controls


ARN = "arn:aws:route53-recovery-control::123456789012:controlpanel/" + "0" * 32 + "/routingcontrol/{}"
CONTROLS = {"eu-west-1": ARN.format("c" * 16), EAST: ARN.format("a" * 16), WEST: ARN.format("b" * 16)}


def reader(*urls: str) -> RoutingReader:
    return RoutingReader(Arc({f"region-{number}": url for number, url in enumerate(urls)}, CONTROLS), 0.5, 3)


@pytest.fixture
def cluster(aws: tuple[Recorder, Recorder], monkeypatch: pytest.MonkeyPatch) -> tuple[Recorder, Recorder]:
    """Two endpoints of the cluster that know every control but the first."""
    for name, value in CREDENTIALS.items():
        monkeypatch.setenv(name, value)
    for each in aws:
        each.controls.update({CONTROLS[EAST]: "On", CONTROLS[WEST]: "Off"})
    return aws


def test_a_control_that_is_refused_hides_no_other(cluster: tuple[Recorder, Recorder]) -> None:
    """It is the first that is asked for: a typing error in one ARN, a role that may read all but one."""
    assert reader(cluster[0].url)() == {EAST: True, WEST: False}


def test_what_one_endpoint_refuses_another_may_tell(cluster: tuple[Recorder, Recorder]) -> None:
    cluster[1].controls[CONTROLS["eu-west-1"]] = "On"
    assert reader(cluster[0].url, cluster[1].url)() == {"eu-west-1": True, EAST: True, WEST: False}


def test_an_endpoint_that_breaks_off_half_way_leaves_the_rest_to_the_next(cluster: tuple[Recorder, Recorder]) -> None:
    """The first knows one control and then speaks no more; it is asked last from then on."""
    answers = iter([json.dumps({"RoutingControlArn": "x", "RoutingControlState": "On"}).encode()])

    def talk(connection: socket.socket) -> None:
        connection.recv(65536)
        body = next(answers, None)
        if body is not None:
            connection.sendall(b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body))

    with raw_server(talk) as port:
        reading = reader(f"http://127.0.0.1:{port}", cluster[0].url)
        assert reading() == {"eu-west-1": True, EAST: True, WEST: False}
        began = time.perf_counter()
        assert reading() == {EAST: True, WEST: False}
        assert time.perf_counter() - began < 2
