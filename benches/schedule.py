#!/usr/bin/env python3
"""Measures scheduled messages: a backlog spread over an hour, due messages beside newly scheduled ones, a restart, and
expiry with random times to live. benches/README.md says how to read it."""

import argparse
import os
import random
import re
import signal
import struct
import sys
import threading
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "interop"))

from brokers import Leveret, RabbitMQ  # noqa: E402
from suite.raw_amqp import ACK, BODY, HEADER, METHOD, NACK, Connection, frame, ids, long, method, short  # noqa: E402

MEBIBYTE = 1024 * 1024
BODY_OCTETS = 100
WINDOW = 20_000
CHUNK = 1_000
DUE = re.compile(rb"due=(\d{13})")


def parse_arguments():
    target = Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target"))
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--leveret", default=target / "release" / "leveret", metavar="PATH")
    parser.add_argument("--data-dir", default=target / "bench-schedule", type=Path, metavar="DIR")
    parser.add_argument("--backlog", type=int, default=10_000_000, help="messages spread over an hour [10000000]")
    parser.add_argument("--rate", type=int, default=20_000, help="messages per second that are scheduled and fall due")
    parser.add_argument("--seconds", type=int, default=20, help="for so long [20]")
    parser.add_argument("--expiring", type=int, default=1_000_000, help="messages with random times to live [1000000]")
    parser.add_argument(
        "--spread", type=int, default=20, help="seconds over which they expire; from 3600 on, only so many --seconds are watched"
    )
    parser.add_argument("--transient", action="store_true", help="the expiring messages are not persistent")
    parser.add_argument("--retrying", type=int, default=1_000_000, help="messages that wait for another attempt [1000000]")
    parser.add_argument("--rabbitmq", action="store_true", help="expiry on Debian's RabbitMQ instead")
    return parser.parse_args()


def now_ms():
    return time.time_ns() // 1_000_000


def properties_by_time():
    """Content header of a persistent message up to the due time, which is its last 8 octets but for delivery-mode."""
    name = b"x-opt-delivery-time"
    table_octets = 1 + len(name) + 1 + 8
    return struct.pack(">HHQHI", 60, 0, BODY_OCTETS, 0x3000, table_octets) + bytes([len(name)]) + name + b"l"


class Publisher:
    """Publishes to one queue with confirms, many messages per write."""

    def __init__(self, broker, queue, arguments=b""):
        self.connection = Connection(broker.uri)
        self.connection.declare(queue, arguments)
        self.connection.select_confirms()
        self.method = method(1, (60, 40), b"\0\0" + short("") + short(queue) + b"\0")
        self.sent = 0
        self.confirmed = 0

    def write(self, contents):
        """Writes messages, each a content header's payload and a body, and waits while too many are unconfirmed."""
        parts = []
        for head, body in contents:
            parts += (self.method, frame(HEADER, 1, head), frame(BODY, 1, body))
        self.sent += len(parts) // 3
        self.connection.send(b"".join(parts))
        while self.sent - self.confirmed > WINDOW:
            self.read()

    def read(self):
        for kind, payload in self.connection.frames():
            if kind == METHOD and ids.unpack_from(payload) in (ACK, NACK):
                tag, multiple = struct.unpack_from(">QB", payload, 4)
                self.confirmed = max(self.confirmed, tag) if multiple else self.confirmed + 1

    def finish(self):
        while self.confirmed < self.sent:
            self.read()


def scheduled(count, earliest, latest):
    """Messages due at random between two times."""
    head = properties_by_time()
    for _ in range(count):
        due = random.randint(earliest, latest)
        yield head + struct.pack(">qB", due, 2), b"due=%d" % due + bytes(BODY_OCTETS - 17)


def chunks(messages):
    chunk = []
    for message in messages:
        chunk.append(message)
        if len(chunk) == CHUNK:
            yield chunk
            chunk = []
    if chunk:
        yield chunk


def note(figure, value, unit=""):
    print(f"{figure:52} {value:12,.2f} {unit}", flush=True)


