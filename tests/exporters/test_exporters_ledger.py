"""The ledger, step by step: whatever happens on an item's way, wherever the process dies, the numbers add up and nothing vanishes."""

from __future__ import annotations

import errno
import os
import shutil
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from unittest import mock

from crosswatch_exporters.blocks import Block, Limits
from crosswatch_exporters.destinations import Otlp
from crosswatch_exporters.encoding import decode
from crosswatch_exporters.encoding.wire import FIXED64, delimited
from crosswatch_exporters.endpoints import Route
from crosswatch_exporters.health import Breaker
from crosswatch_exporters.journal import lane as lane_module
from crosswatch_exporters.journal.lane import Lane
from crosswatch_exporters.ledger import Account
from crosswatch_exporters.queues import Backlog
from crosswatch_exporters.sender import Sender
from crosswatch_exporters.transport import Reply
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

LIMITS = Limits(request_bytes=2_000, request_items=12, item_bytes=400)
NOW = int(time.time() * 1e9)


class ScriptedEndpoint:
    """An endpoint whose next answers are given; checks the limits of every request, and remembers what it took."""

    def __init__(self) -> None:
        self.route = Route("http://127.0.0.1:9/v1/traces")
        self.breaker = Breaker()
        self.answer = "200"
        self.taken: list[str] = []
        self.problems: list[str] = []
        self.poison: set[str] = set()

    def send(self, body: bytes, headers: Mapping[str, str]) -> Reply:
        """Answer one request."""
        names = [span.name for span in decode.spans(body)]
        if len(names) > LIMITS.request_items or len(body) > LIMITS.request_bytes:
            self.problems.append(f"{len(names)} items, {len(body)} bytes")
        if self.answer == "cut":
            return Reply(0, error="ConnectionResetError")
        if self.answer == "taken and cut":
            self.taken += names
            return Reply(0, error="ConnectionResetError")
        if self.answer != "200":
            return Reply(int(self.answer), headers={"retry-after": "3"} if self.answer == "429" else {})
        if self.poison.intersection(names):
            return Reply(400, b"bad item")
        self.taken += names
        return Reply(200)


