#!/usr/bin/env python3
"""Measures what looking at a broker with many queues costs: pages of the list, scrapes, memory, and what traffic feels of it.

    python3 benches/watching.py --leveret target/release/leveret --perf target/release/leveretperf

benches/README.md says how to read it.
"""

import argparse
import base64
import json
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "interop"))

from brokers import Leveret, spare_port  # noqa: E402
from suite.raw_amqp import DECLARE_OK, Connection, long, method, short  # noqa: E402

MEBIBYTE = 1024 * 1024
LOGIN = "Basic " + base64.b64encode(b"guest:guest").decode()
DURABLE_NOWAIT = bytes([0b10010])
DURABLE = bytes([0b00010])


class Watched(Leveret):
    """Leveret with its HTTP listeners, or without."""

    http = metrics = None

    def start(self, watched=True):
        started = time.monotonic()
        if watched:
            self.http, self.metrics = spare_port(), spare_port()

        def address(port):
            return f"127.0.0.1:{port}" if port else "none"

        command = [self.binary, "--data-dir", self.directory / "data", "--amqp-listen", f"127.0.0.1:{self.port}"]
        command += ["--http-listen", address(self.http), "--metrics-listen", address(self.metrics)]
        child = self.spawn(command, "leveret.log")
        self.pid = child.pid
        self.wait_until_it_answers(child, started)
        return self

    def fetch(self, port, path, gzip=False):
        """Seconds and octets of an answer, read as it comes and thrown away."""
        request = urllib.request.Request(f"http://127.0.0.1:{port}{path}", headers={"Authorization": LOGIN})
        if gzip:
            request.add_header("Accept-Encoding", "gzip")
        began, size = time.monotonic(), 0
        with urllib.request.urlopen(request, timeout=60) as answer:
            while piece := answer.read(1 << 20):
                size += len(piece)
        return time.monotonic() - began, size

    def page(self, query):
        return self.fetch(self.http, f"/api/queues?{query}")

    def scrape(self, path, gzip=True):
        return self.fetch(self.metrics, path, gzip)

    def peak_bytes(self):
        """The most memory it had since the last call."""
        status = Path(f"/proc/{self.pid}/status").read_text()
        peak = next(int(line.split()[1]) * 1024 for line in status.splitlines() if line.startswith("VmHWM"))
        Path(f"/proc/{self.pid}/clear_refs").write_text("5")
        return peak


def declare(broker, number, clients=64):
    """Declares durable queues, each client its share; the last of each is answered."""

    def share(first):
        connection = Connection(broker.uri)
        names = [f"queue-{at:06}" for at in range(first, number, clients)]
        declaring = [method(1, (50, 10), b"\0\0" + short(name) + DURABLE_NOWAIT + long(b"")) for name in names[:-1]]
        connection.send(b"".join(declaring))
        connection.call((50, 10), b"\0\0" + short(names[-1]) + DURABLE + long(b""), DECLARE_OK)
        connection.socket.close()

    threads = [threading.Thread(target=share, args=[first]) for first in range(clients)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def times(take, rounds):
    """Median and slowest of some rounds, milliseconds, and the octets of the last."""
    taken = [take() for _ in range(rounds)]
    seconds = [second for second, _ in taken]
    return statistics.median(seconds) * 1000, max(seconds) * 1000, taken[-1][1]


def perf(arguments, broker, seconds, *options):
    command = [arguments.perf, "--uri", broker.uri, "--json", "--seconds", str(seconds), *options]
    outcome = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    if outcome.returncode != 0:
        sys.exit(outcome.stderr)
    return json.loads(outcome.stdout)


STEADY = ["--rate", "5000", "--size", "100", "--auto-ack"]


def traffic(arguments, broker, disturb=None):
    """99th percentile of end-to-end latency at a steady rate, milliseconds, while something else goes on."""
    over = threading.Event()

    def again():
        while not over.wait(1.0):
            disturb()

    thread = threading.Thread(target=again) if disturb else None
    if thread:
        thread.start()
    try:
        figures = perf(arguments, broker, arguments.seconds, *STEADY)
    finally:
        over.set()
        if thread:
            thread.join()
    return figures["end_to_end_latency"]["p99_ms"]


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    target = Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target")) / "release"
    parser.add_argument("--leveret", default=target / "leveret", metavar="PATH")
    parser.add_argument("--perf", default=target / "leveretperf", metavar="PATH")
    parser.add_argument("--queues", type=int, default=100_000)
    parser.add_argument("--seconds", type=int, default=5, help="of each run of traffic")
    parser.add_argument("--idle", action="store_true", help="only compare the generator with and without listeners")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="bench-watching-") as directory:
        if arguments.idle:
            idle(arguments, Path(directory))
        else:
            many(arguments, Path(directory))


