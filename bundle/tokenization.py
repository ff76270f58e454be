"""Text to the model's input: the one way that training, evaluation and serving share.

What happens to a text, in order: the bundle's own tokenizer (a `tokenizer.json` of the `tokenizers` library)
normalises it, splits it into tokens and looks up their ids; what exceeds the model's length is cut off at the end.
"""

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from tokenizers import Encoding, Tokenizer

from bundle.errors import EmptyText, TokenizerInvalid

PADDING = 0
"""The id that fills up a batch's shorter texts; a model never reads it, because it gets the lengths."""


class TextEncoder:
    """A tokenizer and the length that a model takes. Encoding is thread-safe, and other Python threads run meanwhile.

    Every text is defined: a lone surrogate, which UTF-8 cannot hold, is read as U+FFFD, the replacement character.

    Raises:
        ValueError: if the tokenizer cannot encode every text, or marks of its own take up all of `max_tokens`.
    """

    def __init__(self, tokenizer: Tokenizer, max_tokens: int) -> None:
        # A private copy: truncation and padding are settings of the tokenizer object itself.
        content = tokenizer.to_str()
        self._tokenizer = Tokenizer.from_str(content)
        self._tokenizer.no_padding()
        marks = self._tokenizer.num_special_tokens_to_add(False)
        if marks >= max_tokens:
            raise ValueError(f"it adds {marks} tokens to every text, which leaves no room for words in {max_tokens}")
        self._tokenizer.enable_truncation(max_tokens)
        self._head_chars = _HEAD_CHARS * max_tokens if _splits_at_spaces(json.loads(content)) else None
        self.max_tokens = max_tokens
        self._vocabulary_size = max(self._tokenizer.get_vocab().values(), default=-1) + 1
        try:
            self.encode_batch(_STRANGE_TEXTS)
        # The library raises plain Exception, for example where the vocabulary has no id for unknown words.
        except Exception as error:
            raise ValueError(f"it cannot encode every text: {error}") from error

    @classmethod
    def load(cls, path: Path, max_tokens: int) -> Self:
        """The encoder of the tokenizer file at `path`.

        Raises:
            TokenizerInvalid: if the file is no tokenizer, or one that cannot encode every text.
        """
        try:
            return cls(Tokenizer.from_file(str(path)), max_tokens)
        except (KeyboardInterrupt, SystemExit):
            raise
        # The library raises plain Exception for whatever is wrong with the file, and for some of it its Rust code
        # panics, which Python sees as a BaseException.
        except BaseException as error:
            raise TokenizerInvalid(
                path.parent, path.name, f"cannot be used as a tokenizer: {error}", "Export the model again"
            ) from error

    @property
    def vocabulary_size(self) -> int:
        """One more than the largest id: the rows that a table of embeddings needs, `PADDING` included."""
        return self._vocabulary_size

    def encode(self, text: str) -> NDArray[np.int64]:
        """The token ids `[L]` of `text`, 1 <= L <= `max_tokens`; words outside the vocabulary have the id of unknown.

        Raises:
            EmptyText: where no token is found, or nothing but white space.
        """
        ids = self.encode_within(text, len(text))
        assert ids is not None, "it may all be read"
        return ids

    def encode_within(self, text: str, chars: int) -> NDArray[np.int64] | None:
        """As `encode`, but None where more than so many `chars` of `text` would have to be read.

        Raises:
            EmptyText: as `encode`.
        """
        head = self._head(text)
        if len(head) > chars:
            return None
        (encoding,) = self._encode([head])
        if self._falls_short(text, head, encoding):
            if len(text) > chars:
                return None
            (encoding,) = self._encode([text])
        ids = _ids(text, encoding)
        if not ids.size:
            raise EmptyText("the text is empty: it holds no word; send some text")
        return ids

    def tokens(self, ids: NDArray[np.int64]) -> list[str]:
        """The tokens that `ids` `[L]` stand for, as the vocabulary has them."""
        return [self._tokenizer.id_to_token(int(each)) or "" for each in ids]

    def encode_batch(self, texts: Sequence[str]) -> list[NDArray[np.int64]]:
        """The token ids of each of `texts`, on all cores; an array of none where `encode` raises `EmptyText`."""
        heads = [self._head(text) for text in texts]
        found = self._encode(heads)
        short = [
            index
            for index, (text, head) in enumerate(zip(texts, heads, strict=True))
            if self._falls_short(text, head, found[index])
        ]
        for index, encoding in zip(short, self._encode([texts[index] for index in short]), strict=True):
            found[index] = encoding
        return [_ids(text, encoding) for text, encoding in zip(texts, found, strict=True)]

    def _head(self, text: str) -> str:
        """What probably holds all the tokens of `text` that the model takes, or all of it where that saves little."""
        if self._head_chars is None or len(text) < 2 * self._head_chars:
            return text
        cut = max(text.rfind(space, 0, self._head_chars) for space in _SPACES)
        return text[:cut].rstrip(_SPACES) if cut > 0 else text

    def _falls_short(self, text: str, head: str, encoding: Encoding) -> bool:
        """Whether a head of few but long words does not fill the model: the rest counts."""
        return len(head) < len(text) and len(encoding) < self.max_tokens

    def _encode(self, texts: Sequence[str]) -> list[Encoding]:
        # The batch call even for a single text: unlike `Tokenizer.encode` it lets go of the GIL, and it computes no
        # offsets, which takes half the time.
        try:
            return self._tokenizer.encode_batch_fast(list(texts))
        except TypeError:
            return self._tokenizer.encode_batch_fast([_without_surrogates(text) for text in texts])


