"""The scenarios with pika's BlockingConnection, the client most Python programs use."""

import hashlib
import os
import signal
import socket
from contextlib import contextmanager
from datetime import datetime, timezone
from decimal import Decimal

import pika
import pika.compat
import pika.exceptions

from scenarios import same, unique

PERSISTENT = pika.BasicProperties(delivery_mode=2)
SCENARIO_SECONDS = 30


@contextmanager
def channel_to(uri):
    """A channel on a new connection; both are closed in an orderly way at the end, if they still are open."""
    connection = pika.BlockingConnection(pika.URLParameters(uri))
    try:
        yield connection.channel()
    finally:
        if connection.is_open:
            connection.close()


def declare(channel, name):
    """A durable queue with a name of this run."""
    queue = unique(name)
    channel.queue_declare(queue, durable=True)
    return queue


def ready(channel, queue):
    """How many messages of a queue wait for a consumer."""
    return channel.queue_declare(queue, passive=True).method.message_count


def take(channel, queue, count, **arguments):
    """Consumes the next `count` deliveries as (method, properties, body), leaving them unacked."""
    deliveries = []
    for delivery in channel.consume(queue, inactivity_timeout=SCENARIO_SECONDS, **arguments):
        deliveries.append(delivery)
        if len(deliveries) == count:
            return deliveries
    raise AssertionError("the consumer ended")


def get(channel, queue):
    """basic.get with automatic acknowledgement of a message that must be there."""
    method, properties, body = channel.basic_get(queue, auto_ack=True)
    assert method is not None, f"{queue} is empty"
    return method, properties, body


def declare_bind(uri):
    with channel_to(uri) as channel:
        queue = declare(channel, "declare-bind")
        for kind, binding_key, routing_key, arguments in (
            ("direct", "red", "red", None),
            ("fanout", "", "anything", None),
            ("topic", "*.red.#", "very.red", None),
            ("headers", "", "", {"x-match": "all", "colour": "red"}),
        ):
            exchange = unique(kind)
            for _ in range(2):  # declaring again with the same arguments changes nothing
                channel.exchange_declare(exchange, exchange_type=kind, durable=True)
                channel.queue_bind(queue, exchange, binding_key, arguments=arguments)
            headers = pika.BasicProperties(headers={"colour": "red"})
            channel.basic_publish(exchange, routing_key, kind.encode(), headers)
            channel.basic_publish(exchange, "no match", b"", pika.BasicProperties(headers={"colour": "blue"}))
            method, _, body = get(channel, queue)
            same((method.exchange, method.routing_key, body), (exchange, routing_key, kind.encode()), kind)
            if kind == "fanout":
                get(channel, queue)
            same(channel.basic_get(queue)[0], None, f"what {kind} should not have routed")
            channel.queue_unbind(queue, exchange, binding_key, arguments=arguments)
            channel.exchange_delete(exchange)
        server_named = channel.queue_declare("", exclusive=True).method.queue
        assert server_named.startswith("amq.gen-"), server_named
        channel.queue_delete(queue)


def publish_confirms(uri):
    with channel_to(uri) as channel:
        queue = declare(channel, "publish-confirms")
        channel.confirm_delivery()
        for number in range(300):  # pika waits for the confirm of each, and raises on a nack
            channel.basic_publish("", queue, str(number).encode(), PERSISTENT)
        same(ready(channel, queue), 300, "ready messages")
        for number in range(300):
            same(int(get(channel, queue)[2]), number, "order")
        channel.queue_delete(queue)


def consume_prefetch(uri):
    with channel_to(uri) as channel:
        queue = declare(channel, "consume-prefetch")
        channel.confirm_delivery()  # RabbitMQ's counts may lag behind messages that are not confirmed
        for number in range(20):
            channel.basic_publish("", queue, str(number).encode())
        same(ready(channel, queue), 20, "ready messages before consuming")
        channel.basic_qos(prefetch_count=5)
        deliveries = take(channel, queue, 5)
        same(ready(channel, queue), 15, "ready messages with five unacked")
        channel.basic_ack(deliveries[2][0].delivery_tag, multiple=True)
        deliveries += take(channel, queue, 3)
        same(ready(channel, queue), 12, "ready messages after three acks")
        channel.basic_ack(0, multiple=True)
        deliveries += take(channel, queue, 5)
        channel.basic_ack(deliveries[-1][0].delivery_tag, multiple=True)
        deliveries += take(channel, queue, 5)
        same([int(body) for _, _, body in deliveries], list(range(18)), "order")
        channel.cancel()
        channel.queue_delete(queue)


