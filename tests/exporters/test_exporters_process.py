"""What survives the end of a process: returning, SIGTERM, SIGKILL, abort, fork, a restart while the endpoint is down."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest
from instrumented import BIN, Script
from receiver import Answer, Receiver

EMIT = """
import logging, os, sys, time
from opentelemetry import metrics, trace
logging.getLogger().setLevel(logging.INFO)
tracer, meter = trace.get_tracer("app"), metrics.get_meter("app")
counter = meter.create_counter("orders")
def emit(n):
    for i in range(n):
        with tracer.start_as_current_span("op", attributes={"i": i}):
            logging.info("order %d", i)
            counter.add(1)
"""

DOWN = {
    "503": Answer(503),
    "429": Answer(429),
    "429 with Retry-After": Answer(429, headers={"retry-after": "1"}),
    "reset": Answer(cut=True),
    "hanging": Answer(hang=30),
}


def counts(receiver: Receiver) -> tuple[int, int, int]:
    """Spans, log records, and the highest value of the counter."""
    return len(receiver.spans), len(receiver.records), max((p.as_int for m, p in receiver.points if m.name == "orders"), default=0)


def test_a_script_delivers_all_signals(receiver: Receiver, tmp_path: Path) -> None:
    """Everything arrives when a script returns, and the spool is left empty."""
    with Script(tmp_path, EMIT + "emit(100)", receiver.environ()) as script:
        code, _, errors = script.wait()
    assert (code, errors) == (0, "")
    assert counts(receiver) == (100, 100, 100)
    assert receiver.violations == []
    assert list((tmp_path / "spool").iterdir()) == []


@pytest.mark.slow
@pytest.mark.parametrize("trouble", DOWN)
def test_a_restart_while_the_endpoint_is_down_loses_nothing(receiver: Receiver, tmp_path: Path, trouble: str) -> None:
    """What a process could not deliver is delivered by the next one."""
    receiver.fault = lambda request: DOWN[trouble]
    environ = receiver.environ() | {"CROSSWATCH_SHUTDOWN_TIMEOUT": "1"}
    with Script(tmp_path, EMIT + "emit(100)", environ) as script:
        assert script.wait()[0] == 0
    assert counts(receiver) == (0, 0, 0)
    receiver.fault = lambda request: None
    with Script(tmp_path, EMIT + "time.sleep(1.5)", environ) as script:
        assert script.wait()[0] == 0
    assert counts(receiver) == (100, 100, 100)


@pytest.mark.slow
def test_a_restart_with_a_closed_port_loses_nothing(tmp_path: Path) -> None:
    """As above, with nobody listening at all; the receiver comes up on another port."""
    nobody = {f"OTEL_EXPORTER_OTLP_{s}_ENDPOINT": f"http://127.0.0.1:9/v1/{s.lower()}" for s in ("TRACES", "LOGS", "METRICS")}
    with Script(tmp_path, EMIT + "emit(100)", nobody | {"CROSSWATCH_SHUTDOWN_TIMEOUT": "1"}) as script:
        assert script.wait()[0] == 0
    with Receiver() as receiver:
        with Script(tmp_path, EMIT + "time.sleep(1)", receiver.environ()) as script:
            assert script.wait()[0] == 0
        assert counts(receiver) == (100, 100, 100)


@pytest.mark.slow
@pytest.mark.parametrize("hanging", [False, True], ids=["healthy", "hanging"])
def test_sigterm(receiver: Receiver, tmp_path: Path, hanging: bool) -> None:
    """SIGTERM loses nothing and ends the process, by that signal, in under ten seconds even if the endpoint hangs."""
    if hanging:
        receiver.fault = lambda request: Answer(hang=40)
    with Script(tmp_path, EMIT + "emit(100)\nprint('ready', flush=True)\ntime.sleep(60)", receiver.environ()) as script:
        assert script.ready() == "ready"
        asked = time.monotonic()
        script.send(signal.SIGTERM)
        code, _, _ = script.wait()
        took = time.monotonic() - asked
    assert code == -signal.SIGTERM
    assert took < 10
    if hanging:
        assert counts(receiver) == (0, 0, 0)
        receiver.fault = lambda request: None
        environ = dict(os.environ) | receiver.environ()
        done = subprocess.run(
            [BIN / "crosswatch-spool", "drain", tmp_path / "spool"], env=environ, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
    assert counts(receiver) == (100, 100, 100)


@pytest.mark.slow
@pytest.mark.parametrize("how", ["os.kill(os.getpid(), 9)", "os.abort()", "os._exit(3)"])
def test_sudden_death(receiver: Receiver, tmp_path: Path, how: str) -> None:
    """What was finished, or collected, a second before a sudden death is delivered by the next process; the endpoint is down until then."""
    receiver.fault = lambda request: Answer(503)
    environ = receiver.environ() | {"OTEL_METRIC_EXPORT_INTERVAL": "200"}
    with Script(tmp_path, EMIT + f"emit(100)\ntime.sleep(1)\n{how}", environ) as script:
        assert script.wait()[0] != 0
    receiver.fault = lambda request: None
    with Script(tmp_path, EMIT + "time.sleep(1)", environ) as script:
        assert script.wait()[0] == 0
    assert counts(receiver) == (100, 100, 100)


@pytest.mark.slow
def test_sudden_death_is_drained_by_the_command(receiver: Receiver, tmp_path: Path) -> None:
    """`crosswatch-spool inspect` shows what a killed process left, `drain` delivers it."""
    with Script(
        tmp_path, EMIT + "emit(50)\ntime.sleep(1)\nos.kill(os.getpid(), 9)", {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:9"}
    ) as script:
        script.wait()
    spool = tmp_path / "spool"
    shown = subprocess.run([BIN / "crosswatch-spool", "inspect", spool], capture_output=True, text=True, check=True).stdout
    assert "traces: 50 items" in shown
    assert "logs: 50 items" in shown
    environ = dict(os.environ) | receiver.environ()
    down = subprocess.run(
        [BIN / "crosswatch-spool", "drain", spool, "--timeout", "1"],
        env=dict(os.environ) | {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:9"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert down.returncode == 1
    done = subprocess.run([BIN / "crosswatch-spool", "drain", spool], env=environ, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert counts(receiver) == (50, 50, 50)


@pytest.mark.parametrize("arguments", [["inspect", "/nowhere"], ["drain", "/nowhere"]])
def test_the_command_refuses_what_is_no_folder(arguments: list[str]) -> None:
    """Unusable input: exit code 2, one line that says how to mend it, no traceback."""
    done = subprocess.run([BIN / "crosswatch-spool", *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "CROSSWATCH_SPOOL_DIR" in done.stderr
    assert "Traceback" not in done.stderr


def run_spool(*arguments: str | Path, **environ: str) -> subprocess.CompletedProcess[str]:
    """The command, in a process of its own."""
    command = [BIN / "crosswatch-spool", *arguments]
    plain = {name: value for name, value in os.environ.items() if not name.startswith(("AWS_", "OTEL_", "CROSSWATCH_"))}
    return subprocess.run(command, env=plain | environ, capture_output=True, text=True, check=False)


@pytest.mark.slow
def test_the_command_names_likely_mistakes(receiver: Receiver, tmp_path: Path) -> None:
    """The folder above the spool, a journal inside it, a lane inside that: exit code 2, and the message says which folder was meant."""
    with Script(tmp_path, EMIT + "emit(5)\ntime.sleep(1)\nos._exit(3)", {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:9"}) as script:
        script.wait()
    spool = tmp_path / "spool"
    [journal] = spool.iterdir()
    for command in ("inspect", "drain"):
        for wrong in (tmp_path, journal, journal / "traces"):
            done = run_spool(command, wrong, **receiver.environ())
            assert (done.returncode, done.stdout) == (2, ""), wrong
            assert str(spool) in done.stderr
            assert done.stderr.count("\n") == 1
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "notes").write_text("")
    assert "CROSSWATCH_SPOOL_DIR" in run_spool("inspect", elsewhere).stderr
    assert (elsewhere.stat().st_mode & 0o777, run_spool("drain", elsewhere).returncode) == (0o755, 2)
    assert run_spool("drain", spool).returncode == 2, "no endpoint is set"
    assert run_spool("drain", spool, **receiver.environ()).returncode == 0
    assert len(receiver.spans) == 5
    assert run_spool("inspect", spool).stdout == "0 items in 0 journals\n"


@pytest.mark.slow
def test_the_command_leaves_a_living_process_its_journal(receiver: Receiver, tmp_path: Path) -> None:
    """A spool in use: the process and what waits in its journal are named, exit code 1 while something does, and nothing is sent twice."""
    receiver.fault = lambda request: Answer(503)
    spool = tmp_path / "spool"
    with Script(
        tmp_path, EMIT + "emit(20)\ntime.sleep(1)\nprint('ready', flush=True)\ntime.sleep(60)", receiver.environ("traces")
    ) as script:
        assert script.ready() == "ready"
        done = run_spool("drain", spool, "--timeout", "2", **receiver.environ("traces"))
        assert done.returncode == 1
        assert f"in use by shop, pid {script.process.pid}, which delivers its 20 items itself" in done.stderr
        assert "(alive)" in run_spool("inspect", spool).stdout
        receiver.fault = lambda request: None
        script.send(signal.SIGTERM)
        script.wait()
    assert len(receiver.spans) == 20
    assert run_spool("drain", spool, **receiver.environ("traces")).returncode == 0


@pytest.mark.slow
@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a folder to somebody else")
def test_the_command_refuses_somebody_elses_spool(receiver: Receiver) -> None:
    """Root does not deliver another user's spool, and another user cannot read root's: exit code 2, and whose it is."""
    with tempfile.TemporaryDirectory() as spool:
        os.chown(spool, 65534, 65534)
        done = run_spool("drain", spool, **receiver.environ())
        assert (done.returncode, "65534" in done.stderr, "run as that one" in done.stderr) == (2, True, True)
        os.chown(spool, 0, 0)
        imports = "import locale, os, shutil, sys; from crosswatch_exporters.spool_cli import main"
        script = f"{imports}; os.setuid(65534); main(['inspect', sys.argv[1]])"
        done = subprocess.run([sys.executable, "-c", script, spool], capture_output=True, text=True, check=False)
        assert (done.returncode, done.stderr.count("\n")) == (2, 1), done.stderr
        assert "we are nobody (65534); run this as the service's user" in done.stderr


FORK = (
    EMIT
    + """
