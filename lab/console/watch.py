"""Looks at the lab again and again, and keeps what the page needs: the latest state, and the last minutes of every cell and control.

One thread looks, at an even pace, however many pages are open; `Watch.wait` hands every page the same state.
"""

from __future__ import annotations

import math
import threading
import time
from collections import deque
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from lab.control import NoLab, Refused, ask
from lab.sight import Sight

if TYPE_CHECKING:
    from collections.abc import Iterable

    from lab.plan import LabPlan
    from lab.sight import View
    from topology import Topology

EVERY_S = 1.5
WINDOW_S = 1200.0
BUCKETS = 120
LETTERS = {"up": "u", "degraded": "g", "down": "d", "silent": "s"}
WORST_FIRST = "dgsu"


@dataclass(frozen=True, slots=True)
class Moment:
    """What one look leaves for the strips: the state of each cell and of each routing control. ``at`` is lab time."""

    at: float
    cells: dict[tuple[str, str], str]
    routing: dict[str, str]


class Watch:
    """The console's memory of one lab."""

    def __init__(self, plan: LabPlan, topology: Topology) -> None:
        self.plan = plan
        self.topology = topology
        self.sight = Sight(plan, topology)
        self._moments: deque[Moment] = deque()
        self._state: dict[str, Any] = {}
        self._number = 0
        self._changed = threading.Condition()

    def start(self) -> None:
        """Look from now on, in a thread."""
        threading.Thread(target=self._run, name="watch", daemon=True).start()

    def wait(self, after: int, timeout_s: float) -> tuple[int, dict[str, Any]]:
        """The newest state, as soon as its number is above ``after``; or the same again after ``timeout_s``."""
        with self._changed:
            self._changed.wait_for(lambda: self._number > after, timeout_s)
            return self._number, self._state

    def ask(self, do: str, **request: Any) -> Any:
        """Pass a request on to the lab. Raises `Refused` or `NoLab`."""
        return ask(self.plan.path, do, **request)

    def _run(self) -> None:
        while True:
            began = time.monotonic()
            try:
                details = self.ask("details", timeout_s=10)
            except (NoLab, Refused, TimeoutError):
                details = {}
            view = self.sight.look()
            self._remember(view)
            with self._changed:
                self._state = self._compose(view, details)
                self._number += 1
                self._changed.notify_all()
            time.sleep(max(0.2, EVERY_S - (time.monotonic() - began)))

    def _remember(self, view: View) -> None:
        cells = {(vantage, target): cell["state"] for vantage, row in view.matrix.items() for target, cell in row.items()}
        self._moments.append(Moment(view.now, cells, view.routing))
        while self._moments and self._moments[0].at < view.now - WINDOW_S:
            self._moments.popleft()

    def _compose(self, view: View, details: dict[str, Any]) -> dict[str, Any]:
        return {
            **asdict(view),
            "workload": self.topology.workload,
            "targets": list(self.topology.targets),
            "window_s": WINDOW_S,
            "history": {
                vantage: {target: strip(self._moments, (vantage, target), view.now) for target in self.topology.targets}
                for vantage in self.topology.vantage_names
            },
            "drained": drained(self._moments),
            "troubles": view.troubles(),
            "lab": details,
        }


def strip(moments: Iterable[Moment], cell: tuple[str, str], now: float, window_s: float = WINDOW_S, buckets: int = BUCKETS) -> str:
    """One letter a bucket of the window that ends now, the oldest first: the worst that was seen in it, or a space.

    A bucket without a look repeats the last look, if that is not older than three buckets.
    """
    width = window_s / buckets
    letters = [" "] * buckets
    for moment in moments:
        index = math.floor((moment.at - (now - window_s)) / width)
        if 0 <= index < buckets or (index == buckets and moment.at <= now):
            letter = LETTERS.get(moment.cells.get(cell, ""), " ")
            index = min(index, buckets - 1)
            if letters[index] == " " or WORST_FIRST.find(letter) < WORST_FIRST.find(letters[index]):
                letters[index] = letter
    last, age = " ", 0
    for index, letter in enumerate(letters):
        last, age = (letter, 0) if letter != " " else (last, age + 1)
        if letter == " " and age <= 3:
            letters[index] = last
    return "".join(letters)


def drained(moments: Iterable[Moment]) -> list[dict[str, Any]]:
    """The stretches in which a routing control was seen off: region, since, until (None: still off)."""
    open_: dict[str, dict[str, Any]] = {}
    found: list[dict[str, Any]] = []
    for moment in moments:
        for region, state in moment.routing.items():
            if state == "off" and region not in open_:
                open_[region] = {"region": region, "since": moment.at, "until": None}
                found.append(open_[region])
            elif state == "on" and region in open_:
                open_.pop(region)["until"] = moment.at
    return found
