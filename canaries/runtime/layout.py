"""What a bundle must look like and what CloudWatch Synthetics accepts around it: the checks before a run, and the unpacking for one.

CreateCanary's limits: CloudWatch Synthetics API reference, CanaryCodeInput, CanaryRunConfigInput; handler and folder rules:
CloudWatch_Synthetics_WritingCanary_Python.
"""

from __future__ import annotations

import hashlib
import re
import shutil
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from canaries.runtime.api import PATTERN_HANDLER, PATTERN_NAME

if TYPE_CHECKING:
    from canaries.runtime.api import RunRequest

ENVIRONMENT_LIMIT: Final = 4096
HANDLER_LIMIT: Final = 128
UNPACKED_LIMIT: Final = 250 * (1 << 20)  # Lambda: function and layers, unzipped
RESERVED: Final = frozenset({
    "AWS_ACCESS_KEY", "AWS_ACCESS_KEY_ID", "AWS_DEFAULT_REGION", "AWS_EXECUTION_ENV", "AWS_LAMBDA_FUNCTION_MEMORY_SIZE",
    "AWS_LAMBDA_FUNCTION_NAME", "AWS_LAMBDA_FUNCTION_VERSION", "AWS_LAMBDA_LOG_GROUP_NAME", "AWS_LAMBDA_LOG_STREAM_NAME",
    "AWS_LAMBDA_RUNTIME_API", "AWS_REGION", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "LAMBDA_RUNTIME_DIR", "LAMBDA_TASK_ROOT",
    "_HANDLER", "_X_AMZN_TRACE_ID",
})  # fmt: skip


class BundleError(Exception):
    """The bundle cannot become a Lambda layer."""


def refusals(request: RunRequest) -> list[str]:
    """What CreateCanary or UpdateCanary would object to, in its words; empty where it is accepted."""
    problems = []
    if not re.fullmatch(PATTERN_NAME, request.canary):
        problems.append(_constraint(request.canary, "name", f"Member must satisfy regular expression pattern: ^{PATTERN_NAME}$"))
    if not re.fullmatch(PATTERN_HANDLER, request.handler):
        problems.append(
            _constraint(request.handler, "code.handler", f"Member must satisfy regular expression pattern: ^{PATTERN_HANDLER}$")
        )
    if len(request.handler) > HANDLER_LIMIT:
        problems.append(_constraint(request.handler, "code.handler", f"Member must have length less than or equal to {HANDLER_LIMIT}"))
    if not request.runtime_version.startswith("syn-python-selenium-"):
        problems.append(f"{request.runtime_version} is not a Python runtime: expected syn-python-selenium-…")
    if request.active_tracing:
        problems.append("You can enable active tracing only for canaries that use version syn-nodejs-2.0 or later for their runtime")
    problems += _between(request.timeout_s, "runConfig.timeoutInSeconds", 3, 840)
    problems += _between(request.memory_mb, "runConfig.memoryInMB", 960, 3008)
    if request.memory_mb % 64:
        problems.append(f"memoryInMB: {request.memory_mb} is not a multiple of 64")
    problems += _between(request.ephemeral_mb, "runConfig.ephemeralStorage", 1024, 10240)
    problems += _between(request.max_retries, "schedule.retryConfig.maxRetries", 0, 2)
    if request.max_retries == 2 and request.timeout_s >= 600:
        problems.append("timeoutInSeconds must be less than 600 for a canary with maxRetries = 2")
    return problems + _environment_refusals(dict(request.environment))


def unpack(bundle: Path, opt: Path) -> None:
    """Lay the bundle out as the layer it becomes: its content below ``opt``. Raises BundleError."""
    if bundle.is_dir():
        shutil.copytree(bundle, opt)
        return
    try:
        with zipfile.ZipFile(bundle) as archive:
            size = sum(entry.file_size for entry in archive.infolist())
            if size >= UNPACKED_LIMIT:
                raise BundleError(f"Unzipped size must be smaller than {UNPACKED_LIMIT} bytes; {bundle.name} has {size}")
            opt.mkdir()
            archive.extractall(opt)
    except FileNotFoundError:
        raise BundleError(f"{bundle}: no such file") from None
    except (zipfile.BadZipFile, OSError) as error:
        raise BundleError(
            f"Could not unzip uploaded file. Please check your file, then try to upload again. ({bundle.name}: {error})"
        ) from error


def fingerprint(bundle: Path) -> Any:
    """Something that changes when the bundle does."""
    if bundle.is_dir():
        return str(bundle), tuple(sorted((str(path), path.stat().st_mtime_ns, path.stat().st_size) for path in bundle.rglob("*.py")))
    try:
        return hashlib.sha256(bundle.read_bytes()).hexdigest()
    except FileNotFoundError:
        raise BundleError(f"{bundle}: no such file") from None


def hint(bundle: Path, handler: str) -> str:
    """What to mend where a handler's file is not where Synthetics looks for it; empty where it is."""
    wanted = f"python/{handler.rpartition('.')[0]}.py"
    if bundle.is_dir():
        names = [path.relative_to(bundle).as_posix() for path in bundle.rglob("*.py")]
    else:
        try:
            with zipfile.ZipFile(bundle) as archive:
                names = archive.namelist()
        except (OSError, zipfile.BadZipFile):
            return ""
    if wanted in names:
        return ""
    name = wanted.rpartition("/")[2]
    elsewhere = sorted(each for each in names if each.rpartition("/")[2] == name)
    where = f"it has {', '.join(elsewhere)}" if elsewhere else f"it has no {name}"
    return f"handler {handler} needs {wanted} in {bundle.name}, but {where}"


def _environment_refusals(environment: dict[str, str]) -> list[str]:
    problems = []
    size = sum(len(key.encode()) + len(value.encode()) for key, value in environment.items())
    if size > ENVIRONMENT_LIMIT:
        problems.append(
            "Lambda was unable to configure your environment variables because the environment variables you have provided "
            f"exceeded the 4KB limit ({size} bytes)"
        )
    for key in sorted(environment):
        if not re.fullmatch(r"[a-zA-Z][a-zA-Z0-9_]+", key):
            problems.append(_constraint(key, "runConfig.environmentVariables", "Keys start with a letter and have at least two characters"))
        if key in RESERVED:
            problems.append(
                "Lambda was unable to configure your environment variables because the environment variables you have provided "
                f"contains reserved keys that are currently not supported for modification. Reserved keys used in this request: {key}"
            )
    return problems


def _constraint(value: object, member: str, text: str) -> str:
    return f"1 validation error detected: Value '{value}' at '{member}' failed to satisfy constraint: {text}"


def _between(value: float, member: str, low: int, high: int) -> list[str]:
    if value < low:
        return [_constraint(value, member, f"Member must have value greater than or equal to {low}")]
    if value > high:
        return [_constraint(value, member, f"Member must have value less than or equal to {high}")]
    return []
