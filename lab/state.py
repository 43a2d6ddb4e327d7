"""The lab's state directory: who owns it, since when, and what to do with one that a dead lab left.

`StateDirectory.claim` locks the directory (flock on the directory itself: the kernel releases it when the last holder ends, however it
ends). The supervisor's warden inherits the lock, so that the directory belongs to the lab until the last process is gone.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import secrets
import signal
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from lab.warden import is_directory, remove_directory, remove_shared_memory

if TYPE_CHECKING:
    from collections.abc import Iterator

ID_VARIABLE = "CROSSWATCH_LAB_ID"
OWNER_FILE = "owner.json"
PATIENCE_S = 12.0


@dataclass(frozen=True, slots=True)
class Owner:
    """Whose lab it is. ``identity`` is in the environment of every process of the lab; ``since`` is wall time, epoch seconds."""

    pid: int
    since: float
    identity: str
    console: str


class LabIsRunning(Exception):
    """Another lab holds the state directory."""

    def __init__(self, directory: Path, owner: Owner | None) -> None:
        self.directory = directory
        self.owner = owner
        details = ""
        if owner:
            started = time.strftime("%H:%M:%S", time.localtime(owner.since))
            details = f" since {started} (pid {owner.pid}), console {owner.console}"
        super().__init__(
            f"a lab is already running in {directory}{details}. Stop it with 'lab down', or name another directory in CROSSWATCH_LAB_DIR."
        )


class StateDirectory:
    """A claimed state directory. ``lock`` is a descriptor for the warden to inherit."""

    def __init__(self, path: Path, lock: int) -> None:
        self.path = path
        self.lock = lock
        self.identity = secrets.token_hex(8)

    @classmethod
    def claim(cls, path: Path, patience_s: float = PATIENCE_S) -> StateDirectory:
        """Make ``path`` ours and empty. Raises `LabIsRunning`.

        Where the owner is dead but its warden still tidies up, wait for it; where both are dead, end what is left of that lab and
        start with an empty directory. Raises OSError where ``path`` is not a lab's and not empty, or is not ours: in a folder for
        everybody, such as the system's temporary one, anybody may have made it first.
        """
        path = path.absolute()
        deadline = time.monotonic() + patience_s
        while True:
            try:
                lock = _open_own(path)
            except FileNotFoundError:  # its last owner removed it as we came
                continue
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                if is_directory(lock, path):
                    break
            except BlockingIOError:
                owner = read_owner(path)
                if (owner and is_alive(owner)) or time.monotonic() > deadline:
                    os.close(lock)
                    raise LabIsRunning(path, owner) from None
            os.close(lock)
            time.sleep(0.05)
        try:
            _remove_remains(path)
        except OSError:
            os.close(lock)
            raise
        path.chmod(0o711)  # PostgreSQL, which does not run as root, passes through
        (path / "logs").mkdir()
        (path / "tmp").mkdir()
        (path / "tmp").chmod(0o1777)
        return cls(path, lock)

    def own(self, console: str) -> Owner:
        """Write down who we are."""
        owner = Owner(os.getpid(), time.time(), self.identity, console)
        partial = self.path / (OWNER_FILE + ".partial")
        partial.write_text(json.dumps(asdict(owner)))
        partial.rename(self.path / OWNER_FILE)
        return owner

    @property
    def is_there(self) -> bool:
        """Whether the directory that was claimed is still there by its name."""
        return is_directory(self.lock, self.path)

    def remove(self) -> None:
        """Remove what no warden removes: a directory claimed by a lab that never started."""
        if self.is_there:
            remove_directory(self.path)
        os.close(self.lock)


def read_owner(directory: Path) -> Owner | None:
    """The owner that ``directory`` names, dead or alive."""
    try:
        return Owner(**json.loads((directory / OWNER_FILE).read_text()))
    except (OSError, ValueError, TypeError):
        return None


def is_alive(owner: Owner) -> bool:
    """Whether the owner still runs. A reused pid does not count: the process must have started before ``since``."""
    try:
        fields = Path(f"/proc/{owner.pid}/stat").read_text().rpartition(")")[2].split()
        uptime = float(Path("/proc/uptime").read_text().split()[0])
    except OSError:
        return False
    started = time.time() - uptime + int(fields[19]) / os.sysconf("SC_CLK_TCK")
    return fields[0] != "Z" and started <= owner.since + 1


def processes_of(identity: str) -> Iterator[int]:
    """The pids whose environment says that they belong to the lab ``identity``; a stranger's process never does."""
    mark = f"{ID_VARIABLE}={identity}".encode()
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) != os.getpid():
            with contextlib.suppress(OSError):
                if mark in (entry / "environ").read_bytes().split(b"\0"):
                    yield int(entry.name)


def sweep(identity: str, patience_s: float = 5.0) -> list[int]:
    """Kill every process of the lab ``identity`` that nobody is left to kill; returns their pids."""
    deadline = time.monotonic() + patience_s
    swept: list[int] = []
    while (pids := list(processes_of(identity))) and time.monotonic() < deadline:
        for pid in pids:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(pid, signal.SIGKILL)
        swept += pids
        time.sleep(0.02)
    remove_shared_memory(set(swept))
    return swept


def _remove_remains(path: Path) -> None:
    """Empty ``path``, which we hold locked, of what a dead lab left; refuse to touch a directory that is not a lab's."""
    owner = read_owner(path)
    names = {entry.name for entry in path.iterdir()}
    if names and owner is None and not names <= {"logs", "tmp", "plan.json", OWNER_FILE + ".partial", "ca.pem", "control.sock"}:
        raise OSError(f"{path} is not empty and does not belong to a lab: empty it, or name another directory in CROSSWATCH_LAB_DIR")
    if owner:
        sweep(owner.identity)
    remove_shared_memory(_postmasters(path))
    for entry in path.iterdir():
        remove_directory(entry) if entry.is_dir() and not entry.is_symlink() else entry.unlink(missing_ok=True)


def _postmasters(path: Path) -> set[int]:
    """The pids of the PostgreSQL servers that last ran on data below ``path``."""
    pids = set()
    for file in path.rglob("postmaster.pid"):
        with contextlib.suppress(OSError, ValueError, IndexError):
            pids.add(abs(int(file.read_text().splitlines()[0])))
    return pids


def _open_own(path: Path) -> int:
    """``path`` as a descriptor, made where it is missing. Raises OSError where it is a link or belongs to somebody else."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.mkdir(mode=0o711, exist_ok=True)
    if path.is_symlink():
        raise OSError(f"{path} is a link: name the directory itself, or another one, in CROSSWATCH_LAB_DIR")
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    owner = os.fstat(descriptor).st_uid
    if owner != os.geteuid():
        os.close(descriptor)
        raise OSError(
            f"{path} belongs to another user (uid {owner}), who could read and change all of the lab: "
            "name another directory in CROSSWATCH_LAB_DIR"
        )
    return descriptor
