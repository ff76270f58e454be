"""Converts encoded images to a model's input. Training, evaluation and serving share this code.

The steps: the signature determines the format (PNG, JPEG, WebP or BMP), the size in the header is checked against the
limit, the pixels are decoded, converted to 8-bit grey or RGB, turned upright by EXIF, and resized with antialiasing. If
the model has `resize_to`, the image is resized to that, and the centre is cut out; smaller images get a black border.

- Transparency is composited on white.
- 16-bit samples keep their upper 8 bits.
- A JPEG of many times the model's size is decoded at a half, a quarter or an eighth of its size, but at no less than
  three times the model's (libjpeg's scaled decoding). After resizing, it differs by about one grey level.
- Of a multi-picture JPEG, which phones write, the first picture counts. PNG and WebP animations are refused.
- Colour profiles and gamma are ignored, in training too.
"""

from collections.abc import Mapping
from io import BytesIO
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFile
from PIL.BmpImagePlugin import BmpImageFile
from PIL.JpegImagePlugin import JpegImageFile
from PIL.PngImagePlugin import PngImageFile
from PIL.WebPImagePlugin import WebPImageFile

from bundle.errors import AnimatedImage, EmptyImage, ImageError, ImageTooLarge, UndecodableImage
from bundle.manifest import ImageInput
from bundle.orientation import exif_orientation

DEFAULT_MAX_PIXELS = 50_000_000
"""The default limit of `decode_image`: 200 MB of decoded pixels, and as much again for each conversion."""

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
_SIDEWAYS = frozenset(turn for orientation, turn in _UPRIGHT.items() if orientation >= 5)
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


class _Jpeg(JpegImageFile):
    """A JPEG whose EXIF data Pillow does not search for its resolution, for the reason in `bundle.orientation`."""

    def _read_dpi_from_exif(self) -> None:
        pass


def decode_image(data: bytes, spec: ImageInput, *, max_pixels: int = DEFAULT_MAX_PIXELS) -> NDArray[np.uint8]:
    """Decode one image into the input of a model.

    Args:
        data: a PNG, JPEG, WebP or BMP file.
        spec: the model's size, channels and resampling filter.
        max_pixels: images with more pixels, by the header, are refused before decoding.

    Returns:
        `[H, W, C]` uint8 of `spec`'s size, C-contiguous, read-only.

    Raises:
        EmptyImage: if there are no bytes.
        ImageTooLarge: if there are more than `max_pixels` pixels.
        AnimatedImage: if there are several frames.
        UndecodableImage: for other formats, truncated or corrupt files. No bytes raise another exception.
    """
    # For arbitrary bytes Pillow raises a dozen types of exceptions (SyntaxError, struct.error, zlib.error, MemoryError,
    # ...). The cause of all of them is the client's bytes.
    try:
        image = _open(data)
        _check_size(image.width, image.height, max_pixels)
        if getattr(image, "is_animated", False):
            raise AnimatedImage(
                f"the image is an animation of {getattr(image, 'n_frames', 'several')} frames; send a single frame"
            )
        return prepare_image(image, spec)
    except ImageError:
        raise
    except Image.DecompressionBombError as error:
        raise ImageTooLarge(
            f"the image declares more pixels than can be decoded ({error}); send a smaller one"
        ) from None
    except Exception as error:
        cause = str(error)[:200] or type(error).__name__
        raise UndecodableImage(
            f"the image is truncated, corrupt or without pixels ({cause}); send an intact file"
        ) from error


