"""Between a request and its result: what the child is sent, the environment it gets, and how its answer is read."""

from __future__ import annotations

import importlib.util
import os
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from canaries.runtime.api import Artifact, LogLine, ReasonCode, RunRequest, RunResult, RunState, Step, TestResult

TOKEN_VARIABLE: Final = "CROSSWATCH_SANDBOX"
FUNCTION_VERSION: Final = "1"


def to_wire(request: RunRequest) -> dict[str, Any]:
    """The request as JSON values."""
    return {
        "kind": "run",
        "run_id": request.run_id,
        "canary": request.canary,
        "canary_arn": request.canary_arn,
        "canary_id": request.canary_id,
        "handler": request.handler,
        "region": request.region,
        "artifacts": _absolute(request.artifacts),
        "publish": bool(request.credentials),
        "timeout_s": request.timeout_s,
        "ephemeral_mb": request.ephemeral_mb,
        "memory_mb": request.memory_mb,
        "retry_attempt": request.retry_attempt,
        "max_retries": request.max_retries,
        "success_with_retries": request.success_with_retries,
        "storage_metric": request.storage_metric,
        "dry_run": request.dry_run,
        "scheduled": request.scheduled,
        "runtime_version": request.runtime_version,
    }


def _absolute(artifacts: str) -> str:
    """A local folder as the child sees it, which works elsewhere."""
    return artifacts if not artifacts or artifacts.startswith("s3://") else str(Path(artifacts).absolute())


def child_environment(request: RunRequest, root: Path, token: str) -> dict[str, str]:
    """What Lambda would set, the role's credentials, and last the canary's own variables."""
    temporary = str(root / "tmp")
    suffix = request.canary_id or "00000000-0000-0000-0000-000000000000"
    name, started = f"cwsyn-{request.canary}-{suffix}", datetime.now(UTC)
    environment = {
        "PATH": os.environ.get("PATH", os.defpath),
        "LANG": "C.UTF-8",
        "TZ": ":UTC",
        "HOME": str(root / "home"),  # what libraries keep there, Chromium's settings for one, is no artifact
        "TMPDIR": temporary,
        "AWS_REGION": request.region,
        "AWS_DEFAULT_REGION": request.region,
        "AWS_EXECUTION_ENV": f"AWS_Lambda_python{sys.version_info.major}.{sys.version_info.minor}",
        "AWS_LAMBDA_FUNCTION_NAME": name,
        "AWS_LAMBDA_FUNCTION_VERSION": FUNCTION_VERSION,
        "AWS_LAMBDA_LOG_GROUP_NAME": f"/aws/lambda/{name}",
        "AWS_LAMBDA_LOG_STREAM_NAME": f"{started:%Y/%m/%d}/[{FUNCTION_VERSION}]{token}",
        "AWS_LAMBDA_FUNCTION_MEMORY_SIZE": str(request.memory_mb),
        "AWS_EC2_METADATA_DISABLED": "true",
        "SE_AVOID_STATS": "true",
        TOKEN_VARIABLE: token,
        **request.credentials,
        **request.environment,
    }
    if request.lab_clock:
        environment["CROSSWATCH_LAB_CLOCK"] = request.lab_clock
    return environment


def package_folders() -> list[str]:
    """Where this installation keeps the packages that Lambda and the layer would bring."""
    specs = [importlib.util.find_spec(name) for name in ("boto3", "selenium")]
    return sorted({str(Path(spec.origin).parent.parent) for spec in specs if spec is not None and spec.origin is not None})


def from_wire(
    request: RunRequest, started: float, ended: float, answer: dict[str, Any], lines: tuple[LogLine, ...], cold: bool, peak_mb: float
) -> RunResult:
    """The result of a run whose wrapper answered."""
    steps = tuple(Step(step["name"], step["started"], step["ended"], step["error"], tuple(step["screenshots"])) for step in answer["steps"])
    artifacts = tuple(Artifact(item["key"], item["size"]) for item in answer["artifacts"])
    code = answer["state_reason_code"]
    return RunResult(
        run_id=request.run_id,
        state=RunState(answer["state"]),
        test_result=TestResult(answer["test_result"]),
        state_reason=answer["state_reason"],
        state_reason_code=ReasonCode(code) if code else None,
        started=started,
        ended=ended,
        steps=steps,
        artifacts=artifacts,
        artifact_location=answer["artifact_location"],
        screenshots=tuple(item.key for item in artifacts if item.key.endswith(".png")),
        log=lines,
        report=answer["report"],
        published=answer["published"],
        cold_start=cold,
        max_memory_mb=peak_mb,
    )


def cut_short(
    request: RunRequest,
    started: float,
    ended: float,
    reason: str,
    lines: tuple[LogLine, ...],
    test: TestResult,
    cold: bool = True,
    peak_mb: float = 0.0,
) -> RunResult:
    """The result of a run whose wrapper could not answer: no artifacts, no report and, as on AWS, no datapoint."""
    return RunResult(
        request.run_id,
        RunState.FAILED,
        test,
        reason,
        ReasonCode.CANARY_FAILURE,
        started,
        ended,
        log=lines,
        cold_start=cold,
        max_memory_mb=peak_mb,
    )
