"""What the store costs: CPU seconds until it serves, CPU while nobody shops, and memory, by process. ``python -m tests.lab.footprint``.

moto stands for the local AWS and is not counted. CPU time is that of the processes and all below them, so a busy machine changes the wall
time of the start and little else.
"""

from __future__ import annotations

import contextlib
import os
import time
from pathlib import Path

from lab import data, store
from lab.warden import descendants
from tests.lab.data.test_dynamodb import moto
from tests.lab.rig import rig

IDLE_S = 30.0
TICKS = os.sysconf("SC_CLK_TCK")


def cpu_s(root: int) -> float:
    """CPU seconds of a process, its descendants, and those of its children that have ended."""
    total = 0
    for pid in (root, *descendants(root)):
        with contextlib.suppress(OSError):
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
            total += sum(map(int, fields[11:15]))
    return total / TICKS


def memory_mb(root: int) -> float:
    """Proportional set size of a process and its descendants."""
    total = 0
    for pid in (root, *descendants(root)):
        with contextlib.suppress(OSError):
            lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
            total += sum(int(line.split()[1]) for line in lines if line.startswith("Pss:"))
    return total / 1024


def main() -> None:
    """Start it, wait, print a table."""
    with rig() as lab:
        lab.start(moto(lab))
        wall = lab.start([*data.processes(lab.plan), *store.processes(lab.plan)], within_s=240)
        pids = {name: process.pid for name, process in lab.running.items() if not name.endswith("/moto")}
        ready = {name: cpu_s(pid) for name, pid in pids.items()}
        time.sleep(IDLE_S)
        rows = [(name, ready[name], 100 * (cpu_s(pid) - ready[name]) / IDLE_S, memory_mb(pid)) for name, pid in pids.items()]
    print(f"{'process':26} {'start CPU s':>12} {'idle CPU %':>11} {'PSS MB':>8}")
    total = ("all", sum(row[1] for row in rows), sum(row[2] for row in rows), sum(row[3] for row in rows))
    for name, start_s, idle, memory in [*rows, total]:
        print(f"{name:26} {start_s:12.2f} {idle:11.1f} {memory:8.1f}")
    print(f"serves after {wall:.1f} s (wall)")


if __name__ == "__main__":
    main()
