"""The pass over the faults: inject, watch, heal, wait for all-green, next; and what it prints.

It uses the lab that runs in the state directory, or brings one up for the time of the pass.
"""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING
from xml.etree import ElementTree as ET

from botocore.exceptions import BotoCoreError, ClientError
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from lab import admin
from lab.control import NoLab, Refused, ask
from lab.faults import CATALOGUE, Fault, Where
from lab.matrix.expected import SETTLE_S, Expectation, expected
from lab.matrix.record import Record
from lab.matrix.vended import MOVERS, statistics
from lab.matrix.verdict import findings, page_of
from lab.matrix.watch import Watcher
from lab.plan import LabPlan, state_directory
from lab.sight import Sight
from lab.topology import lab_topology
from lab.up import Teller, up, wide_console

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from rich.console import Console

    from lab.running import RunningLab

GREEN_WITHIN_S = 900.0
BASELINE_S = 130.0
AFTER_S = 130.0
SHOPPERS_PER_MIN = 8.0
HEAL_WITHIN_WALL_S = 300.0
BUSY = 2.0  # load average a core; above it probes time out that nothing is wrong with, and alarms are right to fire
TRIES = 2
MARKS = {"good": "[green]✔[/green]", "bad": "[red]✘[/red]", "gap": "[yellow]gap[/yellow]"}


@dataclass(frozen=True, slots=True)
class Result:
    """One fault's record and what is not as it must be."""

    record: Record
    wanted: Expectation
    findings: list[str]


def matrix(only: Sequence[str], junit: Path | None, out: Path, speed: float) -> int:
    """Try ``only`` (all, if empty); returns the exit code: 0 all as it must be, 1 not, 2 a name that is no fault's."""
    console = wide_console()
    unknown = []
    for name in only:
        try:
            CATALOGUE.get(name)
        except KeyError as error:
            unknown.append(str(error.args[0]))
    if unknown:
        console.print("\n".join(unknown), style="red", markup=False)
        return 2
    chosen = [fault for fault in CATALOGUE if not only or fault.name in only]
    results: list[Result] = []
    directory = state_directory()
    if junit:
        junit.parent.mkdir(parents=True, exist_ok=True)  # now, and not after a pass of hours
    try:
        ask(directory, "status")
    except NoLab:

        def then(lab: RunningLab, teller: Teller) -> None:
            try:
                results.extend(Pass(directory, teller.console, out).run(chosen))
            finally:
                lab.end_requested.set()

        code = up(speed, console=console, then=then)
    else:
        code = 0
        results = Pass(directory, console, out).run(chosen)
    if not results:
        return code or 1
    console.print(summary(results))
    if junit:
        junit.write_bytes(as_junit(results))
    return 1 if code or len(results) < len(chosen) or any(result.findings for result in results) else 0


