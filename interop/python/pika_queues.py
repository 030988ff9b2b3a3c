"""What queues and channels can be asked to do, with pika."""

import time

import pika
import pika.exceptions

from pika_routing import bodies
from pika_scenarios import PERSISTENT, channel_to, declare, get, ready, take
from scenarios import same, unique

LONG = 20  # seconds to wait for something that comes at once


def declared(channel, name, durable=True, **arguments):
    """A queue of this run; an argument `max_length` is sent as `x-max-length`."""
    name = unique(name)
    given = {f"x-{key.replace('_', '-')}": value for key, value in arguments.items()}
    channel.queue_declare(name, durable=durable, arguments=given)
    return name


def refusal(connection, step):
    """The error with which the broker closes the channel of a step."""
    channel = connection.channel()
    try:
        step(channel)
    except pika.exceptions.ChannelClosedByBroker as error:
        return error
    raise AssertionError("the broker did not refuse")


def soon(condition, what):
    """Waits until the condition holds."""
    deadline = time.monotonic() + LONG
    while not condition():
        assert time.monotonic() < deadline, f"gave up waiting until {what}"
        time.sleep(0.01)


def length_limits(uri):
    with channel_to(uri) as channel:
        channel.confirm_delivery()
        dead = declare(channel, "limit-dead")
        dlx = {"dead_letter_exchange": "", "dead_letter_routing_key": dead}
        for overflow, kept, nacked, dead_letters in (
            ("drop-head", ["1", "2"], False, ["0"]),
            ("reject-publish", ["0", "1"], True, []),
            ("reject-publish-dlx", ["0", "1"], True, ["2"]),
        ):
            for limit in ({"max_length": 2}, {"max_length_bytes": 2}):
                queue = declared(channel, f"limit-{overflow}-{len(limit)}", overflow=overflow, **limit, **dlx)
                refused = False
                for body in ("0", "1", "2"):
                    try:
                        channel.basic_publish("", queue, body.encode(), PERSISTENT)
                    except pika.exceptions.NackError:
                        refused = True
                same(refused, nacked, f"{overflow}: a nack")
                same(bodies(channel, queue), kept, f"{overflow}: what is kept")
                soon(lambda: ready(channel, dead) >= len(dead_letters), "dead letters arrived")
                same(bodies(channel, dead), dead_letters, f"{overflow}: dead letters")
                channel.queue_delete(queue)
        channel.queue_delete(dead)


def dead_letters(uri):
    with channel_to(uri) as channel:
        dead = declare(channel, "dead")
        dlx = {"dead_letter_exchange": "", "dead_letter_routing_key": dead}
        rejecting = declared(channel, "dead-rejecting", **dlx)
        expiring = declared(channel, "dead-expiring", message_ttl=1, **dlx)
        short = declared(channel, "dead-short", max_length=1, **dlx)
        for queue, reason in ((rejecting, "rejected"), (expiring, "expired"), (short, "maxlen")):
            channel.basic_publish("", queue, b"first", pika.BasicProperties(headers={"own": 1}))
            if queue == rejecting:
                channel.basic_reject(channel.basic_get(queue)[0].delivery_tag, requeue=False)
            if queue == short:
                channel.basic_publish("", queue, b"second")
            ((method, properties, body),) = take(channel, dead, 1)
            channel.basic_ack(method.delivery_tag)
            (death,) = properties.headers["x-death"]
            death.pop("time")
            expected = {"count": 1, "reason": reason, "queue": queue, "exchange": "", "routing-keys": [queue]}
            same((death, body), (expected, b"first"), f"x-death of {reason}")
            first = [properties.headers[f"x-first-death-{what}"] for what in ("reason", "queue", "exchange")]
            same(first, [reason, queue, ""], f"x-first-death of {reason}")
            same(properties.headers["own"], 1, "the publisher's header")
            channel.queue_delete(queue)
        channel.cancel()
        # Rejected twice on its way round: one entry, counted.
        back = declared(channel, "dead-back", dead_letter_exchange="", dead_letter_routing_key=unique("dead-forth"))
        forth = declared(channel, "dead-forth", dead_letter_exchange="", dead_letter_routing_key=back)
        channel.basic_publish("", back, b"round")
        for queue in (back, forth, back):
            soon(lambda queue=queue: ready(channel, queue) == 1, "the dead letter arrived")
            channel.basic_reject(channel.basic_get(queue)[0].delivery_tag, requeue=False)
        soon(lambda: ready(channel, forth) == 1, "the dead letter arrived")
        deaths = [(death["queue"], death["count"]) for death in get(channel, forth)[1].headers["x-death"]]
        same(deaths, [(back, 2), (forth, 1)], "deaths, the latest first")
        # Expired all the way round: the cycle is cut.
        lap = declared(channel, "dead-lap", message_ttl=1, dead_letter_exchange="", dead_letter_routing_key=unique("dead-lap"))
        channel.basic_publish("", lap, b"dropped")
        soon(lambda: ready(channel, lap) == 0, "the message that only expires in circles is gone")
        for queue in (back, forth, lap, dead):
            channel.queue_delete(queue)


