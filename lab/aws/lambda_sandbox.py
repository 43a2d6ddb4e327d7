"""The parent side of a Lambda sandbox: a warm child process that runs one function's handler for one event at a time.

The child ends with this process: the kernel kills it (PR_SET_PDEATHSIG), and elsewhere it sees its socket close. A function's timeout is
lab time; because its code really runs, it always gets at least `LEAST_WALL_S` of wall time (or its whole timeout, where that is shorter).
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
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lab.aws import lambda_bootstrap
from lab.clock import CLOCK_VARIABLE

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from lab.clock import LabClock

LEAST_WALL_S = 10.0
INIT_WALL_S = 30.0  # AWS allows 10 s; a busy laptop gets more
_POLL_S = 0.1
_PAGE_MB = os.sysconf("SC_PAGE_SIZE") / (1 << 20)

# PR_SET_PDEATHSIG fires when the thread that forked ends, so one thread that stays forks all children.
_spawner = ThreadPoolExecutor(max_workers=1, thread_name_prefix="lambda-spawner")


@dataclass(frozen=True, slots=True)
class Outcome:
    """What an event came to. ``payload`` is JSON; ``error`` says that it is an error's description; ``log`` has lab times and lines."""

    payload: bytes
    error: bool
    log: tuple[tuple[float, str], ...]
    wall_ms: float
    init_wall_ms: float | None
    memory_mb: float


@dataclass(frozen=True, slots=True)
class SandboxSpec:
    """Everything a sandbox is started with."""

    function: str
    handler: str
    code: Path
    environment: Mapping[str, str]
    timeout_s: float
    memory_mb: int
    stream: str


class _Output:
    """Lines that the child wrote, and the mark it wrote last (the id of the event whose output is complete)."""

    def __init__(self) -> None:
        self._lines: list[tuple[float, str]] = []
        self._mark = ""
        self._changed = threading.Condition()

    def add(self, time_s: float, line: str) -> None:
        """A line of output; empty ones are dropped, as the log group would."""
        with self._changed:
            if line:
                self._lines.append((time_s, line))

    def mark(self, identity: str) -> None:
        """The output of the event ``identity`` is complete; an empty one: there will be no more output at all."""
        with self._changed:
            self._mark = identity
            self._changed.notify_all()

    def take(self, identity: str) -> list[tuple[float, str]]:
        """The lines since the last time, once the event's output is complete."""
        with self._changed:
            self._changed.wait_for(lambda: self._mark in (identity, ""), 1.0)
            taken, self._lines = self._lines, []
            return taken