# More than words and their spaces take in most languages.
_HEAD_CHARS = 6
_SPACES = " \t\n"

# Of the `tokenizers` library: what looks at no character across a white space.
_NORMALIZERS = frozenset({"NFC", "NFD", "NFKC", "NFKD", "Lowercase", "StripAccents", "BertNormalizer"})
_SPLITTERS = frozenset({"Whitespace", "WhitespaceSplit", "BertPreTokenizer"})


def _splits_at_spaces(tokenizer: Mapping[str, Any]) -> bool:
    """Whether what comes before a white space has the same tokens whatever comes behind it.

    `tokenizer` is the content of a `tokenizer.json`. Of what is not known to be so, False.
    """
    normalizer, splitter = tokenizer["normalizer"], tokenizer["pre_tokenizer"]
    steps = [] if normalizer is None else normalizer.get("normalizers", [normalizer])
    splits = [] if splitter is None else splitter.get("pretokenizers", [splitter])
    return (
        all(step["type"] in _NORMALIZERS for step in steps)
        and bool(splits)
        and splits[0]["type"] in _SPLITTERS
        and not any(re.search(r"\s", added["content"]) for added in tokenizer["added_tokens"])
    )


# Out of every vocabulary, several scripts, control characters, nothing, and longer than any model takes at once.
_STRANGE_TEXTS = ("", "\U0010fffd", "zq\u0416\u6f22\U0001f600\u200d\0", "\ufdd0 " * 3, "zq xj " * 2048)


def _ids(text: str, encoding: Encoding) -> NDArray[np.int64]:
    # A tokenizer may find tokens in white space, or add its own marks around nothing: there is no text all the same.
    if text.isspace() or all(encoding.special_tokens_mask):
        return np.empty(0, dtype=np.int64)
    return np.asarray(encoding.ids, dtype=np.int64)


def _without_surrogates(text: str) -> str:
    return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")


def pad_tokens(sequences: Sequence[NDArray[np.int64]]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """A batch of N texts as a text model takes it: `tokens` int64 `[N, L]`, L the longest, and `lengths` `[N]`."""
    lengths = np.asarray([len(sequence) for sequence in sequences], dtype=np.int64)
    tokens = np.full((len(sequences), int(lengths.max(initial=0))), PADDING, dtype=np.int64)
    for row, sequence in zip(tokens, sequences, strict=True):
        row[: len(sequence)] = sequence
    return tokens, lengths
