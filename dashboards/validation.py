"""What PutDashboard would say of a dashboard body, said offline.

Errors refuse the dashboard; warnings are stored with it (DashboardValidationMessages). Paths and wording follow the service's:
https://docs.aws.amazon.com/AmazonCloudWatch/latest/APIReference/CloudWatch-Dashboard-Body-Structure.html
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Literal

MAX_WIDGETS = 500
MAX_METRICS_PER_WIDGET = 500
MAX_METRICS = 2500
MAX_ALARMS = 100
MAX_VARIABLES = 25
MAX_DIMENSIONS = 30
VIEWS = ("timeSeries", "singleValue", "gauge", "bar", "pie", "table")
LOG_VIEWS = ("table", "timeSeries", "bar", "pie")
WIDGET_KEYS = frozenset({"type", "x", "y", "width", "height", "properties"})
TYPES = ("metric", "text", "log", "alarm", "explorer", "custom")
ACCEPTED_TYPES = (*TYPES, "chart", "service", "timeline", "serviceMap", "serviceTable", "trace")
RENDER_KEYS = frozenset({"color", "label", "period", "stat", "visible", "yAxis", "region", "accountId", "id", "expression"})
STATISTIC = re.compile(
    r"^(SampleCount|Average|Sum|Minimum|Maximum|IQM|p\d{1,2}(\.\d{1,10})?|p100"
    r"|(tm|wm|tc|ts)\d{1,2}(\.\d{1,10})?|(TM|WM|PR|TC|TS)\((\d+(\.\d+)?%?)?:(\d+(\.\d+)?%?)?\))$"
)
REGION = re.compile(r"^[a-z]{2}(-[a-z]+)+-\d$|^global$")
SPECIAL_PERIODS = (1, 5, 10, 30)
COLOR = re.compile(r"^#[0-9a-fA-F]{3}([0-9a-fA-F]{3})?$")
ID = re.compile(r"^[a-z][A-Za-z0-9_]*$")
TIME = re.compile(r"^-?P(?=.)(\d+[YMWD])*(T(\d+[HMS])+)?$|^\d{4}-\d\d-\d\dT[\d:.]+Z?$")


@dataclass(frozen=True, slots=True)
class Finding:
    """One message of the validation; ``path`` is the service's dataPath (``/widgets/0/properties``)."""

    path: str
    message: str
    severity: Literal["error", "warning"] = "error"


Check = Callable[[dict[str, Any], str], Iterator[Finding]]


def validate_body(body: str) -> list[Finding]:
    """All findings of a dashboard body, errors first."""
    try:
        value = json.loads(body)
    except (ValueError, RecursionError):
        return [Finding("", "The field DashboardBody must be a valid JSON object")]
    if not isinstance(value, dict):
        return [Finding("", "The field DashboardBody must be a valid JSON object")]
    return sorted(_body(value), key=lambda finding: finding.severity)


def errors(findings: list[Finding]) -> list[Finding]:
    """Those that refuse the dashboard."""
    return [finding for finding in findings if finding.severity == "error"]


def _body(value: dict[str, Any]) -> Iterator[Finding]:
    for key in value:
        if key not in ("widgets", "variables", "start", "end", "periodOverride"):
            yield Finding(
                f"/{key}", f'The "{key}" property is not expected to be part of a dashboard definition, will be ignored', "warning"
            )
    for key in ("start", "end"):
        if key in value and not (isinstance(value[key], str) and TIME.match(value[key])):
            yield Finding(f"/{key}", "Should be an ISO 8601 time, or a relative time such as -PT3H")
    if "periodOverride" in value and value["periodOverride"] not in ("auto", "inherit"):
        yield Finding("/periodOverride", "Should be equal to one of the allowed values: auto, inherit")
    yield from _variables(value.get("variables", []))
    if "widgets" not in value:
        yield Finding("", "Should have required property 'widgets'")
        return
    widgets = value["widgets"]
    if not isinstance(widgets, list):
        yield Finding("/widgets", "Should be array")
        return
    if len(widgets) > MAX_WIDGETS:
        yield Finding("/widgets", f"Should NOT have more than {MAX_WIDGETS} items")
    for index, widget in enumerate(widgets):
        yield from _widget(widget, f"/widgets/{index}")
    total = sum(len(rows) for widget in widgets if isinstance(widget, dict) for rows in [_rows(widget)])
    if total > MAX_METRICS:
        yield Finding("/widgets", f"A dashboard can have {MAX_METRICS} metrics at most, this one has {total}")


