"""promtool's notation of series: ``a+bxn``, ``a-bxn``, ``axn``, ``_`` and ``_xn``, separated by white space.

``a+bxn`` is a and then n more, each b further: ``0+1x3`` is 0 1 2 3. ``axn`` is a and then n more of it: ``5x2`` is 5 5 5. ``_`` is a
missing sample and ``_xn`` is n of them.
"""

from __future__ import annotations

import math
import re

MAX_SAMPLES = 1_000_000
_NUMBER = r"[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?"
_ITEM = re.compile(
    rf"(?P<missing>_)(?:x(?P<gaps>\d+))?|(?P<first>{_NUMBER})(?:(?P<step>[-+](?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?))?(?:x(?P<more>\d+))?",
    re.ASCII,
)


class NotationError(ValueError):
    """A series that cannot be read; the message quotes the item."""


def parse_series(text: str) -> list[float | None]:
    """The samples ``text`` stands for, None where missing. Raises NotationError."""
    if plain := _plain(text):
        return plain
    samples: list[float | None] = []
    for word in text.split():
        match = _ITEM.fullmatch(word)
        if match is None or (match["step"] and match["more"] is None):
            raise NotationError(f"'{word}' is not of the form a, a+bxn, a-bxn, axn, _ or _xn")
        repeat = match["gaps"] or match["more"] or "0"
        if len(repeat) > 7 or len(samples) + int(repeat) >= MAX_SAMPLES:
            raise NotationError(f"'{word}' makes the series longer than {MAX_SAMPLES} samples")
        if match["missing"]:
            samples.extend([None] * (int(repeat) if match["gaps"] else 1))
            continue
        first, step = float(match["first"]), float(match["step"] or 0)
        values = [first + step * i for i in range(int(repeat) + 1)]
        if not all(map(math.isfinite, values)):
            raise NotationError(f"'{word}' is not a finite number")
        samples.extend(values)
    return samples


def _plain(text: str) -> list[float | None]:
    """Long series of nothing but numbers, read at once; empty where the text is anything else."""
    if len(text) < 200 or not _ONLY_NUMBERS.fullmatch(text):
        return []
    try:
        values = [float(word) for word in text.split()]
    except ValueError:
        return []
    return [*values] if len(values) <= MAX_SAMPLES and all(map(math.isfinite, values)) else []


_ONLY_NUMBERS = re.compile(r"[-+0-9.eE\s]*", re.ASCII)
_DURATION = re.compile(r"(?:(\d{1,9})w)?(?:(\d{1,9})d)?(?:(\d{1,9})h)?(?:(\d{1,9})m)?(?:(\d{1,9})s)?(?:(\d{1,9})ms)?\Z", re.ASCII)


def parse_duration(value: object) -> float:
    """Seconds from ``1h30m``, ``8m``, ``10s``, or a plain number of seconds. Raises NotationError."""
    if isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value) and 0 <= value < 1e10:
        return float(value)
    match = _DURATION.match(value) if isinstance(value, str) and value else None
    if isinstance(value, str) and value == "0":
        return 0.0
    if match is None or not any(match.groups()):
        raise NotationError(f"{value!r} is not a duration such as 8m, 90s or 1h30m")
    weeks, days, hours, minutes, seconds, milliseconds = (int(part or 0) for part in match.groups())
    return (((weeks * 7 + days) * 24 + hours) * 60 + minutes) * 60 + seconds + milliseconds / 1000


def show_duration(seconds: float) -> str:
    """``1h30m`` from seconds."""
    sign, seconds = ("-", -seconds) if seconds < 0 else ("", seconds)
    text = ""
    for unit, length in (("d", 86_400), ("h", 3600), ("m", 60)):
        count, seconds = divmod(seconds, length)
        text += f"{int(count)}{unit}" if count else ""
    if seconds or not text:
        text += f"{seconds:g}s"
    return sign + text
