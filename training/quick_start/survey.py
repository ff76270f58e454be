"""Survey: estimates the typical size of a data set's inputs from a sample, to choose a model's input."""

from io import BytesIO
from pathlib import Path
from typing import Any

import datasets
import numpy as np
from PIL import Image

from training.data.sources import Rows

_SAMPLE_SIZE = 200
_GREY_MODES = ("1", "L", "LA", "I", "I;16", "F")


def survey_images(rows: Rows, column: str) -> tuple[int, int, int]:
    """The median height and width, and the number of channels (1 or 3), of a sample of images.

    Args:
        rows: The rows of the data set.
        column: The column of images.

    Returns:
        (height, width, channels), or (0, 0, 3) if no image can be opened.
    """
    table = rows.table.cast_column(column, datasets.Image(decode=False))
    heights, widths, grey = [], [], []
    for index in np.unique(np.linspace(0, len(table) - 1, _SAMPLE_SIZE).astype(np.int64)).tolist():
        image = _header(table[index][column], Path(rows.origin).parent)
        if image is not None:
            heights.append(image.height)
            widths.append(image.width)
            grey.append(image.mode in _GREY_MODES)
    if not heights:
        return 0, 0, 3
    return int(np.median(heights)), int(np.median(widths)), 1 if all(grey) else 3


def survey_words(texts: list[str]) -> int:
    """The 95th percentile of the number of words in a text, plus 20% for punctuation marks."""
    words = [len(text.split()) for text in texts]
    return round(1.2 * float(np.quantile(words, 0.95)))


def _header(encoded: dict[str, Any] | None, folder: Path) -> Image.Image | None:
    """The image, opened without decoding its pixels; None if it cannot be opened."""
    if encoded is None:
        return None
    data, path = encoded["bytes"], encoded["path"]
    try:
        return Image.open(folder / path if data is None else BytesIO(data))
    # Pillow raises exceptions of many types. Loading the image later reports the file and the row.
    except Exception:
        return None
