#!/usr/bin/env python3
"""Debian's Prometheus scrapes a private Leveret; then every query of the official overview dashboard that applies to one
node returns data, and the official alert rules evaluate.

    interop/prometheus.py --binary target/release/leveret
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
import urllib.parse
import urllib.error
import urllib.request

from suite.brokers import BrokerError, Leveret, spare_port
from suite.clients import can_install_packages, install_package, prepared_python

JOIN = '* on(instance, job) group_left(rabbitmq_cluster, rabbitmq_node) rabbitmq_identity_info{rabbitmq_endpoint="aggregated"}'
GLOBAL = "rabbitmq_global_messages_"


def rate(metric):
    return f"sum(irate({metric}[15s]) {JOIN}) by(rabbitmq_node)"


# The panels of RabbitMQ-Overview (grafana.com 10991), and those of the queues.
PANELS = [
    *(f"sum({metric} {JOIN}) by(rabbitmq_node)" for metric in (
        "rabbitmq_queue_messages_ready", "rabbitmq_queue_messages_unacked", "rabbitmq_global_publishers",
        "rabbitmq_global_consumers", "rabbitmq_connections", "rabbitmq_channels", "rabbitmq_queues")),
    *(rate(GLOBAL + name + "_total") for name in (
        "received", "delivered", "routed", "confirmed", "unroutable_dropped", "unroutable_returned", "redelivered",
        "acknowledged", "delivered_get_auto_ack", "delivered_get_manual_ack", "get_empty", "received_confirm",
        "delivered_consume_auto_ack", "delivered_consume_manual_ack")),
    *(rate(f"rabbitmq_{name}_total") for name in (
        "connections_opened", "connections_closed", "channels_opened", "channels_closed", "queues_declared",
        "queues_created", "queues_deleted")),
    f"(rabbitmq_resident_memory_limit_bytes {JOIN}) - (rabbitmq_process_resident_memory_bytes {JOIN})",
    f"(rabbitmq_disk_space_available_bytes - rabbitmq_disk_space_available_limit_bytes) {JOIN}",
    f"(rabbitmq_process_max_fds {JOIN}) - (rabbitmq_process_open_fds {JOIN})",
    f"(rabbitmq_process_max_tcp_sockets {JOIN}) - (rabbitmq_process_open_tcp_sockets {JOIN})",
    f"rabbitmq_build_info {JOIN}",
    f"rabbitmq_erlang_uptime_seconds {JOIN}",
    'count(rabbitmq_identity_info{rabbitmq_endpoint="aggregated"})',
    f"sum((irate({GLOBAL}received_confirm_total[15s]) - irate({GLOBAL}confirmed_total[15s])) {JOIN}) by(rabbitmq_node)",
    f"sum((irate({GLOBAL}delivered_consume_auto_ack_total[15s]) + irate({GLOBAL}delivered_consume_manual_ack_total[15s])) {JOIN})",
    *(f'sum(increase(rabbitmq_message_size_bytes_bucket{{le="{le}"}}[30s]) {JOIN})'
      for le in ("100.0", "1000.0", "10000.0", "100000.0", "1e+06", "1e+07", "5e+07", "1e+08", "+Inf")),
    "rabbitmq_detailed_queue_messages", "rabbitmq_detailed_queue_consumers", "rabbitmq_detailed_queue_messages_ready",
]  # fmt: skip

# As the cluster operator ships them; an alert that has nothing to say is as good as one that fires.
ALERTS = {
    "memory": "max by(instance) (rabbitmq_alarms_memory_used_watermark) > 0",
    "disk": "max by(instance) (rabbitmq_alarms_free_disk_space_watermark) > 0",
    "files": "max by(instance) (rabbitmq_alarms_file_descriptor_limit) > 0",
    "files_near_limit": f"sum by(rabbitmq_node) (rabbitmq_process_open_fds {JOIN}) / sum by(rabbitmq_node) (rabbitmq_process_max_fds {JOIN}) > 0.8",
    "churn": f"(sum(rate(rabbitmq_connections_closed_total[60s]) {JOIN}) + sum(rate(rabbitmq_connections_opened_total[60s]) {JOIN})) / sum(rabbitmq_connections {JOIN}) > 10",
    "disk_predicted": f"(predict_linear(rabbitmq_disk_space_available_bytes[30s], 86400) {JOIN}) < (rabbitmq_disk_space_available_limit_bytes {JOIN})",
    "unroutable": f"sum(increase(rabbitmq_channel_messages_unroutable_dropped_total[60s]) {JOIN}) >= 1 or sum(increase(rabbitmq_channel_messages_unroutable_returned_total[60s]) {JOIN}) >= 1",
    "no_consumers": "(rabbitmq_detailed_queue_consumers == 0) and rabbitmq_detailed_queue_messages > 0",
}  # fmt: skip

TRAFFIC = """
import pika, sys, time
connection = pika.BlockingConnection(pika.URLParameters(sys.argv[1]))
channel = connection.channel()
channel.confirm_delivery()
channel.queue_declare("traffic", durable=True)
channel.queue_declare("lonely", durable=True)
channel.basic_publish("", "lonely", b"x")
channel.basic_consume("traffic", lambda channel, method, *_: channel.basic_ack(method.delivery_tag))
end = time.time() + 120
while time.time() < end:
    channel.basic_publish("", "traffic", b"x" * 2000, pika.BasicProperties(delivery_mode=2))
    connection.process_data_events(0.05)
