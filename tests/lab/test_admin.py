"""The control ports."""

from __future__ import annotations

import threading
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

from lab import admin


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
