#!/usr/bin/env python3
"""Measures deep queues, many queues and restarts, Leveret beside RabbitMQ. benches/README.md says how to read it."""

import argparse
import json
import os
import selectors
import signal
import statistics
import struct
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "interop"))

from brokers import BrokerError, Leveret, RabbitMQ, install_rabbitmq  # noqa: E402
from suite.raw_amqp import DECLARE_OK, DELIVER, METHOD, Closed, Connection, ids, long, method, short  # noqa: E402

MEBIBYTE = 1024 * 1024
FIRST_DELIVERY_SECONDS = 120
PARTS = 10
DURABLE = ["--durable", "--persistent"]


def parse_arguments():
    target = Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target"))
    parser = argparse.ArgumentParser(description=__doc__, epilog="Sections: " + ", ".join(SECTIONS))
    parser.add_argument("sections", nargs="*", help="which to run [all]")
    parser.add_argument("--leveret", default=target / "release" / "leveret", metavar="PATH")
    parser.add_argument("--perf", default=target / "release" / "leveretperf", metavar="PATH")
    parser.add_argument("--no-rabbitmq", action="store_true", help="leave RabbitMQ out")
    parser.add_argument("--scale", type=float, default=1.0, help="part of the full numbers of messages and queues [1]")
    parser.add_argument("--data-dir", default=target / "bench-depth", type=Path, metavar="DIR")
    parser.add_argument("--json", metavar="FILE", help="also write every figure there")
    arguments = parser.parse_args()
    unknown = set(arguments.sections) - set(SECTIONS)
    if unknown:
        parser.error(f"no section {', '.join(unknown)}; there are {', '.join(SECTIONS)}")
    return arguments


class Bench:
    """What has been measured so far, as (section, figure, broker) -> value."""

    def __init__(self, arguments):
        self.arguments = arguments
        self.figures = {}

    def note(self, section, figure, broker, value, unit=""):
        self.figures[(section, figure, broker.name)] = value
        print(f"{section:14} {broker.name:9} {figure:42} {value:12,.2f} {unit}", flush=True)

    def brokers(self, with_rabbitmq=True):
        yield lambda: Leveret(self.arguments.leveret, self.arguments.data_dir / "leveret")
        if with_rabbitmq and not self.arguments.no_rabbitmq:
            yield lambda: RabbitMQ(self.arguments.data_dir / "rabbitmq")

    def scaled(self, number):
        return max(PARTS, int(number * self.arguments.scale))

    def perf(self, broker, *options, count):
        """One leveretperf run over `count` messages; gives its figures."""
        command = [self.arguments.perf, "--uri", broker.uri, "--broker-pid", str(broker.pid), "--json"]
        outcome = subprocess.run(
            [*command, "--count", str(count), *options], capture_output=True, text=True, timeout=3600, check=False
        )
        if outcome.returncode != 0:
            raise BrokerError(f"{broker.name}: {outcome.stderr.strip()}")
        return json.loads(outcome.stdout)

    def print_ratios(self):
        print("\nLeveret / RabbitMQ")
        for (section, figure, name), value in self.figures.items():
            other = self.figures.get((section, figure, "RabbitMQ"))
            if name == "Leveret" and other and value:
                print(f"{section:14} {figure:42} {value / other:10.2f}")


def crash_and_restart(broker):
    """kill -9, then a start on the same directory; gives the seconds to the first greeting."""
    os.kill(broker.pid, signal.SIGKILL)
    broker.wait_until_gone()
    return broker.start().start_seconds


def first_delivery(broker, queue):
    """Seconds from starting the broker's process to the first message in a consumer's hands."""
    began = time.monotonic() - broker.start_seconds
    connection = Connection(broker.uri)
    frames = connection.consume(queue, 1)
    while not any(kind == METHOD and ids.unpack_from(payload) == DELIVER for kind, payload in frames):
        if time.monotonic() - began > FIRST_DELIVERY_SECONDS:
            raise BrokerError(f"{broker.name} delivers nothing after {FIRST_DELIVERY_SECONDS} s")
        frames = connection.frames()
    took = time.monotonic() - began
    connection.close()
    return took


