"""All parts of one process put together: intakes, pump, queues and senders, with one way to start, flush and close them."""

import logging
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from crosswatch_exporters.intake import Intake, Pump
from crosswatch_exporters.journal.recovery import Recovery
from crosswatch_exporters.journal.spool import Spool
from crosswatch_exporters.ledger import Ledger
from crosswatch_exporters.sender import Sender

log = logging.getLogger(__name__)


@dataclass(slots=True, eq=False)
class Pipeline:
    """The running parts. `collect` asks what holds items back (metric readers, tail buffer) to hand them over."""

    ledger: Ledger
    intakes: Mapping[str, Intake]
    senders: Mapping[str, Sender]
    tick: float
    spool: Spool | None = None
    recovery: Recovery | None = None
    collect: Callable[[], object] = lambda: None
    pump: Pump = field(init=False)
    closed: bool = field(default=False, init=False)
    ended: bool = field(default=False, init=False)
    _closing: threading.Lock = field(default_factory=threading.Lock, init=False)

    def __post_init__(self) -> None:
        self.pump = Pump(list(self.intakes.values()), self.tick)

    def start(self) -> None:
        """Start the threads."""
        self.pump.start()
        for sender in self.senders.values():
            sender.start()
        if self.recovery is not None:
            self.recovery.start()

    def flush(self, timeout: float) -> bool:
        """Encode and send what has arrived by now; whether all of it was delivered within `timeout` seconds."""
        if self.closed:
            return False
        by = time.monotonic() + timeout
        self.pump.try_drain()
        for sender in self.senders.values():
            sender.flush()
        return all(sender.idle.wait(max(0.0, by - time.monotonic())) for sender in self.senders.values())

    def close(self, timeout: float) -> None:
        """Store everything, deliver what can be delivered within `timeout` seconds, say in one line what became of it all, and end the
        threads.

        What other threads still emit meanwhile goes to the spool as long as possible: the intakes close last.
        """
        if not self._closing.acquire(blocking=False):
            return  # somebody is at it; whoever comes by a signal must not wait for whom it has interrupted
        self.closed = True
        by = time.monotonic() + timeout
        # What has arrived is safe before anything is asked of the service's own callbacks.
        self.pump.nudge()
        for sender in self.senders.values():
            sender.flush()
        if self.recovery is not None:
            self.recovery.close()
        self.collect()
        self.pump.nudge()
        for sender in self.senders.values():
            sender.close(by)
        for sender in self.senders.values():
            sender.join(by)
        self.pump.close(1.0)
        for sender in self.senders.values():
            self._close_queue(sender)
        if self.recovery is not None:
            self.recovery.release()
        if self.spool is not None:
            self.spool.close()
        self.ended = True
        log.info("telemetry: %s", self.ledger)

    def _close_queue(self, sender: Sender) -> None:
        """Give a queue back; one whose disk hangs or fails must not keep the others, or the process."""
        if not sender.account.lock.acquire(timeout=1.0):
            return
        try:
            sender.queue.close()
        except OSError as error:
            log.warning("the spool of %s could not be closed: %s", sender.account.signal, error)
        finally:
            sender.account.lock.release()

    def abandon(self) -> None:
        """In a forked child: leave everything to the parent, whose it is."""
        self.closed = True
        if self.recovery is not None:
            self.recovery.abandon()
        if self.spool is not None:
            self.spool.abandon()
