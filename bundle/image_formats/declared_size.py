"""Estimates the number of pixels of an encoded image from its first bytes, to plan the work of decoding it."""

import struct

HEAD_BYTES = 4096
"""The number of first bytes of a file that contain its size in most formats."""
# Photographs take one to two bits per pixel.
_PIXELS_PER_BYTE = 8
# The markers of a JPEG's frame headers: all from 0xC0 to 0xCF except those of tables.
_JPEG_FRAMES = {*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC}
# Most photographs have fewer segments before the frame header. The limit bounds the time for a hostile file.
_MAX_JPEG_SEGMENTS = 64


def estimate_pixels(head: bytes, length: int) -> int:
    """About the number of pixels of an image.

    The estimate is not checked: it may be wrong for hostile files. Decoding checks the true size.

    Args:
        head: The first bytes of the file, at least `HEAD_BYTES` if it has so many.
        length: The number of bytes of the file.
    """
    if head.startswith(b"\x89PNG") and len(head) >= 24:
        width, height = struct.unpack_from(">II", head, 16)
    elif head.startswith(b"GIF8") and len(head) >= 10:
        width, height = struct.unpack_from("<HH", head, 6)
    elif head.startswith(b"BM") and len(head) >= 26:
        width, height = struct.unpack_from("<ii", head, 18)
    elif head.startswith(b"RIFF") and head[12:16] == b"VP8X" and len(head) >= 30:
        width, height = (int.from_bytes(head[at : at + 3], "little") + 1 for at in (24, 27))
    elif head.startswith(b"\xff\xd8") and (frame := _jpeg_frame(head)):
        height, width = struct.unpack_from(">HH", head, frame + 5)
    else:
        return _PIXELS_PER_BYTE * length
    return abs(int(width) * int(height))


def _jpeg_frame(head: bytes) -> int | None:
    """The position of a JPEG's frame header, None if `head` does not have it.

    Segments are skipped by their lengths: one of them may contain a thumbnail, which has a frame header of its own.
    """
    position = 2
    for _ in range(_MAX_JPEG_SEGMENTS):
        if position + 9 > len(head) or head[position] != 0xFF:
            return None
        if head[position + 1] in _JPEG_FRAMES:
            return position
        (size,) = struct.unpack_from(">H", head, position + 2)
        position += 2 + size
    return None
