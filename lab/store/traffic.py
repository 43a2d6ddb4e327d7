"""Shoppers: customers who browse and buy in every Region, as many as the hour of the day brings.

``python -m lab.store.traffic`` sends each Region's shoppers through that Region's resolver to the store's name, as its users would come, at
``peak_per_min`` visits a minute (lab time) at the day's peak in each Region and a fraction of it at night; 0, the default, is none. Each
Region's day is shifted to its own evening. On ``traffic_port``:

    GET /status                     visits, orders placed, failures by kind, per Region; and the journal's file
    PUT /load {"peak_per_min": 30, "follow_day": true, "to": "name"|"alb", "buy_share": 0.3}

Every order that the store acknowledged is written to ``<state>/traffic-orders.jsonl``, one JSON object a line: the customers' own journal,
with which a report of missing transactions can be compared.
"""

from __future__ import annotations

import asyncio
import json
import math
import random
import re
import signal
import ssl
import time
from collections import Counter
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import dns.asyncresolver
import dns.exception

from lab.admin import Refusal, serve
from lab.data.schema import PRODUCTS
from lab.plan import STORE_NAME, LabPlan

DAY_S = 86_400.0
NIGHT_SHARE = 0.15
PEAK_HOUR_UTC = {"us": 1.0, "eu": 19.0, "ap": 11.0, "sa": 23.0}
HOURS_WEST = {"us-west": 3.0}
TIMEOUT_S = 8.0
BODY_LIMIT = 1 << 20
ORDER_ID = re.compile(rb'"orderId":\s*"([0-9a-f-]{36})"')
ADDRESS = {"firstName": "Sam", "lastName": "Shopper", "address1": "1 Main St", "city": "Springfield", "state": "OR", "zip": "97477"}


@dataclass(frozen=True, slots=True)
class Load:
    """How many come and what they do. ``to`` is ``name`` (by DNS) or ``alb`` (each Region's own load balancer)."""

    peak_per_min: float = 0.0
    follow_day: bool = True
    to: str = "name"
    buy_share: float = 0.3


@dataclass(slots=True)
class Tally:
    """What became of a Region's shoppers."""

    visits: int = 0
    orders: int = 0
    requests: int = 0
    failures: Counter[str] = field(default_factory=Counter)

    def as_json(self) -> dict[str, Any]:
        """All of it as plain data. (`dataclasses.asdict` makes keys of a Counter's items before Python 3.12.)"""
        return {"visits": self.visits, "orders": self.orders, "requests": self.requests, "failures": dict(self.failures)}


def share_of_peak(lab_now: float, region: str) -> float:
    """How busy the hour is, from `NIGHT_SHARE` to 1: a cosine around the Region's evening."""
    peak = PEAK_HOUR_UTC.get(region.split("-", maxsplit=1)[0], 19.0) + next(
        (hours for prefix, hours in HOURS_WEST.items() if region.startswith(prefix)), 0.0
    )
    phase = 2 * math.pi * (lab_now / DAY_S - peak / 24)
    return NIGHT_SHARE + (1 - NIGHT_SHARE) * (1 + math.cos(phase)) / 2


class Failed(Exception):
    """A visit that did not go well; the text is the kind of failure."""


class Shopper:
    """One visit: one session on one connection."""

    def __init__(self, address: str, port: int, context: ssl.SSLContext, name: str) -> None:
        self._address, self._port, self._context, self._name = address, port, context, name
        self._cookie = ""
        self._reader: asyncio.StreamReader | None = None
        self._writer: asyncio.StreamWriter | None = None
        self.requests = 0

    async def ask(self, method: str, path: str, form: dict[str, str] | None = None, accept: str = "text/html") -> bytes:
        """One request; returns the body. Raises `Failed` unless it went well."""
        from urllib.parse import urlencode

        body = urlencode(form or {}).encode() if method == "POST" else b""
        self.requests += 1
        try:
            async with asyncio.timeout(TIMEOUT_S):
                if self._writer is None or self._reader is None:
                    self._reader, self._writer = await asyncio.open_connection(
                        self._address, self._port, ssl=self._context, server_hostname=self._name
                    )
                head = (
                    f"{method} {path} HTTP/1.1\r\nHost: {self._name}:{self._port}\r\nUser-Agent: shopper\r\nAccept: {accept}\r\n"
                    f"Cookie: {self._cookie}\r\nContent-Length: {len(body)}\r\nContent-Type: application/x-www-form-urlencoded\r\n\r\n"
                )
                self._writer.write(head.encode() + body)
                status, content = await self._answer(self._reader)
        except TimeoutError:
            raise Failed("timeout") from None
        except ssl.SSLError as error:
            raise Failed("tls") from error
        except (OSError, asyncio.IncompleteReadError) as error:
            raise Failed("connection") from error
        if status >= 400:
            raise Failed(f"status {status}")
        return content

    async def _answer(self, reader: asyncio.StreamReader) -> tuple[int, bytes]:
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        first, *lines = head.split("\r\n")
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
        if cookie := headers.get("set-cookie"):
            self._cookie = cookie.split(";")[0]
        content = await reader.readexactly(min(BODY_LIMIT, int(headers.get("content-length", "0"))))
        if headers.get("connection", "").lower() == "close":
            self.leave()
        return int(first.split()[1]), content

    def leave(self) -> None:
        """Close the connection."""
        if self._writer is not None:
            self._writer.close()
        self._writer = self._reader = None


