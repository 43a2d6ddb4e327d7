"""The soak of a service: its load is an open loop, its statistics tell a difference from noise."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest

from bench import lab_service_report as report
from bench.lab_service_load import RECORD, arrivals
from bench.lab_service_soak import KINDS, schedule
from bench.lab_service_witness import Sample

ROOT = Path(__file__).resolve().parents[2]
RATE, SECONDS, SEED = 80.0, 3.0, 4
STALL = (1.0, 1.8)


def test_a_stall_is_charged_to_everyone_who_was_due_meanwhile(tmp_path: Path) -> None:
    """Coordinated omission: who was due at the beginning of a stall of 0.8 s waited 0.8 s, who was due in its middle half of it."""
    start = time.monotonic() + 1.5

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            now = time.monotonic() - start
            if STALL[0] <= now < STALL[1]:
                time.sleep(STALL[1] - now)
            body = json.dumps(self.headers["traceparent"]).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002  # the library names it
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        target = {"port": server.server_port, "path": "/", "shift": 0.0, "every": 1}
        told = {"start": start, "began": 1.7e9, "seconds": SECONDS, "rate": RATE, "seed": SEED, "run": "0" * 12, "targets": [target]}
        command = [sys.executable, "-m", "bench.lab_service_load", json.dumps(told | {"out": str(tmp_path / "records")})]
        subprocess.run(command, check=True, cwd=ROOT, timeout=60)
        server.shutdown()
    records, due = np.fromfile(tmp_path / "records", RECORD), arrivals(RATE, SECONDS, SEED)
    assert sorted(records["number"]) == list(range(len(due)))
    assert set(records["status"]) == {200}
    stalled = [(due[row["number"]], row["latency"]) for row in records if STALL[0] <= due[row["number"]] < STALL[1]]
    assert len(stalled) > 0.5 * RATE * (STALL[1] - STALL[0])
    assert all(latency >= STALL[1] - at - 0.01 for at, latency in stalled)


def test_every_kind_of_trouble_comes_once_in_one_region_and_once_in_both() -> None:
    """Every second minute, as the seed says."""
    phases = schedule(4 * len(KINDS), seed=3)
    assert not any(phase.kind for phase in phases[::2])
    assert {(phase.kind, phase.everywhere) for phase in phases[1::2]} == {(kind, both) for kind in KINDS for both in (False, True)}
    assert phases == schedule(4 * len(KINDS), seed=3) != schedule(4 * len(KINDS), seed=4)


@pytest.mark.parametrize(("more_ms", "is_noise"), [(0.0, True), (3.0, False)])
def test_a_difference_is_told_from_noise(more_ms: float, is_noise: bool) -> None:
    """Blocks of the same distribution differ by noise; with three milliseconds more under faults they do not."""
    draw = np.random.default_rng(5)

    def blocks(shift_ms: float) -> list[np.ndarray]:
        return [(draw.gamma(4.0, 0.0004, 600) + shift_ms / 1000).astype(np.float32) for _ in range(30)]

    effect = report.effect_of_faults((blocks(0), blocks(0.5)), (blocks(0), blocks(0.5 + more_ms)), draw)
    assert effect.within_noise is is_noise
    assert effect.difference == pytest.approx(more_ms, abs=0.6)


def test_the_slope_of_memory_ignores_the_warm_up_and_single_peaks() -> None:
    """100 MB for an hour after a steep beginning, with a peak each ten minutes."""
    at = np.arange(0.0, 3600.0, 5.0)
    megabytes = np.where(at < 300, 50 + at / 6, 100.0) + np.where(at % 600 == 0, 30.0, 0.0)
    memory = report.memory(at.tolist(), megabytes.tolist(), warm_up_s=300.0)
    assert (memory.slope, memory.growth, memory.median, memory.largest) == (0.0, 0.0, 100.0, 130.0)


def test_a_sample_of_the_ledger_says_by_how_much_it_is_off() -> None:
    """Emitted and recovered items are delivered, waiting or dropped."""
    assert Sample(0.0, "traces", emitted=10, recovered=2, delivered=5, queued=1, held=1, spooled=3, dropped=2).off == 0
    assert Sample(0.0, "traces", emitted=10, recovered=2, delivered=5, queued=1, held=1, spooled=3, dropped=0).off == 2
