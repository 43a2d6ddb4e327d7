"""HTTP/1.1 between a client and a target: what the load balancer and the Service Connect proxy have in common.

`read_head` takes one message's head off a stream; `Pool` keeps connections to targets; `exchange` sends one request to a target and its
response to the client, and returns an `Outcome` instead of raising: who calls it decides what a failure looks like to the client.
"""

from __future__ import annotations

import asyncio
import time
from collections import defaultdict
from dataclasses import dataclass
from enum import Enum

MAX_HEAD = 64 << 10
CHUNK = 64 << 10
HOP_BY_HOP = frozenset({b"connection", b"keep-alive", b"proxy-connection", b"expect", b"upgrade"})
BODILESS = frozenset({204, 304})


class BadMessage(Exception):
    """A message that is not HTTP/1.1."""


@dataclass(slots=True)
class Head:
    """The head of a request or a response. ``first``, ``second`` and ``third`` are the words of its first line."""

    first: str
    second: str
    third: str
    headers: list[tuple[bytes, bytes]]
    size: int

    def get(self, name: bytes) -> bytes:
        """The first header called ``name`` (lower case), empty where there is none."""
        return next((value for key, value in self.headers if key.lower() == name), b"")

    def put(self, name: bytes, value: bytes) -> None:
        """Set a header, instead of all that there are by this name."""
        self.headers = [(key, other) for key, other in self.headers if key.lower() != name.lower()]
        self.headers.append((name, value))

    @property
    def status(self) -> int:
        """A response's status."""
        return int(self.second)

    @property
    def keep_alive(self) -> bool:
        """Whether the sender wants to go on with this connection."""
        version = self.third if not self.first.startswith("HTTP/") else self.first
        connection = self.get(b"connection").lower()
        return connection != b"close" and (version == "HTTP/1.1" or connection == b"keep-alive")

    def render(self, keep_alive: bool) -> bytes:
        """The head as bytes, with our own wish for the connection instead of the sender's."""
        lines = [f"{self.first} {self.second} {self.third}".rstrip().encode("latin-1")]
        lines += [key + b": " + value for key, value in self.headers if key.lower() not in HOP_BY_HOP]
        lines.append(b"Connection: keep-alive" if keep_alive else b"Connection: close")
        return b"\r\n".join(lines) + b"\r\n\r\n"


async def read_head(reader: asyncio.StreamReader) -> Head | None:
    """The next message's head, or None where the other side is done. Raises `BadMessage`."""
    try:
        raw = await reader.readuntil(b"\r\n\r\n")
    except asyncio.IncompleteReadError as error:
        if error.partial.strip():
            raise BadMessage("the connection ended within a head") from error
        return None
    except asyncio.LimitOverrunError as error:
        raise BadMessage("the head is too long") from error
    lines = raw[:-4].lstrip(b"\r\n").split(b"\r\n")
    words = lines[0].decode("latin-1").split(" ", 2)
    is_response = len(words) >= 2 and words[0].startswith("HTTP/1.") and words[1].isdigit()
    is_request = len(words) == 3 and words[2].startswith("HTTP/1.")
    if not (is_response or is_request):
        raise BadMessage(f"not a first line of HTTP/1.1: {lines[0][:80]!r}")
    headers = []
    for line in lines[1:]:
        name, colon, value = line.partition(b":")
        if not colon or not name or name != name.strip():
            raise BadMessage(f"not a header: {line[:80]!r}")
        headers.append((name, value.strip()))
    return Head(words[0], words[1], words[2] if len(words) == 3 else "", headers, len(raw))


async def copy_body(head: Head, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, bodiless: bool = False) -> int:
    """Pass the body that follows ``head`` on; returns its size. Raises `BadMessage` where it ends too early."""
    if bodiless:
        return 0
    if head.get(b"transfer-encoding").lower() == b"chunked":
        return await _copy_chunks(reader, writer)
    length = head.get(b"content-length")
    if length:
        if not length.isdigit():
            raise BadMessage(f"not a length: {length[:40]!r}")
        return await _copy_exactly(int(length), reader, writer)
    copied = 0
    if head.first.startswith("HTTP/"):  # a response without a length ends with the connection, a request without one has no body
        while data := await reader.read(CHUNK):
            copied += len(data)
            writer.write(data)
            await writer.drain()
    return copied


