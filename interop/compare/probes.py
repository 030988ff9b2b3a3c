"""What is asked of both brokers. A probe takes an open connection and gives what it saw as text."""

import pika
from pika.exceptions import ChannelClosedByBroker

PROBES = {}

# Rows where RabbitMQ 4, which Leveret follows, answers otherwise than 3.10, by how their names begin.
KNOWN = {
    "declare with x-queue-mode": "4.3 does not look at it",
    "declare with x-queue-type ''": "4 takes it for the default",
    "declare with x-queue-version 1": "refused since 4.3",
    "declare with classic with a delivery limit": "classic queues have one here",
    "redeclare another": "4 tells the types",
    "unknown exchange type": "406 since 4.3",
    "exchange type of a word": "406 since 4.3",
    "passive reply queue of nobody": "3.10 crashes on such a name",
    "bind the reply queue": "403 since 4.2.6",
    "expiration '9999": "3.10 breaks the line",
    "delivery mode 3": "taken since 3.13",
    "dead letter:": "x-last-death is new in 3.13, and CC is kept",
    "deaths again": "x-last-death is new in 3.13",
    "a direct reply": "3.10 crashes on the probe of the address",
}


def probe(function):
    """Registers a probe under its function's name."""
    PROBES[function.__name__.replace("_", " ")] = function
    return function


def close_of(connection, act):
    """The close of a channel on which something was done, or 'ok'."""
    channel = connection.channel()
    try:
        result = act(channel)
        channel.queue_declare("", exclusive=True)
    except ChannelClosedByBroker as closed:
        return f"{closed.reply_code} {closed.reply_text}"
    if channel.is_open:
        channel.close()
    return "ok" if result is None or not isinstance(result, str) else result


def declaring(name, **arguments):
    """A probe per declaration of a queue with arguments."""

    def declare(connection):
        durable = arguments.get("x-queue-type") in ("quorum", "stream")
        queue = "declared " + name
        seen = close_of(connection, lambda channel: channel.queue_declare(queue, durable=durable, arguments=arguments))
        close_of(connection, lambda channel: channel.queue_delete(queue))
        return seen

    PROBES["declare with " + name] = declare


def redeclaring(name, first, second, **flags):
    """A probe per second declaration that may not fit the first."""

    def redeclare(connection):
        queue = "redeclared " + name
        close_of(connection, lambda channel: channel.queue_declare(queue, arguments=first))
        seen = close_of(connection, lambda channel: channel.queue_declare(queue, arguments=second, **flags))
        close_of(connection, lambda channel: channel.queue_delete(queue))
        return seen

    PROBES["redeclare " + name] = redeclare


for argument in ("x-max-length", "x-max-length-bytes", "x-message-ttl", "x-expires", "x-max-priority"):
    for value in (-1, 0, 256, 2**40, "text", True, 1.5, None, [1], {"a": 1}):
        declaring(f"{argument} {value!r}", **{argument: value})
for argument in ("x-overflow", "x-dead-letter-exchange", "x-dead-letter-routing-key", "x-single-active-consumer", "x-queue-mode",
                 "x-queue-type", "x-queue-version", "x-unknown"):
    for value in (1, "text", True, "", [1]):
        declaring(f"{argument} {value!r}", **{argument: value})
declaring("key without exchange", **{"x-dead-letter-routing-key": "k"})
declaring("dlx and key", **{"x-dead-letter-exchange": "", "x-dead-letter-routing-key": "k"})
declaring("lazy", **{"x-queue-mode": "lazy"})
declaring("reject-publish-dlx", **{"x-overflow": "reject-publish-dlx"})
declaring("quorum with priorities", **{"x-queue-type": "quorum", "x-max-priority": 5})
declaring("classic with a delivery limit", **{"x-delivery-limit": 3})
declaring("classic with max age", **{"x-max-age": "1D"})
declaring("quorum with lazy", **{"x-queue-type": "quorum", "x-queue-mode": "lazy"})

