"""A soak of one service in the lab: a steady load, telemetry endpoints in and out of trouble, and the same service without telemetry.

    python bench/lab_service_soak.py --minutes 30 --rate 200 --out out/service-soak

Brings up a lab of its own (two Regions, speed 1, no monitoring) and takes the Catalog of the first Region as the lab's ECS starts it:
under opentelemetry-instrument, with the crosswatch distro. One request is `GET /catalogue?size=10`: one answer, one query to PostgreSQL,
two spans, one log record, and metrics, which are collected every five seconds here. Beside it runs the same code without telemetry, on the
same database. A process of its own sends Poisson arrivals at ``--rate`` to the one and, half a second later, every fourth of them to the
other (`lab_service_load.py`): the bare service is there to tell what the machine does to a p99, and must not be what fills the machine.

Every second minute the endpoints for traces, logs and metrics are in trouble, as a deck of `KINDS` shuffled by ``--seed`` says: in the own
Region, or (*) in both, so that nothing can be delivered anywhere and the spool fills.

Exit code 0 if every request was answered, the ledger was exact in each of its samples and at the end everything emitted was delivered and
nothing dropped, every trace that was looked for was found in X-Ray, the memory was flat, and faults did not move the p99 by more than
noise; 1 otherwise. ``--out`` gets ``service-soak.json``, ``.png``, and every request in ``.npz``.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import math
import os
import random
import secrets
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from bench import lab_service_report as report
from bench.lab_service_load import RECORD, arrivals
from bench.lab_service_witness import LedgerReader, Spans, log_events
from lab import admin
from lab.faults.ground import Ground
from lab.plan import DIRECTORY_VARIABLE
from lab.process import ProcessSpec
from lab.running import Reports, RunningLab, StartError
from lab.state import LabIsRunning
from lab.store import names, tasks
from lab.supervisor import LabEnded
from lab.warden import descendants

SERVICE, PATH = "catalog", "/catalogue?size=10"
SPANS_A_REQUEST = 2
SHIFT_S = 0.5
CONTROL_EVERY = 4
WARM_UP_S = 30.0
COLLECT_S = 5.0
SAMPLE_S = 5.0
DRAIN_S = 150.0
REPLAY_S = 8.0  # after an outage, until most of what waited has been delivered
CLOUDWATCH_S = 10.0  # until it shows what was counted last
HEADLINE = "minute  endpoints     bare p50     p99   instr. p50     p99      MB  spool MB   CPU, % of a core"
TICKS, PAGE = os.sysconf("SC_CLK_TCK"), os.sysconf("SC_PAGE_SIZE")
# What the exporters call; everything else, with which we look, is left alone.
TELEMETRY = (("xray", "PutTraceSegments"), ("logs", "PutLogEvents"), ("cloudwatch", "PutMetricData"))
KINDS: dict[str, dict[str, Any]] = {
    "reset": {"kind": "reset"},
    "throttled": {"kind": "throttle", "share": 0.9},
    "hanging": {"kind": "hang"},
    "slow": {"kind": "slow", "ms": 2000},
    "unavailable": {"kind": "refuse", "code": "ServiceUnavailableException", "status": 503},
    "denied": {"kind": "refuse", "code": "AccessDeniedException", "status": 403},
    "refused": {"kind": "down"},
}


class Interrupted(BaseException):
    """A signal asks us to end."""


@dataclass(frozen=True, slots=True)
class Phase:
    """A minute: what is wrong with the endpoints (empty: nothing), and whether in every Region."""

    minute: int
    kind: str = ""
    everywhere: bool = False

    @property
    def label(self) -> str:
        """Short."""
        return self.kind + ("*" if self.everywhere else "")


def schedule(minutes: int, seed: int) -> list[Phase]:
    """Every second minute a card from the shuffled deck; a new deck when it is used up."""
    draw = random.Random(seed)
    deck: list[tuple[str, bool]] = []
    phases = []
    for minute in range(minutes):
        if minute % 2 == 0:
            phases.append(Phase(minute))
            continue
        if not deck:
            deck = [(kind, everywhere) for kind in KINDS for everywhere in (False, True)]
            draw.shuffle(deck)
        phases.append(Phase(minute, *deck.pop()))
    return phases


def memory_warm_up_s(phases: list[Phase], seconds: float) -> float:
    """Until when memory may still grow: a fifth of the time, and until a minute's telemetry had to wait once and was delivered."""
    first = next((phase.minute for phase in phases if phase.everywhere), 0)
    return max(0.2 * seconds, WARM_UP_S + 60.0 * (first + 2))


