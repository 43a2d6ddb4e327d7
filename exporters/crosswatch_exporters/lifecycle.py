"""How telemetry begins, forks and ends with its process: atexit, SIGTERM, fork, multiprocessing.

After a fork the child gets a pipeline of its own, built as the parent's was: queues, journal, connections and threads are never shared,
and locks
that a thread of the parent held are left behind. The parent's items stay the parent's.
"""

import atexit
import logging
import os
import signal
import sys
import threading
from collections.abc import Callable
from types import FrameType
from typing import Any

from crosswatch_exporters.pipeline import Pipeline

log = logging.getLogger(__name__)


class Lifecycle:
    """Owns the process's pipeline. `build` makes one, connects it to the providers, and is called again in a forked child."""

    def __init__(self, build: Callable[[], Pipeline], shutdown_timeout: float) -> None:
        self._build = build
        self._timeout = shutdown_timeout
        self._known_to_multiprocessing = False
        self.pipeline = build()

    def start(self) -> None:
        """Start the threads, and hook fork and the process's end."""
        self.pipeline.start()
        atexit.register(self.close)
        os.register_at_fork(before=self._before_fork, after_in_child=self._after_fork)
        if threading.current_thread() is threading.main_thread() and signal.getsignal(signal.SIGTERM) is signal.SIG_DFL:
            signal.signal(signal.SIGTERM, self._on_sigterm)

    def flush(self, timeout: float) -> bool:
        """Deliver what has arrived; whether that succeeded within `timeout` seconds."""
        return self.pipeline.flush(timeout)

    def close(self) -> None:
        """Store everything, and deliver what can be delivered in the time allowed."""
        self.pipeline.close(self._timeout)

    def _on_sigterm(self, number: int, frame: FrameType | None) -> None:
        """Close, then die of the signal as if we had not been there.

        Only where nobody else handles SIGTERM. A server that handles it (gunicorn, uvicorn) replaces this handler and ends through atexit.
        """
        if self.pipeline.closed and not self.pipeline.ended:
            return  # we have interrupted ourselves: the process is ending already
        try:
            self.close()
        except Exception as error:  # noqa: BLE001  # whatever it is, the process was asked to end
            log.warning("telemetry could not be closed: %s: %s", type(error).__name__, error)
        finally:
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)
            # The first process of a container gets no signal that it does not handle.
            os._exit(128 + number)

    def _before_fork(self) -> None:
        """multiprocessing ends its children without atexit, but has finalizers of its own."""
        util: Any = sys.modules.get("multiprocessing.util")
        if util is not None and not self._known_to_multiprocessing:
            self._known_to_multiprocessing = True
            util.register_after_fork(self, lambda lifecycle: util.Finalize(lifecycle, lifecycle.close, exitpriority=0))

    def _after_fork(self) -> None:
        if self.pipeline.closed:
            return
        self.pipeline.abandon()
        self.pipeline = self._build()
        self.pipeline.start()
