"""One HTTP exchange on a fresh connection, with the moment of every phase, and what went wrong in words a person can act on.

`exchange` is the probe function: it never raises for what a server or a network does. Moments are `time.perf_counter`; they become
durations in one place, `Phases.between`.
"""

from __future__ import annotations

import errno
import re
import ssl
import time
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Final
from urllib.parse import quote

from canaries.shared.http1 import CutOffError, Incoming, ProtocolError
from canaries.shared.resolve import Answer, ResolveError
from canaries.shared.wire import SecureWire, Stream, Wire

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping


class Phase(StrEnum):
    """The parts of an exchange, in order."""

    DNS = "dns"
    CONNECT = "connect"
    TLS = "tls"
    TTFB = "ttfb"
    TRANSFER = "transfer"


class Kind(StrEnum):
    """What can be wrong with an exchange."""

    DNS = "dns"
    REFUSED = "refused"
    UNREACHABLE = "unreachable"
    TIMEOUT = "timeout"
    TLS = "tls"
    CERTIFICATE = "certificate"
    RESET = "reset"
    PROTOCOL = "protocol"
    STATUS = "status"
    BODY = "body"
    INTERNAL = "internal"


@dataclass(frozen=True, slots=True)
class Failure:
    """What was wrong, in which phase it showed, and the details."""

    kind: Kind
    phase: Phase
    detail: str

    def __str__(self) -> str:
        return f"{self.kind} in {self.phase}: {self.detail}"


@dataclass(frozen=True, slots=True)
class Ask:
    """What to ask for and what a good answer is. ``turn`` picks one of the addresses, so that rounds go round them."""

    url_host: str
    port: int
    secure: bool
    path: str
    status: int = 200
    body: str | None = None
    connect_s: float = 1.0
    total_s: float = 3.0
    body_bytes: int = 262_144
    turn: int = 0
    headers: Mapping[str, str] = field(default_factory=dict)
    method: str = "GET"
    data: bytes = b""


@dataclass(frozen=True, slots=True)
class Phases:
    """Milliseconds of each phase that was reached, and of all together."""

    dns: float | None = None
    connect: float | None = None
    tls: float | None = None
    ttfb: float | None = None
    transfer: float | None = None
    total: float = 0.0

    @classmethod
    def between(cls, marks: list[float], secure: bool) -> Phases:
        """From the moments of start, resolved, connected, secured, first byte and end; the last one may stand for any unreached ones."""
        names = ("dns", "connect", "tls", "ttfb", "transfer")
        spans: dict[str, float] = {
            name: (after - before) * 1000 for name, before, after in zip(names, marks, marks[1:], strict=False) if secure or name != "tls"
        }
        return cls(**spans, total=(marks[-1] - marks[0]) * 1000)

    def as_dict(self) -> dict[str, float]:
        """The phases that were reached, rounded to microseconds."""
        every = {name: getattr(self, name) for name in ("dns", "connect", "tls", "ttfb", "transfer", "total")}
        return {name: round(value, 3) for name, value in every.items() if value is not None}


@dataclass(frozen=True, slots=True)
class Exchange:
    """What came of one `Ask`."""

    failure: Failure | None
    phases: Phases
    status: int | None = None
    ip: str | None = None
    answer: Answer | None = None
    certificate_days: float | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    body: str = ""

    @property
    def ok(self) -> bool:
        """Whether the answer was a good one."""
        return self.failure is None


def exchange(ask: Ask, resolve: Callable[[str, float], Answer], tls: ssl.SSLContext | None) -> Exchange:
    """Resolve, connect, secure, ask and read, each on its own clock; the connection is closed."""
    connection = Connection(ask, resolve, tls)
    try:
        return connection.exchange(ask)
    finally:
        connection.close()


class Connection:
    """One connection and the moments of its making. `exchange` may be called again on it: that is what a pooled client does."""

    def __init__(self, ask: Ask, resolve: Callable[[str, float], Answer], tls: ssl.SSLContext | None) -> None:
        self._ask, self._resolve, self._tls = ask, resolve, tls
        self._stream: Stream | None = None
        self.opened_at = 0.0
        self.ip: str | None = None
        self.answer: Answer | None = None
        self.certificate_days: float | None = None

    @property
    def is_open(self) -> bool:
        """Whether there is a connection to reuse."""
        return self._stream is not None

    def close(self) -> None:
        """Close the connection, if there is one."""
        if self._stream is not None:
            self._stream.close()
            self._stream = None

    def exchange(self, ask: Ask) -> Exchange:
        """Ask once, on the connection there is or on a new one."""
        marks = [time.perf_counter()]
        deadline = marks[0] + ask.total_s
        phase = Phase.DNS
        status, headers, text = None, {}, ""
        failure: Failure | None = None
        try:
            if self._stream is None:
                self.answer = self._resolve(ask.url_host, min(ask.connect_s, ask.total_s))
                self.ip = self.answer.addresses[ask.turn % len(self.answer.addresses)]
                marks.append(time.perf_counter())
                phase = Phase.CONNECT
                wire = self._connect(ask, self.ip, deadline)
                marks.append(time.perf_counter())
                phase = Phase.TLS
                if ask.secure:
                    self._secure(wire, ask, deadline)
                self.opened_at = time.time()
            else:
                marks += [marks[0], marks[0]]
            marks.append(time.perf_counter() if ask.secure else marks[-1])
            phase = Phase.TTFB
            stream = self._stream
            assert stream is not None
            incoming = Incoming(lambda size: stream.receive(size, deadline))
            stream.send(_request(ask), deadline)
            incoming.head()
            marks.append(incoming.first_byte or time.perf_counter())
            phase = Phase.TRANSFER
            status, headers = incoming.status, incoming.headers
            text = incoming.body(ask.body_bytes).decode("utf-8", "replace")
            if not incoming.reusable:
                self.close()
        except _FAILURES as error:
            self.close()
            failure = classify(error, phase, ask)
        marks.append(time.perf_counter())
        if failure is None:
            failure = judge(ask, status, headers, text)
        return Exchange(failure, Phases.between(marks, ask.secure), status, self.ip, self.answer, self.certificate_days, headers, text)

    def _connect(self, ask: Ask, ip: str, deadline: float) -> Wire:
        self._stream = wire = Wire()
        wire.connect(ip, ask.port, min(deadline, time.perf_counter() + ask.connect_s))
        return wire

    def _secure(self, wire: Wire, ask: Ask, deadline: float) -> None:
        secured = SecureWire(wire, self._tls or ssl.create_default_context(), ask.url_host)
        secured.handshake(deadline)
        self._stream = secured
        expires = _expiry(secured.tls)
        self.certificate_days = None if expires is None else (expires - time.time()) / 86400


