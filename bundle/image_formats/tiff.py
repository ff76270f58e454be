"""Opens TIFF files (TIFF 6.0, BigTIFF). Of several pages the first one counts.

Pillow and libtiff get a copy whose only directory has the tags that determine the pixels. They would otherwise read
metadata, thumbnails and further pages.
"""

import struct
from collections.abc import Mapping
from dataclasses import dataclass
from io import BytesIO
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from bundle.errors import ImageTooLarge, UndecodableImage
from bundle.image_formats.opened_image import DecodeLimits, OpenedImage, loaded
from bundle.orientation import Orientation

_WIDTH, _HEIGHT, _BITS, _COMPRESSION, _PHOTOMETRIC = 256, 257, 258, 259, 262
_STRIP_OFFSETS, _SAMPLES, _ROWS_PER_STRIP, _STRIP_BYTES, _PLANAR = 273, 277, 278, 279, 284
_TILE_WIDTH, _TILE_HEIGHT, _TILE_OFFSETS, _TILE_BYTES = 322, 323, 324, 325
_ORIENTATION, _XMP = 274, 700
_PIXEL_TAGS = frozenset(
    {
        *(_WIDTH, _HEIGHT, _BITS, _COMPRESSION, _PHOTOMETRIC, _STRIP_OFFSETS, _SAMPLES, _ROWS_PER_STRIP, _STRIP_BYTES),
        *(_PLANAR, _TILE_WIDTH, _TILE_HEIGHT, _TILE_OFFSETS, _TILE_BYTES),
        # Fill order, options of fax codes, predictor, colour map, extra samples, sample format, JPEG tables, YCbCr.
        *(266, 292, 293, 317, 320, 338, 339, 347, 529, 530, 531, 532),
    }
)
_TYPES: Mapping[int, str] = MappingProxyType(
    {1: "B", 2: "c", 3: "H", 4: "I", 5: "Q", 6: "b", 7: "B", 8: "h", 9: "i", 10: "q", 11: "f", 12: "d", 16: "Q"}
)
_INTEGERS = frozenset({1, 3, 4, 16})
_JPEG = 7
_COMPRESSIONS: Mapping[int, str] = MappingProxyType(
    {1: "none", 2: "CCITT", 3: "CCITT", 4: "CCITT", 5: "LZW", _JPEG: "JPEG", 8: "Deflate", 32946: "Deflate"}
    | {32773: "PackBits"}
)
_MAX_TAGS = 4096
_MAX_SEGMENTS = 65_536
_MAX_SAMPLES = 6
_WHITE_IS_ZERO = 0


@dataclass(frozen=True, slots=True)
class _Layout:
    """The byte order of a file and the field sizes of TIFF or BigTIFF."""

    order: str
    is_big: bool

    @property
    def entry(self) -> struct.Struct:
        """Tag, type, count and value or offset."""
        return struct.Struct(f"{self.order}{'HHQ8s' if self.is_big else 'HHI4s'}")

    @property
    def word(self) -> str:
        return self.order + ("Q" if self.is_big else "I")

    @property
    def count(self) -> str:
        return self.order + ("Q" if self.is_big else "H")


@dataclass(frozen=True, slots=True)
class _Tag:
    entry: bytes
    kind: int
    count: int
    content: bytes


def open_tiff(data: bytes, limits: DecodeLimits) -> OpenedImage:
    """Open a TIFF file. See `bundle.image_formats.open_image`."""
    layout = _Layout("<" if data[:1] == b"I" else ">", data[2:4] in (b"+\0", b"\0+"))
    tags = _read_directory(data, layout)
    width, height = _number(tags, _WIDTH, layout), _number(tags, _HEIGHT, layout)
    limits.check(width, height)
    compression = _number(tags, _COMPRESSION, layout, 1)
    if compression not in _COMPRESSIONS:
        raise UndecodableImage(
            f"the bytes are a TIFF image of compression {compression}, which is not decoded; save it with LZW or "
            "Deflate, or as a PNG"
        )
    if _number(tags, _SAMPLES, layout, 1) > _MAX_SAMPLES:
        raise UndecodableImage(f"the TIFF has more than {_MAX_SAMPLES} samples per pixel; convert it to RGB or grey")
    _check_segments(data, tags, layout, (width, height), limits)
    orientation = Orientation()
    if _XMP in tags:
        orientation.read_xmp(tags[_XMP].content)
    turn = _number(tags, _ORIENTATION, layout, 0)

    from PIL.TiffImagePlugin import TiffImageFile  # noqa: PLC0415 - other formats do not need it, and it is slow to import

    image = TiffImageFile(BytesIO(_with_pixel_tags_only(data, tags, layout)))
    limits.check(image.width, image.height)
    bits = _numbers(tags, _BITS, layout) or (1,)
    is_inverted = _number(tags, _PHOTOMETRIC, layout, 0) == _WHITE_IS_ZERO

    def decode(_: int) -> Image.Image:
        return _eight_bits(loaded(image), bits[0], is_inverted=is_inverted)

    return OpenedImage(width, height, decode, turn if 1 <= turn <= 8 else orientation.value)


