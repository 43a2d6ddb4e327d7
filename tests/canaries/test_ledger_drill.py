"""The ledger through a failover with data loss in the lab: its list of lost orders is the truth in the databases."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import psycopg
import pytest

from canaries.bundle import build
from canaries.config import ledger_config
from canaries.runtime import RunRequest, Sandbox
from lab.topology import lab_topology
from tests.folders import open_folder
from tests.lab.conftest import UP_WITHIN_S, running_lab

if TYPE_CHECKING:
    from collections.abc import Iterator

    from canaries.runtime import RunResult
    from tests.lab.conftest import Lab

EAST, WEST = "us-east-1", "us-west-2"
pytestmark = [pytest.mark.lab, pytest.mark.slow]


@pytest.fixture
def lab() -> Iterator[Lab]:
    with open_folder("ledger-drill") as folder, running_lab(folder / "lab", "--no-deploy", "--speed", "10") as up:
        up.wait("the store to be up", lambda: "are up" in up.output, UP_WITHIN_S)
        up.client("s3", EAST).create_bucket(Bucket="ledger-drill")
        yield up


class Teller:
    """The ledger of us-east-1, run by run."""

    def __init__(self, lab: Lab, sandbox: Sandbox) -> None:
        self._lab, self._sandbox = lab, sandbox
        self.line: dict[str, Any] = {}

    def run(self, **changes: Any) -> RunResult:
        plan = self._lab.plan
        built = build("ledger", {**ledger_config(lab_topology(plan), EAST), **changes})
        path = plan.path / "ledger.zip"
        path.write_bytes(built.data)
        result = self._sandbox.run(
            RunRequest(
                canary="retail-ledger",
                handler=built.handler,
                bundle=path,
                region=EAST,
                artifacts="s3://ledger-drill/runs",
                credentials=plan.aws_environment("admin", EAST),
                timeout_s=600,
                lab_clock=plan.clock.to_environment(),
            )
        )
        self.line = json.loads(next(line.message for line in result.log if line.message.startswith('{"crosswatch":"ledger"')))
        return result


def orders(lab: Lab, region: str) -> set[str]:
    """The synthetic orders that a Region's database holds, asked of the database itself."""
    port = lab.plan.regions[region].postgres_ports["orders"]
    with psycopg.connect(host="127.0.0.1", port=port, user="postgres", dbname="orders", connect_timeout=3) as connection:
        return {str(row[0]) for row in connection.execute("SELECT id FROM customer_order WHERE synthetic")}


def test_the_lost_orders_are_those_that_the_new_primary_lacks(lab: Lab) -> None:
    with Sandbox("ledger") as sandbox:
        teller = Teller(lab, sandbox)
        first = teller.run(orders_per_run=3)
        assert first.passed, first.state_reason
        lab.ask("inject", name="orders-replication-cut", region=None, timeout_s=120)
        teller.run(orders_per_run=4)
        assert len(teller.line["placed"]) == 4
        truth = orders(lab, EAST) - orders(lab, WEST)
        assert len(truth) == 4
        assert lab.runbook(WEST, "DrainRegion", Region=EAST) == "Success"
        assert lab.runbook(WEST, "FailoverOrders", FromRegion=EAST) == "Success"
        after = teller.run(orders_per_run=1)
        assert {each["id"] for each in teller.line["lost"]} == truth, after.state_reason
        assert all(WEST in each["missing_in"] for each in teller.line["lost"])
        assert teller.line["rpo_s"] > 0
        done = teller.run(orders_per_run=0, keep_s=0.0)
        assert teller.line["open"] == 0, done.state_reason
        assert orders(lab, WEST) == set(), "nothing synthetic is left in the store"