class Traffic:
    """All shoppers."""

    def __init__(self, plan: LabPlan) -> None:
        self._plan = plan
        self.load = Load()
        self.tallies = {name: Tally() for name in plan.regions}
        self._random = random.Random(1)
        self._visits: set[asyncio.Task[None]] = set()
        self._journal = (plan.path / "traffic-orders.jsonl").open("a", buffering=1)
        self._context: ssl.SSLContext | None = None
        self._changed = asyncio.Event()

    async def run(self, region: str) -> None:
        """Send the shoppers of ``region``, for ever: a Poisson process whose rate follows the load."""
        while True:
            share = share_of_peak(self._plan.clock.now(), region) if self.load.follow_day else 1.0
            rate = self.load.peak_per_min * share / 60 * self._plan.clock.speed
            self._changed.clear()
            if rate <= 0:
                await self._changed.wait()
                continue
            pause = self._random.expovariate(rate)
            try:
                async with asyncio.timeout(min(pause, 60.0)):
                    await self._changed.wait()
            except TimeoutError:
                if pause <= 60:
                    task = asyncio.create_task(self._visit(region))
                    self._visits.add(task)
                    task.add_done_callback(self._visits.discard)

    async def _visit(self, region: str) -> None:
        tally = self.tallies[region]
        tally.visits += 1
        shopper = None
        try:
            address, name = await self._find(region)
            shopper = Shopper(address, self._plan.alb_port, self._tls(), name)
            product = self._random.choice(PRODUCTS)
            await shopper.ask("GET", "/home")
            await shopper.ask("GET", "/catalog")
            await shopper.ask("GET", f"/catalog/{product.id}")
            if self._random.random() < self.load.buy_share:
                await self._buy(shopper, product.id, region, tally)
        except Failed as failure:
            tally.failures[str(failure)] += 1
        finally:
            if shopper is not None:
                tally.requests += shopper.requests
                shopper.leave()

    async def _buy(self, shopper: Shopper, product: str, region: str, tally: Tally) -> None:
        email = f"shopper-{self._random.randrange(10_000)}@retail.test"
        await shopper.ask("POST", "/cart", {"productId": product})
        await shopper.ask("GET", "/checkout")
        await shopper.ask("POST", "/checkout", ADDRESS | {"email": email})
        await shopper.ask("POST", "/checkout/delivery", {"token": "priority-mail"})
        await shopper.ask("POST", "/checkout/payment")
        answer = await shopper.ask("POST", "/checkout/confirm", accept="application/json")
        found = ORDER_ID.search(answer)
        if not found:
            raise Failed("no order id")
        tally.orders += 1
        line = {
            "orderId": found[1].decode(),
            "email": email,
            "productId": product,
            "from": region,
            "at": self._plan.clock.now(),
            "wall": time.time(),
        }
        self._journal.write(json.dumps(line) + "\n")

    async def _find(self, region: str) -> tuple[str, str]:
        """The address that a shopper in ``region`` goes to, and the name it asks for."""
        here = self._plan.regions[region]
        if self.load.to == "alb":
            return here.ip, here.alb_name
        resolver = dns.asyncresolver.Resolver(configure=False)
        resolver.nameservers, resolver.port, resolver.lifetime = ["127.0.0.1"], here.resolver_port, 2.0
        try:
            answer = await resolver.resolve(STORE_NAME, "A")
        except (dns.exception.DNSException, OSError) as error:
            raise Failed("dns") from error
        return str(self._random.choice(list(answer))), STORE_NAME

    def _tls(self) -> ssl.SSLContext:
        if self._context is None:
            self._context = ssl.create_default_context(cafile=str(self._plan.ca_file))
        return self._context

    async def handle(self, method: str, path: tuple[str, ...], _query: dict[str, str], body: Any) -> Any:
        """The control port's requests."""
        match (method, path):
            case ("GET", ("status",)):
                return {
                    "load": asdict(self.load),
                    "regions": {name: tally.as_json() for name, tally in self.tallies.items()},
                    "under_way": len(self._visits),
                }
            case ("PUT", ("load",)):
                try:
                    load = replace(self.load, **body)
                except TypeError as error:
                    raise Refusal(400, str(error)) from error
                if load.to not in {"name", "alb"} or not 0 <= load.buy_share <= 1 or load.peak_per_min < 0:
                    raise Refusal(400, "to is name or alb, buy_share from 0 to 1, peak_per_min from 0 up")
                self.load = load
                self._changed.set()
                return asdict(load)
        raise Refusal(404, f"no such path: {method} /{'/'.join(path)}")


async def main() -> None:
    """Run until SIGTERM."""
    plan = LabPlan.load()
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    traffic = Traffic(plan)
    await serve(plan.traffic_port, traffic.handle)
    shoppers = [asyncio.create_task(traffic.run(region)) for region in plan.regions]
    await stop.wait()
    for shopper in shoppers:
        shopper.cancel()


if __name__ == "__main__":
    asyncio.run(main())
