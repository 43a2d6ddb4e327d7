"""What a drill sees: its steps, and samples of the matrix, the routing, the name's answers and the alarms, from the first to the last."""

from __future__ import annotations

import threading
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

import dns.exception
import dns.message
import dns.query
import dns.rdatatype

from lab.plan import STORE_NAME

if TYPE_CHECKING:
    from lab.plan import LabPlan
    from lab.running import RunningLab
    from lab.sight import Sight

EVERY_WALL_S = 0.5
PATIENCE_S = 0.5


@dataclass(frozen=True, slots=True)
class Step:
    """One thing that had to be observed. ``at`` and ``took_s`` are lab time; ``observed`` says in words what was seen."""

    name: str
    ok: bool
    at: float
    took_s: float
    observed: str
    details: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Sample:
    """One look at ``at`` (lab time). ``answers``: where each Region's resolver sends its clients; None: nowhere."""

    at: float
    matrix: dict[str, dict[str, str]]
    routing: dict[str, str]
    answers: dict[str, list[str] | None]
    in_alarm: list[str]
    open_pages: int


@dataclass(slots=True)
class Record:
    """All of one drill."""

    region: str
    speed: float
    began: float
    steps: list[Step] = field(default_factory=list)
    samples: list[Sample] = field(default_factory=list)
    faults: list[dict[str, Any]] = field(default_factory=list)
    pages: list[dict[str, Any]] = field(default_factory=list)

    @property
    def ok(self) -> bool:
        """Whether everything that had to be observed was."""
        return bool(self.steps) and all(step.ok for step in self.steps)

    def as_json(self) -> dict[str, Any]:
        """The whole record, for observations.json."""
        return {"ok": self.ok, **asdict(self)}


class Recorder:
    """Looks twice a wall second, in a thread, until `stop`."""

    def __init__(self, lab: RunningLab, sight: Sight, record: Record) -> None:
        self._lab = lab
        self._sight = sight
        self._record = record
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="recorder", daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def stop(self) -> None:
        """End, and wait for the last look."""
        self._stopping.set()
        self._thread.join(15)

    def _run(self) -> None:
        while not self._stopping.is_set():
            view = self._sight.look()
            self._record.samples.append(
                Sample(
                    at=view.now,
                    matrix={vantage: {target: cell["state"] for target, cell in row.items()} for vantage, row in view.matrix.items()},
                    routing=view.routing,
                    answers={name: answer(self._lab.plan, name) for name in self._lab.plan.regions},
                    in_alarm=sorted(
                        {alarm["name"] for region in view.regions.values() for alarm in region["alarms"] if alarm["state"] == "ALARM"}
                    ),
                    open_pages=sum(page.state == "open" for page in self._lab.desk.pages()),
                )
            )
            self._stopping.wait(EVERY_WALL_S)


def answer(plan: LabPlan, region: str) -> list[str] | None:
    """To which Regions the resolver of ``region`` sends a client of the store's name; None where it does not answer."""
    return _ask(plan, plan.regions[region].resolver_port, None)


def authority(plan: LabPlan, region: str) -> list[str] | None:
    """To which Regions Route 53 itself sends a client in ``region``, whatever any resolver still holds."""
    return _ask(plan, plan.dns_port, plan.regions[region].ip)


def _ask(plan: LabPlan, port: int, source: str | None) -> list[str] | None:
    names = {region.ip: name for name, region in plan.regions.items()}
    question = dns.message.make_query(STORE_NAME, dns.rdatatype.A)
    try:
        reply = dns.query.udp(question, "127.0.0.1", PATIENCE_S, port, source)
    except (OSError, dns.exception.DNSException):
        return None
    addresses = [str(item) for rrset in reply.answer if rrset.rdtype == dns.rdatatype.A for item in rrset]
    return sorted(names.get(address, address) for address in addresses)
