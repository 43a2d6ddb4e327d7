"""A Lambda function's configuration: what the API takes, what the lab refuses, what GetFunctionConfiguration shows.

Reference: https://docs.aws.amazon.com/lambda/latest/api/API_CreateFunction.html. Only Python functions from a zip; what would need more
than a process of this machine's Python (images, layers, VPC, file systems) answers UnsupportedOperation.
"""

from __future__ import annotations

import base64
import hashlib
import io
import json
import re
import uuid
import zipfile
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from lab.aws.service import AwsError
from lab.aws.support import Arn

if TYPE_CHECKING:
    from pathlib import Path

RUNTIMES = ("python3.10", "python3.11", "python3.12", "python3.13", "python3.14")
MAX_TIMEOUT_S = 900
MAX_ENVIRONMENT_BYTES = 4096
MAX_UNPACKED_BYTES = 250 * 1024 * 1024
_NAME = re.compile(r"[a-zA-Z0-9-_]{1,64}")
_RESERVED = {
    "_HANDLER",
    "AWS_ACCESS_KEY_ID",
    "AWS_DEFAULT_REGION",
    "AWS_EXECUTION_ENV",
    "AWS_LAMBDA_FUNCTION_MEMORY_SIZE",
    "AWS_LAMBDA_FUNCTION_NAME",
    "AWS_LAMBDA_FUNCTION_VERSION",
    "AWS_LAMBDA_LOG_GROUP_NAME",
    "AWS_LAMBDA_LOG_STREAM_NAME",
    "AWS_LAMBDA_RUNTIME_API",
    "AWS_REGION",
    "AWS_SECRET_ACCESS_KEY",
    "AWS_SESSION_TOKEN",
    "LAMBDA_RUNTIME_DIR",
    "LAMBDA_TASK_ROOT",
}
_UNSUPPORTED = (
    "Layers",
    "FileSystemConfigs",
    "ImageConfig",
    "KMSKeyArn",
    "SnapStart",
    "VpcConfig",
    "CapacityProviderConfig",
    "DurableConfig",
)
_PLAIN = ("Description", "Role", "Handler", "Runtime", "Timeout", "MemorySize", "DeadLetterConfig", "TracingConfig", "LoggingConfig")


@dataclass(slots=True)
class Function:
    """A function. ``environment`` and ``shown`` change with its configuration, ``code`` and ``digest`` with its code."""

    arn: str
    name: str
    role: str
    shown: dict[str, Any]
    environment: dict[str, str]
    modified: float
    code: Path | None = None
    digest: str = ""
    size: int = 0
    revision: str = field(default_factory=lambda: str(uuid.uuid4()))
    tags: dict[str, str] = field(default_factory=dict)
    statements: list[dict[str, Any]] = field(default_factory=list)
    reserved: int | None = None
    event_config: dict[str, Any] | None = None
    event_config_modified: float = 0.0

    @property
    def region(self) -> str:
        """The Region it lives in."""
        return self.arn.split(":")[3]

    def configuration(self) -> dict[str, Any]:
        """The shape of GetFunctionConfiguration."""
        found = {
            "FunctionName": self.name,
            "FunctionArn": self.arn,
            "CodeSize": self.size,
            "CodeSha256": self.digest,
            "Version": "$LATEST",
            "LastModified": _last_modified(self.modified),
            "RevisionId": self.revision,
            "State": "Active",
            "LastUpdateStatus": "Successful",
            "PackageType": "Zip",
            "EphemeralStorage": {"Size": 512},
            "TracingConfig": {"Mode": "PassThrough"},
            "LoggingConfig": {"LogFormat": "Text", "LogGroup": f"/aws/lambda/{self.name}"},
            "Architectures": ["x86_64"],
            **self.shown,
        }
        if self.environment:
            found["Environment"] = {"Variables": dict(self.environment)}
        return found


def invalid(message: str) -> AwsError:
    """A parameter that Lambda refuses."""
    return AwsError("InvalidParameterValueException", message)


def check_name(name: str) -> None:
    """Raise where ``name`` cannot be a function's."""
    if not _NAME.fullmatch(name):
        raise AwsError(
            "ValidationException",
            f"1 validation error detected: Value '{name}' at 'functionName' failed to satisfy constraint: "
            "Member must satisfy regular expression pattern: [a-zA-Z0-9-_]+",
        )


