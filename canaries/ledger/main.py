"""The canary's handler: account for the orders of earlier runs, place new ones, see them arrive in every Region, clean up.

Each part is a step of the run. The book is saved before every order is placed, after every acknowledgement and before every delete: what a
run that is cut short leaves behind, the next one knows of, if only as an order that was placed or not.
"""

from __future__ import annotations

import contextlib
import json
import secrets
import ssl
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Protocol

from canaries.ledger import book as ledger
from canaries.ledger.book import Book, Intent, Lost, Order, Seen, Sightings
from canaries.ledger.memory import BookError, Bucket, Warm
from canaries.ledger.settings import LedgerSettings
from canaries.ledger.shop import NotPlacedError, Shop, ShopError
from canaries.shared import aws, library, settings, trace
from canaries.shared.publish import Writer
from canaries.shared.resolve import resolver

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

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
    came_back: list[str] = field(default_factory=list)
    expired: list[Intent] = field(default_factory=list)

    def save(self, book: Book) -> None:
        """Keep a changed book; nothing goes on when that fails."""
        self.memory.save(book)
        self.book = book

    # ------------------------------------------------------------------ steps

    def place(self) -> None:
        """Place this run's orders. Raises LedgerError or ShopError; what was acknowledged before stays in the book."""
        for _ in range(self.settings.orders_per_run):
            if self.book.unsettled >= self.settings.open_limit:
                unknown = f" and {len(self.book.intents)} of unknown fate" if self.book.intents else ""
                raise LedgerError(
                    f"{len(self.book.open)} orders are open and cannot be deleted{unknown}; none is placed until that is mended"
                )
            self._place_one()

    def _place_one(self) -> None:
        """Place one order: into the book as an intent before it is confirmed, then as an order."""
        mark = secrets.token_hex(4)
        basket = self.shop.fill(mark)
        intent = Intent(mark, time.time(), str(self.shop.run))
        self.save(self.book.intending(intent))
        try:
            receipt = self.shop.confirm(basket)
        except NotPlacedError:
            with contextlib.suppress(BookError):
                self.save(self.book.settled([mark]))
            raise
        except ShopError as error:
            with contextlib.suppress(BookError):
                self.save(self.book.told())
            raise LedgerError(f"{error}; {self._fate([intent])}") from error
        order = Order(receipt.order_id, time.time(), receipt.region, str(self.shop.run))
        try:
            self.save(self.book.placed(order, mark))
        except BookError as error:
            self._withdraw(order, mark, error)
            raise
        self.placed.append(order)

    def _withdraw(self, order: Order, mark: str, error: BookError) -> None:
        """Delete an order that could not be entered; first as one that is leaving, lest a write that went through after all make a loss of
        it. Where that cannot be written either, and the first write may have been done, it stays: as an order in the book, or as an intent.
        """
        with contextlib.suppress(BookError):
            self.save(self.memory.load().without([order.id]).placed(replace(order, leaving=True), mark))
            if self.shop.delete(order.id) is None:
                self.save(self.book.without([order.id]))
            return
        if error.refused:
            self.shop.delete(order.id)

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
        """Look for all open orders everywhere. Raises OrdersLostError with the names of those that are gone, and LedgerError for those of
        earlier runs of which nobody knows whether they were placed: once each."""
        self._judge()
        problems = []
        if self.gone:
            names = ", ".join(f"{each.id} (missing in {' and '.join(each.missing_in)})" for each in self.gone)
            problems.append(f"{len(self.gone)} acknowledged orders are gone: {names}")
        untold = [each for each in self.book.intents if not each.told]
        if untold:
            with contextlib.suppress(BookError):  # then the next run tells of them too
                self.save(self.book.told())
            problems.append(self._fate(untold))
        if problems:
            raise (OrdersLostError if self.gone else LedgerError)("; ".join(problems))

    def _judge(self) -> None:
        """Find the orders that are gone. A first look may have met two replicas, one of them behind: only what is absent some seconds later
        too is lost."""
        suspects = ledger.lost(self.book, self._sightings(self.book.open), time.time())
        if not suspects:
            return
        time.sleep(self.settings.suspect_s)
        ids = {each.id for each in suspects}
        again = self._sightings([order for order in self.book.open if order.id in ids])
        gone = [each for each in suspects if all(again.by_region[region].get(each.id) is Seen.ABSENT for region in each.missing_in)]
        if gone:
            self.save(self.book.given_up(gone))
            self.gone = gone

    def clean_up(self) -> None:
        """Delete what is old enough, and for some days what was lost. Raises LedgerError for what could not be deleted; the next run tries
        again."""
        now = time.time()
        orders = ledger.due(self.book, now, self.settings.keep_s)
        expired = ledger.expired(self.book, now)
        if orders or expired:
            self.save(self.book.leaving([order.id for order in orders]).settled([each.mark for each in expired]))
            self.expired = expired
        chased = ledger.chased(self.book, now)
        self.came_back = [each for each, there in zip(chased, self.pool.map(self.shop.sweep, chased), strict=True) if there]
        problems = dict(zip([order.id for order in orders], self.pool.map(self.shop.delete, [order.id for order in orders]), strict=True))
        self.deleted = [each for each, problem in problems.items() if problem is None]
        if orders:
            self.save(self.book.without(self.deleted))
        failed = [problem for problem in problems.values() if problem is not None]
        if failed:
            raise LedgerError(f"{len(failed)} of {len(orders)} orders could not be deleted: {failed[0]}")

    def _fate(self, intents: Iterable[Intent]) -> str:
        """Orders of unknown fate in words, with what they can be found by."""
        named = ", ".join(f"{self.shop.email(each.mark)} at {_iso(each.begun)}" for each in intents)
        return f"placed, fate unknown: {named}"

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
    config = _kept.get("settings") or settings.load(LedgerSettings, CONFIGURATION)
    _kept["settings"] = config
    library.configure({"continue_on_step_failure": True}, "disable_step_screenshots", "disable_step_metrics")
    started, steps = time.time(), library.Steps()
    writer = _kept.setdefault("writer", Writer(NAMESPACE, config.write_to, config.limits.write_s))
    shop = Shop(
        config,
        resolver(config.resolver),
        ssl.create_default_context(cadata=config.ca),
        trace.TraceId.new(started),
        library.user_agent(event, context),
    )
    with ThreadPoolExecutor(THREADS) as pool:
        run = Run(config, shop, _memory(event or {}, config), pool)
        try:
            run.book = run.memory.load()
        except BookError as error:
            await steps.take("open the book", _raise(error))
            steps.close()
            return {"error": str(error)}
        await steps.take("place orders", _guard(run.place))
        await steps.take("orders arrive", _guard(run.arrive))
        await steps.take("orders are kept", _guard(run.account))
        await steps.take("clean up", _guard(run.clean_up))
    writes = writer.write(dict.fromkeys(config.write_to, data(run, time.time())))
    line = report(run, writes)
    print(json.dumps(line, separators=(",", ":")), flush=True)
    _send_trace(run, started)
    steps.close()
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
        "came_back": run.came_back,
        "fate_unknown": [_unsettled(run, each) for each in run.book.intents][:100],
        "given_up": [_unsettled(run, each) for each in run.expired][:100],
        "lost": [{"id": each.id, "acknowledged": each.acknowledged, "missing_in": each.missing_in} for each in run.gone][:100],
        "rpo_s": None if window is None or window[0] is None else round(window[1] - window[0], 3),
        "writes": {region: error or "ok" for region, error in writes.items()},
    }


def _unsettled(run: Run, intent: Intent) -> dict[str, str]:
    """An order of unknown fate, with what it can be found by."""
    return {"email": run.shop.email(intent.mark), "begun": _iso(intent.begun), "trace": intent.trace}


def _iso(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="seconds").replace("+00:00", "Z")


def _send_trace(run: Run, started: float) -> None:
    """Send the run's segment; not being able to is logged and fails nothing."""
    config = run.settings
    if not config.traces:
        return
    if "tracing" not in _kept:
        _kept["tracing"] = trace.Sender(config.vantage, config.trace_to, config.limits.write_s)
    marks: Mapping[str, str | float | bool] = {"workload": config.workload, "vantage": config.vantage, "synthetic": True}
    name = f"{config.workload}-ledger"
    segment = trace.RunSegment(run.shop.run, trace.span_id(), name, started, time.time(), marks, tuple(run.shop.spans))
    for problem in _kept["tracing"].send(segment):
        library.warn(f"The run's segment could not be sent: {problem}")


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
