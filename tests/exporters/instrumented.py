"""Services under test: one in this process, and scripts in processes of their own."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from crosswatch_exporters.configurator import Providers
from crosswatch_exporters.ledger import Balance
from crosswatch_exporters.lifecycle import Lifecycle
from crosswatch_exporters.settings import Settings, read_settings
from opentelemetry._logs import LogRecord, SeverityNumber
from opentelemetry.sdk.resources import Resource
from opentelemetry.trace import get_current_span

BIN = Path(sys.executable).parent


class Service:
    """An instrumented service in this process, with providers of its own instead of the global ones."""

    def __init__(self, environ: Mapping[str, str]) -> None:
        self.settings: Settings = read_settings({"OTEL_SERVICE_NAME": "shop", "AWS_REGION": "us-east-1", **environ})
        self.resource = Resource({"service.name": "shop", "cloud.region": "us-east-1"})
        self.providers = Providers(self.settings, self.resource)
        self.lifecycle = Lifecycle(self.providers.build, self.settings.shutdown_timeout)
        self.providers.flush = self.lifecycle.flush
        self.lifecycle.pipeline.start()
        self.tracer = self.providers.tracers.get_tracer("shop", "1.0")
        self.logger = self.providers.loggers.get_logger("shop")
        self.meter = self.providers.meters.get_meter("shop")

    def __enter__(self) -> Service:
        return self

    def __exit__(self, *error: object) -> None:
        self.lifecycle.close()

    def spans(self, count: int, **attributes: Any) -> None:
        """End some spans, numbered from 0."""
        for i in range(count):
            with self.tracer.start_as_current_span("op", attributes={"i": i, **attributes}):
                pass

    def logs(self, count: int, text: str = "line") -> None:
        """Emit some log records, numbered from 0."""
        for i in range(count):
            context = get_current_span().get_span_context()
            self.logger.emit(
                LogRecord(
                    timestamp=time.time_ns(),
                    observed_timestamp=time.time_ns(),
                    body=f"{text} {i}",
                    severity_number=SeverityNumber.INFO,
                    trace_id=context.trace_id,
                    span_id=context.span_id,
                    trace_flags=context.trace_flags,
                )
            )

    def collect(self) -> None:
        """Collect metrics now, without waiting for their delivery."""
        self.providers.meters.sdk.force_flush()

    def balances(self) -> dict[str, Balance]:
        """The ledger."""
        return self.lifecycle.pipeline.ledger.balances()

    def flush(self, timeout: float = 10.0) -> bool:
        """Deliver everything."""
        return self.lifecycle.flush(timeout)


class LedgerWatch:
    """Reads the ledger again and again in a thread, and remembers every balance that does not hold."""

    def __init__(self, service: Service) -> None:
        self.wrong: list[str] = []
        self.looked = 0
        self._service = service
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> LedgerWatch:
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._stop.wait(0.002):
            self.looked += 1
            self.wrong += [f"{signal}: {balance}" for signal, balance in self._service.balances().items() if not balance.exact]


class Script:
    """A Python script under opentelemetry-instrument, in a process of its own."""

    def __init__(self, folder: Path, source: str, environ: Mapping[str, str], name: str = "app.py", stdin: bool = False) -> None:
        path = folder / name
        path.write_text(source)
        full = {
            "PATH": f"{BIN}:{os.environ['PATH']}",
            "HOME": str(folder),
            "OTEL_PYTHON_DISTRO": "crosswatch",
            "OTEL_PYTHON_CONFIGURATOR": "crosswatch",
            "OTEL_SERVICE_NAME": "shop",
            "AWS_REGION": "us-east-1",
            "CROSSWATCH_SPOOL_DIR": str(folder / "spool"),
            "OTEL_METRIC_EXPORT_INTERVAL": "300",
            **environ,
        }
        self.process = subprocess.Popen(
            [str(BIN / "opentelemetry-instrument"), sys.executable, str(path)],
            env=full,
            stdin=subprocess.PIPE if stdin else None,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def __enter__(self) -> Script:
        return self

    def __exit__(self, *error: object) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.communicate()

    def ready(self) -> str:
        """The script's next line of output."""
        assert self.process.stdout is not None
        return self.process.stdout.readline().strip()

    def send(self, number: signal.Signals) -> None:
        """Send a signal."""
        self.process.send_signal(number)

    def wait(self, timeout: float = 30) -> tuple[int, str, str]:
        """(exit code, output, errors)."""
        out, err = self.process.communicate(timeout=timeout)
        return self.process.returncode, out, err
