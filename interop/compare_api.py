#!/usr/bin/env python3
"""Asks Leveret and Debian's RabbitMQ the same questions over HTTP, on the same topology, and compares the shapes of the answers.

    interop/compare_api.py --binary target/release/leveret

For every route it prints the status where the two differ, and the keys that RabbitMQ has and Leveret lacks. RabbitMQ's
values are not expected back: only which fields there are and of which JSON type. Fields that are Erlang's own, or that
RabbitMQ dropped since 3.10, are listed in KNOWN with the reason. Ends with 1 when something is missing that is not.
"""

import argparse
import json
import subprocess
import sys
import time
import urllib.parse

from suite.brokers import BrokerError, Leveret, RabbitMQ, rabbitmq_missing
from suite.clients import prepared_python
from suite.http import Api

# Not ours: what the BEAM counts, what RabbitMQ 4 no longer reports, and names of nodes or types as keys.
KNOWN = (
    "garbage_collection", "backing_queue_status", "reductions", "recoverable_slaves", "slave_nodes",
    "synchronised_slave_nodes", "cluster_links", "io_", "mnesia_", "msg_store_", "queue_index_", "ra_open_file_metrics",
    "applications", "cluster_state", "gc_", "context_switches", "metrics_gc", "run_queue", "socket_opts", "ssl_opts",
    "cowboy_opts", "log_files", "config_files", "exchange_types[].internal_purpose", "garbage", "node_links", "release_series_support_status", "queue_slave_procs", "binary.", "enable_uaa", "uaa_", "idle_since", "open_files.", "protocol",
    "messages_paged_out", "message_bytes_paged_out", "enabled_plugins", "internal_cluster_id", "reason",
)  # fmt: skip


TOPOLOGY = [
    ("PUT", "/vhosts/other", {"description": "d", "tags": "a,b"}),
    ("PUT", "/users/alice", {"password": "secret", "tags": "monitoring,policymaker"}),
    ("PUT", "/permissions/%2F/alice", {"configure": ".*", "write": ".*", "read": ".*"}),
    ("PUT", "/topic-permissions/%2F/alice", {"exchange": "amq.topic", "write": "^a", "read": ".*"}),
    ("PUT", "/exchanges/%2F/x", {"type": "topic", "durable": True, "arguments": {"alternate-exchange": "amq.fanout"}}),
    ("PUT", "/queues/%2F/q", {"durable": True, "arguments": {"x-max-length": 100}}),
    ("PUT", "/queues/%2F/quorum", {"durable": True, "arguments": {"x-queue-type": "quorum"}}),
    ("PUT", "/queues/%2F/dead", {"durable": True}),
    ("POST", "/bindings/%2F/e/x/q/q", {"routing_key": "a.#", "arguments": {"k": 1}}),
    ("POST", "/bindings/%2F/e/x/e/amq.topic", {"routing_key": "b"}),
    ("PUT", "/policies/%2F/p", {"pattern": "^q$", "definition": {"max-length": 50}, "priority": 3, "apply-to": "queues"}),
    ("PUT", "/operator-policies/%2F/op", {"pattern": "^q$", "definition": {"expires": 9000000}, "apply-to": "queues"}),
    ("PUT", "/vhost-limits/other/max-queues", {"value": 10}),
    ("PUT", "/user-limits/alice/max-connections", {"value": 10}),
    ("PUT", "/global-parameters/g", {"value": {"a": 1}}),
    ("POST", "/exchanges/%2F/x/publish",
     {"routing_key": "a.b", "properties": {"headers": {"h": 1}}, "payload": "hello", "payload_encoding": "string"}),
    ("POST", "/exchanges/%2F/amq.default/publish",
     {"routing_key": "q", "properties": {"delivery_mode": 2}, "payload": "aGk=", "payload_encoding": "base64"}),
]  # fmt: skip