def cpu_s(*roots: int) -> float:
    """CPU seconds of processes and all below them."""
    total = 0
    for pid in {pid for root in roots for pid in (root, *descendants(root))}:
        with contextlib.suppress(OSError):
            total += sum(map(int, Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[11:13]))
    return total / TICKS


def resident_mb(pid: int) -> float:
    """Resident memory of one process, in millions of bytes."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * PAGE / 1e6


def machine_s() -> float:
    """CPU seconds that the machine has been busy, all cores."""
    fields = list(map(int, Path("/proc/stat").read_text().splitlines()[0].split()[1:9]))
    return (sum(fields) - fields[3] - fields[4]) / TICKS


@dataclass(slots=True)
class Meter:
    """CPU of the parts, as shares of one core since the last reading."""

    roots: dict[str, int]
    _before: dict[str, float] = field(default_factory=dict)

    def read(self) -> dict[str, float]:
        """Per cent of a core by part; ``others`` is what the rest of the machine used."""
        now = {name: cpu_s(pid) for name, pid in self.roots.items()}
        now |= {"all of this": cpu_s(os.getpid()), "machine": machine_s(), "_at": time.monotonic()}
        before, self._before = self._before or now, now
        span = max(1e-9, now["_at"] - before["_at"])
        shares = {name: round(100 * (value - before[name]) / span, 1) for name, value in now.items() if name != "_at"}
        return shares | {"others": round(shares["machine"] - shares["all of this"], 1)}


class Soak:
    """One soak in a lab that runs. `run` plays it; the results are in ``result``."""

    def __init__(self, lab: RunningLab, options: argparse.Namespace, console: Console) -> None:
        self._lab, self._options, self._console = lab, options, console
        self._plan = lab.plan
        self._regions = list(lab.plan.regions)
        self._home = self._regions[0]
        self._ground = Ground(lab.plan, lab.supervisor)
        self._phases = schedule(options.minutes, options.seed)
        self._seconds = WARM_UP_S + 60.0 * options.minutes
        self._moments = arrivals(options.rate, self._seconds, options.seed)
        self._statuses = np.full((2, len(self._moments)), -1, np.int16)
        self._latencies = np.zeros((2, len(self._moments)), np.float32)
        self._unsent = np.zeros((2, len(self._moments)), np.float32)
        self._records = self._plan.path / "tmp" / "service-soak.records"
        self._every = (1, CONTROL_EVERY)
        self._taken = self._answers = 0
        self._samples: list[dict[str, Any]] = []
        self._minutes: list[dict[str, Any]] = []

    # -- the two services ---

    def start_services(self) -> None:
        """The instrumented one, anew with its metrics collected every `COLLECT_S`; the bare one; and the load, which waits."""
        here = self._plan.regions[self._home]
        settings = {"OTEL_METRIC_EXPORT_INTERVAL": str(int(COLLECT_S * 1000))}
        admin.call(here.ecs_port, "POST", f"/services/{SERVICE}/deploy", {"environment": settings})
        self._ground.await_(f"the new revision of {SERVICE}", lambda: not self._service()["deploying"], within_s=60)
        (task,) = (each for each in self._service()["tasks"] if each["state"] == "RUNNING")
        self._task = task
        port = free_port()
        self._start("bare", tasks.command(SERVICE), bare_environment(self._lab, self._home, port), lambda: _healthy(port))
        self._start_mono, self._began = time.monotonic() + 3.0, time.time() + 3.0
        self._run = secrets.token_hex(6)
        told = {
            "start": self._start_mono,
            "began": self._began,
            "seconds": self._seconds,
            "rate": self._options.rate,
            "seed": self._options.seed,
            "run": self._run,
            "out": str(self._records),
            "targets": [
                {"port": task["port"], "path": PATH, "shift": 0.0, "every": self._every[0]},
                {"port": port, "path": PATH, "shift": SHIFT_S, "every": self._every[1]},
            ],
        }
        self._records.touch()
        self._start("load", (sys.executable, "-m", "bench.lab_service_load", json.dumps(told)), {}, lambda: True)
        pids = self._lab.supervisor.pid
        parts = {"bare": f"{self._home}/bare", "load": f"{self._home}/load", "database": f"{self._home}/aurora", "local AWS": "aws"}
        found = {"instrumented": task["pid"]} | {name: pids(part) for name, part in parts.items()}
        self._meter = Meter({name: pid for name, pid in found.items() if pid})
        self._pids = {"instrumented": task["pid"], "bare": self._meter.roots["bare"]}
        self._spans = Spans(self._plan, self._regions, self._run, self._began, self._moments, self._statuses[0])
        self._ledger = LedgerReader(self._plan, self._regions, task["id"])

    def _start(self, part: str, argv: tuple[str, ...], environment: dict[str, str], ready: Callable[[], bool]) -> None:
        name = f"{self._home}/{part}"
        self._lab.supervisor.start([ProcessSpec(name, argv, environment=environment, directory=ROOT, ready=ready, ready_within_s=60.0)])

    def _service(self) -> dict[str, Any]:
        answer: dict[str, Any] = admin.call(self._plan.regions[self._home].ecs_port, "GET", "/status")[SERVICE]
        return answer

    @property
    def _spool(self) -> Path:
        return self._plan.path / "spool" / self._home / SERVICE

    # -- the soak ---

    def run(self) -> dict[str, Any]:
        """Play every minute, wait until everything has arrived, and say what was seen."""
        self._spans.start()
        self._meter.read()
        with Progress(
            TextColumn("[bold]{task.description:14}"), BarColumn(None), TextColumn("{task.percentage:3.0f} %"), TimeRemainingColumn(),
            TextColumn("{task.fields[said]}"), console=self._console, transient=True, disable=not self._console.is_terminal,
        ) as progress:  # fmt: skip
            bar = progress.add_task("warm-up", total=self._seconds, said="")

            def show(what: str) -> None:
                progress.update(bar, completed=min(max(0.0, self._now), self._seconds), description=what, said=self._said())

            self._until(WARM_UP_S, "warm-up", show)
            self._meter.read()
            for phase in self._phases:
                with self._trouble(phase):
                    self._until(WARM_UP_S + 60.0 * (phase.minute + 1), phase.label or "all is well", show)
                self._close_minute(phase)
            self._until(self._seconds + SHIFT_S + 0.5, "last answers", show)
            self._drain(show)
        return self._result()

    @property
    def _now(self) -> float:
        """Seconds since the first arrival."""
        return time.monotonic() - self._start_mono

    def _until(self, moment: float, what: str, show: Callable[[str], None]) -> None:
        """Watch until ``moment``, in seconds since the first arrival."""
        while (ahead := moment - self._now) > 0:
            self._take_records()
            self._sample()
            show(what)
            time.sleep(min(0.25, ahead))

    @contextlib.contextmanager
    def _trouble(self, phase: Phase) -> Iterator[None]:
        if not phase.kind:
            yield
            return
        regions = self._regions if phase.everywhere else [self._home]
        options = dict(KINDS[phase.kind])
        kind = options.pop("kind")
        where: list[tuple[str | None, dict[str, str]]] = [(service, {"operation": operation}) for service, operation in TELEMETRY]
        if kind == "down":  # a port is shared by all services
            where = [(None, {})]
        self._spans.not_before = math.inf  # the endpoint may not answer us either, and what waits is not there yet
        conditions: list[str] = []
        try:
            conditions += [
                self._ground.impose(kind, region, service, **options, **operation) for region in regions for service, operation in where
            ]
            yield
        finally:
            for condition in conditions:
                self._ground.lift(condition)
            self._spans.not_before = time.time() + REPLAY_S

    def _take_records(self) -> None:
        """Read what the load has written since."""
        with self._records.open("rb") as file:
            file.seek(self._taken)
            data = file.read()
        data = data[: len(data) - len(data) % RECORD.itemsize]
        self._taken += len(data)
        for target in (0, 1):
            mine = (rows := np.frombuffer(data, RECORD))[rows["target"] == target]
            self._statuses[target, mine["number"]] = mine["status"]
            self._latencies[target, mine["number"]] = mine["latency"]
            self._unsent[target, mine["number"]] = mine["unsent"]
        self._answers += len(data) // RECORD.itemsize

    def _sample(self) -> None:
        """Every `SAMPLE_S`: memory of both, and the spool's size."""
        at = self._now
        if at < 0 or (self._samples and at - self._samples[-1]["at"] < SAMPLE_S):
            return
        size = 0
        for file in self._spool.rglob("*.seg"):
            with contextlib.suppress(FileNotFoundError):  # delivered meanwhile
                size += file.stat().st_size
        try:
            resident = {f"{name}_mb": round(resident_mb(pid), 2) for name, pid in self._pids.items()}
        except FileNotFoundError as error:
            events = [text for _, text in self._service()["events"][-3:]]
            raise StartError(f"a service ended during the soak; ECS says: {'; '.join(events)}") from error
        self._samples.append({"at": round(at, 2), "minute": _minute(at), **resident, "spool_mb": round(size / 1e6, 3)})

    def _said(self) -> str:
        last = self._samples[-1] if self._samples else {"instrumented_mb": 0.0, "spool_mb": 0.0}
        return f"{self._answers:,} answers  {last['instrumented_mb']:.1f} MB  spool {last['spool_mb']:.1f} MB"

    def _close_minute(self, phase: Phase) -> None:
        """Write the minute down and say it in a line."""
        self._take_records()
        from_s = WARM_UP_S + 60.0 * phase.minute
        low, high = np.searchsorted(self._moments, (from_s, from_s + 58.0))  # what came last may still be on its way
        latencies = {
            name: report.percentiles(self._latencies[target][low:high][self._statuses[target][low:high] > 0])
            for target, name in enumerate(self._pids)
        }
        shares, last = self._meter.read(), self._samples[-1]
        if not phase.kind:  # in trouble the endpoint does not answer us either
            self._ledger.read(self._collections(max(0.0, from_s - 90.0), from_s + 50.0), COLLECT_S)
        self._minutes.append({"minute": phase.minute + 1, "condition": phase.label, **latencies, "cpu_percent": shares, "last": last})
        bare, own = (latencies[name] or dict.fromkeys(report.QUANTILES, float("nan")) for name in ("bare", "instrumented"))
        if phase.minute == 0:
            self._console.print(HEADLINE, style="dim", markup=False, soft_wrap=True)
        cpu = ", ".join(f"{name} {share:.0f}" for name, share in shares.items())
        self._console.print(
            f"{phase.minute + 1:6}  {phase.label or '-':13} {bare['p50']:8.2f} {bare['p99']:7.2f} {own['p50']:12.2f} {own['p99']:7.2f} "
            f"{last['instrumented_mb']:7.1f} {last['spool_mb']:9.2f}   {cpu}",
            markup=False,
            soft_wrap=True,
        )

    def _collections(self, from_s: float, to_s: float) -> list[float]:
        """Moments (wall), one for each time that the service's metrics are collected."""
        return [self._began + float(at) for at in np.arange(from_s, to_s, COLLECT_S)]

    def _drain(self, show: Callable[[str], None]) -> None:
        """Wait until the ledger says that nothing waits, and every trace was found; or for `DRAIN_S`. Then end the service's task."""
        ended, began = time.time(), self._now
        while self._now - began < DRAIN_S:
            self._until(self._now + COLLECT_S, "delivering", show)
            self._ledger.read([time.time()], COLLECT_S)
            last = self._ledger.last().values()
            if self._spans.done and last and all(sample.at > ended and not sample.waiting for sample in last):
                break
        self._drained_s = self._now - began
        self._spans.stop()
        self._ledger.read(self._collections(0.0, self._now), COLLECT_S)
        time.sleep(CLOUDWATCH_S)
        self._log_events = log_events(self._plan, self._regions, names.log_group(SERVICE), self._began, time.time())
        admin.call(self._plan.regions[self._home].ecs_port, "POST", f"/services/{SERVICE}/scale", {"desired": 0})
        self._ground.await_("the end of the task", lambda: not Path(f"/proc/{self._task['pid']}").exists())
        self._ended_with = inspect(self._spool)
        environment = tasks.environment(self._plan, self._home, SERVICE, 0, "drain") | {"PYTHONPATH": str(ROOT)}
        spool_command("drain", str(self._spool), "--timeout", "30", environment=environment)
        self._left = inspect(self._spool)

    # -- what came of it ---

    def _result(self) -> dict[str, Any]:
        self._take_records()
        draw = np.random.default_rng(self._options.seed)
        blocks = self._blocks()

        def pairs(chosen: Callable[[Phase], bool]) -> tuple[report.Blocks, report.Blocks]:
            mine = [block for block in blocks if chosen(block["phase"])]
            return [block["bare"] for block in mine], [block["instrumented"] for block in mine]

        self._rows = [report.compare(name, *pairs(chosen), draw) for name, chosen in self._conditions().items()]
        well, faulty = pairs(lambda phase: not phase.kind), pairs(lambda phase: bool(phase.kind))
        effect = report.effect_of_faults(well, faulty, draw) if faulty[0] else None
        loaded = [sample for sample in self._samples if sample["at"] <= self._seconds]
        warm_up = memory_warm_up_s(self._phases, self._seconds)
        shares = [minute["cpu_percent"] for minute in self._minutes]
        result: dict[str, Any] = {
            "service": f"{SERVICE} in {self._home}",
            **{key: getattr(self._options, key) for key in ("minutes", "rate", "seed")},
            "requests": {
                name: {
                    "sent": len(self._moments[:: self._every[target]]),
                    "answered": int((self._statuses[target] == 200).sum()),
                    "unsent_p99_ms": round(float(np.quantile(self._unsent[target], 0.99)) * 1000, 3),
                }
                for target, name in enumerate(self._pids)
            },
            "rows": [asdict(row) for row in self._rows],
            "effect_of_faults": asdict(effect) | {"within_noise": effect.within_noise} if effect else None,
            "memory": {
                name: asdict(report.memory([each["at"] for each in loaded], [each[f"{name}_mb"] for each in loaded], warm_up))
                for name in self._pids
            },
            "spool_largest_mb": max(sample["spool_mb"] for sample in self._samples),
            "spool_of_the_ended_task": _items(self._ended_with),
            "spool_after_drain": _items(self._left),
            "cpu_percent": {name: round(float(np.mean([each[name] for each in shares])), 1) for name in shares[0]},
            "drained_after_s": round(self._drained_s, 1),
            "log_events": self._log_events,
            "phases": [{"label": p.label, "from": p.minute, "to": p.minute + 1, "middle": p.minute + 0.3} for p in self._phases],
            "blocks": [
                {"minute": _minute(block["from"] + report.BLOCK_S / 2)}
                | {name: round(report.p99([block[name]]), 3) if block[name].size else None for name in self._pids}
                for block in blocks
            ],
            "by_minute": self._minutes,
            "samples": self._samples,
            **self._accounts(),
        }
        return result | {"checks": report.checks(result)}

    def _accounts(self) -> dict[str, Any]:
        """What the ledger and X-Ray say."""
        last, answered = self._ledger.last(), self._statuses[0] > 0
        samples = {name: self._ledger.of(name) for name in sorted(last)}
        return {
            "ledger": {
                name: {
                    "samples": len(each),
                    "inexact": sum(sample.off != 0 for sample in each),
                    "most_waiting": max(sample.waiting for sample in each),
                    **{key: getattr(last[name], key) for key in ("emitted", "recovered", "delivered", "waiting", "dropped")},
                }
                for name, each in samples.items()
            },
            "waiting": [{"minute": _minute(each.at - self._began), "items": each.waiting} for each in samples.get("traces", [])],
            "spans_a_request": round(last["traces"].emitted / int(answered.sum()), 4) if "traces" in last and answered.any() else 0.0,
            "traces": {
                "found": int((self._spans.asked & self._spans.found & answered).sum()),
                "missing": self._spans.missing(),
                "opened": self._spans.opened,
                "whole": self._spans.whole,
            },
        }

    def _conditions(self) -> dict[str, Callable[[Phase], bool]]:
        """The rows of the table."""
        found: dict[str, Callable[[Phase], bool]] = {"all is well": lambda phase: not phase.kind}
        for kind in KINDS:
            found[kind] = partial(_is_of, kind)
        found["in the own Region"] = lambda phase: bool(phase.kind) and not phase.everywhere
        found["in both Regions"] = lambda phase: phase.everywhere
        found["any trouble"] = lambda phase: bool(phase.kind)
        found["overall"] = lambda phase: True
        return {name: chosen for name, chosen in found.items() if any(map(chosen, self._phases))}

    def _blocks(self) -> list[dict[str, Any]]:
        """Latencies of both services, block by block; a request belongs to the block in which it was due."""
        blocks = []
        for phase in self._phases:
            for from_s in WARM_UP_S + 60.0 * phase.minute + np.arange(0.0, 60.0, report.BLOCK_S):
                low, high = np.searchsorted(self._moments, (from_s, from_s + report.BLOCK_S))
                told = {
                    name: self._latencies[target][low:high][self._statuses[target][low:high] >= 0] for target, name in enumerate(self._pids)
                }
                blocks.append({"from": float(from_s), "phase": phase, **told})
        return blocks

    def save(self, result: dict[str, Any], out: Path) -> None:
        """Write figures, picture and every request."""
        out.mkdir(parents=True, exist_ok=True)
        (out / "service-soak.json").write_text(json.dumps(result, indent=1))
        (out / "service-soak.png").write_bytes(report.picture(result))
        np.savez_compressed(
            out / "service-soak.npz", due=self._moments, latency=self._latencies, unsent=self._unsent, status=self._statuses
        )

    def tell(self, result: dict[str, Any], console: Console) -> None:
        """The table, the figures, and what held."""
        console.print()
        console.print(report.latency_table(self._rows))
        console.print()
        for line in report.summary(result):
            console.print(line, markup=False, soft_wrap=True)
        console.print()
        for name, check in result["checks"].items():
            mark = "[green]✔[/green]" if check["held"] else "[red]✘[/red]"
            console.print(f"{mark} {name}: {check['said']}", soft_wrap=True)


