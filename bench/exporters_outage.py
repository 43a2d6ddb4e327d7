"""What an outage costs: a minute of load with half a minute of outage in it, for every kind of outage, ours and the peers' side by side.

    python bench/exporters_outage.py DIR            # DIR as in exporters_cpu.py

Each service emits 100 spans and 50 log records a second for 60 s, and collects a metric point a second; from 10 s to 40 s its endpoint is
down. All run at once, each in a process and against a receiver of its own. Then the service flushes and ends, and what arrived is counted.

Points are counted by the collections that a callback saw; ADOT sends no metrics over OTLP by itself and has none.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tests/exporters"))

from receiver import Answer, Receiver

FAULTS = {
    "refused": None,
    "reset": Answer(cut=True),
    "503": Answer(503),
    "429": Answer(429),
    "429 Retry-After 2": Answer(429, headers={"retry-after": "2"}),
    "hanging": Answer(hang=35),
}

EMITTER = r"""
import logging, os, sys, time
sys.path.insert(0, sys.argv[3])
import exporters_worker as worker
tool, seconds = sys.argv[1], float(sys.argv[2])
os.environ["OTEL_METRIC_EXPORT_INTERVAL"] = "1000"
flush = worker.configure(tool, ("traces", "logs", "metrics"))
from opentelemetry import metrics, trace
from opentelemetry.metrics import Observation
try:
    from opentelemetry.instrumentation.logging.handler import LoggingHandler
except ImportError:
    from opentelemetry.sdk._logs import LoggingHandler
log = logging.getLogger("shop"); log.setLevel(logging.INFO); log.propagate = False; log.addHandler(LoggingHandler())
collected = []
def tick(options):
    collected.append(1); yield Observation(len(collected))
metrics.get_meter("bench").create_observable_gauge("ticks", [tick])
tracer = trace.get_tracer("bench"); start = time.monotonic(); n = 0
while time.monotonic() - start < seconds:
    for i in range(10):
        with tracer.start_as_current_span("op"):
            if i % 2: log.info("line")
        n += 1
    time.sleep(max(0, start + n / 100 - time.monotonic()))
try:
    flush()
    metrics.get_meter_provider().force_flush(60000)
except BaseException as error:
    print(error, file=sys.stderr)
print(n, len(collected), flush=True)
"""


def one(tool: str, fault: str, base: Path, seconds: float, results: dict[tuple[str, str], str]) -> None:
    """One service and its receiver."""
    receivers = [Receiver()]
    receivers[0].__enter__()
    port = receivers[0].port
    with tempfile.TemporaryDirectory() as folder:
        environ = {
            "PATH": os.environ["PATH"],
            "HOME": folder,
            "SINK": f"http://127.0.0.1:{port}",
            "CROSSWATCH_SPOOL_DIR": f"{folder}/spool",
            "OTEL_SERVICE_NAME": "shop",
            "AWS_REGION": "us-east-1",
            "AWS_ACCESS_KEY_ID": "a",
            "AWS_SECRET_ACCESS_KEY": "b",
        }
        command = [str(base / tool / "bin/python"), "-c", EMITTER, tool, str(seconds), str(Path(__file__).parent)]
        process = subprocess.Popen(command, env=environ, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        time.sleep(seconds / 6)
        answer = FAULTS[fault]
        receivers[0].fault = lambda request: answer or Answer(cut=True)  # a closed port also ends the connections that were open
        if answer is None:
            receivers[0].__exit__()
        time.sleep(seconds / 2)
        if answer is None:
            receivers.append(Receiver(port))
            receivers[1].__enter__()
        else:
            receivers[0].fault = lambda request: None
        out, _ = process.communicate(timeout=240)
    receivers[-1].__exit__()
    spans = [span for receiver in receivers for span in receiver.spans]
    records = [record for receiver in receivers for record in receiver.records]
    emitted, collected = map(int, out.split())
    ticks = {point.as_int for receiver in receivers for metric, point in receiver.points if metric.name == "ticks"}
    points = ticks.intersection(range(1, collected + 1))  # the process's end makes one more
    arrived = len({span.span_id for span in spans}), len({record.span_id for record in records}), len(points)
    totals = emitted, emitted // 2, collected
    lost = [100 * (1 - count / total) for count, total in zip(arrived, totals, strict=True)]
    again = len(spans) - arrived[0]
    losses = f"spans lost {lost[0]:5.1f} %   records lost {lost[1]:5.1f} %"
    losses += "" if tool == "adot" else f"   points lost {lost[2]:5.1f} % of {collected}"
    results[tool, fault] = f"{tool:11} {fault:18} {losses}   spans sent twice {again}"


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("base", type=Path)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--tools", nargs="+", default=["crosswatch", "otlp", "adot"])
    arguments = parser.parse_args()
    runs = [("crosswatch", fault) for fault in FAULTS]
    runs += [(tool, fault) for tool in ("otlp", "adot") for fault in ("refused", "503", "hanging")]
    runs = [(tool, fault) for tool, fault in runs if tool in arguments.tools]
    results: dict[tuple[str, str], str] = {}
    threads = [threading.Thread(target=one, args=(tool, fault, arguments.base, arguments.seconds, results)) for tool, fault in runs]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for run in runs:
        print(results.get(run, f"{run}: failed"))


if __name__ == "__main__":
    main()
