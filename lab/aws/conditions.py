"""What the lab may do to its AWS: conditions per Region and service, set over the control API, that the gateway obeys.

A condition is a JSON object: ``{"kind": "throttle", "region": "us-east-1", "service": "logs", "rate": 5}``. ``region``, ``service`` and
``operation`` are optional: absent means all. Kinds:

- ``down``      the Region's listener is closed: connections are refused, its schedulers stop. With a service: connections are reset.
- ``hang``      accepted, never answered (until the condition or the client goes).
- ``slow``      answered ``ms`` milliseconds late (wall).
- ``throttle``  refused with the service's throttling code above ``rate`` requests a wall second, or at random for ``share`` (0..1) of them.
- ``refuse``    refused with ``code`` (and optional ``message`` and ``status``).
- ``reset``     the connection is reset instead of an answer.
"""

from __future__ import annotations

import itertools
import random
import threading
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

LOOK_WALL_S = 1.0
KINDS = ("down", "hang", "slow", "throttle", "refuse", "reset")

# The code and HTTP status with which a service throttles; the others say ThrottlingException, 400.
THROTTLING = {
    "cloudformation": ("Throttling", 400),
    "cloudwatch": ("Throttling", 400),
    "dynamodb": ("ProvisionedThroughputExceededException", 400),
    "elbv2": ("Throttling", 400),
    "iam": ("Throttling", 400),
    "lambda": ("TooManyRequestsException", 429),
    "rds": ("Throttling", 400),
    "route53": ("Throttling", 400),
    "route53-recovery-cluster": ("ThrottlingException", 429),
    "route53-recovery-control-config": ("ThrottlingException", 429),
    "s3": ("SlowDown", 503),
    "sns": ("Throttling", 400),
    "sqs": ("RequestThrottled", 403),
    "sts": ("Throttling", 400),
    "synthetics": ("TooManyRequestsException", 429),
    "xray": ("ThrottledException", 429),
}


@dataclass(frozen=True)
class Condition:
    """One condition in force."""

    id: str
    kind: str
    region: str | None = None
    service: str | None = None
    operation: str | None = None
    options: dict[str, Any] = field(default_factory=dict)

    def matches(self, region: str, service: str, operation: str | None) -> bool:
        """Whether it holds for a call."""
        return (
            self.region in {None, region}
            and self.service in {None, service}
            and (self.operation is None or operation is None or self.operation.lower() == operation.lower())
        )

    def as_json(self) -> dict[str, Any]:
        """The condition as the control API shows it."""
        pairs = {"id": self.id, "kind": self.kind, "region": self.region, "service": self.service, "operation": self.operation}
        return {key: value for key, value in pairs.items() if value is not None} | self.options


_OPTIONS: dict[str, dict[str, type | tuple[type, ...]]] = {
    "down": {},
    "hang": {},
    "slow": {"ms": (int, float)},
    "throttle": {"rate": (int, float), "share": (int, float)},
    "refuse": {"code": str, "message": str, "status": int},
    "reset": {},
}


def parse(data: Any, identity: str, regions: tuple[str, ...]) -> Condition:
    """A condition from the control API's JSON. Raises ValueError that says everything that is wrong with it."""
    if not isinstance(data, dict):
        raise ValueError("a condition is a JSON object with at least 'kind'")
    kind = data.get("kind")
    if kind not in KINDS:
        raise ValueError(f"kind: must be one of {', '.join(KINDS)}, not {kind!r}")
    problems = []
    if data.get("region") is not None and data["region"] not in regions:
        problems.append(f"region: {data['region']!r} is no Region of this lab ({', '.join(regions)})")
    options = {key: value for key, value in data.items() if key not in {"kind", "region", "service", "operation"}}
    known = _OPTIONS[kind]
    for key, value in options.items():
        if key not in known:
            problems.append(f"{key}: {kind} has no such option ({', '.join(known) or 'it has none'})")
        elif not isinstance(value, known[key]) or isinstance(value, bool) or (isinstance(value, int | float) and value < 0):
            problems.append(f"{key}: {value!r} is not usable here")
    needed = {"slow": ("ms",), "refuse": ("code",), "throttle": ("rate", "share")}.get(kind, ())
    if needed and not any(key in options for key in needed):
        problems.append(f"{kind} needs {' or '.join(needed)}")
    if problems:
        raise ValueError("; ".join(problems))
    return Condition(identity, kind, data.get("region"), data.get("service"), data.get("operation"), options)


class Conditions:
    """All conditions in force; safe to use from any thread."""

    def __init__(self, regions: tuple[str, ...], seed: int = 1) -> None:
        self._regions = regions
        self._conditions: dict[str, Condition] = {}
        self._numbers = itertools.count(1)
        self._random = random.Random(seed)
        self._windows: dict[str, tuple[int, int]] = {}
        self._changed = threading.Condition()

    def add(self, data: Any) -> Condition:
        """Put a condition in force. Raises ValueError where ``data`` is unusable."""
        with self._changed:
            condition = parse(data, f"c{next(self._numbers)}", self._regions)
            self._conditions[condition.id] = condition
            self._changed.notify_all()
            return condition

    def remove(self, identity: str | None = None, region: str | None = None) -> list[Condition]:
        """Lift one condition, those of one Region, or all. Returns what was lifted."""
        with self._changed:
            gone = [
                condition
                for condition in self._conditions.values()
                if identity in {None, condition.id} and (region is None or condition.region == region)
            ]
            for condition in gone:
                del self._conditions[condition.id]
                self._windows.pop(condition.id, None)
            self._changed.notify_all()
            return gone

    def all(self) -> list[Condition]:
        """The conditions in force."""
        return list(self._conditions.values())

    def is_down(self, region: str) -> bool:
        """Whether the whole Region is down."""
        return any(
            each.kind == "down" and each.service is None and each.region in {None, region} for each in self._conditions.copy().values()
        )

    def for_call(self, region: str, service: str, operation: str | None) -> list[Condition]:
        """The conditions that hold for a call."""
        if not self._conditions:
            return []
        return [condition for condition in self.all() if condition.matches(region, service, operation)]

    def throttles(self, condition: Condition) -> bool:
        """Whether a throttle refuses this request (it counts it)."""
        if "share" in condition.options:
            return self._random.random() < float(condition.options["share"])
        second = int(time.time())
        with self._changed:
            window, count = self._windows.get(condition.id, (second, 0))
            count = count + 1 if window == second else 1
            self._windows[condition.id] = (second, count)
        return count > float(condition.options["rate"])

    def wait_until_lifted(self, condition: Condition, gone: Callable[[], bool]) -> None:
        """Block while ``condition`` is in force and the client has not ``gone``, which is asked every `LOOK_WALL_S`."""
        while not gone():
            with self._changed:
                if self._changed.wait_for(lambda: condition.id not in self._conditions, LOOK_WALL_S):
                    return
