# ruff: noqa: E501  # the service is a program in a string
"""A soak: a Flask service at a steady rate against a strict receiver that misbehaves at random; memory, ledger, latency.

    python bench/exporters_soak.py --minutes 30 --rate 200

Faults come and go every few seconds: refused connections aside, every one that the receiver knows. Every half minute the service reports its
resident memory, the latency of its requests (p50, p99, in ms), and whether the ledger held whenever it was looked at. The service without telemetry
runs for a minute before and after, for comparison. At the end everything has to have arrived.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import subprocess
import sys
import tempfile
import threading
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]

SERVICE = r"""
import io, json, logging, os, resource, statistics, sys, threading, time
import flask
minutes, rate, watched = float(sys.argv[1]), float(sys.argv[2]), sys.argv[3] == "on"
lifecycle = None
application = flask.Flask("shop")
if watched:
    from crosswatch_exporters.configurator import install
    from crosswatch_exporters.settings import read_settings
    lifecycle = install(read_settings())
    from opentelemetry.instrumentation.flask import FlaskInstrumentor
    from opentelemetry.instrumentation.logging.handler import LoggingHandler
    FlaskInstrumentor().instrument_app(application)
    logging.getLogger("shop").addHandler(LoggingHandler())
log = logging.getLogger("shop"); log.setLevel(logging.INFO); log.propagate = False
@application.route("/catalogue/<identifier>")
def product(identifier):
    log.info("looked at %s", identifier)
    return identifier
environ = {"REQUEST_METHOD": "GET", "SERVER_NAME": "store", "SERVER_PORT": "80", "wsgi.url_scheme": "http", "SERVER_PROTOCOL": "HTTP/1.1",
    "HTTP_HOST": "store", "wsgi.version": (1, 0), "wsgi.errors": sys.stderr, "wsgi.multithread": True, "wsgi.multiprocess": False,
    "wsgi.run_once": False, "QUERY_STRING": ""}
def rss():
    return int(open("/proc/self/statm").read().split()[1]) * resource.getpagesize() / 1e6
wrong = []; looked = 0
latencies = []; started = time.monotonic(); due = started; count = 0; report_at = started + 30
while time.monotonic() - started < minutes * 60:
    due += 1 / rate
    begin = time.perf_counter()
    result = application.wsgi_app({**environ, "PATH_INFO": f"/catalogue/{count % 500}", "wsgi.input": io.BytesIO()}, lambda *a, **k: lambda b: None)
    b"".join(result); getattr(result, "close", lambda: None)()
    latencies.append((time.perf_counter() - begin) * 1000); count += 1
    if lifecycle and count % 20 == 0:
        looked += 1
        wrong += [f"{s}: {b}" for s, b in lifecycle.pipeline.ledger.balances().items() if not b.exact]
    if time.monotonic() >= report_at:
        report_at += 30; q = statistics.quantiles(latencies, n=100)
        spooled = sum(b.spooled for b in lifecycle.pipeline.ledger.balances().values()) if lifecycle else 0
        print(json.dumps({"s": round(time.monotonic() - started), "rss_mb": round(rss(), 1), "p50_ms": round(q[49], 3), "p99_ms": round(q[98], 3),
            "spooled": spooled, "wrong": len(wrong), "looked": looked}), flush=True)
        latencies.clear()
    time.sleep(max(0.0, due - time.monotonic()))
if lifecycle:
    print("flushing", flush=True); sys.stdin.readline()
    print(json.dumps({"flushed": lifecycle.flush(60), "requests": count, "ledger": str(lifecycle.pipeline.ledger), "wrong": wrong[:3]}), flush=True)
"""


def run(minutes: float, rate: float, on: bool, environ: dict[str, str]) -> subprocess.Popen[str]:
    """Start the service."""
    return subprocess.Popen(
        [sys.executable, "-c", SERVICE, str(minutes), str(rate), "on" if on else "off"],
        env={**os.environ, **environ},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


def baseline(rate: float) -> None:
    """A minute without telemetry."""
    with run(0.6, rate, False, {}) as process:
        assert process.stdout is not None
        for line in process.stdout:
            print("without telemetry", line.strip(), flush=True)


def trouble(receiver: Any, stop: threading.Event) -> None:
    """Change the receiver's behaviour every few seconds: half of the time it is well."""
    from receiver import Answer

    faults = [
        Answer(503), Answer(500), Answer(429), Answer(429, headers={"retry-after": "2"}), Answer(cut=True), Answer(hang=3), Answer(403),
        Answer(200, hang=0.5, take=True), Answer(cut=True, take=True),
    ]  # fmt: skip
    draw = random.Random(7)
    while not stop.wait(draw.uniform(2, 8)):
        chosen = draw.choice(faults) if draw.random() < 0.5 else None
        signals = draw.choice([("traces",), ("logs",), ("metrics",), ("traces", "logs", "metrics")])
        receiver.fault = lambda request, chosen=chosen, signals=signals: chosen if request.signal in signals else None


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=30)
    parser.add_argument("--rate", type=float, default=200)
    arguments = parser.parse_args()
    sys.path.insert(0, str(ROOT / "tests/exporters"))
    from receiver import Receiver

    baseline(arguments.rate)
    stop = threading.Event()
    with tempfile.TemporaryDirectory() as folder, Receiver(keep=False) as receiver:
        environ = {
            **receiver.environ(),
            "CROSSWATCH_SPOOL_DIR": f"{folder}/spool",
            "OTEL_SERVICE_NAME": "shop",
            "OTEL_METRIC_EXPORT_INTERVAL": "5000",
        }
        environ |= {"OTEL_SEMCONV_STABILITY_OPT_IN": "http", "OTEL_EXPORTER_OTLP_TIMEOUT": "2"}
        troubling = threading.Thread(target=trouble, args=(receiver, stop), daemon=True)
        troubling.start()
        with run(arguments.minutes, arguments.rate, True, environ) as process:
            assert process.stdout is not None
            assert process.stdin is not None
            for line in process.stdout:
                print(line.strip(), flush=True)
                if line.startswith("flushing"):
                    stop.set()
                    troubling.join()
                    receiver.fault = lambda request: None
                    process.stdin.write("\n")
                    process.stdin.flush()
        print(json.dumps({"received": dict(receiver.counts), "violations": receiver.violations[:5]}))
    baseline(arguments.rate)


if __name__ == "__main__":
    main()
