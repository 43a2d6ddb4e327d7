"""Runs the lab's processes: starts them in parallel as soon as what they need is ready, keeps them running, and breaks them on request.

A fault never stops a process as such; it *holds* it down, or freezes it, for a reason (its own name). A process runs while nobody holds
it, so faults may overlap and heal in any order. The processes themselves are children of the warden (`lab.warden`), which outlives the
supervisor just long enough to leave nothing behind.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import deque
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lab.admin import Refusal
from lab.clock import CLOCK_VARIABLE
from lab.plan import DIRECTORY_VARIABLE
from lab.process import ProcessSpec
from lab.state import ID_VARIABLE, sweep
from lab.warden import remove_directory

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from lab.plan import LabPlan
    from lab.state import StateDirectory

BACK_OFF_S = (0.5, 1.0, 2.0, 5.0, 10.0, 30.0)
STABLE_AFTER_S = 60.0
STARTED_WITHIN_S = 60.0  # what a process is prepared with comes before its own time
ROOT = Path(__file__).resolve().parents[1]

WAITING, PREPARING, STARTING, READY, STOPPED, FROZEN, FAILED = "waiting", "preparing", "starting", "ready", "stopped", "frozen", "failed"


class StartError(Exception):
    """A process did not become ready; the message has the end of its log."""


class LabEnded(Exception):
    """The supervisor is closing, or its warden is gone; nothing can be started any more."""


@dataclass(frozen=True, slots=True)
class ProcessStatus:
    """What a process is doing. ``since`` is wall time of the last change; ``held_by`` and ``frozen_by`` name the faults."""

    name: str
    region: str | None
    state: str
    since: float
    pid: int | None
    exit_code: int | None
    starts: int
    held_by: tuple[str, ...]
    frozen_by: tuple[str, ...]


@dataclass(slots=True)
class _Process:
    spec: ProcessSpec
    state: str = WAITING
    since: float = field(default_factory=time.time)
    pid: int | None = None
    exit_code: int | None = None
    starts: int = 0
    failures: int = 0
    prepared: bool = False
    extra_environment: dict[str, str] = field(default_factory=dict)
    holds: set[str] = field(default_factory=set)
    freezes: set[str] = field(default_factory=set)


class Supervisor:
    """The processes of one lab. All methods may be called from any thread."""

    def __init__(self, plan: LabPlan, state: StateDirectory, on_change: Callable[[ProcessStatus], None] | None = None) -> None:
        self._plan = plan
        self._state = state
        self._on_change = on_change or (lambda _: None)
        self._changed = threading.Condition(threading.RLock())
        self._processes: dict[str, _Process] = {}
        self._by_pid: dict[int, _Process] = {}
        self._early_exits: dict[int, int] = {}
        self._answers: dict[int, dict[str, Any]] = {}
        self._ids = itertools.count(1)
        self._ending = False
        self.ended = threading.Event()
        self._control, theirs = socket.socketpair()
        with theirs, (plan.logs / "warden.log").open("ab") as log:
            self._warden = subprocess.Popen(
                [sys.executable, "-m", "lab.warden", str(theirs.fileno()), str(state.lock), plan.directory],
                cwd="/",
                env=self._environment(),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=log,
                pass_fds=(theirs.fileno(), state.lock),
                start_new_session=True,
            )
        threading.Thread(target=self._listen, name="warden", daemon=True).start()

    # what runs

    def start(self, specs: Iterable[ProcessSpec]) -> None:
        """Start ``specs`` and wait until all are ready. Raises `StartError` at the first that fails, `LabEnded` if the lab ends first."""
        names = []
        with self._changed:
            for spec in specs:
                if spec.name in self._processes:
                    raise ValueError(f"two processes of the lab are called {spec.name}")
                self._processes[spec.name] = _Process(spec)
                names.append(spec.name)
            for name in names:
                for needed in self._processes[name].spec.after:
                    if needed not in self._processes:
                        raise ValueError(f"{name} starts after {needed}, which is not a process of the lab: {', '.join(self._processes)}")
        self._run(names)

    def run(self, name: str, argv: tuple[str, ...], environment: Mapping[str, str], within_s: float) -> None:
        """Run a program to its end, once. Raises `StartError` where it fails or takes too long."""
        process = _Process(ProcessSpec(name, argv, environment=environment, directory=ROOT))
        self._spawn(process)
        if not self._await_exit([process], within_s):
            self._signal(process, signal.SIGKILL)
            raise StartError(f"{name} did not end within {within_s:g} s.\n{self._log_end(name)}")
        self._check_alive()
        if process.exit_code != 0:
            raise StartError(f"{name} failed with exit code {process.exit_code}.\n{self._log_end(name)}")

    def status(self) -> list[ProcessStatus]:
        """All processes, in the order in which they were given."""
        with self._changed:
            return [_status(process) for process in self._processes.values()]

    def names(self, region: str | None = None, part: str | None = None) -> list[str]:
        """The processes of ``region`` and/or those whose name ends with ``/part`` (or is ``part``)."""
        with self._changed:
            return [
                name
                for name, process in self._processes.items()
                if (region is None or process.spec.region == region) and (part is None or name.rpartition("/")[2] == part)
            ]

    def spec(self, name: str) -> ProcessSpec:
        """The description of a process. Raises KeyError."""
        with self._changed:
            return self._processes[name].spec

    def pid(self, name: str) -> int | None:
        """The pid of a process that runs."""
        with self._changed:
            return self._processes[name].pid

    # what breaks

    def hold(self, names: Iterable[str], reason: str, signal_: signal.Signals = signal.SIGKILL) -> None:
        """End the processes at once, with everything below them, and keep them down until `release`. Returns when they are gone."""
        with self._changed:
            held = [self._processes[name] for name in names]
            for process in held:
                process.holds.add(reason)
        for process in held:
            self._signal(process, signal_)
        self._await_exit(held, within_s=30.0)

    def release(self, names: Iterable[str], reason: str) -> None:
        """Undo `hold`: start what nobody else holds, in the order of dependencies, and wait until it is ready.

        Whatever of ``names`` nobody holds and does not run is started too, so that a release that failed can be tried again.
        """
        with self._changed:
            started, stale = [], []
            for name in names:
                process = self._processes[name]
                process.holds.discard(reason)
                if not process.holds and process.state in {STOPPED, FAILED}:
                    process.state = WAITING  # from here on it is nobody else's to start again
                    started.append(name)
                    if process.pid is not None:  # it was not ready in time
                        stale.append(process)
        for process in stale:
            self._signal(process, signal.SIGKILL)
        self._await_exit(stale, within_s=30.0)
        self._run(started)

    def kill(self, name: str, signal_: signal.Signals = signal.SIGKILL) -> None:
        """End a process without holding it; one with ``restart`` comes back by itself."""
        with self._changed:
            process = self._processes[name]
        self._signal(process, signal_)

    def restart(self, name: str, environment: dict[str, str] | None = None) -> None:
        """Stop a process as a deployment does and start it, with ``environment`` added to its own (none: exactly its own)."""
        reason = f"restart-{next(self._ids)}"
        with self._changed:
            process = self._processes[name]
            process.extra_environment = dict(environment or {})
            process.holds.add(reason)
        self._signal(process, process.spec.stop_signal)
        if not self._await_exit([process], within_s=process.spec.stop_within_s):
            self._signal(process, signal.SIGKILL)
            self._await_exit([process], within_s=30.0)
        self.release([name], reason)

    def freeze(self, names: Iterable[str], reason: str) -> None:
        """Stop the processes in their tracks (SIGSTOP): their ports stay open and nothing answers."""
        with self._changed:
            frozen = [self._processes[name] for name in names]
            for process in frozen:
                process.freezes.add(reason)
        for process in frozen:
            self._signal(process, signal.SIGSTOP)
            self._set(process, FROZEN if process.pid else process.state)

    def thaw(self, names: Iterable[str], reason: str) -> None:
        """Undo `freeze`."""
        with self._changed:
            thawed = [self._processes[name] for name in names]
            for process in thawed:
                process.freezes.discard(reason)
        for process in thawed:
            if not process.freezes and process.pid is not None:
                self._signal(process, signal.SIGCONT)
                self._set(process, READY)

    def close(self) -> None:
        """End the lab: all processes, the state directory and the warden. Safe to call twice, and from a signal handler's thread."""
        with self._changed:
            self._ending = True
            self._changed.notify_all()
        with contextlib.suppress(OSError):
            self._control.shutdown(socket.SHUT_RDWR)
        self._warden.wait(timeout=30)
        if self._state.is_there or self._warden.returncode != 0:  # the warden itself was killed: finish its work
            sweep(self._state.identity)
            if self._state.is_there:
                remove_directory(self._plan.path)
        with contextlib.suppress(OSError):
            os.close(self._state.lock)
        self.ended.set()

    # how it is done

    def _run(self, names: list[str]) -> None:
        """Start ``names`` in parallel, each when those of its predecessors that are in ``names`` too are ready."""
        errors: deque[Exception] = deque()
        batch = set(names)

        def work(process: _Process) -> None:
            try:
                self._bring_up(process, batch)
            except Exception as error:  # noqa: BLE001 - whatever it is, the caller raises it
                self._set(process, FAILED)
                errors.append(error)

        with self._changed:
            for name in names:
                self._processes[name].state = WAITING
        threads = [threading.Thread(target=work, args=(self._processes[name],), name=f"start {name}", daemon=True) for name in names]
        for thread in threads:
            thread.start()
        for thread in threads:
            while thread.is_alive() and not errors:
                thread.join(0.05)
        if errors:
            raise errors[0]

    def _bring_up(self, process: _Process, batch: set[str]) -> None:
        spec = process.spec
        self._await_needed(spec, batch)
        if spec.prepare and not process.prepared:
            self._set(process, PREPARING)
            spec.prepare()
            process.prepared = True
        self._set(process, STARTING)
        self._spawn(process)
        self._await_ready(process)

    def _await_needed(self, spec: ProcessSpec, batch: set[str]) -> None:
        """Wait until what ``spec`` comes after runs, as far as it is of the same batch. What a fault froze or took down meanwhile is as
        the fault wants it, and not waited for. Raises `StartError`."""
        with self._changed:
            needed = [self._processes[name] for name in spec.after if name in batch]
            deadline = time.monotonic() + self._longest_start_s(spec, batch)
            while late := [other.spec.name for other in needed if other.state not in {READY, FROZEN} and not other.holds]:
                self._check_alive()
                if failed := [other.spec.name for other in needed if other.state == FAILED]:
                    raise StartError(f"{spec.name} needs {', '.join(failed)}, which did not start")
                if time.monotonic() > deadline:
                    raise StartError(f"{spec.name} needs {', '.join(late)}, which did not become ready")
                self._changed.wait(1.0)

    def _longest_start_s(self, spec: ProcessSpec, batch: set[str]) -> float:
        """How long what ``spec`` comes after may take to start, one after the other."""
        before = [self._processes[name].spec for name in spec.after if name in batch]
        return max((each.ready_within_s + STARTED_WITHIN_S + self._longest_start_s(each, batch) for each in before), default=0.0)

    def _await_ready(self, process: _Process) -> None:
        spec = process.spec
        deadline = time.monotonic() + spec.ready_within_s
        pause = 0.01
        while not self._is_ready(process):
            self._check_alive()
            if process.holds:
                return  # a fault took it down while it started
            if process.pid is None:
                raise StartError(f"{spec.name} ended with code {process.exit_code} while starting.\n{self._log_end(spec.name)}")
            if time.monotonic() > deadline:
                raise StartError(f"{spec.name} was not ready within {spec.ready_within_s:g} s.\n{self._log_end(spec.name)}")
            time.sleep(pause)
            pause = min(pause * 1.5, 0.1)
        with self._changed:
            if process.pid is not None:
                self._set(process, FROZEN if process.freezes else READY)

    def _spawn(self, process: _Process) -> None:
        spec = process.spec
        answer = self._ask(
            do="spawn",
            argv=[str(part) for part in spec.argv],
            environment=self._environment() | {key: str(value) for key, value in spec.environment.items()} | process.extra_environment,
            directory=str(spec.directory) if spec.directory else None,
            user=spec.user,
            log=str(self.log_file(spec.name)),
        )
        if "error" in answer:
            raise StartError(f"{spec.name} cannot be started ({answer['error']}): {' '.join(spec.argv)}")
        pid = answer["pid"]
        with self._changed:
            process.pid, process.exit_code = pid, None
            process.starts += 1
            self._by_pid[pid] = process
            if pid in self._early_exits:
                self._exited(pid, self._early_exits.pop(pid))
        if process.holds:
            self._signal(process, signal.SIGKILL)
        elif process.freezes:
            self._signal(process, signal.SIGSTOP)

    def _is_ready(self, process: _Process) -> bool:
        if process.pid is None:
            return False
        if process.spec.ready is None or process.freezes:
            return True
        try:
            return process.spec.ready()
        except (OSError, Refusal):
            return False

    def log_file(self, name: str) -> Path:
        """Where the output of a process goes."""
        return self._plan.logs / (name.replace("/", ".") + ".log")

    def _log_end(self, name: str, lines: int = 15) -> str:
        try:
            end = self.log_file(name).read_text(errors="replace").splitlines()[-lines:]
        except OSError:
            end = []
        return "\n".join(["The end of its log:", *(f"  {line}" for line in end)]) if end else "It logged nothing."

    def _environment(self) -> dict[str, str]:
        kept = {key: os.environ[key] for key in ("PATH", "HOME", "LANG", "LC_ALL", "TZ") if key in os.environ}
        return kept | {
            "PYTHONPATH": str(ROOT),
            "PYTHONUNBUFFERED": "1",
            "TMPDIR": str(self._plan.path / "tmp"),
            CLOCK_VARIABLE: self._plan.clock.to_environment(),
            DIRECTORY_VARIABLE: self._plan.directory,
            ID_VARIABLE: self._state.identity,
        }

    def _signal(self, process: _Process, number: signal.Signals) -> None:
        pid = process.pid
        if pid is not None:
            self._ask(do="signal", pid=pid, signal=int(number))

    def _await_exit(self, processes: list[_Process], within_s: float) -> bool:
        with self._changed:
            return self._changed.wait_for(lambda: self._ending or all(process.pid is None for process in processes), timeout=within_s)

    def _set(self, process: _Process, state: str) -> None:
        with self._changed:
            process.state, process.since = state, time.time()
            self._changed.notify_all()
            status = _status(process)
        if not self._ending:
            self._on_change(status)

    def _check_alive(self) -> None:
        if self._ending:
            raise LabEnded("the lab is ending")

    def _ask(self, **request: Any) -> dict[str, Any]:
        """Send a request to the warden and wait for its answer. Raises `LabEnded`."""
        number = next(self._ids)
        with self._changed:
            self._check_alive()
            try:
                self._control.sendall(json.dumps({"id": number, **request}).encode() + b"\n")
            except OSError as error:
                raise LabEnded("the lab's warden is gone") from error
            self._changed.wait_for(lambda: number in self._answers or self._ending)
            self._check_alive()
            return self._answers.pop(number)

    def _listen(self) -> None:
        """Receive the warden's answers and the ends of processes until the warden is gone."""
        with contextlib.suppress(OSError), self._control.makefile("rb") as lines:
            for line in lines:
                message = json.loads(line)
                with self._changed:
                    if "exit" not in message:
                        self._answers[message["id"]] = message
                        self._changed.notify_all()
                    elif message["exit"] in self._by_pid:
                        self._exited(message["exit"], message["code"])
                    else:
                        self._early_exits[message["exit"]] = message["code"]
        with self._changed:
            self._ending = True
            self._changed.notify_all()
        self.ended.set()

    def _exited(self, pid: int, code: int) -> None:
        process = self._by_pid.pop(pid)
        starting = process.state == STARTING
        lived = time.time() - process.since
        process.pid, process.exit_code = None, code
        waiting = process.state in {WAITING, PREPARING}  # it is about to be started anew
        self._set(process, process.state if waiting else STOPPED if process.holds else FAILED)
        if process.spec.restart and not process.holds and not starting and not waiting:
            process.failures = 0 if lived > STABLE_AFTER_S else process.failures
            self._restart_later(process)

    def _restart_later(self, process: _Process) -> None:
        """Start again what ended by itself, as ECS does: soon, then with longer and longer pauses."""
        pause = BACK_OFF_S[min(process.failures, len(BACK_OFF_S) - 1)]
        process.failures += 1
        timer = threading.Timer(pause, self._restart, args=(process,))
        timer.daemon = True
        timer.start()

    def _restart(self, process: _Process) -> None:
        with self._changed:
            if self._ending or process.holds or process.pid is not None or process.state in {WAITING, PREPARING, STARTING}:
                return
        try:
            self._run([process.spec.name])
        except StartError:
            self._restart_later(process)
        except LabEnded:
            pass


def _status(process: _Process) -> ProcessStatus:
    spec = process.spec
    return ProcessStatus(
        name=spec.name,
        region=spec.region,
        state=process.state,
        since=process.since,
        pid=process.pid,
        exit_code=process.exit_code,
        starts=process.starts,
        held_by=tuple(sorted(process.holds)),
        frozen_by=tuple(sorted(process.freezes)),
    )
