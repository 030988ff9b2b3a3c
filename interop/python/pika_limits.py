"""What ends by itself, what is accepted for old times' sake, and how much is too much, with pika."""

import pika
import pika.exceptions

from pika_queues import bodies, consumer, declared, pump, refusal, soon
from pika_routing import exchange
from pika_scenarios import PERSISTENT, channel_to, declare, ready, take
from scenarios import same, unique

MIB = 1 << 20


def auto_delete(uri):
    with channel_to(uri) as channel:
        queue, source = unique("auto-delete"), exchange(channel, "auto-delete", "fanout")
        channel.queue_declare(queue, auto_delete=True)
        channel.queue_bind(queue, source)
        tags = [consumer(channel, queue, name, []) for name in ("one", "two")]
        error = refusal(channel.connection, lambda other: other.queue_delete(queue, if_unused=True))
        same((error.reply_code, "in use" in error.reply_text), (406, True), error.reply_text)
        error = refusal(channel.connection, lambda other: other.exchange_delete(source, if_unused=True))
        same((error.reply_code, "in use" in error.reply_text), (406, True), error.reply_text)
        channel.basic_cancel(tags[0])
        same(ready(channel, queue), 0, "with a consumer left the queue stays")
        channel.basic_cancel(tags[1])
        error = refusal(channel.connection, lambda other: other.queue_declare(queue, passive=True))
        same(error.reply_code, 404, "the queue goes with its last consumer")
        error = refusal(channel.connection, lambda other: other.exchange_declare(source, passive=True))
        same(error.reply_code, 404, "the exchange goes with its last binding")
        kept = declare(channel, "not-empty")
        channel.basic_publish("", kept, b"left")
        soon(lambda: ready(channel, kept) == 1, "the message is there")
        error = refusal(channel.connection, lambda other: other.queue_delete(kept, if_empty=True))
        same((error.reply_code, "not empty" in error.reply_text), (406, True), error.reply_text)
        same(channel.queue_purge(kept).method.message_count, 1, "purged")
        same(channel.queue_delete(kept, if_empty=True, if_unused=True).method.message_count, 0, "deleted")


def legacy_arguments(uri):
    with channel_to(uri) as channel:
        channel.confirm_delivery()
        lazy = declared(channel, "lazy", queue_mode="lazy", queue_version=2, ha_policy="all", unheard_of=[1, {"a": 2}])
        same_again = {"x-queue-mode": "lazy", "x-queue-version": 2}  # the rest is not compared
        channel.queue_declare(lazy, durable=True, arguments=same_again)
        transient = unique("transient")
        channel.queue_declare(transient)  # neither durable nor exclusive: 4.x refuses these
        channel.basic_qos(prefetch_count=10, global_qos=True)
        log = []
        for queue in (lazy, transient):
            consumer(channel, queue, queue, log, arguments={"x-cancel-on-ha-failover": True, "anything": None})
            channel.basic_publish("", queue, b"taken", PERSISTENT)
        pump(channel, log, 2)
        same(sorted(name for name, _ in log), sorted([lazy, transient]), "who received")
        channel.flow(True)
        for what, words, step in (
            ("flow off", "active=false", lambda other: other.flow(False)),
            ("recover without requeue", "requeue=false", lambda other: other.basic_recover(requeue=False)),
        ):
            with channel_to(uri) as other:
                try:
                    step(other)
                    soon(lambda other=other: other.connection.process_data_events(0) or not other.is_open, what)
                except (pika.exceptions.ConnectionClosedByBroker, pika.exceptions.ChannelClosedByBroker) as error:
                    same((error.reply_code, words in error.reply_text), (540, True), f"{what}: {error.reply_text}")
        for queue in (lazy, transient):
            channel.queue_delete(queue)


def size_limits(uri):
    with channel_to(uri) as channel:
        channel.confirm_delivery()
        queue = declare(channel, "size-limits")
        largest = bytes(16 * MIB)
        channel.basic_publish("", queue, largest)

        def publish_more(other):
            other.confirm_delivery()
            other.basic_publish("", queue, largest + b"!")

        error = refusal(channel.connection, publish_more)
        same(error.reply_code, 406, error.reply_text)
        assert f"is larger than configured max size {len(largest)}" in error.reply_text, error.reply_text
        same(len(channel.basic_get(queue, auto_ack=True)[2]), len(largest), "the largest that is allowed")
        channel.queue_delete(queue)
    parameters = pika.URLParameters(uri)
    parameters.frame_max, parameters.channel_max = 4096, 3
    connection = pika.BlockingConnection(parameters)
    try:
        channels = [connection.channel() for _ in range(3)]
        queue = declare(channels[0], "small-frames")
        channels[0].confirm_delivery()
        channels[0].basic_publish("", queue, largest[:100_000])
        ((_, _, body),) = take(channels[1], queue, 1)
        same(len(body), 100_000, "a body in frames of 4096")
        channels[1].cancel()
        channels[0].queue_delete(queue)
    finally:
        connection.close()


def slow_consumer(uri):
    with channel_to(uri) as channel, channel_to(uri) as stalled:
        channel.confirm_delivery()
        slow, fast = declare(channel, "slow"), declare(channel, "fast")
        stalled.basic_consume(slow, lambda *_: None, auto_ack=True)
        # From here on nobody reads that socket, and 48 MiB do not fit into it.
        for _ in range(48):
            channel.basic_publish("", slow, bytes(MIB))
        for number in range(100):
            channel.basic_publish("", fast, str(number).encode())
        same(bodies(channel, fast), [str(number) for number in range(100)], "another queue goes on")
        channel.queue_delete(slow)
        channel.queue_delete(fast)


def heartbeats(uri):
    parameters = pika.URLParameters(uri)
    parameters.heartbeat = 1
    connection = pika.BlockingConnection(parameters)
    try:
        queue = declare(connection.channel(), "heartbeats")
        # pika closes a connection on which nothing came for the interval and five seconds.
        for _ in range(30):
            connection.process_data_events(time_limit=0.1)
        connection.channel().queue_delete(queue)
    finally:
        connection.close()


SCENARIOS = (auto_delete, legacy_arguments, size_limits, slow_consumer, heartbeats)
