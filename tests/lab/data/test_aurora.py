"""The Aurora global databases: replication, lag, roles and links, on real PostgreSQL servers."""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING, Any

import psycopg
import pytest

from lab import admin
from lab.data import processes
from lab.data.aurora import Pulse, lag, set_writer
from tests.lab.rig import wait_for

if TYPE_CHECKING:
    from tests.lab.rig import Rig

EAST, WEST = "us-east-1", "us-west-2"


def tell(rig: Rig, region: str, action: str, body: dict[str, Any] | None = None, database: str = "orders") -> Any:
    """Ask a Region's keeper for something."""
    return admin.call(rig.plan.regions[region].aurora_port, "POST", f"/{database}/{action}", body, timeout_s=30)


def status(rig: Rig, region: str) -> dict[str, Any]:
    """What the keeper says of the orders database."""
    answer: dict[str, Any] = admin.call(rig.plan.regions[region].aurora_port, "GET", "/status")["orders"]
    return answer


def behind(rig: Rig, kind: str = "replication_ms") -> float:
    """The standby's lag in milliseconds; infinite where it has none to tell."""
    lag_now = status(rig, WEST)["lag"]
    return float(lag_now[kind]) if lag_now else float("inf")


def run(port: int, sql: str) -> list[tuple[Any, ...]]:
    """Run a statement on the server or endpoint behind ``port``."""
    with psycopg.connect(f"host=127.0.0.1 port={port} user=postgres dbname=orders connect_timeout=3", autocommit=True) as connection:
        cursor = connection.execute(sql.encode())
        return cursor.fetchall() if cursor.description else []


def place(port: int, number: int) -> None:
    """Insert an order with a given number as its id."""
    run(
        port,
        "INSERT INTO customer_order (id, first_name, last_name, email, created_on, region)"
        f" VALUES ('00000000-0000-0000-0000-{number:012d}', 'a', 'b', 'a@b.c', now(), 'x')",
    )


def orders(port: int) -> list[int]:
    """The numbers of the orders that a server shows."""
    return [int(str(row[0])[-12:]) for row in run(port, "SELECT id FROM customer_order ORDER BY id")]


class TestLag:
    """What the heartbeat says of a standby."""

    def test_within_a_beat_the_age_is_wall_time_and_beyond_it_lab_time(self) -> None:
        """At speed 10 an interruption of a second is ten lab seconds; the phase of the beat is not stretched."""
        young = lag(Pulse(beat_seen=100.0, received=100.0), 100.2, speed=10)
        old = lag(Pulse(beat_seen=100.0, received=100.3), 101.4, speed=10)
        assert young is not None
        assert old is not None
        assert young.replication_ms == pytest.approx(200)
        assert old.replication_ms == pytest.approx(400 + 10_000)
        assert old.rpo_ms == pytest.approx(400 + 7_000)

    def test_a_writer_has_no_lag(self) -> None:
        """AuroraGlobalDB* exist in the secondary Region only."""
        assert lag(Pulse(writer=True, beat_seen=1.0), 2.0, 1) is None


def test_writes_through_either_regions_endpoint_reach_both(databases: Rig) -> None:
    """The global writer endpoint leads to the writer from anywhere, and the standby follows."""
    east, west = databases.plan.regions[EAST], databases.plan.regions[WEST]
    place(east.writer_ports["orders"], 1)
    place(west.writer_ports["orders"], 2)
    wait_for("replication", lambda: orders(west.postgres_ports["orders"]) == [1, 2])
    with pytest.raises(psycopg.errors.ReadOnlySqlTransaction):
        place(west.postgres_ports["orders"], 3)


def test_paused_delayed_and_cut_replication_show_in_the_lag(databases: Rig) -> None:
    """Each fault lets the lag grow that it should, and healing brings it back."""
    wait_for("a first lag", lambda: behind(databases) < 500)
    tell(databases, WEST, "pause")
    wait_for("lag", lambda: behind(databases) > 1000)
    assert behind(databases, "rpo_ms") < 800
    tell(databases, WEST, "resume")
    tell(databases, WEST, "cut")
    wait_for("rpo lag", lambda: behind(databases, "rpo_ms") > 1000)
    tell(databases, WEST, "mend")
    tell(databases, WEST, "delay", {"ms": 1500})
    wait_for("injected lag", lambda: behind(databases, "rpo_ms") < 800 < 1200 < behind(databases))
    tell(databases, WEST, "delay", {"ms": 0})
    wait_for("no lag", lambda: behind(databases) < 500)


def test_a_silent_link_stops_replication_and_cross_region_writes(databases: Rig) -> None:
    """The link is in every way between the Regions; what is local goes on."""
    east, west = databases.plan.regions[EAST], databases.plan.regions[WEST]
    admin.call(west.peering_port, "PUT", f"/links/{EAST}", {"state": "silent"})
    with pytest.raises(psycopg.OperationalError):
        place(west.writer_ports["orders"], 11)
    place(east.writer_ports["orders"], 12)
    assert 12 not in orders(west.postgres_ports["orders"])
    admin.call(west.peering_port, "PUT", f"/links/{EAST}", {"state": "up"})
    wait_for("replication after the link came back", lambda: 12 in orders(west.postgres_ports["orders"]))


@pytest.mark.slow
def test_a_crashed_region_comes_back_fenced_and_follows(own_databases: Rig) -> None:
    """After a failover the old writer does not write when it wakes up; following removes what was lost, and what a snapshot still holds."""
    east, west = own_databases.plan.regions[EAST], own_databases.plan.regions[WEST]
    place(east.writer_ports["orders"], 1)
    wait_for("replication", lambda: orders(west.postgres_ports["orders"]) == [1] and behind(own_databases) < 500)
    tell(own_databases, WEST, "cut")
    wait_for("the cut", lambda: 1000 < behind(own_databases, "rpo_ms") < float("inf"))
    place(east.writer_ports["orders"], 2)
    own_databases.stop(f"{EAST}/aurora", signal.SIGKILL)
    tell(own_databases, WEST, "promote")
    set_writer(own_databases.plan, "orders", WEST)
    place(east.writer_ports["orders"], 3)
    own_databases.start([spec for spec in processes(own_databases.plan) if spec.name == f"{EAST}/aurora"])
    assert status(own_databases, EAST)["role"] == "fenced"
    tell(own_databases, EAST, "snapshot", {"name": "before"})
    assert tell(own_databases, EAST, "follow", {"region": WEST}) == {"how": "rewind"}
    wait_for("the old writer to follow", lambda: orders(east.postgres_ports["orders"]) == [1, 3])
    restored = tell(own_databases, EAST, "restore", {"snapshot": "before", "name": "look"})["port"]
    assert orders(restored) == [1, 2]
    admin.call(east.aurora_port, "DELETE", "/orders/restored/look")
    admin.call(east.aurora_port, "DELETE", "/orders/snapshots/before")


def test_orders_that_cannot_be_followed_are_refused(databases: Rig) -> None:
    """A refusal names what is wrong; nothing is changed."""
    with pytest.raises(admin.Refusal, match="is a writer, not a standby"):
        tell(databases, EAST, "pause")
    with pytest.raises(admin.Refusal, match="name another Region"):
        tell(databases, WEST, "follow", {"region": "mars-1"})
    with pytest.raises(admin.Refusal, match="cannot POST levitate"):
        tell(databases, WEST, "levitate")