def many(arguments, directory):

    def show(what, value):
        print(f"{what:66} {value}", flush=True)

    (directory / "b").mkdir()
    broker = Watched(arguments.leveret, directory / "b").start()
    try:
        before = broker.rss_bytes()
        began = time.monotonic()
        declare(broker, arguments.queues)
        show(f"declaring {arguments.queues} durable queues", f"{time.monotonic() - began:.1f} s")
        time.sleep(6)
        grown = broker.rss_bytes() - before
        show("memory per idle durable queue", f"{grown / arguments.queues:.0f} B")
        last = arguments.queues // 100
        for query in ["page=1&page_size=100", f"page={last}&page_size=100", "page=1&page_size=500&sort=messages&sort_reverse=true",
                      "page=1&page_size=100&name=99&use_regex=true"]:  # fmt: skip
            middle, slowest, size = times(lambda query=query: broker.page(query), 7)
            show(f"/api/queues?{query}", f"{middle:.0f} ms, at most {slowest:.0f} ms, {size} B")
        broker.peak_bytes()
        resident = broker.rss_bytes()
        for path, gzip, rounds in [("/metrics", True, 7), ("/metrics/per-object", False, 5), ("/metrics/per-object", True, 3),
                                   ("/metrics/detailed?family=queue_coarse_metrics", True, 5)]:  # fmt: skip
            middle, slowest, size = times(lambda path=path, gzip=gzip: broker.scrape(path, gzip), rounds)
            peak = (broker.peak_bytes() - resident) / MEBIBYTE
            show(f"{path}{' (gzip)' if gzip else ''}",
                 f"{middle:.0f} ms, at most {slowest:.0f} ms, {size / MEBIBYTE:.1f} MiB sent, {peak:.0f} MiB more memory")  # fmt: skip
        show("p99 of traffic, nobody looks", f"{traffic(arguments, broker):.2f} ms")
        for what, look in [
            ("the list is paged", lambda: broker.page("page=1&page_size=100")),
            ("/metrics is scraped", lambda: broker.scrape("/metrics")),
            ("/metrics/per-object is scraped", lambda: broker.scrape("/metrics/per-object")),
        ]:
            show(f"p99 of traffic, {what} every second", f"{traffic(arguments, broker, look):.2f} ms")
        show("p99 of traffic, nobody looks", f"{traffic(arguments, broker):.2f} ms")
    finally:
        broker.stop()


def idle(arguments, directory):
    """The generator's numbers with listeners that nobody uses and without them, in turns."""
    rates = {True: [], False: []}
    for round_number in range(3):
        for watched in (True, False) if round_number % 2 else (False, True):
            home = directory / f"{round_number}{watched}"
            home.mkdir()
            broker = Watched(arguments.leveret, home).start(watched)
            try:
                rates[watched].append(perf(arguments, broker, arguments.seconds, "--auto-ack")["consumed_per_second"])
            finally:
                broker.stop()
    for watched, found in rates.items():
        print(f"{'listeners idle' if watched else 'no listeners':20} {statistics.median(found):12,.0f} messages/s", found)


if __name__ == "__main__":
    main()
