"""A local stand-in for the Synthetics Python runtime: the documented library and the wrapper that runs a bundle."""

from canaries.runtime.api import Artifact, CanaryRefusedError, LogLine, ReasonCode, RunRequest, RunResult, RunState, Step, TestResult
from canaries.runtime.sandbox import Sandbox

__all__ = [
    "Artifact",
    "CanaryRefusedError",
    "LogLine",
    "ReasonCode",
    "RunRequest",
    "RunResult",
    "RunState",
    "Sandbox",
    "Step",
    "TestResult",
]