def _widget(widget: Any, path: str) -> Iterator[Finding]:
    if not isinstance(widget, dict):
        yield Finding(path, "Should be object")
        return
    for key in widget:
        if key not in WIDGET_KEYS:
            yield Finding(path, f'The "{key}" property is not expected to be part of a widget definition, will be ignored', "warning")
    yield from _geometry(widget, path)
    kind = widget.get("type")
    if not isinstance(kind, str):
        yield Finding(path, "Should have required property 'type'")
        return
    if kind not in ACCEPTED_TYPES:
        yield Finding(f"{path}/type", f'Unknown widget type "{kind}", will be ignored', "warning")
        return
    properties = widget.get("properties")
    if not isinstance(properties, dict):
        yield Finding(path, "Should have required property 'properties'")
        return
    check = CHECKS.get(kind)
    if check:
        yield from check(properties, f"{path}/properties")


def _geometry(widget: dict[str, Any], path: str) -> Iterator[Finding]:
    for key, least, most in (("x", 0, 23), ("y", 0, None), ("width", 1, 24), ("height", 1, 1000)):
        if key not in widget:
            continue
        number = widget[key]
        if not isinstance(number, int) or isinstance(number, bool):
            yield Finding(f"{path}/{key}", "Should be integer")
        elif number < least:
            yield Finding(f"{path}/{key}", f"Should be >= {least}")
        elif most is not None and number > most:
            yield Finding(f"{path}/{key}", f"Should be <= {most}")
    if ("x" in widget) != ("y" in widget):
        yield Finding(path, "Should have both of the properties 'x' and 'y', or none")


def _metric(properties: dict[str, Any], path: str) -> Iterator[Finding]:
    annotations = properties.get("annotations")
    alarm = isinstance(annotations, dict) and annotations.get("alarms")
    if not alarm:
        if "region" not in properties and "metrics" not in properties:
            yield Finding(path, "The metric widget should have specified a region and a data source or an alarm annotation")
        for key in ("region", "metrics"):
            if key not in properties:
                yield Finding(path, f"Should have required property '{key}'")
    yield from _common(properties, path, VIEWS)
    yield from _stat_and_period(properties, path)
    if properties.get("view") == "gauge":
        left = _object(_object(properties.get("yAxis")).get("left"))
        for key in ("min", "max"):
            if key not in left:
                yield Finding(f"{path}/yAxis/left", f"Should have required property '{key}'")
    rows = properties.get("metrics", [])
    if not isinstance(rows, list):
        yield Finding(f"{path}/metrics", "Should be array")
        return
    if len(rows) > MAX_METRICS_PER_WIDGET:
        yield Finding(f"{path}/metrics", f"Should NOT have more than {MAX_METRICS_PER_WIDGET} items")
    for index, row in enumerate(rows):
        yield from _row(row, f"{path}/metrics/{index}", first=index == 0)
    yield from _annotations(annotations, f"{path}/annotations")


def _row(row: Any, path: str, *, first: bool) -> Iterator[Finding]:
    """One metric: [namespace, name, (dimension, value)*, {render}] or [{expression}]."""
    if not isinstance(row, list) or not row:
        yield Finding(path, "Should be array" if not isinstance(row, list) else "Should NOT have fewer than 1 items")
        return
    render = row[-1] if isinstance(row[-1], dict) else {}
    fields = row[:-1] if isinstance(row[-1], dict) else row
    yield from _render(render, f"{path}/{len(row) - 1}")
    if not fields:
        if not isinstance(render.get("expression"), str):
            yield Finding(path, "Should have required property 'expression'")
        return
    for index, field in enumerate(fields):
        if not isinstance(field, str) or not field:
            yield Finding(f"{path}/{index}", 'Invalid metric field type, only "String" type is allowed')
    repeated = any(field in (".", "...") for field in fields)
    if repeated and first:
        yield Finding(path, "The first metric of a widget has nothing above it to repeat")
    if not repeated and (len(fields) < 2 or len(fields) % 2):
        yield Finding(path, "A metric is a namespace, a name, and pairs of dimension name and value")
    if len(fields) > 2 + 2 * MAX_DIMENSIONS:
        yield Finding(path, f"A metric has {MAX_DIMENSIONS} dimensions at most")


