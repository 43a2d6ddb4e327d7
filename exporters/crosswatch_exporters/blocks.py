"""A block: the unit that is written to the journal, merged into requests, and accounted for."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

HOUR_NS = 3600 * 10**9
DAY_NS = 24 * HOUR_NS
_BLOCK_BYTES = 256_000
_LEAST_BLOCK_BYTES = 2_000


@dataclass(frozen=True, slots=True)
class Block:
    """Some encoded items of one signal.

    `payload` is complete in itself: for OTLP signals a whole export request, so that the concatenation of payloads is a request again
    (protobuf concatenates repeated fields); for the others one JSON document a line. `weight` is what the destination's size limit counts,
    in bytes; the times are those of the oldest and the newest item, in nanoseconds since the epoch.
    """

    payload: bytes
    items: int
    weight: int
    oldest_ns: int
    newest_ns: int


@dataclass(frozen=True, slots=True)
class Limits:
    """What one destination accepts: in a request, in an item, and how far an item's time may lie from now."""

    request_bytes: int
    request_items: int
    item_bytes: int
    max_age_ns: int = 14 * DAY_NS
    max_ahead_ns: int = 2 * HOUR_NS
    max_gap_ns: int = DAY_NS
    most_block_bytes: int = _BLOCK_BYTES

    @property
    def block_bytes(self) -> int:
        """How large a block may become: small enough that several fit a request and that a lost one costs little."""
        return min(self.most_block_bytes, self.request_bytes)

    def for_queue(self, max_bytes: int) -> "Limits":
        """With blocks of which a queue of that size holds several: none is too large for it, and one that gives way costs little."""
        return replace(self, most_block_bytes=max(_LEAST_BLOCK_BYTES, min(_BLOCK_BYTES, max_bytes // 8)))

    def fit(self, blocks: Iterable[Block]) -> int:
        """How many of the first blocks make one request. At least one, if there is any: a block alone is made to fit when it is built."""
        items = weight = count = 0
        oldest, newest = 1 << 63, 0
        for block in blocks:
            items += block.items
            weight += block.weight
            oldest, newest = min(oldest, block.oldest_ns), max(newest, block.newest_ns)
            if count and (items > self.request_items or weight > self.request_bytes or newest - oldest > self.max_gap_ns):
                break
            count += 1
        return count


def total_items(blocks: Sequence[Block]) -> int:
    """The number of items in all of them."""
    return sum(block.items for block in blocks)


# https://docs.aws.amazon.com/AmazonCloudWatch/latest/monitoring/CloudWatch-OTLPEndpoint.html
TRACE_LIMITS = Limits(request_bytes=5_000_000, request_items=10_000, item_bytes=200_000)
# The size of a log request is the sum of the events' messages, each a record with its resource and scope, and 26 bytes a record.
LOG_LIMITS = Limits(request_bytes=1_048_576, request_items=10_000, item_bytes=1_000_000)
METRIC_LIMITS = Limits(request_bytes=1_000_000, request_items=1_000, item_bytes=40_000, max_ahead_ns=600 * 10**9)
# PutLogEvents, PutMetricData, PutTraceSegments: API reference of each service.
EMF_LIMITS = Limits(request_bytes=1_048_576, request_items=10_000, item_bytes=1_000_000)
METRIC_DATA_LIMITS = Limits(request_bytes=1_000_000, request_items=1_000, item_bytes=40_000, max_gap_ns=1 << 62)
SEGMENT_LIMITS = Limits(request_bytes=5_000_000, request_items=50, item_bytes=64_000, max_age_ns=30 * DAY_NS, max_gap_ns=1 << 62)

# Datapoint of the OTLP metrics endpoint: labels of resource, scope and datapoint together.
MAX_LABELS = 150
# A resource or a scope larger than this makes the endpoint reject the whole request.
MAX_RESOURCE_BYTES = 16_000
