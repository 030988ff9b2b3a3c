#!/usr/bin/env python3
"""Measures Leveret beside RabbitMQ with leveretperf and prints a table. benches/README.md says how to read it."""

import argparse
import contextlib
import json
import os
import platform
import resource
import signal
import statistics
import subprocess
import sys
import time
from pathlib import Path

from brokers import Broker, BrokerError, Leveret, RabbitMQ, install_rabbitmq
from scenarios import SCENARIOS

ROOT = Path(__file__).resolve().parent.parent
STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
RUN_EXTRA_SECONDS = 120
SETTLE_SECONDS = 20
IDLE_SECONDS = 2
# Before each run and again after it.
RAW_SYNC_SECONDS = 0.75
RAW_RECORD_BYTES = 1100
# Beyond this share of the machine, what else runs on it is mentioned.
FOREIGN_SHARE = 0.05


def parse_arguments():
    target = Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target"))
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3, help="times each scenario is run on each broker [3]")
    parser.add_argument("--seconds", type=float, default=8, help="seconds each run is measured, after one of warm-up [8]")
    parser.add_argument("--only", action="append", default=[], metavar="TEXT",
                        help="only scenarios whose name contains TEXT; may be repeated")
    parser.add_argument("--broker", action="append", default=[], metavar="NAME=URI,PID", type=other_broker,
                        help="measure this running broker as well; may be repeated")
    parser.add_argument("--leveret", default=target / "release" / "leveret", metavar="PATH", help="'none' leaves it out")
    parser.add_argument("--no-rabbitmq", action="store_true", help="leave RabbitMQ out")
    parser.add_argument("--perf", default=target / "release" / "leveretperf", metavar="PATH")
    parser.add_argument("--data-dir", default=target / "bench-compare", type=Path, metavar="DIR",
                        help="where brokers keep their data while they run; choose the disk to measure")
    parser.add_argument("--json", metavar="FILE", help="also write every single run there")
    parser.add_argument("--list", action="store_true", help="list the scenarios and end")
    return parser.parse_args()


def other_broker(text):
    name, _, rest = text.partition("=")
    uri, _, pid = rest.rpartition(",")
    if not (name and uri and pid.isdigit()):
        raise argparse.ArgumentTypeError("NAME=URI,PID, such as LavinMQ=amqp://127.0.0.1:5673,1234")
    return Broker(name, uri, int(pid))


def main():
    arguments = parse_arguments()
    chosen = [s for s in SCENARIOS if not arguments.only or any(text in s.key for text in arguments.only)]
    if arguments.list or not chosen:
        print("\n".join(f"{scenario.key:16} {scenario.title}" for scenario in SCENARIOS))
        return 0 if arguments.list else 2
    for number in STOP_SIGNALS:
        signal.signal(number, interrupt)
    try:
        return compare(arguments, chosen)
    except BrokerError as error:
        print(f"bench-compare: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\nbench-compare: interrupted, everything stopped", file=sys.stderr)
        return 130


def interrupt(_number, _frame):
    """Every way out stops what was started, and a second Ctrl-C does not stop that."""
    for number in STOP_SIGNALS:
        signal.signal(number, signal.SIG_IGN)
    raise KeyboardInterrupt


def compare(arguments, chosen):
    if not arguments.no_rabbitmq:
        install_rabbitmq()
    arguments.data_dir.mkdir(parents=True, exist_ok=True)
    bench = Bench(arguments)
    load = [scenario for scenario in chosen if not scenario.start_up]
    for scenario in chosen:
        if scenario.start_up:
            for number in range(arguments.rounds):
                bench.start_up_round(scenario, number)
    with contextlib.ExitStack() as running:
        brokers = [running.enter_context(broker).start() for broker in bench.fresh_brokers()] if load else []
        brokers += arguments.broker if load else []
        for number in range(arguments.rounds):
            for scenario in load:
                # Every round begins with another broker, so that none always follows the same one.
                turn = number % len(brokers)
                for broker in brokers[turn:] + brokers[:turn]:
                    bench.load_run(scenario, number, broker, brokers)
    bench.print_table(chosen)
    if arguments.json:
        Path(arguments.json).write_text(json.dumps({"machine": machine(), "runs": bench.runs}, indent=1) + "\n")
    return 1 if any("error" in run for run in bench.runs) else 0


