"""The scenarios with Debian's amqp-tools (librabbitmq, C): each step is a command with a connection of its own."""

import os
import random
import signal
import subprocess
import sys
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "python"))

from scenarios import main, same, unique  # noqa: E402  (found through the line above)

COMMAND_SECONDS = 30


class Tools:
    """The five commands against one broker."""

    def __init__(self, uri):
        self.uri = uri

    def arguments(self, name, *arguments):
        return [f"amqp-{name}", f"--url={self.uri}", *arguments]

    def run(self, name, *arguments, stdin=b"", code=0):
        """Runs a command and returns what it wrote; its exit code must be `code`."""
        done = subprocess.run(
            self.arguments(name, *arguments), input=stdin, capture_output=True, timeout=COMMAND_SECONDS, check=False
        )
        same(done.returncode, code, f"exit code of amqp-{name} {' '.join(arguments)}; {done.stderr.decode()}")
        return done.stdout if code == 0 else done.stderr.decode()

    def declare(self, name):
        queue = unique(name)
        same(self.run("declare-queue", "-d", "-q", queue), f"{queue}\n".encode(), "declared queue")
        return queue

    def publish(self, queue, body, *arguments):
        self.run("publish", "-r", queue, *arguments, stdin=body)

    def get(self, queue):
        return self.run("get", "-q", queue)

    def consume(self, queue, count, script, *arguments):
        """Runs the shell script for each delivery, with the body as its input; a delivery is acked if it succeeds."""
        return self.run("consume", "-q", queue, "-c", str(count), *arguments, "--", "sh", "-c", script)

    def remove(self, queue, ready):
        """Deletes a queue that must hold that many ready messages."""
        same(int(self.run("delete-queue", "-q", queue)), ready, "messages in the deleted queue")


def declare_bind(tools):
    queue = tools.declare("declare-bind")
    tools.declare("declare-bind")  # again: nothing changes
    tools.publish(queue, b"direct")
    same(tools.get(queue), b"direct", "through the default exchange")
    tools.remove(queue, 0)
    tools.remove(queue, 0)  # gone already, which is fine
    # amqp-consume binds only queues it declares itself: here an exclusive, server-named one.
    bound = subprocess.Popen(
        tools.arguments("consume", "-x", "-e", "amq.topic", "-r", f"{queue}.#", "-c", "1", "cat"),
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    )
    deadline = time.monotonic() + COMMAND_SECONDS
    while bound.poll() is None and time.monotonic() < deadline:
        # It does not say when the binding is there, so this goes on until a message reached it.
        tools.run("publish", "-e", "amq.topic", "-r", f"{queue}.red.very", "-b", "topic")
    bound.kill()
    same(bound.communicate()[0], b"topic", "through the binding")
    server_named = tools.run("declare-queue", "-q", "").decode().strip()
    assert server_named.startswith("amq.gen-"), server_named
    tools.remove(server_named, 0)


def consume_prefetch(tools):
    queue = tools.declare("consume-prefetch")
    # One message a line, all through one connection.
    tools.publish(queue, b"".join(b"%d\n" % number for number in range(10)), "-l", "-p")
    # While the first delivery waits for its ack, three are out: a get from another connection meets the fourth.
    script = f"read body; echo $body; [ $body != 0 ] || echo got $(amqp-get --url={tools.uri} -q {queue})"
    same(tools.consume(queue, 6, script, "-p", "3").split(), b"0 got 3 1 2 4 5 6".split(), "order")
    same([tools.get(queue) for _ in range(3)], [b"7\n", b"8\n", b"9\n"], "what was left")
    tools.remove(queue, 0)


def nack_requeue(tools):
    queue = tools.declare("nack-requeue")
    for body in (b"a", b"b"):
        tools.publish(queue, body)
    # A script that fails leaves its message unacked, and the end of the connection requeues it.
    same(tools.consume(queue, 1, "cat; exit 1"), b"a", "first delivery")
    same(tools.consume(queue, 2, "cat"), b"ab", "the old place")
    tools.remove(queue, 0)


def large_body(tools):
    queue = tools.declare("large-body")
    body = random.randbytes(10 * 1024 * 1024)
    for _ in range(2):
        tools.publish(queue, body, "-p")
    assert tools.get(queue) == body, "10 MiB got differ from those published"
    assert tools.consume(queue, 1, "cat") == body, "10 MiB consumed differ from those published"
    tools.remove(queue, 0)


def empty_body(tools):
    queue = tools.declare("empty-body")
    tools.publish(queue, b"")
    tools.publish(queue, b"next")
    tools.publish(queue, b"")
    same(tools.consume(queue, 3, "cat; echo ."), b".\nnext.\n.\n", "bodies")
    tools.publish(queue, b"")
    same(tools.get(queue), b"", "body of an empty message")
    tools.remove(queue, 0)


def channel_error(tools):
    absent = unique("absent")
    for words, arguments in (
        (f"404, message: NOT_FOUND - no queue '{absent}' in vhost '/'", ("get", "-q", absent)),
        (f"404, message: NOT_FOUND - no exchange '{absent}' in vhost '/'", ("publish", "-e", absent, "-b", "lost")),
        ("403, message: ACCESS_REFUSED - queue name 'amq.absent'", ("declare-queue", "-q", "amq.absent")),
    ):
        answer = tools.run(*arguments, code=1)
        assert words in answer, answer
    wrong_password = Tools(tools.uri.replace("guest@", "wrong@"))
    answer = wrong_password.run("get", "-q", absent, code=1)
    assert "403, message: ACCESS_REFUSED - Login was refused using authentication mechanism PLAIN." in answer, answer


def reconnect(tools):
    queue = tools.declare("reconnect")
    tools.publish(queue, b"kept", "-p")
    # A consumer that is killed while it holds the message; the kernel closes its socket.
    holding = subprocess.Popen(
        tools.arguments("consume", "-q", queue, "--", "sh", "-c", "cat; echo; exec sleep 60"),
        stdout=subprocess.PIPE,
        start_new_session=True,
    )
    try:
        same(holding.stdout.readline(), b"kept\n", "first delivery")
    finally:
        os.killpg(holding.pid, signal.SIGKILL)
        holding.wait()
    same(tools.consume(queue, 1, "cat"), b"kept", "delivery after a dropped socket")
    tools.remove(queue, 0)


SCENARIOS = (declare_bind, consume_prefetch, nack_requeue, large_body, empty_body, channel_error, reconnect)

if __name__ == "__main__":
    main(SCENARIOS, lambda scenario, uri: scenario(Tools(uri)))
