"""The clients: what each needs on the machine, how it is prepared, and the command that runs its scenarios.

Whatever is installed or compiled lands in the cache, outside the clone, under a name that follows from its inputs;
a second run finds it there and does nothing.
"""

import fcntl
import hashlib
import importlib.util
import os
import shutil
import subprocess
import sys
import tempfile
from contextlib import contextmanager
from pathlib import Path

INTEROP = Path(__file__).resolve().parent.parent
CACHE = Path(os.environ.get("LEVERET_CACHE") or Path.home() / ".cache" / "leveret")
PREPARE_SECONDS = 600

# What every client has to show, in the order of the table.
SCENARIOS = (
    "declare_bind",
    "publish_confirms",
    "consume_prefetch",
    "nack_requeue",
    "mandatory_return",
    "large_body",
    "empty_body",
    "header_types",
    "properties",
    "channel_error",
    "reconnect",
)

ROUTING = (
    "consistent_hash",
    "random_exchange",
    "modulus_hash",
    "recent_history",
    "headers_matching",
    "alternate_exchange",
    "exchange_cycle",
    "carbon_copies",
)
QUEUES = (
    "length_limits",
    "dead_letters",
    "priorities",
    "single_active_consumer",
    "consumer_priorities",
    "exclusive_consumer",
    "cancel_notify",
    "direct_reply_to",
    "global_qos",
    "user_id",
    "update_secret",
    "auto_delete",
    "legacy_arguments",
    "size_limits",
    "slow_consumer",
    "heartbeats",
    "expiry",
    "quorum_queue",
    "at_least_once",
)
# These need the broker's HTTP API or command line tool, so they run with a broker of the suite's own.
OPERATED = (
    "policies",
    "operator_policies",
    "permissions",
    "limits",
    "firehose",
    "event_exchange",
    "log_exchange",
    "blocked",
)
# RabbitMQ 3.10 has none of it: plugins Debian does not ship, later versions, and Leveret's own.
BEYOND_RABBITMQ = ("delays", "delayed_retry", "retry_until_dead", "consumer_timeout", "settle")
NOT_ON_RABBITMQ = (*BEYOND_RABBITMQ, "held_by_the_broker")
FEATURES = (*ROUTING, *QUEUES, *OPERATED, *BEYOND_RABBITMQ)
CLOUDAMQP = (*(it for it in SCENARIOS if it != "properties"), "transactions", "direct_reply_to", "settle")
KOMBU = ("publish_confirms", "mandatory_return", "header_types", "global_qos", "priorities", "reconnect")
CELERY = (
    "results_and_retries",
    "priority_order",
    "control_and_revoke",
    "eta_and_backoff",
    "broadcast",
    "held_by_the_broker",
    "worker_killed",
)


class PrepareError(Exception):
    """A client's dependencies could not be installed or its program not be built."""


class Client:
    """A client library or tool, and the scenarios its program has."""

    language = "Python"
    scenarios = SCENARIOS

    def missing(self):
        """Why this client cannot run on this machine, or None."""
        return None

    def prepare(self):
        """Installs and builds what is not in the cache yet; returns the command that takes a URI."""
        raise NotImplementedError


class Python(Client):
    """A Python program in a virtual environment that all Python clients share."""

    def __init__(self, name, program, scenarios=SCENARIOS):
        self.name = name
        self.program = program
        self.scenarios = scenarios

    def prepare(self):
        return [prepared_python(), INTEROP / "python" / self.program]


def prepared_python():
    """The interpreter of the virtual environment with the pinned requirements installed."""
    requirements = INTEROP / "python" / "requirements.txt"
    environment = CACHE / "interop-venv"
    interpreter = environment / "bin" / "python"
    stamp = environment / "interop.stamp"
    wanted = f"{sys.version}\n{requirements.read_text(encoding='utf-8')}"
    with exclusively("venv"):
        if not (stamp.exists() and stamp.read_text(encoding="utf-8") == wanted):
            # Debian's python3 comes without what a virtual environment needs.
            if importlib.util.find_spec("ensurepip") is None and can_install_packages():
                install_package("python3-venv")
            run([sys.executable, "-m", "venv", "--clear", environment])
            run([interpreter, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "-r", requirements])
            stamp.write_text(wanted, encoding="utf-8")
    return interpreter