def nack_requeue(uri):
    with channel_to(uri) as channel:
        queue = declare(channel, "nack-requeue")
        for body in (b"a", b"b", b"c"):
            channel.basic_publish("", queue, body)
        channel.basic_qos(prefetch_count=1)
        ((method, _, body),) = take(channel, queue, 1)
        same((body, method.redelivered), (b"a", False), "first delivery")
        channel.basic_nack(method.delivery_tag, requeue=True)
        ((method, _, body),) = take(channel, queue, 1)
        same((body, method.redelivered), (b"a", True), "delivery after nack: the old place")
        channel.basic_reject(method.delivery_tag, requeue=False)
        ((method, _, body),) = take(channel, queue, 1)
        same((body, method.redelivered), (b"b", False), "delivery after reject")
        channel.basic_ack(method.delivery_tag)
        ((method, _, body),) = take(channel, queue, 1)
        same((body, method.redelivered), (b"c", False), "last delivery")
        channel.basic_recover(requeue=True)
        ((method, _, body),) = take(channel, queue, 1)
        same((body, method.redelivered), (b"c", True), "delivery after recover")
        channel.basic_ack(method.delivery_tag)
        channel.cancel()
        same(ready(channel, queue), 0, "ready messages at the end")
        channel.queue_delete(queue)


def mandatory_return(uri):
    with channel_to(uri) as channel:
        # Without confirms: the return arrives as an event.
        returned = []
        channel.add_on_return_callback(lambda *event: returned.append(event))
        properties = pika.BasicProperties(message_id="m1", headers={"k": "v"})
        channel.basic_publish("amq.direct", unique("nowhere"), b"back", properties, mandatory=True)
        channel.connection.process_data_events(time_limit=SCENARIO_SECONDS)
        same(len(returned), 1, "returns")
        _, method, properties, body = returned[0]
        same((method.reply_code, method.reply_text), (312, "NO_ROUTE"), "reply")
        same((method.exchange, method.routing_key), ("amq.direct", unique("nowhere")), "route")
        same((properties.message_id, properties.headers, body), ("m1", {"k": "v"}, b"back"), "content")
        # With confirms pika raises, if and only if the return comes before the confirm.
        channel.confirm_delivery()
        try:
            channel.basic_publish("", unique("nowhere"), b"back", mandatory=True)
        except pika.exceptions.UnroutableError as error:
            same(error.messages[0].body, b"back", "returned body")
        else:
            raise AssertionError("the confirm came without a return before it")


def large_body(uri):
    body = os.urandom(10 * 1024 * 1024)
    with channel_to(uri) as channel:
        queue = declare(channel, "large-body")
        channel.confirm_delivery()
        channel.basic_publish("", queue, body, PERSISTENT)
        _, _, received = get(channel, queue)
        same(hashlib.sha256(received).hexdigest(), hashlib.sha256(body).hexdigest(), "SHA-256 of 10 MiB")
        channel.queue_delete(queue)


def empty_body(uri):
    with channel_to(uri) as channel:
        queue = declare(channel, "empty-body")
        channel.basic_publish("", queue, b"", pika.BasicProperties(message_id="empty"))
        channel.basic_publish("", queue, b"next")
        deliveries = take(channel, queue, 2)
        same([body for _, _, body in deliveries], [b"", b"next"], "bodies")
        same(deliveries[0][1].message_id, "empty", "properties of the empty message")
        channel.cancel()
        channel.queue_delete(queue)


def header_types(uri):
    headers = {
        "bool true": True,
        "bool false": False,
        "int32": -(2**31),
        "int64": -(2**63),
        "small int64": pika.compat.long(7),
        "decimal": Decimal("-3.14"),
        "string": "grün 🐇",
        "empty string": "",
        "bytes": b"\x00\xff\xfe",
        "timestamp": datetime(2038, 1, 19, 3, 14, 8, tzinfo=timezone.utc),
        "void": None,
        "array": [1, "two", None, [True, Decimal("4.5")], {"five": 5}],
        "empty array": [],
        "table": {"deep": {"deeper": {"deepest": [b"x"]}}},
        "empty table": {},
        "k" * 128: "long key",
    }
    with channel_to(uri) as channel:
        queue = declare(channel, "header-types")
        channel.basic_publish("", queue, b"", pika.BasicProperties(headers=headers))
        received = get(channel, queue)[1].headers
        same(received, headers, "headers")
        # pika decodes `l` to its own integer class, so this sees whether the tag survived.
        types = {key: type(value) for key, value in headers.items()}
        types["int64"] = pika.compat.long
        same({key: type(value) for key, value in received.items()}, types, "types")
        channel.queue_delete(queue)


