"""A round: every page of every target at once, a second try for those that failed, and meanwhile the routing controls."""

from __future__ import annotations

import ssl
import time
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from canaries.probe import verdict
from canaries.probe.settings import Page, ProbeSettings
from canaries.probe.verdict import Cell, Look
from canaries.shared import trace
from canaries.shared.exchange import Ask, Connection, Exchange, Failure, Kind, Phase, Phases, exchange
from canaries.shared.resolve import resolver
from canaries.shared.target import NAME, Target

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from canaries.shared.resolve import Answer

CLAIM_ROUNDS: Final = 360  # an hour of rounds: load balancers change their addresses, and another one may get an old one


@dataclass(frozen=True, slots=True)
class Pooled:
    """What a client sees that keeps its connection to the name: it may stay in a Region that was drained long ago."""

    exchange: Exchange
    region: str | None
    age_s: float


@dataclass(frozen=True, slots=True)
class Round:
    """All that was seen in one round. ``slot`` is its place on the grid, epoch seconds; ``routing`` has the controls that could be read."""

    slot: float
    looks: tuple[Look, ...]
    cells: Mapping[str, Cell]
    routing: Mapping[str, bool]
    agrees: bool | None
    served_by: Mapping[tuple[str, str], str | None]
    pooled: Pooled | None
    seconds: float
    spans: tuple[trace.Subsegment, ...] = ()

    @property
    def sighted(self) -> bool:
        """Whether this vantage saw anything up."""
        return verdict.sighted(self.cells.values())

    @property
    def stale(self) -> bool | None:
        """Whether the pooled client is still served by a Region whose control is off; None where that cannot be told."""
        state = self.routing.get(self.pooled.region or "") if self.pooled else None
        return None if state is None else not state


