"""A soak of the whole lab: shoppers in the store, random faults one over the other, and what is left of it all.

    python bench/lab_soak.py --minutes 30 --speed 10 --out out/soak

Brings up a lab of its own, monitoring and all, waits until everything is green and then plays the catalogue of faults in random order,
up to three at a time, each for a few seconds to half a minute, mended in random order. After each bout everything has to become green
again: every process, alarm, canary, routing control and cell of the matrix, and no incident open. Every ten seconds memory
(proportional set size), processes, open files and disk are written down. At the end the lab is told to end, and nothing may be left.

Exit code 0 if every fault was healed, everything became whole each time, no process too many ran at the end, and nothing was left.
``--out`` gets ``soak.json`` (everything) and ``soak.png`` (memory by part over time, the faults below it).
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from botocore.exceptions import BotoCoreError, ClientError

from lab import admin
from lab.control import NoLab, Refused, ask
from lab.faults import CATALOGUE, Fault, Where
from lab.matrix.watch import Watcher
from lab.plan import LabPlan
from lab.sight import Sight
from lab.state import processes_of, read_owner
from lab.topology import lab_topology
from lab.warden import descendants

if TYPE_CHECKING:
    from collections.abc import Iterator

SHOPPERS = {"peak_per_min": 6.0, "follow_day": False, "to": "name", "buy_share": 0.5}
SAMPLE_S = 10.0
UP_WITHIN_S = 300.0
GREEN_WITHIN_S = 240.0
DOWN_WITHIN_S = 60.0
HEAL_WITHIN_S = 300.0
AT_ONCE = (1, 1, 1, 2, 2, 3)
HOLD_S = (4.0, 30.0)
SHM = Path("/dev/shm")


@dataclass(slots=True)
class Sample:
    """The lab at one moment: wall seconds since all was green, MB by part, and how much of everything there is."""

    at: float
    memory_mb: dict[str, float]
    processes: int
    files: int
    disk_mb: float


@dataclass(slots=True)
class Strike:
    """One fault. Times are wall seconds since all was green; ``trouble`` is what went wrong with injecting or healing it."""

    fault: str
    region: str
    injected: float
    healed: float | None = None
    trouble: str = ""


@dataclass(slots=True)
class Bout:
    """Faults that were in force together, and how long it took after the last was healed until everything was green."""

    strikes: list[Strike]
    green_after_s: float | None = None
    troubles: list[str] = field(default_factory=list)


@dataclass(slots=True)
class Soak:
    """Everything that was seen."""

    seed: int
    speed: float
    samples: list[Sample] = field(default_factory=list)
    bouts: list[Bout] = field(default_factory=list)
    processes: dict[str, list[str]] = field(default_factory=dict)
    shoppers: dict[str, Any] = field(default_factory=dict)
    incidents: int = 0
    plain: int = 0
    left: list[str] = field(default_factory=list)

    def findings(self) -> list[str]:
        """What is not as it must be."""
        strikes = [strike for bout in self.bouts for strike in bout.strikes]
        found = [f"{each.fault}: {each.trouble}" for each in strikes if each.healed is None and each.trouble]
        for bout in self.bouts:
            if bout.green_after_s is None:
                names = ", ".join(strike.fault for strike in bout.strikes)
                found.append(f"not whole {GREEN_WITHIN_S:.0f} s after {names}: {'; '.join(bout.troubles[:4])}")
        more = set(self.processes.get("end", ())) - set(self.processes.get("begin", ()))
        found += [f"a process that was not there at the beginning: {each}" for each in sorted(more)]
        return found + [f"left behind: {each}" for each in self.left]


@contextlib.contextmanager
def lab(directory: Path, speed: float, log: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A lab in ``directory`` by the command that users type; ended when the block ends, however it ends."""
    environment = {**os.environ, "CROSSWATCH_LAB_DIR": str(directory)}
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, str(ROOT / "deploy.py"), "lab", "up", "--speed", str(speed)], env=environment, stdout=output, stderr=output
        )
        try:
            yield process
        finally:
            with contextlib.suppress(NoLab, Refused, TimeoutError):
                ask(directory, "down")
            try:
                process.wait(DOWN_WITHIN_S)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


