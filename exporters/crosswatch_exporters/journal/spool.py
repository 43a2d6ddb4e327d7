"""The spool folder: making it safe, making our journal in it, and taking over the journals of processes that ended.

A folder that others can write to would let them put telemetry in our name, or files in our way (CVE-2026-42191 was that), so one that is
shared, a
link, or someone else's is refused with a reason, and telemetry then waits in memory.
"""

import fcntl
import json
import logging
import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from crosswatch_exporters.journal.lane import Lane
from crosswatch_exporters.ledger import Account

log = logging.getLogger(__name__)

VERSION = 1
_PREFIX = f"j{VERSION}-"
_NEW = ".new-"


class UnsafeSpool(Exception):
    """The folder cannot be used; the message says why and how to mend it."""


@dataclass(slots=True, eq=False)
class Journal:
    """One process's folder, locked for as long as `lock_fd` is open."""

    folder: Path
    lock_fd: int
    lanes: dict[str, Lane] = field(default_factory=dict)

    def close(self) -> None:
        """Remove the folder if nothing is left in it, and let the lock go. The lanes are closed by whoever uses them."""
        try:
            # A process that finds the folder meanwhile cannot lock it, and one that locks it after us finds no lanes.
            if not any(path.is_dir() for path in self.folder.iterdir()):
                for path in self.folder.iterdir():
                    path.unlink(missing_ok=True)
                self.folder.rmdir()
        except OSError as error:
            log.debug("%s cannot be removed: %s", self.folder, error)
        if self.lock_fd >= 0:
            os.close(self.lock_fd)
            self.lock_fd = -1

    def abandon(self) -> None:
        """In a forked child: the journal is the parent's. Closing our copy of the lock leaves the parent's in force."""
        if self.lock_fd >= 0:
            os.close(self.lock_fd)
            self.lock_fd = -1


class Spool:
    """The spool folder as one process uses it. Raises UnsafeSpool or OSError when it cannot be used."""

    def __init__(self, folder: Path, region: str, service: str, max_bytes: int, fsync: bool = False) -> None:
        self.folder = folder
        self.region = region
        self.service = service
        self._max_bytes = max_bytes
        self._fsync = fsync
        self._own: Journal | None = None
        make_safe(folder)

    def own(self) -> Journal:
        """This process's journal, made when it is first asked for."""
        if self._own is None:
            self._own = self._create()
        return self._own

    def lane(self, account: Account, share: float) -> Lane:
        """The lane of an account in our own journal; it may use `share` of the spool's size."""
        journal = self.own()
        lane = Lane(journal.folder / account.signal, account, int(self._max_bytes * share), self._fsync)
        journal.lanes[account.signal] = lane
        return lane

    def abandon(self) -> None:
        """In a forked child: our journal is the parent's."""
        if self._own is not None:
            self._own.abandon()
            self._own = None

    def close(self) -> None:
        """Give our journal back."""
        if self._own is not None:
            self._own.close()
            self._own = None

    def orphans(self, any_region: bool = False) -> Iterator[Journal]:
        """The journals of this Region, or of any, whose processes have ended, oldest first, each locked for us."""
        for folder in journals(self.folder):
            if self._own is not None and folder == self._own.folder:
                continue
            if not any_region and metadata(folder).get("region", "") not in (self.region, ""):
                continue
            fd = lock(folder)
            if fd is not None:
                yield Journal(folder, fd)

    def _create(self) -> Journal:
        """A new journal. It gets its name only once it is locked, so that no other process can take it for an orphan."""
        suffix = f"{self.region or 'local'}-{os.getpid()}-{os.urandom(4).hex()}"
        temporary, folder = self.folder / f"{_NEW}{suffix}", self.folder / f"{_PREFIX}{suffix}"
        temporary.mkdir(mode=0o700)
        fd = os.open(temporary / "lock", os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        fcntl.flock(fd, fcntl.LOCK_EX)
        meta = os.open(temporary / "meta.json", os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        with os.fdopen(meta, "w") as file:
            json.dump({"version": VERSION, "service": self.service, "region": self.region, "pid": os.getpid()}, file)
        temporary.rename(folder)
        return Journal(folder, fd)


def make_safe(folder: Path) -> None:
    """Make the folder, or make sure that it is ours alone. Raises UnsafeSpool when it is not and must not be changed."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    found = folder.lstat()
    if not stat.S_ISDIR(found.st_mode):
        raise UnsafeSpool(f"CROSSWATCH_SPOOL_DIR={folder}: is a link or a file; name a folder")
    if found.st_uid != os.geteuid():
        raise UnsafeSpool(
            f"CROSSWATCH_SPOOL_DIR={folder}: belongs to user {found.st_uid}, we are {os.geteuid()}; "
            "name a folder of this user, or run as that one"
        )
    shared = found.st_mode & (stat.S_ISVTX | stat.S_IWOTH)
    # Made with a mask of 002, and still empty, it is nobody's but ours.
    if shared or (found.st_mode & stat.S_IWGRP and any(folder.iterdir())):
        raise UnsafeSpool(f"CROSSWATCH_SPOOL_DIR={folder}: others may write there; name a folder of its own, mode 0700")
    if found.st_mode & 0o077:
        if any(not path.name.startswith((_PREFIX, _NEW)) for path in folder.iterdir()):
            raise UnsafeSpool(
                f"CROSSWATCH_SPOOL_DIR={folder}: is open to others and holds other files; name a folder of its own, mode 0700"
            )
        folder.chmod(0o700)


def lock(folder: Path) -> int | None:
    """A journal's lock, or None when its process lives or the journal is gone."""
    try:
        fd = os.open(folder / "lock", os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(fd)
        return None
    return fd


def metadata(folder: Path) -> dict[str, object]:
    """What the journal's process said of itself; empty when it cannot be read."""
    try:
        loaded = json.loads((folder / "meta.json").read_text())
    except (OSError, ValueError):
        return {}
    return loaded if isinstance(loaded, dict) else {}


def journals(folder: Path) -> list[Path]:
    """The journals in a spool folder, oldest first."""
    return sorted(filter(is_journal, folder.iterdir()), key=_made_at)


def is_journal(path: Path) -> bool:
    """Whether this is the folder of a process, by its name."""
    return path.name.startswith(_PREFIX) and path.is_dir() and not path.is_symlink()


def _made_at(folder: Path) -> float:
    try:
        return folder.stat().st_mtime
    except OSError:
        return 0.0
