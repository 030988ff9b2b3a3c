"""The brokers with their HTTP APIs, and calls to one."""

import base64
import json
import os
import urllib.error
import urllib.request

from suite.brokers import Leveret, RabbitMQ, spare_port


class WithManagement(RabbitMQ):
    """RabbitMQ with its HTTP API."""

    def __init__(self):
        super().__init__()
        self.http = spare_port()
        for name, text in (
            ("enabled_plugins", "[rabbitmq_management]."),
            ("rabbitmq.conf", f"log.console = true\nmanagement.tcp.port = {self.http}\nmanagement.tcp.ip = 127.0.0.1\n"
             "collect_statistics_interval = 1000\n"),
        ):  # fmt: skip
            with open(os.path.join(self.directory, name), "w", encoding="utf-8") as file:
                file.write(text)


class WithHttp(Leveret):
    """Leveret with its HTTP API."""

    def __init__(self, binary):
        super().__init__(binary)
        self.http = spare_port()
        self.amqp = spare_port()

    def command(self):
        arguments = [self.binary, "--data-dir", os.path.join(self.directory, "data")]
        arguments += ["--amqp-listen", f"127.0.0.1:{self.amqp}", "--http-listen", f"127.0.0.1:{self.http}"]
        return [*arguments, "--metrics-listen", "none"], dict(os.environ)

    def port(self, log):
        return self.amqp


class Api:
    """One broker's HTTP API."""

    def __init__(self, port):
        self.port = port

    def call(self, method, path, body=None):
        """Status and decoded body."""
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(f"http://127.0.0.1:{self.port}/api{path}", data=data, method=method)
        request.add_header("Authorization", "Basic " + base64.b64encode(b"guest:guest").decode())
        request.add_header("Content-Type", "application/json")
        try:
            with urllib.request.urlopen(request, timeout=30) as answer:
                status, text = answer.status, answer.read()
        except urllib.error.HTTPError as error:
            status, text = error.code, error.read()
        try:
            return status, json.loads(text) if text else None
        except ValueError:
            return status, text.decode(errors="replace")
