"""Estimates the number of pixels of an encoded image from its first bytes, to plan the work of decoding it."""

import re
import struct

# The frame header of a JPEG: marker, length, precision, height, width.
_JPEG_FRAME = re.compile(rb"\xff[\xc0-\xc2\xc9\xca]\0.[\x08\x0c](....)", re.DOTALL)
HEAD_BYTES = 4096
"""As many bytes are looked at."""
# Photographs take one to two bits per pixel.
_PIXELS_PER_BYTE = 8


def estimate_pixels(head: bytes, length: int) -> int:
    """About the number of pixels of an image.

    The estimate is not checked: it may be wrong for hostile files. Decoding checks the true size.

    Args:
        head: The first `HEAD_BYTES` of the file, or all of it.
        length: The number of bytes of the file.
    """
    head = head[:HEAD_BYTES]
    if head.startswith(b"\x89PNG") and len(head) >= 24:
        width, height = struct.unpack_from(">II", head, 16)
    elif head.startswith(b"GIF8") and len(head) >= 10:
        width, height = struct.unpack_from("<HH", head, 6)
    elif head.startswith(b"BM") and len(head) >= 26:
        width, height = struct.unpack_from("<ii", head, 18)
    elif head.startswith(b"RIFF") and head[12:16] == b"VP8X" and len(head) >= 30:
        width, height = (int.from_bytes(head[at : at + 3], "little") + 1 for at in (24, 27))
    elif match := _JPEG_FRAME.search(head):
        height, width = struct.unpack(">HH", match[1])
    else:
        return _PIXELS_PER_BYTE * length
    return abs(int(width) * int(height))