emit(50)
pid = os.fork()
if pid == 0:
    emit(50)
    sys.exit(0)
os.waitpid(pid, 0)
emit(50)
"""
)


@pytest.mark.slow
def test_a_fork_counts_nothing_twice(receiver: Receiver, tmp_path: Path) -> None:
    """Parent 50, child 50, parent 50: 150 spans, 150 records, and cumulative counters of two instances that add up to 150."""
    with Script(tmp_path, FORK, receiver.environ()) as script:
        code, _, errors = script.wait()
    assert code == 0, errors
    assert len(receiver.spans) == 150
    assert len(receiver.records) == 150
    latest: dict[str, int] = {}
    for request in receiver.decoded("metrics"):
        for group in request.resource_metrics:
            instance = next(a.value.string_value for a in group.resource.attributes if a.key == "service.instance.id")
            for scope in group.scope_metrics:
                for metric in scope.metrics:
                    if metric.name == "orders":
                        latest[instance] = max(latest.get(instance, 0), metric.sum.data_points[0].as_int)
    assert sorted(latest.values()) == [50, 100]


@pytest.mark.slow
def test_multiprocessing_children_deliver(receiver: Receiver, tmp_path: Path) -> None:
    """multiprocessing ends its children without atexit; what they emitted arrives all the same."""
    source = EMIT + "import multiprocessing as mp\nps=[mp.get_context('fork').Process(target=emit, args=(20,)) for _ in range(3)]\n"
    with Script(tmp_path, source + "[p.start() for p in ps]; [p.join() for p in ps]", receiver.environ()) as script:
        code, _, errors = script.wait()
    assert code == 0, errors
    assert len(receiver.spans) == 60
    assert len(receiver.records) == 60


GUNICORN_APP = """
from flask import Flask
import logging
app = Flask("shop")
@app.get("/")
def index():
    logging.getLogger("shop").warning("hello")
    return "ok"
