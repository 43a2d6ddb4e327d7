"""A small threaded HTTP/1.1 server: keep-alive, Content-Length and chunked bodies, 100-continue. One thread a connection.

The standard library's server spends most of a short request in its e-mail header parser; this one reads what AWS's clients send, and can
also do what the lab's faults need: close its listener and its connections, or reset a connection instead of answering.
"""

from __future__ import annotations

import contextlib
import logging
import socket
import struct
import threading
import time
from collections.abc import Callable
from http import HTTPStatus

from lab.aws.protocol import Request, Response

log = logging.getLogger(__name__)

MAX_HEAD_BYTES = 256 * 1024
MAX_BODY_BYTES = 256 * 1024 * 1024
ACCEPT_PAUSE_WALL_S = 0.2  # after an accept that failed: descriptors come back when connections end
_CHUNK = 256 * 1024

Handler = Callable[[Request], Response | None]


class BadRequestError(Exception):
    """What came over the connection is not HTTP that we understand."""


class HttpServer:
    """Serves ``handler`` on one loopback address. A handler that returns None has the connection reset."""

    def __init__(self, host: str, port: int, handler: Handler, name: str) -> None:
        self._address = (host, port)
        self._handler = handler
        self._name = name
        self._listener: socket.socket | None = None
        self._connections: set[socket.socket] = set()
        self._lock = threading.Lock()

    @property
    def port(self) -> int:
        """The port it listens on, also while it is closed."""
        return self._address[1]

    def open(self) -> None:
        """Start to listen. Raises OSError where the port is taken."""
        with self._lock:
            if self._listener is not None:
                return
            listener = socket.socket()
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                listener.bind(self._address)
                listener.listen(512)
            except OSError:
                listener.close()
                raise
            self._address = listener.getsockname()
            self._listener = listener
        threading.Thread(target=self._accept, args=(listener,), name=f"{self._name}-accept", daemon=True).start()

    def close(self) -> None:
        """Stop to listen and drop every connection: clients see refusals from now on."""
        with self._lock:
            listener, self._listener = self._listener, None
            connections, self._connections = self._connections, set()
        if listener is not None:
            with contextlib.suppress(OSError):
                listener.shutdown(socket.SHUT_RDWR)  # wakes the accept; close alone does not
            listener.close()
        for connection in connections:
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)

    def _accept(self, listener: socket.socket) -> None:
        """Take connections for as long as ``listener`` is the server's, also after accepts that failed."""
        failing = False
        while True:
            try:
                connection, _ = listener.accept()
            except OSError as error:
                if not self._is_current(listener):
                    return
                if not failing:
                    log.warning("%s: cannot accept connections: %s", self._name, error)
                failing = True
                time.sleep(ACCEPT_PAUSE_WALL_S)
                continue
            failing = False
            with self._lock:
                if self._listener is not listener:
                    connection.close()
                    return
                self._connections.add(connection)
            try:
                threading.Thread(target=self._serve, args=(connection,), name=self._name, daemon=True).start()
            except RuntimeError as error:  # no more threads: this client is lost, the next may be served
                log.warning("%s: cannot serve a connection: %s", self._name, error)
                self._forget(connection)

    def _is_current(self, listener: socket.socket) -> bool:
        with self._lock:
            return self._listener is listener

    def _forget(self, connection: socket.socket) -> None:
        with self._lock:
            self._connections.discard(connection)
        connection.close()

    def _serve(self, connection: socket.socket) -> None:
        reader = _Reader(connection)
        try:
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            while (request := reader.request()) is not None:
                response = self._handler(request)
                if response is None:
                    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                    return
                keep = request.headers.get("connection", "").lower() != "close"
                connection.sendall(_encode(response, request.method == "HEAD", keep))
                if not keep:
                    return
        except BadRequestError as error:
            with contextlib.suppress(OSError):
                connection.sendall(_encode(Response(400, {"content-type": "text/plain"}, str(error).encode()), False, False))
        except OSError:
            pass  # the client went away, or a fault closed the Region
        finally:
            self._forget(connection)


