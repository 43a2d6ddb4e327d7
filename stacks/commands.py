"""What the command line prints and returns for the deployment commands: one function a command, each gives the exit code."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterable
from pathlib import Path

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.table import Table

from stacks import deployment
from stacks.desired import Desired, desired, write
from stacks.lint import lint as find_problems
from stacks.names import PARTS
from stacks.session import Session
from stacks.status import RegionStatus
from stacks.status import status as read_status
from topology import Problem, Topology, load

GOOD, FINDINGS = 0, 1
COLORS = {"error": "red", "warning": "yellow", "note": "blue"}
SIGNS = {"Add": "[green]+[/]", "Modify": "[yellow]~[/]", "Remove": "[red]-[/]"}


def render(file: Path, out: Path, as_json: bool, console: Console) -> int:
    """Write templates, dashboards, alarm definitions and bundles to ``out``."""
    files = write(desired(load(file)), out)
    if as_json:
        console.print_json(json.dumps({"files": [str(path) for path in files]}))
        return GOOD
    for path in files:
        console.print(f"{path}  [dim]{path.stat().st_size:,} bytes[/]", highlight=False)
    return GOOD


def lint(file: Path, offline: bool, as_json: bool, console: Console) -> int:
    """Print every finding; findings that are only notes do not fail."""
    topology = load(file)
    problems = find_problems(desired(topology), str(file), None if offline else Session(topology))
    print_problems(problems, as_json, console)
    if not problems and not as_json:
        console.print(f"[green]{file}: nothing to mend[/]")
    return FINDINGS if any(problem.severity != "note" for problem in problems) else GOOD


def print_problems(problems: Iterable[Problem], as_json: bool, console: Console) -> None:
    """Findings for a person, or for a machine."""
    found = list(problems)
    if as_json:
        console.print_json(json.dumps([problem.to_json() for problem in found]))
        return
    for problem in found:
        head, _, mend = str(problem).partition("\n")
        console.print(f"[{COLORS[problem.severity]}]{problem.severity}[/] ", end="")
        console.print(head, markup=False, highlight=False)
        console.print(mend, markup=False, highlight=False, style="dim")


def plan(file: Path, as_json: bool, console: Console) -> int:
    """Print what `apply` would change."""
    state = desired(load(file))
    with _Progress(state.topology, console, quiet=as_json):
        outcomes = deployment.plan(state)
    _print_outcomes(outcomes, as_json, console, "would change")
    return FINDINGS if any(outcome.failed for outcome in outcomes) else GOOD


def apply(file: Path, as_json: bool, console: Console) -> int:
    """Bring every Region to the rendered state."""
    state = desired(load(file))
    with _Progress(state.topology, console, quiet=as_json) as report:
        outcomes = deployment.apply(state, report=report)
    _print_outcomes(outcomes, as_json, console, "changed")
    return FINDINGS if any(outcome.failed for outcome in outcomes) else GOOD


def destroy(file: Path, as_json: bool, console: Console) -> int:
    """Remove everything that `apply` made."""
    topology = load(file)
    with _Progress(topology, console, quiet=as_json) as report:
        outcomes = deployment.destroy(topology, report=report)
    _print_outcomes(outcomes, as_json, console, "removed")
    return FINDINGS if any(outcome.failed for outcome in outcomes) else GOOD


def status(file: Path, as_json: bool, console: Console) -> int:
    """Print what stands where."""
    regions = read_status(desired(load(file)))
    if as_json:
        console.print_json(json.dumps([region.to_json() for region in regions]))
    else:
        for region in regions:
            _print_region(region, console)
    return GOOD if all(region.good for region in regions) else FINDINGS


def _print_region(region: RegionStatus, console: Console) -> None:
    console.print(f"\n[bold]{region.region}[/]")
    if region.unread:
        console.print(f"  [red]not read:[/] {escape(region.unread)}", highlight=False)
        return
    table = Table(box=None, padding=(0, 2), show_header=False)
    for stack in region.stacks:
        notes = [*(["stale: not what is rendered now"] if stack.stale and stack.steady else []), *stack.drifted, stack.unread]
        table.add_row(
            "[green]●[/]" if stack.good else "[yellow]●[/]",
            stack.name,
            stack.status,
            stack.drift.lower(),
            escape(", ".join(filter(None, notes))),
        )
    for canary in region.canaries:
        color = "green" if canary.last_run == "PASSED" else "red" if canary.last_run == "FAILED" else "yellow"
        table.add_row(f"[{color}]●[/]", canary.name, canary.state, canary.last_run, escape(f"{canary.ended} {canary.reason}"[:90]))
    for state, names in sorted(region.alarms.items()):
        color = {"OK": "green", "ALARM": "red"}.get(state, "yellow")
        listed = escape(", ".join(sorted(names))) if state != "OK" else ""
        table.add_row(f"[{color}]●[/]", "alarms", state, str(len(names)), listed)
    console.print(table)


def _print_outcomes(outcomes: list[deployment.Outcome], as_json: bool, console: Console, word: str) -> None:
    if as_json:
        plain = [
            {
                "region": outcome.region,
                "failed": outcome.failed,
                "notes": list(outcome.notes),
                "changes": {
                    part: [{"action": c.action, "resource": c.resource, "type": c.kind, "replacement": c.replacement} for c in changes]
                    for part, changes in outcome.changes.items()
                },
            }
            for outcome in outcomes
        ]
        console.print_json(json.dumps(plain))
        return
    for outcome in outcomes:
        if outcome.failed:
            console.print(f"[red]{outcome.region} failed:[/] ", end="")
            console.print(outcome.failed, markup=False, highlight=False)
            console.print("    mend: correct that and run the command again; it goes on where it stopped", style="dim")
            continue
        total = sum(len(changes) for changes in outcome.changes.values())
        console.print(
            f"[bold]{outcome.region}[/]: {f'{total} resources {word}' if total else 'done' if word == 'removed' else 'no changes'}"
        )
        for note in outcome.notes:
            console.print(f"  note: {note}", style="yellow", markup=False, highlight=False)
        for part, changes in outcome.changes.items():
            for change in changes if word == "would change" else ():
                note = f"  [red]replaced ({change.replacement})[/]" if change.replacement in ("True", "Conditional") else ""
                details = f"  [dim]{', '.join(change.details)}[/]" if change.details else ""
                console.print(
                    f"  {SIGNS.get(change.action, '?')} {part}/{change.resource} [dim]{change.kind}[/]{note}{details}", highlight=False
                )


class _Progress:
    """A bar for each Region while stacks change; nothing where the output is for a machine."""

    def __init__(self, topology: Topology, console: Console, quiet: bool) -> None:
        self._regions = topology.watched_regions
        self._lock = threading.Lock()
        self._progress = Progress(
            SpinnerColumn(),
            TextColumn("{task.fields[region]}"),
            BarColumn(bar_width=18),
            TextColumn("{task.description}"),
            TimeElapsedColumn(),
            console=Console(stderr=True) if quiet else console,
            disable=quiet or not console.is_terminal,
            transient=True,
        )
        self._tasks = {region: self._progress.add_task("waiting", total=len(PARTS), region=region) for region in self._regions}

    def __enter__(self) -> deployment.Report:
        self._progress.start()
        return self._report

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    def _report(self, region: str, part: str, what: str, status: str) -> None:
        with self._lock:
            done = what == "stack" and status in ("up to date", "gone")
            self._progress.update(self._tasks[region], advance=1 if done else 0, description=f"{part}: {what} {status}"[:70])


def topology_states(file: Path) -> Desired:
    """The rendered state of the topology in ``file``."""
    return desired(load(file))
