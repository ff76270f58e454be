"""Survey: estimates the typical size of a data set's inputs from a sample, to choose a model's input."""

from collections.abc import Sequence

import numpy as np

from bundle import DEFAULT_MAX_PIXELS
from bundle.image_formats import DecodeLimits, open_image
from datafiles import Fault
from training.data.encoded_images import Encoded, encoded_bytes
from training.data.sources import Rows

_SAMPLE_SIZE = 200
_LAST_UNTURNED = 4
"""The EXIF orientations 5 to 8 exchange width and height."""
_GREY_MODES = ("1", "L", "LA", "I", "I;16", "F")


def survey_images(rows: Rows) -> tuple[int, int, int]:
    """The median height and width, and the number of channels (1 or 3), of a sample of images.

    Args:
        rows: The rows of the data set.

    Returns:
        (height, width, channels), or (0, 0, 3) if no image can be decoded.
    """
    heights, widths, grey = [], [], []
    sample = np.unique(np.linspace(0, len(rows) - 1, _SAMPLE_SIZE).astype(np.int64))
    for encoded in rows.encoded().at(sample).read():
        found = _size_and_mode(encoded)
        if found is not None:
            height, width, mode = found
            heights.append(height)
            widths.append(width)
            grey.append(mode in _GREY_MODES)
    if not heights:
        return 0, 0, 3
    return int(np.median(heights)), int(np.median(widths)), 1 if all(grey) else 3


def survey_words(texts: Sequence[str]) -> int:
    """The 95th percentile of the number of words in a text, plus 20% for punctuation marks."""
    words = [len(text.split()) for text in texts]
    return round(1.2 * float(np.quantile(words, 0.95)))


def _size_and_mode(encoded: Encoded) -> tuple[int, int, str] | None:
    """The height and width of the upright image, and its Pillow mode; None if it cannot be decoded."""
    data = encoded_bytes(encoded)
    if isinstance(data, Fault):
        return None
    try:
        opened = open_image(data, DecodeLimits(DEFAULT_MAX_PIXELS))
        mode = opened.decode(1).mode
    # Corrupt files raise exceptions of many types. Loading the image later reports the file and the row.
    except Exception:
        return None
    turned = opened.orientation > _LAST_UNTURNED
    return (opened.width, opened.height, mode) if turned else (opened.height, opened.width, mode)
