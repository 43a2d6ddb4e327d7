"""DNS as the lab runs it: Route 53's name servers, a resolver per Region, what the load balancers say of themselves, and the lab's handle.

The handle (JSON over HTTP on ``plan.dns_admin_port``) is how faults are put in and taken out; every field that is left out means whole:

    GET  /status
    POST /authority            {"down": bool, "stuck": bool}
    POST /resolvers/<region>   {"down": bool, "servfail": bool, "stuck": bool, "delay_s": wall s, "least_ttl_s": lab s, "forget": bool}
    POST /arc/<region>         {"down": bool, "isolated": bool, "unreadable": bool}       (one of the five cluster endpoints)
"""

from __future__ import annotations

import json
import logging
from dataclasses import asdict
from functools import partial
from typing import TYPE_CHECKING, Any

from lab import admin
from lab.aws.httpd import HttpServer
from lab.aws.protocol import Request, Response
from lab.dns.authority import Authority, AuthorityFaults
from lab.dns.resolver import Resolver, ResolverFaults
from lab.dns.server import DnsServer

if TYPE_CHECKING:
    from lab.aws.service import World
    from lab.plan import LabPlan, RegionPlan

log = logging.getLogger(__name__)

BALANCER_EVERY_S = 5.0
MISSED_BEFORE_UNHEALTHY = 2


class Dns:
    """All DNS of one lab. `start` serves, `stop` ends it."""

    def __init__(self, world: World, plan: LabPlan) -> None:
        self._world = world
        self._resets: dict[str, str] = {}
        self._route53 = world.service("route53")
        self._arc = world.service("route53-recovery-cluster").controls
        networks = {name: network_of(region) for name, region in plan.regions.items()}
        self.authority = Authority(self._route53.view, self._route53.version, networks, home=next(iter(plan.regions)))
        self._route53.asker = self.authority.asker
        upstream = ("127.0.0.1", plan.dns_port)
        self.resolvers = {name: Resolver(plan.clock, upstream, region.ip) for name, region in plan.regions.items()}
        self._servers = [DnsServer(self.authority, "127.0.0.1", plan.dns_port, "route53")]
        self._servers += [
            DnsServer(resolver, "127.0.0.1", plan.regions[name].resolver_port, f"resolver-{name}")
            for name, resolver in self.resolvers.items()
        ]
        self._handle = HttpServer("127.0.0.1", plan.dns_admin_port, self.answer, "dns-admin")
        self._balancers = {name: Balancer(region) for name, region in plan.regions.items()}
        self._say_balancers()
        for balancer in self._balancers.values():
            world.every(BALANCER_EVERY_S, partial(self._ask, balancer), name=f"balancer-{balancer.region.name}")

    def start(self) -> Dns:
        """Begin to answer."""
        for server in self._servers:
            server.start()
        self._handle.open()
        return self

    def stop(self) -> None:
        """Stop answering and free the ports."""
        self._handle.close()
        for server in self._servers:
            server.stop()

    def answer(self, request: Request) -> Response:
        """One request to the handle."""
        if why := admin.not_ours(request.method, request.headers):
            return _json(403, {"error": why})
        try:
            body = json.loads(request.body) if request.body else {}
            match [request.method, *request.path.strip("/").split("/")]:
                case ["GET", "status"]:
                    return _json(200, self._status())
                case ["POST", "authority"]:
                    self.authority.faults = AuthorityFaults(**body)
                case ["POST", "resolvers", region] if region in self.resolvers:
                    if body.pop("forget", False):
                        self.resolvers[region].forget()
                    self.resolvers[region].faults = ResolverFaults(**body)
                case ["POST", "arc", region] if region in self._arc.endpoints:
                    self._arc.set_endpoint(region, **body)
                    self._cut(region, bool(body.get("down")))
                case _:
                    return _json(404, {"error": f"there is no {request.method} {request.path}"})
        except (TypeError, ValueError) as error:
            return _json(400, {"error": str(error)})
        return _json(200, self._status())

    def _cut(self, region: str, down: bool) -> None:
        """Have the gateway reset connections to a cluster endpoint that is down, instead of answering that it is."""
        conditions = getattr(self._world, "conditions", None)
        if conditions is None:
            return
        held = self._resets.pop(region, None)
        if held is not None:
            conditions.remove(held)
        if down:
            self._resets[region] = conditions.add({"kind": "reset", "region": region, "service": "route53-recovery-cluster"}).id

    def _status(self) -> dict[str, Any]:
        return {
            "authority": asdict(self.authority.faults),
            "resolvers": {name: asdict(resolver.faults) for name, resolver in self.resolvers.items()},
            "arc": {
                name: {"down": endpoint.down, "isolated": endpoint.isolated, "unreadable": endpoint.unreadable}
                for name, endpoint in self._arc.endpoints.items()
            },
            "balancers": {name: balancer.healthy for name, balancer in self._balancers.items()},
        }

    def _ask(self, balancer: Balancer, _now: float) -> None:
        balancer.ask()
        self._say_balancers()

    def _say_balancers(self) -> None:
        self._route53.set_balancers({balancer.region.alb_name: balancer.healthy for balancer in self._balancers.values()})


class Balancer:
    """What one Region's load balancer says of itself: healthy while it has a healthy target.

    Until it was first heard it counts as healthy; when it was heard before and no longer answers, it is unhealthy after two misses.
    """

    def __init__(self, region: RegionPlan) -> None:
        self.region = region
        self.healthy = True
        self._heard = False
        self._missed = 0

    def ask(self) -> None:
        """Ask now."""
        try:
            status = admin.call(self.region.alb_admin_port, "GET", "/health", timeout_s=1.0)
        except (OSError, ValueError, admin.Refusal):
            self._missed += 1
            if self._heard and self._missed >= MISSED_BEFORE_UNHEALTHY:
                self.healthy = False
            return
        self._heard, self._missed = True, 0
        self.healthy = int(status["healthy"]) > 0


def network_of(region: RegionPlan) -> str:
    """The network that a Region's resolver and clients ask from: the /24 around its address."""
    return region.ip.rpartition(".")[0] + ".0/24"


def _json(status: int, value: Any) -> Response:
    return Response(status, {"content-type": "application/json"}, json.dumps(value).encode())
