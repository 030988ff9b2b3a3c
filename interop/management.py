#!/usr/bin/env python3
"""Runs other people's management tools, unmodified, against a private broker's HTTP API.

    interop/management.py --binary target/release/leveret
    interop/management.py --broker rabbitmq --tool rabbitmqadmin-v1     what we expect is what RabbitMQ does

A tool whose toolchain is missing is skipped with a line that says so. rabbitmqadmin version 2 is a Rust program that takes
minutes to compile; its scenario runs when the program is there:

    cargo install rabbitmqadmin --locked --root ~/.cache/leveret/rabbitmqadmin
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path

from suite.brokers import BrokerError, Leveret, RabbitMQ, rabbitmq_missing, spare_port
from suite.clients import CACHE, INTEROP, PrepareError, cached, exclusively, not_found, prepared_python, run
from suite.http import Api, port

SCRIPT = INTEROP.parent / "src" / "management" / "cli" / "rabbitmqadmin"
REQUIREMENTS = INTEROP / "management" / "requirements.txt"

# Something to look at: a connection with a consumer that holds a message.
CONSUMER = """
import pika, sys, time
connection = pika.BlockingConnection(pika.URLParameters(sys.argv[1]))
channel = connection.channel()
channel.queue_declare("held", durable=True)
channel.basic_publish("", "held", b"one", pika.BasicProperties(delivery_mode=2, headers={"h": 1}))
channel.basic_consume("held", lambda *_: None)
print("ready", flush=True)
end = time.time() + 240
while time.time() < end:
    connection.process_data_events(0.2)
