"""The ledger: what it can tell from what it sees, and whole runs through lag, failover and trouble."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import boto3
import pytest
from botocore.exceptions import ReadTimeoutError
from hypothesis import given
from hypothesis import strategies as st

from canaries.bundle import build
from canaries.ledger import book as ledger
from canaries.ledger.book import Book, Intent, Lost, Order, Seen, Sightings
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


def s3(endpoint: str) -> Any:
    """A client of S3 at an endpoint."""
    return boto3.client("s3", endpoint_url=endpoint, region_name=EAST, aws_access_key_id="AKIATEST", aws_secret_access_key="test")


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


def test_an_order_that_may_have_been_placed_is_counted_and_forgotten_after_a_day() -> None:
    book = orders(2).intending(Intent("aa", 1000.0)).intending(Intent("bb", 2000.0))
    assert book.unsettled == 4
    assert [each.mark for each in ledger.expired(book, 1000.0 + 86400)] == ["aa"]
    assert book.placed(Order("o2", 1001.0), "aa").intents == (Intent("bb", 2000.0),)
    assert all(each.told for each in book.told().intents)


def test_a_book_from_before_there_were_intents_is_read() -> None:
    data = orders(2).as_json()
    del data["intents"]
    assert Book.from_json(data) == orders(2)


@given(st.integers(0, 80), st.integers(0, 10**6))
def test_lost_orders_are_looked_after_for_days_in_turns(count: int, now: int) -> None:
    """A bounded number in a run; an old loss is left alone; each of the others has its turn."""
    book = orders(count).given_up([Lost(f"o{number}", 0.0, EAST, (WEST,), float(now)) for number in range(count)])
    assert len(ledger.chased(book, float(now))) == min(count, ledger.LOST_CHASED_PER_RUN)
    assert ledger.chased(book, now + 3 * 86400.0) == []
    assert {each for second in range(count) for each in ledger.chased(book, float(now + second))} == {f"o{n}" for n in range(count)}


def test_what_is_old_or_half_deleted_is_due() -> None:
    book = orders(3).placed(Order("half", 5000.0, leaving=True))
    assert [order.id for order in ledger.due(book, 1001.0, 900.0)] == ["o0", "o1", "half"]


@pytest.fixture
def bucket(moto: str) -> Any:
    """A client of S3, with a bucket called ledgers."""
    client = s3(moto)
    client.create_bucket(Bucket="ledgers")
    return client


def test_of_two_runs_that_overlap_the_later_writer_is_told(bucket: Any) -> None:
    """Whether or not there was a book before; and one run may write as often as it likes."""
    for number, start in enumerate((Book(), orders(1))):
        one, two = (Bucket(bucket, "ledgers", "overlap.json") for _ in range(2))
        assert one.load() == two.load() == start
        one.save(orders(number + 2))
        one.save(orders(3))
        with pytest.raises(BookError, match="changed by another run") as caught:
            two.save(orders(5))
        assert caught.value.refused
        with pytest.raises(BookError, match="changed by another run"):
            two.save(orders(6))
        assert two.load() == orders(3)
        two.save(orders(1))


class Deaf:
    """A client of S3 whose next write gets no answer, done or not."""

    def __init__(self, client: Any, done: bool) -> None:
        self._client, self._done, self._deaf = client, done, True

    def put_object(self, **request: Any) -> Any:
        answer = self._client.put_object(**request) if self._done or not self._deaf else None
        if self._deaf:
            self._deaf = False
            raise ReadTimeoutError(endpoint_url="s3")
        return answer

    def __getattr__(self, name: str) -> Any:
        return getattr(self._client, name)


@pytest.mark.parametrize("done", [True, False])
def test_a_write_without_an_answer_is_looked_up_before_the_next(bucket: Any, done: bool) -> None:
    """It was done or not; in neither case does the run take its own write for another's."""
    Bucket(bucket, "ledgers", f"deaf-{done}.json").save(orders(1))
    kept = Bucket(Deaf(bucket, done), "ledgers", f"deaf-{done}.json")
    kept.load()
    with pytest.raises(BookError, match="cannot be written") as caught:
        kept.save(orders(2))
    assert not caught.value.refused
    kept.save(orders(3))
    assert Bucket(bucket, "ledgers", f"deaf-{done}.json").load() == orders(3)