"""


@pytest.mark.slow
def test_gunicorn_workers(receiver: Receiver, tmp_path: Path) -> None:
    """Under gunicorn with preloaded application and two workers, each request's span and record arrives, also after SIGTERM."""
    import socket
    import urllib.request

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    (tmp_path / "shop.py").write_text(GUNICORN_APP)
    environ = {
        "PATH": f"{BIN}:{os.environ['PATH']}",
        "HOME": str(tmp_path),
        "OTEL_PYTHON_DISTRO": "crosswatch",
        "OTEL_PYTHON_CONFIGURATOR": "crosswatch",
        "OTEL_SERVICE_NAME": "shop",
        "CROSSWATCH_SPOOL_DIR": str(tmp_path / "spool"),
        "PYTHONPATH": str(tmp_path),
        **receiver.environ(),
    }
    command = [
        BIN / "opentelemetry-instrument",
        sys.executable,
        "-m",
        "gunicorn",
        "--preload",
        "-w",
        "2",
        "-b",
        f"127.0.0.1:{port}",
        "shop:app",
    ]
    with subprocess.Popen(command, env=environ, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as server:
        try:
            up = receiver.wait_for(lambda: _answers(port), 15)
            assert up, "gunicorn did not start"
            asked = 20
            for _ in range(asked):
                with urllib.request.urlopen(f"http://127.0.0.1:{port}/") as response:
                    assert response.read() == b"ok"
            server.send_signal(signal.SIGTERM)
            server.wait(20)
        finally:
            if server.poll() is None:
                server.kill()
    assert sum(span.name == "GET /" for span in receiver.spans) == asked
    assert sum(record.body.string_value == "hello" for record in receiver.records) == asked


UVICORN_APP = """
from fastapi import FastAPI
import logging
app = FastAPI()
@app.get("/orders/{number}")
async def order(number: int):
    logging.getLogger("shop").warning("order %d", number)
    return {"number": number}
"""


@pytest.mark.slow
def test_uvicorn(receiver: Receiver, tmp_path: Path) -> None:
    """Under uvicorn: one server span a request, records, and all of it after SIGTERM."""
    import socket
    import urllib.request

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    (tmp_path / "shop.py").write_text(UVICORN_APP)
    environ = {
        "PATH": f"{BIN}:{os.environ['PATH']}",
        "HOME": str(tmp_path),
        "OTEL_PYTHON_DISTRO": "crosswatch",
        "OTEL_PYTHON_CONFIGURATOR": "crosswatch",
        "OTEL_SERVICE_NAME": "shop",
        "CROSSWATCH_SPOOL_DIR": str(tmp_path / "spool"),
        "PYTHONPATH": str(tmp_path),
        **receiver.environ(),
    }
    command = [BIN / "opentelemetry-instrument", sys.executable, "-m", "uvicorn", "--port", str(port), "shop:app"]
    with subprocess.Popen(command, env=environ, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as server:
        try:
            assert receiver.wait_for(lambda: _answers(port), 15), "uvicorn did not start"
            for number in range(20):
                with urllib.request.urlopen(f"http://127.0.0.1:{port}/orders/{number}") as response:
                    assert response.status == 200
            server.send_signal(signal.SIGTERM)
            server.wait(20)
        finally:
            if server.poll() is None:
                server.kill()
    assert [span.name for span in receiver.spans] == ["GET /orders/{number}"] * 20
    assert sum(record.body.string_value.startswith("order ") for record in receiver.records) == 20


def _answers(port: int) -> bool:
    import socket

    try:
        socket.create_connection(("127.0.0.1", port), 0.2).close()
    except OSError:
        return False
    return True


@pytest.mark.slow
def test_the_command_names_what_it_has_no_endpoint_for(receiver: Receiver, tmp_path: Path) -> None:
    """A spool with a signal that no variable leads anywhere: the rest is delivered, that one is named with its mend, exit code 1."""
    variables = {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:9", "OTEL_METRIC_EXPORT_INTERVAL": "200"}
    with Script(tmp_path, EMIT + "emit(20)\ntime.sleep(1)\nos._exit(3)", variables) as script:
        script.wait()
    spool = tmp_path / "spool"
    done = run_spool("drain", spool, **receiver.environ("traces", "logs"))
    assert done.returncode == 1
    assert len(receiver.spans) == len(receiver.records) == 20
    assert "items of metrics; no endpoint is set for them: set OTEL_EXPORTER_OTLP_METRICS_ENDPOINT" in done.stderr
    assert "of traces" not in done.stderr
    done = run_spool("drain", spool, **receiver.environ())
    assert (done.returncode, done.stderr) == (0, "")
    assert counts(receiver) == (20, 20, 20)


@pytest.mark.slow
def test_the_command_delivers_more_than_a_spool_holds(receiver: Receiver, tmp_path: Path) -> None:
    """What several processes left may be more than CROSSWATCH_SPOOL_MAX_BYTES: draining deletes nothing that was not delivered."""
    source = EMIT + "text = os.urandom(400).hex()\nfor i in range(300):\n    tracer.start_span('op', attributes={'text': text}).end()\n"
    variables = {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:9", "CROSSWATCH_SPOOL_MAX_BYTES": "1MiB"}
    for _ in range(2):
        with Script(tmp_path, source + "time.sleep(1)\nos._exit(3)", variables) as script:
            script.wait()
    done = run_spool("drain", tmp_path / "spool", CROSSWATCH_SPOOL_MAX_BYTES="64KiB", **receiver.environ())
    assert done.returncode == 0, done.stderr
    assert len(receiver.spans) == 600
