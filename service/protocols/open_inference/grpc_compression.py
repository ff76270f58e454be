"""Compressed gRPC messages: recognises them, since gRPC hands them over as they were sent.

gRPC itself would decompress a message before its size is known, and 64 MiB of gzip can hold 64 GiB. With
`CHANNEL_OPTIONS` it does not, and the service decompresses a message as it does the body of an HTTP request.
"""

import grpc

CHANNEL_OPTIONS = {
    # Identity, deflate and gzip: a bit for each.
    "grpc.compression_enabled_algorithms_bitset": 0b111,
    "grpc.per_message_decompression": 0,
}
"""The options of the server."""

ALGORITHMS = {"gzip": grpc.Compression.Gzip, "deflate": grpc.Compression.Deflate}
"""The algorithm of each coding, for the response."""


def codings_of(message: bytes) -> tuple[str, ...]:
    """The coding of a compressed message, `gzip` or `deflate`; empty for a plain one.

    A message of the protocols here does not begin like compressed data: as the tag of a field, the first byte of gzip
    (0x1f) has an invalid type, and that of deflate with the header of zlib (0x78) is field 15, which no message has.
    """
    if message.startswith(b"\x1f\x8b"):
        return ("gzip",)
    if message[:1] == b"\x78" and int.from_bytes(message[:2]) % 31 == 0:
        return ("deflate",)
    return ()
