"""Converts decoded pixels to a model's colours and size, without a second full-size copy of a large image."""

from collections.abc import Mapping
from types import MappingProxyType

import numpy as np
from PIL import Image

_UPRIGHT: Mapping[int, Image.Transpose] = MappingProxyType(
    {
        2: Image.Transpose.FLIP_LEFT_RIGHT,
        3: Image.Transpose.ROTATE_180,
        4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE,
        6: Image.Transpose.ROTATE_270,
        7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_90,
    }
)
# Larger images are converted in bands of about this many pixels.
_BAND_PIXELS = 1 << 20


def convert_pixels(
    image: Image.Image, mode: str, size: tuple[int, int], resampling: Image.Resampling, orientation: int = 1
) -> Image.Image:
    """Convert a decoded image to `mode`, turn it upright and resize it.

    Resizing is separable: one axis is resized band by band, then the other. Each band is converted just before, so
    that the only full-size image is `image`. The result is that of Pillow's `resize` on the converted, upright image.

    Args:
        image: A decoded image.
        mode: "L" or "RGB". Transparency is composited on white.
        size: The width and height of the result.
        resampling: The filter.
        orientation: The orientation as in EXIF, 1 (upright) to 8.
    """
    is_quarter_turn = orientation >= 5
    width, height = size[::-1] if is_quarter_turn else size
    if image.width * image.height > _BAND_PIXELS:
        # Pillow resizes the width first, here the upright one. Not where that needs much more memory than the image.
        rows_first = is_quarter_turn
        if (image.width * height if rows_first else image.height * width) > image.width * image.height:
            rows_first = not rows_first
        if rows_first:
            image = _in_bands(image, mode, (image.width, height), resampling, axis=0)
        else:
            image = _in_bands(image, mode, (width, image.height), resampling, axis=1)
        pixels = image
        if pixels.size != (width, height):
            pixels = pixels.resize((width, height), resampling)
        return _upright(pixels, orientation)
    pixels = _upright(_to_colours(image, mode), orientation)
    return pixels if pixels.size == size else pixels.resize(size, resampling)


def _upright(image: Image.Image, orientation: int) -> Image.Image:
    turn = _UPRIGHT.get(orientation)
    return image if turn is None else image.transpose(turn)


def _in_bands(
    image: Image.Image, mode: str, size: tuple[int, int], resampling: Image.Resampling, *, axis: int
) -> Image.Image:
    """`image` in `mode`, resized along one axis: 0 for the height, in bands of columns, 1 for the width, of rows."""
    resized = Image.new(mode, size)
    length = image.size[axis]
    across = image.size[1 - axis]
    step = max(1, _BAND_PIXELS // max(across, size[1 - axis]))
    for begin in range(0, length, step):
        end = min(begin + step, length)
        if axis == 0:
            box, target, corner = (begin, 0, end, across), (end - begin, size[1]), (begin, 0)
        else:
            box, target, corner = (0, begin, across, end), (size[0], end - begin), (0, begin)
        band = _to_colours(image.crop(box), mode)
        resized.paste(band if band.size == target else band.resize(target, resampling), corner)
    return resized


def _to_colours(image: Image.Image, mode: str) -> Image.Image:
    """The pixels in `mode`, "L" or "RGB", transparency composited on white."""
    if image.mode == mode and "transparency" not in image.info:
        return image
    if image.mode == "La":
        image = image.convert("LA")
    if image.mode == "LAB":
        image = image.convert("RGB")
    if image.mode.startswith("I"):
        image = _upper_eight_bits(image)
    elif image.has_transparency_data:
        coloured = image.convert("RGBA")
        image = Image.new("RGB", image.size, "white")
        image.paste(coloured, mask=coloured.getchannel("A"))
    return image if image.mode == mode else image.convert(mode)


def _upper_eight_bits(image: Image.Image) -> Image.Image:
    """Grey of 16-bit samples: Pillow's own conversion would clip everything above 255 to white."""
    samples = np.asarray(image)
    transparent = image.info.get("transparency")
    grey = (np.clip(samples, 0, 0xFFFF) >> 8).astype(np.uint8)
    if isinstance(transparent, int):
        grey[samples == transparent] = 255
    return Image.fromarray(grey)
