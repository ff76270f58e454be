"""Text to the model's input: the one way that training, evaluation and serving share.

What happens to a text, in order: the bundle's own tokenizer (a `tokenizer.json` of the `tokenizers` library)
normalises it, splits it into tokens and looks up their ids; what exceeds the model's length is cut off at the end.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Self

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

from bundle.errors import EmptyText, TokenizerInvalid

PADDING = 0
"""The id that fills up a batch's shorter texts; a model never reads it, because it gets the lengths."""


class TextEncoder:
    """A tokenizer and the length that a model takes. Encoding is thread-safe."""

    def __init__(self, tokenizer: Tokenizer, max_tokens: int) -> None:
        # A private copy: truncation and padding are settings of the tokenizer object itself.
        self._tokenizer = Tokenizer.from_str(tokenizer.to_str())
        self._tokenizer.no_padding()
        self._tokenizer.enable_truncation(max_tokens)
        self.max_tokens = max_tokens

    @classmethod
    def load(cls, path: Path, max_tokens: int) -> Self:
        """The encoder of the tokenizer file at `path`.

        Raises:
            TokenizerInvalid: if the file is no tokenizer.
        """
        try:
            tokenizer = Tokenizer.from_file(str(path))
        # The library raises plain Exception for whatever is wrong with the file.
        except Exception as error:
            raise TokenizerInvalid(
                path.parent, path.name, f"cannot be read as a tokenizer: {error}", "Export the model again"
            ) from error
        return cls(tokenizer, max_tokens)

    @property
    def vocabulary_size(self) -> int:
        """How many ids there are, `PADDING` included."""
        return int(self._tokenizer.get_vocab_size())

    def encode(self, text: str) -> NDArray[np.int64]:
        """The token ids `[L]` of `text`, 1 <= L <= `max_tokens`; words outside the vocabulary have the id of unknown.

        Raises:
            EmptyText: where no token is found (nothing but white space, for most tokenizers).
        """
        ids = self._tokenizer.encode(text).ids
        if not ids:
            raise EmptyText("the text is empty: it holds no word; send some text")
        return np.asarray(ids, dtype=np.int64)

    def encode_batch(self, texts: Sequence[str]) -> list[NDArray[np.int64]]:
        """The token ids of each of `texts`, on all cores; an array of none where `encode` raises `EmptyText`."""
        return [np.asarray(found.ids, dtype=np.int64) for found in self._tokenizer.encode_batch_fast(list(texts))]


def pad_tokens(sequences: Sequence[NDArray[np.int64]]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """A batch of N texts as a text model takes it: `tokens` int64 `[N, L]`, L the longest, and `lengths` `[N]`."""
    lengths = np.asarray([len(sequence) for sequence in sequences], dtype=np.int64)
    tokens = np.full((len(sequences), int(lengths.max(initial=0))), PADDING, dtype=np.int64)
    for row, sequence in zip(tokens, sequences, strict=True):
        row[: len(sequence)] = sequence
    return tokens, lengths
