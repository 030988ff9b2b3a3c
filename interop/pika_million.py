#!/usr/bin/env python3
"""The recorded run: persistent messages with confirms, the broker killed with SIGKILL half-way, restarted, all consumed.

    interop/pika_million.py --binary target/release/leveret --messages 1000000

Every message says which life of the broker it was published in, and its number. After the restart, what had not been
confirmed is published again. Then the queue must hold, in this order and with nothing else between:

- of the first life: every confirmed message once, in order; an unconfirmed one at most once, in its place;
- of the second life: every message once, in order.

pika publishes too slowly for a million; a raw socket does it here (suite/raw_amqp.py). `--consumer pika` lets pika do
the consuming, as a second opinion. Prints a summary as JSON; exits 1 if a confirmed message is missing or misplaced.
"""

import argparse
import json
import secrets
import signal
import struct
import subprocess
import sys
import threading
import time

from suite import raw_amqp
from suite.brokers import Leveret, RabbitMQ
from suite.clients import INTEROP, prepared_python

mark = struct.Struct(">BI")  # life, number: the first octets of every body
BATCH = 200
ACK_EVERY = 500
PREFETCH = 2000


class Publisher:
    """Publishes numbered messages with a bounded number of unconfirmed ones, and remembers what was confirmed."""

    def __init__(self, uri, queue, options):
        self.connection = raw_amqp.Connection(uri)
        self.connection.declare(queue)
        self.connection.select_confirms()
        self.before, after = raw_amqp.publication(queue, options.size)
        self.after = bytes(options.size - mark.size) + after
        self.window = options.window
        self.sent = []  # numbers in publishing order: the message with confirm tag t is sent[t - 1]
        self.acked = bytearray()  # a flag for each of them
        self.floor = 0  # all tags up to here are confirmed
        self.count = 0  # confirmed messages

    def publish(self, numbers, life):
        """Publishes the numbers, and returns when all are confirmed."""
        at = 0
        while self.count < len(numbers):
            room = min(self.window - (len(self.sent) - self.count), len(numbers) - at)
            if room >= BATCH or room == len(numbers) - at > 0:
                batch = numbers[at : at + BATCH]
                at += len(batch)
                self.sent.extend(batch)
                self.acked += bytes(len(batch))
                self.connection.send(b"".join([self.before + mark.pack(life, n) + self.after for n in batch]))
            else:
                self.read()

    def read(self):
        """Waits for confirms and notes them."""
        for tag, multiple in raw_amqp.confirmed(self.connection.frames()):
            for each in range(self.floor + 1, tag + 1) if multiple else (tag,):
                if not self.acked[each - 1]:
                    self.acked[each - 1] = 1
                    self.count += 1
            while self.floor < len(self.acked) and self.acked[self.floor]:
                self.floor += 1

    def publish_until_killed(self, numbers, life, broker, kill_at):
        """Publishes at full speed until the broker, killed after `kill_at` confirms, is gone; notes its last confirms."""

        def kill():
            while self.count < kill_at:
                time.sleep(0.001)
            broker.kill()

        # From a thread of its own, so that messages are on their way when the broker dies.
        killing = threading.Thread(target=kill, daemon=True)
        killing.start()
        try:
            self.publish(numbers, life)
            raise AssertionError("everything was confirmed before the broker was killed")
        except raw_amqp.Closed:
            pass
        killing.join()
        try:
            while True:
                self.read()
        except raw_amqp.Closed:
            self.connection.close()

    def confirmed(self):
        """The numbers the broker has confirmed."""
        return {number for number, acked in zip(self.sent, self.acked) if acked}


def consume_raw(uri, queue, count):
    """Consumes and acknowledges that many messages; returns (life, number, redelivered) of each."""
    connection = raw_amqp.Connection(uri)
    found = []
    redelivered, acked = False, 0
    frames = connection.consume(queue, PREFETCH)
    while True:
        for kind, payload in frames:
            if kind == raw_amqp.BODY:
                found.append((*mark.unpack_from(payload), redelivered))
            elif kind == raw_amqp.METHOD and raw_amqp.ids.unpack_from(payload) == raw_amqp.DELIVER:
                redelivered = payload[4 + 1 + payload[4] + 8] != 0
        if len(found) >= acked + ACK_EVERY or len(found) >= count:
            acked = len(found)
            connection.ack(acked)
        if acked >= count:
            left = connection.delete(queue)  # on the same channel, so after the last ack
            connection.close()
            return found, left
        frames = connection.frames()


PIKA_CONSUMER = """
import sys, pika
uri, queue, count = sys.argv[1], sys.argv[2], int(sys.argv[3])
channel = pika.BlockingConnection(pika.URLParameters(uri)).channel()
channel.basic_qos(prefetch_count=2000)
for at, (method, _, body) in enumerate(channel.consume(queue), 1):
    print(body[0], int.from_bytes(body[1:5], "big"), int(method.redelivered))
    if at % 500 == 0 or at == count:
        channel.basic_ack(method.delivery_tag, multiple=True)
    if at == count:
        break
print(channel.queue_delete(queue).method.message_count)
"""


