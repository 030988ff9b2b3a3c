"""A small Celery application as anybody would write it; nothing in it knows which broker it talks to."""

import json
import os
import time

from celery import Celery
from celery.exceptions import Reject
from kombu import Exchange, Queue
from kombu.common import Broadcast

from broker_held import BrokerHeldTask

app = Celery("interop", broker=os.environ["INTEROP_BROKER"], backend="rpc://")
app.conf.task_default_queue = os.environ["INTEROP_QUEUE"]
app.conf.task_acks_late = True
# One copy of such a task for every worker.
NEWS = f"{os.environ['INTEROP_APPLICATION']}-news"
# Whoever fails here waits for the next attempt in the queue itself.
PATIENT = f"{os.environ['INTEROP_APPLICATION']}-patient"
BACKOFF = {"x-delayed-retry-type": "failed", "x-delayed-retry-min": 100, "x-delayed-retry-multiplier": 2}
app.conf.task_queues = (
    Queue(app.conf.task_default_queue, Exchange(app.conf.task_default_queue), app.conf.task_default_queue),
    Broadcast(NEWS),
    Queue(PATIENT, Exchange(PATIENT), PATIENT, queue_arguments=BACKOFF),
)
app.conf.task_routes = {
    "celery_app.heard": {"queue": NEWS, "exchange": NEWS},
    "celery_app.left_to_the_queue": {"queue": PATIENT},
}
app.conf.task_queue_max_priority = json.loads(os.environ.get("INTEROP_MAX_PRIORITY", "null"))


@app.task(bind=True)
def record(self, number, gate=None):
    """Appends a line about itself to a file; before that, it waits for the gate (another file) if it was given one."""
    if gate is not None:
        append(f"waiting {self.request.hostname}")
        while not os.path.exists(gate):
            time.sleep(0.01)
    append(f"done {number} {'again' if self.request.delivery_info['redelivered'] else 'first'}")


def append(line):
    # One short write in append mode: whole lines, whichever worker process writes.
    with open(os.environ["INTEROP_RECORD"], "ab", buffering=0) as file:
        file.write(f"{line}\n".encode())


@app.task(bind=True, ignore_result=True)
def heard(self, news):
    """Every worker hears of it."""
    append(f"heard {news} {self.request.hostname}")


@app.task
def add(left, right):
    return left + right


@app.task(bind=True)
def third_time_lucky(self):
    """Fails twice; each retry is a new message with an ETA, which the worker holds unacked until it is due."""
    if self.request.retries < 2:
        raise self.retry(countdown=0.1)
    return self.request.retries


class Unlucky(Exception):
    """What fails now and may work later."""


@app.task(bind=True, autoretry_for=(Unlucky,), retry_backoff=True, retry_backoff_max=1, retry_jitter=False)
def backing_off(self):
    """Fails twice; Celery asks again after a second by itself."""
    if self.request.retries < 2:
        raise Unlucky
    return self.request.retries


@app.task(bind=True, base=BrokerHeldTask, autoretry_for=(Unlucky,), retry_backoff=True, retry_backoff_max=1, retry_jitter=False)
def held_by_the_broker(self):
    """As above, but what waits, waits in the broker."""
    if self.request.retries < 2:
        raise Unlucky
    return self.request.retries


@app.task(bind=True)
def left_to_the_queue(self):
    """Goes back to the queue until it has failed twice; the message itself comes again, counted by the broker."""
    failed = (self.request.headers or {}).get("x-delivery-count", 0)
    if failed < 2:
        raise Reject("not yet", requeue=True)
    return failed
