#!/usr/bin/env python3
"""`leveretctl migrate` from Debian's RabbitMQ, with producers and consumers at work on both brokers.

    interop/migrate.py --binary target/release/leveret     leveretctl is looked for beside it

What is checked: definitions; messages with all their properties, where they were published and in their order, once each;
a migration that follows while clients change over; Ctrl-C and kill -9 in the middle and a second run; refusals.
Where RabbitMQ is not installed nothing is run, and the script says so.
"""

import argparse
import json
import os
import signal
import subprocess
import sys
import threading
import time

from suite.brokers import Leveret, RabbitMQ, rabbitmq_missing, spare_port
from suite.clients import prepared_python
from suite.http import Api

try:
    import pika
except ImportError:
    os.execv(str(prepared_python()), [str(prepared_python()), *sys.argv])

ODD = 'a "queue" / <b>ü</b>'
DEEP = 10_000
BACKLOG = 3000
PREFETCH = 10
WITHIN_SECONDS = 120


def check(holds, what):
    """One assertion, told when it fails."""
    if not holds:
        raise AssertionError(what)


def opened(uri, vhost="/"):
    """A connection of pika's."""
    parameters = pika.URLParameters(uri)
    parameters.virtual_host = vhost
    return pika.BlockingConnection(parameters)


class Migrations:
    """Runs of the program under test."""

    def __init__(self, old, new):
        self.old, self.new = old, new
        self.words = [*new.control, "migrate", "--from", old.uri, "--from-http", old.http.replace("//", "//guest:guest@")]

    def begin(self, *more):
        """Starts one."""
        return subprocess.Popen(
            [*self.words, "--formatter", "json", *more], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )

    def run(self, *more):
        """One from beginning to end: exit code, its summary, stderr."""
        return self.ended(self.begin(*more))

    @staticmethod
    def ended(process):
        """What came of it."""
        out, err = process.communicate(timeout=WITHIN_SECONDS)
        return process.returncode, json.loads(out) if out else None, err


def taken(uri, queue, vhost="/"):
    """All messages that wait in a queue, in order."""
    connection = opened(uri, vhost)
    channel = connection.channel()
    count = channel.queue_declare(queue, passive=True).method.message_count
    found = []
    if count:
        for method, properties, body in channel.consume(queue, auto_ack=True, inactivity_timeout=WITHIN_SECONDS):
            check(method is not None, f"{len(found)} of {count} messages came out of {queue}")
            found.append((method, properties, body))
            if len(found) == count:
                break
    connection.close()
    return found


