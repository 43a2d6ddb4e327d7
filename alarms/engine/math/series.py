"""A sparse time series and arithmetic on it, by CloudWatch's rules for missing values.

In arithmetic and comparisons between two series a value missing on one side counts as 0, a timestamp missing on both gives nothing, and a
division by zero (or anything else without a finite result) drops the point.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from alarms.engine.query import MetricKey

Times = NDArray[np.int64]
Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Series:
    """Points in time order: ``times`` are the starts of their periods in epoch seconds, ``values`` are finite."""

    times: Times
    values: Floats
    label: str = ""
    period: int = 60
    metric: MetricKey | None = None

    @classmethod
    def of(cls, times: Sequence[float] | Times, values: Sequence[float | None] | Floats, label: str = "", period: int = 60) -> Series:
        """A series from times and values; None and NaN are missing."""
        numbers = np.asarray([np.nan if value is None else value for value in values], dtype=np.float64)
        return cls(np.asarray(times, dtype=np.int64), numbers, label, period).finite()

    def finite(self) -> Series:
        """Without the points that have no finite value."""
        keep = np.isfinite(self.values)
        return self if bool(keep.all()) else replace(self, times=self.times[keep], values=self.values[keep])

    def with_values(self, values: Floats) -> Series:
        """A series computed from this one: the same times with other values, and no longer a metric."""
        return replace(self, values=values, metric=None).finite()

    def on(self, grid: Times) -> Floats:
        """The values at ``grid``'s times, NaN where there is none."""
        result = np.full(len(grid), np.nan)
        if len(self.times) and len(grid):
            at = np.clip(np.searchsorted(self.times, grid), 0, len(self.times) - 1)
            hit = self.times[at] == grid
            result[hit] = self.values[at[hit]]
        return result

    def __len__(self) -> int:
        return len(self.times)


Scalar = float
Value = float | str | Series | list[Series] | list[str]


def union(series: Sequence[Series]) -> Times:
    """All times at which at least one of the series has a point."""
    if not series:
        return np.empty(0, dtype=np.int64)
    if len(series) == 1:
        return series[0].times
    if len(series) == 2 and np.array_equal(series[0].times, series[1].times):
        return series[0].times
    return np.unique(np.concatenate([one.times for one in series]))


def zero_filled(series: Series, times: Times) -> Floats:
    """The values at ``times``, 0 where missing."""
    return series.values if series.times is times else np.nan_to_num(series.on(times))


def _truth(values: Floats) -> NDArray[np.bool_]:
    return np.not_equal(values, 0)


OPERATORS: dict[str, Callable[[Floats, Floats], Floats]] = {
    "+": np.add,
    "-": np.subtract,
    "*": np.multiply,
    "/": np.divide,
    "^": np.power,
    "==": lambda a, b: np.equal(a, b).astype(np.float64),
    "!=": lambda a, b: np.not_equal(a, b).astype(np.float64),
    "<": lambda a, b: np.less(a, b).astype(np.float64),
    "<=": lambda a, b: np.less_equal(a, b).astype(np.float64),
    ">": lambda a, b: np.greater(a, b).astype(np.float64),
    ">=": lambda a, b: np.greater_equal(a, b).astype(np.float64),
    "AND": lambda a, b: (_truth(a) & _truth(b)).astype(np.float64),
    "OR": lambda a, b: (_truth(a) | _truth(b)).astype(np.float64),
}
OPERATORS["&&"] = OPERATORS["AND"]
OPERATORS["||"] = OPERATORS["OR"]


def combine(op: str, left: float | Series, right: float | Series) -> float | Series:
    """``left op right`` for scalars and single series."""
    compute = OPERATORS[op]
    with np.errstate(all="ignore"):
        if isinstance(left, Series) and isinstance(right, Series):
            times = union((left, right))
            values = compute(zero_filled(left, times), zero_filled(right, times))
            return Series(times, values, left.label, left.period).finite()
        if isinstance(left, Series):
            return left.with_values(compute(left.values, np.float64(right)))  # type: ignore[arg-type]
        if isinstance(right, Series):
            return right.with_values(compute(np.float64(left), right.values))  # type: ignore[arg-type]
        return float(compute(np.float64(left), np.float64(right)))  # type: ignore[arg-type]
