"""The journey's configuration, as ``config.json`` holds it. `canaries.config.journey_config` renders it from the topology."""

from __future__ import annotations

from dataclasses import dataclass

from canaries.shared.target import Common


@dataclass(frozen=True, slots=True, kw_only=True)
class JourneySettings(Common):
    """All of it. ``step_s`` is how long what a step waits for may take to appear; ``width`` and ``height`` are the page's, CSS pixels."""

    step_s: float = 10.0
    width: int = 1280
    height: int = 900
    email: str = "journey@crosswatch.invalid"
    clean_up: bool = True