def scene(old):
    """Objects and messages on the old broker."""
    api = Api(old.http)
    for method, path, body in [
        ("PUT", "/vhosts/second", {}),
        ("PUT", "/permissions/second/guest", {"configure": ".*", "write": ".*", "read": ".*"}),
        ("PUT", "/users/alice", {"password": "secret", "tags": "monitoring"}),
        ("PUT", "/exchanges/%2F/ex", {"type": "topic", "durable": True}),
        ("PUT", "/queues/%2F/rich", {"durable": True, "arguments": {"x-dead-letter-exchange": "", "x-dead-letter-routing-key": "dead"}}),
        ("PUT", "/queues/%2F/dead", {"durable": True}),
        ("PUT", "/queues/%2F/original", {"durable": True}),
        ("PUT", "/queues/%2F/copied", {"durable": True}),
        ("PUT", "/queues/%2F/ranked", {"durable": True, "arguments": {"x-max-priority": 5}}),
        ("PUT", "/queues/%2F/quorum", {"durable": True, "arguments": {"x-queue-type": "quorum"}}),
        ("PUT", "/queues/%2F/single", {"durable": True, "arguments": {"x-single-active-consumer": True}}),
        ("PUT", "/queues/%2F/deep", {"durable": True}),
        ("PUT", "/queues/%2F/live", {"durable": True}),
        ("PUT", "/queues/second/odd", {"durable": True}),
        ("PUT", "/queues/%2F/log", {"durable": True, "arguments": {"x-queue-type": "stream"}}),
        ("POST", "/bindings/%2F/e/ex/q/rich", {"routing_key": "a.#"}),
        ("PUT", "/policies/%2F/mirrored", {"pattern": "^none$", "definition": {"ha-mode": "all", "max-length": 9}}),
    ]:
        status, answer = api.call(method, path, body)
        check(status in (201, 204), f"{method} {path}: {status} {answer}")
    connection = opened(old.uri)
    channel = connection.channel()
    channel.confirm_delivery()
    channel.queue_declare(ODD, durable=True)
    headers = {"text": "ü", "number": 7, "long": 1 << 40, "flag": True, "list": [1, "two", {"three": 3}], "CC": ["else"]}
    properties = pika.BasicProperties(
        content_type="text/plain", content_encoding="utf-8", headers=headers, delivery_mode=2, priority=4, correlation_id="c",
        reply_to="r", message_id="m", timestamp=1_700_000_000, type="t", user_id="guest", app_id="a", expiration="86400000",
    )  # fmt: skip
    channel.basic_publish("ex", "a.b", b"rich", properties)
    channel.basic_publish("ex", "a.c", bytes(range(256)) * 4096, pika.BasicProperties(delivery_mode=2))
    channel.basic_publish("ex", "a.d", b"", pika.BasicProperties())
    channel.basic_publish("", "original", b"", pika.BasicProperties(headers={"CC": ["copied"]}))
    for number in range(30):
        priority = pika.BasicProperties(delivery_mode=2, priority=number % 3)
        channel.basic_publish("", "ranked", str(number).encode(), priority)
    for queue in ("quorum", "single", ODD):
        for number in range(5):
            channel.basic_publish("", queue, str(number).encode(), pika.BasicProperties(delivery_mode=2))
    # A dead letter with its history.
    channel.basic_publish("ex", "a.dies", b"died", pika.BasicProperties(delivery_mode=2))
    while True:
        method, _, body = channel.basic_get("rich")
        if body == b"died":
            channel.basic_nack(method.delivery_tag, requeue=False)
            break
    connection.close()
    second = opened(old.uri, "second")
    second.channel().basic_publish("", "odd", b"second", pika.BasicProperties(delivery_mode=2))
    second.close()
    fill(old.uri, "deep", DEEP)


def fill(uri, queue, count):
    """Numbered persistent messages."""
    connection = opened(uri)
    channel = connection.channel()
    for number in range(count):
        channel.basic_publish("", queue, str(number).encode(), pika.BasicProperties(delivery_mode=2))
    # A synchronous call behind them: they have arrived.
    channel.queue_declare(queue, passive=True)
    connection.close()


def whole(migrations):
    """Everything comes over, and nothing twice."""
    old, new = migrations.old, migrations.new
    # The active consumer of a single-active queue does not keep others from fetching.
    holder = opened(old.uri)
    held = holder.channel()
    held.basic_qos(prefetch_count=1)
    held.basic_consume("single", lambda *_: None)
    holder.process_data_events(0.2)
    code, summary, err = migrations.run()
    check(code == 0, f"exit code {code}: {err}")
    check(summary["state"] == "finished", summary)
    check(len(summary["notes"]) == 2, summary["notes"])
    rows = {(row["vhost"], row["name"]): row for row in summary["queues"]}
    check(rows["/", "deep"]["moved"] == DEEP, rows["/", "deep"])
    check(rows["/", "single"]["consumers"] == 1, rows["/", "single"])
    api = Api(new.http)
    check(api.call("GET", "/queues/%2F/log")[0] == 404, "a stream came over")
    check(api.call("GET", "/policies/%2F/mirrored")[1]["definition"] == {"max-length": 9}, "the policy")
    check(api.call("GET", "/users/alice")[1]["tags"] == ["monitoring"], "the user")
    rich = {method.routing_key: (method, properties, body) for method, properties, body in taken(new.uri, "rich")}
    check(sorted(rich) == ["a.b", "a.c", "a.d"], sorted(rich))
    method, properties, body = rich["a.b"]
    check((method.exchange, body) == ("ex", b"rich"), method)
    shown = {key: value for key, value in vars(properties).items() if value is not None}
    expected = {"content_type": "text/plain", "content_encoding": "utf-8", "delivery_mode": 2, "priority": 4,
                "correlation_id": "c", "reply_to": "r", "message_id": "m", "timestamp": 1_700_000_000, "type": "t",
                "user_id": "guest", "app_id": "a", "expiration": "86400000",
                "headers": {"text": "ü", "number": 7, "long": 1 << 40, "flag": True, "list": [1, "two", {"three": 3}],
                            "CC": ["else"]}}  # fmt: skip
    check(shown == expected, shown)
    check(rich["a.c"][2] == bytes(range(256)) * 4096, "the large body")
    check(rich["a.d"][2] == b"" and rich["a.d"][1].delivery_mode in (None, 1), "the empty body")
    for queue in ("original", "copied"):
        check(len(taken(new.uri, queue)) == 1, "a carbon copy was made again")
    died = taken(new.uri, "dead")
    check(len(died) == 1 and died[0][1].headers["x-death"][0]["queue"] == "rich", died)
    ranked = [int(body) for _, _, body in taken(new.uri, "ranked")]
    check(ranked == sorted(range(30), key=lambda number: (-(number % 3), number)), ranked)
    for queue, vhost, count in (("quorum", "/", 5), (ODD, "/", 5)):
        numbers = [int(body) for _, _, body in taken(new.uri, queue, vhost)]
        check(numbers == list(range(count)), (queue, numbers))
    check(len(taken(new.uri, "odd", "second")) == 1, "the second vhost")
    deep = [int(body) for _, _, body in taken(new.uri, "deep")]
    check(deep == list(range(DEEP)), f"{len(deep)} messages of the deep queue, or out of order")
    # What the consumer held comes back when it goes, and with the next run.
    holder.close()
    code, summary, err = migrations.run("--skip-definitions", "--queue", "single")
    check((code, summary["moved"]) == (0, 1), (code, summary, err))
    check(sorted(int(body) for _, _, body in taken(new.uri, "single")) == list(range(5)), "the single active consumer's")


