"""Taking over what ended processes left: at the start, and again from time to time, since a sibling may be killed at any moment."""

import logging
import os
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field

from crosswatch_exporters.journal.lane import Lane
from crosswatch_exporters.journal.spool import Journal, Spool
from crosswatch_exporters.ledger import Account
from crosswatch_exporters.queues import Backlog
from crosswatch_exporters.sender import Sender

log = logging.getLogger(__name__)

_EVERY_SECONDS = 20.0


@dataclass(slots=True, eq=False)
class Recovery:
    """Hands orphaned journals' lanes to the senders of the same accounts."""

    spool: Spool
    lanes: Mapping[str, tuple[Account, Backlog, Sender]]
    max_bytes: int
    any_region: bool = False
    _journals: list[Journal] = field(default_factory=list, init=False)
    _closed: threading.Event = field(default_factory=threading.Event, init=False)
    _thread: threading.Thread | None = field(default=None, init=False)

    def start(self) -> None:
        """Look for orphans now and every 20 seconds, in a thread of its own."""
        self._thread = threading.Thread(target=self._run, name="crosswatch-recovery", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Stop looking."""
        self._closed.set()
        if self._thread is not None:
            self._thread.join(1.0)

    def release(self) -> None:
        """Let journals go: removed where they are empty, unlocked for others where they are not. The senders must have ended."""
        for journal in self._journals:
            journal.close()
        self._journals.clear()

    def abandon(self) -> None:
        """In a forked child: what was taken over is the parent's."""
        for journal in self._journals:
            journal.abandon()
        self._journals.clear()

    def look(self) -> None:
        """Take over what there is, and let go of journals that have been emptied."""
        for journal in [journal for journal in self._journals if not any(path.is_dir() for path in journal.folder.glob("*"))]:
            journal.close()
            self._journals.remove(journal)
        for journal in self.spool.orphans(self.any_region):
            self._journals.append(journal)
            for signal, (account, backlog, sender) in self.lanes.items():
                folder = journal.folder / signal
                if folder.is_dir() and not folder.is_symlink():
                    self._take_over(journal, Lane(folder, account, self.max_bytes), account, backlog, sender)
        if not self.any_region and self._disk_is_short():
            self._shed()

    def _take_over(self, journal: Journal, lane: Lane, account: Account, backlog: Backlog, sender: Sender) -> None:
        with account.lock:
            if lane.items == 0:
                lane.close()
                return
            account.recovered += lane.items
            backlog.take_over(lane)
            journal.lanes[account.signal] = lane
        log.info("%d items of %s that an ended process left are being delivered", lane.items, account.signal)
        sender.flush()

    def _disk_is_short(self) -> bool:
        """Whether less is free on the disk than a spool of our own may need."""
        room = os.statvfs(self.spool.folder)
        return room.f_bavail * room.f_frsize < self.max_bytes

    def _shed(self) -> None:
        """Bring what was taken over down to one spool's size: processes that die again and again must not fill the disk between them."""
        lanes = [(signal, lane) for journal in self._journals for signal, lane in journal.lanes.items()]
        excess = sum(lane.disk_bytes for _, lane in lanes) - self.max_bytes
        for signal, lane in lanes:
            while excess > 0:
                with self.lanes[signal][0].lock:
                    before = lane.disk_bytes
                    if not lane.shed():
                        break
                    excess -= before - lane.disk_bytes

    def _run(self) -> None:
        while True:
            try:
                self.look()
            except Exception as error:  # noqa: BLE001  # the disk, no memory, or a fault of ours; it must not end the thread
                log.warning("the spool %s cannot be searched: %s", self.spool.folder, error)
            if self._closed.wait(_EVERY_SECONDS):
                return