ROUTES = """/overview /overview?lengths_age=60&lengths_incr=5&msg_rates_age=60&msg_rates_incr=5 /cluster-name /nodes /nodes/{node}
/nodes/{node}?memory=true&binary=true /nodes/{node}/memory /extensions /definitions /definitions/%2F /connections /connections/{connection}
/connections/{connection}/channels /vhosts/%2F/connections /channels /channels/{channel} /vhosts/%2F/channels /consumers /consumers/%2F
/exchanges /exchanges/%2F /exchanges/%2F/x /exchanges/%2F/x/bindings/source /exchanges/%2F/amq.topic/bindings/destination /queues /queues/%2F
/queues/%2F/q /queues/%2F/quorum /queues?page=1&page_size=2&sort=name&sort_reverse=true /queues?columns=name,messages /queues/%2F/q/bindings
/queues/%2F/q?lengths_age=60&lengths_incr=5 /bindings /bindings/%2F /bindings/%2F/e/x/q/q /bindings/%2F/e/x/e/amq.topic /bindings/%2F/e/x/e/amq.topic/b
/vhosts /vhosts/%2F /vhosts/other /vhosts/%2F/permissions /vhosts/%2F/topic-permissions /users /users/alice /users/without-permissions
/users/alice/permissions /users/alice/topic-permissions /user-limits /user-limits/alice /whoami /permissions /permissions/%2F/alice
/topic-permissions /topic-permissions/%2F/alice /parameters /parameters/nothing /global-parameters /global-parameters/g /policies /policies/%2F
/policies/%2F/p /operator-policies /operator-policies/%2F/op /vhost-limits /vhost-limits/other /aliveness-test/%2F
/health/checks/alarms /health/checks/local-alarms /health/checks/virtual-hosts /health/checks/port-listener/1 /health/checks/port-listener/x
/health/checks/protocol-listener/amqp /health/checks/protocol-listener/nothing /health/checks/node-is-quorum-critical
/health/checks/certificate-expiration/1/days /health/checks/certificate-expiration/1/moons /feature-flags /auth/attempts/{node} /auth
/queues/%2F/none /exchanges/%2F/none /queues/none/none /vhosts/none /users/none /policies/%2F/none /permissions/%2F/none /nodes/none
/queues?page=0 /queues?page=x /queues?page=1&page_size=501 /queues?page=99&page_size=1 /bindings/%2F/e/x/q/none /none""".split()

CALLS = [
    ("PUT", "/queues/%2F/q", {"durable": False}),
    ("PUT", "/queues/%2F/q2", {"durable": "perhaps"}),
    ("PUT", "/queues/%2F/amq.mine", {"durable": True}),
    ("PUT", "/queues/%2F/q3", {"arguments": {"x-max-length": "long"}}),
    ("PUT", "/queues/%2F/q", {"durable": True, "arguments": {"x-max-length": 100}}),
    ("PUT", "/queues/none/q", {}),
    ("PUT", "/exchanges/%2F/x", {"type": "fanout"}),
    ("PUT", "/exchanges/%2F/y", {"type": "nothing"}),
    ("PUT", "/exchanges/%2F/amq.mine", {"type": "topic"}),
    ("DELETE", "/exchanges/%2F/amq.topic", None),
    ("DELETE", "/exchanges/%2F/none", None),
    ("DELETE", "/queues/%2F/none", None),
    ("DELETE", "/queues/%2F/q?if-empty=true", None),
    ("PUT", "/users/bob", {}),
    ("PUT", "/users/bob", {"tags": "x", "password": "a", "password_hash": "b"}),
    ("PUT", "/permissions/%2F/nobody", {"configure": ".*", "write": ".*", "read": ".*"}),
    ("PUT", "/permissions/%2F/alice", {"configure": "(", "write": ".*", "read": ".*"}),
    ("PUT", "/permissions/%2F/alice", {"configure": ".*"}),
    ("PUT", "/policies/%2F/bad", {"pattern": "(", "definition": {"max-length": 1}}),
    ("PUT", "/policies/%2F/bad", {"pattern": "a", "definition": {"nothing": 1}}),
    ("PUT", "/policies/%2F/bad", {"pattern": "a"}),
    ("PUT", "/vhost-limits/other/max-moons", {"value": 1}),
    ("POST", "/bindings/%2F/e/x/q/none", {}),
    ("POST", "/bindings/%2F/e/none/q/q", {}),
    ("POST", "/exchanges/%2F/none/publish", {"routing_key": "", "properties": {}, "payload": "", "payload_encoding": "string"}),
    ("POST", "/exchanges/%2F/x/publish", {"routing_key": "z", "properties": {}, "payload": "", "payload_encoding": "string"}),
    ("POST", "/exchanges/%2F/x/publish", {"routing_key": "z", "properties": {}, "payload": "", "payload_encoding": "rot13"}),
    ("POST", "/exchanges/%2F/x/publish", {"routing_key": "z"}),
    ("POST", "/exchanges/%2F/x/publish", {"routing_key": "z", "properties": {"priority": "x"}, "payload": "", "payload_encoding": "string"}),
    ("POST", "/queues/%2F/q/get", {"count": 1, "ackmode": "ack_requeue_true", "encoding": "auto"}),
    ("POST", "/queues/%2F/q/get", {"count": 1, "ackmode": "perhaps", "encoding": "auto"}),
    ("POST", "/queues/%2F/q/get", {"count": 1}),
    ("POST", "/queues/%2F/none/get", {"count": 1, "ackmode": "ack_requeue_true", "encoding": "auto"}),
    ("POST", "/queues/%2F/q/actions", {"action": "dance"}),
    ("PUT", "/feature-flags/none/enable", {}),
    ("PUT", "/parameters/none/%2F/x", {"value": 1}),
    ("POST", "/definitions", {"queues": 7}),
    ("DELETE", "/queues/%2F/dead/contents", None),
    ("DELETE", "/permissions/%2F/nobody", None),
    ("PATCH", "/queues", None),
]  # fmt: skip

