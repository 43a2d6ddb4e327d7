"""CloudWatch's statistics over the samples of a period.

A sample is a value with a count, or a statistic set (minimum, maximum, sum, count): both fit `Samples`. Percentiles and the trimmed
statistics need the distribution, which a statistic set does not carry unless its minimum equals its maximum; AWS then has no such
statistic, and neither have we (`statistic` answers None).

Percentiles are taken by nearest rank: the smallest value below or at which the asked share of all samples lies, so a percentile is always
a value that was sent. Page: *CloudWatch statistics definitions*.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Samples:
    """Samples in any order: when (epoch seconds), and for each the least and the greatest value, their sum and how many there were."""

    times: Floats
    low: Floats
    high: Floats
    total: Floats
    counts: Floats

    @classmethod
    def of(cls, values: Iterable[float], counts: Iterable[float] | None = None, times: Iterable[float] | None = None) -> Samples:
        """Samples from plain values; each counts once unless ``counts`` says otherwise, at time 0 unless ``times`` does."""
        low = np.asarray(list(values) if not isinstance(values, np.ndarray) else values, dtype=np.float64)
        when = np.zeros_like(low) if times is None else np.asarray(times, dtype=np.float64)
        if counts is None:
            return cls(when, low, low, low, np.broadcast_to(np.float64(1), low.shape))
        number = np.asarray(counts, dtype=np.float64)
        return cls(when, low, low, low * number, number)

    @classmethod
    def of_sets(cls, times: Iterable[float], sets: Iterable[tuple[float, float, float, float]]) -> Samples:
        """Samples from statistic sets ``(minimum, maximum, sum, count)``."""
        rows = np.asarray(list(sets), dtype=np.float64).reshape(-1, 4)
        return cls(np.asarray(list(times), dtype=np.float64), rows[:, 0], rows[:, 1], rows[:, 2], rows[:, 3])

    @classmethod
    def concatenate(cls, parts: Sequence[Samples]) -> Samples:
        """All samples of ``parts`` together."""
        if not parts:
            return EMPTY
        if len(parts) == 1:
            return parts[0]
        columns = (np.concatenate([getattr(part, name) for part in parts]) for name in ("times", "low", "high", "total", "counts"))
        return cls(*columns)

    def __len__(self) -> int:
        return len(self.times)

    def select(self, mask: Any) -> Samples:
        """The samples ``mask`` (a boolean array, an index array or a slice) picks."""
        low = self.low[mask]
        high = low if self.high is self.low else self.high[mask]
        total = low if self.total is self.low else self.total[mask]
        return Samples(self.times[mask], low, high, total, self.counts[mask])

    def between(self, start: float, end: float) -> Samples:
        """The samples of the half-open interval ``[start, end)``."""
        return self.select((self.times >= start) & (self.times < end))

    def in_time_order(self) -> Samples:
        """The same samples, oldest first."""
        if len(self) < 2 or bool(np.all(self.times[1:] >= self.times[:-1])):
            return self
        return self.select(np.argsort(self.times, kind="stable"))


EMPTY = Samples.of(())

_Compute = Callable[[Samples], float | None]


@dataclass(frozen=True, slots=True)
class _Bounds:
    """The two ends of a trimmed statistic: percentages of the samples, or values."""

    low: float | None
    high: float | None
    percent: bool


def valid_statistic(name: object) -> bool:
    """Whether CloudWatch knows a statistic of this name."""
    return isinstance(name, str) and _compute(name) is not None


def statistic(name: str, samples: Samples) -> float | None:
    """The statistic ``name`` of ``samples``; None where there are none, or where a statistic set hides the distribution.

    Raises ValueError for a name CloudWatch does not know.
    """
    compute = _compute(name)
    if compute is None:
        raise ValueError(f"{name!r} is not a CloudWatch statistic")
    return compute(samples) if len(samples) else None


def percentile_of(name: str) -> float | None:
    """The percentile a ``pNN`` statistic asks for, as a share from 0 to 1; None for other statistics."""
    match = _SHORT.match(name)
    return float(match["number"]) / 100 if match and match["kind"].lower() == "p" else None


def least_samples(name: str) -> float:
    """Below how many samples a percentile counts as "low sample" (page *Percentile-based alarms and low data samples*); 0 for others."""
    share = percentile_of(name)
    if share is None or share in (0.0, 1.0):
        return 0.0
    return round(10 / (1 - share) if share >= 0.5 else 10 / share, 6)


def by_slot(name: str, samples: Samples, first: float, period: float, slots: int) -> tuple[Floats, Floats]:
    """The statistic in each of ``slots`` consecutive periods from ``first``, and the number of samples in each.

    Missing slots are NaN with a count of 0. Both arrays have ``slots`` entries, oldest first.
    """
    values = np.full(slots, np.nan)
    counts = np.zeros(slots)
    ordered = samples.in_time_order()
    edges = np.searchsorted(ordered.times, first + period * np.arange(slots + 1), side="left")
    used = np.flatnonzero(edges[1:] > edges[:-1])
    if not len(used):
        return values, counts
    # reduceat sums from one start to the next, so the samples are cut to the used slots' span first
    begin, end = edges[used[0]], edges[used[-1] + 1]
    starts = edges[used] - begin
    counts[used] = np.add.reduceat(ordered.counts[begin:end], starts)
    simple = _SIMPLE_BY_SLOT.get(name)
    if simple is not None:
        values[used] = simple(ordered.select(slice(begin, end)), starts)
        return values, counts
    compute = _compute(name)
    if compute is None:
        raise ValueError(f"{name!r} is not a CloudWatch statistic")
    for slot in used:
        value = compute(ordered.select(slice(edges[slot], edges[slot + 1])))
        if value is not None:
            values[slot] = value
    return values, counts


def _average(samples: Samples) -> float | None:
    count = float(samples.counts.sum())
    return float(samples.total.sum()) / count if count else None


_SIMPLE: dict[str, _Compute] = {
    "Average": _average,
    "Sum": lambda samples: float(samples.total.sum()),
    "Minimum": lambda samples: float(samples.low.min()),
    "Maximum": lambda samples: float(samples.high.max()),
    "SampleCount": lambda samples: float(samples.counts.sum()),
}


def _ratio(samples: Samples, starts: NDArray[np.intp]) -> Floats:
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.asarray(np.add.reduceat(samples.total, starts) / np.add.reduceat(samples.counts, starts))


_SIMPLE_BY_SLOT: dict[str, Callable[[Samples, NDArray[np.intp]], Floats]] = {
    "Average": _ratio,
    "Sum": lambda samples, starts: np.add.reduceat(samples.total, starts),
    "Minimum": lambda samples, starts: np.minimum.reduceat(samples.low, starts),
    "Maximum": lambda samples, starts: np.maximum.reduceat(samples.high, starts),
    "SampleCount": lambda samples, starts: np.add.reduceat(samples.counts, starts),
}

_SHORT = re.compile(r"(?P<kind>p|tm|wm|tc|ts)(?P<number>100(?:\.0{1,10})?|\d{1,2}(?:\.\d{1,10})?)\Z", re.IGNORECASE | re.ASCII)
_NUMBER = r"-?\d+(?:\.\d{1,10})?(?:[eE][+-]?\d{1,2})?"
_RANGE = re.compile(rf"(?P<kind>TM|WM|TC|TS|PR)\((?P<low>{_NUMBER}%?)?:(?P<high>{_NUMBER}%?)?\)\Z", re.IGNORECASE | re.ASCII)


@lru_cache(maxsize=1024)
def _compute(name: str) -> _Compute | None:
    """The function a statistic's name stands for, or None."""
    if name in _SIMPLE:
        return _SIMPLE[name]
    if name.lower() == "iqm":
        return _trimmed("tm", _Bounds(25, 75, True))
    if match := _SHORT.match(name):
        kind, number = match["kind"].lower(), float(match["number"])
        return _percentile(number) if kind == "p" else _trimmed(kind, _Bounds(0, number, True))
    if match := _RANGE.match(name):
        bounds = _bounds(match["low"], match["high"])
        kind = match["kind"].lower()
        if bounds is None or (kind == "pr" and bounds.percent):
            return None
        return _rank(bounds) if kind == "pr" else _trimmed(kind, bounds)
    return None