def fill(broker, count):
    """A backlog spread over an hour that begins in two minutes."""
    publisher = Publisher(broker, "later")
    began, cpu = time.monotonic(), broker.cpu_seconds()
    start = now_ms() + 120_000
    for chunk in chunks(scheduled(count, start, start + 3_600_000)):
        publisher.write(chunk)
    publisher.finish()
    note("backlog scheduled", count / (time.monotonic() - began), "messages/s")
    note("CPU for each", (broker.cpu_seconds() - cpu) / count * 1e6, "us")
    note("resident memory", broker.rss_bytes() / MEBIBYTE, "MiB")


class Consumer(threading.Thread):
    """Takes what is due and notes how late it is."""

    def __init__(self, broker, queue):
        super().__init__(daemon=True)
        self.connection = Connection(broker.uri)
        self.connection.declare(queue)
        # No acks: what is measured is the time of leaving.
        arguments = b"\0\0" + short(queue) + short("c") + b"\x02" + long(b"")
        self.connection.send(method(1, (60, 20), arguments))
        self.late = []

    def run(self):
        try:
            while True:
                octets = self.connection.socket.recv(1 << 18)
                if not octets:
                    return
                now = now_ms()
                self.late += [now - int(due) for due in DUE.findall(octets)]
        except OSError:
            return


