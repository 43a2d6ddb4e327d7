"""What differs between the services telemetry is sent to: the shape of a request, its limits, and how an answer reads."""

from collections.abc import Mapping, Sequence
from typing import Protocol

from crosswatch_exporters.blocks import Block, Limits
from crosswatch_exporters.encoding.rewrite import add_resource_attribute, split_request
from crosswatch_exporters.endpoints import Route
from crosswatch_exporters.transport import Reply
from crosswatch_exporters.verdicts import Verdict, judge_otlp


class Destination(Protocol):
    """One kind of service."""

    name: str
    """The account its items are booked on."""
    limits: Limits

    def request(self, blocks: Sequence[Block], route: Route, away: bool) -> tuple[bytes, Mapping[str, str]]:
        """Body and headers of a request that carries `blocks`. `away` tells that the route is not the own Region's."""

    def judge(self, reply: Reply, items: int, now: float) -> Verdict:
        """What the answer to a request with that many items means. `now` in seconds since the epoch."""

    def split(self, block: Block) -> list[Block]:
        """The block as two or more smaller ones; just itself when it holds one item."""

    def mend(self, reply: Reply) -> list[tuple[bytes, Mapping[str, str]]]:
        """API requests (body, headers) to the same endpoint that may make the next attempt succeed."""


class Otlp:
    """An OTLP/HTTP receiver, AWS's or any other."""

    def __init__(self, signal: str, limits: Limits) -> None:
        self.name = signal
        self.limits = limits
        self._headers = {"content-type": "application/x-protobuf", "user-agent": "crosswatch-exporters/0.1.0"}

    def request(self, blocks: Sequence[Block], route: Route, away: bool) -> tuple[bytes, Mapping[str, str]]:
        """The concatenation of export requests is an export request. Away from home, each resource says where it was delivered."""
        body = b"".join(block.payload for block in blocks)
        if away and route.region:
            body = add_resource_attribute(body, "telemetry.delivery.region", route.region)
        return body, self._headers

    def judge(self, reply: Reply, items: int, now: float) -> Verdict:
        """By status, Retry-After and partial_success."""
        return judge_otlp(reply, now)

    def split(self, block: Block) -> list[Block]:
        """Halves, by items."""
        return split_request(block, self.name)

    def mend(self, reply: Reply) -> list[tuple[bytes, Mapping[str, str]]]:
        """Nothing: what an OTLP endpoint lacks is for its owner to make."""
        return []
