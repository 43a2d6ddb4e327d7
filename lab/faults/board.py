"""Which faults are in force: injects and heals them one after the other, and remembers what healing needs."""

from __future__ import annotations

import threading
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from lab.admin import Refusal
from lab.control import Refused, Unusable
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
        """Break it. Without ``region`` a Region's fault strikes the first Region. What could only be begun is undone as far as possible."""
        fault = self._find(name)
        where = self._region_of(fault, region)
        with self._lock:
            self._check_free(fault, where)
            since = self._ground.plan.clock.now()
            self._ground.begun = None
            try:
                active = Active(fault, where, since, self._attempt(fault, "injected", lambda: fault.inject(self._ground, where)))
            except Refused as refusal:
                self._undo(Active(fault, where, since, self._ground.begun), refusal)
                raise
            self._active.append(active)
        self._on_change("injected", active)
        return active

    def heal(self, name: str | None = None, region: str | None = None) -> list[Active]:
        """Mend what is in force: all of it, all of one name, or one Region's. The last broken is the first mended.

        What cannot be mended does not keep the others broken; it is tried once more after them, since one of them may have been in its
        way, and then refused with the reason.
        """
        if name is not None:
            self._find(name)
        if region is not None:
            self._check_region(region)
        with self._lock:
            chosen = [each for each in reversed(self._active) if name in {None, each.fault.name} and region in {None, each.region}]
            if not chosen and (name or region):
                raise Refused(f"{name or 'no fault'} is not in force" + (f" in {region}" if region else ""))
            failed = self._mend_all(chosen)
            if failed and len(failed) < len(chosen):
                failed = self._mend_all([active for active, _ in failed])
            if failed:
                raise Refused("\n".join(str(refusal) for _, refusal in failed))
        return chosen

    def _mend_all(self, chosen: list[Active]) -> list[tuple[Active, Refused]]:
        """Mend each; returns those that could not be, with why."""
        failed = []
        for active in chosen:
            try:
                self._mend(active)
            except Refused as refusal:
                failed.append((active, refusal))
                continue
            self._active.remove(active)
            self._past.append(replace(active, until=self._ground.plan.clock.now()))
            self._on_change("healed", active)
        return failed

    def _mend(self, active: Active) -> None:
        self._attempt(active.fault, "healed", lambda: active.fault.heal(self._ground, active.region, active.memory))

    def _undo(self, active: Active, refusal: Refused) -> None:
        """Take back what an injection that failed had begun. Where that fails too and there was something to take back, the fault counts
        as in force, so that it can be healed later."""
        try:
            active.fault.heal(self._ground, active.region, active.memory)
        except Exception as error:  # most faults had begun nothing, and their healing cannot know what to undo
            if active.memory is not None:
                self._active.append(active)
                raise Refused(f"{refusal}; what it had begun could not be undone ({error}): it counts as in force") from error

    def _check_free(self, fault: Fault, where: str) -> None:
        """Raise `Refused` where the fault is in force already, or another one that it cannot be in force together with."""
        for each in self._active:
            its = f" in {each.region}" if each.region else ""
            if each.fault is fault and each.region == where:
                raise Refused(f"{fault.name} is in force already{its}")
            if what := fault.clash(where, each.fault, each.region, self._ground.plan.regions):
                raise Refused(f"{each.fault.name} is in force{its} and has to do with the same: {what}. Heal {each.fault.name} first.")

    def _find(self, name: str) -> Fault:
        try:
            return self._catalogue.get(name)
        except KeyError as error:
            raise Unusable(error.args[0]) from error

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
        if fault.where is Where.LAB:
            if region is not None:
                raise Unusable(f"{fault.name} has no Region: leave out --region")
            return ""
        if region is not None:
            self._check_region(region)
        return region or next(iter(self._ground.plan.regions))

    def _check_region(self, region: str) -> None:
        regions = tuple(self._ground.plan.regions)
        if region not in regions:
            raise Unusable(f"{region} is not a Region of this lab: {', '.join(regions)}")
