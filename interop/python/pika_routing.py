"""Every kind of exchange and every way to route, with pika."""

import pika
import pika.exceptions

from pika_scenarios import channel_to, declare, get, ready
from scenarios import same, unique

KEYS = 200


def bodies(channel, queue):
    """Everything that waits in a queue, taken out of it."""
    found = []
    while True:
        method, _, body = channel.basic_get(queue, auto_ack=True)
        if method is None:
            return found
        found.append(body.decode())


def exchange(channel, name, kind, **arguments):
    """An exchange of this run that goes with its last binding."""
    name = unique(name)
    channel.exchange_declare(name, exchange_type=kind, auto_delete=True, **arguments)
    return name


def consistent_hash(uri):
    with channel_to(uri) as channel:
        channel.confirm_delivery()
        light, heavy = declare(channel, "hash-light"), declare(channel, "hash-heavy")
        for name, arguments, properties in (
            ("hash-key", None, lambda _: None),
            ("hash-header", {"hash-header": "on"}, lambda n: pika.BasicProperties(headers={"on": f"k{n}"})),
            ("hash-property", {"hash-property": "message_id"}, lambda n: pika.BasicProperties(message_id=f"k{n}")),
        ):
            source = exchange(channel, name, "x-consistent-hash", arguments=arguments)
            channel.queue_bind(light, source, "1")
            channel.queue_bind(heavy, source, "3")
            rounds = []
            for _ in range(2):
                for number in range(KEYS):
                    key = f"k{number}" if arguments is None else ""
                    channel.basic_publish(source, key, f"k{number}".encode(), properties(number))
                rounds.append((sorted(bodies(channel, light)), sorted(bodies(channel, heavy))))
            same(rounds[1], rounds[0], f"{name}: a value goes the same way every time")
            few, many = map(len, rounds[0])
            same(few + many, KEYS, f"{name}: one queue each")
            assert 0 < few < many, f"{name}: weights 1 and 3 shared {few} and {many}"
        channel.queue_delete(light)
        channel.queue_delete(heavy)


def random_exchange(uri):
    with channel_to(uri) as channel:
        channel.confirm_delivery()
        queues = [declare(channel, f"random-{number}") for number in range(3)]
        source = exchange(channel, "random", "x-random")
        for queue in queues:
            channel.queue_bind(queue, source, "ignored")
        for number in range(KEYS):
            channel.basic_publish(source, "any", str(number).encode())
        counts = [len(bodies(channel, queue)) for queue in queues]
        same(sum(counts), KEYS, "one queue each")
        assert min(counts) > 0, f"shared as {counts}"
        for queue in queues:
            channel.queue_delete(queue)


def modulus_hash(uri):
    with channel_to(uri) as channel:
        channel.confirm_delivery()
        queues = [declare(channel, f"modulus-{number}") for number in range(3)]
        source = exchange(channel, "modulus", "x-modulus-hash")
        for queue in queues:
            channel.queue_bind(queue, source, "ignored")
        rounds = []
        for _ in range(2):
            for number in range(KEYS):
                channel.basic_publish(source, f"k{number}", str(number).encode())
            rounds.append([bodies(channel, queue) for queue in queues])
        same(rounds[1], rounds[0], "a key goes the same way every time")
        same(sum(map(len, rounds[0])), KEYS, "one queue each")
        assert all(rounds[0]), f"shared as {list(map(len, rounds[0]))}"
        for queue in queues:
            channel.queue_delete(queue)


def recent_history(uri):
    with channel_to(uri) as channel:
        channel.confirm_delivery()
        early, late = declare(channel, "history-early"), declare(channel, "history-late")
        source = exchange(channel, "history", "x-recent-history", arguments={"x-recent-history-length": 2})
        channel.queue_bind(early, source, "")
        for body in ("a", "b", "c"):
            channel.basic_publish(source, "", body.encode())
        no_store = pika.BasicProperties(headers={"x-recent-history-no-store": True})
        channel.basic_publish(source, "", b"unstored", no_store)
        channel.queue_bind(late, source, "")
        same(bodies(channel, early), ["a", "b", "c", "unstored"], "the queue bound from the start")
        same(sorted(bodies(channel, late)), ["b", "c"], "the queue bound late")
        channel.queue_delete(early)
        channel.queue_delete(late)


