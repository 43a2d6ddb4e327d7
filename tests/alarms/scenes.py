"""Scenes: what happens to a store and its vantages, played through the probe's own metrics to the alarms of every Region.

A scene says what goes wrong and from when to when (`Down`, `Part`, `Mute`, `Cut`, `Off`, `Gone` …) and lists *every* action that the
rendered alarms then run, in all Regions. The rounds are turned into datapoints by `canaries.probe.metrics`, so that what is tested reaches
from the probe's verdict to the page. `Scene.test` is the scene as one entry of an alarm test file; the scenes themselves are in
`tests/alarms/test_scenes.py`, which also writes them to files for the command line::

    python -m tests.alarms.test_scenes DIR
    python deploy.py alarms test DIR/example*.test.yaml --topology DIR/example.topology.yaml --coverage --mutate
"""

from __future__ import annotations

import itertools
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

from alarms.diagnosis import Names, ledger_period_s
from alarms.rendering import definitions
from alarms.testing.notation import parse_duration
from canaries.config import probe_config
from canaries.probe import metrics
from canaries.probe.rounds import Round
from canaries.probe.settings import ProbeSettings
from canaries.probe.verdict import Cell, Look
from canaries.shared import settings
from canaries.shared.exchange import Exchange, Failure, Kind, Phase, Phases
from topology import Topology, loads

EXAMPLE = (Path(__file__).parents[2] / "topology.yaml").read_text(encoding="utf-8")
WITH_LEDGER = EXAMPLE + "\njourneys: {ledger_schedule: rate(5 minutes)}\n"
WITH_THIRD = EXAMPLE + "\nvantages: {eu-west-1: {network: {subnets: [subnet-0cc00001], security_groups: [sg-0cc00001]}}}\n"
NODES = {region: f"retail-checkout-{region}" for region in ("us-east-1", "us-west-2")}
WITH_REPLICAS = EXAMPLE.replace(
    f"clusters: {{{', '.join(f'{region}: {node}' for region, node in NODES.items())}}}",
    f"clusters: {{{', '.join(f'{region}: [{node}-001, {node}-002]' for region, node in NODES.items())}}}",
)
assert WITH_REPLICAS != EXAMPLE

SLOT_S = 10
ROUNDS_A_MINUTE = 5  # the sixth slot is the pause between two runs
GOOD = Exchange(None, Phases(total=120.0), 200)
BAD = Exchange(Failure(Kind.STATUS, Phase.TTFB, "status 503"), Phases(total=120.0), 503)


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """Something that is so from ``begin`` to before ``end``, as durations since the scene began."""

    begin: str
    end: str

    def covers(self, at_s: float) -> bool:
        """Whether it is so at ``at_s``."""
        return parse_duration(self.begin) <= at_s < parse_duration(self.end)


@dataclass(frozen=True, slots=True)
class Down(Event):
    """A target does not answer, for everybody or only for the vantage ``by``."""

    target: str
    by: str = ""


@dataclass(frozen=True, slots=True)
class Flaky(Event):
    """One in ``rounds`` rounds finds a target down, whoever asks."""

    target: str
    rounds: int


@dataclass(frozen=True, slots=True)
class Part(Event):
    """A target serves its first page, and not its last."""

    target: str
    by: str = ""


@dataclass(frozen=True, slots=True)
class Mute(Event):
    """A vantage's canary does not run."""

    vantage: str


@dataclass(frozen=True, slots=True)
class Cut(Event):
    """What a vantage writes to a Region's CloudWatch does not arrive."""

    vantage: str
    region: str


@dataclass(frozen=True, slots=True)
class Late(Event):
    """What a vantage writes to a Region's CloudWatch arrives 30 seconds late, all through the scene."""

    vantage: str
    region: str


@dataclass(frozen=True, slots=True)
class Off(Event):
    """A routing control is off."""

    region: str


@dataclass(frozen=True, slots=True)
class Unread(Event):
    """The routing controls cannot be read."""


@dataclass(frozen=True, slots=True)
class Astray(Event):
    """The name answers with a Region whose control is off, for everybody or only for the vantage ``by``."""

    by: str = ""


@dataclass(frozen=True, slots=True)
class Gone(Event):
    """A Region is lost: its load balancer, its vantage, its CloudWatch and the alarms in it."""

    region: str


