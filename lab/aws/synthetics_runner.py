"""Runs canaries on their schedules, in lab time, each in a warm process of its own (`canaries.runtime`).

A run starts a little after its tick, as on AWS: the delay is drawn evenly from `START_DELAY_S`, which the variable
``CROSSWATCH_LAB_START_DELAY`` ("low,high", lab seconds) changes. Two runs of one canary may overlap, a third is left out. In a Region that
is down nothing runs, and what ran there is killed.
"""

from __future__ import annotations

import contextlib
import logging
import os
import random
import signal
import threading
import time
import uuid
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from canaries.runtime.api import CanaryRefusedError, RunRequest
from canaries.runtime.sandbox import Sandbox
from lab.aws import schedules
from lab.aws.agenda import Agenda
from lab.aws.service import AwsError
from lab.aws.support import LogWriter, role_environment, stamp
from lab.aws.synthetics_model import Canary, Config, DryRun, Run, State

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from canaries.runtime.api import RunResult
    from lab.aws.service import World

log = logging.getLogger(__name__)

START_DELAY_S = (2.0, 10.0)
START_DELAY_VARIABLE = "CROSSWATCH_LAB_START_DELAY"
OVERLAPPING = 2
CREDENTIALS_WALL_S = 1800.0
DOWN_POLL_WALL_S = 0.25


@dataclass(slots=True)
class _Credentials:
    """A session of a canary's role, and until when (monotonic) it is used."""

    role: str
    variables: dict[str, str]
    until: float


