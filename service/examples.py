"""A real picture for examples that work: in the OpenAPI document, in the banner, on the page."""

import base64
from functools import cache
from io import BytesIO

import numpy as np
from PIL import Image

from bundle import ImageInput


@cache
def sample_png(height: int = 32, width: int = 32, channels: int = 3) -> bytes:
    """A small PNG with a smooth picture in it, the same bytes at every call."""
    y, x = np.mgrid[0 : max(height, 1), 0 : max(width, 1)]
    planes = [255 * x / width, 255 * y / height, 255 * (x + y) / (width + height)]
    pixels = np.stack(planes[:channels], axis=-1).astype(np.uint8)
    file = BytesIO()
    Image.fromarray(pixels[..., 0] if channels == 1 else pixels).save(file, "PNG", optimize=True)
    return file.getvalue()


def sample_for(spec: ImageInput | None = None) -> str:
    """`sample_png` in base64, for a model of `spec`, small enough for one line of a terminal."""
    channels = 3 if spec is None else spec.channels
    return base64.b64encode(sample_png(8, 8, channels)).decode("ascii")