def headers_matching(uri):
    with channel_to(uri) as channel:
        queue = declare(channel, "headers-matching")
        source = exchange(channel, "headers-kept", "headers", durable=True)
        anchor = declare(channel, "headers-anchor")
        channel.queue_bind(anchor, source, "", {"never": "matches"})
        both, one = {"colour": "red", "x-size": 1}, {"colour": "red", "x-size": 2}
        for match, wanted, found in (
            ("all", both, ["both", "one"]),  # headers that begin with x- do not count
            ("any", {"colour": "blue", "x-size": 1}, []),
            ("all-with-x", both, ["both"]),
            ("any-with-x", {"colour": "blue", "x-size": 1}, ["both"]),
        ):
            arguments = {"x-match": match, **wanted}
            channel.queue_bind(queue, source, "", arguments)
            for name, headers in (("both", both), ("one", one), ("other", {"shape": "round"})):
                channel.basic_publish(source, "", name.encode(), pika.BasicProperties(headers=headers))
            same(bodies(channel, queue), found, match)
            channel.queue_unbind(queue, source, "", arguments)
        channel.queue_delete(queue)
        channel.queue_delete(anchor)


def alternate_exchange(uri):
    with channel_to(uri) as channel:
        channel.confirm_delivery()
        queue, lost = declare(channel, "alternate-queue"), declare(channel, "alternate-lost")
        alternate = exchange(channel, "alternate", "fanout")
        channel.queue_bind(lost, alternate)
        source = exchange(channel, "alternated", "direct", arguments={"alternate-exchange": alternate})
        channel.queue_bind(queue, source, "known")
        channel.basic_publish(source, "known", b"known", mandatory=True)
        channel.basic_publish(source, "unknown", b"unknown", mandatory=True)  # pika raises if it is returned
        same(bodies(channel, queue), ["known"], "the bound queue")
        same(bodies(channel, lost), ["unknown"], "the alternate's queue")
        channel.queue_delete(queue)
        channel.queue_delete(lost)


def exchange_cycle(uri):
    with channel_to(uri) as channel:
        channel.confirm_delivery()
        queue = declare(channel, "cycle")
        inner = unique("cycle-inner")
        channel.exchange_declare(inner, "fanout", internal=True)
        outer = unique("cycle-outer")
        channel.exchange_declare(outer, "fanout")
        channel.exchange_bind(inner, outer)
        channel.exchange_bind(outer, inner)
        channel.queue_bind(queue, inner)
        channel.queue_bind(queue, outer)
        channel.basic_publish(outer, "round", b"once")
        same(bodies(channel, queue), ["once"], "a cycle and two bindings bring one copy")
        refused = channel.connection.channel()
        refused.confirm_delivery()
        try:
            refused.basic_publish(inner, "", b"from a client")
        except pika.exceptions.ChannelClosedByBroker as error:
            same(error.reply_code, 403, "publishing to an internal exchange")
            assert "internal" in error.reply_text, error.reply_text
        else:
            raise AssertionError("an internal exchange took a client's message")
        for name in (inner, outer):
            channel.exchange_delete(name)
        channel.queue_delete(queue)


def carbon_copies(uri):
    with channel_to(uri) as channel:
        channel.confirm_delivery()
        queues = [declare(channel, f"copies-{name}") for name in ("to", "cc", "bcc")]
        to, cc, bcc = queues
        headers = {"CC": [cc, to], "BCC": [bcc], "other": 1}
        channel.basic_publish("", to, b"copied", pika.BasicProperties(headers=headers))
        for queue in queues:
            method, properties, _ = get(channel, queue)
            same(properties.headers, {"CC": [cc, to], "other": 1}, f"headers in {queue}: BCC is taken away")
            same(method.routing_key, to, "the routing key stays the publisher's")
            same(ready(channel, queue), 0, f"one copy in {queue}")
            channel.queue_delete(queue)
        refused = channel.connection.channel()
        refused.confirm_delivery()
        try:
            refused.basic_publish("", to, b"", pika.BasicProperties(headers={"CC": "not a list"}, delivery_mode=2))
        except pika.exceptions.ChannelClosedByBroker as error:
            same(error.reply_code, 406, "a CC that is no list")
        else:
            raise AssertionError("a CC that is no list was taken")


SCENARIOS = (
    consistent_hash,
    random_exchange,
    modulus_hash,
    recent_history,
    headers_matching,
    alternate_exchange,
    exchange_cycle,
    carbon_copies,
)
