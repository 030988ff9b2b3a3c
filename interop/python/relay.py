"""A TCP relay in front of the broker whose connections can be cut: a dropped socket as the network would drop it."""

import asyncio
from urllib.parse import urlsplit


class Relay:
    """`async with Relay(uri) as relay`: clients connect to `relay.uri`; `relay.cut()` drops all they have open."""

    def __init__(self, uri):
        self.target = urlsplit(uri)
        self.uri = None
        self.writers = set()

    async def __aenter__(self):
        self.server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        port = self.server.sockets[0].getsockname()[1]
        self.uri = self.target._replace(netloc=f"{self.target.username}:{self.target.password}@127.0.0.1:{port}").geturl()
        return self

    async def __aexit__(self, *_error):
        self.server.close()
        self.cut()

    def cut(self):
        """Resets every open connection, on the client's side and on the broker's."""
        for writer in self.writers:
            writer.transport.abort()

    async def _accept(self, client_reader, client_writer):
        broker_reader, broker_writer = await asyncio.open_connection(self.target.hostname, self.target.port or 5672)
        both = {client_writer, broker_writer}
        self.writers |= both
        await asyncio.gather(_copy(client_reader, broker_writer), _copy(broker_reader, client_writer))
        self.writers -= both


async def _copy(reader, writer):
    try:
        while octets := await reader.read(65536):
            writer.write(octets)
            await writer.drain()
    except OSError:
        pass
    finally:
        writer.close()