redeclaring("the same", {"x-max-length": 5}, {"x-max-length": 5})
redeclaring("another number", {"x-max-length": 5}, {"x-max-length": 6})
redeclaring("another width", {"x-max-length": 5}, {"x-max-length": 2**33})
redeclaring("none", {"x-max-length": 5}, {})
redeclaring("one more", {}, {"x-max-length": 5})
redeclaring("another ttl", {"x-message-ttl": 5}, {"x-message-ttl": 6})
redeclaring("another expiry", {"x-expires": 500000}, {"x-expires": 600000})
redeclaring("another dlx", {"x-dead-letter-exchange": "a"}, {"x-dead-letter-exchange": "b"})
redeclaring("no dlx", {"x-dead-letter-exchange": "a"}, {})
redeclaring("another overflow", {"x-overflow": "drop-head"}, {"x-overflow": "reject-publish"})
redeclaring("another priority", {"x-max-priority": 5}, {"x-max-priority": 6})
redeclaring("another activity", {"x-single-active-consumer": True}, {"x-single-active-consumer": False})
redeclaring("another mode", {"x-queue-mode": "lazy"}, {"x-queue-mode": "default"})
redeclaring("another type", {}, {"x-queue-type": "quorum"}, durable=True)
redeclaring("type given", {}, {"x-queue-type": "classic"})
redeclaring("an unknown one", {"x-unknown": 1}, {"x-unknown": 2})
redeclaring("durable", {}, {}, durable=True)
redeclaring("auto-delete", {}, {}, auto_delete=True)
redeclaring("exclusive", {}, {}, exclusive=True)


def refusing(name, act):
    """A probe of one act on a channel, with a queue `q` and an exchange `e` there."""

    def refuse(connection):
        def prepare(channel):
            channel.queue_declare("q")
            channel.queue_purge("q")
            channel.exchange_declare("e", "topic")

        close_of(connection, prepare)
        return close_of(connection, act)

    PROBES[name] = refuse


def nothing(*_):
    """A consumer that takes and does nothing."""


