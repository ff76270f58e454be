"""Text loading: a source becomes token ids, made as serving makes them (`bundle.TextEncoder`)."""

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
    """The texts of `source` as token ids int32 `[N, max_tokens]`, filled up with `NO_TOKEN`; blank texts are left out.

    Raises DataError naming the file and the row when something cannot be read.
    """
    found = read_texts(source, locations)
    texts = strings(found, source)
    tokens = np.full((len(texts), encoder.max_tokens), NO_TOKEN, dtype=np.int32)
    for start in range(0, len(texts), _ENCODE_CHUNK):
        for row, ids in enumerate(encoder.encode_batch(texts[start : start + _ENCODE_CHUNK]), start):
            if not len(ids):
                raise DataError(f"{found.origin}, text {row}", "holds no token", "Remove the row")
            tokens[row, : len(ids)] = ids
        if progress is not None:
            progress(name, min(start + _ENCODE_CHUNK, len(texts)), len(texts))
    x = StoredArray(tokens)
    return Examples(x, found.y, found.labels, name, found.origin, content_hash(x, found.y))


def read_texts(source: Source, locations: DataLocations) -> Rows:
    """The rows of `source` whose text is not blank."""
    found = read_rows(source, locations.data_dir, source.text)
    kept = np.flatnonzero([bool(text and str(text).strip()) for text in found.table[source.text]])
    if not len(kept):
        raise DataError(found.origin, f"has no text in its column '{source.text}'", "Check the recipe's `text`")
    return found if len(kept) == len(found.table) else found.at(kept.astype(np.int64))


def strings(found: Rows, source: Source) -> list[str]:
    """The texts themselves."""
    values: Iterable[object] = found.table[source.text]
    return [str(value) for value in values]