def _read_directory(data: bytes, layout: _Layout) -> dict[int, _Tag]:
    """The tags of the first directory that are needed, with their values."""
    (start,) = struct.unpack_from(layout.word, data, 8 if layout.is_big else 4)
    (entries,) = struct.unpack_from(layout.count, data, start)
    if entries > _MAX_TAGS:
        raise ImageTooLarge(f"the TIFF has {entries:,} tags, more than {_MAX_TAGS:,}; save it again without metadata")
    start += struct.calcsize(layout.count)
    inline = 8 if layout.is_big else 4
    tags: dict[int, _Tag] = {}
    for position in range(start, start + entries * layout.entry.size, layout.entry.size):
        tag, kind, count, value = layout.entry.unpack_from(data, position)
        if tag in tags or kind not in _TYPES or tag not in _PIXEL_TAGS | {_ORIENTATION, _XMP}:
            continue
        length = count * struct.calcsize(f"={_TYPES[kind]}")
        if length > inline:
            (offset,) = struct.unpack(layout.word, value)
            if offset + length > len(data):
                raise ValueError(f"the TIFF ends in its tag {tag}")
            value = data[offset : offset + length]
        tags[tag] = _Tag(data[position : position + layout.entry.size], kind, count, value[:length])
    return tags


def _numbers(tags: Mapping[int, _Tag], tag: int, layout: _Layout) -> tuple[int, ...]:
    """The integers of a tag, none if it is missing."""
    if tag not in tags:
        return ()
    found = tags[tag]
    if found.kind not in _INTEGERS:
        raise ValueError(f"the TIFF's tag {tag} is of the wrong type")
    return struct.unpack(f"{layout.order}{found.count}{_TYPES[found.kind]}", found.content)


def _number(tags: Mapping[int, _Tag], tag: int, layout: _Layout, default: int | None = None) -> int:
    numbers = _numbers(tags, tag, layout)
    if numbers:
        return numbers[0]
    if default is None:
        raise ValueError(f"the TIFF has no tag {tag}")
    return default


def _check_segments(
    data: bytes,
    tags: Mapping[int, _Tag],
    layout: _Layout,
    size: tuple[int, int],
    limits: DecodeLimits,
) -> None:
    """Refuse strips or tiles that take more work than the pixels: too many, too large, or overlapping in the file."""
    width, height = size
    compression = _number(tags, _COMPRESSION, layout, 1)
    if _TILE_OFFSETS in tags and _STRIP_OFFSETS not in tags:
        columns, rows = _number(tags, _TILE_WIDTH, layout), _number(tags, _TILE_HEIGHT, layout)
        offsets, lengths = _numbers(tags, _TILE_OFFSETS, layout), _numbers(tags, _TILE_BYTES, layout)
    else:
        columns, rows = width, min(height, _number(tags, _ROWS_PER_STRIP, layout, height))
        offsets, lengths = _numbers(tags, _STRIP_OFFSETS, layout), _numbers(tags, _STRIP_BYTES, layout)
    limits.check(columns, rows)
    planes = _number(tags, _SAMPLES, layout, 1) if _number(tags, _PLANAR, layout, 1) == 2 else 1
    expected = -(-width // columns) * -(-height // rows) * planes
    if max(expected, len(offsets), len(lengths)) > _MAX_SEGMENTS:
        raise ImageTooLarge(
            f"the TIFF has more than {_MAX_SEGMENTS:,} strips or tiles; save it with larger ones, or as a PNG"
        )
    if len(offsets) < expected:
        raise ValueError("strips or tiles of the TIFF are missing")
    if len(lengths) < expected or any(
        begin + length > len(data) for begin, length in zip(offsets, lengths, strict=False)
    ):
        raise ValueError("strips or tiles of the TIFF are beyond its end")
    passes = 1
    if compression != 1:
        if sum(lengths) > len(data):
            raise ImageTooLarge("the TIFF's strips or tiles overlap; save it again with the usual settings")
        if compression == _JPEG:
            segments = zip(offsets, lengths, strict=False)
            passes = max((data.count(b"\xff\xda", start, start + length) for start, length in segments), default=1)
    padded = -(-width // columns) * columns * -(-height // rows) * rows
    limits.check_work(padded, max(1, passes))


def _with_pixel_tags_only(data: bytes, tags: Mapping[int, _Tag], layout: _Layout) -> bytes:
    """The file with another directory at its end: the tags of the pixels, and no further directory."""
    padding = b"\0" * (-len(data) % 8)
    start = len(data) + len(padding)
    entries = [tags[tag].entry for tag in sorted(tags) if tag in _PIXEL_TAGS]
    directory = struct.pack(layout.count, len(entries)) + b"".join(entries) + struct.pack(layout.word, 0)
    head = 8 if layout.is_big else 4
    pointer = struct.pack(layout.word, start)
    return b"".join((data[:head], pointer, memoryview(data)[head + len(pointer) :], padding, directory))


def _eight_bits(image: Image.Image, bits: int, *, is_inverted: bool) -> Image.Image:
    """Grey of more than 8 bits as 8 bits: integers keep their upper 8 bits.

    Floats are 0 to 1 if all of them are in that range, otherwise 0 to 255.
    """
    if image.mode == "F":
        low, high = image.getextrema()
        factor = 255.0 if isinstance(low, float) and isinstance(high, float) and low >= 0 and high <= 1 else 1.0
        return _by_blocks(image, lambda block: np.clip(np.nan_to_num(block * factor), 0, 255))
    if image.mode.startswith("I;16"):
        shift = max(0, min(bits, 16) - 8)
        return _by_blocks(image, lambda block: (block >> shift) ^ (0xFF if is_inverted else 0))
    return image


def _by_blocks(image: Image.Image, convert: Any) -> Image.Image:
    """`image` as mode L, by applying `convert` to blocks of rows, so that no further full-size array is needed."""
    grey = Image.new("L", image.size)
    rows = max(1, (1 << 20) // image.width)
    for top in range(0, image.height, rows):
        box = (0, top, image.width, min(top + rows, image.height))
        block: NDArray[Any] = np.asarray(image.crop(box))
        grey.paste(Image.fromarray(convert(block).astype(np.uint8)), box)
    return grey
