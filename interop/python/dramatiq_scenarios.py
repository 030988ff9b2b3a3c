"""Dramatiq: actors, retries with backoff, priorities, and its dead letter queue, with workers in this process."""

import time
from contextlib import contextmanager

import dramatiq
from dramatiq.brokers.rabbitmq import RabbitmqBroker
from dramatiq.middleware import AgeLimit, Retries

from pika_queues import soon
from scenarios import main, same, unique


@contextmanager
def broker_at(uri, **options):
    """A broker without the middleware we do not use, made the current one; deletes what it declared."""
    middleware = [AgeLimit(), Retries(min_backoff=100, max_backoff=200)]
    broker = RabbitmqBroker(url=uri, confirm_delivery=True, middleware=middleware, **options)
    dramatiq.set_broker(broker)
    try:
        yield broker
        for queue in broker.get_declared_queues():
            for name in (queue, f"{queue}.DQ", f"{queue}.XQ"):
                broker.channel.queue_delete(name)
    finally:
        broker.close()


@contextmanager
def worker_of(broker):
    """A worker with one thread."""
    worker = dramatiq.Worker(broker, worker_threads=1, worker_timeout=100)
    worker.start()
    try:
        yield worker
    finally:
        worker.stop()


def eta_and_backoff(uri):
    with broker_at(uri) as broker:
        seen = []

        @dramatiq.actor(queue_name=unique("dramatiq"), max_retries=3)
        def third_time_lucky():
            seen.append(time.monotonic())
            if len(seen) < 3:
                raise ValueError("not yet")

        with worker_of(broker):
            sent = time.monotonic()
            third_time_lucky.send_with_options(delay=200)
            broker.join(third_time_lucky.queue_name, timeout=20_000)
        same(len(seen), 3, "attempts")
        assert seen[0] - sent >= 0.19, "not before its time"


def dead_letters(uri):
    with broker_at(uri) as broker:

        @dramatiq.actor(queue_name=unique("dramatiq-dying"), max_retries=0)
        def hopeless():
            raise ValueError("always")

        with worker_of(broker):
            hopeless.send()
            broker.join(hopeless.queue_name, timeout=20_000)
            soon(lambda: broker.get_queue_message_counts(hopeless.queue_name)[2] == 1, "it is in the dead letter queue")


def priority_order(uri):
    with broker_at(uri, max_priority=10) as broker:
        order = []

        @dramatiq.actor(queue_name=unique("dramatiq-priorities"))
        def record(number):
            order.append(number)

        for priority in (3, 9, 0, 5):
            record.send_with_options(args=(priority,), broker_priority=priority)
        with worker_of(broker):
            broker.join(record.queue_name, timeout=20_000)
        same(order, [9, 5, 3, 0], "priorities in the order of running")


SCENARIOS = (eta_and_backoff, dead_letters, priority_order)

if __name__ == "__main__":
    main(SCENARIOS, lambda scenario, uri: scenario(uri))
