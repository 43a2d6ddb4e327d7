"""Health checks: real probes of a real server in lab time, and the checks that follow something else."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lab.clock import LabClock
from lab.dns.checks import Checker, HealthCheck, HealthChecks, Surroundings, endpoint_is_healthy, metric_is_healthy
from lab.dns.probing import Sighting


class Endpoint:
    """An HTTP server whose answer can be changed."""

    def __init__(self) -> None:
        self.status, self.body, self.delay_s = 200, b"Retail Store", 0.0
        endpoint = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                time.sleep(endpoint.delay_s)
                self.send_response(endpoint.status)
                self.end_headers()
                self.wfile.write(endpoint.body)

            def log_message(self, *_: object) -> None:
                pass

        class Server(ThreadingHTTPServer):
            def handle_error(self, request: Any, client_address: Any) -> None:
                pass  # health checkers that gave up waiting

        self.server = Server(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()

    @property
    def port(self) -> int:
        return int(self.server.server_address[1])


@pytest.fixture
def endpoint() -> Iterator[Endpoint]:
    running = Endpoint()
    yield running
    running.server.shutdown()
    running.server.server_close()


class Book:
    """Health checks at sixty times the wall's speed, ticking."""

    def __init__(self) -> None:
        self.on = {"arn:on"}
        self.values: list[float | None] = []
        self.clock = LabClock.start(60.0)
        around = Surroundings(lambda arn: arn in self.on, lambda _: "127.0.0.1", lambda _region, _alarm: self.values)
        self.checks = HealthChecks(self.clock, around)
        self._stop = threading.Event()
        threading.Thread(target=self._tick, daemon=True).start()

    def _tick(self) -> None:
        while not self._stop.wait(0.02):
            self.checks.tick(self.clock.now())

    def add(self, identity: str, alarm: dict[str, Any] | None = None, **config: Any) -> None:
        self.checks.put(HealthCheck(identity, identity, config, 1, alarm))

    def close(self) -> None:
        self._stop.set()
        self.checks.close()


@pytest.fixture
def book() -> Iterator[Book]:
    running = Book()
    yield running
    running.close()


def eventually(condition: Callable[[], bool], within_s: float = 8.0) -> None:
    deadline = time.monotonic() + within_s
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def http(endpoint: Endpoint, **more: Any) -> dict[str, Any]:
    return {
        "Type": "HTTP",
        "FullyQualifiedDomainName": "store.test",
        "Port": endpoint.port,
        "RequestInterval": 10,
        "FailureThreshold": 2,
    } | more


def test_an_endpoint_turns_unhealthy_after_the_threshold_and_back(book: Book, endpoint: Endpoint) -> None:
    """Healthy until there is data; two failures of most checkers make it unhealthy, two successes healthy."""
    book.add("a", **http(endpoint))
    assert book.checks.is_healthy("a")
    endpoint.status = 503
    eventually(lambda: not book.checks.is_healthy("a"))
    checker = book.checks.checkers("a")[0]
    assert checker.last_failure is not None
    assert checker.last_failure.text == "Failure: HTTP Status Code 503, Service Unavailable"
    endpoint.status = 200
    eventually(lambda: book.checks.is_healthy("a"))


def test_what_counts_as_a_failure(book: Book, endpoint: Endpoint) -> None:
    """A missing search string, nobody listening and no answer in time fail; a redirect does not."""
    endpoint.status = 302
    book.add("redirect", **http(endpoint))
    book.add("string", **http(endpoint, Type="HTTP_STR_MATCH", SearchString="Jewellery"))
    book.add("closed", **http(endpoint, Type="TCP", Port=1))
    book.add("inverted", **http(endpoint, Type="TCP", Port=1, Inverted=True))
    eventually(lambda: not book.checks.is_healthy("closed"))
    assert book.checks.is_healthy("redirect")
    assert book.checks.is_healthy("inverted")
    endpoint.status = 200
    eventually(lambda: not book.checks.is_healthy("string"))
    endpoint.delay_s = 1.0
    eventually(lambda: not book.checks.is_healthy("redirect"))


