"""Converts encoded images to a model's input. Training, evaluation and serving share this code.

The steps: the first bytes determine the format, the headers are checked against the limits, the pixels are decoded,
converted to 8-bit grey or RGB, turned upright, and resized with antialiasing. If the model has `resize_to`, the image
is resized to that, and the centre is cut out.

- Transparency is composited on white.
- 16-bit samples keep their upper 8 bits.
- A JPEG of many times the model's size is decoded at a half, a quarter or an eighth of its size, but at no less than
  three times the model's (libjpeg's scaled decoding). After resizing, it differs by about one grey level.
- Of animations, pages and multi-picture files, the first picture counts.
- Colour profiles and gamma are ignored, in training too.
"""

from collections.abc import Mapping
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from bundle.errors import ImageError, ImageTooLarge, UndecodableImage
from bundle.image_conversion import convert_pixels
from bundle.image_formats import DecodeLimits, OpenedImage, open_image
from bundle.manifest import ImageInput

DEFAULT_MAX_PIXELS = 50_000_000
"""The default limit of `decode_image`."""

BYTES_PER_PIXEL = 18
"""The most memory in bytes that decoding an image takes at its peak per pixel of its header, whatever its format.

The bytes of the file and a few MiB that do not depend on the image come on top.
"""

_RESAMPLING: Mapping[str, Image.Resampling] = MappingProxyType(
    {
        "bilinear": Image.Resampling.BILINEAR,
        "bicubic": Image.Resampling.BICUBIC,
        "lanczos": Image.Resampling.LANCZOS,
    }
)

_SCALED_GAP = 3
"""The ratio of a scaled JPEG to the model's size. By Pillow's documentation of `reducing_gap`, 3 is nearly exact."""

_MAX_ASPECT = 16
"""The largest aspect ratio of images that are resized as a whole before their centre is cut out."""


class EncodedImage:
    """An encoded image whose headers are checked against the limits, and whose pixels are not decoded yet."""

    def __init__(self, data: bytes, *, max_pixels: int = DEFAULT_MAX_PIXELS) -> None:
        """Read the headers of `data`.

        Args:
            data: a file of a format that `bundle.image_formats` decodes.
            max_pixels: images with more pixels, by their headers, are refused. It also bounds the work of decoding
                (`bundle.image_formats.DecodeLimits`).

        Raises:
            EmptyImage: if there are no bytes.
            ImageTooLarge: if there are more than `max_pixels` pixels, or decoding them takes too much work.
            UndecodableImage: for other formats and corrupt headers. No bytes raise another exception.
        """
        try:
            self._opened: OpenedImage | None = open_image(data, DecodeLimits(max_pixels))
        except Exception as error:
            raise _image_error(error) from error
        self.pixels = self._opened.pixels

    def decode(self, spec: ImageInput) -> NDArray[np.uint8]:
        """Decode the pixels into the input of a model. To be called once.

        Returns:
            `[H, W, C]` uint8 of `spec`'s size, C-contiguous, read-only.

        Raises:
            UndecodableImage: for truncated or corrupt pixels. No bytes raise another exception.
        """
        assert self._opened is not None, "an image is decoded once"
        opened, self._opened = self._opened, None
        try:
            return _to_input(opened, spec)
        except Exception as error:
            raise _image_error(error) from error


def decode_image(data: bytes, spec: ImageInput, *, max_pixels: int = DEFAULT_MAX_PIXELS) -> NDArray[np.uint8]:
    """Decode one image into the input of a model.

    Args:
        data: a PNG, JPEG, WebP, AVIF, GIF, TIFF, BMP or binary PNM file.
        spec: the model's size, channels and resampling filter.
        max_pixels: images with more pixels, by the header, are refused before decoding.

    Returns:
        `[H, W, C]` uint8 of `spec`'s size, C-contiguous, read-only.

    Raises:
        EmptyImage: if there are no bytes.
        ImageTooLarge: if there are more than `max_pixels` pixels, or decoding them takes too much work.
        UndecodableImage: for other formats, truncated or corrupt files. No bytes raise another exception.
    """
    return EncodedImage(data, max_pixels=max_pixels).decode(spec)


def _to_input(opened: OpenedImage, spec: ImageInput) -> NDArray[np.uint8]:
    mode = "L" if spec.channels == 1 else "RGB"
    resampling = _RESAMPLING[spec.resize]
    if spec.resize_to is None:
        image = opened.decode(_SCALED_GAP * max(spec.width, spec.height))
        pixels = convert_pixels(image, mode, (spec.width, spec.height), resampling, opened.orientation)
    else:
        pixels = _centre(opened, spec, spec.resize_to, mode, resampling)
    return np.frombuffer(pixels.tobytes(), np.uint8).reshape(spec.height, spec.width, spec.channels)


def _centre(
    opened: OpenedImage, spec: ImageInput, resize_to: int | tuple[int, int], mode: str, resampling: Image.Resampling
) -> Image.Image:
    """The centre of the image after resizing, as torchvision's `Resize` and `CenterCrop` give it."""
    # Of the headers: scaled decoding rounds the sides.
    size = (opened.width, opened.height)
    if isinstance(resize_to, tuple):
        height, width = resize_to
        image = opened.decode(_SCALED_GAP * max(resize_to))
    else:
        image = opened.decode(_SCALED_GAP * resize_to)
        # Only the centre is used. Without this limit, a line of pixels would be resized to gigabytes.
        aspect = max(_MAX_ASPECT, 2 * max(spec.height, spec.width) / resize_to)
        if max(size) > aspect * min(size):
            image = _without_ends(image, int(aspect * min(image.size)))
            size = image.size
        if opened.orientation >= 5:
            size = size[::-1]
        longer = int(resize_to * max(size) / min(size))
        width, height = (resize_to, longer) if size[0] <= size[1] else (longer, resize_to)
    pixels = convert_pixels(image, mode, (width, height), resampling, opened.orientation)
    left, top = round((width - spec.width) / 2), round((height - spec.height) / 2)
    return pixels.crop((left, top, left + spec.width, top + spec.height))


def _without_ends(image: Image.Image, length: int) -> Image.Image:
    """The middle of `image` along its longer side, `length` pixels of it."""
    width, height = image.size
    if width > height:
        begin = (width - length) // 2
        return image.crop((begin, 0, begin + length, height))
    begin = (height - length) // 2
    return image.crop((0, begin, width, begin + length))


def _image_error(error: Exception) -> ImageError:
    """The error to raise for what decoding raised.

    For arbitrary bytes Pillow raises a dozen types of exceptions (SyntaxError, struct.error, zlib.error, MemoryError,
    ...). The cause of all of them is the client's bytes.
    """
    if isinstance(error, ImageError):
        return error
    if isinstance(error, Image.DecompressionBombError):
        return ImageTooLarge(f"the image declares more pixels than can be decoded ({error}); send a smaller one")
    cause = str(error)[:200] or type(error).__name__
    return UndecodableImage(f"the image is truncated, corrupt or without pixels ({cause}); send an intact file")
