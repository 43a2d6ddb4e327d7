"""The load balancer alone, with targets made for the purpose: what it answers when it cannot, what it measures, and its certificate."""

from __future__ import annotations

import contextlib
import socket
import ssl
import threading
from dataclasses import replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import pytest
import requests
from hypothesis import given
from hypothesis import strategies as st

from lab import admin, store
from lab.store.alb import HealthCheck, Target, trace_header
from tests.lab.rig import rig, wait_for
from tests.lab.store.shopper import Shopper

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.lab.rig import Rig

REGION = "us-east-1"
GOOD = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


class RawTarget:
    """A target that answers each request with what ``answer(head)`` says: bytes, or None to hang up."""

    def __init__(self, answer: Callable[[bytes], bytes | None]) -> None:
        self._answer = answer
        self.seen: list[bytes] = []
        self._server = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._server.getsockname()[1]
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _ = self._server.accept()
                threading.Thread(target=self._talk, args=(connection,), daemon=True).start()

    def _talk(self, connection: socket.socket) -> None:
        with contextlib.suppress(OSError), connection:
            while True:
                head = b""
                while b"\r\n\r\n" not in head:
                    data = connection.recv(65536)
                    if not data:
                        return
                    head += data
                self.seen.append(head)
                if b"ELB-HealthChecker" in head:
                    connection.sendall(GOOD)
                    continue
                answer = self._answer(head)
                if answer is None:
                    return
                connection.sendall(answer)

    def close(self) -> None:
        """Stop listening, also in the thread that waits in accept."""
        with contextlib.suppress(OSError):
            self._server.shutdown(socket.SHUT_RDWR)
        self._server.close()


@pytest.fixture(scope="module")
def balanced() -> Iterator[Rig]:
    """A load balancer at speed 10 whose targets the tests bring."""
    with rig(speed=10) as made:
        (spec,) = (spec for spec in store.processes(made.plan) if spec.name == f"{REGION}/alb")
        port = made.plan.regions[REGION].alb_admin_port
        made.start([replace(spec, ready=lambda: bool(admin.call(port, "GET", "/status")))])
        yield made


@contextlib.contextmanager
def target(balanced: Rig, answer: Callable[[bytes], bytes | None], identity: str = "t") -> Iterator[RawTarget]:
    """A registered target that passes its health checks."""
    made = RawTarget(answer)
    ask(balanced, "POST", "/targets", {"id": identity, "port": made.port})
    wait_for("the target", lambda: ask(balanced, "GET", "/health")["healthy"])
    ask(balanced, "POST", "/window")
    try:
        yield made
    finally:
        ask(balanced, "DELETE", f"/targets/{identity}")
        made.close()


def ask(balanced: Rig, method: str, path: str, body: Any = None) -> Any:
    """Ask the admin port."""
    return admin.call(balanced.plan.regions[REGION].alb_admin_port, method, path, body, timeout_s=20)


def window(balanced: Rig) -> dict[str, Any]:
    """Metric -> samples by LoadBalancer alone, or by target group where a metric has no other."""
    found: dict[str, Any] = {}
    for datum in ask(balanced, "POST", "/window"):
        if set(datum["dimensions"]) == {"LoadBalancer"} or datum["metric"].endswith("HostCount"):
            found[datum["metric"]] = datum["values"]
    return found


def test_a_request_reaches_the_target_with_the_headers_of_a_load_balancer(balanced: Rig) -> None:
    """Forwarded-for, proto and port, and a trace id that keeps the client's root."""
    with target(balanced, lambda _head: GOOD) as one:
        page = Shopper(balanced, REGION).get("/x?y=1", headers={"X-Amzn-Trace-Id": "Root=1-67891233-abcdef012345678912345678"})
        assert (page.status_code, page.text) == (200, "ok")
        head = next(seen for seen in one.seen if b"/x?y=1" in seen).decode()
        assert "X-Forwarded-For: 127.0.0.1" in head
        assert "X-Forwarded-Proto: https" in head
        assert f"X-Forwarded-Port: {balanced.plan.alb_port}" in head
        assert "Root=1-67891233-abcdef012345678912345678" in head
        assert "Self=1-" in head
        seen = window(balanced)
        assert seen["RequestCount"] == [1]
        assert seen["HTTPCode_Target_2XX_Count"] == [1]
        assert seen["HealthyHostCount"] == [1]
        assert 0 < seen["TargetResponseTime"][0] < 1
        assert "HTTPCode_ELB_5XX_Count" not in seen
    log = (balanced.plan.logs / f"{REGION}-alb-access.log").read_text().splitlines()[-1]
    assert log.startswith("https 20")
    assert f'"GET https://127.0.10.1:{balanced.plan.alb_port}/x?y=1 HTTP/1.1"' in log


