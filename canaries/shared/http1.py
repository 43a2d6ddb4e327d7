"""Reading one HTTP/1.x answer off a socket: the head, then the body up to a limit. RFC 9112, as much as a prober needs.

`http.client` would do, at twice the CPU of a whole plain exchange and without telling a broken chunk from a closed connection.
"""

from __future__ import annotations

import re
import time
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable

HEAD_LIMIT: Final = 65536
RECEIVE: Final = 65536
STATUS_LINE: Final = re.compile(rb"HTTP/1\.[01] (\d{3})(?: |$)")
CHUNK_SIZE: Final = re.compile(rb"([0-9A-Fa-f]{1,15})\s*(?:;.*)?$")
LENGTH: Final = re.compile(r"[0-9]{1,18}")


class ProtocolError(Exception):
    """What came is not HTTP; the text says why."""


class CutOffError(Exception):
    """The connection was closed before the answer was whole; the text says how much there was."""


class Incoming:
    """One answer as it comes in. ``receive`` returns the next bytes, none at the end of the stream, and may raise what sockets raise."""

    def __init__(self, receive: Callable[[int], bytes]) -> None:
        self._receive = receive
        self._buffer = bytearray()
        self.first_byte: float | None = None
        self.status = 0
        self.headers: dict[str, str] = {}
        self.reusable = False

    def head(self) -> None:
        """Read status and headers; interim answers (1xx) are passed over. Raises ProtocolError or CutOffError."""
        self._one_head()
        while 100 <= self.status < 200:
            self._one_head()

    def body(self, limit: int) -> bytes:
        """Read the body, at most ``limit`` bytes of it; the connection is reusable when that was all. Raises as `head`."""
        keep = self.headers.get("connection", "").lower() != "close"
        if self.status in (204, 304):
            self.reusable = keep
            return b""
        if "chunked" in self.headers.get("transfer-encoding", "").lower():
            data, whole = self._chunks(limit)
        elif (length := self.headers.get("content-length")) is not None:
            if not LENGTH.fullmatch(length):
                raise ProtocolError(f"Content-Length: {length[:40]}")
            wanted = min(int(length), limit)
            data, whole = self._exactly(wanted, int(length)), int(length) <= limit
        else:
            return self._until_closed(limit)
        self.reusable = keep and whole
        return data

    def _one_head(self) -> None:
        end = -1
        while (end := self._buffer.find(b"\r\n\r\n")) < 0:
            if len(self._buffer) > HEAD_LIMIT:
                raise ProtocolError(f"a head of more than {HEAD_LIMIT} bytes")
            if not self._more():
                raise CutOffError(f"closed after {len(self._buffer)} bytes of a head" if self._buffer else "closed without an answer")
            if not b"HTTP/1.".startswith(self._buffer[:7]) and not self._buffer.startswith(b"HTTP/1."):
                raise ProtocolError(f"an answer that begins {bytes(self._buffer[:40])!r}")
        if end > HEAD_LIMIT:
            raise ProtocolError(f"a head of more than {HEAD_LIMIT} bytes")
        status_line, *lines = bytes(self._buffer[:end]).split(b"\r\n")
        del self._buffer[: end + 4]
        match = STATUS_LINE.match(status_line)
        if match is None:
            raise ProtocolError(f"status line {status_line[:60]!r}")
        self.status = int(match.group(1))
        self.headers = {}
        for line in lines:
            name, colon, value = line.decode("latin-1").partition(":")
            if not colon or not name or name[0] in " \t":
                raise ProtocolError(f"header line {line[:60]!r}")
            key, text = name.lower(), value.strip()
            self.headers[key] = f"{self.headers[key]}, {text}" if key in self.headers else text

    def _chunks(self, limit: int) -> tuple[bytes, bool]:
        data = bytearray()
        while True:
            match = CHUNK_SIZE.match(line := self._line())
            if match is None:
                raise ProtocolError(f"chunk size {line[:40]!r}")
            size = int(match.group(1), 16)
            if size == 0:
                while self._line():  # trailers
                    pass
                return bytes(data), True
            wanted = min(size, limit - len(data))
            data += self._exactly(wanted, size)
            if len(data) >= limit:
                return bytes(data), False
            if self._line():
                raise ProtocolError("a chunk that does not end where it said")

    def _line(self) -> bytes:
        while (end := self._buffer.find(b"\r\n")) < 0:
            if len(self._buffer) > HEAD_LIMIT:
                raise ProtocolError("a line without end")
            if not self._more():
                raise CutOffError("closed between two chunks")
        line = bytes(self._buffer[:end])
        del self._buffer[: end + 2]
        return line

    def _exactly(self, wanted: int, promised: int) -> bytes:
        while len(self._buffer) < wanted:
            if not self._more():
                raise CutOffError(f"closed after {len(self._buffer)} of {promised} bytes")
        data = bytes(self._buffer[:wanted])
        del self._buffer[:wanted]
        return data

    def _until_closed(self, limit: int) -> bytes:
        while len(self._buffer) < limit and self._more():
            pass
        return bytes(self._buffer[:limit])

    def _more(self) -> bool:
        data = self._receive(RECEIVE)
        if self.first_byte is None:
            self.first_byte = time.perf_counter()
        self._buffer += data
        return bool(data)
