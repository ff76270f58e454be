"""Encoded images for tests: by Pillow where it can write them, chunk by chunk where it cannot or should not."""

import io
import struct
import zlib
from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray
from PIL import Image

GREY, RGB, PALETTE, GREY_ALPHA, RGB_ALPHA = 0, 2, 3, 4, 6
"""PNG colour types."""


def encode(image: Image.Image, image_format: str = "PNG", **options: object) -> bytes:
    """`image` as a file of `image_format`, with Pillow's `options`."""
    file = io.BytesIO()
    image.save(file, image_format, **options)
    return file.getvalue()


def photo(height: int = 13, width: int = 17, seed: int = 0) -> Image.Image:
    """An RGB image without symmetries: smooth colours that compress like a photograph."""
    y, x = np.mgrid[0:height, 0:width]
    noise = np.random.default_rng(seed).integers(0, 20, (height, width))
    rgb = np.stack([x * 230 // width, y * 230 // height, (x + 2 * y) * 230 // (width + 2 * height)], axis=-1)
    return Image.fromarray((rgb + noise[..., None]).astype(np.uint8))


def pixels(image: Image.Image) -> NDArray[np.uint8]:
    """`[H, W, 3]` of `image` by Pillow's own conversion."""
    return np.asarray(image.convert("RGB"))


def png(
    width: int, height: int, bits: int, colour: int, rows: Iterable[bytes] = (), extra: Iterable[bytes] = ()
) -> bytes:
    """A PNG of any header, valid or not: `rows` are packed samples, `extra` are chunks before the data."""
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, bits, colour, 0, 0, 0))
    data = chunk(b"IDAT", zlib.compress(b"".join(b"\0" + row for row in rows)))
    return b"".join([b"\x89PNG\r\n\x1a\n", header, *extra, data, chunk(b"IEND", b"")])


def chunk(kind: bytes, data: bytes) -> bytes:
    """A PNG chunk with its length and checksum."""
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def jpeg_of_size(width: int, height: int) -> bytes:
    """A JPEG whose header declares `width` x `height`, whatever its data are."""
    data = encode(photo(), "JPEG")
    start = data.index(b"\xff\xc0") + 5
    return data[:start] + struct.pack(">HH", height, width) + data[start + 4 :]


def webp_of_size(width: int, height: int) -> bytes:
    """An extended WebP whose canvas is declared as `width` x `height`."""
    canvas = struct.pack("<I", width - 1)[:3] + struct.pack("<I", height - 1)[:3]
    extended = b"VP8X" + struct.pack("<II", 10, 0) + canvas
    picture = encode(photo(), "WEBP")[12:]
    body = b"WEBP" + extended + picture
    return b"RIFF" + struct.pack("<I", len(body)) + body


def bmp_of_size(width: int, height: int) -> bytes:
    """A BMP whose header declares `width` x `height`."""
    data = encode(photo(), "BMP")
    return data[:18] + struct.pack("<ii", width, height) + data[26:]
