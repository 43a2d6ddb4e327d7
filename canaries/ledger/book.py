"""The book of open orders and what follows from it: pure values and decisions.

How a lost order is told from a late one, without a timer: replication keeps the order of commits, and one ledger places its orders one
after the other. So a Region that shows an order has every order that was acknowledged before it, unless it lost that one for good. An
order is lost when a Region lacks it and has a later one.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

LOST_KEPT: Final = 500
LOST_CHASED_S: Final = 3 * 86400.0
LOST_CHASED_PER_RUN: Final = 25
INTENT_KEPT_S: Final = 86400.0


class Seen(StrEnum):
    """What a Region says of an order; UNKNOWN where it says nothing that could be used."""

    HERE = "here"
    ABSENT = "absent"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class Order:
    """An acknowledged order. ``acknowledged`` is epoch seconds; ``leaving``: a delete was tried, so its absence proves nothing."""

    id: str
    acknowledged: float
    taken_in: str | None = None
    trace: str = ""
    leaving: bool = False


@dataclass(frozen=True, slots=True)
class Intent:
    """An order that is about to be placed and has no id yet; it stays in the book where the store's answer did not come.

    ``mark`` is part of the order's e-mail address, ``begun`` epoch seconds; ``told``: some run has failed for it.
    """

    mark: str
    begun: float
    trace: str = ""
    told: bool = False


@dataclass(frozen=True, slots=True)
class Lost:
    """An order that is gone: acknowledged once, absent from Regions that have later ones."""

    id: str
    acknowledged: float
    taken_in: str | None
    missing_in: tuple[str, ...]
    noticed: float


@dataclass(frozen=True, slots=True)
class Book:
    """The orders that a ledger has to account for, oldest first, those it had to give up as lost, and those of which it does not know
    whether they were placed."""

    open: tuple[Order, ...] = ()
    lost: tuple[Lost, ...] = ()
    intents: tuple[Intent, ...] = ()

    @property
    def unsettled(self) -> int:
        """How many orders may be in the store on this ledger's account."""
        return len(self.open) + len(self.intents)

    def intending(self, intent: Intent) -> Book:
        """With an order that is about to be placed."""
        return replace(self, intents=(*self.intents, intent))

    def settled(self, marks: Sequence[str]) -> Book:
        """Without these intents: what became of them is known, or they are too old."""
        return replace(self, intents=tuple(each for each in self.intents if each.mark not in marks))

    def told(self) -> Book:
        """With all intents marked as reported."""
        return replace(self, intents=tuple(replace(each, told=True) for each in self.intents))

    def placed(self, order: Order, mark: str = "") -> Book:
        """With one more order, in place of its intent."""
        return replace(self.settled([mark]), open=(*self.open, order))

    def without(self, ids: Sequence[str]) -> Book:
        """Without orders that are accounted for."""
        return replace(self, open=tuple(order for order in self.open if order.id not in ids))

    def leaving(self, ids: Sequence[str]) -> Book:
        """With these orders marked before they are deleted."""
        return replace(self, open=tuple(replace(order, leaving=True) if order.id in ids else order for order in self.open))

    def given_up(self, lost: Sequence[Lost]) -> Book:
        """With these orders moved from open to lost; the oldest losses are forgotten in time."""
        rest = self.without([each.id for each in lost])
        return replace(rest, lost=(*self.lost, *lost)[-LOST_KEPT:])

    def as_json(self) -> dict[str, Any]:
        """The book as it is stored."""
        return {
            "version": 1,
            "open": [{name: getattr(order, name) for name in Order.__dataclass_fields__} for order in self.open],
            "lost": [{name: getattr(each, name) for name in Lost.__dataclass_fields__} for each in self.lost],
            "intents": [{name: getattr(each, name) for name in Intent.__dataclass_fields__} for each in self.intents],
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Book:
        """Read a stored book. Raises ValueError for a shape of another version."""
        if data.get("version") != 1:
            raise ValueError(f"a ledger's book of version {data.get('version')!r}; this canary reads version 1")
        return cls(
            tuple(Order(**each) for each in data["open"]),
            tuple(Lost(**{**each, "missing_in": tuple(each["missing_in"])}) for each in data["lost"]),
            tuple(Intent(**each) for each in data.get("intents", ())),
        )


@dataclass(frozen=True, slots=True)
class Sightings:
    """What every Region said of every open order: ``by_region[region][order id]``."""

    by_region: Mapping[str, Mapping[str, Seen]] = field(default_factory=dict)


def lost(book: Book, seen: Sightings, now: float) -> list[Lost]:
    """The orders that a Region lacks although it has a later one; each named once, with all Regions that show it."""
    missing: dict[str, list[str]] = {}
    for region, orders in seen.by_region.items():
        latest = max((order.acknowledged for order in book.open if orders.get(order.id) is Seen.HERE), default=None)
        for order in book.open:
            if latest is None or order.leaving or order.acknowledged >= latest or orders.get(order.id) is not Seen.ABSENT:
                continue
            missing.setdefault(order.id, []).append(region)
    return [
        Lost(order.id, order.acknowledged, order.taken_in, tuple(missing[order.id]), now)
        for order in sorted(book.open, key=lambda each: each.acknowledged)
        if order.id in missing
    ]


def due(book: Book, now: float, keep_s: float) -> list[Order]:
    """The orders to delete: old enough, or already half deleted."""
    return [order for order in book.open if order.leaving or now - order.acknowledged >= keep_s]


def chased(book: Book, now: float) -> list[str]:
    """The lost orders to delete all the same, by id: one that comes back, with an old primary or because it was only late, would stay for
    ever. Those that were given up in the last days; where they are many, a part of them, which turns with the second."""
    young = [each.id for each in book.lost if now - each.noticed < LOST_CHASED_S]
    first = int(now) % len(young) if young else 0
    return (young[first:] + young[:first])[:LOST_CHASED_PER_RUN]


def expired(book: Book, now: float) -> list[Intent]:
    """The intents that are given up: nothing will be heard of them any more."""
    return [each for each in book.intents if now - each.begun >= INTENT_KEPT_S]


def loss_window(book: Book, gone: Sequence[Lost]) -> tuple[float | None, float] | None:
    """The measured RPO: from the last order that survived before the losses to the last one lost, epoch seconds; None without losses."""
    if not gone:
        return None
    first = min(each.acknowledged for each in gone)
    survived = [order.acknowledged for order in book.open if order.acknowledged < first]
    return (max(survived) if survived else None, max(each.acknowledged for each in gone))
