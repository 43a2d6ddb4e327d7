"""The load of `lab_service_soak.py`: an open loop over kept connections, in a process of its own.

    python bench/lab_service_load.py '{"start": 1234.5, "began": 1700000000.5, "seconds": 60, "rate": 200, "seed": 1,
                                       "run": "0f…", "out": "records",
                                       "targets": [{"port": 8001, "path": "/", "shift": 0.0, "every": 1}, …]}'

Every arrival is fixed before the first request is sent: a Poisson process of ``rate`` a second from ``seed``, the same for every target but
``shift`` seconds later; a target whose ``every`` is above 1 gets only each such arrival. Latency is counted from the scheduled arrival, so
that a stall is charged to all who came meanwhile, and not only to the one who was sent ("coordinated omission"). ``start`` is on the
monotonic clock, which processes share; ``began`` is the same moment by the wall's.

Each answer is one `RECORD` in the file ``out``: target, status (0: none within `TIMEOUT_S`), number of the arrival, latency and the part of
it for which the request was not yet on its way (float32 seconds). A request carries ``traceparent`` with the trace id `trace_id`.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import selectors
import signal
import struct
import sys
import time
from collections import deque
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

import numpy as np
import numpy.typing as npt

RECORD = np.dtype([("target", "u1"), ("status", "<u2"), ("number", "<u4"), ("latency", "<f4"), ("unsent", "<f4")])
PACK = struct.Struct("<BHIff").pack
TIMEOUT_S = 10.0
CONNECTIONS = 64
FLUSH_S = 0.5
PRIORITY = -5  # where we may: a generator that waits for the processor measures itself


def arrivals(rate: float, seconds: float, seed: int) -> npt.NDArray[np.float64]:
    """The moments of a Poisson process, seconds from its beginning."""
    draw = np.random.default_rng(seed)
    count = int(rate * seconds + 8 * (rate * seconds) ** 0.5 + 16)
    moments = np.cumsum(draw.exponential(1 / rate, count))
    return moments[moments < seconds]


def trace_id(run: str, wall_s: float, number: int) -> str:
    """The trace id of arrival ``number``: as X-Ray's, it begins with the time; ``run`` is 12 hexadecimal digits."""
    return f"{int(wall_s):08x}{run}{number:012x}"


@dataclass(slots=True)
class Request:
    """One arrival on its way. Times are monotonic seconds."""

    number: int
    due: float
    sent: float = 0.0


class Connection(asyncio.Protocol):
    """A kept connection to a target; one request at a time."""

    def __init__(self, target: Target) -> None:
        self.target = target
        self.transport: asyncio.Transport
        self.request: Request | None = None
        self._buffer = b""
        self._wanted = -1

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport

    def send(self, request: Request) -> None:
        """Put a request on its way."""
        self.request = request
        self._buffer, self._wanted = b"", -1
        request.sent = time.monotonic()
        self.transport.write(self.target.head(request))

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        if self._wanted < 0:
            end = self._buffer.find(b"\r\n\r\n")
            if end < 0:
                return
            at = self._buffer.lower().find(b"content-length:", 0, end)
            stop = self._buffer.find(b"\r\n", at)
            self._wanted = end + 4 + (int(self._buffer[at + 15 : stop]) if at >= 0 else 0)
        if len(self._buffer) >= self._wanted and self.request is not None:
            request, self.request = self.request, None
            self.target.answered(self, request, int(self._buffer[9:12]))

    def connection_lost(self, exc: Exception | None) -> None:
        self.target.lost(self)


