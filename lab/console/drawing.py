"""A dashboard as a picture, drawn from the body that CloudWatch holds and the data that CloudWatch answers."""

from __future__ import annotations

import json
import threading
import time
from typing import TYPE_CHECKING

from dashboards.drawing import DARK, LIGHT, svg
from dashboards.series import fetch

if TYPE_CHECKING:
    from lab.console.watch import Watch

KEEP_S = 8.0
SPAN_S = 1800.0


class NotDrawn(Exception):
    """There is nothing to draw, or it cannot be drawn now; says why."""


class Drawer:
    """Draws one picture at a time and keeps it for a moment: several pages do not have the same thing drawn twice."""

    def __init__(self, watch: Watch) -> None:
        self._watch = watch
        self._lock = threading.Lock()
        self._kept: dict[tuple[str, str, bool], tuple[float, str]] = {}

    def draw(self, region: str | None, name: str | None, dark: bool) -> str:
        """The dashboard ``name`` (default: the first) as ``region`` (default: the first) gives it, as SVG. Raises `NotDrawn`."""
        from botocore.exceptions import BotoCoreError, ClientError

        where = region if region in self._watch.plan.regions else next(iter(self._watch.plan.regions))
        with self._lock:
            drawn, picture = self._kept.get((where, name or "", dark), (0.0, ""))
            if time.monotonic() - drawn > KEEP_S:
                try:
                    picture = self._draw(where, name, dark)
                except (BotoCoreError, ClientError) as error:
                    raise NotDrawn(f"CloudWatch of {where} does not give its dashboard: {error}") from error
                self._kept[where, name or "", dark] = (time.monotonic(), picture)
        return picture

    def _draw(self, region: str, name: str | None, dark: bool) -> str:
        client = self._watch.sight.client("cloudwatch", region)
        names = [entry["DashboardName"] for entry in client.list_dashboards()["DashboardEntries"]]
        if not names:
            raise NotDrawn("No dashboard has been deployed yet.")
        near = [each for each in names if each.endswith(region)] or names
        chosen = str(name if name in names else near[0])
        body = json.loads(client.get_dashboard(DashboardName=chosen)["DashboardBody"])
        now = self._watch.plan.clock.now()
        data = fetch(body, lambda each: self._watch.sight.client("cloudwatch", each), now - SPAN_S, now)
        return svg(body, data, DARK if dark else LIGHT, chosen)