def _bounds(low: str | None, high: str | None) -> _Bounds | None:
    """The two ends as numbers; None where they are absent, mixed or the wrong way round."""
    given = [end for end in (low, high) if end is not None]
    percents = [end.endswith("%") for end in given]
    if not given or len(set(percents)) > 1:
        return None
    percent = percents[0]
    a, b = (None if end is None else float(end.rstrip("%")) for end in (low, high))
    if percent and any(end is not None and not 0 <= end <= 100 for end in (a, b)):
        return None
    if a is not None and b is not None and a >= b:
        return None
    return _Bounds(a, b, percent)


def _distribution(samples: Samples) -> tuple[Floats, Floats] | None:
    """Values in order with their counts; None where a statistic set hides it."""
    if bool(np.any(samples.low != samples.high)):
        return None
    order = np.argsort(samples.low, kind="stable")
    return samples.low[order], samples.counts[order]


def _percentile(percent: float) -> _Compute:
    def compute(samples: Samples) -> float | None:
        found = _distribution(samples)
        if found is None:
            return None
        values, counts = found
        reached = np.cumsum(counts)
        # a tolerance, so that 95 % of 200 samples is the 190th in spite of binary fractions
        rank = percent / 100 * reached[-1] - 1e-9
        return float(values[min(int(np.searchsorted(reached, rank, side="left")), len(values) - 1)])

    return compute


