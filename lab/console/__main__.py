"""``python -m lab.console DIR``: serve the console of the lab in DIR until SIGTERM."""

from __future__ import annotations

import signal
import sys
import threading
from pathlib import Path

from lab.console.server import ConsoleServer
from lab.console.watch import Watch
from lab.plan import LabPlan
from topology import load


def main(directory: Path) -> int:
    """Serve until SIGTERM."""
    plan = LabPlan.load(directory)
    watch = Watch(plan, load(directory / "topology.yaml"))
    server = ConsoleServer(plan.console_port, watch)
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    watch.start()
    server.start()
    stop.wait()
    return 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
