"""Image files for requests."""

import base64
import struct
import zlib
from io import BytesIO

from PIL import Image


def picture(colour: str = "red", size: tuple[int, int] = (8, 8), file_format: str = "PNG") -> bytes:
    """An image file of one colour."""
    file = BytesIO()
    Image.new("RGB", size, colour).save(file, file_format)
    return file.getvalue()


def encoded(data: bytes) -> str:
    """The Base64 text of a file, for JSON."""
    return base64.b64encode(data).decode()


def animation() -> bytes:
    """An animated PNG of two frames."""
    file = BytesIO()
    frames = [Image.new("RGB", (8, 8), colour) for colour in ("red", "blue")]
    frames[0].save(file, "PNG", save_all=True, append_images=frames[1:])
    return file.getvalue()


def declared_size(width: int, height: int) -> bytes:
    """A PNG whose header declares `width` x `height`, with almost no image data."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0")) + chunk(b"IEND", b"")
