"""Collections of metrics to blocks for PutLogEvents (embedded metric format) or PutMetricData; one JSON document a line."""

import json
from collections.abc import Iterator, Sequence
from typing import Any

from crosswatch_exporters.blocks import Block, Limits
from crosswatch_exporters.classic.datums import Point, Wanted, dimension_sets, points_of
from crosswatch_exporters.ledger import Loss
from crosswatch_exporters.packing import Lose

# https://docs.aws.amazon.com/AmazonCloudWatch/latest/monitoring/CloudWatch_Embedded_Metric_Format_Specification.html
_MAX_DEFINITIONS = 100
_MAX_ARRAY = 100
# https://docs.aws.amazon.com/AmazonCloudWatch/latest/APIReference/API_MetricDatum.html
_MAX_VALUES = 150
_PER_EVENT = 26
# What an event or a datum may grow by on its way to another Region (`destinations.py`).
_PER_JOURNEY = 128


def lines_to_blocks(lines: Sequence[tuple[int, bytes, int]], limits: Limits) -> Iterator[Block]:
    """Blocks of (time in ms, line, weight), cut where the next line would exceed a limit."""
    block: list[tuple[int, bytes, int]] = []
    weight = 0
    for line in lines:
        apart = block and abs(line[0] - block[0][0]) * 10**6 > limits.max_gap_ns // 2
        if block and (len(block) >= limits.request_items or weight + line[2] > limits.block_bytes or apart):
            yield _block(block, weight)
            block, weight = [], 0
        block.append(line)
        weight += line[2]
    if block:
        yield _block(block, weight)


def _block(lines: list[tuple[int, bytes, int]], weight: int) -> Block:
    times = [time for time, _, _ in lines]
    payload = b"".join(line + b"\n" for _, line, _ in lines)
    return Block(payload, len(lines), weight, min(times) * 10**6, max(times) * 10**6)


