"""Messages over a socket between two processes of ours: a length in 4 bytes, then MessagePack."""

import struct
from collections.abc import Iterator

import msgspec

LENGTH = struct.Struct("<I")
encode = msgspec.msgpack.Encoder().encode


class Frames:
    """Puts what arrives back together."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed(self, data: bytes) -> Iterator[bytes]:
        """Take what arrived; give the messages that are whole now."""
        self._buffer += data
        start = 0
        while len(self._buffer) - start >= LENGTH.size:
            end = start + LENGTH.size + LENGTH.unpack_from(self._buffer, start)[0]
            if end > len(self._buffer):
                break
            yield bytes(self._buffer[start + LENGTH.size : end])
            start = end
        del self._buffer[:start]


def framed(message: object) -> bytes:
    """A message as it goes over the socket."""
    body = encode(message)
    return LENGTH.pack(len(body)) + body
