"""``python -m lab.aws --plan DIR/plan.json``: the lab's AWS, until SIGTERM. Prints nothing but warnings."""

from __future__ import annotations

import argparse
import contextlib
import logging
import resource
import signal
import sys
import threading
from pathlib import Path

from lab import dns, runbooks
from lab.aws.control import Control
from lab.aws.gateway import Gateway
from lab.aws.ingestion import Ingestion
from lab.aws.world import LocalWorld, Options
from lab.plan import LabPlan

# A client that a fault lets hang holds a descriptor. Not the hard limit, which may be a billion: some of the programs that inherit this one
# walk through all numbers below it.
MOST_DESCRIPTORS = 65_536


def allow_descriptors() -> None:
    """Raise this process's limit on open files, which often is 1,024, as far as it may be raised."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = MOST_DESCRIPTORS if hard == resource.RLIM_INFINITY else min(hard, MOST_DESCRIPTORS)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        with contextlib.suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def main(arguments: list[str] | None = None) -> int:
    """Serve until SIGTERM or SIGINT; exit code 2 where the plan is unusable or a port is taken."""
    parser = argparse.ArgumentParser(prog="python -m lab.aws", description=__doc__)
    parser.add_argument("--plan", type=Path, required=True, help="the lab's plan.json")
    parser.add_argument(
        "--ingestion-delay", default="2:10", metavar="LOW:HIGH", help="lab seconds until CloudWatch sees a datapoint (2:10)"
    )
    parser.add_argument("--seed", type=int, default=1, help="seed of the ingestion delays")
    options = parser.parse_args(arguments)
    try:
        low, high = (float(part) for part in options.ingestion_delay.split(":"))
    except ValueError:
        parser.error("--ingestion-delay: write it as LOW:HIGH, lab seconds, such as 2:10")
    if not 0 <= low <= high:
        parser.error("--ingestion-delay: LOW must be at least 0 and at most HIGH")
    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(levelname)s %(name)s: %(message)s", stream=sys.stderr)
    try:
        plan = LabPlan.load(options.plan.parent)
    except (OSError, ValueError, KeyError, TypeError) as error:
        print(f"lab.aws: {options.plan}: not a usable plan: {error}", file=sys.stderr)
        return 2
    allow_descriptors()
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    gateway = Gateway(LocalWorld(plan, Options(Ingestion(low, high, options.seed))))
    control = Control(gateway)
    names: dns.Stoppable | None = None
    try:
        gateway.open()
        names = dns.start(gateway.world, plan)
        runbooks.register(gateway.world, plan)
        control.open()
    except OSError as error:
        print(f"lab.aws: cannot listen: {error}", file=sys.stderr)
        if names is not None:
            names.stop()
        gateway.close()
        return 2
    stop.wait()
    control.close()
    names.stop()
    gateway.close()
    return 0


if __name__ == "__main__":
    sys.exit(main())
