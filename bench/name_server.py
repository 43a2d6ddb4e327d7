"""How many questions a second the lab's name server and resolver answer over UDP, beside dnslib's own server in the same run.

    python bench/name_server.py [--seconds 3] [--window 32]

One client process keeps ``--window`` questions in flight to each server in turn; every server runs in a process of its own. The peer is
``dnslib.server.DNSServer`` with a resolver that answers the same fixed record. Prints questions a second and the ratio to the peer.
"""

from __future__ import annotations

import argparse
import multiprocessing
import socket
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import dnslib
import dnslib.server

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from lab.dns.authority import Authority
from lab.dns.lookup import View
from lab.dns.records import Alias, RecordSet, Zone, ZoneBook
from lab.dns.resolver import Resolver
from lab.dns.server import DnsServer
from lab.plan import LabPlan

if TYPE_CHECKING:
    from multiprocessing.connection import Connection

NAME = "store.retail.test."


def zones() -> ZoneBook:
    """The store's zone: two latency alias records."""
    book = ZoneBook()
    zone = Zone("Z1", "retail.test.", "bench")
    records = [RecordSet("retail.test.", "SOA", 900, ("ns.retail.test. host.retail.test. 1 7200 900 1209600 86400",))]
    for index, region in enumerate(("us-east-1", "us-west-2")):
        records.append(RecordSet(f"alb.{region}.retail.test.", "A", 60, (f"127.0.{10 + index}.1",)))
        records.append(RecordSet(NAME, "A", alias=Alias("Z", f"alb.{region}.retail.test.", True), set_identifier=region, region=region))
    book.put(zone.with_records(records))
    return book


def serve_authority(ready: Connection) -> None:
    """The lab's name server."""
    book = zones()
    view = View(book, frozenset(), {"alb.us-east-1.retail.test.": True, "alb.us-west-2.retail.test.": True})
    authority = Authority(lambda: view, lambda: book.version, {"us-east-1": "127.0.10.0/24", "us-west-2": "127.0.11.0/24"}, "us-east-1")
    _hold(DnsServer(authority, "127.0.0.1", 0).start().port, ready)


def serve_resolver(ready: Connection) -> None:
    """The lab's resolver, in front of the name server in the same process."""
    book = zones()
    authority = Authority(lambda: View(book), lambda: book.version, {"us-east-1": "127.0.10.0/24"}, "us-east-1")
    upstream = DnsServer(authority, "127.0.0.1", 0).start()
    with tempfile.TemporaryDirectory() as directory:
        plan = LabPlan.make(Path(directory))
    _hold(DnsServer(Resolver(plan.clock, ("127.0.0.1", upstream.port), "127.0.10.1"), "127.0.0.1", 0).start().port, ready)


def serve_peer(ready: Connection) -> None:
    """dnslib's server."""

    class Fixed(dnslib.server.BaseResolver):  # type: ignore[misc]  # dnslib has no types
        def resolve(self, request: Any, _handler: Any) -> Any:
            reply = request.reply()
            reply.add_answer(*dnslib.RR.fromZone(f"{NAME} 60 A 127.0.10.1"))
            return reply

    server = dnslib.server.DNSServer(Fixed(), address="127.0.0.1", port=0, logger=dnslib.server.DNSLogger("-request,-reply"))
    server.start_thread()
    _hold(server.server.server_address[1], ready)


def _hold(port: int, ready: Connection) -> None:
    ready.send(port)
    ready.recv()


def ask(port: int, seconds: float, window: int) -> float:
    """Questions answered a second, with ``window`` in flight."""
    question = bytes(dnslib.DNSRecord.question(NAME).pack())
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.settimeout(1)
        sock.connect(("127.0.0.1", port))
        for identity in range(window):
            sock.send(identity.to_bytes(2, "big") + question[2:])
        answered, ends = 0, time.perf_counter() + seconds
        while time.perf_counter() < ends:
            answer = sock.recv(512)
            if not answer[6:8] == b"\0\1":
                raise SystemExit(f"a wrong answer: {answer!r}")
            answered += 1
            sock.send(answer[:2] + question[2:])
    return answered / seconds


def main() -> None:
    """Measure all three and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=3)
    parser.add_argument("--window", type=int, default=32)
    options = parser.parse_args()
    rates = {}
    context = multiprocessing.get_context("spawn")
    for name, serve in (("dnslib.server", serve_peer), ("name server", serve_authority), ("resolver", serve_resolver)):
        here, there = context.Pipe()
        process = context.Process(target=serve, args=(there,), daemon=True)
        process.start()
        port = here.recv()
        ask(port, 0.3, options.window)
        rates[name] = ask(port, options.seconds, options.window)
        here.send(None)
        process.terminate()
        process.join()
    for name, rate in rates.items():
        print(f"{name:14} {rate:8.0f} questions/s   x {rate / rates['dnslib.server']:.1f}")


if __name__ == "__main__":
    main()
