"""A gRPC call of hand-made HTTP/2 frames, with header values that gRPC's client refuses to send."""

import socket
import struct

_DATA, _HEADERS, _SETTINGS, _GOAWAY = 0, 1, 4, 7
_END_STREAM, _ACK, _END_HEADERS = 1, 1, 4


def call(address: str, path: str, message: bytes, headers: dict[str, bytes]) -> None:
    """Send a call with the raw values of `headers`, and return once the server has ended the stream."""
    fields = {
        ":method": b"POST",
        ":scheme": b"http",
        ":path": path.encode(),
        ":authority": b"localhost",
        "te": b"trailers",
        "content-type": b"application/grpc",
    } | headers
    block = b"".join(b"\0" + _string(name.encode()) + _string(value) for name, value in fields.items())
    host, port = address.rsplit(":", 1)
    with socket.create_connection((host, int(port)), timeout=30) as connection:
        connection.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + _frame(_SETTINGS, 0, 0, b""))
        connection.sendall(_frame(_HEADERS, _END_HEADERS, 1, block))
        connection.sendall(_frame(_DATA, _END_STREAM, 1, b"\0" + struct.pack(">I", len(message)) + message))
        with connection.makefile("rb") as stream:
            while True:
                head = stream.read(9)
                assert head, "the server closed the connection before the end of the call"
                kind, flags, length = head[3], head[4], int.from_bytes(head[:3])
                stream.read(length)
                if kind == _SETTINGS and not flags & _ACK:
                    connection.sendall(_frame(_SETTINGS, _ACK, 0, b""))
                if kind == _HEADERS and flags & _END_STREAM:
                    return
                assert kind != _GOAWAY, "the server refused the frames"


def _frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    return struct.pack(">I", len(payload))[1:] + bytes((kind, flags)) + struct.pack(">I", stream) + payload


def _string(value: bytes) -> bytes:
    assert len(value) < 127, "longer strings have another form in HPACK"
    return bytes((len(value),)) + value