refusing("delete a missing queue", lambda channel: channel.queue_delete("missing"))
refusing("delete a missing exchange", lambda channel: channel.exchange_delete("missing"))
refusing("delete amq.direct", lambda channel: channel.exchange_delete("amq.direct"))
refusing("delete the default exchange", lambda channel: channel.exchange_delete(""))
refusing("declare amq. queue", lambda channel: channel.queue_declare("amq.mine"))
refusing("declare amq. exchange", lambda channel: channel.exchange_declare("amq.mine", "direct"))
refusing("declare amq.direct again", lambda channel: channel.exchange_declare("amq.direct", "direct", durable=True))
refusing("declare amq.direct as fanout", lambda channel: channel.exchange_declare("amq.direct", "fanout", durable=True))
refusing("declare the default exchange", lambda channel: channel.exchange_declare("", "direct", durable=True))
refusing("unknown exchange type", lambda channel: channel.exchange_declare("x1", "nonsense"))
refusing("exchange type of a word", lambda channel: channel.exchange_declare("x1", "queue"))
refusing("exchange durable differs", lambda channel: channel.exchange_declare("e", "topic", durable=True))
refusing("exchange auto-delete differs", lambda channel: channel.exchange_declare("e", "topic", auto_delete=True))
refusing("exchange internal differs", lambda channel: channel.exchange_declare("e", "topic", internal=True))
refusing("exchange type differs", lambda channel: channel.exchange_declare("e", "direct"))
refusing("exchange alternate differs", lambda channel: channel.exchange_declare("e", "topic", arguments={"alternate-exchange": "a"}))
refusing("exchange unknown argument differs", lambda channel: channel.exchange_declare("e", "topic", arguments={"x": 1}))
refusing("exchange alternate of a number", lambda channel: channel.exchange_declare("x2", "topic", arguments={"alternate-exchange": 1}))
refusing("passive missing queue", lambda channel: channel.queue_declare("missing", passive=True))
refusing("passive missing exchange", lambda channel: channel.exchange_declare("missing", passive=True))
refusing("passive default exchange", lambda channel: channel.exchange_declare("", passive=True))
refusing("bind a missing queue", lambda channel: channel.queue_bind("missing", "e"))
refusing("bind to a missing exchange", lambda channel: channel.queue_bind("q", "missing"))
refusing("bind both missing", lambda channel: channel.queue_bind("missing", "missing too"))
refusing("bind to the default exchange", lambda channel: channel.queue_bind("q", "", "k"))
refusing("unbind what is not bound", lambda channel: channel.queue_unbind("q", "e", "k"))
refusing("unbind from a missing exchange", lambda channel: channel.queue_unbind("q", "missing", "k"))
refusing("unbind a missing queue", lambda channel: channel.queue_unbind("missing", "e", "k"))
refusing("unbind from the default exchange", lambda channel: channel.queue_unbind("q", "", "q"))
refusing("bind exchanges, source missing", lambda channel: channel.exchange_bind("e", "missing"))
refusing("bind exchanges, destination missing", lambda channel: channel.exchange_bind("missing", "e"))
refusing("bind the default exchange", lambda channel: channel.exchange_bind("", "e"))
refusing("headers x-match nonsense", lambda channel: channel.queue_bind("q", "amq.headers", "", {"x-match": "nonsense"}))
refusing("headers x-match number", lambda channel: channel.queue_bind("q", "amq.headers", "", {"x-match": 1}))
refusing("headers x-match any-with-x", lambda channel: channel.queue_bind("q", "amq.headers", "", {"x-match": "any-with-x"}))
refusing("publish to a missing exchange", lambda channel: channel.basic_publish("missing", "k", b""))
refusing("publish immediate", lambda channel: channel._send_method(
    pika.spec.Basic.Publish(exchange="", routing_key="q", immediate=True), (pika.BasicProperties(), b"")))
refusing("consume a missing queue", lambda channel: channel.basic_consume("missing", nothing))
refusing("consume no previous queue", lambda channel: channel.basic_consume("", nothing))
refusing("get a missing queue", lambda channel: channel.basic_get("missing"))
refusing("get no previous queue", lambda channel: channel.basic_get(""))
refusing("purge a missing queue", lambda channel: channel.queue_purge("missing"))
refusing("ack an unknown tag", lambda channel: channel.basic_ack(7))
refusing("ack tag 0", lambda channel: channel.basic_ack(0))
refusing("ack all of none", lambda channel: channel.basic_ack(0, multiple=True))
refusing("ack up to an unknown tag", lambda channel: channel.basic_ack(9, multiple=True))
refusing("nack an unknown tag", lambda channel: channel.basic_nack(7))
refusing("nack all of none", lambda channel: channel.basic_nack(0, multiple=True))
refusing("reject an unknown tag", lambda channel: channel.basic_reject(7))
refusing("cancel an unknown tag", lambda channel: channel.basic_cancel("unknown"))
refusing("recover without requeue", lambda channel: channel.basic_recover(requeue=False))
refusing("recover of nothing", lambda channel: channel.basic_recover(requeue=True))
refusing("prefetch size", lambda channel: channel.basic_qos(prefetch_size=10))
refusing("commit without tx", lambda channel: channel.tx_commit())
refusing("rollback without tx", lambda channel: channel.tx_rollback())
refusing("confirm then tx", lambda channel: (channel.confirm_delivery(), channel.tx_select()))
refusing("tx then confirm", lambda channel: (channel.tx_select(), channel.confirm_delivery()))
refusing("delete a queue that is not empty", lambda channel: (
    channel.basic_publish("", "q", b"m"), channel.queue_declare("q", passive=True), channel.queue_delete("q", if_empty=True)))