def test_the_book_is_kept_in_the_bucket(bucket: Any) -> None:
    kept = Bucket(bucket, "ledgers", "ledger/retail/us-east-1.json")
    assert kept.load() == Book()
    kept.save(orders(2))
    assert kept.load() == orders(2)
    bucket.put_object(Bucket="ledgers", Key="ledger/retail/us-east-1.json", Body=b"{not json")
    with pytest.raises(BookError, match="cannot be read"):
        kept.load()
    with pytest.raises(BookError, match="NoSuchBucket"):
        Bucket(bucket, "nobody", "x").save(Book())


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

    def run(self, timeout_s: float = 60, **changes: Any) -> RunResult:
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
            suspect_s=0.3,
            trace_to=self.aws[EAST].url,
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
                timeout_s=timeout_s,
                credentials={**CREDENTIALS, "AWS_ENDPOINT_URL": self.endpoint},
                log=lambda each: self.logs.append(each.message),
            )
        )

    endpoint: str = ""

    def bucket(self) -> Bucket:
        """The ledger's book."""
        client = boto3.client(
            "s3", endpoint_url=self.endpoint, region_name=EAST, aws_access_key_id="AKIATEST", aws_secret_access_key="test"
        )
        return Bucket(client, "retail-runs", "ledger/retail/us-east-1.json")

    @property
    def line(self) -> dict[str, Any]:
        """The last run's line."""
        found: dict[str, Any] = json.loads(next(each for each in self.logs if each.startswith('{"crosswatch":"ledger"')))
        return found


@pytest.fixture
def teller(aws: tuple[Recorder, Recorder], moto: str, tmp_path: Path) -> Iterator[Teller]:
    client = s3(moto)
    client.create_bucket(Bucket="retail-runs")
    with shop() as store, Sandbox("ledger") as sandbox:
        yield Teller(store, {EAST: aws[0], WEST: aws[1]}, tmp_path, sandbox, endpoint=moto)
    for item in client.list_objects_v2(Bucket="retail-runs").get("Contents", []):
        client.delete_object(Bucket="retail-runs", Key=item["Key"])


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


@pytest.mark.slow
@pytest.mark.parametrize("confirm", ["page", "late"])
def test_an_order_without_an_answer_is_named_once_and_counts(teller: Teller, confirm: str) -> None:
    """The store took it and the ledger has no number: nothing is unknown that the book does not know of."""
    teller.store.confirm = confirm
    result = teller.run(total_s=1.5)
    assert "placed, fate unknown: ledger+" in result.state_reason
    assert len(teller.store.orders[EAST]) == 1
    [known] = teller.line["fate_unknown"]
    assert known["email"] in result.state_reason
    teller.store.confirm = "well"
    assert "0 orders are open and cannot be deleted and 1 of unknown fate" in teller.run(open_limit=1).state_reason
    assert len(teller.store.orders[EAST]) == 1
    assert teller.run().passed, "a run fails for it once"
    assert teller.line["fate_unknown"] == [known]


@pytest.mark.slow
def test_a_run_that_is_cut_short_while_ordering_is_told_of_by_the_next(teller: Teller) -> None:
    teller.store.hooks["POST /checkout/confirm"] = lambda: time.sleep(8)
    cut = teller.run(timeout_s=6, total_s=30.0)
    assert "Task timed out" in cut.state_reason
    after = teller.run(orders_per_run=0)
    assert "orders are kept: LedgerError: placed, fate unknown: ledger+" in after.state_reason
    assert teller.run(orders_per_run=0).passed


