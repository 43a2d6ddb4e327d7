"""Delivery under faults, against a real server: nothing is lost, no limit is exceeded, the ledger holds at every moment."""

from __future__ import annotations

import itertools
import os
import time
from collections.abc import Mapping
from pathlib import Path

import pytest
from crosswatch_exporters.journal.recovery import Recovery
from crosswatch_exporters.spool_cli import inspect
from instrumented import LedgerWatch, Service
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceResponse
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceResponse
from receiver import Answer, Receiver, Request

FAULTS: Mapping[str, Answer] = {
    "reset": Answer(cut=True),
    "503": Answer(503),
    "500": Answer(500),
    "429": Answer(429),
    "429 with Retry-After": Answer(429, headers={"retry-after": "1"}),
    "403": Answer(403, body=b"AccessDeniedException"),
    "302": Answer(302, headers={"location": "http://127.0.0.1:9/"}),
    "slow": Answer(200, hang=0.3, take=True),
    "hanging": Answer(hang=1.2),
}


def environ(receiver: Receiver, spool: Path | str, **more: str) -> dict[str, str]:
    """Settings of a service that exports to the receiver."""
    return {**receiver.environ(), "CROSSWATCH_SPOOL_DIR": str(spool), "OTEL_EXPORTER_OTLP_TIMEOUT": "1", "HOME": "/nonexistent", **more}


@pytest.mark.slow
@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("spooled", [True, False], ids=["disk", "memory"])
def test_an_outage_loses_nothing(receiver: Receiver, spool: Path, fault: str, spooled: bool) -> None:
    """Two seconds of an outage of any kind in the middle of the load: every span, record and count arrives."""
    with Service(environ(receiver, spool if spooled else "off")) as service, LedgerWatch(service) as watch:
        counter = service.meter.create_counter("orders")
        for second in range(4):
            receiver.fault = (lambda request: FAULTS[fault]) if second in (1, 2) else (lambda request: None)
            for _ in range(10):
                service.spans(20)
                service.logs(10)
                counter.add(1)
                time.sleep(0.1)
            service.collect()
        receiver.fault = lambda request: None
        assert receiver.wait_for(lambda: len(receiver.spans) >= 800 and len(receiver.records) >= 400, 15)
        assert service.flush()
        totals = service.balances()
    assert watch.looked > 50
    assert watch.wrong == []
    assert len({span.span_id for span in receiver.spans}) == 800
    assert len(receiver.records) >= 400
    assert max(p.as_int for m, p in receiver.points if m.name == "orders") == 40
    assert totals["traces"].delivered == totals["traces"].emitted == 800
    assert totals["logs"].delivered == totals["logs"].emitted == 400
    assert receiver.violations == []


def test_poisoned_items_are_found_by_bisection(receiver: Receiver, spool: Path) -> None:
    """A server that refuses whole requests for one span gets all the others; the one is counted as rejected."""

    def refuse_poison(request: Request) -> Answer | None:
        return Answer(400, body=b"bad span") if b"poison" in request.body else None

    receiver.fault = refuse_poison
    with Service(environ(receiver, spool)) as service:
        service.spans(300)
        service.spans(1, kind="poison")
        service.spans(300)
        assert service.flush()
        balance = service.balances()["traces"]
    assert len(receiver.spans) == 600
    assert balance.exact
    assert (balance.delivered, dict(balance.dropped)) == (600, {"rejected": 1})
    assert len(receiver.requests) < 40


def test_partial_success_is_accounted(receiver: Receiver, spool: Path) -> None:
    """Status 200 with rejected items: those are counted as lost, and not sent again."""
    response = ExportTraceServiceResponse()
    response.partial_success.rejected_spans = 7
    response.partial_success.error_message = "seven were bad"
    receiver.fault = lambda request: Answer(200, body=response.SerializeToString(), take=True)
    with Service(environ(receiver, spool)) as service:
        service.spans(100)
        assert service.flush()
        balance = service.balances()["traces"]
    assert (balance.delivered, dict(balance.dropped)) == (93, {"partially_rejected": 7})
    assert len([request for request in receiver.requests if request.signal == "traces"]) == 1