refusing("delete a queue in use", lambda channel: (channel.basic_consume("q", nothing), channel.queue_delete("q", if_unused=True)))
refusing("delete an exchange in use", lambda channel: (channel.queue_bind("q", "e", "k"), channel.exchange_delete("e", if_unused=True)))
refusing("reuse a tag", lambda channel: [channel._impl.basic_consume("q", nothing, consumer_tag="t") or channel._impl._consumers.clear()
                                         or channel._impl.basic_consume("q", nothing, consumer_tag="t")])
refusing("exclusive beside a consumer", lambda channel: (channel.basic_consume("q", nothing), channel.basic_consume("q", nothing, exclusive=True)))
refusing("a consumer beside an exclusive one", lambda channel: (channel.basic_consume("q", nothing, exclusive=True), channel.basic_consume("q", nothing)))
refusing("consumer priority of a text", lambda channel: channel.basic_consume("q", nothing, arguments={"x-priority": "high"}))
refusing("consumer priority", lambda channel: [channel.basic_consume("q", nothing, arguments={"x-priority": -5})])
refusing("a publish to an internal exchange", lambda channel: (
    channel.exchange_declare("inner", "fanout", internal=True), channel.basic_publish("inner", "", b"")))
refusing("reply consumer with acks", lambda channel: channel.basic_consume("amq.rabbitmq.reply-to", nothing))
refusing("second reply consumer", lambda channel: (
    channel.basic_consume("amq.rabbitmq.reply-to", nothing, auto_ack=True),
    channel.basic_consume("amq.rabbitmq.reply-to", nothing, auto_ack=True)))
refusing("reply-to without a consumer", lambda channel: channel.basic_publish(
    "", "q", b"", pika.BasicProperties(reply_to="amq.rabbitmq.reply-to")))
refusing("declare a reply queue", lambda channel: channel.queue_declare("amq.rabbitmq.reply-to"))
refusing("declare a wrong reply queue", lambda channel: channel.queue_declare("amq.rabbitmq.reply-to.nonsense"))
refusing("passive reply queue of nobody", lambda channel: channel.queue_declare("amq.rabbitmq.reply-to.g1h2.abc==", passive=True))
refusing("purge the reply queue", lambda channel: channel.queue_purge("amq.rabbitmq.reply-to"))
refusing("get from the reply queue", lambda channel: channel.basic_get("amq.rabbitmq.reply-to"))
refusing("delete the reply queue", lambda channel: channel.queue_delete("amq.rabbitmq.reply-to"))
refusing("bind the reply queue", lambda channel: channel.queue_bind("amq.rabbitmq.reply-to", "e", "k"))
for expiration in ("abc", "-1", "1.5", "10s", "", " 5", "+5", "0", "99999999999999999999", "315360000001"):
    refusing(f"expiration {expiration!r}", lambda channel, expiration=expiration: channel.basic_publish(
        "", "q", b"", pika.BasicProperties(expiration=expiration)))
for header in ("CC", "BCC"):
    for value in ("text", 1, ["a", 1], []):
        refusing(f"{header} of {value!r}", lambda channel, header=header, value=value: channel.basic_publish(
            "", "q", b"", pika.BasicProperties(headers={header: value})))
refusing("user-id of another", lambda channel: channel.basic_publish("", "q", b"", pika.BasicProperties(user_id="other")))
refusing("delivery mode 3", lambda channel: channel.basic_publish("", "q", b"", pika.BasicProperties(delivery_mode=3)))
refusing("priority over every level", lambda channel: channel.basic_publish("", "q", b"", pika.BasicProperties(priority=255)))


