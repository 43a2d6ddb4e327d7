"""The child side of a Lambda sandbox: loads the handler once, then answers events. Runs alone, with the standard library only.

Started by `lab.aws.lambda_sandbox` with a socket (``CROSSWATCH_CONTROL_FD``) on which both sides write JSON lines. Standard output and
error go to the function's log; a line ``MARK`` on standard output tells the parent that an event's output is complete.
"""

from __future__ import annotations

import contextlib
import ctypes
import importlib
import json
import logging
import os
import signal
import socket
import sys
import time
import traceback
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

MARK = "\x00crosswatch-end"
_PR_SET_PDEATHSIG = 1


@dataclass(frozen=True)
class LambdaContext:
    """The handler's second argument."""

    aws_request_id: str
    invoked_function_arn: str
    deadline: float
    function_name: str = os.environ.get("AWS_LAMBDA_FUNCTION_NAME", "")
    function_version: str = os.environ.get("AWS_LAMBDA_FUNCTION_VERSION", "")
    memory_limit_in_mb: str = os.environ.get("AWS_LAMBDA_FUNCTION_MEMORY_SIZE", "")
    log_group_name: str = os.environ.get("AWS_LAMBDA_LOG_GROUP_NAME", "")
    log_stream_name: str = os.environ.get("AWS_LAMBDA_LOG_STREAM_NAME", "")
    identity: Any = None
    client_context: Any = None

    def get_remaining_time_in_millis(self) -> int:
        """Milliseconds until the function is stopped."""
        return max(0, int((self.deadline - time.time()) * 1000))


class _Format(logging.Formatter):
    """Lambda's line: ``[LEVEL]\\ttime\\trequest id\\tmessage``."""

    request_id = ""

    def format(self, record: logging.LogRecord) -> str:
        moment = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
        text = record.getMessage()
        if record.exc_info:
            text = f"{text}\n{self.formatException(record.exc_info)}"
        return f"[{record.levelname}]\t{moment}.{int(record.msecs):03d}Z\t{self.request_id}\t{text}"


def main() -> None:
    """Serve events until the parent goes."""
    with contextlib.suppress(OSError, AttributeError):  # Linux only; elsewhere the closed socket ends us
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    control = socket.socket(fileno=int(os.environ.pop("CROSSWATCH_CONTROL_FD")))
    lines = control.makefile("r", encoding="utf-8")
    line_format = _Format()
    output = logging.StreamHandler(sys.stdout)
    output.setFormatter(line_format)
    logging.getLogger().addHandler(output)

    def tell(message: dict[str, Any], identity: str) -> None:
        sys.stdout.flush()
        sys.stderr.flush()
        os.write(1, f"\n{MARK}{identity}\n".encode())
        control.sendall(json.dumps(message).encode() + b"\n")

    try:
        handler = _load(os.environ["_HANDLER"])
    except _InitError as error:
        tell({"kind": "failed", "error": error.described}, "init")
        return
    tell({"kind": "ready"}, "init")
    for line in lines:
        request = json.loads(line)
        line_format.request_id = request["id"]
        tell(_answer(handler, request), request["id"])


class _InitError(Exception):
    """The handler could not be loaded; ``described`` is the error as the caller sees it."""

    def __init__(self, kind: str, message: str, trace: list[str]) -> None:
        super().__init__(message)
        self.described = {"errorMessage": message, "errorType": kind, "requestId": "", "stackTrace": trace}
        print(f"[ERROR] {kind}: {message}", *trace, sep="\n")


def _load(name: str) -> Callable[[Any, Any], Any]:
    module_name, _, function = name.rpartition(".")
    module_name = module_name.replace("/", ".")
    try:
        module = importlib.import_module(module_name)
    except ImportError as error:
        raise _InitError("Runtime.ImportModuleError", f"Unable to import module '{module_name}': {error}", []) from error
    except SyntaxError as error:
        raise _InitError("Runtime.UserCodeSyntaxError", f"Syntax error in module '{module_name}': {error}", []) from error
    except Exception as error:
        raise _InitError(type(error).__name__, str(error), _trace(error)) from error
    handler = getattr(module, function, None)
    if not callable(handler):
        raise _InitError("Runtime.HandlerNotFound", f"Handler '{function}' missing on module '{module_name}'", [])
    return handler  # type: ignore[no-any-return]


def _answer(handler: Callable[[Any, Any], Any], request: dict[str, Any]) -> dict[str, Any]:
    context = LambdaContext(request["id"], request["arn"], request["deadline"])
    try:
        result = handler(json.loads(request["payload"]), context)
    except Exception as error:  # noqa: BLE001 - whatever the handler raises is its answer
        described = {"errorMessage": str(error), "errorType": type(error).__name__, "requestId": request["id"], "stackTrace": _trace(error)}
        print(f"[ERROR] {type(error).__name__}: {error}", "Traceback (most recent call last):", *described["stackTrace"], sep="\n")
        return {"kind": "error", "error": described}
    try:
        return {"kind": "result", "payload": json.dumps(result)}
    except (TypeError, ValueError) as error:
        message = f"Unable to marshal response: {error}"
        print(f"[ERROR] Runtime.MarshalError: {message}")
        described = {"errorMessage": message, "errorType": "Runtime.MarshalError", "requestId": request["id"], "stackTrace": []}
        return {"kind": "error", "error": described}


def _trace(error: BaseException) -> list[str]:
    """The frames of the handler's own code, without ours."""
    frames = [
        frame for frame in traceback.extract_tb(error.__traceback__) if frame.filename != __file__ and "importlib" not in frame.filename
    ]
    return traceback.format_list(frames)


if __name__ == "__main__":
    main()
