"""Warm sandboxes: one for each event that runs at the same time, kept for the next event, thrown away when the function changes."""

from __future__ import annotations

import hashlib
import itertools
import threading
import time
import uuid
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from lab.aws.lambda_sandbox import Sandbox, SandboxSpec
from lab.aws.service import AwsError
from lab.aws.support import LogWriter, role_environment, stamp

if TYPE_CHECKING:
    from collections.abc import Callable

    from lab.aws.lambda_config import Function
    from lab.aws.lambda_sandbox import Outcome
    from lab.aws.service import World

ACCOUNT_CONCURRENCY = 100
IDLE_KEPT = 2
IDLE_WALL_S = 600.0
OLDEST_WALL_S = 1800.0  # well before the credentials of an hour run out
DOWN_POLL_WALL_S = 0.5


@dataclass(slots=True)
class _Fleet:
    """One function's sandboxes. ``generation`` counts the function's changes: a sandbox of an earlier one takes no further event."""

    idle: list[Sandbox] = field(default_factory=list)
    busy: int = 0
    generation: int = 0


class Pool:
    """Runs events in sandboxes."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._fleets: dict[str, _Fleet] = {}
        self._lock = threading.Lock()
        self._closed = False
        self._streams = itertools.count()

    def run(self, function: Function, request_id: str, payload: bytes) -> Outcome:
        """One event, from start to log. Raises `AwsError` where the function may not run (throttled, no role, Region down)."""
        if self._world.is_down(function.region):
            raise AwsError("RegionUnavailable", f"{function.region} does not answer", 503)
        sandbox, generation = self._take(function)
        try:
            outcome = sandbox.invoke(request_id, function.arn, payload, _watch(self._world, function.region))
        finally:
            self._give_back(function, sandbox, generation)
        if sandbox.interrupted:  # also where the Region is back by now: this was its end, not the function's
            raise AwsError("RegionUnavailable", f"{function.region} does not answer", 503)
        return replace(outcome, log=self._report(function, request_id, outcome, sandbox))

    def running(self, function: Function) -> int:
        """Events that run now, the one that just ended included."""
        with self._lock:
            fleet = self._fleets.get(function.arn)
            return max(1, fleet.busy if fleet else 0)

    def retire(self, function: Function) -> None:
        """Throw idle sandboxes away; busy ones follow when they are done."""
        with self._lock:
            fleet = self._fleets.get(function.arn)
            gone = fleet.idle if fleet else []
            if fleet:
                fleet.idle, fleet.generation = [], fleet.generation + 1
        for sandbox in gone:
            sandbox.close()

    def close(self) -> None:
        """End every sandbox that is idle, and each busy one when it is done."""
        with self._lock:
            self._closed = True
            gone = [sandbox for fleet in self._fleets.values() for sandbox in fleet.idle]
            self._fleets.clear()
        for sandbox in gone:
            sandbox.close()

    def _take(self, function: Function) -> tuple[Sandbox, int]:
        """A sandbox that nobody else uses, and the generation it belongs to. Raises `AwsError` where there may be no further one."""
        with self._lock:
            fleet = self._fleets.setdefault(function.arn, _Fleet())
            limit = ACCOUNT_CONCURRENCY if function.reserved is None else function.reserved
            if fleet.busy >= limit or sum(each.busy for each in self._fleets.values()) >= ACCOUNT_CONCURRENCY:
                raise AwsError(
                    "TooManyRequestsException", "Rate Exceeded.", 429, Reason="ReservedFunctionConcurrentInvocationLimitExceeded"
                )
            fleet.busy += 1
            generation = fleet.generation
            stale = [sandbox for sandbox in fleet.idle if not _usable(sandbox)]
            fleet.idle = [sandbox for sandbox in fleet.idle if _usable(sandbox)]
            warm = fleet.idle.pop() if fleet.idle else None
        for sandbox in stale:
            sandbox.close()
        try:
            return warm or self._start(function), generation
        except BaseException:
            with self._lock:
                fleet.busy -= 1
            raise

    def _start(self, function: Function) -> Sandbox:
        if function.code is None:
            raise AwsError("ResourceNotFoundException", f"Function not found: {function.arn}", 404)
        try:
            credentials = role_environment(self._world, function.region, function.role, function.name)
        except AwsError as error:
            raise AwsError("AccessDeniedException", f"The role {function.role} cannot be assumed: {error.message}", 403) from error
        day = stamp(self._world.clock.now()).strftime("%Y/%m/%d")
        identity = hashlib.sha256(f"{uuid.uuid4()}{next(self._streams)}".encode()).hexdigest()[:32]
        spec = SandboxSpec(
            function=function.name,
            handler=str(function.shown["Handler"]),
            code=function.code,
            environment={**function.environment, **credentials},
            timeout_s=float(function.shown["Timeout"]),
            memory_mb=int(function.shown["MemorySize"]),
            stream=f"{day}/[$LATEST]{identity}",
        )
        return Sandbox(spec, self._world.clock)

    def _give_back(self, function: Function, sandbox: Sandbox, generation: int) -> None:
        with self._lock:
            fleet = self._fleets.get(function.arn)
            keep = False
            if fleet:
                fleet.busy -= 1
                keep = not self._closed and generation == fleet.generation and len(fleet.idle) < IDLE_KEPT and _usable(sandbox)
                if keep:
                    fleet.idle.append(sandbox)
        if not keep:
            sandbox.close()

    def _report(self, function: Function, request_id: str, outcome: Outcome, sandbox: Sandbox) -> tuple[tuple[float, str], ...]:
        """The event's log as Lambda writes it, also to the log group."""
        now = self._world.clock.now()
        began = now - outcome.wall_ms / 1000 * self._world.clock.speed
        cold = "" if outcome.init_wall_ms is None else f"\tInit Duration: {outcome.init_wall_ms:.2f} ms"
        duration = f"Duration: {outcome.wall_ms:.2f} ms\tBilled Duration: {-(-outcome.wall_ms // 1):.0f} ms"
        memory = f"Memory Size: {sandbox.spec.memory_mb} MB\tMax Memory Used: {outcome.memory_mb:.0f} MB"
        lines = (
            (began, f"START RequestId: {request_id} Version: $LATEST"),
            *outcome.log,
            (now, f"END RequestId: {request_id}"),
            (now, f"REPORT RequestId: {request_id}\t{duration}\t{memory}{cold}"),
        )
        principal = f"assumed-role/{function.role.rpartition('/')[2]}/{function.name}"
        LogWriter(self._world, function.region, f"/aws/lambda/{function.name}", principal).write(sandbox.spec.stream, lines)
        return lines


def _usable(sandbox: Sandbox) -> bool:
    now = time.monotonic()
    return sandbox.alive and now - sandbox.started < OLDEST_WALL_S and now - sandbox.used < IDLE_WALL_S


def _watch(world: World, region: str) -> Callable[[], bool]:
    """A function that tells whether ``region`` went down, looking at most twice a second."""
    due = 0.0

    def is_down() -> bool:
        nonlocal due
        if time.monotonic() < due:
            return False
        due = time.monotonic() + DOWN_POLL_WALL_S
        return world.is_down(region)

    return is_down