class Pass:
    """One pass over faults in one running lab."""

    def __init__(self, directory: Path, console: Console, out: Path) -> None:
        self._directory = directory
        self._console = console
        self._out = out
        self._plan = LabPlan.load(directory)
        topology = lab_topology(self._plan)
        self._patience_s = topology.probe.total_timeout_s
        self._expected = expected(self._patience_s)
        self._watcher = Watcher(self._plan, topology, Sight(self._plan, topology))
        self._quiet_since = self._now()

    def run(self, faults: Sequence[Fault]) -> list[Result]:
        """Try the faults one after the other, shoppers in the store meanwhile. Stops early only where the lab ends."""
        shoppers = {"peak_per_min": SHOPPERS_PER_MIN, "follow_day": False, "to": "name", "buy_share": 0.5}
        results: list[Result] = []
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
        try:
            load = admin.call(self._plan.traffic_port, "GET", "/status")["load"]
            admin.call(self._plan.traffic_port, "PUT", "/load", shoppers)
            self._watcher.hush_objectives(True)
            try:
                with Progress(*columns, console=self._console, disable=not self._console.is_terminal) as progress:
                    task = progress.add_task("", total=len(faults))
                    for fault in faults:
                        progress.update(task, description=fault.name)
                        results.append(self._try_again_if_busy(fault))
                        progress.advance(task)
            finally:
                self._watcher.hush_objectives(False)
                admin.call(self._plan.traffic_port, "PUT", "/load", load)
        except (NoLab, OSError, BotoCoreError, ClientError) as error:
            self._console.print(f"the pass ends before its end: {error}", style="red", markup=False)
        return results

    def _try_again_if_busy(self, fault: Fault) -> Result:
        """Try a fault; once more where the contract did not hold on a machine that was too busy to tell. The record says how often."""
        for tries in range(1, TRIES + 1):
            result = self._try(fault, tries)
            self._tell(result)
            if not result.findings or result.record.load < BUSY:
                break
        return result

    def _try(self, fault: Fault, tries: int) -> Result:
        """One fault from all-green to all-green. Raises `NoLab` where the lab ends."""
        names = list(self._plan.regions)
        struck = names[0]
        wanted = self._expected[fault.name]
        record = Record(fault.name, struck, names[1], self._plan.clock.speed, self._patience_s, self._now())
        record.tries = tries
        self._await_green(record, "before")
        if fault.name in MOVERS:
            self._sleep(self._quiet_since + BASELINE_S - self._now())
        record.injected = self._now()
        try:
            ask(self._directory, "inject", HEAL_WITHIN_WALL_S, name=fault.name, region=struck if fault.where is Where.REGION else None)
            self._watch(record, wanted)
        except Refused as refusal:
            record.troubles.append(str(refusal))
        healing = self._now()
        try:
            ask(self._directory, "heal", HEAL_WITHIN_WALL_S)
        except (Refused, TimeoutError) as problem:
            record.troubles.append(str(problem))
        record.healed = healing
        green = self._await_green(record, "after")
        record.green = green
        self._quiet_since = green or healing
        if fault.name in MOVERS:
            self._sleep(AFTER_S)
        self._collect(record)
        record.save(self._out)
        self._sleep(wanted.rest_s)
        return Result(record, wanted, findings(record, wanted))

    def _watch(self, record: Record, wanted: Expectation) -> None:
        """Until all that must come is there and some time has passed in which nothing else came, or until it is too late."""
        while True:
            time.sleep(0.5)
            since = self._now() - record.injected
            record.load = round(max(record.load, os.getloadavg()[0] / (os.cpu_count() or 1)), 1)
            heard = self._watcher.heard(record.injected)
            page = next((each for each in heard if each.urgent), None)
            missing = wanted.tickets - {each.diagnosis for each in heard}
            awaited = bool(missing) or (wanted.page is not None and page is None)
            if awaited and since < wanted.within_s:
                continue
            if since >= max(wanted.watch_s, max((each.opened for each in heard), default=0.0) + SETTLE_S):
                return

    def _await_green(self, record: Record, when: str) -> float | None:
        """Wait until nothing is wrong; returns when it was so, or None, with the reasons among the record's troubles."""
        deadline = self._now() + GREEN_WITHIN_S
        while troubles := self._watcher.troubles():
            if self._now() > deadline:
                record.troubles.append(f"not all is well {when} it: {'; '.join(troubles[:4])}")
                return None
            time.sleep(1.0)
        return self._now()

    def _collect(self, record: Record) -> None:
        until, now = record.healed or self._now(), self._now()
        record.heard = self._watcher.heard(record.injected)
        try:
            record.seen = self._watcher.seen(record.injected, until)
            record.points = self._watcher.points(statistics(), record.injected, record.injected - BASELINE_S, now)
            record.strays = self._watcher.strays()
        except (BotoCoreError, ClientError) as error:
            record.troubles.append(f"what was seen could not be read: {error}")

    def _tell(self, result: Result) -> None:
        record, heard = result.record, page_of(result.record)
        mark = MARKS["bad" if result.findings else "gap" if result.wanted.gap else "good"]
        what = f"{heard.diagnosis} {heard.subject} after {heard.opened:.0f} s" if heard else "nobody was woken"
        busy = f"  [dim]load {record.load:g} a core[/dim]" if record.load >= BUSY else ""
        self._console.print(f"{mark} [bold]{record.fault}[/bold]  {what}{busy}", soft_wrap=True)
        for each in result.findings:
            self._console.print(f"    {each}", style="red", markup=False, soft_wrap=True)

    def _now(self) -> float:
        return self._plan.clock.now()

    def _sleep(self, lab_s: float) -> None:
        time.sleep(self._plan.clock.wall_seconds(max(0.0, lab_s)))


def summary(results: Sequence[Result]) -> Table:
    """The table at the end."""
    table = Table("fault", "must lead to", "woke", "after", "tickets", "", box=None, padding=(0, 2), header_style="dim")
    for result in results:
        record, heard = result.record, page_of(result.record)
        must = str(result.wanted.page.on(record.struck)) if result.wanted.page else "nobody"
        tickets = sorted({each.diagnosis for each in record.heard if not each.urgent})
        table.add_row(
            record.fault,
            must + (" or nobody" if result.wanted.or_nobody else ""),
            f"{heard.diagnosis} {heard.subject}" if heard else "nobody",
            f"{heard.opened:.0f} s" if heard else "",
            ", ".join(tickets),
            MARKS["bad" if result.findings else "gap" if result.wanted.gap else "good"],
        )
    return table


def as_junit(results: Sequence[Result]) -> bytes:
    """The results as JUnit's XML: a test case a fault, times in lab seconds."""
    suite = ET.Element("testsuite", name="lab matrix", tests=str(len(results)), failures=str(sum(bool(each.findings) for each in results)))
    for result in results:
        record = result.record
        took = (record.green or record.healed or record.injected) - record.injected
        case = ET.SubElement(suite, "testcase", classname="lab.matrix", name=record.fault, time=f"{took:.1f}")
        if result.findings:
            failure = ET.SubElement(case, "failure", message=result.findings[0])
            failure.text = "\n".join(result.findings)
    ET.indent(suite)
    text: bytes = ET.tostring(suite, encoding="utf-8", xml_declaration=True)
    return text
