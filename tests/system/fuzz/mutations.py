"""Hostile inputs: damaged files, polyglots, decompression bombs, odd texts, broken JSON and forms.

Functions take a `random.Random`, so that the same seed gives the same bytes.
"""

import io
import json
import struct
import zipfile
import zlib
from collections.abc import Callable, Sequence
from random import Random

from PIL import Image

from tests.bundle.support.expensive import (
    bmp_run_length,
    gif_of_blocks,
    jpeg_of_scans,
    jpeg_of_segments,
    png_of_chunks,
    tiff_of_strips,
)

JSON_EDGES = (
    *("null", "true", "0", "-0.0", "-1", "1e999", "NaN", "-Infinity", "1" * 400, "0.1", '""', '"msp"', '"all"', "[]"),
    *(
        '{"msp": 0.1}',
        '["msp", "energy"]',
        '"\\ud800"',
        '"\\u0000"',
        '{"":{}}',
        "[[[[]]]]",
        '"0.05"',
        "1.5",
        '{"a":1,"a":2}',
    ),
)
"""JSON values that parsers treat differently, and some that are valid options."""

TEXTS = (
    *(
        "the ball and the goal",
        "",
        " ",
        "\0",
        "a\0b",
        "\ufeff",
        "\u202e\u200f\u2066",
        "e\u0301" * 40,
        "Z" + "\u0300" * 900,
    ),
    *(
        "\U0001f469\u200d\U0001f680" * 20,
        "\ufffd\uffff",
        "\r\n\r\n",
        "%00%n{}{{}}$(id)",
        "<script>",
        "\u1e9e\u0130\u0149" * 30,
        "vote" * 300,
    ),
)
"""Texts that are difficult for tokenizers, terminals and log lines."""


def real_files() -> dict[str, bytes]:
    """Small intact files of every accepted format, and of some others."""
    picture = Image.radial_gradient("L").resize((24, 17)).convert("RGB")
    exif = b"Exif\0\0II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0\x06\0\0\0\0\0\0\0"
    return {
        "png": _encode(picture, "PNG"),
        "palette png": _encode(picture.quantize(16), "PNG", transparency=3),
        "16-bit png": _encode(picture.convert("I;16"), "PNG"),
        "rgba png": _encode(picture.convert("RGBA"), "PNG", exif=exif),
        "animated png": _encode(picture, "PNG", save_all=True, append_images=[picture.convert("L").convert("RGB")]),
        "jpeg": _encode(picture, "JPEG", exif=exif),
        "progressive jpeg": _encode(picture, "JPEG", progressive=True),
        "cmyk jpeg": _encode(picture.convert("CMYK"), "JPEG"),
        "webp": _encode(picture, "WEBP"),
        "lossless webp": _encode(picture.convert("RGBA"), "WEBP", lossless=True, exif=exif),
        "bmp": _encode(picture, "BMP"),
        "palette bmp": _encode(picture.quantize(16), "BMP"),
        "gif": _encode(picture.quantize(16), "GIF"),
        "tiff": _encode(picture, "TIFF"),
        "lzw tiff": _encode(picture, "TIFF", compression="tiff_lzw"),
        "avif": _encode(picture, "AVIF"),
        "ppm": _encode(picture, "PPM"),
    }


def bombs() -> dict[str, bytes]:
    """Small files that declare a large size, or are large once they are inflated."""
    zeros = zlib.compress(bytes(20_000_000), 9)
    exif = b"II*\0\x08\0\0\0\xff\xff" + b"\x12\x01\x03\0\xff\xff\xff\xff\x06\0\0\0" * 50
    return {
        "png that declares 50,000 x 50,000": _png(50_000, 50_000, zeros),
        "png that declares 2^31 - 1 pixels a side": _png(2**31 - 1, 2**31 - 1, zeros),
        "png with 20 MB of pixels for 8 x 8": _png(8, 8, zeros),
        "png with a text chunk of 20 MB": _png(8, 8, zlib.compress(bytes(200)), (b"zTXt", b"comment\0\0" + zeros)),
        "png with an international text of 20 MB": _png(
            8, 8, zlib.compress(bytes(200)), (b"iTXt", b"comment\0\x01\0\0\0" + zeros)
        ),
        "png with a colour profile of 20 MB": _png(8, 8, zlib.compress(bytes(200)), (b"iCCP", b"icc\0\0" + zeros)),
        "png with EXIF of huge counts": _png(8, 8, zlib.compress(bytes(200)), (b"eXIf", exif)),
        "png of a million chunks": _png(8, 8, b"", *[(b"tEXt", b"k\0v")] * 8_000),
        "jpeg that declares 65,500 x 65,500": _jpeg(65_500, 65_500),
        "webp that declares 16,383 x 16,383": _webp(16_383, 16_383),
        "bmp that declares 2^31 pixels a side": b"BM"
        + struct.pack("<IHHI", 60, 0, 0, 54)
        + struct.pack("<IiiHHIIiiII", 40, 2**31 - 1, -(2**31), 1, 24, 0, 0, 0, 0, 0, 0),
        "bmp of run-lengths without pixels": bmp_run_length(1_000_000, 1),
        "jpeg of 500 scans": jpeg_of_scans(1000, 1000, 500),
        "jpeg of 300 scans for few pixels": jpeg_of_scans(300, 300, 300),
        "jpeg of 200,000 comments": jpeg_of_segments(b"\xff\xfe\0\2", 200_000),
        "png of 80,000 empty pixel chunks": png_of_chunks(b"\0\0\0\0IDAT5\xaf\x06\x1e", 80_000),
        "gif with a comment of 400,000 blocks": gif_of_blocks(b"\1x", 400_000),
        "tiff of overlapping strips": tiff_of_strips(strips=3000, shared=True),
        "bmp with an endless run-length encoding": b"BM"
        + struct.pack("<IHHI", 60, 0, 0, 54)
        + struct.pack("<IiiHHIIiiII", 40, 900, 900, 1, 8, 1, 0, 0, 0, 1, 0)
        + b"\0\2\xff\xff" * 2_000,
    }