async def _copy_chunks(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> int:
    copied = 0
    while True:
        line = await reader.readuntil(b"\r\n")
        writer.write(line)
        try:
            size = int(line.split(b";")[0], 16)
        except ValueError as error:
            raise BadMessage(f"not a chunk's size: {line[:40]!r}") from error
        copied += await _copy_exactly(size + 2, reader, writer)
        if size == 0:
            return copied


async def _copy_exactly(size: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> int:
    left = size
    while left:
        data = await reader.read(min(left, CHUNK))
        if not data:
            raise BadMessage("the connection ended within a body")
        left -= len(data)
        writer.write(data)
        await writer.drain()
    return size


class Connection:
    """A connection to a target."""

    __slots__ = ("reader", "writer")

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer


class Pool:
    """Idle connections to targets, by port."""

    def __init__(self, connect_timeout_s: float) -> None:
        self._idle: dict[int, list[Connection]] = defaultdict(list)
        self._connect_timeout_s = connect_timeout_s

    async def take(self, port: int) -> Connection:
        """A connection to ``port``: an idle one that still stands, or a new one. Raises OSError, TimeoutError."""
        idle = self._idle[port]
        while idle:
            connection = idle.pop()
            if not connection.reader.at_eof() and not connection.writer.is_closing():
                return connection
            connection.writer.close()
        async with asyncio.timeout(self._connect_timeout_s):
            return Connection(*await asyncio.open_connection("127.0.0.1", port, limit=MAX_HEAD))

    def give_back(self, port: int, connection: Connection) -> None:
        """Keep a connection for the next request."""
        self._idle[port].append(connection)

    def drop(self, port: int) -> None:
        """Close what is idle to ``port``."""
        for connection in self._idle.pop(port, []):
            connection.writer.close()


class End(Enum):
    """How an exchange ended."""

    DONE = "done"
    CONNECT_FAILED = "the target refused the connection"
    CONNECT_TIMEOUT = "the target did not take the connection in time"
    RESET = "the target hung up, or did not speak HTTP"
    TIMEOUT = "the target did not answer in time"
    CLIENT_GONE = "the client hung up"
    CUT_SHORT = "the target hung up within its response"


@dataclass(frozen=True, slots=True)
class Outcome:
    """One exchange. ``target_s`` is the time from the last byte sent to the target to the first of its response's head, wall seconds.

    Where ``end`` is not DONE and ``status`` is None, the client has been sent nothing yet.
    """

    end: End
    status: int | None = None
    target_s: float | None = None
    request_s: float = 0.0
    received: int = 0
    sent: int = 0
    keep_alive: bool = False
    location: str = ""


async def exchange(
    request: Head, client_in: asyncio.StreamReader, client_out: asyncio.StreamWriter, pool: Pool, port: int, timeout_s: float
) -> Outcome:
    """Send ``request`` and its body to the target on ``port`` and the response to the client."""
    started = time.perf_counter()
    try:
        connection = await pool.take(port)
    except TimeoutError:
        return Outcome(End.CONNECT_TIMEOUT)
    except OSError:
        return Outcome(End.CONNECT_FAILED)
    clean = False
    try:
        if request.get(b"expect").lower() == b"100-continue":
            client_out.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        connection.writer.write(request.render(keep_alive=True))
        try:
            received = request.size + await copy_body(request, client_in, connection.writer)
        except (BadMessage, asyncio.IncompleteReadError):
            return Outcome(End.CLIENT_GONE)
        sent_at = time.perf_counter()
        try:
            async with asyncio.timeout(timeout_s):
                response = await read_head(connection.reader)
                while response is not None and response.status in {100, 103}:
                    response = await read_head(connection.reader)
        except TimeoutError:
            return Outcome(End.TIMEOUT, received=received, request_s=sent_at - started)
        except BadMessage:
            response = None
        if response is None:
            return Outcome(End.RESET, received=received, request_s=sent_at - started)
        target_s = time.perf_counter() - sent_at
        bodiless = request.first == "HEAD" or response.status in BODILESS
        framed = bodiless or bool(response.get(b"content-length") or response.get(b"transfer-encoding"))
        keep_client = request.keep_alive and framed
        client_out.write(response.render(keep_client))
        end = End.DONE
        try:
            async with asyncio.timeout(timeout_s):
                sent = response.size + await copy_body(response, connection.reader, client_out, bodiless)
            await client_out.drain()
            clean = framed and response.keep_alive
        except (BadMessage, TimeoutError, asyncio.IncompleteReadError):
            end, sent, keep_client = End.CUT_SHORT, response.size, False
        return Outcome(
            end, response.status, target_s, sent_at - started, received, sent, keep_client, response.get(b"location").decode("latin-1")
        )
    except ConnectionError:
        return Outcome(End.CLIENT_GONE if client_out.is_closing() else End.RESET)
    finally:
        if clean:
            pool.give_back(port, connection)
        else:
            connection.writer.close()