@pytest.mark.parametrize(
    ("answer", "status"),
    [(lambda _head: None, 502), (lambda _head: b"nonsense\r\n\r\n", 502), (lambda _head: b"", 504)],
    ids=["hangs up", "speaks no HTTP", "says nothing"],
)
def test_a_target_that_fails_is_answered_for(balanced: Rig, answer: Callable[[bytes], bytes | None], status: int) -> None:
    """502 where the target broke the connection or the protocol, 504 where it let the idle timeout pass; each is counted."""
    ask(balanced, "PUT", "/attributes", {"idle_timeout_s": 10})
    with target(balanced, answer):
        page = Shopper(balanced, REGION).get("/")
        assert page.status_code == status
        assert page.headers["Server"] == "awselb/2.0"
        seen = window(balanced)
        assert seen[f"HTTPCode_ELB_{status}_Count"] == seen["HTTPCode_ELB_5XX_Count"] == [1]
        assert seen["RequestCount"] == [1]
        assert "TargetResponseTime" not in seen
    ask(balanced, "PUT", "/attributes", {"idle_timeout_s": 60})


def test_without_targets_it_is_503_and_no_request_is_counted(balanced: Rig) -> None:
    """RequestCount counts requests for which a target could be chosen; host counts are absent."""
    assert Shopper(balanced, REGION).get("/").status_code == 503
    seen = window(balanced)
    assert seen["HTTPCode_ELB_503_Count"] == [1]
    assert not {"RequestCount", "HealthyHostCount", "UnHealthyHostCount"} & set(seen)


def test_a_target_that_is_gone_is_a_connection_error_until_it_counts_as_unhealthy(balanced: Rig) -> None:
    """And with no healthy target all are tried: the answer stays 502."""
    check = {"interval_s": 3, "unhealthy_threshold": 2, "timeout_s": 2}
    ask(balanced, "PUT", "/attributes", {"health_check": check})
    with target(balanced, lambda _head: GOOD) as one:
        one.close()
        assert Shopper(balanced, REGION).get("/").status_code == 502
        wait_for("unhealthy", lambda: ask(balanced, "GET", "/health") == {"targets": 1, "healthy": 0})
        assert Shopper(balanced, REGION).get("/").status_code == 502
        seen = window(balanced)
        assert seen["TargetConnectionErrorCount"] == [2]
        assert seen["UnHealthyHostCount"] == [1]
    ask(balanced, "PUT", "/attributes", {"health_check": {"interval_s": 30, "unhealthy_threshold": 5, "timeout_s": 5}})


def test_draining_lets_what_is_under_way_finish(balanced: Rig) -> None:
    """A slow request survives the deregistration of its target; the next one finds none."""
    release = threading.Event()

    def slowly(_head: bytes) -> bytes:
        release.wait(5)
        return GOOD

    answers: list[int] = []
    with target(balanced, slowly) as one:
        asking = threading.Thread(target=lambda: answers.append(Shopper(balanced, REGION).get("/slow").status_code))
        asking.start()
        wait_for("the request", lambda: any(b"/slow" in seen for seen in one.seen))
        draining = threading.Thread(target=ask, args=(balanced, "DELETE", "/targets/t"))
        draining.start()
        wait_for("draining", lambda: ask(balanced, "GET", "/status")["targets"][0]["state"] == "draining")
        assert Shopper(balanced, REGION).get("/next").status_code == 503
        release.set()
        asking.join(10)
        draining.join(10)
        assert answers == [200]
        assert ask(balanced, "GET", "/status")["targets"] == []
        ask(balanced, "POST", "/targets", {"id": "t", "port": one.port})