def test_disabled_checks_probe_nothing_and_are_healthy(book: Book, endpoint: Endpoint) -> None:
    """Whatever the endpoint says."""
    endpoint.status = 500
    book.add("a", **http(endpoint, Disabled=True))
    book.add("b", **http(endpoint))
    eventually(lambda: not book.checks.is_healthy("b"))
    assert book.checks.is_healthy("a")
    assert all(checker.last is None for checker in book.checks.checkers("a"))


def test_recovery_control_and_calculated_checks_follow_at_once(book: Book) -> None:
    """Off is unhealthy; a calculated check counts its children; a check that is gone counts as healthy."""
    book.add("on", Type="RECOVERY_CONTROL", RoutingControlArn="arn:on")
    book.add("off", Type="RECOVERY_CONTROL", RoutingControlArn="arn:off")
    book.add("one", Type="CALCULATED", ChildHealthChecks=["on", "off"], HealthThreshold=1)
    book.add("two", Type="CALCULATED", ChildHealthChecks=["on", "off"], HealthThreshold=2)
    assert book.checks.unhealthy() == {"off", "two"}
    book.on.clear()
    assert book.checks.unhealthy() == {"on", "off", "one", "two"}
    book.checks.remove("off")
    assert book.checks.is_healthy("one")


def test_a_metric_check_follows_the_data_not_the_alarm(book: Book) -> None:
    """All newest periods have to breach; without data the last known state stays."""
    alarm = {"Threshold": 1.0, "ComparisonOperator": "LessThanThreshold"}
    book.values = [0.0, 0.0]
    book.add("m", alarm, Type="CLOUDWATCH_METRIC", AlarmIdentifier={"Region": "us-east-1", "Name": "n"})
    eventually(lambda: not book.checks.is_healthy("m"))
    book.values = []
    time.sleep(0.7)
    assert not book.checks.is_healthy("m")
    book.values = [0.0, 1.0]
    eventually(lambda: book.checks.is_healthy("m"))


@pytest.mark.parametrize(
    ("values", "insufficient", "last", "expected"),
    [
        ([2.0, 2.0], "Healthy", True, False),
        ([2.0, 0.0], "Healthy", False, True),
        ([None, 2.0], "Healthy", True, False),
        ([None, None], "Healthy", False, True),
        ([None, None], "Unhealthy", True, False),
        ([], "LastKnownStatus", False, False),
    ],
)
def test_insufficient_data(values: list[float | None], insufficient: str, last: bool, expected: bool) -> None:
    """What a check says without data is its setting's choice."""
    alarm = {"Threshold": 1, "ComparisonOperator": "GreaterThanThreshold"}
    assert metric_is_healthy(values, alarm, insufficient, last) is expected


@given(st.lists(st.booleans(), min_size=1), st.integers(1, 10))
def test_a_checker_turns_only_after_the_threshold_in_a_row(results: list[bool], threshold: int) -> None:
    """It says what the last run of ``threshold`` equal results said, healthy before the first."""
    checker = Checker("us-east-1")
    expected, run = True, 0
    for index, ok in enumerate(results):
        checker = checker.after(Sighting(ok, ""), threshold, float(index))
        run = 0 if ok == expected else run + 1
        if run >= threshold:
            expected, run = ok, 0
        assert checker.healthy is expected


@pytest.mark.parametrize(
    ("healthy", "of", "expected"), [(1, 8, False), (2, 8, True), (1, 5, True), (0, 3, False), (18, 100, False), (19, 100, True)]
)
def test_more_than_18_percent_of_the_checkers(healthy: int, of: int, expected: bool) -> None:
    """Route 53's share."""
    checkers = {str(index): Checker(str(index), healthy=index < healthy) for index in range(of)}
    assert endpoint_is_healthy(checkers) is expected
