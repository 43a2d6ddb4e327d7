"""Named options for everything AWS leaves open, documents twice, or was only observed to do.

Every option has a documented default. `alarms.engine.metric.evaluate` can be asked which options its verdict hangs on: the ones for which
another value listed in `ALTERNATIVES` would have given another state.

Pages: *Evaluating an alarm* and *Configuring how CloudWatch alarms treat missing data* (CloudWatch User Guide).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal


@dataclass(frozen=True, slots=True)
class Options:
    """How the engine evaluates. Durations are seconds."""

    range_extra_periods: int = 2
    """Evaluation range of a standard-resolution alarm: N plus this many periods (documented only as 5 for N = 3)."""

    range_extra_high_resolution_s: int = 60
    """Evaluation range of a 10/20/30-second alarm: N periods plus this long (observed: 9 slots for 3 of 3 at 10 s)."""

    hold_back_s: float = 0.0
    """How long after its end a slot of a standard-resolution alarm is first looked at."""

    hold_back_high_resolution_s: float = 10.0
    """The same for a 10/20/30-second alarm on one metric (observed: 10)."""

    hold_back_math_s: float = 0.0
    """The same for a 10/20/30-second alarm on an expression (observed: 0)."""

    fresh_breach: Literal["insufficient-data", "retain"] = "insufficient-data"
    """TreatMissingData=missing, only breaching points, all of them too young to decide: AWS says only "does not go into ALARM"."""

    ignore_with_good: Literal["ok", "retain"] = "ok"
    """TreatMissingData=ignore with some good point but too few points: AWS's table says OK, some implementations retain."""

    if_missing: Literal["docs-2026", "docs-2023"] = "docs-2026"
    """IF(c, m2, m3) where c is false and m3 has no point: the 2026 table gives 0, the 2023 table drops the point."""

    dynamodb_missing: Literal["explicit", "always-ignore"] = "explicit"
    """Alarms on AWS/DynamoDB: an explicit treatment is honoured (2026) or missing data is always ignored (2023)."""

    band_order: Literal["upper-lower", "lower-upper"] = "upper-lower"
    """Order of the two series ANOMALY_DETECTION_BAND returns, so what FIRST and LAST pick: upper first by the 2023 page (LAST = lower),
    lower first by the 2026 page (LAST = upper)."""


OBSERVED = Options()
"""Documented semantics with the hold-back that was observed on AWS: what the local CloudWatch uses."""

IMMEDIATE = replace(OBSERVED, hold_back_high_resolution_s=0.0)
"""A slot counts as soon as it has ended: what test files use, so that `at: 8m` sees the periods that ended by then."""

ALTERNATIVES: dict[str, tuple[object, ...]] = {
    "range_extra_periods": (1, 2, 3),
    "range_extra_high_resolution_s": (20, 60),
    "fresh_breach": ("insufficient-data", "retain"),
    "ignore_with_good": ("ok", "retain"),
    "dynamodb_missing": ("explicit", "always-ignore"),
}
"""For each option that can change a verdict on given points, the values that are defensible."""
