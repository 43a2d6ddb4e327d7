"""The DynamoDB global table: makes the carts table in every Region of the local AWS and carries each Region's writes to the others.

It also makes the services' log groups, since it is the one process of the store that is AWS's administrator.

``python -m lab.data.dynamodb`` reads every table's stream and applies what it finds to the other tables, last writer wins: of two writes
to one item the later counts, of two in the same instant that of the Region whose name sorts last, the same everywhere. What it wrote
itself comes back on the stream and is recognised by its content. While a direction is cut its records wait in the stream. On
``replicator_port``:

    GET /status                                   directions: cut or not, applied, waiting, last latency
    PUT /directions/<from>/<to> {"cut": true, "delay_ms": 0}
    POST /window                                  AWS/DynamoDB data per Region
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import signal
import threading
import time
from collections import Counter, deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from lab.admin import Refusal, serve
from lab.plan import SERVICES, LabPlan
from lab.store import names
from lab.store.datum import Datum, across

if TYPE_CHECKING:
    from collections.abc import Iterator

NAMESPACE = "AWS/DynamoDB"
POLL_S = 0.25
ITEMS_REMEMBERED = 50_000  # about 20 MB; a conflict is between writes of the same minutes, and so many items are not written in those
TABLE = {
    "TableName": names.CARTS_TABLE,
    "KeySchema": [{"AttributeName": "customerId", "KeyType": "HASH"}, {"AttributeName": "itemId", "KeyType": "RANGE"}],
    "AttributeDefinitions": [{"AttributeName": "customerId", "AttributeType": "S"}, {"AttributeName": "itemId", "AttributeType": "S"}],
    "BillingMode": "PAY_PER_REQUEST",
    "StreamSpecification": {"StreamEnabled": True, "StreamViewType": "NEW_AND_OLD_IMAGES"},
}
Image = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Change:
    """One write: the item's new image, or None where it was deleted. ``at`` orders writes (epoch seconds of the AWS that took it)."""

    key: str
    keys: Image
    image: Image | None
    at: float
    region: str
    seen: float

    @property
    def rank(self) -> tuple[float, str]:
        """What makes one write the later of two."""
        return (self.at, self.region)


@dataclass(slots=True)
class Direction:
    """One Region's writes on their way to another. Latencies are wall milliseconds, what was cut counts in lab time."""

    cut: bool = False
    delay_ms: float = 0.0
    waiting: deque[Change] = field(default_factory=deque)
    applied: int = 0
    latencies: list[float] = field(default_factory=list)
    last_ms: float | None = None


class Ledger:
    """Who wrote each item last, and which of our own writes are still to come back on a stream.

    Of the items written longest ago beyond ``remembered`` it knows nothing any more: whatever comes next for one wins.
    """

    def __init__(self, remembered: int = ITEMS_REMEMBERED) -> None:
        self._remembered = remembered
        self._latest: dict[str, tuple[float, str]] = {}
        self._echoes: dict[tuple[str, str], deque[Image | None]] = {}

    def __len__(self) -> int:
        return len(self._latest) + len(self._echoes)

    def is_echo(self, change: Change) -> bool:
        """Whether ``change`` is a write of our own; it is struck off."""
        expected = self._echoes.get((change.region, change.key))
        if expected and expected[0] == change.image:
            expected.popleft()
            self._strike(change.region, change.key)
            return True
        return False

    def wrote_here(self, change: Change) -> None:
        """Note a client's write in its Region."""
        if change.rank > self._latest.get(change.key, (0.0, "")):
            self._latest.pop(change.key, None)  # so that the keys stand in the order of their last writes
            self._latest[change.key] = change.rank
            _keep(self._latest, self._remembered)

    def wins(self, change: Change) -> bool:
        """Whether ``change`` is the last write of its item that we know of."""
        return change.rank >= self._latest.get(change.key, (0.0, ""))

    def expect(self, region: str, change: Change) -> None:
        """We are about to write ``change`` in ``region``."""
        self._echoes.setdefault((region, change.key), deque()).append(change.image)
        _keep(self._echoes, self._remembered)

    def forget(self, region: str, change: Change) -> None:
        """That write did not happen, or will leave no record."""
        if expected := self._echoes.get((region, change.key)):
            expected.pop()
            self._strike(region, change.key)

    def _strike(self, region: str, key: str) -> None:
        """Forget an item of which nothing is to come back any more."""
        if not self._echoes[(region, key)]:
            del self._echoes[(region, key)]


