"""What an operator does beside the clients: the HTTP API, and the command line tool for what it cannot do.

run.py says in the environment where they are; a scenario that uses them is not planned when it does not.
"""

import base64
import json
import os
import subprocess
import urllib.request

from scenarios import unique


def http(method, path, body=None, user="guest", password="guest"):
    """One call; returns the decoded answer, or None if it had no body. Fails on a status that is not a success."""
    request = urllib.request.Request(f"{os.environ['INTEROP_HTTP']}/api/{path}", method=method)
    request.add_header("Authorization", "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode())
    if body is not None:
        request.add_header("Content-Type", "application/json")
        request.data = json.dumps(body).encode()
    with urllib.request.urlopen(request, timeout=20) as response:
        text = response.read()
        return json.loads(text) if text else None


def control(*arguments):
    """Runs leveretctl, or rabbitmqctl, and fails if it does."""
    command = [*json.loads(os.environ["INTEROP_CTL"]), *arguments]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, timeout=30)


def set_policy(name, pattern, definition, apply_to="queues"):
    """A policy of the default vhost; returns the function that takes it away."""
    path = f"policies/%2F/{unique(name)}"
    http("PUT", path, {"pattern": f"^{pattern}$", "definition": definition, "apply-to": apply_to})
    return lambda: http("DELETE", path)


def add_user(name, configure, write, read):
    """A user with password `secret` and these rights on the default vhost; returns its name."""
    user = unique(name)
    http("PUT", f"users/{user}", {"password": "secret", "tags": ""})
    http("PUT", f"permissions/%2F/{user}", {"configure": configure, "write": write, "read": read})
    return user


def as_user(uri, user):
    """The same broker, for a user of `add_user`."""
    return uri.replace("guest:guest@", f"{user}:secret@")