def steady(broker, rate, seconds):
    """So many scheduled and so many due each second, due 1 to 10 seconds later."""
    publisher, consumer = Publisher(broker, "soon"), Consumer(broker, "soon")
    consumer.start()
    began, cpu, peak = time.monotonic(), broker.cpu_seconds(), 0
    total = rate * (seconds + 10)
    for number in range(total // CHUNK):
        time.sleep(max(0.0, began + number * CHUNK / rate - time.monotonic()))
        now = now_ms()
        publisher.write(scheduled(CHUNK, now + 1_000, now + 10_000))
        peak = max(peak, broker.rss_bytes())
    publisher.finish()
    took = time.monotonic() - began
    cpu = broker.cpu_seconds() - cpu
    while len(consumer.late) < total * 0.999 and time.monotonic() - began < took + 15:
        time.sleep(0.1)
    late = sorted(consumer.late)
    note("scheduled and due", total / took, "messages/s each")
    note("late at the median", late[len(late) // 2], "ms")
    note("late at the 99th percentile", late[len(late) * 99 // 100], "ms")
    note("late at most", late[-1], "ms")
    note("due of those scheduled", len(late) / total * 100, "%")
    note("CPU for each, scheduled and delivered", cpu / total * 1e6, "us")
    note("resident memory at most", peak / MEBIBYTE, "MiB")


def restart(broker):
    os.kill(broker.pid, signal.SIGKILL)
    # All its threads must be gone, or the directory is still locked.
    broker.children.pop().wait()
    broker.start()
    note("start after kill -9", broker.start_seconds, "s")
    time.sleep(3)
    note("resident memory afterwards", broker.rss_bytes() / MEBIBYTE, "MiB")


def exact_cpu_seconds(broker):
    """What the broker's threads took so far, in nanoseconds' steps: its ticks are too coarse for a quiet minute."""
    tasks = Path(f"/proc/{broker.pid}/task").iterdir()
    return sum(int((task / "schedstat").read_text().split()[0]) for task in tasks) / 1e9


def cpu_of(broker, seconds):
    """What the broker takes in so many seconds of being left alone."""
    before = exact_cpu_seconds(broker)
    time.sleep(seconds)
    return exact_cpu_seconds(broker) - before


def expire(broker, count, spread, window, mode):
    """Messages that all expire within `spread` seconds, from 20 s after the first is published, or within an hour. What they
    cost when they expire is the CPU of that time beyond that of an idle broker; what they cost before is what they take to
    publish beyond those that stay. Where they expire within an hour, the idle broker has a million messages that stay."""
    idle = cpu_of(broker, 10) / 10
    body = bytes(BODY_OCTETS)
    plain = struct.pack(">HHQHB", 60, 0, BODY_OCTETS, 0x1000, mode)
    head = struct.pack(">HHQHB", 60, 0, BODY_OCTETS, 0x1100, mode)
    publishing = []
    for queue in ("stays", "expires"):
        publisher = Publisher(broker, queue)
        began, cpu = time.monotonic(), broker.cpu_seconds()

        def message(queue=queue, began=began):
            if queue == "stays":
                return plain
            if spread >= 3600:
                return head + short(str(random.randint(1_000, spread * 1000)))
            gone = time.monotonic() - began
            return head + short(str(int((20 - gone + random.random() * spread) * 1000)))

        for start in range(0, count, CHUNK):
            publisher.write((message(), body) for _ in range(min(CHUNK, count - start)))
        publisher.finish()
        publishing.append((broker.cpu_seconds() - cpu) / count * 1e6)
        if queue == "stays" and spread >= 3600:
            time.sleep(5)
            idle = cpu_of(broker, window) / window
    note("CPU to publish one that stays", publishing[0], "us")
    note("CPU to publish one with a time to live, beyond that", publishing[1] - publishing[0], "us")
    note("resident memory", broker.rss_bytes() / MEBIBYTE, "MiB")
    if spread >= 3600:
        time.sleep(5)
        seconds, expired = window, count * window / spread
    else:
        time.sleep(max(0.0, began + 19.5 - time.monotonic()))
        seconds, expired = spread + 2, count
    cpu = cpu_of(broker, seconds)
    note(f"expired in {seconds} s", expired)
    note("CPU in that time beyond an idle broker, for each", (cpu - idle * seconds) / expired * 1e6, "us")
    note("idle broker", idle * 1000, "ms of CPU per second")
    reader = Publisher(broker, "expires")
    note("still there", reader.connection.declare("expires") or 0)


def retry(broker, count):
    """Messages whose first attempt failed and that wait an hour for the next; then kill -9."""
    arguments = (("x-delayed-retry-type", b"S" + long(b"all")), ("x-delayed-retry-min", b"I" + struct.pack(">i", 3_600_000)))
    table = b"".join(bytes([len(name)]) + name.encode() + value for name, value in arguments)
    publisher = Publisher(broker, "tried", table)
    head, body = struct.pack(">HHQHB", 60, 0, BODY_OCTETS, 0x1000, 2), bytes(BODY_OCTETS)
    for start in range(0, count, CHUNK):
        publisher.write([(head, body)] * min(CHUNK, count - start))
    publisher.finish()
    cpu = broker.cpu_seconds()
    consumer = Connection(broker.uri)
    consumer.declare("tried", table)
    consumer.send(method(1, (60, 20), b"\0\0" + short("tried") + short("c") + b"\0" + long(b"")))
    received = returned = 0
    while received < count:
        received += sum(1 for kind, payload in consumer.frames() if kind == METHOD and ids.unpack_from(payload) == (60, 60))
        if received - returned >= CHUNK or received == count:
            returned = received
            consumer.send(method(1, (60, 120), struct.pack(">QB", returned, 0b11)))
    # Answered behind the last nack.
    note("waiting for another attempt", count)
    note("ready or waiting", consumer.declare("tried", table))
    note("CPU for each, handed out and given back", (broker.cpu_seconds() - cpu) / count * 1e6, "us")
    note("resident memory", broker.rss_bytes() / MEBIBYTE, "MiB")
    restart(broker)
    note("ready or waiting", Connection(broker.uri).declare("tried", table))


def main():
    arguments = parse_arguments()
    broker = (
        RabbitMQ(arguments.data_dir) if arguments.rabbitmq else Leveret(arguments.leveret, arguments.data_dir)
    )
    with broker:
        broker.start()
        note("resident memory when empty", broker.rss_bytes() / MEBIBYTE, "MiB")
        if arguments.backlog and not arguments.rabbitmq:
            fill(broker, arguments.backlog)
            steady(broker, arguments.rate, arguments.seconds)
            restart(broker)
        if arguments.expiring:
            expire(broker, arguments.expiring, arguments.spread, arguments.seconds, 1 if arguments.transient else 2)
        if arguments.retrying and not arguments.rabbitmq:
            retry(broker, arguments.retrying)


if __name__ == "__main__":
    main()
