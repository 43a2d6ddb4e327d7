"""Metrics out of logs: metric filters and the embedded metric format (EMF).

https://docs.aws.amazon.com/AmazonCloudWatch/latest/monitoring/CloudWatch_Embedded_Metric_Format_Specification.html
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from alarms.engine.query import UNITS
from lab.aws.services.logs.patterns import compile_pattern, select
from lab.aws.services.logs.store import LogEvent, MetricFilter

MAX_EMF_METRICS = 100
MAX_EMF_VALUES = 100
MAX_EMF_DIMENSIONS = 30
MAX_DIMENSION_VALUE = 1024


@dataclass(frozen=True, slots=True)
class Point:
    """Values to publish: ``time`` in lab seconds, ``resolution`` 1 or 60."""

    namespace: str
    name: str
    dimensions: dict[str, str]
    unit: str
    time: float
    values: tuple[float, ...]
    counts: tuple[float, ...] | None = None
    resolution: int = 60


class EmfError(ValueError):
    """A document that says it is EMF and is not; ``metric`` is the AWS/Logs metric that counts it."""

    def __init__(self, metric: str, why: str) -> None:
        super().__init__(why)
        self.metric = metric


def embedded(message: str, to_lab: Callable[[float], float]) -> list[Point]:
    """The metrics embedded in a message; none where it is not EMF. Raises EmfError where it is broken EMF."""
    if '"_aws"' not in message or '"CloudWatchMetrics"' not in message or not message.lstrip().startswith("{"):
        return []
    try:
        document = json.loads(message)
    except ValueError as error:
        raise EmfError("EMFParsingErrors", f"not JSON: {error}") from error
    metadata = document.get("_aws")
    if not isinstance(metadata, dict) or not isinstance(metadata.get("CloudWatchMetrics"), list):
        return []
    timestamp = metadata.get("Timestamp")
    if not isinstance(timestamp, int | float) or isinstance(timestamp, bool):
        raise EmfError("EMFValidationErrors", "_aws.Timestamp must be a number of milliseconds")
    time = to_lab(timestamp / 1000)
    return [point for directive in metadata["CloudWatchMetrics"] for point in _directive(document, directive, time)]


def _directive(document: dict[str, Any], directive: Any, time: float) -> list[Point]:
    if not isinstance(directive, dict) or not isinstance(directive.get("Namespace"), str) or not directive["Namespace"]:
        raise EmfError("EMFValidationErrors", "a directive needs a Namespace")
    definitions, sets = directive.get("Metrics"), directive.get("Dimensions")
    if not isinstance(definitions, list) or not isinstance(sets, list) or not sets:
        raise EmfError("EMFValidationErrors", "a directive needs Metrics and at least one dimension set")
    if len(definitions) > MAX_EMF_METRICS:
        raise EmfError("EMFValidationErrors", f"more than {MAX_EMF_METRICS} metrics in a directive")
    chosen = [_dimensions(document, names) for names in sets]
    points = []
    for definition in definitions:
        name, unit, resolution = _definition(definition)
        if name not in document:
            continue
        values, counts = _values(name, document[name])
        if values:
            points += [Point(directive["Namespace"], name, dimensions, unit, time, values, counts, resolution) for dimensions in chosen]
    return points


def _definition(definition: Any) -> tuple[str, str, int]:
    name = definition.get("Name") if isinstance(definition, dict) else None
    if not isinstance(name, str) or not name:
        raise EmfError("EMFValidationErrors", "a metric needs a Name")
    unit, resolution = definition.get("Unit", "None"), definition.get("StorageResolution", 60)
    if unit not in UNITS or resolution not in (1, 60):
        raise EmfError("EMFValidationErrors", f"{name}: unit {unit!r} or storage resolution {resolution!r} is not known")
    return name, unit, resolution


def _dimensions(document: dict[str, Any], names: Any) -> dict[str, str]:
    if not isinstance(names, list) or len(names) > MAX_EMF_DIMENSIONS:
        raise EmfError("EMFValidationErrors", f"a dimension set is a list of at most {MAX_EMF_DIMENSIONS} names")
    out = {}
    for name in names:
        value = document.get(name)
        if not isinstance(value, str) or not 0 < len(value) <= MAX_DIMENSION_VALUE:
            raise EmfError(
                "EMFValidationErrors", f"the dimension {name} needs a value of 1 to {MAX_DIMENSION_VALUE} characters in the document"
            )
        out[name] = value
    return out


def _values(name: str, value: Any) -> tuple[tuple[float, ...], tuple[float, ...] | None]:
    counts = None
    if isinstance(value, dict):  # not in the public specification; what AWS's own exporters send for distributions
        counts = value.get("Counts")
        value = value.get("Values")
    values = value if isinstance(value, list) else [value]
    if len(values) > MAX_EMF_VALUES:
        raise EmfError("EMFValidationErrors", f"{name}: more than {MAX_EMF_VALUES} values")
    for each in (*values, *(counts or ())):
        if isinstance(each, bool) or not isinstance(each, int | float) or not math.isfinite(each):
            raise EmfError("EMFValidationErrors", f"{name}: {each!r} is not a number")
    if counts is not None and len(counts) != len(values):
        raise EmfError("EMFValidationErrors", f"{name}: Values and Counts differ in length")
    return tuple(map(float, values)), None if counts is None else tuple(map(float, counts))


def filtered(metric_filter: MetricFilter, events: list[LogEvent]) -> list[Point]:
    """The points a metric filter makes of newly ingested events; its default value for minutes in which nothing matched."""
    match = compile_pattern(metric_filter.pattern)
    transformation: Any = metric_filter.transformation
    points = []
    quiet: set[int] = set()
    matched: set[int] = set()
    for event in events:
        minute = event.timestamp // 60_000
        found = match(event.message)
        value = None if found is None else _metric_value(str(transformation["metricValue"]), event.message, found)
        if found is None or value is None:
            quiet.add(minute)
            continue
        dimensions = {}
        for name, source in (transformation.get("dimensions") or {}).items():
            text = _lookup(source, event.message, found)
            if text is None:
                break
            dimensions[name] = text if isinstance(text, str) else json.dumps(text)
        else:
            matched.add(minute)
            points.append(_filter_point(transformation, dimensions, event.timestamp / 1000, value))
    if transformation.get("defaultValue") is not None:
        points += [
            _filter_point(transformation, {}, minute * 60.0, float(transformation["defaultValue"])) for minute in sorted(quiet - matched)
        ]
    return points


def _filter_point(transformation: Any, dimensions: dict[str, str], time: float, value: float) -> Point:
    return Point(
        transformation["metricNamespace"], transformation["metricName"], dimensions, transformation.get("unit") or "None", time, (value,)
    )


def _metric_value(source: str, message: str, found: dict[str, Any]) -> float | None:
    value = _lookup(source, message, found) if source.startswith("$") else source
    try:
        number = float(value) if not isinstance(value, bool) and value is not None else None
    except (TypeError, ValueError):
        return None
    return number if number is not None and math.isfinite(number) else None


def _lookup(source: str, message: str, found: dict[str, Any]) -> Any:
    """A ``$.selector`` in a JSON message, or a ``$name`` of a space-delimited pattern."""
    if source in found:
        return found[source]
    if not source.startswith(("$.", "$[")):
        return None
    try:
        values = select(json.loads(message), source)
    except ValueError:
        return None
    return values[0] if values else None
