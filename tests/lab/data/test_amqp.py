"""The message broker, as a RabbitMQ client sees it (pika), its management API and its faults: the same for both brokers."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import pika
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pika.exceptions import AMQPConnectionError, ChannelClosedByBroker, ProbableAuthenticationError, UnroutableError

from lab import admin
from lab.control import Refused
from lab.data import broker as management
from lab.data.exchange import matches
from lab.data.metrics import broker_data
from lab.plan import BUILT_IN, RABBITMQ
from lab.store import events
from tests.lab.data.brokers import KINDS, REGION, REQUIRED, require, running_broker
from tests.lab.rig import wait_for

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pika.adapters.blocking_connection import BlockingChannel

    from tests.lab.data.brokers import RunningBroker

READY_WITHIN_S = 30.0


@pytest.fixture(scope="module", params=KINDS)
def running(request: pytest.FixtureRequest) -> Iterator[RunningBroker]:
    """Each of the two brokers."""
    with running_broker(request.param) as one:
        yield one


@pytest.fixture
def broker(running: RunningBroker) -> Iterator[RunningBroker]:
    """A broker without queues; it is mended and emptied afterwards."""
    yield running
    running.clear()


@pytest.fixture(params=KINDS)
def own_broker(request: pytest.FixtureRequest) -> Iterator[RunningBroker]:
    """Each of the two brokers, for one test alone: one that leaves clients behind which never stop trying."""
    with running_broker(request.param) as one:
        yield one


@pytest.fixture
def built_in() -> Iterator[RunningBroker]:
    """The built-in broker, for what it alone can do."""
    with running_broker(BUILT_IN) as one:
        yield one


def declare(connection: pika.BlockingConnection) -> BlockingChannel:
    """A channel with a topic exchange ``t`` that leads ``order.#`` to queue ``q``, whose rejects go to queue ``dead``."""
    channel = connection.channel()
    channel.exchange_declare("t", "topic", durable=True)
    channel.queue_declare("dead", durable=True)
    channel.queue_declare("q", durable=True, arguments={"x-dead-letter-exchange": "", "x-dead-letter-routing-key": "dead"})
    channel.queue_bind("q", "t", "order.#")
    return channel


@pytest.fixture
def channel(broker: RunningBroker) -> Iterator[BlockingChannel]:
    """What `declare` makes."""
    with broker.connect() as connection:
        yield declare(connection)


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


def test_prefetch_limits_what_is_unacknowledged_and_a_closed_channel_requeues(channel: BlockingChannel, broker: RunningBroker) -> None:
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
        broker.await_queue("q", messages_ready=3, messages_unacknowledged=2, consumers=1)
    wait_for("what was not acknowledged", lambda: channel.queue_declare("q", passive=True).method.message_count == 5)
    method, _, body = channel.basic_get("q")
    assert (body, method.redelivered) == (b"0", True)


def test_what_is_rejected_goes_to_the_dead_letters(channel: BlockingChannel) -> None:
    """With the reason and the queue in x-death."""
    channel.basic_publish("t", "order.x", b"bad")
    method, _, _ = channel.basic_get("q")
    channel.basic_nack(method.delivery_tag, requeue=False)
    wait_for("the dead letter", lambda: channel.queue_declare("dead", passive=True).method.message_count)
    _, properties, body = channel.basic_get("dead", auto_ack=True)
    assert body == b"bad"
    assert properties.headers is not None
    assert properties.headers["x-death"][0]["reason"] == "rejected"
    assert properties.headers["x-death"][0]["queue"] == "q"


def test_a_fanout_copies_a_purge_empties_and_a_limit_drops_the_oldest(channel: BlockingChannel) -> None:
    """Three small things of queues."""
    channel.exchange_declare("f", "fanout")
    channel.queue_declare("short", arguments={"x-max-length": 2})
    channel.queue_bind("short", "f")
    channel.queue_bind("q", "f")
    channel.confirm_delivery()
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


def test_a_wrong_password_is_refused(broker: RunningBroker) -> None:
    """As RabbitMQ refuses it: the connection closes during authentication."""
    with pytest.raises(ProbableAuthenticationError):
        broker.connect("wrong")