def damaged(rng: Random, data: bytes) -> bytes:
    """`data` with flipped bits, replaced, removed or repeated bytes, or huge lengths."""
    content = bytearray(data)
    for _ in range(rng.choice((1, 1, 2, 4, 16))):
        if not content:
            break
        position = rng.randrange(len(content))
        match rng.randrange(7):
            case 0 | 1:
                content[position] ^= 1 << rng.randrange(8)
            case 2:
                content[position : position + 4] = rng.choice(
                    (b"\xff\xff\xff\xff", b"\0\0\0\0", b"\x7f\xff\xff\xff", b"\x80\0\0\0")
                )
            case 3:
                del content[position:]
            case 4:
                del content[position : position + rng.randrange(1, 64)]
            case 5:
                content[position:position] = content[position : position + rng.randrange(1, 256)]
            case _:
                content[position:position] = rng.randbytes(rng.randrange(1, 32))
    return bytes(content)


def spliced(rng: Random, first: bytes, second: bytes) -> bytes:
    """The beginning of one file with the end of another."""
    return first[: rng.randrange(len(first) + 1)] + second[rng.randrange(len(second) + 1) :]


def polyglot(rng: Random, picture: bytes) -> bytes:
    """A picture that is also an archive, a page, a script or a second picture."""
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as members:
        members.writestr("../../etc/passwd", bytes(10_000))
    other = rng.choice(
        (archive.getvalue(), b"<html><script>alert(1)</script>", b"%PDF-1.7\n", b"#!/bin/sh\nid\n", picture)
    )
    return rng.choice((picture + other, other + picture, b"GIF89a" + picture, b"\x89PNG\r\n\x1a\n" + other))


def image(rng: Random, files: Sequence[bytes]) -> bytes:
    """A file, intact or changed."""
    first = rng.choice(files)
    match rng.randrange(10):
        case 0:
            return first
        case 1:
            return spliced(rng, first, rng.choice(files))
        case 2:
            return polyglot(rng, first)
        case 3:
            return rng.randbytes(rng.randrange(200))
        case _:
            return damaged(rng, first)


def text(rng: Random) -> bytes:
    """A text in valid or invalid UTF-8."""
    content = "".join(rng.choice(TEXTS) for _ in range(rng.randrange(1, 4))).encode()
    match rng.randrange(4):
        case 0:
            return damaged(rng, content)
        case 1:
            return content + rng.choice((b"\xed\xa0\x80", b"\xff", b"\xc0\x80", b"\xf4\x90\x80\x80", b"\xe2\x82"))
        case _:
            return content


def json_value(rng: Random, depth: int = 3) -> str:
    """JSON text of any structure, with values that parsers treat differently."""
    match rng.randrange(4) if depth else 0:
        case 0 | 1:
            return rng.choice(
                (*JSON_EDGES, json.dumps(rng.choice(TEXTS)), json.dumps(rng.choice(TEXTS), ensure_ascii=False))
            )
        case 2:
            return "[" + ",".join(json_value(rng, depth - 1) for _ in range(rng.randrange(4))) + "]"
        case _:
            names = ("inputs", "text", "image", "id", "alpha", "scores", "\\u0000", "")
            members = (f'"{rng.choice(names)}":{json_value(rng, depth - 1)}' for _ in range(rng.randrange(4)))
            return "{" + ",".join(members) + "}"


