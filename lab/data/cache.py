"""One Region's ElastiCache for Redis: the keeper of its replication group, and the group's primary endpoint.

``python -m lab.data.cache <region>`` watches the group's two nodes, which are Redis servers of their own (``<region>/redis-001`` and
``-002``), and listens on the plan's ``redis_port``: the **primary endpoint**. On AWS that is a DNS name which ElastiCache moves to the new
primary; here it is a port that leads to it (decisions 060 and 066). When the primary changes, connections to the old one break.

Who is primary, and when a replica takes over, is decided in `lab.data.replication_group`; this module asks the nodes, carries the orders
out and keeps account of events in AWS's words. Its control port (lab/aws/services/elasticache.py, faults, metrics):

    GET  /status                         the group's state, primary, and per node: role, whether it answers and is in sync, lag (lab s)
    GET  /events                         [{"at": lab time, "type": "cache-cluster" | "replication-group", "source": id, "message": …}]
    POST /failover                       what TestFailover asks for; refused unless the group is whole
    PUT  /replication {"cut": true}      replicas hear nothing of the primary, until false
"""

from __future__ import annotations

import asyncio
import signal
import sys
import time
from collections import deque
from typing import TYPE_CHECKING, Any

from lab.admin import Refusal, serve
from lab.data.relay import abort, carry
from lab.data.replication_group import DEAD_END, GONE, SILENT, Group, Promote, Sight
from lab.plan import LabPlan
from lab.store import names

if TYPE_CHECKING:
    from collections.abc import Mapping

    from lab.data.relay import Ends

CHECK_EVERY_S = 0.25
ANSWER_WITHIN_S = 1.0
# Lab seconds from the first failed check to the promotion. AWS publishes no figure but six minutes for everything, the new replica
# included; what users of Multi-AZ report is some tens of seconds (unverified).
FAILS_OVER_AFTER_S = 30.0
EVENTS_KEPT = 500
NODE_GROUP = "0001"
CACHE_NODE = "0001"


class Node:
    """A connection to one Redis server: asks for its role and gives it another. A question is asked once, however long the answer takes."""

    def __init__(self, port: int) -> None:
        self.port = port
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None
        self._asked: asyncio.Task[Sight] | None = None

    async def look(self) -> Sight:
        """What the server says now; a server that does not answer is not waited for a second time."""
        for _ in range(2):
            patience = ANSWER_WITHIN_S if self._asked is None else 0.0
            asked = self._asked = self._asked or asyncio.create_task(self._ask())
            await asyncio.wait({asked}, timeout=patience)
            if not asked.done():
                return SILENT
            self._asked = None
            try:
                return asked.result()
            except ConnectionRefusedError:
                return GONE
            except (OSError, EOFError, ValueError):
                self._hang_up()  # it died or was replaced since the last time: look again
        return GONE

    async def replicate(self, port: int | None) -> None:
        """Make the server a replica of ``port``, or a primary. Raises OSError where it does not obey."""
        words = f"127.0.0.1 {port}" if port else "NO ONE"
        try:
            async with asyncio.timeout(ANSWER_WITHIN_S):
                await self._call(f"REPLICAOF {words}")
        except (OSError, EOFError, ValueError) as error:
            self._hang_up()
            raise ConnectionError(f"127.0.0.1:{self.port} did not obey REPLICAOF {words}: {error}") from error

    async def _ask(self) -> Sight:
        lines = (await self._call("INFO replication")).splitlines()
        said = {key: value for key, _, value in (line.partition(":") for line in lines)}
        if said["role"] == "master":
            listed = [value for key, value in said.items() if key.startswith("slave") and key[5:].isdigit()]
            replicas = [dict(part.split("=") for part in each.split(",")) for each in listed]
            # A replica is called online before it gets anything; it does once it has acknowledged a part of the stream.
            feeds = frozenset(int(replica["port"]) for replica in replicas if replica["state"] == "online" and replica["offset"] != "0")
            return Sight(primary=True, history=said["master_replid"], offset=int(said["master_repl_offset"]), feeds=feeds)
        return Sight(
            history=said["master_replid"],
            offset=int(said["slave_repl_offset"]),
            follows=int(said["master_port"]),
            in_sync=said["master_link_status"] == "up" and said["master_sync_in_progress"] == "0",
        )

    async def _call(self, command: str) -> str:
        """Redis's answer, a simple or a bulk string. Raises OSError, EOFError or ValueError."""
        if self._streams is None:
            self._streams = await asyncio.open_connection("127.0.0.1", self.port)
        reader, writer = self._streams
        writer.write(f"{command}\r\n".encode())
        head = (await reader.readuntil(b"\r\n")).decode()
        if head[0] == "-":
            raise ValueError(head[1:].strip())
        if head[0] != "$":
            return head[1:].strip()
        return (await reader.readexactly(int(head[1:]) + 2)).decode()

    def _hang_up(self) -> None:
        if self._streams is not None:
            self._streams[1].transport.abort()
        self._streams = None


