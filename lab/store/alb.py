"""One Region's Application Load Balancer: a TLS listener, one target group with health checks, and the answers an ALB gives when it cannot.

``python -m lab.store.alb <region>`` listens on ``<ip>:<alb_port>`` and takes orders on ``alb_admin_port``:

    GET /health            {"targets": 2, "healthy": 1}: what Route 53's EvaluateTargetHealth looks at
    GET /status            targets with their states and reasons, attributes, the certificate's end
    POST /targets {"id": T, "port": P}    DELETE /targets/<id>  (drains)
    PUT /attributes {"idle_timeout_s": 60, "health_check": {"interval_s": 30, …}}        lab seconds
    PUT /certificate {"days": 3}          a new one that expires in 3 days (or has, with -1)
    POST /window           the metrics since the last call, as CloudWatch data (for `lab.store.vending`)

How it behaves follows AWS's pages "Troubleshoot your Application Load Balancers" (which status when), "Health checks for your target
groups" (a new target is healthy after one success; with no healthy target all are tried), "Request tracing" and "Access logs".
"""

from __future__ import annotations

import asyncio
import dataclasses
import itertools
import secrets
import signal
import ssl
import sys
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from lab.admin import Refusal, serve
from lab.plan import LabPlan
from lab.store.albmetrics import Window, access_line
from lab.store.http import MAX_HEAD, BadMessage, End, Head, Outcome, Pool, exchange, read_head
from lab.store.tls import certify

if TYPE_CHECKING:
    from collections.abc import Iterator

CONNECT_TIMEOUT_S = 10.0
INITIAL_INTERVAL_S = 0.5
REASONS = {
    400: "Bad Request",
    460: "Client Closed Request",
    502: "Bad Gateway",
    503: "Service Temporarily Unavailable",
    504: "Gateway Time-out",
}
STATUS_OF = {
    End.CONNECT_FAILED: 502,
    End.RESET: 502,
    End.CONNECT_TIMEOUT: 504,
    End.TIMEOUT: 504,
    End.CLIENT_GONE: 460,
}


@dataclass(frozen=True, slots=True)
class HealthCheck:
    """The target group's health check; times are lab seconds. The defaults are the guidance's."""

    path: str = "/actuator/health"
    interval_s: float = 30
    timeout_s: float = 5
    healthy_threshold: int = 2
    unhealthy_threshold: int = 5
    matcher: tuple[int, ...] = (200, 302, 303)


@dataclass(frozen=True, slots=True)
class Attributes:
    """What can be set on the load balancer and its target group; times are lab seconds."""

    idle_timeout_s: float = 60
    deregistration_delay_s: float = 30
    health_check: HealthCheck = field(default_factory=HealthCheck)


@dataclass(slots=True)
class Target:
    """A registered target. States and reasons are those of DescribeTargetHealth."""

    id: str
    port: int
    state: str = "initial"
    reason: str = "Elb.InitialHealthChecking"
    streak: int = 0
    in_flight: int = 0
    checker: asyncio.Task[None] | None = None

    def judge(self, failure: str | None, check: HealthCheck) -> None:
        """Take one check's result: ``failure`` is its reason code, None for a success."""
        if self.state == "draining":
            return
        good = failure is None
        is_new = self.state == "initial"
        was_good = self.state == "healthy"
        self.streak = 0 if good == was_good and not is_new else self.streak + 1
        needed = 1 if is_new and good else check.healthy_threshold if good else check.unhealthy_threshold
        if (is_new or good != was_good) and self.streak >= needed:
            self.state, self.streak = ("healthy" if good else "unhealthy"), 0
        if self.state == "healthy":
            self.reason = ""
        elif not good and self.state == "unhealthy":
            self.reason = failure or ""