def _keep(entries: dict[Any, Any], most: int) -> None:
    """Drop the oldest entries beyond ``most``."""
    while len(entries) > most:
        del entries[next(iter(entries))]


class Replicator:
    """Carries changes between the tables of all Regions, in one thread."""

    def __init__(self, plan: LabPlan) -> None:
        self._plan = plan
        self._regions = list(plan.regions)
        self.directions = {(a, b): Direction() for a in self._regions for b in self._regions if a != b}
        self._ledger = Ledger()
        self._iterators: dict[str, str] = {}
        self._lock = threading.Lock()
        self._errors: Counter[str] = Counter()
        self.ready = threading.Event()
        self._dynamodb: dict[str, Any] = {}
        self._streams: dict[str, Any] = {}
        self._logs: dict[str, Any] = {}

    def run(self, stop: threading.Event) -> None:
        """Make the tables, then replicate until ``stop``."""
        from botocore.exceptions import BotoCoreError, ClientError

        self._connect()
        missing = set(self._regions)
        while not stop.is_set():
            for region in self._regions:
                try:
                    if region in missing:
                        make_log_groups(self._logs[region])
                        self._make_table(region)
                        missing.discard(region)
                    self._collect(region)
                except (BotoCoreError, ClientError) as error:
                    self._errors[region] += 1
                    if "ResourceNotFound" in str(error):  # the local AWS was started anew
                        missing.add(region)
                    if "TrimmedDataAccess" in str(error) or "ExpiredIterator" in str(error):
                        self._iterators.pop(region, None)
            if not missing:
                self.ready.set()
            busy = self._apply()
            stop.wait(0.02 if busy else POLL_S)

    def _connect(self) -> None:
        import boto3
        from botocore.config import Config

        config = Config(connect_timeout=1, read_timeout=4, retries={"total_max_attempts": 1})
        pair = self._plan.credentials["admin"]
        session = boto3.session.Session(aws_access_key_id=pair.access_key, aws_secret_access_key=pair.secret_key)
        for name, region in self._plan.regions.items():
            self._dynamodb[name] = session.client("dynamodb", region_name=name, endpoint_url=region.aws_endpoint, config=config)
            self._streams[name] = session.client("dynamodbstreams", region_name=name, endpoint_url=region.aws_endpoint, config=config)
            self._logs[name] = session.client("logs", region_name=name, endpoint_url=region.aws_endpoint, config=config)

    def _make_table(self, region: str) -> None:
        client = self._dynamodb[region]
        with contextlib.suppress(client.exceptions.ResourceInUseException):
            client.create_table(**TABLE)
        self._iterators.pop(region, None)

    def _collect(self, region: str) -> None:
        """Read what is new on a Region's stream."""
        iterator = self._iterators.get(region) or self._first_iterator(region)
        answer = self._streams[region].get_records(ShardIterator=iterator, Limit=1000)
        self._iterators[region] = answer["NextShardIterator"]
        now = time.time()
        for record in answer["Records"]:
            change = as_change(record, region, now)
            with self._lock:
                if self._ledger.is_echo(change):
                    continue
                self._ledger.wrote_here(change)
                for other in self._regions:
                    if other != region:
                        self.directions[(region, other)].waiting.append(change)

    def _first_iterator(self, region: str) -> str:
        arn = self._dynamodb[region].describe_table(TableName=names.CARTS_TABLE)["Table"]["LatestStreamArn"]
        shard = self._streams[region].describe_stream(StreamArn=arn)["StreamDescription"]["Shards"][0]["ShardId"]
        first = self._streams[region].get_shard_iterator(StreamArn=arn, ShardId=shard, ShardIteratorType="TRIM_HORIZON")
        iterator: str = first["ShardIterator"]
        return iterator

    def _apply(self) -> bool:
        """Apply what may pass; returns whether something did."""
        from botocore.exceptions import BotoCoreError, ClientError

        busy = False
        for (_, target), direction in self.directions.items():
            while direction.waiting and not direction.cut:
                change = direction.waiting[0]
                if time.time() - change.seen < direction.delay_ms / 1000:
                    break
                try:
                    self._write(target, change)
                except (BotoCoreError, ClientError):
                    self._errors[target] += 1
                    break
                direction.waiting.popleft()
                direction.applied += 1
                direction.last_ms = self._latency_ms(change)
                direction.latencies.append(direction.last_ms)
                busy = True
        return busy

    def _write(self, target: str, change: Change) -> None:
        with self._lock:
            if not self._ledger.wins(change):
                return
            self._ledger.expect(target, change)
        try:
            if change.image is None:
                old = self._dynamodb[target].delete_item(TableName=names.CARTS_TABLE, Key=change.keys, ReturnValues="ALL_OLD")
                unchanged = "Attributes" not in old
            else:
                old = self._dynamodb[target].put_item(TableName=names.CARTS_TABLE, Item=change.image, ReturnValues="ALL_OLD")
                unchanged = old.get("Attributes") == change.image
        except Exception:
            self._ledger.forget(target, change)
            raise
        if unchanged:  # DynamoDB writes no stream record for a write that changes nothing
            self._ledger.forget(target, change)

    def _latency_ms(self, change: Change) -> float:
        """From seeing a change to having applied it, plus the half period that it waits on average to be seen."""
        waited = time.time() - change.seen
        within = min(waited, 1.0)
        return round(1000 * (within + POLL_S / 2 + (waited - within) * self._plan.clock.speed), 3)

    # --- control ---

    def status(self) -> dict[str, Any]:
        """What `GET /status` says."""
        return {
            "ready": self.ready.is_set(),
            "errors": dict(self._errors),
            "directions": {
                f"{a}/{b}": {"cut": d.cut, "delay_ms": d.delay_ms, "applied": d.applied, "waiting": len(d.waiting), "last_ms": d.last_ms}
                for (a, b), d in self.directions.items()
            },
        }

    def data(self) -> Iterator[tuple[str, Datum]]:
        """The metrics since the last call, with their Region: the source's. No write, no latency, as on AWS.

        What waits is reported by its age: replication is late before it arrives.
        """
        for (source, target), direction in self.directions.items():
            latencies, direction.latencies = direction.latencies, []
            if direction.waiting:
                latencies.append(self._latency_ms(direction.waiting[0]))
            dimensions = [{"TableName": names.CARTS_TABLE, "ReceivingRegion": target}]
            yield from ((source, datum) for datum in across(NAMESPACE, "ReplicationLatency", dimensions, latencies, "Milliseconds"))

    async def handle(self, method: str, path: tuple[str, ...], _query: dict[str, str], body: Any) -> Any:
        """The control port's requests."""
        match (method, path):
            case ("GET", ("status",)):
                return self.status()
            case ("PUT", ("directions", source, target)) if (source, target) in self.directions:
                direction = self.directions[(source, target)]
                direction.cut = bool(body.get("cut", direction.cut))
                direction.delay_ms = float(body.get("delay_ms", direction.delay_ms))
                return {"cut": direction.cut, "delay_ms": direction.delay_ms}
            case ("POST", ("window",)):
                return [{"region": region} | datum.as_dict() for region, datum in self.data()]
        raise Refusal(404, f"no such path: {method} /{'/'.join(path)}")


