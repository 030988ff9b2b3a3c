#!/usr/bin/env python3
"""leveretctl beside Debian's rabbitmqctl: the same commands to both brokers, answers and exit codes compared.

`interop/ctl.txt` holds the commands. Run with --binary PATH of leveret; leveretctl is looked for beside it. Where RabbitMQ
is not installed nothing is compared, and the script says so.
"""

import argparse
import difflib
import os
import pathlib
import re
import shlex
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

from suite.brokers import Leveret, RabbitMQ, rabbitmq_missing

HERE = pathlib.Path(__file__).parent
RABBITMQ_TOOLS = "/usr/lib/rabbitmq/bin/"
COMMAND_WITHIN_SECONDS = 90
# Queues and bindings that both brokers begin with; RabbitMQ has no HTTP API here, so they come as definitions.
SCENE = """{
 "vhosts": [{"name": "/"}], "users": [], "permissions": [], "topic_permissions": [], "parameters": [],
 "global_parameters": [], "policies": [],
 "queues": [
  {"name": "q1", "vhost": "/", "durable": true, "auto_delete": false, "arguments": {"x-max-length": 5000000000}},
  {"name": "q2", "vhost": "/", "durable": true, "auto_delete": false, "arguments": {}}],
 "exchanges": [
  {"name": "ex", "vhost": "/", "type": "headers", "durable": true, "auto_delete": false, "internal": false,
   "arguments": {"alternate-exchange": "amq.fanout"}}],
 "bindings": [
  {"source": "amq.topic", "vhost": "/", "destination": "q1", "destination_type": "queue", "routing_key": "a.b",
   "arguments": {}}]
}"""


class Side:
    """One broker and the tools that talk to it."""

    def __init__(self, broker, tool, environment):
        self.broker = broker
        self.tool = tool
        self.environment = environment
        self.node = ""

    def run(self, words):
        """Exit code, stdout and stderr of a command."""
        program, arguments = self.tool(words[0]), words[1:]
        done = subprocess.run(
            [program[0], *arguments],
            executable=program[1],
            env=self.environment,
            cwd=self.broker.directory,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=COMMAND_WITHIN_SECONDS,
            check=False,
        )
        return done.returncode, self.plain(done.stdout), self.plain(done.stderr)

    def plain(self, text):
        """Without what is bound to differ: colours, the node's name, this broker's port and directory."""
        text = re.sub(r"\x1b\[[0-9;]*m", "", text)
        if self.node:
            text = text.replace(self.node, "NODE")
        return text.replace(self.broker.directory, "DIR")


def leveret_side(binary):
    broker = Leveret(binary)
    broker.start()
    program = os.path.join(os.path.dirname(broker.binary), "leveretctl")
    environment = dict(os.environ, LEVERET_DATA_DIR=os.path.join(broker.directory, "data"))
    return Side(broker, lambda name: (name, program), environment)


def rabbitmq_side():
    broker = RabbitMQ()
    broker.start()
    _, environment = broker.command()
    return Side(broker, lambda name: (RABBITMQ_TOOLS + name, RABBITMQ_TOOLS + name), environment)


def comparable(text):
    """Rows in any order: RabbitMQ's is that of its tables, ours the names'."""
    lines = [re.sub(r"^,", "", line) for line in text.rstrip("\n").split("\n")]
    return sorted(lines)


def compare(mode, ours, theirs):
    """What differs, or an empty list."""
    found = []
    if ours[0] != theirs[0]:
        found.append(f"exit code {ours[0]}, RabbitMQ {theirs[0]}")
    if mode == "same" and comparable(ours[1]) != comparable(theirs[1]):
        difference = difflib.unified_diff(comparable(theirs[1]), comparable(ours[1]), "rabbitmq", "leveret", lineterm="")
        found.extend(difference)
    if mode == "columns":
        header = [side[1].splitlines()[:1] for side in (ours, theirs)]
        if header[0] != header[1]:
            found.append(f"header {header[0]}, RabbitMQ {header[1]}")
    if found:
        found.append(f"stderr {ours[2]!r}, RabbitMQ {theirs[2]!r}")
    return found


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--binary", default="target/release/leveret")
    options = parser.parse_args()
    missing = rabbitmq_missing()
    if missing:
        print(f"not compared: {missing}")
        return 0
    sides = []
    pool = ThreadPoolExecutor(2)
    failed = passed = 0
    try:
        sides.append(leveret_side(options.binary))
        sides.append(rabbitmq_side())
        for side in sides:
            side.node = side.run(["rabbitmqctl", "-q", "eval", "node()."])[1].strip().strip("'")
            scene = os.path.join(side.broker.directory, "scene.json")
            pathlib.Path(scene).write_text(SCENE, encoding="utf-8")
            code, _, err = side.run(["rabbitmqctl", "-q", "import_definitions", scene])
            assert code == 0, err
        for line in (HERE / "ctl.txt").read_text(encoding="utf-8").splitlines():
            if not line or line.startswith("#"):
                continue
            mode, command = line.split(" ", 1)
            words = shlex.split(command)
            # Theirs boots a virtual machine each time; ours waits for nobody.
            ours, theirs = pool.map(lambda side, words=words: side.run(words), sides)
            found = compare(mode, ours, theirs)
            if found:
                failed += 1
                print(f"DIFFERENT {command}")
                for text in found:
                    print(f"    {text}")
            else:
                passed += 1
    finally:
        for side in sides:
            side.broker.remove()
    print(f"{passed} passed, {failed} failed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
