"""What operators set while clients are at work, with pika: policies, permissions, tracing, alarms, secrets."""

import pika
import pika.exceptions

from operator_api import add_user, as_user, control, http, set_policy
from pika_queues import bodies, declared, pump, refusal, soon
from pika_scenarios import PERSISTENT, channel_to, declare, ready, take
from scenarios import same, unique


def policies(uri):
    with channel_to(uri) as channel:
        channel.confirm_delivery()
        queue, dead = declare(channel, "policed"), declare(channel, "policed-dead")
        for body in (b"a", b"b", b"c"):
            channel.basic_publish("", queue, body, PERSISTENT)
        definition = {"max-length": 2, "dead-letter-exchange": "", "dead-letter-routing-key": dead}
        remove = set_policy("limit", queue, definition)
        try:
            soon(lambda: ready(channel, queue) == 2, "the policy shortened the queue")
            soon(lambda: ready(channel, dead) == 1, "and dead-lettered what was too much")
            same(bodies(channel, dead), ["a"], "dead letters")
        finally:
            remove()
        for body in (b"d", b"e"):
            channel.basic_publish("", queue, body, PERSISTENT)
        same(bodies(channel, queue), ["b", "c", "d", "e"], "without the policy")
        # And on an exchange: an alternate, given afterwards.
        source = unique("policed-exchange")
        channel.exchange_declare(source, "direct")
        channel.queue_bind(dead, "amq.fanout")
        remove = set_policy("alternate", source, {"alternate-exchange": "amq.fanout"}, "exchanges")
        try:
            channel.basic_publish(source, "nowhere", b"caught", mandatory=True)
            same(bodies(channel, dead), ["caught"], "the alternate exchange of the policy")
        finally:
            remove()
        channel.exchange_delete(source)
        channel.queue_delete(queue)
        channel.queue_delete(dead)


def permissions(uri):
    user = add_user("mallory", configure="^mine-", write="^(mine-.*|amq\\.topic)$", read="^(mine-.*|amq\\.topic)$")
    http("PUT", f"topic-permissions/%2F/{user}", {"exchange": "amq.topic", "write": "^mine\\.", "read": "^mine\\."})
    try:
        with channel_to(as_user(uri, user)) as channel:
            mine = f"mine-{unique('queue')}"
            channel.queue_declare(mine)
            channel.queue_bind(mine, "amq.topic", "mine.#")
            channel.basic_publish("amq.topic", "mine.too", b"allowed")
            soon(lambda: ready(channel, mine) == 1, "what is allowed arrives")
            same(bodies(channel, mine), ["allowed"], "what is allowed")

            def publish(exchange, key):
                def step(other):
                    other.confirm_delivery()
                    other.basic_publish(exchange, key, b"")

                return step

            for what, step in (
                ("configure", lambda it: it.queue_declare("theirs")),
                ("write", publish("amq.fanout", "")),
                ("topic write", publish("amq.topic", "yours")),
                ("topic read", lambda it: it.queue_bind(mine, "amq.topic", "yours")),
                ("bind: read of the exchange", lambda it: it.queue_bind(mine, "amq.fanout")),
            ):
                error = refusal(channel.connection, step)
                same((error.reply_code, error.reply_text[:14]), (403, "ACCESS_REFUSED"), what)
                assert f"refused for user '{user}'" in error.reply_text, error.reply_text
            channel.queue_delete(mine)
    finally:
        http("DELETE", f"users/{user}")
    try:
        pika.BlockingConnection(pika.URLParameters(as_user(uri, user)))
    except pika.exceptions.ProbableAuthenticationError:
        pass
    else:
        raise AssertionError("a deleted user may log in")


def operator_policies(uri):
    with channel_to(uri) as channel:
        channel.confirm_delivery()
        queue = declared(channel, "operated", max_length=10)
        for number in range(5):
            channel.basic_publish("", queue, str(number).encode(), PERSISTENT)
        # Of argument, policy and operator policy the smallest number holds.
        remove = set_policy("users", queue, {"max-length": 3})
        path = f"operator-policies/%2F/{unique('operators')}"
        try:
            soon(lambda: ready(channel, queue) == 3, "the policy shortened the queue")
            http("PUT", path, {"pattern": f"^{queue}$", "definition": {"max-length": 1}, "apply-to": "queues"})
            soon(lambda: ready(channel, queue) == 1, "the operator policy shortened it more")
            same(bodies(channel, queue), ["4"], "what is kept")
        finally:
            http("DELETE", path)
            remove()
        channel.queue_delete(queue)


def limits(uri):
    vhost, user = unique("small"), add_user("limited", ".*", ".*", ".*")
    http("PUT", f"vhosts/{vhost}", {})
    http("PUT", f"permissions/{vhost}/{user}", {"configure": ".*", "write": ".*", "read": ".*"})
    http("PUT", f"vhost-limits/{vhost}/max-queues", {"value": 1})
    http("PUT", f"vhost-limits/{vhost}/max-connections", {"value": 1})
    http("PUT", f"user-limits/{user}/max-channels", {"value": 2})
    inside = f"{as_user(uri, user)}/{vhost}"
    try:
        with channel_to(inside) as channel:
            channel.queue_declare("only")
            channel.queue_declare("only")  # which is there already
            error = refusal(channel.connection, lambda other: other.queue_declare("one too many"))
            same((error.reply_code, "queue limit" in error.reply_text), (406, True), error.reply_text)
            # RabbitMQ counts connections a little late.
            soon(lambda: "access to vhost" in refused(inside), "a second connection is refused")
        with channel_to(as_user(uri, user)) as channel:
            channel.connection.channel()
            try:
                channel.connection.channel()
            except pika.exceptions.ConnectionClosedByBroker as error:
                same(error.reply_code, 530, error.reply_text)
                assert f"number of channels opened for user '{user}'" in error.reply_text, error.reply_text
            else:
                raise AssertionError("a third channel was opened")
    finally:
        http("DELETE", f"users/{user}")
        http("DELETE", f"vhosts/{vhost}")
    same("vhost" in refused(f"{uri}/{vhost}"), True, "a vhost that went")


