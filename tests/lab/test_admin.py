"""The control ports."""

from __future__ import annotations

import asyncio
import contextlib
import json
import threading
from http.client import HTTPConnection
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import TYPE_CHECKING, Any

import pytest

from lab import admin

if TYPE_CHECKING:
    from collections.abc import Iterator


def test_a_stranger_on_a_port_of_the_lab_is_nobody() -> None:
    """Who answers, but not in JSON, is not the part that was asked for: OSError, which callers take for "not yet"."""

    class Stranger(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Length", "5")
            self.end_headers()
            self.wfile.write(b"<p>hi")

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002  # the library names it
            pass

    with HTTPServer(("127.0.0.1", 0), Stranger) as server:
        threading.Thread(target=server.handle_request, daemon=True).start()
        with pytest.raises(ConnectionError, match="JSONDecodeError"):
            admin.call(server.server_port, "GET", "/status")


@contextlib.contextmanager
def part() -> Iterator[int]:
    """A control port that says what it was asked."""
    ready: threading.Event = threading.Event()
    found: dict[str, Any] = {}

    async def handle(method: str, path: tuple[str, ...], _query: dict[str, str], body: Any) -> Any:
        return {"method": method, "path": path, "body": body}

    async def run() -> None:
        server = await admin.serve(0, handle)
        found["port"], found["stop"], found["loop"] = server.sockets[0].getsockname()[1], asyncio.Event(), asyncio.get_running_loop()
        ready.set()
        await found["stop"].wait()
        server.close()

    thread = threading.Thread(target=lambda: asyncio.run(run()))
    thread.start()
    ready.wait(5)
    try:
        yield found["port"]
    finally:
        found["loop"].call_soon_threadsafe(found["stop"].set)
        thread.join(5)


@pytest.mark.parametrize(
    ("method", "headers", "status"),
    [
        ("GET", {}, 200),
        ("GET", {"Host": "localhost:80"}, 200),
        ("GET", {"Host": "[::1]"}, 200),
        ("GET", {"Host": "rebound.example.com"}, 403),
        ("GET", {"Host": "10.0.0.1"}, 403),
        ("POST", {"Content-Type": "application/json"}, 200),
        ("POST", {"Content-Type": "application/json; charset=utf-8"}, 200),
        ("POST", {"Content-Type": "text/plain"}, 403),
        ("POST", {}, 403),
        ("DELETE", {}, 403),
        ("POST", {"Content-Type": "application/json", "Host": "rebound.example.com"}, 403),
    ],
)
def test_what_a_page_in_a_browser_could_send_is_refused(method: str, headers: dict[str, str], status: int) -> None:
    """A name that leads to this machine, and a change that is not asked for in JSON."""
    with part() as port:
        connection = HTTPConnection("127.0.0.1", port, timeout=5)
        connection.request(method, "/targets", b"{}" if method == "POST" else None, {"Connection": "close"} | headers)
        response = connection.getresponse()
        answer = json.loads(response.read())
        connection.close()
    assert response.status == status
    assert ("error" in answer) is (status != 200)


def test_the_labs_own_client_is_let_in() -> None:
    """With a body and without."""
    with part() as port:
        assert admin.call(port, "PUT", "/a/b", {"c": 1}) == {"method": "PUT", "path": ["a", "b"], "body": {"c": 1}}
        assert admin.call(port, "DELETE", "/a")["method"] == "DELETE"
