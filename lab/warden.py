"""The warden: the one parent of the lab's processes, and the one that cleans up after them, however the lab ends.

The supervisor starts it in a session of its own and talks to it over a socket, one JSON object a line::

    {"id": 1, "do": "spawn", "argv": [...], "environment": {...}, "directory": null, "user": null, "log": "…"}  -> {"id": 1, "pid": 4711}
    {"id": 2, "do": "signal", "pid": 4711, "signal": 9}     (the process and everything below it)               -> {"id": 2, "sent": 3}
                                                           (a process that it started has ended)      -> {"exit": 4711, "code": -9}

When the socket closes (the supervisor said goodbye, crashed or was killed) the warden kills all its descendants, removes the shared memory
that PostgreSQL leaves behind, removes the state directory and ends. There is no other way to the end, so there is none that is less tidy.

Three things make "all" true: the warden is a child subreaper, so that an orphan of any generation becomes its child and none can escape;
it is single-threaded, so that a child's parent-death signal (sent when the *thread* that forked dies) means the warden's death and nothing
else; and it holds the lock on the state directory until it is gone, so that a new lab cannot start in the middle of the clean-up.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import selectors
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable

PR_SET_PDEATHSIG = 1
PR_SET_CHILD_SUBREAPER = 36
IPC_RMID = 0
END_WITHIN_S = 10.0
NOBODY = 65534
"""Whom the databases run as where the lab is root."""

_libc = ctypes.CDLL(None, use_errno=True)


class Warden:
    """Spawns, signals and reaps on request; `run` returns when the supervisor is gone and nothing is left.

    ``lock`` is the open, locked state directory: at the end that directory, and no other that has come to have its name, is removed.
    """

    def __init__(self, control: socket.socket, directory: Path, lock: int) -> None:
        self._control = control
        self._directory = directory
        self._lock = lock
        self._spawned: set[int] = set()
        self._dead: set[int] = set()
        self._buffer = b""
        self._began = time.time()

    def run(self) -> None:
        """Serve until the socket closes, then clean up."""
        wake, woken = socket.socketpair()
        woken.setblocking(False)
        signal.set_wakeup_fd(woken.fileno())
        signal.signal(signal.SIGCHLD, lambda *_: None)
        ending = False

        def end(*_: object) -> None:
            nonlocal ending
            ending = True

        signal.signal(signal.SIGTERM, end)
        for ignored in (signal.SIGINT, signal.SIGHUP, signal.SIGPIPE):
            signal.signal(ignored, signal.SIG_IGN)
        if _libc.prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) != 0:
            raise OSError(ctypes.get_errno(), "prctl(PR_SET_CHILD_SUBREAPER)")
        with selectors.DefaultSelector() as selector:
            selector.register(self._control, selectors.EVENT_READ, self._read)
            selector.register(wake, selectors.EVENT_READ, lambda: bool(wake.recv(4096)))
            alive = True
            while alive and not ending:
                for key, _ in selector.select():
                    alive = key.data() and alive
                self._reap()
        self._clean_up()

    def _read(self) -> bool:
        """Handle the requests that have arrived; False when the supervisor is gone."""
        try:
            data = self._control.recv(1 << 16)
        except ConnectionError:
            data = b""
        *lines, self._buffer = (self._buffer + data).split(b"\n")
        for line in lines:
            request = json.loads(line)
            try:
                answer = getattr(self, f"_do_{request['do']}")(request)
            except (OSError, subprocess.SubprocessError) as error:
                answer = {"error": f"{type(error).__name__}: {error}"}
            self._send({"id": request["id"]} | answer)
        return bool(data)

    def _do_spawn(self, request: dict[str, Any]) -> dict[str, Any]:
        warden = os.getpid()

        def die_with_the_warden() -> None:
            _libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
            if os.getppid() != warden:
                os._exit(1)

        user = request["user"] if os.geteuid() == 0 else None
        with Path(request["log"]).open("ab") as log:
            process = subprocess.Popen(
                request["argv"],
                env=request["environment"],
                cwd=request["directory"],
                user=user,
                group=user,
                extra_groups=[] if user is not None else None,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                process_group=0,
                preexec_fn=die_with_the_warden,  # noqa: PLW1509 - this process has one thread
            )
        process.returncode = 0  # Popen shall not wait for it: _reap does, for all descendants
        self._spawned.add(process.pid)
        return {"pid": process.pid}

    def _do_signal(self, request: dict[str, Any]) -> dict[str, Any]:
        return {"sent": signal_tree(request["pid"], request["signal"])}

    def _send(self, message: dict[str, Any]) -> None:
        with contextlib.suppress(OSError):
            self._control.sendall(json.dumps(message).encode() + b"\n")

    def _reap(self) -> bool:
        """Collect every child that has ended; False when there is no child at all, hence no descendant either."""
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return False
            if pid == 0:
                return True
            self._dead.add(pid)
            if pid in self._spawned:
                self._send({"exit": pid, "code": os.waitstatus_to_exitcode(status)})

    def _clean_up(self) -> None:
        deadline = time.monotonic() + END_WITHIN_S
        while self._reap() and time.monotonic() < deadline:
            doomed = descendants(os.getpid())
            self._dead |= set(doomed)
            _signal_all(doomed, signal.SIGKILL)
            time.sleep(0.005)
        remove_shared_memory(self._dead)
        remove_dynamic_memory(self._began)
        if is_directory(self._lock, self._directory):
            remove_directory(self._directory)


def descendants(root: int) -> list[int]:
    """All processes below ``root``, by the parents that /proc names now."""
    children: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError):
                stat = (entry / "stat").read_text()
                children.setdefault(int(stat.rpartition(")")[2].split()[1]), []).append(int(entry.name))
    found: list[int] = []
    pending = [root]
    while pending:
        below = children.get(pending.pop(), [])
        found += below
        pending += below
    return found


def signal_tree(root: int, number: int) -> int:
    """Send a signal to ``root`` and everything below it; returns to how many.

    Before a SIGKILL the tree is stopped, generation by generation, until it grows no more: a process that forks at the wrong moment
    cannot save its child.
    """
    tree: dict[int, None] = {}
    while new := [pid for pid in (root, *descendants(root)) if pid not in tree]:
        tree |= dict.fromkeys(new)
        if number == signal.SIGKILL:
            _signal_all(new, signal.SIGSTOP)
    return _signal_all(tree, number)


def _signal_all(pids: Iterable[int], number: int) -> int:
    sent = 0
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)
            sent += 1
    return sent


def remove_shared_memory(creators: set[int]) -> list[int]:
    """Remove the System V segments that the processes ``creators`` made and that nobody uses any more; returns their ids.

    A PostgreSQL server that was killed leaves one behind (its interlock); the server's pid is the segment's creator.
    """
    removed = []
    with contextlib.suppress(OSError):
        for line in Path("/proc/sysvipc/shm").read_text().splitlines()[1:]:
            columns = line.split()
            identity, creator, attached = int(columns[1]), int(columns[4]), int(columns[6])
            if creator in creators and attached == 0 and _libc.shmctl(identity, IPC_RMID, None) == 0:
                removed.append(identity)
    return removed


def remove_dynamic_memory(since: float, folder: Path = Path("/dev/shm")) -> list[str]:
    """Remove PostgreSQL's dynamic shared memory that is younger than ``since`` (epoch seconds), belongs to the servers' user, and is mapped
    by no process; returns the names.

    The servers keep theirs in their data directories. But initdb, before it has read any setting, tries how the system's own works, and
    one that is killed in that moment leaves the file behind. A living PostgreSQL always maps its own; one that has just made it may not
    have yet, hence two looks.
    """
    user = NOBODY if os.geteuid() == 0 else os.geteuid()
    removed = []
    with contextlib.suppress(OSError):
        orphans = _unmapped(folder, user, since)
        if orphans:
            time.sleep(0.1)
            orphans &= _unmapped(folder, user, since)
        for name in sorted(orphans):
            (folder / name).unlink(missing_ok=True)
            removed.append(name)
    return removed


def _unmapped(folder: Path, user: int, since: float) -> set[str]:
    """The names of such files that no process has mapped."""
    found = set()
    for path in folder.glob("PostgreSQL.*"):
        with contextlib.suppress(OSError):
            stat = path.lstat()
            if stat.st_uid == user and stat.st_mtime >= since:
                found.add(path.name)
    if not found:
        return found
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError):
                maps = (entry / "maps").read_text(errors="replace")
                found -= {name for name in found if f"{folder}/{name}" in maps}
    return found


def is_directory(descriptor: int, path: Path) -> bool:
    """Whether ``path`` is the very directory that was opened as ``descriptor``: somebody may have removed or replaced it since."""
    try:
        ours, there = os.fstat(descriptor), path.stat(follow_symlinks=False)
    except OSError:
        return False
    return (ours.st_dev, ours.st_ino) == (there.st_dev, there.st_ino)


def remove_directory(directory: Path) -> None:
    """Remove the state directory, with a few tries: what was killed a moment ago may still have been writing."""
    for _ in range(20):
        shutil.rmtree(directory, ignore_errors=True)
        if not directory.exists():
            return
        time.sleep(0.05)


def main() -> None:
    """``python -m lab.warden CONTROL_FD LOCK_FD DIRECTORY``: both descriptors are inherited, the second is the locked directory."""
    control, lock, directory = int(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3])
    if not directory.is_absolute():
        raise SystemExit(f"{directory}: a warden removes its directory at the end, and takes no relative path to it")
    if not is_directory(lock, directory):
        raise SystemExit(f"{directory}: not the directory that its lab holds locked")
    Warden(socket.socket(fileno=control), directory, lock).run()


if __name__ == "__main__":
    main()