@dataclass(frozen=True, slots=True)
class Writers(Event):
    """How many clusters of a database take writes, where that is not one."""

    database: str
    count: int


@dataclass(frozen=True, slots=True)
class Refused(Event):
    """No synthetic order is acknowledged."""


@dataclass(frozen=True, slots=True)
class Lost(Event):
    """The ledger of a vantage misses orders that were acknowledged."""

    vantage: str


E = TypeVar("E", bound=Event)
Key = tuple[str, str, str, tuple[tuple[str, str], ...]]
"""Region that stores it, vantage that emits it, metric, dimensions."""


@dataclass(frozen=True)
class Scene:
    """``acts`` is the complete list: ``"7m us-west-2 impaired-us-east-1 ALARM"``, alarms without the workload's name before them, ``*`` for
    every watched Region. ``text`` is the topology it happens to."""

    name: str
    happens: tuple[Event, ...]
    acts: tuple[str, ...] = ()
    lasts: str = "20m"
    text: str = EXAMPLE

    @property
    def topology(self) -> Topology:
        """The workload it happens to."""
        return loaded(self.text)

    def test(self) -> dict[str, Any]:
        """The scene as an entry of ``tests:`` in an alarm test file."""
        return {
            "name": self.name,
            "region": self.topology.watched_regions[0],
            "interval": f"{SLOT_S}s",
            "previous_state": {item["AlarmName"]: "OK" for item in definitions(self.topology)},
            "input_series": [*self._probes(), *self._ledgers()],
            "blackout": [{"region": e.region, "from": e.begin, "to": e.end} for e in self.happens if isinstance(e, Gone)],
            "expect_actions": [found for line in self.acts for found in self._expected(line)],
        }

    # ------------------------------------------------------------------ what the probe writes

    def _probes(self) -> Iterator[dict[str, Any]]:
        """The series of all vantages as they arrive in all Regions."""
        topology = self.topology
        slots = int(parse_duration(self.lasts)) // SLOT_S
        values: dict[Key, dict[int, float]] = defaultdict(dict)
        for vantage, slot in itertools.product(topology.vantage_names, range(slots)):
            if slot % 6 >= ROUNDS_A_MINUTE or any(e.covers(slot * SLOT_S) for e in self._of(Mute) if e.vantage == vantage):
                continue
            for name, dimensions, ahead, value in self._round(vantage, slot):
                for region in topology.watched_regions:
                    if not any(e.covers(slot * SLOT_S) for e in self._of(Cut) if (e.vantage, e.region) == (vantage, region)):
                        values[region, vantage, name, dimensions][slot + ahead] = value
        for (region, vantage, name, dimensions), found in values.items():
            late = any((e.vantage, e.region) == (vantage, region) for e in self._of(Late))
            yield {
                "metric": {"namespace": "Crosswatch/Probe", "name": name, "dimensions": dict(dimensions)},
                "stored_in": region,
                "emitted_by": vantage,
                "delay": "30s" if late else "0s",
                "values": notation([found.get(slot) for slot in range(slots)]),
            }

    def _round(self, vantage: str, slot: int) -> Iterable[tuple[str, tuple[tuple[str, str], ...], int, float]]:
        """(metric, dimensions, slots ahead, value) of one round, by the code that the canary runs."""
        at_s = slot * SLOT_S
        cells = tuple((target.name, self._cell(vantage, target.name, at_s)) for target in _settings(self.text, vantage).targets)
        routing = None
        if self.topology.routing and not any(e.covers(at_s) for e in self._of(Unread)):
            off = {e.region for e in self._of(Off) if e.covers(at_s)}
            routing = tuple((region, region not in off) for region in self.topology.routing.controls)
        astray = any(e.covers(at_s) for e in self._of(Astray) if e.by in ("", vantage))
        last = slot % 6 == ROUNDS_A_MINUTE - 1
        counts = dict.fromkeys(self.topology.databases, 1) | {e.database: e.count for e in self._of(Writers) if e.covers(at_s)}
        writers = tuple(counts.items()) if slot % 6 == 0 else ()  # asked once a run
        return _datums(self.text, vantage, cells, routing, None if routing is None else not astray, last, writers)

    def _cell(self, vantage: str, target: str, at_s: float) -> Cell:
        for region in (e.region for e in self._of(Gone) if e.covers(at_s)):
            if target == f"alb-{region}":
                return Cell.DOWN
        if any(e.covers(at_s) for e in self._of(Down) if e.target == target and e.by in ("", vantage)):
            return Cell.DOWN
        number = int(at_s) // 60 * ROUNDS_A_MINUTE + int(at_s) % 60 // SLOT_S
        if any(number % e.rounds == 0 for e in self._of(Flaky) if e.target == target and e.covers(at_s)):
            return Cell.DOWN
        part = any(e.covers(at_s) for e in self._of(Part) if e.target == target and e.by in ("", vantage))
        return Cell.DEGRADED if part else Cell.UP

    def _ledgers(self) -> Iterator[dict[str, Any]]:
        """One run of each vantage's ledger in each of its periods."""
        period = ledger_period_s(self.topology)
        if not period:
            return
        length = int(parse_duration(self.lasts))
        workload = {"Workload": self.topology.workload}
        for vantage, region in itertools.product(self.topology.vantage_names, self.topology.watched_regions):
            runs = {at // SLOT_S: at for at in range(0, length, period)}
            runs = {slot: at for slot, at in runs.items() if not any(e.covers(at) for e in self._of(Mute) if e.vantage == vantage)}
            placed = {slot: 0.0 if any(e.covers(at) for e in self._of(Refused)) else 2.0 for slot, at in runs.items()}
            lost = {slot: float(any(e.covers(at) for e in self._of(Lost) if e.vantage == vantage)) for slot, at in runs.items()}
            for name, dimensions, found in (
                ("OrdersPlaced", workload, placed),
                ("OrdersMissing", {**workload, "Vantage": vantage}, lost),
            ):
                yield {
                    "metric": {"namespace": "Crosswatch/Ledger", "name": name, "dimensions": dimensions},
                    "stored_in": region,
                    "emitted_by": vantage,
                    "values": notation([found.get(slot) for slot in range(length // SLOT_S)]),
                }

    def _expected(self, line: str) -> Iterator[dict[str, str]]:
        at, region, alarm, state = line.split()
        for where in self.topology.watched_regions if region == "*" else [region]:
            yield {"at": at, "region": where, "alarm": Names(self.topology)(alarm), "state": state}

    def _of(self, kind: type[E]) -> Iterator[E]:
        return (event for event in self.happens if isinstance(event, kind))


@cache
def loaded(text: str) -> Topology:
    """A topology, read once."""
    return loads(text)


@cache
def _settings(text: str, vantage: str) -> ProbeSettings:
    """What the canary of a vantage is configured with."""
    problems: list[str] = []
    decoded = settings.decode(ProbeSettings, probe_config(loaded(text), vantage), "", problems)
    assert not problems, problems
    assert isinstance(decoded, ProbeSettings)
    return decoded


@cache
def _datums(
    text: str,
    vantage: str,
    cells: tuple[tuple[str, Cell], ...],
    routing: tuple[tuple[str, bool], ...] | None,
    agrees: bool | None,
    last: bool,
    writers: tuple[tuple[str, int], ...],
) -> list[tuple[str, tuple[tuple[str, str], ...], int, float]]:
    """`metrics.data` of a round at the epoch, taken apart."""
    configured = _settings(text, vantage)
    looks = tuple(
        Look(target, page.name, answer, answer)
        for target, cell in cells
        for i, page in enumerate(configured.pages)
        for answer in [GOOD if cell is Cell.UP or (cell is Cell.DEGRADED and i < len(configured.pages) - 1) else BAD]
    )
    seen = Round(
        slot=0.0, looks=looks, cells=dict(cells), routing=dict(routing or ()), agrees=agrees, served_by={}, pooled=None, seconds=0.5
    )
    return [
        (
            datum["MetricName"],
            tuple((pair["Name"], pair["Value"]) for pair in datum["Dimensions"]),
            int(datum["Timestamp"].timestamp()) // SLOT_S,
            datum["Value"],
        )
        for datum in metrics.data(configured, seen, last, dict(writers))
    ]


def notation(values: Iterable[float | None]) -> str:
    """Values in the notation of alarm test files: runs are joined."""
    words = []
    for value, run in itertools.groupby(values):
        length = sum(1 for _ in run)
        if value is None:
            words.append(f"_x{length}" if length > 1 else "_")
        else:
            words.append(f"{value:g}x{length - 1}" if length > 1 else f"{value:g}")
    return " ".join(words)
