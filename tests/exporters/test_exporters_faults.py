"""Real faults: connections that break at any byte, disks that are full or read-only, memory that runs out."""

from __future__ import annotations

import os
import re
import shutil
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from instrumented import BIN, LedgerWatch, Script, Service
from receiver import Answer, Receiver


@dataclass(frozen=True)
class Break:
    """How a connection ends: after so many bytes of a request have passed, or the whole request and so many bytes of the answer.

    `end` is how: `reset`, `close`, `garbage` (bytes that are no HTTP, then closed), or `hang` (silence for longer than the client waits).
    """

    request: int | None
    answer: int = 0
    end: str = "reset"


class Saboteur:
    """Stands in front of a receiver and passes everything on, but breaks the next connections as planned."""

    def __init__(self, receiver: Receiver) -> None:
        self.plan: list[Break] = []
        self.done: list[Break] = []
        self._to = ("127.0.0.1", receiver.port)
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=64)
        self.port = self._listener.getsockname()[1]

    def __enter__(self) -> Saboteur:
        threading.Thread(target=self._run, daemon=True).start()
        return self

    def __exit__(self, *error: object) -> None:
        self._listener.close()

    def environ(self) -> dict[str, str]:
        """Variables that point the exporters here."""
        return {f"OTEL_EXPORTER_OTLP_{s.upper()}_ENDPOINT": f"http://127.0.0.1:{self.port}/v1/{s}" for s in ("traces", "logs", "metrics")}

    def _run(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return  # closed: the test is over
            threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        """Exchange after exchange on one connection, until it is to break or the client leaves."""
        try:
            with client, socket.create_connection(self._to) as server:
                client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                while request := _message(client):
                    fault = self.plan.pop(0) if self.plan else None
                    if fault is None:
                        server.sendall(request)
                        client.sendall(_message(server))
                        continue
                    self.done.append(fault)
                    if fault.request is not None:
                        server.sendall(request[: fault.request])
                    else:
                        server.sendall(request)
                        client.sendall(_message(server)[: fault.answer])
                    _end(client, fault.end)
                    return
        except OSError:
            return  # either side went away


def _end(client: socket.socket, how: str) -> None:
    if how == "garbage":
        client.sendall(b"\x16\x03\x01 nothing that HTTP knows\r\n\r\n")
    elif how == "hang":
        time.sleep(1.0)
    elif how == "reset":
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


def _message(source: socket.socket) -> bytes:
    """One whole HTTP message with a content-length; nothing when the connection ends first."""
    data = b""
    while b"\r\n\r\n" not in data:
        if not (more := source.recv(65536)):
            return b""
        data += more
    head, _, body = data.partition(b"\r\n\r\n")
    size = next(int(line.split(b":")[1]) for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:"))
    while len(body) < size:
        if not (more := source.recv(65536)):
            return b""
        body += more
    return head + b"\r\n\r\n" + body


def service_environ(saboteur: Saboteur, spool: str | Path) -> dict[str, str]:
    """Impatient with hanging connections."""
    return saboteur.environ() | {"CROSSWATCH_SPOOL_DIR": str(spool), "OTEL_EXPORTER_OTLP_TIMEOUT": "0.4"}


STEPS = [
    *(Break(at, end=end) for at in (0, 1, 40, 250, 600) for end in ("reset", "close")),
    *(Break(None, at, end) for at in (0, 1, 9, 25, 60) for end in ("reset", "close")),
    Break(0, end="hang"),
    Break(None, 0, "hang"),
    Break(None, 12, "hang"),
    Break(None, 0, "garbage"),
]


@pytest.mark.slow
@pytest.mark.parametrize("steps", [STEPS[at::4] for at in range(4)], ids=str)
def test_a_connection_that_breaks_anywhere_loses_nothing(receiver: Receiver, spool: Path, steps: Sequence[Break]) -> None:
    """Before, within and after request and answer, by reset, end, silence and nonsense: all arrives, and the ledger holds throughout."""
    with Saboteur(receiver) as saboteur, Service(service_environ(saboteur, spool)) as service, LedgerWatch(service) as watch:
        for number, fault in enumerate(steps):
            saboteur.plan = [fault]
            service.spans(10, step=number)
            assert service.flush(15)
            assert saboteur.done[-1] == fault
        balance = service.balances()["traces"]
    assert watch.wrong == []
    assert watch.looked > 10
    assert (balance.delivered, balance.dropped) == (10 * len(steps), {})
    assert len({span.span_id for span in receiver.spans}) == 10 * len(steps)
    assert receiver.violations == []


breaks = st.builds(
    Break,
    st.one_of(st.none(), st.integers(0, 900)),
    st.integers(0, 90),
    st.sampled_from(["reset", "close", "garbage"]),
)


@pytest.mark.slow
@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(st.tuples(breaks, st.integers(1, 400), st.integers(0, 3000)), min_size=1, max_size=3))
def test_any_load_through_any_breaks(load: list[tuple[Break, int, int]]) -> None:
    """Spans and records of any number and size while connections break at random bytes: within all limits, exact, complete."""
    with Receiver() as receiver, Saboteur(receiver) as saboteur, tempfile.TemporaryDirectory() as spool:
        with Service(service_environ(saboteur, Path(spool) / "spool")) as service, LedgerWatch(service) as watch:
            for fault, count, size in load:
                saboteur.plan.append(fault)
                service.spans(count, text="x" * size)
                service.logs(count, "y" * size)
                time.sleep(0.05)
            assert service.flush(20)
            totals = service.balances()
        wanted = sum(count for _, count, _ in load)
        assert watch.wrong == []
        assert [(totals[signal].delivered, totals[signal].dropped) for signal in ("traces", "logs")] == [(wanted, {})] * 2
        assert len({span.span_id for span in receiver.spans}) == wanted
        assert len(receiver.records) >= wanted
        assert receiver.violations == []


DISKS = {
    # how the disk is made; what the script does to itself where nothing may be mounted; the error of the system that it then meets
    "full": ("size=160k", "limit(60_000)", "ENOSPC"),
    "read-only": ("ro", "limit(0)", "EROFS"),
}
DISK_SCRIPT = """
import errno, os, resource, signal, sys, time
from opentelemetry import trace
disk, limits = sys.argv[1:3]
def limit(size):
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))
tracer = trace.get_tracer("app")
def emit(n):
    for i in range(n):
        with tracer.start_as_current_span("op", attributes={"i": i, "text": os.urandom(400).hex()}):
            pass
        if i % 100 == 99:
            time.sleep(0.1)
exec(limits)
emit(1000)
time.sleep(1)
try:
    with open(disk + "/probe", "wb", buffering=0) as file:
        [file.write(bytes(4096)) for _ in range(100)]
    print("the disk takes everything", flush=True)
except OSError as error:
    print(errno.errorcode[error.errno], flush=True)
sys.stdin.readline()
"""


@pytest.fixture
def mounts() -> bool:
    """Whether we may mount file systems in a namespace of our own."""
    return bool(shutil.which("unshare")) and subprocess.run(["unshare", "-m", "true"], capture_output=True, check=False).returncode == 0


@pytest.mark.slow
@pytest.mark.parametrize("kind", DISKS)
def test_a_disk_that_fails_costs_no_data(receiver: Receiver, tmp_path: Path, kind: str, mounts: bool) -> None:
    """A disk that fills up, one that cannot be written: what it does not take waits in memory, and arrives once the endpoint is back."""
    receiver.fault = lambda request: Answer(503)
    options, limits, error = DISKS[kind]
    disk = tmp_path / "disk"
    disk.mkdir(mode=0o700)
    (tmp_path / "app.py").write_text(DISK_SCRIPT)
    environ = {
        "PATH": f"{BIN}:{os.environ['PATH']}",
        "HOME": str(tmp_path),
        "OTEL_PYTHON_DISTRO": "crosswatch",
        **receiver.environ("traces"),
    }
    environ |= {"OTEL_PYTHON_CONFIGURATOR": "crosswatch", "CROSSWATCH_SPOOL_DIR": str(disk / "spool"), "OTEL_LOGS_EXPORTER": "none"}
    command = [str(BIN / "opentelemetry-instrument"), sys.executable, str(tmp_path / "app.py"), str(disk), "" if mounts else limits]
    if mounts:
        command = ["unshare", "-m", "sh", "-c", f'mount -t tmpfs -o mode=700,{options} disk {disk} && exec "$@"', "sh", *command]
    with subprocess.Popen(
        command, env=environ, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline().strip() == (error if mounts else "EFBIG")
            receiver.fault = lambda request: None
            _, errors = process.communicate("\n", timeout=30)
        finally:
            if process.poll() is None:
                process.kill()
    assert process.returncode == 0, errors
    assert "Traceback" not in errors
    assert len({span.span_id for span in receiver.spans}) == 1000
    assert receiver.violations == []


HOG = """
import logging, os, sys, time
from opentelemetry import trace
logging.getLogger().setLevel(logging.INFO)
tracer = trace.get_tracer("app")
for i in range(100):
    with tracer.start_as_current_span("op"):
        logging.info("order %d", i)
time.sleep(1)
print("ready", flush=True)
sys.stdin.readline()
hog = []
while True:
    hog.append(bytearray(os.urandom(1 << 20)))
"""


@pytest.fixture
def memory_group() -> Iterator[Path | None]:
    """A control group of 100 MB, or None where we may not make one."""
    for root, name in (("/sys/fs/cgroup/memory", "memory.limit_in_bytes"), ("/sys/fs/cgroup", "memory.max")):
        group = Path(root) / f"crosswatch-{os.getpid()}"
        try:
            group.mkdir()
        except OSError:
            continue
        try:
            (group / name).write_text(str(100 << 20))
            usable = True
        except OSError:
            usable = False
        if usable:
            yield group
        for _ in range(50):  # the kernel takes a moment to let the dead process go
            try:
                group.rmdir()
                break
            except OSError:
                time.sleep(0.1)
        if usable:
            return
    yield None


@pytest.mark.slow
def test_a_process_that_the_kernel_kills_for_its_memory(receiver: Receiver, tmp_path: Path, memory_group: Path | None) -> None:
    """What was finished a second before is delivered by the next process. Where no control group can be made, SIGKILL comes from us."""
    receiver.fault = lambda request: Answer(503)
    with Script(tmp_path, HOG, receiver.environ("traces", "logs"), stdin=True) as script:
        assert script.ready() == "ready"
        if memory_group:
            (memory_group / "cgroup.procs").write_text(str(script.process.pid))
        else:
            script.send(signal.SIGKILL)
        code, _, errors = script.wait(60)
    assert code == -9, errors
    receiver.fault = lambda request: None
    with Script(tmp_path, "import time; time.sleep(1.5)", receiver.environ("traces", "logs")) as script:
        assert script.wait()[0] == 0
    assert len({span.span_id for span in receiver.spans}) == 100
    assert len({record.body.string_value for record in receiver.records}) == 100


STARVED = """
import logging, os, resource, sys, time
from opentelemetry import trace
tracer = trace.get_tracer("app")
def emit(name, n):
    for i in range(n):
        with tracer.start_as_current_span(name, attributes={"i": i}):
            pass
emit("before", 100)
time.sleep(1)
with open("/proc/self/statm") as file:
    room = int(file.read().split()[0]) * resource.getpagesize() + (40 << 20)
resource.setrlimit(resource.RLIMIT_AS, (room, resource.RLIM_INFINITY))
hogs = []
try:
    for size in (1 << 20, 1 << 12, 1 << 9):
        try:
            while True:
                hogs.append(bytes(size))
        except MemoryError:
            continue
    until = time.monotonic() + 3
    while time.monotonic() < until:
        try:
            emit("meanwhile", 1)
            time.sleep(0.01)
        except MemoryError:
            pass
finally:
    hogs.clear()
resource.setrlimit(resource.RLIMIT_AS, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
emit("after", 100)
time.sleep(1)
logging.basicConfig(level=logging.INFO)
"""


@pytest.mark.slow
def test_a_service_that_is_short_of_memory_for_a_while(receiver: Receiver, tmp_path: Path) -> None:
    """Where every allocation may fail, nothing of ours stops working: what ended before and after arrives, the ledger holds."""
    with Script(tmp_path, STARVED, receiver.environ("traces")) as script:
        code, _, errors = script.wait(60)
    assert code == 0, errors
    assert "Exception in thread" not in errors
    names = Counter(span.name for span in receiver.spans)
    assert (names["before"], names["after"]) == (100, 100)
    ledger = next(line for line in errors.splitlines() if "telemetry: traces" in line)
    numbers = {name: int(number) for name, number in re.findall(r"([a-z_.]+)=(\d+)", ledger.split("logs:")[0])}
    waiting = sum(numbers[place] for place in ("queued", "held", "spooled"))
    lost = sum(number for name, number in numbers.items() if name.startswith("dropped"))
    assert numbers["emitted"] == numbers["delivered"] + waiting + lost
    assert waiting == 0