def test_throttled_points_of_a_metric_request_are_accounted(receiver: Receiver, spool: Path) -> None:
    """The metrics endpoint rejects points with status 200; the ledger says so."""
    response = ExportMetricsServiceResponse()
    response.partial_success.rejected_data_points = 1
    receiver.fault = lambda request: Answer(200, body=response.SerializeToString(), take=True) if request.signal == "metrics" else None
    with Service(environ(receiver, spool)) as service:
        service.meter.create_counter("a").add(1)
        service.meter.create_counter("b").add(1)
        service.collect()
        assert service.flush()
        balance = service.balances()["metrics"]
    assert balance.exact
    assert dict(balance.dropped) == {"partially_rejected": 1}


@pytest.mark.parametrize("header", ["2", "date"])
def test_retry_after_is_obeyed(receiver: Receiver, spool: Path, header: str) -> None:
    """No request before the time the service asked for, given in seconds or as a date."""
    from email.utils import formatdate

    asked = []

    def once(request: Request) -> Answer | None:
        if asked or request.signal != "traces":
            return None
        asked.append(time.time())
        return Answer(503, headers={"retry-after": "2" if header == "2" else formatdate(time.time() + 3, usegmt=True)})

    receiver.fault = once
    with Service(environ(receiver, spool)) as service:
        service.spans(10)
        assert service.flush(15)
    first, second = (request.at for request in receiver.requests if request.signal == "traces")
    assert second - first >= 1.9


@pytest.mark.slow
def test_no_request_exceeds_a_limit_under_load(receiver: Receiver, spool: Path) -> None:
    """Large and many items at once: requests stay within bytes, numbers and item sizes, oversized items are counted."""
    with Service(environ(receiver, spool)) as service:
        for size in (10, 1_000, 50_000):
            service.spans(400, text="x" * size)
        service.spans(3, text="y" * 250_000)
        for size in (10, 2_000, 20_000):
            service.logs(300, "z" * size)
        service.logs(2, "w" * 1_200_000)
        counter = service.meter.create_counter("orders")
        for i in range(1_900):
            counter.add(1, {"customer": str(i)})
        service.collect()
        assert service.flush(20)
        totals = service.balances()
    assert receiver.violations == []
    assert len(receiver.spans) == 1200
    assert dict(totals["traces"].dropped) == {"item_too_large": 3}
    assert len(receiver.records) == 900
    assert dict(totals["logs"].dropped) == {"item_too_large": 2}
    assert len({p.attributes[0].value.string_value for m, p in receiver.points if m.name == "orders"}) == 1_900
    assert all(balance.exact for balance in totals.values())


def test_items_that_lie_far_apart_are_sent_apart(receiver: Receiver, spool: Path) -> None:
    """Spans that ended 30 hours apart are never in one request; those beyond 14 days are counted as too old, future ones as too new."""
    hour = 3600 * 10**9
    now = time.time_ns()
    with Service(environ(receiver, spool)) as service:
        for ago in (0, 30, 60, 90, 15 * 24, 20 * 24, -5):
            span = service.tracer.start_span("old", start_time=now - ago * hour - 10**6)
            span.end(now - ago * hour)
        assert service.flush()
        balance = service.balances()["traces"]
    assert receiver.violations == []
    assert len(receiver.spans) == 4
    assert dict(balance.dropped) == {"too_old": 2, "too_new": 1}


@pytest.mark.slow
def test_series_are_limited(receiver: Receiver, spool: Path) -> None:
    """100,000 series of one counter become 2,000, the last of which is the overflow; nothing is lost from the total."""
    with Service(environ(receiver, spool)) as service:
        counter = service.meter.create_counter("orders")
        for i in range(100_000):
            counter.add(1, {"customer": i})
        service.collect()
        assert service.flush(20)
        points = [point for metric, point in receiver.points if metric.name == "orders"]
    assert len(points) == 2_000
    assert sum(point.as_int for point in points) == 100_000
    [overflow] = [point for point in points if any(a.key == "otel.metric.overflow" for a in point.attributes)]
    assert overflow.as_int == 98_001
    assert receiver.violations == []


