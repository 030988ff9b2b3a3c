"""Celery: workers in processes of their own, one of which is killed while it holds tasks."""

import os
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import contextmanager

from scenarios import main, same, unique

TASKS = 1000
WORKER_SECONDS = 60
HERE = os.path.dirname(os.path.abspath(__file__))


class Workers:
    """Celery workers on one queue, each with two pool processes, and the application to send them tasks."""

    def __init__(self, uri, queue, directory):
        self.directory = directory
        self.record = os.path.join(directory, "record")
        open(self.record, "wb").close()
        os.environ.update(INTEROP_BROKER=uri, INTEROP_QUEUE=queue, INTEROP_RECORD=self.record)
        # Imported here because the application reads its broker from the environment, as applications do.
        import celery_app

        self.tasks = celery_app
        self.app = celery_app.app
        self.app.conf.update(broker_url=uri, task_default_queue=queue)
        self.processes = {}

    def start(self, name):
        """Starts a worker with two pool processes and waits until it answers a ping over the broker."""
        node = unique(name)
        command = [sys.executable, "-m", "celery", "-A", "celery_app", "worker", "--concurrency=2", "--loglevel=INFO"]
        with open(os.path.join(self.directory, f"{name}.log"), "wb") as log:
            self.processes[name] = subprocess.Popen(
                [*command, f"--hostname={node}@interop"],
                cwd=HERE,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        wait_until(lambda: self.app.control.ping([f"{node}@interop"], timeout=0.3), f"worker {name} answers")

    def kill(self, name):
        """SIGKILL to a worker's main process and its pool, all at once."""
        process = self.processes.pop(name)
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()

    def stop(self):
        """A warm shutdown: every worker finishes and acknowledges what it holds."""
        for process in self.processes.values():
            process.terminate()
        for name, process in self.processes.items():
            same(process.wait(WORKER_SECONDS), 0, f"exit code of worker {name}")
        self.processes.clear()

    def recorded(self):
        with open(self.record, encoding="ascii") as file:
            return [line.split() for line in file]


def wait_until(condition, what):
    """Polls until the condition holds; fails after a minute."""
    deadline = time.monotonic() + WORKER_SECONDS
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError(f"gave up waiting until {what}")
        time.sleep(0.02)


@contextmanager
def workers_on(uri, name):
    """Workers on a queue of their own, which must be empty, with nothing unacked, when they have stopped."""
    queue = unique(name)
    with tempfile.TemporaryDirectory(prefix="interop-celery-") as directory:
        workers = Workers(uri, queue, directory)
        try:
            yield workers
            workers.stop()
            with workers.app.connection_for_read() as connection:
                # Nothing is consuming any more, so what was not acknowledged would be ready again.
                same(connection.default_channel.queue_delete(queue), 0, "messages left in the queue")
        except Exception:
            for log in sorted(os.listdir(directory)):
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


def worker_killed(uri):
    with workers_on(uri, "celery-killed") as workers:
        workers.start("doomed")
        workers.start("survivor")
        for number in range(TASKS):
            workers.tasks.record.delay(number)
        wait_until(lambda: len(workers.recorded()) >= TASKS // 2, "half of the tasks are done")
        workers.kill("doomed")
        at_kill = len(workers.recorded())
        assert at_kill < TASKS - 100, f"{at_kill} tasks were done before the kill"
        workers.start("replacement")
        wait_until(
            lambda: {number for number, _ in workers.recorded()} == {str(number) for number in range(TASKS)},
            "every task is done",
        )
        again = sum(delivery == "again" for _, delivery in workers.recorded())
        assert again > 0, "the killed worker held tasks, but none was delivered again"
        return f"killed after {at_kill} tasks; {again} delivered again; {len(workers.recorded())} runs for {TASKS} tasks"


SCENARIOS = (results_and_retries, worker_killed)

if __name__ == "__main__":
    main(SCENARIOS, lambda scenario, uri: scenario(uri))
