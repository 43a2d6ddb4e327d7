"""One Region's Service Connect: the proxy that every call between the services goes through, and the metrics that come of it.

On ECS each task has a sidecar. Here one process stands for all sidecars of a Region: every client service reaches it on a loopback
address of its own (see ``CLIENTS``), so that the proxy knows who calls, on the port of the service that is called.

``python -m lab.store.connect <region>`` takes orders on ``connect_admin_port``:

    GET /status                     endpoints per service, and which are ejected
    POST /endpoints/<service> {"id": T, "port": P}     DELETE /endpoints/<service>/<id>
    POST /window                    the metrics since the last call, as CloudWatch data

Like ECS's it tries another endpoint twice where a connection fails, ejects an endpoint for a while after five failures in a row (as long
as another is left), and gives up after 15 s (AWS's pages "Service Connect configuration" and "Amazon ECS CloudWatch metrics"). Response
times are milliseconds here, where the load balancer's are seconds.

Of a request that reaches no task there are no metrics: the called service's proxy stands beside a task and has not seen it, and there is no
target whose code or time could be told. Codes are those that tasks answered with; a 503 or 504 that the proxy itself answers is none. So a
service without tasks falls silent here.
"""

from __future__ import annotations

import asyncio
import itertools
import signal
import sys
import time
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

from lab.admin import Refusal, serve
from lab.plan import LabPlan
from lab.store import names
from lab.store.datum import Datum, across
from lab.store.http import MAX_HEAD, BadMessage, End, Head, Outcome, Pool, exchange, read_head

if TYPE_CHECKING:
    from collections.abc import Iterator

CLIENTS = {"ui": "127.0.0.1", "checkout": "127.0.0.2"}
CALLS = {"ui": ("catalog", "carts", "checkout", "orders"), "checkout": ("orders",)}
NAMESPACE = "AWS/ECS"
REQUEST_TIMEOUT_S = 15.0
CONNECT_TIMEOUT_S = 2.0
RETRIES = 2
EJECT_AFTER = 5
EJECT_S = 30.0


@dataclass(slots=True)
class Endpoint:
    """One task of a service."""

    id: str
    port: int
    failures: int = 0
    ejected_until: float = 0.0