def test_the_nodes_figures_and_the_queues_become_the_metrics_of_amazon_mq(broker: RunningBroker, channel: BlockingChannel) -> None:
    """As the lab vends them: of the broker, its node and each queue, the CPU included."""
    port = broker.here.amqp_admin_port
    before = management.node(port)
    for _ in range(3):
        channel.basic_publish("t", "order.x", b"x")
    broker.await_queue("q", messages=3, messages_ready=3)
    wait_for("the total", lambda: management.overview(port)["queue_totals"].get("messages") == 3, 20)
    found = {
        (datum.metric, frozenset(datum.dimensions)): datum.values
        for datum in broker_data(REGION, management.overview(port), management.node(port), before, management.queues(port), 60)
        if datum.dimensions.get("Queue") in {None, "q"}
    }
    of_broker, of_node, of_queue = frozenset({"Broker"}), frozenset({"Broker", "Node"}), frozenset({"Broker", "VirtualHost", "Queue"})
    assert found["MessageCount", of_broker] == (3,)
    assert found["MessageReadyCount", of_queue] == (3,)
    assert found["ConnectionCount", of_broker] == (1,)
    assert found["QueueCount", of_broker] == (2,)
    assert 0 < found["RabbitMQMemUsed", of_node][0] < found["RabbitMQMemLimit", of_node][0]
    assert found["RabbitMQDiskFree", of_node][0] > found["RabbitMQDiskFreeLimit", of_node][0] > 0
    assert 0 <= found["SystemCpuUtilization", of_broker][0] <= 100


@pytest.mark.parametrize(("fault", "alarm"), [("broker-blocked", "mem_alarm"), ("broker-disk-full", "disk_free_alarm")])
def test_an_alarm_blocks_publishers_and_lets_consumers_go_on(
    broker: RunningBroker, channel: BlockingChannel, fault: str, alarm: str
) -> None:
    """connection.blocked arrives and nothing more is taken, while the queue can be emptied; healing lets the publisher go on."""
    told: list[str] = []
    with broker.connect() as publishing:
        publishing.add_on_connection_blocked_callback(lambda _c, _m: told.append("blocked"))
        publishing.add_on_connection_unblocked_callback(lambda _c, _m: told.append("unblocked"))
        publisher = publishing.channel()  # one that has published is not read at all while the alarm is on, whatever it sends
        publisher.basic_publish("t", "order.x", b"earlier")
        broker.await_queue("q", messages_ready=1)
        broker.board.inject(fault, REGION)
        assert broker.node()[alarm] is True
        publisher.basic_publish("t", "order.x", b"held up")
        wait_for("connection.blocked", lambda: publishing.process_data_events(0.1) or told)
        assert channel.basic_get("q", auto_ack=True)[2] == b"earlier"
        assert channel.basic_get("q", auto_ack=True) == (None, None, None)
        broker.board.heal(fault)
        assert broker.node()[alarm] is False
        wait_for("connection.unblocked", lambda: publishing.process_data_events(0.1) or told == ["blocked", "unblocked"])
        wait_for("the message", lambda: channel.basic_get("q", auto_ack=True)[2] == b"held up")


def test_one_of_two_alarms_that_heals_leaves_the_other(broker: RunningBroker) -> None:
    """Faults overlap."""
    broker.board.inject("broker-blocked", REGION)
    broker.board.inject("broker-disk-full", REGION)
    broker.board.heal("broker-blocked")
    assert (broker.node()["mem_alarm"], broker.node()["disk_free_alarm"]) == (False, True)


