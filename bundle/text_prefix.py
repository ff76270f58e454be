"""The beginning of a long text that usually has all the tokens that a model reads, so that the rest is not encoded."""

import re
from collections.abc import Mapping
from typing import Any

_CHARS_PER_TOKEN = 6
"""More characters than a word and its space have in most languages."""
_SPACES = " \t\n"

# Components of the `tokenizers` library whose result before white space does not depend on the text after it.
_NORMALIZERS = frozenset({"NFC", "NFD", "NFKC", "NFKD", "Lowercase", "StripAccents", "BertNormalizer"})
_SPLITTERS = frozenset({"Whitespace", "WhitespaceSplit", "BertPreTokenizer"})


def prefix_length(tokenizer: Mapping[str, Any], max_tokens: int) -> int | None:
    """The maximum length in characters of the prefixes that a tokenizer may encode in place of longer texts.

    Args:
        tokenizer: the content of a `tokenizer.json`.
        max_tokens: the number of tokens that the model reads.

    Returns:
        The length, or None if the tokens of a prefix could differ from the first tokens of the text.
    """
    return _CHARS_PER_TOKEN * max_tokens if _splits_at_spaces(tokenizer) else None


def text_prefix(text: str, length: int | None) -> str:
    """The words of `text` within `length` characters; all of `text` if `length` is None or would save little."""
    if length is None or len(text) < 2 * length:
        return text
    end = max(text.rfind(space, 0, length) for space in _SPACES)
    return text[:end].rstrip(_SPACES) if end > 0 else text


def _splits_at_spaces(tokenizer: Mapping[str, Any]) -> bool:
    """Whether the tokens before a white space never depend on the text after it; False for unknown components."""
    normalizer, splitter = tokenizer["normalizer"], tokenizer["pre_tokenizer"]
    steps = [] if normalizer is None else normalizer.get("normalizers", [normalizer])
    splits = [] if splitter is None else splitter.get("pretokenizers", [splitter])
    return (
        all(step["type"] in _NORMALIZERS for step in steps)
        and bool(splits)
        and splits[0]["type"] in _SPLITTERS
        and not any(re.search(r"\s", added["content"]) for added in tokenizer["added_tokens"])
    )
