#!/usr/bin/env python3
"""Schemathesis reads the description that the broker serves of its API, and makes thousands of requests from it.

    interop/openapi.py --binary target/release/leveret
    interop/openapi.py --binary ... --seed 8 --examples 100        another run, a longer one

Nothing may fail in the broker, every status and every type of answer must be described, and what is not served must be
refused as such. Left out are the routes that steer the program and those that change users: one of them would end the run.
A health check that fails answers 503, because it is meant to.
"""

import argparse
import os
import subprocess
import sys
import tempfile

from suite.brokers import BrokerError, Leveret
from suite.clients import INTEROP, PrepareError, cached, run
from suite.http import Api

REQUIREMENTS = INTEROP / "management" / "openapi-requirements.txt"
SPARED = r"^/(leveret/(?!queues|exchanges|jobs).*|users.*|health/checks/(port|protocol)-listener/.*)$"
CHECKS = ["not_a_server_error", "status_code_conformance", "content_type_conformance", "response_schema_conformance",
          "unsupported_method"]  # fmt: skip


def schemathesis():
    """The program, in a virtual environment of its own."""

    def install(directory):
        run([sys.executable, "-m", "venv", directory / "venv"])
        pip = [directory / "venv" / "bin" / "python", "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        run([*pip, "-r", REQUIREMENTS])

    return cached("openapi", [REQUIREMENTS], install) / "venv" / "bin" / "python"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--binary", default="target/release/leveret")
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--examples", type=int, default=25, help="requests that are made up for each operation")
    options = parser.parse_args()
    try:
        python = schemathesis()
    except PrepareError as error:
        print(f"SKIP openapi: {error}")
        return 0
    broker = Leveret(options.binary)
    try:
        broker.start()
        api = Api(broker.http)
        for method, path in [("PUT", "/queues/%2F/q"), ("PUT", "/exchanges/%2F/x"), ("PUT", "/vhosts/v")]:
            assert api.call(method, path, {})[0] == 201, path
        entry = "from schemathesis.cli import schemathesis; schemathesis()"
        command = [python, "-c", entry, "run", f"{broker.http}/api/openapi.json"]
        command += ["--auth", "guest:guest", "--phases", "coverage,fuzzing,stateful", "--exclude-path-regex", SPARED]
        command += ["--seed", str(options.seed), "--max-examples", str(options.examples)]
        for check in CHECKS:
            command += ["--checks", check]
        with tempfile.TemporaryDirectory(prefix="openapi-") as directory:
            outcome = subprocess.run(command, cwd=directory, env=os.environ, capture_output=True, text=True, check=False)
        cases = next((line.strip() for line in outcome.stdout.splitlines() if " generated, " in line), "nothing")
        if outcome.returncode != 0:
            print(outcome.stdout)
            print(f"FAIL openapi: {cases}")
            return 1
        assert api.call("GET", "/whoami", None)[0] == 200, "the broker goes on"
        print(f"PASS openapi: {cases}")
        return 0
    except BrokerError as error:
        print(f"FAIL openapi: {error}")
        return 1
    finally:
        broker.stop()


if __name__ == "__main__":
    sys.exit(main())
