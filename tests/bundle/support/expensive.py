"""Small, mostly valid images that are expensive to decode."""

import struct

from PIL import Image

from tests.bundle.support.encoded import encode, photo


def bmp_run_length(width: int, height: int, bits: int = 8) -> bytes:
    """A run-length encoded BMP of two colours whose rows end at once."""
    data = b"\1\5\0\0\0\1"
    header = struct.pack("<IiiHHIIiiII", 40, width, height, 1, bits, 1 if bits == 8 else 2, len(data), 0, 0, 2, 0)
    palette = b"\0\0\0\0\xff\0\xff\0"
    start = 14 + len(header) + len(palette)
    return b"BM" + struct.pack("<IHHI", start + len(data), 0, 0, start) + header + palette + data


def jpeg_of_scans(width: int, height: int, scans: int, *, arithmetic: bool = False, between: bytes = b"") -> bytes:
    """A progressive grey JPEG whose scans are empty but for runs of blocks without coefficients.

    Args:
        width: The width.
        height: The height.
        scans: The number of scans.
        arithmetic: Declare arithmetic coding instead of Huffman coding.
        between: Segments before each scan.
    """

    def segment(marker: int, content: bytes) -> bytes:
        return struct.pack(">BBH", 0xFF, marker, len(content) + 2) + content

    blocks = -(-width // 8) * -(-height // 8)
    runs, left = [], blocks
    while left:
        length = min(left, 16_384)
        bits = length.bit_length() - 1
        runs.append((bits, length - (1 << bits)))
        left -= length
    # One code of four bits for each length of a run, EOB0 to EOB14.
    codes = "".join(f"{bits:04b}" + (f"{rest:0{bits}b}" if bits else "") for bits, rest in runs)
    codes += "1" * (-len(codes) % 8)
    data = int(codes, 2).to_bytes(len(codes) // 8, "big").replace(b"\xff", b"\xff\0")
    ac_table = b"\x10" + bytes([0, 0, 0, 15, *[0] * 12]) + bytes(bits << 4 for bits in range(15))
    dc_table = b"\0" + bytes([1, *[0] * 15]) + b"\0"
    dc_bits = b"\0" * (-(-blocks // 8))
    parts = [
        b"\xff\xd8",
        segment(0xDB, b"\0" + b"\1" * 64),
        segment(0xCA if arithmetic else 0xC2, struct.pack(">BHHB", 8, height, width, 1) + b"\1\x11\0"),
        b"" if arithmetic else segment(0xC4, dc_table + ac_table),
        segment(0xDA, b"\1\1\0\0\0\0") + (b"\0" * 8 if arithmetic else dc_bits),
    ]
    for index in range(scans - 1):
        first = 1 + index % 63
        scan = segment(0xDA, bytes([1, 1, 0, first, first, 0]))
        parts += [between, scan, b"\0" * 8 if arithmetic else data]
    return b"".join((*parts, b"\xff\xd9"))


def jpeg_of_segments(segment: bytes, count: int) -> bytes:
    """A JPEG with `segment` repeated in its header."""
    data = encode(photo(), "JPEG")
    return data[:2] + segment * count + data[2:]


def png_of_chunks(part: bytes, count: int) -> bytes:
    """A PNG with `part`, a chunk, repeated after its header."""
    data = encode(photo())
    return data[:33] + part * count + data[33:]


def gif_of_blocks(block: bytes, count: int) -> bytes:
    """A GIF with a comment of `count` blocks."""
    data = encode(Image.new("P", (16, 16)), "GIF")
    at = data.index(b",\0\0\0\0")
    return data[:at] + b"!\xfe" + block * count + b"\0" + data[at:]


def tiff_of_strips(*, strips: int, shared: bool, tile: tuple[int, int] | None = None) -> bytes:
    """A deflated grey TIFF of one row per strip, whose strips may share their bytes, or of tiles."""
    row = encode(Image.new("L", (1000, 1)), "TIFF", compression="tiff_adobe_deflate")
    start = 8
    packed = row[start : start + 200]
    lengths_at = start + len(packed)
    offsets_at = lengths_at + 4 * strips
    lengths = struct.pack("<I", len(packed) if shared else 1) * strips
    offsets = struct.pack("<I", start) * strips
    if shared:
        # More bytes than the file has.
        lengths = struct.pack("<I", len(packed)) * strips
    layout = (
        [(322, 4, 1, tile[0]), (323, 4, 1, tile[1]), (324, 4, 1, start), (325, 4, 1, len(packed))]
        if tile
        else [(273, 4, strips, offsets_at), (278, 4, 1, 1), (279, 4, strips, lengths_at)]
    )
    entries = sorted(
        [
            (256, 4, 1, 1000),
            (257, 4, 1, strips),
            (258, 3, 1, 8),
            (259, 3, 1, 8),
            (262, 3, 1, 1),
            (277, 3, 1, 1),
            *layout,
        ]
    )
    directory = struct.pack("<H", len(entries)) + b"".join(struct.pack("<HHII", *entry) for entry in entries) + bytes(4)
    body = packed + lengths + offsets
    return b"II*\0" + struct.pack("<I", 8 + len(body)) + body + directory
