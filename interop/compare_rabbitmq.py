#!/usr/bin/env python3
"""The same probes against Leveret and Debian's RabbitMQ 3.10, side by side: codes, texts, class and method ids, headers.

    interop/compare_rabbitmq.py --binary target/debug/leveret            # both; RabbitMQ is left out when it is missing
    interop/compare_rabbitmq.py --binary target/debug/leveret --all      # rows that agree as well

Each probe gets a connection of its own and answers with a short text: what the client saw. Rows in `KNOWN` differ on
purpose, because RabbitMQ 4 answers otherwise than 3.10; the last column says how. The exit code is 1 when any other differs.
Needs pika: ~/.cache/leveret/interop-venv has it after `make interop`.
"""

import argparse
import os
import sys
import time

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))

VENV = os.path.join(os.environ.get("LEVERET_CACHE", os.path.expanduser("~/.cache/leveret")), "interop-venv", "bin", "python")
try:
    import pika
except ImportError:
    if os.environ.get("COMPARE_IN_VENV") or not os.path.exists(VENV):
        raise
    os.execve(VENV, [VENV, *sys.argv], dict(os.environ, COMPARE_IN_VENV="1"))

from compare import probes, transactions  # noqa: E402, F401 - it adds its probes
from suite.brokers import BrokerError, Leveret, RabbitMQ, rabbitmq_missing  # noqa: E402


def answer(uri, probe):
    """What a probe saw, on a connection of its own."""
    connection = pika.BlockingConnection(pika.URLParameters(uri + "/%2F?heartbeat=0&blocked_connection_timeout=20"))
    try:
        return probe(connection)
    except pika.exceptions.ChannelClosedByBroker as closed:
        return f"channel {closed.reply_code} {closed.reply_text}"
    except pika.exceptions.ConnectionClosedByBroker as closed:
        return f"connection {closed.reply_code} {closed.reply_text}"
    except pika.exceptions.AMQPError as error:
        return f"{type(error).__name__} {error}"
    finally:
        if connection.is_open:
            connection.close()


def answers(broker, wanted):
    """All answers of a fresh broker, by the probe's name."""
    try:
        broker.start()
        found = {}
        for name, probe in probes.PROBES.items():
            if wanted in name:
                try:
                    found[name] = answer(broker.uri, probe)
                except Exception as error:  # noqa: BLE001 - one probe must not end the others
                    found[name] = f"{type(error).__name__}: {error}"
        return found
    except BrokerError as error:
        sys.exit(f"{error}\n{broker.log_tail()}")
    finally:
        broker.remove()


def known(name):
    """Why a row may differ."""
    return next((why for start, why in probes.KNOWN.items() if name.startswith(start)), "DIFFERS")


def main():
    options = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    options.add_argument("--binary", required=True, help="a built leveret")
    options.add_argument("--probe", default="", help="only probes whose name has this in it")
    options.add_argument("--all", action="store_true", help="show rows that agree")
    options = options.parse_args()
    began = time.monotonic()
    ours = answers(Leveret(options.binary), options.probe)
    missing = rabbitmq_missing()
    if missing:
        print(f"RabbitMQ is left out: {missing}")
    theirs = ours if missing else answers(RabbitMQ(), options.probe)
    unexpected = 0
    print("| probe | Leveret | RabbitMQ 3.10 | |\n|---|---|---|---|")
    for name in ours:
        same = ours[name] == theirs[name]
        note = "same" if same else known(name)
        unexpected += note == "DIFFERS"
        if options.all or missing or not same:
            cells = [str(cell).replace("|", "\\|") for cell in (name, ours[name], theirs[name], note)]
            print("| " + " | ".join(cells) + " |")
    print(f"\n{len(ours)} probes, {unexpected} differ unexpectedly, {time.monotonic() - began:.0f} s")
    return 1 if unexpected else 0


if __name__ == "__main__":
    sys.exit(main())
