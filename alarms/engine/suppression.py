"""When a composite alarm with an actions suppressor acts: wait and extension periods, as a pure state machine.

After the composite changes state it waits ``wait_s`` for the suppressor to go into ALARM; while the suppressor is in ALARM nothing acts;
after it left ALARM nothing acts for ``extension_s``. When the last of these ends, the composite acts on the state it is in then. A
change of the composite's state during the extension starts a new wait instead. Page: *Create a composite alarm*.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

By = Literal["WaitPeriod", "ExtensionPeriod", "Alarm"]


@dataclass(frozen=True, slots=True)
class Suppression:
    """What is holding the actions back (None: nothing), until when (epoch seconds; None: open end), and whether there is anything to do."""

    by: By | None = None
    until: float | None = None
    pending: bool = False


IDLE = Suppression()


def composite_changed(now: float, held: Suppression, suppressor_alarm: bool, wait_s: float) -> tuple[Suppression, bool]:
    """The composite changed state at ``now``: what holds its actions now, and whether it acts at once."""
    if suppressor_alarm or held.by == "Alarm":
        return Suppression("Alarm", None, True), False
    if wait_s > 0:
        return Suppression("WaitPeriod", now + wait_s, True), False
    return IDLE, True


def suppressor_changed(now: float, held: Suppression, in_alarm: bool, extension_s: float) -> tuple[Suppression, bool]:
    """The suppressor entered or left ALARM at ``now``."""
    if in_alarm:
        return Suppression("Alarm", None, held.pending), False
    if held.by != "Alarm":
        return held, False
    if extension_s > 0:
        return Suppression("ExtensionPeriod", now + extension_s, held.pending), False
    return IDLE, held.pending


def time_passed(now: float, held: Suppression) -> tuple[Suppression, bool]:
    """Nothing changed but the clock: an ended period releases what it held."""
    if held.until is None or now < held.until:
        return held, False
    return IDLE, held.pending