class Node(Client):
    """A client of node's, from the lock file they share. amqplib has no transactions."""

    language = "JavaScript"

    def __init__(self, name, program, scenarios):
        self.name = name
        self.program = program
        self.scenarios = scenarios

    def missing(self):
        return not_found("node", "npm")

    def prepare(self):
        manifests = [INTEROP / "node" / "package.json", INTEROP / "node" / "package-lock.json"]

        def install(directory):
            for manifest in manifests:
                shutil.copy(manifest, directory)
            run(["npm", "ci", "--no-audit", "--no-fund"], cwd=directory)

        modules = cached("node", manifests, install) / "node_modules"
        return ["env", f"NODE_PATH={modules}", "node", INTEROP / "node" / "main.js", self.program]


class Java(Client):
    """The Java client, built by Maven."""

    name = "java"
    language = "Java"
    program = "interop.Main"
    scenarios = (
        *SCENARIOS,
        "consistent_hash",
        "carbon_copies",
        "length_limits",
        "dead_letters",
        "priorities",
        "single_active_consumer",
        "consumer_priorities",
        "cancel_notify",
        "direct_reply_to",
        "global_qos",
        "transactions",
        "expiry",
        "quorum_queue",
        "at_least_once",
        *BEYOND_RABBITMQ,
    )

    def missing(self):
        return not_found("mvn", "java")

    def prepare(self):
        pom = INTEROP / "java" / "pom.xml"

        def build(directory):
            maven = ["mvn", "--batch-mode", "--quiet", "-f", pom, f"-DbuildDirectory={directory}"]
            goals = ["compile", "dependency:copy-dependencies"]
            # Without the network first: Maven looks for news of what it already has otherwise.
            if subprocess.run([*maven, "--offline", *goals], capture_output=True, check=False).returncode != 0:
                run([*maven, *goals])

        built = cached("java", [pom, *sorted((INTEROP / "java" / "src").rglob("*.java"))], build)
        # The programs live for a second or two, too short for the optimising compiler.
        return ["java", "-XX:TieredStopAtLevel=1", "-cp", f"{built}/classes:{built}/dependency/*", self.program]


class Spring(Java):
    """Spring AMQP, which has habits of its own on top of the Java client."""

    name = "spring"
    program = "interop.Spring"
    scenarios = (
        "publish_confirms",
        "mandatory_return",
        "nack_requeue",
        "reconnect",
        "dead_letters",
        "direct_reply_to",
        "transactions",
        "quorum_queue",
        "delays",
    )


class Go(Client):
    """amqp091-go, built by go."""

    name = "go"
    language = "Go"
    program = "amqp091"
    scenarios = (
        *SCENARIOS,
        "consistent_hash",
        "recent_history",
        "headers_matching",
        "alternate_exchange",
        "carbon_copies",
        "length_limits",
        "dead_letters",
        "priorities",
        "single_active_consumer",
        "consumer_priorities",
        "direct_reply_to",
        "global_qos",
        "transactions",
        "update_secret",
        "expiry",
        "quorum_queue",
        *BEYOND_RABBITMQ,
    )

    def missing(self):
        return not_found("go")

    def prepare(self):
        sources = sorted(path for path in (INTEROP / "go").iterdir() if path.suffix in (".go", ".mod", ".sum"))

        def build(directory):
            run(["go", "build", "-o", directory / "scenarios", "."], cwd=INTEROP / "go")

        return [cached("go", sources, build) / "scenarios", self.program]


class Watermill(Go):
    """Watermill over amqp091-go."""

    name = "watermill"
    program = "watermill"
    scenarios = ("publish_confirms", "nack_requeue", "transactions")