class Observer:
    """Looks at one running lab from outside: its AWS, its control socket, /proc."""

    def __init__(self, directory: Path, root: int) -> None:
        self.directory = directory
        self.plan = LabPlan.load(directory)
        self.root = root
        topology = lab_topology(self.plan)
        self._watcher = Watcher(self.plan, topology, Sight(self.plan, topology))

    def hush_objectives(self) -> None:
        """As `lab matrix` does, and for its reason: half an hour of outages burns any budget, and saying so is right."""
        self._watcher.hush_objectives(True)

    def troubles(self) -> list[str]:
        """Everything that is not green; a look that fails is one. Incidents of plain text, which say that the notifier failed, are left
        out: nothing resolves them but a person."""
        try:
            details = ask(self.directory, "details")
            idle = [f"{each['name']} is not running" for each in details["processes"] if each["state"] != "ready"]
            plain = tuple(f"incident #{each['number']} " for each in details["pages"] if each["page"] is None)
            return idle + [each for each in self._watcher.troubles() if not each.startswith(plain)]
        except (OSError, TimeoutError, BotoCoreError, ClientError) as error:
            return [f"the look failed: {error}"]

    def await_green(self, within_s: float) -> tuple[float | None, list[str]]:
        """Seconds until all was green twice in a row, or None with what is not."""
        begin = time.monotonic()
        calm = 0
        while True:
            troubles = self.troubles()
            calm = 0 if troubles else calm + 1
            if calm == 2:
                return time.monotonic() - begin, []
            if time.monotonic() - begin > within_s:
                return None, troubles or ["green only for a moment"]
            time.sleep(1.0)

    def parts(self) -> dict[str, list[int]]:
        """Every process by the part it belongs to. Parts are named without their Region; helpers that the supervisor did not start belong
        to the part that did; the supervisor and its warden are ``lab``."""
        owned: dict[str, list[int]] = {}
        seen: set[int] = set()
        for status in ask(self.directory, "details")["processes"]:
            if status["pid"]:
                pids = [status["pid"], *descendants(status["pid"])]
                seen.update(pids)
                owned.setdefault(part_of(status["name"]), []).extend(pids)
        owned["lab"] = [pid for pid in (self.root, *descendants(self.root)) if pid not in seen]
        return owned

    def sample(self, at: float) -> Sample:
        """Memory, processes, files and disk now."""
        parts = self.parts()
        every = [pid for pids in parts.values() for pid in pids]
        memory = {part: sum(map(pss_mb, pids)) for part, pids in parts.items()}
        return Sample(at, memory, len(every), sum(map(open_files, every)), disk_mb(self.directory))

    def names(self) -> list[str]:
        """The supervisor's processes that run, by name."""
        return sorted(each["name"] for each in ask(self.directory, "details")["processes"] if each["pid"])


def part_of(name: str) -> str:
    """``us-east-1/catalog-1`` is of the part ``catalog``."""
    return name.rpartition("/")[2].rstrip("-0123456789")


def pss_mb(pid: int) -> float:
    """Proportional set size; 0 for a process that has ended."""
    with contextlib.suppress(OSError):
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
        return sum(int(line.split()[1]) for line in lines if line.startswith("Pss:")) / 1024
    return 0.0


def open_files(pid: int) -> int:
    """How many descriptors a process holds."""
    with contextlib.suppress(OSError):
        return sum(1 for _ in Path(f"/proc/{pid}/fd").iterdir())
    return 0


def disk_mb(directory: Path) -> float:
    """What the state directory holds."""
    total = 0
    for path in directory.rglob("*"):
        with contextlib.suppress(OSError):
            total += path.lstat().st_blocks * 512
    return total / 1e6