"""


class Skip(Exception):
    """Why a tool cannot run on this machine."""


def finish(command, **more):
    """Runs a program to its end; its output, or an AssertionError with all it said."""
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True, timeout=120, check=False, **more)
    if done.returncode != 0:
        raise AssertionError(f"{' '.join(map(str, command))}: exit code {done.returncode}\n{done.stdout}{done.stderr}")
    return done.stdout


def management_python():
    """An interpreter with amqpstorm and Flower."""
    environment = CACHE / "interop-management-venv"
    interpreter = environment / "bin" / "python"
    stamp = environment / "interop.stamp"
    wanted = f"{sys.version}\n{REQUIREMENTS.read_text(encoding='utf-8')}"
    with exclusively("management-venv"):
        if not (stamp.exists() and stamp.read_text(encoding="utf-8") == wanted):
            run([sys.executable, "-m", "venv", "--clear", environment])
            run([interpreter, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "-r", REQUIREMENTS])
            stamp.write_text(wanted, encoding="utf-8")
    return interpreter


def rabbitmqadmin_v2(broker, api):
    """Every command of version 2 that applies to one node."""
    program = shutil.which("rabbitmqadmin-v2") or CACHE / "rabbitmqadmin" / "bin" / "rabbitmqadmin"
    if not os.path.exists(program):
        raise Skip(f"{program} is not there; see the head of management.py")
    directory = tempfile.mkdtemp(prefix="interop-admin-")
    base = [program, "--host", "127.0.0.1", "--port", port(broker), "--non-interactive"]
    name = api.call("GET", "/connections")[1][0]["name"]
    node = api.call("GET", "/nodes")[1][0]["name"]
    commands = (INTEROP / "management" / "rabbitmqadmin-v2.txt").read_text(encoding="utf-8").splitlines()
    wrong, count = [], 0
    try:
        for line in commands:
            if not line or line.startswith("#"):
                continue
            words = [word.format(node=node, connection=name, dir=directory, http=port(broker)).replace("~", " ")
                     for word in line.replace("{", "{{").replace("}", "}}").replace("{{node}}", "{node}")
                     .replace("{{connection}}", "{connection}").replace("{{dir}}", "{dir}").replace("{{http}}", "{http}").split()]  # fmt: skip
            try:
                finish([*base, *words])
                count += 1
            except AssertionError as problem:
                wrong.append(str(problem))
    finally:
        shutil.rmtree(directory, ignore_errors=True)
    assert not wrong, f"{len(wrong)} of {count + len(wrong)} commands failed:\n" + "\n".join(wrong)
    return f"{count} commands"


def rabbitmqadmin_v1(broker, api):
    """The script that the broker serves, with the commands of RabbitMQ's."""
    directory = Path(tempfile.mkdtemp(prefix="interop-admin-"))
    try:
        script = directory / "rabbitmqadmin"
        if broker.name == "leveret":
            with urllib.request.urlopen(f"{broker.http}/cli/rabbitmqadmin", timeout=10) as answer:
                script.write_bytes(answer.read())
        else:
            shutil.copy(SCRIPT, script)

        def admin(*words, stdin=None):
            return finish([sys.executable, script, "-P", port(broker), *words], input=stdin)

        assert "queue declared" in admin("declare", "queue", "name=one", 'arguments={"x-max-length": 5}')
        assert "queue declared" in admin("declare", "queue", "name=two", "queue_type=quorum")
        assert "exchange declared" in admin("declare", "exchange", "name=e", "type=topic")
        assert "binding declared" in admin("declare", "binding", "source=e", "destination=one", "routing_key=a.#")
        assert "NOT routed" in admin("publish", "exchange=e", "routing_key=z", "payload=lost")
        assert "NOT" not in admin("publish", "exchange=e", "routing_key=a.b", "payload=kept", 'properties={"delivery_mode": 2}')
        assert "Message published" in admin("publish", "routing_key=one", stdin="from stdin")
        got = json.loads(admin("-f", "raw_json", "get", "queue=one", "count=2"))
        assert [message["payload"] for message in got] == ["kept", "from stdin"], got
        assert "one\t" in admin("-f", "tsv", "list", "queues", "name", "messages")
        assert 'name="e"' in admin("-f", "kvp", "list", "exchanges")
        assert "two" in admin("-f", "bash", "list", "queues").split()
        assert "| e " in admin("list", "bindings")
        assert "user declared" in admin("declare", "user", "name=u", "password=p", "tags=monitoring")
        assert "permission declared" in admin("declare", "permission", "vhost=/", "user=u", "configure=.*", "write=.*", "read=.*")
        assert "policy declared" in admin("declare", "policy", "name=p", "pattern=^o", 'definition={"max-length": 3}', "apply-to=queues")
        assert "vhost declared" in admin("declare", "vhost", "name=v")
        assert "vhost_limit declared" in admin("declare", "vhost_limit", "vhost=v", "name=max-queues", "value=3")
        for what in ("users", "vhosts", "connections", "channels", "consumers", "permissions", "nodes", "parameters",
                     "policies", "operator_policies", "vhost_limits"):  # fmt: skip
            admin("list", what)
        admin("show", "overview")
        admin("export", directory / "all.json")
        admin("import", directory / "all.json")
        admin("purge", "queue", "name=one")
        key = next(row["properties_key"] for row in api.call("GET", "/bindings")[1] if row["source"] == "e")
        admin("delete", "binding", "source=e", "destination_type=queue", "destination=one", f"properties_key={key}")
        for words in (("queue", "name=one"), ("queue", "name=two"), ("exchange", "name=e"), ("policy", "name=p"),
                      ("permission", "vhost=/", "user=u"), ("user", "name=u"), ("vhost_limit", "vhost=v", "name=max-queues"),
                      ("vhost", "name=v")):  # fmt: skip
            assert f"{words[0]} deleted" in admin("delete", *words)
        wrong = subprocess.run([sys.executable, script, "-P", port(broker), "delete", "queue", "name=one"],
                               capture_output=True, text=True, timeout=60, check=False)  # fmt: skip
        assert wrong.returncode == 1 and wrong.stderr.startswith("*** Not found"), wrong
    finally:
        shutil.rmtree(directory, ignore_errors=True)


def amqpstorm(broker, _api):
    """amqpstorm's management client."""
    print(finish([management_python(), INTEROP / "management" / "amqpstorm_client.py", broker.http]), end="")


