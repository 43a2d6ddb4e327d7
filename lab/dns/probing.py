"""One request of one Route 53 health checker: connect, perhaps TLS, perhaps HTTP, and what it found.

Limits are Route 53's (Developer Guide, "How Route 53 determines whether a health check is healthy"): 4 s to connect and 2 s more for the
status for HTTP, 10 s to connect for TCP; the search string has to begin in the first 5,120 bytes. Certificates are not validated.
"""

from __future__ import annotations

import http.client
import socket
import ssl
import time
from dataclasses import dataclass, field

CONNECT_LIMIT_S, RESPONSE_LIMIT_S, TCP_LIMIT_S = 4.0, 2.0, 10.0
SEARCHED_BYTES = 5120
AGENT = "Amazon-Route53-Health-Check-Service (ref {id}; report https://amzn.to/1vsZADi)"


@dataclass(frozen=True, slots=True)
class Endpoint:
    """What to probe. ``kind`` is HTTP, HTTPS or TCP; ``scale`` is wall seconds per second of Route 53's limits."""

    kind: str
    address: str
    port: int
    host: str
    path: str = "/"
    search: str | None = None
    sni: bool = True
    check_id: str = ""
    scale: float = 1.0


@dataclass(frozen=True, slots=True)
class Sighting:
    """What one probe saw. ``timings`` are milliseconds by the name of the metric that carries them."""

    ok: bool
    text: str
    timings: dict[str, float] = field(default_factory=dict)


def probe(endpoint: Endpoint) -> Sighting:
    """Probe once. Never raises for anything that the network or the endpoint does."""
    timings: dict[str, float] = {}
    limit = TCP_LIMIT_S if endpoint.kind == "TCP" else CONNECT_LIMIT_S
    began = time.perf_counter()
    try:
        sock = socket.create_connection((endpoint.address, endpoint.port), _wall(limit, endpoint))
    except TimeoutError:
        return Sighting(False, "Failure: The health checker could not establish a connection within the timeout limit.")
    except OSError as error:
        return Sighting(False, f"Failure: The health checker could not connect to the endpoint: {error.strerror or error}.")
    timings["ConnectionTime"] = (time.perf_counter() - began) * 1000
    with sock:
        if endpoint.kind == "TCP":
            return Sighting(True, "Success: TCP connection established.", timings)
        sock.settimeout(_wall(RESPONSE_LIMIT_S, endpoint))
        try:
            return _request(_secured(sock, endpoint, timings), endpoint, timings)
        except TimeoutError:
            return Sighting(False, "Failure: The endpoint did not respond within the timeout limit.", timings)
        except (OSError, http.client.HTTPException, ValueError) as error:
            return Sighting(False, f"Failure: The endpoint closed the connection or sent no valid response: {error}.", timings)


def _wall(limit_s: float, endpoint: Endpoint) -> float:
    """Never less than 0.3 s, so that a fast clock does not turn a slow machine into an outage."""
    return max(0.3, limit_s * endpoint.scale)


def _secured(sock: socket.socket, endpoint: Endpoint, timings: dict[str, float]) -> socket.socket:
    if endpoint.kind != "HTTPS":
        return sock
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    began = time.perf_counter()
    secured = context.wrap_socket(sock, server_hostname=endpoint.host if endpoint.sni else None)
    timings["SSLHandshakeTime"] = (time.perf_counter() - began) * 1000
    return secured


def _request(sock: socket.socket, endpoint: Endpoint, timings: dict[str, float]) -> Sighting:
    agent = AGENT.format(id=endpoint.check_id)
    head = f"GET {endpoint.path} HTTP/1.1\r\nHost: {endpoint.host}\r\nUser-Agent: {agent}\r\nAccept: */*\r\nConnection: close\r\n\r\n"
    began = time.perf_counter()
    sock.sendall(head.encode("latin-1", "replace"))
    response = http.client.HTTPResponse(sock, method="GET")
    try:
        response.begin()
        timings["TimeToFirstByte"] = (time.perf_counter() - began) * 1000
        code = f"HTTP Status Code {response.status}, {response.reason}"
        if not 200 <= response.status < 400:
            return Sighting(False, f"Failure: {code}", timings)
        if endpoint.search and endpoint.search.encode() not in response.read(SEARCHED_BYTES + len(endpoint.search)):
            return Sighting(False, f"Failure: {code}. The search string was not found in the first 5120 bytes of the body.", timings)
        return Sighting(True, f"Success: {code}", timings)
    finally:
        response.close()