def priorities(uri):
    with channel_to(uri) as channel:
        channel.confirm_delivery()
        queue = declared(channel, "priorities", max_priority=5)
        for body, priority in (("none", None), ("one", 1), ("five", 5), ("nine", 9), ("one again", 1)):
            channel.basic_publish("", queue, body.encode(), pika.BasicProperties(priority=priority))
        same(bodies(channel, queue), ["five", "nine", "one", "one again", "none"], "order")
        channel.queue_delete(queue)


def consumer(channel, queue, name, log, **arguments):
    """A consumer that notes its name and acknowledges."""

    def received(_channel, method, _properties, body):
        log.append((name, body.decode()))
        channel.basic_ack(method.delivery_tag)

    return channel.basic_consume(queue, received, **arguments)


def pump(channel, log, count):
    """Lets deliveries come until there are so many."""
    deadline = time.monotonic() + LONG
    while len(log) < count:
        assert time.monotonic() < deadline, f"{len(log)} of {count} deliveries came"
        channel.connection.process_data_events(time_limit=0.05)


def single_active_consumer(uri):
    with channel_to(uri) as channel:
        channel.confirm_delivery()
        queue = declared(channel, "single", single_active_consumer=True)
        log = []
        first = consumer(channel, queue, "first", log)
        consumer(channel, queue, "second", log)
        for body in (b"a", b"b"):
            channel.basic_publish("", queue, body)
        pump(channel, log, 2)
        channel.basic_cancel(first)
        channel.basic_publish("", queue, b"c")
        pump(channel, log, 3)
        same(log, [("first", "a"), ("first", "b"), ("second", "c")], "who received")
        channel.queue_delete(queue)


def consumer_priorities(uri):
    with channel_to(uri) as channel:
        channel.confirm_delivery()
        queue = declare(channel, "consumer-priorities")
        log = []
        consumer(channel, queue, "low", log)
        high = consumer(channel, queue, "high", log, arguments={"x-priority": 10})
        for body in (b"a", b"b"):
            channel.basic_publish("", queue, body)
        pump(channel, log, 2)
        channel.basic_cancel(high)
        channel.basic_publish("", queue, b"c")
        pump(channel, log, 3)
        same(log, [("high", "a"), ("high", "b"), ("low", "c")], "who received")
        channel.queue_delete(queue)


def exclusive_consumer(uri):
    with channel_to(uri) as channel:
        queue = declare(channel, "exclusive-consumer")
        tag = consumer(channel, queue, "only", [], exclusive=True)
        error = refusal(channel.connection, lambda other: consumer(other, queue, "second", []))
        same(error.reply_code, 403, error.reply_text)
        assert "in exclusive use" in error.reply_text, error.reply_text
        channel.basic_cancel(tag)
        other = channel.connection.channel()
        other.basic_cancel(consumer(other, queue, "now it may", []))
        # An exclusive queue is its connection's alone.
        mine = channel.queue_declare("", exclusive=True).method.queue
        with channel_to(uri) as stranger:
            error = refusal(stranger.connection, lambda it: it.queue_declare(mine, passive=True))
            same(error.reply_code, 405, error.reply_text)
        channel.queue_delete(queue)


def cancel_notify(uri):
    with channel_to(uri) as channel:
        queue = declare(channel, "cancel-notify")
        cancelled = []
        channel.add_on_cancel_callback(lambda method: cancelled.append(method.method.consumer_tag))
        tag = consumer(channel, queue, "orphan", [])
        with channel_to(uri) as other:
            other.queue_delete(queue)
        pump(channel, cancelled, 1)
        same(cancelled, [tag], "cancelled consumers")
        channel.basic_cancel(tag)  # again, and that is no error


