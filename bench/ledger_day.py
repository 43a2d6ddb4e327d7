"""A day of the ledger in the lab, with a Region lost and a writer failed over: what is left of its orders, and are customers' all there?

    python bench/ledger_day.py [--hours 24] [--speed 40] [--out FILE.json]

Brings up a lab of its own (two Regions, no monitoring) with shoppers, and runs the real ledger bundle of every Region in the runtime
stand-in, each five minutes of lab time, as Synthetics would; a Region that is down runs none. Meanwhile, as parts of the day:

    4/24   us-west-2 is lost; an hour later it is back
    10/24  us-east-1, where the writer is, is lost: drained, Orders failed over by the runbooks; an hour later it is back, rebuilt, enabled

At the end PostgreSQL itself is asked, in both Regions. Every synthetic order has to be one that a book still holds and too young to be
deleted; then each ledger runs once more without placing and with nothing to keep, and none may be left. Every order that the store
acknowledged to a customer (the shoppers' journal) has to be there, but those that the failover itself lost: they are counted right after
it, before a ledger could have touched anything in the new primary.

Exit: 0 all of that is so, 1 it is not. 24 hours at speed 40 take 36 minutes on two cores that have nothing else to do.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import shutil
import signal
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psycopg
from botocore.exceptions import BotoCoreError, ClientError

ROOT = Path(__file__).resolve().parents[1]
sys.path[0] = str(ROOT)  # in place of this folder, whose files are no modules

from canaries.bundle import build
from canaries.config import ledger_config
from canaries.runtime import RunRequest, Sandbox
from lab import admin
from lab.topology import lab_topology
from tests.lab.conftest import UP_WITHIN_S, Lab, running_lab
from topology import Topology

EAST, WEST = "us-east-1", "us-west-2"
EVERY_S = 300.0
KEEP_S = 900.0
READ_WITHIN_WALL_S = 2.0  # replication takes wall time; a run waits so long in vain for each order while a Region is away
SUSPECT_WALL_S = 0.5
TIMEOUT_S = 270
HOUR_S = 3600.0
SHOPPERS = {"peak_per_min": 0.4, "follow_day": False, "to": "name", "buy_share": 0.5}


@dataclass(slots=True)
class Teller:
    """The ledger of one Region, run by run, and what its runs came to."""

    lab: Lab
    topology: Topology
    region: str
    sandbox: Sandbox
    runs: Counter[str] = field(default_factory=Counter)
    placed: int = 0
    deleted: int = 0
    lost: list[str] = field(default_factory=list)
    reasons: Counter[str] = field(default_factory=Counter)

    def run(self, **changes: Any) -> None:
        """One run of the bundle on the lab's clock."""
        plan = self.lab.plan
        speed = plan.clock.speed
        patience = {"keep_s": KEEP_S, "read_within_s": READ_WITHIN_WALL_S * speed, "suspect_s": SUSPECT_WALL_S * speed}
        config = {**ledger_config(self.topology, self.region), **patience, **changes}
        built = build("ledger", config)
        path = plan.path / f"ledger-{self.region}.zip"
        path.write_bytes(built.data)
        result = self.sandbox.run(
            RunRequest(
                canary="retail-ledger",
                handler=built.handler,
                bundle=path,
                region=self.region,
                artifacts=f"s3://{bucket(self.region)}/runs",
                credentials=plan.aws_environment("admin", self.region),
                timeout_s=TIMEOUT_S,
                lab_clock=plan.clock.to_environment(),
            )
        )
        self.runs["passed" if result.passed else "failed"] += 1
        if not result.passed:
            self.reasons[result.state_reason.partition(";")[0][:110]] += 1
        for each in result.log:
            if each.message.startswith('{"crosswatch":"ledger"'):
                line = json.loads(each.message)
                self.placed += len(line["placed"])
                self.deleted += line["deleted"]
                self.lost += [lost["id"] for lost in line["lost"]]

    def figures(self) -> dict[str, Any]:
        """What its runs came to, as plain data."""
        return {"runs": self.runs, "placed": self.placed, "deleted": self.deleted, "lost": self.lost, "reasons": self.reasons}

    def schedule(self, down: set[str], over: threading.Event) -> None:
        """Runs on the schedule until the day is over; a run that takes too long swallows the next, and a lost Region runs nothing."""
        clock = self.lab.plan.clock
        while not over.is_set():
            due = (clock.now() // EVERY_S + 1) * EVERY_S
            if over.wait(clock.wall_seconds(due - clock.now())):
                return
            if self.region in down:
                self.runs["left out"] += 1
                continue
            self.run()


def main() -> int:
    options = _options()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that the lab is taken down, however this ends
    folder = Path(tempfile.mkdtemp(prefix="ledger-day-"))
    folder.chmod(0o755)  # the databases run as another user
    try:
        with (
            running_lab(folder / "lab", "--no-deploy", "--speed", f"{options.speed:g}") as lab,
            Sandbox("east") as east,
            Sandbox("west") as west,
        ):
            lab.wait("the store to be up", lambda: "are up" in lab.output, UP_WITHIN_S)
            lab.wait("the shoppers to come", lambda: shoppers_are_there(lab), UP_WITHIN_S)
            result = day(lab, {EAST: east, WEST: west}, options.hours)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    print(text(result))
    if options.out:
        options.out.write_text(json.dumps(result, indent=1) + "\n")
    return 0 if result["held"] else 1


def day(lab: Lab, sandboxes: dict[str, Sandbox], hours: float) -> dict[str, Any]:
    """The whole day; returns its figures."""
    clock, began = lab.plan.clock, lab.plan.clock.now()
    down: set[str] = set()
    over = threading.Event()
    topology = lab_topology(lab.plan)
    tellers = {region: Teller(lab, topology, region, sandbox) for region, sandbox in sandboxes.items()}
    for region in tellers:
        where = {} if region == EAST else {"CreateBucketConfiguration": {"LocationConstraint": region}}
        lab.client("s3", region).create_bucket(Bucket=bucket(region), **where)
    admin.call(lab.plan.traffic_port, "PUT", "/load", SHOPPERS)
    threads = [threading.Thread(target=teller.schedule, args=(down, over), daemon=True) for teller in tellers.values()]
    for thread in threads:
        thread.start()

    def until(share: float) -> None:
        clock.sleep(max(0.0, began + share * hours * HOUR_S - clock.now()))

    try:
        until(4 / 24)
        with lost_region(lab, WEST, down):
            until(5 / 24)
        until(10 / 24)
        with lost_region(lab, EAST, down):
            steps = {
                "drain": lab.runbook(WEST, "DrainRegion", Region=EAST),
                "fail over": lab.runbook(WEST, "FailoverOrders", FromRegion=EAST),
            }
            gone = set(journal(lab)) - orders(lab, WEST, synthetic=False)
            until(11 / 24)
        steps["rebuild"] = lab.runbook(WEST, "RebuildRegion", Region=EAST, Database="orders")
        steps["enable"] = lab.runbook(WEST, "EnableRegion", Region=EAST)
        until(1.0)
    finally:
        over.set()
        admin.call(lab.plan.traffic_port, "PUT", "/load", {**SHOPPERS, "peak_per_min": 0})
        for thread in threads:
            thread.join(60)
    return judged(lab, tellers, steps, gone, (clock.now() - began) / HOUR_S)


def judged(lab: Lab, tellers: dict[str, Teller], steps: dict[str, str], gone: set[str], hours: float) -> dict[str, Any]:
    """What PostgreSQL says, before and after the last sweep."""
    now = lab.plan.clock.now()
    books = [book(lab, tellers[region].topology.workload, region) for region in tellers]
    held = {order["id"]: now - order["acknowledged"] for kept in books for order in kept["open"]}
    marks = [f"+{intent['mark']}@" for kept in books for intent in kept["intents"]]
    left = {region: sorted(orders(lab, region, synthetic=True)) for region in tellers}
    unknown = sorted(
        each
        for each, email in {**customers_of(lab, EAST), **customers_of(lab, WEST)}.items()
        if each not in held and not any(mark in email for mark in marks)
    )
    overdue = sorted(each for found in left.values() for each in found if held.get(each, 0.0) > KEEP_S + 2 * EVERY_S)
    for teller in tellers.values():
        teller.run(orders_per_run=0, keep_s=0.0)
    time.sleep(2)  # the last deletes reach the replica
    acknowledged = set(journal(lab))
    missing = {region: sorted(acknowledged - gone - orders(lab, region, synthetic=False)) for region in tellers}
    after = {region: sorted(orders(lab, region, synthetic=True)) for region in tellers}
    checks = {
        "every runbook succeeded": all(status == "Success" for status in steps.values()),
        "no synthetic order that no book holds": not unknown,
        "no synthetic order older than it may be": not overdue,
        "none after the last sweep": not any(after.values()),
        "every customer's order is there": not any(missing.values()),
    }
    return {
        "hours": round(hours, 2),
        "ledgers": {region: teller.figures() for region, teller in tellers.items()},
        "runbooks": steps,
        "customers": {"acknowledged": len(acknowledged), "lost by the failover itself": len(gone), "missing": missing},
        "synthetic": {
            "held by books": len(held),
            "of unknown fate": len(marks),
            "left": left,
            "in no book": unknown,
            "overdue": overdue,
            "after the sweep": after,
        },
        "checks": checks,
        "held": all(checks.values()),
    }


@contextlib.contextmanager
def lost_region(lab: Lab, region: str, down: set[str]) -> Iterator[None]:
    """A Region that is down, with its canaries, for as long as the block lasts."""
    down.add(region)
    lab.ask("inject", name="region-down", region=region, timeout_s=180)
    try:
        yield
    finally:
        lab.ask("heal", name="region-down", region=region, timeout_s=300)
        down.discard(region)


def shoppers_are_there(lab: Lab) -> bool:
    """Whether the shoppers' process answers."""
    try:
        return bool(admin.call(lab.plan.traffic_port, "GET", "/status"))
    except OSError:
        return False


def orders(lab: Lab, region: str, *, synthetic: bool) -> set[str]:
    """The ids of the orders in a Region's database, asked of the database itself."""
    port = lab.plan.regions[region].postgres_ports["orders"]
    with psycopg.connect(host="127.0.0.1", port=port, user="postgres", dbname="orders", connect_timeout=5) as connection:
        return {str(row[0]) for row in connection.execute("SELECT id FROM customer_order WHERE synthetic = %s", (synthetic,))}


def journal(lab: Lab) -> list[str]:
    """The orders that the store acknowledged to customers: the shoppers' own list."""
    lines = (lab.plan.path / "traffic-orders.jsonl").read_text().splitlines()
    return [json.loads(line)["orderId"] for line in lines]


def customers_of(lab: Lab, region: str) -> dict[str, str]:
    """The synthetic orders in a Region's database: id -> the e-mail address, which holds the mark that the ledger gave it."""
    port = lab.plan.regions[region].postgres_ports["orders"]
    with psycopg.connect(host="127.0.0.1", port=port, user="postgres", dbname="orders", connect_timeout=5) as connection:
        return {str(key): email for key, email in connection.execute("SELECT id, email FROM customer_order WHERE synthetic")}


def book(lab: Lab, workload: str, region: str) -> dict[str, Any]:
    """A ledger's book: `open` orders, and `intents`, of which the ledger has not heard what became of them."""
    key = f"ledger/{workload}/{region}.json"
    try:
        kept = json.loads(lab.client("s3", region).get_object(Bucket=bucket(region), Key=key)["Body"].read())
    except (ClientError, BotoCoreError) as error:
        raise SystemExit(f"s3://{bucket(region)}/{key} cannot be read: {error}") from error
    return {"open": kept["open"], "intents": kept["intents"]}


def bucket(region: str) -> str:
    """Where a ledger keeps its book."""
    return f"ledger-day-{region}"


def text(result: dict[str, Any]) -> str:
    """The figures, one fact a line."""
    lines = [f"{result['hours']} lab hours"]
    for region, ledger in result["ledgers"].items():
        runs = ", ".join(f"{count} {what}" for what, count in sorted(ledger["runs"].items()))
        lines.append(f"  ledger of {region}: {runs}; {ledger['placed']} placed, {ledger['deleted']} deleted, {len(ledger['lost'])} lost")
        lines += [f"      {count} x {why}" for why, count in sorted(ledger["reasons"].items(), key=lambda item: -item[1])[:6]]
    lines += [f"  runbook, {step}: {status}" for step, status in result["runbooks"].items()]
    customers, synthetic = result["customers"], result["synthetic"]
    lines.append(
        f"  customers: {customers['acknowledged']} acknowledged, {customers['lost by the failover itself']} lost by the failover itself"
    )
    left = ", ".join(f"{len(ids)} in {region}" for region, ids in synthetic["left"].items())
    lines.append(f"  synthetic: {synthetic['held by books']} held by books; {left} when the day was over")
    lines += [f"  {'yes' if ok else 'NO ':3}  {check}" for check, ok in result["checks"].items()]
    return "\n".join(lines)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--hours", type=float, default=24.0, help="of lab time (default: 24)")
    parser.add_argument("--speed", type=float, default=40.0, help="lab seconds a wall second, at most 60 (default: 40)")
    parser.add_argument("--out", type=Path, help="also write all figures here, as JSON")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