def properties(uri):
    sent = pika.BasicProperties(
        content_type="text/plain",
        content_encoding="utf-8",
        headers={"k": "v"},
        delivery_mode=2,
        priority=9,
        correlation_id="correlation",
        reply_to="answers",
        expiration="60000",
        message_id="message",
        timestamp=1_700_000_000,
        type="kind",
        user_id="guest",
        app_id="application",
        cluster_id="cluster",
    )
    with channel_to(uri) as channel:
        queue = declare(channel, "properties")
        channel.basic_publish("", queue, b"all", sent)
        channel.basic_publish("", queue, b"none")
        same(vars(get(channel, queue)[1]), vars(sent), "all fourteen properties")
        same(vars(get(channel, queue)[1]), vars(pika.BasicProperties()), "no property")
        channel.queue_delete(queue)


def channel_error(uri):
    with channel_to(uri) as channel:
        queue = declare(channel, "channel-error")
        absent = unique("absent")

        def acknowledge_what_never_came(other):
            other.basic_ack(99)
            other.queue_declare("", exclusive=True)  # an ack has no answer: the close is met by the next method

        for code, words, fail in (
            (404, f"NOT_FOUND - no queue '{absent}' in vhost '/'", lambda it: it.queue_declare(absent, passive=True)),
            (406, f"inequivalent arg 'durable' for queue '{queue}'", lambda it: it.queue_declare(queue, durable=False)),
            (403, "ACCESS_REFUSED - ", lambda it: it.queue_declare("amq.reserved")),
            (406, "PRECONDITION_FAILED - unknown delivery tag 99", acknowledge_what_never_came),
        ):
            other = channel.connection.channel()
            try:
                fail(other)
            except pika.exceptions.ChannelClosedByBroker as error:
                same(error.reply_code, code, words)
                assert words in error.reply_text, error.reply_text
            else:
                raise AssertionError(f"no {code} {words}")
        same(ready(channel, queue), 0, "the first channel still works")
        channel.queue_delete(queue)


def reconnect(uri):
    with channel_to(uri) as channel:
        queue = declare(channel, "reconnect")
        channel.confirm_delivery()
        channel.basic_publish("", queue, b"kept", PERSISTENT)
        exclusive = channel.queue_declare(unique("exclusive"), exclusive=True).method.queue
        ((method, _, _),) = take(channel, queue, 1)
        same(method.redelivered, False, "first delivery")
    # Closed by us, with the message unacked.
    with channel_to(uri) as channel:
        channel.queue_declare(exclusive, exclusive=True)  # free again: it went with its connection
        ((method, _, body),) = take(channel, queue, 1)
        same((method.redelivered, body), (True, b"kept"), "delivery after an orderly close")
        # The socket goes away without a word; reaching into pika is the only way to its socket.
        channel.connection._impl._transport._sock.shutdown(socket.SHUT_RDWR)
        try:
            ready(channel, queue)
        except pika.exceptions.AMQPConnectionError:
            same(channel.connection.is_open, False, "connection after its socket was dropped")
        else:
            raise AssertionError("the connection works without its socket")
    with channel_to(uri) as channel:
        ((method, _, body),) = take(channel, queue, 1)
        same((method.redelivered, body), (True, b"kept"), "delivery after a dropped socket")
        channel.basic_ack(method.delivery_tag)
        channel.cancel()
        same(ready(channel, queue), 0, "ready messages at the end")
        channel.queue_delete(queue)


def within_time(scenario, uri):
    """Runs one scenario; a broker that stays silent fails it instead of hanging it."""

    def too_long(_number, _frame):
        raise TimeoutError(f"still waiting after {SCENARIO_SECONDS} s")

    signal.signal(signal.SIGALRM, too_long)
    signal.alarm(SCENARIO_SECONDS)
    try:
        return scenario(uri)
    finally:
        signal.alarm(0)


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
