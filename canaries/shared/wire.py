"""A connection as a prober needs it: every wait ends at a deadline, and no system call is made that need not be.

`Wire` is TCP, `SecureWire` TLS above one. TLS runs through memory (`ssl.MemoryBIO`): OpenSSL on a socket reads five bytes of a record, then
the record, forty system calls a handshake; here a flight is one, and the end of the handshake travels with the request. Deadlines are
moments of `time.perf_counter`. Everything raises what sockets and `ssl` raise, and TimeoutError when a deadline has passed.
"""

from __future__ import annotations

import contextlib
import errno
import os
import select
import socket
import ssl
import time
from typing import Final, Protocol

FLIGHT: Final = 32768  # more than a server's part of a handshake


class Stream(Protocol):
    """What `Wire` and `SecureWire` have in common."""

    def send(self, data: bytes, deadline: float) -> None:
        """Send all of ``data``."""

    def receive(self, size: int, deadline: float) -> bytes:
        """The next bytes, at most ``size``; none at the end of the stream."""

    def close(self) -> None:
        """Close the connection; safe to repeat."""


class Wire:
    """One TCP connection over IPv4."""

    def __init__(self) -> None:
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        self._socket.setblocking(False)
        self._poll = select.poll()

    def connect(self, ip: str, port: int, deadline: float) -> None:
        """Connect to an address."""
        code = self._socket.connect_ex((ip, port))
        if code == errno.EINPROGRESS:
            self._wait(select.POLLOUT, deadline)
            code = self._socket.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if code:
            raise OSError(code, os.strerror(code))

    def send(self, data: bytes, deadline: float) -> None:
        """Send all of ``data``."""
        sent = self._send(data, deadline)
        while sent < len(data):
            sent += self._send(data[sent:], deadline)

    def receive(self, size: int, deadline: float) -> bytes:
        """The next bytes, at most ``size``; none at the end of the stream."""
        self._wait(select.POLLIN, deadline)
        return self._socket.recv(size)

    def close(self) -> None:
        """Close the connection; safe to repeat."""
        self._socket.close()

    def _send(self, data: bytes, deadline: float) -> int:
        """Send what fits, waiting only when nothing does."""
        left(deadline)
        try:
            return self._socket.send(data)
        except BlockingIOError:
            self._wait(select.POLLOUT, deadline)
            return self._socket.send(data)

    def _wait(self, event: int, deadline: float) -> None:
        """Wait until the socket can be read or written. Errors of the socket end the wait: the call that follows raises them."""
        self._poll.register(self._socket, event)
        if not self._poll.poll(left(deadline) * 1000):
            raise TimeoutError("nothing came in time")


class SecureWire:
    """TLS as a client, above a connected `Wire`. The server's certificate and name are checked as ``context`` says."""

    def __init__(self, wire: Wire, context: ssl.SSLContext, host: str) -> None:
        self._wire = wire
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.tls = context.wrap_bio(self._incoming, self._outgoing, server_hostname=host)

    def handshake(self, deadline: float) -> None:
        """Shake hands. What this end says last is kept for the request to take along."""
        while True:
            try:
                self.tls.do_handshake()
            except ssl.SSLWantReadError:
                self._fill(deadline)
            except ssl.SSLError:
                with contextlib.suppress(OSError):  # the alert that tells the server why; it may be gone
                    self._flush(deadline)
                raise
            else:
                return

    def send(self, data: bytes, deadline: float) -> None:
        """Send all of ``data``."""
        self.tls.write(data)
        self._flush(deadline)

    def receive(self, size: int, deadline: float) -> bytes:
        """The next bytes, at most ``size``; none at the end of the stream, whether the server took its leave or not."""
        while True:
            try:
                return self.tls.read(size)
            except ssl.SSLWantReadError:
                self._fill(deadline)
            except (ssl.SSLZeroReturnError, ssl.SSLEOFError):
                return b""

    def close(self) -> None:
        """Close the connection; safe to repeat."""
        self._wire.close()

    def _fill(self, deadline: float) -> None:
        """Give TLS what the server sends next; first send what TLS has to say."""
        self._flush(deadline)
        data = self._wire.receive(FLIGHT, deadline)
        if data:
            self._incoming.write(data)
        else:
            self._incoming.write_eof()

    def _flush(self, deadline: float) -> None:
        if self._outgoing.pending:
            self._wire.send(self._outgoing.read(), deadline)


def left(deadline: float, at_most: float = 3600.0) -> float:
    """Seconds until the deadline, at most ``at_most``. Raises TimeoutError when there are none."""
    seconds = min(deadline - time.perf_counter(), at_most)
    if seconds <= 0:
        raise TimeoutError("the time for the whole exchange is used up")
    return seconds