def interrupted(migrations, number, allowed_twice):
    """A signal in the middle, and a second run: all messages are here, in order."""
    old, new = migrations.old, migrations.new
    fill(old.uri, "deep", DEEP)
    process = migrations.begin("--skip-definitions", "--queue", "deep")
    watcher = opened(new.uri)
    channel = watcher.channel()
    while channel.queue_declare("deep", passive=True).method.message_count == 0:
        check(process.poll() is None, "it ended before anything was seen")
    watcher.close()
    process.send_signal(number)
    code, summary, err = migrations.ended(process)
    if number == signal.SIGINT:
        check((code, summary["state"]) == (75, "interrupted"), (code, summary, err))
        check(summary["moved"] < DEEP, "it was over before the signal")
    code, summary, err = migrations.run("--skip-definitions", "--queue", "deep")
    check(code == 0, f"exit code {code}: {err}")
    numbers = [int(body) for _, _, body in taken(new.uri, "deep")]
    once = list(dict.fromkeys(numbers))
    check(sorted(once) == list(range(DEEP)), f"{len(once)} of {DEEP}")
    check(len(numbers) - len(once) <= allowed_twice, f"{len(numbers) - len(once)} came twice")
    check(once == list(range(DEEP)), "out of order")


def ctrl_c(migrations):
    """Ctrl-C: nothing lost, nothing twice."""
    interrupted(migrations, signal.SIGINT, 0)


def killed(migrations):
    """kill -9: nothing lost; a batch may come twice."""
    interrupted(migrations, signal.SIGKILL, 2000)


class Client(threading.Thread):
    """A producer or consumer that runs until it is told to end."""

    def __init__(self, work, uri):
        super().__init__(daemon=True)
        self.work, self.uri = work, uri
        self.over = threading.Event()
        self.numbers = []
        self.problem = None
        self.start()

    def run(self):
        try:
            connection = opened(self.uri)
            self.work(self, connection)
            connection.close()
        except Exception as problem:  # noqa: BLE001 - told by end()
            self.problem = problem

    def end(self):
        """What it published or consumed."""
        self.over.set()
        self.join(WITHIN_SECONDS)
        check(self.problem is None, f"a client failed: {self.problem!r}")
        return self.numbers


def producer(first):
    """Publishes numbers from `first` on, each confirmed."""

    def work(client, connection):
        channel = connection.channel()
        channel.confirm_delivery()
        number = first
        while not client.over.is_set():
            channel.basic_publish("", "live", str(number).encode(), pika.BasicProperties(delivery_mode=2))
            client.numbers.append(number)
            number += 1

    return work


def consumer(client, connection):
    """Acknowledges one by one."""
    channel = connection.channel()
    channel.basic_qos(prefetch_count=PREFETCH)
    for method, _, body in channel.consume("live", inactivity_timeout=0.1):
        if method is not None:
            client.numbers.append(int(body))
            channel.basic_ack(method.delivery_tag)
            connection.sleep(0.001)
        if client.over.is_set():
            break
    channel.cancel()


