"""One Region's message broker, for Amazon MQ for RabbitMQ: AMQP 0-9-1 on ``amqp_port``, management on ``amqp_admin_port``.

``python -m lab.data.amqp <region>``. Clients are those of RabbitMQ (pika): exchanges, queues, confirms, mandatory returns, prefetch,
consumers, acknowledgements, dead letters. Queues live in memory; a restart forgets them, and clients declare what they need when they
connect. While a memory or disk alarm is on, publishers are told with ``connection.blocked`` and their connections are not read.

Management: GET /api/overview, /api/queues, /api/connections, /api/nodes, as far as the metrics need them, and for faults
PUT /limits {"memory": bytes, "disk_free": bytes}, PUT /alarms {"memory": true} (what is not named stays), PUT /listener {"open": false}.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import struct
import sys
import time
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pamqp import body as content_body
from pamqp import commands, frame, header, heartbeat
from pamqp.exceptions import PAMQPException

from lab.admin import Refusal, serve
from lab.data.exchange import COMMAND_INVALID, NOT_FOUND, PRECONDITION_FAILED, Consumer, Message, Queue, Vhost, Violation
from lab.plan import LabPlan

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pamqp.common import FieldValue

FRAME_MAX = 131_072
CHANNEL_MAX = 2047
HEARTBEAT_S = 60
FRAME_HEADER = struct.Struct(">BHI")
USERS = {"retail": "retail"}
FILE_DESCRIPTORS = 65_536
CAPABILITIES: dict[str, FieldValue] = {
    "publisher_confirms": True,
    "exchange_exchange_bindings": False,
    "basic.nack": True,
    "consumer_cancel_notify": True,
    "connection.blocked": True,
    "per_consumer_qos": True,
    "authentication_failure_close": True,
}


@dataclass(slots=True)
class Delivery:
    """A message that a client has and has not acknowledged."""

    message: Message
    queue: Queue
    consumer: str | None


@dataclass(slots=True)
class Channel:
    """One channel of a connection. ``publishing`` is the publish whose content is still arriving."""

    number: int
    confirming: bool = False
    publish_tag: int = 0
    delivery_tag: int = 0
    prefetch: int = 0
    unacknowledged: dict[int, Delivery] = field(default_factory=dict)
    consumers: dict[str, tuple[Queue, Consumer, int]] = field(default_factory=dict)
    publishing: commands.Basic.Publish | None = None
    content: header.ContentHeader | None = None
    body: bytearray = field(default_factory=bytearray)
    closing: bool = False


class Session:
    """One client's connection."""

    def __init__(self, broker: Broker, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.broker = broker
        self.vhost = broker.vhost
        self.reader = reader
        self.writer = writer
        self.channels: dict[int, Channel] = {}
        self.frame_max = FRAME_MAX
        self.heartbeat_s = HEARTBEAT_S
        self.tells_blocked = False
        self.publishes = False
        self.blocked = False
        self.heard = time.monotonic()
        host, port = (writer.get_extra_info("peername") or ("?", 0))[:2]
        self.name = f"{host}:{port}"

    # --- wire ---

    def send(self, channel: int, value: Any) -> None:
        """Send one frame."""
        if not self.writer.is_closing():
            self.writer.write(frame.marshal(value, channel))

    def send_content(self, channel: int, method: Any, message: Message) -> None:
        """Send a method with a message's content, in one write."""
        parts = [frame.marshal(method, channel)]
        parts.append(frame.marshal(header.ContentHeader(body_size=len(message.body), properties=message.properties), channel))
        step = self.frame_max - 8
        parts += [
            frame.marshal(content_body.ContentBody(message.body[at : at + step]), channel) for at in range(0, len(message.body), step)
        ]
        if not self.writer.is_closing():
            self.writer.write(b"".join(parts))

    async def read(self) -> tuple[int, Any]:
        """The next frame."""
        head = await self.reader.readexactly(FRAME_HEADER.size)
        _, _, size = FRAME_HEADER.unpack(head)
        if size > FRAME_MAX:
            raise ConnectionError("the frame is too long")
        data = head + await self.reader.readexactly(size + 1)
        self.heard = time.monotonic()
        _, channel, value = frame.unmarshal(data)
        return channel, value

    async def run(self) -> None:
        """Serve the client until it is gone."""
        try:
            if not await self._open():
                return
            while True:
                if self.publishes and self.broker.alarmed:
                    self._tell_blocked(True)
                    await self.broker.relieved()
                channel, value = await self.read()
                if isinstance(value, heartbeat.Heartbeat):
                    continue
                if channel == 0:
                    if not self._connection_method(value):
                        await self.writer.drain()
                        return
                else:
                    self._on_channel(channel, value)
                await self.writer.drain()
        except (ConnectionError, asyncio.IncompleteReadError, PAMQPException, TimeoutError):
            pass
        finally:
            self.close()

    async def _open(self) -> bool:
        if await self.reader.readexactly(8) != b"AMQP\x00\x00\x09\x01":
            self.writer.write(b"AMQP\x00\x00\x09\x01")
            return False
        properties: dict[str, FieldValue] = {
            "product": "RabbitMQ",
            "version": "3.13.0",
            "platform": "Crosswatch lab",
            "capabilities": CAPABILITIES,
        }
        self.send(0, commands.Connection.Start(0, 9, properties, "PLAIN AMQPLAIN", "en_US"))
        async with asyncio.timeout(10):
            _, start = await self.read()
            if not isinstance(start, commands.Connection.StartOk):
                return False
            _, user, password = (start.response or "").split("\0") if (start.response or "").count("\0") == 2 else ("", "", "")
            if start.mechanism != "PLAIN" or USERS.get(user) != password:
                text = "ACCESS_REFUSED - Login was refused using authentication mechanism PLAIN."
                self.send(0, commands.Connection.Close(403, text, 0, 0))
                await self.writer.drain()
                return False
            capabilities = (start.client_properties or {}).get("capabilities") or {}
            self.tells_blocked = isinstance(capabilities, dict) and bool(capabilities.get("connection.blocked"))
            self.send(0, commands.Connection.Tune(CHANNEL_MAX, FRAME_MAX, HEARTBEAT_S))
            while True:
                _, value = await self.read()
                if isinstance(value, commands.Connection.TuneOk):
                    self.frame_max = min(value.frame_max or FRAME_MAX, FRAME_MAX)
                    self.heartbeat_s = value.heartbeat or 0
                elif isinstance(value, commands.Connection.Open):
                    if value.virtual_host != "/":
                        self.send(0, commands.Connection.Close(530, f"NOT_ALLOWED - vhost {value.virtual_host} not found", 10, 40))
                        await self.writer.drain()
                        return False
                    self.send(0, commands.Connection.OpenOk())
                    return True

    def _connection_method(self, value: Any) -> bool:
        if isinstance(value, commands.Connection.Close):
            self.send(0, commands.Connection.CloseOk())
            return False
        return not isinstance(value, commands.Connection.CloseOk)

    def _tell_blocked(self, blocked: bool) -> None:
        if blocked != self.blocked:
            self.blocked = blocked
            if self.tells_blocked:
                self.send(
                    0,
                    commands.Connection.Blocked("low on " + ", ".join(sorted(self.vhost.alarms)))
                    if blocked
                    else commands.Connection.Unblocked(),
                )

    def on_alarm(self, alarmed: bool) -> None:
        """Tell the client that alarms went on or off."""
        self._tell_blocked(alarmed)

    def beat(self) -> None:
        """Send a heartbeat, and hang up on a client that was silent for two."""
        if self.heartbeat_s:
            self.send(0, heartbeat.Heartbeat())
            if not self.blocked and time.monotonic() - self.heard > 2 * self.heartbeat_s + 1:
                self.writer.transport.abort()

    def close(self) -> None:
        """The client is gone: requeue what it had, drop its consumers and its own queues."""
        for channel in list(self.channels.values()):
            self._close_channel(channel)
        self.vhost.drop_owner(self)
        self.broker.sessions.discard(self)
        self.writer.close()

    # --- channels ---

    def _on_channel(self, number: int, value: Any) -> None:
        channel = self.channels.get(number)
        if isinstance(value, commands.Channel.Open):
            self.channels[number] = Channel(number)
            self.send(number, commands.Channel.OpenOk())
            return
        if channel is None:
            raise ConnectionError("a method on a channel that is not open")
        if channel.closing and not isinstance(value, commands.Channel.Close | commands.Channel.CloseOk):
            return
        try:
            if isinstance(value, header.ContentHeader):
                channel.content = value
                channel.body.clear()
                if value.body_size == 0:
                    self._published(channel)
            elif isinstance(value, content_body.ContentBody):
                channel.body += value.value
                if channel.content is not None and len(channel.body) >= channel.content.body_size:
                    self._published(channel)
            else:
                handler = getattr(self, "_on_" + value.name.replace(".", "_").lower(), None)
                if handler is None:
                    raise Violation(COMMAND_INVALID, f"COMMAND_INVALID - {value.name} is not implemented")
                handler(channel, value)
        except Violation as violation:
            channel.closing = True
            index = getattr(value, "index", 0)  # class id and method id, 16 bits each
            self.send(number, commands.Channel.Close(violation.code, violation.text, index >> 16, index & 0xFFFF))

    def _close_channel(self, channel: Channel) -> None:
        self.channels.pop(channel.number, None)
        queues = set()
        for queue, consumer, _ in channel.consumers.values():
            queue.consumers.remove(consumer)
            queues.add(queue.name)
            if queue.auto_delete and not queue.consumers:
                self.vhost.delete_queue(queue)
        channel.consumers.clear()
        self._requeue(channel, list(channel.unacknowledged))

    def _requeue(self, channel: Channel, tags: list[int]) -> None:
        touched: dict[str, Queue] = {}
        for tag in sorted(tags, reverse=True):
            delivery = channel.unacknowledged.pop(tag)
            delivery.queue.unacknowledged -= 1
            delivery.message.redelivered = True
            delivery.queue.ready.appendleft(delivery.message)
            touched[delivery.queue.name] = delivery.queue
        for queue in touched.values():
            queue.spread()

    def _on_channel_close(self, channel: Channel, _value: commands.Channel.Close) -> None:
        self._close_channel(channel)
        self.send(channel.number, commands.Channel.CloseOk())

    def _on_channel_closeok(self, channel: Channel, _value: commands.Channel.CloseOk) -> None:
        self._close_channel(channel)

    def _on_channel_flow(self, channel: Channel, value: commands.Channel.Flow) -> None:
        self.send(channel.number, commands.Channel.FlowOk(value.active))

    # --- exchanges and queues ---

    def _on_exchange_declare(self, channel: Channel, value: commands.Exchange.Declare) -> None:
        self.vhost.declare_exchange(value.exchange, value.exchange_type, value.durable, value.passive)
        self._unless(value.nowait, channel, commands.Exchange.DeclareOk())

    def _on_exchange_delete(self, channel: Channel, value: commands.Exchange.Delete) -> None:
        self.vhost.exchanges.pop(value.exchange, None)
        self._unless(value.nowait, channel, commands.Exchange.DeleteOk())

    def _on_queue_declare(self, channel: Channel, value: commands.Queue.Declare) -> None:
        name = value.queue or f"amq.gen-{os.urandom(11).hex()}"
        queue = self.vhost.declare_queue(
            name, self, value.passive, value.durable, value.exclusive, value.auto_delete, dict(value.arguments or {})
        )
        self._unless(value.nowait, channel, commands.Queue.DeclareOk(name, len(queue.ready), len(queue.consumers)))

    def _on_queue_bind(self, channel: Channel, value: commands.Queue.Bind) -> None:
        self.vhost.bind(self.vhost.queue(value.queue, self), value.exchange, value.routing_key)
        self._unless(value.nowait, channel, commands.Queue.BindOk())

    def _on_queue_unbind(self, channel: Channel, value: commands.Queue.Unbind) -> None:
        with contextlib.suppress(ValueError):
            self.vhost.exchange(value.exchange).bindings.remove((value.queue, value.routing_key))
        self.send(channel.number, commands.Queue.UnbindOk())

    def _on_queue_purge(self, channel: Channel, value: commands.Queue.Purge) -> None:
        queue = self.vhost.queue(value.queue, self)
        count = len(queue.ready)
        queue.ready.clear()
        self._unless(value.nowait, channel, commands.Queue.PurgeOk(count))

    def _on_queue_delete(self, channel: Channel, value: commands.Queue.Delete) -> None:
        count = 0
        if value.queue in self.vhost.queues:
            queue = self.vhost.queue(value.queue, self)
            if (value.if_unused and queue.consumers) or (value.if_empty and queue.ready):
                raise Violation(PRECONDITION_FAILED, f"PRECONDITION_FAILED - queue '{value.queue}' in vhost '/' is in use or not empty")
            count = self.vhost.delete_queue(queue)
            self.broker.cancel_consumers(queue)
        self._unless(value.nowait, channel, commands.Queue.DeleteOk(count))

    def _unless(self, nowait: bool, channel: Channel, answer: Any) -> None:
        if not nowait:
            self.send(channel.number, answer)

    # --- publishing ---

    def _on_confirm_select(self, channel: Channel, value: commands.Confirm.Select) -> None:
        channel.confirming = True
        self._unless(value.nowait, channel, commands.Confirm.SelectOk())

    def _on_basic_publish(self, channel: Channel, value: commands.Basic.Publish) -> None:
        self.publishes = True
        channel.publishing = value

    def _published(self, channel: Channel) -> None:
        publish, content = channel.publishing, channel.content
        channel.publishing = channel.content = None
        if publish is None or content is None:
            raise ConnectionError("content without a method")
        body = bytes(channel.body)
        properties = content.properties or commands.Basic.Properties()
        if not self.vhost.publish(publish.exchange, publish.routing_key, properties, body) and publish.mandatory:
            returned = commands.Basic.Return(312, "NO_ROUTE", publish.exchange, publish.routing_key)
            self.send_content(channel.number, returned, Message(publish.exchange, publish.routing_key, properties, body))
        if channel.confirming:
            channel.publish_tag += 1
            self.send(channel.number, commands.Basic.Ack(channel.publish_tag))
        self.broker.look_at_alarms()

    # --- consuming ---

    def _on_basic_qos(self, channel: Channel, value: commands.Basic.Qos) -> None:
        channel.prefetch = value.prefetch_count
        self.send(channel.number, commands.Basic.QosOk())

    def _on_basic_consume(self, channel: Channel, value: commands.Basic.Consume) -> None:
        queue = self.vhost.queue(value.queue, self)
        if any(consumer.exclusive for consumer in queue.consumers) or (value.exclusive and queue.consumers):
            raise Violation(403, f"ACCESS_REFUSED - queue '{queue.name}' in vhost '/' in exclusive use")
        tag = value.consumer_tag or f"amq.ctag-{os.urandom(11).hex()}"
        prefetch = channel.prefetch

        def credit() -> int:
            if self.writer.is_closing() or self.writer.transport.get_write_buffer_size() > 1 << 20:
                return 0
            return 1 if not prefetch else prefetch - sum(delivery.consumer == tag for delivery in channel.unacknowledged.values())

        def deliver(message: Message, source: Queue) -> None:
            channel.delivery_tag += 1
            if not value.no_ack:
                channel.unacknowledged[channel.delivery_tag] = Delivery(message, source, tag)
            self.send_content(
                channel.number,
                commands.Basic.Deliver(tag, channel.delivery_tag, message.redelivered, message.exchange, message.key),
                message,
            )

        consumer = Consumer(tag, value.no_ack, value.exclusive, self, credit, deliver)
        channel.consumers[tag] = (queue, consumer, prefetch)
        self._unless(value.nowait, channel, commands.Basic.ConsumeOk(tag))
        queue.consumers.append(consumer)
        queue.spread()

    def _on_basic_cancel(self, channel: Channel, value: commands.Basic.Cancel) -> None:
        if known := channel.consumers.pop(value.consumer_tag or "", None):
            queue, consumer, _ = known
            queue.consumers.remove(consumer)
            if queue.auto_delete and not queue.consumers:
                self.vhost.delete_queue(queue)
        self._unless(value.nowait, channel, commands.Basic.CancelOk(value.consumer_tag))

    def cancelled(self, queue: Queue) -> None:
        """The queue was deleted: tell its consumers."""
        for channel in self.channels.values():
            for tag in [tag for tag, (consumed, _, _) in channel.consumers.items() if consumed is queue]:
                del channel.consumers[tag]
                self.send(channel.number, commands.Basic.Cancel(tag, nowait=True))

    def _on_basic_get(self, channel: Channel, value: commands.Basic.Get) -> None:
        queue = self.vhost.queue(value.queue, self)
        if not queue.ready:
            self.send(channel.number, commands.Basic.GetEmpty())
            return
        message = queue.ready.popleft()
        channel.delivery_tag += 1
        if not value.no_ack:
            queue.unacknowledged += 1
            channel.unacknowledged[channel.delivery_tag] = Delivery(message, queue, None)
        self.send_content(
            channel.number,
            commands.Basic.GetOk(channel.delivery_tag, message.redelivered, message.exchange, message.key, len(queue.ready)),
            message,
        )

    def _tags(self, channel: Channel, tag: int, multiple: bool) -> list[int]:
        tags = [known for known in channel.unacknowledged if known <= tag or tag == 0] if multiple else [tag]
        if not multiple and tag not in channel.unacknowledged:
            raise Violation(PRECONDITION_FAILED, f"PRECONDITION_FAILED - unknown delivery tag {tag}")
        return tags

    def _on_basic_ack(self, channel: Channel, value: commands.Basic.Ack) -> None:
        for tag in self._tags(channel, value.delivery_tag, value.multiple):
            delivery = channel.unacknowledged.pop(tag)
            delivery.queue.unacknowledged -= 1
            delivery.queue.spread()
        self.broker.look_at_alarms()

    def _on_basic_nack(self, channel: Channel, value: commands.Basic.Nack) -> None:
        self._reject(channel, self._tags(channel, value.delivery_tag, value.multiple), value.requeue)

    def _on_basic_reject(self, channel: Channel, value: commands.Basic.Reject) -> None:
        self._reject(channel, self._tags(channel, value.delivery_tag or 0, False), value.requeue)

    def _reject(self, channel: Channel, tags: list[int], requeue: bool) -> None:
        if requeue:
            self._requeue(channel, tags)
            return
        for tag in tags:
            delivery = channel.unacknowledged.pop(tag)
            delivery.queue.unacknowledged -= 1
            self.vhost.bury(delivery.queue, delivery.message, "rejected")
            delivery.queue.spread()

    def _on_basic_recover(self, channel: Channel, _value: commands.Basic.Recover) -> None:
        self._requeue(channel, list(channel.unacknowledged))
        self.send(channel.number, commands.Basic.RecoverOk())


class Broker:
    """The broker of one Region."""

    def __init__(self, port: int) -> None:
        self.vhost = Vhost()
        self.sessions: set[Session] = set()
        self.alarmed = False
        self._port = port
        self._server: asyncio.Server | None = None
        self._relief = asyncio.Event()
        self._relief.set()
        self._started = time.monotonic()
        self._tending: asyncio.Task[None] | None = None

    async def open(self) -> None:
        """Take connections."""
        self._server = await asyncio.start_server(self._connected, "127.0.0.1", self._port)
        self._tending = self._tending or asyncio.create_task(self._tend())

    async def shut(self) -> None:
        """Take no connections any more, and end those there are."""
        if self._server is not None:
            self._server.close()
            self._server = None
        for session in list(self.sessions):
            session.writer.transport.abort()

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        session = Session(self, reader, writer)
        self.sessions.add(session)
        await session.run()

    async def _tend(self) -> None:
        beat = 0.0
        while True:
            await asyncio.sleep(0.25)
            self.vhost.expire()
            self.look_at_alarms()
            if time.monotonic() - beat > 5:
                beat = time.monotonic()
                for session in list(self.sessions):
                    session.beat()

    def look_at_alarms(self) -> None:
        """Block publishers while an alarm is on, and let them go on when none is."""
        alarmed = bool(self.vhost.alarms)
        if alarmed != self.alarmed:
            self.alarmed = alarmed
            if alarmed:
                self._relief.clear()
            else:
                self._relief.set()
            for session in self.sessions:
                session.on_alarm(alarmed)

    async def relieved(self) -> None:
        """Wait until no alarm is on."""
        await self._relief.wait()

    def cancel_consumers(self, queue: Queue) -> None:
        """Tell every consumer of a deleted queue."""
        for session in self.sessions:
            session.cancelled(queue)

    # --- management ---

    async def handle(self, method: str, path: tuple[str, ...], _query: dict[str, str], body: Any) -> Any:
        """The management API's requests, and those of the faults."""
        match (method, path):
            case ("GET", ("api", "overview")):
                return {"object_totals": self._objects(), "queue_totals": self._messages(), "listening": self._server is not None}
            case ("GET", ("api", "queues")):
                return list(self._queues())
            case ("GET", ("api", "connections")):
                return [
                    {"name": s.name, "channels": len(s.channels), "state": "blocked" if s.blocked else "running"} for s in self.sessions
                ]
            case ("GET", ("api", "nodes")):
                return [self._node()]
            case ("PUT", ("limits",)):
                self.vhost.limits = replace(self.vhost.limits, **{key: int(value) for key, value in body.items()})
                self.look_at_alarms()
                return asdict(self.vhost.limits)
            case ("PUT", ("alarms",)):
                named = {name: bool(body[name]) for name in ("memory", "disk") if name in body}
                self.vhost.forced = (self.vhost.forced - set(named)) | {name for name, on in named.items() if on}
                self.look_at_alarms()
                return {"alarms": sorted(self.vhost.alarms)}
            case ("PUT", ("listener",)):
                if bool(body["open"]) != (self._server is not None):
                    await (self.open() if body["open"] else self.shut())
                return {"listening": self._server is not None}
        raise Refusal(NOT_FOUND, f"no such path: {method} /{'/'.join(path)}")

    def _objects(self) -> dict[str, int]:
        return {
            "connections": len(self.sessions),
            "channels": sum(len(session.channels) for session in self.sessions),
            "consumers": sum(len(queue.consumers) for queue in self.vhost.queues.values()),
            "queues": len(self.vhost.queues),
            "exchanges": len(self.vhost.exchanges),
        }

    def _messages(self) -> dict[str, int]:
        ready = sum(len(queue.ready) for queue in self.vhost.queues.values())
        unacknowledged = sum(queue.unacknowledged for queue in self.vhost.queues.values())
        return {"messages": ready + unacknowledged, "messages_ready": ready, "messages_unacknowledged": unacknowledged}

    def _queues(self) -> Iterator[dict[str, Any]]:
        for queue in self.vhost.queues.values():
            ready, unacknowledged = len(queue.ready), queue.unacknowledged
            yield {
                "name": queue.name,
                "vhost": "/",
                "messages": ready + unacknowledged,
                "messages_ready": ready,
                "messages_unacknowledged": unacknowledged,
                "consumers": len(queue.consumers),
            }

    def _node(self) -> dict[str, Any]:
        resident = int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
        limits = self.vhost.limits
        return {
            "name": "rabbit@lab",
            "mem_used": self.vhost.memory + resident,
            "mem_limit": limits.memory + resident,
            "mem_alarm": "memory" in self.vhost.alarms,
            "disk_free": limits.disk_free,
            "disk_free_limit": limits.disk_free_limit,
            "disk_free_alarm": "disk" in self.vhost.alarms,
            "fd_used": len(list(Path("/proc/self/fd").iterdir())),
            "fd_total": FILE_DESCRIPTORS,
            "uptime": int(1000 * (time.monotonic() - self._started)),
            "cpu_s": time.process_time(),
        }


async def main(region: str) -> None:
    """Run until SIGTERM."""
    here = LabPlan.load().regions[region]
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    broker = Broker(here.amqp_port)
    await broker.open()
    await serve(here.amqp_admin_port, broker.handle)
    await stop.wait()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))
