"""What CreateCanary, UpdateCanary and StartCanaryDryRun refuse beyond the API model's own constraints, and the configuration they make.

Reference: https://docs.aws.amazon.com/AmazonSynthetics/latest/APIReference/API_CreateCanary.html and the developer guide's pages on
runtimes, schedules and retries. What the lab cannot do (VPCs, customer keys, layers, other languages) answers UnsupportedOperation.
"""

from __future__ import annotations

import json
import re
from typing import Any

from lab.aws import schedules
from lab.aws.service import AwsError
from lab.aws.synthetics_model import Config
from lab.aws.synthetics_runtimes import BY_NAME, is_other_language

MAX_TIMEOUT_S = 840
MAX_ENVIRONMENT_BYTES = 4096
TWO_RETRIES_BELOW_S = 600
DEFAULT_MEMORY_MB = 1024
DEFAULT_RETENTION_DAYS = 31
_VARIABLE = re.compile(r"[a-zA-Z][a-zA-Z0-9_]+")
_HANDLER = re.compile(r"([0-9a-zA-Z_-]+/)*[0-9A-Za-z_-]+\.[A-Za-z_][A-Za-z0-9_]*")
_RESERVED = re.compile(
    r"AWS_(REGION|DEFAULT_REGION|ACCESS_KEY|ACCESS_KEY_ID|SECRET_ACCESS_KEY|SESSION_TOKEN|EXECUTION_ENV|LAMBDA_.*)"
    r"|_HANDLER|LAMBDA_(TASK_ROOT|RUNTIME_DIR)"
)
_UNSUPPORTED = ("KmsKeyArn", "VisualReference", "VisualReferences", "AddReplicaLocations", "RemoveReplicaLocations")


def invalid(message: str) -> AwsError:
    """A refusal in the shape the API gives all of them."""
    return AwsError("ValidationException", message)


def new_config(params: dict[str, Any], now: float) -> Config:
    """The configuration of a new canary. Raises `AwsError`; the code is not read here."""
    config = Config(
        handler="",
        runtime="",
        role=params["ExecutionRoleArn"],
        artifacts=params["ArtifactS3Location"],
        schedule={"Expression": ""},
        run={},
        environment={},
        success_days=DEFAULT_RETENTION_DAYS,
        failure_days=DEFAULT_RETENTION_DAYS,
        cleanup="AUTOMATIC",
    )
    return changed(config, params, now, creating=True)


def changed(old: Config, params: dict[str, Any], now: float, creating: bool = False) -> Config:
    """``old`` with what ``params`` say. Raises `AwsError`, and ``old`` is untouched."""
    _refuse_unsupported(params)
    config = old.copy()
    if params.get("RuntimeVersion"):
        config.runtime = params["RuntimeVersion"]
    if not creating and config.runtime != old.runtime and "Code" not in params:
        raise invalid("Code must be provided when updating to a different runtime")
    if "Code" in params or creating:
        config.handler = _code(params.get("Code") or {}, config)
    config.role = params.get("ExecutionRoleArn", config.role)
    config.artifacts = params.get("ArtifactS3Location", config.artifacts)
    config.success_days = params.get("SuccessRetentionPeriodInDays", config.success_days)
    config.failure_days = params.get("FailureRetentionPeriodInDays", config.failure_days)
    config.cleanup = params.get("ProvisionedResourceCleanup", config.cleanup)
    config.artifact_config = params.get("ArtifactConfig", config.artifact_config)
    config.browsers = params.get("BrowserConfigs", config.browsers)
    if "Schedule" in params:
        config.schedule = dict(params["Schedule"])
    run = dict(params.get("RunConfig", {}))
    environment = run.pop("EnvironmentVariables", None)
    if environment is not None:
        config.environment = dict(environment)
    frequency = _schedule(config.schedule)
    previous = {key: value for key, value in config.run.items() if key != "TimeoutInSeconds" or "RunConfig" not in params}
    default = {
        "TimeoutInSeconds": int(min(frequency or MAX_TIMEOUT_S, MAX_TIMEOUT_S)),
        "MemoryInMB": DEFAULT_MEMORY_MB,
        "ActiveTracing": False,
    }
    config.run = default | previous | run
    _check_runtime(config, now)
    _check_run(config, frequency)
    return config


