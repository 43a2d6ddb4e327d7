"""The child process: ``python -I -S __main__.py CONTROL_FD ROOT LAYER PACKAGE_FOLDER...`` serves requests until the socket closes.

A request becomes an invocation as Lambda would make it: an event, a context, and `handle` around the script, which follows AWS's open debug
wrapper (aws-samples/synthetics-canary-local-debugging-sample) in its order of calls.
"""

from __future__ import annotations

import sys

sys.path.insert(0, sys.argv[3])  # aws_synthetics itself; `packages.install` lays out the rest

import asyncio
import contextlib
import ctypes
import errno
import gc
import importlib.util
import inspect
import json
import os
import resource
import shutil
import signal
import socket
import tempfile
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, BinaryIO

from aws_synthetics.wrapper import clock, network, packages

PR_SET_PDEATHSIG = 1
OPT_ENVIRONMENT = "CROSSWATCH_OPT"


@dataclass(frozen=True, slots=True)
class LambdaContext:
    """The context object of the invocation: Lambda's (developer guide, "context object in Python"), and the canary's ARN."""

    function_name: str
    function_version: str
    aws_request_id: str
    memory_limit_in_mb: str
    invoked_function_arn: str
    log_group_name: str
    log_stream_name: str
    canary_arn: str
    deadline: float
    identity: None = None  # both are for applications that call Lambda with Cognito or an SDK for phones
    client_context: None = None

    def get_remaining_time_in_millis(self) -> int:
        """Milliseconds until the timeout."""
        return max(0, int((self.deadline - time.time()) * 1000))


class _WriteWatch:
    """Holds a script to what it may write on Lambda, where only /tmp is writable, and finds the files that it writes under this machine's
    real /tmp: on AWS they would be artifacts, so they become artifacts. Sees what Python opens, makes and renames; no other program.

    ``guards``: a script is running, so that what is written is the script's.
    """

    def __init__(self, root: str) -> None:
        self._root = root
        self._ours = tuple(f"{root}/{name}" for name in ("tmp", "profiles"))
        self.guards = False
        self.files: set[str] = set()

    def __call__(self, event: str, arguments: tuple[Any, ...]) -> None:
        if event == "open":
            path, mode, flags = arguments
            if any(letter in mode for letter in "wax+") if isinstance(mode, str) else flags & (os.O_WRONLY | os.O_RDWR):
                self._written(path, opened=True)
        elif event in {"os.mkdir", "os.rename"} and arguments[-1] == -1:  # not relative to a folder that is open
            for path in arguments[: 2 if event == "os.rename" else 1]:
                self._written(path)

    def _written(self, path: object, *, opened: bool = False) -> None:
        if not isinstance(path, str | os.PathLike):  # a descriptor, which was opened before
            return
        full = os.path.abspath(path)  # noqa: PTH100 - without the questions to the file system that a Path would ask
        if _below(full, *self._ours):
            return
        if _below(full, "/tmp") and not _below(full, self._root):
            if opened:
                self.files.add(full)
        elif self.guards and not _below(full, "/dev", "/proc"):
            raise OSError(errno.EROFS, os.strerror(errno.EROFS), full)


def _below(path: str, *folders: str) -> bool:
    return any(path == folder or path.startswith(f"{folder}/") for folder in folders)


def main() -> None:
    """Bring the process up, say so, then serve requests."""
    control = socket.socket(fileno=int(sys.argv[1]))
    root = Path(sys.argv[2])
    _die_with_parent()
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    sys.stdout.reconfigure(line_buffering=True)  # type: ignore[union-attr]
    tempfile.tempdir = str(root / "tmp")
    profiles = root / "profiles"
    profiles.mkdir()
    os.environ["CROSSWATCH_PROFILES"] = str(profiles)
    sys.path.pop(0)
    packages.install(sys.argv[3], str(root / "opt"), sys.argv[4:])
    clock.install(os.environ.pop("CROSSWATCH_LAB_CLOCK", None), float(os.environ.pop("CROSSWATCH_CLOCK_SKEW_S", "0") or 0))
    network.install(os.environ.pop("CROSSWATCH_NETWORK", None))
    watch = _WriteWatch(str(root))
    sys.addaudithook(watch)
    send(control, {"kind": "ready"})
    pid = os.getpid()
    requests = control.makefile("rb")
    for line in requests:
        answer = invoke(json.loads(line), root, control, requests, watch)
        if os.getpid() != pid:  # the script forked and let both return; only the first may answer
            os._exit(0)
        send(control, {"kind": "result", **answer})


