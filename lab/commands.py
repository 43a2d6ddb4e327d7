"""The ``lab`` commands. Thin: each reads its options, makes one call, prints what came back.

Exit codes: 0 success; 1 no lab runs, one runs already, or the lab refused; 2 unusable input, a fault or a Region that there is not
included.
"""

from __future__ import annotations

import json
import re
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table

from lab.control import NoLab, Refused, Unusable, ask
from lab.plan import DEFAULT_REGIONS, state_directory

app = typer.Typer(no_args_is_help=True, help="A two-Region store with faults to inject, on this machine.")
fault = typer.Typer(no_args_is_help=True, help="Break the running lab, and mend it.")
app.add_typer(fault, name="fault")

AsJson = Annotated[bool, typer.Option("--json", help="For a machine to read.")]
HEAL_WITHIN_S = 300.0
REGION_NAME = r"[a-z]{2}(-[a-z]+)+-\d"


@app.command()
def up(
    speed: Annotated[float, typer.Option(help="Lab seconds per wall second.", min=0.1, max=60)] = 1.0,
    region: Annotated[list[str] | None, typer.Option("--region", help="The Regions, two or more (repeat).")] = None,
    with_: Annotated[
        str | None, typer.Option("--with", help="'rabbitmq': the RabbitMQ that is installed, not the built-in broker.")
    ] = None,
    deploy: Annotated[bool, typer.Option(help="Deploy canaries, alarms and dashboards too.")] = True,
    traffic: Annotated[bool, typer.Option(help="A mild load of shoppers, with the shape of the day.")] = True,
) -> None:
    """Bring the store, the local AWS, canaries, alarms and the console up, and print pages as they are sent."""
    from lab.up import up as run

    regions = region or list(DEFAULT_REGIONS)
    if strangers := [name for name in regions if not re.fullmatch(REGION_NAME, name)]:
        raise typer.BadParameter(f"{', '.join(strangers)}: not the name of a Region, such as eu-central-1", param_hint="--region")
    if len(regions) < 2 or len(set(regions)) < len(regions):
        raise typer.BadParameter("name two or more different Regions, or none", param_hint="--region")
    raise typer.Exit(run(speed, regions, with_, deploy, traffic))


@app.command()
def down() -> None:
    """End the running lab and wait until nothing is left of it."""
    directory = state_directory()
    _ask("down")
    deadline = time.monotonic() + 30
    while directory.exists():
        if time.monotonic() > deadline:
            _fail(f"the lab was told to end, but {directory} is still there")
        time.sleep(0.05)


@app.command()
def status(as_json: AsJson = False) -> None:
    """Say what runs, where, and which pages are open."""
    answer = _ask("status")
    if as_json:
        typer.echo(json.dumps(answer, indent=1))
        return
    details = _ask("details")
    from lab.up import wide_console

    console = wide_console()
    console.print(f"lab time {_clock(answer['now'])}, speed {answer['speed']:g}, console [bold]{answer['console']}[/bold]")
    table = Table("Region", "store", "AWS", "not running", box=None, padding=(0, 2), header_style="dim")
    for name in answer["regions"]:
        idle = [each["name"] for each in details["processes"] if each["region"] == name and each["state"] != "ready"]
        table.add_row(name, answer["stores"][name]["url"], answer["endpoints"][name], ", ".join(idle) or "-")
    shared = [f"{each['name']} ({each['state']})" for each in details["processes"] if each["region"] is None and each["state"] != "ready"]
    table.add_row("shared by all", "", "", f"[red]{', '.join(shared)}[/red]" if shared else "-")
    console.print(table)
    for each in details["faults"]:
        for active in each["active"]:
            where = f" in {active['region']}" if active["region"] else ""
            console.print(f"[magenta]⚡ {each['name']}{where}[/magenta] since {_clock(active['since'])}  [dim]{each['sentence']}[/dim]")
    for page in answer["pages"]:
        colour = "red" if page["state"] == "open" else "green"
        console.print(f"[{colour}]page #{page['number']} {page['state']}[/{colour}] since {_clock(page['opened'])}  {page['summary']}")