class Player:
    """Plays faults, and keeps the record."""

    def __init__(self, observer: Observer, soak: Soak, rng: random.Random) -> None:
        self._observer = observer
        self._soak = soak
        self._rng = rng
        self._begin = time.monotonic()
        self._deck: list[Fault] = []

    def since(self) -> float:
        """Wall seconds since the first green."""
        return time.monotonic() - self._begin

    def bout(self) -> Bout:
        """Up to three faults one over the other, mended in random order; then wait for green."""
        strikes: list[Strike] = []
        for _ in range(self._rng.choice(AT_ONCE)):
            strikes.append(self._inject(alone=not strikes))
        bout = Bout(strikes)
        self._soak.bouts.append(bout)
        for strike in self._rng.sample(strikes, len(strikes)):
            if not strike.trouble:
                time.sleep(self._rng.uniform(*HOLD_S) / len(strikes))
                self._heal(strike)
        self._heal_rest(strikes)
        bout.green_after_s, bout.troubles = self._observer.await_green(GREEN_WITHIN_S)
        return bout

    def _inject(self, alone: bool) -> Strike:
        if not self._deck:
            self._deck = self._rng.sample(list(CATALOGUE), len(CATALOGUE))
        fault = self._deck.pop()
        region = self._rng.choice(list(self._observer.plan.regions)) if fault.where is Where.REGION else ""
        strike = Strike(fault.name, region, self.since())
        try:
            ask(self._observer.directory, "inject", HEAL_WITHIN_S, name=fault.name, region=region or None)
        except (Refused, TimeoutError) as refusal:  # some faults cannot strike what another has broken already
            strike.trouble = f"not injected: {refusal}"
            strike.healed = self.since()
            if not alone:
                self._deck.insert(0, fault)  # it strikes later, without that other
        return strike

    def _heal(self, strike: Strike) -> None:
        try:
            ask(self._observer.directory, "heal", HEAL_WITHIN_S, name=strike.fault, region=strike.region or None)
            strike.healed = self.since()
        except (Refused, TimeoutError) as refusal:  # a part cannot be mended while the Region that it stands in is down
            strike.trouble = f"not healed at first: {refusal}"

    def _heal_rest(self, strikes: list[Strike]) -> None:
        try:
            ask(self._observer.directory, "heal", HEAL_WITHIN_S)
        except (Refused, TimeoutError) as refusal:
            for strike in strikes:
                if strike.healed is None:
                    strike.trouble = f"not healed: {refusal}"
            return
        for strike in strikes:
            strike.healed = strike.healed or self.since()


def play(directory: Path, process: subprocess.Popen[bytes], soak: Soak, minutes: float, console: Console) -> None:
    """From the first green until the time is over. Raises SystemExit where the lab does not come up."""
    deadline = time.monotonic() + UP_WITHIN_S
    while True:
        try:
            if ask(directory, "details")["deployed"]:
                break
        except (NoLab, TimeoutError):
            pass
        if process.poll() is not None or time.monotonic() > deadline:
            raise SystemExit("the lab did not come up; its output is in lab.log")
        time.sleep(0.5)
    observer = Observer(directory, process.pid)
    took, troubles = observer.await_green(UP_WITHIN_S)
    if took is None:
        raise SystemExit(f"the lab did not become green: {'; '.join(troubles)}")
    observer.hush_objectives()
    admin.call(observer.plan.traffic_port, "PUT", "/load", SHOPPERS)
    soak.processes["begin"] = observer.names()
    player = Player(observer, soak, random.Random(soak.seed))
    done = threading.Event()

    def keep_samples() -> None:
        while not done.wait(SAMPLE_S):
            with contextlib.suppress(OSError, TimeoutError, NoLab):
                soak.samples.append(observer.sample(player.since()))

    soak.samples.append(observer.sample(0.0))
    sampler = threading.Thread(target=keep_samples, name="sampler")
    sampler.start()
    columns = (TextColumn("{task.description:46}"), BarColumn(), TimeElapsedColumn())
    try:
        with Progress(*columns, console=console, disable=not console.is_terminal) as progress:
            task = progress.add_task("all green", total=minutes * 60)
            while player.since() < minutes * 60:
                bout = player.bout()
                names = " + ".join(f"{each.fault}{' ' + each.region if each.region else ''}" for each in bout.strikes)
                progress.update(task, completed=player.since(), description=names[:46])
                mark = (
                    f"[green]✔[/green] green after {bout.green_after_s:3.0f} s"
                    if bout.green_after_s is not None
                    else "[red]✘ not whole[/red]"
                )
                memory = sum(soak.samples[-1].memory_mb.values())
                console.print(f"{player.since() / 60:5.1f} min  {mark}  {memory:5.0f} MB  {names}", soft_wrap=True)
                for each in bout.strikes:
                    if each.trouble:
                        console.print(f"           {each.fault}: {each.trouble}", style="dim", markup=False, soft_wrap=True)
                for trouble in bout.troubles:
                    console.print(f"           {trouble}", style="red", markup=False, soft_wrap=True)
                if process.poll() is not None:
                    raise SystemExit("the lab ended by itself; its output is in lab.log")
    finally:
        done.set()
        sampler.join()
    soak.samples.append(observer.sample(player.since()))
    soak.processes["end"] = observer.names()
    soak.shoppers = admin.call(observer.plan.traffic_port, "GET", "/status")
    incidents = ask(directory, "details")["pages"]
    soak.incidents, soak.plain = len(incidents), sum(each["page"] is None for each in incidents)


