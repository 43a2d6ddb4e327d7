"""Whole runs of the probe's bundle in the sandbox, in lab time, against two Regions' servers, their AWS and a DNS server."""

from __future__ import annotations

import contextlib
import json
import threading
import time
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from flask import Flask, Response, request

from canaries.bundle import build
from canaries.probe.settings import Arc, Page, ProbeSettings
from canaries.runtime import RunRequest, Sandbox
from canaries.shared.settings import encode
from canaries.shared.target import Target
from tests.canaries.servers import CREDENTIALS, Recorder, Zone, served

if TYPE_CHECKING:
    from collections.abc import Iterator

    from canaries.runtime import RunResult

EAST, WEST = "us-east-1", "us-west-2"
pytestmark = pytest.mark.slow


@dataclass
class Store:
    """A Region's load balancer: pages that tests break."""

    region: str
    status: int = 200
    delay_s: float = 0.0
    requests: list[dict[str, str]] = field(default_factory=list)
    port: int = 0

    def app(self) -> Flask:
        app = Flask(self.region)

        @app.get("/<path:path>")
        def any_page(path: str) -> Response:
            self.requests.append(
                {"path": path, "from": str(request.environ.get("REMOTE_PORT")), **{k.lower(): v for k, v in request.headers}}
            )
            time.sleep(self.delay_s)
            return Response(f"Retail Store {path}", self.status, {"X-Retail-Store-Metadata": f"region={self.region}"})

        return app


@dataclass
class World:
    """Two Regions with a store each, their AWS, and DNS that points at one of them."""

    stores: dict[str, Store]
    aws: dict[str, Recorder]
    zone: Zone
    resolver: str
    folder: Path
    sandbox: Sandbox
    controls: dict[str, str]
    logs: list[str] = field(default_factory=list)
    start: float = field(default_factory=time.time)

    def config(self, **changes: Any) -> dict[str, Any]:
        east, west = self.stores[EAST].port, self.stores[WEST].port
        config = encode(
            ProbeSettings(
                workload="retail",
                vantage=EAST,
                targets=(
                    Target("alb-us-east-1", f"http://alb-east.retail.test:{east}", EAST),
                    Target("alb-us-west-2", f"http://alb-west.retail.test:{west}", WEST),
                    Target("name", f"http://store.retail.test:{east}"),
                ),
                pages=(Page("home", "/home", body="Retail Store"), Page("cart", "/cart")),
                write_to={EAST: self.aws[EAST].url, WEST: self.aws[WEST].url},
                resolver=self.resolver,
                arc=Arc({EAST: self.aws[EAST].url}, self.controls),
                trace_to=self.aws[EAST].url,
            )
        )
        return {**config, **changes}

    def run(self, timeout_s: float = 59, **changes: Any) -> RunResult:
        """One run of the bundle in lab time, ten times as fast."""
        built = build("probe", self.config(**changes))
        path = self.folder / "probe.zip"
        path.write_bytes(built.data)
        self.logs.clear()
        request_ = RunRequest(
            canary="retail-probe",
            handler=built.handler,
            bundle=path,
            region=EAST,
            timeout_s=timeout_s,
            credentials={**CREDENTIALS, "AWS_ENDPOINT_URL": self.aws[EAST].url},
            lab_clock=f"{self.start!r},{(self.start + 7200) // 60 * 60!r},10",
            log=lambda each: self.logs.append(each.message),
        )
        return self.sandbox.run(request_)

    @property
    def lines(self) -> list[dict[str, Any]]:
        """The rounds' lines."""
        return [json.loads(each) for each in self.logs if each.startswith('{"crosswatch"')]


@pytest.fixture
def world(dns: tuple[Zone, str], aws: tuple[Recorder, Recorder], tmp_path: Path) -> Iterator[World]:
    zone, resolver = dns
    stores = {EAST: Store(EAST), WEST: Store(WEST)}
    arn = "arn:aws:route53-recovery-control::123456789012:controlpanel/" + "0" * 32 + "/routingcontrol/{}"
    controls = {EAST: arn.format("a" * 16), WEST: arn.format("b" * 16)}
    for recorder in aws:
        recorder.controls.update(dict.fromkeys(controls.values(), "On"))
    zone.names.update({"alb-east.retail.test": ["127.0.0.1"], "alb-west.retail.test": ["127.0.0.2"], "store.retail.test": ["127.0.0.1"]})
    with served(stores[EAST].app()) as east, served(stores[WEST].app(), host="127.0.0.2") as west, Sandbox("probe") as sandbox:
        stores[EAST].port, stores[WEST].port = east, west
        yield World(stores, {EAST: aws[0], WEST: aws[1]}, zone, resolver, tmp_path, sandbox, controls)


