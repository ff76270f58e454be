"""Opens JPEG files (ITU-T T.81). Of a file with several pictures, which phones write, the first one counts."""

import re
import struct
from collections.abc import Iterator
from io import BytesIO

from PIL import Image
from PIL.JpegImagePlugin import JpegImageFile

from bundle.errors import ImageTooLarge
from bundle.image_formats.opened_image import DecodeLimits, OpenedImage, loaded
from bundle.orientation import Orientation

_MAX_SEGMENTS = 4096
_END, _SCAN = 0xD9, 0xDA
_FRAMES = frozenset({0xC0, 0xC1, 0xC2, 0xC3, 0xC5, 0xC6, 0xC7, 0xC9, 0xCA, 0xCB, 0xCD, 0xCE, 0xCF})
# Huffman, arithmetic coding and quantisation tables, the restart interval, and the end of the image.
_TABLES = frozenset({0xC4, 0xCC, 0xDB, 0xDD, _END})
_STANDALONE = frozenset({0x01, *range(0xD0, 0xD8)})
_EXIF, _XMP = b"Exif\0\0", b"http://ns.adobe.com/xap/1.0/\0"

_MARKER = re.compile(rb"\xff+([^\xff])", re.DOTALL)
# In entropy-coded data 0xFF is followed by 0, and restart markers belong to the data.
_MARKER_AFTER_SCAN = re.compile(rb"\xff+([^\xff\x00\xd0-\xd7])", re.DOTALL)


def open_jpeg(data: bytes, limits: DecodeLimits) -> OpenedImage:
    """Open a JPEG file. See `bundle.image_formats.open_image`.

    A decoder passes over all blocks once per scan, and a scan needs 30 bytes only: the scans are counted first.
    """
    view = memoryview(data)
    orientation = Orientation()
    kept: list[bytes | memoryview] = [b"\xff\xd8"]
    width = height = scans = 0
    for marker, begin, end in _segments(data):
        if marker == 0xE1:
            _read_metadata(data[begin + 2 : end], orientation)
            continue
        if marker in _FRAMES:
            height, width = struct.unpack_from(">HH", data, begin + 3)
            limits.check(width, height)
        elif marker == _SCAN:
            scans += 1
            # Blocks are decoded in units of up to 32 x 32 pixels.
            limits.check_work((width + 31) // 32 * ((height + 31) // 32) * 1024, scans)
        elif marker not in _TABLES and not _is_colour_segment(marker, data[begin + 2 : begin + 7]):
            continue
        kept.append(view[begin - 2 : end])
    if not scans:
        raise ValueError("the JPEG has no scan")
    image = JpegImageFile(BytesIO(b"".join(kept)))
    limits.check(image.width, image.height)

    def decode(min_side: int) -> Image.Image:
        # Both sides are large enough, whether the image is turned or not.
        image.draft(None, (min_side, min_side))
        return loaded(image)

    return OpenedImage(width, height, decode, orientation.value)


def _segments(data: bytes) -> Iterator[tuple[int, int, int]]:
    """The marker segments up to the end of the first picture: marker, begin of its length, and end.

    A scan ends where the next segment begins, and may be cut off.
    """
    position, is_after_scan = 2, False
    for _ in range(_MAX_SEGMENTS):
        match = _MARKER.match(data, position)
        begin = position if match is None else match.end()
        end = begin + int.from_bytes(data[begin : begin + 2], "big")
        marker = _END if match is None else match[1][0]
        if marker in _STANDALONE:
            position = begin
            continue
        if marker == _END or end < begin + 2 or end > len(data):
            if not is_after_scan:
                raise ValueError("the JPEG ends in its headers, or they are broken")
            if match is not None and marker == _END:
                yield marker, begin, begin
            return
        if marker == _SCAN:
            is_after_scan = True
            following = _MARKER_AFTER_SCAN.search(data, end)
            end = len(data) if following is None else following.start()
        yield marker, begin, end
        position = end
    raise ImageTooLarge(f"the JPEG has more than {_MAX_SEGMENTS:,} segments; save it again with the usual settings")


def _read_metadata(content: bytes, orientation: Orientation) -> None:
    if content.startswith(_EXIF):
        orientation.read_exif(content)
    elif content.startswith(_XMP):
        orientation.read_xmp(content)


def _is_colour_segment(marker: int, start: bytes) -> bool:
    """Whether a segment tells how colours are stored: JFIF's or Adobe's."""
    return (marker == 0xE0 and start == b"JFIF\0") or (marker == 0xEE and start == b"Adobe")
