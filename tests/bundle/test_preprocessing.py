import io
import struct

import numpy as np
import pytest
from numpy.testing import assert_array_equal
from numpy.typing import NDArray
from PIL import Image, ImageOps

from bundle import ImageInput, decode_image
from bundle.image_formats import DecodeLimits, open_image
from tests.bundle.support.encoded import GREY, GREY_ALPHA, RGB, RGB_ALPHA, chunk, encode, photo, pixels, png

ORIENTATION = 0x0112


def colour_input(height: int, width: int, resize: str = "bilinear") -> ImageInput:
    return ImageInput.model_validate(
        {"height": height, "width": width, "channels": 3, "resize": resize, "mean": (0.5,) * 3, "std": (0.5,) * 3}
    )


def decode(data: bytes, height: int = 13, width: int = 17) -> NDArray[np.uint8]:
    return decode_image(data, colour_input(height, width))


def decode_grey(data: bytes, height: int = 13, width: int = 17) -> NDArray[np.uint8]:
    return decode_image(data, ImageInput(height=height, width=width, channels=1, mean=(0.5,), std=(0.5,)))


def oriented(orientation: int) -> Image.Exif:
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    return exif


@pytest.mark.parametrize(
    ("image_format", "options"), [("PNG", {}), ("BMP", {}), ("WEBP", {"lossless": True, "exact": True})]
)
def test_a_lossless_image_of_the_right_size_comes_out_pixel_for_pixel(
    image_format: str, options: dict[str, bool]
) -> None:
    assert_array_equal(decode(encode(photo(), image_format, **options)), pixels(photo()))


@pytest.mark.parametrize("options", [{}, {"progressive": True}, {"quality": 30}, {"subsampling": 0}])
def test_a_jpeg_comes_out_as_pillow_decodes_it(options: dict[str, int]) -> None:
    data = encode(photo(), "JPEG", **options)
    difference = decode(data).astype(int) - pixels(photo())
    assert np.abs(difference).mean() < 20


def test_the_array_is_what_a_model_takes() -> None:
    array = decode(encode(photo()), 8, 9)
    assert array.shape == (8, 9, 3)
    assert array.dtype == np.uint8
    assert array.flags.c_contiguous


@pytest.mark.parametrize("resize", ["bilinear", "bicubic", "lanczos"])
@pytest.mark.parametrize("size", [(8, 8), (40, 3), (13, 18)])
def test_resizing_uses_the_filter_of_the_input(resize: str, size: tuple[int, int]) -> None:
    expected = photo().resize((size[1], size[0]), Image.Resampling[resize.upper()])
    assert_array_equal(decode_image(encode(photo()), colour_input(*size, resize=resize)), np.asarray(expected))


@pytest.mark.parametrize("size", [(8, 9), (32, 32)])
@pytest.mark.parametrize("scale", [2, 4, 8, 16])
def test_a_large_jpeg_may_be_decoded_smaller_but_comes_out_the_same(size: tuple[int, int], scale: int) -> None:
    height, width = size
    large = Image.open(io.BytesIO(encode(photo(scale * height * 3, scale * width * 3), "JPEG", quality=90)))
    large.load()
    scaled = decode_image(encode(large, "JPEG", quality=95), colour_input(height, width))
    unscaled = Image.open(io.BytesIO(encode(large, "JPEG", quality=95)))
    expected = np.asarray(unscaled.resize((width, height), Image.Resampling.BILINEAR))
    difference = np.abs(scaled.astype(int) - expected)
    assert difference.mean() < 1
    assert difference.max() <= 4


@pytest.mark.parametrize(("side", "decoded"), [(192, 24), (97, 25), (48, 24), (47, 47)])
def test_a_jpeg_is_decoded_at_the_smallest_scale_that_is_large_enough(side: int, decoded: int) -> None:
    image = open_image(encode(photo(side, side), "JPEG"), DecodeLimits(10**6)).decode(24)
    assert image.size == (decoded, decoded)


