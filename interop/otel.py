#!/usr/bin/env python3
"""Leveret's spans, taken in by OpenTelemetry's own message definitions: a field that OTLP does not know, or of another type,
is refused. The trace begins in the producer, made by OpenTelemetry's Python SDK.

    interop/otel.py --binary target/release/leveret
"""

import argparse
import base64
import http.server
import json
import queue
import subprocess
import sys
import threading

from suite.brokers import BrokerError, Leveret
from suite.clients import CACHE, PrepareError, exclusively, prepared_python, run

REQUIREMENTS = ["opentelemetry-sdk==1.45.2", "opentelemetry-proto==1.45.2"]
KINDS = {"publish": 2, "route": 1, "enqueue": 1, "deliver": 4, "settle": 1, "dead-letter": 1}

# Publishes two messages inside a span and takes one each way: acked, and rejected into a dead-letter queue.
CLIENT = """
import pika, sys
sys.path.append(sys.argv[2])
from opentelemetry import propagate, trace
from opentelemetry.sdk.trace import TracerProvider
trace.set_tracer_provider(TracerProvider())
connection = pika.BlockingConnection(pika.URLParameters(sys.argv[1]))
channel = connection.channel()
channel.queue_declare("dead")
channel.queue_declare("q", arguments={"x-dead-letter-exchange": "", "x-dead-letter-routing-key": "dead"})
with trace.get_tracer("shop").start_as_current_span("order") as span:
    headers = {}
    propagate.inject(headers)
    for body in (b"one", b"two"):
        channel.basic_publish("", "q", body, pika.BasicProperties(headers=dict(headers)))
    context = span.get_span_context()
    print(f"{context.trace_id:032x} {context.span_id:016x}")
for settle in (lambda tag: channel.basic_ack(tag), lambda tag: channel.basic_reject(tag, requeue=False)):
    method, _, _ = next(channel.consume("q", inactivity_timeout=10))
    settle(method.delivery_tag)
channel.cancel()
method, _, _ = next(channel.consume("dead", inactivity_timeout=10))
channel.basic_ack(method.delivery_tag)
connection.close()
"""


class Traced(Leveret):
    """Leveret that sends spans to an endpoint."""

    def __init__(self, binary, endpoint):
        super().__init__(binary)
        self.endpoint = endpoint

    def command(self):
        arguments, environment = super().command()
        return arguments, environment | {"LEVERET_OTEL__ENDPOINT": self.endpoint}


def packages():
    """A directory with OpenTelemetry's packages."""
    directory = CACHE / "interop-otel"
    with exclusively("otel"):
        if not directory.exists():
            run([sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--target", directory,
                 *REQUIREMENTS])  # fmt: skip
    return directory


def with_octets(part):
    """OTLP writes identifiers in hexadecimal where protobuf's own JSON has base64."""
    if isinstance(part, list):
        return [with_octets(item) for item in part]
    if not isinstance(part, dict):
        return part
    hexadecimal = ("traceId", "spanId", "parentSpanId")
    octets = {key: base64.b64encode(bytes.fromhex(part[key])).decode() for key in hexadecimal if key in part}
    return {key: with_octets(value) for key, value in part.items()} | octets


def collector(spans):
    """Serves the traces resource on a spare port; parsed spans, or what is wrong, go to the queue."""
    from google.protobuf import json_format
    from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

    class Answer(http.server.BaseHTTPRequestHandler):
        def do_POST(self):
            body = json.loads(self.rfile.read(int(self.headers["content-length"])))
            try:
                request = json_format.ParseDict(with_octets(body), ExportTraceServiceRequest())
                for resource in request.resource_spans:
                    for scope in resource.scope_spans:
                        for span in scope.spans:
                            spans.put(span)
            except json_format.ParseError as problem:
                spans.put(problem)
            self.send_response(200)
            self.end_headers()
            self.wfile.write(b"{}")

        def log_message(self, *_):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Answer)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return server.server_address[1]


def gather(spans, wanted):
    """Spans until `wanted` are there."""
    found = []
    while len(found) < wanted:
        try:
            span = spans.get(timeout=30)
        except queue.Empty:
            raise AssertionError(f"only these came: {sorted(span.name for span in found)}") from None
        if isinstance(span, Exception):
            raise AssertionError(f"OTLP does not know this: {span}")
        found.append(span)
    return found


def check(spans, trace, sender):
    """Every span is in the producer's trace and leads back to its span."""
    by_id = {span.span_id.hex(): span for span in spans}
    assert len(by_id) == len(spans), "numbers of spans must differ"
    for span in spans:
        operation = span.name.split(" ")[0]
        assert span.trace_id.hex() == trace, span
        assert span.kind == KINDS[operation], span
        assert 0 < span.start_time_unix_nano <= span.end_time_unix_nano, span
        steps, at = 0, span
        while at.parent_span_id.hex() != sender:
            steps, at = steps + 1, by_id[at.parent_span_id.hex()]
            assert steps < len(spans), "a circle"
    names = sorted(span.name for span in spans)
    expected = 2 * ["publish amq.default", "route amq.default", "enqueue q", "deliver q", "settle q"]
    expected += ["dead-letter amq.default", "enqueue dead", "deliver dead", "settle dead"]
    assert names == sorted(expected), names


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--binary", default="target/release/leveret")
    arguments = parser.parse_args()
    try:
        directory, python = packages(), prepared_python()
    except PrepareError as problem:
        print(f"SKIP {problem}")
        return
    sys.path.append(str(directory))
    spans = queue.Queue()
    endpoint = f"http://127.0.0.1:{collector(spans)}"
    broker = Traced(arguments.binary, endpoint)
    try:
        broker.start()
        client = subprocess.run([python, "-c", CLIENT, broker.uri, directory], capture_output=True, text=True, timeout=120,
                                check=False)  # fmt: skip
        assert client.returncode == 0, client.stderr
        trace, sender = client.stdout.split()
        check(gather(spans, 14), trace, sender)
    except (BrokerError, AssertionError) as problem:
        sys.exit(f"FAIL {problem}")
    finally:
        broker.remove()
    print("PASS 14 spans in one trace, as OTLP has them")


if __name__ == "__main__":
    main()
