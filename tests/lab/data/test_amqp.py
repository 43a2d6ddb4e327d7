"""The broker, as a RabbitMQ client sees it (pika), and its alarms."""

from __future__ import annotations

import asyncio
import threading
import time
from typing import TYPE_CHECKING, Any

import pika
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pika.exceptions import AMQPConnectionError, ChannelClosedByBroker, ProbableAuthenticationError, UnroutableError

from lab import admin
from lab.data.amqp import Broker
from lab.data.exchange import matches
from lab.plan import _free_ports
from tests.lab.rig import wait_for

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pika.adapters.blocking_connection import BlockingChannel


class Running:
    """A broker in a thread of its own; ``port`` speaks AMQP, ``admin_port`` the management API."""

    def __init__(self) -> None:
        self.port, self.admin_port = _free_ports(2)
        self._loop = asyncio.new_event_loop()
        self._opened = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()
        assert self._opened.wait(5)

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        self.broker = Broker(self.port)
        self._loop.run_until_complete(self._open())
        self._opened.set()
        self._loop.run_forever()

    async def _open(self) -> None:
        await self.broker.open()
        await admin.serve(self.admin_port, self.broker.handle)

    def close(self) -> None:
        """Stop it."""
        asyncio.run_coroutine_threadsafe(self.broker.shut(), self._loop).result(5)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(5)

    def connect(self, password: str = "retail", **options: Any) -> pika.BlockingConnection:
        """A client's connection."""
        credentials = pika.PlainCredentials("retail", password)
        return pika.BlockingConnection(
            pika.ConnectionParameters("127.0.0.1", self.port, credentials=credentials, socket_timeout=3, **options)
        )

    def ask(self, path: str) -> Any:
        """The management API's answer."""
        return admin.call(self.admin_port, "GET", path)


@pytest.fixture
def broker() -> Iterator[Running]:
    """A broker that is empty."""
    running = Running()
    yield running
    running.close()


@pytest.fixture
def channel(broker: Running) -> Iterator[BlockingChannel]:
    """A channel with a topic exchange ``t`` that leads ``order.#`` to queue ``q``, whose rejects go to queue ``dead``."""
    with broker.connect() as connection:
        channel = connection.channel()
        channel.exchange_declare("t", "topic", durable=True)
        channel.queue_declare("dead", durable=True)
        channel.queue_declare("q", durable=True, arguments={"x-dead-letter-exchange": "", "x-dead-letter-routing-key": "dead"})
        channel.queue_bind("q", "t", "order.#")
        yield channel


def test_a_topic_is_routed_and_a_large_message_arrives_whole(channel: BlockingChannel) -> None:
    """Content longer than a frame is split and put together again, properties included."""
    body = bytes(range(256)) * 2000
    channel.confirm_delivery()
    channel.basic_publish("t", "order.created.eu", body, pika.BasicProperties(headers={"synthetic": True}, content_type="x/y"))
    method, properties, got = channel.basic_get("q")
    assert method.routing_key == "order.created.eu"
    assert (properties.headers, properties.content_type) == ({"synthetic": True}, "x/y")
    assert got == body
    channel.basic_ack(method.delivery_tag)
    assert channel.basic_get("q") == (None, None, None)


def test_a_mandatory_message_that_goes_nowhere_comes_back(channel: BlockingChannel) -> None:
    """With confirms, pika raises what the broker returned."""
    channel.confirm_delivery()
    with pytest.raises(UnroutableError):
        channel.basic_publish("t", "nothing", b"x", mandatory=True)


def test_prefetch_limits_what_is_unacknowledged_and_a_closed_channel_requeues(channel: BlockingChannel, broker: Running) -> None:
    """Two of five are delivered; when the consumer goes they are delivered to the next, marked as seen before."""
    for number in range(5):
        channel.basic_publish("t", "order.x", b"%d" % number)
    with broker.connect() as other:
        consumer = other.channel()
        consumer.basic_qos(prefetch_count=2)
        got: list[bytes] = []
        consumer.basic_consume("q", lambda _c, _m, _p, body: got.append(body))
        other.process_data_events(0.3)
        assert got == [b"0", b"1"]
        (queue,) = [one for one in broker.ask("/api/queues") if one["name"] == "q"]
        assert (queue["messages_ready"], queue["messages_unacknowledged"], queue["consumers"]) == (3, 2, 1)
    method, _, body = channel.basic_get("q")
    assert (body, method.redelivered) == (b"0", True)