class Bench:
    """All runs so far."""

    def __init__(self, arguments):
        self.arguments = arguments
        self.runs = []
        self.versions = {}

    def fresh_brokers(self):
        """Brokers to be started, each on an empty directory."""
        brokers = []
        if str(self.arguments.leveret) != "none":
            if not Path(self.arguments.leveret).exists():
                raise BrokerError(f"{self.arguments.leveret} does not exist: run make build")
            brokers.append(Leveret(self.arguments.leveret, self.arguments.data_dir / "leveret"))
        if not self.arguments.no_rabbitmq:
            brokers.append(RabbitMQ(self.arguments.data_dir / "rabbitmq"))
        self.versions |= {broker.name: broker.version for broker in brokers}
        return brokers

    def start_up_round(self, scenario, number):
        for broker in self.fresh_brokers():
            with broker:
                broker.start()
                time.sleep(IDLE_SECONDS)
                run = {"start_seconds": broker.start_seconds, "idle_rss_bytes": broker.rss_bytes()}
                self.note(scenario, number, broker, run)

    def load_run(self, scenario, number, broker, brokers):
        settle(brokers)
        raw_times = raw_sync_times(self.arguments.data_dir) if scenario.raw_sync else []
        command = [self.arguments.perf, "--uri", broker.uri, "--broker-pid", str(broker.pid), "--json"]
        command += ["--seconds", str(self.arguments.seconds), *scenario.arguments]
        others = OtherLoad(brokers)
        child = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        try:
            out, err = child.communicate(timeout=self.arguments.seconds + RUN_EXTRA_SECONDS)
        except subprocess.TimeoutExpired:
            child.kill()
            out, err = child.communicate()
        except BaseException:
            child.kill()
            child.wait()
            raise
        run = json.loads(out) if child.returncode == 0 else {"error": err.strip() or "took too long"}
        run["foreign_share"] = others.share()
        if scenario.raw_sync:
            run["raw_sync"] = summed_up(raw_times + raw_sync_times(self.arguments.data_dir))
        self.note(scenario, number, broker, run)

    def note(self, scenario, number, broker, run):
        self.runs.append({"scenario": scenario.key, "round": number + 1, "broker": broker.name, **run})
        figures = ", ".join(f"{figure.name} {shown(figure.pick(run))} {figure.unit}".strip()
                            for figure in scenario.figures) if "error" not in run else run["error"]
        print(f"round {number + 1}  {scenario.key:16} {broker.name:10} {figures}", flush=True)

    def median(self, scenario, broker_name, pick):
        """Over the rounds; None if there is no run, or one of them failed: the others are then not its measure."""
        runs = [run for run in self.runs if (run["scenario"], run["broker"]) == (scenario.key, broker_name)]
        if not runs or any("error" in run for run in runs):
            return None
        return statistics.median(pick(run) for run in runs)

    def print_table(self, chosen):
        names = list(dict.fromkeys(run["broker"] for run in self.runs))
        titles = [f"{name} {self.versions.get(name, '')}".strip() for name in names]
        lines = [["Scenario", "Figure", *titles, "raw fdatasync"], ["---", "---", *["---:"] * (len(names) + 1)]]
        judged = {"Leveret", "RabbitMQ"} <= set(names)
        if judged:
            lines[0] += ["Leveret / RabbitMQ", "Bar for Leveret"]
            lines[1] += ["---:", "---"]
        for scenario in chosen:
            for figure in scenario.figures:
                lines.append(self.row(scenario, figure, names, judged))
        lines += self.topic_rows(chosen, names, judged)
        print("\n" + "\n".join("| " + " | ".join(cells) + " |" for cells in lines))
        print(f"\nMedians of {self.arguments.rounds} interleaved runs of {self.arguments.seconds:g} s. {machine()}")
        busy = [run for run in self.runs if run.get("foreign_share", 0) > FOREIGN_SHARE]
        if busy:
            worst = max(run["foreign_share"] for run in busy)
            print(f"Careful: in {len(busy)} of {len(self.runs)} runs other programs took more than "
                  f"{FOREIGN_SHARE:.0%} of the machine (up to {worst:.0%}).")

    def row(self, scenario, figure, names, judged):
        values = {name: self.median(scenario, name, figure.pick) for name in names}
        cells = [shown(values[name]) for name in names]
        unit = f" ({figure.unit})" if figure.unit else ""
        line = [scenario.title, figure.name + unit, *cells, self.raw_cell(scenario)]
        if judged:
            own, rabbit = values["Leveret"], values["RabbitMQ"]
            line += [ratio(own, rabbit), verdict(figure, own, rabbit)]
        return line

    def raw_cell(self, scenario):
        raws = [run["raw_sync"] for run in self.runs if run["scenario"] == scenario.key and "raw_sync" in run]
        if not raws:
            return ""
        rate = statistics.median(raw["per_second"] for raw in raws)
        p50 = statistics.median(raw["p50_ms"] for raw in raws)
        return f"{shown(rate)}/s, p50 {shown(p50)} ms"

    def topic_rows(self, chosen, names, judged):
        """How much of a direct exchange's rate a topic exchange keeps, each broker against itself."""
        by_key = {scenario.key: scenario for scenario in chosen}
        topic = by_key.get("topic-1000")
        lines = []
        for direct in filter(None, map(by_key.get, ("direct-1", "direct-1000"))):
            if not topic:
                break
            pick = topic.figures[0].pick
            shares = {}
            for name in names:
                rates = self.median(topic, name, pick), self.median(direct, name, pick)
                shares[name] = rates[0] / rates[1] if all(rates) else None
            line = [f"topic with 1,000 bindings / {direct.title.partition(', ')[2]}", "consumed"]
            line += [shown(shares[name]) for name in names] + [""]
            if judged:
                clears = shares["Leveret"] is not None and shares["Leveret"] >= 0.8
                line += ["", f"at least 0.8: {'yes' if clears else '**no**'}"]
            lines.append(line)
        return lines


