"""Things to do later, in lab time: one clock thread and a few workers for each service that needs them.

A piece of work is a plain callable. What it raises is logged and ends that piece only. All threads are daemons: they never keep a process
alive.
"""

from __future__ import annotations

import heapq
import itertools
import logging
import threading
import time
from queue import SimpleQueue
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from lab.clock import LabClock

log = logging.getLogger(__name__)


class Agenda:
    """Runs callables at lab times, at most ``workers`` of them at once."""

    def __init__(self, clock: LabClock, name: str, workers: int = 8) -> None:
        self._clock = clock
        self._name = name
        self._limit = workers
        self._due: list[tuple[float, int, Callable[[], None]]] = []
        self._ready: SimpleQueue[Callable[[], None] | None] = SimpleQueue()
        self._order = itertools.count()
        self._changed = threading.Condition()
        self._threads: list[threading.Thread] = []
        self._idle = 0
        self._closed = False

    def soon(self, work: Callable[[], None]) -> None:
        """Do ``work`` as soon as a worker is free."""
        with self._changed:
            self._hand_over(work)

    def at(self, lab_time: float, work: Callable[[], None]) -> None:
        """Do ``work`` at ``lab_time`` (epoch seconds of the lab); at once where that has passed."""
        with self._changed:
            if self._closed:
                return
            heapq.heappush(self._due, (self._clock.wall_at(lab_time), next(self._order), work))
            if not self._threads or self._threads[0].name != f"{self._name}-clock":
                self._threads.insert(0, self._start(self._keep_time, "clock"))
            self._changed.notify()

    def after(self, lab_seconds: float, work: Callable[[], None]) -> None:
        """Do ``work`` when ``lab_seconds`` have passed."""
        self.at(self._clock.now() + lab_seconds, work)

    def close(self) -> None:
        """Forget what is still due and let the threads end."""
        with self._changed:
            self._closed = True
            self._due.clear()
            for _ in self._threads:
                self._ready.put(None)
            self._changed.notify_all()

    def _start(self, target: Callable[[], None], role: str) -> threading.Thread:
        thread = threading.Thread(target=target, name=f"{self._name}-{role}", daemon=True)
        thread.start()
        return thread

    def _hand_over(self, work: Callable[[], None]) -> None:
        """Queue ``work``; start a worker where all are busy. The lock is held."""
        if self._closed:
            return
        if self._idle > 0:
            self._idle -= 1
        elif len(self._threads) < self._limit + 1:
            self._threads.append(self._start(self._labour, f"worker-{len(self._threads)}"))
        self._ready.put(work)

    def _keep_time(self) -> None:
        with self._changed:
            while not self._closed:
                now = time.time()
                while self._due and self._due[0][0] <= now:
                    self._hand_over(heapq.heappop(self._due)[2])
                self._changed.wait(self._due[0][0] - now if self._due else None)

    def _labour(self) -> None:
        while (work := self._ready.get()) is not None:
            try:
                work()
            except Exception:  # whatever one piece of work raises must not stop the others
                log.exception("%s: background work failed", self._name)
            with self._changed:
                self._idle += 1