@probe
def a_queue_of_another_connection(connection):
    owner = connection.channel()
    owner.queue_declare("mine", exclusive=True)
    owner.queue_bind("mine", "amq.direct", "bound")
    other = pika.BlockingConnection(connection._impl.params)
    try:
        acts = {
            "declare": lambda channel: channel.queue_declare("mine", exclusive=True),
            "passive": lambda channel: channel.queue_declare("mine", passive=True),
            "consume": lambda channel: channel.basic_consume("mine", nothing),
            "get": lambda channel: channel.basic_get("mine"),
            "purge": lambda channel: channel.queue_purge("mine"),
            "delete": lambda channel: channel.queue_delete("mine"),
            "bind": lambda channel: channel.queue_bind("mine", "amq.direct"),
            "unbind": lambda channel: channel.queue_unbind("mine", "amq.direct", "bound"),
        }
        return "; ".join(f"{name}: {close_of(other, act)}" for name, act in acts.items())
    finally:
        other.close()


@probe
def unbind_what_is_not_bound_to_the_queue_of_another(connection):
    connection.channel().queue_declare("mine", exclusive=True)
    other = pika.BlockingConnection(connection._impl.params)
    try:
        return close_of(other, lambda channel: channel.queue_unbind("mine", "amq.direct", "unbound"))
    finally:
        other.close()


def table(headers):
    """Headers as text, without times."""
    if isinstance(headers, dict):
        return "{" + ", ".join(f"{key}: {table(value)}" for key, value in sorted(headers.items()) if key != "time") + "}"
    if isinstance(headers, list):
        return "[" + ", ".join(table(value) for value in headers) + "]"
    return repr(headers)


def wait_get(connection, channel, queue):
    """A message, which may still be on its way."""
    for _ in range(100):
        found = channel.basic_get(queue)
        if found[0]:
            return found
        connection.sleep(0.05)
    return None, None, None


def dying(name, arguments, kill, properties=None, key="dying", count=1):
    """A probe of how a message looks after it was dead-lettered."""

    def die(connection):
        channel = connection.channel()
        channel.queue_declare("dead", exclusive=True)
        channel.queue_declare("dying", exclusive=True, arguments={
            "x-dead-letter-exchange": "", "x-dead-letter-routing-key": "dead", **arguments})
        for number in range(count):
            channel.basic_publish("", key, b"%d" % number, properties or pika.BasicProperties())
        kill(connection, channel)
        method, found, body = wait_get(connection, channel, "dead")
        if not method:
            return "nothing"
        return f"{body!r} {method.exchange!r} {method.routing_key!r} {found.expiration} {table(found.headers)}"

    PROBES["dead letter: " + name] = die


def reject(connection, channel):
    """Takes and rejects the first."""
    method, _, _ = wait_get(connection, channel, "dying")
    channel.basic_reject(method.delivery_tag, requeue=False)


dying("rejected", {}, reject)
dying("expired", {"x-message-ttl": 1}, nothing)
dying("expired by itself", {}, nothing, pika.BasicProperties(expiration="1"))
dying("too many", {"x-max-length": 1}, nothing, count=2)
dying("too many bytes", {"x-max-length-bytes": 1}, nothing, count=2)
dying("refused to a dlx", {"x-max-length": 1, "x-overflow": "reject-publish-dlx"}, nothing, count=2)
dying("with CC", {}, reject, pika.BasicProperties(headers={"CC": ["other"], "BCC": ["hidden"], "h": 1}))


@probe
def deaths_again(connection):
    channel = connection.channel()
    channel.queue_declare("one", exclusive=True, arguments={"x-dead-letter-exchange": "", "x-dead-letter-routing-key": "two"})
    channel.queue_declare("two", exclusive=True, arguments={
        "x-dead-letter-exchange": "", "x-dead-letter-routing-key": "one", "x-message-ttl": 1})
    channel.basic_publish("", "one", b"m", pika.BasicProperties(expiration="100000"))
    seen = []
    for _ in range(3):
        method, found, _ = wait_get(connection, channel, "one")
        seen.append(table(found.headers) if found else "nothing")
        if method:
            channel.basic_reject(method.delivery_tag, requeue=False)
    return "; ".join(seen)


