"""The caching resolver of one Region (on AWS: the VPC's, at .2): asks the name servers, keeps answers for their TTL in lab seconds,
and gives them out with the time that is left.

Its faults are those that resolvers have: it can be down, answer SERVFAIL, be slow, never notice a change (``stuck``), and hold answers
longer than their TTL (``least_ttl_s``).
"""

from __future__ import annotations

import contextlib
import math
import socket
import struct
import threading
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from lab.dns.server import question_end

if TYPE_CHECKING:
    from lab.clock import LabClock

UPSTREAM_TIMEOUT_S = 1.0
UPSTREAM_TRIES = 2
MOST_KEPT = 10_000
SERVFAIL, NXDOMAIN = 2, 3
OPT, SOA = 41, 6


@dataclass(slots=True)
class ResolverFaults:
    """``delay_s`` is wall seconds added to every answer, ``least_ttl_s`` lab seconds."""

    down: bool = False
    servfail: bool = False
    stuck: bool = False
    delay_s: float = 0.0
    least_ttl_s: float = 0.0


@dataclass(frozen=True, slots=True)
class Kept:
    """An answer in the cache. ``ttls`` are (offset in the message, TTL) of each record; times are lab epoch seconds."""

    message: bytes
    ttls: tuple[tuple[int, int], ...]
    at: float
    until: float


class Resolver:
    """A `lab.dns.server.Responder` that asks ``upstream`` from the address ``source``, by which the name servers know its Region."""

    def __init__(self, clock: LabClock, upstream: tuple[str, int], source: str) -> None:
        self.faults = ResolverFaults()
        self._clock = clock
        self._upstream = upstream
        self._source = source
        self._kept: dict[bytes, Kept] = {}
        self._lock = threading.Lock()

    def quick(self, query: bytes, _source: str, /) -> bytes | None:
        """The answer from the cache, None where it has none (or is told to be slow)."""
        if self.faults.delay_s or self.faults.down or self.faults.servfail:
            return None
        return self._from_cache(query)

    def slow(self, query: bytes, _source: str, /) -> bytes | None:
        """The answer of the name servers; SERVFAIL where they give none; nothing while the resolver is down."""
        faults = self.faults
        if faults.down:
            return None
        if faults.delay_s:
            time.sleep(faults.delay_s)
        if faults.servfail:
            return _failure(query)
        kept = self._from_cache(query)
        if kept is not None:
            return kept
        answer = self._ask(query)
        if answer is None:
            return _failure(query)
        self._keep(query, answer)
        return query[:2] + _recursive(answer)[2:]

    def forget(self) -> None:
        """Empty the cache."""
        with self._lock:
            self._kept = {}

    def _from_cache(self, query: bytes) -> bytes | None:
        end = question_end(query)
        kept = self._kept.get(_key(query, end))
        if kept is None:
            return None
        now = self._clock.now()
        if now >= kept.until and not self.faults.stuck:
            return None
        message = bytearray(kept.message)
        message[:2] = query[:2]
        message[12:end] = query[12:end]
        age = now - kept.at
        for offset, ttl in kept.ttls:
            struct.pack_into("!I", message, offset, max(0, math.ceil(ttl - age)))
        return bytes(message)

    def _keep(self, query: bytes, answer: bytes) -> None:
        code = answer[3] & 0x0F
        if code not in (0, NXDOMAIN):
            return
        ttls, least = _ttls(answer)
        lifetime = max(float(least), self.faults.least_ttl_s)
        if not ttls or lifetime <= 0:
            return
        now = self._clock.now()
        with self._lock:
            if len(self._kept) >= MOST_KEPT:
                self._kept = {}
            message = bytes(_recursive(answer))
            self._kept = {**self._kept, _key(query, question_end(query)): Kept(message, ttls, now, now + lifetime)}

    def _ask(self, query: bytes) -> bytes | None:
        for _ in range(UPSTREAM_TRIES):
            with contextlib.suppress(OSError), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
                sock.settimeout(UPSTREAM_TIMEOUT_S)
                sock.bind((self._source, 0))
                sock.connect(self._upstream)
                sock.send(query)
                answer = sock.recv(4096)
                if answer[:2] == query[:2] and answer[2] & 0x80:
                    return self._ask_tcp(query) if answer[2] & 0x02 else answer
        return None

    def _ask_tcp(self, query: bytes) -> bytes | None:
        with contextlib.suppress(OSError), socket.create_connection(self._upstream, UPSTREAM_TIMEOUT_S, (self._source, 0)) as sock:
            sock.sendall(struct.pack("!H", len(query)) + query)
            with sock.makefile("rb") as stream:
                return stream.read(struct.unpack("!H", stream.read(2))[0])
        return None


def _key(query: bytes, end: int) -> bytes:
    """What makes two queries the same: the question without regard to case, and the EDNS part (client subnet, DO bit)."""
    return query[12:end].lower() + query[end:]


def _recursive(answer: bytes) -> bytes:
    """``answer`` as a resolver gives it: not authoritative, recursion available."""
    return answer[:2] + bytes([answer[2] & ~0x04, answer[3] | 0x80]) + answer[4:]


def _failure(query: bytes) -> bytes:
    flags = 0x8080 | (struct.unpack_from("!H", query, 2)[0] & 0x0100) | SERVFAIL
    return query[:2] + struct.pack("!HHHHH", flags, 1, 0, 0, 0) + query[12 : question_end(query)]


def _ttls(message: bytes) -> tuple[tuple[tuple[int, int], ...], int]:
    """Where the TTLs of ``message``'s records are and what they say, and how long the message may be kept.

    A negative answer may be kept for the lesser of its SOA's TTL and minimum (RFC 2308).
    """
    counts = struct.unpack_from("!HHH", message, 6)
    at = question_end(message)
    found: list[tuple[int, int]] = []
    least = 2**31
    for _ in range(sum(counts)):
        at = _name_end(message, at)
        kind, _, ttl, length = struct.unpack_from("!HHIH", message, at)
        if kind != OPT:
            found.append((at + 4, ttl))
            least = min(least, ttl)
        at += 10 + length
        if kind == SOA and not counts[0]:
            least = min(least, struct.unpack_from("!I", message, at - 4)[0])
    return tuple(found), least


def _name_end(message: bytes, at: int) -> int:
    while True:
        length = message[at]
        if length >= 0xC0:
            return at + 2
        if length == 0:
            return at + 1
        at += 1 + length
