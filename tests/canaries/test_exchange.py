"""One exchange with servers of every kind: its phases add up, and what is wrong is called by its name."""

from __future__ import annotations

import contextlib
import datetime as dt
import http.client
import io
import socket
import ssl
import struct
import threading
import time
from typing import TYPE_CHECKING, Any

import pytest
import trustme
from dnslib import RCODE
from hypothesis import given
from hypothesis import strategies as st

from canaries.shared.exchange import Ask, Connection, Exchange, Kind, Phase, exchange
from canaries.shared.http1 import Incoming
from canaries.shared.resolve import Answer, ResolveError, query, resolver, system_servers
from tests.canaries.servers import Zone, answering, page, raw_server

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

HOST = "store.retail.test"
WHOLE = page("<h1>Retail Store</h1>", "X-Where: here\r\n")
LIMITS = {"connect_s": 0.4, "total_s": 0.6}


def here(_host: str, _timeout_s: float) -> Answer:
    return Answer(("127.0.0.1",), 60)


def ask(port: int, secure: bool = False, **changes: Any) -> Ask:
    values: dict[str, Any] = {"url_host": HOST, "port": port, "secure": secure, "path": "/home", **LIMITS, **changes}
    return Ask(**values)


def server_context(ca: trustme.CA, *names: str, until: dt.datetime | None = None) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    ca.issue_cert(*names, not_after=until).configure_cert(context)
    return context


def trusting(ca: trustme.CA) -> ssl.SSLContext:
    return ssl.create_default_context(cadata=ca.cert_pem.bytes().decode())


# ---------------------------------------------------------------------- misbehaviour


def reset(connection: socket.socket) -> None:
    connection.recv(100)
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    connection.close()


def silent(connection: socket.socket) -> None:
    with contextlib.suppress(OSError):
        time.sleep(1.5)