def refused(uri):
    """Why a connection is refused; nothing if it is not."""
    try:
        pika.BlockingConnection(pika.URLParameters(uri)).close()
    except pika.exceptions.AMQPConnectionError as error:
        return repr(error)
    return ""


def log_exchange(uri):
    with channel_to(uri) as channel:
        log = declare(channel, "log")
        # RabbitMQ declares it a little after its start.
        soon(lambda: any(it["name"] == "amq.rabbitmq.log" for it in http("GET", "exchanges/%2F")), "it is there")
        channel.queue_bind(log, "amq.rabbitmq.log", "info")
        parameters = pika.URLParameters(uri)
        parameters.client_properties = {"connection_name": unique("logged")}
        pika.BlockingConnection(parameters).close()

        def told():
            method, properties, body = channel.basic_get(log, auto_ack=True)
            if method is None:
                return False
            same((method.exchange, method.routing_key), ("amq.rabbitmq.log", "info"), "where it came from")
            return unique("logged").encode() in body and properties.content_type == "text/plain"

        soon(told, "the log told of the connection")
        channel.queue_delete(log)


def firehose(uri):
    with channel_to(uri) as channel:
        queue, trace = declare(channel, "traced"), declare(channel, "trace")
        channel.queue_bind(trace, "amq.rabbitmq.trace", f"publish.{unique('source')}")
        channel.queue_bind(trace, "amq.rabbitmq.trace", f"deliver.{queue}")
        source = unique("source")
        channel.exchange_declare(source, "fanout")
        channel.queue_bind(queue, source)
        control("trace_on")
        try:
            channel.basic_publish(source, "key", b"watched", pika.BasicProperties(message_id="m"))
            take(channel, queue, 1)
            channel.cancel()
            soon(lambda: ready(channel, trace) == 2, "both traces arrived")
        finally:
            control("trace_off")
        found = {}
        for _ in range(2):
            method, properties, body = channel.basic_get(trace, auto_ack=True)
            found[method.routing_key.split(".")[0]] = (properties.headers, body)
        headers, body = found["publish"]
        same((headers["exchange_name"], headers["routing_keys"], body), (source, ["key"], b"watched"), "published")
        same((headers["user"], headers["vhost"], headers["routed_queues"]), ("guest", "/", [queue]), "by whom, where")
        same(headers["properties"]["message_id"], "m", "properties")
        headers, body = found["deliver"]
        same((headers["exchange_name"], headers["redelivered"], body), (source, 0, b"watched"), "delivered")
        for name in (queue, trace):
            channel.queue_delete(name)
        channel.exchange_delete(source)


def event_exchange(uri):
    with channel_to(uri) as channel:
        events = declare(channel, "events")
        for key in ("queue.created", "queue.deleted", "connection.created", "connection.closed"):
            channel.queue_bind(events, "amq.rabbitmq.event", key)
        watched = unique("watched")
        channel.queue_declare(watched)
        channel.queue_delete(watched)
        with channel_to(uri):
            pass
        found = []

        def arrived():
            method, properties, body = channel.basic_get(events, auto_ack=True)
            if method is not None:
                same(body, b"", "an event has no body")
                if properties.headers.get("name") == watched or method.routing_key.startswith("connection."):
                    found.append(method.routing_key)
            return {"queue.created", "queue.deleted", "connection.created", "connection.closed"} <= set(found)

        soon(arrived, "every event came")
        channel.queue_delete(events)


def update_secret(uri):
    with channel_to(uri) as channel:
        channel.connection.update_secret("a new secret", "the old one expired")
        same(ready(channel, declare(channel, "secret")), 0, "the connection goes on")
        channel.queue_delete(unique("secret"))


def blocked(uri):
    with channel_to(uri) as channel:
        queue = declare(channel, "blocked")
        told = []
        channel.connection.add_on_connection_blocked_callback(lambda _, frame: told.append(frame.method.reason))
        channel.connection.add_on_connection_unblocked_callback(lambda *_: told.append("unblocked"))
        control("set_vm_memory_high_watermark", "0")
        try:
            channel.basic_publish("", queue, b"held up")
            pump(channel, told, 1)
            same(told, ["low on memory"], "the reason")
        finally:
            control("set_vm_memory_high_watermark", "0.6")
        pump(channel, told, 2)
        same(told[1], "unblocked", "after the alarm")
        soon(lambda: ready(channel, queue) == 1, "what was held up arrives")
        channel.queue_delete(queue)


SCENARIOS = (
    policies,
    operator_policies,
    permissions,
    limits,
    firehose,
    event_exchange,
    log_exchange,
    update_secret,
    blocked,
)
