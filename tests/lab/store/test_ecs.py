"""ECS's agent alone: what it does with a task that uses more memory than it may."""

from __future__ import annotations

import subprocess
import sys
import time
from typing import TYPE_CHECKING

import pytest

from lab.plan import LabPlan
from lab.store import ecs
from lab.store.ecs import Cluster, Task

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize(("limit_mb", "dies"), [(1, True), (512, False)])
def test_a_task_beyond_its_memory_is_killed_and_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, limit_mb: int, dies: bool) -> None:
    """As on AWS: OutOfMemoryError, exit code 137, and the service is without it, so that another is started."""
    monkeypatch.setattr(ecs, "MEMORY_MB", limit_mb)
    cluster = Cluster(LabPlan.make(tmp_path), "us-east-1")
    service = cluster.services["carts"]
    with subprocess.Popen([sys.executable, "-c", "print(flush=True); import time; time.sleep(60)"], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        service.tasks["t"] = Task("t", "carts", 1, 1, process, time.monotonic())
        cluster._limit(service)
        if dies:
            process.wait(5)
        else:
            process.kill()
            process.wait(5)
        cluster._reap(service)
    assert service.tasks == {}
    (_, event) = service.events[-1]
    assert event.startswith("task t stopped with exit code 137")
    assert ("OutOfMemoryError: Container killed due to memory usage" in event) is dies
