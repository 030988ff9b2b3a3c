"""A private broker process: start, wait until clients can connect, kill, start again on the same data, stop.

Knows how Leveret and Debian's RabbitMQ are started and nothing about scenarios.
"""

import os
import re
import shutil
import signal
import socket
import subprocess
import tempfile
import threading
import time

# Both brokers log this sentence once clients can connect.
READY = "Server startup complete"
READY_WITHIN_SECONDS = 120
STOP_WITHIN_SECONDS = 20
RABBITMQ_SCRIPTS = "/usr/lib/rabbitmq/bin"
RABBITMQ_PLUGINS = (
    "rabbitmq_management",
    "rabbitmq_consistent_hash_exchange",
    "rabbitmq_random_exchange",
    "rabbitmq_recent_history_exchange",
    "rabbitmq_sharding",  # x-modulus-hash
    "rabbitmq_event_exchange",
)
ANSI_COLOUR = re.compile(r"\x1b\[[0-9;]*m")
LISTENER = re.compile(r"(AMQP|HTTP).* listens on (127\.0\.0\.1:[1-9][0-9]*)")


class BrokerError(Exception):
    """The broker did not start, or did not stop, as it should."""


def spare_port():
    """A TCP port of the loopback interface that was free a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class Broker:
    """One broker on one data directory. Subclasses say how it is started.

    While it runs, `uri` is where clients connect, `http` is where its HTTP API is, and `control` is the command of its
    operators.
    """

    name = "broker"

    def __init__(self):
        self.directory = tempfile.mkdtemp(prefix=f"interop-{self.name}-")
        self.process = None
        self.log = []
        self.uri = self.http = None
        self.control = []

    def command(self):
        """The program, its arguments and its environment."""
        raise NotImplementedError

    def addresses(self, log):
        """Where AMQP and HTTP are served, found in the log lines up to and including the ready line."""
        raise NotImplementedError

    def start(self):
        """Starts the broker (again) and returns once it says that clients can connect."""
        arguments, environment = self.command()
        # A session of its own, so that a kill reaches the whole process group and never us.
        self.process = subprocess.Popen(
            arguments,
            env=environment,
            cwd=self.directory,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            start_new_session=True,
        )
        first_line = len(self.log)
        ready = threading.Event()
        reader = threading.Thread(target=self._read_log, args=(self.process, ready), daemon=True)
        reader.start()
        deadline = time.monotonic() + READY_WITHIN_SECONDS
        while not ready.wait(0.05):
            if self.process.poll() is not None or time.monotonic() > deadline:
                self.kill()
                reader.join(1)
                raise BrokerError(f"{self.name} did not start within {READY_WITHIN_SECONDS} s, or ended")
        amqp, http = self.addresses(self.log[first_line:])
        self.uri = f"amqp://guest:guest@{amqp}"
        self.http = f"http://{http}"

    def _read_log(self, process, ready):
        for line in process.stdout:
            self.log.append(ANSI_COLOUR.sub("", line.rstrip("\n")))
            if READY in line:
                ready.set()

    def kill(self):
        """SIGKILL to the broker and its children: the power cut."""
        self._signal(signal.SIGKILL)
        self.process.wait()

    def stop(self):
        """SIGTERM; the exit code, or a BrokerError if it does not end in time."""
        if self.process.poll() is not None:
            raise BrokerError(f"{self.name} had already ended with code {self.process.returncode}")
        self.process.terminate()
        try:
            return self.process.wait(STOP_WITHIN_SECONDS)
        except subprocess.TimeoutExpired:
            self.kill()
            raise BrokerError(f"{self.name} still ran {STOP_WITHIN_SECONDS} s after SIGTERM") from None

    def remove(self):
        """Ends what still runs and deletes the data directory."""
        if self.process is not None and self.process.poll() is None:
            self.kill()
        shutil.rmtree(self.directory, ignore_errors=True)

    def _signal(self, number):
        try:
            os.killpg(self.process.pid, number)
        except ProcessLookupError:
            pass

    def log_tail(self, lines=40):
        """The last lines the broker wrote."""
        return "\n".join(self.log[-lines:])


class Leveret(Broker):
    """Leveret, from a built binary."""

    name = "leveret"

    def __init__(self, binary):
        super().__init__()
        self.binary = os.path.abspath(binary)
        self.data = os.path.join(self.directory, "data")
        self.control = [os.path.join(os.path.dirname(self.binary), "leveretctl"), "--data-dir", self.data]

    def command(self):
        arguments = [self.binary, "--data-dir", self.data, "--metrics-listen", "none"]
        arguments += ["--amqp-listen", "127.0.0.1:0", "--http-listen", "127.0.0.1:0"]
        return arguments, dict(os.environ, LEVERET_AMQP__EVENT_EXCHANGE="true", LEVERET_AMQP__LOG_EXCHANGE="true")

    def addresses(self, log):
        found = dict(match.groups() for match in map(LISTENER.search, log) if match)
        if not {"AMQP", "HTTP"} <= found.keys():
            raise BrokerError("the log does not say where the broker listens")
        return found["AMQP"], found["HTTP"]


class RabbitMQ(Broker):
    """Debian's RabbitMQ as a private node: own ports, own name service, own directories."""

    name = "rabbitmq"

    def __init__(self):
        super().__init__()
        self.ports = {use: spare_port() for use in ("amqp", "http", "distribution", "names")}
        # The largest message as 4.x has it; Leveret's default.
        configuration = f"""log.console = true
log.file = false
log.exchange = true
max_message_size = 16777216
management.tcp.ip = 127.0.0.1
management.tcp.port = {self.ports["http"]}
"""
        files = {
            "enabled_plugins": f"[{','.join(RABBITMQ_PLUGINS)}].",
            "environment": "",
            "rabbitmq.conf": configuration,
            # An at-least-once dead letter that was not routed is tried again after this; three minutes otherwise.
            "advanced.config": "[{rabbit, [{dead_letter_worker_publisher_confirm_timeout, 1000}]}].",
        }
        for name, text in files.items():
            with open(os.path.join(self.directory, name), "w", encoding="utf-8") as file:
                file.write(text)
        changed = [f"{name}={value}" for name, value in self.environment().items()]
        self.control = ["env", *changed, f"{RABBITMQ_SCRIPTS}/rabbitmqctl"]

    def environment(self):
        """What makes the server and its tools use this node only."""

        def inside(name):
            return os.path.join(self.directory, name)

        return dict(
            HOME=self.directory,
            ERL_EPMD_PORT=str(self.ports["names"]),
            ERL_EPMD_ADDRESS="127.0.0.1",
            RABBITMQ_NODE_IP_ADDRESS="127.0.0.1",
            RABBITMQ_NODE_PORT=str(self.ports["amqp"]),
            RABBITMQ_DIST_PORT=str(self.ports["distribution"]),
            RABBITMQ_NODENAME=f"interop-{os.getpid()}@localhost",
            RABBITMQ_CONF_ENV_FILE=inside("environment"),
            RABBITMQ_CONFIG_FILE=inside("rabbitmq.conf"),
            RABBITMQ_ADVANCED_CONFIG_FILE=inside("advanced.config"),
            RABBITMQ_ENABLED_PLUGINS_FILE=inside("enabled_plugins"),
            RABBITMQ_MNESIA_BASE=inside("mnesia"),
            RABBITMQ_LOG_BASE=inside("log"),
            RABBITMQ_PID_FILE=inside("pid"),
        )

    def command(self):
        return [f"{RABBITMQ_SCRIPTS}/rabbitmq-server"], {**os.environ, **self.environment()}

    def addresses(self, log):
        return f"127.0.0.1:{self.ports['amqp']}", f"127.0.0.1:{self.ports['http']}"

    def remove(self):
        super().remove()
        # The name service is a daemon of its own that the node started; it answers on our port only.
        environment = dict(os.environ, ERL_EPMD_PORT=str(self.ports["names"]))
        subprocess.run(["epmd", "-kill"], env=environment, capture_output=True, check=False)


def rabbitmq_missing():
    """Why RabbitMQ cannot be started here, or None."""
    installed = os.path.exists(f"{RABBITMQ_SCRIPTS}/rabbitmq-server")
    return None if installed else "rabbitmq-server not found (apt-get install rabbitmq-server)"
