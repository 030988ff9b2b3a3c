"""Celery: workers in processes of their own, one of which is killed while it holds tasks."""

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import contextmanager
from datetime import datetime, timedelta, timezone

from celery.exceptions import TaskRevokedError
from kombu import Exchange, Queue

from scenarios import main, same, unique

TASKS = 1000
WORKER_SECONDS = 60
HERE = os.path.dirname(os.path.abspath(__file__))


class Workers:
    """Celery workers on one queue, each with some pool processes, and the application to send them tasks."""

    def __init__(self, uri, queue, directory, max_priority):
        self.directory = directory
        self.record = os.path.join(directory, "record")
        open(self.record, "wb").close()
        os.environ.update(INTEROP_BROKER=uri, INTEROP_QUEUE=queue, INTEROP_RECORD=self.record)
        os.environ["INTEROP_APPLICATION"] = unique("celery")  # the same for every scenario, as we import it once
        os.environ["INTEROP_MAX_PRIORITY"] = json.dumps(max_priority)
        # Imported here because the application reads its broker from the environment, as applications do.
        import celery_app

        self.tasks = celery_app
        self.app = celery_app.app
        self.app.conf.update(broker_url=uri, task_default_queue=queue)
        self.processes = {}

    def start(self, name, processes=2, prefetch=4):
        """Starts a worker with so many pool processes and waits until it answers a ping over the broker."""
        node = node_name(name)
        command = [sys.executable, "-m", "celery", "-A", "celery_app", "worker", "--loglevel=INFO"]
        command += [f"--concurrency={processes}", f"--prefetch-multiplier={prefetch}"]
        with open(os.path.join(self.directory, f"{name}.log"), "wb") as log:
            self.processes[name] = subprocess.Popen(
                [*command, f"--hostname={node}"],
                cwd=HERE,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        wait_until(lambda: self.app.control.ping([node], timeout=0.3), f"worker {name} answers")

    def kill(self, name):
        """SIGKILL to a worker's main process and its pool, all at once."""
        process = self.processes.pop(name)
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()

    def stop(self):
        """A warm shutdown, once no worker holds a task any more."""
        # A result may arrive before its task is acknowledged, and Celery drops that last ack if told to stop in between.
        wait_until(lambda: not any(map(self.held_by, self.processes)), "every task is acknowledged")
        for process in self.processes.values():
            process.terminate()
        for name, process in self.processes.items():
            same(process.wait(WORKER_SECONDS), 0, f"exit code of worker {name}")
        self.processes.clear()

    def held_by(self, name):
        """The tasks a worker has received and not acknowledged; all of them may be there if it does not answer."""
        inspect = self.app.control.inspect([node_name(name)], timeout=5)
        answers = [inspect.active(), inspect.reserved(), inspect.scheduled()]
        return [task for answer in answers for task in (answer or {}).get(node_name(name), ["no answer"])]

    def recorded(self):
        """The words of each line the tasks have written so far."""
        with open(self.record, encoding="utf-8") as file:
            return [line.split() for line in file]

    def done(self):
        """The lines of the tasks that have run, once for each time they ran."""
        return [line for line in self.recorded() if line[0] == "done"]


def node_name(worker):
    """What a worker calls itself among all the workers of the broker."""
    return f"{unique(worker)}@interop"


def wait_until(condition, what):
    """Polls until the condition holds; fails after a minute."""
    deadline = time.monotonic() + WORKER_SECONDS
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError(f"gave up waiting until {what}")
        time.sleep(0.02)


@contextmanager
def workers_on(uri, name, max_priority=None):
    """Workers on a queue of their own, which must be empty, with nothing unacked, when they have stopped."""
    queue = unique(name)
    with tempfile.TemporaryDirectory(prefix="interop-celery-") as directory:
        workers = Workers(uri, queue, directory, max_priority)
        try:
            yield workers
            workers.stop()
            with workers.app.connection_for_read() as connection:
                # Nothing is consuming any more, so what was not acknowledged would be ready again.
                same(connection.default_channel.queue_delete(queue), 0, "messages left in the queue")
                same(connection.default_channel.queue_delete(workers.tasks.PATIENT), 0, "messages left to be retried")
        except Exception:
            for log in sorted(name for name in os.listdir(directory) if name.endswith(".log")):
                with open(os.path.join(directory, log), errors="replace", encoding="utf-8") as file:
                    print(f"--- {log}\n{file.read()[-4000:]}", file=sys.stderr)
            raise
        finally:
            for worker in list(workers.processes):
                workers.kill(worker)


def results_and_retries(uri):
    with workers_on(uri, "celery-results") as workers:
        workers.start("only")
        results = [workers.tasks.add.delay(number, number) for number in range(20)]
        same([result.get(WORKER_SECONDS) for result in results], [2 * number for number in range(20)], "sums")
        same(workers.tasks.third_time_lucky.delay().get(WORKER_SECONDS), 2, "retries")


def priority_order(uri):
    with workers_on(uri, "celery-priorities", max_priority=10) as workers:
        name = unique("celery-priorities")
        queue = Queue(name, Exchange(name), name, max_priority=10)  # as the worker will declare it
        priorities = [3, 9, 0, 5, 9, 1]
        for number, priority in enumerate(priorities):
            workers.tasks.record.apply_async((number,), priority=priority, queue=queue)
        workers.start("orderly", processes=1, prefetch=1)
        wait_until(lambda: len(workers.done()) == len(priorities), "every task is done")
        order = [priorities[int(number)] for _, number, _ in workers.done()]
        same(order, [9, 9, 5, 3, 1, 0], "priorities in the order of running")


def control_and_revoke(uri):
    with workers_on(uri, "celery-control") as workers:
        workers.start("one")
        workers.start("two")
        nodes = {node_name("one"), node_name("two")}
        control = workers.app.control
        same({name for answer in control.ping(sorted(nodes), timeout=2) for name in answer}, nodes, "answers to a ping")
        same(set(control.inspect(sorted(nodes), timeout=2).registered()), nodes, "answers to inspect registered")
        answers = control.rate_limit("celery_app.add", "100/s", destination=sorted(nodes), reply=True, timeout=2)
        same(sorted("ok" in value for answer in answers for value in answer.values()), [True, True], "rate limits")
        # Revoked while it waits for its time: the worker must hear of it over the fanout of control messages.
        late = workers.tasks.add.apply_async((1, 1), countdown=2)
        wait_until(lambda: sum(map(len, map(workers.held_by, workers.processes))) == 1, "a worker holds the task")
        late.revoke()
        try:
            late.get(WORKER_SECONDS)
        except TaskRevokedError:
            pass
        else:
            raise AssertionError("a revoked task ran")
        same(workers.tasks.add.delay(20, 22).get(WORKER_SECONDS), 42, "and the workers go on")


def eta_and_backoff(uri):
    with workers_on(uri, "celery-eta") as workers:
        workers.start("patient")
        started = time.monotonic()
        retried = workers.tasks.backing_off.delay()
        later = workers.tasks.add.apply_async((1, 1), countdown=0.5)
        eta = datetime.now(timezone.utc) + timedelta(seconds=0.5)
        at = workers.tasks.add.apply_async((2, 2), eta=eta)
        same([later.get(WORKER_SECONDS), at.get(WORKER_SECONDS)], [2, 4], "answers")
        assert time.monotonic() - started >= 0.5, "not before its time"
        same(retried.get(WORKER_SECONDS), 2, "retries with backoff")


def broadcast(uri):
    with workers_on(uri, "celery-broadcast") as workers:
        workers.start("one")
        workers.start("two")
        for number in range(3):
            workers.tasks.heard.delay(number)
        wait_until(lambda: len(workers.recorded()) == 6, "both workers heard all")
        expected = {("heard", str(number), node_name(name)) for number in range(3) for name in ("one", "two")}
        same({tuple(line) for line in workers.recorded()}, expected, "who heard what")


def held_by_the_broker(uri):
    with workers_on(uri, "celery-held") as workers:
        workers.start("idle")
        started = time.monotonic()
        eta = datetime.now(timezone.utc) + timedelta(seconds=1)
        results = [
            workers.tasks.held_by_the_broker.apply_async(countdown=1),
            workers.tasks.held_by_the_broker.apply_async(eta=eta),
        ]
        same(workers.held_by("idle"), [], "what the worker holds while the tasks wait")
        same([result.get(WORKER_SECONDS) for result in results], [2, 2], "retries with backoff")
        same(workers.tasks.left_to_the_queue.delay().get(WORKER_SECONDS), 2, "failed attempts the broker counted")
        # A second of countdown, and a second before each of two retries.
        assert time.monotonic() - started >= 2.9, "not before its time"


def worker_killed(uri):
    with workers_on(uri, "celery-killed") as workers:
        workers.start("doomed")
        workers.start("survivor")
        gate = os.path.join(workers.directory, "gate")
        for number in range(TASKS):
            # The second half waits for the gate, so the kill comes exactly half-way, whatever the machine's speed.
            workers.tasks.record.delay(number, gate if number >= TASKS // 2 else None)
        doomed = ["waiting", node_name("doomed")]
        wait_until(lambda: workers.recorded().count(doomed) == 2, "both processes of the doomed worker hold a task")
        wait_until(lambda: len(workers.done()) == TASKS // 2, "half of the tasks are done")
        workers.kill("doomed")
        workers.start("replacement")
        open(gate, "wb").close()
        every = {str(number) for number in range(TASKS)}
        wait_until(lambda: {number for _, number, _ in workers.done()} == every, "every task is done")
        done = workers.done()
        again = sum(delivery == "again" for _, _, delivery in done)
        assert again >= 2, f"the killed worker held two tasks or more, but {again} came again"
        return f"{len(done)} runs for {TASKS} tasks; the killed worker's {again} unacked ones were delivered again"


SCENARIOS = (results_and_retries, priority_order, control_and_revoke, eta_and_backoff, broadcast, held_by_the_broker, worker_killed)

if __name__ == "__main__":
    main(SCENARIOS, lambda scenario, uri: scenario(uri))
