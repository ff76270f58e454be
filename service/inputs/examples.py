"""Inputs for examples that work: in the OpenAPI document, in the banner, on the page."""

from functools import cache
from io import BytesIO

import numpy as np
from PIL import Image

SAMPLE_SENTENCE = "The detector was trained on other sentences than this one."
"""A text for models whose bundles bring none."""


@cache
def sample_png(height: int = 32, width: int = 32, channels: int = 3) -> bytes:
    """A small PNG with a smooth picture in it, the same bytes at every call."""
    y, x = np.mgrid[0 : max(height, 1), 0 : max(width, 1)]
    planes = [255 * x / width, 255 * y / height, 255 * (x + y) / (width + height)]
    pixels = np.stack(planes[:channels], axis=-1).astype(np.uint8)
    file = BytesIO()
    Image.fromarray(pixels[..., 0] if channels == 1 else pixels).save(file, "PNG", optimize=True)
    return file.getvalue()
