"""Dashboards as pictures: each metric widget is one Vega-Lite chart, the page is one SVG on CloudWatch's grid; from it PNG and HTML.

The same chart serves the browser and the PNG; vl-convert draws it without either a browser or a network.
"""

from __future__ import annotations

import html
import itertools
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from dashboards.series import Data, Line

COLUMN = 60
ROW = 48
GAP = 8
FONT = "Inter, 'Helvetica Neue', Arial, 'DejaVu Sans', sans-serif"
PALETTE = ("#1f6fb2", "#c96a12", "#3a8f5c", "#8a56a8", "#a83a50", "#5f6b76", "#17809a", "#9a7b17")
STATE_COLORS = {"OK": "#2b8a57", "ALARM": "#c62f2a", "INSUFFICIENT_DATA": "#7b8794"}
STATE_WORDS = {"OK": "OK", "ALARM": "In alarm", "INSUFFICIENT_DATA": "No data"}


@dataclass(frozen=True, slots=True)
class Theme:
    """The colours of a page."""

    page: str = "#f4f5f7"
    card: str = "#ffffff"
    line: str = "#dfe3e8"
    text: str = "#1d2733"
    faint: str = "#6b7785"
    grid: str = "#eceff3"


LIGHT = Theme()
DARK = Theme(page="#10151c", card="#18202a", line="#2a3542", text="#e6ebf1", faint="#93a1b0", grid="#26303c")


def chart(widget: Mapping[str, Any], lines: Sequence[Line], data: Data, theme: Theme = LIGHT) -> dict[str, Any]:
    """The Vega-Lite specification of a metric widget that fills its place on the grid."""
    properties = widget["properties"]
    width, height = size(widget)
    left = (properties.get("yAxis") or {}).get("left") or {}
    domain = [datetime.fromtimestamp(data.start, UTC).isoformat(), datetime.fromtimestamp(data.end, UTC).isoformat()]
    values = [
        {"t": datetime.fromtimestamp(moment, UTC).isoformat(), "v": value, "s": line.label, "run": run}
        for line in lines
        for run, part in enumerate(_runs(line.points, data))
        for moment, value in part
    ]
    labels = list(dict.fromkeys(line.label for line in lines))
    colors = [next(line.color for line in lines if line.label == label) or PALETTE[i % len(PALETTE)] for i, label in enumerate(labels)]
    scale: dict[str, Any] = {"nice": True}
    if "min" in left:
        scale["domainMin"] = left["min"]
    if "max" in left:
        scale["domainMax"] = left["max"] * 1.05 if left["max"] == 1 else left["max"]
    steps = properties.get("yAxis", {}).get("left", {}).get("max") == 1
    y_axis: dict[str, Any] = {"title": left.get("label"), "tickCount": 4, "grid": True, "titleFontWeight": "normal"}
    if steps:
        y_axis |= {"values": [0, 1], "labelExpr": "datum.value == 1 ? 'yes' : 'no'"}
    x = {
        "field": "t",
        "type": "temporal",
        "title": None,
        "scale": {"domain": domain, "type": "utc"},
        "axis": {"tickCount": 5, "grid": False, "format": "%H:%M"},
    }
    mark = {"type": "line", "interpolate": "step-after" if steps else "monotone", "strokeWidth": 1.8, "clip": True}
    encoding = {
        "x": x,
        "y": {"field": "v", "type": "quantitative", "scale": scale, "axis": y_axis},
        "color": {
            "field": "s",
            "type": "nominal",
            "scale": {"domain": labels, "range": colors},
            "legend": {"orient": "bottom", "title": None, "columns": 3 if width > 500 else 2, "labelLimit": 190, "symbolType": "stroke"},
        },
        "detail": {"field": "run"},
    }
    layers: list[dict[str, Any]] = [{"mark": mark, "encoding": encoding}]
    lone = {"type": "point", "filled": True, "size": 14, "clip": True}
    layers.append({"transform": [{"filter": "datum.run >= 0 && datum.lone"}], "mark": lone, "encoding": encoding})
    layers += [_threshold(item, theme) for item in _marks(properties, "horizontal")]
    return {
        "$schema": "https://vega.github.io/schema/vega-lite/v5.json",
        "width": width - 76,
        "height": height - 96 - 16 * ((len(labels) - 1) // (3 if width > 500 else 2)),
        "background": None,
        "padding": 0,
        "data": {"values": _with_lone(values)},
        "layer": layers,
        "config": _config(theme),
    }


def svg(body: Mapping[str, Any], data: Data, theme: Theme = LIGHT, title: str = "") -> str:
    """The whole dashboard as one SVG, ``24 * COLUMN`` pixels wide."""
    widgets = body["widgets"]
    head = 44 if title else 0
    width = 24 * COLUMN + GAP
    height = max((widget.get("y", 0) + widget.get("height", 6)) * ROW for widget in widgets) + GAP + head if widgets else 200
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" viewBox="0 0 {width} {height}" font-family="{FONT}">',
        f'<rect width="{width}" height="{height}" fill="{theme.page}"/>',
    ]
    if title:
        span = f"{datetime.fromtimestamp(data.start, UTC):%Y-%m-%d %H:%M} to {datetime.fromtimestamp(data.end, UTC):%H:%M} UTC"
        parts.append(_label(GAP + 4, 29, title, 17, theme.text, bold=True))
        parts.append(_label(width - GAP - 4, 29, span, 12, theme.faint, anchor="end"))
    for index, widget in enumerate(widgets):
        x, y = widget.get("x", 0) * COLUMN + GAP, widget.get("y", 0) * ROW + GAP + head
        parts.append(f'<g transform="translate({x},{y})">{widget_svg(widget, data.lines.get(index, []), data, theme, index)}</g>')
    parts.append("</svg>")
    return "".join(parts)


