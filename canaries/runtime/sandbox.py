"""A warm child process per canary, as Lambda keeps one: started at the first run, kept for the next, replaced when it hangs, dies or grows.

The parent side. The child is ``aws_synthetics.wrapper`` in a bare interpreter (no site packages of this program, only what Lambda and the
Synthetics layer have); the two speak JSON lines over a socket pair. The child ends with its parent: the kernel kills it
(PR_SET_PDEATHSIG), and where there is no such call it notices that the socket was closed.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import uuid
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from canaries.runtime import layout, watch
from canaries.runtime.api import CanaryRefusedError, RunRequest, RunResult, TestResult
from canaries.runtime.logs import Clock, LogBuffer
from canaries.runtime.wire import child_environment, cut_short, from_wire, package_folders, to_wire

LAYER: Final = Path(__file__).parent / "layer"
INIT_LIMIT_S: Final = 30.0  # Lambda allows 10 s; a busy laptop gets more
UPLOAD_GRACE_S: Final = 2.0  # of wall time, for the wrapper to save artifacts after a run that ended just in time
POLL_S: Final = 0.25

# One thread that lives as long as the process starts all children: PR_SET_PDEATHSIG fires when the *thread* that forked goes away.
_SPAWNER = ThreadPoolExecutor(max_workers=1, thread_name_prefix="sandbox-spawner")


@dataclass(slots=True)
class _Child:
    """A running child process and the ends we hold."""

    process: subprocess.Popen[bytes]
    control: socket.socket
    token: str
    root: Path
    identity: tuple[Any, ...]
    log: LogBuffer
    cold: bool = True
    pending: bytearray = field(default_factory=bytearray)


class Sandbox:
    """Runs of one canary, one after another. Not to be shared by threads: `run` holds a lock."""

    def __init__(self, name: str, directory: Path | None = None) -> None:
        """``directory`` is where the child's /opt and /tmp are made (default: a temporary folder that `close` removes)."""
        self._name = name
        self._directory = Path(tempfile.mkdtemp(prefix=f"crosswatch-canary-{name[:40]}-", dir=directory))
        self._child: _Child | None = None
        self._lock = threading.Lock()

    def __enter__(self) -> Sandbox:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def pid(self) -> int | None:
        """The child's process id while it is warm."""
        return self._child.process.pid if self._child else None

    def run(self, request: RunRequest) -> RunResult:
        """Do one run, to its end or its timeout. Raises CanaryRefusedError where AWS would not have accepted the canary at all.

        A script that fails, hangs, exits, crashes or eats memory is a FAILED result, never an exception.
        """
        with self._lock:
            return self._run(request)

    def close(self) -> None:
        """End the child and remove its folders. Safe to repeat."""
        with self._lock:
            self._discard()
            shutil.rmtree(self._directory, ignore_errors=True)

    def recycle(self) -> None:
        """End the child now; the next run is a cold start, as after UpdateCanary."""
        with self._lock:
            self._discard()

    # ------------------------------------------------------------------ one run

    def _run(self, request: RunRequest) -> RunResult:
        clock = Clock(request.lab_clock)
        problems = layout.refusals(request)
        if problems:
            raise CanaryRefusedError(problems)
        started = clock.now()
        try:
            child = self._warm(request)
        except layout.BundleError as error:
            return cut_short(request, started, clock.now(), str(error), (), TestResult.FAILED)
        except _ChildLostError as error:
            return cut_short(request, started, clock.now(), f"No test result returned. {error}", (), TestResult.UNKNOWN)
        cold, child.cold = child.cold, False
        child.log.begin(request, clock)
        started = clock.now()
        peak = watch.Peak()
        try:
            answer = self._talk(child, request, clock, peak)
        except _ChildLostError as error:
            self._discard()
            lines = child.log.end()
            return cut_short(request, started, clock.now(), f"No test result returned. {error}", lines, TestResult.UNKNOWN, cold, peak.mb)
        if answer.get("leave"):
            self._discard()
        lines = child.log.end()
        return from_wire(request, started, clock.now(), answer, lines, cold, peak.mb)

    def _talk(self, child: _Child, request: RunRequest, clock: Clock, peak: watch.Peak) -> dict[str, Any]:
        """Send the request and wait for the child's answer within the limits. Raises _ChildLostError."""
        _send(child, to_wire(request))
        deadline = time.monotonic() + clock.wall(request.timeout_s)
        grace, disk = 0.0, watch.Peak()
        while True:
            message = _receive(child, POLL_S)
            if message is not None:
                if message["kind"] == "result":
                    return message
                if message["kind"] == "ended":  # the script is done; what is left is saving and publishing
                    grace = UPLOAD_GRACE_S
                    disk.see(watch.disk_mb(child.root / "tmp"))
                    _send(child, {"storage_percent": round(100 * disk.mb / request.ephemeral_mb, 2)})
            used = watch.memory_mb(child.process.pid, child.token, request.memory_mb)
            peak.see(used)
            if used > request.memory_mb:
                raise _ChildLostError(
                    f"Error: Runtime exited with error: signal: killed (memory: {used:.0f} MB used, {request.memory_mb} MB allowed)"
                )
            if time.monotonic() > deadline + grace:
                raise _ChildLostError(f"Task timed out after {request.timeout_s:.2f} seconds")
            disk.see(watch.disk_mb(child.root / "tmp"))
            if disk.mb > request.ephemeral_mb * 1.02:
                raise _ChildLostError(f"Error: No space left on device: /tmp holds {request.ephemeral_mb} MB of ephemeral storage")

    # ------------------------------------------------------------------ the child

    def _warm(self, request: RunRequest) -> _Child:
        """The child for this code and configuration, a new one where there is none that fits."""
        identity = (
            layout.fingerprint(request.bundle),
            request.handler,
            tuple(sorted(request.environment.items())),
            request.memory_mb,
            request.region,
            tuple(sorted(request.credentials.items())),
            request.lab_clock,
            request.ephemeral_mb,
        )
        if self._child and (self._child.identity != identity or self._child.process.poll() is not None):
            self._discard()
        if self._child is None:
            self._child = self._start(request, identity)
        return self._child

    def _start(self, request: RunRequest, identity: tuple[Any, ...]) -> _Child:
        root = self._directory / uuid.uuid4().hex[:8]
        (root / "tmp").mkdir(parents=True)
        (root / "home").mkdir()
        layout.unpack(request.bundle, root / "opt")
        ours, theirs = socket.socketpair()
        token = uuid.uuid4().hex
        main = LAYER / "aws_synthetics" / "wrapper" / "__main__.py"
        argv = [sys.executable, "-I", "-S", str(main), str(theirs.fileno()), str(root), str(LAYER), *package_folders()]
        environment = child_environment(request, root, token)
        process: subprocess.Popen[bytes] = _SPAWNER.submit(
            subprocess.Popen,
            argv,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            pass_fds=[theirs.fileno()],
            env=environment,
            cwd=root,
            start_new_session=True,
        ).result()
        theirs.close()
        child = _Child(process, ours, token, root, identity, LogBuffer(process))
        deadline = time.monotonic() + INIT_LIMIT_S
        try:
            while (message := _receive(child, POLL_S)) is None or message["kind"] != "ready":
                if time.monotonic() > deadline:
                    raise _ChildLostError(f"INIT_REPORT Init Duration: {INIT_LIMIT_S * 1000:.0f} ms Phase: init Status: timeout")
        except _ChildLostError:
            self._child = child
            self._discard()
            raise
        return child

    def _discard(self) -> None:
        """Kill the child with all it started, and forget it."""
        child, self._child = self._child, None
        if child is None:
            return
        child.control.close()
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(child.process.pid, signal.SIGKILL)
        watch.kill_marked(child.token)
        child.process.wait(10)
        child.log.close()
        shutil.rmtree(child.root, ignore_errors=True)