def _render(render: dict[str, Any], path: str) -> Iterator[Finding]:
    for key in render:
        if key not in RENDER_KEYS:
            yield Finding(path, f'The "{key}" property is not expected to be part of a metric definition, will be ignored', "warning")
    yield from _stat_and_period(render, path)
    if "region" in render:
        yield from _region(render["region"], f"{path}/region")
    if "color" in render and not (isinstance(render["color"], str) and COLOR.match(render["color"])):
        yield Finding(f"{path}/color", 'Should match pattern "^#[0-9a-fA-F]{6}$"')
    if "id" in render and not (isinstance(render["id"], str) and ID.match(render["id"])):
        yield Finding(f"{path}/id", 'Should match pattern "^[a-z][a-zA-Z0-9_]*$"')
    if render.get("yAxis", "left") not in ("left", "right"):
        yield Finding(f"{path}/yAxis", "Should be equal to one of the allowed values: left, right")
    if "visible" in render and not isinstance(render["visible"], bool):
        yield Finding(f"{path}/visible", "Should be boolean")
    if "label" in render and not isinstance(render["label"], str):
        yield Finding(f"{path}/label", "Should be string")


def _stat_and_period(value: dict[str, Any], path: str) -> Iterator[Finding]:
    if "stat" in value and not (isinstance(value["stat"], str) and STATISTIC.match(value["stat"])):
        yield Finding(f"{path}/stat", 'Should match pattern "^((SampleCount|Average|Sum|Minimum|Maximum)|p\\d{1,2}...)$"')
    if "period" in value:
        period = value["period"]
        if not isinstance(period, int) or isinstance(period, bool):
            yield Finding(f"{path}/period", "Should be integer")
        elif period not in SPECIAL_PERIODS:
            if period < 60:
                yield Finding(f"{path}/period", "Should be >= 60")
            elif period % 60:
                yield Finding(f"{path}/period", "Should be multiple of 60")


def _common(properties: dict[str, Any], path: str, views: tuple[str, ...]) -> Iterator[Finding]:
    if "region" in properties:
        yield from _region(properties["region"], f"{path}/region")
    if "title" in properties and not isinstance(properties["title"], str):
        yield Finding(f"{path}/title", "Should be string")
    if "view" in properties and properties["view"] not in views:
        yield Finding(f"{path}/view", f'Unknown view "{properties["view"]}", will be ignored', "warning")
    for key in ("stacked", "sparkline", "liveData", "setPeriodToTimeRange"):
        if key in properties and not isinstance(properties[key], bool):
            yield Finding(f"{path}/{key}", "Should be boolean")


def _region(region: Any, path: str) -> Iterator[Finding]:
    if not isinstance(region, str):
        yield Finding(path, "Should be string")
    elif not REGION.match(region):
        yield Finding(path, f'Should be the code of a Region, not "{region}"')


def _annotations(annotations: Any, path: str) -> Iterator[Finding]:
    if annotations is None:
        return
    if not isinstance(annotations, dict):
        yield Finding(path, "Should be object")
        return
    if len(_array(annotations.get("alarms"))) > 1:
        yield Finding(f"{path}/alarms", "Should NOT have more than 1 items")
    for axis in ("horizontal", "vertical"):
        for index, mark in enumerate(_array(annotations.get(axis))):
            marks = mark if isinstance(mark, list) else [mark]
            if isinstance(mark, list) and len(mark) != 2:
                yield Finding(f"{path}/{axis}/{index}", "A band has two values")
            for item in marks:
                if not isinstance(item, dict) or "value" not in item:
                    yield Finding(f"{path}/{axis}/{index}", "Should have required property 'value'")
                elif axis == "horizontal" and (isinstance(item["value"], bool) or not isinstance(item["value"], int | float)):
                    yield Finding(f"{path}/{axis}/{index}/value", "Should be number")


