"""Takes blocks from one queue to one destination: merges, expires, sends, bisects, waits, and books what became of every item.

One thread for each destination, so that one that hangs does not hold up the others. Blocks leave the queue in order, and only when each of
their items has been delivered or counted as lost; what is in between stays in the queue, hence survives the process.
"""

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from opentelemetry.context import _SUPPRESS_INSTRUMENTATION_KEY as SUPPRESS
from opentelemetry.context import attach, set_value

from crosswatch_exporters.blocks import Block, total_items
from crosswatch_exporters.destinations import Destination
from crosswatch_exporters.endpoint import Endpoint, NoCredentials
from crosswatch_exporters.health import Backoff
from crosswatch_exporters.ledger import Account, Loss
from crosswatch_exporters.queues import BlockQueue
from crosswatch_exporters.verdicts import Action, Verdict, wall_clock

log = logging.getLogger(__name__)

_NEVER = 3600.0
# Says once in so many seconds that a destination is in trouble; a log line for each failure would be a flood during an outage.
_REMIND_EVERY = 60.0


@dataclass(slots=True, eq=False)
class _Piece:
    """Blocks that are sent in one request."""

    blocks: list[Block]

    @property
    def items(self) -> int:
        return total_items(self.blocks)


class Sender:
    """Delivers one queue. `endpoints` are the own Region's and, if there is one, the other Region's."""

    def __init__(
        self,
        destination: Destination,
        queue: BlockQueue,
        account: Account,
        endpoints: Sequence[Endpoint],
        linger: float = 1.0,
        clock: Callable[[], float] = wall_clock,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self.destination = destination
        self.queue = queue
        self.account = account
        self.endpoints = list(endpoints)
        self._linger = linger
        self._clock = clock
        self._monotonic = monotonic
        self._wake = threading.Event()
        self._thread: threading.Thread | None = None
        self._closing_by: float | None = None
        self._hurry = False
        self.fallback: Callable[[], tuple[Destination, list[Endpoint]]] | None = None
        self._backoff = Backoff()
        self._pieces: deque[_Piece] = deque()
        self._claimed = 0
        self._not_before = 0.0
        self._ripe_at: float | None = None
        self._reminded_at = -_REMIND_EVERY
        self.idle = threading.Event()
        self.idle.set()

    # --- called by other threads ---

    def start(self) -> None:
        """Start the thread, if it is not running."""
        if self._thread is None or not self._thread.is_alive():
            self._thread = threading.Thread(target=self._run, name=f"crosswatch-{self.destination.name}", daemon=True)
            self._thread.start()

    def notify(self) -> None:
        """Something was put into the queue."""
        self.idle.clear()
        if not self._wake.is_set():
            self._wake.set()

    def flush(self) -> None:
        """Do not wait for more before sending."""
        self._hurry = True
        self.notify()

    def close(self, by: float) -> None:
        """Deliver what can be delivered until `by` (monotonic seconds), then end the thread."""
        self._closing_by = by
        self._not_before = 0.0  # one more attempt, whatever we were waiting for
        self.flush()

    def join(self, by: float) -> None:
        """Wait for the thread until `by` (monotonic seconds); a request that is still waited for then is interrupted."""
        if self._thread is None:
            return
        self._thread.join(max(0.0, by - self._monotonic()))
        if self._thread.is_alive():
            for endpoint in self.endpoints:
                endpoint.transport.interrupt()
            self._thread.join(0.2)

    # --- the thread ---

    def _run(self) -> None:
        # Every connection looks this codec up, and Python never asks again for one that there was once no memory to load.
        import encodings.idna  # noqa: F401

        attach(set_value(SUPPRESS, True))
        while True:
            wait = self._step_safely()
            if self._closing_by is not None and (self.idle.is_set() or self._monotonic() + min(wait, 0.05) >= self._closing_by):
                break
            if wait > 0:
                self._wake.wait(min(wait, max(0.0, self._closing_by - self._monotonic())) if self._closing_by is not None else wait)
                self._wake.clear()
        for endpoint in self.endpoints:
            endpoint.transport.close()

    def _step_safely(self) -> float:
        """A step; what goes wrong must not end the thread. The blocks are still in the queue, and the next time may be better."""
        try:
            return self.step()
        except Exception as error:  # noqa: BLE001  # no memory, or a fault of ours
            now = self._monotonic()
            delay = self._backoff.next(None)
            self._not_before = now + delay
            if not isinstance(error, MemoryError):
                self._remind(now, "%s: a request failed here: %s: %s", self.destination.name, type(error).__name__, error)
            return delay

    def step(self) -> float:
        """Do one thing, and say for how many seconds there is nothing to do."""
        now = self._monotonic()
        if now < self._not_before:
            return self._not_before - now
        if not self._pieces:
            wait = self._claim(now)
            if wait > 0:
                return wait
        piece = self._pieces[0]
        endpoint = self._choose(now)
        if endpoint is None:
            return min(e.breaker.next_probe_at for e in self.endpoints) - now
        request = self._request(endpoint, piece)
        if request is not None:
            self._apply(self._attempt(endpoint, piece, request), piece, endpoint, now)
        return 0.0

    def _claim(self, now: float) -> float:
        """Take the next blocks as one piece; seconds to wait when there are none, or when more are likely to come soon."""
        while not self._pieces:
            with self.account.lock:
                blocks = self.queue.head(64)
                if not blocks:
                    self._ripe_at, self._hurry = None, False
                    self.idle.set()
                    return _NEVER
                enough = self.queue.weight * 2 >= self.destination.limits.request_bytes
                if not (enough or self._hurry or self._backoff.failures):
                    if self._ripe_at is None:
                        self._ripe_at = now + self._linger
                    if now < self._ripe_at:
                        return self._ripe_at - now
                count = self.destination.limits.fit(blocks)
                fresh, lost = self._expire(blocks[:count])
                pieces = self._cut(fresh)
                self._claimed = count
                for reason, items in lost:
                    self._settle_lost(reason, items)
                self._pieces.extend(pieces)
                self._release()
        return 0.0

    def _expire(self, blocks: Sequence[Block]) -> tuple[list[Block], list[tuple[Loss, int]]]:
        """The blocks, or parts of them, that the destination still accepts by their age, and what is lost of the rest."""
        limits, now_ns = self.destination.limits, int(self._clock() * 1e9)
        # A minute's margin, so that nothing expires on the way.
        oldest, newest = now_ns - limits.max_age_ns + 60 * 10**9, now_ns + limits.max_ahead_ns - 10 * 10**9
        fresh, lost, queue = [], [], deque(blocks)
        while queue:
            block = queue.popleft()
            if block.oldest_ns >= oldest and block.newest_ns <= newest:
                fresh.append(block)
            elif block.items > 1 and len(parts := self._parts(block)) > 1:
                queue.extendleft(reversed(parts))
            else:
                lost.append((Loss.TOO_OLD if block.oldest_ns < oldest else Loss.TOO_NEW, block.items))
        return fresh, lost

    def _cut(self, blocks: list[Block]) -> list[_Piece]:
        """Pieces that each fit a request. One does, as a rule; but blocks may have been built for another destination's limits."""
        limits, small = self.destination.limits, list(blocks)
        while any(block.items > limits.request_items or block.weight > limits.request_bytes for block in small):
            smaller = [part for block in small for part in (self._parts(block) if block.items > limits.request_items else [block])]
            if len(smaller) == len(small):
                break
            small = smaller
        pieces = []
        while small:
            count = limits.fit(small)
            pieces.append(_Piece(small[:count]))
            small = small[count:]
        return pieces

    def _parts(self, block: Block) -> list[Block]:
        """The block in parts; itself when it cannot be taken apart, or when it is not what it should be."""
        try:
            return self.destination.split(block)
        except MemoryError:
            raise
        except Exception as error:  # noqa: BLE001  # bytes that are no request of ours: one such block must not stop the queue
            log.debug("%s: a block cannot be taken apart: %s: %s", self.destination.name, type(error).__name__, error)
            return [block]

    def _choose(self, now: float) -> Endpoint | None:
        """The own endpoint while it is well or due for a probe, otherwise the other, otherwise none."""
        return next((endpoint for endpoint in self.endpoints if endpoint.breaker.may_send(now)), None)

    def _request(self, endpoint: Endpoint, piece: _Piece) -> tuple[bytes, Mapping[str, str]] | None:
        """Body and headers; None when none can be made of the piece, which is then halved, or lost when it is one item."""
        try:
            return self.destination.request(piece.blocks, endpoint.route, endpoint is not self.endpoints[0])
        except MemoryError:
            raise
        except Exception as error:  # noqa: BLE001  # an item that cannot be translated: it must not stop the queue
            self._split(f"no request can be made of it: {type(error).__name__}: {error}", piece)
            return None

    def _attempt(self, endpoint: Endpoint, piece: _Piece, request: tuple[bytes, Mapping[str, str]]) -> Verdict:
        try:
            reply = endpoint.send(*request)
            for mending, names in self.destination.mend(reply):
                endpoint.send(mending, names)
        except NoCredentials as error:
            return Verdict(Action.RETRY, reason=str(error))
        return self.destination.judge(reply, piece.items, self._clock())

    def _apply(self, verdict: Verdict, piece: _Piece, endpoint: Endpoint, began: float) -> None:
        now = self._monotonic()
        if verdict.impaired:
            endpoint.breaker.failed(now, now - began)
        elif verdict.action in (Action.DELIVERED, Action.SPLIT):
            endpoint.breaker.succeeded(now)
        else:
            endpoint.breaker.answered(now)
        match verdict.action:
            case Action.DELIVERED:
                self._delivered(verdict, piece)
            case Action.SPLIT:
                self._split(verdict.reason, piece)
            case Action.FALL_BACK if self.fallback is not None:
                self._fall_back(verdict)
            case _:
                self._wait(verdict, endpoint, now)

    def _wait(self, verdict: Verdict, endpoint: Endpoint, now: float) -> None:
        """Try again later; or at once, where there is somewhere else to go. Then it is the endpoint's probes that wait as it asked."""
        if endpoint.breaker.open and verdict.after is not None:
            endpoint.breaker.asked_to_wait(now + min(verdict.after, 3600.0))
        elsewhere = endpoint.breaker.open and self._choose(now) is not None
        self._not_before = now if elsewhere else now + self._backoff.next(verdict.after)
        with self.account.lock:
            waiting = self.queue.items
        self._remind(now, "%s: %s; %d items wait", endpoint.route.host, verdict.reason, waiting)

    def _delivered(self, verdict: Verdict, piece: _Piece) -> None:
        self._backoff.reset()
        rejected = min(verdict.rejected, piece.items)
        if rejected:
            self._remind(
                self._monotonic(), "%s: %d of %d items were rejected: %s", self.destination.name, rejected, piece.items, verdict.reason
            )
        with self.account.lock:
            self.queue.settle(piece.items)
            self.account.deliver(piece.items - rejected)
            self.account.lose(Loss.PARTIALLY_REJECTED, rejected)
            self._pieces.popleft()
            self._release()

    def _split(self, reason: str, piece: _Piece) -> None:
        """The request was refused for what is in it: send its halves, until the one item that is refused stands alone."""
        blocks = piece.blocks
        if len(blocks) == 1:
            blocks = self._parts(blocks[0])
        self._pieces.popleft()
        if len(blocks) > 1:
            middle = (len(blocks) + 1) // 2
            self._pieces.extendleft([_Piece(blocks[middle:]), _Piece(blocks[:middle])])
            return
        self._remind(self._monotonic(), "%s: an item was rejected: %s", self.destination.name, reason)
        with self.account.lock:
            self._settle_lost(Loss.REJECTED, piece.items)
            self._release()

    def _fall_back(self, verdict: Verdict) -> None:
        """The endpoint does not serve this account as things are; the fallback does, from now on until the process ends."""
        if self.fallback is not None:
            log.warning("%s: %s; falling back to another API", self.destination.name, verdict.reason)
            self.destination, self.endpoints = self.fallback()
            self.fallback = None
            self._pieces = deque(smaller for piece in self._pieces for smaller in self._cut(piece.blocks))

    def _settle_lost(self, reason: Loss, items: int) -> None:
        self.queue.settle(items)
        self.account.lose(reason, items)

    def _release(self) -> None:
        """Let the claimed blocks go once no piece of them is left."""
        if not self._pieces and self._claimed:
            self.queue.commit(self._claimed)
            self._claimed = 0
            self._ripe_at = None

    def _remind(self, now: float, message: str, *arguments: object) -> None:
        if now - self._reminded_at >= _REMIND_EVERY:
            self._reminded_at = now
            log.warning(message, *arguments)
