"""Resize and centre crop give the pixels of torchvision's Resize and CenterCrop on PIL images."""

from io import BytesIO

import numpy as np
import pytest
from PIL import Image

from bundle import ImageInput, decode_image


def spec(height: int, width: int, resize_to: int | tuple[int, int] | None, resize: str = "bilinear") -> ImageInput:
    return ImageInput(
        height=height, width=width, channels=3, resize=resize, resize_to=resize_to, mean=(0.0,) * 3, std=(1.0,) * 3
    )


def png(width: int, height: int) -> tuple[Image.Image, bytes]:
    pixels = np.random.default_rng(width * height).integers(0, 256, (height, width, 3), dtype=np.uint8)
    image = Image.fromarray(pixels).resize((width, height))
    file = BytesIO()
    image.save(file, "PNG")
    return image, file.getvalue()


def torchvision(image: Image.Image, resize_to: int, crop: int, resample: Image.Resampling) -> Image.Image:
    """The steps of `torchvision.transforms.functional` in Pillow's operations."""
    width, height = image.size
    short, long = (width, height) if width <= height else (height, width)
    new_short, new_long = resize_to, int(resize_to * long / short)
    new_width, new_height = (new_short, new_long) if width <= height else (new_long, new_short)
    image = image.resize((new_width, new_height), resample)
    top, left = round((new_height - crop) / 2.0), round((new_width - crop) / 2.0)
    return image.crop((left, top, left + crop, top + crop))


@pytest.mark.parametrize(("width", "height"), [(100, 60), (61, 97), (40, 40), (33, 31), (20, 300)])
@pytest.mark.parametrize("resize", ["bilinear", "bicubic", "lanczos"])
def test_a_shorter_side_is_resized_and_the_centre_cut_out(width: int, height: int, resize: str) -> None:
    image, data = png(width, height)
    expected = torchvision(image, 36, 32, Image.Resampling[resize.upper()])
    np.testing.assert_array_equal(decode_image(data, spec(32, 32, 36, resize)), np.asarray(expected))


def test_height_and_width_before_the_crop_ignore_the_aspect_ratio() -> None:
    image, data = png(90, 50)
    expected = image.resize((40, 36), Image.Resampling.BILINEAR).crop((4, 2, 36, 34))
    np.testing.assert_array_equal(decode_image(data, spec(32, 32, (36, 40))), np.asarray(expected))


def test_a_crop_beyond_the_image_has_a_black_border() -> None:
    _, data = png(20, 60)
    pixels = decode_image(data, spec(20, 40, 20))
    assert pixels.shape == (20, 40, 3)
    assert not pixels[:, :10].any()
    assert pixels[:, 10:30].any()


@pytest.mark.parametrize("size", [(30_000, 1), (1, 30_000), (4000, 3)])
def test_a_line_of_pixels_takes_no_more_memory_than_its_crop(size: tuple[int, int]) -> None:
    image, data = png(*size)
    pixels = decode_image(data, spec(32, 32, 36))
    along_x = size[0] > size[1]
    # The crop covers about size * 32 / 36 pixels of the shorter side in the middle of the longer one.
    middle = np.asarray(image)[:, size[0] // 2] if along_x else np.asarray(image)[size[1] // 2]
    assert pixels.shape == (32, 32, 3)
    assert abs(float(pixels.mean()) - float(middle.mean())) < 80


def test_an_upright_jpeg_and_one_turned_by_exif_are_cropped_alike() -> None:
    image = Image.linear_gradient("L").resize((240, 120)).convert("RGB")
    exif = Image.Exif()
    exif[0x0112] = 6
    upright, turned = BytesIO(), BytesIO()
    image.save(upright, "PNG")
    image.transpose(Image.Transpose.ROTATE_90).save(turned, "JPEG", quality=100, subsampling=0, exif=exif)
    crops = [decode_image(file.getvalue(), spec(20, 20, 24)).astype(int) for file in (upright, turned)]
    assert np.abs(crops[0] - crops[1]).max() < 8


@pytest.mark.parametrize("resize_to", [31, (31, 40), (40, 31)])
def test_a_size_smaller_than_the_crop_is_no_valid_specification(resize_to: int | tuple[int, int]) -> None:
    with pytest.raises(ValueError, match="resize_to is smaller"):
        spec(32, 32, resize_to)