def test_a_good_run_passes_and_both_regions_hold_the_matrix(world: World) -> None:
    result = world.run()
    assert result.passed, result.state_reason
    rounds = len(world.lines)
    assert rounds >= 3
    assert [step.name for step in result.steps] == [
        f"{t} {p}" for t in ("alb-us-east-1", "alb-us-west-2", "name") for p in ("home", "cart")
    ]
    for recorder in world.aws.values():
        for target in ("alb-us-east-1", "alb-us-west-2", "name"):
            assert recorder.values("Up", Target=target) == [1.0] * rounds
            assert recorder.values("Up", Vantage=EAST, Target=target) == [1.0] * rounds
        assert recorder.values("Alive", Vantage=EAST) == [1.0] * (rounds + 2)
        assert recorder.values("RoutingOn", Region=WEST) == [1.0] * rounds
        assert recorder.values("DnsAgrees") == [1.0] * rounds
    assert len(world.aws[EAST].values("LatencyMs", Vantage=EAST, Target="name")) == 2 * rounds
    assert world.aws[WEST].values("LatencyMs", Vantage=EAST, Target="name") == []
    assert world.aws[EAST].values("WriteOk", Vantage=EAST, Region=WEST) == [1.0] * (rounds - 1)
    assert world.lines[0]["dns"]["store.retail.test"] == {"addresses": ["127.0.0.1"], "ttl_s": 60}
    assert {each["region"] for each in world.lines[0]["looks"] if each["target"] == "alb-us-west-2"} == {WEST}


def test_every_probe_has_a_connection_of_its_own_and_is_marked(world: World) -> None:
    world.run()
    requests = world.stores[WEST].requests
    assert len({each["from"] for each in requests}) == len(requests)
    for each in requests:
        assert each["user-agent"].startswith("CloudWatchSynthetics/arn:aws:synthetics:us-east-1:")
        assert each["x-crosswatch-synthetic"] == "true"
        assert "crosswatch.synthetic=true" in each["baggage"]
    assert len({each["traceparent"].split("-")[1] for each in requests}) == 1


def test_a_dead_region_is_down_for_its_target_alone_and_leads_to_its_trace(world: World) -> None:
    world.stores[WEST].status = 503
    result = world.run()
    assert not result.passed
    assert [step.name for step in result.steps if not step.passed] == ["alb-us-west-2 home", "alb-us-west-2 cart"]
    trace_id = world.lines[0]["trace"]
    assert f"503, expected 200 ({len(world.lines)} rounds failed twice; trace {trace_id})" in str(result.steps[2].error)
    for recorder in world.aws.values():
        assert set(recorder.values("Up", Target="alb-us-west-2")) == {0.0}
        assert set(recorder.values("Up", Target="name")) == {1.0}
    retries = [each for each in world.stores[WEST].requests if each["traceparent"].endswith("-01")]
    assert len(retries) >= 2 * len(world.lines), "each second try is sampled"
    segment = world.aws[EAST].segments[0]
    assert segment["trace_id"] == trace_id
    assert segment["fault"]
    ids = {each["id"] for each in segment["subsegments"]}
    assert {each["traceparent"].split("-")[2] for each in retries} <= ids


def test_a_slow_region_is_degraded(world: World) -> None:
    world.stores[WEST].delay_s = 0.5
    world.run(limits={**world.config()["limits"], "degraded_ms": 400.0})
    assert set(world.aws[EAST].values("Degraded", Vantage=EAST, Target="alb-us-west-2")) == {1.0}
    assert set(world.aws[EAST].values("Up", Target="alb-us-west-2")) == {1.0}
    assert set(world.aws[EAST].values("Degraded", Vantage=EAST, Target="name")) == {0.0}


def test_dns_that_leads_to_a_region_that_is_off_is_seen(world: World) -> None:
    world.aws[EAST].controls[world.controls[EAST]] = "Off"
    world.run()
    assert set(world.aws[WEST].values("RoutingOn", Region=EAST)) == {0.0}
    assert set(world.aws[WEST].values("DnsAgrees")) == {0.0}
    assert world.lines[-1]["pooled"]["stale"] is True


