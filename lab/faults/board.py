"""Which faults are in force: injects and heals them one after the other, and remembers what healing needs."""

from __future__ import annotations

import threading
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from lab.admin import Refusal
from lab.control import Refused
from lab.faults.fault import Fault, Where
from lab.faults.ground import NotHealed
from lab.supervisor import LabEnded, StartError

if TYPE_CHECKING:
    from collections.abc import Callable

    from lab.faults.fault import Catalogue
    from lab.faults.ground import Ground


@dataclass(frozen=True, slots=True)
class Active:
    """A fault in force, or one that was until ``until``. Times are lab time, epoch seconds; ``memory`` is what its heal function needs."""

    fault: Fault
    region: str
    since: float
    memory: Any
    until: float | None = None

    def as_json(self) -> dict[str, Any]:
        """For ``--json`` and the console."""
        return {
            "name": self.fault.name,
            "region": self.region or None,
            "since": self.since,
            "until": self.until,
            "sentence": self.fault.sentence,
        }


class Board:
    """The faults of one running lab. Raises `Refused` with the reason for what makes no sense."""

    def __init__(self, ground: Ground, catalogue: Catalogue, on_change: Callable[[str, Active], None] | None = None) -> None:
        self._ground = ground
        self._catalogue = catalogue
        self._on_change = on_change or (lambda _what, _active: None)
        self._lock = threading.RLock()
        self._active: list[Active] = []
        self._past: list[Active] = []

    def active(self) -> list[Active]:
        """The faults in force, the oldest first."""
        return list(self._active)

    def past(self) -> list[Active]:
        """The faults that were healed, the oldest first."""
        return list(self._past)

    def inject(self, name: str, region: str | None = None) -> Active:
        """Break it. Without ``region`` a Region's fault strikes the first Region."""
        try:
            fault = self._catalogue.get(name)
        except KeyError as error:
            raise Refused(error.args[0]) from error
        where = self._region_of(fault, region)
        with self._lock:
            if any(each.fault is fault and each.region == where for each in self._active):
                raise Refused(f"{name} is in force already" + (f" in {where}" if where else ""))
            since = self._ground.plan.clock.now()
            active = Active(fault, where, since, self._attempt(fault, "injected", lambda: fault.inject(self._ground, where)))
            self._active.append(active)
        self._on_change("injected", active)
        return active

    def heal(self, name: str | None = None, region: str | None = None) -> list[Active]:
        """Mend what is in force: all of it, all of one name, or one Region's. The last broken is the first mended."""
        if name is not None:
            try:
                self._catalogue.get(name)
            except KeyError as error:
                raise Refused(error.args[0]) from error
        with self._lock:
            chosen = [each for each in reversed(self._active) if name in {None, each.fault.name} and region in {None, each.region}]
            if not chosen and (name or region):
                raise Refused(f"{name or 'no fault'} is not in force" + (f" in {region}" if region else ""))
            for active in chosen:
                self._mend(active)
                self._active.remove(active)
                self._past.append(replace(active, until=self._ground.plan.clock.now()))
                self._on_change("healed", active)
        return chosen

    def _mend(self, active: Active) -> None:
        self._attempt(active.fault, "healed", lambda: active.fault.heal(self._ground, active.region, active.memory))

    @staticmethod
    def _attempt(fault: Fault, what: str, work: Callable[[], Any]) -> Any:
        """Do it; what goes wrong on the way is the operator's to read, not a crash of the lab."""
        from botocore.exceptions import BotoCoreError, ClientError
        from psycopg import Error as DatabaseError
        from redis import RedisError

        expected = (NotHealed, StartError, LabEnded, Refusal, OSError, BotoCoreError, ClientError, DatabaseError, RedisError)
        try:
            return work()
        except expected as error:
            raise Refused(f"{fault.name} could not be {what}: {type(error).__name__}: {error}") from error

    def _region_of(self, fault: Fault, region: str | None) -> str:
        regions = tuple(self._ground.plan.regions)
        if fault.where is Where.LAB:
            if region is not None:
                raise Refused(f"{fault.name} has no Region: leave out --region")
            return ""
        if region is not None and region not in regions:
            raise Refused(f"{region} is not a Region of this lab: {', '.join(regions)}")
        return region or regions[0]
