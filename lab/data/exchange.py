"""The broker's state without its protocol: exchanges, queues, bindings, messages, and the memory and disk alarms. All in memory.

Names and rules are AMQP 0-9-1's as RabbitMQ implements it: default exchange, topic wildcards, dead-letter exchanges with ``x-death``,
``x-message-ttl`` and ``x-max-length``. A violation raises `Violation` with AMQP's reply code; the protocol decides what it closes.
"""

from __future__ import annotations

import time
from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from pamqp import commands

NOT_FOUND, PRECONDITION_FAILED, RESOURCE_LOCKED, ACCESS_REFUSED, COMMAND_INVALID = 404, 406, 405, 403, 503
OVERHEAD = 400
KINDS = ("direct", "topic", "fanout")


class Violation(Exception):
    """A request that AMQP refuses; ``code`` is the reply code."""

    def __init__(self, code: int, text: str) -> None:
        super().__init__(text)
        self.code = code
        self.text = text


@dataclass(slots=True)
class Message:
    """A message in a queue. ``expires`` is wall time, monotonic, or None."""

    exchange: str
    key: str
    properties: commands.Basic.Properties
    body: bytes
    redelivered: bool = False
    expires: float | None = None

    @property
    def size(self) -> int:
        """What it takes of memory, about."""
        return len(self.body) + OVERHEAD


@dataclass(slots=True)
class Consumer:
    """A subscription to a queue. ``credit`` says how many more it takes now, ``send`` delivers one."""

    tag: str
    no_ack: bool
    exclusive: bool
    owner: object
    credit: Callable[[], int]
    send: Callable[[Message, Queue], None]


@dataclass(slots=True)
class Queue:
    """A queue and who consumes it."""

    name: str
    durable: bool
    exclusive: object | None
    auto_delete: bool
    arguments: dict[str, Any]
    ready: deque[Message] = field(default_factory=deque)
    unacknowledged: int = 0
    consumers: deque[Consumer] = field(default_factory=deque)

    def spread(self) -> None:
        """Deliver what is ready to the consumers in turn, as long as one of them takes more."""
        idle = 0
        while self.ready and self.consumers and idle < len(self.consumers):
            consumer = self.consumers[0]
            self.consumers.rotate(-1)
            if consumer.credit() <= 0:
                idle += 1
                continue
            idle = 0
            message = self.ready.popleft()
            if not consumer.no_ack:
                self.unacknowledged += 1
            consumer.send(message, self)


@dataclass(slots=True)
class Exchange:
    """An exchange and where it leads: (queue name, binding key)."""

    name: str
    kind: str
    durable: bool
    bindings: list[tuple[str, str]] = field(default_factory=list)


def matches(pattern: str, key: str) -> bool:
    """Whether a topic binding's ``pattern`` takes ``key``: ``*`` is one word, ``#`` any number of them."""

    def match(words: list[str], pattern_words: list[str]) -> bool:
        if not pattern_words:
            return not words
        if pattern_words[0] == "#":
            return match(words, pattern_words[1:]) or (bool(words) and match(words[1:], pattern_words))
        return bool(words) and pattern_words[0] in {"*", words[0]} and match(words[1:], pattern_words[1:])

    return match(key.split("."), pattern.split("."))


@dataclass(slots=True)
class Limits:
    """When alarms go off. Bytes; the memory limit is 0.4 of RAM on Amazon MQ, here small enough to be reached."""

    memory: int = 64 << 20
    disk_free: int = 8 << 30
    disk_free_limit: int = 2 << 30


