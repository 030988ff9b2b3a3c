"""What compare.py measures: how leveretperf is called for it, which figures come out, and the bars to clear."""

from dataclasses import dataclass, field
from typing import Callable

PERSISTENT = ["--durable", "--persistent", "--size", "1024", "--ack-every", "100"]
TRANSIENT = ["--size", "16", "--auto-ack"]


@dataclass
class Figure:
    """One row of the table: a number taken from a run, and how it is judged."""

    name: str
    unit: str
    pick: Callable[[dict], float]
    # What is said of Leveret's figure, given its own and RabbitMQ's; None asks for nothing.
    bar: str = ""
    clears: Callable[[float, float], bool] | None = None


@dataclass
class Scenario:
    """One kind of load. `raw_sync` measures the disk itself beside every run."""

    key: str
    title: str
    arguments: list = field(default_factory=list)
    figures: list = field(default_factory=list)
    raw_sync: bool = False
    # Starting and idling instead of load.
    start_up: bool = False


def consumed(bar=0.0):
    """Messages per second that went all the way, to be `bar` times RabbitMQ's."""
    if not bar:
        return Figure("consumed", "msg/s", lambda run: run["consumed_per_second"])
    return Figure(
        "consumed", "msg/s", lambda run: run["consumed_per_second"],
        f"at least {bar:g}x RabbitMQ", lambda own, rabbit: own >= bar * rabbit,
    )


def broker_cpu(bar=0.0):
    """The price of a million messages in the broker's processor time, to be below `bar`."""
    pick = lambda run: run["broker_cpu_seconds_per_million"]
    if not bar:
        return Figure("broker CPU per million", "s", pick)
    return Figure("broker CPU per million", "s", pick, f"under {bar:g} s", lambda own, _rabbit: own < bar)


def latency(kind, percentile, bar=0.0):
    """A percentile of `kind`, to be at most `bar` milliseconds."""
    label = {"p50_ms": "p50", "p99_ms": "p99", "p999_ms": "p99.9"}[percentile]
    name = f"{'confirm' if kind == 'confirm_latency' else 'end to end'} {label}"
    pick = lambda run: run[kind][percentile]
    if not bar:
        return Figure(name, "ms", pick)
    return Figure(name, "ms", pick, f"at most {bar:g} ms", lambda own, _rabbit: own <= bar)


def confirms(window, bar):
    """Persistent messages with a confirm window."""
    return Scenario(
        f"confirms-{window}",
        f"persistent 1 KiB, confirms, window {window:,}",
        PERSISTENT + ["--confirm-window", str(window)],
        [consumed(bar), broker_cpu(), latency("confirm_latency", "p50_ms"), latency("confirm_latency", "p99_ms")],
        raw_sync=True,
    )


def paced(rate):
    """Latency at a rate no broker finds hard."""
    return Scenario(
        f"latency-{rate}",
        f"transient 16 B at {rate:,} msg/s",
        TRANSIENT + ["--rate", str(rate)],
        [
            latency("end_to_end_latency", "p50_ms", 0.1),
            latency("end_to_end_latency", "p99_ms"),
            latency("end_to_end_latency", "p999_ms"),
        ],
    )


def exchange(kind, bindings):
    """Small messages through an exchange; the routing keys go through all bindings in turn."""
    return Scenario(
        f"{kind}-{bindings}",
        f"transient 16 B, {kind} exchange, {bindings:,} binding{'s' if bindings > 1 else ''}",
        TRANSIENT + ["--exchange-type", kind, "--bindings", str(bindings)],
        [consumed(), broker_cpu()],
    )


MEBIBYTE = 1024 * 1024

SCENARIOS = [
    Scenario(
        "start-up",
        "start-up on an empty directory, idle",
        figures=[
            Figure("first answer", "ms", lambda run: run["start_seconds"] * 1e3, "under 300 ms",
                   lambda own, _rabbit: own < 300),
            Figure("idle memory", "MiB", lambda run: run["idle_rss_bytes"] / MEBIBYTE, "under 30 MiB",
                   lambda own, _rabbit: own < 30),
        ],
        start_up=True,
    ),
    Scenario("transient", "transient 16 B, auto-ack", TRANSIENT, [consumed(10), broker_cpu(0.9)]),
    Scenario("persistent", "persistent 1 KiB, ack every 100", PERSISTENT, [consumed(7), broker_cpu()]),
    confirms(100, 3),
    confirms(1000, 5),
    Scenario(
        "confirms-1",
        "persistent 1 KiB, confirms, window 1",
        PERSISTENT + ["--confirm-window", "1"],
        [
            Figure("confirmed", "msg/s", lambda run: run["confirmed_per_second"]),
            latency("confirm_latency", "p50_ms"),
            latency("confirm_latency", "p99_ms"),
            Figure("confirm p50 / raw sync p50", "", lambda run: run["confirm_latency"]["p50_ms"] / run["raw_sync"]["p50_ms"],
                   "at most 1.5", lambda own, _rabbit: own <= 1.5),
        ],
        raw_sync=True,
    ),
    Scenario(
        "publishers-100",
        "persistent 1 KiB, 100 publishers, window 1 each",
        PERSISTENT + ["--publishers", "100", "--confirm-window", "1"],
        [
            Figure("confirmed", "msg/s", lambda run: run["confirmed_per_second"]),
            Figure("confirmed / (100 x raw syncs)", "",
                   lambda run: run["confirmed_per_second"] / (100 * run["raw_sync"]["per_second"]),
                   "at least 0.8", lambda own, _rabbit: own >= 0.8),
            latency("confirm_latency", "p50_ms"),
            latency("confirm_latency", "p99_ms"),
        ],
        raw_sync=True,
    ),
    paced(1_000),
    paced(10_000),
    exchange("direct", 1),
    exchange("direct", 1000),
    exchange("topic", 1000),
]
