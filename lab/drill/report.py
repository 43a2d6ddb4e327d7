"""The drill's report: one HTML file with its pictures in it, and observations.json beside it.

Pictures are Vega-Lite charts drawn by vl-convert, so that they need neither a browser nor a network.
"""

from __future__ import annotations

import html
import json
from datetime import UTC, datetime
from importlib.resources import files
from itertools import pairwise
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pathlib import Path

    from lab.drill.record import Record

STATES = {"up": "#35b37e", "degraded": "#f0b429", "down": "#e5484d", "silent": "#b4bcc8"}
EVENTS = {"fault in force": "#8e63ee", "page open": "#e5484d", "routing control off": "#5b93f2"}
OTHERS = ("#5b93f2", "#35b37e", "#f0b429", "#8e63ee", "#17809a")
WIDTH = 860


def write(record: Record, out: Path) -> Path:
    """Write ``report.html`` and ``observations.json`` to ``out``; returns the report."""
    out.mkdir(parents=True, exist_ok=True)
    (out / "observations.json").write_text(json.dumps(record.as_json(), indent=1))
    for name, picture in pictures(record).items():
        (out / f"{name}.svg").write_text(picture)
    report = out / "report.html"
    report.write_text(page(record))
    return report


def pictures(record: Record) -> dict[str, str]:
    """The report's pictures by name, as SVG."""
    if not record.samples:
        return {}
    return {"timeline": timeline(record), "matrix": matrix(record), "answers": answers(record)}


def timeline(record: Record) -> str:
    """When the fault was in force, the page open and the routing control off."""
    end = _minutes(record, record.samples[-1].at)
    bars = [
        {
            "what": "fault in force",
            "from": _minutes(record, fault["since"]),
            "to": _minutes(record, fault["until"]) if fault["until"] else end,
        }
        for fault in record.faults
    ]
    bars += [
        {
            "what": "page open",
            "from": _minutes(record, page["opened"]),
            "to": _minutes(record, page["resolved"]) if page["resolved"] else end,
        }
        for page in record.pages
        if page["urgent"]
    ]
    off = [
        {"what": "routing control off", "state": "off", "from": _minutes(record, before.at), "to": _minutes(record, after.at)}
        for before, after in pairwise(record.samples)
        if before.routing.get(record.region) == "off"
    ]
    bars += _joined(off)
    return _bars(bars, "what", EVENTS, 34 * len(EVENTS), end)


def matrix(record: Record) -> str:
    """Every cell of the matrix over time."""
    rows = [
        {"from": _minutes(record, before.at), "to": _minutes(record, after.at), "what": f"{vantage} → {target}", "state": state}
        for before, after in pairwise(record.samples)
        for vantage, row in before.matrix.items()
        for target, state in row.items()
    ]
    count = len({row["what"] for row in rows})
    return _bars(_joined(rows), "state", STATES, 26 * count, _minutes(record, record.samples[-1].at), "what")


def answers(record: Record) -> str:
    """To which Region each Region's resolver sent the clients of the store's name."""
    names = list(record.samples[0].answers)
    colours = dict(zip(names, OTHERS, strict=False)) | {"no answer": STATES["silent"]}
    rows = [
        {
            "from": _minutes(record, before.at),
            "to": _minutes(record, after.at),
            "what": f"resolver in {name}",
            "state": ", ".join(answer) if answer else "no answer",
        }
        for before, after in pairwise(record.samples)
        for name, answer in before.answers.items()
    ]
    return _bars(_joined(rows), "state", colours, 30 * len(names), _minutes(record, record.samples[-1].at), "what")


