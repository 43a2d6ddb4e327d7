"""Where the service's threads hand their items over, and the thread that takes them from there.

In the service's thread an item is encoded and appended to a deque; nothing there waits for a disk, a network or another thread.
Encoding at once costs less than encoding later in another thread, which under one interpreter lock takes its time from the service all
the same: what was just written is still in the processor's cache, and nothing but bytes is kept. Everything else (limits, blocks, the
journal) happens in the pump's thread, which comes by every `tick` seconds, or earlier when much has arrived. Within that time an item is
in the journal and survives the process.
"""

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, Protocol

from opentelemetry.context import _SUPPRESS_INSTRUMENTATION_KEY as SUPPRESS
from opentelemetry.context import Context, attach, set_value
from opentelemetry.sdk._logs import LogRecordProcessor
from opentelemetry.sdk.trace import ReadableSpan, Span, SynchronousMultiSpanProcessor

from crosswatch_exporters.blocks import Block
from crosswatch_exporters.ledger import Account, Loss
from crosswatch_exporters.packing import Lose, Pack, Prepared
from crosswatch_exporters.queues import BlockQueue
from crosswatch_exporters.tracing.span import LeanSpan

log = logging.getLogger(__name__)

_OWN_LOGGERS = "crosswatch_exporters"
# Packed in one go: small enough to leave the interpreter to the service every millisecond or two.
_BATCH = 512
# Items above this size are counted by size as well as by number; the others cannot become many bytes.
_LARGE = 4096
_MOST_LARGE_BYTES = 64 * 1024 * 1024
# After the pump stumbled it waits so many seconds; it says so once in a while and not each time.
_PAUSE = 0.5
_REMIND_EVERY = 60.0


class Packer(Protocol):
    """Encodes items one by one, and packs what was encoded."""

    def prepare(self, item: Any, /) -> Prepared:
        """Encode an item, in the service's thread."""

    def __call__(self, prepared: Sequence[Prepared], lose: Lose, /) -> list[Block]:
        """Make blocks, in the pump's thread."""


