"""Time in queues, and quorum queues, with pika."""

import time
from datetime import datetime, timedelta, timezone

import pika
import pika.exceptions

from pika_queues import bodies, declared, pump, refusal, soon
from pika_scenarios import PERSISTENT, channel_to, declare, get, ready, take
from scenarios import same, unique


def expiry(uri):
    with channel_to(uri) as channel:
        channel.confirm_delivery()
        queue = declared(channel, "ttl", message_ttl=60000)
        channel.basic_publish("", queue, b"short", pika.BasicProperties(expiration="50"))
        channel.basic_publish("", queue, b"long", pika.BasicProperties(expiration="70000"))
        channel.basic_publish("", queue, b"of the queue")
        soon(lambda: ready(channel, queue) == 2, "the short one expired")
        same(bodies(channel, queue), ["long", "of the queue"], "left")

        def publish(other):
            other.confirm_delivery()
            other.basic_publish("", queue, b"", pika.BasicProperties(expiration="soon"))

        same(refusal(channel.connection, publish).reply_code, 406, "an expiration that is no number")
        channel.queue_delete(queue)
        # A queue nobody uses goes away; one with a consumer stays.
        idle, used = declared(channel, "idle", expires=100), declared(channel, "used", expires=100)
        channel.basic_consume(used, lambda *_: None)
        other = channel.connection.channel()

        def gone():
            # Asking for it counts as use, so ask less often than it expires.
            time.sleep(0.3)
            return refusal_code(other, idle) == 404

        assert gone(), "the idle queue is still there"
        same(ready(channel, used), 0, "the used queue")
        channel.queue_delete(used)


def refusal_code(channel, queue):
    try:
        channel.queue_declare(queue, passive=True)
        return None
    except pika.exceptions.ChannelClosedByBroker as error:
        return error.reply_code


def quorum_queue(uri):
    with channel_to(uri) as channel:
        channel.confirm_delivery()
        dead = declare(channel, "quorum-dead")
        arguments = {"queue_type": "quorum", "delivery_limit": 2}
        queue = declared(channel, "quorum", **arguments, dead_letter_exchange="", dead_letter_routing_key=dead)
        channel.basic_publish("", queue, b"poison", PERSISTENT)
        counts = []
        for _ in range(3):
            ((method, properties, _),) = take(channel, queue, 1)
            counts.append((properties.headers or {}).get("x-delivery-count"))
            channel.basic_reject(method.delivery_tag, requeue=True)  # since 4.3 a nack is no failure
        same(counts, [None, 1, 2], "x-delivery-count")
        channel.cancel()
        soon(lambda: ready(channel, dead) == 1, "the poison message is dead-lettered")
        (death,) = get(channel, dead)[1].headers["x-death"]
        same((death["reason"], death["queue"]), ("delivery_limit", queue), "x-death")
        for what, step in (
            ("not durable", lambda it: it.queue_declare(unique("q1"), arguments={"x-queue-type": "quorum"})),
            ("exclusive", lambda it: it.queue_declare(unique("q2"), durable=True, exclusive=True, arguments={"x-queue-type": "quorum"})),
        ):
            same(refusal(channel.connection, step).reply_code, 406, what)
        channel.queue_delete(queue)
        channel.queue_delete(dead)


def delays(uri):
    with channel_to(uri) as channel:
        channel.confirm_delivery()
        queue = declare(channel, "delayed")
        source = unique("delayed-exchange")
        channel.exchange_declare(source, "x-delayed-message", arguments={"x-delayed-type": "direct"})
        channel.queue_bind(queue, source, "key")
        for body, exchange, key, headers in (
            (b"fourth", "", queue, {"x-opt-delivery-time": datetime.now(timezone.utc) + timedelta(seconds=2)}),
            (b"third", source, "key", {"x-delay": 600}),
            (b"second", "", queue, {"x-opt-delivery-delay": 300}),
            (b"first", source, "key", {"x-delay": -1}),
        ):
            channel.basic_publish(exchange, key, body, pika.BasicProperties(headers=headers, delivery_mode=2))
        same(ready(channel, queue), 1, "the one without a delay is there")
        soon(lambda: ready(channel, queue) == 4, "all came")
        same(bodies(channel, queue), ["first", "second", "third", "fourth"], "order")
        channel.exchange_delete(source)
        channel.queue_delete(queue)


def delayed_retry(uri):
    with channel_to(uri) as channel:
        channel.confirm_delivery()
        arguments = {"delayed_retry_type": "all", "delayed_retry_min": 200, "delivery_limit": 5}
        queue = declared(channel, "retried", **arguments)
        channel.basic_publish("", queue, b"again", PERSISTENT)
        channel.basic_publish("", queue, b"behind", PERSISTENT)
        log = []

        def received(_channel, method, properties, body):
            log.append(body.decode())
            if len(log) == 1:
                channel.basic_nack(method.delivery_tag, requeue=True)
            else:
                channel.basic_ack(method.delivery_tag)

        channel.basic_consume(queue, received)
        pump(channel, log, 3)
        same(log, ["again", "behind", "again"], "a failed message does not hold up what is behind it")
        channel.queue_delete(queue)


