#!/usr/bin/env python3
"""The test suites that client libraries ship for RabbitMQ, run against Leveret. By hand, not by `make test`: they are
downloaded, and want the ports 5672 and 15672.

    interop/own_suites.py --binary target/release/leveret     leveretctl is looked for beside it
    interop/own_suites.py --suite go --suite py-amqp          some of them

What fails is compared with what is known to fail for reasons that are not the broker's; anything else fails the run.
"""

import argparse
import os
import re
import shutil
import socket
import subprocess
import sys
import tarfile
import tempfile
import urllib.request
from pathlib import Path

from suite.brokers import Leveret
from suite.clients import CACHE, cached, not_found, run

HERE = Path(__file__).resolve()
SUITE_SECONDS = 900
PYPI = "https://pypi.org/simple"


class Fixed(Leveret):
    """Leveret where the suites look for a broker."""

    def command(self):
        arguments, environment = super().command()
        places = {"--amqp-listen": "[::]:5672", "--http-listen": "127.0.0.1:15672"}
        for flag, place in places.items():
            arguments[arguments.index(flag) + 1] = place
        return arguments, environment

    def addresses(self, log):
        return "localhost:5672", "localhost:15672"


class Suite:
    """A library's tests."""

    # Names of tests that fail without the broker having a part in it, and why.
    known = {}

    def missing(self):
        """What this machine lacks for it, or None."""
        return None

    def command(self, directory, broker):
        """Prepares the suite in a directory of its own; the command and its environment."""
        raise NotImplementedError

    def failed(self, output):
        """The names of the tests that failed, and how many passed."""
        raise NotImplementedError


class Go(Suite):
    """amqp091-go, with the tests that need a broker and its operator's program."""

    name = "go"
    known = {"TestNotifyClosesAllChansAfterConnectionClose": "waits for a millisecond, for a broker of its own"}

    def missing(self):
        return not_found("go")

    def command(self, directory, broker):
        where = ["go", "list", "-m", "-f", "{{.Dir}}", "github.com/rabbitmq/amqp091-go"]
        subprocess.run(["go", "mod", "download"], cwd=HERE.parent / "go", check=True)
        module = subprocess.run(where, cwd=HERE.parent / "go", check=True, capture_output=True, text=True).stdout.strip()
        shutil.copytree(module, directory / "go")
        run(["chmod", "-R", "u+w", directory / "go"])
        run(["go", "test", "-c", "-tags", "integration", "-o", directory / "suite", "."], cwd=directory / "go")
        environment = {"AMQP_URL": broker.uri + "/", "RABBITMQ_RABBITMQCTL_PATH": str(rabbitmqctl(directory, broker))}
        return [directory / "suite", "-test.v"], directory / "go", environment

    def failed(self, output):
        return set(re.findall(r"^--- FAIL: (\S+)", output, re.M)), len(re.findall(r"^--- PASS", output, re.M))


class Amqplib(Suite):
    """node's amqplib."""

    name = "amqplib"

    def missing(self):
        return not_found("node", "npm")

    def command(self, directory, broker):
        run(["npm", "pack", "amqplib@2.0.1"], cwd=directory)
        unpack(directory / "amqplib-2.0.1.tgz")
        package = directory / "package"
        run(["npm", "install", "--no-audit", "--no-fund", "--ignore-scripts", "claire@0.4.1"], cwd=package)
        tests = sorted((package / "test").glob("*.test.js"))
        reporter = ["--test-reporter=tap", "--test-timeout=20000"]
        return ["node", "--test", *reporter, *tests], package, {}

    def failed(self, output):
        return set(re.findall(r"^\s*not ok \d+ - (.*)$", output, re.M)), int(re.search(r"^# pass (\d+)", output, re.M)[1])


