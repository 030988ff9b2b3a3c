#!/usr/bin/env python3
"""Runs the same scenarios with many unmodified AMQP clients against a broker, and prints what passed.

    interop/run.py --binary target/release/leveret     a private Leveret
    interop/run.py --broker rabbitmq                   a private RabbitMQ: proves that what we expect is what it does
    interop/run.py --broker both                       one after the other, and one table of both
    interop/run.py --uri amqp://guest:guest@host       a broker that already runs
    interop/run.py --features                          which languages show which feature
"""

import argparse
import json
import os
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor

from suite.brokers import BrokerError, Leveret, RabbitMQ, rabbitmq_missing
from suite.clients import CLIENTS, NOT_ON_RABBITMQ, OPERATED, PrepareError
from suite.features import lonely, table
from suite.report import FAILED, PASSED, SKIPPED, Report

CLIENT_SECONDS = 240
BROKER_SCENARIOS = ("starts", "does_not_panic", "stops_on_sigterm")


def main():
    # Leave through an exception, so that the broker does not outlive us.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("terminated"))
    options = parse_options()
    if options.features:
        sys.exit(print_features())
    clients = [client for client in CLIENTS if not options.client or client.name in options.client]
    if options.uri:
        reports = [planned_report(clients, options, OPERATED)]
        run_clients(clients, options, options.uri, reports[0])
    else:
        names = ("leveret", "rabbitmq") if options.broker == "both" else (options.broker,)
        reports = [run_with_private_broker(name, clients, options) for name in names]
    print(f"\n{reports[0].table(*reports[1:])}")
    for report in reports:
        print(f"\n{report.closing_line()}")
    sys.exit(1 if any(report.count(FAILED) for report in reports) else 0)


def print_features():
    """Which languages show which feature; a failure if too few do."""
    print(table(CLIENTS))
    for feature in lonely(CLIENTS):
        print(f"FAIL {feature}: too few languages", file=sys.stderr)
    return 1 if lonely(CLIENTS) else 0


def parse_options():
    names = [client.name for client in CLIENTS]
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--broker", choices=("leveret", "rabbitmq", "both"), default="leveret", help="which to start")
    parser.add_argument("--binary", default="target/release/leveret", help="Leveret's binary (default: %(default)s)")
    parser.add_argument("--uri", help="use the broker at this address instead of starting one")
    parser.add_argument("--client", action="append", choices=names, help="only this client; may be repeated")
    parser.add_argument("--scenario", action="append", default=[], help="only this scenario; may be repeated")
    parser.add_argument("--features", action="store_true", help="print which languages show which feature; start nothing")
    parser.add_argument("--jobs", type=int, default=2, help="clients at a time (default: %(default)s)")
    options = parser.parse_args()
    unknown = set(options.scenario) - {scenario for client in CLIENTS for scenario in client.scenarios}
    if unknown:
        parser.error(f"no client has a scenario {', '.join(sorted(unknown))}")
    return options


def planned_report(clients, options, without=()):
    """A report that awaits the scenarios that were asked for, of these clients."""
    report = Report()
    for client in clients:
        wanted = (name for name in client.scenarios if not options.scenario or name in options.scenario)
        report.plan(client.name, [name for name in wanted if name not in without])
    return report


