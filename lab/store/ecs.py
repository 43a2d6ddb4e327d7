"""One Region's ECS: it starts the tasks of the five services, watches, restarts, scales and deploys them.

``python -m lab.store.ecs <region>`` keeps ``desired`` tasks of each service running. A task is PENDING until its health check passes, then
RUNNING and registered with the load balancer (ui) or Service Connect (the others). One that ends is taken out at once and replaced; a
service whose tasks fail before they ever ran is throttled, longer each time ("Amazon ECS service throttle logic"). A task that fails three
health checks in a row is stopped, one that uses more memory than its definition allows is killed. A deployment starts tasks of the new
revision, and stops the old ones when the new run. On ``ecs_port``:

    GET /status                                      services with desired, pending, running, revision, tasks, events
    POST /services/<s>/scale {"desired": 2}          /deploy {"environment": {"RETAIL_DEFECT": "status/500"}}    /rollback
    DELETE /tasks/<id>?how=kill|term|stop            crash one (kill), end it (term), freeze it (stop; how=cont thaws it)
    POST /window                                     CPU, memory and counts, as CloudWatch data
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import os
import secrets
import signal
import socket
import subprocess
import sys
import time
from collections import deque
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lab.admin import Refusal, call, serve
from lab.plan import SERVICES, LabPlan
from lab.store import names
from lab.store.datum import Datum, across
from lab.store.tasks import CPUS, MEMORY_MB, command, environment

if TYPE_CHECKING:
    from collections.abc import Iterator

TICK_S = 0.2
FIRST_BACKOFF_S = 1.0
LONGEST_BACKOFF_S = 300.0
HEALTH_EVERY_S = 10.0
WEIGHED_EVERY_S = 1.0
HEALTH_FAILURES = 3
HEALTH_TIMEOUT_S = 2.0
COMING_UP_S = 60.0
START_WITHIN_S = 60.0
PR_SET_PDEATHSIG = 1
HOW = {"kill": signal.SIGKILL, "term": signal.SIGTERM, "stop": signal.SIGSTOP, "cont": signal.SIGCONT}
TICKS = os.sysconf("SC_CLK_TCK")
PAGE = os.sysconf("SC_PAGE_SIZE")


@dataclass(slots=True)
class Task:
    """One running copy of a service. Times are wall, monotonic."""

    id: str
    service: str
    port: int
    revision: int
    process: subprocess.Popen[bytes]
    started: float
    state: str = "PENDING"
    failures: int = 0
    next_check: float = 0.0
    checking: bool = False
    cpu_s: float = 0.0
    weighed: float = 0.0
    why: str = ""


@dataclass(slots=True)
class Service:
    """A service and what is wanted of it. ``revisions`` holds each revision's additional environment."""

    name: str
    desired: int = 1
    revision: int = 1
    revisions: dict[int, dict[str, str]] = field(default_factory=lambda: {1: {}})
    tasks: dict[str, Task] = field(default_factory=dict)
    failed_starts: int = 0
    not_before: float = 0.0
    events: deque[tuple[float, str]] = field(default_factory=lambda: deque(maxlen=50))

    def of_revision(self, state: str | None = None) -> list[Task]:
        """The tasks of the newest revision, in ``state`` if given."""
        return [task for task in self.tasks.values() if task.revision == self.revision and state in {None, task.state}]

    @property
    def deploying(self) -> bool:
        """Whether tasks of an older revision are left, or the newest does not run in full."""
        return any(task.revision != self.revision for task in self.tasks.values()) or len(self.of_revision("RUNNING")) < self.desired


def backoff_s(failed_starts: int) -> float:
    """How long, in lab seconds, a service waits before its next start after ``failed_starts`` that never ran."""
    return min(LONGEST_BACKOFF_S, FIRST_BACKOFF_S * 2 ** max(0, failed_starts - 1)) if failed_starts else 0.0