def split_lines(block: Block) -> list[Block]:
    """The block in two halves; itself when it holds one line."""
    lines = block.payload.splitlines(keepends=True)
    if len(lines) < 2:
        return [block]
    middle = len(lines) // 2
    halves = (lines[:middle], lines[middle:])
    return [
        Block(b"".join(half), len(half), max(1, block.weight * len(half) // len(lines)), block.oldest_ns, block.newest_ns)
        for half in halves
    ]


def _points(collections: Sequence[Any], service: str, wanted: Wanted, lose: Lose) -> Iterator[Point]:
    for data in collections:
        for resource_metrics in data.resource_metrics:
            for scope_metrics in resource_metrics.scope_metrics:
                for metric in scope_metrics.metrics:
                    if not wanted.takes(scope_metrics.scope.name, metric.name):
                        continue
                    for point in points_of(metric, service):
                        if point is None:
                            lose(Loss.UNENCODABLE, 1)
                        else:
                            yield point


class EmfPacker:
    """Packs collections as embedded-metric-format events; an item is an event."""

    def __init__(self, namespace: str, service: str, wanted: Wanted, limits: Limits) -> None:
        self._namespace = namespace
        self._service = service
        self._wanted = wanted
        self._limits = limits

    def __call__(self, collections: Sequence[Any], lose: Lose) -> list[Block]:
        """Blocks of events, one for all metrics that share attributes and time, as far as one event holds them."""
        groups: dict[tuple[Any, int], list[Point]] = {}
        for point in _points(collections, self._service, self._wanted, lose):
            for chunk in _chunks(point, _MAX_ARRAY):
                groups.setdefault((chunk.attributes, chunk.time_ms), []).append(chunk)
        lines = []
        for (attributes, time_ms), points in groups.items():
            if not dimension_sets(attributes, self._wanted):
                continue  # an event without a dimension set is no metric
            for event in self._events(attributes, time_ms, points):
                message = json.dumps(event, separators=(",", ":"))
                weight = len(message) + _PER_EVENT + _PER_JOURNEY
                if weight > self._limits.item_bytes:
                    lose(Loss.ITEM_TOO_LARGE, 1)
                    continue
                lines.append((time_ms, f'{{"timestamp":{time_ms},"message":{json.dumps(message)}}}'.encode(), weight))
        lines.sort(key=lambda line: line[0])
        return list(lines_to_blocks(lines, self._limits))

    def _events(self, attributes: tuple[tuple[str, str], ...], time_ms: int, points: list[Point]) -> Iterator[dict[str, Any]]:
        """As few events as hold the points: a metric at most once in each, at most 100 metrics in each."""
        waiting = points
        while waiting:
            chosen: dict[str, Point] = {}
            later = []
            for point in waiting:
                if point.name in chosen or len(chosen) >= _MAX_DEFINITIONS:
                    later.append(point)
                else:
                    chosen[point.name] = point
            yield self._event(attributes, time_ms, list(chosen.values()))
            waiting = later

    def _event(self, attributes: tuple[tuple[str, str], ...], time_ms: int, points: list[Point]) -> dict[str, Any]:
        taken = {point.name for point in points} | {"_aws"}
        # An attribute that is called like a metric would overwrite it.
        members = tuple((f"{key}_" if key in taken else key, value) for key, value in attributes)
        sets = dimension_sets(members, self._wanted)
        definitions = [{"Name": point.name, **({"Unit": point.unit} if point.unit != "None" else {})} for point in points]
        directive = {"Namespace": self._namespace, "Dimensions": [[key for key, _ in chosen] for chosen in sets], "Metrics": definitions}
        return {
            "_aws": {"Timestamp": time_ms, "CloudWatchMetrics": [directive]},
            **dict(members),
            **{p.name: _emf_value(p) for p in points},
        }


def _emf_value(point: Point) -> Any:
    """A number, an array with each value as often as it occurred, or, when that is longer than the 100 elements an array may have, the
    Values/Counts object. The object is what AWS's own agent and collector write and CloudWatch reads, but the specification does not
    name it."""
    count = sum(point.counts)
    if count == 1:
        return _number(point.values[0])
    if count <= _MAX_ARRAY:
        return [_number(value) for value, times in zip(point.values, point.counts, strict=True) for _ in range(times)]
    total = sum(value * times for value, times in zip(point.values, point.counts, strict=True))
    return {
        "Values": [_number(value) for value in point.values],
        "Counts": list(point.counts),
        "Max": max(point.values),
        "Min": min(point.values),
        "Count": count,
        "Sum": total,
    }


class MetricDataPacker:
    """Packs collections as MetricDatum documents; an item is a datum."""

    def __init__(self, service: str, wanted: Wanted, limits: Limits) -> None:
        self._service = service
        self._wanted = wanted
        self._limits = limits

    def __call__(self, collections: Sequence[Any], lose: Lose) -> list[Block]:
        """Blocks of datums: one for each dimension set a point is counted under."""
        lines = []
        for point in _points(collections, self._service, self._wanted, lose):
            for chunk in _chunks(point, _MAX_VALUES):
                for dimensions in dimension_sets(chunk.attributes, self._wanted):
                    line = json.dumps(_datum(chunk, dimensions), separators=(",", ":")).encode()
                    lines.append((chunk.time_ms, line, len(line) + 1 + _PER_JOURNEY))
        return list(lines_to_blocks(lines, self._limits))


def _datum(point: Point, dimensions: tuple[tuple[str, str], ...]) -> dict[str, Any]:
    datum: dict[str, Any] = {
        "MetricName": point.name,
        "Dimensions": [{"Name": name, "Value": value} for name, value in dimensions],
        "Timestamp": point.time_ms / 1000,
        "Unit": point.unit,
    }
    if sum(point.counts) == 1:
        return datum | {"Value": _number(point.values[0])}
    return datum | {"Values": [_number(value) for value in point.values], "Counts": [float(count) for count in point.counts]}


def _chunks(point: Point, most: int) -> Iterator[Point]:
    """The point in parts of at most `most` distinct values."""
    for start in range(0, len(point.values), most):
        end = start + most
        yield Point(point.name, point.unit, point.time_ms, point.values[start:end], point.counts[start:end], point.attributes)


def _number(value: float) -> int | float:
    return int(value) if value.is_integer() and abs(value) < 1 << 53 else value
