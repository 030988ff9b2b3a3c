#!/usr/bin/env python3
"""Definitions go from a real RabbitMQ into Leveret and back, and the topology is the same at every stop.

    interop/definitions.py --binary target/release/leveret
    interop/definitions.py --binary ... --write tests/management/rabbitmq-3.10.json    keeps RabbitMQ's export as a fixture
"""

import argparse
import json
import sys

from suite.brokers import BrokerError, Leveret, RabbitMQ, rabbitmq_missing
from suite.http import Api

# Every kind of object that Debian's RabbitMQ 3.10 knows without plugins.
OBJECTS = [
    ("PUT", "/vhosts/second", {"description": "a second vhost", "tags": "one,two"}),
    ("PUT", "/users/alice", {"password": "secret", "tags": "monitoring,policymaker"}),
    ("PUT", "/users/bob", {"password_hash": "", "tags": ""}),
    ("PUT", "/users/carol", {"password_hash": "kI3GCqW5JLMJa4iX1lo7X4D6XbYqlLgxIs30+P6tENUV2POR", "tags": "management",
                             "hashing_algorithm": "rabbit_password_hashing_sha256"}),
    ("PUT", "/permissions/%2F/alice", {"configure": "^a", "write": ".*", "read": ""}),
    ("PUT", "/permissions/second/guest", {"configure": ".*", "write": ".*", "read": ".*"}),
    ("PUT", "/topic-permissions/%2F/alice", {"exchange": "amq.topic", "write": "^a\\.", "read": ".*"}),
    ("PUT", "/vhost-limits/second/max-queues", {"value": 100}),
    ("PUT", "/vhost-limits/second/max-connections", {"value": 50}),
    ("PUT", "/user-limits/alice/max-channels", {"value": 100}),
    ("PUT", "/global-parameters/site", {"value": {"name": "here", "racks": [1, 2]}}),
    ("PUT", "/exchanges/%2F/direct", {"type": "direct", "durable": True}),
    ("PUT", "/exchanges/%2F/fanout", {"type": "fanout", "durable": True, "auto_delete": True}),
    ("PUT", "/exchanges/%2F/topic", {"type": "topic", "durable": True, "arguments": {"alternate-exchange": "fanout"}}),
    ("PUT", "/exchanges/%2F/headers", {"type": "headers", "durable": True, "internal": True}),
    ("PUT", "/exchanges/second/odd%20%2F%20%C3%BC", {"type": "topic", "durable": True}),
    ("PUT", "/queues/%2F/plain", {"durable": True}),
    ("PUT", "/queues/%2F/limited", {"durable": True, "arguments": {
        "x-max-length": 10, "x-max-length-bytes": 100000, "x-overflow": "reject-publish", "x-message-ttl": 60000,
        "x-expires": 3600000, "x-dead-letter-exchange": "direct", "x-dead-letter-routing-key": "dead", "x-max-priority": 5,
        "x-single-active-consumer": True, "x-queue-mode": "lazy"}}),
    ("PUT", "/queues/%2F/gone-when-unused", {"durable": True, "auto_delete": True}),
    ("PUT", "/queues/%2F/quorum", {"durable": True, "arguments": {"x-queue-type": "quorum", "x-delivery-limit": 5}}),
    ("PUT", "/queues/second/q%20%2F", {"durable": True}),
    ("POST", "/bindings/%2F/e/direct/q/plain", {"routing_key": "k"}),
    ("POST", "/bindings/%2F/e/topic/q/quorum", {"routing_key": "a.*.#"}),
    ("POST", "/bindings/%2F/e/headers/q/limited", {"arguments": {"x-match": "all", "n": 1, "t": "text", "b": True}}),
    ("POST", "/bindings/%2F/e/topic/e/fanout", {"routing_key": "to.exchange"}),
    ("POST", "/bindings/second/e/odd%20%2F%20%C3%BC/q/q%20%2F", {"routing_key": "ü ~/%"}),
    ("PUT", "/policies/%2F/lengths", {"pattern": "^plain$", "definition": {"max-length": 100, "overflow": "drop-head"},
                                      "priority": 7, "apply-to": "queues"}),
    ("PUT", "/policies/%2F/alternate", {"pattern": "^direct$", "definition": {"alternate-exchange": "fanout"},
                                        "apply-to": "exchanges"}),
    ("PUT", "/operator-policies/second/ttl", {"pattern": ".*", "definition": {"message-ttl": 3600000}, "apply-to": "queues"}),
]  # fmt: skip

KEYS = {"users": ("name",), "vhosts": ("name",), "permissions": ("vhost", "user"),
        "topic_permissions": ("vhost", "user", "exchange"), "parameters": ("vhost", "component", "name"),
        "global_parameters": ("name",), "policies": ("vhost", "name"), "queues": ("vhost", "name"),
        "exchanges": ("vhost", "name"), "bindings": ("vhost", "source", "destination", "routing_key")}  # fmt: skip


