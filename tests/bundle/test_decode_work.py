"""Small files that are expensive to decode: each is refused before the work, or costs little time of its thread."""

import struct
import time
import zlib
from collections.abc import Callable

import numpy as np
import pytest
from PIL import Image

from bundle import ImageError, ImageInput, ImageTooLarge, UndecodableImage, decode_image
from tests.bundle.support.encoded import GREY, chunk, encode, photo, png
from tests.bundle.support.expensive import (
    bmp_run_length,
    gif_of_blocks,
    jpeg_of_scans,
    jpeg_of_segments,
    png_of_chunks,
    tiff_of_strips,
)

SPEC = ImageInput(height=8, width=8, channels=3, mean=(0.5,) * 3, std=(0.5,) * 3)
# Thread time, not wall-clock time: it does not grow with the load of the machine.
BOUND_SECONDS = 2.0


def thread_seconds(data: bytes, expected: type[ImageError] | None, max_pixels: int = 50_000_000) -> str:
    """Decode `data`, within the bound; the error's message."""
    started = time.thread_time()
    detail = ""
    if expected is None:
        assert decode_image(data, SPEC, max_pixels=max_pixels).shape == (8, 8, 3)
    else:
        with pytest.raises(expected) as caught:
            decode_image(data, SPEC, max_pixels=max_pixels)
        assert type(caught.value) is expected, caught.value
        detail = caught.value.detail
    assert time.thread_time() - started < BOUND_SECONDS
    return detail


@pytest.mark.parametrize("bits", [4, 8])
def test_a_run_length_encoded_bmp_is_refused_before_it_is_decoded(bits: int) -> None:
    data = bmp_run_length(50_000_000, 1, bits)
    assert len(data) < 150
    assert "run-length encoded BMP" in thread_seconds(data, UndecodableImage)


@pytest.mark.parametrize("arithmetic", [False, True])
def test_a_jpeg_of_many_scans_is_refused_before_it_is_decoded(arithmetic: bool) -> None:
    data = jpeg_of_scans(7000, 7000, 500, arithmetic=arithmetic)
    assert len(data) < 200_000
    assert "passes over" in thread_seconds(data, ImageTooLarge)


def test_a_jpeg_of_few_scans_for_its_size_is_decoded() -> None:
    thread_seconds(jpeg_of_scans(640, 480, 60), None)
    thread_seconds(encode(photo(600, 800), "JPEG", progressive=True), None, max_pixels=480_000)


def test_scans_count_whatever_stands_between_them() -> None:
    data = jpeg_of_scans(7000, 7000, 60, between=b"\xff\xfe\0\4\xff\xd9" + b"\xff" * 9 + b"\xff\xdd\0\4\0\1")
    assert "passes over" in thread_seconds(data, ImageTooLarge)


MANY: dict[str, tuple[Callable[[], bytes], type[ImageError] | None]] = {
    "jpeg comments": (lambda: jpeg_of_segments(b"\xff\xfe\0\2", 2_000_000), ImageTooLarge),
    "jpeg huffman tables": (lambda: jpeg_of_segments(b"\xff\xc4\0\x13\0" + bytes(16), 400_000), ImageTooLarge),
    "jpeg fill bytes": (lambda: jpeg_of_segments(b"\xff", 8_000_000), None),
    "jpeg restart markers": (lambda: jpeg_of_segments(b"\xff\xd0", 2_000_000), ImageTooLarge),
    "png chunks": (lambda: png_of_chunks(chunk(b"teSt", b""), 600_000), ImageTooLarge),
    "png empty pixel chunks": (lambda: png_of_chunks(chunk(b"IDAT", b""), 600_000), ImageTooLarge),
    "png inflated text": (lambda: png_of_chunks(chunk(b"zTXt", b"k\0\0" + zlib.compress(bytes(9_000_000))), 400), None),
    "png inflated XMP": (
        lambda: png_of_chunks(
            chunk(b"iTXt", b"XML:com.adobe.xmp\0\1\0\0\0" + zlib.compress(b"tiff:" * 2_000_000)), 100
        ),
        None,
    ),
    "gif comments": (lambda: gif_of_blocks(b"\1x", 4_000_000), ImageTooLarge),
    "tiff tiny strips": (lambda: tiff_of_strips(strips=200_000, shared=False), ImageTooLarge),
    "tiff overlapping strips": (lambda: tiff_of_strips(strips=3000, shared=True), ImageTooLarge),
}


