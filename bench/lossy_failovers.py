"""Failovers with loss, one after the other: is the report of missing transactions exact each time?

    python bench/lossy_failovers.py --runs 5

Each run is the one of `tests/lab/runbooks/test_recovery.py`, on databases of its own: orders come in, replication is cut, the Orders
runbook promotes the other Region, the report is made and held against the clients' own journal (no false entry, none missed, every row in
full), and the old primary is rebuilt. Exit code 0 if all runs held; the first that does not ends it with what differed.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from tests.lab.runbooks.test_recovery import lose_and_recover, recovering


def main() -> int:
    """Run, and print a line for each."""
    options = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    options.add_argument("--runs", type=int, default=5)
    options.add_argument("--json", action="store_true", help="one JSON object a run")
    chosen = options.parse_args()
    for number in range(1, chosen.runs + 1):
        began = time.monotonic()
        with recovering() as cloud:
            losses = lose_and_recover(cloud)
        took = time.monotonic() - began
        seen = {"run": number, "acknowledged": losses.acknowledged, "lost": losses.lost, "reported": losses.lost, "wall_s": round(took, 1)}
        text = "run {run}: {acknowledged} acknowledged, {lost} lost, exactly these reported; {wall_s} s".format(**seen)
        print(json.dumps(seen) if chosen.json else text, flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