def test_shrinking_averages_instead_of_picking_pixels() -> None:
    checkerboard = Image.fromarray((np.indices((64, 64)).sum(0) % 2 * 255).astype(np.uint8))
    array = decode(encode(checkerboard), 8, 8)
    assert np.abs(array.astype(int) - 127).max() <= 8


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize(("image_format", "options"), [("PNG", {}), ("JPEG", {}), ("WEBP", {"lossless": True})])
def test_every_exif_orientation_is_turned_upright(
    orientation: int, image_format: str, options: dict[str, bool]
) -> None:
    data = encode(photo(), image_format, exif=oriented(orientation), **options)
    stored = Image.fromarray(decode(encode(photo(), image_format, **options)))
    stored.getexif()[ORIENTATION] = orientation
    expected = ImageOps.exif_transpose(stored)
    assert_array_equal(decode(data, expected.height, expected.width), np.asarray(expected))


def test_orientation_6_is_a_quarter_turn_clockwise() -> None:
    row = np.array([[[255, 0, 0], [0, 0, 255]]], dtype=np.uint8)
    turned = decode(encode(Image.fromarray(row), exif=oriented(6)), 2, 1)
    assert_array_equal(turned, row.transpose(1, 0, 2))


def test_exif_after_the_pixels_of_a_png_counts() -> None:
    data = encode(photo())
    body, end = data[:-12], data[-12:]
    late = body + chunk(b"eXIf", oriented(3).tobytes().removeprefix(b"Exif\0\0")) + end
    assert_array_equal(decode(late), pixels(photo())[::-1, ::-1])


@pytest.mark.parametrize("exif", [b"Exif\0\0", b"Exif\0\0garbage", b"Exif\0\0II*\0\xff\xff\xff\xff", b"\0" * 40])
def test_an_image_with_corrupt_exif_is_upright(exif: bytes) -> None:
    assert decode(encode(photo(), "JPEG", exif=exif)).shape == (13, 17, 3)


@pytest.mark.parametrize("orientation", [0, 9, 65535])
def test_an_orientation_that_does_not_exist_is_upright(orientation: int) -> None:
    assert_array_equal(decode(encode(photo(), exif=oriented(orientation))), pixels(photo()))


def test_grey_becomes_equal_channels() -> None:
    grey = photo().convert("L")
    assert_array_equal(decode(encode(grey)), np.repeat(np.asarray(grey)[..., None], 3, axis=-1))


def test_black_and_white_becomes_0_and_255() -> None:
    bilevel = photo().convert("1")
    assert set(np.unique(decode(encode(bilevel)))) == {0, 255}


def test_a_grey_model_gets_the_luma() -> None:
    array = decode_grey(encode(photo()))
    assert array.shape == (13, 17, 1)
    assert_array_equal(array[..., 0], np.asarray(photo().convert("L")))


def test_a_palette_becomes_its_colours() -> None:
    palette = photo().quantize(32)
    assert_array_equal(decode(encode(palette)), pixels(palette))


def test_transparency_is_composited_on_white() -> None:
    image = Image.new("RGBA", (3, 1))
    image.putdata([(200, 0, 0, 255), (200, 0, 0, 0), (0, 0, 0, 51)])
    assert_array_equal(decode(encode(image), 1, 3), [[[200, 0, 0], [255, 255, 255], [204, 204, 204]]])


def test_grey_transparency_is_composited_on_white() -> None:
    image = Image.new("LA", (2, 1))
    image.putdata([(40, 255), (40, 0)])
    assert_array_equal(decode_grey(encode(image), 1, 2)[..., 0], [[40, 255]])


@pytest.mark.parametrize("transparency", [1, b"\xff\x00"], ids=["one index", "an alpha per index"])
def test_a_palette_with_transparency_is_composited_on_white(transparency: int | bytes) -> None:
    image = Image.new("P", (2, 1))
    image.putpalette([10, 20, 30, 40, 50, 60])
    image.putdata([0, 1])
    data = encode(image, transparency=transparency)
    assert_array_equal(decode(data, 1, 2), [[[10, 20, 30], [255, 255, 255]]])