def dripping(connection: socket.socket) -> None:
    """A body that never quite ends: every read succeeds, the whole takes for ever."""
    answering(b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n")(connection)
    for _ in range(30):
        connection.sendall(b"x")
        time.sleep(0.05)


def dripping_head(connection: socket.socket) -> None:
    connection.recv(100)
    connection.sendall(b"HTTP/1.1 200 OK\r\n")
    for number in range(30):
        connection.sendall(f"X-{number}: y\r\n".encode())
        time.sleep(0.05)


BEHAVIOURS: dict[str, tuple[Callable[[socket.socket], None], dict[str, Any], Kind, Phase]] = {
    "wrong status": (answering(b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n"), {}, Kind.STATUS, Phase.TTFB),
    "redirect away": (answering(b"HTTP/1.1 302 Found\r\nLocation: /sorry\r\nContent-Length: 0\r\n\r\n"), {}, Kind.STATUS, Phase.TTFB),
    "wrong page": (answering(page("Please log in")), {"body": "Retail Store"}, Kind.BODY, Phase.TRANSFER),
    "200 and nothing": (answering(page("")), {"body": "Retail Store"}, Kind.BODY, Phase.TRANSFER),
    "reset at once": (reset, {}, Kind.RESET, Phase.TTFB),
    "closed without an answer": (answering(b""), {}, Kind.RESET, Phase.TTFB),
    "closed half-way": (answering(b"HTTP/1.1 200 OK\r\nContent-Length: 500\r\n\r\nhalf"), {}, Kind.RESET, Phase.TRANSFER),
    "chunks cut off": (answering(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nff\r\nhalf"), {}, Kind.RESET, Phase.TRANSFER),
    "no answer": (silent, {}, Kind.TIMEOUT, Phase.TTFB),
    "drips its head": (dripping_head, {}, Kind.TIMEOUT, Phase.TTFB),
    "drips its body": (dripping, {}, Kind.TIMEOUT, Phase.TRANSFER),
    "not HTTP": (answering(b"220 mail.retail.test ESMTP\r\n"), {}, Kind.PROTOCOL, Phase.TTFB),
    "endless header": (answering(b"HTTP/1.1 200 OK\r\nX: " + b"y" * 70000 + b"\r\n\r\n"), {}, Kind.PROTOCOL, Phase.TTFB),
    "nonsense length": (answering(b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n"), {}, Kind.PROTOCOL, Phase.TRANSFER),
    "length in other digits": (
        answering("HTTP/1.1 200 OK\r\nContent-Length: ²\r\n\r\n".encode("latin-1")),
        {},
        Kind.PROTOCOL,
        Phase.TRANSFER,
    ),
    "length of thousands of digits": (
        answering(b"HTTP/1.1 200 OK\r\nContent-Length: " + b"9" * 5000 + b"\r\n\r\n"),
        {},
        Kind.PROTOCOL,
        Phase.TRANSFER,
    ),
    "nonsense status": (answering(b"HTTP/1.1 OK\r\n\r\n"), {}, Kind.PROTOCOL, Phase.TTFB),
    "nonsense header": (answering(b"HTTP/1.1 200 OK\r\nno colon\r\n\r\n"), {}, Kind.PROTOCOL, Phase.TTFB),
    "chunk longer than it said": (
        answering(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nabc\r\n"),
        {},
        Kind.PROTOCOL,
        Phase.TRANSFER,
    ),
    "closed in its head": (answering(b"HTTP/1.1 200 OK\r\nX: y\r\n"), {}, Kind.RESET, Phase.TTFB),
    "nonsense chunk": (answering(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n"), {}, Kind.PROTOCOL, Phase.TRANSFER),
}


@pytest.mark.parametrize(("talk", "changes", "kind", "phase"), BEHAVIOURS.values(), ids=BEHAVIOURS)
def test_what_a_server_does_wrong_is_classified(
    talk: Callable[[socket.socket], None], changes: dict[str, Any], kind: Kind, phase: Phase
) -> None:
    with raw_server(talk) as port:
        began = time.perf_counter()
        result = exchange(ask(port, **changes), here, None)
        took = time.perf_counter() - began
    assert result.failure is not None
    assert (result.failure.kind, result.failure.phase) == (kind, phase), str(result.failure)
    assert took < 0.9, "the time for the whole exchange holds, however bytes come"


@pytest.mark.parametrize(("talk", "changes", "kind", "phase"), BEHAVIOURS.values(), ids=BEHAVIOURS)
def test_the_same_holds_over_tls(
    talk: Callable[[socket.socket], None], changes: dict[str, Any], kind: Kind, phase: Phase, authority: trustme.CA
) -> None:
    with raw_server(talk, server_context(authority, HOST)) as port:
        result = exchange(ask(port, True, total_s=0.9, **changes), here, trusting(authority))
    assert result.failure is not None
    assert (result.failure.kind, result.failure.phase) == (kind, phase), str(result.failure)


def test_a_closed_port_is_refused() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    result = exchange(ask(port), here, None)
    assert result.failure is not None
    assert (result.failure.kind, result.failure.phase) == (Kind.REFUSED, Phase.CONNECT)


def test_a_black_hole_times_out_while_connecting() -> None:
    """A listener whose queue is full drops what comes, as a security group does."""
    with socket.create_server(("127.0.0.1", 0), backlog=0) as listener:
        fillers = [socket.socket() for _ in range(3)]
        for each in fillers:
            each.setblocking(False)
            each.connect_ex(listener.getsockname())
        time.sleep(0.1)
        result = exchange(ask(listener.getsockname()[1]), here, None)
        for each in fillers:
            each.close()
    assert result.failure is not None
    assert (result.failure.kind, result.failure.phase) == (Kind.TIMEOUT, Phase.CONNECT)
    assert result.phases.total < 550


CERTIFICATES = {
    "expired": (dt.datetime(2020, 1, 1, tzinfo=dt.UTC), HOST, True, "expired"),
    "for another name": (None, "other.retail.test", True, "Hostname mismatch"),
    "of an unknown authority": (None, HOST, False, "unable to get local issuer"),
}


@pytest.mark.parametrize(("until", "name", "trusted", "says"), CERTIFICATES.values(), ids=CERTIFICATES)
def test_a_bad_certificate_is_called_that(until: dt.datetime | None, name: str, trusted: bool, says: str, authority: trustme.CA) -> None:
    with raw_server(answering(WHOLE), server_context(authority, name, until=until)) as port:
        result = exchange(ask(port, True), here, trusting(authority if trusted else trustme.CA()))
    assert result.failure is not None
    assert (result.failure.kind, result.failure.phase) == (Kind.CERTIFICATE, Phase.TLS)
    assert says in result.failure.detail


def test_a_close_in_the_handshake_is_a_reset(authority: trustme.CA) -> None:
    """A load balancer without targets closes in good order: no TLS was spoken, so nothing is wrong with it."""

    def leave(connection: socket.socket) -> None:
        connection.recv(65536)

    with raw_server(leave) as port:
        result = exchange(ask(port, True), here, trusting(authority))
    assert result.failure is not None
    assert (result.failure.kind, result.failure.phase) == (Kind.RESET, Phase.TLS), str(result.failure)


def test_http_on_a_tls_port_is_a_tls_failure(authority: trustme.CA) -> None:
    with raw_server(answering(b"HTTP/1.1 400 Bad Request\r\n\r\n")) as port:
        result = exchange(ask(port, True), here, trusting(authority))
    assert result.failure is not None
    assert (result.failure.kind, result.failure.phase) in {(Kind.TLS, Phase.TLS), (Kind.TIMEOUT, Phase.TLS)}


def test_a_handshake_that_never_ends_is_a_timeout_in_tls(authority: trustme.CA) -> None:
    with raw_server(silent) as port:
        result = exchange(ask(port, True), here, trusting(authority))
    assert result.failure is not None
    assert (result.failure.kind, result.failure.phase) == (Kind.TIMEOUT, Phase.TLS)


def test_a_reset_in_the_handshake_is_a_reset(authority: trustme.CA) -> None:
    with raw_server(reset) as port:
        result = exchange(ask(port, True), here, trusting(authority))
    assert result.failure is not None
    assert (result.failure.kind, result.failure.phase) == (Kind.RESET, Phase.TLS)


# ---------------------------------------------------------------------- good answers


def test_a_good_answer_has_all_its_phases_and_they_add_up(authority: trustme.CA) -> None:
    def talk(connection: socket.socket) -> None:
        time.sleep(0.05)
        answering(WHOLE[:-5])(connection)
        time.sleep(0.1)
        connection.sendall(WHOLE[-5:])

    with raw_server(talk, server_context(authority, HOST)) as port:
        result = exchange(ask(port, True, body="Retail Store"), here, trusting(authority))
    assert result.ok, str(result.failure)
    phases = result.phases.as_dict()
    assert list(phases) == ["dns", "connect", "tls", "ttfb", "transfer", "total"]
    assert sum(phases.values()) - phases["total"] == pytest.approx(phases["total"], abs=0.05)
    assert 45 < phases["ttfb"] < 95
    assert 95 < phases["transfer"] < 150
    assert (result.status, result.ip, result.headers["x-where"]) == (200, "127.0.0.1", "here")


def test_the_days_a_certificate_has_left_are_counted(authority: trustme.CA) -> None:
    until = dt.datetime.now(dt.UTC) + dt.timedelta(days=20)
    with raw_server(answering(WHOLE), server_context(authority, HOST, until=until)) as port:
        result = exchange(ask(port, True), here, trusting(authority))
    assert result.certificate_days == pytest.approx(20, abs=0.01)


@pytest.mark.parametrize(
    "payload",
    [
        page("Retail Store"),
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n6\r\nRetail\r\n6\r\n Store\r\n0\r\n\r\n",
        b"HTTP/1.0 200 OK\r\n\r\nRetail Store",
        b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 12\r\n\r\nRetail Store",
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: Chunked\r\n\r\nC;x=y\r\nRetail Store\r\n0\r\nTrailer: z\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 12\r\n\r\nRetail Store and what does not belong to it",
    ],
    ids=["length", "chunks", "until closed", "after an interim answer", "chunks with extension and trailer", "more than its length"],
)
def test_every_way_to_send_a_body_is_read(payload: bytes) -> None:
    with raw_server(answering(payload)) as port:
        assert exchange(ask(port, body="^Retail Store$"), here, None).ok


@pytest.mark.parametrize(
    ("path", "sent"),
    [
        ("/orders?email=probe@crosswatch.invalid&size=1", "/orders?email=probe@crosswatch.invalid&size=1"),
        ("/心得", "/%E5%BF%83%E5%BE%97"),
        ("/a%20b c", "/a%20b%20c"),
    ],
)
def test_a_path_is_sent_in_ascii_and_what_is_encoded_stays(path: str, sent: str) -> None:
    seen: list[bytes] = []

    def talk(connection: socket.socket) -> None:
        seen.append(connection.recv(65536))
        connection.sendall(WHOLE)

    with raw_server(talk) as port:
        assert exchange(ask(port, path=path), here, None).ok
    assert seen[0].split(b" ")[1] == sent.encode()


def test_a_header_that_cannot_be_said_is_a_failed_exchange() -> None:
    with raw_server(answering(WHOLE)) as port:
        result = exchange(ask(port, headers={"X-Who": "心"}), here, None)
    assert result.failure is not None
    assert result.failure.kind is Kind.PROTOCOL


def test_a_body_is_read_up_to_a_limit() -> None:
    with raw_server(answering(page("Retail Store" + "x" * 1_000_000))) as port:
        result = exchange(ask(port, body="Retail", body_bytes=10_000), here, None)
    assert result.ok
    assert len(result.body) == 10_000


def test_addresses_take_turns() -> None:
    with raw_server(answering(WHOLE)) as port:
        ips = [exchange(ask(port, turn=n), lambda *_: Answer(("127.0.0.1", "127.0.0.2"), 1), None).ip for n in range(3)]
    assert ips == ["127.0.0.1", "127.0.0.2", "127.0.0.1"]


def test_a_kept_connection_is_reused_and_opened_again_when_it_was_closed() -> None:
    seen: list[int] = []

    def talk(connection: socket.socket) -> None:
        number = len(seen)
        for _ in range(2):
            data = b""
            while b"\r\n\r\n" not in data:
                if not (more := connection.recv(65536)):
                    return
                data += more
            seen.append(number)
            connection.sendall(WHOLE.replace(b"Connection: close\r\n", b""))

    with raw_server(talk) as port:
        kept = Connection(ask(port), here, None)
        results = [kept.exchange(ask(port)) for _ in range(2)]
        time.sleep(0.05)
        stale = kept.exchange(ask(port))
        results.append(kept.exchange(ask(port)))
        kept.close()
    assert [each.ok for each in results] == [True, True, True]
    assert stale.failure is not None
    assert stale.failure.kind is Kind.RESET
    assert seen == [0, 0, 2]


@given(st.binary(max_size=3000), st.lists(st.integers(1, 900), max_size=8), st.integers(1, 64))
def test_an_answer_is_read_the_same_however_it_is_cut(body: bytes, sizes: list[int], step: int) -> None:
    """Against the standard library's reading of the same bytes."""
    chunks, rest = b"", body
    for size in sizes:
        part, rest = rest[:size], rest[size:]
        chunks += b"%x\r\n%b\r\n" % (len(part), part) if part else b""
    chunks += (b"%x\r\n%b\r\n" % (len(rest), rest) if rest else b"") + b"0\r\n\r\n"
    wire = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nX-One: a\r\nX-One: b\r\n\r\n" + chunks
    pieces = iter([wire[at : at + step] for at in range(0, len(wire), step)])
    incoming = Incoming(lambda _: next(pieces, b""))
    incoming.head()
    data = incoming.body(10_000)
    theirs = http.client.HTTPResponse(_Canned(wire))  # type: ignore[arg-type]
    theirs.begin()
    assert data == theirs.read() == body
    assert incoming.headers["x-one"] == theirs.getheader("X-One")
    assert incoming.reusable


class _Canned:
    def __init__(self, data: bytes) -> None:
        self._data = data

    def makefile(self, _mode: str) -> io.BytesIO:
        return io.BytesIO(self._data)


# ---------------------------------------------------------------------- DNS


@contextlib.contextmanager
def name_server(answer: Callable[[bytes], bytes]) -> Iterator[tuple[str, int]]:
    """A server that answers one datagram as ``answer`` says; yields its address."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as listener:
        listener.bind(("127.0.0.1", 0))
        listener.settimeout(5)

        def serve() -> None:
            with contextlib.suppress(OSError):
                data, client = listener.recvfrom(4096)
                listener.sendto(answer(data), client)

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield listener.getsockname()
    thread.join(5)


def refusing(rcode: int) -> Callable[[bytes], bytes]:
    """The question, sent back as an answer with this code."""
    return lambda data: data[:2] + struct.pack("!H", 0x8180 | rcode) + data[4:]


def test_all_addresses_and_the_ttl_are_read(dns: tuple[Zone, str]) -> None:
    zone, server = dns
    zone.names[HOST] = ["127.0.10.1", "127.0.11.1"]
    assert resolver(server)(HOST, 1) == Answer(("127.0.10.1", "127.0.11.1"), 60)


DNS_TROUBLE: dict[str, tuple[list[str] | int | None, str]] = {
    "no such name": (RCODE.NXDOMAIN, "NXDOMAIN"),
    "server fails": (RCODE.SERVFAIL, "SERVFAIL"),
    "refused": (RCODE.REFUSED, "REFUSED"),
    "no address": ([], "no address"),
    "silence": (None, "no answer from 127.0.0.1"),
}


@pytest.mark.parametrize(("answer", "says"), DNS_TROUBLE.values(), ids=DNS_TROUBLE)
def test_dns_trouble_is_dns_trouble(answer: list[str] | int | None, says: str, dns: tuple[Zone, str]) -> None:
    zone, server = dns
    zone.names[HOST] = answer
    result = exchange(ask(1), resolver(server), None)
    assert result.failure is not None
    assert (result.failure.kind, result.failure.phase) == (Kind.DNS, Phase.DNS)
    assert says in result.failure.detail


def test_a_second_server_is_asked_when_the_first_is_silent(dns: tuple[Zone, str]) -> None:
    zone, server = dns
    zone.names[HOST] = ["127.0.0.1"]
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as deaf:
        deaf.bind(("127.0.0.1", 0))
        servers = [deaf.getsockname(), ("127.0.0.1", int(server.split(":")[1]))]
        assert query(HOST, servers, 0.4).addresses == ("127.0.0.1",)


@pytest.mark.parametrize("trouble", [RCODE.SERVFAIL, RCODE.REFUSED])
def test_a_second_server_is_asked_when_the_first_cannot_tell(trouble: int, dns: tuple[Zone, str]) -> None:
    zone, server = dns
    zone.names[HOST] = ["127.0.0.1"]
    with name_server(refusing(trouble)) as first:
        assert query(HOST, [first, ("127.0.0.1", int(server.split(":")[1]))], 1.0).addresses == ("127.0.0.1",)


def test_that_there_is_no_such_name_is_an_answer(dns: tuple[Zone, str]) -> None:
    """The next server is not asked: it would be another view of the world."""
    zone, server = dns
    zone.names[HOST] = ["127.0.0.1"]
    with name_server(refusing(RCODE.NXDOMAIN)) as first, pytest.raises(ResolveError, match="NXDOMAIN"):
        query(HOST, [first, ("127.0.0.1", int(server.split(":")[1]))], 1.0)


def test_a_long_answer_has_what_is_left_of_the_time_over_tcp() -> None:
    """A server that takes its time to say "ask me over TCP", and is deaf there, does not double the wait."""

    def truncated(data: bytes) -> bytes:
        time.sleep(0.3)
        return data[:2] + struct.pack("!H", 0x8380) + data[4:]

    with name_server(truncated) as server, socket.create_server(server) as deaf:
        began = time.perf_counter()
        with pytest.raises(ResolveError, match="no answer from"):
            query(HOST, [server], 0.5)
        assert time.perf_counter() - began < 0.7
        assert deaf.fileno() >= 0


@pytest.mark.parametrize("host", ["x" * 64 + ".retail.test", "a..b", "☃" * 70])
def test_a_name_that_is_none_has_no_address(host: str) -> None:
    result = exchange(ask(1, url_host=host), resolver("127.0.0.1:1"), None)
    assert result.failure is not None
    assert result.failure.kind is Kind.DNS


def test_the_systems_servers_are_read(tmp_path: Path) -> None:
    path = tmp_path / "resolv.conf"
    path.write_text("# mine\nsearch example.com\nnameserver 10.0.0.2\nnameserver fd00::2\nnameserver 10.0.0.3\n")
    assert system_servers(path) == [("10.0.0.2", 53), ("10.0.0.3", 53)]
    assert system_servers(tmp_path / "none") == []


def test_without_any_server_a_name_has_no_address_and_an_address_needs_none() -> None:
    with pytest.raises(ResolveError, match="no resolver is known"):
        query(HOST, [], 1)
    assert query("127.0.0.9", [], 1) == Answer(("127.0.0.9",), None)


# ---------------------------------------------------------------------- threads


def test_exchanges_do_not_disturb_each_other() -> None:
    """A slow target does not make the phases of a fast one long."""

    def slow(connection: socket.socket) -> None:
        time.sleep(0.3)
        answering(WHOLE)(connection)

    results: dict[str, Exchange] = {}
    with raw_server(slow) as slow_port, raw_server(answering(WHOLE)) as fast_port:
        threads = [
            threading.Thread(target=lambda name=name, port=port: results.__setitem__(name, exchange(ask(port), here, None)))
            for name, port in (("slow", slow_port), ("fast", fast_port))
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert results["slow"].phases.total > 295
    assert results["fast"].phases.total < 100
