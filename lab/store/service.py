"""What the store's five services have in common: configuration from the environment, health, request log, and controls for faults.

A service is a Flask application made by `create` and served by `serve` with waitress on ``127.0.0.1:$PORT``. It holds no telemetry code:
it logs through `logging` and is instrumented from outside.

**Faults.** As the retail sample's services do, each answers on ``/chaos`` (loopback only, never routed to by a load balancer):

    POST /chaos/status/500          every answer gets this status     POST /chaos/latency/800    every answer comes 800 ms later
    POST /chaos/body   (raw body)   200 with this body instead        POST /chaos/health         the health check fails
    POST /chaos/leak/60             60 MB more memory a minute        POST /chaos/crash          the process ends, as if killed
    DELETE /chaos/<name> or /chaos  undo one, or all                  GET /chaos                 what is on

``RETAIL_DEFECT`` (say ``status/500``) switches one on from the start: a bad release.
"""

from __future__ import annotations

import logging
import os
import signal
import threading
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from flask import Flask, Response, g, jsonify, request

if TYPE_CHECKING:
    from collections.abc import Mapping

    from werkzeug.datastructures import Headers

SYNTHETIC_HEADER = "X-Crosswatch-Synthetic"
SYNTHETIC_BAGGAGE = "crosswatch.synthetic=true"
MEGABYTE = 1 << 20
LEAK_EVERY_S = 0.5
UNTOUCHED = ("/chaos", "/health", "/actuator")
log = logging.getLogger("retail")


def is_synthetic(headers: Mapping[str, str] | Headers) -> bool:
    """Whether a request carries the mark of a canary: W3C baggage or our own header."""
    members = [member.split(";")[0].strip() for member in headers.get("baggage", "").split(",")]
    return SYNTHETIC_BAGGAGE in members or headers.get(SYNTHETIC_HEADER, "").lower() in {"1", "true"}


def setting(name: str) -> str:
    """The environment variable ``name``. Ends the process with a sentence where it is missing."""
    value = os.environ.get(name)
    if not value:
        raise SystemExit(f"{name} is not set: this service takes its configuration from the environment")
    return value


@dataclass(slots=True)
class Chaos:
    """The faults that are on."""

    status: int | None = None
    latency_ms: float = 0
    body: bytes | None = None
    health: bool = False
    leak_mb_per_min: float = 0
    _leaked: list[bytearray] = field(default_factory=list)

    def set(self, name: str, value: str, body: bytes) -> None:
        """Switch one on. Raises ValueError for what there is not."""
        match name:
            case "status":
                self.status = int(value)
            case "latency":
                self.latency_ms = float(value)
            case "body":
                self.body = body or b"<html><title>It works!</title></html>"
            case "health":
                self.health = True
            case "leak":
                self.leak_mb_per_min = float(value)
                threading.Thread(target=self._leak, daemon=True).start()
            case "crash":
                os.kill(os.getpid(), signal.SIGKILL)
            case _:
                raise ValueError(f"there is no fault {name!r}")

    def clear(self, name: str | None) -> None:
        """Switch one off, or all."""
        if name in {None, "status"}:
            self.status = None
        if name in {None, "latency"}:
            self.latency_ms = 0
        if name in {None, "body"}:
            self.body = None
        if name in {None, "health"}:
            self.health = False
        if name in {None, "leak"}:
            self.leak_mb_per_min = 0
            self._leaked.clear()

    def describe(self) -> dict[str, object]:
        """What is on."""
        return {
            "status": self.status,
            "latency_ms": self.latency_ms,
            "body": self.body is not None,
            "health": self.health,
            "leak_mb_per_min": self.leak_mb_per_min,
            "leaked_mb": sum(map(len, self._leaked)) / MEGABYTE,
        }

    def _leak(self) -> None:
        """Take memory, and touch it so that it counts, for as long as the leak is on."""
        while rate := self.leak_mb_per_min:
            self._leaked.append(bytearray(os.urandom(1024) * int(rate * LEAK_EVERY_S / 60 * 1024)))
            time.sleep(LEAK_EVERY_S)


def create(name: str, **options: str) -> Flask:
    """A Flask application called ``name`` with health, request log and faults."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s %(message)s")
    logging.getLogger("pika").setLevel(logging.CRITICAL)  # it reports as errors what we retry
    app = Flask(name, **options)  # type: ignore[arg-type]
    app.json.sort_keys = False  # type: ignore[attr-defined]
    chaos = Chaos()
    if defect := os.environ.get("RETAIL_DEFECT"):
        kind, _, value = defect.partition("/")
        chaos.set(kind, value, value.encode())

    @app.get("/health")
    @app.get("/actuator/health")
    def health() -> tuple[Response, int]:
        return (jsonify(status="DOWN"), 503) if chaos.health else (jsonify(status="UP"), 200)

    @app.get("/chaos")
    def show_chaos() -> Response:
        return jsonify(chaos.describe())

    @app.post("/chaos/<kind>")
    @app.post("/chaos/<kind>/<value>")
    def inject(kind: str, value: str = "") -> tuple[Response, int]:
        try:
            chaos.set(kind, value, request.get_data())
        except ValueError as error:
            return jsonify(error=str(error)), 400
        return jsonify(chaos.describe()), 200

    @app.delete("/chaos")
    @app.delete("/chaos/<kind>")
    @app.delete("/chaos/<kind>/<value>")
    def heal(kind: str | None = None, value: str = "") -> Response:  # noqa: ARG001  # the sample's paths name the value again
        chaos.clear(kind)
        return jsonify(chaos.describe())

    @app.before_request
    def suffer() -> Response | None:
        g.started = time.perf_counter()
        if request.path.startswith(UNTOUCHED):
            return None
        if chaos.latency_ms:
            time.sleep(chaos.latency_ms / 1000)
        if chaos.status:
            log.error("%s %s fails with %d: a fault is switched on", request.method, request.path, chaos.status)
            return Response(f"{chaos.status}\n", chaos.status, mimetype="text/plain")
        return None

    @app.after_request
    def account(response: Response) -> Response:
        if not request.path.startswith(UNTOUCHED):
            if chaos.body is not None and not chaos.status:
                response.set_data(chaos.body)
                response.status_code = 200
            level = logging.WARNING if response.status_code >= 500 else logging.INFO
            taken_ms = 1000 * (time.perf_counter() - g.get("started", time.perf_counter()))
            log.log(level, "%s %s %d %.1f ms", request.method, request.path, response.status_code, taken_ms)
        return response

    return app


def serve(app: Flask, threads: int = 8) -> None:
    """Serve until SIGTERM, which ends it at once: the load balancer has drained it by then."""
    from waitress import create_server

    server = create_server(app, host="127.0.0.1", port=int(setting("PORT")), threads=threads, ident=None, connection_limit=200)
    signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
    server.run()
