"""Text loading: encodes the texts of a source as token ids, as serving does (`bundle.TextEncoder`)."""

from dataclasses import replace

import numpy as np

from bundle import TextEncoder
from training.data.examples import Examples, StoredArray
from training.data.image_loading import content_hash
from training.data.origins import Origins
from training.data.problems import Problem
from training.data.sources import DataLocations, Progress, Rows, read_rows
from training.data.token_ids import NO_TOKEN
from training.errors import DataError
from training.recipe import Source

_ENCODE_CHUNK = 2048


def load_texts(
    source: Source,
    encoder: TextEncoder,
    locations: DataLocations,
    *,
    name: str,
    progress: Progress | None = None,
    skip_broken: bool = False,
) -> tuple[Examples, Rows]:
    """Load the texts of `source` except blank ones, as token ids int32 `[N, max_tokens]` filled with `NO_TOKEN`.

    Returns:
        The examples, and their rows in the source.

    Raises:
        DataError: The source cannot be read.
        BrokenInputs: Texts or labels cannot be read, and `skip_broken` is off; names all of them.
    """
    rows = read_texts(source, locations)
    tokens = np.full((len(rows), encoder.max_tokens), NO_TOKEN, dtype=np.int32)
    empty: list[int] = []
    for start in range(0, len(rows), _ENCODE_CHUNK):
        for row, ids in enumerate(encoder.encode_batch(rows.texts[start : start + _ENCODE_CHUNK]), start):
            tokens[row, : len(ids)] = ids
            if not len(ids):
                empty.append(row)
        if progress is not None:
            progress(name, min(start + _ENCODE_CHUNK, len(rows)), len(rows))
    if empty:
        problems = [Problem(rows.origin, int(rows.numbers[row]), "the text holds no token") for row in empty]
        kept = np.setdiff1d(np.arange(len(rows)), empty)
        rows = replace(rows.at(kept), problems=(*rows.problems, *problems))
        tokens = tokens[kept]
    x = StoredArray(tokens)
    origins = Origins(rows.origin, rows.numbers, None, np.arange(len(rows), dtype=np.int64))
    examples = Examples(x, rows.y, rows.labels, name, rows.origin, content_hash(x, rows.y), origins=origins)
    return examples.usable(rows.problems, skip_broken=skip_broken), rows


def read_texts(source: Source, locations: DataLocations) -> Rows:
    """The rows of `source` whose text is not blank; DataError if there are none."""
    rows = read_rows(source, locations.data_dir, "text")
    not_blank = np.flatnonzero([not is_blank(text) for text in rows.texts]).astype(np.int64)
    if not len(not_blank) and not rows.problems:
        raise DataError(rows.origin, f"has no text in its column '{source.text}'", "Check the recipe's `text`")
    return rows if len(not_blank) == len(rows) else rows.at(not_blank)


def is_blank(text: str) -> bool:
    """Whether a text has no characters but white space."""
    return not text.strip()
