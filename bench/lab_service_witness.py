"""What the lab's AWS says about the soaked service, for `lab_service_soak.py`: which traces arrived, and what the ledger's metrics were.

Both are read through AWS's APIs with the lab's credentials, as anybody would: `Spans` by GetTraceSummaries and BatchGetTraces,
`LedgerReader` by the Prometheus API of the OTLP metrics endpoint, `log_events` by CloudWatch's AWS/Logs metrics. Nothing is asked of the
exporters themselves.
"""

from __future__ import annotations

import contextlib
import heapq
import json
import threading
import time
import urllib.request
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any
from urllib.error import HTTPError
from urllib.parse import urlencode

import boto3
import numpy as np
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.config import Config
from botocore.credentials import Credentials
from botocore.exceptions import BotoCoreError, ClientError

from bench.lab_service_load import TIMEOUT_S, trace_id

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    import numpy.typing as npt

    from lab.plan import LabPlan

WINDOW_S = 0.45  # at 200 requests/s 90 traces, which is one page
SETTLE_S = TIMEOUT_S + 3.0
AGAIN_S = 12.0
PAUSE_S = 0.03
FEW = 25  # missing traces that are asked for one by one
ONE_OF = 4
OPEN_EVERY = 5  # of so many windows looked at, one has five of its traces opened
A_CALL = 5  # BatchGetTraces takes no more
COUNTS = ("emitted", "recovered", "delivered", "queued", "held", "spooled", "dropped")


def client(plan: LabPlan, service: str, region: str) -> Any:
    """A boto3 client of the lab's administrator that does not wait long for an endpoint in trouble."""
    pair = plan.credentials["admin"]
    return boto3.client(
        service,
        region_name=region,
        endpoint_url=plan.regions[region].aws_endpoint,
        aws_access_key_id=pair.access_key,
        aws_secret_access_key=pair.secret_key,
        config=Config(retries={"total_max_attempts": 1}, connect_timeout=2, read_timeout=20),
    )


