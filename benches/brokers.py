"""Brokers for compare.py: found or started on spare ports with temporary directories, and stopped again."""

import os
import shutil
import signal
import socket
import subprocess
import time
from pathlib import Path

RABBITMQ_SERVER = Path("/usr/lib/rabbitmq/bin/rabbitmq-server")
POLICY = Path("/usr/sbin/policy-rc.d")
START_SECONDS = 60
STOP_SECONDS = 20
TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")


class BrokerError(Exception):
    """A broker that could not be installed, started or reached."""


class Broker:
    """A running broker: where it is and which process to measure."""

    def __init__(self, name, uri, pid, version=""):
        self.name = name
        self.uri = uri
        self.pid = pid
        self.version = version

    def cpu_seconds(self):
        """User and kernel time of the process so far."""
        stat = Path(f"/proc/{self.pid}/stat").read_text()
        fields = stat.rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / TICKS_PER_SECOND

    def rss_bytes(self):
        """Resident memory now."""
        for line in Path(f"/proc/{self.pid}/status").read_text().splitlines():
            if line.startswith("VmRSS:"):
                return int(line.split()[1]) * 1024
        raise BrokerError(f"{self.name}: process {self.pid} has no resident memory")


class StartedBroker(Broker):
    """A broker this program has started on a directory of its own, which goes away with it."""

    def __init__(self, name, directory, version):
        super().__init__(name, "", 0, version)
        shutil.rmtree(directory, ignore_errors=True)
        directory.mkdir(parents=True)
        self.directory = directory
        self.port = spare_port()
        self.uri = f"amqp://guest:guest@127.0.0.1:{self.port}"
        self.children = []
        self.start_seconds = None

    def spawn(self, command, log, **options):
        """Starts a child in its own process group, so that all it starts can be ended with it."""
        with open(self.directory / log, "wb") as out:
            child = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=out, stderr=out, start_new_session=True, **options
            )
        self.children.append(child)
        return child

    def wait_until_it_answers(self, child, started):
        """Until a connection gets the broker's first frame; notes how long that took from `started` on."""
        while not answers(self.port):
            if child.poll() is not None:
                raise BrokerError(f"{self.name} ended with {child.returncode}:\n{self.last_words()}")
            if time.monotonic() - started > START_SECONDS:
                raise BrokerError(f"{self.name} does not answer after {START_SECONDS} s:\n{self.last_words()}")
            time.sleep(0.001)
        self.start_seconds = time.monotonic() - started

    def wait_until_gone(self):
        """Until the process to measure has ended, after somebody killed it."""
        for child in self.children:
            if child.pid == self.pid:
                # Only this waits for its last thread, and with it for its files.
                child.wait()
        while Path(f"/proc/{self.pid}").exists() and not self.is_zombie():
            time.sleep(0.001)

    def is_zombie(self):
        """Ended, and nobody has asked for its exit code."""
        try:
            return Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
        except OSError:
            return True

    def last_words(self):
        """The end of what it has logged."""
        logs = sorted(self.directory.glob("*.log"))
        return "\n".join(log.read_text(errors="replace")[-1500:] for log in logs)

    def stop(self):
        """Ends all it consists of: politely, then not. Safe to call twice."""
        while self.children:
            child = self.children.pop()
            signal_group(child, signal.SIGTERM)
            try:
                child.wait(STOP_SECONDS)
            except subprocess.TimeoutExpired:
                pass
            signal_group(child, signal.SIGKILL)
            child.wait()
        shutil.rmtree(self.directory, ignore_errors=True)

    def __enter__(self):
        return self

    def __exit__(self, *_exception):
        self.stop()


class Leveret(StartedBroker):
    """Leveret with its default settings."""

    def __init__(self, binary, directory):
        version = subprocess.run([binary, "--version"], capture_output=True, text=True, check=True)
        super().__init__("Leveret", directory, version.stdout.split()[-1])
        self.binary = binary

    def start(self):
        """Starts it on an empty data directory."""
        started = time.monotonic()
        command = [self.binary, "--data-dir", self.directory / "data", "--amqp-listen", f"127.0.0.1:{self.port}"]
        child = self.spawn(command + ["--http-listen", "none", "--metrics-listen", "none"], "leveret.log")
        self.pid = child.pid
        self.wait_until_it_answers(child, started)
        return self


