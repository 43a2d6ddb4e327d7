"""How late CloudWatch sees what it is sent."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Ingestion:
    """How long a datapoint takes from PutMetricData's answer to where alarms and GetMetricData see it: uniform in ``low_s..high_s``.

    AWS publishes no figure; up to 1 s in one case and below 9.6 s in three were observed, so 2 to 10 s of lab time is a cautious default.
    """

    low_s: float = 2.0
    high_s: float = 10.0
    seed: int = 1
