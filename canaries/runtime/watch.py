"""What a sandbox's processes use, and how to be rid of them. Reads /proc; where there is none (macOS), nothing is measured or limited.

A canary's processes carry a token in their environment, so that a script that forks and detaches is still found.
"""

from __future__ import annotations

import contextlib
import os
import signal
from dataclasses import dataclass
from pathlib import Path

PROC = Path("/proc")
PAGE = os.sysconf("SC_PAGE_SIZE")
MB = 1 << 20


@dataclass(slots=True)
class Peak:
    """The largest value seen, in MB."""

    mb: float = 0.0

    def see(self, mb: float) -> None:
        """Remember ``mb`` if it is more than before."""
        self.mb = max(self.mb, mb)


def descendants(pid: int) -> list[int]:
    """``pid`` and all processes below it."""
    found, queue = [], [pid]
    while queue:
        current = queue.pop()
        found.append(current)
        with contextlib.suppress(OSError):
            for task in (PROC / str(current) / "task").iterdir():
                with contextlib.suppress(OSError):
                    queue += [int(child) for child in (task / "children").read_text().split()]
    return found


def memory_mb(pid: int, token: str, limit_mb: float) -> float:
    """Resident memory of a sandbox, in MB, shared pages counted once where that decides about the limit."""
    pids = descendants(pid)
    resident = sum(_resident(each) for each in pids)
    if resident > limit_mb:  # shared pages were counted for every process; look closer, at the detached ones too
        return sum(_proportional(each) for each in {*pids, *marked(token)})
    return resident


def marked(token: str) -> list[int]:
    """All processes of this user that carry ``token`` in their environment."""
    needle = token.encode()
    found = []
    for entry in PROC.iterdir() if PROC.is_dir() else ():
        if entry.name.isdigit() and int(entry.name) != os.getpid():
            with contextlib.suppress(OSError):
                if needle in (entry / "environ").read_bytes():
                    found.append(int(entry.name))
    return found


def kill_marked(token: str) -> None:
    """Kill every process that carries ``token``, however it detached itself."""
    for _ in range(3):  # a process may fork while we look
        pids = marked(token)
        if not pids:
            return
        for pid in pids:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(pid, signal.SIGKILL)


def disk_mb(folder: Path) -> float:
    """Space that the files below ``folder`` take, in MB (blocks, so that a sparse file counts as what it holds)."""
    total = 0
    queue = [str(folder)]
    while queue:
        with contextlib.suppress(OSError), os.scandir(queue.pop()) as entries:
            for entry in entries:
                with contextlib.suppress(OSError):
                    if entry.is_dir(follow_symlinks=False):
                        queue.append(entry.path)
                    else:
                        total += entry.stat(follow_symlinks=False).st_blocks * 512
    return total / MB


def _resident(pid: int) -> float:
    try:
        return int((PROC / str(pid) / "statm").read_text().split()[1]) * PAGE / MB
    except (OSError, IndexError):
        return 0.0


def _proportional(pid: int) -> float:
    try:
        for line in (PROC / str(pid) / "smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                return int(line.split()[1]) / 1024
    except OSError:
        return _resident(pid)
    return 0.0
