"""Tokenizers: built from the in-distribution training texts, or loaded for a pretrained backbone."""

from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import chain
from pathlib import Path

from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers, trainers

from training.data.penn_treebank import UNREADABLE, penn_treebank
from training.errors import RecipeError
from training.recipe import TextConfig

PADDING_TOKEN, UNKNOWN_TOKEN = "[PAD]", "[UNK]"
_FILE = "tokenizer.json"


def train_tokenizer(texts: Sequence[str], config: TextConfig) -> Tokenizer:
    """Build the tokenizer that `config` describes from `texts`; id 0 is padding, id 1 the unknown token."""
    if config.unit == "word" and config.normalize is None:
        return train_word_tokenizer(texts, config)
    return train_symbol_tokenizer(texts, config)


def train_word_tokenizer(texts: Sequence[str], config: TextConfig) -> Tokenizer:
    """Build a tokenizer of words and punctuation marks, the most frequent of `texts`."""
    tokenizer = Tokenizer(models.WordLevel(unk_token=UNKNOWN_TOKEN))
    tokenizer.normalizer = _normalizer(config)
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    trainer = trainers.WordLevelTrainer(
        vocab_size=config.vocabulary_size,
        min_frequency=config.min_frequency,
        special_tokens=[PADDING_TOKEN, UNKNOWN_TOKEN],
        show_progress=False,
    )
    tokenizer.train_from_iterator(_batches(texts), trainer)
    return tokenizer


def train_symbol_tokenizer(texts: Sequence[str], config: TextConfig) -> Tokenizer:
    """Build a tokenizer of characters, or of words separated by spaces: the most frequent of `texts`.

    No text is read as a special token: "[UNK]" is five characters or one word. The normaliser's `UNREADABLE` becomes
    the unknown token.
    """
    normalizer = _normalizer(config)
    splitter: pre_tokenizers.PreTokenizer = (
        pre_tokenizers.Split(Regex(r"[\s\S]"), "isolated")
        if config.unit == "character"
        else pre_tokenizers.WhitespaceSplit()
    )
    counts = Counter(
        chain.from_iterable(
            (symbol for symbol, _ in splitter.pre_tokenize_str(normalizer.normalize_str(text))) for text in texts
        )
    )
    frequent = sorted(
        (
            symbol
            for symbol, count in counts.items()
            if count >= config.min_frequency and symbol not in {UNREADABLE, PADDING_TOKEN, UNKNOWN_TOKEN}
        ),
        key=lambda symbol: (-counts[symbol], symbol),
    )
    vocabulary = [PADDING_TOKEN, UNKNOWN_TOKEN, *frequent][: config.vocabulary_size]
    ids = {symbol: i for i, symbol in enumerate(vocabulary)}
    tokenizer = Tokenizer(models.WordLevel(ids, unk_token=UNKNOWN_TOKEN))
    tokenizer.normalizer = normalizer
    tokenizer.pre_tokenizer = splitter
    return tokenizer


def existing_tokenizer(name: str) -> Tokenizer:
    """Load a tokenizer from a file, from a folder with a `tokenizer.json`, or from a model on the hub.

    Raises:
        RecipeError: There is no tokenizer of that name.
    """
    path = Path(name)
    try:
        if path.exists():
            return Tokenizer.from_file(str(path / _FILE if path.is_dir() else path))
        return Tokenizer.from_pretrained(name)
    # The library raises Exception itself, the hub's client exceptions of many types.
    except Exception as error:
        remedy = f"Name a {_FILE}, a folder that holds one, or a model on the hub"
        raise RecipeError("input.tokenizer", f"'{name}' gives no tokenizer: {error}", remedy) from error


def _normalizer(config: TextConfig) -> normalizers.Normalizer:
    if config.normalize == "penn-treebank":
        return penn_treebank()
    return normalizers.Sequence([normalizers.NFKC(), *([normalizers.Lowercase()] if config.lowercase else [])])


def _batches(texts: Sequence[str], size: int = 1000) -> Iterator[Sequence[str]]:
    return (texts[start : start + size] for start in range(0, len(texts), size))
