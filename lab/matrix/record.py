"""What one fault led to, as plain data: written as one JSON file a fault, read back for verdicts and for the tables in docs/lab."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

OK, SLOW, SILENT = "ok", "slow", "silent"


@dataclass(frozen=True, slots=True)
class Heard:
    """One incident at the on-call receiver. Times are lab seconds since the fault was injected; ``resolved`` is None while it is open.

    ``region`` is the Region whose alarm spoke, ``""`` where the message does not say.
    """

    diagnosis: str
    subject: str
    region: str
    severity: str
    urgent: bool
    summary: str
    opened: float
    resolved: float | None
    notifications: int


@dataclass(frozen=True, slots=True)
class Seen:
    """What one vantage's probe said in one round. ``classes``: target -> `OK`, `SLOW`, or the kind of failure most of its pages had;
    ``pages``: target -> the pages that failed. ``at`` is lab seconds since the fault was injected."""

    at: float
    vantage: str
    classes: dict[str, str]
    pages: dict[str, list[str]]
    dns_agrees: bool | None
    stale: bool


@dataclass(frozen=True, slots=True)
class Points:
    """One of AWS's own metrics in one Region's CloudWatch: ``points`` are (lab seconds since injection, value) by the minute."""

    namespace: str
    name: str
    dimensions: dict[str, str]
    region: str
    statistic: str
    points: list[tuple[float, float]]


@dataclass(slots=True)
class Record:
    """One fault from injection to all-green. ``struck`` is the Region it struck (the first one, where it strikes the lab as a
    whole), ``other`` another one. Times are lab time, epoch seconds; ``healed`` and ``green`` stay None where that failed.

    ``strays`` are series of AWS's that stand in a Region where the catalogue says there are none; ``troubles`` what went wrong with
    the pass itself. ``load``: the highest load average of the machine meanwhile, a core; ``tries``: how often the fault was tried.
    """

    fault: str
    struck: str
    other: str
    speed: float
    patience_s: float
    injected: float
    healed: float | None = None
    green: float | None = None
    heard: list[Heard] = field(default_factory=list)
    seen: list[Seen] = field(default_factory=list)
    points: list[Points] = field(default_factory=list)
    strays: list[str] = field(default_factory=list)
    load: float = 0.0
    tries: int = 1
    troubles: list[str] = field(default_factory=list)

    @property
    def lasted(self) -> float:
        """How long it was in force, lab seconds."""
        return (self.healed or self.injected) - self.injected

    def save(self, folder: Path) -> None:
        """Write it to ``folder``."""
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{self.fault}.json").write_text(json.dumps(asdict(self)))


def load(folder: Path) -> Iterator[Record]:
    """All records in ``folder``, by the name of the fault."""
    for file in sorted(folder.glob("*.json")):
        data: dict[str, Any] = json.loads(file.read_text())
        data["heard"] = [Heard(**each) for each in data["heard"]]
        data["seen"] = [Seen(**each) for each in data["seen"]]
        data["points"] = [Points(**{**each, "points": [(at, value) for at, value in each["points"]]}) for each in data["points"]]
        yield Record(**data)
