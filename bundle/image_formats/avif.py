"""Opens AVIF files (AV1 Image File Format). Of a sequence its primary image counts.

A file declares the size of its image in the container, and again in the AV1 data, where frames may follow that are
decoded but not shown. The decoder trusts the AV1 data, so both are read here.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from io import BytesIO

from PIL import AvifImagePlugin

from bundle.errors import ImageTooLarge, UndecodableImage
from bundle.image_formats.opened_image import DecodeLimits, OpenedImage, loaded
from bundle.orientation import Orientation

# One thread per image: the callers decode several images at once.
AvifImagePlugin.DEFAULT_MAX_THREADS = 1

_MAX_PARTS = 4096
_SEQUENCE_HEADER, _FRAME_HEADER, _FRAME = 1, 3, 6


def open_avif(data: bytes, limits: DecodeLimits) -> OpenedImage:
    """Open an AVIF file. See `bundle.image_formats.open_image`."""
    plain = bytearray(data)
    pixels = sum(_coded_pixels(content) for content in _coded_images(plain))
    if pixels > limits.max_pixels:
        raise ImageTooLarge(
            f"decoding the AVIF takes as much memory as an image of {pixels:,} pixels, more than the limit of "
            f"{limits.max_pixels:,}; send a smaller one"
        )
    image = AvifImagePlugin.AvifImageFile(BytesIO(plain))
    limits.check(image.width, image.height)
    orientation = Orientation()
    orientation.read_exif(image.info.get("exif", b""))
    orientation.read_xmp(image.info.get("xmp", b""))
    return OpenedImage(image.width, image.height, lambda _: loaded(image), orientation.value)


@dataclass(frozen=True, slots=True)
class _Box:
    kind: bytes
    start: int
    begin: int
    end: int


def _boxes(data: bytes | bytearray, begin: int, end: int) -> Iterator[_Box]:
    """The boxes of a file between two positions (ISO/IEC 14496-12, section 4.2)."""
    for _ in range(_MAX_PARTS):
        if begin + 8 > end:
            return
        length, content = int.from_bytes(data[begin : begin + 4], "big"), begin + 8
        if length == 1:
            length, content = int.from_bytes(data[content : content + 8], "big"), content + 8
        box_end = end if length == 0 else begin + length
        if box_end < content or box_end > end:
            raise ValueError("the boxes of the AVIF are broken")
        yield _Box(bytes(data[begin + 4 : begin + 8]), begin, content, box_end)
        begin = box_end
    raise ImageTooLarge(f"the AVIF has more than {_MAX_PARTS:,} boxes in a row; save it again without metadata")


def _coded_images(data: bytearray) -> Iterator[bytes]:
    """The AV1 data of all coded images of a file: colours, transparency, and the cells of a grid.

    Changes `data` so that a decoder reads neither EXIF data, whose orientation does not count in AVIF, nor the frames
    of a sequence.
    """
    meta: _Box | None = None
    for box in _boxes(data, 0, len(data)):
        if box.kind == b"ftyp":
            for brand in (box.begin, *range(box.begin + 8, box.end, 4)):
                if data[brand : brand + 4] == b"avis":
                    data[brand : brand + 4] = b"avif"
        elif box.kind == b"moov":
            data[box.start + 4 : box.start + 8] = b"free"
        elif box.kind == b"meta":
            meta = box
    if meta is None:
        raise UndecodableImage("the AVIF is without a still image; send one, or another format")
    parts = {box.kind: box for box in _boxes(data, meta.begin + 4, meta.end)}
    kinds = _item_kinds(data, parts[b"iinf"])
    idat = parts[b"idat"].begin if b"idat" in parts else 0
    for item, extents in _item_extents(data, parts[b"iloc"], idat):
        if kinds.get(item) == b"av01":
            yield b"".join(bytes(data[begin:end]) for begin, end in extents)


def _item_kinds(data: bytearray, box: _Box) -> Mapping[int, bytes]:
    """The types of the items by their numbers (section 8.11.6). Changes EXIF items to a type that is skipped."""
    kinds: dict[int, bytes] = {}
    count = 2 if data[box.begin] == 0 else 4
    for entry in _boxes(data, box.begin + 4 + count, box.end):
        number = 4 if data[entry.begin] >= 3 else 2
        item = int.from_bytes(data[entry.begin + 4 : entry.begin + 4 + number], "big")
        at = entry.begin + 4 + number + 2
        kinds[item] = bytes(data[at : at + 4])
        if kinds[item] == b"Exif":
            data[at : at + 4] = b"skip"
    return kinds


def _item_extents(data: bytearray, box: _Box, idat: int) -> Iterator[tuple[int, list[tuple[int, int]]]]:
    """The numbers of the items and where their bytes are in the file (section 8.11.3)."""
    position = box.begin + 4
    version = data[box.begin]

    def number(length: int) -> int:
        nonlocal position
        position += length
        if position > box.end:
            raise ValueError("the item locations of the AVIF are broken")
        return int.from_bytes(data[position - length : position], "big")

    sizes = number(2)
    offset_size, length_size, base_size = sizes >> 12, sizes >> 8 & 15, sizes >> 4 & 15
    index_size = sizes & 15 if version else 0
    total = 0
    for _ in range(number(4 if version >= 2 else 2)):
        item = number(4 if version >= 2 else 2)
        method = number(2) & 15 if version else 0
        number(2)
        base = number(base_size)
        extents = []
        for _ in range(number(2)):
            number(index_size)
            begin = base + number(offset_size) + (idat if method == 1 else 0)
            length = number(length_size) or len(data)
            extents.append((begin, begin + length))
            total += 1
            if total > _MAX_PARTS or method > 1:
                raise UndecodableImage("the AVIF's items are laid out unusually; save it again, or as a PNG")
        yield item, extents


def _coded_pixels(content: bytes) -> int:
    """The most pixels that decoding AV1 data may produce: of all frames, hidden ones too (AV1 specification, 5.3).

    Colours at full resolution or of 12 bits count half as much again.
    """
    position = frames = largest = 0
    for _ in range(_MAX_PARTS):
        if position >= len(content):
            break
        header = content[position]
        position += 2 if header & 4 else 1
        length = len(content) - position
        if header & 2:
            length, position = _leb128(content, position)
        kind = header >> 3 & 15
        if kind == _SEQUENCE_HEADER:
            largest = max(largest, _sequence_pixels(content[position : position + 64]))
        elif kind in (_FRAME_HEADER, _FRAME):
            frames += 1
        position += length
    else:
        raise ImageTooLarge("the AVIF's AV1 data have too many parts; save it again with the usual settings")
    if not frames or not largest:
        raise ValueError("the AV1 data of the AVIF are broken")
    return frames * largest


def _leb128(data: bytes, position: int) -> tuple[int, int]:
    value = 0
    for index in range(8):
        byte = data[position + index]
        value |= (byte & 0x7F) << 7 * index
        if byte < 0x80:
            return value, position + index + 1
    raise ValueError("the AV1 data of the AVIF are broken")


class _Bits:
    """Reads a byte string bit by bit."""

    def __init__(self, data: bytes) -> None:
        self._value, self._left = int.from_bytes(data, "big"), 8 * len(data)

    def take(self, count: int) -> int:
        """The next `count` bits as a number."""
        self._left -= count
        if self._left < 0:
            raise ValueError("the AV1 data of the AVIF are broken")
        return self._value >> self._left & (1 << count) - 1


def _sequence_pixels(header: bytes) -> int:
    """The largest frame that a sequence header allows (AV1 specification, section 5.5.1).

    A reduced header allows the size that it declares. Other frames may override it, up to what its bits can express.
    """
    bits = _Bits(header)
    is_main_profile = bits.take(3) == 0
    bits.take(1)
    is_reduced = bool(bits.take(1))
    if is_reduced:
        bits.take(5)
    else:
        _skip_operating_points(bits)
    width_bits, height_bits = bits.take(4) + 1, bits.take(4) + 1
    width, height = 1 << width_bits, 1 << height_bits
    if is_reduced:
        width, height = bits.take(width_bits) + 1, bits.take(height_bits) + 1
    return width * height if is_main_profile else width * height * 3 // 2


def _skip_operating_points(bits: _Bits) -> None:
    delay_length = 0
    if bits.take(1):  # timing_info_present_flag
        bits.take(64)
        if bits.take(1):  # equal_picture_interval
            zeros = 0
            while not bits.take(1):
                zeros += 1
            bits.take(zeros)
        if bits.take(1):  # decoder_model_info_present_flag
            delay_length = bits.take(5) + 1
            bits.take(32 + 5 + 5)
    has_display_delay = bits.take(1)
    for _ in range(bits.take(5) + 1):
        bits.take(12)
        if bits.take(5) > 7:
            bits.take(1)  # seq_tier
        if delay_length and bits.take(1):
            bits.take(2 * delay_length + 1)
        if has_display_delay and bits.take(1):
            bits.take(4)
