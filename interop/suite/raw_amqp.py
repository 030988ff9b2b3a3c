"""Just enough AMQP 0-9-1 over a raw socket to publish and consume fast; for pika_million.py only.

Frames are built ahead and written many at a time; what comes in is cut into frames without copying bodies twice.
"""

import socket
import struct
from urllib.parse import urlsplit

METHOD, HEADER, BODY, HEARTBEAT, END = 1, 2, 3, 8, 0xCE
READ_OCTETS = 1 << 18
# (class, method) numbers of what is awaited by name.
START, TUNE, OPEN_OK, CHANNEL_OPEN_OK = (10, 10), (10, 30), (10, 41), (20, 11)
DECLARE_OK, DELETE_OK, SELECT_OK, QOS_OK, CONSUME_OK = (50, 11), (50, 41), (85, 11), (60, 11), (60, 21)
DELIVER, ACK, NACK = (60, 60), (60, 80), (60, 120)
CLOSES = {(10, 50): "connection", (20, 40): "channel"}

head = struct.Struct(">BHI")
ids = struct.Struct(">HH")
tag_and_flag = struct.Struct(">QB")


class Closed(Exception):
    """The broker closed the connection or the channel, or the socket ended."""


def frame(kind, channel, payload):
    """One frame."""
    return head.pack(kind, channel, len(payload)) + payload + b"\xce"


def method(channel, numbers, arguments=b""):
    """One method frame."""
    return frame(METHOD, channel, ids.pack(*numbers) + arguments)


def short(text):
    """A short string."""
    octets = text.encode()
    return bytes([len(octets)]) + octets


def long(octets):
    """A long string, or anything else that starts with a 32-bit length."""
    return struct.pack(">I", len(octets)) + octets


class Connection:
    """A connection with channel 1 open."""

    def __init__(self, uri):
        address = urlsplit(uri)
        self.socket = socket.create_connection((address.hostname, address.port or 5672), timeout=60)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.buffer = bytearray()
        self.socket.sendall(b"AMQP\x00\x00\x09\x01")
        self.wait(START)
        credentials = f"\0{address.username}\0{address.password}".encode()
        self.send(method(0, (10, 11), long(b"") + short("PLAIN") + long(credentials) + short("en_US")))
        tune = self.wait(TUNE)
        # The broker's own limits back, without heartbeats: the socket's end is all we need to see.
        self.send(method(0, (10, 31), tune[4:10] + b"\0\0") + method(0, (10, 40), short("/") + b"\0\0"))
        self.wait(OPEN_OK)
        self.call((20, 10), b"\0", CHANNEL_OPEN_OK)

    def send(self, octets):
        """Writes all of it, however long that takes the broker to read."""
        try:
            self.socket.sendall(octets)
        except OSError as problem:
            raise Closed(str(problem)) from problem

    def call(self, numbers, arguments, answer):
        """Sends a method on channel 1 and returns the payload of its answer."""
        self.send(method(1, numbers, arguments))
        return self.wait(answer)

    def wait(self, numbers):
        """Reads until that method comes and returns its payload; nothing else of interest may be under way."""
        while True:
            for kind, payload in self.frames():
                if kind == METHOD and ids.unpack_from(payload) == numbers:
                    return payload

    def frames(self):
        """Reads once from the socket and returns the whole frames that are there, as (type, payload)."""
        try:
            octets = self.socket.recv(READ_OCTETS)
        except OSError as problem:
            raise Closed(str(problem)) from problem
        if not octets:
            raise Closed("end of stream")
        self.buffer += octets
        whole, self.buffer = cut(self.buffer)
        for kind, payload in whole:
            if kind == METHOD and ids.unpack_from(payload) in CLOSES:
                code, length = struct.unpack_from(">HB", payload, 4)
                text = payload[7 : 7 + length].decode(errors="replace")
                raise Closed(f"{CLOSES[ids.unpack_from(payload)]} closed: {code} {text}")
        return whole

    def close(self):
        """Drops the socket: whoever calls this has nothing outstanding."""
        self.socket.close()

    def declare(self, queue, arguments=b""):
        """Declares a durable queue with the entries of a table; returns how many messages are ready in it."""
        answer = self.call((50, 10), b"\0\0" + short(queue) + b"\x02" + long(arguments), DECLARE_OK)
        return struct.unpack_from(">I", answer, 5 + answer[4])[0]

    def delete(self, queue):
        """Deletes a queue; returns how many messages were ready in it."""
        return struct.unpack_from(">I", self.call((50, 40), b"\0\0" + short(queue) + b"\0", DELETE_OK), 4)[0]

    def select_confirms(self):
        """Asks for publisher confirms."""
        self.call((85, 10), b"\0", SELECT_OK)

    def consume(self, queue, prefetch):
        """Starts a consumer that acknowledges; returns what was delivered along with the answer, as `frames` would."""
        self.call((60, 10), struct.pack(">IHB", 0, prefetch, 0), QOS_OK)
        self.send(method(1, (60, 20), b"\0\0" + short(queue) + short("c") + b"\0" + long(b"")))
        while True:
            whole = self.frames()
            for place, (kind, payload) in enumerate(whole):
                if kind == METHOD and ids.unpack_from(payload) == CONSUME_OK:
                    return whole[place + 1 :]

    def ack(self, tag):
        """Acknowledges every delivery up to and including this tag."""
        self.send(method(1, ACK, tag_and_flag.pack(tag, 1)))


def cut(buffer):
    """The whole frames in the buffer, and the octets of the one that is not whole yet."""
    view = bytes(buffer)
    whole, at, length = [], 0, len(view)
    while at + 8 <= length:
        kind, _, size = head.unpack_from(view, at)
        end = at + 7 + size
        if end >= length:
            break
        if view[end] != END:
            raise Closed(f"a frame ends with octet {view[end]}")
        whole.append((kind, view[at + 7 : end]))
        at = end + 1
    return whole, bytearray(view[at:])


def publication(queue, size):
    """What comes before and after the body of a persistent message for the default exchange, of `size` octets."""
    before = method(1, (60, 40), b"\0\0" + short("") + short(queue) + b"\0")
    before += frame(HEADER, 1, struct.pack(">HHQHB", 60, 0, size, 0x1000, 2))
    return before + head.pack(BODY, 1, size), b"\xce"


def confirmed(frames):
    """The confirms among the frames, as (tag, multiple). A nack is a failure here: nothing we send may be refused."""
    found = []
    for kind, payload in frames:
        if kind == METHOD:
            numbers = ids.unpack_from(payload)
            if numbers == NACK:
                raise AssertionError(f"the broker refused a message: nack {tag_and_flag.unpack_from(payload, 4)}")
            if numbers == ACK:
                found.append(tag_and_flag.unpack_from(payload, 4))
    return found