def disk_bytes(broker):
    """Of all files of its data directory, as the file system allots them."""
    files = (path for path in (broker.directory / "data").rglob("*") if path.is_file())
    return sum(path.stat().st_blocks * 512 for path in files)


def written_bytes(broker):
    """What the process has had written to disk so far."""
    lines = Path(f"/proc/{broker.pid}/io").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("write_bytes"))


def backlog(bench, section, messages, size, with_rabbitmq):
    """Fills one queue in parts, kills and restarts the broker, drains the queue."""
    messages = bench.scaled(messages) // PARTS * PARTS
    for make in bench.brokers(with_rabbitmq):
        with make() as broker:
            broker.start()
            options = ["--queue", "deep", "--size", str(size), *DURABLE]
            fill = [*options, "--publish-only", "--confirm-window", "1000"]
            rates, peak = [], 0
            for _ in range(PARTS):
                run = bench.perf(broker, *fill, count=messages // PARTS)
                rates.append(run["confirmed_per_second"])
                peak = max(peak, run["broker_peak_rss_bytes"])
            bench.note(section, "fill, confirmed (median of parts)", broker, statistics.median(rates), "msg/s")
            bench.note(section, "last part / first part", broker, rates[-1] / rates[0])
            bench.note(section, "resident memory after the fill", broker, broker.rss_bytes() / MEBIBYTE, "MiB")
            bench.note(section, "its peak", broker, peak / MEBIBYTE, "MiB")
            bench.note(section, "disk / payload after the fill", broker, disk_bytes(broker) / (messages * size))
            crash_and_restart(broker)
            bench.note(section, "kill -9, restart to first delivery", broker, first_delivery(broker, "deep"), "s")
            time.sleep(1)
            drain = bench.perf(broker, "--queue", "deep", "--consume-only", "--ack-every", "100", count=messages)
            bench.note(section, "drain with acks", broker, drain["consumed_per_second"], "msg/s")
            bench.note(section, "resident memory after the drain", broker, broker.rss_bytes() / MEBIBYTE, "MiB")
            # Space comes back in the background.
            least = disk_bytes(broker)
            for _ in range(20):
                time.sleep(0.5)
                least = min(least, disk_bytes(broker))
            bench.note(section, "disk 10 s after the drain", broker, least / MEBIBYTE, "MiB")


def deep_kib(bench):
    """1 million x 1 KiB persistent with confirms."""
    backlog(bench, "deep-kib", 1_000_000, 1024, with_rabbitmq=True)


def deep_small(bench):
    """10 million x 100 B."""
    backlog(bench, "deep-small", 10_000_000, 100, with_rabbitmq=False)


def deep_two(bench):
    """2 million x 1 KiB."""
    backlog(bench, "deep-two", 2_000_000, 1024, with_rabbitmq=False)


def purge(bench):
    """10 million x 100 B, then queue.purge, and the same again with queue.delete."""
    messages = bench.scaled(10_000_000)
    for make in bench.brokers(with_rabbitmq=False):
        with make() as broker:
            broker.start()
            for word in ("purge", "delete"):
                options = ["--queue", "deep", "--size", "100", *DURABLE, "--publish-only", "--confirm-window", "1000"]
                bench.perf(broker, *options, count=messages)
                connection = Connection(broker.uri)
                began = time.monotonic()
                if word == "purge":
                    connection.call((50, 30), b"\0\0" + short("deep") + b"\0", (50, 31))
                else:
                    connection.delete("deep")
                bench.note("purge", f"{word} answered after", broker, (time.monotonic() - began) * 1e3, "ms")
                connection.close()
                least = disk_bytes(broker)
                for _ in range(20):
                    time.sleep(0.5)
                    least = min(least, disk_bytes(broker))
                bench.note("purge", f"disk 10 s after the {word}", broker, least / MEBIBYTE, "MiB")


def queues(bench):
    """10,000 durable queues declared by 64 clients, each waiting for its answer."""
    number = bench.scaled(10_000)
    for make in bench.brokers():
        with make() as broker:
            broker.start()
            seconds = declare_many(broker, number, 64)
            bench.note("queues", "declared by 64 clients", broker, number / seconds, "queues/s")
            bench.note("queues", "resident memory with them", broker, broker.rss_bytes() / MEBIBYTE, "MiB")
            bench.note("queues", "kill -9, restart to first greeting", broker, crash_and_restart(broker), "s")
            left = Connection(broker.uri)
            if left.declare(f"q{number - 1}") != 0:
                raise BrokerError(f"{broker.name} holds a message nobody published")
            left.close()


def declare_many(broker, number, clients):
    """Each client declares its share one after the other; gives the seconds for all."""
    waiting = selectors.DefaultSelector()
    shares = []
    for client in range(clients):
        connection = Connection(broker.uri)
        shares.append([connection, client])
        waiting.register(connection.socket, selectors.EVENT_READ, shares[-1])
    began = time.monotonic()
    open_ = 0
    for share in shares:
        open_ += declare_next(share, number, clients)
    while open_:
        for key, _ in waiting.select():
            share = key.data
            for kind, payload in share[0].frames():
                if kind == METHOD and ids.unpack_from(payload) == DECLARE_OK and not declare_next(share, number, clients):
                    open_ -= 1
    seconds = time.monotonic() - began
    for connection, _ in shares:
        connection.close()
    return seconds


def declare_next(share, number, clients):
    """Sends the next declaration of a client; 0 when it has none left."""
    connection, next_queue = share
    if next_queue >= number:
        return 0
    connection.send(method(1, (50, 10), b"\0\0" + short(f"q{next_queue}") + b"\x02" + long(b"")))
    share[1] = next_queue + clients
    return 1


def fan_out(bench):
    """1 KiB persistent messages to 10 durable queues without consumers."""
    messages = bench.scaled(100_000)
    for make in bench.brokers():
        with make() as broker:
            broker.start()
            rates = []
            for _ in range(3):
                run = bench.perf(
                    broker, "--size", "1024", *DURABLE, "--exchange-type", "fanout", "--queues", "10", "--publish-only",
                    "--confirm-window", "1000", count=messages,
                )
                rates.append(run["confirmed_per_second"])
            bench.note("fan-out", "published to 10 queues, confirmed", broker, statistics.median(rates), "msg/s")


def steady(bench):
    """A million messages through a queue that holds 100,000 all the time: bytes written per byte of payload.

    Each new message pushes out the oldest, which is read and acked for it; a consumer would soon have emptied the queue.
    """
    depth, messages, size = bench.scaled(100_000), bench.scaled(1_000_000), 1024
    for make in bench.brokers(with_rabbitmq=False):
        with make() as broker:
            broker.start()
            options = ["--queue", "steady", "--size", str(size), *DURABLE, "--queue-arg", f"x-max-length={depth}"]
            fill = [*options, "--publish-only", "--confirm-window", "1000"]
            bench.perf(broker, *fill, count=depth)
            before = written_bytes(broker)
            run = bench.perf(broker, *fill, count=messages)
            time.sleep(5)
            bench.note("steady", "bytes written / payload", broker, (written_bytes(broker) - before) / (messages * size))
            bench.note("steady", "through it, confirmed", broker, run["confirmed_per_second"], "msg/s")
            bench.note("steady", "resident memory", broker, broker.rss_bytes() / MEBIBYTE, "MiB")


SECTIONS = {
    "deep-kib": deep_kib,
    "deep-small": deep_small,
    "deep-two": deep_two,
    "purge": purge,
    "queues": queues,
    "fan-out": fan_out,
    "steady": steady,
}


def main():
    arguments = parse_arguments()
    bench = Bench(arguments)
    arguments.data_dir.mkdir(parents=True, exist_ok=True)
    try:
        if not arguments.no_rabbitmq:
            install_rabbitmq()
        for name in arguments.sections or SECTIONS:
            SECTIONS[name](bench)
    except (BrokerError, Closed) as error:
        print(f"bench-depth: {error}", file=sys.stderr)
        return 1
    bench.print_ratios()
    if arguments.json:
        rows = [{"section": s, "figure": f, "broker": b, "value": v} for (s, f, b), v in bench.figures.items()]
        Path(arguments.json).write_text(json.dumps(rows, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
