"""What a fault is: a value with a name, a sentence, where it can strike, and the two functions that break and mend."""

from __future__ import annotations

import difflib
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from lab.faults.ground import Ground

    Inject = Callable[[Ground, str], Any]
    Heal = Callable[[Ground, str, Any], None]


class Where(Enum):
    """Where a fault strikes: in one Region at a time, or in the lab as a whole."""

    REGION = "region"
    LAB = "lab"


@dataclass(frozen=True, slots=True)
class Fault:
    """One way in which the lab can fail.

    ``inject(ground, region)`` breaks it for real and returns what healing needs to know (anything JSON can hold);
    ``heal(ground, region, memory)`` mends it completely and waits until it is. For `Where.LAB` the region is ``""``.
    ``shows`` says where the damage is to be seen, in the system's own protocol or metrics.

    ``touches`` names what it sets and healing puts back: two faults that touch the same would undo one another and are not in force
    together. ``forgets`` names what is lost when it strikes, as a process takes its settings along: nothing that touches those either.
    ``{region}`` in a name stands for the Region that is struck, or for every Region where the fault strikes the lab. A fault that only
    holds processes down, or puts a condition on AWS, needs neither: those have an owner each.
    """

    name: str
    family: str
    sentence: str
    shows: str
    where: Where
    inject: Inject
    heal: Heal
    touches: frozenset[str] = frozenset()
    forgets: frozenset[str] = frozenset()

    def clash(self, region: str, other: Fault, its_region: str, regions: Iterable[str]) -> str:
        """What cannot be both this fault's in ``region`` and ``other``'s in ``its_region``, or nothing."""
        every = tuple(regions)
        mine, its = _named(self.touches, region, every), _named(other.touches, its_region, every)
        lost = (mine & _named(other.forgets, its_region, every)) | (its & _named(self.forgets, region, every))
        return min((mine & its) | lost, default="")


def the(*names: str) -> frozenset[str]:
    """Names for ``touches`` and ``forgets``."""
    return frozenset(names)


def _named(names: Iterable[str], region: str, every: tuple[str, ...]) -> set[str]:
    return {name.format(region=each) for name in names for each in ((region,) if region else every)}


class Catalogue:
    """All faults by name."""

    def __init__(self, faults: Iterable[Fault]) -> None:
        self._faults: dict[str, Fault] = {}
        for fault in faults:
            if fault.name in self._faults:
                raise ValueError(f"two faults are called {fault.name}")
            self._faults[fault.name] = fault

    def __iter__(self) -> Iterator[Fault]:
        return iter(self._faults.values())

    def __len__(self) -> int:
        return len(self._faults)

    def get(self, name: str) -> Fault:
        """The fault ``name``. Raises KeyError with the nearest names."""
        if name in self._faults:
            return self._faults[name]
        near = difflib.get_close_matches(name, self._faults, n=3, cutoff=0.5)
        hint = f"did you mean {' or '.join(near)}?" if near else "'lab fault list' shows all."
        raise KeyError(f"there is no fault called {name!r}; {hint}")