@fault.command("list")
def fault_list(as_json: AsJson = False) -> None:
    """Explain each fault in a sentence."""
    from lab.faults import CATALOGUE

    if as_json:
        fields = ("name", "family", "sentence", "shows")
        typer.echo(json.dumps([{key: getattr(each, key) for key in fields} | {"where": each.where.value} for each in CATALOGUE], indent=1))
        return
    from lab.up import wide_console

    table = Table("fault", "where", "what breaks", box=None, padding=(0, 2), header_style="dim")
    family = ""
    for each in CATALOGUE:
        if family and each.family != family:
            table.add_row()
        family = each.family
        table.add_row(f"[bold]{each.name}[/bold]", "one Region" if each.where.value == "region" else "the lab", each.sentence)
    wide_console().print(table)


@fault.command("inject")
def fault_inject(
    name: Annotated[str, typer.Argument(help="See 'lab fault list'.")],
    region: Annotated[str | None, typer.Option(help="Where to strike; the first Region by default.")] = None,
    as_json: AsJson = False,
) -> None:
    """Break something, now."""
    _check_fault(name)
    active = _ask("inject", name=name, region=region, timeout_s=HEAL_WITHIN_S)
    _report([active], "injected", as_json)


@fault.command("heal")
def fault_heal(
    name: Annotated[str | None, typer.Argument(help="Which fault; all that are in force by default.")] = None,
    region: Annotated[str | None, typer.Option(help="Only in this Region.")] = None,
    as_json: AsJson = False,
) -> None:
    """Mend what was broken, and wait until it is whole."""
    if name is not None:
        _check_fault(name)
    healed = _ask("heal", name=name, region=region, timeout_s=HEAL_WITHIN_S)
    _report(healed, "healed", as_json)


@app.command()
def drill(
    out: Annotated[Path, typer.Option(help="Where the report goes.")] = Path("out/drill"),
    speed: Annotated[float, typer.Option(help="Lab seconds per wall second.", min=0.1, max=60)] = 10.0,
) -> None:
    """Run a failover drill to its end: break a Region, be paged, drain, heal, enable; exit 0 only if all of it was observed."""
    from lab.drill import drill as run

    raise typer.Exit(run(out, speed))


@app.command()
def matrix(
    more: Annotated[list[str] | None, typer.Argument(metavar="NAME", help="More faults after '--only NAME'.")] = None,
    only: Annotated[list[str] | None, typer.Option("--only", help="This fault only (one or more names); all by default.")] = None,
    junit: Annotated[Path | None, typer.Option(help="Where to write the results as JUnit's XML.")] = None,
    out: Annotated[Path, typer.Option(help="Where the record of each fault goes.")] = Path("out/matrix"),
    speed: Annotated[float, typer.Option(help="Lab seconds per wall second, where no lab runs yet.", min=0.1, max=60)] = 5.0,
) -> None:
    """Try the contract "this fault -> that page, and no other", fault by fault, in the running lab or in one of its own."""
    from lab.matrix.flow import matrix as run

    raise typer.Exit(run([*(only or ()), *(more or ())], junit, out, speed))


def _report(actives: list[dict[str, Any]], what: str, as_json: bool) -> None:
    if as_json:
        typer.echo(json.dumps(actives, indent=1))
        return
    for active in actives:
        where = f" in {active['region']}" if active["region"] else ""
        typer.echo(f"{active['name']}{where} {what}")
    if not actives:
        typer.echo("no fault is in force")


def _check_fault(name: str) -> None:
    """End with exit code 2 and the nearest names where there is no such fault, whether or not a lab runs."""
    from lab.faults import CATALOGUE

    try:
        CATALOGUE.get(name)
    except KeyError as error:
        _fail(str(error.args[0]), 2)


def _ask(do: str, timeout_s: float = 30.0, **request: Any) -> Any:
    try:
        return ask(state_directory(), do, timeout_s, **request)
    except Unusable as error:
        _fail(str(error), 2)
    except (NoLab, Refused, TimeoutError) as error:
        _fail(str(error))


def _fail(message: str, code: int = 1) -> None:
    typer.echo(message, err=True)
    raise typer.Exit(code)


def _clock(lab_time: float) -> str:
    return datetime.fromtimestamp(lab_time, UTC).strftime("%H:%M:%S")
