"""What a sandbox's child writes to stdout and stderr, and the clock by which its lines are dated."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING, Final

from canaries.runtime.api import LogLine

if TYPE_CHECKING:
    import subprocess

    from canaries.runtime.api import RunRequest

LINES_KEPT: Final = 2000
LINE_BYTES: Final = 64 * 1024
SLOW_MACHINE_S: Final = 2.5


class Clock:
    """The request's clock, read in the parent."""

    def __init__(self, lab_clock: str | None) -> None:
        self.wall0, self.origin, self.speed = (float(part) for part in lab_clock.split(",")) if lab_clock else (0.0, 0.0, 1.0)

    def now(self) -> float:
        return self.origin + (time.time() - self.wall0) * self.speed

    def wall(self, seconds: float) -> float:
        """Wall seconds of so many seconds on this clock.

        A lab that runs faster than the wall gets a little more: this machine's pauses do not shrink with its seconds.
        """
        return seconds / self.speed + (SLOW_MACHINE_S if self.speed > 1 else 0.0)


class LogBuffer:
    """Reads what the child writes to stdout and stderr in a thread of its own; keeps the first and the last lines of a run."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self._process = process
        self._lock = threading.Lock()
        self._request: RunRequest | None = None
        self._clock = Clock(None)
        self._head: list[LogLine] = []
        self._tail: list[LogLine] = []
        self._dropped = 0
        self._thread = threading.Thread(target=self._read, name="sandbox-log", daemon=True)
        self._thread.start()

    def begin(self, request: RunRequest, clock: Clock) -> None:
        with self._lock:
            self._request, self._clock = request, clock
            self._head, self._tail, self._dropped = [], [], 0

    def end(self) -> tuple[LogLine, ...]:
        """The run's lines. Waits a moment for what is still in the pipe."""
        settle = time.monotonic() + 0.5
        seen = -1
        while time.monotonic() < settle and seen != (seen := len(self._head) + len(self._tail) + self._dropped):
            time.sleep(0.02)
        with self._lock:
            self._request = None
            cut = [LogLine(self._tail[0].timestamp, f"[{self._dropped} lines left out]")] if self._dropped else []
            return (*self._head, *cut, *self._tail)

    def close(self) -> None:
        self._thread.join(2)
        if self._process.stdout is not None and not self._thread.is_alive():
            self._process.stdout.close()

    def _read(self) -> None:
        stream = self._process.stdout
        assert stream is not None
        while data := stream.readline(LINE_BYTES):
            line = LogLine(self._clock.now(), data.decode("utf-8", "replace").rstrip("\n"))
            with self._lock:
                request = self._request
                if request is None:
                    continue
                if len(self._head) < LINES_KEPT:
                    self._head.append(line)
                else:
                    self._tail.append(line)
                    if len(self._tail) > LINES_KEPT:
                        del self._tail[0]
                        self._dropped += 1
                        continue
            if request.log is not None:
                request.log(line)