CONSUMER = """
import pika, sys, time
parameters = pika.URLParameters(sys.argv[1])
connection = pika.BlockingConnection(parameters)
channel = connection.channel()
channel.confirm_delivery()
channel.basic_qos(prefetch_count=1)
channel.basic_publish("x", "a.c", b"one", pika.BasicProperties(delivery_mode=2))
channel.basic_publish("", "quorum", b"two")
channel.basic_publish("", "quorum", b"three")
channel.basic_consume("quorum", lambda *_: None)
print("ready", flush=True)
end = time.time() + float(sys.argv[2])
while time.time() < end:
    connection.process_data_events(0.2)
"""


def shape(value, path="", found=None):
    """Paths of all keys with the type of their values; an array counts as its first element."""
    found = {} if found is None else found
    if isinstance(value, dict):
        found.setdefault(path, "object")
        for key, inner in value.items():
            shape(inner, f"{path}.{key}" if path else key, found)
    elif isinstance(value, list):
        found.setdefault(path, "array")
        for inner in value:
            shape(inner, f"{path}[]", found)
    else:
        kind = "number" if isinstance(value, (int, float)) and not isinstance(value, bool) else type(value).__name__
        found.setdefault(path, kind)
    return found


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--binary", default="target/release/leveret")
    parser.add_argument("--all", action="store_true", help="print known differences and values of errors too")
    options = parser.parse_args()
    if rabbitmq_missing():
        print(f"SKIP compare_api: {rabbitmq_missing()}")
        return 0
    brokers = [RabbitMQ(), Leveret(options.binary)]
    consumers, differences = [], 0
    try:
        for broker in brokers:
            broker.start()
        apis = [Api(broker.http) for broker in brokers]
        for method, path, body in TOPOLOGY:
            answers = [api.call(method, path, body) for api in apis]
            if answers[0][0] != answers[1][0]:
                differences += 1
                print(f"{method} {path}: RabbitMQ {answers[0]}, Leveret {answers[1]}")
        for broker in brokers:
            command = [str(prepared_python()), "-c", CONSUMER, broker.uri, "60"]
            consumers.append(subprocess.Popen(command, stdout=subprocess.PIPE, text=True))
        for consumer in consumers:
            consumer.stdout.readline()
        time.sleep(7)
        names = []
        for api in apis:
            node = api.call("GET", "/nodes")[1][0]["name"]
            channel = api.call("GET", "/channels")[1][0]
            names.append({"node": node, "channel": urllib.parse.quote(channel["name"], safe=""),
                          "connection": urllib.parse.quote(channel["connection_details"]["name"], safe="")})  # fmt: skip
        for route in ROUTES:
            answers = [api.call("GET", route.format(**name)) for api, name in zip(apis, names)]
            differences += compare("GET", route, answers, options.all)
        for method, path, body in CALLS:
            answers = [api.call(method, path, body) for api in apis]
            differences += compare(f"{method} {json.dumps(body)}", path, answers, options.all)
    except (BrokerError, OSError) as problem:
        print(f"FAIL: {problem}")
        return 1
    finally:
        for consumer in consumers:
            consumer.kill()
        for broker in brokers:
            if broker.process and broker.process.poll() is None:
                broker.kill()
            broker.remove()
    print(f"{differences} differences")
    return 1 if differences else 0


def compare(what, route, answers, everything):
    """Prints how one answer differs; gives how many differences that are not known."""
    (status, theirs), (our_status, ours) = answers
    count = 0
    if status != our_status:
        count += 1
        print(f"{what} {route}: RabbitMQ {status} {str(theirs)[:200]}, Leveret {our_status} {str(ours)[:200]}")
    elif status >= 400 and theirs != ours and everything:
        print(f"{what} {route}: {status}: RabbitMQ {theirs}, Leveret {ours}")
    left, right = shape(theirs), shape(ours)
    for path, kind in sorted(left.items()):
        known = any(part.startswith(name) for part in path.split(".") for name in KNOWN) or any(name in path for name in KNOWN if "[" in name)
        if path not in right:
            if not known:
                count += 1
                print(f"{what} {route}: no {path} ({kind})")
        elif right[path] != kind and "NoneType" not in (kind, right[path]) and not known:
            count += 1
            print(f"{what} {route}: {path} is {right[path]}, RabbitMQ has {kind}")
    return count


if __name__ == "__main__":
    sys.exit(main())