def test_a_broker_that_is_down_refuses_and_the_outbox_delivers_when_it_is_back(own_broker: RunningBroker) -> None:
    """The store's own publisher and consumer; an event that is put meanwhile arrives. RabbitMQ keeps what was in durable queues, too."""
    broker = own_broker
    with broker.connect() as connection:
        declare(connection).basic_publish("t", "order.x", b"kept", pika.BasicProperties(delivery_mode=2))
        broker.await_queue("q", messages=1)
    url = f"amqp://retail:retail@127.0.0.1:{broker.here.amqp_port}/%2F"
    outbox, got = events.Outbox(url), []
    events.consume(url, got.append)
    outbox.put("order.created", {"synthetic": False, "number": 1})
    wait_for("the first event", lambda: len(got) == 1, 30)
    broker.board.inject("broker-down", REGION)
    with pytest.raises(AMQPConnectionError):
        broker.connect()
    with pytest.raises(OSError, match="refused"):
        broker.node()
    outbox.put("order.created", {"synthetic": False, "number": 2})
    began = time.monotonic()
    broker.board.heal("broker-down")
    assert time.monotonic() - began < READY_WITHIN_S
    wait_for("the second event", lambda: any(b'"number": 2' in event for event in got), 30)
    with broker.connect() as connection:
        kept = declare(connection).basic_get("q", auto_ack=True)[2]
    assert kept == (b"kept" if broker.kind == RABBITMQ else None)


def test_a_stuck_consumer_makes_the_queue_grow_and_gives_everything_back_when_it_is_let_go(broker: RunningBroker) -> None:
    """What it took is unacknowledged, not lost."""
    with broker.connect() as connection:
        channel = connection.channel()
        channel.queue_declare(events.QUEUE, durable=True)
        broker.board.inject("orders-consumer-stuck", REGION)
        for number in range(3):
            channel.basic_publish("", events.QUEUE, b"%d" % number)
        broker.await_queue(events.QUEUE, messages_unacknowledged=3, messages_ready=0)
        broker.board.heal("orders-consumer-stuck")
        broker.await_queue(events.QUEUE, messages_unacknowledged=0, messages_ready=3)


def test_a_consumer_that_the_broker_does_not_take_is_no_fault_in_force(broker: RunningBroker) -> None:
    """There is no queue, or no broker: the injection says so, instead of a thread that nobody sees."""
    with pytest.raises(Refused, match=r"orders-consumer-stuck could not be injected: ConnectionError: the broker of .* takes no consumer"):
        broker.board.inject("orders-consumer-stuck", REGION)
    broker.board.inject("broker-down", REGION)
    with pytest.raises(Refused, match="Heal broker-down first"):
        broker.board.inject("orders-consumer-stuck", REGION)
    broker.board.heal()
    assert broker.board.active() == []


def test_a_broker_listens_on_127_0_0_1_only(broker: RunningBroker) -> None:
    """AMQP, management and whatever it has for itself."""
    found = broker.listeners()
    assert {int(address.partition(":")[2], 16) for address in found} >= {broker.here.amqp_port, broker.here.amqp_admin_port}
    assert {address.partition(":")[0] for address in found} == {"0100007F"}


def test_a_broker_that_is_missing_skips_here_and_fails_where_everything_is_required(monkeypatch: pytest.MonkeyPatch) -> None:
    """CI does not pass for want of a program."""
    monkeypatch.setattr("lab.data.rabbitmq.missing", lambda: ["erl"])
    monkeypatch.delenv(REQUIRED, raising=False)
    with pytest.raises(pytest.skip.Exception, match="erl"):
        require(RABBITMQ)
    monkeypatch.setenv(REQUIRED, "1")
    with pytest.raises(pytest.fail.Exception, match="apt-get install rabbitmq-server"):
        require(RABBITMQ)
    require(BUILT_IN)


def test_messages_beyond_the_memory_limit_raise_the_alarm_and_consuming_ends_it(built_in: RunningBroker) -> None:
    """The built-in broker's limit is small enough to be reached."""
    admin.call(built_in.here.amqp_admin_port, "PUT", "/limits", {"memory": 50_000})
    with built_in.connect() as publishing, built_in.connect() as consuming:
        publisher, channel = declare(publishing), consuming.channel()
        for _ in range(8):
            publisher.basic_publish("t", "order.x", b"x" * 10_000)
        publishing.process_data_events(0.5)
        assert built_in.node()["mem_alarm"] is True
        taken = 0
        deadline = time.monotonic() + 5
        while taken < 8 and time.monotonic() < deadline:
            taken += channel.basic_get("q", auto_ack=True)[2] is not None
        assert taken == 8
        wait_for("the alarm to end", lambda: not built_in.node()["mem_alarm"])


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