def make_log_groups(logs: Any) -> None:
    """The log group and stream of each service, for its logs and for its metrics; nothing where they exist."""
    for group, stream in [
        (group, service) for service in SERVICES for group in (names.log_group(service), names.metrics_log_group(service))
    ]:
        with contextlib.suppress(logs.exceptions.ResourceAlreadyExistsException):
            logs.create_log_group(logGroupName=group)
        with contextlib.suppress(logs.exceptions.ResourceAlreadyExistsException):
            logs.create_log_stream(logGroupName=group, logStreamName=stream)


def as_change(record: dict[str, Any], region: str, now: float) -> Change:
    """A stream record as a change."""
    content = record["dynamodb"]
    moment = content.get("ApproximateCreationDateTime")
    at = moment.timestamp() if hasattr(moment, "timestamp") else float(moment or now)
    return Change(json.dumps(content["Keys"], sort_keys=True), content["Keys"], content.get("NewImage"), at, region, now)


async def main() -> None:
    """Run until SIGTERM."""
    plan = LabPlan.load()
    replicator = Replicator(plan)
    stop, ended = threading.Event(), asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, ended.set)
    await serve(plan.replicator_port, replicator.handle)
    thread = threading.Thread(target=replicator.run, args=(stop,), name="replicator", daemon=True)
    thread.start()
    await ended.wait()
    stop.set()


if __name__ == "__main__":
    asyncio.run(main())