@dataclass(slots=True)
class Target:
    """One service: its connections, and who waits for one."""

    index: int
    port: int
    path: str
    shift: float
    every: int
    run: str
    began: float
    moments: npt.NDArray[np.float64]
    out: IO[bytes]
    idle: list[Connection] = field(default_factory=list)
    waiting: deque[Request] = field(default_factory=deque)
    open: int = 0
    under_way: dict[int, Request] = field(default_factory=dict)

    def head(self, request: Request) -> bytes:
        """The request as bytes."""
        number = request.number
        trace = trace_id(self.run, self.began + float(self.moments[number]), number)
        lines = (f"GET {self.path} HTTP/1.1", f"Host: 127.0.0.1:{self.port}", f"traceparent: 00-{trace}-{number + 1:016x}-01", "", "")
        return "\r\n".join(lines).encode()

    def arrive(self, request: Request) -> None:
        """Send the request if there is a connection, open one if there may be more, else let it wait."""
        self.under_way[request.number] = request
        while self.idle:
            connection = self.idle.pop()
            if not connection.transport.is_closing():
                connection.send(request)
                return
        self.waiting.append(request)
        if self.open < CONNECTIONS:
            self.open += 1
            asyncio.get_running_loop().create_task(self._connect())

    async def _connect(self) -> None:
        try:
            _, connection = await asyncio.get_running_loop().create_connection(lambda: Connection(self), "127.0.0.1", self.port)
        except OSError:
            self.open -= 1
            await asyncio.sleep(0.05)  # who waits is not forgotten: refused connections cost time until they are taken
            if self.waiting and not self.open:
                self.open += 1
                await self._connect()
            return
        self._next(connection)

    def _next(self, connection: Connection) -> None:
        while self.waiting:
            request = self.waiting.popleft()
            if request.number in self.under_way:
                connection.send(request)
                return
        self.idle.append(connection)

    def answered(self, connection: Connection, request: Request, status: int) -> None:
        """Write the record and give the connection to the next."""
        if self.under_way.pop(request.number, None) is not None:
            self._write(request, status)
        self._next(connection)

    def lost(self, connection: Connection) -> None:
        """A connection has gone; a request that it carried goes to another, at the cost of its time (GET may be repeated)."""
        self.open -= 1
        if connection in self.idle:
            self.idle.remove(connection)
        if connection.request is not None and connection.request.number in self.under_way:
            self.arrive(connection.request)

    def expire(self, now: float) -> None:
        """Give up on what was not answered in time."""
        for request in [each for each in self.under_way.values() if now - each.due > TIMEOUT_S]:
            del self.under_way[request.number]
            self._write(request, 0)

    def _write(self, request: Request, status: int) -> None:
        now = time.monotonic()
        unsent = (request.sent or now) - request.due
        self.out.write(PACK(self.index, status, request.number, now - request.due, unsent))


async def drive(start: float, moments: npt.NDArray[np.float64], targets: list[Target]) -> None:
    """Send every arrival at its moment; ends when all are answered or given up."""
    schedule = sorted(
        (start + float(moments[number]) + target.shift, target.index, number)
        for target in targets
        for number in range(0, len(moments), target.every)
    )
    flushed = 0.0
    for due, index, number in schedule:
        while (ahead := due - time.monotonic()) > 0:
            await asyncio.sleep(min(ahead, FLUSH_S))
        targets[index].arrive(Request(number, due))
        if due - flushed > FLUSH_S:
            flushed = due
            _sweep(targets)
            await asyncio.sleep(0)
    while any(target.under_way for target in targets):
        await asyncio.sleep(0.1)
        _sweep(targets)
    _sweep(targets)


def _sweep(targets: list[Target]) -> None:
    for target in targets:
        target.expire(time.monotonic())
        target.out.flush()


def main() -> None:
    """Command line."""
    told = json.loads(sys.argv[1])
    with contextlib.suppress(OSError):
        os.setpriority(os.PRIO_PROCESS, 0, PRIORITY)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # whoever started us ends us
    moments = arrivals(told["rate"], told["seconds"], told["seed"])
    run, began = told["run"], told["began"]
    with Path(told["out"]).open("ab", buffering=1 << 16) as out:
        targets = [Target(index, run=run, began=began, moments=moments, out=out, **each) for index, each in enumerate(told["targets"])]
        # select(2) waits by the microsecond, epoll by the millisecond
        with asyncio.Runner(loop_factory=lambda: asyncio.SelectorEventLoop(selectors.SelectSelector())) as runner:
            runner.run(drive(told["start"], moments, targets))


if __name__ == "__main__":
    main()