def test_a_webp_with_alpha_is_composited_on_white() -> None:
    image = Image.new("RGBA", (4, 4), (10, 20, 30, 0))
    assert (decode(encode(image, "WEBP", lossless=True, exact=True), 4, 4) == 255).all()


@pytest.mark.parametrize(
    ("bits", "colour", "row", "key", "expected"),
    [
        (8, GREY, bytes([7, 9]), struct.pack(">H", 9), [7, 255]),
        (16, GREY, struct.pack(">HH", 0x0700, 0x0900), struct.pack(">H", 0x0900), [7, 255]),
        (8, RGB, bytes([7, 7, 7, 9, 9, 9]), struct.pack(">HHH", 9, 9, 9), [7, 255]),
        (1, GREY, bytes([0b10000000]), struct.pack(">H", 0), [255, 255]),
    ],
)
def test_a_transparent_colour_is_white(bits: int, colour: int, row: bytes, key: bytes, expected: list[int]) -> None:
    data = png(2, 1, bits, colour, [row], [chunk(b"tRNS", key)])
    assert_array_equal(decode(data, 1, 2)[..., 0], [expected])


@pytest.mark.parametrize(
    ("bits", "colour", "row", "key"),
    [
        (16, RGB, struct.pack(">HHH", 0x1234, 0x1234, 0x1234) * 2, struct.pack(">HHH", 0x1234, 0x1234, 0x1234)),
        (4, GREY, bytes([0xAB]), struct.pack(">H", 0xA)),
        (2, GREY, bytes([0xB0]), struct.pack(">H", 2)),
    ],
)
def test_a_transparent_colour_of_any_depth_decodes(bits: int, colour: int, row: bytes, key: bytes) -> None:
    assert decode(png(2, 1, bits, colour, [row], [chunk(b"tRNS", key)]), 1, 2).shape == (1, 2, 3)


@pytest.mark.parametrize(
    ("colour", "samples", "expected"),
    [
        (GREY, [0x00FF, 0x8000, 0xFFFF], [[0] * 3, [0x80] * 3, [0xFF] * 3]),
        (RGB, [0x0100, 0x20FF, 0xFFFF] * 3, [[1, 0x20, 0xFF]] * 3),
        (GREY_ALPHA, [0x1234, 0xFFFF] * 3, [[0x12] * 3] * 3),
        (RGB_ALPHA, [0x0100, 0x20FF, 0xFFFF, 0xFFFF] * 3, [[1, 0x20, 0xFF]] * 3),
    ],
)
def test_16_bit_samples_keep_their_upper_8_bits(colour: int, samples: list[int], expected: list[list[int]]) -> None:
    data = png(3, 1, 16, colour, [struct.pack(f">{len(samples)}H", *samples)])
    assert_array_equal(decode(data, 1, 3), [expected])


def test_cmyk_jpeg_comes_out_in_its_colours() -> None:
    cmyk = Image.new("CMYK", (16, 16), (0, 255, 255, 0))
    red = decode(encode(cmyk, "JPEG", quality=95), 16, 16)
    assert_array_equal(red[8, 8] > 128, [True, False, False])


def test_the_main_picture_of_a_multi_picture_jpeg_is_taken() -> None:
    data = encode(photo(), "MPO", save_all=True, append_images=[photo(seed=1)])
    assert_array_equal(decode(data), decode(encode(photo(), "JPEG")))


def test_a_single_frame_saved_as_an_animation_is_an_image() -> None:
    assert decode(encode(photo(), "PNG", save_all=True)).shape == (13, 17, 3)


def test_bytes_after_the_image_are_ignored() -> None:
    assert_array_equal(decode(encode(photo()) + b"trailing"), pixels(photo()))


def test_an_image_of_one_pixel_fills_the_input() -> None:
    assert (decode(encode(Image.new("RGB", (1, 1), "red"))) == [255, 0, 0]).all()