class Journey(RuleBasedStateMachine):
    """Items are emitted, sent, refused, lost; the disk fills up; the process dies and another one takes over."""

    def __init__(self) -> None:
        super().__init__()
        self.root = Path(tempfile.mkdtemp())
        self.disk_full = False
        self.now = 1000.0
        self.emitted: set[str] = set()
        self.volatile: set[str] = set()
        self.lost = 0
        self.endpoint = ScriptedEndpoint()
        self.journal = 0
        self._real_write, self._real_writev = os.write, os.writev
        self._patch = mock.patch.multiple(lane_module.os, write=self._write, writev=self._writev)
        self._patch.start()
        self.begin()

    def _write(self, fd: int, data: bytes) -> int:
        if self.disk_full:
            raise OSError(errno.ENOSPC, "no space left on device")
        return self._real_write(fd, data)

    def _writev(self, fd: int, parts: Sequence[bytes]) -> int:
        if not self.disk_full:
            return self._real_writev(fd, parts)
        data = b"".join(parts)
        if len(data) < 100:
            raise OSError(errno.ENOSPC, "no space left on device")
        return self._real_write(fd, data[:20])  # the disk takes a part, as full disks do

    def begin(self) -> None:
        """A process begins: its own lane, and what earlier ones left."""
        self.account = Account("traces")
        orphans = sorted(self.root.iterdir())
        self.journal += 1
        self.lane = Lane(self.root / f"{self.journal:04d}", self.account, 9_000, monotonic=lambda: self.now)
        self.backlog = Backlog(self.lane)
        self.account.spooled = lambda: self.backlog.items
        for folder in orphans:
            old = Lane(folder, self.account, 9_000, monotonic=lambda: self.now)
            if old.items:
                self.account.recovered += old.items
                self.backlog.take_over(old)
            else:
                old.close()
        self.endpoint.breaker = Breaker()
        self.sender = Sender(
            Otlp("traces", LIMITS),
            self.backlog,
            self.account,
            [self.endpoint],
            0.0,
            monotonic=lambda: self.now,  # type: ignore[list-item]
        )

    @rule(sizes=st.lists(st.integers(0, 250), min_size=1, max_size=8))
    def emit(self, sizes: list[int]) -> None:
        """A block of spans is put into the queue."""
        names = [f"{len(self.emitted) + i}" for i in range(len(sizes))]
        spans = b"".join(
            delimited(b"\x12", delimited(b"\x2a", name.encode()) + b"\x41" + FIXED64.pack(NOW) + delimited(b"\x1a", b"x" * size))
            for name, size in zip(names, sizes, strict=True)
        )
        payload = delimited(b"\x0a", delimited(b"\x12", spans))
        with self.account.lock:
            self.account.taken += len(names)
            self.lane.append(Block(payload, len(names), len(payload), NOW, NOW))
        self.emitted.update(names)
        if self.disk_full:
            self.volatile.update(names)

    @rule(answer=st.sampled_from(["200", "200", "200", "400", "413", "429", "503", "403", "cut", "taken and cut"]), steps=st.integers(1, 6))
    def send(self, answer: str, steps: int) -> None:
        """The sender does some steps while the endpoint answers in one way."""
        self.endpoint.answer = answer
        for _ in range(steps):
            self.now += self.sender.step() if self.now < 1e9 else 0
            self.check()

    @rule(data=st.data())
    def poison(self, data: st.DataObject) -> None:
        """From now on the endpoint refuses any request with a certain item."""
        if self.emitted:
            self.endpoint.poison.add(data.draw(st.sampled_from(sorted(self.emitted))))

    @rule(full=st.booleans())
    def disk(self, full: bool) -> None:
        """The disk fills up, or is freed."""
        self.disk_full = full
        self.now += 6

    @rule(clean=st.booleans())
    def die(self, clean: bool) -> None:
        """The process ends, in order or in the middle of things; another one begins. What was only in memory dies with an unclean end."""
        if clean:
            with self.account.lock:
                self.backlog.close()
            assert self.account.balance().exact
        self.lost += sum(self.account.dropped.values())
        if not clean:
            self.lost += len(self.volatile)
        self.volatile.clear()
        self.disk_full = False
        self.begin()

    @precondition(lambda self: self.journal > 0)
    @rule(at=st.integers(0, 10_000))
    def damage(self, at: int) -> None:
        """A byte of a segment flips while the process is down; the items of that record are lost, no others."""
        self.lost += sum(self.account.dropped.values()) + len(self.volatile)
        self.volatile.clear()
        self.disk_full = False
        segments = sorted(self.root.rglob("*.seg"))
        if segments:
            path = segments[at % len(segments)]
            data = bytearray(path.read_bytes())
            if data:
                data[at % len(data)] ^= 0x55
                path.write_bytes(data)
                self.lost += 8  # the most that one record holds
        self.begin()

    @invariant()
    def check(self) -> None:
        """At every moment: the balance is exact, and no request exceeded a limit."""
        balance = self.account.balance()
        assert balance.exact, str(balance)
        assert min(balance.spooled, balance.queued, balance.delivered) >= 0
        assert self.endpoint.problems == []

    def teardown(self) -> None:
        """In the end everything is delivered, but for what was counted as lost."""
        try:
            self.disk_full = False
            self.endpoint.answer = "200"
            for _ in range(3000):
                if self.backlog.items == 0:
                    break
                self.now += max(0.01, self.sender.step())
            assert self.backlog.items == 0
            missing = self.emitted - set(self.endpoint.taken)
            self.lost += sum(self.account.dropped.values())
            assert len(missing) <= self.lost
            assert set(self.endpoint.taken) <= self.emitted
        finally:
            self._patch.stop()
            shutil.rmtree(self.root, ignore_errors=True)


TestJourney: Any = Journey.TestCase
TestJourney.settings = settings(max_examples=40, stateful_step_count=40, deadline=None)