def essence(definitions):
    """The definitions without what each broker says of itself, in a fixed order and with one spelling."""
    made = {}
    for kind, keys in KEYS.items():
        rows = []
        for row in definitions[kind]:
            row = {key: value for key, value in row.items() if key not in ("metadata", "tracing", "default_queue_type", "type")
                   or (kind == "exchanges" and key == "type")}  # fmt: skip
            if kind == "vhosts":
                row = {"name": row["name"]}
            if kind == "queues" and row["arguments"].get("x-queue-type") == "classic":
                del row["arguments"]["x-queue-type"]
            if isinstance(row.get("tags"), str):
                row["tags"] = [tag for tag in row["tags"].split(",") if tag]
            rows.append(row)
        if kind == "global_parameters":
            rows = [row for row in rows if row["name"] not in ("cluster_name", "internal_cluster_id")]
        if kind == "users":
            # The default user is hashed as each broker does.
            rows = [row for row in rows if row["name"] != "guest"]
        made[kind] = sorted(rows, key=lambda row: [str(row[key]) for key in keys])
    return made


def limits(definitions):
    """Limits of vhosts stand with the vhosts, or among the parameters, as RabbitMQ 3.10 has them."""
    parameters = [row for row in definitions["parameters"] if row["component"] != "vhost-limits"]
    found = {row["vhost"]: row["value"] for row in definitions["parameters"] if row["component"] == "vhost-limits"}
    found.update({row["name"]: row["limits"] for row in definitions["vhosts"] if row.get("limits")})
    return found, {**definitions, "parameters": parameters}


def same(what, left, right):
    """Prints how two exports differ; gives how often."""
    (left_limits, left), (right_limits, right) = limits(left), limits(right)
    count = 0
    if left_limits != right_limits:
        count += 1
        print(f"{what}: limits of vhosts: {left_limits}, {right_limits}")
    left, right = essence(left), essence(right)
    for kind in KEYS:
        for row in left[kind]:
            if row not in right[kind]:
                count += 1
                print(f"{what}: {kind}: lost {row}")
        for row in right[kind]:
            if row not in left[kind]:
                count += 1
                print(f"{what}: {kind}: new {row}")
    print(f"{what}: " + (f"{count} differences" if count else "the same"))
    return count


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--binary", default="target/release/leveret")
    parser.add_argument("--write", help="where to keep RabbitMQ's export")
    options = parser.parse_args()
    if rabbitmq_missing():
        print(f"SKIP definitions: {rabbitmq_missing()}")
        return 0
    brokers = [RabbitMQ(), Leveret(options.binary)]
    failures = 0
    try:
        for broker in brokers:
            broker.start()
        rabbit, leveret = (Api(broker.http) for broker in brokers)
        for method, path, body in OBJECTS:
            status, answer = rabbit.call(method, path, body)
            assert status in (200, 201, 204), f"{method} {path}: {status} {answer}"
        exported = rabbit.call("GET", "/definitions")[1]
        if options.write:
            with open(options.write, "w", encoding="utf-8") as file:
                json.dump(exported, file, indent=1, ensure_ascii=False, sort_keys=True)
                file.write("\n")
        status, answer = leveret.call("POST", "/definitions", exported)
        assert status == 204, f"Leveret refused RabbitMQ's export: {status} {answer}"
        ours = leveret.call("GET", "/definitions")[1]
        failures += same("RabbitMQ to Leveret", exported, ours)
        assert leveret.call("POST", "/definitions", exported)[0] == 204
        failures += same("again", ours, leveret.call("GET", "/definitions")[1])
        # Away with everything, and back from our export.
        for name in ("alice", "bob", "carol"):
            rabbit.call("DELETE", f"/users/{name}")
        rabbit.call("DELETE", "/vhosts/second")
        for kind, names in (("queues", ("plain", "limited", "gone-when-unused", "quorum")),
                            ("exchanges", ("direct", "fanout", "topic", "headers")), ("policies", ("lengths", "alternate"))):  # fmt: skip
            for name in names:
                rabbit.call("DELETE", f"/{kind}/%2F/{name}")
        rabbit.call("DELETE", "/global-parameters/site")
        # Passwords that only Leveret can check stay with Leveret.
        foreign = [user["name"] for user in ours["users"] if "argon2" in user["hashing_algorithm"]]
        ours["users"] = [user for user in ours["users"] if user["name"] not in foreign]
        status, answer = rabbit.call("POST", "/definitions", ours)
        assert status == 204, f"RabbitMQ refused Leveret's export: {status} {answer}"
        failures += same("Leveret to RabbitMQ", exported, rabbit.call("GET", "/definitions")[1])
    except (BrokerError, OSError, AssertionError) as problem:
        print(f"FAIL: {problem}")
        return 1
    finally:
        for broker in brokers:
            if broker.process and broker.process.poll() is None:
                broker.kill()
            broker.remove()
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