def invoke(request: dict[str, Any], root: Path, control: socket.socket, requests: BinaryIO, watch: _WriteWatch) -> dict[str, Any]:
    """One run; returns the answer's fields. What is not an Exception (sys.exit, KeyboardInterrupt) ends the process, as in Lambda.

    When the script is done, the parent is told, and says how much of /tmp it saw in use meanwhile.
    """
    from aws_synthetics.wrapper import finish

    limit = int(request["ephemeral_mb"] * 0.97 * (1 << 20))  # the file system of /tmp takes its share
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))
    _empty(root / "tmp")
    watch.files.clear()
    finish.begin(request, root / "tmp")
    context = LambdaContext(
        function_name=os.environ["AWS_LAMBDA_FUNCTION_NAME"],
        function_version=os.environ["AWS_LAMBDA_FUNCTION_VERSION"],
        aws_request_id=request["run_id"],
        memory_limit_in_mb=str(request["memory_mb"]),
        invoked_function_arn=_function_arn(request),
        log_group_name=os.environ["AWS_LAMBDA_LOG_GROUP_NAME"],
        log_stream_name=os.environ["AWS_LAMBDA_LOG_STREAM_NAME"],
        canary_arn=request["canary_arn"],
        deadline=time.time() + request["timeout_s"],
    )
    bucket, key = finish.location(request)
    event = {
        "canaryName": request["canary"],
        "canaryRunId": request["run_id"],
        "artifactS3Location": {"s3Bucket": bucket, "s3Key": key},
        "customerCanaryHandlerName": request["handler"],
        "activeTracing": False,
        "retryAttempt": request["retry_attempt"],
        "dryRun": request["dry_run"],
    }
    pid = os.getpid()

    def ended() -> None:
        if os.getpid() != pid:  # a forked copy of the process came this far: it has nothing to report
            os._exit(0)
        watch.guards = False
        finish.adopt(sorted(watch.files))
        send(control, {"kind": "ended"})
        finish.used_storage(json.loads(requests.readline())["storage_percent"])

    watch.guards = True
    asyncio.run(handle(event, context, root / "opt" / "python", ended))
    gc.collect()  # so that a step that was never awaited is warned of in this run's log
    return {**finish.answer(), "leave": bool(_children())}


async def handle(event: dict[str, Any], context: LambdaContext, code: Path, ended: Any) -> None:
    """Set up, call the script's handler, and hand what became of it to ``after_canary``."""
    from aws_synthetics.common import CanaryStatus, synthetics_logger
    from aws_synthetics.selenium import synthetics_webdriver as webdriver

    result, error = CanaryStatus.FAILED.value, None
    before = time.perf_counter()
    await webdriver.reset()
    reset_ms = (time.perf_counter() - before) * 1000
    synthetics_logger.info("Start canary")
    before = time.perf_counter()
    webdriver.set_event_and_context(event, context)
    await webdriver.before_canary()
    setup_ms = (time.perf_counter() - before) * 1000
    synthetics_logger.info("Start executing customer steps")
    started = datetime.fromtimestamp(time.time(), UTC)
    try:
        handler = load(event["customerCanaryHandlerName"], code)
        response = handler(event, context)
        if inspect.isawaitable(response):
            response = await response
        synthetics_logger.info("Customer canary response %s", json.dumps(response))
        result = CanaryStatus.FAILED.value if webdriver.get_step_errors() else CanaryStatus.PASSED.value
        synthetics_logger.info("Finished executing customer steps")
    except Exception as caught:  # noqa: BLE001 - whatever the script raises is its verdict
        error = _as_on_aws(caught)
        synthetics_logger.exception("Canary error:")
    stopped = datetime.fromtimestamp(time.time(), UTC)
    ended()
    summary = await webdriver.after_canary(result, error, started, stopped, reset_ms, setup_ms, 0.0)
    synthetics_logger.info("End Canary. Result %s", json.dumps(summary))


def load(handler: str, code: Path) -> Any:
    """The function a handler names. The module is imported once per process, as in Lambda; globals survive from run to run.

    Raises ModuleNotFoundError or AttributeError with the message a user of AWS sees, and whatever importing the script raises.
    """
    file_name, _, function_name = handler.rpartition(".")
    folder, _, module_name = file_name.rpartition("/")
    path = code / f"{file_name}.py"
    if not path.is_file():
        raise ModuleNotFoundError(f"No module named: {file_name}")
    if folder and str(code / folder) not in sys.path:
        sys.path.insert(0, str(code / folder))
    module = sys.modules.get(module_name)
    if module is None or Path(getattr(module, "__file__", "") or "") != path:
        spec = importlib.util.spec_from_file_location(module_name, path)
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        sys.modules[module_name] = module
        try:
            spec.loader.exec_module(module)
        except BaseException:
            del sys.modules[module_name]
            raise
    return getattr(module, function_name)


def send(control: socket.socket, message: dict[str, Any]) -> None:
    """One message to the parent."""
    control.sendall(json.dumps(message).encode() + b"\n")


def _as_on_aws(error: Exception) -> Exception:
    """A file-size limit stands for the full /tmp of Lambda; say it as Lambda does."""
    if isinstance(error, OSError) and error.errno == errno.EFBIG:
        return OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), error.filename)
    return error


def _function_arn(request: dict[str, Any]) -> str:
    account = request["canary_arn"].split(":")[4]
    name, version = os.environ["AWS_LAMBDA_FUNCTION_NAME"], os.environ["AWS_LAMBDA_FUNCTION_VERSION"]
    return f"arn:aws:lambda:{request['region']}:{account}:function:{name}:{version}"


def _empty(folder: Path) -> None:
    for entry in folder.iterdir():
        if entry.is_dir() and not entry.is_symlink():
            shutil.rmtree(entry, ignore_errors=True)
        else:
            entry.unlink()


def _children() -> list[str]:
    """Processes the script left behind."""
    found: list[str] = []
    with contextlib.suppress(OSError):
        for task in Path("/proc/self/task").iterdir():
            found += (task / "children").read_text().split()
    return found


def _die_with_parent() -> None:
    """Ask the kernel for SIGKILL when the parent is gone (Linux); elsewhere the closed socket ends the loop."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() == 1:
            os._exit(1)


if __name__ == "__main__":
    main()
