"""aws:executeScript: the script runs for real, in a Python process of its own with the role's credentials, and can be killed.

The same script runs on AWS: it sees ``handler(events, context)``, boto3 and the environment, nothing of the lab. In the child, `time.time`
and `time.sleep` follow lab time, so that what waits for a TTL waits as long as a TTL lasts.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from typing import IO, TYPE_CHECKING, Any

from lab.clock import CLOCK_VARIABLE

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

POLL_S = 0.02
MOST_OUTPUT_BYTES = 100_000
KEPT_VARIABLES = ("PATH", "LANG", "HOME", "TMPDIR", "SSL_CERT_FILE", "CROSSWATCH_LAB_ID", "CROSSWATCH_LAB_DIR")


class ScriptFailedError(Exception):
    """The script raised, or ended without a result; the message has the end of its traceback, ``printed`` what it printed."""

    def __init__(self, message: str, printed: str) -> None:
        super().__init__(message)
        self.printed = printed


@dataclass(frozen=True, slots=True)
class ScriptResult:
    """What the handler returned, and what the script printed."""

    payload: Any
    printed: str


def run(
    script: str, handler: str, payload: Any, environment: Mapping[str, str], clock: str, should_stop: Callable[[], bool]
) -> ScriptResult | None:
    """Run ``handler(payload, {})`` of ``script``. None when ``should_stop()`` became true before the end. Raises `ScriptFailedError`."""
    with tempfile.TemporaryFile() as request, tempfile.TemporaryFile() as printed, tempfile.TemporaryFile() as answer:
        request.write(json.dumps({"script": script, "handler": handler, "payload": payload}, default=str).encode())
        request.seek(0)
        kept = {name: os.environ[name] for name in KEPT_VARIABLES if name in os.environ}
        child = subprocess.Popen(
            [sys.executable, "-I", "-c", BOOTSTRAP, str(answer.fileno())],
            stdin=request,
            stdout=printed,
            stderr=subprocess.STDOUT,
            env={**kept, **environment, CLOCK_VARIABLE: clock},
            pass_fds=(answer.fileno(),),
            start_new_session=True,
        )
        try:
            while child.poll() is None:
                if should_stop():
                    return None
                time.sleep(POLL_S)
        finally:
            if child.poll() is None:
                os.killpg(child.pid, signal.SIGKILL)
                child.wait()
        text = _read(printed)
        result = json.loads(_read(answer) or "null")
        if result is None:
            raise ScriptFailedError(f"the script ended with exit code {child.returncode} and without a result", text)
        if "error" in result:
            raise ScriptFailedError(result["error"], text)
        return ScriptResult(result["payload"], text)


def _read(file: IO[bytes]) -> str:
    file.seek(0)
    return file.read(MOST_OUTPUT_BYTES * 10).decode(errors="replace")


BOOTSTRAP = """
import ctypes, json, os, signal, sys, time, traceback

ctypes.CDLL(None).prctl(1, signal.SIGKILL)
wall0, origin, speed = (float(part) for part in os.environ.pop("CROSSWATCH_LAB_CLOCK").split(","))
_time, _sleep = time.time, time.sleep
time.time = lambda: origin + (_time() - wall0) * speed
time.sleep = lambda seconds: _sleep(seconds / speed)
request = json.load(sys.stdin)
with os.fdopen(int(sys.argv[1]), "w") as answer:
    try:
        module = {"__name__": "automation_script"}
        exec(compile(request["script"], "script.py", "exec"), module)
        result = {"payload": module[request["handler"]](request["payload"], {})}
        text = json.dumps(result, default=str)
    except BaseException as error:
        where = traceback.extract_tb(error.__traceback__)[-1]
        text = json.dumps({"error": f"{type(error).__name__}: {error} (line {where.lineno}, in {where.name})"})
        traceback.print_exc()
    answer.write(text)
"""
