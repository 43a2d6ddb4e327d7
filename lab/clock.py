"""Lab time: a clock that may run faster than the wall's.

``lab = origin + (wall - wall0) * speed``, all in epoch seconds. At speed 1 lab time *is* wall time. At any other speed the lab's clock
starts at least an hour ahead, on a full minute, so that a timestamp can always be told apart: what lies nearer to the wall clock than to
lab time came from a process that knows nothing of the lab, and `to_lab` converts it.

Child processes find the clock in the variable ``CROSSWATCH_LAB_CLOCK`` (``wall0,origin,speed``).
"""

from __future__ import annotations

import math
import os
import time
from dataclasses import dataclass

CLOCK_VARIABLE = "CROSSWATCH_LAB_CLOCK"
LEAD_S = 3600.0


@dataclass(frozen=True, slots=True)
class LabClock:
    """A linear clock; every duration it takes or gives is in seconds."""

    wall0: float
    origin: float
    speed: float

    @classmethod
    def start(cls, speed: float = 1.0, wall: float | None = None) -> LabClock:
        """A clock that starts now. ``speed`` is lab seconds per wall second, more than 0."""
        if not speed > 0 or math.isinf(speed):
            raise ValueError(f"speed must be a positive number, not {speed}")
        wall0 = time.time() if wall is None else wall
        if speed == 1:
            return cls(wall0, wall0, 1.0)
        return cls(wall0, math.ceil((wall0 + LEAD_S) / 60) * 60.0, float(speed))

    @classmethod
    def from_environment(cls) -> LabClock:
        """The clock of the lab that started this process; the wall clock where there is none."""
        value = os.environ.get(CLOCK_VARIABLE)
        if not value:
            return cls.start(1.0)
        wall0, origin, speed = (float(part) for part in value.split(","))
        return cls(wall0, origin, speed)

    def to_environment(self) -> str:
        """The value of ``CROSSWATCH_LAB_CLOCK`` for a child process."""
        return f"{self.wall0!r},{self.origin!r},{self.speed!r}"

    def now(self) -> float:
        """Lab time now."""
        return self.at(time.time())

    def at(self, wall: float) -> float:
        """Lab time at the wall time ``wall``."""
        return self.origin + (wall - self.wall0) * self.speed

    def wall_at(self, lab: float) -> float:
        """Wall time at the lab time ``lab``."""
        return self.wall0 + (lab - self.origin) / self.speed

    def wall_seconds(self, lab_seconds: float) -> float:
        """How long ``lab_seconds`` take on the wall."""
        return lab_seconds / self.speed

    def to_lab(self, timestamp: float) -> float:
        """``timestamp`` as lab time, whichever of the two clocks it was read from (see the module's text)."""
        wall = time.time()
        if self.speed == 1 or abs(timestamp - self.at(wall)) <= abs(timestamp - wall):
            return timestamp
        return self.at(timestamp)

    def sleep(self, lab_seconds: float) -> None:
        """Sleep ``lab_seconds`` of lab time."""
        time.sleep(max(0.0, self.wall_seconds(lab_seconds)))
