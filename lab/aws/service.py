"""What a service of the local AWS looks like to the gateway, and what the gateway offers to a service.

A service is an object with one method per operation, named in snake case, that takes a `Context` and the request's parameters (a dict in
the shape of botocore's model) and returns the response's dict (or None for an empty one)::

    class Sns:
        def publish(self, ctx: Context, params: dict[str, Any]) -> dict[str, Any]: ...

In ``params`` timestamps are epoch seconds (float) and blobs are bytes; required members, lengths, ranges, enumerations and
patterns of botocore's model have been checked. In results a timestamp may be epoch seconds, a datetime or ISO 8601 text; members that are
None are left out. A class named ``Service`` in ``lab.aws.services.<name>`` (`lab.aws.registry`), constructed with the World, serves; a
``close`` method, where it has one, is called at the end. An operation it has no method for goes to moto where moto is right
(`lab.aws.moto_bridge.RIGHT`), and is refused otherwise.

Beyond operations, ``raw_paths`` (a dict from ``"POST /v1/traces"`` to a function of Context and `lab.aws.protocol.Request` that returns a
`Response`) serves other signed requests, and ``public_paths`` in the same shape unsigned ones.

It raises `AwsError` for everything AWS would refuse. Protocols (query, JSON, CBOR, REST) are the gateway's business. A service that keeps
state per Region keys it by ``ctx.region``. Background work is registered with `World.every`, which stops for a Region that is down.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from lab.clock import LabClock


@dataclass(frozen=True, slots=True)
class Context:
    """Who calls what, where and when. ``now`` is lab time, epoch seconds."""

    service: str
    operation: str
    region: str
    account: str
    principal: str
    access_key: str
    now: float
    request_id: str = ""


class AwsError(Exception):
    """An error as AWS would answer it: ``code`` is the error code of the API's model, ``status`` the HTTP status."""

    def __init__(self, code: str, message: str, status: int = 400, **fields: Any) -> None:
        super().__init__(f"{code}: {message}")
        self.code = code
        self.message = message
        self.status = status
        self.fields = fields


class World(Protocol):
    """What the gateway gives to every service."""

    clock: LabClock
    account: str
    regions: tuple[str, ...]

    def service(self, name: str) -> Any:
        """The object that implements the service ``name`` (its botocore name)."""

    def call(self, region: str, service: str, operation: str, principal: str = "role/lab", **params: Any) -> dict[str, Any]:
        """Call an operation (snake case) of any service in-process, moto's included, as AWS's own services call each other.

        Raises `AwsError` as the API would, and `AwsError("RegionUnavailable", ...)` where the Region is down.
        """

    def client(self, service: str, region: str) -> Any:
        """A boto3 client of the admin principal on the gateway's endpoint."""

    def every(self, lab_seconds: float, work: Callable[[float], None], region: str | None = None, name: str = "") -> None:
        """Call ``work(now)`` each ``lab_seconds`` of lab time; not while ``region`` is down. Exceptions are logged, work goes on."""

    def is_down(self, region: str) -> bool:
        """Whether a fault has taken the Region's AWS away."""

    def obey(self, region: str, service: str, operation: str) -> None:
        """Raise `AwsError` where a fault keeps ``service`` in ``region`` from doing ``operation`` (camel case); `call` does so itself."""

    def vend(
        self,
        region: str,
        namespace: str,
        metric: str,
        dimensions: Mapping[str, str],
        value: float,
        unit: str = "None",
        timestamp: float | None = None,
    ) -> None:
        """Publish a metric as AWS's own services do, also in ``AWS/`` namespaces. ``timestamp`` is lab time, now by default."""