def _is_of(kind: str, phase: Phase) -> bool:
    return phase.kind == kind


def _minute(at: float) -> float:
    """Seconds since the first arrival as minutes since the end of the warm-up."""
    return round((at - WARM_UP_S) / 60, 3)


def bare_environment(lab: RunningLab, region: str, port: int) -> dict[str, str]:
    """The environment of a task of the service, less everything that switches telemetry on."""
    environment = tasks.environment(lab.plan, region, SERVICE, port, "bare")
    switched = tasks.telemetry(lab.plan, region, SERVICE, str(ROOT), "bare")
    if not switched:
        raise StartError("crosswatch-exporters is not installed, so that there is nothing to soak: pip install './exporters[all]'")
    return {key: value for key, value in environment.items() if key not in switched} | {"PYTHONPATH": str(ROOT)}


def spool_command(*arguments: str, environment: dict[str, str] | None = None) -> str:
    """What ``crosswatch-spool`` prints."""
    command = [sys.executable, "-m", "crosswatch_exporters.spool_cli", *arguments]
    return subprocess.run(command, env=environment, check=False, capture_output=True, text=True, timeout=90).stdout


def inspect(spool: Path) -> list[dict[str, Any]]:
    """What ``crosswatch-spool inspect`` finds."""
    answer: list[dict[str, Any]] = json.loads(spool_command("inspect", str(spool), "--json"))
    return answer


