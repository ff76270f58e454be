"""Converts texts to a model's input. Training, evaluation and serving share this code.

The bundle's tokenizer, a `tokenizer.json` of the `tokenizers` library, normalises a text, splits it into tokens and
looks up their ids. Tokens beyond the model's maximum are cut off.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from tokenizers import Encoding, Tokenizer

from bundle.errors import EmptyText, TokenizerInvalid
from bundle.text_prefix import prefix_length, text_prefix

PADDING = 0
"""The id that fills up the shorter texts of a batch. A model ignores it, because it gets the lengths."""

# No word of any vocabulary, several scripts, control characters, the empty text, more tokens than any model reads.
_TEST_TEXTS = ("", "\U0010fffd", "zq\u0416\u6f22\U0001f600\u200d\0", "\ufdd0 " * 3, "zq xj " * 2048)


# Words after the encoded prefix are counted within this many characters, which takes less time than encoding.
_COUNTED_CHARS = 16_384


@dataclass(frozen=True, slots=True)
class TokenCount:
    """How many tokens of a text a model reads, and how many the text has; special tokens count.

    Attributes:
        read: the tokens that the model reads.
        total: the tokens of the text; at least that many if not `exact`.
        exact: whether all of the text was encoded to count them.
    """

    read: int
    total: int
    exact: bool = True

    @property
    def truncated(self) -> bool:
        """Whether the model reads the text only in part."""
        return self.total > self.read


@dataclass(frozen=True, slots=True, eq=False)
class EncodedText:
    """The token ids int64 `[L]` that a model reads of a text, and their count."""

    ids: NDArray[np.int64]
    tokens: TokenCount


class TextEncoder:
    """Encodes texts as the token ids of a model. Thread-safe; the GIL is free during encoding.

    Every text can be encoded. A lone surrogate, which UTF-8 cannot represent, counts as U+FFFD.

    Args:
        tokenizer: the tokenizer; its own truncation and padding are ignored.
        max_tokens: the number of tokens that the model reads.

    Raises:
        ValueError: if the tokenizer cannot encode every text, or if its special tokens take up all of `max_tokens`.
    """

    def __init__(self, tokenizer: Tokenizer, max_tokens: int) -> None:
        # A copy, because truncation and padding are settings of the tokenizer object.
        content = tokenizer.to_str()
        self._tokenizer = Tokenizer.from_str(content)
        self._tokenizer.no_padding()
        self._special = self._tokenizer.num_special_tokens_to_add(False)
        if self._special >= max_tokens:
            raise ValueError(
                f"it adds {self._special} tokens to every text, which leaves no room for words in {max_tokens}"
            )
        self._tokenizer.enable_truncation(max_tokens)
        description = json.loads(content)
        self._prefix_length = prefix_length(description, max_tokens)
        self.max_tokens = max_tokens
        self._vocabulary_size = max(self._tokenizer.get_vocab().values(), default=-1) + 1
        try:
            self.encode_batch(_TEST_TEXTS)
        # The library raises plain Exception, for example if the vocabulary has no id for unknown words.
        except Exception as error:
            raise ValueError(f"it cannot encode every text: {error}") from error
        self._unknown_id = self._find_unknown_id(description["model"])
        self._special_ids = self._find_special_ids(description) - {self._unknown_id}

    @classmethod
    def load(cls, path: Path, max_tokens: int) -> Self:
        """The encoder of the tokenizer file at `path`.

        Raises:
            TokenizerInvalid: if the file is not a tokenizer, or one that cannot encode every text.
        """
        try:
            return cls(Tokenizer.from_file(str(path)), max_tokens)
        except (KeyboardInterrupt, SystemExit):
            raise
        # The library raises plain Exception for most faults of a file. Its Rust code panics for some, which Python
        # sees as a BaseException.
        except BaseException as error:
            raise TokenizerInvalid(
                path.parent, path.name, f"cannot be used as a tokenizer: {error}", "Export the model again"
            ) from error

    @property
    def vocabulary_size(self) -> int:
        """The largest id plus one: the rows of an embedding table, `PADDING` included."""
        return self._vocabulary_size

    @property
    def unknown_id(self) -> int | None:
        """The id of words outside the vocabulary; None if the tokenizer can encode every word, as byte pairs do."""
        return self._unknown_id

    @property
    def special_ids(self) -> frozenset[int]:
        """The ids that stand for no part of a text, such as padding and the marks of its start and end."""
        return self._special_ids

    def encode(self, text: str) -> NDArray[np.int64]:
        """The token ids `[L]` of `text`, 1 <= L <= `max_tokens`; words outside the vocabulary have the id of unknown.

        Raises:
            EmptyText: if the text has no token, or only white space.
        """
        encoded = self.encode_within(text, len(text))
        assert encoded is not None, "all of the text may be read"
        return encoded.ids

    def encode_within(self, text: str, max_chars: int) -> EncodedText | None:
        """As `encode`, with the count; None if more than `max_chars` characters of `text` would have to be encoded.

        Raises:
            EmptyText: as `encode`.
        """
        prefix = text_prefix(text, self._prefix_length)
        if len(prefix) > max_chars:
            return None
        (encoding,) = self._encode([prefix])
        if self._is_too_short(text, prefix, encoding):
            if len(text) > max_chars:
                return None
            prefix = text
            (encoding,) = self._encode([text])
        ids = _ids(text, encoding)
        if not ids.size:
            raise EmptyText("the text is empty: it holds no word; send some text")
        return EncodedText(ids, self._count(encoding, text, len(prefix)))

    def encode_batch(self, texts: Sequence[str]) -> list[NDArray[np.int64]]:
        """The token ids of each of `texts`, on all cores; an empty array for each that `encode` refuses."""
        prefixes = [text_prefix(text, self._prefix_length) for text in texts]
        encodings = self._encode(prefixes)
        incomplete = [
            index
            for index, (text, prefix) in enumerate(zip(texts, prefixes, strict=True))
            if self._is_too_short(text, prefix, encodings[index])
        ]
        for index, encoding in zip(incomplete, self._encode([texts[index] for index in incomplete]), strict=True):
            encodings[index] = encoding
        return [_ids(text, encoding) for text, encoding in zip(texts, encodings, strict=True)]

    def tokens(self, ids: NDArray[np.int64]) -> list[str]:
        """The vocabulary's tokens for `ids` `[L]`."""
        return [self._tokenizer.id_to_token(int(id_)) or "" for id_ in ids]

    def _count(self, encoding: Encoding, text: str, encoded_chars: int) -> TokenCount:
        """The tokens of `text`, of which the first `encoded_chars` characters became `encoding`."""
        read = len(encoding)
        total = read
        if read == self.max_tokens:
            total += sum(len(part) - self._special for part in encoding.overflowing)
        if encoded_chars == len(text):
            return TokenCount(read, total)
        # A prefix ends before a white space, and every word after it has a token at least.
        words = len(text[encoded_chars : encoded_chars + _COUNTED_CHARS].split())
        return TokenCount(read, total + words, exact=not words and len(text) - encoded_chars <= _COUNTED_CHARS)

    def _find_unknown_id(self, model: Mapping[str, Any]) -> int | None:
        if model.get("unk_token") is None:
            # The Unigram model names the id.
            return model.get("unk_id")
        return self._tokenizer.token_to_id(model["unk_token"])

    def _find_special_ids(self, description: Mapping[str, Any]) -> frozenset[int]:
        """The special tokens of the vocabulary, and those that are added to a text."""
        added = {int(token["id"]) for token in description.get("added_tokens") or () if token.get("special")}
        (empty,) = self._encode([""])
        marks = zip(empty.ids, empty.special_tokens_mask, strict=True)
        return frozenset(added | {id_ for id_, is_special in marks if is_special})

    def _is_too_short(self, text: str, prefix: str, encoding: Encoding) -> bool:
        """Whether a prefix of long words has fewer tokens than the model reads, so that all of `text` is needed."""
        return len(prefix) < len(text) and len(encoding) < self.max_tokens

    def _encode(self, texts: Sequence[str]) -> list[Encoding]:
        # The batch call even for one text: it releases the GIL and computes no offsets; see docs/performance.md.
        try:
            return self._tokenizer.encode_batch_fast(list(texts))
        except TypeError:
            return self._tokenizer.encode_batch_fast([_without_surrogates(text) for text in texts])


def pad_tokens(sequences: Sequence[NDArray[np.int64]]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The inputs of a text model for N texts: `tokens` int64 `[N, L]`, L the longest, and `lengths` int64 `[N]`."""
    lengths = np.asarray([len(sequence) for sequence in sequences], dtype=np.int64)
    tokens = np.full((len(sequences), int(lengths.max(initial=0))), PADDING, dtype=np.int64)
    for row, sequence in zip(tokens, sequences, strict=True):
        row[: len(sequence)] = sequence
    return tokens, lengths


def _ids(text: str, encoding: Encoding) -> NDArray[np.int64]:
    # A tokenizer may find tokens in white space, or add special tokens to an empty text. Both are empty all the same.
    if text.isspace() or all(encoding.special_tokens_mask):
        return np.empty(0, dtype=np.int64)
    return np.asarray(encoding.ids, dtype=np.int64)


def _without_surrogates(text: str) -> str:
    return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