def apply(function: Function, params: dict[str, Any]) -> None:
    """Take over the configuration in ``params`` (of a creation or an update). Raises `AwsError`; then nothing changed."""
    for key in _UNSUPPORTED:
        wanted = params.get(key)
        if (
            wanted
            and not (key == "SnapStart" and wanted.get("ApplyOn") == "None")
            and any(wanted.values() if isinstance(wanted, dict) else wanted)
        ):
            raise AwsError("UnsupportedOperation", f"The lab's Lambda does not do {key}")
    if params.get("PackageType", "Zip") != "Zip":
        raise AwsError("UnsupportedOperation", "The lab's Lambda runs zip packages only")
    logging = params.get("LoggingConfig", {})
    if (
        logging.get("LogFormat", "Text") != "Text"
        or logging.get("LogGroup", f"/aws/lambda/{function.name}") != f"/aws/lambda/{function.name}"
    ):
        raise AwsError("UnsupportedOperation", "The lab's Lambda logs as text to /aws/lambda/<function>")
    merged = function.shown | {key: params[key] for key in (*_PLAIN, "EphemeralStorage", "Architectures") if params.get(key) is not None}
    _check(merged)
    environment = params["Environment"].get("Variables", {}) if "Environment" in params else function.environment
    _check_environment(environment)
    function.shown, function.environment, function.role = merged, dict(environment), merged["Role"]


def _check(shown: dict[str, Any]) -> None:
    runtime = shown.get("Runtime")
    if not runtime or not shown.get("Handler"):
        raise invalid("Runtime and Handler are mandatory parameters for functions created with deployment packages.")
    if not runtime.startswith("python"):
        raise AwsError("UnsupportedOperation", f"The lab's Lambda runs Python functions, not {runtime}")
    if runtime not in RUNTIMES:
        raise invalid(
            f"Value {runtime} at 'runtime' failed to satisfy constraint: Member must satisfy enum value set: [{', '.join(RUNTIMES)}] "
            "or be a valid ARN"
        )
    if shown["Timeout"] > MAX_TIMEOUT_S:
        raise AwsError(
            "ValidationException",
            f"1 validation error detected: Value '{shown['Timeout']}' at 'timeout' failed to satisfy constraint: "
            f"Member must have value less than or equal to {MAX_TIMEOUT_S}",
        )
    if "." not in shown["Handler"]:
        raise invalid(f"Bad handler '{shown['Handler']}': not enough values to unpack")
    target = shown.get("DeadLetterConfig", {}).get("TargetArn")
    if target and (arn := Arn.parse(target)) and arn.service not in ("sns", "sqs"):
        raise invalid("The provided target ARN of the dead letter queue is not one of an SNS topic or an SQS queue.")


def _check_environment(variables: dict[str, str]) -> None:
    taken = sorted(_RESERVED & set(variables))
    prefix = "Lambda was unable to configure your environment variables because the environment variables you have provided"
    if taken:
        raise invalid(
            f"{prefix} contains reserved keys that are currently not supported for modification. "
            f"Reserved keys used in this request: {', '.join(taken)}"
        )
    measured = json.dumps(variables, separators=(",", ":"))
    if len(measured.encode()) > MAX_ENVIRONMENT_BYTES:
        raise invalid(f"{prefix} exceeded the 4KB limit. String measured: {measured}")


def unpack(content: bytes, folder: Path) -> tuple[str, int]:
    """Unpack a deployment package into ``folder``; its SHA-256 (base64) and size. Raises `AwsError` for what is no zip."""
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as package:
            if sum(item.file_size for item in package.infolist()) > MAX_UNPACKED_BYTES:
                raise invalid(f"Unzipped size must be smaller than {MAX_UNPACKED_BYTES} bytes")
            package.extractall(folder)
    except zipfile.BadZipFile:
        raise invalid("Could not unzip uploaded file. Please check your file, then try to upload again.") from None
    return base64.b64encode(hashlib.sha256(content).digest()).decode(), len(content)


def _last_modified(time_s: float) -> str:
    from lab.aws.support import stamp

    return stamp(time_s).strftime("%Y-%m-%dT%H:%M:%S.%f")[:-3] + "+0000"