def _items(found: list[dict[str, Any]]) -> dict[str, int]:
    """Items by signal."""
    return {each["signal"]: each["items"] for each in found if each["items"]}


def free_port() -> int:
    """A port that is free now."""
    import socket

    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port: int = sock.getsockname()[1]
        return port


def _healthy(port: int) -> bool:
    return bool(admin.call(port, "GET", "/health", timeout_s=1.0))


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=int, default=30, help="measured minutes, after half a minute of warm-up (default 30)")
    parser.add_argument(
        "--rate", type=float, default=200.0, help="requests a second to the instrumented service (default 200); the bare one gets a quarter"
    )
    parser.add_argument("--seed", type=int, default=1, help="of the arrivals, the faults and the draws (default 1)")
    parser.add_argument("--out", type=Path, default=Path("out/service-soak"), help="where the results go (default out/service-soak)")
    parser.add_argument("--json", action="store_true", help="print the results as JSON; what happens meanwhile goes to stderr")
    options = parser.parse_args()
    if options.minutes < 1 or not 0 < options.rate <= 2000:
        parser.error("--minutes: 1 or more; --rate: above 0 and up to 2000")
    return options


def main() -> int:
    """Command line."""
    options = _options()
    console = Console(stderr=options.json, highlight=False)
    if not console.is_terminal:
        console = Console(stderr=options.json, highlight=False, width=200)

    def interrupt(number: int, _frame: object) -> None:
        for each in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(each, signal.SIG_IGN)
        raise Interrupted(signal.Signals(number).name)

    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, interrupt)
    with contextlib.ExitStack() as stack:
        try:
            named = os.environ.get(DIRECTORY_VARIABLE)
            directory = Path(named) if named else Path(tempfile.mkdtemp(prefix="crosswatch-soak-"))
            if not named:
                stack.callback(lambda: directory.rmdir() if directory.exists() else None)
            console.print("bringing up a lab …")
            lab = RunningLab(directory, ("us-east-1", "us-west-2"), 1.0, Reports())
            stack.callback(lab.close)
            lab.start_store()
            soak = Soak(lab, options, console)
            soak.start_services()
            console.print(
                f"{SERVICE} in us-east-1, with telemetry and without, {options.rate:g} and {options.rate / CONTROL_EVERY:g} requests/s, "
                f"for {options.minutes} minutes"
            )
            result = soak.run()
        except Interrupted as interruption:
            console.print(f"interrupted by {interruption}: the lab is taken down", style="yellow")
            return 1
        except (StartError, LabEnded, LabIsRunning, OSError) as error:
            console.print(str(error), style="red", markup=False, soft_wrap=True)
            return 1
        soak.save(result, options.out)
        soak.tell(result, console)
        if options.json:
            print(json.dumps(result, indent=1))
        console.print(f"written: {options.out}/service-soak.json, .png, .npz", soft_wrap=True)
    return 0 if all(check["held"] for check in result["checks"].values()) else 1


if __name__ == "__main__":
    sys.exit(main())