@dataclass(slots=True)
class Window:
    """What one client service and one called service had to do with each other since the last publication."""

    requests: int = 0
    new_connections: int = 0
    active_peak: int = 0
    bytes: int = 0
    target_bytes: int = 0
    codes: Counter[int] = field(default_factory=Counter)
    response_ms: list[float] = field(default_factory=list)

    def count(self, outcome: Outcome) -> None:
        """Take in a request that reached a task."""
        self.requests += 1
        self.bytes += outcome.received + outcome.sent
        self.target_bytes += outcome.received + outcome.sent
        if outcome.status is not None:
            self.codes[outcome.status] += 1
        if outcome.target_s is not None:
            self.response_ms.append(1000 * outcome.target_s)

    def data(self, client: str, service: str, endpoints: int) -> Iterator[Datum]:
        """The metrics of the period: the called service's proxy reports by DiscoveryName, the client's by TargetDiscoveryName."""
        cluster = names.CLUSTER
        served = [{"DiscoveryName": service}, {"DiscoveryName": service, "ServiceName": service, "ClusterName": cluster}]
        called = [{"TargetDiscoveryName": service}, {"TargetDiscoveryName": service, "ServiceName": client, "ClusterName": cluster}]
        for metric, value, sets, unit in (
            ("RequestCount", self.requests, served, "Count"),
            ("NewConnectionCount", self.new_connections, served, "Count"),
            ("ActiveConnectionCount", self.active_peak, served, "Count"),
            ("ProcessedBytes", self.bytes, served, "Bytes"),
            ("TargetProcessedBytes", self.target_bytes, called, "Bytes"),
            ("RequestCountPerTarget", self.requests / max(1, endpoints), called, "Count"),
        ):
            yield from across(NAMESPACE, metric, sets, [value] if value else [], unit)
        for hundreds in (2, 3, 4, 5):
            count = sum(n for code, n in self.codes.items() if code // 100 == hundreds)
            yield from across(NAMESPACE, f"HTTPCode_Target_{hundreds}XX_Count", called, [count] if count else [])
        yield from across(NAMESPACE, "TargetResponseTime", called, self.response_ms, "Milliseconds")


class Mesh:
    """The proxies of one Region."""

    def __init__(self, plan: LabPlan, region: str) -> None:
        self._plan = plan
        self._region = region
        self.endpoints: dict[str, dict[str, Endpoint]] = {service: {} for service in plan.regions[region].connect_ports}
        self._windows: dict[tuple[str, str], Window] = defaultdict(Window)
        self._open: Counter[tuple[str, str]] = Counter()
        self._pool = Pool(CONNECT_TIMEOUT_S)
        self._turn = itertools.count()

    async def start(self) -> None:
        """Listen for every client on every port it calls."""
        here = self._plan.regions[self._region]
        for client, services in CALLS.items():
            for service in services:
                port = here.connect_ports[service]
                await asyncio.start_server(partial(self._serve, client, service), CLIENTS[client], port, limit=MAX_HEAD)
        await serve(here.connect_admin_port, self.handle)

    async def _serve(self, client: str, service: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        pair = (client, service)
        counted = False
        try:
            while (request := await read_head(reader)) is not None:
                outcome = await self._forward(request, reader, writer, service)
                if reached(outcome):
                    window = self._windows[pair]
                    if not counted:
                        counted = True
                        self._open[pair] += 1
                        window.new_connections += 1
                        window.active_peak = max(window.active_peak, self._open[pair])
                    window.count(outcome)
                if not outcome.keep_alive:
                    break
        except (ConnectionError, BadMessage):
            pass
        finally:
            self._open[pair] -= counted
            writer.close()

    async def _forward(self, request: Head, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, service: str) -> Outcome:
        outcome = Outcome(End.CONNECT_FAILED)
        for _ in range(1 + RETRIES):
            endpoint = self._choose(service)
            if endpoint is None:
                break
            outcome = await exchange(request, reader, writer, self._pool, endpoint.port, REQUEST_TIMEOUT_S)
            self._learn(endpoint, outcome)
            if outcome.end not in {End.CONNECT_FAILED, End.CONNECT_TIMEOUT}:
                break
        if outcome.status is not None:
            return outcome
        status = 504 if outcome.end in {End.TIMEOUT, End.CONNECT_TIMEOUT} else 503
        text = "upstream request timeout" if status == 504 else f"no healthy upstream: {outcome.end.value}"
        phrase = "Gateway Timeout" if status == 504 else "Service Unavailable"
        head = (
            f"HTTP/1.1 {status} {phrase}",
            "Server: envoy",
            "Content-Type: text/plain",
            f"Content-Length: {len(text)}",
            "Connection: close",
        )
        writer.write(("\r\n".join(head) + "\r\n\r\n" + text).encode())
        await writer.drain()
        return outcome

    def _choose(self, service: str) -> Endpoint | None:
        now = time.monotonic()
        endpoints = list(self.endpoints[service].values())
        candidates = [endpoint for endpoint in endpoints if endpoint.ejected_until <= now] or endpoints
        return candidates[next(self._turn) % len(candidates)] if candidates else None

    def _learn(self, endpoint: Endpoint, outcome: Outcome) -> None:
        failed = outcome.end in {End.CONNECT_FAILED, End.CONNECT_TIMEOUT, End.RESET, End.TIMEOUT} or (outcome.status or 0) >= 500
        endpoint.failures = endpoint.failures + 1 if failed else 0
        if endpoint.failures >= EJECT_AFTER:
            endpoint.failures = 0
            endpoint.ejected_until = time.monotonic() + self._plan.clock.wall_seconds(EJECT_S)

    async def handle(self, method: str, path: tuple[str, ...], _query: dict[str, str], body: Any) -> Any:
        """The admin port's requests."""
        match (method, path):
            case ("GET", ("status",)):
                now = time.monotonic()
                return {
                    service: [{"id": e.id, "port": e.port, "ejected": e.ejected_until > now} for e in endpoints.values()]
                    for service, endpoints in self.endpoints.items()
                }
            case ("POST", ("endpoints", service)) if service in self.endpoints:
                self.endpoints[service][str(body["id"])] = Endpoint(str(body["id"]), int(body["port"]))
                return {"endpoints": len(self.endpoints[service])}
            case ("DELETE", ("endpoints", service, identity)) if service in self.endpoints:
                if endpoint := self.endpoints[service].pop(identity, None):
                    self._pool.drop(endpoint.port)
                return {"endpoints": len(self.endpoints[service])}
            case ("POST", ("window",)):
                windows, self._windows = self._windows, defaultdict(Window)
                for pair, count in self._open.items():
                    self._windows[pair].active_peak = count
                return [
                    datum.as_dict()
                    for (client, service), window in windows.items()
                    for datum in window.data(client, service, len(self.endpoints[service]))
                ]
        raise Refusal(404, f"no such path: {method} /{'/'.join(path)}")


def reached(outcome: Outcome) -> bool:
    """Whether a request got as far as a task."""
    return outcome.end not in {End.CONNECT_FAILED, End.CONNECT_TIMEOUT}


async def main(region: str) -> None:
    """Run until SIGTERM."""
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    await Mesh(LabPlan.load(), region).start()
    await stop.wait()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))