class Cluster:
    """The ECS cluster of one Region. Everything runs on one thread, so that tasks die with this process and with nothing less."""

    def __init__(self, plan: LabPlan, region: str) -> None:
        self._plan = plan
        self._region = region
        self._clock = plan.clock
        self.services = {name: Service(name) for name in SERVICES}
        self._stopping: list[Task] = []
        self._window_began = time.monotonic()
        self._background: set[asyncio.Task[None]] = set()

    async def run(self, stop: asyncio.Event) -> None:
        """Keep the services as they are wanted until ``stop``."""
        await serve(self._plan.regions[self._region].ecs_port, self.handle)
        while not stop.is_set():
            for service in self.services.values():
                self._reap(service)
                self._limit(service)
                self._fill(service)
                self._watch(service)
                self._roll(service)
            self._stopping = [task for task in self._stopping if task.process.poll() is None]
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(stop.wait(), TICK_S)
        for task in [task for service in self.services.values() for task in service.tasks.values()] + self._stopping:
            task.process.kill()
            task.process.wait()

    # --- the loop's steps ---

    def _reap(self, service: Service) -> None:
        """Take tasks that have ended out of the service."""
        for task in [task for task in service.tasks.values() if task.process.poll() is not None]:
            code = task.process.returncode
            why = f"; {task.why}" if task.why else ""
            self._say(service, f"task {task.id} stopped with exit code {code if code >= 0 else 128 - code}{why}")
            if task.state == "PENDING":
                service.failed_starts += 1
                service.not_before = time.monotonic() + self._clock.wall_seconds(backoff_s(service.failed_starts))
            del service.tasks[task.id]
            if task.state == "RUNNING":
                self._later(self._deregister(task))

    def _limit(self, service: Service) -> None:
        """Kill every task that uses more memory than its definition allows, as the kernel does in a container."""
        now = time.monotonic()
        for task in service.tasks.values():
            if not task.why and now - task.weighed >= WEIGHED_EVERY_S:
                task.weighed = now
                if (resident_mb(task.process.pid) or 0.0) > MEMORY_MB:
                    task.why = "OutOfMemoryError: Container killed due to memory usage"
                    task.process.kill()

    def _fill(self, service: Service) -> None:
        """Start what is missing of the newest revision, and stop what is too much of it."""
        own = service.of_revision()
        if len(own) < service.desired and time.monotonic() >= service.not_before and self._has_room():
            self._start(service)
        for task in own[service.desired :]:
            self._stop(service, task, "scaled in")

    def _has_room(self) -> bool:
        """Whether another task may start now.

        When the lab comes up all start at once. In a lab that serves, a Region comes back task by task: its five interpreters at once would
        starve the other Region on a small machine, and the probes would rightly call that an outage.
        """
        starting = sum(task.state == "PENDING" for service in self.services.values() for task in service.tasks.values())
        return starting == 0 or time.time() - self._plan.clock.wall0 < COMING_UP_S

    def _start(self, service: Service) -> None:
        identity = secrets.token_hex(8)
        planned = self._plan.regions[self._region].service_ports[service.name]
        port = (
            planned
            if not any(task.port == planned for task in [*service.tasks.values(), *self._stopping]) and _is_free(planned)
            else _free_port()
        )
        values = environment(self._plan, self._region, service.name, port, identity) | service.revisions[service.revision]
        with (self._plan.logs / f"{self._region}-{service.name}.log").open("ab") as log:
            process = subprocess.Popen(
                command(service.name),
                env=values,
                cwd=self._plan.directory,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                preexec_fn=_die_with_parent,  # noqa: PLW1509  # one system call, no locks
            )
        service.tasks[identity] = Task(identity, service.name, port, service.revision, process, time.monotonic())
        self._say(service, f"started task {identity} of revision {service.revision}")

    def _watch(self, service: Service) -> None:
        """Begin the health checks that are due."""
        now = time.monotonic()
        for task in service.tasks.values():
            if not task.checking and now >= task.next_check:
                task.checking = True
                self._later(self._check(service, task))

    async def _check(self, service: Service, task: Task) -> None:
        good = await _healthy(task.port)
        task.checking = False
        now = time.monotonic()
        if task.id not in service.tasks:
            return
        task.next_check = now + (TICK_S if task.state == "PENDING" else max(0.5, self._clock.wall_seconds(HEALTH_EVERY_S)))
        if good and task.state == "PENDING":
            task.state = "RUNNING"
            service.failed_starts = 0
            await self._register(task)
            self._say(service, f"task {task.id} is running")
        elif task.state == "PENDING" and now - task.started > START_WITHIN_S:
            task.process.kill()
        elif task.state == "RUNNING":
            task.failures = 0 if good else task.failures + 1
            if task.failures >= HEALTH_FAILURES:
                self._stop(service, task, "failed its health checks")

    def _roll(self, service: Service) -> None:
        """Stop the tasks of older revisions when the newest runs in full."""
        if len(service.of_revision("RUNNING")) >= service.desired:
            for task in [task for task in service.tasks.values() if task.revision != service.revision]:
                self._stop(service, task, f"replaced by revision {service.revision}")

    def _stop(self, service: Service, task: Task, why: str) -> None:
        self._say(service, f"stopping task {task.id}: {why}")
        del service.tasks[task.id]
        self._stopping.append(task)
        self._later(self._drain(task))

    async def _drain(self, task: Task) -> None:
        if task.state == "RUNNING":
            await self._deregister(task)
        task.process.terminate()
        await asyncio.sleep(2)
        if task.process.poll() is None:
            task.process.kill()

    # --- where traffic comes from ---

    async def _register(self, task: Task) -> None:
        here = self._plan.regions[self._region]
        body = {"id": task.id, "port": task.port}
        port, path = (here.alb_admin_port, "/targets") if task.service == "ui" else (here.connect_admin_port, f"/endpoints/{task.service}")
        while task.process.poll() is None:
            try:
                await self._ask(port, "POST", path, body)
            except OSError:
                await asyncio.sleep(0.3)
            else:
                return

    async def _deregister(self, task: Task) -> None:
        here = self._plan.regions[self._region]
        port, path = (
            (here.alb_admin_port, f"/targets/{task.id}")
            if task.service == "ui"
            else (here.connect_admin_port, f"/endpoints/{task.service}/{task.id}")
        )
        with contextlib.suppress(OSError, Refusal):
            await self._ask(port, "DELETE", path, None)

    async def _ask(self, port: int, method: str, path: str, body: Any) -> Any:
        return await asyncio.get_running_loop().run_in_executor(None, partial(call, port, method, path, body, timeout_s=40))

    async def _re_register(self) -> None:
        """Tell load balancer and mesh of every running task again: one of them may have been started anew."""
        here = self._plan.regions[self._region]
        with contextlib.suppress(OSError, Refusal):
            known = {target["id"] for target in (await self._ask(here.alb_admin_port, "GET", "/status", None))["targets"]}
            mesh = await self._ask(here.connect_admin_port, "GET", "/status", None)
            known |= {endpoint["id"] for endpoints in mesh.values() for endpoint in endpoints}
            for service in self.services.values():
                for task in list(service.tasks.values()):  # tasks come and go while one is registered
                    if task.state == "RUNNING" and task.id not in known:
                        await self._register(task)

    async def keep_registered(self) -> None:
        """Reconcile registrations for ever."""
        while True:
            await asyncio.sleep(1.0)
            await self._re_register()

    def _later(self, work: Any) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._background.add(task)
        task.add_done_callback(self._background.discard)

    def _say(self, service: Service, text: str) -> None:
        service.events.append((self._clock.now(), text))
        print(f"{self._region} {service.name}: {text}", flush=True)

    # --- the control port ---

    async def handle(self, method: str, path: tuple[str, ...], query: dict[str, str], body: Any) -> Any:
        """The control port's requests."""
        match (method, path):
            case ("GET", ("status",)):
                return {name: self._describe(service) for name, service in self.services.items()}
            case ("POST", ("services", name, "scale")) if name in self.services:
                self.services[name].desired = int(body["desired"])
                self.services[name].not_before = 0.0
            case ("POST", ("services", name, "deploy")) if name in self.services:
                service = self.services[name]
                service.revision = max(service.revisions) + 1
                service.revisions[service.revision] = {str(key): str(value) for key, value in (body or {}).get("environment", {}).items()}
                service.failed_starts, service.not_before = 0, 0.0
            case ("POST", ("services", name, "rollback")) if name in self.services:
                service = self.services[name]
                service.revision = max(service.revisions) + 1
                service.revisions[service.revision] = {}
                service.failed_starts, service.not_before = 0, 0.0
            case ("DELETE", ("tasks", identity)):
                task = next((s.tasks[identity] for s in self.services.values() if identity in s.tasks), None)
                number = HOW.get(query.get("how", "kill"))
                if task is None or number is None:
                    raise Refusal(404, f"no task {identity!r}" if task is None else f"how: one of {', '.join(HOW)}")
                task.process.send_signal(number)
                return {"task": identity}
            case ("POST", ("window",)):
                return [datum.as_dict() for datum in self._data()]
            case _:
                raise Refusal(404, f"no such path: {method} /{'/'.join(path)}")
        return self._describe(self.services[path[1]])

    def _describe(self, service: Service) -> dict[str, Any]:
        return {
            "desired": service.desired,
            "running": sum(task.state == "RUNNING" for task in service.tasks.values()),
            "pending": sum(task.state == "PENDING" for task in service.tasks.values()),
            "revision": service.revision,
            "deploying": service.deploying,
            "failed_starts": service.failed_starts,
            "tasks": [
                {"id": t.id, "port": t.port, "pid": t.process.pid, "state": t.state, "revision": t.revision} for t in service.tasks.values()
            ],
            "events": list(service.events),
        }

    def _data(self) -> Iterator[Datum]:
        now = time.monotonic()
        span = max(0.001, now - self._window_began)
        self._window_began = now
        for service in self.services.values():
            used = [usage for task in service.tasks.values() if task.state == "RUNNING" and (usage := _usage(task, span))]
            yield from service_data(service, [cpu for cpu, _ in used], [memory for _, memory in used])


