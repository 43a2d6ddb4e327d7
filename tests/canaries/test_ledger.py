"""The ledger: what it can tell from what it sees, and whole runs through lag, failover and trouble."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import boto3
import pytest
from hypothesis import given
from hypothesis import strategies as st

from canaries.bundle import build
from canaries.ledger import book as ledger
from canaries.ledger.book import Book, Order, Seen, Sightings
from canaries.ledger.memory import BookError, Bucket
from canaries.ledger.settings import LedgerSettings
from canaries.runtime import RunRequest, Sandbox
from canaries.shared.settings import encode
from canaries.shared.target import Target
from tests.canaries.servers import CREDENTIALS, Recorder
from tests.canaries.shop_server import Shop, shop

if TYPE_CHECKING:
    from collections.abc import Iterator

    from canaries.runtime import RunResult

EAST, WEST = "us-east-1", "us-west-2"


def orders(count: int, **changes: Any) -> Book:
    return Book(tuple(Order(f"o{number}", 100.0 + number, EAST, **changes) for number in range(count)))


def sighted(region: str, pattern: str) -> Sightings:
    """What a Region says of o0, o1, …: h here, a absent, u unknown."""
    letters = {"h": Seen.HERE, "a": Seen.ABSENT, "u": Seen.UNKNOWN}
    return Sightings({region: {f"o{number}": letters[letter] for number, letter in enumerate(pattern)}})


# ---------------------------------------------------------------------- decisions


@pytest.mark.parametrize(
    ("pattern", "lost"),
    [
        ("hhhh", []),
        ("hhaa", []),  # late: nothing later has arrived
        ("aaaa", []),  # nothing has arrived at all
        ("hhah", ["o2"]),
        ("haah", ["o1", "o2"]),
        ("huuh", []),
        ("huah", ["o2"]),
        ("haau", []),
        ("", []),
    ],
)
def test_an_order_is_lost_when_a_region_has_a_later_one(pattern: str, lost: list[str]) -> None:
    assert [each.id for each in ledger.lost(orders(len(pattern)), sighted(WEST, pattern), 500)] == lost


@given(st.integers(0, 30), st.integers(0, 30), st.integers(0, 10))
def test_replication_that_keeps_its_order_never_looks_like_a_loss(total: int, arrived: int, unknown: int) -> None:
    """However far behind a replica is, and whatever could not be asked."""
    pattern = "".join("u" if number % 11 < unknown % 3 else "h" if number < arrived else "a" for number in range(total))
    assert ledger.lost(orders(total), sighted(WEST, pattern), 0) == []


@given(st.integers(1, 20), st.integers(0, 20), st.integers(1, 5))
def test_a_failover_loses_exactly_the_tail_that_had_not_arrived(placed: int, arrived: int, after: int) -> None:
    arrived = min(arrived, placed)
    pattern = "h" * arrived + "a" * (placed - arrived) + "h" * after
    found = ledger.lost(orders(placed + after), sighted(WEST, pattern), 0)
    assert [each.id for each in found] == [f"o{number}" for number in range(arrived, placed)]


def test_an_order_that_is_being_deleted_is_no_loss() -> None:
    assert ledger.lost(orders(2, leaving=True).placed(Order("o2", 200.0)), sighted(WEST, "aah"), 0) == []


def test_the_old_primary_does_not_lose_what_only_the_new_one_has() -> None:
    """After a split each Region has its own tail: the old one's orders are lost in the new one, not the other way round."""
    seen = Sightings({**sighted(EAST, "hhhaa").by_region, **sighted(WEST, "hhahh").by_region})
    assert [(each.id, each.missing_in) for each in ledger.lost(orders(5), seen, 0)] == [("o2", (WEST,))]


def test_the_measured_rpo_reaches_from_the_last_survivor_to_the_last_loss() -> None:
    gone = ledger.lost(orders(6), sighted(WEST, "hhaaah"), 0)
    assert ledger.loss_window(orders(6), gone) == (101.0, 104.0)
    assert ledger.loss_window(orders(6), []) is None


