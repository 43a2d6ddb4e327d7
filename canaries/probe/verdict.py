"""From single probes to what a vantage says of a target: pure decisions, no clock, no network (reasons: docs/canaries.md)."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from canaries.shared.exchange import Exchange

DOWN_SHARE: Final = 0.75


class Cell(StrEnum):
    """One cell of the matrix vantage x target in one round. Silence is not a cell: a vantage that says nothing writes nothing."""

    UP = "up"
    DEGRADED = "degraded"
    DOWN = "down"


@dataclass(frozen=True, slots=True)
class Look:
    """One page of one target in one round: the first try, and the second where the first failed."""

    target: str
    page: str
    first: Exchange
    second: Exchange | None = None

    @property
    def last(self) -> Exchange:
        """The try that counts."""
        return self.second or self.first

    @property
    def failed(self) -> bool:
        """Whether it failed twice."""
        return not self.last.ok


def cell(looks: Sequence[Look], degraded_ms: float) -> Cell:
    """A target's cell. Down: the first page (home) failed twice, or three quarters of the pages did. One failed page alone is degraded."""
    failed = sum(look.failed for look in looks)
    if looks[0].failed or failed >= DOWN_SHARE * len(looks):
        return Cell.DOWN
    slow = any(look.last.phases.total > degraded_ms for look in looks)
    return Cell.DEGRADED if failed or slow else Cell.UP


def sighted(cells: Iterable[Cell]) -> bool:
    """Whether a vantage sees anything at all; one that does not may itself be the trouble, and does not vote."""
    return any(each is not Cell.DOWN for each in cells)


def owners(claims: Mapping[str, Iterable[str]]) -> dict[str, str]:
    """Which Region an address belongs to, of those that claim it: none where two do (one address, two ports), for then it tells nothing."""
    regions = {address: set(claimants) for address, claimants in claims.items()}
    return {address: next(iter(found)) for address, found in regions.items() if len(found) == 1}


def dns_agrees(addresses: Iterable[str], regions: Mapping[str, str], routing: Mapping[str, bool]) -> bool | None:
    """Whether every address the name answers belongs to a Region whose routing control is on; None where that cannot be told.

    ``regions`` maps addresses to the Region that each leads to, ``routing`` Regions to the state of their control (unknown: absent).
    """
    states = [routing.get(regions.get(address, "")) for address in addresses]
    if any(state is False for state in states):
        return False
    return True if states and all(state is True for state in states) else None


def answering_region(exchange: Exchange, header: str, known: Sequence[str], by_address: Mapping[str, str]) -> str | None:
    """Which Region served an answer: as its header says, else its text where it names exactly one, else by the address it came from."""
    said = exchange.headers.get(header.lower(), "")
    for text in (said, exchange.body):
        named = [region for region in known if region in text]
        if len(named) == 1:
            return named[0]
    return by_address.get(exchange.ip or "")


def pages_failed(rounds: Sequence[Sequence[Look]]) -> dict[tuple[str, str], list[Look]]:
    """The run's verdict by target and page: the failed looks of those that failed in at least half of the rounds, empty for the others."""
    seen: dict[tuple[str, str], list[Look]] = {}
    for look in (look for each in rounds for look in each):
        seen.setdefault((look.target, look.page), []).append(look)
    return {key: failed if 2 * len(failed := [look for look in looks if look.failed]) >= len(looks) else [] for key, looks in seen.items()}
