"""Lab time for a script that knows nothing of it: `time.time` and `time.sleep` run on the lab's clock.

Everything else stays on the wall's: `time.perf_counter` and `time.monotonic` (latencies are measured, not scaled), `datetime` (AWS
signatures are checked by the wall), socket timeouts, asyncio and threading waits.
"""

from __future__ import annotations

import time
from typing import Final, SupportsIndex

_WALL_TIME: Final = time.time
_WALL_SLEEP: Final = time.sleep


def install(lab_clock: str | None, skew_s: float) -> None:
    """Replace this process's clock. ``lab_clock`` is ``wall0,origin,speed`` or None; ``skew_s`` is added (a fault: a clock that is off)."""
    wall0, origin, speed = (float(part) for part in lab_clock.split(",")) if lab_clock else (0.0, 0.0, 1.0)
    if speed == 1.0 and origin == wall0 and not skew_s:
        return

    def lab_time() -> float:
        return origin + (_WALL_TIME() - wall0) * speed + skew_s

    def lab_time_ns() -> int:
        return int(lab_time() * 1e9)

    def lab_sleep(seconds: SupportsIndex | float, /) -> None:
        _WALL_SLEEP(float(seconds) / speed)

    time.time = lab_time
    time.time_ns = lab_time_ns
    time.sleep = lab_sleep