class LoadBalancer:
    """The load balancer of one Region."""

    def __init__(self, plan: LabPlan, region: str) -> None:
        self.plan = plan
        self.region = region
        self.clock = plan.clock
        self.attributes = Attributes()
        self.targets: dict[str, Target] = {}
        self._index = plan.regions[region].index
        self.window = Window(region, self._index)
        self.pool = Pool(CONNECT_TIMEOUT_S)
        self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.expires = certify(plan, region, self.context)
        self._turn = itertools.count()
        self._log = (plan.logs / f"{region}-alb-access.log").open("a", buffering=1)
        self._clients: set[asyncio.StreamWriter] = set()

    async def start(self) -> None:
        """Listen."""
        here = self.plan.regions[self.region]
        await asyncio.start_server(
            self._client, here.ip, self.plan.alb_port, ssl=self.context, ssl_handshake_timeout=10, limit=MAX_HEAD, reuse_address=True
        )
        await serve(here.alb_admin_port, self.handle)

    # --- requests ---

    async def _client(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.window.new_connections += 1
        self._clients.add(writer)
        self.window.active_peak = max(self.window.active_peak, len(self._clients))
        try:
            while await self._request(reader, writer):
                pass
        except (ConnectionError, asyncio.IncompleteReadError, ssl.SSLError):
            pass
        finally:
            self._clients.discard(writer)
            writer.close()

    async def _request(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        """Serve one request; returns whether the connection goes on."""
        try:
            async with asyncio.timeout(self.clock.wall_seconds(self.attributes.idle_timeout_s)):
                request = await read_head(reader)
        except TimeoutError:
            return False
        except BadMessage:
            await self._refuse(writer, 400)
            self.window.count_elb(400)
            return False
        if request is None:
            return False
        began = time.perf_counter()
        trace = trace_header(request.get(b"x-amzn-trace-id").decode("latin-1"), time.time())
        self._prepare(request, trace, writer)
        target = self._choose()
        if target is None:
            outcome, status = Outcome(End.CONNECT_FAILED), 503
        else:
            outcome = await self._forward(request, reader, writer, target)
            status = outcome.status or STATUS_OF[outcome.end]
        if outcome.status is None and status != 460:
            await self._refuse(writer, status)
        self.window.count(outcome, status, target is not None)
        self._log.write(
            access_line(
                now=self.clock.now(),
                balancer=self.window.balancer,
                group=self.window.group,
                client=_peer(writer),
                target=f"127.0.0.1:{target.port}" if target else "-",
                request=request,
                outcome=outcome,
                status=status,
                cipher=writer.get_extra_info("cipher"),
                host=request.get(b"host").decode("latin-1"),
                trace=trace,
                taken_s=time.perf_counter() - began,
                reason=self._reason(target, outcome),
            )
            + "\n"
        )
        return outcome.keep_alive

    async def _forward(self, request: Head, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, target: Target) -> Outcome:
        target.in_flight += 1
        try:
            return await exchange(request, reader, writer, self.pool, target.port, self.clock.wall_seconds(self.attributes.idle_timeout_s))
        finally:
            target.in_flight -= 1

    def _prepare(self, request: Head, trace: str, writer: asyncio.StreamWriter) -> None:
        peer = (writer.get_extra_info("peername") or ("127.0.0.1",))[0].encode()
        before = request.get(b"x-forwarded-for")
        request.put(b"X-Forwarded-For", before + b", " + peer if before else peer)
        request.put(b"X-Forwarded-Proto", b"https")
        request.put(b"X-Forwarded-Port", str(self.plan.alb_port).encode())
        request.put(b"X-Amzn-Trace-Id", trace.encode())

    def _choose(self) -> Target | None:
        """The next target in turn: a healthy one, or any that is not draining when none is."""
        usable = [target for target in self.targets.values() if target.state != "draining"]
        healthy = [target for target in usable if target.state == "healthy"]
        candidates = healthy or usable
        return candidates[next(self._turn) % len(candidates)] if candidates else None

    def _reason(self, target: Target | None, outcome: Outcome) -> str:
        if target is None:
            return "TargetGroupEmpty"
        return {End.CONNECT_FAILED: "TargetConnectionError", End.RESET: "TargetConnectionReset", End.TIMEOUT: "TargetTimeout"}.get(
            outcome.end, "-"
        )

    async def _refuse(self, writer: asyncio.StreamWriter, status: int) -> None:
        title = f"{status} {REASONS[status]}"
        body = f"<html>\r\n<head><title>{title}</title></head>\r\n<body>\r\n<center><h1>{title}</h1></center>\r\n</body>\r\n</html>\r\n"
        head = (f"HTTP/1.1 {title}", "Server: awselb/2.0", "Content-Type: text/html", f"Content-Length: {len(body)}", "Connection: close")
        writer.write(("\r\n".join(head) + "\r\n\r\n" + body).encode())
        await writer.drain()

    # --- targets ---

    def register(self, identity: str, port: int) -> Target:
        """Add a target; its health checks begin."""
        if (old := self.targets.pop(identity, None)) and old.checker:
            old.checker.cancel()
        target = Target(identity, port)
        self.targets[identity] = target
        target.checker = asyncio.create_task(self._check(target))
        return target

    async def deregister(self, identity: str) -> None:
        """Take a target out: no new requests, and it is gone after those in flight, or after the deregistration delay."""
        target = self.targets.get(identity)
        if target is None:
            raise Refusal(404, f"no target {identity!r}")
        target.state, target.reason = "draining", "Target.DeregistrationInProgress"
        deadline = time.monotonic() + self.clock.wall_seconds(self.attributes.deregistration_delay_s)
        while target.in_flight and time.monotonic() < deadline:
            await asyncio.sleep(0.05)
        if target.checker:
            target.checker.cancel()
        self.targets.pop(identity, None)
        self.pool.drop(target.port)

    async def _check(self, target: Target) -> None:
        while True:
            check = self.attributes.health_check
            target.judge(await self._probe(target, check), check)
            await asyncio.sleep(INITIAL_INTERVAL_S if target.state == "initial" else self.clock.wall_seconds(check.interval_s))

    async def _probe(self, target: Target, check: HealthCheck) -> str | None:
        """One health check; None, or the reason code of its failure."""
        writer = None
        try:
            async with asyncio.timeout(max(0.5, self.clock.wall_seconds(check.timeout_s))):
                reader, writer = await asyncio.open_connection("127.0.0.1", target.port)
                head_lines = (f"GET {check.path} HTTP/1.1", "Host: 127.0.0.1", "User-Agent: ELB-HealthChecker/2.0", "Connection: close")
                writer.write(("\r\n".join(head_lines) + "\r\n\r\n").encode())
                head = await read_head(reader)
        except TimeoutError:
            return "Target.Timeout"
        except (OSError, BadMessage):
            return "Target.FailedHealthChecks"
        finally:
            if writer is not None:
                writer.close()
        if head is None:
            return "Target.FailedHealthChecks"
        return None if head.status in check.matcher else "Target.ResponseCodeMismatch"

    # --- the admin port ---

    def states(self) -> Iterator[dict[str, Any]]:
        """The targets as DescribeTargetHealth would list them."""
        for target in self.targets.values():
            yield {"id": target.id, "port": target.port, "state": target.state, "reason": target.reason, "in_flight": target.in_flight}

    @property
    def healthy(self) -> int:
        """How many targets are healthy."""
        return sum(target.state == "healthy" for target in self.targets.values())

    async def handle(self, method: str, path: tuple[str, ...], _query: dict[str, str], body: Any) -> Any:
        """The admin port's requests."""
        match (method, path):
            case ("GET", ("health",)):
                return {"targets": len(self.targets), "healthy": self.healthy}
            case ("GET", ("status",)):
                return {
                    "healthy": self.healthy,
                    "targets": list(self.states()),
                    "attributes": dataclasses.asdict(self.attributes),
                    "certificate_expires": self.expires.isoformat(),
                    "connections": len(self._clients),
                }
            case ("POST", ("targets",)):
                self.register(str(body["id"]), int(body["port"]))
                return {"targets": len(self.targets)}
            case ("DELETE", ("targets", identity)):
                await self.deregister(identity)
                return {"targets": len(self.targets)}
            case ("PUT", ("attributes",)):
                self.attributes = changed(self.attributes, body)
                return dataclasses.asdict(self.attributes)
            case ("PUT", ("certificate",)):
                self.expires = certify(self.plan, self.region, self.context, float(body["days"]))
                return {"certificate_expires": self.expires.isoformat()}
            case ("POST", ("window",)):
                unhealthy = sum(target.state == "unhealthy" for target in self.targets.values())
                window, self.window = self.window, Window(self.region, self._index, active_peak=len(self._clients))
                return [datum.as_dict() for datum in window.data(self.healthy, unhealthy, len(self.targets))]
        raise Refusal(404, f"no such path: {method} /{'/'.join(path)}")


def _peer(writer: asyncio.StreamWriter) -> str:
    host, port = (writer.get_extra_info("peername") or ("-", 0))[:2]
    return f"{host}:{port}"


def changed(attributes: Attributes, values: dict[str, Any]) -> Attributes:
    """``attributes`` with ``values`` set. Raises `Refusal` for what there is not."""
    values = dict(values)
    try:
        if check := values.pop("health_check", None):
            check = {**check, **({"matcher": tuple(check["matcher"])} if "matcher" in check else {})}
            values["health_check"] = dataclasses.replace(attributes.health_check, **check)
        return dataclasses.replace(attributes, **values)
    except TypeError as error:
        raise Refusal(400, str(error)) from error


def trace_header(incoming: str, now: float) -> str:
    """The X-Amzn-Trace-Id to send on: a Root is kept and gets our Self beside it; where there is none we begin one."""
    fields = [part.strip() for part in incoming.split(";") if "=" in part]
    fresh = f"1-{int(now):08x}-{secrets.token_hex(12)}"
    if any(part.startswith("Root=") for part in fields):
        return ";".join([f"Self={fresh}", *(part for part in fields if not part.startswith("Self="))])
    return ";".join([f"Root={fresh}", *(part for part in fields if not part.startswith("Self="))])


async def main(region: str) -> None:
    """Run until SIGTERM."""
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    await LoadBalancer(LabPlan.load(), region).start()
    await stop.wait()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))
