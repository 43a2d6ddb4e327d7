"""What the gateway gives its services: each other, the lab's clock, schedules, and moto."""

from __future__ import annotations

import logging
import secrets
import threading
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import boto3
from botocore.config import Config

from lab.aws import registry
from lab.aws.conditions import THROTTLING, Conditions
from lab.aws.ingestion import Ingestion
from lab.aws.moto_bridge import Moto, is_right
from lab.aws.protocol import Catalogue
from lab.aws.protocol.routing import checked
from lab.aws.service import AwsError, Context
from lab.aws.sigv4 import Key, KeyStore

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from lab.clock import LabClock
    from lab.plan import LabPlan

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Options:
    """What may be chosen about the local AWS."""

    ingestion: Ingestion = field(default_factory=Ingestion)


class LocalWorld:
    """The `World` of one gateway. ``start`` loads every service that exists; ``stop`` ends the schedules."""

    def __init__(self, plan: LabPlan, options: Options | None = None, conditions: Conditions | None = None) -> None:
        self.plan = plan
        self.options = options or Options()
        self.clock: LabClock = plan.clock
        self.account = plan.account
        self.regions = tuple(plan.regions)
        self.conditions = conditions or Conditions(tuple({*plan.regions, *plan.arc_ports}))
        self.keys = KeyStore([Key(pair.access_key, pair.secret_key, pair.principal) for pair in plan.credentials.values()])
        self.catalogue = Catalogue()
        admin = plan.credentials["admin"]
        endpoints = {name: region.aws_endpoint for name, region in plan.regions.items()}
        self.moto = Moto(Key(admin.access_key, admin.secret_key, admin.principal), endpoints)
        self._services: dict[str, Any] = {}
        self._loading = threading.RLock()
        self._stopped = threading.Event()
        self._clients: dict[tuple[str, str], Any] = {}
        self._session = boto3.session.Session()  # one, so that service models are read once

    def start(self) -> None:
        """Load every service we have."""
        for name in registry.SERVICES:
            try:
                self.find(name)
            except Exception:  # one service that cannot start must not take the others along
                log.exception("%s is not served", name)

    def stop(self) -> None:
        """End all schedules, and let services that have a ``close`` end what they started."""
        self._stopped.set()
        for service in self._services.values():
            close = getattr(service, "close", None)
            if close is not None:
                close()

    def find(self, name: str) -> Any | None:
        """The object that implements ``name``, or None where we have none."""
        found = self._services.get(name)
        if found is None:
            with self._loading:
                found = self._services.get(name)
                if found is None:
                    found = registry.load(name, self)
                    if found is not None:
                        self._services[name] = found
        return found

    def service(self, name: str) -> Any:
        """The object that implements ``name``. Raises LookupError where we have none."""
        found = self.find(name)
        if found is None:
            raise LookupError(f"the local AWS has no {name} of its own")
        return found

    def context(self, service: str, operation: str, region: str, key: Key, request_id: str = "") -> Context:
        """A call's context, now."""
        return Context(
            service, operation, region, self.account, key.principal, key.access_key, self.clock.now(), request_id or secrets.token_hex(16)
        )

    def call(self, region: str, service: str, operation: str, principal: str = "role/lab", **params: Any) -> dict[str, Any]:
        """Call an operation (snake case) in-process; see `lab.aws.service.World.call`."""
        region = self.served_from(service, region)
        if self.is_down(region):
            raise AwsError("RegionUnavailable", f"{region} is down", 503)
        model = self.catalogue.model(service)
        known = model.by_snake.get(operation)
        if known is None:
            raise AwsError("UnknownOperationException", f"{service} has no operation {operation}")
        self.obey(region, service, known.name)
        implementation = self.find(service)
        method = getattr(implementation, operation, None)
        if method is not None:
            shape = known.model.input_shape
            checked_params = checked(service, model.plain_readers, shape, params) if shape is not None else {}
            ctx = self.context(service, operation, region, Key("", "", principal))
            return method(ctx, checked_params) or {}
        if is_right(service, known.name):
            return self.moto.call(region, service, operation, params)
        raise unsupported(service, known.name)

    def served_from(self, service: str, region: str) -> str:
        """The Region that serves calls to ``service`` in ``region``: another one where the service names its ``home_region``.

        Raises `AwsError` where that other Region is down.
        """
        home = str(getattr(self.find(service), "home_region", region))
        if home != region and self.is_down(home):
            raise AwsError("ServiceUnavailable", f"{service} is served from {home}, which is not available.", 503)
        return home

    def obey(self, region: str, service: str, operation: str) -> None:
        """Raise what the conditions in force say about an in-process call."""
        for condition in self.conditions.for_call(region, service, operation):
            if condition.kind == "throttle":
                if self.conditions.throttles(condition):
                    code, status = THROTTLING.get(service, ("ThrottlingException", 400))
                    raise AwsError(code, "Rate exceeded", status)
            elif condition.kind == "refuse":
                raise AwsError(condition.options["code"], condition.options.get("message", ""), condition.options.get("status", 400))
            elif condition.kind != "slow":
                raise AwsError("ServiceUnavailable", f"{service} in {region} does not answer", 503)

    def client(self, service: str, region: str) -> Any:
        """A boto3 client of the admin principal on this gateway's own endpoint."""
        with self._loading:
            found = self._clients.get((service, region))
            if found is None:
                admin = self.plan.credentials["admin"]
                found = self._clients[(service, region)] = self._session.client(
                    service,
                    region_name=region,
                    endpoint_url=self.plan.regions[region].aws_endpoint,
                    aws_access_key_id=admin.access_key,
                    aws_secret_access_key=admin.secret_key,
                    config=Config(retries={"total_max_attempts": 1}, s3={"addressing_style": "path"}),
                )
            return found

    def every(self, lab_seconds: float, work: Callable[[float], None], region: str | None = None, name: str = "") -> None:
        """Call ``work(now)`` each ``lab_seconds`` of lab time, in a thread of its own; not while ``region`` is down."""
        label = name or getattr(work, "__qualname__", "work")
        threading.Thread(target=self._repeat, args=(lab_seconds, work, region, label), name=label, daemon=True).start()

    def _repeat(self, lab_seconds: float, work: Callable[[float], None], region: str | None, name: str) -> None:
        due = self.clock.now() + lab_seconds
        while not self._stopped.wait(max(0.0, self.clock.wall_seconds(due - self.clock.now()))):
            now = self.clock.now()
            if region is None or not self.is_down(region):
                try:
                    work(now)
                except Exception:  # a schedule outlives its failures; they are logged whole
                    log.exception("%s failed", name)
            # Late work is not repeated for the ticks it missed.
            due = max(due + lab_seconds, self.clock.now())

    def is_down(self, region: str) -> bool:
        """Whether a fault has taken the Region's AWS away."""
        return self.conditions.is_down(region)

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
        """Publish a metric as an AWS service does (namespaces that start with ``AWS/`` are closed to PutMetricData).

        Nothing is stored in a Region that is down, or where no CloudWatch is served.
        """
        cloudwatch = self.find("cloudwatch")
        if cloudwatch is not None and not self.is_down(region):
            cloudwatch.vend(region, namespace, metric, dict(dimensions), value, unit, self.clock.now() if timestamp is None else timestamp)


def unsupported(service: str, operation: str) -> AwsError:
    """The answer to what neither we nor moto do as AWS does."""
    return AwsError("UnsupportedOperation", f"The local AWS does not implement {service}:{operation}.", 501)


def served(world: LocalWorld) -> Iterable[str]:
    """Names of all services that have an implementation of our own."""
    return [name for name in registry.SERVICES if world.find(name) is not None]
