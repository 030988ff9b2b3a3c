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

from brokers import Leveret  # noqa: E402
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

    def __init__(self, broker, queue):
        self.connection = Connection(broker.uri)
        self.connection.declare(queue)
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


def expire(broker, count):
    """Random times to live, all within ten seconds, beside as many messages without: the difference is expiry."""
    costs = []
    for with_time in (False, True):
        publisher = Publisher(broker, "expires" if with_time else "stays")
        cpu = broker.cpu_seconds()
        plain = struct.pack(">HHQHB", 60, 0, BODY_OCTETS, 0x1000, 1)
        head = struct.pack(">HHQHB", 60, 0, BODY_OCTETS, 0x1100, 1)

        def timed(head=head):
            return head + short(str(random.randint(1_000, 10_000)))

        body = bytes(BODY_OCTETS)
        for start in range(0, count, CHUNK):
            publisher.write((timed() if with_time else plain, body) for _ in range(min(CHUNK, count - start)))
        publisher.finish()
        time.sleep(11)
        costs.append((broker.cpu_seconds() - cpu) / count * 1e6)
    note("CPU for a message that stays", costs[0], "us")
    note("CPU for one that expires, beyond that", costs[1] - costs[0], "us")


def main():
    arguments = parse_arguments()
    with Leveret(arguments.leveret, arguments.data_dir) as broker:
        broker.start()
        note("resident memory when empty", broker.rss_bytes() / MEBIBYTE, "MiB")
        fill(broker, arguments.backlog)
        steady(broker, arguments.rate, arguments.seconds)
        restart(broker)
        if arguments.expiring:
            expire(broker, arguments.expiring)


if __name__ == "__main__":
    main()