class _ChildLostError(Exception):
    """The child gave no answer; the text says what became of it, in Lambda's words."""


def _send(child: _Child, message: dict[str, Any]) -> None:
    try:
        child.control.sendall(json.dumps(message).encode() + b"\n")
    except OSError as error:
        raise _ChildLostError(_epitaph(child)) from error


def _receive(child: _Child, timeout_s: float) -> dict[str, Any] | None:
    """The child's next message, None when there is none within ``timeout_s``."""
    if b"\n" not in child.pending:
        child.control.settimeout(timeout_s)
        try:
            data = child.control.recv(1 << 20)
        except TimeoutError:
            if child.process.poll() is not None:
                raise _ChildLostError(_epitaph(child)) from None
            return None
        except OSError as error:
            raise _ChildLostError(_epitaph(child)) from error
        if not data:
            raise _ChildLostError(_epitaph(child))
        child.pending += data
        if b"\n" not in child.pending:
            return None
    line, _, rest = bytes(child.pending).partition(b"\n")
    child.pending = bytearray(rest)
    message: dict[str, Any] = json.loads(line)
    return message


def _epitaph(child: _Child) -> str:
    """What Lambda says of a runtime process that is gone."""
    try:
        status = child.process.wait(2)
    except subprocess.TimeoutExpired:
        return "Error: Runtime closed its connection"
    if status < 0:
        return f"Error: Runtime exited with error: signal: {signal.Signals(-status).name}"
    return f"Error: Runtime exited with error: exit status {status}" if status else "Error: Runtime exited without providing a reason"