def prepare_image(image: Image.Image, spec: ImageInput) -> NDArray[np.uint8]:
    """Convert an opened image to the input of a model, as `decode_image` does after its checks.

    Returns:
        `[H, W, C]` uint8 of `spec`'s size, C-contiguous, read-only.

    Raises:
        Exception: any exception that Pillow raises while decoding.
    """
    # Scaled decoding rounds the sides.
    size = image.size
    if isinstance(image, JpegImageFile):
        # Both sides are large enough, whether EXIF turns the image or not. No effect on decoded images.
        before_crop = spec.resize_to if isinstance(spec.resize_to, tuple) else (spec.resize_to or 0,)
        side = _SCALED_GAP * max(spec.width, spec.height, *before_crop)
        image.draft(None, (side, side))
    pixels = _to_colours(image, "L" if spec.channels == 1 else "RGB")
    # From the original, after decoding: a PNG may store its EXIF data after the pixels.
    turn = _UPRIGHT.get(exif_orientation(image.info["exif"])) if "exif" in image.info else None
    if turn is not None:
        pixels = pixels.transpose(turn)
        size = size[::-1] if turn in _SIDEWAYS else size
    if spec.resize_to is not None:
        pixels = _centre(pixels, size, spec)
    elif pixels.size != (spec.width, spec.height):
        pixels = pixels.resize((spec.width, spec.height), _RESAMPLING[spec.resize])
    return np.frombuffer(pixels.tobytes(), np.uint8).reshape(spec.height, spec.width, spec.channels)


def _centre(pixels: Image.Image, size: tuple[int, int], spec: ImageInput) -> Image.Image:
    """The centre of `pixels` after resizing to `spec.resize_to`, as torchvision's Resize and CenterCrop give it.

    Args:
        pixels: the upright image, possibly decoded at a fraction of its size.
        size: its full width and height.
        spec: the model's size.
    """
    width, height = size
    if isinstance(spec.resize_to, tuple):
        new_height, new_width = spec.resize_to
    else:
        assert spec.resize_to is not None, "the caller checks"
        shorter, longer = sorted(size)
        longer = int(spec.resize_to * longer / shorter)
        new_width, new_height = (spec.resize_to, longer) if width <= height else (longer, spec.resize_to)
    left, top = round((new_width - spec.width) / 2), round((new_height - spec.height) / 2)
    if max(new_width, new_height) > _MAX_ASPECT * min(new_width, new_height):
        # A line of pixels would be resized to gigabytes. Only the part below the crop is needed.
        x, y = pixels.width / new_width, pixels.height / new_height
        left_edge, top_edge = max(left, 0), max(top, 0)
        right_edge, bottom_edge = min(left + spec.width, new_width), min(top + spec.height, new_height)
        part = pixels.resize(
            (right_edge - left_edge, bottom_edge - top_edge),
            _RESAMPLING[spec.resize],
            box=(left_edge * x, top_edge * y, right_edge * x, bottom_edge * y),
        )
        pixels, left, top = part, left - left_edge, top - top_edge
    elif pixels.size != (new_width, new_height):
        pixels = pixels.resize((new_width, new_height), _RESAMPLING[spec.resize])
    return pixels.crop((left, top, left + spec.width, top + spec.height))


def _open(data: bytes) -> ImageFile.ImageFile:
    """Read the header, with the class of the format.

    `Image.open` tries formats in turn, warns about large images through the filters of the whole process, and opens a
    multi-picture JPEG as an animation.
    """
    if data.startswith(b"\x89PNG\r\n\x1a\n"):
        return PngImageFile(BytesIO(data))
    if data.startswith(b"\xff\xd8\xff"):
        return _Jpeg(BytesIO(data))
    if data.startswith(b"RIFF") and data[8:12] == b"WEBP":
        return WebPImageFile(BytesIO(data))
    if data.startswith(b"BM"):
        return BmpImageFile(BytesIO(data))
    if not data:
        raise EmptyImage("the image is empty (0 bytes); send the bytes of a PNG, JPEG, WebP or BMP file")
    raise UndecodableImage("the bytes are no PNG, JPEG, WebP or BMP image; send one of these formats")


def _check_size(width: int, height: int, max_pixels: int) -> None:
    if width * height > max_pixels:
        raise ImageTooLarge(
            f"the image is {width} x {height} pixels, more than the limit of {max_pixels:,}; send a smaller one"
        )


def _to_colours(image: Image.Image, mode: str) -> Image.Image:
    """The decoded pixels in `mode`, "L" or "RGB", transparency composited on white."""
    image.load()
    if image.mode == mode and "transparency" not in image.info:
        return image
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
