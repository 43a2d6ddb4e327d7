"""Tail keeping: traces that head sampling left out are kept all the same when they failed or were slow.

Spans that are recorded but not sampled wait here, encoded, until their trace's local root ends; then they all go on, or are all forgotten.
Memory is bounded: when it is full, the trace that has waited longest is forgotten. What waits is `held` in the ledger.
"""

from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from opentelemetry.trace import StatusCode

from crosswatch_exporters.ledger import Account, Loss
from crosswatch_exporters.packing import Prepared

# Spans may end after their root, in threads of their own; so many verdicts are remembered for them.
_VERDICTS = 2048


@dataclass(slots=True, eq=False)
class _Trace:
    """The spans of a trace that wait, and whether one of them failed."""

    spans: list[Prepared] = field(default_factory=list)
    weight: int = 0
    failed: bool = False


class TailBuffer:
    """Takes unsampled spans; hands kept ones to `keep`. `slow` in seconds."""

    def __init__(
        self,
        account: Account,
        prepare: Callable[[Any], Prepared],
        keep: Callable[[Sequence[Prepared]], None],
        slow: float,
        max_bytes: int,
    ) -> None:
        self._account = account
        self._prepare = prepare
        self._keep = keep
        self._slow_ns = int(slow * 1e9)
        self._max_bytes = max_bytes
        self._traces: OrderedDict[int, _Trace] = OrderedDict()
        self._verdicts: OrderedDict[int, bool] = OrderedDict()
        self._weight = 0
        self._held = 0
        account.held = lambda: self._held

    def add(self, span: Any) -> None:
        """Take a finished span that head sampling left out."""
        try:
            prepared = self._prepare(span)
        except Exception:  # noqa: BLE001  # whatever a value's own methods raise; the service must not hear of it
            self._account.refuse(Loss.UNENCODABLE, 1)
            return
        root = span.parent is None or span.parent.is_remote
        slow = root and (span.end_time or 0) - (span.start_time or 0) >= self._slow_ns
        failed = span.status.status_code is StatusCode.ERROR
        trace_id = span.context.trace_id
        with self._account.brief:
            decided = self._verdicts.get(trace_id)
            if decided is not None and not failed:
                self._finish([prepared], decided)
                return
            trace = self._traces.setdefault(trace_id, _Trace())
            trace.spans.append(prepared)
            trace.weight += prepared[1]
            trace.failed = trace.failed or failed
            self._weight += prepared[1]
            self._held += 1
            if root or decided is not None:
                self._decide(trace_id, trace.failed or slow)
            while self._weight > self._max_bytes:
                self._decide(next(iter(self._traces)), kept=False)

    def close(self) -> None:
        """Keep what failed, forget the rest: no root will come any more."""
        with self._account.brief:
            for trace_id in list(self._traces):
                self._decide(trace_id, self._traces[trace_id].failed)

    def _decide(self, trace_id: int, kept: bool) -> None:
        trace = self._traces.pop(trace_id)
        self._weight -= trace.weight
        self._held -= len(trace.spans)
        self._verdicts[trace_id] = kept
        if len(self._verdicts) > _VERDICTS:
            self._verdicts.popitem(last=False)
        self._finish(trace.spans, kept)

    def _finish(self, spans: Sequence[Prepared], kept: bool) -> None:
        if kept:
            self._keep(spans)
        else:
            self._account.refuse(Loss.TAIL, len(spans))
