"""A service never hears of its telemetry: nothing raises into it, waits in it, hangs at its end, or ends ours for good."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from crosswatch_exporters import intake as intake_module
from crosswatch_exporters.aws.credentials import find_credentials
from crosswatch_exporters.blocks import Block, Limits
from crosswatch_exporters.classic.destinations import LogEvents
from crosswatch_exporters.destinations import Otlp
from crosswatch_exporters.distro import CrosswatchDistro
from crosswatch_exporters.ledger import Account
from crosswatch_exporters.queues import MemoryQueue
from crosswatch_exporters.segments.destination import TraceSegments
from crosswatch_exporters.sender import Sender
from crosswatch_exporters.transport import Reply
from crosswatch_exporters.verdicts import Action, retry_after
from instrumented import BIN, LedgerWatch, Script, Service
from opentelemetry._logs import LogRecord
from receiver import Answer, Receiver

EMIT = """
import logging, os, signal, sys, time
from opentelemetry import metrics, trace
logging.getLogger().setLevel(logging.INFO)
tracer, meter = trace.get_tracer("app"), metrics.get_meter("app")
def emit(n):
    for i in range(n):
        with tracer.start_as_current_span("op"):
            logging.info("order %d", i)
"""


def environ(receiver: Receiver, spool: Path | str, **more: str) -> dict[str, str]:
    """Settings of a service that exports to the receiver."""
    return {**receiver.environ(), "CROSSWATCH_SPOOL_DIR": str(spool), "OTEL_EXPORTER_OTLP_TIMEOUT": "1", "HOME": "/nonexistent", **more}


class Unspeakable:
    """A value whose text cannot be had."""

    def __str__(self) -> str:
        raise RuntimeError("changed while it was read")


def deep(levels: int = 100_000) -> dict[str, Any]:
    """A mapping in a mapping in a mapping."""
    body: dict[str, Any] = {}
    for _ in range(levels):
        body = {"a": body}
    return body


# --- nothing raises into the service ---


@pytest.mark.slow
def test_logs_are_sent_where_the_old_variable_asks_for_the_sdks_handler(receiver: Receiver, tmp_path: Path) -> None:
    """OTEL_PYTHON_LOGGING_AUTO_INSTRUMENTATION_ENABLED=true means logs, not none."""
    more = {"OTEL_PYTHON_LOGGING_AUTO_INSTRUMENTATION_ENABLED": "true"}
    with Script(tmp_path, EMIT + "emit(3)", receiver.environ() | more) as script:
        code, _, errors = script.wait()
    assert (code, errors) == (0, "")
    assert len(receiver.records) == 3


@pytest.mark.slow
def test_lines_on_standard_output_carry_trace_ids_where_asked(receiver: Receiver, tmp_path: Path) -> None:
    """OTEL_PYTHON_LOG_CORRELATION=true puts the ids of our spans into the service's own lines."""
    source = EMIT + "emit(1)\n"
    with Script(tmp_path, source, receiver.environ() | {"OTEL_PYTHON_LOG_CORRELATION": "true"}) as script:
        code, _, lines = script.wait()
    assert code == 0
    [span] = receiver.spans
    assert f"trace_id={span.trace_id.hex()} span_id={span.span_id.hex()}" in lines


@pytest.mark.slow
def test_an_instrumentation_that_fails_does_not_break_the_import(receiver: Receiver, tmp_path: Path) -> None:
    """A pattern in OTEL_PYTHON_EXCLUDED_URLS that is none: the library is imported, the log says what is missing, the rest goes on."""
    source = EMIT + "logging.basicConfig()\nimport flask\nemit(2)"
    with Script(tmp_path, source, receiver.environ() | {"OTEL_PYTHON_EXCLUDED_URLS": "*health"}) as script:
        code, _, errors = script.wait()
    assert code == 0, errors
    assert "flask is not instrumented: " in errors
    assert "Traceback" not in errors
    assert len(receiver.spans) == 2