@pytest.mark.parametrize("name", list(MANY))
def test_a_file_of_many_parts_costs_little(name: str) -> None:
    make, expected = MANY[name]
    thread_seconds(make(), expected)


@pytest.mark.parametrize(("width", "height"), [(1, 5_000_000), (5_000_000, 1), (2, 2_500_000)])
def test_an_image_of_extreme_shape_costs_little(width: int, height: int) -> None:
    data = png(width, height, 8, GREY, [bytes((width + 1) * height - 1)])
    thread_seconds(data, None)


def test_an_interlaced_png_is_decoded() -> None:
    image = np.arange(64, dtype=np.uint8).reshape(8, 8)
    passes = [(0, 0, 8, 8), (0, 4, 8, 8), (4, 0, 8, 4), (0, 2, 4, 4), (2, 0, 4, 2), (0, 1, 2, 2), (1, 0, 2, 1)]
    rows = b"".join(b"\0" + row.tobytes() for top, left, down, right in passes for row in image[top::down, left::right])
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", 8, 8, 8, 0, 0, 0, 1))
    data = b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    assert (decode_image(data, SPEC)[..., 0] == image).all()


def test_an_avif_whose_data_are_larger_than_its_header_is_refused() -> None:
    large, small = (encode(Image.new("RGB", (side, side)), "AVIF", speed=10) for side in (1024, 64))
    box = b"ispe\0\0\0\0"
    at = large.index(box) + 8
    lying = large[:at] + struct.pack(">II", 64, 64) + large[at + 8 :]
    thread_seconds(lying, ImageTooLarge, max_pixels=100_000)
    thread_seconds(small, None, max_pixels=100_000)


def test_an_avif_of_hidden_frames_is_refused() -> None:
    data = encode(Image.new("RGB", (256, 256)), "AVIF", speed=10)
    # Frame headers of one byte each behind the image's own data: the location's length covers them.
    frames = b"\x1a\x01\x10" * 60
    iloc = data.index(b"iloc")
    size = data[iloc + 4 + 4 : iloc + 4 + 6]
    assert size[0] == 0x44
    at = data.index(b"iloc") + 4 + 4 + 2 + 2 + 2 + 2 + 2
    offset, length = struct.unpack_from(">II", data, at)
    assert offset + length == len(data)
    grown = data[: at + 4] + struct.pack(">I", length + len(frames)) + data[at + 8 :] + frames
    mdat = grown.index(b"mdat") - 4
    grown = grown[:mdat] + struct.pack(">I", len(grown) - mdat) + grown[mdat + 4 :]
    assert "as much memory" in thread_seconds(grown, ImageTooLarge, max_pixels=1_000_000)


def test_a_webp_whose_frame_is_larger_than_its_canvas_is_refused() -> None:
    data = encode(photo(400, 600), "WEBP", exif=b"Exif\0\0II*\0\x08\0\0\0\0\0\0\0")
    lying = data[:24] + bytes([7, 0, 0, 7, 0, 0]) + data[30:]
    thread_seconds(lying, UndecodableImage)


def test_a_gif_whose_frame_exceeds_its_canvas_counts_with_its_frame() -> None:
    data = encode(Image.new("P", (64, 64)), "GIF")
    at = data.index(b",\0\0\0\0")
    lying = data[: at + 5] + struct.pack("<HH", 60_000, 60_000) + data[at + 9 :]
    thread_seconds(lying, ImageTooLarge)


def test_a_tiff_whose_tiles_are_larger_than_its_pixels_counts_with_its_tiles() -> None:
    data = tiff_of_strips(strips=1, shared=False, tile=(60_000, 60_000))
    thread_seconds(data, ImageTooLarge)
