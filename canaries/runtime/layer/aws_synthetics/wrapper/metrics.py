"""The datapoints of one attempt of a run, in the shape of PutMetricData.

Names, units and dimensions: CloudWatch_Synthetics_Canaries_metrics. What that page leaves open is an option of the run (`RunRequest`):
whether a canary without retries has SuccessPercentWithRetries, and which canaries have EphemeralStorageUsagePercent (its dimensions and
statistic are not given either; it is published by CanaryName).
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

from aws_synthetics.common import synthetics_configuration

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from aws_synthetics.selenium.synthetics_webdriver import StepRecord

REQUESTS: Final = {"2xx": "2xx_metric", "4xx": "4xx_metric", "5xx": "5xx_metric", "Failed requests": "failed_requests_metric"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Attempt:
    """What is known of one attempt.

    number                0 for the first attempt, and how many ``retries`` the canary's schedule allows
    storage_percent       the most of /tmp that was in use; None: not published
    success_with_retries  ``configured``: SuccessPercentWithRetries only where retries are; ``always``
    """

    canary: str
    passed: bool
    seconds: float
    requests: Mapping[str, int]
    steps: Sequence[StepRecord]
    number: int = 0
    retries: int = 0
    dry_run: bool = False
    storage_percent: float | None = None
    success_with_retries: str = "configured"


def data(attempt: Attempt, now: float) -> list[dict[str, Any]]:
    """The attempt's datapoints. A dry run has only its two."""
    put = _Datums(datetime.fromtimestamp(now, UTC))
    success, duration = 100.0 if attempt.passed else 0.0, attempt.seconds * 1000
    own = [{"Name": "CanaryName", "Value": attempt.canary}]
    if attempt.dry_run:
        put("SuccessPercentDryRun", success, "Percent", own)
        put("DurationDryRun", duration, "Milliseconds", own)
        return put.datums
    for dimensions in (own, []):
        put("SuccessPercent", success, "Percent", dimensions)
        put("Duration", duration, "Milliseconds", dimensions)
    _flagged(put, attempt, own)
    if attempt.number > 0:
        put("RetryCount", 1.0, "Count", own)
    last = attempt.passed or attempt.number >= attempt.retries
    if last and (attempt.retries > 0 or attempt.success_with_retries == "always"):
        put("SuccessPercentWithRetries", success, "Percent", own)
    if attempt.storage_percent is not None:
        put("EphemeralStorageUsagePercent", attempt.storage_percent, "Percent", own)
    return put.datums


def _flagged(put: _Datums, attempt: Attempt, own: list[dict[str, str]]) -> None:
    """What a script may switch off in its configuration: failures, requests by status, steps."""
    flag = synthetics_configuration.get
    for prefix, dimensions in (("", own), ("aggregated_", [])):
        if not attempt.passed and flag(f"{prefix}failed_canary_metric"):
            put("Failed", 1.0, "Count", dimensions)
        for name, option in REQUESTS.items():
            count = attempt.requests.get("failed" if name == "Failed requests" else name)
            if count is not None and flag(prefix + option):
                put(name, float(count), "Count", dimensions)
    for step in attempt.steps:
        of_step = [*own, {"Name": "StepName", "Value": step.name}]
        if flag("step_success_metric"):
            put("SuccessPercent", 0.0 if step.error else 100.0, "Percent", of_step)
        if flag("step_duration_metric"):
            put("Duration", (step.ended - step.started) * 1000, "Milliseconds", of_step)


class _Datums:
    """Datapoints of one moment."""

    def __init__(self, stamp: datetime) -> None:
        self.datums: list[dict[str, Any]] = []
        self._stamp = stamp

    def __call__(self, name: str, value: float, unit: str, dimensions: list[dict[str, str]]) -> None:
        self.datums.append({"MetricName": name, "Dimensions": dimensions, "Timestamp": self._stamp, "Value": value, "Unit": unit})
