"""The canary's handler: account for the orders of earlier runs, place new ones, see them arrive in every Region, clean up.

Each part is a step of the run. The book is saved after every acknowledgement and before every delete, so that a run that is cut short
leaves nothing that the next one does not know of.
"""

from __future__ import annotations

import json
import ssl
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Protocol

from aws_synthetics.common import synthetics_configuration
from aws_synthetics.selenium import synthetics_webdriver

from canaries.ledger import book as ledger
from canaries.ledger.book import Book, Lost, Order, Seen, Sightings
from canaries.ledger.memory import BookError, Bucket, Warm
from canaries.ledger.settings import LedgerSettings
from canaries.ledger.shop import Shop, ShopError
from canaries.shared import aws, settings, trace
from canaries.shared.publish import Writer
from canaries.shared.resolve import resolver

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

NAMESPACE: Final = "Crosswatch/Ledger"
CONFIGURATION: Final = Path(__file__).parents[2] / "config.json"
THREADS: Final = 8


class OrdersLostError(Exception):
    """Orders that the store had acknowledged are gone."""


class LedgerError(Exception):
    """A part of the run could not be done."""


class Memory(Protocol):
    """Where the book is."""

    def load(self) -> Book: ...
    def save(self, book: Book) -> None: ...


@dataclass(slots=True)
class Run:
    """One run under way and what it came to."""

    settings: LedgerSettings
    shop: Shop
    memory: Memory
    pool: ThreadPoolExecutor
    book: Book = field(default_factory=Book)
    placed: list[Order] = field(default_factory=list)
    replication_ms: dict[str, list[float]] = field(default_factory=dict)
    gone: list[Lost] = field(default_factory=list)
    deleted: list[str] = field(default_factory=list)

    def save(self, book: Book) -> None:
        """Keep a changed book; nothing goes on when that fails."""
        self.memory.save(book)
        self.book = book

    # ------------------------------------------------------------------ steps

    def place(self) -> None:
        """Place this run's orders. Raises LedgerError or ShopError; what was acknowledged before stays in the book."""
        for _ in range(self.settings.orders_per_run):
            if len(self.book.open) >= self.settings.open_limit:
                raise LedgerError(f"{len(self.book.open)} orders are open and cannot be deleted; none is placed until that is mended")
            receipt = self.shop.place()
            order = Order(receipt.order_id, time.time(), receipt.region, str(self.shop.run))
            try:
                self.save(self.book.placed(order))
            except BookError:
                self.shop.delete(order.id)  # an order that no book knows would stay for ever
                raise
            self.placed.append(order)

    def arrive(self) -> None:
        """Watch the new orders arrive in every Region. Raises LedgerError naming the Regions that do not show them in time."""
        for order in self.placed:
            began = time.perf_counter()
            waits = {region: self.pool.submit(self._wait_for, order, region, began) for region in self.settings.regions}
            for region, wait in waits.items():
                ms = wait.result()
                if ms is not None:
                    self.replication_ms.setdefault(region, []).append(ms)
        late = [region for region in self.settings.regions if len(self.replication_ms.get(region, ())) < len(self.placed)]
        if late:
            raise LedgerError(f"not read within {self.settings.read_within_s:g} s in {', '.join(late)}")

    def account(self) -> None:
        """Look for all open orders everywhere. Raises OrdersLostError with the names of those that are gone."""
        suspects = ledger.lost(self.book, self._sightings(self.book.open), time.time())
        if suspects:  # a first look may have raced with replication: only what is absent once more is lost
            ids = {each.id for each in suspects}
            again = self._sightings([order for order in self.book.open if order.id in ids])
            self.gone = [
                each for each in suspects if all(again.by_region[region].get(each.id) is Seen.ABSENT for region in each.missing_in)
            ]
        if self.gone:
            self.save(self.book.given_up(self.gone))
            names = ", ".join(f"{each.id} (missing in {' and '.join(each.missing_in)})" for each in self.gone)
            raise OrdersLostError(f"{len(self.gone)} acknowledged orders are gone: {names}")

    def clean_up(self) -> None:
        """Delete what is old enough. Raises LedgerError for what could not be deleted; the next run tries again."""
        orders = ledger.due(self.book, time.time(), self.settings.keep_s)
        if not orders:
            return
        self.save(self.book.leaving([order.id for order in orders]))
        problems = dict(zip([order.id for order in orders], self.pool.map(self.shop.delete, [order.id for order in orders]), strict=True))
        self.deleted = [each for each, problem in problems.items() if problem is None]
        self.save(self.book.without(self.deleted))
        failed = [problem for problem in problems.values() if problem is not None]
        if failed:
            raise LedgerError(f"{len(failed)} of {len(orders)} orders could not be deleted: {failed[0]}")

    # ------------------------------------------------------------------ looking

    def _wait_for(self, order: Order, region: str, began: float) -> float | None:
        """Milliseconds from the acknowledgement until the Region shows the order; None when it does not in time."""
        target = next(each for each in self.settings.targets if each.region == region)
        until = time.time() + self.settings.read_within_s
        while time.time() < until:
            if self.shop.look(target, order.id) is Seen.HERE:
                return (time.perf_counter() - began) * 1000
            time.sleep(self.settings.poll_s)
        return None

    def _sightings(self, orders: Iterable[Order]) -> Sightings:
        pairs = [(target, order) for target in self.settings.targets if target.region is not None for order in orders]
        found: dict[str, dict[str, Seen]] = {region: {} for region in self.settings.regions}
        results = self.pool.map(lambda pair: self.shop.look(pair[0], pair[1].id), pairs)
        for (target, order), seen in zip(pairs, results, strict=True):
            found[target.region or ""][order.id] = seen
        return Sightings(found)


