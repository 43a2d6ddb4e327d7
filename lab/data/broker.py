"""The management API of a Region's message broker, which the built-in broker and RabbitMQ have in common.

What is asked for here is what Amazon MQ's metrics are made of. ``port`` is the Region's ``amqp_admin_port``. Each call raises OSError where
nobody answers and `lab.admin.Refusal` where the broker refuses.
"""

from __future__ import annotations

import base64
import contextlib
import os
from pathlib import Path
from typing import Any

from lab import admin

USER, PASSWORD = "retail", "retail"
AUTHORIZATION = {"Authorization": "Basic " + base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()}


def overview(port: int, timeout_s: float = 5.0) -> dict[str, Any]:
    """Totals of objects (``object_totals``) and of messages (``queue_totals``, empty until there is a queue)."""
    found: dict[str, Any] = _get(port, "overview", timeout_s)
    return found


def queues(port: int, timeout_s: float = 5.0) -> list[dict[str, Any]]:
    """The queues. RabbitMQ knows how many messages a new queue has only after a moment; until then their number is left out."""
    found: list[dict[str, Any]] = _get(port, "queues", timeout_s)
    return found


def node(port: int, timeout_s: float = 5.0) -> dict[str, Any]:
    """The one node: memory, disk, alarms, file descriptors, and its CPU seconds so far (``cpu_s``)."""
    found: dict[str, Any] = _get(port, "nodes", timeout_s)[0]
    if "mem_used" not in found:
        raise admin.Refusal(503, "the broker has just been started and does not know its own figures yet")
    if "cpu_s" not in found:
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            found["cpu_s"] = _cpu_s(int(found["os_pid"]))
    return found


def _get(port: int, what: str, timeout_s: float) -> Any:
    return admin.call(port, "GET", f"/api/{what}", timeout_s=timeout_s, headers=AUTHORIZATION)


def _cpu_s(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