def test_an_instrumentation_that_is_not_there_is_no_news(caplog: pytest.LogCaptureFixture) -> None:
    """A library that is not installed costs no line; one that fails costs one, and no exception."""

    class EntryPoint:
        name = "nosuch"

        def __init__(self, error: Exception) -> None:
            self._error = error

        def load(self) -> Any:
            raise self._error

    distro = CrosswatchDistro()
    distro.load_instrumentor(EntryPoint(ModuleNotFoundError("nosuch")))
    assert caplog.text == ""
    distro.load_instrumentor(EntryPoint(ValueError("bad pattern")))
    assert "nosuch is not instrumented: ValueError: bad pattern" in caplog.text


def test_measurements_never_raise(receiver: Receiver, spool: Path) -> None:
    """Attributes that are none, keys that are no texts, amounts that are no numbers: what can be recorded is, nothing comes back."""
    strange: Any = [{1: "x"}, "x", 7, ["a"], {"a": Unspeakable()}, {"a": {"b": [deep(5)]}}]
    with Service(environ(receiver, spool)) as service:
        counter, histogram = service.meter.create_counter("c"), service.meter.create_histogram("h")
        for attributes in strange:
            counter.add(1, attributes)
            histogram.record(1, attributes)
        counter.add("x")  # type: ignore[arg-type]
        service.meter.create_counter("sound").add(1)
        service.providers.meters.force_flush()
        assert service.balances()["metrics"].exact
    keys = {attribute.key for metric, point in receiver.points if metric.name == "c" for attribute in point.attributes}
    assert {"1", "a"} >= keys >= {"1"}
    assert any(metric.name == "sound" for metric, _ in receiver.points)


@pytest.mark.parametrize("classic", ["off", "putmetricdata"])
def test_a_number_beyond_all_bounds_costs_itself_only(
    receiver: Receiver, spool: Path, classic: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A sum that no double holds is unencodable, and adding to it is no error of the caller's; the other series arrive."""
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "a")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "b")
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{receiver.port}")
    with Service(environ(receiver, spool, CROSSWATCH_CLASSIC_METRICS=classic)) as service:
        counter = service.meter.create_counter("c")
        for _ in range(20):
            counter.add(10**308)
        counter.add(10**400)
        counter.add(1.5)
        service.meter.create_counter("sound").add(1)
        assert service.providers.meters.force_flush()
        assert all(balance.exact for balance in service.balances().values())
        assert service.balances()["metrics"].dropped == {"unencodable": 1}
    assert any(metric.name == "sound" for metric, _ in receiver.points)
    if classic != "off":
        data = [json.loads(request.body) for request in receiver.accepted if request.signal == "PutMetricData"]
        assert {datum["MetricName"] for document in data for datum in document["MetricData"]} == {"sound"}


@pytest.mark.parametrize("body", [deep(), {"a": Unspeakable()}, [Unspeakable()]], ids=["deep", "mapping", "list"])
def test_bodies_that_cannot_be_written_are_counted(receiver: Receiver, spool: Path, body: Any) -> None:
    """A record that is too deep, or whose values raise, is unencodable, and the caller does not hear of it."""
    with Service(environ(receiver, spool)) as service:
        service.logger.emit(LogRecord(timestamp=time.time_ns(), body=body))
        service.logs(1)
        assert service.flush()
        balance = service.balances()["logs"]
    assert balance.exact
    assert (balance.delivered, dict(balance.dropped)) == (1, {"unencodable": 1})


@pytest.mark.parametrize("version", [1.0, None, 3])
def test_versions_need_not_be_texts(receiver: Receiver, spool: Path, version: Any) -> None:
    """`get_tracer("shop", 1.0)` works, for spans and points alike."""
    with Service(environ(receiver, spool)) as service:
        with service.providers.tracers.get_tracer("x", version).start_as_current_span("op"):
            pass
        service.providers.meters.get_meter("x", version).create_counter("c").add(1)
        service.providers.meters.force_flush()
        assert service.flush()
    wanted = "" if version is None else str(version)
    assert [group.scope.version for r in receiver.decoded("traces") for rs in r.resource_spans for group in rs.scope_spans] == [wanted]
    scopes = [group.scope for r in receiver.decoded("metrics") for rm in r.resource_metrics for group in rm.scope_metrics]
    assert {scope.version for scope in scopes if scope.name == "x"} == {wanted}


# --- nothing ends ours for good ---


