"""Opens PNG files (PNG specification, third edition). Of an animation the default image counts."""

import struct
import zlib
from collections.abc import Iterator
from io import BytesIO

from PIL.PngImagePlugin import PngImageFile

from bundle.errors import ImageTooLarge
from bundle.image_formats.opened_image import DecodeLimits, OpenedImage, loaded
from bundle.orientation import Orientation

_SIGNATURE_LENGTH = 8
_END = b"\0\0\0\0IEND\xaeB`\x82"
# Pillow's loop over chunks is Python. Real files have a few thousand chunks of 4 KiB and more.
_CHUNKS, _BYTES_PER_CHUNK = 1024, 512
# As much text as is searched for the orientation; profiles begin with it.
_MAX_TEXT_BYTES = 262_144
_HEADER_CHUNKS = frozenset({b"IHDR", b"PLTE", b"tRNS"})
_TEXT_CHUNKS = frozenset({b"tEXt", b"zTXt", b"iTXt"})


def open_png(data: bytes, limits: DecodeLimits) -> OpenedImage:
    """Open a PNG file. See `bundle.image_formats.open_image`."""
    if data[8:16] != b"\0\0\0\x0dIHDR":
        raise ValueError("the PNG does not begin with its header chunk IHDR")
    width, height = struct.unpack_from(">II", data, 16)
    limits.check(width, height)
    view = memoryview(data)
    orientation = Orientation()
    kept: list[bytes | memoryview] = [view[:_SIGNATURE_LENGTH]]
    pixel_data: list[memoryview] = []
    is_changed = False
    for kind, begin, end in _chunks(data):
        if kind == b"IDAT":
            _check_sum(view, begin, end)
            pixel_data.append(view[begin:end])
        elif kind in _HEADER_CHUNKS and not pixel_data:
            _check_sum(view, begin, end)
            kept.append(view[begin - 8 : end + 4])
        else:
            is_changed = True
            _read_metadata(kind, view[begin:end], orientation)
    if not pixel_data:
        raise ValueError("the PNG has no chunk IDAT, or ends before it")
    if is_changed or len(pixel_data) > 1:
        compressed = b"".join(pixel_data)
        # Pillow does not check the sum of pixel data.
        kept += [struct.pack(">I", len(compressed)), b"IDAT", compressed, b"\0\0\0\0", _END]
        data = b"".join(kept)
    image = PngImageFile(BytesIO(data))
    return OpenedImage(width, height, lambda _: loaded(image), orientation.value)


def _chunks(data: bytes) -> Iterator[tuple[bytes, int, int]]:
    """The chunks before the last one: type, begin and end of the content. Metadata at the end may be cut off."""
    begin = _SIGNATURE_LENGTH + 8
    for _ in range(_CHUNKS + len(data) // _BYTES_PER_CHUNK):
        if begin + 4 > len(data):
            return
        kind = data[begin - 4 : begin]
        end = begin + int.from_bytes(data[begin - 8 : begin - 4], "big")
        if kind == b"IEND":
            return
        if end + 4 > len(data):
            if kind == b"IDAT":
                raise ValueError("the PNG ends in its chunk IDAT")
            return
        yield kind, begin, end
        begin = end + 12
    raise ImageTooLarge("the PNG has too many chunks for its length; save it again with the usual settings")


def _check_sum(view: memoryview, begin: int, end: int) -> None:
    if zlib.crc32(view[begin - 4 : end]) != int.from_bytes(view[end : end + 4], "big"):
        raise ValueError(f"the checksum of the PNG's chunk {bytes(view[begin - 4 : begin])!r} is wrong")


def _read_metadata(kind: bytes, content: memoryview, orientation: Orientation) -> None:
    """Read the orientation in a chunk of EXIF data, or of text that holds EXIF or XMP data; ignore other chunks."""
    if kind == b"eXIf":
        orientation.read_exif(bytes(content))
    elif kind in _TEXT_CHUNKS:
        _read_text(kind, bytes(content[: _MAX_TEXT_BYTES + 1024]), orientation)


def _read_text(kind: bytes, content: bytes, orientation: Orientation) -> None:
    keyword, _, text = content.partition(b"\0")
    if keyword not in (b"Raw profile type exif", b"Raw profile type APP1", b"XML:com.adobe.xmp"):
        return
    compressed = kind == b"zTXt"
    if kind == b"iTXt":
        compressed = text[:1] == b"\1"
        text = text[2:].split(b"\0", 2)[-1]
    elif compressed:
        text = text[1:]
    if compressed:
        try:
            text = zlib.decompressobj().decompress(text, _MAX_TEXT_BYTES)
        except zlib.error:
            return
    if keyword == b"XML:com.adobe.xmp":
        orientation.read_xmp(text)
    else:
        orientation.read_raw_profile(text)