@probe
def a_cycle_without_rejections(connection):
    channel = connection.channel()
    channel.queue_declare("loop", exclusive=True, arguments={
        "x-dead-letter-exchange": "", "x-dead-letter-routing-key": "loop", "x-message-ttl": 1})
    channel.basic_publish("", "loop", b"m")
    connection.sleep(0.5)
    return str(channel.queue_declare("loop", passive=True).method.message_count)


@probe
def rejected_publishes_are_nacked(connection):
    channel = connection.channel()
    channel.confirm_delivery()
    channel.queue_declare("full", exclusive=True, arguments={"x-max-length": 1, "x-overflow": "reject-publish"})
    seen = []
    for _ in range(3):
        try:
            channel.basic_publish("", "full", b"m")
            seen.append("ack")
        except pika.exceptions.NackError:
            seen.append("nack")
    return " ".join(seen)


@probe
def a_queue_of_length_zero(connection):
    channel = connection.channel()
    channel.confirm_delivery()
    channel.queue_declare("none", exclusive=True, arguments={"x-max-length": 0})
    channel.basic_publish("", "none", b"m")
    return str(channel.queue_declare("none", passive=True).method.message_count)


@probe
def bytes_of_unacked_do_not_count(connection):
    channel = connection.channel()
    channel.confirm_delivery()
    channel.queue_declare("bytes", exclusive=True, arguments={"x-max-length-bytes": 10})
    channel.basic_publish("", "bytes", b"12345678")
    channel.basic_get("bytes")
    channel.basic_publish("", "bytes", b"abcdefgh")
    count = channel.queue_declare("bytes", passive=True).method.message_count
    channel.basic_recover(requeue=True)
    after = channel.queue_declare("bytes", passive=True).method.message_count
    return f"{count} {after} {channel.basic_get('bytes')[2]!r}"


@probe
def the_order_of_priorities(connection):
    channel = connection.channel()
    channel.queue_declare("levels", exclusive=True, arguments={"x-max-priority": 3})
    for number, priority in enumerate((None, 1, 200, 3, 2, 0)):
        channel.basic_publish("", "levels", b"%d" % number, pika.BasicProperties(priority=priority))
    return " ".join(f"{found[2].decode()}:{found[1].priority}" for found in (channel.basic_get("levels") for _ in range(6)))


def matching(name, arguments, headers):
    """A probe of whether a headers binding takes a message."""

    def match(connection):
        channel = connection.channel()
        channel.confirm_delivery()
        channel.queue_declare("h", exclusive=True)
        channel.queue_bind("h", "amq.headers", "", arguments)
        channel.basic_publish("amq.headers", "", b"", pika.BasicProperties(headers=headers))
        return str(channel.queue_declare("h", passive=True).method.message_count)

    PROBES["headers: " + name] = match


for mode in ("all", "any"):
    for left, right in ((1, 1), (1, 2**40), (5, "5"), (1, True), (1, 1.0), (None, 7), (None, None), ("a", "a"), ([1], [1]), ({"a": 1}, {"a": 1})):
        matching(f"{mode} {left!r} and {right!r}", {"x-match": mode, "k": left}, {"k": right})
    matching(f"{mode} of nothing", {"x-match": mode}, {"k": 1})
    matching(f"{mode} x- ignored", {"x-match": mode, "x-k": 1, "k": 1}, {"k": 1})
    matching(f"{mode} only x-", {"x-match": mode, "x-k": 1}, {"x-k": 1})
    matching(f"{mode} missing", {"x-match": mode, "k": 1}, {"other": 1})
    matching(f"{mode} one of two", {"x-match": mode, "k": 1, "l": 2}, {"k": 1})


def topic(pattern, key):
    """A probe of whether a topic binding takes a key."""

    def route(connection):
        channel = connection.channel()
        channel.confirm_delivery()
        channel.queue_declare("t", exclusive=True)
        channel.queue_bind("t", "amq.topic", pattern)
        channel.basic_publish("amq.topic", key, b"")
        return str(channel.queue_declare("t", passive=True).method.message_count)

    PROBES[f"topic: {pattern!r} takes {key!r}"] = route