def consume_pika(uri, queue, count):
    """The same with pika, in its own virtual environment."""
    command = [prepared_python(), "-c", PIKA_CONSUMER, uri, queue, str(count)]
    *lines, left = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout.splitlines()
    found = [tuple(map(int, line.split())) for line in lines]
    return [(life, number, redelivered != 0) for life, number, redelivered in found], int(left)


def verify(found, first_confirmed, second_sent):
    """What is wrong with the consumed messages, as sentences; nothing is what we hope for."""
    problems = []
    first = [number for life, number, _ in found if life == 1]
    second = [number for life, number, _ in found if life == 2]
    if [life for life, _, _ in found] != [1] * len(first) + [2] * len(second):
        problems.append("messages of the two lives are mixed")
    misplaced = sum(later <= earlier for earlier, later in zip(first, first[1:]))
    if misplaced:
        problems.append(f"{misplaced} messages of the first life are out of order or double")
    missing = first_confirmed - set(first)
    if missing:
        problems.append(f"{len(missing)} confirmed messages are lost, the first of them {min(missing)}")
    if second != second_sent:
        problems.append(f"of the second life {len(second)} came for {len(second_sent)} sent, or not in order")
    # After a crash RabbitMQ calls all it recovers redelivered: it cannot know. Of the others it must be untrue.
    redelivered = sum(flag for life, _, flag in found if life == 2)
    if redelivered:
        problems.append(f"{redelivered} messages say redelivered, though none was delivered before")
    return problems


def main():
    # Leave through an exception, so that the broker does not outlive us.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("terminated"))
    options = parse_options()
    broker = RabbitMQ() if options.broker == "rabbitmq" else Leveret(options.binary)
    queue = f"million-{secrets.token_hex(4)}"
    clock = time.monotonic
    times = {}
    try:
        broker.start()
        started = clock()
        publisher = Publisher(broker.uri, queue, options)
        publisher.publish_until_killed(range(options.messages), 1, broker, options.messages // 2)
        times["publish_until_kill"] = clock() - started
        first_confirmed = publisher.confirmed()
        started = clock()
        broker.start()
        times["restart"] = clock() - started
        started = clock()
        again = [number for number in range(options.messages) if number not in first_confirmed]
        second = Publisher(broker.uri, queue, options)
        recovered = second.connection.declare(queue)
        second.publish(again, 2)
        ready = second.connection.declare(queue)
        second.connection.close()
        times["publish_the_rest"] = clock() - started
        started = clock()
        consume = consume_pika if options.consumer == "pika" else consume_raw
        found, left = consume(broker.uri, queue, ready)
        times["consume"] = clock() - started
        problems = verify(found, first_confirmed, again)
        if left:
            problems.append(f"{left} messages were left in the queue")
        broker.stop()
    except Exception:
        print(broker.log_tail(), file=sys.stderr)
        raise
    finally:
        broker.remove()
    kept = {number for life, number, _ in found if life == 1}
    summary = {
        "broker": broker.name,
        "messages": options.messages,
        "size": options.size,
        "window": options.window,
        "sent_before_kill": len(publisher.sent),
        "confirmed_before_kill": len(first_confirmed),
        "recovered": recovered,
        "published_again_or_first_after_restart": len(again),
        "consumed": len(found),
        "double_because_unconfirmed_but_kept": len(kept & set(again)),
        "recovered_marked_redelivered": sum(flag for life, _, flag in found if life == 1),
        "consumer": options.consumer,
        "seconds": {name: round(seconds, 2) for name, seconds in times.items()},
        "problems": problems,
        "ok": not problems,
    }
    print(json.dumps(summary, indent=2))
    sys.exit(1 if problems else 0)


def parse_options():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    default_binary = INTEROP.parent / "target" / "release" / "leveret"
    parser.add_argument("--broker", choices=("leveret", "rabbitmq"), default="leveret", help="which broker to start")
    parser.add_argument("--binary", default=default_binary, help="Leveret's binary (default: target/release/leveret)")
    parser.add_argument("--messages", type=int, default=1_000_000, help="how many messages (default: %(default)s)")
    parser.add_argument("--size", type=int, default=1024, help="octets of a body, from 5 (default: %(default)s)")
    parser.add_argument("--window", type=int, default=2000, help="unconfirmed messages at most (default: %(default)s)")
    parser.add_argument("--consumer", choices=("raw", "pika"), default="raw", help="who consumes (default: %(default)s)")
    options = parser.parse_args()
    if options.messages < 2 or options.size < mark.size or options.window < BATCH:
        parser.error(f"at least 2 messages of {mark.size} octets and a window of {BATCH}")
    return options


if __name__ == "__main__":
    main()
