"""Runs a client's scenarios one by one and prints one JSON line for each: what run.py reads from every client.

A scenario is a named function. It returns nothing or a short note, and fails by raising.
"""

import json
import secrets
import signal
import sys
import time
import traceback

# Queue and exchange names carry it, so that runs against one broker never meet.
RUN = secrets.token_hex(4)


def unique(name):
    """A queue or exchange name of this run only."""
    return f"interop-{RUN}-{name}"


def same(actual, expected, what):
    """Fails with both values when they differ."""
    if actual != expected:
        raise AssertionError(f"{what}: expected {expected!r}, got {actual!r}")


def chosen(functions, arguments):
    """The functions whose names were given on the command line: all of them if none was."""
    known = {function.__name__: function for function in functions}
    unknown = [name for name in arguments if name not in known]
    if unknown:
        sys.exit(f"no scenario {', '.join(unknown)}; there are {', '.join(known)}")
    return [known[name] for name in arguments] if arguments else list(known.values())


def main(functions, call):
    """`PROGRAM URI [SCENARIO...]`: passes each scenario to `call(function, uri)`, prints its line; exits 1 if one failed."""
    if len(sys.argv) < 2:
        sys.exit(f"usage: {sys.argv[0]} amqp://USER:PASSWORD@HOST:PORT [SCENARIO...]")
    # run.py ends a program that takes too long; leaving through an exception lets a scenario end its own processes.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("terminated"))
    all_ok = True
    for function in chosen(functions, sys.argv[2:]):
        started = time.monotonic()
        try:
            ok, detail = True, call(function, sys.argv[1]) or ""
        except Exception as error:  # a scenario may fail in any way its client can
            traceback.print_exc()
            ok, detail = False, f"{type(error).__name__}: {error}"
        seconds = round(time.monotonic() - started, 3)
        line = {"scenario": function.__name__, "ok": ok, "seconds": seconds, "detail": detail}
        print(json.dumps(line), flush=True)
        all_ok = all_ok and ok
    sys.exit(0 if all_ok else 1)