class Intake:
    """The bounded queue of one signal's items before they are packed: at most `capacity` items, at most 64 MiB of them large."""

    def __init__(self, account: Account, packer: Packer, queue: BlockQueue, notify: Callable[[], None], capacity: int) -> None:
        self._items: deque[Prepared] = deque()
        self._capacity = capacity
        self._wake_at = max(1, min(_BATCH, capacity // 2))
        self._large_bytes = 0
        self._account = account
        self._prepare = packer.prepare
        self._pack: Pack = packer
        self._queue = queue
        self._notify = notify
        self._refusal = Loss.QUEUE_FULL
        self.wake: Callable[[], None] = lambda: None
        account.waiting = self._items.__len__

    def put(self, item: Any) -> None:
        """Hand an item over. Never blocks for longer than a lock that is held for microseconds, never raises."""
        items = self._items
        waiting = len(items)
        if waiting >= self._capacity:
            self._account.refuse(self._refusal, 1)
            return
        try:
            prepared = self._prepare(item)
        except Exception:  # noqa: BLE001  # whatever a value's own methods raise; the service must not hear of it
            self._account.refuse(Loss.UNENCODABLE, 1)
            return
        if prepared[1] > _LARGE and not self._has_room_for(prepared[1]):
            self._account.refuse(self._refusal, 1)
            return
        items.append(prepared)
        if waiting >= self._wake_at:
            self.wake()

    def put_prepared(self, items: Sequence[Prepared]) -> None:
        """Take items that were encoded, and held, elsewhere. The account's `brief` lock is held."""
        self._large_bytes += _large_bytes(items)
        self._items.extend(items)
        if len(self._items) >= self._wake_at:
            self.wake()

    def _has_room_for(self, size: int) -> bool:
        """Whether a large item fits; if so, it is counted."""
        with self._account.brief:
            room = _MOST_LARGE_BYTES - self._large_bytes
            if size <= room:
                self._large_bytes += size
        if room < _MOST_LARGE_BYTES // 2:
            self.wake()
        return size <= room

    def close(self) -> None:
        """Take nothing more; what still comes is counted as lost."""
        self._refusal = Loss.SHUTDOWN
        self._capacity = 0

    def drain(self) -> None:
        """Pack what has arrived and put it into the queue."""
        while self._items:
            self._drain_batch()

    def _drain_batch(self) -> None:
        account, items = self._account, self._items
        with account.lock:
            batch = [items.popleft() for _ in range(min(_BATCH, len(items)))]
            account.taken += len(batch)
            account.in_work += len(batch)
        lost: list[tuple[Loss, int]] = []
        try:
            blocks = self._pack_sound(batch, lost)
        except MemoryError:
            with account.lock:
                items.extendleft(reversed(batch))
                account.taken -= len(batch)
                account.in_work -= len(batch)
            raise
        with account.brief:
            self._large_bytes -= _large_bytes(batch)
        with account.lock:
            account.in_work -= len(batch)
            for reason, count in lost:
                account.lose(reason, count)
            for block in blocks:
                self._queue.append(block)
        if blocks:
            self._notify()

    def _pack_sound(self, batch: Sequence[Prepared], lost: list[tuple[Loss, int]]) -> list[Block]:
        """The batch's blocks. What the packer stumbles over is halved until it stands alone, and lost alone."""
        found: list[tuple[Loss, int]] = []
        try:
            blocks = self._pack(batch, lambda reason, count: found.append((reason, count)))
        except MemoryError:
            raise
        except Exception as error:  # noqa: BLE001  # a scope or resource that is none; everything else must go on
            if len(batch) < 2:
                log.debug("an item cannot be packed: %s: %s", type(error).__name__, error)
                lost.append((Loss.UNENCODABLE, len(batch)))
                return []
            middle = len(batch) // 2
            return [*self._pack_sound(batch[:middle], lost), *self._pack_sound(batch[middle:], lost)]
        lost += found
        return blocks


def _large_bytes(items: Sequence[Prepared]) -> int:
    return sum(item[1] for item in items if item[1] > _LARGE)


class Pump:
    """The thread that drains the intakes."""

    def __init__(self, intakes: Sequence[Intake], tick: float) -> None:
        self._intakes = list(intakes)
        self._tick = tick
        self._wake = threading.Event()
        self._drained = threading.Event()
        self._busy = threading.Lock()
        self._closed = False
        self._thread: threading.Thread | None = None
        self._reminded_at = -_REMIND_EVERY
        for intake in self._intakes:
            intake.wake = self._wake_up

    def start(self) -> None:
        """Start the thread."""
        self._thread = threading.Thread(target=self._run, name="crosswatch-pump", daemon=True)
        self._thread.start()

    def drain(self) -> None:
        """Encode everything that has arrived, in the calling thread."""
        with self._busy:
            for intake in self._intakes:
                intake.drain()

    def nudge(self) -> None:
        """Drain now, in the pump's thread, and return when that is done or after a second."""
        if self._thread is not None:
            self._drained.clear()
            self._wake.set()
            self._drained.wait(1.0)

    def close(self, timeout: float) -> None:
        """Let the thread drain once more and end; wait at most `timeout` seconds for it."""
        self._closed = True
        for intake in self._intakes:
            intake.close()
        self._wake.set()
        if self._thread is not None:
            self._thread.join(timeout)

    def _wake_up(self) -> None:
        if not self._wake.is_set():
            self._wake.set()

    def _run(self) -> None:
        attach(set_value(SUPPRESS, True))
        while not self._closed:
            self._wake.wait(self._tick)
            self._wake.clear()
            if self.try_drain():
                self._drained.set()
            elif not self._closed:
                time.sleep(_PAUSE)
        self.try_drain()

    def try_drain(self) -> bool:
        """Drain and say whether that succeeded. What has arrived is still there if not, and the next time may be better."""
        try:
            self.drain()
        except Exception as error:  # noqa: BLE001  # no memory, or a fault of ours
            if not isinstance(error, MemoryError) and time.monotonic() - self._reminded_at >= _REMIND_EVERY:
                self._reminded_at = time.monotonic()
                log.warning("telemetry could not be packed and waits: %s: %s", type(error).__name__, error)
            return False
        return True


class SpanIntake(SynchronousMultiSpanProcessor):
    """The tracer provider's own processor: sampled spans go to `put` when they end, and to whatever processors the service adds.

    `put` is set when the pipeline is built, again after a fork.
    """

    def __init__(self, flush: Callable[[float], bool]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.put: Callable[[Any], None] = lambda item: None
        self.put_unsampled: Callable[[Any], None] | None = None
        self._flush = flush

    def on_start(self, span: Span, parent_context: Context | None = None) -> None:
        """For the service's processors."""
        if self._span_processors:
            super().on_start(span, parent_context)

    def _on_ending(self, span: Span) -> None:
        if self._span_processors:
            super()._on_ending(span)

    def on_end(self, span: ReadableSpan) -> None:
        """Hand a finished span over."""
        context = span.context
        if context is not None and context.trace_flags & 1:
            self.put(span)
        elif self.put_unsampled is not None:
            self.put_unsampled(span)
        if self._span_processors:
            super().on_end(span)

    def on_lean_end(self, span: LeanSpan) -> None:
        """Hand a finished lean span over; the service's processors get what the SDK would have given them."""
        others = self._span_processors
        if others:
            super()._on_ending(span)
        if span.get_span_context().trace_flags & 1:
            self.put(span)
        elif self.put_unsampled is not None:
            self.put_unsampled(span)
        if others:
            super().on_end(span._readable_span())

    def force_flush(self, timeout_millis: int = 30000) -> bool:
        """Wait until what has arrived is delivered."""
        return super().force_flush(timeout_millis) and self._flush(timeout_millis / 1000)


class LogIntake(LogRecordProcessor):
    """The logger provider's processor."""

    def __init__(self, flush: Callable[[float], bool]) -> None:
        self.put: Callable[[Any], None] = lambda item: None
        self._flush = flush

    def on_emit(self, log_record: Any) -> None:
        """Hand a record over, unless it is one of our own: a failing log destination must not feed itself."""
        scope = log_record.instrumentation_scope
        if scope is None or not str(scope.name).startswith(_OWN_LOGGERS):
            self.put(log_record)

    def shutdown(self) -> None:
        """The pipeline is closed as a whole, by its own hook."""

    def force_flush(self, timeout_millis: int = 30000) -> bool:
        """Wait until what has arrived is delivered."""
        return self._flush(timeout_millis / 1000)
