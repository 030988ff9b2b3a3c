"""The scenarios with aio-pika, the asyncio client, and its robust connection that heals itself."""

import asyncio
import hashlib
import os
from datetime import datetime, timezone
from decimal import Decimal

import aio_pika
from aio_pika import DeliveryMode, ExchangeType, Message
from aio_pika.exceptions import ChannelNotFoundEntity, DeliveryError, QueueEmpty

from relay import Relay
from scenarios import main, same, unique

SCENARIO_SECONDS = 30


async def declare(channel, name):
    """A durable queue with a name of this run."""
    return await channel.declare_queue(unique(name), durable=True)


async def ready(channel, queue):
    """How many messages of a queue wait for a consumer."""
    return (await channel.declare_queue(queue.name, passive=True)).declaration_result.message_count


async def publish(channel, queue, body, **properties):
    """Publishes through the default exchange and waits for the confirm, which aio-pika's channels do by default."""
    await channel.default_exchange.publish(Message(body, **properties), queue.name)


async def take(iterator, count):
    """The next `count` deliveries of a consumer, left unacked."""
    return [await anext(iterator) for _ in range(count)]


async def assert_empty(queue, why):
    try:
        await queue.get(no_ack=True)
    except QueueEmpty:
        return
    raise AssertionError(f"{queue.name} is not empty: {why}")


async def declare_bind(connection, _uri):
    channel = await connection.channel()
    queue = await declare(channel, "declare-bind")
    for kind, binding_key, routing_key, arguments in (
        (ExchangeType.DIRECT, "red", "red", None),
        (ExchangeType.FANOUT, "", "anything", None),
        (ExchangeType.TOPIC, "*.red.#", "very.red", None),
        (ExchangeType.HEADERS, "", "", {"x-match": "any", "colour": "red", "size": 1}),
    ):
        exchange = await channel.declare_exchange(unique(kind.value), kind, durable=True)
        source = await channel.declare_exchange(unique("source"), ExchangeType.FANOUT, auto_delete=True)
        await exchange.bind(source)  # exchange to exchange
        await queue.bind(exchange, binding_key, arguments=arguments)
        await source.publish(Message(kind.value.encode(), headers={"colour": "red"}), routing_key)
        message = await queue.get(no_ack=True)
        same((message.exchange, message.routing_key), (source.name, routing_key), kind)
        same(message.body, kind.value.encode(), "body")
        await queue.unbind(exchange, binding_key, arguments=arguments)
        await source.publish(Message(b"lost"), routing_key, mandatory=False)
        await assert_empty(queue, "the binding is gone")
        await exchange.delete()
    await queue.delete()


async def publish_confirms(connection, _uri):
    channel = await connection.channel()
    queue = await declare(channel, "publish-confirms")
    persistent = {"delivery_mode": DeliveryMode.PERSISTENT}
    # All in flight at once: the broker may confirm them one by one or many at a time.
    await asyncio.gather(*(publish(channel, queue, str(number).encode(), **persistent) for number in range(500)))
    same(await ready(channel, queue), 500, "ready messages")
    bodies = [int((await queue.get(no_ack=True)).body) for _ in range(500)]
    same(bodies, list(range(500)), "order")
    await queue.delete()


async def consume_prefetch(connection, _uri):
    channel = await connection.channel()
    await channel.set_qos(prefetch_count=5)
    queue = await declare(channel, "consume-prefetch")
    for number in range(20):
        await publish(channel, queue, str(number).encode())
    async with queue.iterator() as iterator:
        messages = await take(iterator, 5)
        same(await ready(channel, queue), 15, "ready messages with five unacked")
        for message in messages[:3]:
            await message.ack()
        messages += await take(iterator, 3)
        same(await ready(channel, queue), 12, "ready messages after three acks")
        await messages[-1].ack(multiple=True)
        messages += await take(iterator, 5)
        await messages[-1].ack(multiple=True)
        messages += await take(iterator, 5)
        same([int(message.body) for message in messages], list(range(18)), "order")
        await messages[-1].ack(multiple=True)
    await queue.delete(if_unused=False, if_empty=False)


async def nack_requeue(connection, _uri):
    channel = await connection.channel()
    await channel.set_qos(prefetch_count=1)
    queue = await declare(channel, "nack-requeue")
    for body in (b"a", b"b"):
        await publish(channel, queue, body)
    async with queue.iterator() as iterator:
        message = await anext(iterator)
        same((message.body, message.redelivered), (b"a", False), "first delivery")
        await message.nack(requeue=True)
        message = await anext(iterator)
        same((message.body, message.redelivered), (b"a", True), "delivery after nack: the old place")
        await message.reject(requeue=True)
        message = await anext(iterator)
        same((message.body, message.redelivered), (b"a", True), "delivery after reject")
        await message.nack(requeue=False)
        message = await anext(iterator)
        same((message.body, message.redelivered), (b"b", False), "last delivery")
        await message.ack()
        same(await ready(channel, queue), 0, "ready messages at the end")
    await queue.delete()


async def mandatory_return(connection, _uri):
    channel = await connection.channel(publisher_confirms=True, on_return_raises=True)
    exchange = await channel.get_exchange("amq.direct")
    for _ in range(2):  # the channel goes on after a return
        try:
            await exchange.publish(Message(b"back", message_id="m1"), unique("nowhere"))
        except DeliveryError as error:
            returned = error.message
            same((returned.delivery.reply_code, returned.delivery.reply_text), (312, "NO_ROUTE"), "reply")
            same((returned.delivery.exchange, returned.delivery.routing_key), ("amq.direct", unique("nowhere")), "route")
            same((returned.header.properties.message_id, returned.body), ("m1", b"back"), "content")
        else:
            raise AssertionError("the confirm came without a return before it")