class Vhost:
    """The virtual host ``/``."""

    def __init__(self) -> None:
        self.exchanges = {name: Exchange(name, kind, True) for name, kind in (("", "direct"), *((f"amq.{kind}", kind) for kind in KINDS))}
        self.queues: dict[str, Queue] = {}
        self.limits = Limits()
        self.forced: set[str] = set()
        self.published = 0

    # --- alarms ---

    @property
    def memory(self) -> int:
        """Bytes that the messages take."""
        return sum(message.size for queue in self.queues.values() for message in queue.ready) + OVERHEAD * sum(
            queue.unacknowledged for queue in self.queues.values()
        )

    @property
    def alarms(self) -> set[str]:
        """The alarms that are on: ``memory``, ``disk``."""
        on = set(self.forced)
        if self.memory > self.limits.memory:
            on.add("memory")
        if self.limits.disk_free < self.limits.disk_free_limit:
            on.add("disk")
        return on

    # --- declarations ---

    def declare_exchange(self, name: str, kind: str, durable: bool, passive: bool) -> None:
        """Make an exchange, or check that it is as expected."""
        known = self.exchanges.get(name)
        if passive or known:
            if known is None:
                raise Violation(NOT_FOUND, f"NOT_FOUND - no exchange '{name}' in vhost '/'")
            if not passive and (known.kind, known.durable) != (kind, durable):
                raise Violation(PRECONDITION_FAILED, f"PRECONDITION_FAILED - inequivalent arg for exchange '{name}' in vhost '/'")
            return
        if kind not in KINDS:
            raise Violation(COMMAND_INVALID, f"COMMAND_INVALID - unknown exchange type '{kind}'")
        if name.startswith("amq."):
            raise Violation(ACCESS_REFUSED, f"ACCESS_REFUSED - exchange name '{name}' contains reserved prefix 'amq.*'")
        self.exchanges[name] = Exchange(name, kind, durable)

    def declare_queue(
        self, name: str, owner: object, passive: bool, durable: bool, exclusive: bool, auto_delete: bool, arguments: dict[str, Any]
    ) -> Queue:
        """Make a queue, or check that it is as expected."""
        known = self.queues.get(name)
        if known is not None:
            self.owned(known, owner)
            if not passive and (known.durable, known.auto_delete, known.arguments) != (durable, auto_delete, arguments):
                raise Violation(PRECONDITION_FAILED, f"PRECONDITION_FAILED - inequivalent arg for queue '{name}' in vhost '/'")
            return known
        if passive:
            raise Violation(NOT_FOUND, f"NOT_FOUND - no queue '{name}' in vhost '/'")
        return self.queues.setdefault(name, Queue(name, durable, owner if exclusive else None, auto_delete, arguments))

    def queue(self, name: str, owner: object) -> Queue:
        """The queue ``name``, if there is one and it is not another connection's own."""
        queue = self.queues.get(name)
        if queue is None:
            raise Violation(NOT_FOUND, f"NOT_FOUND - no queue '{name}' in vhost '/'")
        self.owned(queue, owner)
        return queue

    def owned(self, queue: Queue, owner: object) -> None:
        """Refuse a queue that is exclusive to another connection."""
        if queue.exclusive not in {None, owner}:
            raise Violation(
                RESOURCE_LOCKED, f"RESOURCE_LOCKED - cannot obtain exclusive access to locked queue '{queue.name}' in vhost '/'"
            )

    def exchange(self, name: str) -> Exchange:
        """The exchange ``name``."""
        if name not in self.exchanges:
            raise Violation(NOT_FOUND, f"NOT_FOUND - no exchange '{name}' in vhost '/'")
        return self.exchanges[name]

    def bind(self, queue: Queue, exchange: str, key: str) -> None:
        """Let ``exchange`` lead to ``queue``."""
        if exchange == "":
            raise Violation(ACCESS_REFUSED, "ACCESS_REFUSED - operation not permitted on the default exchange")
        binding = (queue.name, key)
        if binding not in self.exchange(exchange).bindings:
            self.exchange(exchange).bindings.append(binding)

    def delete_queue(self, queue: Queue) -> int:
        """Remove a queue with its bindings; returns how many messages went with it."""
        self.queues.pop(queue.name, None)
        for exchange in self.exchanges.values():
            exchange.bindings = [binding for binding in exchange.bindings if binding[0] != queue.name]
        return len(queue.ready)

    def drop_owner(self, owner: object) -> None:
        """A connection is gone, and its exclusive queues with it."""
        for queue in [queue for queue in self.queues.values() if queue.exclusive is owner]:
            self.delete_queue(queue)

    # --- messages ---

    def route(self, exchange: Exchange, key: str) -> Iterator[Queue]:
        """The queues that a message goes to, each once."""
        if exchange.name == "":
            found = {key}
        elif exchange.kind == "fanout":
            found = {name for name, _ in exchange.bindings}
        elif exchange.kind == "topic":
            found = {name for name, pattern in exchange.bindings if matches(pattern, key)}
        else:
            found = {name for name, bound in exchange.bindings if bound == key}
        return (self.queues[name] for name in found if name in self.queues)

    def publish(self, exchange: str, key: str, properties: commands.Basic.Properties, body: bytes) -> bool:
        """Route one message; False where no queue takes it."""
        queues = list(self.route(self.exchange(exchange), key))
        self.published += 1
        for queue in queues:
            ttl = queue.arguments.get("x-message-ttl")
            queue.ready.append(Message(exchange, key, properties, body, expires=None if ttl is None else time.monotonic() + ttl / 1000))
            limit = queue.arguments.get("x-max-length")
            while limit is not None and len(queue.ready) > limit:
                self.bury(queue, queue.ready.popleft(), "maxlen")
            queue.spread()
        return bool(queues)

    def bury(self, queue: Queue, message: Message, reason: str) -> None:
        """Send a message to its queue's dead-letter exchange, if it has one that exists."""
        exchange = queue.arguments.get("x-dead-letter-exchange")
        if exchange is None or exchange not in self.exchanges:
            return
        headers = dict(message.properties.headers or {})
        earlier = headers.get("x-death")
        death: dict[str, Any] = {
            "queue": queue.name,
            "reason": reason,
            "exchange": message.exchange,
            "routing-keys": [message.key],
            "count": 1,
        }
        headers["x-death"] = [death, *(earlier if isinstance(earlier, list) else [])]
        message.properties.headers = headers
        self.publish(exchange, queue.arguments.get("x-dead-letter-routing-key", message.key), message.properties, message.body)

    def expire(self) -> None:
        """Bury what has outlived its time to live."""
        now = time.monotonic()
        for queue in list(self.queues.values()):
            while queue.ready and (expires := queue.ready[0].expires) is not None and expires <= now:
                self.bury(queue, queue.ready.popleft(), "expired")
