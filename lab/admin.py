"""The lab's own control ports: JSON over HTTP between the lab's parts, on loopback only.

A part that can be asked or told something (load balancer, mesh, databases, broker, links) serves a `Handler`: a coroutine that takes the
method, the path's segments, the query and the decoded body, and returns what to answer. `Refusal` is the answer to what cannot be done::

    async def handle(method, path, query, body):
        if (method, path) == ("GET", ("status",)):
            return {"healthy": 2}
        raise Refusal(404, "there is only GET /status")

`call` is the blocking client for everyone else. A page in a browser on this machine can send requests to loopback ports, too: so a request
has to name a loopback host (which no page reaches by a name of its own), and one that changes something has to be JSON by its Content-Type
(which a browser sends to a stranger only if it may).
"""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import ipaddress
import json
from http import HTTPStatus
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl, unquote, urlsplit

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    Handler = Callable[[str, tuple[str, ...], dict[str, str], Any], Awaitable[Any]]

MAX_BODY = 8 << 20


class Refusal(Exception):
    """A request that a part refuses: an HTTP status and one sentence."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.message = message


async def serve(port: int, handler: Handler, host: str = "127.0.0.1") -> asyncio.Server:
    """Serve ``handler``; a bad request or a refusal is answered with ``{"error": …}``."""

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while await _exchange(reader, writer, handler):
                pass
        except (ConnectionError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            pass
        finally:
            writer.close()

    return await asyncio.start_server(connected, host, port)


async def _exchange(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, handler: Handler) -> bool:
    """Answer one request; returns whether the connection stays open."""
    try:
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
    except asyncio.IncompleteReadError:
        return False
    request, *lines = head[:-4].split("\r\n")
    method, target, _ = request.split(" ", 2)
    headers = {name.strip().lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    length = int(headers.get("content-length", "0"))
    if length > MAX_BODY:
        raise ConnectionError("the body is too long")
    raw = await reader.readexactly(length) if length else b""
    parts = urlsplit(target)
    path = tuple(unquote(segment) for segment in parts.path.split("/") if segment)
    if why := not_ours(method, headers):
        status, answer = 403, {"error": why}
    else:
        status, answer = await _answer(handler, method, path, dict(parse_qsl(parts.query)), raw)
    body = json.dumps(answer).encode()
    keep = headers.get("connection", "").lower() != "close"
    writer.write(
        f"HTTP/1.1 {status} {HTTPStatus(status).phrase}\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n"
        f"Connection: {'keep-alive' if keep else 'close'}\r\n\r\n".encode()
        + body
    )
    await writer.drain()
    return keep


def not_ours(method: str, headers: Mapping[str, str]) -> str:
    """Why a request cannot come from a part of the lab, or nothing."""
    if not _is_loopback(headers.get("host", "localhost")):
        return "Host: this port is the lab's own, and is asked by a loopback address"
    if method != "GET" and headers.get("content-type", "").partition(";")[0].strip().lower() != "application/json":
        return "Content-Type: what changes something is asked for in application/json"
    return ""


def _is_loopback(host: str) -> bool:
    with contextlib.suppress(ValueError):
        name = urlsplit(f"//{host}").hostname or ""
        return name == "localhost" or ipaddress.ip_address(name).is_loopback
    return False


async def _answer(handler: Handler, method: str, path: tuple[str, ...], query: dict[str, str], raw: bytes) -> tuple[int, Any]:
    try:
        body = json.loads(raw) if raw else None
    except ValueError as error:
        return 400, {"error": f"the body is not JSON: {error}"}
    try:
        return 200, await handler(method, path, query, body)
    except Refusal as refusal:
        return refusal.status, {"error": refusal.message}


def call(port: int, method: str, path: str, body: Any = None, timeout_s: float = 5.0, headers: Mapping[str, str] | None = None) -> Any:
    """Ask the part that listens on ``port``. Raises OSError where nobody answers and `Refusal` where it refuses."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=timeout_s)
    try:
        data = None if body is None else json.dumps(body).encode()
        connection.request(method, path, data, {"Connection": "close", "Content-Type": "application/json", **(headers or {})})
        response = connection.getresponse()
        answer = json.loads(response.read() or b"null")
    except (http.client.HTTPException, ValueError) as error:  # ValueError: not JSON, so none of the lab's parts has this port
        raise ConnectionError(f"127.0.0.1:{port}{path}: {type(error).__name__}: {error}") from error
    finally:
        connection.close()
    if response.status >= 400:
        raise Refusal(response.status, answer["error"] if isinstance(answer, dict) and "error" in answer else str(answer))
    return answer
