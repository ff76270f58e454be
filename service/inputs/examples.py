"""Example inputs for the OpenAPI document, the banner and the console."""

from functools import cache
from io import BytesIO

import numpy as np
from PIL import Image

SAMPLE_SENTENCE = "The detector was trained on other sentences than this one."
"""The example for text models whose bundles contain no sample."""


@cache
def sample_png(height: int = 32, width: int = 32, channels: int = 3) -> bytes:
    """A small PNG of a colour gradient; every call returns the same bytes."""
    y, x = np.mgrid[0 : max(height, 1), 0 : max(width, 1)]
    planes = [255 * x / width, 255 * y / height, 255 * (x + y) / (width + height)]
    pixels = np.stack(planes[:channels], axis=-1).astype(np.uint8)
    file = BytesIO()
    Image.fromarray(pixels[..., 0] if channels == 1 else pixels).save(file, "PNG", optimize=True)
    return file.getvalue()