def _kept(values: Floats, counts: Floats, bounds: _Bounds) -> Floats:
    """How many samples of each value lie within the bounds (a percentage may cut through equal values).

    Values: above the lower bound, up to and including the upper. Percentages: of the samples in order.
    """
    if not bounds.percent:
        keep = np.ones(len(values), dtype=bool)
        if bounds.low is not None:
            keep &= values > bounds.low
        if bounds.high is not None:
            keep &= values <= bounds.high
        return np.where(keep, counts, 0.0)
    until = np.cumsum(counts)
    whole = until[-1]
    low = (bounds.low or 0.0) / 100 * whole
    high = (100.0 if bounds.high is None else bounds.high) / 100 * whole
    kept: Floats = np.minimum(until, high) - np.maximum(until - counts, low)
    return np.maximum(kept, 0.0)


def _trimmed(kind: str, bounds: _Bounds) -> _Compute:
    """tm, tc, ts and wm: mean, count and sum of what lies within, and the mean with what lies outside pulled to the bounds."""

    def compute(samples: Samples) -> float | None:
        found = _distribution(samples)
        if found is None:
            return None
        values, counts = found
        kept = _kept(values, counts, bounds)
        count = float(kept.sum())
        if kind == "tc":
            return count
        if kind == "ts":
            return float((values * kept).sum()) if count else 0.0
        if count <= 0:
            return None
        if kind == "tm":
            return float((values * kept).sum()) / count
        inside = values[kept > 0]
        pulled = np.clip(values, inside[0], inside[-1])
        if not bounds.percent:
            pulled = np.clip(values, bounds.low, bounds.high)
        return float((pulled * counts).sum() / counts.sum())

    return compute


def _rank(bounds: _Bounds) -> _Compute:
    def compute(samples: Samples) -> float | None:
        found = _distribution(samples)
        if found is None:
            return None
        values, counts = found
        whole = float(counts.sum())
        return 100 * float(_kept(values, counts, replace(bounds, percent=False)).sum()) / whole if whole else None

    return compute