class OtherLoad:
    """Notices what runs on the machine besides the brokers and the generator."""

    def __init__(self, brokers):
        self.brokers = brokers
        self.before = self.now()

    def now(self):
        fields = [int(number) for number in Path("/proc/stat").read_text().splitlines()[0].split()[1:9]]
        ticks = os.sysconf("SC_CLK_TCK")
        children = resource.getrusage(resource.RUSAGE_CHILDREN)
        ours = children.ru_utime + children.ru_stime + sum(broker.cpu_seconds() for broker in self.brokers)
        # Fields 3 and 4 are idle and waiting for the disk.
        return sum(fields) / ticks, (sum(fields) - fields[3] - fields[4]) / ticks, ours

    def share(self):
        """The part of the machine's processor time that somebody else has used since."""
        whole, busy, ours = (after - before for after, before in zip(self.now(), self.before))
        return round(max(0.0, (busy - ours) / whole), 3) if whole else 0.0


def settle(brokers):
    """Waits until no broker works on what an earlier run has left behind."""
    deadline = time.monotonic() + SETTLE_SECONDS
    while time.monotonic() < deadline:
        before = sum(broker.cpu_seconds() for broker in brokers)
        time.sleep(0.5)
        if sum(broker.cpu_seconds() for broker in brokers) - before <= 0.03:
            return


def raw_sync_times(directory):
    """Appends a record of a message's size to a file and syncs it, again and again: the disk without a broker."""
    path = directory / "raw-sync"
    record = os.urandom(RAW_RECORD_BYTES)
    times = []
    file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND, 0o600)
    try:
        end = time.perf_counter() + RAW_SYNC_SECONDS
        while (before := time.perf_counter()) < end:
            os.write(file, record)
            os.fdatasync(file)
            times.append(time.perf_counter() - before)
    finally:
        os.close(file)
        path.unlink()
    return times


def summed_up(times):
    """Rate and percentiles of times in seconds."""
    ordered = sorted(times)
    at = lambda quantile: round(ordered[min(len(ordered) - 1, int(quantile * len(ordered)))] * 1e3, 3)
    return {"per_second": round(len(times) / sum(times), 1), "p50_ms": at(0.5), "p99_ms": at(0.99)}


def machine():
    processor = next((line.partition(": ")[2] for line in Path("/proc/cpuinfo").read_text().splitlines()
                      if line.startswith("model name")), platform.machine())
    return f"{os.cpu_count()} x {processor}, Linux {platform.release()}, {time.strftime('%Y-%m-%d')}."


def verdict(figure, own, rabbit):
    if not figure.clears or own is None or rabbit is None:
        return figure.bar
    return f"{figure.bar}: {'yes' if figure.clears(own, rabbit) else '**no**'}"


def ratio(own, rabbit):
    return f"{own / rabbit:.2f}" if own is not None and rabbit else ""


def shown(value):
    """Three digits are all that repeats from run to run."""
    if value is None:
        return "-"
    if value >= 100:
        return f"{value:,.0f}"
    return f"{value:.3g}"


if __name__ == "__main__":
    sys.exit(main())