def test_a_large_body_passes_both_ways_whole(balanced: Rig) -> None:
    """With a length and in chunks."""
    big = bytes(range(256)) * 3000
    chunked = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n%x\r\n%b\r\n0\r\n\r\n" % (len(big), big)
    with target(balanced, lambda _head: chunked):
        assert Shopper(balanced, REGION).get("/").content == big
    with target(balanced, lambda _head: b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(big), big)):
        assert Shopper(balanced, REGION).get("/").content == big


def test_the_certificate_can_be_short_lived_and_expired(balanced: Rig) -> None:
    """New connections see the new one; an expired one is refused by every client that checks."""
    context = ssl.create_default_context(cafile=str(balanced.plan.ca_file))

    def days_left() -> float:
        here = (balanced.plan.regions[REGION].ip, balanced.plan.alb_port)
        with socket.create_connection(here, 5) as raw, context.wrap_socket(raw, server_hostname="store.retail.test") as sock:
            certificate = sock.getpeercert()
            assert certificate
            end = ssl.cert_time_to_seconds(str(certificate["notAfter"]))
        return (end - datetime.now(UTC).timestamp()) / 86_400

    assert days_left() > 300
    ask(balanced, "PUT", "/certificate", {"days": 3})
    assert 2.9 < days_left() <= 3
    ask(balanced, "PUT", "/certificate", {"days": -1})
    with pytest.raises(ssl.SSLCertVerificationError, match="expired"):
        days_left()
    with pytest.raises(requests.exceptions.SSLError):
        Shopper(balanced, REGION).get("/")
    ask(balanced, "PUT", "/certificate", {"days": 300})
    assert days_left() > 200


def test_an_attribute_that_is_none_is_refused(balanced: Rig) -> None:
    """With its name in the message."""
    with pytest.raises(admin.Refusal, match="stickiness"):
        ask(balanced, "PUT", "/attributes", {"stickiness": True})


class TestJudging:
    """When a target's state changes."""

    def test_a_new_target_is_healthy_after_one_success(self) -> None:
        """AWS: a target must pass one check after it is registered."""
        target = Target("t", 1)
        target.judge(None, HealthCheck())
        assert target.state == "healthy"

    def test_a_new_target_that_never_passes_is_unhealthy(self) -> None:
        """After as many failures as make a healthy one unhealthy; then it has to pass as often as any."""
        target = Target("t", 1)
        states = []
        for failure in ("Target.Timeout",) * 3 + (None, None):
            target.judge(failure, HealthCheck(healthy_threshold=2, unhealthy_threshold=3))
            states.append(target.state)
        assert states == ["initial", "initial", "unhealthy", "unhealthy", "healthy"]
        target = Target("t", 1)
        for _ in range(5):
            target.judge("Target.ResponseCodeMismatch", HealthCheck())
        assert (target.state, target.reason) == ("unhealthy", "Target.ResponseCodeMismatch")

    @given(st.lists(st.booleans(), max_size=40))
    def test_a_change_takes_a_full_streak(self, results: list[bool]) -> None:
        """The state after any history is what counting back from its end says."""
        check = HealthCheck(healthy_threshold=2, unhealthy_threshold=3)
        target = Target("t", 1, state="healthy")
        expected, run, last = "healthy", 0, True
        for good in results:
            run = run + 1 if good == last else 1
            last = good
            if expected == "healthy" and not good and run >= 3:
                expected = "unhealthy"
            elif expected == "unhealthy" and good and run >= 2:
                expected = "healthy"
            target.judge(None if good else "Target.Timeout", check)
            assert target.state == expected


@pytest.mark.parametrize(
    ("incoming", "pattern"),
    [
        ("", r"Root=1-[0-9a-f]{8}-[0-9a-f]{24}"),
        ("Root=1-1-2;Sampled=1", r"Self=1-[0-9a-f]{8}-[0-9a-f]{24};Root=1-1-2;Sampled=1"),
        ("Self=1-old;Root=1-1-2", r"Self=1-[0-9a-f]{8}-[0-9a-f]{24};Root=1-1-2"),
        ("Calls=3", r"Root=1-[0-9a-f]{8}-[0-9a-f]{24};Calls=3"),
    ],
)
def test_trace_headers_follow_the_documented_rules(incoming: str, pattern: str) -> None:
    """A root is kept and gets our Self; an old Self is replaced; where there is no root one begins."""
    import re

    assert re.fullmatch(pattern, trace_header(incoming, 1_700_000_000))