def service_data(service: Service, cpu_s_per_s: list[float], memory_mb: list[float]) -> Iterator[Datum]:
    """ECS's and Container Insights' metrics of one service. Utilisation exists only where tasks run, counts always."""
    dimensions = [{"ClusterName": names.CLUSTER, "ServiceName": service.name}]
    percent = [100 * value / CPUS for value in cpu_s_per_s]
    filled = [100 * value / MEMORY_MB for value in memory_mb]
    for metric, values in (("CPUUtilization", percent), ("MemoryUtilization", filled)):
        yield from across("AWS/ECS", metric, dimensions, values, "Percent")
    insights = "ECS/ContainerInsights"
    states = [task.state for task in service.tasks.values()]
    for metric, count in (
        ("DesiredTaskCount", service.desired),
        ("RunningTaskCount", states.count("RUNNING")),
        ("PendingTaskCount", states.count("PENDING")),
        ("DeploymentCount", len({task.revision for task in service.tasks.values()} | {service.revision})),
        ("TaskSetCount", 0),
    ):
        yield from across(insights, metric, dimensions, [float(count)])
    if percent:
        yield from across(insights, "CpuUtilized", dimensions, [1024 * sum(cpu_s_per_s)], "None")
        yield from across(insights, "CpuReserved", dimensions, [1024 * CPUS * len(percent)], "None")
        yield from across(insights, "MemoryUtilized", dimensions, [sum(memory_mb)], "Megabytes")
        yield from across(insights, "MemoryReserved", dimensions, [float(MEMORY_MB * len(filled))], "Megabytes")
        yield from across(insights, "TaskCpuUtilization", dimensions, percent, "Percent")
        yield from across(insights, "TaskMemoryUtilization", dimensions, filled, "Percent")


