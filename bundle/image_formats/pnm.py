"""Opens binary PBM, PGM and PPM files. Plain ones, whose samples are decimal text, are refused."""

import re
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from bundle.errors import UndecodableImage
from bundle.image_formats.opened_image import DecodeLimits, OpenedImage

_MAX_HEADER_BYTES = 4096
_SPACE = rb"(?:\s|#[^\r\n]*[\r\n])+"
_HEADER = re.compile(rb"P([1-6])%b(\d{1,10})%b(\d{1,10})(?:%b(\d{1,5}))?\s" % (_SPACE, _SPACE, _SPACE))
_BITMAP_HEADER = re.compile(rb"P4%b(\d{1,10})%b(\d{1,10})\s" % (_SPACE, _SPACE))
_SAMPLES_AT_ONCE = 1 << 20


def open_pnm(data: bytes, limits: DecodeLimits) -> OpenedImage:
    """Open a PBM, PGM or PPM file. See `bundle.image_formats.open_image`."""
    if data[1] in b"123":
        raise UndecodableImage("the bytes are a plain (text) PNM image, which is not decoded; save it as a binary one")
    pattern = _BITMAP_HEADER if data[1:2] == b"4" else _HEADER
    match = pattern.match(data[:_MAX_HEADER_BYTES])
    if match is None:
        raise ValueError("the PNM ends in its header, or the header is broken")
    if pattern is _BITMAP_HEADER:
        width, height = int(match[1]), int(match[2])
        limits.check(width, height)
        start = match.end()
        return OpenedImage(width, height, lambda _: Image.frombytes("1", (width, height), data[start:], "raw", "1;I"))
    width, height, maximum = int(match[2]), int(match[3]), int(match[4] or 0)
    limits.check(width, height)
    if not 0 < maximum < 65_536:
        raise ValueError(f"the PNM's largest sample is {maximum}, not 1 to 65535")
    channels = 3 if match[1] == b"6" else 1
    start = match.end()

    def decode(_: int) -> Image.Image:
        samples = np.frombuffer(data, ">u2" if maximum > 255 else "u1", width * height * channels, start)
        samples = samples.reshape((height, width, 3) if channels == 3 else (height, width))
        return Image.fromarray(samples if maximum == 255 else _eight_bits(samples, maximum))

    return OpenedImage(width, height, decode)


def _eight_bits(samples: NDArray[Any], maximum: int) -> NDArray[np.uint8]:
    """Samples of 0 to `maximum` as 0 to 255; those of 16 bits keep their upper 8 bits, as in all formats."""
    scaled = np.empty(samples.shape, np.uint8)
    rows = max(1, _SAMPLES_AT_ONCE // max(1, samples[0].size))
    for row in range(0, len(samples), rows):
        block = np.minimum(samples[row : row + rows], maximum).astype(np.uint32)
        scaled[row : row + rows] = block >> 8 if maximum == 65_535 else block * 255 // maximum
    return scaled
