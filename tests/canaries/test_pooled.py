"""A client that keeps its connection to the name, with the lab's own Route 53, resolvers and routing controls: a drain leaves it behind."""

from __future__ import annotations

import contextlib
import ssl
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any

import boto3
import pytest

from canaries.probe import metrics
from canaries.shared import trace
from lab.aws import registry
from lab.plan import LabPlan
from lab.store import tls
from lab.topology import lab_topology
from tests.canaries.sight import Watcher
from tests.lab.dns.conftest import OURS, LabWithDns

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from canaries.probe.rounds import Round

EAST, WEST = "us-east-1", "us-west-2"
pytestmark = pytest.mark.slow


class Balancer(ThreadingHTTPServer):
    """A Region's load balancer: TLS, connections that are kept, and the Region's name in every answer. `end` closes them all."""

    daemon_threads = True

    def __init__(self, plan: LabPlan, region: str) -> None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        tls.certify(plan, region, context)
        super().__init__((plan.regions[region].ip, plan.alb_port), Page)
        self.region, self.open = region, []
        self.socket = context.wrap_socket(self.socket, server_side=True)

    def get_request(self) -> Any:
        connection = super().get_request()
        self.open.append(connection[0])
        return connection

    def end(self) -> None:
        """Close every connection, as a deregistration delay that is over does."""
        for connection in self.open:
            with contextlib.suppress(OSError):
                connection.shutdown(2)
        self.open.clear()

    region: str
    open: list[Any]


class Page(BaseHTTPRequestHandler):
    """Every page of the store."""

    protocol_version = "HTTP/1.1"
    server: Balancer

    def do_GET(self) -> None:
        body = b"Retail Store: Catalog, Cart, Orders"
        self.send_response(200)
        self.send_header("X-Retail-Store-Metadata", f"region={self.server.region}")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the base class's name
        """Say nothing."""


class Drained:
    """The probe of the first Region, and the routing controls it reads."""

    def __init__(self, plan: LabPlan, balancers: dict[str, Balancer]) -> None:
        self.topology = lab_topology(plan)
        self.balancers = balancers
        self.watcher = Watcher(plan, self.topology)

    def turn(self, region: str, state: str) -> None:
        """Turn a routing control on or off, through ARC's data plane."""
        assert self.topology.routing
        place, endpoint = next(iter(self.topology.routing.cluster_endpoints.items()))
        client = boto3.client("route53-recovery-cluster", region_name=place, endpoint_url=endpoint)
        client.update_routing_control_state(RoutingControlArn=self.topology.routing.controls[region], RoutingControlState=state)

    def look(self) -> Round:
        """One round."""
        return self.watcher.probers[EAST].round(time.time(), trace.TraceId.new(time.time()))

    def until(self, what: str, is_so: Callable[[Round], object], within_s: float = 30.0) -> Round:
        """Look until it is so."""
        deadline = time.monotonic() + within_s
        while not is_so(seen := self.look()):
            assert time.monotonic() < deadline, f"waited for {what}"
            time.sleep(0.2)
        return seen

    def stale(self, seen: Round) -> list[float]:
        """The metric of a round."""
        data = metrics.own_data(self.watcher.probers[EAST].settings, seen, {})
        return [each["Value"] for each in data if each["MetricName"] == "PooledStale"]


@pytest.fixture
def drained(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Drained]:
    monkeypatch.setattr(registry, "SERVICES", {name: registry.SERVICES[name] for name in OURS})
    with contextlib.ExitStack() as stack:
        stack.enter_context(monkeypatch.context())
        lab = stack.enter_context(contextlib.closing(LabWithDns(LabPlan.make(tmp_path, speed=60))))
        balancers = {region: stack.enter_context(Balancer(lab.plan, region)) for region in lab.plan.regions}
        for each in balancers.values():
            threading.Thread(target=each.serve_forever, daemon=True).start()
            stack.callback(each.shutdown)
        for name, value in lab.plan.aws_environment("admin", EAST).items():
            monkeypatch.setenv(name, value)
        monkeypatch.delenv("AWS_ENDPOINT_URL", raising=False)
        probe = Drained(lab.plan, balancers)
        stack.callback(probe.watcher.close)
        yield probe


def test_a_drained_region_keeps_the_clients_that_keep_their_connection(drained: Drained) -> None:
    """DNS moves new connections within its TTL; the kept one stays, and is seen to, until the load balancer closes it."""
    before = drained.until("all to be read", lambda seen: seen.agrees is True and seen.pooled and seen.pooled.exchange.ok)
    assert (before.pooled and before.pooled.region, drained.stale(before)) == (EAST, [0.0])
    drained.turn(EAST, "Off")
    seen = drained.until("the name to lead elsewhere", lambda seen: seen.agrees is True and seen.routing.get(EAST) is False)
    assert {region for (target, _), region in seen.served_by.items() if target == "name"} == {WEST}, "new connections have moved"
    assert (seen.pooled and seen.pooled.region, drained.stale(seen)) == (EAST, [1.0])
    drained.balancers[EAST].end()
    after = drained.until("the client to connect again", lambda seen: seen.pooled and seen.pooled.exchange.ok)
    assert (after.pooled and after.pooled.region, drained.stale(after)) == (WEST, [0.0])