def test_what_is_rejected_goes_to_the_dead_letters(channel: BlockingChannel) -> None:
    """With the reason and the queue in x-death."""
    channel.basic_publish("t", "order.x", b"bad")
    method, _, _ = channel.basic_get("q")
    channel.basic_nack(method.delivery_tag, requeue=False)
    channel.connection.process_data_events(0.05)
    _, properties, body = channel.basic_get("dead", auto_ack=True)
    assert body == b"bad"
    assert properties.headers["x-death"][0]["reason"] == "rejected"
    assert properties.headers["x-death"][0]["queue"] == "q"


def test_a_fanout_copies_a_purge_empties_and_a_limit_drops_the_oldest(channel: BlockingChannel) -> None:
    """Three small things of queues."""
    channel.exchange_declare("f", "fanout")
    channel.queue_declare("short", arguments={"x-max-length": 2})
    channel.queue_bind("short", "f")
    channel.queue_bind("q", "f")
    for number in range(3):
        channel.basic_publish("f", "", b"%d" % number)
    assert channel.queue_declare("q", passive=True).method.message_count == 3
    assert channel.basic_get("short", auto_ack=True)[2] == b"1"
    assert channel.queue_purge("q").method.message_count == 3


@pytest.mark.parametrize(
    ("act", "code"),
    [
        (lambda channel: channel.queue_declare("missing", passive=True), 404),
        (lambda channel: channel.exchange_declare("t", "direct", durable=True), 406),
        (lambda channel: channel.queue_declare("q", durable=False), 406),
        (lambda channel: channel.exchange_declare("amq.own", "direct"), 403),
        (lambda channel: channel.basic_get("missing"), 404),
    ],
)
def test_a_violation_closes_the_channel_and_not_the_connection(channel: BlockingChannel, act: Any, code: int) -> None:
    """The reply code is AMQP's."""
    with pytest.raises(ChannelClosedByBroker) as caught:
        act(channel)
    assert caught.value.reply_code == code
    assert channel.connection.channel().is_open


def test_a_wrong_password_is_refused(broker: Running) -> None:
    """As RabbitMQ refuses it: the connection closes during authentication."""
    with pytest.raises(ProbableAuthenticationError):
        broker.connect("wrong")


def test_a_memory_alarm_blocks_publishers_and_lets_consumers_drain_the_queue(broker: Running, channel: BlockingChannel) -> None:
    """connection.blocked arrives, nothing more is taken; consuming below the limit ends it."""
    admin.call(broker.admin_port, "PUT", "/limits", {"memory": 50_000})
    told: list[str] = []
    with broker.connect() as publishing:
        publishing.add_on_connection_blocked_callback(lambda _c, _m: told.append("blocked"))
        publishing.add_on_connection_unblocked_callback(lambda _c, _m: told.append("unblocked"))
        publisher = publishing.channel()
        for _ in range(8):
            publisher.basic_publish("t", "order.x", b"x" * 10_000)
        publishing.process_data_events(0.5)
        assert told == ["blocked"]
        assert broker.ask("/api/nodes")[0]["mem_alarm"] is True
        taken = 0
        deadline = time.monotonic() + 5
        while taken < 8 and time.monotonic() < deadline:
            taken += channel.basic_get("q", auto_ack=True)[2] is not None
        assert taken == 8
        wait_for("the alarm to end", lambda: not broker.ask("/api/nodes")[0]["mem_alarm"])
        publishing.process_data_events(0.5)
        assert told == ["blocked", "unblocked"]


def test_a_broker_that_does_not_listen_refuses_and_comes_back(broker: Running) -> None:
    """The fault "broker down"."""
    admin.call(broker.admin_port, "PUT", "/listener", {"open": False})
    with pytest.raises(AMQPConnectionError):
        broker.connect()
    admin.call(broker.admin_port, "PUT", "/listener", {"open": True})
    broker.connect().close()


words = st.lists(st.sampled_from(["a", "b", "c"]), max_size=4)


@given(words)
def test_topic_patterns_are_an_algebra(key: list[str]) -> None:
    """``#`` takes every key, a key takes itself, and ``*`` takes exactly one word."""
    text = ".".join(key)
    assert matches("#", text)
    assert matches(text, text)
    assert matches("#." + text, text) if key else matches("#", "")
    assert matches(".".join("*" for _ in key), text) if key else True
    assert not matches(".".join("*" for _ in [*key, ""]) + ".*", text)
