"""``python -m lab.aws --plan DIR/plan.json``: the lab's AWS, until SIGTERM. Prints nothing but warnings."""

from __future__ import annotations

import argparse
import logging
import signal
import sys
import threading
from pathlib import Path

from lab.aws.control import Control
from lab.aws.gateway import Gateway
from lab.plan import LabPlan


def main(arguments: list[str] | None = None) -> int:
    """Serve until SIGTERM or SIGINT; exit code 2 where the plan is unusable or a port is taken."""
    parser = argparse.ArgumentParser(prog="python -m lab.aws", description=__doc__)
    parser.add_argument("--plan", type=Path, required=True, help="the lab's plan.json")
    options = parser.parse_args(arguments)
    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(levelname)s %(name)s: %(message)s", stream=sys.stderr)
    try:
        plan = LabPlan.load(options.plan.parent)
    except (OSError, ValueError, KeyError, TypeError) as error:
        print(f"lab.aws: {options.plan}: not a usable plan: {error}", file=sys.stderr)
        return 2
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    gateway = Gateway(plan)
    control = Control(gateway)
    try:
        gateway.open()
        control.open()
    except OSError as error:
        print(f"lab.aws: cannot listen: {error}", file=sys.stderr)
        gateway.close()
        return 2
    stop.wait()
    control.close()
    gateway.close()
    return 0


if __name__ == "__main__":
    sys.exit(main())
