"""Traces of our own runs, in X-Ray's segment format, sent with PutTraceSegments to the canary's own Region.

Python canaries have no active tracing, and there is no daemon to send to. This module is all there is of tracing: to send OTLP instead,
replace `document` and `send`. Format: X-Ray developer guide, "segment documents"; a document has at most 64 KB. Ids carry over into W3C
``traceparent``, so that services traced by OpenTelemetry and by X-Ray both join.
"""

from __future__ import annotations

import json
import secrets
import threading
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from canaries.shared import aws

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

DOCUMENT_LIMIT: Final = 64 * 1024
SYNTHETIC_HEADER: Final = "X-Crosswatch-Synthetic"
SLACK_S: Final = 0.3  # signing and the thread's start, on top of the call's own timeout


@dataclass(frozen=True, slots=True)
class TraceId:
    """A trace: 8 hexadecimal digits of its epoch second and 24 random ones."""

    second: str
    unique: str

    @classmethod
    def new(cls, now: float) -> TraceId:
        """A fresh id for a trace that begins at ``now``, epoch seconds."""
        return cls(f"{int(now):08x}", secrets.token_hex(12))

    def __str__(self) -> str:
        return f"1-{self.second}-{self.unique}"

    @property
    def w3c(self) -> str:
        """The same id as ``traceparent`` has it."""
        return self.second + self.unique


def span_id() -> str:
    """A fresh id for a segment or subsegment."""
    return secrets.token_hex(8)


def headers(trace: TraceId, parent: str, sampled: bool, vantage: str, user_agent: str) -> dict[str, str]:
    """What every request of ours carries: who asks, that it is synthetic, and the trace it belongs to."""
    flag = "1" if sampled else "0"
    return {
        "User-Agent": user_agent,
        "Accept": "text/html, */*",
        SYNTHETIC_HEADER: "true",
        "traceparent": f"00-{trace.w3c}-{parent}-0{flag}",
        "X-Amzn-Trace-Id": f"Root={trace};Parent={parent};Sampled={flag}",
        "baggage": f"crosswatch.synthetic=true,crosswatch.vantage={vantage}",
    }


@dataclass(frozen=True, slots=True)
class Subsegment:
    """One request of a run. ``started`` is epoch seconds on the run's clock, ``seconds`` how long it took."""

    id: str
    name: str
    started: float
    seconds: float
    url: str
    method: str = "GET"
    status: int | None = None
    error: str | None = None
    annotations: Mapping[str, str | float | bool] = field(default_factory=dict)

    def as_document(self) -> dict[str, Any]:
        """The subsegment as X-Ray reads it: ``namespace`` remote, so that the service map draws an edge to the host."""
        http: dict[str, Any] = {"request": {"method": self.method, "url": self.url}}
        if self.status is not None:
            http["response"] = {"status": self.status}
        document: dict[str, Any] = {
            "id": self.id,
            "name": self.name,
            "namespace": "remote",
            "start_time": round(self.started, 6),
            "end_time": round(self.started + self.seconds, 6),
            "http": http,
            "annotations": dict(self.annotations),
        }
        if self.error is not None:
            document["fault"] = True
            document["cause"] = {"exceptions": [{"id": span_id(), "message": self.error[:500], "type": "ProbeFailure"}]}
        return document


@dataclass(frozen=True, slots=True)
class RunSegment:
    """A run as the root of its trace."""

    trace: TraceId
    id: str
    name: str
    started: float
    ended: float
    annotations: Mapping[str, str | float | bool]
    subsegments: tuple[Subsegment, ...]


def document(run: RunSegment) -> str:
    """The segment document, never longer than X-Ray takes: failing requests first, then as many others as fit; the rest is counted."""
    base: dict[str, Any] = {
        "trace_id": str(run.trace),
        "id": run.id,
        "name": run.name,
        "start_time": round(run.started, 6),
        "end_time": round(run.ended, 6),
        "annotations": dict(run.annotations),
        "fault": any(each.error is not None for each in run.subsegments),
    }
    kept: list[Subsegment] = []
    size = len(json.dumps(base)) + 200
    for each in sorted(run.subsegments, key=lambda item: item.error is None):
        size += len(json.dumps(each.as_document())) + 2
        if size > DOCUMENT_LIMIT:
            break
        kept.append(each)
    base["metadata"] = {"crosswatch": {"requests": len(run.subsegments), "left_out": len(run.subsegments) - len(kept)}}
    base["subsegments"] = [each.as_document() for each in sorted(kept, key=lambda item: item.started)]
    return json.dumps(base)


def send(client: Any, documents: Iterable[str]) -> list[str]:
    """Send segment documents with an X-Ray client; returns what X-Ray refused, in words. Raises what boto3 raises."""
    response = client.put_trace_segments(TraceSegmentDocuments=list(documents))
    return [f"{each.get('ErrorCode')}: {each.get('Message')}" for each in response.get("UnprocessedTraceSegments", [])]


@dataclass(slots=True)
class Sender:
    """Sends a run's segment to X-Ray in ``region`` without holding the run up: boto3's timeouts do not cover the resolution of its
    endpoint's name. The client is kept while the process is warm."""

    region: str
    endpoint: str | None
    timeout_s: float
    _client: Any = field(init=False)
    _thread: threading.Thread | None = None

    def __post_init__(self) -> None:
        self._client = aws.client("xray", self.region, self.endpoint, self.timeout_s)

    def send(self, run: RunSegment) -> list[str]:
        """Send a segment, waiting little more than the timeout; returns what went wrong, in words, none where X-Ray took it."""
        if self._thread is not None and self._thread.is_alive():
            return ["the one before is still on its way: nothing was sent"]
        problems: list[str] = []
        self._thread = threading.Thread(target=self._deliver, args=(document(run), problems), name="trace", daemon=True)
        self._thread.start()
        self._thread.join(self.timeout_s + SLACK_S)
        return [f"no answer within {self.timeout_s:g} s"] if self._thread.is_alive() else problems

    def _deliver(self, text: str, problems: list[str]) -> None:
        try:
            problems += send(self._client, [text])
        except aws.errors() as error:
            problems.append(aws.short(error))