def _usage(task: Task, span_s: float) -> tuple[float, float] | None:
    """CPU seconds a second and resident megabytes of a task, or None where it is gone."""
    try:
        fields = Path(f"/proc/{task.process.pid}/stat").read_text().rpartition(")")[2].split()
        total = (int(fields[11]) + int(fields[12])) / TICKS
    except (OSError, IndexError):
        return None
    if (resident := resident_mb(task.process.pid)) is None:
        return None
    used, task.cpu_s = total - task.cpu_s, total
    return max(0.0, used) / span_s, resident


def resident_mb(pid: int) -> float | None:
    """Resident megabytes of a process, or None where it is gone."""
    try:
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * PAGE / (1 << 20)
    except (OSError, IndexError):
        return None


async def _healthy(port: int) -> bool:
    """Whether the task on ``port`` says that it is well."""
    writer = None
    try:
        async with asyncio.timeout(HEALTH_TIMEOUT_S):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(b"GET /health HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
            line = await reader.readline()
    except (OSError, TimeoutError):
        return False
    finally:
        if writer is not None:
            writer.close()
    return line.startswith(b"HTTP/1.1 200")


def _die_with_parent() -> None:
    _libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)


def _is_free(port: int) -> bool:
    with socket.socket() as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            sock.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def _free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port: int = sock.getsockname()[1]
    return port


_libc = ctypes.CDLL(None)


async def main(region: str) -> None:
    """Run until SIGTERM."""
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    cluster = Cluster(LabPlan.load(), region)
    keeper = asyncio.create_task(cluster.keep_registered())
    await cluster.run(stop)
    keeper.cancel()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))