class Full:
    """A disk that is full from some write on: the limit on file sizes of this process."""

    def __init__(self, size: int) -> None:
        self._size = size

    def __enter__(self) -> None:
        import resource
        import signal

        self._before = resource.getrlimit(resource.RLIMIT_FSIZE)
        self._handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (self._size, self._before[1]))

    def __exit__(self, *error: object) -> None:
        import resource
        import signal

        resource.setrlimit(resource.RLIMIT_FSIZE, self._before)
        signal.signal(signal.SIGXFSZ, self._handler)


@pytest.mark.parametrize("size", [0, 5_000])
def test_a_full_disk_costs_no_data(receiver: Receiver, spool: Path, size: int) -> None:
    """When writes fail, or stop in the middle of a record, items wait in memory and are delivered."""
    receiver.fault = lambda request: Answer(503)
    with Service(environ(receiver, spool)) as service, Full(size):
        for _ in range(5):
            service.spans(100)
            service.lifecycle.pipeline.pump.drain()
        assert all(balance.exact for balance in service.balances().values())
        receiver.fault = lambda request: None
        assert receiver.wait_for(lambda: len(receiver.spans) == 500, 15)
    assert service.balances()["traces"].delivered == 500


def test_an_unusable_spool_folder_is_refused_and_costs_no_data(
    receiver: Receiver, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A folder others may write to, a link, or a file is not used; the log says why; telemetry goes on in memory."""
    shared, linked, file = tmp_path / "shared", tmp_path / "linked", tmp_path / "file"
    shared.mkdir()
    shared.chmod(0o777)
    linked.symlink_to(tmp_path)
    file.write_text("")
    for folder in (shared, linked, file):
        with Service(environ(receiver, folder)) as service:
            service.spans(10)
            assert service.flush()
    assert len(receiver.spans) == 30
    assert list(shared.iterdir()) == []
    assert "others may write there" in caplog.text
    assert caplog.text.count("telemetry waits in memory") == 3


def test_the_spool_is_private(receiver: Receiver, spool: Path) -> None:
    """Folders are 0700, files 0600."""
    receiver.fault = lambda request: Answer(503)
    with Service(environ(receiver, spool)) as service:
        service.spans(10)
        service.flush(0.5)
        for path in itertools.chain([spool], spool.rglob("*")):
            assert path.stat().st_mode & 0o077 == 0, path
            assert path.stat().st_uid == os.geteuid()
        receiver.fault = lambda request: None


@pytest.mark.slow
@pytest.mark.parametrize("size", [100_000, 2 * 1024 * 1024])
def test_the_spool_keeps_its_size(receiver: Receiver, spool: Path, size: int) -> None:
    """Over its size the oldest goes first, and the ledger says how much."""
    receiver.fault = lambda request: Answer(503)
    with Service(environ(receiver, spool, CROSSWATCH_SPOOL_MAX_BYTES=str(size), CROSSWATCH_SHUTDOWN_TIMEOUT="15")) as service:
        for _ in range(40):
            service.spans(100, text=os.urandom(500).hex())
            service.lifecycle.pipeline.pump.drain()
        assert sum(path.stat().st_size for path in spool.rglob("*.seg")) <= size
        balance = service.balances()["traces"]
        assert balance.exact
        assert balance.dropped["spool_full"] > 0
        receiver.fault = lambda request: None
        assert service.flush(15)
        balance = service.balances()["traces"]
    assert balance.delivered == len(receiver.spans) == 4000 - balance.dropped["spool_full"]
    if size > 1_000_000:
        newest = {a.value.int_value for span in receiver.spans[-100:] for a in span.attributes if a.key == "i"}
        assert newest == set(range(100))


@pytest.mark.parametrize("damage", ["truncate", "flip", "garbage", "cursor", "head", "alien"])
def test_a_damaged_spool_loses_only_what_was_damaged(receiver: Receiver, spool: Path, damage: str) -> None:
    """Records that are cut short or flipped are skipped, what follows them is delivered; a file that nothing can be read from is kept."""
    receiver.fault = lambda request: Answer(503)
    with Service(environ(receiver, spool, CROSSWATCH_SHUTDOWN_TIMEOUT="0.2")) as service:
        for i in range(5):
            service.spans(10, batch=i)
            service.lifecycle.pipeline.pump.drain()
    [segment] = spool.rglob("traces/*.seg")
    data = bytearray(segment.read_bytes())
    if damage == "truncate":
        data = data[:-20]
    elif damage == "flip":
        data[len(data) // 2] ^= 0xFF
    elif damage == "garbage":
        data += os.urandom(300)
    elif damage == "head":
        data[3] ^= 0xFF
    elif damage == "alien":
        data = bytearray(b"CWSPOOL\x09" + os.urandom(300))
    else:
        (segment.parent / "cursor").write_bytes(b"nonsense")
    segment.write_bytes(data)
    receiver.fault = lambda request: None
    with Service(environ(receiver, spool)) as service:
        service.spans(1, batch=9)
        assert receiver.wait_for(lambda: any(a.key == "batch" and a.value.int_value == 9 for s in receiver.spans for a in s.attributes))
        service.lifecycle.pipeline.recovery.look()  # type: ignore[union-attr]
        assert service.flush()
        assert service.balances()["traces"].exact
    expected = {"truncate": 41, "flip": 41, "garbage": 51, "cursor": 51, "head": 51, "alien": 1}[damage]
    assert len(receiver.spans) == expected
    kept = [path.read_bytes() for path in spool.rglob("*.unreadable")]
    assert kept == ([bytes(data)] if damage == "alien" else [])


def test_a_folder_of_a_group_is_refused(receiver: Receiver, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Where a group may write, even if only journals are there, somebody else may have put them there; an empty folder is made ours."""
    planted, empty = tmp_path / "planted", tmp_path / "empty"
    (planted / "j1-us-east-1-1-abcd").mkdir(parents=True)
    empty.mkdir()
    for folder in (planted, empty):
        folder.chmod(0o770)
        with Service(environ(receiver, folder)) as service:
            service.spans(10)
            assert service.flush()
    assert caplog.text.count("others may write there") == 1
    assert (planted.stat().st_mode & 0o777, empty.stat().st_mode & 0o777) == (0o770, 0o700)
    assert len(receiver.spans) == 20


@pytest.mark.parametrize("size", [1_000, 3_000])
def test_a_small_spool_takes_everything_that_fits_it(receiver: Receiver, spool: Path, size: int) -> None:
    """Blocks are made small enough for their share of the smallest spool: what the ledger calls spooled is on the disk."""
    receiver.fault = lambda request: Answer(503)
    with Service(
        environ(receiver, spool, CROSSWATCH_SPOOL_MAX_BYTES="64KiB", CROSSWATCH_SELF_METRICS="off", CROSSWATCH_SHUTDOWN_TIMEOUT="0.2")
    ) as service:
        service.spans(20_000 // size, text=os.urandom(size // 2).hex())
        service.logs(20)
        service.meter.create_counter("orders").add(1)
        service.lifecycle.pipeline.pump.drain()
        service.collect()
        balances = service.balances()
        on_disk = {report.signal: report.items for report in inspect(spool)}
    assert all(balance.exact for balance in balances.values())
    assert {signal: balance.spooled for signal, balance in balances.items()} == on_disk
    assert min(on_disk.values()) > 0


def test_an_item_larger_than_the_spool_is_named_and_delivered(receiver: Receiver, spool: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A single item beyond the spool's share waits in memory; the log says so, once."""
    with Service(environ(receiver, spool, CROSSWATCH_SPOOL_MAX_BYTES="64KiB")) as service:
        service.spans(3, text="x" * 100_000)
        assert service.flush()
    assert len(receiver.spans) == 3
    assert caplog.text.count("raise CROSSWATCH_SPOOL_MAX_BYTES") == 1


def fill(receiver: Receiver, spool: Path, services: int, spans: int) -> None:
    """Several processes, one after the other, that leave what they could not deliver; half a kilobyte a span."""
    receiver.fault = lambda request: Answer(503)
    for _ in range(services):
        more = {"CROSSWATCH_SPOOL_MAX_BYTES": "1MiB", "CROSSWATCH_SHUTDOWN_TIMEOUT": "0.1"}
        service = Service({**environ(receiver, spool, **more), "OTEL_METRICS_EXPORTER": "none"})
        service.spans(spans, text=os.urandom(250).hex())
        service.lifecycle.close()
    receiver.fault = lambda request: None


@pytest.mark.slow
def test_what_several_ended_processes_left_is_delivered_whatever_the_size_of_the_spool(receiver: Receiver, spool: Path) -> None:
    """Three journals that together are several times CROSSWATCH_SPOOL_MAX_BYTES: none of it gives way while the disk has room."""
    fill(receiver, spool, services=3, spans=400)
    with Service(environ(receiver, spool, CROSSWATCH_SPOOL_MAX_BYTES="64KiB")) as service, LedgerWatch(service) as watch:
        assert receiver.wait_for(lambda: len(receiver.spans) == 1200, 20)
        service.flush()
        balance = service.balances()["traces"]
    assert watch.wrong == []
    assert (balance.recovered, balance.delivered, balance.dropped) == (1200, 1200, {})


def test_on_a_short_disk_the_oldest_of_what_was_left_gives_way(receiver: Receiver, spool: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Processes that die again and again do not fill the disk: what they left is brought down to one spool's size, and counted."""
    fill(receiver, spool, services=2, spans=400)
    receiver.fault = lambda request: Answer(503)
    monkeypatch.setattr(Recovery, "_disk_is_short", lambda self: True)
    with Service(environ(receiver, spool, CROSSWATCH_SPOOL_MAX_BYTES="200KiB", CROSSWATCH_SHUTDOWN_TIMEOUT="0.1")) as service:
        assert receiver.wait_for(lambda: service.balances()["traces"].recovered == 800)
        assert receiver.wait_for(lambda: service.balances()["traces"].dropped.get("spool_full", 0) > 0)
        assert service.balances()["traces"].exact


def test_a_flush_of_metrics_is_a_delivery(receiver: Receiver, spool: Path) -> None:
    """meter_provider.force_flush() returns True when the points have arrived, and False in time when they have not."""
    with Service(environ(receiver, spool)) as service:
        service.meter.create_counter("orders").add(1)
        assert service.providers.meters.force_flush()
        assert any(metric.name == "orders" for metric, _ in receiver.points)
        receiver.fault = lambda request: Answer(503)
        began = time.monotonic()
        assert not service.providers.meters.force_flush(300)
        assert time.monotonic() - began < 3
        receiver.fault = lambda request: None


@pytest.mark.parametrize(("labels", "away", "lost"), [(150, False, 0), (151, False, 1), (149, True, 0), (150, True, 1)])
def test_labels_stay_within_the_limit_away_from_home_too(receiver: Receiver, spool: Path, labels: int, away: bool, lost: int) -> None:
    """The attribute that says where a point was delivered is counted where it may be added."""
    more = {"CROSSWATCH_FAILOVER_OTLP_METRICS_ENDPOINT": receiver.url("metrics"), "CROSSWATCH_FAILOVER_REGION": "us-west-2"} if away else {}
    with Service(environ(receiver, spool, CROSSWATCH_SELF_METRICS="off", **more)) as service:
        own = labels - len(service.resource.attributes)
        service.meter.create_counter("c").add(1, {f"a{i}": i for i in range(own)})
        service.collect()
        assert service.flush()
        assert service.balances()["metrics"].dropped.get("too_many_labels", 0) == lost
    assert receiver.violations == []