class Spans:
    """Looks answered requests up in X-Ray, by the trace id that the load gave it; a thread of its own.

    A window in `ONE_OF` is looked at, drawn at random, and in it every request (``asked``): to look at all takes a slow machine longer than
    X-Ray here keeps them, and as much of the local AWS's time as all the telemetry does.

    ``moments`` are the arrivals, seconds after ``began`` (wall); ``statuses`` is filled by the caller: -1 where no answer is known yet.
    A window of arrivals is asked for `SETTLE_S` after its end, then again every `AGAIN_S`, until every answered request was found; but
    not before ``not_before`` (wall), which the caller moves while endpoints are in trouble, and not faster than a call every `PAUSE_S`.
    X-Ray here keeps the last 40,000 traces of a Region: three minutes.
    """

    def __init__(
        self, plan: LabPlan, regions: list[str], run: str, began: float, moments: npt.NDArray[np.float64], statuses: npt.NDArray[np.int16]
    ) -> None:
        self._clients = {region: client(plan, "xray", region) for region in regions}
        self._run, self._began, self._moments, self._statuses = run, began, moments, statuses
        self.found = np.zeros(len(moments), bool)
        self.opened = self.whole = 0
        self.not_before = 0.0
        self._stop = threading.Event()
        last = float(moments[-1]) if len(moments) else 0.0
        edges = np.arange(0.0, last + WINDOW_S, WINDOW_S)
        bounds = [*np.searchsorted(moments, edges).tolist(), len(moments)]
        windows = [each for each in zip(edges.tolist(), bounds, bounds[1:], strict=False) if each[2] > each[1]]
        drawn = np.random.default_rng(len(moments)).random(len(windows)) < 1 / ONE_OF
        chosen = [window for window, taken in zip(windows, drawn, strict=True) if taken]
        self.asked = np.zeros(len(moments), bool)
        for _, low, high in chosen:
            self.asked[low:high] = True
        self._open_at = {low for _, low, _ in chosen[::OPEN_EVERY]}
        self._due = [(began + edge + WINDOW_S + SETTLE_S, 0, low, high) for edge, low, high in chosen]
        heapq.heapify(self._due)
        self._thread = threading.Thread(target=self._work, name="spans", daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    @property
    def done(self) -> bool:
        """Whether nothing is left to look for."""
        return not self._thread.is_alive()

    def stop(self) -> None:
        """End the search, whatever is still missing."""
        self._stop.set()
        self._thread.join(30)

    def missing(self) -> int:
        """Answered requests that were looked for and whose trace was not found (yet)."""
        return int((self.asked & (self._statuses > 0) & ~self.found).sum())

    def _work(self) -> None:
        while self._due and not self._stop.is_set():
            at, attempt, low, high = self._due[0]
            if (ahead := max(at, self.not_before) - time.time()) > 0:
                self._stop.wait(min(ahead, 0.5))
                continue
            heapq.heappop(self._due)
            self._look(attempt, low, high)
            if self._lacking(low, high).size:
                heapq.heappush(self._due, (time.time() + AGAIN_S, attempt + 1, low, high))

    def _lacking(self, low: int, high: int) -> npt.NDArray[np.intp]:
        return low + np.flatnonzero((self._statuses[low:high] > 0) & ~self.found[low:high])

    def _look(self, attempt: int, low: int, high: int) -> None:
        """Ask each Region in turn until the window is complete; the home Region first."""
        for xray in self._clients.values():
            lacking = self._lacking(low, high)
            if not lacking.size:
                return
            try:
                if attempt > 1 and lacking.size <= FEW:
                    self._ask_for(xray, lacking.tolist())
                else:
                    self._sweep(xray, self._moments[low] - 0.1, self._moments[high - 1] + 0.1 + 2.0 * attempt)
                if not attempt and low in self._open_at:
                    self._open(xray, [number for number in range(low, min(high, low + A_CALL)) if self.found[number]])
            except (ClientError, BotoCoreError):
                continue  # asked again later

    def _sweep(self, xray: Any, start: float, end: float) -> None:
        token: dict[str, str] = {}
        while True:
            answer = xray.get_trace_summaries(StartTime=self._began + start, EndTime=self._began + end, **token)
            self._stop.wait(PAUSE_S)
            self._note(summary["Id"] for summary in answer["TraceSummaries"])
            if not answer.get("NextToken"):
                return
            token = {"NextToken": answer["NextToken"]}

    def _ask_for(self, xray: Any, numbers: list[int]) -> None:
        for first in range(0, len(numbers), A_CALL):
            self._note(trace["Id"] for trace in self._traces(xray, numbers[first : first + A_CALL]))

    def _traces(self, xray: Any, numbers: list[int]) -> list[dict[str, Any]]:
        ids = [trace_id(self._run, self._began + float(self._moments[number]), number) for number in numbers]
        self._stop.wait(PAUSE_S)
        answer: list[dict[str, Any]] = xray.batch_get_traces(TraceIds=[f"1-{each[:8]}-{each[8:]}" for each in ids])["Traces"]
        return answer

    def _open(self, xray: Any, numbers: list[int]) -> None:
        """Read whole traces: the server's span must hold the database's."""
        for trace in self._traces(xray, numbers) if numbers else ():
            self.opened += 1
            self.whole += any(json.loads(segment["Document"]).get("subsegments") for segment in trace["Segments"])

    def _note(self, ids: Iterable[str]) -> None:
        for identity in ids:
            rest = identity[11:]
            if rest[:12] == self._run and (number := int(rest[12:], 16)) < len(self.found):
                self.found[number] = True


@dataclass(frozen=True, slots=True)
class Sample:
    """One signal's ledger at one moment (wall seconds), as the service's own metrics told it."""

    at: float
    signal: str
    emitted: int
    recovered: int
    delivered: int
    queued: int
    held: int
    spooled: int
    dropped: int

    @property
    def off(self) -> int:
        """By how many items the ledger is wrong; zero."""
        return self.emitted + self.recovered - self.delivered - self.queued - self.held - self.spooled - self.dropped

    @property
    def waiting(self) -> int:
        """Items that were neither delivered nor lost."""
        return self.queued + self.held + self.spooled


@dataclass(slots=True)
class LedgerReader:
    """Collects the ledger's samples of the task ``instance``, wherever its metrics went; they come late when an endpoint was in trouble."""

    plan: LabPlan
    regions: list[str]
    instance: str
    samples: dict[tuple[float, str], Sample] = field(default_factory=dict)
    _known: set[float] = field(default_factory=set)

    def read(self, moments: Iterable[float], every_s: float) -> None:
        """Take in the collections that were made, ``every_s`` seconds apart, up to each of ``moments`` (wall), where not known yet."""
        for moment in moments:
            for region in self.regions:
                if any(moment - every_s < at <= moment for at in self._known):
                    break
                with contextlib.suppress(OSError):  # asked again later
                    self._take(region, moment)

    def _take(self, region: str, moment: float) -> None:
        found: dict[tuple[float, str], dict[str, int]] = {}
        for at, labels, value in self._query(region, moment):
            numbers = found.setdefault((at, labels["signal"]), {})
            key = labels.get("outcome") or labels["place"]
            numbers[key] = numbers.get(key, 0) + value
        newest = max((at for at, _ in found), default=0.0)
        for (at, signal), numbers in found.items():
            if at == newest:
                self.samples[at, signal] = Sample(at, signal, **{key: numbers.get(key, 0) for key in COUNTS})
                self._known.add(at)

    def _query(self, region: str, moment: float) -> Iterator[tuple[float, dict[str, str], int]]:
        selector = f'{{"@instrumentation.@name"="crosswatch_exporters","@resource.service.instance.id"="{self.instance}"}}'
        pair = self.plan.credentials["admin"]
        endpoint = self.plan.regions[region].aws_endpoint
        request = AWSRequest("GET", f"{endpoint}/api/v1/query?{urlencode({'query': selector, 'time': f'{moment:.3f}'})}")
        SigV4Auth(Credentials(pair.access_key, pair.secret_key), "monitoring", region).add_auth(request)
        signed = urllib.request.Request(request.url, headers=dict(request.headers.items()))
        try:
            with urllib.request.urlopen(signed, timeout=10) as response:
                answer = json.load(response)
        except HTTPError as error:
            raise OSError(f"{region} answered {error.code}: {error.read(200)!r}") from error
        for each in answer["data"]["result"]:
            yield float(each["value"][0]), each["metric"], round(float(each["value"][1]))

    def of(self, signal: str) -> list[Sample]:
        """The samples of a signal, in order."""
        return sorted((sample for sample in self.samples.values() if sample.signal == signal), key=lambda sample: sample.at)

    def last(self) -> dict[str, Sample]:
        """The newest sample of each signal."""
        newest: dict[str, Sample] = {}
        for sample in self.samples.values():
            if sample.signal not in newest or newest[sample.signal].at < sample.at:
                newest[sample.signal] = sample
        return newest


def log_events(plan: LabPlan, regions: Iterable[str], group: str, start: float, end: float) -> int:
    """Events that CloudWatch Logs took into ``group``, all Regions, by its own metric AWS/Logs IncomingLogEvents. Wall seconds."""
    total = 0.0
    for region in regions:
        answer = client(plan, "cloudwatch", region).get_metric_statistics(
            Namespace="AWS/Logs",
            MetricName="IncomingLogEvents",
            Dimensions=[{"Name": "LogGroupName", "Value": group}],
            StartTime=datetime.fromtimestamp(start - start % 60, UTC),
            EndTime=datetime.fromtimestamp(end - end % 60 + 60, UTC),
            Period=60,
            Statistics=["Sum"],
        )
        total += sum(point["Sum"] for point in answer["Datapoints"])
    return round(total)