def flower(broker, _api):
    """Celery Flower shows the broker's queues, which it asks the HTTP API for."""
    own = spare_port()
    command = [management_python(), "-m", "celery", "-A", "flower_app", f"--broker={broker.uri}/", "flower",
               f"--address=127.0.0.1", f"--port={own}", f"--broker_api=http://guest:guest@127.0.0.1:{port(broker)}/api/"]  # fmt: skip
    environment = dict(os.environ, PYTHONPATH=str(INTEROP / "management"), FLOWER_UNAUTHENTICATED_API="true")
    process = subprocess.Popen([str(part) for part in command], env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    try:
        Api(broker.http).call("PUT", "/queues/%2F/celery", {"durable": True})
        Api(broker.http).call("POST", "/exchanges/%2F/amq.default/publish",
                              {"routing_key": "celery", "properties": {}, "payload": "x", "payload_encoding": "string"})  # fmt: skip
        deadline, found = time.monotonic() + 40, None
        while time.monotonic() < deadline:
            try:
                with urllib.request.urlopen(f"http://127.0.0.1:{own}/api/queues/length", timeout=5) as answer:
                    found = json.loads(answer.read())
                if any(queue["name"] == "celery" and queue["messages"] == 1 for queue in found["active_queues"]):
                    return
            except OSError:
                pass
            time.sleep(0.3)
        process.terminate()
        raise AssertionError(f"Flower shows {found}; it said:\n{process.communicate(timeout=10)[0]}")
    finally:
        process.kill()
        process.wait()


def rabbit_hole(broker, _api):
    """Go's rabbit-hole, which Terraform and the Kubernetes operator are built on."""
    missing = not_found("go")
    if missing:
        raise Skip(missing)
    folder = INTEROP / "management" / "rabbit-hole"
    sources = sorted(path for path in folder.iterdir() if path.suffix in (".go", ".mod", ".sum"))

    def build(directory):
        run(["go", "build", "-o", directory / "rabbit-hole", "."], cwd=folder)

    print(finish([cached("rabbit-hole", sources, build) / "rabbit-hole", broker.http]), end="")


TOOLS = {
    "rabbitmqadmin-v1": rabbitmqadmin_v1,
    "rabbitmqadmin-v2": rabbitmqadmin_v2,
    "amqpstorm": amqpstorm,
    "flower": flower,
    "rabbit-hole": rabbit_hole,
}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--broker", choices=("leveret", "rabbitmq"), default="leveret")
    parser.add_argument("--binary", default="target/release/leveret", help="Leveret's binary (default: %(default)s)")
    parser.add_argument("--tool", action="append", choices=list(TOOLS), help="only this tool; may be repeated")
    options = parser.parse_args()
    if options.broker == "rabbitmq" and rabbitmq_missing():
        print(f"SKIP rabbitmq: {rabbitmq_missing()}")
        return 0
    broker = RabbitMQ() if options.broker == "rabbitmq" else Leveret(options.binary)
    failed, consumer = 0, None
    try:
        broker.start()
        consumer = subprocess.Popen([str(prepared_python()), "-c", CONSUMER, broker.uri], stdout=subprocess.PIPE, text=True)
        consumer.stdout.readline()
        api = Api(broker.http)
        deadline = time.monotonic() + 10
        while not (api.call("GET", "/connections")[1] and api.call("GET", "/channels")[1]) and time.monotonic() < deadline:
            time.sleep(0.2)
        for name in options.tool or TOOLS:
            started = time.monotonic()
            try:
                said = TOOLS[name](broker, api)
                print(f"PASS {name} {said or ''} ({time.monotonic() - started:.1f} s)", flush=True)
            except Skip as reason:
                print(f"SKIP {name}: {reason}", flush=True)
            except (AssertionError, PrepareError, OSError, subprocess.TimeoutExpired, KeyError, ValueError) as problem:
                failed += 1
                print(f"FAIL {name}: {problem}", flush=True)
    except (BrokerError, OSError) as problem:
        print(f"FAIL broker: {problem}")
        failed += 1
    finally:
        if consumer:
            consumer.kill()
        if broker.process and broker.process.poll() is None:
            broker.kill()
        broker.remove()
    panics = [line for line in broker.log if "panicked at" in line]
    print(*panics, sep="\n", end="")
    return 1 if failed or panics else 0


if __name__ == "__main__":
    sys.exit(main())
