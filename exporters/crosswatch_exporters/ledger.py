"""The loss ledger: for every signal, at all times, emitted + recovered = delivered + queued + held + spooled + dropped.

Items are counted where they change hands and never anywhere else. `Account.lock` is held while an item moves from one place to the next,
so a
snapshot can never see it twice or not at all.
"""

import threading
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from enum import StrEnum


class Loss(StrEnum):
    """Why an item was not delivered. Every place that loses something names one of these."""

    QUEUE_FULL = "queue_full"
    UNENCODABLE = "unencodable"
    ITEM_TOO_LARGE = "item_too_large"
    TOO_MANY_LABELS = "too_many_labels"
    TOO_OLD = "too_old"
    TOO_NEW = "too_new"
    SPOOL_FULL = "spool_full"
    SPOOL_CORRUPT = "spool_corrupt"
    REJECTED = "rejected"
    PARTIALLY_REJECTED = "partially_rejected"
    TAIL = "tail"
    SHUTDOWN = "shutdown"


@dataclass(frozen=True, slots=True)
class Balance:
    """One signal's numbers at one moment. `recovered` are items taken over from processes that ended before they could deliver them."""

    emitted: int
    recovered: int
    delivered: int
    queued: int
    held: int
    spooled: int
    dropped: Mapping[str, int] = field(default_factory=dict)

    @property
    def exact(self) -> bool:
        """Whether every item is accounted for."""
        accounted = self.delivered + self.queued + self.held + self.spooled + sum(self.dropped.values())
        return self.emitted + self.recovered == accounted

    def __str__(self) -> str:
        numbers = asdict(self)
        reasons = " ".join(f"dropped.{reason}={n}" for reason, n in sorted(numbers.pop("dropped").items()))
        return " ".join([*(f"{name}={n}" for name, n in numbers.items()), reasons or "dropped=0"])


def _none() -> int:
    return 0


class Account:
    """The counters of one signal. The places that hold items register how many they hold: `queued`, `held`, `spooled`.

    All methods but `balance` and `refuse` expect the caller to hold `lock`, which is re-entrant, and is held while the disk is written or
    read. The service's threads take only `brief`, which is held for microseconds; who takes both takes `lock` first.
    """

    def __init__(self, signal: str) -> None:
        self.signal = signal
        self.lock = threading.RLock()
        self.brief = threading.RLock()
        self.taken = 0
        self.recovered = 0
        self.delivered = 0
        self.dropped: Counter[str] = Counter()
        self._refused: Counter[str] = Counter()
        self.waiting: Callable[[], int] = _none
        """Items that arrived and were not taken yet. Arrival itself is not counted: it is the one step that happens in the service's
        threads."""
        self.in_work = 0
        self.held: Callable[[], int] = _none
        self.spooled: Callable[[], int] = _none

    def lose(self, reason: Loss, items: int) -> None:
        """Count items that will never be delivered."""
        if items:
            self.dropped[reason.value] += items

    def refuse(self, reason: Loss, items: int) -> None:
        """Count items that were lost where they arrived, in the service's own thread."""
        with self.brief:
            self._refused[reason.value] += items

    def deliver(self, items: int) -> None:
        """Count items that the destination has accepted."""
        self.delivered += items

    def balance(self) -> Balance:
        """All numbers at one moment."""
        with self.lock, self.brief:
            waiting, held = self.waiting(), self.held()
            return Balance(
                emitted=self.taken + self._refused.total() + waiting + held,
                recovered=self.recovered,
                delivered=self.delivered,
                queued=waiting + self.in_work,
                held=held,
                spooled=self.spooled(),
                dropped=dict(self.dropped + self._refused),
            )


class Ledger:
    """The accounts of one process."""

    def __init__(self) -> None:
        self.accounts: dict[str, Account] = {}

    def account(self, signal: str) -> Account:
        """The signal's account, opened when it is first asked for."""
        return self.accounts.setdefault(signal, Account(signal))

    def balances(self) -> dict[str, Balance]:
        """Every account's balance. Each is exact in itself; they are not of the same instant."""
        return {signal: account.balance() for signal, account in self.accounts.items()}

    def __str__(self) -> str:
        return "; ".join(f"{signal}: {balance}" for signal, balance in self.balances().items())
