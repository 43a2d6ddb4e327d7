"""The console's HTTP server: the page, its state (once or as a stream of events), the drawn dashboard, and the fault buttons.

It listens on loopback and answers only requests whose Host is its own (a page from elsewhere cannot reach it by rebinding a name); what
changes something also needs the token that the page was given and an Origin that is the page's own.
"""

from __future__ import annotations

import hmac
import json
import secrets
import threading
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.resources import files
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, urlsplit

from lab.console.drawing import Drawer, NotDrawn
from lab.control import NoLab, Refused

if TYPE_CHECKING:
    from lab.console.watch import Watch

LARGEST_BODY = 10_000
STREAM_PAUSE_S = 15.0
STATIC = {"/style.css": "text/css; charset=utf-8", "/app.js": "text/javascript; charset=utf-8", "/favicon.svg": "image/svg+xml"}
POLICY = "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' blob:; connect-src 'self'"


class ConsoleServer:
    """Serves the console of one lab on ``127.0.0.1:port``."""

    def __init__(self, port: int, watch: Watch) -> None:
        token = secrets.token_urlsafe(24)
        static = files("lab.console") / "static"
        page = (static / "index.html").read_text().replace("{{token}}", token)
        assets = {path: (static / path[1:]).read_text() for path in STATIC}
        drawer = Drawer(watch)

        class Handler(_Handler):
            def do_GET(self) -> None:
                if not self.is_ours():
                    return
                url = urlsplit(self.path)
                if url.path == "/":
                    self.answer(HTTPStatus.OK, page, "text/html; charset=utf-8")
                elif url.path in assets:
                    self.answer(HTTPStatus.OK, assets[url.path], STATIC[url.path])
                elif url.path == "/health":
                    self.answer_json(HTTPStatus.OK, {"ok": True})
                elif url.path == "/state":
                    self.answer_json(HTTPStatus.OK, watch.wait(0, 10.0)[1])
                elif url.path == "/events":
                    self.stream(watch)
                elif url.path == "/dashboard":
                    self.draw(drawer, {key: values[-1] for key, values in parse_qs(url.query).items()})
                else:
                    self.answer_json(HTTPStatus.NOT_FOUND, {"error": "there is no such page"})

            def do_POST(self) -> None:
                if not self.is_ours():
                    return
                own = {f"http://{self.headers.get('Host')}"}
                if self.headers.get("Origin") not in own or not hmac.compare_digest(self.headers.get("X-Console-Token", ""), token):
                    self.answer_json(HTTPStatus.FORBIDDEN, {"error": "not from the console's own page"})
                    return
                self.act(watch)

        self._server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
        self._server.daemon_threads = True
        self.port: int = self._server.server_address[1]

    def start(self) -> None:
        """Serve from threads of its own."""
        threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.1}, name="console", daemon=True).start()

    def close(self) -> None:
        """Stop."""
        self._server.shutdown()
        self._server.server_close()


class _Handler(BaseHTTPRequestHandler):
    """What every request needs."""

    protocol_version = "HTTP/1.1"

    def is_ours(self) -> bool:
        """Whether the request names this server; answers it where it does not."""
        host = urlsplit(f"//{self.headers.get('Host', '')}").hostname
        if host in {"127.0.0.1", "localhost"}:
            return True
        self.answer_json(HTTPStatus.MISDIRECTED_REQUEST, {"error": "this is the console of a lab on 127.0.0.1"})
        return False

    def answer(self, status: HTTPStatus, content: str | bytes, content_type: str) -> None:
        """Answer with ``content``."""
        body = content.encode() if isinstance(content, str) else content
        self.send_response(status)
        self.send_header("Content-Type", content_type)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Cache-Control", "no-store")
        self.send_header("Content-Security-Policy", POLICY)
        self.send_header("X-Content-Type-Options", "nosniff")
        self.send_header("Referrer-Policy", "no-referrer")
        self.end_headers()
        self.wfile.write(body)

    def answer_json(self, status: HTTPStatus, value: Any) -> None:
        """Answer with JSON."""
        self.answer(status, json.dumps(value), "application/json")

    def stream(self, watch: Watch) -> None:
        """Every new state as a server-sent event, until the page is closed."""
        self.send_response(HTTPStatus.OK)
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Cache-Control", "no-store")
        self.send_header("Connection", "close")
        self.end_headers()
        self.close_connection = True
        number = 0
        try:
            while True:
                newer, state = watch.wait(number, STREAM_PAUSE_S)
                self.wfile.write(f"data: {json.dumps(state)}\n\n".encode() if newer > number else b": still here\n\n")
                self.wfile.flush()
                number = newer
        except OSError:
            return

    def draw(self, drawer: Drawer, query: dict[str, str]) -> None:
        """The dashboard as a picture."""
        try:
            picture = drawer.draw(query.get("region"), query.get("name"), query.get("theme") == "dark")
        except NotDrawn as error:
            self.answer_json(HTTPStatus.SERVICE_UNAVAILABLE, {"error": str(error)})
            return
        self.answer(HTTPStatus.OK, picture, "image/svg+xml")

    def act(self, watch: Watch) -> None:
        """Inject or heal."""
        length = self.headers.get("Content-Length", "")
        try:
            if not length.isdigit() or int(length) > LARGEST_BODY:
                raise ValueError("the body is missing or too long")
            body = json.loads(self.rfile.read(int(length)))
            do = {"/faults/inject": "inject", "/faults/heal": "heal"}[self.path]
            request = {key: str(body[key]) for key in ("name", "region") if body.get(key)}
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            self.answer_json(HTTPStatus.BAD_REQUEST, {"error": f"POST /faults/inject or /faults/heal with a name and a region: {error}"})
            return
        try:
            self.answer_json(HTTPStatus.OK, watch.ask(do, timeout_s=300.0, **request))
        except (Refused, NoLab, TimeoutError) as error:
            self.answer_json(HTTPStatus.CONFLICT, {"error": str(error)})

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the base class names it so
        pass