def wait_for(holds, what):
    """Until it holds, or for too long."""
    deadline = time.monotonic() + WITHIN_SECONDS
    while not holds():
        check(time.monotonic() < deadline, what)
        time.sleep(0.05)


def empty(uri, queue):
    """Waits until nothing is ready in a queue."""
    watcher = opened(uri)
    channel = watcher.channel()
    wait_for(lambda: channel.queue_declare(queue, passive=True).method.message_count == 0, f"{queue} is not worked off")
    watcher.close()


def changing_over(migrations):
    """Clients of both brokers work while messages are moved; at the end each message was consumed once."""
    old, new = migrations.old, migrations.new
    code, _, err = migrations.run("--only-definitions")
    check(code == 0, err)
    # More than the consumer there gets done.
    fill(old.uri, "live", BACKLOG)
    old_producer, old_consumer = Client(producer(BACKLOG), old.uri), Client(consumer, old.uri)
    following = migrations.begin("--follow")
    new_consumer = Client(consumer, new.uri)
    wait_for(lambda: new_consumer.numbers or following.poll() is not None or new_consumer.problem, "nothing was moved")
    # Consumers change over first, then producers.
    consumed_there = old_consumer.end()
    time.sleep(1)
    published_there = old_producer.end()
    new_producer = Client(producer(1_000_000), new.uri)
    empty(old.uri, "live")
    time.sleep(1)
    following.send_signal(signal.SIGINT)
    code, summary, err = migrations.ended(following)
    check((code, summary["state"]) == (75, "interrupted"), (code, summary, err))
    published_here = new_producer.end()
    empty(new.uri, "live")
    time.sleep(0.5)
    consumed_here = new_consumer.end()
    consumed_here += [int(body) for _, _, body in taken(new.uri, "live")]
    published_there += range(BACKLOG)
    published, consumed = published_there + published_here, consumed_there + consumed_here
    check(sorted(consumed) == sorted(published), f"{len(published)} published, {len(consumed)} consumed")
    moved = [number for number in consumed_here if number < 1_000_000]
    highest, behind = -1, 0
    for number in moved:
        behind += number < highest
        highest = max(highest, number)
    # What the consumer there held when it went came back behind what had been moved meanwhile.
    check(moved and behind <= PREFETCH, f"{behind} of {len(moved)} messages moved are out of order")
    print(f"    {len(consumed_there)} consumed there, {len(moved)} moved and consumed here, {len(published_here)} published here")


def refusals(migrations):
    """What goes wrong is told, with the right exit code."""
    old, new = migrations.old, migrations.new
    nowhere = spare_port()

    def run(*words):
        done = subprocess.run([*new.control, "migrate", *words], capture_output=True, text=True, timeout=60, check=False)
        return done.returncode, done.stderr

    host = old.uri.rsplit("@", 1)[1]
    for words, code, text in [
        ((), 64, "--from"),
        (("--from", "http://x"), 64, "amqp://"),
        (("--from", f"amqp://guest:guest@127.0.0.1:{nowhere}", "--skip-definitions"), 69, "refused"),
        (("--from", f"amqp://guest:wrong@{host}", "--skip-definitions"), 69, "ACCESS_REFUSED"),
        (("--from", old.uri, "--from-http", f"http://127.0.0.1:{nowhere}"), 69, "management plugin"),
        (("--from", f"{old.uri}/nowhere", "--from-http", old.http), 69, "no vhost 'nowhere'"),
        (("--from", old.uri, "--skip-definitions", "--queue", "nothere"), 69, "no queue 'nothere'"),
    ]:
        ended, err = run(*words)
        check(ended == code and text in err, f"{words}: {ended} {err}")


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--binary", default="target/release/leveret")
    options = parser.parse_args()
    missing = rabbitmq_missing()
    if missing:
        print(f"SKIPPED migrate: {missing}")
        return 0
    old, new = RabbitMQ(), Leveret(options.binary)
    failed = 0
    try:
        old.start()
        new.start()
        scene(old)
        migrations = Migrations(old, new)
        for part in (whole, ctrl_c, killed, changing_over, refusals):
            try:
                part(migrations)
                print(f"PASS {part.__name__}: {part.__doc__}", flush=True)
            except AssertionError as problem:
                failed += 1
                print(f"FAIL {part.__name__}: {problem}", flush=True)
    finally:
        old.remove()
        new.remove()
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