def png(body: Mapping[str, Any], data: Data, theme: Theme = LIGHT, title: str = "", scale: float = 1.5) -> bytes:
    """The whole dashboard as a PNG."""
    import vl_convert

    image: bytes = vl_convert.svg_to_png(svg(body, data, theme, title), scale=scale)
    return image


def page(body: Mapping[str, Any], data: Data, title: str) -> str:
    """The whole dashboard as one HTML file that needs nothing else."""
    picture = svg(body, data, LIGHT, title)
    return (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{html.escape(title)}</title>'
        f"<style>body{{margin:0;background:{LIGHT.page};display:flex;justify-content:center}}svg{{max-width:100%;height:auto}}</style></head>"
        f"<body>{picture}</body></html>"
    )


def size(widget: Mapping[str, Any]) -> tuple[int, int]:
    """Width and height of a widget in pixels, without the gap."""
    return widget.get("width", 6) * COLUMN - GAP, widget.get("height", 6) * ROW - GAP


def widget_svg(widget: Mapping[str, Any], lines: Sequence[Line], data: Data, theme: Theme = LIGHT, index: int = 0) -> str:
    """One widget as an SVG fragment with its upper left corner at the origin."""
    draw = {"metric": _metric, "alarm": _alarms, "text": _text}.get(widget["type"])
    if draw is None:
        return _card(widget, theme) + _label(14, 24, f"{widget['type']} widgets are not drawn here", 12, theme.faint)
    return draw(widget, lines, data, theme, index)


def _metric(widget: Mapping[str, Any], lines: Sequence[Line], data: Data, theme: Theme, index: int) -> str:
    import vl_convert

    width, height = size(widget)
    head = _card(widget, theme) + _label(14, 22, widget["properties"].get("title", ""), 13, theme.text, bold=True, limit=width - 28)
    notes = sorted({line.note for line in lines if line.note})
    if not any(line.points for line in lines):
        words = notes[0] if notes else "no data in this time"
        return head + _label(width / 2, height / 2 + 6, words, 12, theme.faint, anchor="middle", limit=width - 28)
    inner = vl_convert.vegalite_to_svg(chart(widget, lines, data, theme))
    inner = re.sub(r"\bid=\"(\w+)\"", rf'id="w{index}-\1"', inner).replace("url(#", f"url(#w{index}-")
    inner = inner[inner.index("<svg") :]
    warning = _label(width - 14, 22, "a Region did not answer", 11, STATE_COLORS["ALARM"], anchor="end") if notes else ""
    return f'{head}{warning}<g transform="translate(14,36)">{inner}</g>'