def grid(start: float, every_s: float, offset_s: float, until_s: float) -> Iterator[float]:
    """The slots of a run that starts at ``start``: ``offset_s + n * every_s`` of the clock, from the start until ``until_s`` later."""
    number = -((start - offset_s) // -every_s)
    while (slot := offset_s + number * every_s) <= start + until_s:
        yield slot
        number += 1


@dataclass(slots=True)
class Prober:
    """Does rounds. Lives as long as the process is warm, with its threads, its TLS context and its pooled connection."""

    settings: ProbeSettings
    routing: Callable[[], Mapping[str, bool]]
    user_agent: str = "CloudWatchSynthetics"
    number: int = 0
    _pool: ThreadPoolExecutor = field(init=False)
    _resolve: Callable[[str, float], Answer] = field(init=False)
    _tls: ssl.SSLContext = field(init=False)
    _pooled: Connection | None = None
    _reading: Future[Mapping[str, bool]] | None = None
    _claims: dict[str, dict[str, int]] = field(default_factory=dict)
    _addresses: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        threads = len(self.settings.targets) * len(self.settings.pages) + 2  # no page of a round waits for another one; pooled; routing
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="probe")
        self._resolve = resolver(self.settings.resolver)
        self._tls = ssl.create_default_context(cadata=self.settings.ca)

    def close(self) -> None:
        """End the threads and the pooled connection."""
        self._pool.shutdown(cancel_futures=True)
        if self._pooled:
            self._pooled.close()

    def round(self, slot: float, run: trace.TraceId, sleep: Callable[[float], None] = time.sleep) -> Round:
        """One round, now. Takes at most twice the total timeout and the pause between the tries. Raises nothing for a try that stumbles."""
        settings, self.number = self.settings, self.number + 1
        began = time.perf_counter()
        began_at = time.time()
        reading = self._begin_reading()
        pairs = [(target, page) for target in settings.targets for page in settings.pages]
        sample = self.number % len(pairs)
        first = [self._pool.submit(self._try, target, page, run, index == sample) for index, (target, page) in enumerate(pairs)]
        pooled = self._pool.submit(self._ask_pooled, run)
        tries = [future.result() for future in first]
        spans = [span for index, (each, span) in enumerate(tries) if index == sample or not each.ok]
        second: dict[int, Future[tuple[Exchange, trace.Subsegment]]] = {}
        if not all(each.ok for each, _ in tries):
            sleep(max(0.0, settings.rounds.retry_after_s - (time.time() - began_at)))
            second = {i: self._pool.submit(self._try, *pairs[i], run, True) for i, (each, _) in enumerate(tries) if not each.ok}
        again = {index: future.result() for index, future in second.items()}
        spans += [span for _, span in again.values()]
        looks = tuple(
            Look(target.name, page.name, tries[i][0], again[i][0] if i in again else None) for i, (target, page) in enumerate(pairs)
        )
        self._learn(looks)
        states = _result(reading, began + settings.limits.total_s)
        return Round(
            slot=slot,
            looks=looks,
            cells={
                target.name: verdict.cell([look for look in looks if look.target == target.name], settings.limits.degraded_ms)
                for target in settings.targets
            },
            routing=states,
            agrees=verdict.dns_agrees(self._name_addresses(looks), {**self._told(looks), **self._addresses}, states),
            served_by={(look.target, look.page): self._region(look.last) for look in looks},
            pooled=pooled.result(),
            seconds=time.perf_counter() - began,
            spans=tuple(spans),
        )

    def _ask(self, target: Target, page: Page, run: trace.TraceId, span: str, sampled: bool, connection: str) -> Ask:
        limits = self.settings.limits
        ours = trace.headers(run, span, sampled and self.settings.traces, self.settings.vantage, self.user_agent)
        return Ask(
            url_host=target.host,
            port=target.port,
            secure=target.secure,
            path=page.path,
            status=page.status,
            body=page.body,
            connect_s=limits.connect_s,
            total_s=limits.total_s,
            body_bytes=limits.body_bytes,
            turn=self.number,
            headers={**ours, "Connection": connection},
        )

    def _try(self, target: Target, page: Page, run: trace.TraceId, sampled: bool) -> tuple[Exchange, trace.Subsegment]:
        """One try on a connection of its own. A second try is always sampled: a page that fails twice leads to the services' trace."""
        span, started = trace.span_id(), time.time()
        try:
            result = exchange(self._ask(target, page, run, span, sampled, "close"), self._resolve, self._tls)
        except Exception as error:  # noqa: BLE001 - a page that we stumble over must not blind us to the others
            result = _stumbled(error)
        return result, _subsegment(span, started, target, page, result)

    def _ask_pooled(self, run: trace.TraceId) -> Pooled | None:
        """The first page again, by name, on the connection that was kept; a new one only when that was closed."""
        target = next((each for each in self.settings.targets if each.name == NAME), None)
        if target is None:
            return None
        try:
            ask = self._ask(target, self.settings.pages[0], run, trace.span_id(), False, "keep-alive")
            if self._pooled is None:
                self._pooled = Connection(ask, self._resolve, self._tls)
            result = _once_more(self._pooled, ask)
        except Exception as error:  # noqa: BLE001 - as in `_try`
            if self._pooled is not None:
                self._pooled.close()
            result = _stumbled(error)
        opened_at = self._pooled.opened_at if self._pooled is not None else 0.0
        return Pooled(result, self._region(result), max(0.0, time.time() - opened_at) if opened_at else 0.0)

    def _begin_reading(self) -> Future[Mapping[str, bool]] | None:
        """Begin to read the routing controls, unless the last reading is still under way: boto3's timeouts do not cover the resolution of
        an endpoint's name."""
        if self._reading is not None and not self._reading.done():
            return None
        self._reading = self._pool.submit(self.routing)
        return self._reading

    def _learn(self, looks: tuple[Look, ...]) -> None:
        """Remember which addresses belong to which Region's load balancer."""
        regions = {target.name: target.region for target in self.settings.targets if target.region is not None}
        for look in looks:
            if look.target in regions and look.last.answer is not None:
                for address in look.last.answer.addresses:
                    self._claims.setdefault(address, {})[regions[look.target]] = self.number
        self._claims = {
            address: fresh
            for address, claims in self._claims.items()
            if (fresh := {region: number for region, number in claims.items() if self.number - number < CLAIM_ROUNDS})
        }
        self._addresses = verdict.owners(self._claims)

    def _told(self, looks: tuple[Look, ...]) -> dict[str, str]:
        """Which Region each address of the name led to in this round, as the answers themselves say."""
        claims: dict[str, list[str]] = {}
        for look in looks:
            region = self._region(look.last)
            if look.target == NAME and look.last.ip is not None and region is not None:
                claims.setdefault(look.last.ip, []).append(region)
        return verdict.owners(claims)

    def _name_addresses(self, looks: tuple[Look, ...]) -> tuple[str, ...]:
        """What the name answered, in any look of the round."""
        answers = [look.last.answer for look in looks if look.target == NAME and look.last.answer is not None]
        return tuple(sorted({address for answer in answers for address in answer.addresses}))

    def _region(self, result: Exchange) -> str | None:
        return verdict.answering_region(result, self.settings.region_header, self.settings.regions, self._addresses)


def _result(reading: Future[Mapping[str, bool]] | None, deadline: float) -> Mapping[str, bool]:
    """What was read until the deadline (of `time.perf_counter`); nothing where it is late or stumbled: unknown is not off."""
    if reading is None:
        return {}
    wait([reading], timeout=max(0.0, deadline - time.perf_counter()))
    return reading.result() if reading.done() and reading.exception() is None else {}


def _once_more(kept: Connection, ask: Ask) -> Exchange:
    """Ask on a kept connection; where it was closed while idle, again on a new one, as every client does."""
    reused = kept.is_open
    result = kept.exchange(ask)
    closed = reused and result.failure is not None and result.failure.kind is Kind.RESET
    return kept.exchange(ask) if closed else result


def _stumbled(error: Exception) -> Exchange:
    """What becomes of a try in which we ourselves went wrong."""
    return Exchange(Failure(Kind.INTERNAL, Phase.DNS, f"{type(error).__name__}: {error}"), Phases())


def _subsegment(span: str, started: float, target: Target, page: Page, result: Exchange) -> trace.Subsegment:
    return trace.Subsegment(
        id=span,
        name=target.host,
        started=started,
        seconds=result.phases.total / 1000,
        url=f"{target.url}{page.path}",
        status=result.status,
        error=str(result.failure) if result.failure else None,
        annotations={"target": target.name, "page": page.name, **{f"{name}_ms": ms for name, ms in result.phases.as_dict().items()}},
    )
