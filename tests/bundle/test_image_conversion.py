import numpy as np
import pytest
from numpy.testing import assert_array_equal
from numpy.typing import NDArray
from PIL import Image, ImageOps

from bundle.image_conversion import convert_pixels

BILINEAR = Image.Resampling.BILINEAR
MODES = [
    "1",
    "L",
    "LA",
    "P",
    "PA",
    "RGB",
    "RGBA",
    "CMYK",
    "YCbCr",
    "HSV",
    "LAB",
    "La",
    "RGBa",
    "RGBX",
    "I",
    "I;16",
    "F",
]


def converted(image: Image.Image, mode: str = "L") -> NDArray[np.uint8]:
    return np.asarray(convert_pixels(image, mode, image.size, BILINEAR))


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("target", ["L", "RGB"])
def test_an_image_of_any_mode_is_converted(mode: str, target: str) -> None:
    result = convert_pixels(Image.new(mode, (7, 4)), target, (6, 5), BILINEAR)
    assert (result.mode, result.size) == (target, (6, 5))


@pytest.mark.parametrize(("value", "expected"), [(-5, 0), (255, 0), (0x4200, 0x42), (1 << 20, 255)])
def test_integers_beyond_16_bits_are_clipped_to_them(value: int, expected: int) -> None:
    assert converted(Image.new("I", (1, 1), value)).item() == expected


def test_floats_are_taken_as_0_to_255() -> None:
    image = Image.fromarray(np.array([[-1.0, 100.0, 1e9]], dtype=np.float32))
    assert_array_equal(converted(image).ravel(), [0, 100, 255])


def noise(mode: str, width: int, height: int) -> Image.Image:
    rng = np.random.default_rng(0)
    rgba = Image.fromarray(rng.integers(0, 256, (height, width, 4), np.uint8), "RGBA")
    if mode == "RGBA":
        return rgba
    if mode == "P":
        image = rgba.convert("RGB").quantize(16)
        image.info["transparency"] = 3
        return image
    if mode == "I;16":
        return Image.fromarray(rng.integers(0, 1 << 16, (height, width), np.uint16))
    return rgba.convert("RGB").convert(mode)


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "P", "L", "I;16", "CMYK"])
@pytest.mark.parametrize("target", ["L", "RGB"])
@pytest.mark.parametrize("size", [(1500, 1100), (1201, 3)])
def test_a_large_image_in_bands_comes_out_as_a_small_one_at_once(
    mode: str, target: str, size: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    image = noise(mode, *size)
    monkeypatch.setattr("bundle.image_conversion._BAND_PIXELS", 10**9)
    at_once = np.asarray(convert_pixels(image, target, (32, 24), BILINEAR))
    monkeypatch.setattr("bundle.image_conversion._BAND_PIXELS", 3000)
    assert_array_equal(np.asarray(convert_pixels(image, target, (32, 24), BILINEAR)), at_once)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_large_image_is_turned_and_resized_as_if_it_were_turned_first(orientation: int) -> None:
    image = noise("RGB", 1300, 1000)
    image.getexif()[0x0112] = orientation
    expected = np.asarray(ImageOps.exif_transpose(image).resize((40, 30), BILINEAR)).astype(int)
    result = np.asarray(convert_pixels(image, "RGB", (40, 30), BILINEAR, orientation))
    assert np.abs(result - expected).max() <= 1


@pytest.mark.parametrize("size", [(1, 1_200_000), (1_200_000, 1), (3, 400_000)])
@pytest.mark.parametrize("orientation", [1, 6])
def test_an_image_of_extreme_shape_is_resized_without_a_larger_one(size: tuple[int, int], orientation: int) -> None:
    image = Image.new("L", size, 77)
    result = np.asarray(convert_pixels(image, "L", (64, 48), BILINEAR, orientation))
    assert result.shape == (48, 64)
    assert (result == 77).all()
