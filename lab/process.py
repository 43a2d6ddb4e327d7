"""How the lab describes a process before it runs: a value, so that who starts it, stops it and breaks it read the same thing."""

from __future__ import annotations

import signal
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path


@dataclass(frozen=True, slots=True)
class ProcessSpec:
    """One process of the lab.

    ``name`` is unique in the lab and reads ``<region>/<part>`` (``us-east-1/orders``) or just ``<part>`` for a part that has no Region.
    ``prepare`` runs once, before the first start (initdb, basebackup). ``ready`` is polled until it returns True; it must not block for
    more than about a second and may raise OSError, which means "not yet". ``after`` names processes that must be ready before this one
    is started. ``region`` decides what a Region-wide fault takes along. ``user`` is the uid to run as when the lab runs as root.
    """

    name: str
    argv: tuple[str, ...]
    region: str | None = None
    environment: Mapping[str, str] = field(default_factory=dict)
    directory: Path | None = None
    user: int | None = None
    prepare: Callable[[], None] | None = None
    ready: Callable[[], bool] | None = None
    ready_within_s: float = 30.0
    after: tuple[str, ...] = ()
    stop_signal: signal.Signals = signal.SIGTERM
    stop_within_s: float = 5.0
    restart: bool = False
