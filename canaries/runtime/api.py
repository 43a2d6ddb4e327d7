"""The values that go into and come out of one canary run.

`RunRequest` says what the service knows when it starts a run (the canary, its code, its limits, its role); `RunResult` is what
GetCanaryRuns, the log group and the artifact bucket would show afterwards. `canaries.runtime.sandbox.Sandbox` turns one into the other::

    with Sandbox("store-probe") as sandbox:
        result = sandbox.run(RunRequest(canary="store-probe", handler="probe.handler", bundle=Path("probe.zip"), region="us-east-1"))

All times are epoch seconds on the clock of the request (the lab's where ``lab_clock`` is given, otherwise the wall's), all durations
seconds on that clock unless the name says otherwise. States, codes and their meaning: CloudWatch Synthetics API, CanaryRunStatus.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any, Literal

DEFAULT_ACCOUNT = "123456789012"
PATTERN_NAME = r"[0-9a-z_\-]{1,255}"
PATTERN_HANDLER = r"([0-9a-zA-Z_-]+/)*[0-9A-Za-z_-]+\.[A-Za-z_][A-Za-z0-9_]*"


class RunState(StrEnum):
    """The state of a finished run."""

    PASSED = "PASSED"
    FAILED = "FAILED"


class TestResult(StrEnum):
    """What the script itself came to; UNKNOWN where the run was cut short before that could be told."""

    PASSED = "PASSED"
    FAILED = "FAILED"
    UNKNOWN = "UNKNOWN"


class ReasonCode(StrEnum):
    """Why a run failed: the script (or something fatal around it), or only what came after it, such as saving artifacts."""

    CANARY_FAILURE = "CANARY_FAILURE"
    EXECUTION_FAILURE = "EXECUTION_FAILURE"


@dataclass(frozen=True, slots=True)
class LogLine:
    """One line the run wrote to its log group."""

    timestamp: float
    message: str


@dataclass(frozen=True, slots=True)
class Step:
    """One ``execute_step`` of the script. ``error`` is None where it passed."""

    name: str
    started: float
    ended: float
    error: str | None
    screenshots: tuple[str, ...] = ()

    @property
    def passed(self) -> bool:
        """Whether the step's function returned."""
        return self.error is None


@dataclass(frozen=True, slots=True)
class Artifact:
    """A file of the run that was stored. ``key`` is relative to the run's artifact location."""

    key: str
    size: int


@dataclass(frozen=True, slots=True)
class RunRequest:
    """One run to do.

    canary        the canary's name
    handler       ``file.function`` or ``folder/file.function``, below ``python/`` in the bundle
    bundle        the zip, or a folder that holds its unpacked content
    region        the Region the canary lives in
    artifacts     ``s3://bucket/prefix``, a local folder, or empty: keep none
    environment   the canary's own variables (RunConfig.EnvironmentVariables): at most 4 KB
    credentials   ``AWS_*`` variables of the execution role, with ``AWS_ENDPOINT_URL`` where there is one; empty: nothing is published
    timeout_s     RunConfig.TimeoutInSeconds; of lab time where ``lab_clock`` is given
    memory_mb     RunConfig.MemoryInMB: the run is killed when its processes use more
    ephemeral_mb  RunConfig.EphemeralStorage: what /tmp holds
    scheduled     when the run was due; absent: now
    retry_attempt 0 for the first attempt
    max_retries   Schedule.RetryConfig.MaxRetries: how many attempts may follow a failed first one
    success_with_retries   whether a canary without retries publishes SuccessPercentWithRetries too: AWS's page does not say
    storage_metric         whether EphemeralStorageUsagePercent is published: AWS names it, without dimensions or the runtimes that have it
    dry_run       metrics go to SuccessPercentDryRun and DurationDryRun
    lab_clock     ``wall0,origin,speed`` (`lab.clock`) or None for the wall's clock
    log           called with every line as it is written, from a thread of the sandbox
    """

    canary: str
    handler: str
    bundle: Path
    region: str
    run_id: str = field(default_factory=lambda: str(uuid.uuid4()))
    arn: str = ""
    canary_id: str = ""
    runtime_version: str = "syn-python-selenium-11.0"
    artifacts: str = ""
    environment: Mapping[str, str] = field(default_factory=dict)
    credentials: Mapping[str, str] = field(default_factory=dict)
    timeout_s: float = 60.0
    memory_mb: int = 1024
    ephemeral_mb: int = 1024
    active_tracing: bool = False
    scheduled: float | None = None
    retry_attempt: int = 0
    max_retries: int = 0
    success_with_retries: Literal["configured", "always"] = "configured"
    storage_metric: bool = True
    dry_run: bool = False
    lab_clock: str | None = None
    log: Callable[[LogLine], None] | None = None

    @property
    def canary_arn(self) -> str:
        """The canary's ARN, the given one or one made up from its name and Region."""
        return self.arn or f"arn:aws:synthetics:{self.region}:{DEFAULT_ACCOUNT}:canary:{self.canary}"


@dataclass(frozen=True, slots=True)
class RunResult:
    """What one run came to. ``artifact_location`` is ``bucket/key-prefix`` (as GetCanaryRuns has it) or a folder; empty: none were kept."""

    run_id: str
    state: RunState
    test_result: TestResult
    state_reason: str
    state_reason_code: ReasonCode | None
    started: float
    ended: float
    steps: tuple[Step, ...] = ()
    artifacts: tuple[Artifact, ...] = ()
    artifact_location: str = ""
    screenshots: tuple[str, ...] = ()
    log: tuple[LogLine, ...] = ()
    report: Mapping[str, Any] = field(default_factory=dict)
    published: int = 0
    cold_start: bool = False
    max_memory_mb: float = 0.0

    @property
    def passed(self) -> bool:
        """Whether GetCanaryRuns would say PASSED."""
        return self.state is RunState.PASSED


class CanaryRefusedError(Exception):
    """The request is one that CloudWatch Synthetics would not accept; ``problems`` are the messages a user would see, all of them."""

    def __init__(self, problems: list[str]) -> None:
        super().__init__("; ".join(problems))
        self.problems = problems
