"""Calls to a broker's HTTP API."""

import base64
import json
import urllib.error
import urllib.request


class Api:
    """One broker's HTTP API."""

    def __init__(self, url):
        self.url = url

    def call(self, method, path, body=None):
        """Status and decoded body."""
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(f"{self.url}/api{path}", data=data, method=method)
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


def port(broker):
    """Where the broker's HTTP API listens."""
    return broker.http.rsplit(":", 1)[1]