_kept: dict[str, Any] = {}


async def handler(event: dict[str, Any], context: Any) -> dict[str, Any]:
    """Entry point of the bundle. Returns a summary; the run fails through its steps."""
    del context
    config = _kept.get("settings") or settings.load(LedgerSettings, CONFIGURATION)
    _kept["settings"] = config
    synthetics_configuration.set_config({"continue_on_step_failure": True})
    synthetics_configuration.disable_step_screenshots()
    synthetics_configuration.disable_step_metrics()
    writer = _kept.setdefault("writer", Writer(NAMESPACE, config.write_to, config.limits.write_s))
    shop = Shop(
        config,
        resolver(config.resolver),
        ssl.create_default_context(cadata=config.ca),
        trace.TraceId.new(time.time()),
        str(synthetics_webdriver.get_canary_user_agent_string()),
    )
    with ThreadPoolExecutor(THREADS) as pool:
        run = Run(config, shop, _memory(event, config), pool)
        try:
            run.book = run.memory.load()
        except BookError as error:
            await synthetics_webdriver.execute_step("open the book", _raise(error))
            return {"error": str(error)}
        await synthetics_webdriver.execute_step("place orders", _guard(run.place))
        await synthetics_webdriver.execute_step("orders arrive", _guard(run.arrive))
        await synthetics_webdriver.execute_step("orders are kept", _guard(run.account))
        await synthetics_webdriver.execute_step("clean up", _guard(run.clean_up))
    writes = writer.write(dict.fromkeys(config.write_to, data(run, time.time())))
    line = report(run, writes)
    print(json.dumps(line, separators=(",", ":")), flush=True)
    return {"placed": len(run.placed), "lost": len(run.gone), "open": len(run.book.open), "trace": str(shop.run)}


def data(run: Run, now: float) -> list[dict[str, Any]]:
    """The run's datapoints, the same for every Region."""
    config, stamp = run.settings, datetime.fromtimestamp(now, UTC)
    base = [{"Name": "Workload", "Value": config.workload}, {"Name": "Vantage", "Value": config.vantage}]
    datums: list[dict[str, Any]] = [
        {"MetricName": name, "Dimensions": base, "Timestamp": stamp, "Value": float(count), "Unit": "Count"}
        for name, count in (("OrdersPlaced", len(run.placed)), ("OrdersMissing", len(run.gone)))
    ]
    datums.append({**datums[0], "Dimensions": base[:1]})
    datums += [
        {
            "MetricName": "ReplicationMs",
            "Dimensions": [*base, {"Name": "Region", "Value": region}],
            "Timestamp": stamp,
            "Values": values,
            "Counts": [1.0] * len(values),
            "Unit": "Milliseconds",
        }
        for region, values in run.replication_ms.items()
    ]
    return datums


def report(run: Run, writes: dict[str, str | None]) -> dict[str, Any]:
    """The run as one line for Logs Insights."""
    window = ledger.loss_window(run.book, run.gone)
    return {
        "crosswatch": "ledger",
        "workload": run.settings.workload,
        "vantage": run.settings.vantage,
        "trace": str(run.shop.run),
        "placed": [{"id": order.id, "region": order.taken_in} for order in run.placed],
        "replication_ms": {region: [round(value, 1) for value in values] for region, values in run.replication_ms.items()},
        "open": len(run.book.open),
        "deleted": len(run.deleted),
        "lost": [{"id": each.id, "acknowledged": each.acknowledged, "missing_in": each.missing_in} for each in run.gone][:100],
        "rpo_s": None if window is None or window[0] is None else round(window[1] - window[0], 3),
        "writes": {region: error or "ok" for region, error in writes.items()},
    }


def _memory(event: dict[str, Any], config: LedgerSettings) -> Memory:
    """The bucket that the run's artifacts go to, or the warm process where there is none."""
    bucket = (event.get("artifactS3Location") or {}).get("s3Bucket")
    if not bucket:
        memory: Memory = _kept.setdefault("memory", Warm())
        return memory
    if "s3" not in _kept:
        _kept["s3"] = aws.client("s3", config.vantage, config.s3_endpoint, 2 * config.limits.write_s)
    return Bucket(_kept["s3"], bucket, f"ledger/{config.workload}/{config.vantage}.json")


def _guard(step: Callable[[], None]) -> Callable[[], None]:
    """The step with the store's and the book's errors as the run's own."""

    def run() -> None:
        try:
            step()
        except (ShopError, BookError) as error:
            raise LedgerError(str(error)) from error

    return run


def _raise(error: Exception) -> Callable[[], None]:
    def run() -> None:
        raise LedgerError(str(error)) from error

    return run
