"""The dashboard of a Region as a picture, drawn from the body that CloudWatch holds and the data that CloudWatch answers."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from lab.console.watch import Watch

KEEP_S = 8.0


class NotDrawn(Exception):
    """There is nothing to draw, or it cannot be drawn now; says why."""


class Drawer:
    """Draws one picture at a time and keeps it for a moment: several pages do not draw the same thing twice."""

    def __init__(self, watch: Watch) -> None:
        self._watch = watch
        self._lock = threading.Lock()
        self._kept: dict[tuple[str, str, bool], tuple[float, bytes, str]] = {}

    def draw(self, region: str | None, name: str | None, dark: bool) -> tuple[bytes, str]:
        """The picture and its content type. Raises `NotDrawn`."""
        raise NotDrawn("The dashboards are not drawn yet.")
