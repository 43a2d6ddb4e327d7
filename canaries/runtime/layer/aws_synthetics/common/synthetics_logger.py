"""``synthetics_logger``: lines with a level in front, on the console and in a file under /tmp that becomes an artifact."""

from __future__ import annotations

import logging
import sys
import tempfile
import time
import traceback
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

_state: dict[str, Any] = {"level": logging.INFO, "file": None}


def reset() -> None:
    """A new log file for a new run, level INFO."""
    stamp = datetime.fromtimestamp(time.time(), UTC)
    _state["level"] = logging.INFO
    _state["file"] = Path(tempfile.gettempdir()) / f"{stamp:%Y-%m-%dT%H-%M-%S}-{stamp.microsecond // 1000:03d}Z-log.txt"


def get_level() -> int:
    """The level below which nothing is written, as in `logging`."""
    return int(_state["level"])


def set_level(level: int | str) -> None:
    """Set the level, a number or name of `logging`. Raises ValueError for an unknown name."""
    number = logging.getLevelName(level.upper()) if isinstance(level, str) else level
    if not isinstance(number, int):
        raise ValueError(f"Unknown level: {level!r}")
    _state["level"] = number


def debug(message: object, *args: object, **kwargs: Any) -> None:
    _write(logging.DEBUG, message, args, kwargs)


def info(message: object, *args: object, **kwargs: Any) -> None:
    _write(logging.INFO, message, args, kwargs)


def log(message: object, *args: object, **kwargs: Any) -> None:
    """The same as `info`."""
    _write(logging.INFO, message, args, kwargs)


def error(message: object, *args: object, **kwargs: Any) -> None:
    _write(logging.ERROR, message, args, kwargs)


def warning(message: object, *args: object, **kwargs: Any) -> None:
    _write(logging.WARNING, message, args, kwargs)


warn = warning  # the name on the 2023 page


def exception(message: object, *args: object, **kwargs: Any) -> None:
    """As `error`, with the traceback of the exception being handled."""
    _write(logging.ERROR, message, args, {"exc_info": True, **kwargs})


def _write(level: int, message: object, args: tuple[object, ...], kwargs: dict[str, Any]) -> None:
    if level < _state["level"]:
        return
    text = str(message) % args if args else str(message)
    if kwargs.get("exc_info"):
        text = f"{text}\n{traceback.format_exc().rstrip()}"
    line = f"{logging.getLevelName(level)}: {text}\n"
    sys.stdout.write(line)
    sys.stdout.flush()
    if _state["file"] is not None:
        with _state["file"].open("a", encoding="utf-8", errors="replace") as file:
            file.write(line)
