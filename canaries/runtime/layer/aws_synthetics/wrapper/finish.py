"""What comes after the script: the verdict, the report, the artifacts, the metrics.

Documented: the key layout and the names SyntheticsReport-PASSED.json and -FAILED.json (CloudWatch_Synthetics_Canaries_View_Blueprints,
"artifacts"). The report's inner shape is not documented by AWS. The metrics are made in `aws_synthetics.wrapper.metrics`.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import tempfile
import time
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from aws_synthetics.common import CanaryStatus, synthetics_logger
from aws_synthetics.selenium import constants
from aws_synthetics.wrapper import metrics

if TYPE_CHECKING:
    from aws_synthetics.selenium.synthetics_webdriver import StepRecord

REASON_LIMIT: Final = 1024
AWS_TIMEOUTS: Final = {"connect_timeout": 2, "read_timeout": 5, "retries": {"total_max_attempts": 2}}


@dataclass(frozen=True, slots=True)
class Outcome:
    """All that is known when the script has ended."""

    event: dict[str, Any]
    context: Any
    result: str
    error: BaseException | None
    started: float
    ended: float
    spent_ms: dict[str, float]
    steps: list[StepRecord]
    execution_errors: list[str]
    requests: dict[str, int]
    location: dict[str, str]


@dataclass(slots=True)
class _State:
    """The request being served and the answer to it; the defaults serve another wrapper than ours, such as AWS's open one."""

    request: dict[str, Any] = field(default_factory=lambda: {"publish": False, "dry_run": False})
    tmp: Path = field(default_factory=lambda: Path(tempfile.gettempdir()))
    answer: dict[str, Any] = field(default_factory=dict)
    clients: dict[str, Any] = field(default_factory=dict)
    storage_percent: float | None = None


_state = _State()


def begin(request: dict[str, Any], tmp: Path) -> None:
    """A new run."""
    _state.request, _state.tmp, _state.answer, _state.storage_percent = request, tmp, {}, None


def used_storage(percent: float) -> None:
    """The most of the run's /tmp that was in use, in percent."""
    _state.storage_percent = percent


def answer() -> dict[str, Any]:
    """What `finish` came to."""
    return _state.answer


def location(request: dict[str, Any]) -> tuple[str, str]:
    """Bucket and key of a run's artifacts: ``prefix/canary/region/name-suffix/YYYY/MM/DD/HH/MM-SS-mmm``. No bucket: a local folder."""
    target = request["artifacts"]
    if not target:
        return "", ""
    stamp = datetime.fromtimestamp(time.time(), UTC)
    identity = request["canary_id"]
    suffix = f"-{identity[:3]}-{identity[-12:]}" if identity else ""
    run = f"{stamp:%Y/%m/%d/%H/%M-%S}-{stamp.microsecond // 1000:03d}"
    key = f"canary/{request['region']}/{request['canary']}{suffix}/{run}"
    if not target.startswith("s3://"):
        return "", f"{target.rstrip('/')}/{key}"
    bucket, _, prefix = target.removeprefix("s3://").partition("/")
    return bucket, f"{prefix.strip('/')}/{key}".lstrip("/")


def adopt(files: list[str]) -> None:
    """Take what the script wrote to the machine's own /tmp into the run's."""
    for name in files:
        target = _state.tmp / Path(name).relative_to("/tmp")
        with contextlib.suppress(OSError):
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.move(name, target)
            synthetics_logger.debug("%s was written to /tmp itself and taken into the run's", name)


def finish(outcome: Outcome) -> dict[str, Any]:
    """Report, upload, publish; returns the wrapper's summary. Failing to save fails the run (EXECUTION_FAILURE), not the test."""
    passed = outcome.result == CanaryStatus.PASSED.value
    problems = list(outcome.execution_errors)
    reason = _reason(outcome)
    failed = not passed or bool(problems)
    report = _report(outcome, reason, failed)
    name = f"SyntheticsReport-{'FAILED' if failed else 'PASSED'}.json"
    stored: list[dict[str, Any]] = []
    try:
        (_state.tmp / name).write_text(json.dumps(report, indent=1))
        stored = _store(outcome.location)
    except _aws_errors() as error:
        problems.append(f"Unable to save artifacts: {error}")
    published = 0
    try:
        published = _publish(outcome, passed)
    except _aws_errors() as error:
        synthetics_logger.error("Unable to publish metrics: %s", error)
    for problem in problems[len(outcome.execution_errors) :]:
        synthetics_logger.error("%s", problem)
    code = "CANARY_FAILURE" if not passed else "EXECUTION_FAILURE" if problems else None
    _state.answer = {
        "state": "PASSED" if code is None else "FAILED",
        "test_result": "PASSED" if passed else "FAILED",
        "state_reason": (reason if not passed else "; ".join(problems))[:REASON_LIMIT],
        "state_reason_code": code,
        "steps": [
            {"name": step.name, "started": step.started, "ended": step.ended, "error": step.error, "screenshots": step.screenshots}
            for step in outcome.steps
        ],
        "artifacts": stored,
        "artifact_location": f"{outcome.location['bucket']}/{outcome.location['key']}".lstrip("/")
        if outcome.location["bucket"]
        else outcome.location["key"],
        "report": report,
        "published": published,
    }
    return {
        "testRunError": None if passed else reason,
        "executionError": "; ".join(problems) or None,
        "canaryStatus": outcome.result,
        "startTime": outcome.started,
        "endTime": outcome.ended,
    }