class Runner:
    """Keeps the schedules of all canaries of the lab, and their processes. ``ended`` is told about every run that is over."""

    def __init__(self, world: World, folder: Path, ended: Callable[[Canary, Run], None]) -> None:
        self._world = world
        self._folder = folder
        self._ended = ended
        self._agenda = Agenda(world.clock, "synthetics", workers=32)
        self._random = random.Random()
        self._delay = start_delay()
        self._lock = threading.Lock()
        self._idle: dict[str, list[Sandbox]] = {}
        self._busy: dict[str, list[Sandbox]] = {}
        self._credentials: dict[str, _Credentials] = {}
        self._closed = threading.Event()
        self._watch: threading.Thread | None = None

    def close(self) -> None:
        """Kill everything that runs."""
        self._closed.set()
        self._agenda.close()
        with self._lock:
            busy = [sandbox for sandboxes in self._busy.values() for sandbox in sandboxes]
            idle = [sandbox for sandboxes in self._idle.values() for sandbox in sandboxes]
            self._idle.clear()
        for sandbox in busy:
            _kill(sandbox)
        for sandbox in (*idle, *busy):
            sandbox.close()

    def later(self, lab_seconds: float, work: Callable[[], None]) -> None:
        """Do ``work`` after a while; how states that take time are left."""
        self._agenda.after(lab_seconds, work)

    def start(self, canary: Canary) -> None:
        """Begin the schedule, first run included; an older schedule of the canary is void."""
        canary.epoch += 1
        now = self._world.clock.now()
        schedule = schedules.parse_canary(canary.config.schedule["Expression"])
        first = now if isinstance(schedule, schedules.Rate) else schedule.after(now)
        duration = canary.config.schedule.get("DurationInSeconds", 0)
        self._plan(canary, canary.epoch, schedule, first, now + duration if duration else None)

    def stop(self, canary: Canary) -> None:
        """End the schedule; a run that is under way completes."""
        canary.epoch += 1

    def forget(self, canary: Canary) -> None:
        """End the schedule and the canary's idle processes."""
        self.stop(canary)
        with self._lock:
            gone = self._idle.pop(canary.arn, [])
        for sandbox in gone:
            sandbox.close()

    def running(self, canary: Canary) -> int:
        """How many of its runs are under way."""
        with self._lock:
            return len(self._busy.get(canary.arn, []))

    def try_out(self, canary: Canary, dry_run: DryRun, done: Callable[[Run], None]) -> None:
        """Run the configuration of a dry run once."""

        def work() -> None:
            run = self._execute(canary, dry_run.config, str(uuid.uuid4()), 0, self._world.clock.now(), dry_run.id)
            if run is not None:
                done(run)

        self._agenda.soon(work)

    def _plan(self, canary: Canary, epoch: int, schedule: schedules.Rate | schedules.Cron, tick: float | None, end: float | None) -> None:
        """Put the run of ``tick`` and, at that time, the next tick on the agenda."""
        if tick is None or (end is not None and tick >= end):
            self._agenda.at(end or self._world.clock.now(), lambda: self._finish_schedule(canary, epoch))
            return

        def due() -> None:
            if canary.epoch != epoch:
                return
            now = self._world.clock.now()
            if not self._world.is_down(canary.region):
                self._agenda.at(tick + self._random.uniform(*self._delay), lambda: self._scheduled(canary, epoch, tick))
            following = schedule.after(tick)
            while following is not None and following <= now:  # the machine was busy: ticks that passed are left out
                following = schedule.after(following)
            if following is not None:
                self._plan(canary, epoch, schedule, following, end)
            else:
                self._agenda.after(self._delay[1] + 1, lambda: self._finish_schedule(canary, epoch))

        self._agenda.at(tick, due)

    def _finish_schedule(self, canary: Canary, epoch: int) -> None:
        """A schedule that has an end (run once, DurationInSeconds) stops its canary when the last run is over."""
        if canary.epoch != epoch or canary.state is not State.RUNNING:
            return
        if self.running(canary):
            self._agenda.after(1.0, lambda: self._finish_schedule(canary, epoch))
            return
        canary.stopped = self._world.clock.now()
        canary.become(State.STOPPED)

    def _scheduled(self, canary: Canary, epoch: int, tick: float) -> None:
        """One scheduled run with its retries."""
        if canary.epoch != epoch or self._world.is_down(canary.region) or self._closed.is_set():
            return
        config = canary.config
        scheduled_id = str(uuid.uuid4())
        for attempt in range(1 + config.schedule.get("RetryConfig", {}).get("MaxRetries", 0)):
            run = self._execute(canary, config, scheduled_id, attempt, tick, "")
            if run is None or run.state == "PASSED" or canary.epoch != epoch or self._world.is_down(canary.region):
                return

    def _execute(self, canary: Canary, config: Config, scheduled_id: str, attempt: int, tick: float, dry_run: str) -> Run | None:
        """One attempt, recorded; None where it could not be made (two are under way already)."""
        sandbox = self._take(canary)
        if sandbox is None:
            log.warning("%s: two runs of %s are under way, this one is left out", canary.region, canary.name)
            return None
        run = Run(str(uuid.uuid4()), scheduled_id, canary.name, self._world.clock.now(), attempt, dry_run)
        canary.runs.appendleft(run)
        result: RunResult | None = None
        try:
            request = self._request(canary, config, run, tick)
            result = sandbox.run(request)
            run.state, run.test_result = str(result.state), str(result.test_result)
            run.reason, run.reason_code = result.state_reason, str(result.state_reason_code or "")
            run.artifacts, run.completed = result.artifact_location, result.ended
        except (CanaryRefusedError, AwsError, OSError) as error:
            run.state, run.reason, run.reason_code = "FAILED", str(error)[:1024], "EXECUTION_FAILURE"
        finally:
            if run.completed is None:
                run.completed = self._world.clock.now()
            self._give_back(canary, sandbox)
        if not self._world.is_down(canary.region):
            self._write_log(canary, run, result)
            self._ended(canary, run)
        return run

    def _request(self, canary: Canary, config: Config, run: Run, tick: float) -> RunRequest:
        if config.bundle is None:
            raise OSError("the canary has no code")
        return RunRequest(
            canary=canary.name,
            handler=config.handler,
            bundle=config.bundle,
            region=canary.region,
            run_id=run.id,
            arn=canary.arn,
            canary_id=canary.id,
            runtime_version=config.runtime,
            artifacts=config.artifacts,
            environment=config.environment,
            credentials=self._role(canary, config),
            timeout_s=float(config.run["TimeoutInSeconds"]),
            memory_mb=int(config.run["MemoryInMB"]),
            ephemeral_mb=int(config.run.get("EphemeralStorage", 1024)),
            scheduled=tick,
            retry_attempt=run.attempt,
            max_retries=int(config.schedule.get("RetryConfig", {}).get("MaxRetries", 0)),
            dry_run=bool(run.dry_run),
            lab_clock=self._world.clock.to_environment(),
        )

    def _role(self, canary: Canary, config: Config) -> dict[str, str]:
        """Credentials of the canary's role, the same for half an hour, for a new set would cost the warm process."""
        with self._lock:
            found = self._credentials.get(canary.arn)
        if found is None or found.role != config.role or found.until < time.monotonic():
            variables = role_environment(self._world, canary.region, config.role, canary.function)
            found = _Credentials(config.role, variables, time.monotonic() + CREDENTIALS_WALL_S)
            with self._lock:
                self._credentials[canary.arn] = found
        return found.variables

    def _take(self, canary: Canary) -> Sandbox | None:
        with self._lock:
            busy = self._busy.setdefault(canary.arn, [])
            if len(busy) >= OVERLAPPING or self._closed.is_set():
                return None
            idle = self._idle.setdefault(canary.arn, [])
            sandbox = idle.pop() if idle else Sandbox(canary.name, self._folder)
            busy.append(sandbox)
            if self._watch is None:
                self._watch = threading.Thread(target=self._kill_with_region, name="synthetics-watch", daemon=True)
                self._watch.start()
            return sandbox

    def _give_back(self, canary: Canary, sandbox: Sandbox) -> None:
        with self._lock:
            self._busy[canary.arn].remove(sandbox)
            keep = not self._closed.is_set() and canary.state is not State.DELETING
            if keep:
                self._idle[canary.arn].append(sandbox)
        if not keep:
            sandbox.close()

    def _kill_with_region(self) -> None:
        """Kill what runs in a Region when that Region goes down."""
        while not self._closed.wait(DOWN_POLL_WALL_S):
            with self._lock:
                running = [(arn.split(":")[3], sandbox) for arn, busy in self._busy.items() for sandbox in busy]
            for region, sandbox in running:
                if self._world.is_down(region):
                    _kill(sandbox)

    def _write_log(self, canary: Canary, run: Run, result: RunResult | None) -> None:
        """The run's log, framed as Lambda frames it."""
        if result is None:
            return
        duration = f"Duration: {(result.ended - result.started) * 1000:.2f} ms"
        memory = f"Memory Size: {canary.config.run['MemoryInMB']} MB\tMax Memory Used: {result.max_memory_mb:.0f} MB"
        lines = [
            (result.started, f"START RequestId: {run.id} Version: {canary.config.version}"),
            *((line.timestamp, line.message) for line in result.log),
            *([(result.ended, result.state_reason)] if not result.report and result.state_reason else []),
            (result.ended, f"END RequestId: {run.id}"),
            (result.ended, f"REPORT RequestId: {run.id}\t{duration}\t{memory}"),
        ]
        day = stamp(result.started).strftime("%Y/%m/%d")
        principal = f"assumed-role/{canary.config.role.rpartition('/')[2]}/{canary.function}"
        writer = LogWriter(self._world, canary.region, f"/aws/lambda/{canary.function}", principal)
        writer.write(f"{day}/[{canary.config.version}]{canary.id.replace('-', '')}", lines)


def start_delay(environment: dict[str, Any] | None = None) -> tuple[float, float]:
    """The bounds of the start delay, in lab seconds. Raises ValueError that names the variable where it is malformed."""
    text = (os.environ if environment is None else environment).get(START_DELAY_VARIABLE)
    if not text:
        return START_DELAY_S
    try:
        low, high = (float(part) for part in text.split(","))
    except ValueError:
        raise ValueError(f"{START_DELAY_VARIABLE}={text}: expected two numbers of seconds, such as 2,10") from None
    if not 0 <= low <= high:
        raise ValueError(f"{START_DELAY_VARIABLE}={text}: expected 0 <= low <= high")
    return low, high


def _kill(sandbox: Sandbox) -> None:
    pid = sandbox.pid
    if pid is not None:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(pid, signal.SIGKILL)
