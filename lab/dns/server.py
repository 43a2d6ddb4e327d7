"""DNS over UDP and TCP on one port, as threads: takes messages in, hands them to a responder, sends back what it answers."""

from __future__ import annotations

import contextlib
import logging
import socket
import socketserver
import struct
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable

log = logging.getLogger(__name__)

UDP_SIZE = 4096
TCP_IDLE_S = 10.0


class Responder(Protocol):
    """What answers queries. Messages are DNS wire format; None means that no answer is sent."""

    def quick(self, query: bytes, source: str, /) -> bytes | None:
        """An answer that needs no waiting, None where `slow` has to be asked."""

    def slow(self, query: bytes, source: str, /) -> bytes | None:
        """An answer that may need to wait for somebody else."""


class DnsServer:
    """Serves a `Responder` on ``host:port``. Port 0 takes a free one; `port` then tells which."""

    def __init__(self, responder: Responder, host: str, port: int, name: str = "dns", workers: int = 8) -> None:
        self._responder = responder
        self._name = name
        self.host = host
        self._udp, self._tcp = _bind(host, port, self._answer)
        self.port: int = self._udp.getsockname()[1]
        self._pool = ThreadPoolExecutor(workers, thread_name_prefix=f"{name}-slow")
        self._threads = [
            threading.Thread(target=self._serve_udp, name=f"{name}-udp", daemon=True),
            threading.Thread(target=self._tcp.serve_forever, kwargs={"poll_interval": 0.2}, name=f"{name}-tcp", daemon=True),
        ]
        self._stopping = False

    def start(self) -> DnsServer:
        """Begin to answer."""
        for thread in self._threads:
            thread.start()
        return self

    def stop(self) -> None:
        """Stop answering and free the port."""
        self._stopping = True
        with contextlib.suppress(OSError):
            self._udp.shutdown(socket.SHUT_RDWR)
        self._udp.close()
        if self._threads[1].is_alive():
            self._tcp.shutdown()
        self._tcp.server_close()
        self._pool.shutdown(wait=False, cancel_futures=True)

    def _answer(self, query: bytes, source: str) -> bytes | None:
        return self._responder.quick(query, source) or self._responder.slow(query, source)

    def _serve_udp(self) -> None:
        receive, send, quick = self._udp.recvfrom, self._udp.sendto, self._responder.quick
        while not self._stopping:
            try:
                query, address = receive(UDP_SIZE)
            except OSError:
                if self._stopping:
                    return
                continue
            if not query:
                continue
            try:
                answer = quick(query, address[0])
                if answer is None:
                    self._pool.submit(self._answer_later, query, address)
                else:
                    send(fitted(query, answer), address)
            except (OSError, ValueError, RuntimeError, struct.error):
                log.debug("%s: a query from %s was not answered", self._name, address, exc_info=True)

    def _answer_later(self, query: bytes, address: tuple[str, int]) -> None:
        answer = self._responder.slow(query, address[0])
        if answer is not None:
            with contextlib.suppress(OSError):
                self._udp.sendto(fitted(query, answer), address)


def fitted(query: bytes, answer: bytes) -> bytes:
    """``answer`` as it fits into one datagram of the size that ``query`` allows: whole, or cut to header and question with TC set."""
    if len(answer) <= 512 or len(answer) <= _advertised_size(query):
        return answer
    end = question_end(answer)
    flags = struct.unpack_from("!H", answer, 2)[0] | 0x0200
    return answer[:2] + struct.pack("!HHHHH", flags, 1, 0, 0, 0) + answer[12:end]


def question_end(message: bytes) -> int:
    """Where the (single) question of ``message`` ends. Raises ValueError where there is none."""
    at = 12
    while at < len(message):
        length = message[at]
        if length == 0:
            return at + 5
        if length > 63:
            break
        at += 1 + length
    raise ValueError("not a DNS message with one question")


def _advertised_size(query: bytes) -> int:
    """The datagram size of the query's EDNS record; 512 where it has none."""
    at = question_end(query)
    if len(query) >= at + 11 and query[at] == 0 and query[at + 1 : at + 3] == b"\x00\x29":
        return max(512, int.from_bytes(query[at + 3 : at + 5], "big"))
    return 512


class _TcpServer(socketserver.ThreadingTCPServer):
    daemon_threads = True
    allow_reuse_address = True
    answer: Callable[[bytes, str], bytes | None]


class _TcpHandler(socketserver.StreamRequestHandler):
    timeout = TCP_IDLE_S
    server: _TcpServer

    def handle(self) -> None:
        with contextlib.suppress(OSError):
            while len(header := self.rfile.read(2)) == 2:
                query = self.rfile.read(struct.unpack("!H", header)[0])
                try:
                    answer = self.server.answer(query, self.client_address[0])
                except (ValueError, struct.error):
                    return
                if answer is None:
                    return
                self.wfile.write(struct.pack("!H", len(answer)) + answer)


def _bind(host: str, port: int, answer: Callable[[bytes, str], bytes | None]) -> tuple[socket.socket, _TcpServer]:
    """A UDP socket and a TCP server on the same port."""
    for attempt in range(20):
        udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        try:
            udp.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
            udp.bind((host, port))
            tcp = _TcpServer((host, udp.getsockname()[1]), _TcpHandler)
        except OSError:
            udp.close()
            if port or attempt == 19:
                raise
            continue
        tcp.answer = answer
        return udp, tcp
    raise AssertionError("unreachable")