def test_a_book_survives_the_way_through_json() -> None:
    full = orders(3).given_up(ledger.lost(orders(3), sighted(WEST, "hah"), 9)).leaving(["o0"])
    assert Book.from_json(json.loads(json.dumps(full.as_json()))) == full
    assert [order.id for order in full.open] == ["o0", "o2"]
    with pytest.raises(ValueError, match="version 7"):
        Book.from_json({"version": 7})


def test_what_is_old_or_half_deleted_is_due() -> None:
    book = orders(3).placed(Order("half", 5000.0, leaving=True))
    assert [order.id for order in ledger.due(book, 1001.0, 900.0)] == ["o0", "o1", "half"]


def test_the_book_is_kept_in_the_bucket(moto: str) -> None:
    client = boto3.client("s3", endpoint_url=moto, region_name=EAST, aws_access_key_id="AKIATEST", aws_secret_access_key="test")
    client.create_bucket(Bucket="ledgers")
    kept = Bucket(client, "ledgers", "ledger/retail/us-east-1.json")
    assert kept.load() == Book()
    kept.save(orders(2))
    assert kept.load() == orders(2)
    client.put_object(Bucket="ledgers", Key="ledger/retail/us-east-1.json", Body=b"{not json")
    with pytest.raises(BookError, match="cannot be read"):
        kept.load()
    with pytest.raises(BookError, match="NoSuchBucket"):
        Bucket(client, "nobody", "x").save(Book())


# ---------------------------------------------------------------------- runs


@dataclass
class Teller:
    """A ledger canary at a shop; each run is one of its bundle."""

    store: Shop
    aws: dict[str, Recorder]
    folder: Path
    sandbox: Sandbox
    logs: list[str] = field(default_factory=list)
    serving: str = EAST

    def run(self, **changes: Any) -> RunResult:
        config = LedgerSettings(
            workload="retail",
            vantage=EAST,
            targets=(
                Target("alb-us-east-1", f"http://127.0.0.1:{self.store.ports[EAST]}", EAST),
                Target("alb-us-west-2", f"http://127.0.0.2:{self.store.ports[WEST]}", WEST),
                Target("name", f"http://{'127.0.0.1' if self.serving == EAST else '127.0.0.2'}:{self.store.ports[self.serving]}"),
            ),
            write_to={region: recorder.url for region, recorder in self.aws.items()},
            read_within_s=0.5,
            poll_s=0.05,
        )
        built = build("ledger", {**encode(config), **changes})
        path = self.folder / "ledger.zip"
        path.write_bytes(built.data)
        self.logs.clear()
        return self.sandbox.run(
            RunRequest(
                canary="retail-ledger",
                handler=built.handler,
                bundle=path,
                region=EAST,
                artifacts="s3://retail-runs/canaries",
                credentials={**CREDENTIALS, "AWS_ENDPOINT_URL": self.endpoint},
                log=lambda each: self.logs.append(each.message),
            )
        )

    endpoint: str = ""

    @property
    def line(self) -> dict[str, Any]:
        """The last run's line."""
        found: dict[str, Any] = json.loads(next(each for each in self.logs if each.startswith('{"crosswatch":"ledger"')))
        return found


@pytest.fixture
def teller(aws: tuple[Recorder, Recorder], moto: str, tmp_path: Path) -> Iterator[Teller]:
    s3 = boto3.client("s3", endpoint_url=moto, region_name=EAST, aws_access_key_id="AKIATEST", aws_secret_access_key="test")
    s3.create_bucket(Bucket="retail-runs")
    with shop() as store, Sandbox("ledger") as sandbox:
        yield Teller(store, {EAST: aws[0], WEST: aws[1]}, tmp_path, sandbox, endpoint=moto)
    for item in s3.list_objects_v2(Bucket="retail-runs").get("Contents", []):
        s3.delete_object(Bucket="retail-runs", Key=item["Key"])


