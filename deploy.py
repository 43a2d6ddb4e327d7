"""The command line of Crosswatch. Every command is one call into a room; exit 0 success, 1 findings, 2 unusable input."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from alarms.commands import app as alarms_app
from lab.commands import app as lab_app
from topology import UnusableInput

app = typer.Typer(
    help="Watch an active/active service in two or more AWS Regions: canaries, alarms, dashboards, and a lab to break.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
dashboards_app = typer.Typer(help="Check dashboard bodies offline and draw them.", no_args_is_help=True)
failover_app = typer.Typer(help="What happened in a failover.", no_args_is_help=True)
app.add_typer(alarms_app, name="alarms")
app.add_typer(dashboards_app, name="dashboards")
app.add_typer(failover_app, name="failover")
app.add_typer(lab_app, name="lab")

TopologyFile = Annotated[Path, typer.Option("--topology", "-t", help="The workload's description.")]
AsJson = Annotated[bool, typer.Option("--json", help="For machines.")]
DEFAULT = Path("topology.yaml")


@app.command()
def render(
    topology: TopologyFile = DEFAULT,
    out: Annotated[Path, typer.Option(help="Where to write.", file_okay=False)] = Path("out"),
    json: AsJson = False,
) -> None:
    """Write per-Region templates, dashboards, alarm definitions and canary bundles."""
    from stacks import commands

    _leave(commands.render(topology, out, json, _console()))


@app.command()
def lint(
    topology: TopologyFile = DEFAULT,
    offline: Annotated[bool, typer.Option(help="Do not ask AWS which runtimes it offers.")] = False,
    json: AsJson = False,
) -> None:
    """Check placement, definitions, dashboards, runtime and limits."""
    from stacks import commands

    _leave(commands.lint(topology, offline, json, _console()))


@app.command()
def cost(topology: TopologyFile = DEFAULT, json: AsJson = False) -> None:
    """Estimate what a month costs, item by item, beside the AWS sample's layout."""
    from stacks import cost as estimate

    _leave(estimate.command(topology, json, _console()))


@app.command()
def discover(
    tag: Annotated[str, typer.Option(help="Key=Value of the tag that the workload's resources carry.")],
    region: Annotated[list[str], typer.Option(help="A Region to look in; repeat for each.")],
    out: Annotated[Path, typer.Option(help="Where to write the topology; a file that exists is never overwritten.")] = DEFAULT,
) -> None:
    """Write topology.yaml from a tagged account."""
    from stacks import discover as discovery

    _leave(discovery.command(tag, region, out, _console()))


@app.command()
def plan(topology: TopologyFile = DEFAULT, json: AsJson = False) -> None:
    """Show what apply would change, Region by Region."""
    from stacks import commands

    _leave(commands.plan(topology, json, _console()))


@app.command()
def apply(topology: TopologyFile = DEFAULT, json: AsJson = False) -> None:
    """Bring every Region to the rendered state by change sets, in parallel."""
    from stacks import commands

    _leave(commands.apply(topology, json, _console()))


@app.command()
def status(topology: TopologyFile = DEFAULT, json: AsJson = False) -> None:
    """Show stacks with drift and what is stale, canaries and alarms."""
    from stacks import commands

    _leave(commands.status(topology, json, _console()))


@app.command()
def destroy(
    topology: TopologyFile = DEFAULT,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    json: AsJson = False,
) -> None:
    """Remove everything that apply made."""
    from stacks import commands

    if not yes:
        typer.confirm(f"Remove the monitoring that {topology} describes, in every Region?", abort=True)
    _leave(commands.destroy(topology, json, _console()))


@dashboards_app.command("check")
def dashboards_check(files: list[Path], json: AsJson = False) -> None:
    """Say what PutDashboard would say of each body."""
    from dashboards import commands

    _leave(commands.check(files, json, _console()))


@dashboards_app.command("preview")
def dashboards_preview(
    topology: TopologyFile = DEFAULT,
    out: Annotated[Path, typer.Option(help="Where to write the pictures.", file_okay=False)] = Path("out"),
    format: Annotated[str, typer.Option(help="html or png.")] = "html",  # noqa: A002 - the flag's name is a contract
    hours: Annotated[float, typer.Option(help="How far back; CloudWatch keeps metrics for 455 days.")] = 3.0,
    to: Annotated[str, typer.Option(help="Until when, ISO 8601; a lab's time is what `lab status` says.")] = "",
) -> None:
    """Draw the dashboards from real data, before or after they are deployed."""
    from dashboards import commands

    if format not in ("html", "png"):
        raise typer.BadParameter("use html or png", param_hint="--format")
    _leave(commands.preview(topology, out, format, hours, to, _console()))


@failover_app.command("report")
def failover_report(
    start: Annotated[str, typer.Option("--from", help="Start, ISO 8601.")],
    end: Annotated[str, typer.Option("--to", help="End, ISO 8601.")],
    topology: TopologyFile = DEFAULT,
    out: Annotated[Path, typer.Option(help="Where to write the report.", file_okay=False)] = Path("out"),
) -> None:
    """Write what happened between two times: the matrix, the alarms, the routing, the orders that are gone."""
    from stacks import failover

    _leave(failover.command(topology, start, end, out, _console()))


def main() -> None:
    """Entry point: unusable input becomes a message and exit code 2, never a traceback."""
    try:
        app()
    except UnusableInput as error:
        console = Console(stderr=True)
        for problem in error.problems:
            console.print(str(problem), markup=False, highlight=False, soft_wrap=True)
        sys.exit(2)
    except OSError as error:
        if error.filename is None:
            raise  # no file of the user's: not a matter of input
        print(f"{error.filename}: {error.strerror}\n    mend: choose another place, or change what stands there", file=sys.stderr)
        sys.exit(2)
    except Exception as error:
        from botocore.exceptions import BotoCoreError

        if not isinstance(error, BotoCoreError):
            raise
        print(f"AWS cannot be asked: {error}\n    mend: check AWS_PROFILE, AWS_REGION and the files that they name", file=sys.stderr)
        sys.exit(2)


def _console() -> Console:
    return Console(soft_wrap=True)


def _leave(code: int) -> None:
    raise typer.Exit(code)


if __name__ == "__main__":
    main()