async def large_body(connection, _uri):
    channel = await connection.channel()
    queue = await declare(channel, "large-body")
    body = os.urandom(10 * 1024 * 1024)
    await publish(channel, queue, body, delivery_mode=DeliveryMode.PERSISTENT)
    message = await queue.get(no_ack=True)
    same(hashlib.sha256(message.body).hexdigest(), hashlib.sha256(body).hexdigest(), "SHA-256 of 10 MiB")
    await queue.delete()


async def empty_body(connection, _uri):
    channel = await connection.channel()
    queue = await declare(channel, "empty-body")
    await publish(channel, queue, b"", message_id="empty")
    await publish(channel, queue, b"next")
    async with queue.iterator(no_ack=True) as iterator:
        messages = await take(iterator, 2)
        same([message.body for message in messages], [b"", b"next"], "bodies")
        same(messages[0].message_id, "empty", "properties of the empty message")
    await queue.delete()


async def header_types(connection, _uri):
    # pamqp picks the smallest integer type that holds the value.
    headers = {
        "bool": True,
        "int8": -128,
        "int16": -32768,
        "uint16": 65535,
        "int32": -(2**31),
        "uint32": 2**32 - 1,
        "int64": -(2**63),
        "float": 0.5,
        "decimal": Decimal("3.14"),
        "string": "grün 🐇",
        "bytes": bytearray(b"\x00\xff\xfe"),
        "timestamp": datetime(2038, 1, 19, 3, 14, 8, tzinfo=timezone.utc),
        "void": None,
        "array": [1, "two", None, [False, 70000], {"five": 5}],
        "empty array": [],
        "table": {"deep": {"deeper": {"deepest": [0.25]}}},
        "empty table": {},
    }
    channel = await connection.channel()
    queue = await declare(channel, "header-types")
    await publish(channel, queue, b"", headers=headers)
    same((await queue.get(no_ack=True)).headers, headers, "headers")
    await queue.delete()


async def properties(connection, _uri):
    sent = {
        "content_type": "text/plain",
        "content_encoding": "utf-8",
        "headers": {"k": "v"},
        "delivery_mode": DeliveryMode.PERSISTENT,
        "priority": 9,
        "correlation_id": "correlation",
        "reply_to": "answers",
        "expiration": 60,
        "message_id": "message",
        "timestamp": datetime(2023, 11, 14, 22, 13, 20, tzinfo=timezone.utc),
        "type": "kind",
        "user_id": "guest",
        "app_id": "application",
    }
    channel = await connection.channel()
    queue = await declare(channel, "properties")
    await publish(channel, queue, b"all", **sent)
    message = await queue.get(no_ack=True)
    same({name: getattr(message, name) for name in sent}, sent, "the properties aio-pika can set")
    await queue.delete()


async def channel_error(connection, _uri):
    queue = await declare(await connection.channel(), "channel-error")
    channel = await connection.channel()
    try:
        await channel.get_queue(unique("absent"))
    except ChannelNotFoundEntity as error:
        assert f"no queue '{unique('absent')}' in vhost '/'" in str(error), error
    else:
        raise AssertionError("no 404")
    channel = await connection.channel()
    try:
        exchange = await channel.get_exchange(unique("absent"), ensure=False)
        await exchange.publish(Message(b""), "key")
    except ChannelNotFoundEntity as error:
        assert f"no exchange '{unique('absent')}' in vhost '/'" in str(error), error
    else:
        raise AssertionError("a publish to a missing exchange was confirmed")
    channel = await connection.channel()
    same(await ready(channel, queue), 0, "another channel still works")
    await queue.delete()


async def reconnect(connection, uri):
    channel = await connection.channel()
    queue = await declare(channel, "reconnect")
    await publish(channel, queue, b"kept", delivery_mode=DeliveryMode.PERSISTENT)
    same((await queue.get()).redelivered, False, "first delivery")
    await connection.close()
    async with Relay(uri) as relay:
        robust = await aio_pika.connect_robust(relay.uri, reconnect_interval=0.1)
        healed = asyncio.Event()
        robust.reconnect_callbacks.add(lambda *_: healed.set())
        channel = await robust.channel()
        deliveries = asyncio.Queue()
        exclusive = await channel.declare_queue(unique("exclusive"), exclusive=True)
        await exclusive.consume(deliveries.put, no_ack=True)
        queue = await declare(channel, "reconnect")
        await queue.consume(deliveries.put)
        message = await deliveries.get()
        same((message.body, message.redelivered), (b"kept", True), "delivery after an orderly close")
        relay.cut()
        await healed.wait()
        # aio-pika has declared the exclusive queue and consumed from both again, unasked.
        message = await deliveries.get()
        same((message.body, message.redelivered), (b"kept", True), "delivery after a dropped socket")
        await message.ack()
        await publish(channel, exclusive, b"again")
        same((await deliveries.get()).body, b"again", "delivery from the recovered exclusive queue")
        await queue.delete(if_unused=False)
        await robust.close()


def within_time(scenario, uri):
    """Runs one scenario on a connection of its own; a broker that stays silent fails it instead of hanging it."""

    async def run():
        async with await aio_pika.connect(uri) as connection:
            return await asyncio.wait_for(scenario(connection, uri), SCENARIO_SECONDS)

    return asyncio.run(run())


SCENARIOS = (
    declare_bind,
    publish_confirms,
    consume_prefetch,
    nack_requeue,
    mandatory_return,
    large_body,
    empty_body,
    header_types,
    properties,
    channel_error,
    reconnect,
)

if __name__ == "__main__":
    main(SCENARIOS, within_time)
