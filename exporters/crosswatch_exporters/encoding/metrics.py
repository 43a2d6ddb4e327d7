"""SDK metrics to OTLP Metric messages, one data point at a time, so that a batch can be cut at any point."""

from collections.abc import Iterator, Sequence
from struct import pack
from typing import Any

from opentelemetry.sdk.metrics.export import ExponentialHistogram, Gauge, Histogram, Sum

from crosswatch_exporters.encoding.wire import DOUBLE, FIXED64, AttributeEncoder, Redactor, delimited, items_of, text, varint


class MetricEncoder:
    """Encodes metrics of the four kinds the SDK has: gauge, sum, histogram, exponential histogram."""

    def __init__(self, redact: Redactor | None = None) -> None:
        self._number_attributes = AttributeEncoder(0x3A, redact)
        self._histogram_attributes = AttributeEncoder(0x4A, redact)
        self._exponential_attributes = AttributeEncoder(0x0A, redact)
        self._exemplar_attributes = AttributeEncoder(0x3A, redact)

    def points(self, metric: Any) -> Iterator[tuple[Any, bytes | None]]:
        """Each data point with its encoded message, tag and length included; None for one that has none, such as a count beyond the largest
        double. Nothing for kinds the SDK does not have."""
        match metric.data:
            case Gauge():
                encode = self._gauge_point
            case Sum():
                encode = self._sum_point
            case Histogram():
                encode = self._histogram_point
            case ExponentialHistogram():
                encode = self._exponential_point
            case _:
                return
        for point in metric.data.data_points:
            try:
                encoded = delimited(b"\x0a", encode(point))
            except Exception:  # noqa: BLE001  # whatever an attribute's own methods raise; the other points must go on
                yield point, None
            else:
                yield point, encoded

    def message(self, metric: Any, points: Sequence[bytes]) -> bytes:
        """The Metric message with the given encoded points, without tag and length."""
        data = metric.data
        body = b"".join(points)
        match data:
            case Gauge():
                kind = b"\x2a"
            case Sum():
                kind = b"\x3a"
                body += b"\x10" + varint(int(data.aggregation_temporality)) + (b"\x18\x01" if data.is_monotonic else b"")
            case Histogram():
                kind = b"\x4a"
                body += b"\x10" + varint(int(data.aggregation_temporality))
            case _:
                kind = b"\x52"
                body += b"\x10" + varint(int(data.aggregation_temporality))
        head = text(b"\x0a", metric.name) + text(b"\x12", metric.description) + text(b"\x1a", metric.unit)
        return head + delimited(kind, body)

    def _gauge_point(self, point: Any) -> bytes:
        return b"".join(
            (
                b"\x19" + FIXED64.pack(point.time_unix_nano or 0),
                _number(b"\x31", b"\x21", point.value),
                self._number_attributes(items_of(point.attributes)),
                *self._exemplars(b"\x2a", point.exemplars),
            )
        )

    def _sum_point(self, point: Any) -> bytes:
        start = point.start_time_unix_nano
        return (b"\x11" + FIXED64.pack(start) if start else b"") + self._gauge_point(point)

    def _histogram_point(self, point: Any) -> bytes:
        counts, bounds = point.bucket_counts, point.explicit_bounds
        return b"".join(
            (
                _times(point),
                b"\x21" + FIXED64.pack(point.count),
                b"\x29" + DOUBLE.pack(point.sum),
                delimited(b"\x32", pack(f"<{len(counts)}Q", *counts)) if counts else b"",
                delimited(b"\x3a", pack(f"<{len(bounds)}d", *bounds)) if bounds else b"",
                b"\x59" + DOUBLE.pack(point.min),
                b"\x61" + DOUBLE.pack(point.max),
                self._histogram_attributes(items_of(point.attributes)),
                *self._exemplars(b"\x42", point.exemplars),
            )
        )

    def _exponential_point(self, point: Any) -> bytes:
        return b"".join(
            (
                self._exponential_attributes(items_of(point.attributes)),
                _times(point),
                b"\x21" + FIXED64.pack(point.count),
                b"\x29" + DOUBLE.pack(point.sum),
                b"\x30" + varint(_zigzag(point.scale)) if point.scale else b"",
                b"\x39" + FIXED64.pack(point.zero_count) if point.zero_count else b"",
                _buckets(b"\x42", point.positive),
                _buckets(b"\x4a", point.negative),
                b"\x50" + varint(point.flags) if point.flags else b"",
                b"\x61" + DOUBLE.pack(point.min),
                b"\x69" + DOUBLE.pack(point.max),
                *self._exemplars(b"\x5a", point.exemplars),
            )
        )

    def _exemplars(self, tag: bytes, exemplars: Sequence[Any]) -> Iterator[bytes]:
        for exemplar in exemplars:
            fields = [b"\x11" + FIXED64.pack(exemplar.time_unix_nano or 0), _number(b"\x31", b"\x19", exemplar.value)]
            if exemplar.span_id is not None and exemplar.trace_id is not None:
                fields.append(b"\x22\x08" + exemplar.span_id.to_bytes(8, "big") + b"\x2a\x10" + exemplar.trace_id.to_bytes(16, "big"))
            fields.append(self._exemplar_attributes(items_of(exemplar.filtered_attributes)))
            yield delimited(tag, b"".join(fields))


def _times(point: Any) -> bytes:
    start = point.start_time_unix_nano
    return (b"\x11" + FIXED64.pack(start) if start else b"") + b"\x19" + FIXED64.pack(point.time_unix_nano or 0)


def _number(int_tag: bytes, double_tag: bytes, value: int | float) -> bytes:
    """An sfixed64 or a double. Integers beyond 64 bits, which Python has and protobuf has not, become doubles."""
    if isinstance(value, int) and -(1 << 63) <= value < 1 << 63:
        return int_tag + value.to_bytes(8, "little", signed=True)
    return double_tag + DOUBLE.pack(value)


def _buckets(tag: bytes, buckets: Any) -> bytes:
    counts = buckets.bucket_counts
    if not counts:
        return b""
    offset = b"\x08" + varint(_zigzag(buckets.offset)) if buckets.offset else b""
    return delimited(tag, offset + delimited(b"\x12", b"".join(map(varint, counts))))


def _zigzag(n: int) -> int:
    return n << 1 if n >= 0 else ((-n) << 1) - 1