def _reason(outcome: Outcome) -> str:
    """The sentence that GetCanaryRuns shows for a run that failed."""
    if outcome.error is not None:
        return f"{type(outcome.error).__name__}: {outcome.error}"
    errors = [f"{step.name}: {step.error}" for step in outcome.steps if step.error is not None]
    return "; ".join(errors)


def _report(outcome: Outcome, reason: str, failed: bool) -> dict[str, Any]:
    steps = [
        {
            "stepNumber": step.number,
            "stepName": step.name,
            "startTime": _iso(step.started),
            "endTime": _iso(step.ended),
            "status": "FAILED" if step.error else "PASSED",
            "error": step.error,
            "screenshots": [{"fileName": name} for name in step.screenshots],
        }
        for step in outcome.steps
    ]
    return {
        "canaryName": outcome.event.get("canaryName"),
        "canaryRunId": outcome.event.get("canaryRunId"),
        "runtimeVersion": constants.RUNTIME,
        "startTime": _iso(outcome.started),
        "endTime": _iso(outcome.ended),
        **{f"timeSpentIn{phase}InMs": round(spent, 3) for phase, spent in outcome.spent_ms.items()},
        "executionStatus": "FAILED" if failed else "PASSED",
        "executionError": "; ".join(outcome.execution_errors) or None,
        "customerScript": {
            "startTime": _iso(outcome.started),
            "endTime": _iso(outcome.ended),
            "status": outcome.result,
            "failureReason": reason or None,
            "requests": outcome.requests,
            "steps": steps,
        },
    }


def _store(target: dict[str, str]) -> list[dict[str, Any]]:
    """Save every file under /tmp. Raises what the file system or S3 raises."""
    if not target["key"]:
        return []
    files = sorted(path for path in _state.tmp.rglob("*") if path.is_file() and not path.is_symlink())
    stored = []
    for path in files:
        name = path.relative_to(_state.tmp).as_posix()
        if target["bucket"]:
            with path.open("rb") as body:
                _client("s3").put_object(Bucket=target["bucket"], Key=f"{target['key']}/{name}", Body=body)
        else:
            copy = Path(target["key"]) / name
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, copy)
        stored.append({"key": name, "size": path.stat().st_size})
    return stored


def _publish(outcome: Outcome, passed: bool) -> int:
    """Put the run's metrics into the canary's own Region; returns how many datapoints. Does nothing for a run without credentials."""
    if not _state.request["publish"]:
        return 0
    attempt = metrics.Attempt(
        canary=outcome.event["canaryName"],
        passed=passed,
        seconds=outcome.ended - outcome.started,
        requests=outcome.requests,
        steps=outcome.steps,
        number=_state.request["retry_attempt"],
        retries=_state.request["max_retries"],
        dry_run=_state.request["dry_run"],
        storage_percent=_state.storage_percent if _state.request["storage_metric"] else None,
        success_with_retries=_state.request["success_with_retries"],
    )
    data = metrics.data(attempt, time.time())
    _client("cloudwatch").put_metric_data(Namespace=constants.NAMESPACE, MetricData=data)
    return len(data)


def _client(service: str) -> Any:
    """A boto3 client with the canary's own credentials, kept while the process is warm."""
    if service not in _state.clients:
        import boto3
        from botocore.config import Config

        region = os.environ["AWS_REGION"]
        _state.clients[service] = boto3.session.Session(region_name=region).client(service, config=Config(**AWS_TIMEOUTS))
    return _state.clients[service]


def _aws_errors() -> tuple[type[Exception], ...]:
    from botocore.exceptions import BotoCoreError, ClientError

    return (OSError, BotoCoreError, ClientError)


def _iso(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