def test_what_cannot_be_packed_is_lost_alone(receiver: Receiver, spool: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One span that the packer stumbles over: the 300 others arrive, and the pump lives."""
    with Service(environ(receiver, spool)) as service, LedgerWatch(service) as watch:
        intake = service.lifecycle.pipeline.intakes["traces"]
        sound = intake._pack

        def stumble(prepared: Sequence[Any], lose: Any) -> list[Block]:
            if any(b"poison" in item[0] for item in prepared):
                raise LookupError("nobody expects this")
            return sound(prepared, lose)

        monkeypatch.setattr(intake, "_pack", stumble)
        service.spans(150)
        service.spans(1, kind="poison")
        service.spans(150)
        assert service.flush()
        balance = service.balances()["traces"]
        assert service.lifecycle.pipeline.pump._thread.is_alive()  # type: ignore[union-attr]
    assert watch.wrong == []
    assert (balance.delivered, dict(balance.dropped)) == (300, {"unencodable": 1})
    assert len(receiver.spans) == 300


def test_a_pump_that_stumbles_goes_on(receiver: Receiver, spool: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever happens in the pump's thread, the next tick tries again."""
    monkeypatch.setattr(intake_module, "_PAUSE", 0.05)
    with Service(environ(receiver, spool)) as service:
        pump = service.lifecycle.pipeline.pump
        sound, failures = pump.drain, []

        def stumble() -> None:
            if len(failures) < 3:
                failures.append(1)
                raise ZeroDivisionError
            sound()

        monkeypatch.setattr(pump, "drain", stumble)
        service.spans(10)
        assert receiver.wait_for(lambda: len(receiver.spans) == 10)
    assert len(failures) == 3


def test_an_item_that_no_request_can_be_made_of_is_lost_alone(receiver: Receiver, spool: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A block that cannot be translated for its destination does not stop those behind it."""
    with Service(environ(receiver, spool)) as service, LedgerWatch(service) as watch:
        destination = service.lifecycle.pipeline.senders["traces"].destination
        sound = destination.request

        def stumble(blocks: Sequence[Block], route: Any, away: bool) -> tuple[bytes, Mapping[str, str]]:
            if any(b"poison" in block.payload for block in blocks):
                raise KeyError("trace_id")
            return sound(blocks, route, away)

        monkeypatch.setattr(destination, "request", stumble)
        service.spans(50)
        service.spans(1, kind="poison")
        service.spans(50)
        assert service.flush()
        balance = service.balances()["traces"]
    assert watch.wrong == []
    assert (balance.delivered, dict(balance.dropped)) == (100, {"rejected": 1})


def test_a_sender_that_stumbles_goes_on(receiver: Receiver, spool: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A fault of ours while an answer is read costs a second request, not the thread."""
    with Service(environ(receiver, spool)) as service:
        destination = service.lifecycle.pipeline.senders["traces"].destination
        sound, failures = destination.judge, []

        def stumble(reply: Reply, items: int, now: float) -> Any:
            if not failures:
                failures.append(1)
                raise ZeroDivisionError
            return sound(reply, items, now)

        monkeypatch.setattr(destination, "judge", stumble)
        service.spans(10)
        assert service.flush(15)
        assert service.balances()["traces"].delivered == 10
    assert failures == [1]


def test_any_number_of_expired_blocks_is_passed_over() -> None:
    """Twenty thousand blocks that are too old, as after weeks of an outage, are counted and gone."""
    account = Account("traces")
    queue = MemoryQueue(account, 1 << 40)
    account.spooled = lambda: queue.items
    for _ in range(20_000):
        account.taken += 1
        queue.append(Block(b"", 1, 1, 1, 1))
    sender = Sender(Otlp("traces", Limits(1000, 10, 100)), queue, account, [], 0.0)
    assert sender.step() > 0
    assert sender.idle.is_set()
    assert account.balance().dropped == {"too_old": 20_000}
    assert account.balance().exact


@pytest.mark.parametrize(
    ("body", "rejected"),
    [
        (b'{"rejectedLogEventsInfo":{"tooOldLogEventEndIndex":3}}', 3),
        (b'{"rejectedLogEventsInfo":{"tooNewLogEventStartIndex":7}}', 3),
        (b'{"rejectedLogEventsInfo":{"tooOldLogEventEndIndex":null,"expiredLogEventEndIndex":2}}', 2),
        (b'{"rejectedLogEventsInfo":null}', 0),
        (b'{"rejectedLogEventsInfo":[1]}', 0),
        (b"<html>rejectedLogEventsInfo</html>", 0),
        (b"[" * 100_000 + b"rejectedLogEventsInfo", 0),
    ],
    ids=lambda value: str(value)[:60],
)
def test_answers_that_make_no_sense_are_no_reason_to_send_again(body: bytes, rejected: int) -> None:
    """Status 200 is a delivery whatever the body looks like."""
    verdict = LogEvents("g", "s").judge(Reply(200, body), 10, 0.0)
    assert (verdict.action, verdict.rejected) == (Action.DELIVERED, rejected)
    segments = TraceSegments().judge(Reply(200, body.replace(b"rejectedLogEventsInfo", b"UnprocessedTraceSegments")), 10, 0.0)
    assert segments.action is Action.DELIVERED


def test_retry_after_that_is_no_number() -> None:
    """Digits that Python calls digits and cannot read, as well as nonsense, ask for nothing."""
    assert [retry_after(value, 0.0) for value in ("²", "soon", "-1", "")] == [None] * 4


def test_credentials_that_are_throttled_are_not_there_yet(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """botocore's ClientError, and anything else that its plugins raise, means: none now."""
    import botocore.session
    from botocore.exceptions import ClientError

    variables = {"AWS_WEB_IDENTITY_TOKEN_FILE": "x", "AWS_EC2_METADATA_DISABLED": "true", "HOME": str(tmp_path)}
    for error in (ClientError({"Error": {"Code": "Throttling"}}, "AssumeRoleWithWebIdentity"), RuntimeError("plugin")):

        def fail(self: object, error: Exception = error) -> None:
            raise error

        monkeypatch.setattr(botocore.session.Session, "get_credentials", fail)
        assert find_credentials(variables) is None


# --- nothing waits in the service ---


@pytest.fixture
def busy_disk() -> Iterator[Any]:
    """Holds accounts' locks as a slow disk does: `hold(account)`; `release()`, which also happens at the end."""
    done = threading.Event()
    threads = []

    class Disk:
        def hold(self, account: Account) -> None:
            held = threading.Event()

            def run() -> None:
                with account.lock:
                    held.set()
                    done.wait(20)

            threads.append(threading.Thread(target=run))
            threads[-1].start()
            held.wait()

        def release(self) -> None:
            done.set()
            for thread in threads:
                thread.join()

    disk = Disk()
    yield disk
    disk.release()


@pytest.mark.parametrize("tail", ["off", "on"])
def test_a_slow_disk_does_not_hold_up_requests(receiver: Receiver, spool: Path, busy_disk: Any, tail: str) -> None:
    """While the disk is waited for, spans that find the queue full, and spans for the tail buffer, are done with at once."""
    more = {"OTEL_BSP_MAX_QUEUE_SIZE": "10", "CROSSWATCH_TAIL": tail, "OTEL_TRACES_SAMPLER": "always_off" if tail == "on" else "always_on"}
    with Service(environ(receiver, spool, **more)) as service:
        busy_disk.hold(service.lifecycle.pipeline.ledger.account("traces"))
        began = time.monotonic()
        service.spans(50)
        took = time.monotonic() - began
        busy_disk.release()
        assert service.flush()
        balance = service.balances()["traces"]
    assert took < 2
    assert balance.exact
    assert balance.emitted == 50
    assert balance.dropped.get("tail" if tail == "on" else "queue_full", 0) > 0


def test_what_has_arrived_is_bounded_in_bytes(receiver: Receiver, spool: Path, busy_disk: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Large items are limited by what they weigh and not by their number only; once they are packed there is room again."""
    monkeypatch.setattr(intake_module, "_MOST_LARGE_BYTES", 1_000_000)
    with Service(environ(receiver, spool)) as service:
        busy_disk.hold(service.lifecycle.pipeline.ledger.account("traces"))
        service.spans(30, text="x" * 100_000)
        service.spans(30)
        busy_disk.release()
        assert service.flush()
        first = service.balances()["traces"]
        service.spans(5, text="x" * 100_000)
        assert service.flush()
        second = service.balances()["traces"]
    assert first.exact
    assert 20 <= first.dropped["queue_full"] <= 22
    assert second.dropped == first.dropped
    assert second.delivered == first.delivered + 5


# --- nothing hangs at the end ---

HANGING_CALLBACK = """
def hang(options):
    time.sleep(1000)
    yield
meter.create_observable_gauge("g", [hang])
emit(20)
"""
# The main thread, where the signal's handler runs, is in the middle of the SDK's own.
HELD_LOCK = """
meter.create_counter("c").add(1)
emit(20)
consumer = metrics.get_meter_provider().sdk._measurement_consumer
consumer._lock.acquire()
"""


@pytest.mark.slow
@pytest.mark.parametrize("trouble", [HANGING_CALLBACK, HELD_LOCK], ids=["callback", "lock"])
@pytest.mark.parametrize("how", ["SIGTERM", "exit"])
def test_the_end_does_not_wait_for_metrics(receiver: Receiver, tmp_path: Path, trouble: str, how: str) -> None:
    """A callback that hangs, or a lock that is held where the signal came in: spans and records are delivered, the process ends in time."""
    waits = "print('ready', flush=True)\n" + ("time.sleep(60)" if how == "SIGTERM" else "")
    with Script(tmp_path, EMIT + trouble + waits, receiver.environ() | {"OTEL_METRIC_EXPORT_INTERVAL": "60000"}) as script:
        assert script.ready() == "ready"
        asked = time.monotonic()
        if how == "SIGTERM":
            script.send(signal.SIGTERM)
        code, _, errors = script.wait()
        took = time.monotonic() - asked
    assert code == (-signal.SIGTERM if how == "SIGTERM" else 0), errors
    assert took < 10
    assert (len(receiver.spans), len(receiver.records)) == (20, 20)


@pytest.mark.slow
def test_the_first_process_of_a_container_ends(receiver: Receiver, tmp_path: Path) -> None:
    """The kernel does not deliver SIGTERM's default action to process 1: it ends all the same, with what a shell would report."""
    command = ["unshare", "--pid", "--fork"]
    alone = bool(shutil.which("unshare")) and subprocess.run([*command, "true"], capture_output=True, check=False).returncode == 0
    # Where there can be no process 1 of ours, the signal is kept from the process by hand.
    kept = "" if alone else "os.kill = lambda pid, number: None\n"
    (tmp_path / "app.py").write_text(EMIT + kept + "emit(5)\nsignal.raise_signal(signal.SIGTERM)\nprint('still here')\n")
    variables = {
        "PATH": f"{BIN}:{os.environ['PATH']}",
        "HOME": str(tmp_path),
        "OTEL_PYTHON_DISTRO": "crosswatch",
        "OTEL_PYTHON_CONFIGURATOR": "crosswatch",
        "CROSSWATCH_SPOOL_DIR": str(tmp_path / "spool"),
        **receiver.environ(),
    }
    started = [*(command if alone else []), str(BIN / "opentelemetry-instrument"), sys.executable, str(tmp_path / "app.py")]
    done = subprocess.run(started, env=variables, capture_output=True, text=True, check=False, timeout=60)
    assert (done.returncode, done.stdout) == (143, ""), done.stderr
    assert len(receiver.spans) == 5


def test_a_spool_that_is_deleted_underneath_does_not_stop_the_end(receiver: Receiver, spool: Path) -> None:
    """Closing is not disturbed by a folder that is gone, delivered or not; the ledger holds."""
    for down in (False, True):
        receiver.fault = (lambda request: Answer(503)) if down else (lambda request: None)
        with Service(environ(receiver, spool, CROSSWATCH_SHUTDOWN_TIMEOUT="0.5")) as service:
            service.spans(10)
            service.flush(1.0)
            shutil.rmtree(spool)
            service.spans(10)
            service.lifecycle.close()
            assert service.lifecycle.pipeline.ended
            assert all(balance.exact for balance in service.balances().values())


def test_an_end_within_the_end_goes_on(receiver: Receiver, spool: Path) -> None:
    """SIGTERM while the process is closing: the handler returns to it instead of killing it."""
    with Service(environ(receiver, spool)) as service:
        service.lifecycle.pipeline.closed = True
        service.lifecycle._on_sigterm(signal.SIGTERM, None)  # we are still here
        service.lifecycle.pipeline.closed = False
        service.spans(3)
    assert len(receiver.spans) == 3