for pattern in ("#", "", "*", "*.*", "a.#", "#.a", "a.#.b", "*.#", "#.#", "a*"):
    for key in ("", ".", "a", "a.", "a.b", "a.x.b", "..a"):
        topic(pattern, key)


@probe
def mandatory_returns(connection):
    channel = connection.channel()
    channel.confirm_delivery()
    try:
        channel.basic_publish("amq.direct", "nowhere", b"m", pika.BasicProperties(headers={"BCC": ["x"], "CC": ["y"]}), mandatory=True)
    except pika.exceptions.UnroutableError as error:
        returned = error.messages[0]
        return f"{returned.method.reply_code} {returned.method.reply_text} {returned.method.exchange} {returned.properties.headers}"
    return "routed"


@probe
def an_auto_delete_queue_goes_with_its_consumer(connection):
    channel = connection.channel()
    channel.queue_declare("auto", auto_delete=True)
    tag = channel.basic_consume("auto", nothing)
    channel.basic_cancel(tag)
    return close_of(connection, lambda other: other.queue_declare("auto", passive=True))


@probe
def an_auto_delete_exchange_goes_with_its_binding(connection):
    channel = connection.channel()
    channel.exchange_declare("auto", "fanout", auto_delete=True)
    channel.queue_declare("bound", exclusive=True)
    channel.queue_bind("bound", "auto")
    channel.queue_unbind("bound", "auto", "")
    return close_of(connection, lambda other: other.exchange_declare("auto", passive=True))


@probe
def a_global_prefetch(connection):
    channel = connection.channel()
    channel.queue_declare("g", exclusive=True)
    seen = []
    channel.basic_qos(prefetch_count=3, global_qos=True)
    for tag in ("a", "b"):
        channel.basic_consume("g", lambda *found: seen.append(found[1].delivery_tag), consumer_tag=tag)
    for _ in range(10):
        channel.basic_publish("", "g", b"m")
    connection.sleep(0.3)
    before = len(seen)
    channel.basic_ack(0, multiple=True)
    connection.sleep(0.3)
    return f"{before} then {len(seen)}"


@probe
def consumer_priorities(connection):
    channel = connection.channel()
    channel.queue_declare("p", exclusive=True)
    seen = []
    channel.basic_qos(prefetch_count=2)
    for tag, priority in (("low", -1), ("high", 7), ("none", None)):
        arguments = {} if priority is None else {"x-priority": priority}
        channel.basic_consume("p", lambda _, method, *__: seen.append(method.consumer_tag), consumer_tag=tag, arguments=arguments)
    for _ in range(5):
        channel.basic_publish("", "p", b"m")
    connection.sleep(0.3)
    return " ".join(sorted(seen))


@probe
def a_cancelled_consumer_is_told(connection):
    channel = connection.channel()
    channel.queue_declare("gone")
    told = []
    channel.add_on_cancel_callback(lambda frame: told.append(frame.method.consumer_tag))
    channel.basic_consume("gone", nothing, consumer_tag="t")
    close_of(connection, lambda other: other.queue_delete("gone"))
    connection.sleep(0.2)
    return str(told)


@probe
def a_direct_reply(connection):
    channel = connection.channel()
    channel.queue_declare("requests", exclusive=True)
    seen = []
    channel.basic_consume("amq.rabbitmq.reply-to", lambda _, method, __, body: seen.append(
        (method.exchange, method.redelivered, method.delivery_tag, body)), auto_ack=True)
    channel.basic_publish("", "requests", b"ask", pika.BasicProperties(reply_to="amq.rabbitmq.reply-to"))
    _, properties, _ = wait_get(connection, channel, "requests")
    address = properties.reply_to
    probed = channel.queue_declare(address, passive=True).method
    channel.basic_publish("", address, b"answer", mandatory=True)
    connection.sleep(0.3)
    return f"{seen} {probed.message_count} {probed.consumer_count} {address.count('.')}"