class Rust(Client):
    """lapin, which the broker's own tests use too; built with them."""

    name = "lapin"
    language = "Rust"
    scenarios = (
        *SCENARIOS,
        "consistent_hash",
        "headers_matching",
        "alternate_exchange",
        "exchange_cycle",
        "carbon_copies",
        "length_limits",
        "dead_letters",
        "priorities",
        "single_active_consumer",
        "consumer_priorities",
        "exclusive_consumer",
        "cancel_notify",
        "direct_reply_to",
        "global_qos",
        "transactions",
        "update_secret",
        "expiry",
        "quorum_queue",
        *BEYOND_RABBITMQ,
    )

    def missing(self):
        return not_found("cargo")

    def prepare(self):
        run(["make", "--silent", "lapin-scenarios"], cwd=INTEROP.parent)
        target = Path(os.environ.get("CARGO_TARGET_DIR") or INTEROP.parent / "target")
        return [target / "release" / "examples" / "lapin-scenarios"]


# What the scripting languages' clients play beyond the scenarios of all.
SCRIPTED = (
    *SCENARIOS,
    "length_limits",
    "dead_letters",
    "priorities",
    "direct_reply_to",
    "global_qos",
    "transactions",
    "quorum_queue",
    "delays",
    "settle",
)


class Ruby(Client):
    """Debian's Bunny."""

    name = "ruby"
    language = "Ruby"
    scenarios = SCRIPTED

    def missing(self):
        return None if can_install_packages() else not_found("ruby")

    def prepare(self):
        if not works("ruby", "-e", 'require "bunny"'):
            install_package("ruby-bunny")
        return ["ruby", INTEROP / "ruby" / "main.rb"]


class Php(Client):
    """Debian's php-amqplib."""

    name = "php"
    language = "PHP"
    scenarios = (*SCRIPTED, "delayed_retry")

    def missing(self):
        return None if can_install_packages() else not_found("php")

    def prepare(self):
        if not works("php", "-r", "exit((@include_once 'PhpAmqpLib/autoload.php') ? 0 : 1);"):
            install_package("php-cli", "php-amqplib")
        return ["php", INTEROP / "php" / "main.php"]


class Perl(Client):
    """Debian's AnyEvent::RabbitMQ. It sends a delivery tag that it received as text."""

    name = "perl"
    language = "Perl"
    scenarios = ("publish_confirms", "nack_requeue", "mandatory_return", "transactions", "settle")

    def missing(self):
        return None if can_install_packages() else not_found("perl")

    def prepare(self):
        if not works("perl", "-MAnyEvent::RabbitMQ", "-e", "1"):
            install_package("libanyevent-rabbitmq-perl")
        return ["perl", INTEROP / "perl" / "scenarios.pl"]


class CTools(Client):
    """Debian's amqp-tools. They have no confirms, no mandatory flag, and show no properties."""

    name = "c-tools"
    language = "C"
    scenarios = (
        "declare_bind",
        "consume_prefetch",
        "nack_requeue",
        "large_body",
        "empty_body",
        "channel_error",
        "reconnect",
    )

    def missing(self):
        return None if can_install_packages() else not_found("amqp-publish")

    def prepare(self):
        if not_found("amqp-publish"):
            install_package("amqp-tools")
        return [sys.executable, INTEROP / "c-tools" / "amqp_tools_scenarios.py"]


class CLibrary(Client):
    """Debian's librabbitmq, through a program of ours."""

    name = "librabbitmq"
    language = "C"
    scenarios = (
        "publish_confirms",
        "mandatory_return",
        "nack_requeue",
        "transactions",
        "header_types",
        "dead_letters",
        "settle",
    )

    def missing(self):
        if not_found("gcc"):
            return not_found("gcc")
        installed = Path("/usr/include/amqp.h").exists() or can_install_packages()
        return None if installed else "amqp.h not found (apt-get install librabbitmq-dev)"

    def prepare(self):
        if not Path("/usr/include/amqp.h").exists():
            install_package("librabbitmq-dev")
        source = INTEROP / "c" / "scenarios.c"

        def build(directory):
            run(["gcc", "-Wall", "-Wextra", "-Werror", "-O1", "-o", directory / "scenarios", source, "-lrabbitmq"])

        return [cached("c", [source], build) / "scenarios"]


