"""Text loading: encodes the texts of a source as token ids, as serving does (`bundle.TextEncoder`)."""

from collections.abc import Iterable

import numpy as np

from bundle import TextEncoder
from training.data.examples import Examples, StoredArray
from training.data.image_loading import content_hash
from training.data.sources import DataLocations, Progress, Rows, read_rows
from training.data.token_ids import NO_TOKEN
from training.errors import DataError
from training.recipe import Source

_ENCODE_CHUNK = 2048


def load_texts(
    source: Source, encoder: TextEncoder, locations: DataLocations, *, name: str, progress: Progress | None = None
) -> Examples:
    """Load the texts of `source` except blank ones, as token ids int32 `[N, max_tokens]` filled with `NO_TOKEN`.

    Raises:
        DataError: The source cannot be read, or a text has no token; names the file and the row.
    """
    rows = read_texts(source, locations)
    texts = strings(rows, source)
    tokens = np.full((len(texts), encoder.max_tokens), NO_TOKEN, dtype=np.int32)
    for start in range(0, len(texts), _ENCODE_CHUNK):
        for row, ids in enumerate(encoder.encode_batch(texts[start : start + _ENCODE_CHUNK]), start):
            if not len(ids):
                raise DataError(f"{rows.origin}, text {row}", "holds no token", "Remove the row")
            tokens[row, : len(ids)] = ids
        if progress is not None:
            progress(name, min(start + _ENCODE_CHUNK, len(texts)), len(texts))
    x = StoredArray(tokens)
    return Examples(x, rows.y, rows.labels, name, rows.origin, content_hash(x, rows.y))


def read_texts(source: Source, locations: DataLocations) -> Rows:
    """The rows of `source` whose text is not blank; DataError if there are none."""
    rows = read_rows(source, locations.data_dir, source.text)
    not_blank = np.flatnonzero([bool(text and str(text).strip()) for text in rows.table[source.text]])
    if not len(not_blank):
        raise DataError(rows.origin, f"has no text in its column '{source.text}'", "Check the recipe's `text`")
    return rows if len(not_blank) == len(rows.table) else rows.at(not_blank.astype(np.int64))


def strings(rows: Rows, source: Source) -> list[str]:
    """The texts of `rows`."""
    values: Iterable[object] = rows.table[source.text]
    return [str(value) for value in values]
