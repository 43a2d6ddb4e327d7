"""All parts of one process put together: intakes, pump, queues and senders, with one way to start, flush and close them."""

import logging
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from crosswatch_exporters.intake import Intake, Pump
from crosswatch_exporters.ledger import Ledger
from crosswatch_exporters.sender import Sender

log = logging.getLogger(__name__)


@dataclass(slots=True)
class Pipeline:
    """The running parts. `collect` makes the metric readers collect; the pipeline does not know them."""

    ledger: Ledger
    intakes: Mapping[str, Intake]
    senders: Mapping[str, Sender]
    tick: float
    collect: Callable[[], None] = lambda: None
    pump: Pump = field(init=False)
    closed: bool = field(default=False, init=False)
    _closing: threading.Lock = field(default_factory=threading.Lock, init=False)

    def __post_init__(self) -> None:
        self.pump = Pump(list(self.intakes.values()), self.tick)

    def start(self) -> None:
        """Start the threads."""
        self.pump.start()
        for sender in self.senders.values():
            sender.start()

    def flush(self, timeout: float) -> bool:
        """Encode and send what has arrived by now; whether all of it was delivered within `timeout` seconds."""
        by = time.monotonic() + timeout
        self.pump.drain()
        for sender in self.senders.values():
            sender.flush()
        return all(sender.idle.wait(max(0.0, by - time.monotonic())) for sender in self.senders.values())

    def close(self, timeout: float) -> None:
        """Store everything, deliver what can be delivered within `timeout` seconds, say in one line what became of it all, and end the threads."""
        with self._closing:
            if self.closed:
                return
            self.closed = True
        by = time.monotonic() + timeout
        self.collect()
        self.pump.close(max(0.5, timeout / 2))
        for sender in self.senders.values():
            sender.close(by)
        for sender in self.senders.values():
            sender.join(by)
        for sender in self.senders.values():
            with sender.account.lock:
                sender.queue.close()
        log.info("telemetry: %s", self.ledger)
