"""However a lab ends, nothing is left of it: no process, port, file or shared memory."""

from __future__ import annotations

import mmap
import os
import signal
import socket
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from lab.state import processes_of
from lab.warden import NOBODY, descendants, remove_dynamic_memory
from tests.lab.conftest import running_lab

if TYPE_CHECKING:
    from lab.plan import LabPlan


def ports(plan: LabPlan) -> list[tuple[str, int]]:
    """Every address on which the lab listens."""
    found = [
        ("127.0.0.1", port) for port in (plan.dns_port, plan.console_port, plan.control_port, plan.oncall_port, *plan.arc_ports.values())
    ]
    for region in plan.regions.values():
        found += [(region.ip, plan.alb_port)]
        found += [("127.0.0.1", port) for port in (region.aws_port, region.redis_port, region.amqp_port, *region.postgres_ports.values())]
        found += [("127.0.0.1", port) for port in region.redis_node_ports.values()]
    return found


def listens(address: tuple[str, int]) -> bool:
    try:
        socket.create_connection(address, timeout=1).close()
    except OSError:
        return False
    return True


def shared_memory() -> dict[str, int]:
    """The System V segments of the machine, and the pid that created each."""
    lines = [line.split() for line in Path("/proc/sysvipc/shm").read_text().splitlines()[1:]]
    return {columns[1]: int(columns[4]) for columns in lines}


def posix_segments() -> set[str]:
    """PostgreSQL's dynamic shared memory, which nobody removes for a server that was killed."""
    return {each.name for each in Path("/dev/shm").glob("PostgreSQL.*")}


@pytest.mark.lab
@pytest.mark.slow
@pytest.mark.parametrize(
    ("how", "after_s"), [(signal.SIGKILL, None), (signal.SIGINT, None), (signal.SIGKILL, 3.0), (signal.SIGTERM, 1.0), ("down", None)]
)
def test_nothing_is_left(lab_folder: Path, how: signal.Signals | str, after_s: float | None) -> None:
    """No process, port, file or shared memory, whether the lab was up or still starting."""
    there = posix_segments()
    with running_lab(lab_folder / "lab", "--no-deploy") as lab:
        plan, identity = lab.plan, lab.identity
        if after_s is None:
            lab.wait("the store to be up", lambda: "metrics and console are up" in lab.output, 180)
            assert all(map(listens, ports(plan)))
            ours = set(descendants(lab.process.pid))
            segments = {number for number, creator in shared_memory().items() if creator in ours}
            assert len(segments) == 2 * len(plan.regions)  # one a PostgreSQL server
        else:
            time.sleep(after_s)
            segments = set()
        if isinstance(how, str):
            assert lab.run(how).returncode == 0
        else:
            lab.process.send_signal(how)
        lab.process.wait(30)
        assert lab.process.returncode == (-signal.SIGKILL if how == signal.SIGKILL else 0)
        deadline = time.monotonic() + 20
        while (lab.directory.exists() or list(processes_of(identity))) and time.monotonic() < deadline:
            time.sleep(0.05)
        assert not lab.directory.exists()
        assert not list(processes_of(identity))
        assert not posix_segments() - there
        assert not [address for address in ports(plan) if listens(address)]
        assert not segments & set(shared_memory())


def test_only_dynamic_memory_that_nobody_maps_is_removed(tmp_path: Path) -> None:
    """Neither what a living server has mapped, nor what is older than the lab, nor somebody else's."""
    mapped, orphan, old, other = (tmp_path / name for name in ("PostgreSQL.1", "PostgreSQL.2", "PostgreSQL.3", "else.4"))
    user = NOBODY if os.geteuid() == 0 else os.geteuid()
    for path in (mapped, orphan, old, other):
        path.write_bytes(bytes(4096))
        os.chown(path, user, -1)
    os.utime(old, (1.0, 1.0))
    with mapped.open("r+b") as file, mmap.mmap(file.fileno(), 4096):
        assert remove_dynamic_memory(time.time() - 60, tmp_path) == ["PostgreSQL.2"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["PostgreSQL.1", "PostgreSQL.3", "else.4"]
