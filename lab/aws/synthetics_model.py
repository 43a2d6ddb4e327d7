"""What CloudWatch Synthetics keeps: canaries, their runs and groups, and how the API shows them. Times are lab time, epoch seconds."""

from __future__ import annotations

import copy
import uuid
from collections import deque
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Any

from lab.aws.support import stamp

if TYPE_CHECKING:
    from pathlib import Path

RUNS_KEPT = 5000


class State(StrEnum):
    """A canary's state (API: CanaryState)."""

    CREATING = "CREATING"
    READY = "READY"
    STARTING = "STARTING"
    RUNNING = "RUNNING"
    UPDATING = "UPDATING"
    STOPPING = "STOPPING"
    STOPPED = "STOPPED"
    ERROR = "ERROR"
    DELETING = "DELETING"


@dataclass(slots=True)
class Config:
    """Everything of a canary that UpdateCanary can change. ``source`` names the S3 object that ``bundle`` was read from."""

    handler: str
    runtime: str
    role: str
    artifacts: str
    schedule: dict[str, Any]
    run: dict[str, Any]
    environment: dict[str, str]
    success_days: int
    failure_days: int
    cleanup: str
    artifact_config: dict[str, Any] | None = None
    browsers: list[dict[str, Any]] = field(default_factory=list)
    source: tuple[str, str, str] | None = None
    bundle: Path | None = None
    version: int = 1

    def copy(self) -> Config:
        """An independent copy."""
        return copy.deepcopy(self)


@dataclass(slots=True)
class Run:
    """One attempt of one scheduled run. ``state`` is RUNNING until it is over."""

    id: str
    scheduled_id: str
    canary: str
    started: float
    attempt: int = 0
    dry_run: str = ""
    state: str = "RUNNING"
    test_result: str = "UNKNOWN"
    reason: str = ""
    reason_code: str = ""
    completed: float | None = None
    artifacts: str = ""

    def shown(self) -> dict[str, Any]:
        """The API's CanaryRun."""
        status = {"State": self.state, "StateReason": self.reason or None, "StateReasonCode": self.reason_code or None}
        if self.state != "RUNNING":
            status["TestResult"] = self.test_result
        return {
            "Id": self.id,
            "ScheduledRunId": self.scheduled_id,
            "RetryAttempt": self.attempt or None,
            "Name": self.canary,
            "Status": {key: value for key, value in status.items() if value is not None},
            "Timeline": {
                "Started": stamp(self.started),
                "Completed": None if self.completed is None else stamp(self.completed),
                "MetricTimestampForRunAndRetries": stamp(self.started // 60 * 60),
            },
            "ArtifactS3Location": self.artifacts or None,
            "DryRunConfig": {"DryRunId": self.dry_run} if self.dry_run else None,
            "BrowserType": "CHROME",
        }


@dataclass(slots=True)
class DryRun:
    """A try of another configuration."""

    id: str
    config: Config
    status: str = "RUNNING"


@dataclass(slots=True)
class Canary:
    """A canary. ``epoch`` counts what makes an old schedule void: starts, stops, updates."""

    name: str
    region: str
    account: str
    config: Config
    tags: dict[str, str]
    created: float
    modified: float
    id: str = field(default_factory=lambda: str(uuid.uuid4()))
    state: State = State.CREATING
    reason: str = ""
    reason_code: str = ""
    started: float | None = None
    stopped: float | None = None
    epoch: int = 0
    runs: deque[Run] = field(default_factory=lambda: deque(maxlen=RUNS_KEPT))
    dry_runs: dict[str, DryRun] = field(default_factory=dict)

    @property
    def arn(self) -> str:
        """The canary's ARN."""
        return f"arn:aws:synthetics:{self.region}:{self.account}:canary:{self.name}"

    @property
    def function(self) -> str:
        """The name of the Lambda function that AWS makes for it; it names the log group."""
        return f"cwsyn-{self.name}-{self.id}"

    def become(self, state: State, reason: str = "", code: str = "") -> None:
        """Change the state."""
        self.state, self.reason, self.reason_code = state, reason, code

    def shown(self, dry_run: DryRun | None = None) -> dict[str, Any]:
        """The API's Canary, with the configuration of ``dry_run`` where given. Environment variables are not shown, as on AWS."""
        config = dry_run.config if dry_run else self.config
        lambda_arn = f"arn:aws:lambda:{self.region}:{self.account}"
        made = self.state is not State.CREATING and self.reason_code != "CREATE_FAILED"
        times = {"Created": self.created, "LastModified": self.modified, "LastStarted": self.started, "LastStopped": self.stopped}
        shown = {
            "Id": self.id,
            "Name": self.name,
            "Code": {
                "SourceLocationArn": f"{lambda_arn}:layer:{self.function}:{config.version}" if made else None,
                "Handler": config.handler,
            },
            "ExecutionRoleArn": config.role,
            "Schedule": {"DurationInSeconds": 0, **config.schedule},
            "RunConfig": dict(config.run),
            "SuccessRetentionPeriodInDays": config.success_days,
            "FailureRetentionPeriodInDays": config.failure_days,
            "Status": {"State": str(self.state), "StateReason": self.reason or None, "StateReasonCode": self.reason_code or None},
            "Timeline": {key: stamp(value) for key, value in times.items() if value is not None},
            "ArtifactS3Location": config.artifacts.removeprefix("s3://"),
            "EngineArn": f"{lambda_arn}:function:{self.function}:{config.version}" if made else None,
            "RuntimeVersion": config.runtime,
            "ProvisionedResourceCleanup": config.cleanup,
            "Tags": dict(self.tags),
            "ArtifactConfig": config.artifact_config,
            "BrowserConfigs": config.browsers or None,
        }
        if dry_run:
            shown["DryRunConfig"] = {"DryRunId": dry_run.id, "LastDryRunExecutionStatus": dry_run.status}
        return shown


@dataclass(slots=True)
class Group:
    """A group of canaries, of any Region; groups are global."""

    name: str
    arn: str
    created: float
    modified: float
    tags: dict[str, str]
    resources: list[str] = field(default_factory=list)
    id: str = field(default_factory=lambda: str(uuid.uuid4()))

    def shown(self) -> dict[str, Any]:
        """The API's Group."""
        return {
            "Id": self.id,
            "Name": self.name,
            "Arn": self.arn,
            "Tags": dict(self.tags),
            "CreatedTime": stamp(self.created),
            "LastModifiedTime": stamp(self.modified),
        }
