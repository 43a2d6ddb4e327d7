"""A backtest told as a table, as JSON, and as a picture with one strip an alarm."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from alarms.backtest.replay import Outcome
from alarms.engine.states import stamp, utc
from alarms.testing.notation import show_duration


@dataclass(frozen=True, slots=True)
class Backtest:
    """The outcomes of the new definitions, and of the old ones where there are some."""

    start: float
    end: float
    new: tuple[Outcome, ...]
    old: tuple[Outcome, ...] | None = None

    def rows(self) -> list[tuple[str, str | None, Outcome | None, Outcome | None]]:
        """(alarm, Region, old, new), the new definitions' alarms first."""
        before = {(one.region, one.alarm): one for one in self.old or ()}
        after = {(one.region, one.alarm): one for one in self.new}
        return [(name, region, before.get((region, name)), after.get((region, name))) for region, name in dict.fromkeys([*after, *before])]

    @property
    def changed(self) -> bool:
        """Whether old and new definitions differ in any episode."""
        return self.old is not None and any((a and a.episodes) != (b and b.episodes) for _, _, a, b in self.rows())

    def to_json(self) -> dict[str, Any]:
        """The backtest as JSON values."""

        def told(one: Outcome | None) -> dict[str, Any] | None:
            if one is None:
                return None
            return {
                "episodes": [{"start": stamp(e.start), "end": stamp(e.end) if e.end else None} for e in one.episodes],
                "count": len(one.episodes),
                "minutes": round(one.minutes(self.end), 2),
                "longest_minutes": round(one.longest(self.end), 2),
                "actions": one.actions,
                "lacks": one.lacks,
            }

        alarms = [
            {"alarm": name, "region": region, "new": told(after), **({"old": told(before)} if self.old is not None else {})}
            for name, region, before, after in self.rows()
        ]
        return {"from": stamp(self.start), "to": stamp(self.end), "changed": self.changed, "alarms": alarms}


def print_backtest(result: Backtest, console: Console, json: bool = False) -> None:
    """Write the backtest to ``console``."""
    if json:
        console.print_json(data=result.to_json())
        return
    title = f"{utc(result.start):%Y-%m-%d %H:%M} to {utc(result.end):%Y-%m-%d %H:%M} UTC"
    compared = result.old is not None
    heads = ("alarm", "Region", "times", "in ALARM", "longest", "actions")
    table = Table(*heads, *(("before: times", "in ALARM") if compared else ()), "first", title=title, title_justify="left")
    for name, region, before, after in result.rows():
        old = _cells(before, result.end)[:2] if compared else ()
        first = f"{utc(after.episodes[0].start):%m-%d %H:%M}" if after and after.episodes else ""
        mark = "*" if compared and (before and before.episodes) != (after and after.episodes) else ""
        table.add_row(escape(name) + mark, region or "", *_cells(after, result.end), *old, first)
    console.print(table)
    for name, region, _, after in result.rows():
        for metric in after.lacks if after else ():
            place = f"{region} {name}" if region else name
            console.print(f"[yellow]no data[/] {escape(place)}: {escape(metric)}", highlight=False, soft_wrap=True)
    if compared:
        words = "* differs from the old definitions" if result.changed else "old and new definitions behave alike"
        console.print(words, highlight=False)


def _cells(one: Outcome | None, end: float) -> tuple[str, str, str, str]:
    if one is None:
        return ("-", "-", "-", "-")
    total, longest = show_duration(round(one.minutes(end) * 60)), show_duration(round(one.longest(end) * 60))
    return str(len(one.episodes)), total if one.episodes else "", longest if one.episodes else "", str(one.actions)


def picture(result: Backtest, path: Path) -> None:
    """Write the strips to ``path``: .svg, .png or .html. Raises OSError, and ValueError for another suffix."""
    import altair as alt

    kinds: Sequence[tuple[str, tuple[Outcome, ...]]] = (("new", result.new), *((("old", result.old),) if result.old is not None else ()))
    rows = [
        {
            "alarm": f"{one.region + ' ' if one.region else ''}{one.alarm}",
            "definitions": kind,
            "from": stamp(episode.start),
            "to": stamp(episode.end or result.end),
        }
        for kind, outcomes in kinds
        for one in outcomes
        for episode in one.episodes
    ]
    names = [f"{region + ' ' if region else ''}{name}" for name, region, _, _ in result.rows()]
    span = alt.Scale(domain=[stamp(result.start), stamp(result.end)], type="utc")
    strips = alt.Chart(alt.InlineData(values=rows)).mark_bar(minBandSize=2)
    chart = strips.encode(
        x=alt.X("from:T", scale=span, title="UTC"),
        x2="to:T",
        y=alt.Y("alarm:N", sort=names, scale=alt.Scale(domain=names), title=None, axis=alt.Axis(labelLimit=360)),
        yOffset=alt.YOffset("definitions:N", sort=[kind for kind, _ in kinds]),
        color=alt.Color("definitions:N", scale=alt.Scale(domain=["new", "old"], range=["#d13212", "#879596"])),
    ).properties(width=900, title="in ALARM")
    suffix = path.suffix.lower()
    path.parent.mkdir(parents=True, exist_ok=True)
    if suffix == ".html":
        path.write_text(chart.to_html(inline=True), "utf-8")
    elif suffix in (".svg", ".png"):
        chart.save(str(path))
    else:
        raise ValueError(f"{path.name}: the picture is written as .svg, .png or .html")
