"""The global table: last writer wins, both ways, through a partition and after it."""

from __future__ import annotations

import sys
import time
from functools import partial
from typing import TYPE_CHECKING, Any

import boto3
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lab import admin, data
from lab.data.dynamodb import Change, Ledger
from lab.process import ProcessSpec
from lab.store import names
from tests.lab.rig import rig, wait_for

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.lab.rig import Rig

EAST, WEST = "us-east-1", "us-west-2"


@pytest.fixture
def tables() -> Iterator[Rig]:
    """A moto server for each Region, and the replicator between their tables."""
    with rig() as made:
        made.start(moto(made))
        made.start(spec for spec in data.processes(made.plan) if spec.name == "dynamodb-replicator")
        yield made


def moto(made: Rig) -> list[ProcessSpec]:
    """One moto server a Region on the Region's AWS port."""
    import socket

    def answers(port: int) -> bool:
        socket.create_connection(("127.0.0.1", port), 1).close()
        return True

    return [
        ProcessSpec(
            name=f"{name}/moto",
            argv=(sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(region.aws_port)),
            directory=data.ROOT,
            ready=partial(answers, region.aws_port),
        )
        for name, region in made.plan.regions.items()
    ]


def table(made: Rig, region: str) -> Any:
    """A Region's carts table."""
    pair = made.plan.credentials["admin"]
    resource = boto3.resource(
        "dynamodb",
        region_name=region,
        endpoint_url=made.plan.regions[region].aws_endpoint,
        aws_access_key_id=pair.access_key,
        aws_secret_access_key=pair.secret_key,
    )
    return resource.Table(names.CARTS_TABLE)


def quantity(where: Any) -> int | None:
    """The quantity of the one item, None where it is not there."""
    item = where.get_item(Key={"customerId": "c", "itemId": "i"}).get("Item")
    return int(item["quantity"]) if item else None


def put(where: Any, value: int) -> None:
    """Write the one item."""
    where.put_item(Item={"customerId": "c", "itemId": "i", "quantity": value, "unitPrice": 1})


@pytest.mark.slow
def test_writes_go_both_ways_and_a_partition_converges_on_the_last_writer(tables: Rig) -> None:
    """While cut each Region keeps its own; healed, both have what was written last; a deletion travels too."""
    east, west = table(tables, EAST), table(tables, WEST)
    port = tables.plan.replicator_port
    put(east, 1)
    wait_for("east to west", lambda: quantity(west) == 1)
    put(west, 2)
    wait_for("west to east", lambda: quantity(east) == 2)
    for way in (f"{EAST}/{WEST}", f"{WEST}/{EAST}"):
        admin.call(port, "PUT", f"/directions/{way}", {"cut": True})
    put(west, 30)
    time.sleep(1.1)
    put(east, 31)
    time.sleep(0.6)
    assert (quantity(east), quantity(west)) == (31, 30)
    assert admin.call(port, "GET", "/status")["directions"][f"{EAST}/{WEST}"]["waiting"] == 1
    for way in (f"{EAST}/{WEST}", f"{WEST}/{EAST}"):
        admin.call(port, "PUT", f"/directions/{way}", {"cut": False})
    wait_for("convergence", lambda: quantity(east) == quantity(west) == 31)
    time.sleep(1.1)
    west.delete_item(Key={"customerId": "c", "itemId": "i"})
    wait_for("the deletion", lambda: quantity(east) is None)
    window = admin.call(port, "POST", "/window")
    assert {(datum["region"], datum["dimensions"]["ReceivingRegion"], datum["unit"]) for datum in window} == {
        (EAST, WEST, "Milliseconds"),
        (WEST, EAST, "Milliseconds"),
    }
    assert admin.call(port, "POST", "/window") == []


@given(st.lists(st.tuples(st.sampled_from([EAST, WEST]), st.integers(0, 1)), min_size=1, max_size=8), st.data())
def test_in_whatever_order_changes_arrive_both_sides_end_equal(writes: list[tuple[str, int]], draw: Any) -> None:
    """The ledger's rule alone: apply each side's own writes in order and the other's in any interleaving, and the survivors agree."""
    ledger = Ledger()
    state: dict[str, int | None] = {EAST: None, WEST: None}
    pending: dict[str, list[Change]] = {EAST: [], WEST: []}
    at = 0.0
    for number, (region, gap) in enumerate(writes):
        at += gap  # both sides' clocks agree, and many writes fall into one tick
        change = Change("k", {}, {"n": number}, at, region, 0.0)
        state[region] = number
        ledger.wrote_here(change)
        pending[WEST if region == EAST else EAST].append(change)
    while any(pending.values()):
        side = draw.draw(st.sampled_from([name for name, waiting in pending.items() if waiting]))
        change = pending[side].pop(0)
        if ledger.wins(change) and change.image is not None:
            state[side] = change.image["n"]
    assert state[EAST] == state[WEST]


def test_the_ledger_forgets_the_oldest() -> None:
    """However many items are written: of those written last it knows who wrote them, and nothing stays of what came back."""
    ledger = Ledger(remembered=10)

    def change(number: int, at: float) -> Change:
        return Change(str(number), {}, {"n": number}, at, "us-east-1", at)

    for number in range(100):
        ledger.wrote_here(change(number, 100.0))
        ledger.expect("us-west-2", change(number, 100.0))
    assert len(ledger) == 20
    assert not ledger.wins(change(99, 99.0))
    assert ledger.wins(change(0, 99.0))
    for number in range(90, 100):
        echo = Change(str(number), {}, {"n": number}, 101.0, "us-west-2", 101.0)
        assert ledger.is_echo(echo)
        ledger.forget("us-west-2", echo)
    assert len(ledger) == 10