class Sandbox:
    """One child process. `invoke` is for one caller at a time; after it returned with ``alive`` False, throw the sandbox away."""

    def __init__(self, spec: SandboxSpec, clock: LabClock) -> None:
        self.spec = spec
        self.started = time.monotonic()
        self.used = self.started
        self._clock = clock
        self._output = _Output()
        self._output.mark("-")
        self._fresh = True
        self._ready = False
        self._failure: dict[str, Any] | None = None
        self._timed_out = False
        self.interrupted = False  # the child was killed because the caller of `invoke` said so
        self._tmp = spec.code.parent / f"tmp-{os.urandom(4).hex()}"
        self._tmp.mkdir()
        ours, theirs = socket.socketpair()
        self._control = ours
        self._buffer = bytearray()
        with theirs:
            self._process = _spawner.submit(self._spawn, theirs.fileno()).result()
        threading.Thread(target=self._read_output, name=f"lambda-{spec.function}-log", daemon=True).start()

    @property
    def alive(self) -> bool:
        """Whether the child can take another event."""
        return self._process.poll() is None

    @property
    def pid(self) -> int:
        """The child's process id."""
        return self._process.pid

    def invoke(self, request_id: str, arn: str, payload: bytes, interrupted: Callable[[], bool]) -> Outcome:
        """Run the handler for one event. ``interrupted`` is polled; where it says so, the child is killed."""
        self.used = time.monotonic()
        init_ms = self._init(interrupted) if self._fresh else None
        began = time.monotonic()
        if not self._ready:
            return self._ended(request_id, began, init_ms)
        budget = self._budget()
        request = {"id": request_id, "arn": arn, "payload": payload.decode(), "deadline": time.time() + budget}
        self._control.settimeout(budget)  # not what `_receive` left: a large event takes the child longer to read than one look at it
        with contextlib.suppress(OSError):  # a child that is gone, or never reads: `_receive` finds out which
            self._control.sendall(json.dumps(request).encode() + b"\n")
        message = self._receive(began + budget, interrupted)
        if message is None:
            return self._ended(request_id, began, init_ms)
        error = message["kind"] == "error"
        body = json.dumps(message["error"]).encode() if error else str(message["payload"]).encode()
        lines = tuple(self._output.take(request_id))
        self.used = time.monotonic()
        return Outcome(body, error, lines, (self.used - began) * 1000, init_ms, self._memory())

    def close(self) -> None:
        """Kill the child and all it started; remove its temporary folder."""
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        self._control.close()
        shutil.rmtree(self._tmp, ignore_errors=True)

    def _budget(self) -> float:
        return max(self._clock.wall_seconds(self.spec.timeout_s), min(self.spec.timeout_s, LEAST_WALL_S))

    def _spawn(self, fd: int) -> subprocess.Popen[bytes]:
        spec = self.spec
        environment = {
            "PATH": os.environ.get("PATH", os.defpath),
            "LANG": "C.UTF-8",
            "TZ": ":UTC",
            "HOME": str(self._tmp),
            "TMPDIR": str(self._tmp),
            "PYTHONPATH": str(spec.code),
            "PYTHONDONTWRITEBYTECODE": "1",
            **spec.environment,
            CLOCK_VARIABLE: self._clock.to_environment(),
            "CROSSWATCH_CONTROL_FD": str(fd),
            "_HANDLER": spec.handler,
            "LAMBDA_TASK_ROOT": str(spec.code),
            "AWS_EXECUTION_ENV": f"AWS_Lambda_python{sys.version_info.major}.{sys.version_info.minor}",
            "AWS_LAMBDA_FUNCTION_NAME": spec.function,
            "AWS_LAMBDA_FUNCTION_VERSION": "$LATEST",
            "AWS_LAMBDA_FUNCTION_MEMORY_SIZE": str(spec.memory_mb),
            "AWS_LAMBDA_LOG_GROUP_NAME": f"/aws/lambda/{spec.function}",
            "AWS_LAMBDA_LOG_STREAM_NAME": spec.stream,
        }
        return subprocess.Popen(
            [sys.executable, "-P", "-u", str(lambda_bootstrap.__file__)],
            env=environment,
            cwd=spec.code,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            pass_fds=(fd,),
            start_new_session=True,
        )

    def _init(self, interrupted: Callable[[], bool]) -> float:
        """Wait until the handler is loaded; ``_ready`` says whether it was."""
        self._fresh = False
        message = self._receive(self.started + INIT_WALL_S, interrupted)
        if message is not None and message["kind"] == "failed":
            self._failure = message["error"]
            self._process.wait()
        self._ready = message is not None and message["kind"] == "ready"
        return (time.monotonic() - self.started) * 1000

    def _receive(self, deadline: float, interrupted: Callable[[], bool]) -> dict[str, Any] | None:
        """The child's next message; None where it died, took too long or had to be killed."""
        while b"\n" not in self._buffer:
            left = deadline - time.monotonic()
            if left <= 0 or interrupted():
                self._timed_out = left <= 0
                self.interrupted = not self._timed_out
                self.close()
                return None
            self._control.settimeout(min(_POLL_S, left))
            try:
                chunk = self._control.recv(65536)
            except TimeoutError:
                continue
            except OSError:
                chunk = b""
            if not chunk:
                self._process.wait()
                return None
            self._buffer += chunk
        line, _, rest = self._buffer.partition(b"\n")
        self._buffer = bytearray(rest)
        message: dict[str, Any] = json.loads(line)
        return message

    def _ended(self, request_id: str, began: float, init_ms: float | None) -> Outcome:
        """The outcome where there is no child any more: it failed to load, timed out, or died."""
        lines = self._output.take("")
        if self._failure is not None:
            described = {**self._failure, "requestId": request_id}
        elif self._timed_out:
            message = f"Task timed out after {self.spec.timeout_s:.2f} seconds"
            lines.append((self._clock.now(), f"{_utc()} {request_id} {message}"))
            described = {"errorType": "Sandbox.Timedout", "errorMessage": f"RequestId: {request_id} Error: {message}"}
        else:
            code = self._process.poll()
            how = f"signal: {signal.Signals(-code).name}" if code is not None and code < 0 else f"exit status {code}"
            message = f"RequestId: {request_id} Error: Runtime exited with error: {how}"
            lines.append((self._clock.now(), message))
            described = {"errorType": "Runtime.ExitError", "errorMessage": message}
        wall_ms = (time.monotonic() - began) * 1000
        return Outcome(json.dumps(described).encode(), True, tuple(lines), wall_ms, init_ms, 0.0)

    def _read_output(self) -> None:
        stream = self._process.stdout
        if stream is None:
            return
        for raw in stream:
            line = raw.decode("utf-8", "replace").rstrip("\n")
            if line.startswith(lambda_bootstrap.MARK):
                self._output.mark(line.removeprefix(lambda_bootstrap.MARK))
            else:
                self._output.add(self._clock.now(), line)
        self._output.mark("")

    def _memory(self) -> float:
        try:
            return int(Path(f"/proc/{self._process.pid}/statm").read_text().split()[1]) * _PAGE_MB
        except (OSError, IndexError):
            return 0.0


def _utc() -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
