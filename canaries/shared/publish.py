"""Writing to every Region's CloudWatch at once. A Region that cannot be written to delays nobody and is itself an observation."""

from __future__ import annotations

import time
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from canaries.shared import aws

if TYPE_CHECKING:
    from collections.abc import Mapping

SLACK_S: Final = 0.3  # signing, serialising and the thread's start, on top of the write's own timeout


@dataclass(slots=True)
class Writer:
    """One client and one thread a Region, kept while the process is warm. ``last`` has what became of the last write to each."""

    namespace: str
    regions: Mapping[str, str | None]
    timeout_s: float
    last: dict[str, str | None] = field(default_factory=dict)
    _clients: dict[str, Any] = field(default_factory=dict)
    _threads: dict[str, ThreadPoolExecutor] = field(default_factory=dict)
    _pending: dict[str, Future[str | None]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for region, endpoint in self.regions.items():
            self._clients[region] = aws.client("cloudwatch", region, endpoint, self.timeout_s)
            self._threads[region] = ThreadPoolExecutor(1, thread_name_prefix=f"write-{region}")

    def write(self, data: Mapping[str, list[dict[str, Any]]]) -> dict[str, str | None]:
        """Write each Region's datums; returns the error for each, None where it went through. Takes little more than the timeout.

        A Region whose last write is still under way (a name that does not resolve, a black hole) is not asked again until it is over.
        """
        asked = {}
        for region, datums in data.items():
            before = self._pending.get(region)
            if before is None or before.done():
                asked[region] = self._threads[region].submit(self._put, region, datums)
        self._pending.update(asked)
        wait(asked.values(), timeout=self.timeout_s + SLACK_S)
        outcome = {
            region: asked[region].result() if region in asked and asked[region].done() else f"no answer within {self.timeout_s:g} s"
            for region in data
        }
        self.last.update(outcome)
        return outcome

    def close(self) -> None:
        """Let the threads go; a write under way ends by its own timeout."""
        for thread in self._threads.values():
            thread.shutdown(wait=False, cancel_futures=True)

    def _put(self, region: str, datums: list[dict[str, Any]]) -> str | None:
        began = time.perf_counter()
        try:
            self._clients[region].put_metric_data(Namespace=self.namespace, MetricData=datums)
        except aws.errors() as error:
            return f"{aws.short(error)} after {time.perf_counter() - began:.2f} s"
        return None