def run_with_private_broker(name, clients, options):
    """Starts the broker, runs the clients, and checks that the broker came through it well; returns the report."""
    report = planned_report(clients, options, NOT_ON_RABBITMQ if name == "rabbitmq" else ())
    if name == "rabbitmq" and rabbitmq_missing():
        print(f"SKIP rabbitmq: {rabbitmq_missing()}", flush=True)
        for client, scenario in list(report.outcomes):
            report.record(client, scenario, SKIPPED)
        return report
    report.plan("broker", BROKER_SCENARIOS)
    broker = RabbitMQ() if name == "rabbitmq" else Leveret(options.binary)
    try:
        broker.start()
        # For the scenarios of what operators do.
        os.environ.update(INTEROP_HTTP=broker.http, INTEROP_CTL=json.dumps(broker.control))
        report.record("broker", "starts", PASSED)
        print(f"{broker.name} at {broker.uri}", flush=True)
        run_clients(clients, options, broker.uri, report)
        code = broker.stop()
        if code == 0:
            report.record("broker", "stops_on_sigterm", PASSED)
        else:
            print(f"\nFAIL broker: exit code {code} after SIGTERM; its log:\n{broker.log_tail()}")
        panics = [line for line in broker.log if "panicked at" in line]
        if panics:
            print("\nFAIL broker:", *panics, sep="\n")
        else:
            report.record("broker", "does_not_panic", PASSED)
    except (BrokerError, OSError) as problem:
        print(f"\nFAIL broker: {problem}\nIts log:\n{broker.log_tail()}")
    finally:
        broker.remove()
    return report


def run_clients(clients, options, uri, report):
    """Prepares and runs every client, some at a time; prints each one's outcome as it comes."""
    printing = threading.Lock()

    def run_client(client):
        started = time.monotonic()
        names = report.planned(client.name)
        if not names:
            return
        outcome = run_one(client, names, uri)
        with printing:
            print_outcome(client, names, outcome, time.monotonic() - started, report)

    with ThreadPoolExecutor(max_workers=options.jobs) as pool:
        # The longest first, so that it does not end up running alone.
        for job in [pool.submit(run_client, client) for client in sorted(clients, key=lambda it: it.name != "celery")]:
            job.result()


class Outcome:
    """What became of one client: its result lines, and why it did not run or what it wrote."""

    def __init__(self, skipped=None, results=(), output="", code=0):
        self.skipped = skipped
        self.results = {line["scenario"]: line for line in results}
        self.output = output
        self.code = code


def run_one(client, names, uri):
    """Prepares a client and runs its program, which prints one JSON line for each scenario."""
    reason = client.missing()
    if reason:
        return Outcome(skipped=reason)
    try:
        command = client.prepare()
    except (PrepareError, OSError, subprocess.TimeoutExpired) as problem:
        return Outcome(output=str(problem), code=1)
    process = subprocess.Popen(
        [str(part) for part in [*command, uri, *names]],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        errors="replace",
    )
    try:
        stdout, stderr = process.communicate(timeout=CLIENT_SECONDS)
    except subprocess.TimeoutExpired:
        # Politely first: a program may have processes of its own to end.
        process.terminate()
        try:
            stdout, stderr = process.communicate(timeout=10)
        except subprocess.TimeoutExpired:
            process.kill()
            stdout, stderr = process.communicate()
        stderr += f"\nended after {CLIENT_SECONDS} s"
    lines = stdout.splitlines()
    results = [json.loads(line) for line in lines if line.startswith('{"scenario"')]
    return Outcome(results=results, output=f"{stdout}{stderr}", code=process.returncode)


def print_outcome(client, names, outcome, seconds, report):
    """One line if all went well; every detail if not."""
    if outcome.skipped:
        print(f"SKIP {client.name}: {outcome.skipped}", flush=True)
        for name in names:
            report.record(client.name, name, SKIPPED)
        return
    passed = [name for name in names if outcome.results.get(name, {}).get("ok") is True]
    for name in passed:
        report.record(client.name, name, PASSED)
    print(f"{client.name}: {len(passed)} of {len(names)} passed in {seconds:.1f} s", flush=True)
    for name in names:
        detail = outcome.results.get(name, {}).get("detail", "the client did not report it")
        if name not in passed:
            print(f"  FAIL {name}: {detail}")
        elif detail:
            print(f"  {name}: {detail}")
    if len(passed) < len(names):
        print(f"--- output of {client.name} (exit code {outcome.code})\n{outcome.output}\n---", flush=True)


if __name__ == "__main__":
    main()
