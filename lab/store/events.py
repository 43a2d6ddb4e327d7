"""Order events: an outbox that publishes with confirms and keeps trying, and a consumer that acknowledges what it has handled.

The customer's order does not wait for the broker: an event that cannot be published stays in the outbox (in memory, bounded) until it can,
and the oldest is dropped, with a log line, when the outbox is full. Each runs in a thread that owns its pika connection.
"""

from __future__ import annotations

import contextvars
import json
import queue
import threading
import time
from typing import TYPE_CHECKING, Any

import pika
from pika.exceptions import AMQPError

from lab.store.service import log

if TYPE_CHECKING:
    from collections.abc import Callable

    from pika.adapters.blocking_connection import BlockingChannel

EXCHANGE = "retail.orders"
QUEUE = "orders"
DEAD_LETTERS = "orders.dead"
CAPACITY = 10_000
RETRY_S = 1.0
IDLE_S = 1.0


class Outbox:
    """Events on their way to the broker at ``url``."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._events: queue.Queue[tuple[contextvars.Context, str, bytes, bool]] = queue.Queue(CAPACITY)
        threading.Thread(target=self._run, name="outbox", daemon=True).start()

    def put(self, key: str, event: dict[str, Any]) -> None:
        """Hand over one event. It is published in the context of the caller, so that a trace goes on into the broker."""
        while True:
            try:
                self._events.put_nowait((contextvars.copy_context(), key, json.dumps(event).encode(), event["synthetic"]))
            except queue.Full:
                dropped = self._events.get_nowait()
                log.error("the outbox is full: dropped the event %s", dropped[1])
                continue
            return

    def __len__(self) -> int:
        return self._events.qsize()

    def _run(self) -> None:
        waiting = None
        while True:
            try:
                with pika.BlockingConnection(_parameters(self._url)) as connection:
                    channel = connection.channel()
                    _declare(channel)
                    channel.confirm_delivery()
                    while True:
                        if waiting is None:
                            try:
                                waiting = self._events.get(timeout=IDLE_S)
                            except queue.Empty:
                                connection.process_data_events()
                                continue
                        context, key, body, synthetic = waiting
                        properties = pika.BasicProperties(
                            content_type="application/json", delivery_mode=2, headers={"synthetic": synthetic}
                        )
                        context.run(channel.basic_publish, EXCHANGE, key, body, properties, True)
                        waiting = None
            except (AMQPError, OSError) as error:
                log.warning("the broker does not take events (%d wait): %s", len(self) + (waiting is not None), type(error).__name__)
                time.sleep(RETRY_S)


def consume(url: str, handle: Callable[[bytes], None]) -> None:
    """Hand every event in the queue to ``handle``, in a thread of its own, and acknowledge it.

    What ``handle`` cannot read goes to the dead letters.
    """

    def handled(channel: BlockingChannel, method: Any, _properties: Any, body: bytes) -> None:
        try:
            handle(body)
        except (ValueError, KeyError, TypeError) as error:
            log.error("an event could not be read: %r", error)
            channel.basic_nack(method.delivery_tag, requeue=False)
        else:
            channel.basic_ack(method.delivery_tag)

    def run() -> None:
        while True:
            try:
                with pika.BlockingConnection(_parameters(url)) as connection:
                    channel = connection.channel()
                    _declare(channel)
                    channel.basic_qos(prefetch_count=20)
                    channel.basic_consume(QUEUE, handled)
                    channel.start_consuming()
            except (AMQPError, OSError):
                time.sleep(RETRY_S)

    threading.Thread(target=run, name="consumer", daemon=True).start()


def _parameters(url: str) -> pika.URLParameters:
    parameters = pika.URLParameters(url)
    parameters.heartbeat = 10
    parameters.socket_timeout = 2
    parameters.blocked_connection_timeout = 10
    return parameters


def _declare(channel: BlockingChannel) -> None:
    channel.exchange_declare(EXCHANGE, "topic", durable=True)
    channel.queue_declare(DEAD_LETTERS, durable=True)
    channel.queue_declare(QUEUE, durable=True, arguments={"x-dead-letter-exchange": "", "x-dead-letter-routing-key": DEAD_LETTERS})
    channel.queue_bind(QUEUE, EXCHANGE, "order.#")
