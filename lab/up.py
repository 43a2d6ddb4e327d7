"""``lab up``: brings a lab up in the foreground, says what happens, prints every page as it is sent, and takes it down again.

The work is done in a thread; the main thread waits for the end, whichever comes first: Ctrl-C, SIGTERM or SIGHUP, ``lab down`` from
another terminal, or a failure. On a terminal the start shows what is being waited for; elsewhere it prints plain lines.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
import time
import traceback
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from rich.panel import Panel
from rich.table import Table

from lab.control import Refused
from lab.oncall.terminal import render
from lab.plan import DEFAULT_REGIONS, STORE_NAME, state_directory
from lab.running import Reports, RunningLab, StartError, installed_broker
from lab.state import LabIsRunning
from lab.supervisor import FAILED, READY, LabEnded, ProcessStatus

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from rich.status import Status

    from lab.faults import Active
    from lab.oncall import Event

GREEN_WITHIN_LAB_S = 420.0
LOOK_EVERY_S = 1.0
NOT_A_TERMINAL_WIDTH = 140


class NotGreen(Exception):
    """Not all is well in time; says what is wrong."""


@dataclass(slots=True)
class Teller:
    """Says what a lab does. All output of ``lab up`` goes through here, so that threads do not talk at the same time."""

    console: Console
    _states: dict[str, str] = field(default_factory=dict)
    _line: Status | None = None

    def reports(self) -> Reports:
        """The lab's callbacks."""
        return Reports(self._process, self._page, self._fault)

    @contextlib.contextmanager
    def step(self, doing: str, done: str) -> Iterator[None]:
        """Show ``doing`` while it lasts, then ``done`` and how long it took (wall seconds)."""
        began = time.monotonic()
        if self.console.is_terminal:
            with self.console.status(doing) as self._line:
                yield
            self._line = None
        else:
            self.console.print(f"… {doing}", markup=False)
            yield
        self.console.print(f"[green]✔[/green] {done}  [dim]{time.monotonic() - began:.1f} s[/dim]")

    def say(self, text: str) -> None:
        """One line."""
        self.console.print(text)

    def _process(self, status: ProcessStatus) -> None:
        before = self._states.get(status.name)
        self._states[status.name] = status.state
        waiting = [name for name, state in self._states.items() if state != READY]
        if (before, status.state) == (READY, FAILED):
            log = f"logs/{status.name.replace('/', '.')}.log"
            self.console.print(f"[red]✘ {status.name} ended by itself, exit code {status.exit_code}; see {log}[/red]", soft_wrap=True)
        if self._line and waiting:
            shown = ", ".join(waiting[:3]) + (" …" if len(waiting) > 3 else "")
            self._line.update(f"starting: {len(self._states) - len(waiting)} ready, waiting for {shown}")

    def _page(self, event: Event) -> None:
        if (rendered := render(event)) is not None:
            self.console.print()
            self.console.print(rendered)

    def _fault(self, what: str, active: Active) -> None:
        where = f" in {active.region}" if active.region else ""
        colour = "magenta" if what == "injected" else "green"
        meaning = f"  [dim]{active.fault.sentence}[/dim]" if what == "injected" else ""
        self.console.print(f"[{colour}]⚡ {active.fault.name}{where} {what}[/{colour}]{meaning}", soft_wrap=True)


def up(
    speed: float = 1.0,
    regions: Sequence[str] = DEFAULT_REGIONS,
    broker: str | None = None,
    deploy: bool = True,
    traffic: bool = False,
    console: Console | None = None,
    then: Callable[[RunningLab, Teller], None] | None = None,
) -> int:
    """Run a lab until it is ended; returns the exit code. ``traffic``: shoppers come by themselves. ``then`` is called, in the lab's
    thread, when it is up."""
    teller = Teller(console or wide_console())
    try:
        installed = installed_broker(broker)
    except Refused as refusal:
        teller.console.print(str(refusal), style="red", markup=False, soft_wrap=True)
        return 2
    try:
        lab = RunningLab(state_directory(), regions, speed, teller.reports(), installed)
    except (LabIsRunning, OSError) as error:
        teller.console.print(str(error), style="red", markup=False, soft_wrap=True)
        return 1
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda *_: lab.end_requested.set())
    failures: list[BaseException] = []

    def work() -> None:
        try:
            bring_up(lab, teller, deploy, traffic)
            if then:
                then(lab, teller)
        except LabEnded:
            pass
        except Exception as error:  # noqa: BLE001 - it is told below, and ends the lab
            failures.append(error)
            lab.end_requested.set()

    threading.Thread(target=work, name="bring up", daemon=True).start()
    try:
        while not lab.end_requested.wait(0.2):
            if lab.supervisor.ended.is_set():
                failures.append(LabEnded("the lab's warden was killed"))
                break
    finally:
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, signal.SIG_IGN)
        began = time.monotonic()
        lab.close()
    for failure in failures:
        known = isinstance(failure, StartError | LabEnded | OSError)
        text = str(failure) if known else "".join(traceback.format_exception(failure))
        teller.console.print(text, style="red", markup=False, soft_wrap=True)
    teller.say(f"[dim]the lab is down, nothing is left of it  {time.monotonic() - began:.1f} s[/dim]")
    return 1 if failures else 0