def _refuse_unsupported(params: dict[str, Any]) -> None:
    for key in _UNSUPPORTED:
        if params.get(key):
            raise AwsError("UnsupportedOperation", f"The lab's Synthetics does not do {key}")
    if params.get("VpcConfig", {}).get("SubnetIds"):
        raise AwsError("UnsupportedOperation", "The lab has no VPCs: leave VpcConfig out")
    code = params.get("Code") or {}
    for key in ("Dependencies", "BlueprintTypes"):
        if code.get(key):
            raise AwsError("UnsupportedOperation", f"The lab's Synthetics does not do Code.{key}")
    if any(browser.get("BrowserType") == "FIREFOX" for browser in params.get("BrowserConfigs", [])):
        raise invalid("Firefox is not supported by the Python Selenium runtimes")
    if (params.get("ArtifactConfig") or {}).get("S3Encryption", {}).get("EncryptionMode") == "SSE_KMS":
        raise AwsError("UnsupportedOperation", "The lab's Synthetics does not encrypt artifacts with KMS keys")


def _code(code: dict[str, Any], config: Config) -> str:
    """The handler, after a look at where the code comes from."""
    in_s3 = bool(code.get("S3Bucket") and code.get("S3Key"))
    if bool(code.get("ZipFile")) == in_s3 and not (config.handler and not in_s3 and not code.get("S3Bucket") and not code.get("S3Key")):
        raise invalid("Code must be specified either as ZipFile or as S3Bucket and S3Key")
    handler = code.get("Handler") or ""
    if not _HANDLER.fullmatch(handler):
        raise invalid(
            f"1 validation error detected: Value '{handler}' at 'code.handler' failed to satisfy constraint: a Python canary's handler "
            "must have the form fileName.functionName or folder/fileName.functionName"
        )
    return handler


def _schedule(schedule: dict[str, Any]) -> int | None:
    """Seconds from one run to the next, None where it has no rate."""
    try:
        parsed = schedules.parse_canary(schedule["Expression"])
    except schedules.ScheduleError as error:
        raise invalid(f"Invalid schedule expression: {error}") from None
    if isinstance(parsed, schedules.Rate):
        return parsed.seconds or None
    return None


def _check_runtime(config: Config, now: float) -> None:
    runtime = BY_NAME.get(config.runtime)
    if runtime is None:
        if is_other_language(config.runtime):
            raise AwsError("UnsupportedOperation", f"The lab runs Python canaries (syn-python-selenium-...), not {config.runtime}")
        raise invalid(f"Invalid runtime version specified: {config.runtime}")
    if runtime.is_deprecated(now):
        raise invalid(f"Deprecated runtime version specified: {config.runtime}")
    retries = config.schedule.get("RetryConfig", {}).get("MaxRetries", 0)
    if retries and not runtime.retries:
        raise invalid(f"Retries are not supported by runtime version {config.runtime}")
    if retries == 2 and config.run["TimeoutInSeconds"] >= TWO_RETRIES_BELOW_S:
        raise invalid(f"With two retries, the timeout must be less than {TWO_RETRIES_BELOW_S} seconds")


def _check_run(config: Config, frequency: int | None) -> None:
    run = config.run
    if run["MemoryInMB"] % 64:
        raise invalid(f"Memory must be a multiple of 64 MB, but {run['MemoryInMB']} was specified")
    if frequency is not None and run["TimeoutInSeconds"] > frequency:
        raise invalid(f"Timeout {run['TimeoutInSeconds']} must be less than or equal to the frequency of the canary, {frequency} seconds")
    if run.get("ActiveTracing"):
        raise invalid("You can enable active tracing only for canaries that use version syn-nodejs-2.0 or later for their canary runtime.")
    if not re.fullmatch(r"s3://[a-z0-9-]{3,63}(/.*)?", config.artifacts):
        raise invalid(f"Invalid artifact S3 location {config.artifacts}: expected s3://bucket/prefix, and no dots in the bucket's name")
    names = sorted(config.environment)
    wrong = [name for name in names if not _VARIABLE.fullmatch(name)]
    reserved = [name for name in names if _RESERVED.fullmatch(name)]
    prefix = "Lambda was unable to configure your environment variables because the environment variables you have provided"
    if wrong:
        raise invalid(f"Environment variable names must start with a letter and have at least two characters: {', '.join(wrong)}")
    if reserved:
        raise invalid(f"{prefix} contains reserved keys that are currently not supported for modification: {', '.join(reserved)}")
    if len(json.dumps(config.environment, separators=(",", ":")).encode()) > MAX_ENVIRONMENT_BYTES:
        raise invalid(f"{prefix} exceeded the 4KB limit.")