def retry_until_dead(uri):
    with channel_to(uri) as channel:
        channel.confirm_delivery()
        dead = declare(channel, "given-up")
        arguments = {"delayed_retry_type": "failed", "delayed_retry_schedule": [50, 150], "delivery_limit": 3}
        queue = declared(channel, "scheduled", **arguments, dead_letter_exchange="", dead_letter_routing_key=dead)
        channel.basic_publish("", queue, b"poison", PERSISTENT)
        attempts = []

        def received(_channel, method, properties, _body):
            attempts.append((time.monotonic(), (properties.headers or {}).get("x-delivery-count")))
            channel.basic_reject(method.delivery_tag, requeue=True)

        channel.basic_consume(queue, received)
        pump(channel, attempts, 4)
        soon(lambda: ready(channel, dead) == 1, "given up")
        same([count for _, count in attempts], [None, 1, 2, 3], "x-delivery-count")
        waits = [later - earlier for (earlier, _), (later, _) in zip(attempts, attempts[1:])]
        assert all(wait >= least for wait, least in zip(waits, (0.05, 0.15, 0.15))), f"waited {waits}"
        (death,) = get(channel, dead)[1].headers["x-death"]
        same((death["reason"], death["queue"]), ("delivery_limit", queue), "x-death")
        channel.queue_delete(queue)
        channel.queue_delete(dead)


def consumer_timeout(uri):
    with channel_to(uri) as channel:
        channel.confirm_delivery()
        strict = declared(channel, "strict", consumer_timeout=200)
        channel.basic_publish("", strict, b"held", PERSISTENT)
        error = refusal(channel.connection, lambda other: take(other, strict, 2))  # and no second comes
        same(error.reply_code, 406, error.reply_text)
        assert "timed out. Timeout value used: 200 ms" in error.reply_text, error.reply_text
        same(bodies(channel, strict), ["held"], "it went back")
        # A visibility timeout: only the message goes back, and the consumer goes on.
        lenient = declared(channel, "lenient", consumer_timeout=200, consumer_timeout_action="requeue")
        channel.basic_publish("", lenient, b"seen twice", PERSISTENT)
        deliveries = take(channel, lenient, 2)
        same([method.redelivered for method, _, _ in deliveries], [False, True], "redelivered")
        channel.basic_ack(deliveries[0][0].delivery_tag)  # too late, and forgiven
        channel.basic_ack(deliveries[1][0].delivery_tag)
        channel.cancel()
        same(ready(channel, lenient), 0, "left")
        for queue in (strict, lenient):
            channel.queue_delete(queue)


def at_least_once(uri):
    with channel_to(uri) as channel:
        channel.confirm_delivery()
        dead = declare(channel, "safe-dead")
        arguments = {"queue_type": "quorum", "overflow": "reject-publish", "dead_letter_strategy": "at-least-once"}
        source = unique("safe-dead-exchange")
        channel.exchange_declare(source, "fanout", durable=True)
        queue = declared(channel, "safe", **arguments, message_ttl=100, dead_letter_exchange=source)
        channel.basic_publish("", queue, b"kept", PERSISTENT)
        soon(lambda: ready(channel, queue) == 0, "it expired")
        # The exchange leads nowhere, so the queue keeps the message until it does.
        channel.queue_bind(dead, source)
        soon(lambda: ready(channel, dead) == 1, "the dead letter arrives once there is a way")
        method, properties, body = get(channel, dead)
        (death,) = properties.headers["x-death"]
        same((body, death["reason"], death["queue"]), (b"kept", "expired", queue), "x-death")
        for name in (queue, dead):
            channel.queue_delete(name)
        channel.exchange_delete(source)


def settle(uri):
    with channel_to(uri) as channel:
        channel.confirm_delivery()
        target = declare(channel, "settled-target")
        refused = declare(channel, "settled-refused")
        queue = declared(channel, "settled", consumer_timeout=1500, dead_letter_exchange="", dead_letter_routing_key=refused)
        for body in (b"retried", b"answered", b"rejected", b"extended"):
            channel.basic_publish("", queue, body, PERSISTENT)
        taken = take(channel, queue, 4)

        def order(delivery, **headers):
            named = {f"x-{name.replace('_', '-')}": value for name, value in headers.items()}
            named["x-delivery-tag"] = delivery[0].delivery_tag
            channel.basic_publish("amq.settle", "", b"42", pika.BasicProperties(headers=named, delivery_mode=2))

        order(taken[0], op="retry", delay=100)
        order(taken[1], op="ack-and-publish", exchange="", routing_key=target)
        order(taken[2], op="reject", reason="no such customer", annotations={"customer": 7})
        order(taken[3], op="extend", timeout=60_000)
        same(bodies(channel, target), ["42"], "published with the ack")
        soon(lambda: ready(channel, refused) == 1, "the rejected one is dead-lettered")
        _, properties, body = get(channel, refused)
        same((body, properties.headers["x-reason"], properties.headers["customer"]), (b"rejected", "no such customer", 7), "why")
        ((method, properties, body),) = take(channel, queue, 1)
        same((body, method.redelivered, properties.headers["x-delivery-count"]), (b"retried", True, 1), "the retry")
        channel.basic_ack(method.delivery_tag)
        channel.connection.sleep(2)  # longer than the queue allows: without the extension the channel would be closed
        channel.basic_ack(taken[3][0].delivery_tag)
        channel.cancel()
        same(ready(channel, queue), 0, "left")
        error = refusal(channel.connection, lambda other: (other.confirm_delivery(), other.basic_publish(
            "amq.settle", "", b"", pika.BasicProperties(headers={"x-delivery-tag": 99, "x-op": "retry"}))))
        same(error.reply_code, 406, error.reply_text)
        for name in (queue, target, refused):
            channel.queue_delete(name)


SCENARIOS = (expiry, quorum_queue, at_least_once, delays, delayed_retry, retry_until_dead, consumer_timeout, settle)
