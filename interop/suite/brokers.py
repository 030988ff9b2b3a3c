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
READY_WITHIN_SECONDS = 60
STOP_WITHIN_SECONDS = 20
RABBITMQ_SCRIPT = "/usr/lib/rabbitmq/bin/rabbitmq-server"
ANSI_COLOUR = re.compile(r"\x1b\[[0-9;]*m")
AMQP_ADDRESS = re.compile(r"127\.0\.0\.1:([1-9][0-9]*)")


class BrokerError(Exception):
    """The broker did not start, or did not stop, as it should."""


def spare_port():
    """A TCP port of the loopback interface that was free a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class Broker:
    """One broker on one data directory. Subclasses say how it is started; `uri` is set while it runs."""

    name = "broker"

    def __init__(self):
        self.directory = tempfile.mkdtemp(prefix=f"interop-{self.name}-")
        self.process = None
        self.log = []
        self.uri = None

    def command(self):
        """The program, its arguments and its environment."""
        raise NotImplementedError

    def port(self, log):
        """The AMQP port, found in the log lines up to and including the ready line."""
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
        port = self.port(self.log[first_line:])
        self.uri = f"amqp://guest:guest@127.0.0.1:{port}"

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

    def command(self):
        arguments = [self.binary, "--data-dir", os.path.join(self.directory, "data")]
        arguments += ["--amqp-listen", "127.0.0.1:0", "--http-listen", "none", "--metrics-listen", "none"]
        return arguments, dict(os.environ)

    def port(self, log):
        # Every other listener is off, so the one loopback address in the log is the AMQP listener's.
        for line in log:
            found = AMQP_ADDRESS.search(line)
            if found:
                return int(found.group(1))
        raise BrokerError("the log names no 127.0.0.1:PORT")


class RabbitMQ(Broker):
    """Debian's RabbitMQ as a private node: own ports, own name service, own directories, no plugins."""

    name = "rabbitmq"

    def __init__(self):
        super().__init__()
        self.ports = {"amqp": spare_port(), "distribution": spare_port(), "names": spare_port()}
        for name, text in (("enabled_plugins", "[]."), ("environment", ""), ("rabbitmq.conf", "log.console = true\n")):
            with open(os.path.join(self.directory, name), "w", encoding="utf-8") as file:
                file.write(text)

    def command(self):
        def inside(name):
            return os.path.join(self.directory, name)

        environment = dict(os.environ)
        environment.update(
            HOME=self.directory,
            ERL_EPMD_PORT=str(self.ports["names"]),
            ERL_EPMD_ADDRESS="127.0.0.1",
            RABBITMQ_NODE_IP_ADDRESS="127.0.0.1",
            RABBITMQ_NODE_PORT=str(self.ports["amqp"]),
            RABBITMQ_DIST_PORT=str(self.ports["distribution"]),
            RABBITMQ_NODENAME=f"interop-{os.getpid()}@localhost",
            RABBITMQ_CONF_ENV_FILE=inside("environment"),
            RABBITMQ_CONFIG_FILE=inside("rabbitmq.conf"),
            RABBITMQ_ENABLED_PLUGINS_FILE=inside("enabled_plugins"),
            RABBITMQ_MNESIA_BASE=inside("mnesia"),
            RABBITMQ_LOG_BASE=inside("log"),
            RABBITMQ_LOGS="-",
            RABBITMQ_PID_FILE=inside("pid"),
        )
        return [RABBITMQ_SCRIPT], environment

    def port(self, log):
        return self.ports["amqp"]

    def remove(self):
        super().remove()
        # The name service is a daemon of its own that the node started; it answers on our port only.
        environment = dict(os.environ, ERL_EPMD_PORT=str(self.ports["names"]))
        subprocess.run(["epmd", "-kill"], env=environment, capture_output=True, check=False)


def rabbitmq_missing():
    """Why RabbitMQ cannot be started here, or None."""
    return None if os.path.exists(RABBITMQ_SCRIPT) else "rabbitmq-server not found (apt-get install rabbitmq-server)"