def direct_reply_to(uri):
    with channel_to(uri) as client, channel_to(uri) as server:
        queue = declare(server, "rpc")
        answers = []
        client.basic_consume("amq.rabbitmq.reply-to", lambda *it: answers.append((it[3], it[2].correlation_id)), auto_ack=True)
        client.basic_publish("", queue, b"2+2", pika.BasicProperties(reply_to="amq.rabbitmq.reply-to", correlation_id="7"))
        ((method, properties, body),) = take(server, queue, 1)
        same(body, b"2+2", "question")
        assert properties.reply_to.startswith("amq.rabbitmq.reply-to."), properties.reply_to
        server.queue_declare(properties.reply_to, passive=True)  # how a server asks whether the client still waits
        server.basic_publish("", properties.reply_to, b"4", pika.BasicProperties(correlation_id="7"))
        server.basic_ack(method.delivery_tag)
        pump(client, answers, 1)
        same(answers, [(b"4", "7")], "answers")
        server.cancel()
        server.queue_delete(queue)

        def without_consumer(channel):
            channel.confirm_delivery()
            channel.basic_publish("", queue, b"", pika.BasicProperties(reply_to="amq.rabbitmq.reply-to"))

        error = refusal(server.connection, without_consumer)
        same(error.reply_code, 406, error.reply_text)
        assert "fast reply consumer does not exist" in error.reply_text, error.reply_text


def global_qos(uri):
    with channel_to(uri) as channel:
        channel.confirm_delivery()
        queues = [declare(channel, f"qos-{number}") for number in range(2)]
        for queue in queues:
            for _ in range(5):
                channel.basic_publish("", queue, b"")
        channel.basic_qos(prefetch_count=3, global_qos=True)
        tags = []
        for queue in queues:
            channel.basic_consume(queue, lambda _channel, method, _properties, _body: tags.append(method.delivery_tag))
        pump(channel, tags, 3)
        waiting = sum(ready(channel, queue) for queue in queues)
        same((len(tags), waiting), (3, 7), "deliveries and messages left, with one limit for two consumers")
        channel.basic_ack(tags[-1], multiple=True)
        pump(channel, tags, 6)
        same(sum(ready(channel, queue) for queue in queues), 4, "left after three acks")
        for queue in queues:
            channel.queue_delete(queue)


def transactions(uri):
    with channel_to(uri) as channel, channel_to(uri) as watcher:
        queue = declare(channel, "tx")
        channel.basic_publish("", queue, b"old")
        channel.tx_select()
        method, _, _ = channel.basic_get(queue)
        channel.basic_publish("", queue, b"rolled back")
        channel.basic_ack(method.delivery_tag)
        channel.tx_rollback()
        same(ready(watcher, queue), 0, "nothing is published, and the message is still unacked")
        channel.basic_publish("", queue, b"new")
        same(ready(watcher, queue), 0, "nothing is published before the commit")
        channel.basic_ack(method.delivery_tag)
        channel.tx_commit()
        same(bodies(watcher, queue), ["new"], "published by the commit, and the old one is gone")
        error = refusal(channel.connection, lambda other: (other.confirm_delivery(), other.tx_select()))
        same(error.reply_code, 406, error.reply_text)
        channel.queue_delete(queue)


def user_id(uri):
    with channel_to(uri) as channel:
        queue = declare(channel, "user-id")
        channel.confirm_delivery()
        channel.basic_publish("", queue, b"mine", pika.BasicProperties(user_id="guest"))

        def pretend(other):
            other.confirm_delivery()
            other.basic_publish("", queue, b"theirs", pika.BasicProperties(user_id="somebody"))

        error = refusal(channel.connection, pretend)
        same(error.reply_code, 406, error.reply_text)
        assert "user_id property set to 'somebody' but authenticated user was 'guest'" in error.reply_text, error.reply_text
        same(bodies(channel, queue), ["mine"], "what came")
        channel.queue_delete(queue)


SCENARIOS = (
    length_limits,
    dead_letters,
    priorities,
    single_active_consumer,
    consumer_priorities,
    exclusive_consumer,
    cancel_notify,
    direct_reply_to,
    global_qos,
    transactions,
    user_id,
)