class Erlang(Client):
    """RabbitMQ's own client for Erlang, which comes with Debian's server."""

    name = "erlang"
    language = "Erlang"
    scenarios = (
        "publish_confirms",
        "nack_requeue",
        "mandatory_return",
        "header_types",
        "channel_error",
        "transactions",
        "direct_reply_to",
        "settle",
    )

    @staticmethod
    def libraries():
        return next(Path("/usr/lib/rabbitmq/lib").glob("rabbitmq_server-*/plugins"), None)

    def missing(self):
        return not_found("escript") or (None if self.libraries() else "amqp_client not found (apt-get install rabbitmq-server)")

    def prepare(self):
        return ["env", f"ERL_LIBS={self.libraries()}", "escript", INTEROP / "erlang" / "scenarios.escript"]


CLIENTS = (
    Python("pika", "pika_program.py", (*SCENARIOS, *FEATURES, "transactions")),
    Python("aio-pika", "aio_pika_scenarios.py"),
    Node("node", "amqplib", (*SCENARIOS, *FEATURES)),
    Node("cloudamqp", "cloudamqp", CLOUDAMQP),
    Node("node-manager", "connection-manager", ("publish_confirms", "reconnect")),
    Java(),
    Spring(),
    Go(),
    Watermill(),
    Rust(),
    Ruby(),
    Php(),
    Perl(),
    CTools(),
    CLibrary(),
    Erlang(),
    Python("celery", "celery_scenarios.py", CELERY),
    Python("kombu", "kombu_scenarios.py", KOMBU),
    Python("dramatiq", "dramatiq_scenarios.py", ("dead_letters", "priority_order", "eta_and_backoff")),
)


def not_found(*programs):
    """The first of the programs that is not on the path, as a reason; or None."""
    return next((f"{program} not found" for program in programs if shutil.which(program) is None), None)


def works(*command):
    """Whether a command is there and ends well."""
    if not_found(command[0]):
        return False
    return subprocess.run(command, capture_output=True, check=False).returncode == 0


def can_install_packages():
    """Whether this is a Debian, and ours to install packages on."""
    return os.geteuid() == 0 and not_found("apt-get") is None


def install_package(*names):
    """Installs Debian packages, with fresh package lists if the ones at hand do not lead to it."""
    apt = ["apt-get", "-qq", "-o", "DPkg::Lock::Timeout=300"]
    install = [*apt, "install", "-y", "--no-install-recommends", *names]
    quiet = {"DEBIAN_FRONTEND": "noninteractive"}
    with exclusively("apt"):
        try:
            run(install, environment=quiet)
        except PrepareError:
            run([*apt, "update"])
            run(install, environment=quiet)


def run(command, cwd=None, environment=None):
    """Runs a preparing command; its output matters only if it fails."""
    done = subprocess.run(
        [str(part) for part in command],
        cwd=cwd,
        env={**os.environ, **(environment or {})},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=PREPARE_SECONDS,
        check=False,
    )
    if done.returncode != 0:
        raise PrepareError(f"{' '.join(map(str, command))} ended with {done.returncode}:\n{done.stdout[-8000:]}")


@contextmanager
def exclusively(name):
    """Holds a lock that other runs of the suite respect too."""
    CACHE.mkdir(parents=True, exist_ok=True)
    with open(CACHE / f"interop-{name}.lock", "wb") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def cached(name, sources, make):
    """A directory in the cache that `make(directory)` has filled from exactly these source files."""
    digest = hashlib.sha256()
    for source in sources:
        digest.update(f"{source.name} {source.stat().st_size}\n".encode())
        digest.update(source.read_bytes())
    directory = CACHE / f"interop-{name}-{digest.hexdigest()[:16]}"
    with exclusively(name):
        if not directory.exists():
            # Made aside and renamed, so that an interrupted run leaves nothing half-made under the final name.
            fresh = Path(tempfile.mkdtemp(prefix=f"interop-{name}-", dir=CACHE))
            try:
                make(fresh)
                fresh.rename(directory)
            finally:
                shutil.rmtree(fresh, ignore_errors=True)
    return directory