class RabbitMQ(StartedBroker):
    """Debian's RabbitMQ with its default settings and no plugins."""

    def __init__(self, directory):
        super().__init__("RabbitMQ", directory, rabbitmq_version())

    def start(self):
        """Starts it on an empty data directory, with an Erlang port mapper of its own."""
        mapper_port = spare_port()
        (self.directory / "plugins").write_text("[].\n")
        environment = os.environ | {
            "HOME": str(self.directory),
            "ERL_EPMD_ADDRESS": "127.0.0.1",
            "ERL_EPMD_PORT": str(mapper_port),
            "RABBITMQ_NODENAME": f"bench{self.port}@localhost",
            "RABBITMQ_NODE_IP_ADDRESS": "127.0.0.1",
            "RABBITMQ_NODE_PORT": str(self.port),
            "RABBITMQ_DIST_PORT": str(spare_port()),
            "RABBITMQ_MNESIA_BASE": str(self.directory / "data"),
            "RABBITMQ_LOG_BASE": str(self.directory / "log"),
            "RABBITMQ_CONFIG_FILE": str(self.directory / "none"),
            "RABBITMQ_ADVANCED_CONFIG_FILE": str(self.directory / "none"),
            "RABBITMQ_CONF_ENV_FILE": str(self.directory / "none"),
            "RABBITMQ_ENABLED_PLUGINS_FILE": str(self.directory / "plugins"),
            "RABBITMQ_PID_FILE": str(self.directory / "pid"),
        }
        # Started here, in the foreground, the mapper ends with us; the one RabbitMQ would start outlives it.
        self.spawn(["epmd", "-port", str(mapper_port), "-address", "127.0.0.1"], "epmd.log", env=environment)
        started = time.monotonic()
        child = self.spawn([RABBITMQ_SERVER], "rabbitmq.log", env=environment)
        self.wait_until_it_answers(child, started)
        self.pid = int((self.directory / "pid").read_text())
        return self


def install_rabbitmq():
    """Installs Debian's package if it is missing, without letting it start a service."""
    if RABBITMQ_SERVER.exists():
        return
    if not shutil.which("apt-get"):
        raise BrokerError("RabbitMQ is not installed, and this is no Debian to install it from")
    become_root = [] if os.geteuid() == 0 else ["sudo"]
    print("installing rabbitmq-server from Debian", flush=True)
    # Debian asks this script whether a package may start its service; 101 is no.
    held_back = not POLICY.exists()
    if held_back:
        script = "#!/bin/sh\nexit 101\n"
        subprocess.run(become_root + ["tee", POLICY], input=script, text=True, stdout=subprocess.DEVNULL, check=True)
        subprocess.run(become_root + ["chmod", "755", POLICY], check=True)
    try:
        install = ["env", "DEBIAN_FRONTEND=noninteractive", "apt-get", "install", "-y", "--no-install-recommends"]
        outcome = subprocess.run(become_root + install + ["rabbitmq-server"], stdout=subprocess.DEVNULL)
        if outcome.returncode != 0:
            raise BrokerError("apt-get could not install rabbitmq-server (try apt-get update)")
    finally:
        if held_back:
            subprocess.run(become_root + ["rm", "-f", POLICY], check=True)


def rabbitmq_version():
    """As its installation directory names it."""
    for folder in sorted(Path("/usr/lib/rabbitmq/lib").glob("rabbitmq_server-*")):
        return folder.name.partition("-")[2]
    raise BrokerError("RabbitMQ is not installed")


def spare_port():
    """A port nobody listens on right now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def answers(port):
    """Whether an AMQP client would be greeted there."""
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=5) as client:
            client.sendall(b"AMQP\x00\x00\x09\x01")
            return client.recv(1) == b"\x01"
    except OSError:
        return False


def signal_group(child, number):
    """To the child and all it has started; nothing if they are gone."""
    try:
        os.killpg(child.pid, number)
    except ProcessLookupError:
        pass