def json_body(rng: Random, make_input: Callable[[], str]) -> bytes:
    """The JSON body of a scoring request: usually of the right structure, with odd values, sometimes damaged."""
    inputs = [make_input() if rng.random() < 0.7 else json_value(rng, 2) for _ in range(rng.choice((0, 1, 1, 1, 2, 5)))]
    members = [f'"inputs":[{",".join(inputs)}]' if rng.random() < 0.95 else f'"inputs":{json_value(rng)}']
    for name in ("alpha", "threshold", "scores", "timeout_ms", "explain", "bogus"):
        if rng.random() < 0.12:
            members.append(f'"{name}":{json_value(rng, 1)}')
    rng.shuffle(members)
    body = ("{" + ",".join(members) + "}").encode("utf-8", "surrogatepass")
    return damaged(rng, body) if rng.random() < 0.3 else body


def inference_body(rng: Random, tensor: str, make_element: Callable[[], str]) -> bytes:
    """The JSON body of an Open Inference Protocol request, usually of the right structure."""
    data = [make_element() if rng.random() < 0.7 else json_value(rng, 1) for _ in range(rng.choice((0, 1, 1, 3)))]
    shape = rng.choice((f"[{len(data)}]", f"[{len(data)},1]", "[1,8,8,3]", "[-1]", "[99999999999]", json_value(rng, 1)))
    datatype = rng.choice(("BYTES", "BYTES", "BYTES", "UINT8", "FP32", "\\u0000"))
    members = [f'"name":"{tensor}"', f'"datatype":"{datatype}"', f'"shape":{shape}', f'"data":[{",".join(data)}]']
    if rng.random() < 0.2:
        members[rng.randrange(4)] = f'"parameters":{json_value(rng)}'
    more = f',"parameters":{json_value(rng)}' if rng.random() < 0.2 else ""
    more += f',"outputs":[{{"name":{json_value(rng, 0)}}}]' if rng.random() < 0.2 else ""
    body = f'{{"inputs":[{{{",".join(members)}}}]{more}}}'.encode("utf-8", "surrogatepass")
    return damaged(rng, body) if rng.random() < 0.2 else body


def binary_inference_body(rng: Random, tensor: str, elements: Sequence[bytes]) -> tuple[bytes, bytes]:
    """The JSON part of a binary request, and the whole body, with correct and wrong lengths."""
    odd = (0, 1, 2**31 - 1, 2**32 - 1)
    lengths = [len(element) if rng.random() < 0.9 else rng.choice(odd) for element in elements]
    data = b"".join(struct.pack("<I", length) + element for length, element in zip(lengths, elements, strict=True))
    size = len(data) if rng.random() < 0.9 else rng.choice((*odd, -1))
    spec = {"name": tensor, "datatype": "BYTES", "shape": [len(elements)], "parameters": {"binary_data_size": size}}
    head = json.dumps({"inputs": [spec], "parameters": {"binary_data_output": rng.random() < 0.5}}).encode()
    return head, head + (damaged(rng, data) if rng.random() < 0.3 else data)


def form(rng: Random, parts: Sequence[tuple[str, bytes]], boundary: bytes) -> bytes:
    """A multipart body, usually intact around its parts."""
    lines = []
    for name, content in parts:
        field = rng.choice((name, name, name, name, "other", "", '"', "\xff"))
        filename = rng.choice(
            ("", '; filename="a.png"', "; filename*=UTF-8''%ff%00", '; filename="../../x"', "; filename=")
        )
        header = f'Content-Disposition: form-data; name="{field}"{filename}\r\n'.encode("latin-1")
        extra = rng.choice(
            (
                b"",
                b"",
                b"Content-Type: image/png\r\n",
                b"X: " + b"y" * 3_000 + b"\r\n",
                b"Content-Transfer-Encoding: base64\r\n",
            )
        )
        lines.append(b"--" + boundary + b"\r\n" + header + extra + b"\r\n" + content + b"\r\n")
    body = b"".join(lines) + b"--" + boundary + rng.choice((b"--\r\n", b"--\r\n", b"--\r\n", b"--", b"\r\n", b""))
    return damaged(rng, body) if rng.random() < 0.25 else body


def _encode(picture: Image.Image, kind: str, **options: object) -> bytes:
    file = io.BytesIO()
    picture.save(file, kind, **options)
    return file.getvalue()


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def _png(width: int, height: int, pixels: bytes, *chunks: tuple[bytes, bytes]) -> bytes:
    header = _chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    extra = b"".join(_chunk(kind, data) for kind, data in chunks)
    return b"\x89PNG\r\n\x1a\n" + header + extra + _chunk(b"IDAT", pixels) + _chunk(b"IEND", b"")


def _jpeg(width: int, height: int) -> bytes:
    data = bytearray(_encode(Image.new("RGB", (8, 8)), "JPEG"))
    position = data.index(b"\xff\xc0") + 5
    data[position : position + 4] = struct.pack(">HH", height, width)
    return bytes(data)


def _webp(width: int, height: int) -> bytes:
    data = bytearray(_encode(Image.new("RGB", (8, 8)), "WEBP"))
    position = data.index(b"\x9d\x01\x2a") + 3
    data[position : position + 4] = struct.pack("<HH", width, height)
    return bytes(data)
