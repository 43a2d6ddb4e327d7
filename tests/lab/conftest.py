"""A whole lab for tests: its own directory, its own ports, and nothing left of it afterwards, whatever the test did."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from lab.control import ask
from lab.plan import LabPlan
from lab.state import processes_of, read_owner
from tests.folders import open_folder

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

ROOT = Path(__file__).resolve().parents[2]
UP_WITHIN_S = 120.0
ENDED = {"Success", "Failed", "TimedOut", "Cancelled", "Rejected"}


@dataclass(frozen=True, slots=True)
class Lab:
    """A running lab: its plan, the ``lab up`` that runs it, and ways to talk to it."""

    directory: Path
    process: subprocess.Popen[bytes]
    identity: str

    @property
    def plan(self) -> LabPlan:
        """All addresses."""
        return LabPlan.load(self.directory)

    @property
    def output(self) -> str:
        """What ``lab up`` has printed."""
        return (self.directory.parent / f"{self.directory.name}.output").read_text()

    def ask(self, do: str, **request: Any) -> Any:
        """Over the control socket."""
        return ask(self.directory, do, **request)

    def run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """``lab …`` in a terminal of its own."""
        return subprocess.run(
            [sys.executable, str(ROOT / "deploy.py"), "lab", *arguments],
            env=environment(self.directory),
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=False,
        )

    def client(self, service: str, region: str, endpoint_url: str | None = None) -> Any:
        """A boto3 client of the lab's administrator, patient as the SDK is by default only with a Region's own endpoint."""
        import boto3
        from botocore.config import Config

        pair = self.plan.credentials["admin"]
        return boto3.client(
            service,
            region_name=region,
            endpoint_url=endpoint_url or self.plan.regions[region].aws_endpoint,
            aws_access_key_id=pair.access_key,
            aws_secret_access_key=pair.secret_key,
            config=Config(retries={"total_max_attempts": 1 if endpoint_url else 3}),
        )

    def wait(self, what: str, is_true: Callable[[], bool], within_s: float = 60.0) -> None:
        """Wait until ``is_true()``; fails the test where it does not become so."""
        deadline = time.monotonic() + within_s
        while not is_true():
            assert self.process.poll() is None, f"the lab ended while waiting for {what}:\n{self.output}"
            assert time.monotonic() < deadline, f"{what}: not within {within_s:g} s\n{self.output[-4000:]}"
            time.sleep(0.1)

    def runbook(self, region: str, document: str, within_s: float = 300.0, **parameters: str) -> str:
        """Run a runbook from ``region`` to its end; its status, with why where it is not a success."""
        ssm = self.client("ssm", region)
        given = {name: [value] for name, value in parameters.items()}
        execution = ssm.start_automation_execution(DocumentName=f"retail-{document}", Parameters=given)["AutomationExecutionId"]
        found: dict[str, Any] = {}

        def over() -> bool:
            found.update(ssm.get_automation_execution(AutomationExecutionId=execution)["AutomationExecution"])
            return found["AutomationExecutionStatus"] in ENDED

        self.wait(f"{document} to end", over, within_s)
        return f"{found['AutomationExecutionStatus']} {found.get('FailureMessage', '')}".strip()


def environment(directory: Path) -> dict[str, str]:
    """The environment of a terminal that talks to the lab in ``directory``."""
    return {**os.environ, "CROSSWATCH_LAB_DIR": str(directory), "COLUMNS": "160"}


@contextlib.contextmanager
def running_lab(directory: Path, *options: str) -> Iterator[Lab]:
    """Bring a lab up and take it down; fails where anything is left of it. No shoppers come unless ``--traffic`` is among the options."""
    traffic = () if "--traffic" in options else ("--no-traffic",)
    with (directory.parent / f"{directory.name}.output").open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, str(ROOT / "deploy.py"), "lab", "up", *traffic, *options],
            env=environment(directory),
            cwd=ROOT,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
        )
    identity = ""
    try:
        deadline = time.monotonic() + UP_WITHIN_S
        while not identity:
            owner = read_owner(directory)
            identity = owner.identity if owner and owner.pid == process.pid else ""
            assert process.poll() is None, (directory.parent / f"{directory.name}.output").read_text()
            assert time.monotonic() < deadline
            time.sleep(0.02)
        yield Lab(directory, process, identity)
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
    deadline = time.monotonic() + 10
    while directory.exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not directory.exists()
    assert not list(processes_of(identity))


@pytest.fixture(scope="module")
def lab_folder() -> Iterator[Path]:
    """A folder for a lab: PostgreSQL, which does not run as root, must be able to pass through it, so pytest's own will not do."""
    with open_folder("lab") as folder:
        yield folder


@pytest.fixture(scope="module")
def store_lab(lab_folder: Path) -> Iterator[Lab]:
    """A lab that serves, without monitoring, at ten times the wall's speed."""
    with running_lab(lab_folder / "lab", "--no-deploy", "--speed", "10") as lab:
        lab.wait("the store to be up", lambda: "are up" in lab.output, UP_WITHIN_S)
        yield lab


@pytest.fixture(scope="module")
def watched_lab(lab_folder: Path) -> Iterator[Lab]:
    """A lab with its monitoring deployed and all-green, at ten times the wall's speed."""
    with running_lab(lab_folder / "lab", "--speed", "10") as lab:
        lab.wait("all to be green", lambda: "all green" in lab.output, 3 * UP_WITHIN_S)
        yield lab
