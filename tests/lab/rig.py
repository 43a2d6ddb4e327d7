"""Runs processes of the lab for a test, from their specs, and takes all of them down again."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import time
from functools import partial
from typing import TYPE_CHECKING, Any

from lab.admin import Refusal
from lab.clock import CLOCK_VARIABLE
from lab.plan import LabPlan
from lab.warden import remove_shared_memory, signal_tree
from tests.folders import make_folder

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from lab.process import ProcessSpec


class Rig:
    """A plan in a directory of its own, and the processes that were started of it."""

    def __init__(self, speed: float = 1.0) -> None:
        self.path = make_folder("rig")
        self.plan = LabPlan.make(self.path, speed=speed)
        self.plan.logs.mkdir()
        self.plan.save()
        self.running: dict[str, subprocess.Popen[bytes]] = {}

    def start(self, specs: Iterable[ProcessSpec], within_s: float = 60.0) -> float:
        """Start processes at once and wait until all are ready; returns how long that took, in seconds."""
        began = time.monotonic()
        specs = list(specs)
        for spec in specs:
            with (self.plan.logs / f"{spec.name.replace('/', '-')}.out").open("ab") as log:
                self.running[spec.name] = subprocess.Popen(
                    spec.argv,
                    env=dict(os.environ) | {CLOCK_VARIABLE: self.plan.clock.to_environment()} | dict(spec.environment),
                    cwd=spec.directory,
                    stdout=log,
                    stderr=log,
                    stdin=subprocess.DEVNULL,
                )
        for spec in specs:
            if spec.ready is not None:
                wait_for(f"{spec.name} to be ready", spec.ready, began + within_s - time.monotonic(), partial(self.log, spec.name))
        return time.monotonic() - began

    def stop(self, name: str, number: int = signal.SIGTERM, within_s: float = 15.0) -> None:
        """End one process with all below it."""
        process = self.running.pop(name)
        if number == signal.SIGKILL:
            signal_tree(process.pid, number)
        else:
            process.send_signal(number)
        process.wait(within_s)

    def log(self, name: str) -> str:
        """The end of what a process has printed."""
        file = self.plan.logs / f"{name.replace('/', '-')}.out"
        return file.read_text(errors="replace")[-3000:] if file.exists() else ""

    def close(self) -> None:
        """End everything and remove the directory."""
        creators = set()
        for file in self.path.rglob("postmaster.pid"):
            with contextlib.suppress(OSError, ValueError, IndexError):
                creators.add(int(file.read_text().splitlines()[0]))
        for process in self.running.values():
            signal_tree(process.pid, signal.SIGKILL)
        for process in self.running.values():
            process.wait(10)
        remove_shared_memory(creators)
        for _ in range(20):
            shutil.rmtree(self.path, ignore_errors=True)
            if not self.path.exists():
                return
            time.sleep(0.1)


@contextlib.contextmanager
def rig(speed: float = 1.0) -> Iterator[Rig]:
    """A rig for a ``with`` block."""
    made = Rig(speed)
    try:
        yield made
    finally:
        made.close()


def wait_for(what: str, is_true: Callable[[], Any], within_s: float = 15.0, explain: Callable[[], str] = str) -> Any:
    """Wait for something true and return it; connection errors and refusals mean "not yet"."""
    deadline = time.monotonic() + within_s
    problem = ""
    while True:
        try:
            if value := is_true():
                return value
        except (OSError, Refusal) as error:
            problem = repr(error)
        if time.monotonic() > deadline:
            raise AssertionError(f"waited {within_s:g} s for {what} {problem}\n{explain()}")
        time.sleep(0.05)
