"""Kombu over py-amqp, without Celery around it: a codec of its own, global qos, and recovery by its consumer mixin."""

import socket
from datetime import datetime, timezone
from decimal import Decimal

from kombu import Connection, Consumer, Exchange, Producer, Queue
from kombu.mixins import ConsumerMixin

from scenarios import main, same, unique

LONG = 20  # seconds


def connect(uri):
    """A connection whose publishes are confirmed."""
    return Connection(uri, transport_options={"confirm_publish": True})


def declare(channel, name, **options):
    """A durable queue of this run, reached through the default exchange."""
    queue = Queue(unique(name), Exchange(""), unique(name), durable=True, **options)(channel)
    queue.queue_declare()
    return queue


def publish(channel, queue, body, **properties):
    Producer(channel).publish(body, routing_key=queue.name, serializer="json", **properties)


def bodies(queue):
    """Everything that waits in a queue, taken out of it."""
    found = []
    while (message := queue.get(no_ack=True)) is not None:
        found.append(message.decode())
    return found


def ready(queue):
    return queue.queue_declare(passive=True).message_count


def publish_confirms(uri):
    with connect(uri) as connection:
        queue = declare(connection.default_channel, "kombu-confirms")
        for number in range(100):
            publish(connection.default_channel, queue, number)
        same(ready(queue), 100, "ready")
        same(bodies(queue), list(range(100)), "order")
        queue.delete()


def mandatory_return(uri):
    with connect(uri) as connection:
        returned = []
        producer = Producer(connection.default_channel, on_return=lambda *it: returned.append(it))
        producer.publish("back", exchange="amq.direct", routing_key=unique("nowhere"), mandatory=True)
        ((error, exchange, key, _message),) = returned  # before the confirm, which publish awaits
        same((error.reply_code, error.reply_text, exchange, key), (312, "NO_ROUTE", "amq.direct", unique("nowhere")), "reply")


def header_types(uri):
    headers = {
        "boolean": True,
        "int": -70000,
        "long": 2**50,
        "double": 0.1,
        "decimal": Decimal("3.14"),
        "string": "grün 🐇",
        "empty string": "",
        "timestamp": datetime(2038, 1, 19, 3, 14, 8, tzinfo=timezone.utc),
        "void": None,
        "array": [1, "two", None, False, {"five": 5}],
        "table": {"deep": {"deeper": {"deepest": [0.25]}}},
        "empty table": {},
    }
    with connect(uri) as connection:
        queue = declare(connection.default_channel, "kombu-headers")
        publish(connection.default_channel, queue, None, headers=headers)
        received = queue.get(no_ack=True).headers
        received["timestamp"] = received["timestamp"].replace(tzinfo=timezone.utc)
        same(received, headers, "headers")
        queue.delete()


def global_qos(uri):
    with connect(uri) as connection:
        channel = connection.channel()
        queues = [declare(channel, f"kombu-qos-{number}") for number in range(2)]
        for queue in queues:
            for number in range(5):
                publish(channel, queue, number)
        arrived = []
        channel.basic_qos(0, 3, True)
        with Consumer(channel, queues, on_message=arrived.append, auto_declare=False) as consumer:
            drained(connection, arrived, 3)
            same(sum(map(ready, queues)), 7, "left, with one limit for two consumers")
            # Celery raises it so when tasks with an ETA wait in the worker.
            consumer.qos(prefetch_count=5, apply_global=True)
            drained(connection, arrived, 5)
            same(sum(map(ready, queues)), 5, "left, with two more allowed")
            arrived[0].ack()
            drained(connection, arrived, 6)
            same(sum(map(ready, queues)), 4, "left after an ack")
        for queue in queues:
            queue.delete()


def drained(connection, arrived, count):
    """Waits until so many came."""
    while len(arrived) < count:
        connection.drain_events(timeout=LONG)


def priorities(uri):
    with connect(uri) as connection:
        queue = declare(connection.default_channel, "kombu-priorities", max_priority=5)
        for priority in (0, 1, 5, 9, 1):
            publish(connection.default_channel, queue, priority, priority=priority)
        same(bodies(queue), [5, 9, 1, 1, 0], "order")
        queue.delete()


class Listener(ConsumerMixin):
    """Recovers by itself; stops after the second delivery."""

    def __init__(self, connection, queue):
        self.connection, self.queue, self.seen = connection, queue, []

    def get_consumers(self, consumer, channel):
        return [consumer([self.queue], on_message=self.received)]

    def received(self, message):
        self.seen.append((message.decode(), message.delivery_info["redelivered"]))
        if len(self.seen) == 1:
            message.channel.connection.transport.sock.shutdown(socket.SHUT_RDWR)  # without a word to the broker
        else:
            message.ack()
            self.should_stop = True


def reconnect(uri):
    with connect(uri) as connection:
        queue = declare(connection.default_channel, "kombu-reconnect")
        publish(connection.default_channel, queue, "kept")
        listener = Listener(Connection(uri), Queue(queue.name, Exchange(""), queue.name))
        listener.run()
        same(listener.seen, [("kept", False), ("kept", True)], "deliveries")
        queue.delete()


SCENARIOS = (publish_confirms, mandatory_return, header_types, global_qos, priorities, reconnect)

if __name__ == "__main__":
    main(SCENARIOS, lambda scenario, uri: scenario(uri))
