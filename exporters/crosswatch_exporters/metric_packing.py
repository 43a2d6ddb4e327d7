"""From a collection of metrics to blocks that keep every limit. Apart from the rest: only who sends metrics imports the SDK's."""

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from crosswatch_exporters.blocks import MAX_LABELS, Block, Limits
from crosswatch_exporters.encoding.common import Envelope
from crosswatch_exporters.encoding.metrics import MetricEncoder
from crosswatch_exporters.encoding.wire import Redactor, varint
from crosswatch_exporters.ledger import Loss
from crosswatch_exporters.packing import Lose, OpenBlock

# A metric's name, description, unit and framing, roughly; exact sizes are taken when a block is closed.
_METRIC_HEAD = 200


class MetricPacker:
    """Packs one collection of metrics. An item is a data point."""

    def __init__(self, limits: Limits, redact: Redactor | None = None, most_labels: int = MAX_LABELS) -> None:
        self._limits = limits
        self._most_labels = most_labels
        self._encode = MetricEncoder(redact)
        self._envelope = Envelope(redact)

    def __call__(self, collections: Sequence[Any], lose: Lose) -> list[Block]:
        """Blocks with the points of each MetricsData in their order."""
        return list(self._blocks(collections, lose))

    def _blocks(self, collections: Sequence[Any], lose: Lose) -> Iterator[Block]:
        block, limits = OpenBlock(), self._limits
        for resource, scope, metric, points in self._metrics(collections, lose):
            done = 0
            while done < len(points):
                part = _take(points[done:], limits.request_items - block.items, limits.block_bytes - block.weight, limits.max_gap_ns)
                oldest, newest = min(time for time, _ in part), max(time for time, _ in part)
                size = _METRIC_HEAD + sum(len(encoded) for _, encoded in part)
                if block.admits(size, oldest, limits) and block.admits(size, newest, limits):
                    message = self._encode.message(metric, [encoded for _, encoded in part])
                    block.add(resource, scope, b"\x12" + varint(len(message)) + message, size, oldest)
                    block.newest = max(block.newest, newest)
                    block.items += len(part) - 1  # the item that was added stands for all its points
                    done += len(part)
                else:
                    yield block.close(self._envelope)
                    block = OpenBlock()
        if block.items:
            yield block.close(self._envelope)

    def _metrics(self, collections: Iterable[Any], lose: Lose) -> Iterator[tuple[Any, Any, Any, list[tuple[int, bytes]]]]:
        """(resource, scope, metric, [(time, encoded point)]) without the points that would be refused."""
        for data in collections:
            for resource_metrics in data.resource_metrics:
                resource = resource_metrics.resource
                for scope_metrics in resource_metrics.scope_metrics:
                    scope = scope_metrics.scope
                    shared = len(resource.attributes) + len(scope.attributes or ())
                    around = len(self._envelope.resource(resource)[0]) + len(self._envelope.scope(scope)[0])
                    for metric in scope_metrics.metrics:
                        points = []
                        for point, encoded in self._encode.points(metric):
                            if encoded is None:
                                lose(Loss.UNENCODABLE, 1)
                            elif shared + len(point.attributes or ()) > self._most_labels:
                                lose(Loss.TOO_MANY_LABELS, 1)
                            elif len(encoded) + around > self._limits.item_bytes:
                                lose(Loss.ITEM_TOO_LARGE, 1)
                            else:
                                points.append((point.time_unix_nano, encoded))
                        yield resource, scope, metric, points


def _take(points: Sequence[tuple[int, bytes]], most: int, room: int, gap: int) -> Sequence[tuple[int, bytes]]:
    """The first points that fit by number, bytes and time; always at least one."""
    size = _METRIC_HEAD
    for count, (time, encoded) in enumerate(points):
        size += len(encoded)
        if count and (count >= most or size > room or abs(time - points[0][0]) > gap // 2):
            return points[:count]
    return points