class Pytest(Suite):
    """A Python library whose source archive holds its tests."""

    def __init__(self, name, archive, tests, more=()):
        self.name = name
        self.archive = archive
        self.tests = tests
        self.more = more

    def command(self, directory, broker):
        project = self.archive.rsplit("-", 1)[0]
        index = urllib.request.urlopen(f"{PYPI}/{project}/", timeout=60).read().decode()
        address = re.search(rf'href="([^"#]*/{re.escape(self.archive)})', index)[1]
        urllib.request.urlretrieve(address, directory / self.archive)
        unpack(directory / self.archive)

        def install(environment):
            run([sys.executable, "-m", "venv", environment])
            packages = ["pytest", "pytest-timeout", "case", "kombu==5.7.0"]
            run([environment / "bin" / "pip", "install", "--quiet", "--disable-pip-version-check", *packages])

        python = cached("pytest", [HERE], install) / "bin" / "python"
        flags = ["-rA", "-q", "-p", "no:cacheprovider", "--timeout", "60", *self.more]
        return [python, "-m", "pytest", *flags, *self.tests], directory / self.archive.removesuffix(".tar.gz"), {}

    def failed(self, output):
        return set(re.findall(r"^(?:FAILED|ERROR) (\S+::\S+)", output, re.M)), len(re.findall(r"^PASSED", output, re.M))


SUITES = (
    Go(),
    Amqplib(),
    # What is left out speaks TLS.
    Pytest("py-amqp", "amqp-5.4.2.tar.gz", ["t/integration"], ["-k", "not tls"]),
    Pytest("kombu", "kombu-5.7.0.tar.gz", ["t/integration/test_py_amqp.py"]),
)


def unpack(archive):
    """Next to itself."""
    with tarfile.open(archive) as files:
        files.extractall(archive.parent, filter="data")


def rabbitmqctl(directory, broker):
    """The program of that name for this broker."""
    script = directory / "rabbitmqctl"
    program, *flags = broker.control
    words = " ".join(f"'{word}'" for word in (program, *flags))
    script.write_text(f'#!/bin/bash\nexec -a rabbitmqctl {words} "$@"\n', encoding="utf-8")
    script.chmod(0o755)
    return script


def play(suite, binary):
    """Runs one on a broker of its own; the tests that should not have failed."""
    broker = Fixed(binary)
    with tempfile.TemporaryDirectory(prefix=f"suite-{suite.name}-") as directory:
        broker.start()
        try:
            command, where, environment = suite.command(Path(directory), broker)
            done = subprocess.run(
                [str(word) for word in command],
                cwd=where,
                env={**os.environ, **environment},
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                errors="replace",
                timeout=SUITE_SECONDS,
                check=False,
            )
            ended_well = broker.stop() == 0 and "panicked" not in "\n".join(broker.log)
        finally:
            broker.remove()
    failed, passed = suite.failed(done.stdout)
    unexpected = failed - suite.known.keys()
    print(f"{suite.name}: {passed} passed, {len(failed)} failed", flush=True)
    for name in sorted(failed):
        print(f"  {name}: {suite.known.get(name, 'FAIL')}")
    if not passed or unexpected:
        print(done.stdout[-8000:])
    if not ended_well:
        print("  the broker did not end well:", broker.log_tail())
    return bool(passed) and not unexpected and ended_well


def main():
    """Runs what is asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--binary", default=HERE.parent.parent / "target" / "release" / "leveret", help="the broker")
    parser.add_argument("--suite", action="append", choices=[it.name for it in SUITES], help="only this one; repeatable")
    given = parser.parse_args()
    for port in (5672, 15672):
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                sys.exit(f"port {port} is taken; stop what listens there, the suites want it")
    CACHE.mkdir(parents=True, exist_ok=True)
    good = True
    for suite in SUITES:
        if given.suite and suite.name not in given.suite:
            continue
        reason = suite.missing()
        if reason:
            print(f"{suite.name}: skipped, {reason}")
            continue
        good = play(suite, given.binary) and good
    sys.exit(0 if good else 1)


if __name__ == "__main__":
    main()