class Keeper:
    """The replication group of one Region."""

    def __init__(self, plan: LabPlan, region: str) -> None:
        self._clock = plan.clock
        self._here = plan.regions[region]
        self._speed = plan.clock.speed
        self.name = names.cache(region)
        self.group = Group(self._here.redis_node_ports, plan.clock.wall_seconds(FAILS_OVER_AFTER_S))
        self._nodes = {node: Node(port) for node, port in self._here.redis_node_ports.items()}
        self._seen: Mapping[str, Sight] = dict.fromkeys(self._nodes, GONE)
        self._lags: dict[str, float] = {}
        self._missing_since: dict[str, float] = {}
        self._recovering: set[str] = set()
        self._endpoint: int | None = None
        self._ends: Ends = set()
        self.events: deque[dict[str, Any]] = deque(maxlen=EVENTS_KEPT)

    async def run(self) -> None:
        """Keep the group until SIGTERM."""
        stop = asyncio.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, stop.set)
        await asyncio.start_server(self._connected, "127.0.0.1", self._here.redis_port)
        await self._check()
        await serve(self._here.cache_port, self.handle)
        while not stop.is_set():
            await self._check()
            await asyncio.sleep(CHECK_EVERY_S)

    # --- the endpoint ---

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self._endpoint is None:
            writer.transport.abort()
        else:
            await carry(reader, writer, self._endpoint, self._ends)

    def _lead(self, port: int | None) -> None:
        """Lead the endpoint to ``port``, or nowhere. What was connected to another node is broken off first."""
        if port != self._endpoint:
            abort(self._ends)
            self._endpoint = port

    # --- the nodes ---

    async def _check(self) -> None:
        """Look at every node and do what follows."""
        self._seen = dict(zip(self._nodes, await asyncio.gather(*(node.look() for node in self._nodes.values())), strict=True))
        now = time.monotonic()
        orders = self.group.decide(self._seen, now)
        self._lags = {node: self._speed * lag for node, lag in self.group.lag_s(self._seen, now).items()}
        self._lead(self._serving())
        for order in orders:
            try:
                if isinstance(order, Promote):
                    await self._promote(order.node)
                else:
                    await self._nodes[order.node].replicate(DEAD_END if self.group.cut else self.group.ports[self.group.primary or ""])
            except OSError as error:
                print(error, file=sys.stderr, flush=True)  # the next check decides anew
        self._note_recoveries(now)

    def _serving(self) -> int | None:
        """Where the endpoint leads: to the primary, also while it is away; not to one that restarted and waits to be told its role."""
        primary = self.group.primary
        if primary is None or self.group.condemned or (self._seen[primary].answers and not self._seen[primary].primary):
            return None
        return self.group.ports[primary]

    async def _promote(self, node: str) -> None:
        """Make ``node`` the primary. Nothing leads to any node meanwhile."""
        self._lead(None)
        await self._nodes[node].replicate(None)
        old = self.group.primary
        self.group.promoted(node)
        self._lead(self.group.ports[node])
        if old not in {None, node}:
            done = f"Failover from primary node {self._id(old)} to replica node {self._id(node)} completed"
            self._say("cache-cluster", self._id(old), done)
            self._say("replication-group", self.name, done)
            self._recover(str(old))

    def _note_recoveries(self, now: float) -> None:
        """Events about nodes that went away for as long as a failover takes, and about those that are back in their role."""
        for node, sight in self._seen.items():
            if self.group.is_well(node, self._seen):
                self._missing_since.pop(node, None)
                if node in self._recovering:
                    self._recovering.discard(node)
                    self._say("cache-cluster", self._id(node), f"Finished recovery for cache nodes {CACHE_NODE}")
            elif not sight.answers and now - self._missing_since.setdefault(node, now) >= self.group.patience_s:
                self._recover(node)

    def _recover(self, node: str) -> None:
        if node not in self._recovering:
            self._recovering.add(node)
            self._say("cache-cluster", self._id(node), f"Recovering cache nodes {CACHE_NODE}")

    def _id(self, node: str | None) -> str:
        return f"{self.name}-{node}"

    def _say(self, kind: str, source: str, message: str) -> None:
        self.events.append({"at": self._clock.now(), "type": kind, "source": source, "message": message})

    # --- the control port ---

    def status(self) -> dict[str, Any]:
        """What ``GET /status`` says."""
        return {
            "group": self.name,
            "whole": self.group.whole(self._seen) and not self._recovering,
            "primary": self.group.primary,
            "failing_for_s": None if self.group.failing_since is None else self._speed * (time.monotonic() - self.group.failing_since),
            "cut": self.group.cut,
            "connections": len(self._ends) // 2,
            "nodes": {
                node: {
                    "id": self._id(node),
                    "port": port,
                    "role": "primary" if node == self.group.primary else "replica",
                    "state": self._seen[node].state,
                    "well": self.group.is_well(node, self._seen),
                    "lag_s": self._lags.get(node),
                }
                for node, port in self.group.ports.items()
            },
        }

    async def handle(self, method: str, path: tuple[str, ...], _query: dict[str, str], body: Any) -> Any:
        """The control port's requests."""
        match (method, path):
            case ("GET", ("status",)):
                return self.status()
            case ("GET", ("events",)):
                return list(self.events)
            case ("POST", ("failover",)):
                if not self.status()["whole"]:
                    raise Refusal(409, f"{self.name} is not whole: {self.status()}")
                self.group.condemned = True
                self._lead(None)
                self._say("replication-group", self.name, f"Test Failover API called for node group {NODE_GROUP}")
                return self.status()
            case ("PUT", ("replication",)):
                self.group.cut = bool(body["cut"])
                return self.status()
        raise Refusal(404, f"no such path: {method} /{'/'.join(path)}")


if __name__ == "__main__":
    asyncio.run(Keeper(LabPlan.load(), sys.argv[1]).run())