@pytest.mark.slow
def test_an_order_that_was_refused_is_none(teller: Teller) -> None:
    teller.store.confirm = "refused"
    result = teller.run()
    assert "confirm: POST /checkout/confirm: status in ttfb: 429" in result.state_reason
    assert "fate unknown" not in result.state_reason
    assert teller.line["fate_unknown"] == []


@pytest.mark.slow
def test_a_store_that_does_not_find_what_it_shows_has_deleted_nothing(teller: Teller) -> None:
    teller.run()
    teller.store.forget_deletes = True
    result = teller.run(keep_s=0.0, orders_per_run=0)
    assert "was answered 404, yet GET still shows it" in result.state_reason
    assert teller.line["open"] == 1
    teller.store.forget_deletes = False
    assert teller.run(keep_s=0.0, orders_per_run=0).passed
    assert teller.store.orders == {EAST: {}, WEST: {}}


@pytest.mark.slow
def test_a_replica_that_is_behind_for_a_moment_has_lost_nothing(teller: Teller) -> None:
    """Two readers of a Region, one of them behind: an order is absent beside a later one, and has come when it is looked for again."""
    teller.run(orders_per_run=2)
    first = next(iter(teller.store.orders[EAST]))
    teller.store.hooks[f"GET /orders/{first}"] = lambda: teller.store.hide(WEST, first, 0.4)
    result = teller.run(orders_per_run=0, suspect_s=1.0)
    assert not teller.store.hooks, "it was hidden when it was first looked for"
    assert result.passed, result.state_reason
    assert (teller.line["lost"], teller.line["open"]) == ([], 2)


@pytest.mark.slow
def test_lost_orders_that_come_back_are_deleted(teller: Teller) -> None:
    """The old primary is made the writer again after all: nobody has them on an account any more."""
    teller.run(orders_per_run=1)
    teller.store.cut = True
    teller.run(orders_per_run=2)
    held = dict(teller.store.orders[EAST])
    truth = teller.store.fail_over()
    teller.serving = WEST
    teller.run(orders_per_run=1)
    assert {each["id"] for each in teller.line["lost"]} == truth
    teller.store.orders[WEST] |= {identity: held[identity] for identity in truth}
    teller.run(orders_per_run=0)
    assert set(teller.line["came_back"]) == truth
    assert not truth & set(teller.store.orders[WEST])


@pytest.mark.slow
@pytest.mark.parametrize(("before", "placed"), [("POST /checkout/payment", 0), ("POST /checkout/confirm", 1)])
def test_a_run_beside_another_places_nothing_that_no_book_knows(teller: Teller, before: str, placed: int) -> None:
    """The other writes its book while this one is at the checkout, or while the store takes the order: which is then taken back."""
    teller.run()
    other = [Order("other", 1e9, leaving=True)]

    def write() -> None:
        kept = teller.bucket()
        kept.save(replace(kept.load(), open=tuple(other), intents=()))

    teller.store.hooks[before] = write
    result = teller.run()
    assert "was changed by another run at the same time" in result.state_reason
    assert len(teller.store.deletes) >= placed
    assert len(teller.store.orders[EAST]) == 1, "that of the first run"
    assert {each.id for each in teller.bucket().load().open} <= {"other"}
    assert teller.bucket().load().intents == ()
    assert teller.line["placed"] == []


@pytest.mark.slow
def test_a_run_is_a_trace_and_no_service_misses_its_parent(teller: Teller) -> None:
    teller.run()
    teller.run(keep_s=0.0, orders_per_run=0)
    segments = teller.aws[EAST].segments
    assert [each["name"] for each in segments] == ["retail-ledger"] * 2
    recorded = {span["id"] for each in segments for span in each["subsegments"]}
    parents = [each["traceparent"].split("-")[2] for each in teller.store.seen if each["traceparent"].endswith("-01")]
    assert len(parents) >= 8
    assert set(parents) == recorded
    assert len(parents) == len(recorded)
    teller.store.seen.clear()
    teller.run(traces=False)
    assert {each["traceparent"][-2:] for each in teller.store.seen} == {"00"}
    assert len(teller.aws[EAST].segments) == 2
