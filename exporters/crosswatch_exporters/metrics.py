"""Collecting metrics on a schedule, and handing every collection to the journal at once: nothing that was collected waits in memory."""

import logging
import threading
import time
from collections.abc import Callable
from typing import Any

from opentelemetry.context import _SUPPRESS_INSTRUMENTATION_KEY as SUPPRESS
from opentelemetry.context import attach, set_value
from opentelemetry.sdk.metrics import Counter, Histogram, ObservableCounter
from opentelemetry.sdk.metrics.export import AggregationTemporality, MetricReader
from opentelemetry.sdk.metrics.view import Aggregation, ExponentialBucketHistogramAggregation

from crosswatch_exporters.ledger import Account, Loss
from crosswatch_exporters.packing import Pack
from crosswatch_exporters.queues import BlockQueue

log = logging.getLogger(__name__)

# https://opentelemetry.io/docs/specs/otel/metrics/sdk_exporters/otlp/#additional-environment-variable-configuration
_DELTA_KINDS: dict[str, tuple[type, ...]] = {
    "cumulative": (),
    "lowmemory": (Counter, Histogram),
    "delta": (Counter, Histogram, ObservableCounter),
}

# The last collection may wait so many seconds for the service's callbacks.
_CLOSE_WITHIN = 2.0


class MetricStore:
    """Encodes collections into a queue, in the thread that collects."""

    def __init__(self, account: Account, pack: Pack, queue: BlockQueue, notify: Callable[[], None]) -> None:
        self._account = account
        self._pack = pack
        self._queue = queue
        self._notify = notify

    def __call__(self, data: Any) -> None:
        """Book and store one MetricsData."""
        lost: list[tuple[Loss, int]] = []
        blocks = self._pack([data], lambda reason, count: lost.append((reason, count)))
        with self._account.lock:
            self._account.taken += sum(block.items for block in blocks) + sum(count for _, count in lost)
            for reason, count in lost:
                self._account.lose(reason, count)
            for block in blocks:
                self._queue.append(block)
        if blocks:
            self._notify()


class ScheduledReader(MetricReader):
    """Collects every `interval` seconds in a thread of its own, which a forked child does not inherit: it gets a reader of its own."""

    def __init__(self, store: Callable[[Any], None], interval: float, temporality: str, exponential: bool) -> None:
        aggregation: dict[type, Aggregation] = {Histogram: ExponentialBucketHistogramAggregation()} if exponential else {}
        super().__init__(
            preferred_temporality=dict.fromkeys(_DELTA_KINDS[temporality], AggregationTemporality.DELTA),
            preferred_aggregation=aggregation,
        )
        self._store = store
        self._interval = interval
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._run, name="crosswatch-metrics", daemon=True)
        self._thread.start()

    def _receive_metrics(self, metrics_data: Any, timeout_millis: float = 10_000, **kwargs: Any) -> None:
        self._store(metrics_data)

    def shutdown(self, timeout_millis: float = 30_000, **kwargs: Any) -> None:
        """Let the thread collect one last time and end; wait for that at most two seconds.

        Not in the calling thread: a callback of the service's may hang, and a signal handler may have interrupted somebody who holds one of
        the SDK's locks.
        """
        self._closed.set()
        self._thread.join(min(_CLOSE_WITHIN, timeout_millis / 1000))

    def _run(self) -> None:
        attach(set_value(SUPPRESS, True))
        due = time.monotonic() + self._interval
        while not self._closed.wait(max(0.0, due - time.monotonic())):
            due += self._interval
            self._collect_safely()
        self._collect_safely()

    def _collect_safely(self) -> None:
        try:
            self.collect()
        except Exception as error:  # noqa: BLE001  # the SDK's own class, or what a service's callback raised; the next may succeed
            log.warning("metrics could not be collected: %s: %s", type(error).__name__, error)