"""


class WithMetrics(Leveret):
    """Leveret with its metrics."""

    def __init__(self, binary):
        super().__init__(binary)
        self.metrics = spare_port()

    def command(self):
        arguments, environment = super().command()
        arguments[arguments.index("none")] = f"127.0.0.1:{self.metrics}"
        return arguments, environment


def configure(directory, port):
    """Scrapes every second what the operator scrapes every fifteen."""
    rules = {"groups": [{"name": "rabbitmq", "interval": "1s", "rules": [
        {"alert": name, "expr": expression} for name, expression in ALERTS.items()]}]}  # fmt: skip
    target = [{"targets": [f"127.0.0.1:{port}"]}]
    settings = {"global": {"scrape_interval": "1s"}, "rule_files": ["rules.yml"], "scrape_configs": [
        {"job_name": "rabbitmq", "static_configs": target},
        {"job_name": "detailed", "metrics_path": "/metrics/detailed", "static_configs": target,
         "params": {"family": ["queue_coarse_metrics", "queue_metrics"]}}]}  # fmt: skip
    for name, content in (("rules.yml", rules), ("prometheus.yml", settings)):
        with open(os.path.join(directory, name), "w", encoding="utf-8") as file:
            json.dump(content, file)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--binary", default="target/release/leveret")
    options = parser.parse_args()
    if shutil.which("prometheus") is None:
        if not can_install_packages():
            print("SKIP prometheus: not found (apt-get install prometheus)")
            return 0
        install_package("prometheus")
    broker, directory = WithMetrics(options.binary), tempfile.mkdtemp(prefix="interop-prometheus-")
    started, failed = [], 0
    try:
        broker.start()
        configure(directory, broker.metrics)
        traffic = [str(prepared_python()), "-c", TRAFFIC, broker.uri]
        port = spare_port()
        prometheus = ["prometheus", f"--config.file={directory}/prometheus.yml", f"--storage.tsdb.path={directory}/data",
                      f"--web.listen-address=127.0.0.1:{port}"]  # fmt: skip
        with open(os.path.join(directory, "log"), "wb") as log:
            for command in (traffic, prometheus):
                started.append(subprocess.Popen(command, stdout=log, stderr=log))

        def ask(path, **query):
            url = f"http://127.0.0.1:{port}/api/v1/{path}?{urllib.parse.urlencode(query)}"
            with urllib.request.urlopen(url, timeout=10) as answer:
                return json.loads(answer.read())["data"]

        missing, deadline = list(PANELS), time.monotonic() + 60
        while missing and time.monotonic() < deadline:
            time.sleep(1)
            try:
                missing = [query for query in missing if not ask("query", query=query)["result"]]
            except (urllib.error.URLError, ConnectionError):
                continue
        for query in missing:
            failed += 1
            print(f"FAIL no data: {query}")
        # The rules are evaluated on their own clock: the one alert that has reason to fire gets the time for it.
        deadline = time.monotonic() + 20
        while True:
            rules = ask("rules")["groups"][0]["rules"]
            if any(rule["state"] == "firing" for rule in rules) or time.monotonic() > deadline:
                break
            time.sleep(0.5)
        for rule in rules:
            if rule["health"] != "ok":
                failed += 1
                print(f"FAIL alert {rule['name']}: {rule['health']} {rule.get('lastError', '')}")
        for target in ask("targets")["activeTargets"]:
            if target["health"] != "up":
                failed += 1
                print(f"FAIL target {target['scrapeUrl']}: {target['lastError']}")
        firing = sorted(rule["name"] for rule in rules if rule["state"] == "firing")
        print(f"{len(PANELS) - len(missing)} of {len(PANELS)} panel queries have data, {len(rules)} alerts evaluate, firing: {firing}")
        # What becomes of this machine's disk within a day is not ours to say.
        if [name for name in firing if name != "disk_predicted"] != ["no_consumers"]:
            failed += 1
            print("FAIL: the queue without consumers should be the only alert")
    except (BrokerError, OSError) as problem:
        failed += 1
        print(f"FAIL: {problem}")
    finally:
        for process in started:
            process.kill()
            process.wait()
        if broker.process and broker.process.poll() is None:
            broker.kill()
        broker.remove()
        shutil.rmtree(directory, ignore_errors=True)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
