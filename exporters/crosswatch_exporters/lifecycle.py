"""How telemetry begins, forks and ends with its process: atexit, SIGTERM, fork."""

import atexit
import logging
import os
import signal
import threading
from types import FrameType
from typing import Any

from opentelemetry.sdk.resources import Resource

from crosswatch_exporters.aws.credentials import CredentialProvider
from crosswatch_exporters.pipeline import Pipeline

log = logging.getLogger(__name__)


class Lifecycle:
    """Owns the pipeline and the providers of one process."""

    def __init__(self, pipeline: Pipeline, resource: Resource, shutdown_timeout: float) -> None:
        self.pipeline = pipeline
        self.resource = resource
        self._timeout = shutdown_timeout
        self._meters: Any = None
        self._tracers: Any = None
        self._credentials: CredentialProvider | None = None
        self._previous: Any = None

    def adopt(self, tracers: Any, meters: Any, credentials: CredentialProvider) -> None:
        """The parts that need to know of a fork or of the end."""
        self._tracers, self._meters, self._credentials = tracers, meters, credentials
        self.pipeline.collect = meters.shutdown

    def start(self) -> None:
        """Start the threads and hook the process's end."""
        self.pipeline.start()
        atexit.register(self.close)
        if threading.current_thread() is threading.main_thread() and signal.getsignal(signal.SIGTERM) is signal.SIG_DFL:
            signal.signal(signal.SIGTERM, self._on_sigterm)

    def close(self) -> None:
        """Store and deliver what can be delivered in the time allowed."""
        self.pipeline.close(self._timeout)

    def _on_sigterm(self, number: int, frame: FrameType | None) -> None:
        """Close, then die of the signal as if we had not been there.

        Only where nobody else handles SIGTERM. A server that handles it (gunicorn, uvicorn) replaces this handler and ends through atexit.
        """
        self.close()
        signal.signal(number, signal.SIG_DFL)
        os.kill(os.getpid(), number)


