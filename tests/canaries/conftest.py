"""Fixtures of the canaries' tests; what they are made of is in `tests.canaries.servers`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import trustme
from dnslib.server import DNSLogger, DNSServer
from moto.server import ThreadedMotoServer

from canaries.runtime import Sandbox
from tests.canaries.servers import Recorder, Runner, Zone, recording

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture
def runner(tmp_path: Path) -> Iterator[Runner]:
    with Sandbox("tested") as sandbox:
        yield Runner(sandbox, tmp_path)


@pytest.fixture
def dns() -> Iterator[tuple[Zone, str]]:
    """A DNS server and its ``ip:port``."""
    zone = Zone()
    server = DNSServer(zone, address="127.0.0.1", port=0, logger=DNSLogger("-request,-reply", False))
    server.server.handle_error = lambda *_: None
    server.start_thread()
    try:
        yield zone, f"127.0.0.1:{server.server.server_address[1]}"
    finally:
        server.stop()
        server.server.server_close()


@pytest.fixture(scope="session")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture(scope="session")
def moto() -> Iterator[str]:
    """moto's server: S3 and CloudWatch for the runtime's own writes."""
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    try:
        yield f"http://{host}:{port}"
    finally:
        server.stop()


@pytest.fixture
def aws() -> Iterator[tuple[Recorder, Recorder]]:
    """Two Regions' endpoints: us-east-1's and us-west-2's."""
    with recording() as east, recording() as west:
        yield east, west
