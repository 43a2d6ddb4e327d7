"""The link between one Region and the others: a relay that every cross-Region database connection of the Region goes through.

``python -m lab.data.peering <region>`` listens on one port for each other Region's database (replication and base backups use it) and on
one port for each database's **global writer endpoint**. On AWS that endpoint is a DNS name which Aurora moves to the new writer; here it
is a port that leads to whichever Region ``<state>/aurora/<database>.writer`` names at the moment of connecting, through the link where
that is another Region. Connections that stand while the writer moves break on their own, as they do on AWS.

Its control port: ``GET /status``; ``PUT /links/<region> {"state": "up"|"refused"|"silent", "delay_ms": 40}`` and
``PUT /writers/<database> {"region": R}`` (pins the endpoint to a Region: a resolver that kept the old answer; null releases it).
"""

from __future__ import annotations

import asyncio
import signal
import sys
from dataclasses import asdict, dataclass, replace
from functools import partial
from typing import Any

from lab.admin import Refusal, serve
from lab.data.aurora import read_writer
from lab.data.relay import abort, carry
from lab.plan import LabPlan

STATES = ("up", "refused", "silent")


@dataclass(frozen=True, slots=True)
class Link:
    """The way to another Region. ``silent`` swallows packets, ``refused`` resets connections; ``delay_ms`` is one-way, wall time."""

    state: str = "up"
    delay_ms: float = 0.0


class Peering:
    """The relay of one Region."""

    def __init__(self, plan: LabPlan, region: str) -> None:
        self._plan = plan
        self._region = region
        self._here = plan.regions[region]
        self.links = {name: Link() for name in plan.regions if name != region}
        self.pins: dict[str, str] = {}
        self._open: dict[str, set[asyncio.StreamWriter]] = {name: set() for name in plan.regions}

    async def start(self) -> None:
        """Listen on all ports."""
        for key, port in self._here.peering_ports.items():
            other, database = key.split("/")
            await asyncio.start_server(partial(self._relay, database, other), "127.0.0.1", port)
        for database, port in self._here.writer_ports.items():
            await asyncio.start_server(partial(self._relay, database, None), "127.0.0.1", port)
        await serve(self._here.peering_port, self.handle)

    async def _relay(self, database: str, to: str | None, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Carry one connection to the database in the Region ``to``, or to its writer."""
        other = to or self.pins.get(database) or read_writer(self._plan, database)
        ends = self._open[other]
        ends.add(writer)
        try:
            if self._link(other).state == "refused":
                return
            while self._link(other).state == "silent":
                await asyncio.sleep(0.1)
                if reader.at_eof():
                    return
            await carry(reader, writer, self._plan.regions[other].postgres_ports[database], ends, partial(self._pass, other))
        finally:
            ends.discard(writer)
            writer.close()

    async def _pass(self, other: str) -> None:
        """Take as long as the link takes to carry something."""
        while (link := self._link(other)).state == "silent":
            await asyncio.sleep(0.05)
        if link.delay_ms:
            await asyncio.sleep(link.delay_ms / 1000)

    def _link(self, other: str) -> Link:
        return self.links.get(other, Link())

    async def handle(self, method: str, path: tuple[str, ...], _query: dict[str, str], body: Any) -> Any:
        """The control port's requests."""
        match (method, path):
            case ("GET", ("status",)):
                return {
                    "links": {name: asdict(link) | {"connections": len(self._open[name])} for name, link in self.links.items()},
                    "writers": {name: self.pins.get(name) or read_writer(self._plan, name) for name in self._here.writer_ports},
                    "pinned": self.pins,
                }
            case ("PUT", ("links", region)) if region in self.links:
                link = replace(self.links[region], **body)
                if link.state not in STATES:
                    raise Refusal(400, f"state: {link.state!r} is none of {', '.join(STATES)}")
                self.links[region] = link
                if link.state == "refused":
                    abort(self._open[region])
                return asdict(link)
            case ("PUT", ("writers", database)) if database in self._here.writer_ports:
                region = body["region"]
                if region is None:
                    self.pins.pop(database, None)
                elif region in self._plan.regions:
                    self.pins[database] = region
                else:
                    raise Refusal(400, f"region: {region!r} is no Region of this lab")
                return {"writers": self.pins}
        raise Refusal(404, f"no such path: {method} /{'/'.join(path)}")


async def main(region: str) -> None:
    """Run until SIGTERM."""
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    await Peering(LabPlan.load(), region).start()
    await stop.wait()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))