def _text(properties: dict[str, Any], path: str) -> Iterator[Finding]:
    if not isinstance(properties.get("markdown"), str):
        yield Finding(path, "Should have required property 'markdown'")
    if properties.get("background", "solid") not in ("solid", "transparent"):
        yield Finding(f"{path}/background", f'Unknown background "{properties["background"]}", will be ignored', "warning")


def _log(properties: dict[str, Any], path: str) -> Iterator[Finding]:
    for key in ("region", "query"):
        if not isinstance(properties.get(key), str):
            yield Finding(path, f"Should have required property '{key}'")
    query = properties.get("query")
    if isinstance(query, str) and not query.lstrip().upper().startswith("SOURCE"):
        yield Finding(f"{path}/query", "The query should start with SOURCE and a log group's name")
    yield from _common(properties, path, LOG_VIEWS)


def _alarm(properties: dict[str, Any], path: str) -> Iterator[Finding]:
    arns = properties.get("alarms")
    if not isinstance(arns, list) or not arns:
        yield Finding(path, "Should have required property 'alarms'")
        return
    if len(arns) > MAX_ALARMS:
        yield Finding(f"{path}/alarms", f"Should NOT have more than {MAX_ALARMS} items")
    for index, arn in enumerate(arns):
        if not (isinstance(arn, str) and re.match(r"^arn:[^:]+:cloudwatch:[^:]+:\d{12}:alarm:.+$", arn)):
            yield Finding(f"{path}/alarms/{index}", "Should be the ARN of an alarm")
    if properties.get("sortBy", "default") not in ("default", "stateUpdatedTimestamp", "timestamp"):
        yield Finding(f"{path}/sortBy", "Should be equal to one of the allowed values: default, stateUpdatedTimestamp, timestamp")
    for state in _array(properties.get("states")):
        if state not in ("OK", "ALARM", "INSUFFICIENT_DATA"):
            yield Finding(f"{path}/states", "Should be equal to one of the allowed values: ALARM, INSUFFICIENT_DATA, OK")


def _explorer(properties: dict[str, Any], path: str) -> Iterator[Finding]:
    for key in ("labels", "metrics"):
        if not isinstance(properties.get(key), list):
            yield Finding(path, f"Should have required property '{key}'")


def _custom(properties: dict[str, Any], path: str) -> Iterator[Finding]:
    if not isinstance(properties.get("endpoint"), str):
        yield Finding(path, "Should have required property 'endpoint'")


def _variables(variables: Any) -> Iterator[Finding]:
    if not isinstance(variables, list):
        yield Finding("/variables", "Should be array")
        return
    if len(variables) > MAX_VARIABLES:
        yield Finding("/variables", f"Should NOT have more than {MAX_VARIABLES} items")
    seen: set[str] = set()
    for index, variable in enumerate(variables):
        path = f"/variables/{index}"
        if not isinstance(variable, dict):
            yield Finding(path, "Should be object")
            continue
        for key, allowed in (("type", ("property", "pattern")), ("inputType", ("input", "select", "radio"))):
            if variable.get(key) not in allowed:
                yield Finding(f"{path}/{key}", "Should be equal to one of the allowed values: " + ", ".join(allowed))
        for key, most in (("id", 32), ("label", 30)):
            if len(str(variable.get(key, ""))) > most:
                yield Finding(f"{path}/{key}", f"Should NOT be longer than {most} characters")
        name = str(variable.get("property") or variable.get("pattern") or "")
        if name and name in seen:
            yield Finding(path, f'Duplicated {variable.get("type")} in variable: "{name}"')
        seen.add(name)


def _object(value: Any) -> dict[str, Any]:
    """``value`` where it is an object, otherwise an empty one."""
    return value if isinstance(value, dict) else {}


def _array(value: Any) -> list[Any]:
    """``value`` where it is an array, otherwise an empty one."""
    return value if isinstance(value, list) else []


def _rows(widget: dict[str, Any]) -> list[Any]:
    properties = widget.get("properties")
    rows = properties.get("metrics") if isinstance(properties, dict) else None
    return rows if isinstance(rows, list) else []


CHECKS: dict[str, Check] = {"metric": _metric, "text": _text, "log": _log, "alarm": _alarm, "explorer": _explorer, "custom": _custom}