def remains(directory: Path, identity: str, shared_before: set[str]) -> list[str]:
    """What is left of a lab that has ended."""
    found = [f"process {pid}: {Path(f'/proc/{pid}/cmdline').read_text().replace(chr(0), ' ')[:80]}" for pid in processes_of(identity)]
    found += [f"directory {directory}"] if directory.exists() else []
    return found + [
        f"shared memory {name}" for name in sorted({each.name for each in SHM.iterdir()} - shared_before) if "PostgreSQL" in name
    ]


def growth(soak: Soak, part: str) -> tuple[float, float, float, float]:
    """MB of a part: median of the first and of the last fifth of the time, the most; and the median slope (Theil and Sen) of the last half
    in MB a lab hour."""
    series = [(each.at, each.memory_mb.get(part, 0.0)) for each in soak.samples]
    fifth = max(1, len(series) // 5)
    late = series[len(series) // 2 :]
    slopes = [(b[1] - a[1]) / (b[0] - a[0]) for i, a in enumerate(late) for b in late[i + 1 :: 3] if b[0] > a[0]]
    slope = statistics.median(slopes) * 3600 / soak.speed if slopes else 0.0
    values = [value for _, value in series]
    return statistics.median(values[:fifth]), statistics.median(values[-fifth:]), max(values), slope


def as_table(soak: Soak) -> Table:
    """Memory by part."""
    table = Table("part", "first fifth MB", "last fifth MB", "most MB", "slope MB a lab hour", box=None, padding=(0, 2), header_style="dim")
    parts = sorted({part for each in soak.samples for part in each.memory_mb})
    rows = sorted(((part, *growth(soak, part)) for part in parts), key=lambda row: -row[2])
    for part, first, last, most, slope in rows:
        table.add_row(part, f"{first:.0f}", f"{last:.0f}", f"{most:.0f}", f"{slope:+.1f}")
    return table


def in_words(soak: Soak) -> str:
    """The figures of the whole."""
    injected = [each for bout in soak.bouts for each in bout.strikes if not each.trouble.startswith("not injected")]
    greens = sorted(bout.green_after_s for bout in soak.bouts if bout.green_after_s is not None) or [0.0]
    totals = [sum(each.memory_mb.values()) for each in soak.samples]
    first, last = soak.samples[0], soak.samples[-1]
    return (
        f"{len(injected)} faults ({len({each.fault for each in injected})} different) in {len(soak.bouts)} bouts, "
        f"{soak.incidents} incidents ({soak.plain} in plain text); "
        f"green again after {statistics.median(greens):.0f} s (median), {greens[-1]:.0f} s (most), wall\n"
        f"memory {totals[0]:.0f} MB at first, {max(totals):.0f} at most, {totals[-1]:.0f} at last; processes {first.processes} -> "
        f"{last.processes}; open files {first.files} -> {last.files}; disk {first.disk_mb:.0f} -> {last.disk_mb:.0f} MB"
    )


def draw(soak: Soak, path: Path) -> None:
    """Memory by part, stacked, with the faults below it."""
    import altair as alt

    parts = sorted({part for each in soak.samples for part in each.memory_mb}, key=lambda part: -soak.samples[-1].memory_mb.get(part, 0.0))
    shown = parts[:7]
    memory = [
        {"minute": each.at / 60, "part": part, "MB": each.memory_mb.get(part, 0.0) if part != "the rest" else rest}
        for each in soak.samples
        for rest in [sum(value for name, value in each.memory_mb.items() if name not in shown)]
        for part in (*shown, "the rest")
    ]
    faults = [
        {"from": strike.injected / 60, "to": strike.healed / 60, "region": strike.region or "the lab", "fault": strike.fault}
        for bout in soak.bouts
        for strike in bout.strikes
        if strike.healed
    ]
    scale = alt.Scale(domain=[0, soak.samples[-1].at / 60], nice=False)
    above = (
        alt.Chart(alt.InlineData(values=memory), width=900, height=260, title="Memory of the lab, proportional set size")
        .mark_area()
        .encode(
            x=alt.X("minute:Q", scale=scale, title=None),
            y=alt.Y("MB:Q", stack="zero", title="MB"),
            color=alt.Color("part:N", sort=[*shown, "the rest"], scale=alt.Scale(scheme="tableau20"), title="part"),
            order=alt.Order("part:N"),
        )
    )
    below = (
        alt.Chart(alt.InlineData(values=faults), width=900, height=60, title="Faults in force")
        .mark_bar(height=14, opacity=0.55, color="#b4232a")
        .encode(x=alt.X("from:Q", scale=scale, title="minutes (wall)"), x2="to:Q", y=alt.Y("region:N", title=None))
    )
    alt.vconcat(above, below).configure_axis(grid=True, gridOpacity=0.3).configure_view(stroke=None).save(str(path), scale_factor=2)


def main() -> int:
    """Soak, print what came out; 1 if anything is not as it must be."""
    options = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    options.add_argument("--minutes", type=float, default=30.0, help="wall minutes of faults")
    options.add_argument("--speed", type=float, default=10.0, help="lab seconds per wall second")
    options.add_argument("--seed", type=int, default=random.SystemRandom().randrange(10_000), help="the same seed plays the same faults")
    options.add_argument("--out", type=Path, default=Path("out/soak"))
    options.add_argument("--json", action="store_true", help="print soak.json instead of tables")
    chosen = options.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    console = Console(stderr=chosen.json, width=None if sys.stdout.isatty() else 160)
    chosen.out.mkdir(parents=True, exist_ok=True)
    soak = Soak(chosen.seed, chosen.speed)
    shared = {each.name for each in SHM.iterdir()}
    console.print(f"{chosen.minutes:g} minutes at speed {chosen.speed:g}, seed {chosen.seed}")
    try:
        with tempfile.TemporaryDirectory(prefix="crosswatch-soak-") as parent:
            Path(parent).chmod(0o711)
            directory = Path(parent) / "lab"
            with lab(directory, chosen.speed, chosen.out / "lab.log") as process:
                play(directory, process, soak, chosen.minutes, console)
                owner = read_owner(directory)
            soak.left = remains(directory, owner.identity if owner else "", shared)
    finally:  # what was seen until an interruption is kept too
        text = json.dumps(asdict(soak) | {"findings": soak.findings()}, indent=1)
        (chosen.out / "soak.json").write_text(text)
        if len(soak.samples) > 1:
            draw(soak, chosen.out / "soak.png")
    if chosen.json:
        sys.stdout.write(text + "\n")
    console.print(as_table(soak))
    console.print(in_words(soak))
    for finding in soak.findings():
        console.print(f"✘ {finding}", style="red", markup=False, soft_wrap=True)
    if not soak.findings():
        console.print("[green]✔[/green] every fault healed, everything whole each time, nothing left behind")
    return 1 if soak.findings() else 0


if __name__ == "__main__":
    sys.exit(main())
