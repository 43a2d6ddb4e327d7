"""A page as the terminal shows it: a panel in the colour of its severity, with the command to copy on a line of its own."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from rich.console import Group
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

if TYPE_CHECKING:
    from rich.console import RenderableType

    from lab.oncall.desk import Event, Incident

COLOURS = {"critical": "red", "error": "dark_orange", "warning": "yellow", "info": "cyan"}
STATES = {"up": "green", "degraded": "yellow", "down": "red", "silent": "grey62"}


def render(event: Event) -> RenderableType | None:
    """What to print for an event; None where there is nothing to say."""
    incident = event.incident
    if incident is None or event.what == "update":
        return None
    if event.what == "note":
        colour = COLOURS.get(incident.severity, "white")
        head = f"● {incident.severity.upper()} "
        return Text.assemble(
            (head, f"bold {colour}"), (f"#{incident.number} ", "bold"), incident.summary, ("  nobody is paged for it", "dim")
        )
    if event.what == "resolve":
        lasted = _duration((incident.resolved or incident.opened) - incident.opened)
        return Text.assemble(
            ("✔ RESOLVED ", "bold green"), (f"#{incident.number} ", "bold"), incident.summary, (f"  after {lasted}", "dim")
        )
    return panel(incident)


def panel(incident: Incident) -> Panel:
    """The page that opened ``incident``."""
    colour = COLOURS.get(incident.severity, "white")
    title = f"[bold]PAGE #{incident.number}[/bold]" + (f"  {incident.severity.upper()}" if incident.severity else "")
    subtitle = f"{_clock(incident.opened)} lab time"
    body: RenderableType = _page(incident.page) if incident.page else Text(incident.notifications[0].text)
    return Panel(
        Group(Text(incident.summary, style="bold"), Text(), body), title=title, subtitle=subtitle, border_style=colour, padding=(1, 2)
    )


def _page(page: dict[str, Any]) -> RenderableType:
    rows = Table.grid(padding=(0, 2))
    rows.add_column(style="dim", no_wrap=True)
    rows.add_column(overflow="fold")
    if page.get("description"):
        rows.add_row("what", str(page["description"]))
    rows.add_row("since", f"{page.get('since', '?')}, decided in {page.get('region', '?')}")
    if seen := page.get("seen_from"):
        rows.add_row("seen from", _matrix(seen))
    links = page.get("links") or {}
    for name, link in links.items():
        rows.add_row(name, Text(str(link), style=f"underline link {link}"))
    todo = page.get("what_to_do")
    if not todo:
        return rows
    parameters = ", ".join(f"{key}={_plain(value)}" for key, value in (todo.get("parameters") or {}).items())
    rows.add_row(
        "what to do", Text.assemble(("run ", ""), (str(todo.get("runbook")), "bold"), f" in {todo.get('region')} with {parameters}")
    )
    command = Text(str(todo.get("command", "")), style="bold", overflow="fold")
    return Group(rows, Text(), command)


def _matrix(seen: list[dict[str, str]]) -> RenderableType:
    grid = Table.grid(padding=(0, 2))
    targets = list(dict.fromkeys(cell["target"] for cell in seen))
    grid.add_row("", *(Text(target, style="dim") for target in targets))
    for vantage in dict.fromkeys(cell["vantage"] for cell in seen):
        states = {cell["target"]: cell["state"] for cell in seen if cell["vantage"] == vantage}
        cells = (Text(states.get(target, "?"), style=STATES.get(states.get(target, ""), "")) for target in targets)
        grid.add_row(Text(vantage, style="dim"), *cells)
    return grid


def _plain(value: Any) -> str:
    return ",".join(map(str, value)) if isinstance(value, list) else str(value)


def _clock(lab_time: float) -> str:
    return datetime.fromtimestamp(lab_time, UTC).strftime("%H:%M:%S")


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest:02d} s" if minutes else f"{rest} s"