def _request(ask: Ask) -> bytes:
    """The bytes of the request."""
    default = 443 if ask.secure else 80
    host = ask.url_host if ask.port == default else f"{ask.url_host}:{ask.port}"
    lines = [f"{ask.method} {quote(ask.path, safe=PATH_SAFE)} HTTP/1.1", f"Host: {host}", "Accept-Encoding: identity"]
    lines += [f"{name}: {value}" for name, value in ask.headers.items()]
    if ask.data or ask.method == "POST":
        lines.append(f"Content-Length: {len(ask.data)}")
    return "\r\n".join([*lines, "", ""]).encode("latin-1") + ask.data


def _expiry(tls: ssl.SSLObject) -> float | None:
    """When the certificate that the server showed ends, epoch seconds. Decoding one costs more than a whole plain exchange: once each."""
    shown = tls.getpeercert(binary_form=True) or b""
    if shown not in _expiries:
        if len(_expiries) >= 100:
            _expiries.clear()
        text = (tls.getpeercert() or {}).get("notAfter")
        _expiries[shown] = ssl.cert_time_to_seconds(text) if isinstance(text, str) else None
    return _expiries[shown]


_expiries: dict[bytes, float | None] = {}
_FAILURES = (OSError, ResolveError, ProtocolError, CutOffError, ValueError)
PATH_SAFE: Final = "/?#[]@!$&'()*+,;=:%-._~"  # RFC 3986, and what is percent-encoded already


def classify(error: Exception, phase: Phase, ask: Ask) -> Failure:
    """The failure that an exception stands for. ssl.SSLError and all socket errors are OSErrors, so the order matters; a certificate's
    error is a ValueError too, and any other ValueError is something that cannot be said in HTTP."""
    detail = str(error) or type(error).__name__
    kind = Kind.RESET
    if isinstance(error, ResolveError) or phase is Phase.DNS:
        kind = Kind.DNS
    elif isinstance(error, TimeoutError):
        limit = ask.connect_s if phase is Phase.CONNECT else ask.total_s
        kind, detail = Kind.TIMEOUT, f"nothing within {limit:g} s"
    elif isinstance(error, ssl.SSLCertVerificationError):
        kind, detail = Kind.CERTIFICATE, error.verify_message
    elif isinstance(error, ssl.SSLEOFError):
        detail = "closed in the handshake" if phase is Phase.TLS else detail
    elif isinstance(error, ssl.SSLError) and phase is Phase.TLS:
        kind, detail = Kind.TLS, error.reason or detail
    elif isinstance(error, ConnectionRefusedError):
        kind, detail = Kind.REFUSED, "connection refused"
    elif isinstance(error, (ProtocolError, ValueError)):
        kind, detail = Kind.PROTOCOL, f"not HTTP: {detail}"
    elif isinstance(error, OSError) and error.errno in _UNREACHABLE:
        kind, detail = Kind.UNREACHABLE, error.strerror or detail
    return Failure(kind, phase, detail)


_UNREACHABLE = frozenset({errno.ENETUNREACH, errno.EHOSTUNREACH, errno.ENETDOWN, errno.EHOSTDOWN, errno.EADDRNOTAVAIL, errno.EACCES})


def judge(ask: Ask, status: int | None, headers: Mapping[str, str], body: str) -> Failure | None:
    """Whether the answer is the one that was asked for."""
    if status != ask.status:
        where = f" to {headers['location'][:100]}" if "location" in headers else ""
        return Failure(Kind.STATUS, Phase.TTFB, f"{status}{where}, expected {ask.status}")
    if ask.body is not None and re.search(ask.body, body) is None:
        return Failure(Kind.BODY, Phase.TRANSFER, f"no match for {ask.body!r} in {len(body)} characters")
    return None
