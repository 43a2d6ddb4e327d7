"""DNS by our own queries: all addresses, their TTL, and an error that says what the resolver said.

The system's resolver hides the TTL, caches behind our back and cannot be pointed at another server; a probe wants to see what a customer's
resolver would be told now.
"""

from __future__ import annotations

import ipaddress
import socket
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import dns.exception
import dns.message
import dns.query
import dns.rcode
import dns.rdatatype

if TYPE_CHECKING:
    from collections.abc import Callable

RESOLV_CONF = Path("/etc/resolv.conf")


class ResolveError(Exception):
    """A name has no address for us; the text says why."""


class _NextServerError(Exception):
    """This server cannot tell; another one may. The text says why."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What a name resolves to. ``ttl_s`` is the least TTL on the way to the addresses; None for a literal address."""

    addresses: tuple[str, ...]
    ttl_s: int | None


Resolve = "Callable[[str, float], Answer]"


def resolver(server: str | None) -> Callable[[str, float], Answer]:
    """A function from a host and a timeout in seconds to an `Answer`; ``server`` is ``ip:port``, None for the system's servers."""
    servers = [_address(server)] if server else system_servers(RESOLV_CONF)

    def resolve(host: str, timeout_s: float) -> Answer:
        return query(host, servers, timeout_s)

    return resolve


def query(host: str, servers: list[tuple[str, int]], timeout_s: float) -> Answer:
    """Ask ``servers`` in turn for the IPv4 addresses of ``host``. Raises ResolveError when none of them has any within ``timeout_s``.

    A server that is silent or answers SERVFAIL, REFUSED or nonsense leaves what it left of the time to the next one; that there is no such
    name, or that it has no address, is an answer.
    """
    literal = _literal(host)
    if literal is not None:
        return literal
    if not servers:
        raise ResolveError("no resolver is known")
    deadline = time.perf_counter() + timeout_s
    problem = ""
    for number, (address, port) in enumerate(servers):
        share_s = max(0.0, deadline - time.perf_counter()) / (len(servers) - number)
        try:
            return _read(host, _ask(host, address, port, share_s))
        except dns.exception.Timeout:
            problem = f"no answer from {address}:{port} within {share_s:.3g} s"
        except _NextServerError as error:
            problem = str(error)
        except (OSError, ValueError, dns.exception.DNSException) as error:  # ValueError: a name that is none
            problem = f"{address}:{port}: {error or type(error).__name__}"
    raise ResolveError(f"{host}: {problem}")


def system_servers(path: Path) -> list[tuple[str, int]]:
    """The name servers of a resolv.conf, in order; empty where there is none."""
    try:
        lines = path.read_text().splitlines()
    except OSError:
        return []
    words = [line.split() for line in lines]
    return [(each[1], 53) for each in words if len(each) > 1 and each[0] == "nameserver" and ":" not in each[1]]


def _ask(host: str, address: str, port: int, timeout_s: float) -> dns.message.Message:
    """One server's answer, over TCP where it does not fit into a datagram; both together within ``timeout_s``."""
    deadline = time.perf_counter() + timeout_s
    message = dns.message.make_query(host, dns.rdatatype.A)
    try:
        return dns.query.udp(message, address, timeout_s, port, ignore_unexpected=True, raise_on_truncation=True)
    except dns.message.Truncated:
        return dns.query.tcp(message, address, max(0.0, deadline - time.perf_counter()), port)


def _read(host: str, response: dns.message.Message) -> Answer:
    """The addresses in an answer. Raises ResolveError where there are none, _NextServerError where the server cannot tell."""
    if response.rcode() != dns.rcode.NOERROR:
        said = dns.rcode.to_text(response.rcode())
        if response.rcode() == dns.rcode.NXDOMAIN:
            raise ResolveError(f"{host}: {said}")
        raise _NextServerError(said)
    try:
        chain = response.resolve_chaining()  # type: ignore[attr-defined]
    except dns.exception.DNSException as error:
        raise _NextServerError(str(error)) from error
    if chain.answer is None:
        raise ResolveError(f"{host}: no address (the name exists)")
    return Answer(tuple(sorted(record.address for record in chain.answer)), int(chain.minimum_ttl))


def _literal(host: str) -> Answer | None:
    try:
        return Answer((str(ipaddress.IPv4Address(host)),), None)
    except ValueError:
        return Answer((socket.gethostbyname(host),), None) if host == "localhost" else None


def _address(server: str) -> tuple[str, int]:
    host, _, port = server.partition(":")
    return host, int(port or 53)