class _Reader:
    """Requests from one connection."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._buffer = bytearray()

    def gone(self) -> bool:
        """Whether the client has closed the connection, or it was dropped here."""
        try:
            return not self._connection.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT)
        except BlockingIOError:
            return False
        except OSError:
            return True

    def request(self) -> Request | None:
        """The next request, or None at the end of the connection."""
        end = self._fill_until(b"\r\n\r\n")
        if end < 0:
            return None
        head = bytes(self._buffer[:end]).decode("latin-1")
        del self._buffer[: end + 4]
        lines = head.split("\r\n")
        parts = lines[0].split(" ")
        if len(parts) != 3 or not parts[2].startswith("HTTP/1."):
            raise BadRequestError(f"not an HTTP/1.1 request line: {lines[0][:80]!r}")
        headers: dict[str, str] = {}
        for line in lines[1:]:
            name, colon, value = line.partition(":")
            if not colon:
                raise BadRequestError(f"not a header: {line[:80]!r}")
            name = name.strip().lower()
            headers[name] = f"{headers[name]},{value.strip()}" if name in headers else value.strip()
        if headers.get("expect", "").lower() == "100-continue":
            self._connection.sendall(b"HTTP/1.1 100 Continue\r\n\r\n")
        body = self._body(headers)
        path, _, query = parts[1].partition("?")
        if path.startswith("http://"):
            path = "/" + path.split("/", 3)[3] if path.count("/") > 2 else "/"
        return Request(parts[0], path, query, headers, body, self.gone)

    def _body(self, headers: dict[str, str]) -> bytes:
        if "chunked" in headers.get("transfer-encoding", "").lower():
            return self._chunked()
        try:
            length = int(headers.get("content-length", "0"))
        except ValueError:
            raise BadRequestError("Content-Length is not a number") from None
        if not 0 <= length <= MAX_BODY_BYTES:
            raise BadRequestError(f"Content-Length must be 0..{MAX_BODY_BYTES}")
        return self._take(length)

    def _chunked(self) -> bytes:
        out = bytearray()
        while True:
            end = self._fill_until(b"\r\n")
            if end < 0:
                raise BadRequestError("the body ended early")
            size = int(bytes(self._buffer[:end]).split(b";")[0], 16)
            del self._buffer[: end + 2]
            chunk = self._take(size + 2)[:-2]
            if size == 0:
                return bytes(out)
            out += chunk
            if len(out) > MAX_BODY_BYTES:
                raise BadRequestError("the body is too large")

    def _take(self, length: int) -> bytes:
        while len(self._buffer) < length:
            data = self._connection.recv(_CHUNK)
            if not data:
                raise BadRequestError("the body ended early")
            self._buffer += data
        taken = bytes(self._buffer[:length])
        del self._buffer[:length]
        return taken

    def _fill_until(self, mark: bytes) -> int:
        """The position of ``mark`` in the buffer, reading as much as needed; -1 at the end of the connection."""
        searched = 0
        while (end := self._buffer.find(mark, searched)) < 0:
            if len(self._buffer) > MAX_HEAD_BYTES:
                raise BadRequestError("the request's head is too large")
            searched = max(0, len(self._buffer) - len(mark))
            data = self._connection.recv(_CHUNK)
            if not data:
                return -1
            self._buffer += data
        return end


def _encode(response: Response, head_only: bool, keep: bool) -> bytes:
    try:
        reason = HTTPStatus(response.status).phrase
    except ValueError:
        reason = ""
    lines = [f"HTTP/1.1 {response.status} {reason}"]
    names = {name.lower() for name in response.headers}
    lines += [f"{name}: {value}" for name, value in response.headers.items()]
    if "content-length" not in names and response.status not in {204, 304}:
        lines.append(f"content-length: {len(response.body)}")
    if not keep:
        lines.append("connection: close")
    head = ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1", "replace")
    return head if head_only else head + response.body