def _alarms(widget: Mapping[str, Any], _lines: Sequence[Line], data: Data, theme: Theme, _index: int) -> str:
    width, height = size(widget)
    properties = widget["properties"]
    arns = [arn for arn in properties.get("alarms", ()) if not properties.get("states") or _state(arn, data) in properties["states"]]
    in_alarm = sum(_state(arn, data) == "ALARM" for arn in arns)
    parts = [_card(widget, theme), _label(14, 22, properties.get("title", "Alarms"), 13, theme.text, bold=True)]
    words = f"{in_alarm} in alarm" if in_alarm else "none in alarm"
    parts.append(_label(width - 14, 22, words, 12, STATE_COLORS["ALARM"] if in_alarm else theme.faint, anchor="end", bold=bool(in_alarm)))
    columns = 3 if width > 600 else 2 if width > 360 else 1
    rows = -(-len(arns) // columns)
    step = min(30.0, (height - 42) / max(rows, 1))
    cell = (width - 28 - 8 * (columns - 1)) / columns
    for position, arn in enumerate(sorted(arns, key=lambda arn: _state(arn, data) != "ALARM")):
        state = _state(arn, data)
        x, y = 14 + (position % columns) * (cell + 8), 36 + (position // columns) * step
        color = STATE_COLORS.get(state, theme.faint)
        parts.append(
            f'<rect x="{x:.1f}" y="{y:.1f}" width="{cell:.1f}" height="{step - 5:.1f}" rx="4" '
            f'fill="{color}" fill-opacity="{0.16 if state == "ALARM" else 0.09}"/>'
            f'<rect x="{x:.1f}" y="{y:.1f}" width="4" height="{step - 5:.1f}" rx="2" fill="{color}"/>'
        )
        name = arn.split(":alarm:", 1)[1]
        parts.append(_label(x + 12, y + step / 2 + 1.5, name, 11.5, theme.text, limit=cell - 78))
        parts.append(
            _label(x + cell - 8, y + step / 2 + 1.5, STATE_WORDS.get(state, "unknown"), 10.5, color, anchor="end", bold=state == "ALARM")
        )
    return "".join(parts)


def _text(widget: Mapping[str, Any], _lines: Sequence[Line], _data: Data, theme: Theme, _index: int) -> str:
    """Headings and plain lines of Markdown; emphasis and links are shown as their text."""
    width, _height = size(widget)
    properties = widget["properties"]
    parts = [] if properties.get("background") == "transparent" else [_card(widget, theme)]
    y = 10.0
    for line in properties["markdown"].splitlines():
        plain = re.sub(r"\[(?:button:\w*:)?([^\]]*)\]\([^)]*\)", r"\1", re.sub(r"[*_`]{1,3}", "", line)).strip()
        level = len(plain) - len(plain.lstrip("#"))
        font = {1: 19.0, 2: 15.0, 3: 13.5}.get(level, 12.5)
        y += font + 6
        parts.append(
            _label(
                14 if parts else 4, y, plain.lstrip("# "), font, theme.text if level else theme.faint, bold=bool(level), limit=width - 28
            )
        )
    return "".join(parts)


def _state(arn: str, data: Data) -> str:
    return str(data.alarms.get(arn, {}).get("StateValue", "unknown"))


def _card(widget: Mapping[str, Any], theme: Theme) -> str:
    width, height = size(widget)
    return f'<rect width="{width}" height="{height}" rx="6" fill="{theme.card}" stroke="{theme.line}"/>'


def _label(x: float, y: float, text: str, font: float, color: str, anchor: str = "start", bold: bool = False, limit: float = 0) -> str:
    if limit and len(text) * font * 0.54 > limit:
        text = text[: max(1, int(limit / (font * 0.54)) - 1)] + "…"
    weight = ' font-weight="600"' if bold else ""
    return f'<text x="{x:.1f}" y="{y:.1f}" font-size="{font}" fill="{color}" text-anchor="{anchor}"{weight}>{html.escape(text)}</text>'


def _runs(points: Sequence[tuple[float, float]], data: Data) -> list[list[tuple[float, float]]]:
    """Split a series where data is missing, so that a gap is drawn as one and not as a line across it."""
    if not points:
        return []
    steps = sorted(later[0] - earlier[0] for earlier, later in itertools.pairwise(points))
    usual = steps[len(steps) // 2] if steps else 60.0
    runs = [[points[0]]]
    for earlier, later in itertools.pairwise(points):
        if later[0] - earlier[0] > 2.5 * max(usual, (data.end - data.start) / 720):
            runs.append([])
        runs[-1].append(later)
    return runs


def _with_lone(values: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Mark points that stand alone in their run: a line of one point would not be seen."""
    counts: dict[tuple[str, int], int] = {}
    for value in values:
        counts[value["s"], value["run"]] = counts.get((value["s"], value["run"]), 0) + 1
    return [{**value, "lone": counts[value["s"], value["run"]] == 1} for value in values]


def _marks(properties: Mapping[str, Any], axis: str) -> list[dict[str, Any]]:
    marks = (properties.get("annotations") or {}).get(axis) or []
    return [item for mark in marks for item in (mark if isinstance(mark, list) else [mark])]


def _threshold(item: Mapping[str, Any], theme: Theme) -> dict[str, Any]:
    color = item.get("color") or theme.faint
    return {
        "mark": {"type": "rule", "strokeDash": [4, 3], "color": color, "strokeWidth": 1.2, "clip": True},
        "encoding": {"y": {"datum": item["value"]}},
    }


def _config(theme: Theme) -> dict[str, Any]:
    label = {"labelColor": theme.faint, "titleColor": theme.faint, "labelFontSize": 10.5, "titleFontSize": 10.5}
    return {
        "font": FONT,
        "view": {"stroke": None},
        "axis": {**label, "gridColor": theme.grid, "domainColor": theme.line, "tickColor": theme.line, "labelFlush": True},
        "legend": {"labelColor": theme.text, "labelFontSize": 11, "symbolStrokeWidth": 3, "symbolSize": 120, "rowPadding": 2, "padding": 4},
    }
