import contextlib
import tracemalloc
import warnings
import zlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from bundle import EmptyImage, ImageError, ImageInput, ImageTooLarge, UndecodableImage, decode_image
from tests.bundle.support.encoded import (
    RGB,
    bmp_of_size,
    chunk,
    encode,
    jpeg_of_size,
    photo,
    png,
    webp_of_size,
)

SPEC = ImageInput(height=8, width=8, channels=3, mean=(0.5,) * 3, std=(0.5,) * 3)
FILES = {
    "png": encode(photo()),
    "palette png": encode(photo().quantize(16), transparency=3),
    "16-bit png": encode(photo().convert("I;16")),
    "exif png": encode(photo(), exif=b"Exif\0\0II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0\x06\0\0\0\0\0\0\0"),
    "jpeg": encode(photo(), "JPEG", exif=b"Exif\0\0II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0\x06\0\0\0\0\0\0\0"),
    "progressive jpeg": encode(photo(), "JPEG", progressive=True),
    "cmyk jpeg": encode(photo().convert("CMYK"), "JPEG"),
    "webp": encode(photo(), "WEBP"),
    "lossless webp": encode(photo().convert("RGBA"), "WEBP", lossless=True),
    "animated webp": encode(photo(), "WEBP", save_all=True, append_images=[photo(seed=1)]),
    "bmp": encode(photo(), "BMP"),
    "palette bmp": encode(photo().quantize(16), "BMP"),
    "gif": encode(photo().quantize(16), "GIF"),
}
SIGNATURES = [b"", b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b"RIFF\x20\0\0\0WEBP", b"RIFF\x20\0\0\0WEBPVP8X", b"BM"]


def refuse(data: bytes, kind: type[ImageError], slug: str, *, max_pixels: int = 50_000_000) -> str:
    with pytest.raises(ImageError) as caught:
        decode_image(data, SPEC, max_pixels=max_pixels)
    assert type(caught.value) is kind, caught.value
    assert caught.value.type == slug
    assert caught.value.detail == str(caught.value)
    return caught.value.detail


@given(signature=st.sampled_from(SIGNATURES), data=st.binary(max_size=400))
@settings(max_examples=300)
def test_arbitrary_bytes_never_raise_anything_but_an_image_error(signature: bytes, data: bytes) -> None:
    with contextlib.suppress(ImageError):
        assert decode_image(signature + data, SPEC).shape == (8, 8, 3)


@given(name=st.sampled_from(list(FILES)), data=st.data())
@settings(max_examples=300)
def test_damaged_images_never_raise_anything_but_an_image_error(name: str, data: st.DataObject) -> None:
    damaged = bytearray(FILES[name])
    for _ in range(data.draw(st.integers(0, 4))):
        damaged[data.draw(st.integers(0, len(damaged) - 1))] = data.draw(st.integers(0, 255))
    keep = data.draw(st.integers(0, len(damaged)) | st.just(len(damaged)))
    with contextlib.suppress(ImageError):
        assert decode_image(bytes(damaged[:keep]), SPEC).shape == (8, 8, 3)


def test_no_bytes_are_an_empty_input() -> None:
    assert "0 bytes" in refuse(b"", EmptyImage, "empty-input")


@pytest.mark.parametrize("name", ["png", "jpeg", "webp", "lossless webp", "bmp"])
@pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
def test_a_truncated_image_is_refused(name: str, share: float) -> None:
    data = FILES[name][: int(len(FILES[name]) * share)]
    assert "truncated, corrupt" in refuse(data, UndecodableImage, "undecodable-image")


def test_a_wrong_checksum_is_refused() -> None:
    data = bytearray(FILES["png"])
    data[data.index(b"IDAT") + 10] ^= 1
    refuse(bytes(data), UndecodableImage, "undecodable-image")


@pytest.mark.parametrize(
    "data",
    [
        png(30_000, 30_000, 8, RGB),
        jpeg_of_size(30_000, 30_000),
        webp_of_size(16_383, 16_383),
        bmp_of_size(30_000, 30_000),
    ],
    ids=["png", "jpeg", "webp", "bmp"],
)
def test_a_decompression_bomb_is_refused_by_its_header(data: bytes) -> None:
    assert "send a smaller one" in refuse(data, ImageTooLarge, "image-too-large")


@pytest.mark.parametrize("height", [2**31 - 1, 2**32 - 1])
def test_the_largest_dimensions_that_a_header_can_have_are_refused(height: int) -> None:
    refuse(png(2**32 - 1, height, 8, RGB), ImageTooLarge, "image-too-large")


def test_the_limit_itself_is_allowed() -> None:
    assert decode_image(FILES["png"], SPEC, max_pixels=13 * 17).shape == (8, 8, 3)
    detail = refuse(FILES["png"], ImageTooLarge, "image-too-large", max_pixels=13 * 17 - 1)
    assert "17 x 13" in detail
    assert "220" in detail


def test_no_warning_leaks_from_a_large_image_or_corrupt_exif() -> None:
    corrupt_exif = encode(photo(), "JPEG", exif=b"Exif\0\0II*\0\xff\xff\xff\xff")
    with warnings.catch_warnings(record=True) as leaked:
        warnings.simplefilter("always")
        decode_image(corrupt_exif, SPEC)
        refuse(png(10_000, 10_000, 8, RGB), UndecodableImage, "undecodable-image", max_pixels=10**9)
        refuse(webp_of_size(16_383, 16_383), ImageTooLarge, "image-too-large", max_pixels=10**8)
    assert [str(warning.message) for warning in leaked] == []


@pytest.mark.parametrize(
    "data",
    [
        png(0, 0, 8, RGB),
        png(0, 5, 8, RGB),
        png(5, 0, 8, RGB),
        jpeg_of_size(0, 0),
        jpeg_of_size(5, 0),
        bmp_of_size(0, 0),
    ],
)
def test_an_image_without_pixels_is_refused(data: bytes) -> None:
    assert "without pixels" in refuse(data, UndecodableImage, "undecodable-image")


def test_a_large_animation_is_too_large_first() -> None:
    data = encode(photo(), "PNG", save_all=True, append_images=[photo(seed=1)])
    refuse(data, ImageTooLarge, "image-too-large", max_pixels=10)


@pytest.mark.parametrize("kind", [b"iCCP", b"zTXt", b"iTXt"])
def test_a_bomb_in_a_metadata_chunk_is_not_inflated(kind: bytes) -> None:
    bomb = zlib.compress(b"\0" * 50_000_000)
    content = {
        b"iCCP": b"profile\0\0" + bomb,
        b"zTXt": b"comment\0\0" + bomb,
        b"iTXt": b"comment\0\1\0\0\0" + bomb,
    }[kind]
    data = png(2, 1, 8, RGB, [bytes(6)], [chunk(kind, content)])
    tracemalloc.start()
    with contextlib.suppress(ImageError):
        decode_image(data, SPEC)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 10_000_000


def test_errors_can_be_caught_as_value_errors() -> None:
    with pytest.raises(ValueError, match="0 bytes"):
        decode_image(b"", SPEC)


def test_a_palette_index_beyond_the_palette_raises_nothing_but_an_image_error() -> None:
    image = Image.new("P", (4, 4), 200)
    image.putpalette([1, 2, 3])
    with contextlib.suppress(ImageError):
        decode_image(encode(image), SPEC)
