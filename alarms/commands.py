"""The ``alarms`` commands. Exit codes: 0 success; 1 failed tests, findings or a changed backtest; 2 unusable input (as UnusableInput)."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape

from topology import Problem, Topology, UnusableInput

if TYPE_CHECKING:  # the engine is loaded by the commands that use it: `lab` and `status` start without it
    from alarms.definitions import Definition

app = typer.Typer(no_args_is_help=True, help="Test, lint, backtest and explain CloudWatch alarms before they page.")

TopologyFile = Annotated[Path, typer.Option("--topology", "-t", help="The workload's description: the alarms are rendered from it.")]
AsJson = Annotated[bool, typer.Option("--json", help="For machines.")]
DefinitionFiles = Annotated[list[Path] | None, typer.Option("--definitions", "-d", help="Alarm definitions instead of the rendered ones.")]
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


@app.command()
def lint(
    files: Annotated[list[Path] | None, typer.Argument(help="Alarm definitions; none: those rendered from the topology.")] = None,
    topology: TopologyFile = DEFAULT,
    json: AsJson = False,
) -> None:
    """Look for alarms that CloudWatch accepts and that nobody should deploy."""
    from alarms.lint import lint as find

    model = _topology(topology, required=not files)
    findings = find(_definitions(files, topology), model, notifier_texts(model) if model else {})
    console = _console()
    if json:
        console.print_json(data={"findings": [finding.to_json() for finding in findings]})
    else:
        for finding in findings:
            console.print(f"{finding.severity}: {escape(str(finding))}", highlight=False, soft_wrap=True)
        console.print(f"{len(findings)} findings", highlight=False)
    raise typer.Exit(1 if any(finding.severity != "note" for finding in findings) else 0)


@app.command()
def explain(
    name: Annotated[str, typer.Argument(help="The alarm's name.")],
    topology: TopologyFile = DEFAULT,
    definitions: DefinitionFiles = None,
    region: Annotated[str | None, typer.Option(help="Only the alarm of this Region.")] = None,
    json: AsJson = False,
) -> None:
    """Say in plain words what an alarm watches, when it fires, and what silence does."""
    from difflib import get_close_matches

    from alarms.definitions import only_alarms, parse_all
    from alarms.explain import explain as describe

    alarms = only_alarms(parse_all(_definitions(definitions, topology)))
    found = [(d, alarm) for d, alarm in alarms if alarm.name == name and region in (None, d.region)]
    if not found:
        places = {d.region: None for d, alarm in alarms if alarm.name == name and d.region}
        if places:
            raise UnusableInput([Problem(f"{name} does not live in {region}", f"use --region {' or '.join(places)}", str(topology))])
        close = get_close_matches(name, dict.fromkeys(alarm.name for _, alarm in alarms), 3, 0.4)
        mend = f"did you mean {', '.join(close)}?" if close else "name one of the alarms"
        raise UnusableInput([Problem(f"there is no alarm {name}", mend, str(topology))])
    told = [describe(definition, alarm, alarms) for definition, alarm in found]
    console = _console()
    if json:
        console.print_json(data=[one.to_json() for one in told])
        return
    console.print("\n\n".join("\n".join(one.lines()) for one in told), markup=False, highlight=False, soft_wrap=True)


@app.command()
def backtest(
    data: Annotated[list[Path] | None, typer.Argument(help="Exported GetMetricData, JSON or CSV.")] = None,
    topology: TopologyFile = DEFAULT,
    definitions: DefinitionFiles = None,
    against: Annotated[list[Path] | None, typer.Option("--against", help="The old definitions to compare with.")] = None,
    start: Annotated[str | None, typer.Option("--from", help="Start, ISO 8601; by default that of the data.")] = None,
    end: Annotated[str | None, typer.Option("--to", help="End, ISO 8601; by default that of the data.")] = None,
    fetch: Annotated[bool, typer.Option("--fetch", help="Fetch the history from CloudWatch, with --from and --to.")] = False,
    save: Annotated[Path | None, typer.Option(help="Keep what was fetched in this file.")] = None,
    picture: Annotated[Path | None, typer.Option(help="Draw when each alarm was on: .svg, .png or .html.")] = None,
    json: AsJson = False,
) -> None:
    """Replay alarms over history: how often, how long and when they would have fired."""
    from alarms import backtest as replaying
    from alarms.definitions import parse_all

    model = _topology(topology, required=not definitions)
    new = parse_all(_definitions(definitions, topology))
    old = parse_all(_definitions(against, topology)) if against else None
    span = (_time(start, "--from"), _time(end, "--to"))
    files = list(data or [])
    if not files and not fetch:
        raise UnusableInput([Problem("there is no history", "name exported files, or use --fetch with --from and --to")])
    with TemporaryDirectory(prefix="crosswatch-backtest-") as folder:
        if fetch:
            files.append(_fetched([*new, *(old or [])], span, model, save or Path(folder) / "history.json"))
        exports = replaying.load(files)
    spans = [found for export in exports.values() if (found := export.span)]
    if not spans:
        raise UnusableInput([Problem("the files hold no data points", "export a stretch in which the metrics have data", str(files[0]))])
    first = span[0] if span[0] is not None else min(begin for begin, _ in spans)
    last = span[1] if span[1] is not None else max(until for _, until in spans)
    if first >= last:
        raise UnusableInput([Problem("the stretch ends before it begins", "put --from before --to")])
    outcomes = tuple(replaying.replay(new, exports, first, last))
    before = tuple(replaying.replay(old, exports, first, last)) if old is not None else None
    result = replaying.Backtest(first, last, outcomes, before)
    replaying.print_backtest(result, _console(), json)
    if picture is not None:
        try:
            replaying.picture(result, picture)
        except (OSError, ValueError) as error:
            raise UnusableInput([Problem(f"cannot be drawn: {error}", "choose another file", str(picture))]) from error
    raise typer.Exit(1 if result.changed else 0)


def rendered(topology: Path) -> list[Definition]:
    """The alarms that a topology file is rendered to. Raises UnusableInput."""
    from alarms.definitions import from_items
    from alarms.rendering import definitions
    from topology import load

    return from_items(definitions(load(topology)), str(topology))


def notifier_texts(topology: Topology) -> dict[str, Any]:
    """What the notifier says of alarms, by name."""
    from alarms import slo
    from alarms.diagnosis import incidents
    from alarms.rendering import ticket_incidents

    texts: dict[str, Any] = {}
    for region in topology.watched_regions:
        texts |= incidents(topology, region) | ticket_incidents(topology, region) | slo.incidents(topology, region)
    return texts


def _definitions(files: list[Path] | None, topology: Path) -> list[Definition]:
    """The definitions of files, or those rendered from the topology."""
    if not files:
        return rendered(topology)
    problems: list[Problem] = []
    from alarms.definitions import load_file

    found: list[Definition] = []
    for path in files:
        try:
            found += load_file(path)
        except UnusableInput as error:
            problems += error.problems
    if problems:
        raise UnusableInput(problems)
    return found


def _topology(path: Path, required: bool) -> Topology | None:
    """The topology; None where it is not required and not there."""
    from topology import load

    return load(path) if required or path.exists() else None


def _time(value: str | None, option: str) -> float | None:
    if value is None:
        return None
    try:
        moment = datetime.fromisoformat(value)
    except ValueError as error:
        raise UnusableInput([Problem(f"{value!r} is not a time", "write it as 2026-01-31T00:00:00Z", "", option)]) from error
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()


def _fetched(parsed: Any, span: tuple[float | None, float | None], topology: Topology | None, path: Path) -> Path:
    """Fetch with progress, and write to ``path``."""
    from botocore.exceptions import BotoCoreError, ClientError
    from rich.progress import Progress

    from alarms.backtest import data
    from alarms.backtest import fetch as fetching
    from alarms.definitions import only_alarms

    start, end = span
    if start is None or end is None:
        raise UnusableInput([Problem("--fetch needs --from and --to", "name the stretch to fetch")])
    stats = fetching.wanted(only_alarms(parsed))
    if not stats:
        raise UnusableInput([Problem("no alarm has a Region", "give each definition a Region to fetch from")])
    with Progress(console=Console(stderr=True), transient=True) as bar:
        tasks = {region: bar.add_task(region, total=None) for region in stats}

        def advance(region: str, done: int, total: int) -> None:
            bar.update(tasks[region], completed=done, total=total)

        try:
            parts = fetching.fetch(stats, start, end, fetching.clients(topology), advance)
            data.save(parts, path)
        except (BotoCoreError, ClientError) as error:
            mend = "check credentials, Region and the permission cloudwatch:GetMetricData"
            raise UnusableInput([Problem(f"CloudWatch cannot be asked: {error}", mend)]) from error
        except OSError as error:
            raise UnusableInput([Problem(f"cannot be written: {error.strerror}", "choose another file", str(path))]) from error
    return path


def _console() -> Console:
    return Console(soft_wrap=True)
