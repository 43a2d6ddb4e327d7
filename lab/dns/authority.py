"""Route 53's name servers: authoritative answers from the zones, with the health of records taken into account.

Answers to questions that always get the same answer are kept until something changes (zones, health checks, load balancers), which is
what makes one thread of Python answer more than ten thousand questions a second.
"""

from __future__ import annotations

import ipaddress
import logging
import random
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import dnslib

from lab.dns.lookup import Answer, Asker, Line, View, look_up
from lab.dns.records import Zone, canonical
from lab.dns.server import question_end

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

log = logging.getLogger(__name__)

MOST_KEPT = 10_000
SOA_TTL_S = 900
CLIENT_SUBNET = 8  # the EDNS option, RFC 7871
UNKNOWN_TYPES = {257: "CAA", 65: "HTTPS", 64: "SVCB"}


@dataclass(slots=True)
class AuthorityFaults:
    """What can be wrong with the name servers: ``down`` answers nothing, ``stuck`` answers from the state when it was set.

    The load balancers' own names are in a zone of AWS's with servers of its own, and go on being answered.
    """

    down: bool = False
    stuck: bool = False


class Authority:
    """A `lab.dns.server.Responder`.

    ``view`` gives what is known now, ``version`` a value that changes whenever that does. ``networks`` maps a Region to the network its
    resolvers and clients ask from; who asks from elsewhere is an internet resolver next to ``home``.
    """

    def __init__(
        self, view: Callable[[], View], version: Callable[[], object], networks: Mapping[str, str], home: str, seed: int | None = None
    ) -> None:
        self._faults = AuthorityFaults()
        self._take_view, self._take_version = view, version
        self._networks = [(ipaddress.ip_network(network), region) for region, network in networks.items()]
        self._home = home
        self._random = random.Random(seed)
        self._version: object = None
        self._view = view()
        self._kept: dict[tuple[bytes, str], bytes] = {}
        self._askers: dict[str, Asker] = {}

    @property
    def faults(self) -> AuthorityFaults:
        """What is wrong with the name servers; set it whole."""
        return self._faults

    @faults.setter
    def faults(self, faults: AuthorityFaults) -> None:
        self._refresh()  # what they are stuck on is what is true now, not at the last question
        self._faults = faults

    def quick(self, query: bytes, source: str, /) -> bytes | None:
        """The answer, at once; nothing while the name servers are down."""
        if self.faults.down:
            return None
        self._refresh()
        kept = self._kept.get((query[2:], source))
        if kept is not None:
            return query[:2] + kept
        return self._answer(query, source)

    def slow(self, query: bytes, source: str, /) -> bytes | None:
        """Reached only while the name servers are down, and then silent, but for the names that others serve."""
        name = query[12 : question_end(query) - 4].lower()
        return self._answer(query, source) if name in map(_wire, self._view.balancers) else None

    def _refresh(self) -> None:
        if self.faults.stuck:
            return
        version = self._take_version()
        if version != self._version:
            self._version = version
            self._view = self._take_view()
            self._kept = {}

    def _answer(self, wire: bytes, source: str) -> bytes | None:
        question_end(wire)
        try:
            query = dnslib.DNSRecord.parse(wire)
        except dnslib.DNSError:
            return wire[:2] + b"\x80\x01\x00\x00\x00\x00\x00\x00\x00\x00"
        if query.header.qr or not query.questions:
            return None
        subnet = _client_subnet(query)
        asker = self.asker(subnet or source)
        if subnet:
            asker = Asker(asker.region, self.asker(source).vpc_region)
        name, kind = canonical(str(query.q.qname)), _type_name(query.q.qtype)
        answer = look_up(self._view, name, kind, asker, self._random)
        reply = _reply(query, answer, kind)
        packed = bytes(reply.pack())
        if answer.steady:
            if len(self._kept) >= MOST_KEPT:
                self._kept = {}
            self._kept[wire[2:], source] = packed[2:]
        return packed

    def asker(self, source: str) -> Asker:
        """Who asks from the address ``source``."""
        known = self._askers.get(source)
        if known is None:
            address = ipaddress.ip_address(source)
            region = next((region for network, region in self._networks if address in network), None)
            known = Asker(region or self._home, region)
            if len(self._askers) < MOST_KEPT:
                self._askers[source] = known
        return known


def _reply(query: dnslib.DNSRecord, answer: Answer, kind: str) -> dnslib.DNSRecord:
    reply = query.reply(ra=0, aa=1)
    reply.header.rcode = answer.code
    reply.header.aa = 1 if answer.zone is not None else 0
    reply.rr = []
    reply.ar = []
    if query.ar and query.ar[0].rtype == dnslib.QTYPE.OPT:
        reply.add_ar(dnslib.EDNS0(udp_len=4096, opts=_scoped_options(query.ar[0])))
    for line in answer.lines:
        reply.add_answer(_record(line))
    if not answer.lines and answer.zone is not None and kind != "SOA":
        reply.add_auth(_soa(answer.zone))
    return reply


def _record(line: Line) -> dnslib.RR:
    rdata = dnslib.RDMAP[line.type].fromZone(_tokens(line), None) if line.type in dnslib.RDMAP else dnslib.RD(line.value.encode())
    return dnslib.RR(line.name, getattr(dnslib.QTYPE, line.type), ttl=line.ttl, rdata=rdata)


def _tokens(line: Line) -> list[str]:
    if line.type in ("TXT", "SPF"):
        return [part for part in line.value.split('"') if part.strip()]
    return line.value.split()


def _soa(zone: Zone) -> dnslib.RR:
    found = zone.find(zone.name, "SOA")
    value = found[0].values[0] if found and found[0].values else f"ns.{zone.name} hostmaster.{zone.name} 1 7200 900 1209600 86400"
    return _record(Line(zone.name, "SOA", (found[0].ttl if found else None) or SOA_TTL_S, value))


def _wire(name: str) -> bytes:
    """A canonical name as it stands in a question."""
    return b"".join(bytes([len(label)]) + label.encode() for label in name.rstrip(".").split(".")) + b"\0"


def _type_name(qtype: int) -> str:
    name: Any = dnslib.QTYPE.forward.get(qtype) or UNKNOWN_TYPES.get(qtype)
    return str(name or qtype)


def _client_subnet(query: dnslib.DNSRecord) -> str | None:
    """The address of the EDNS client-subnet option, None where there is none or it is not IPv4."""
    for record in query.ar:
        if record.rtype != dnslib.QTYPE.OPT:
            continue
        for option in record.rdata:
            if option.code == CLIENT_SUBNET and len(option.data) >= 4 and option.data[:2] == b"\x00\x01":
                address = bytes(option.data[4:8]).ljust(4, b"\x00")
                return ".".join(str(byte) for byte in address)
    return None


def _scoped_options(opt: dnslib.RR) -> list[dnslib.EDNSOption]:
    """The query's client-subnet option as the answer repeats it: scope as long as the source prefix."""
    return [
        dnslib.EDNSOption(CLIENT_SUBNET, bytes(option.data[:3]) + bytes(option.data[2:3]) + bytes(option.data[4:]))
        for option in opt.rdata
        if option.code == CLIENT_SUBNET and len(option.data) >= 4
    ]