def _joined(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Neighbouring stretches of one row with the same state as one."""
    joined: list[dict[str, Any]] = []
    last: dict[str, dict[str, Any]] = {}
    for row in sorted(rows, key=lambda row: (row["what"], row["from"])):
        before = last.get(row["what"])
        if before and before["state"] == row["state"] and before["to"] == row["from"]:
            before["to"] = row["to"]
        else:
            last[row["what"]] = row
            joined.append(row)
    return joined


def _bars(rows: list[dict[str, Any]], colour: str, colours: dict[str, str], height: int, end: float, y: str | None = None) -> str:
    import vl_convert

    quiet = {"labelFontSize": 12, "titleFontSize": 12, "titleFontWeight": "normal", "labelColor": "#5f6b7d", "titleColor": "#5f6b7d"}
    chart = {
        "$schema": "https://vega.github.io/schema/vega-lite/v5.json",
        "width": WIDTH - 240,
        "height": height,
        "data": {"values": rows},
        "mark": {"type": "bar", "height": 18, "cornerRadius": 2},
        "encoding": {
            "x": {
                "field": "from",
                "type": "quantitative",
                "title": "lab minutes since the drill began",
                "scale": {"domain": [0, max(end, 0.1)], "nice": False},
            },
            "x2": {"field": "to"},
            "y": {
                "field": y or colour,
                "type": "nominal",
                "title": None,
                "sort": None if y else list(colours),
                "axis": {"labelLimit": 260, "labelPadding": 8, "minExtent": 215, "grid": False, "ticks": False},
            },
            "color": {
                "field": colour,
                "type": "nominal",
                "scale": {"domain": list(colours), "range": list(colours.values())},
                "legend": {"orient": "top", "title": None} if y else None,
            },
        },
        "config": {
            "view": {"stroke": None},
            "axis": {**quiet, "domain": False, "gridColor": "#e3e7ed"},
            "legend": {"labelFontSize": 12, "labelColor": "#5f6b7d"},
        },
    }
    drawn: str = vl_convert.vegalite_to_svg(chart)
    return drawn


def page(record: Record) -> str:
    """The report as HTML."""
    ended = record.samples[-1].at if record.samples else record.began
    verdict = "Everything was observed" if record.ok else "Not everything was observed"
    steps = "".join(
        f'<tr class="{"ok" if step.ok else "not"}"><td>{"✔" if step.ok else "✘"}</td><td>{_clock(step.at)}</td><td>{step.took_s:.0f} s</td>'
        f"<td><b>{html.escape(step.name)}</b><br>{html.escape(step.observed)}</td></tr>"
        for step in record.steps
    )
    figures = {
        "timeline": "The fault, the page and the routing control",
        "matrix": "Who saw what",
        "answers": "Where the store's name led",
    }
    drawn = pictures(record)
    shown = "".join(f"<h2>{title}</h2><figure>{drawn[name]}</figure>" for name, title in figures.items() if name in drawn)
    style = (files("lab.drill") / "report.css").read_text()
    return f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>Failover drill</title><style>{style}</style></head><body>
<header class="{"good" if record.ok else "bad"}"><h1>{verdict}</h1>
<p>A drill in which {html.escape(record.region)} was lost. It began at {_clock(record.began)} lab time and took
{(ended - record.began) / 60:.1f} lab minutes, at {record.speed:g} lab seconds a second.</p></header>
<h2>Step by step</h2><table><tr><th></th><th>lab time</th><th>took</th><th>what was seen</th></tr>{steps}</table>
<h2>What was received</h2>{"".join(_received(each) for each in record.pages) or "<p>No page was received.</p>"}
{shown}
<footer>Durations are lab seconds. observations.json beside this file holds every sample.</footer>
</body></html>
"""


def _received(incident: dict[str, Any]) -> str:
    sent = incident["page"]
    head = f"<h3>#{incident['number']} {html.escape(incident['summary'])}</h3>"
    until = f"resolved {_clock(incident['resolved'])}" if incident["resolved"] else "still open"
    kind = f"{'page' if incident['urgent'] else 'note'}, {html.escape(incident['severity'])}"
    when = f"<p class=when>{kind}, opened {_clock(incident['opened'])}, {until}</p>"
    if not sent:
        text = html.escape(incident["notifications"][0]["text"])
        return f'<article class="{html.escape(incident["severity"])}">{head}{when}<pre>{text}</pre></article>'
    seen = "".join(
        f"<tr><td>{html.escape(cell['vantage'])}</td><td>{html.escape(cell['target'])}</td>"
        f'<td style="color:{STATES.get(cell["state"], "#5f6b7d")}"><b>{html.escape(cell["state"])}</b></td></tr>'
        for cell in sent.get("seen_from", ())
    )
    todo = sent.get("what_to_do") or {}
    command = f"<pre>{html.escape(todo['command'])}</pre>" if todo.get("command") else ""
    links = "".join(f'<p><a href="{html.escape(link)}">{html.escape(name)}</a></p>' for name, link in (sent.get("links") or {}).items())
    table = f'<table class="seen">{seen}</table>' if seen else ""
    return (
        f'<article class="{html.escape(incident["severity"])}">{head}{when}<p>{html.escape(sent.get("description", ""))}</p>'
        f"{table}{command}{links}</article>"
    )


def _minutes(record: Record, at: float) -> float:
    return round((at - record.began) / 60, 3)


def _clock(lab_time: float) -> str:
    return datetime.fromtimestamp(lab_time, UTC).strftime("%H:%M:%S")