@pytest.mark.slow
def test_an_order_is_placed_seen_everywhere_and_cleaned_up(teller: Teller) -> None:
    first = teller.run()
    assert first.passed, first.state_reason
    assert [step.name for step in first.steps] == ["place orders", "orders arrive", "orders are kept", "clean up"]
    assert set(teller.line["replication_ms"]) == {EAST, WEST}
    assert len(teller.store.orders[EAST]) == 1
    assert all(order["synthetic"] for order in teller.store.orders[EAST].values())
    for recorder in teller.aws.values():
        assert recorder.values("OrdersPlaced", Vantage=EAST) == [1.0]
        assert recorder.values("OrdersPlaced") == [1.0]  # the series that all vantages share
        assert recorder.values("OrdersMissing", Vantage=EAST) == [0.0]
        assert len(recorder.values("ReplicationMs", Vantage=EAST, Region=WEST)) == 1
    second = teller.run(keep_s=0.0, orders_per_run=0)
    assert second.passed, second.state_reason
    assert teller.store.orders == {EAST: {}, WEST: {}}
    assert teller.line["open"] == 0
    marks = {each["x-crosswatch-synthetic"] for each in teller.store.seen}
    assert marks == {"true"}, "every request is marked"


@pytest.mark.slow
def test_a_lagging_region_is_late_and_nothing_is_lost(teller: Teller) -> None:
    teller.store.lag_s = 30
    result = teller.run(orders_per_run=2)
    assert result.state_reason.endswith("not read within 0.5 s in us-west-2")
    again = teller.run(orders_per_run=0)
    assert again.passed, again.state_reason
    assert teller.line["lost"] == []


@pytest.mark.slow
def test_a_lossy_failover_names_exactly_the_lost_orders(teller: Teller) -> None:
    """The ledger's list equals the ground truth: what the old primary had acknowledged and the new one never got."""
    assert teller.run(orders_per_run=3).passed
    teller.store.cut = True
    teller.run(orders_per_run=4)
    truth = teller.store.fail_over()
    teller.serving = WEST
    result = teller.run(orders_per_run=1)
    assert len(truth) == 4
    assert {each["id"] for each in teller.line["lost"]} == truth
    assert [each["missing_in"] for each in teller.line["lost"]] == [[WEST]] * 4
    assert all(identity in result.state_reason for identity in truth)
    assert teller.aws[WEST].values("OrdersMissing", Vantage=EAST)[-1] == 4.0
    assert 0 < teller.line["rpo_s"] < 30
    teller.run(orders_per_run=1)
    assert teller.line["lost"] == [], "each loss is reported once"


@pytest.mark.slow
def test_a_delete_that_fails_is_tried_again_and_nothing_is_left(teller: Teller) -> None:
    teller.run(orders_per_run=2)
    teller.store.broken[EAST] = 503
    failed = teller.run(keep_s=0.0, orders_per_run=0)
    assert "2 of 2 orders could not be deleted" in failed.state_reason
    del teller.store.broken[EAST]
    done = teller.run(keep_s=0.0, orders_per_run=0)
    assert done.passed, done.state_reason
    assert teller.store.orders == {EAST: {}, WEST: {}}


@pytest.mark.slow
def test_a_store_that_refuses_an_order_is_named_by_its_step(teller: Teller) -> None:
    teller.store.broken["POST /checkout/payment"] = 500
    result = teller.run()
    assert "payment: POST /checkout/payment: status in ttfb: 500, expected 200" in result.state_reason
    assert teller.line["placed"] == []


@pytest.mark.slow
def test_nothing_is_placed_without_a_book(teller: Teller) -> None:
    result = teller.run(s3_endpoint="http://127.0.0.1:1")
    assert "open the book" in result.state_reason
    assert teller.store.orders == {EAST: {}, WEST: {}}


@pytest.mark.slow
def test_orders_that_cannot_be_deleted_stop_new_ones_in_time(teller: Teller) -> None:
    result = teller.run(orders_per_run=3, open_limit=2)
    assert "2 orders are open and cannot be deleted" in result.state_reason
    assert len(teller.store.orders[EAST]) == 2


@pytest.mark.slow
def test_a_day_of_runs_leaves_nothing_behind(teller: Teller) -> None:
    """Compressed: every run places two orders and keeps them for two runs; at the end only those of the last runs are there."""
    for _ in range(6):
        teller.run(orders_per_run=2, keep_s=1.0)
        time.sleep(0.6)
    assert len(teller.store.orders[EAST]) <= 6
    assert teller.run(orders_per_run=0, keep_s=0.0).passed
    assert teller.store.orders == {EAST: {}, WEST: {}}
