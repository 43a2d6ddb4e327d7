"""The ``alarms`` commands. Exit codes: 0 success; 1 failed tests or findings; 2 unusable input (raised as UnusableInput)."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from alarms.definitions import Definition, from_items
from topology import Problem, UnusableInput

app = typer.Typer(no_args_is_help=True, help="Test, lint, backtest and explain CloudWatch alarms before they page.")

TopologyFile = Annotated[Path, typer.Option("--topology", "-t", help="The workload's description: the alarms are rendered from it.")]
AsJson = Annotated[bool, typer.Option("--json", help="For machines.")]
DEFAULT = Path("topology.yaml")


@app.command("test")
def run_tests(
    files: Annotated[list[Path], typer.Argument(help="Alarm test files.")],
    topology: TopologyFile = DEFAULT,
    junit: Annotated[Path | None, typer.Option(help="Write JUnit XML here.")] = None,
    coverage: Annotated[bool, typer.Option("--coverage", help="Tell which alarms the tests drive, and how far.")] = False,
    mutate: Annotated[bool, typer.Option("--mutate", help="Change thresholds, M, N, … and list the changes no test notices.")] = False,
    json: AsJson = False,
) -> None:
    """Run alarm test files; definitions they do not name are rendered from the topology."""
    from alarms import testing

    try:
        report = testing.run(files, lambda: rendered(topology), junit=junit, with_coverage=coverage, with_mutants=mutate)
    except OSError as error:
        raise UnusableInput([Problem(f"cannot be written: {error.strerror}", "choose another file", str(junit))]) from error
    testing.print_report(report, _console(), json)
    raise typer.Exit(report.exit_code)


def rendered(topology: Path) -> list[Definition]:
    """The alarms that a topology file is rendered to. Raises UnusableInput."""
    from alarms.rendering import definitions
    from topology import load

    return from_items(definitions(load(topology)), str(topology))


def _console() -> Console:
    return Console(soft_wrap=True)