def bring_up(lab: RunningLab, teller: Teller, deploy: bool, traffic: bool = False) -> None:
    """Store, monitoring, and the way to all-green. Raises `StartError`, `LabEnded`, OSError."""
    with teller.step("starting the store and its AWS", f"store in {', '.join(lab.plan.regions)} and its AWS are up"):
        lab.start_store()
    with teller.step("starting metrics and console", "metrics and console are up"):
        lab.start_onlookers()
    if traffic:
        teller.say(f"[green]✔[/green] shoppers come, up to {lab.invite_shoppers():g} a lab minute in each Region when it is evening there")
    teller.console.print(introduction(lab))
    if deploy:
        with teller.step("deploying the monitoring", "monitoring deployed"):
            lab.deploy()
        try:
            with teller.step("waiting for the first verdicts", "all green"):
                await_green(lab)
        except NotGreen as trouble:
            teller.console.print(f"[yellow]the lab is up, but {trouble}[/yellow]", soft_wrap=True)


def await_green(lab: RunningLab, within_lab_s: float = GREEN_WITHIN_LAB_S) -> float:
    """Wait until nothing is wrong anywhere, as read from AWS; returns lab seconds it took. Raises `NotGreen`, or `LabEnded`."""
    from lab.sight import Sight
    from lab.topology import lab_topology

    sight = Sight(lab.plan, lab_topology(lab.plan))
    began = lab.plan.clock.now()
    while True:
        lab.trouble = sight.look().troubles()
        lab.trouble += [f"page #{page.number} is open" for page in lab.desk.pages() if page.state == "open"]
        waited = lab.plan.clock.now() - began
        if not lab.trouble:
            return waited
        if lab.end_requested.is_set() or lab.supervisor.ended.is_set():
            raise LabEnded("the lab is ending")
        if waited > within_lab_s:
            raise NotGreen(f"not all is well after {within_lab_s:g} lab seconds:\n" + "\n".join(f"  {each}" for each in lab.trouble[:20]))
        time.sleep(min(LOOK_EVERY_S, 10 / lab.plan.clock.speed))


def wide_console() -> Console:
    """The terminal's console; where there is no terminal, one wide enough for addresses."""
    console = Console(highlight=False)
    return console if console.is_terminal else Console(highlight=False, width=max(console.width, NOT_A_TERMINAL_WIDTH))


def command() -> str:
    """How this program was called, for commands to copy."""
    program = Path(sys.argv[0])
    if program.suffix != ".py":
        return f"{program.name} lab"
    return f"{os.path.relpath(sys.executable) if Path(sys.executable).is_relative_to(Path.cwd()) else 'python'} {program.name} lab"


def introduction(lab: RunningLab) -> Panel:
    """Where everything is, and how to break it."""
    plan = lab.plan
    grid = Table.grid(padding=(0, 2))
    grid.add_column(style="dim", no_wrap=True)
    grid.add_column(overflow="fold")
    grid.add_row("console", f"[bold]{lab.console_url}[/bold]")
    for name, region in plan.regions.items():
        grid.add_row(name, f"store https://{region.ip}:{plan.alb_port}/home   AWS {region.aws_endpoint}")
    grid.add_row("DNS", f"{STORE_NAME} at 127.0.0.1 port {plan.dns_port}")
    grid.add_row(
        "AWS command line", f". {plan.directory}/env   then, say:  aws cloudwatch describe-alarms --region {next(iter(plan.regions))}"
    )
    grid.add_row("break something", f"{command()} fault inject region-down --region {next(iter(plan.regions))}")
    grid.add_row("", f"{command()} fault list   [dim]shows what can be broken[/dim]")
    grid.add_row("mend it", f"{command()} fault heal")
    grid.add_row("stop", f"Ctrl-C, or {command()} down")
    speed = f" at {plan.clock.speed:g} times the wall's speed" if plan.clock.speed != 1 else ""
    return Panel(grid, title=f"[bold]Crosswatch lab[/bold]{speed}", border_style="blue", padding=(1, 2))