def test_a_routing_state_that_cannot_be_read_is_absent(world: World) -> None:
    world.run(arc={"endpoints": {EAST: "http://127.0.0.1:1"}, "controls": world.controls})
    assert world.aws[WEST].values("RoutingOn", Region=EAST) == []
    assert world.aws[WEST].values("DnsAgrees") == []
    assert set(world.aws[WEST].values("Up", Target="name")) == {1.0}


def test_a_name_that_is_gone_leaves_the_load_balancers_up(world: World) -> None:
    world.zone.names.pop("store.retail.test")
    result = world.run()
    assert [step.name for step in result.steps if not step.passed] == ["name home", "name cart"]
    assert set(world.aws[EAST].values("Up", Target="name")) == {0.0}
    assert {each["kind"] for each in world.lines[0]["looks"] if each["target"] == "name"} == {"dns"}


def test_a_region_that_cannot_be_written_to_is_observed_in_the_own_region(world: World) -> None:
    world.run(write_to={EAST: world.aws[EAST].url, WEST: "http://127.0.0.1:1"})
    assert set(world.aws[EAST].values("WriteOk", Vantage=EAST, Region=WEST)) == {0.0}
    assert set(world.aws[EAST].values("WriteOk", Vantage=EAST, Region=EAST)) == {1.0}


class KeepsConnections(BaseHTTPRequestHandler):
    """A load balancer that keeps connections open, which Flask's own server never does."""

    protocol_version = "HTTP/1.1"
    region = EAST

    def do_GET(self) -> None:
        body = b"Retail Store"
        self.send_response(200)
        self.send_header("X-Retail-Store-Metadata", f"region={self.region}")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the base class's name
        """Say nothing."""


def test_a_pooled_connection_stays_where_it_was(world: World) -> None:
    """Across rounds and runs, for the process is warm: the connection to the name only grows older."""
    with ThreadingHTTPServer(("127.0.0.1", 0), KeepsConnections) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            world.stores[EAST].port = server.server_port
            world.run()
            ages = [line["pooled"]["age_s"] for line in world.lines]
            assert {line["pooled"]["region"] for line in world.lines} == {EAST}
            world.run()
            ages += [line["pooled"]["age_s"] for line in world.lines]
        finally:
            server.shutdown()
    assert ages == sorted(ages)
    assert ages[-1] - ages[0] > 30


class KeepsConnectionsInTheWest(KeepsConnections):
    region = WEST


def test_a_client_that_stays_in_a_drained_region_is_seen(world: World) -> None:
    """The control is off and DNS has moved on: new connections go west, the kept one stays in the east until it is closed."""
    with contextlib.ExitStack() as stack:
        east = stack.enter_context(ThreadingHTTPServer(("127.0.0.1", 0), KeepsConnections))
        west = stack.enter_context(ThreadingHTTPServer(("127.0.0.2", east.server_port), KeepsConnectionsInTheWest))
        for server in (east, west):
            threading.Thread(target=server.serve_forever, daemon=True).start()
            stack.callback(server.shutdown)
        world.stores[EAST].port = world.stores[WEST].port = east.server_port
        world.run()
        assert set(world.aws[EAST].values("PooledStale", Vantage=EAST)) == {0.0}
        world.aws[EAST].controls[world.controls[EAST]] = "Off"
        world.zone.names["store.retail.test"] = ["127.0.0.2"]
        world.aws[EAST].data.clear()
        world.run()
        assert set(world.aws[EAST].values("PooledStale", Vantage=EAST)) == {1.0}
        assert set(world.aws[EAST].values("DnsAgrees")) == {1.0}, "new clients are where they should be"
        assert {line["pooled"]["region"] for line in world.lines} == {EAST}
        del world.aws[EAST].controls[world.controls[EAST]]
        world.aws[EAST].data.clear()
        world.run()
        assert world.aws[EAST].values("PooledStale", Vantage=EAST) == [], "unknown is not stale, nor its opposite"
    assert not [each for each in world.aws[WEST].data if each["MetricName"] == "PooledStale"], "the own Region alone has it"


def test_a_run_without_time_for_a_round_says_so(world: World) -> None:
    result = world.run(timeout_s=9, rounds={**world.config()["rounds"], "until_s": 5.0})
    assert "no round fits" in result.state_reason
