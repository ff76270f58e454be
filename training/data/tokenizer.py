"""The tokenizer of a text model: made of the in-distribution training texts, or the one a backbone comes with."""

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


def train_tokenizer(texts: Sequence[str], plan: TextConfig) -> Tokenizer:
    """The tokenizer that `plan` asks for, made of `texts`; id 0 is padding, id 1 whatever is not in the vocabulary."""
    if plan.unit == "word" and plan.normalize is None:
        return train_word_tokenizer(texts, plan)
    return train_symbol_tokenizer(texts, plan)


def train_word_tokenizer(texts: Sequence[str], plan: TextConfig) -> Tokenizer:
    """Words and punctuation marks, the most frequent of `texts`; id 0 is padding, id 1 every other word."""
    tokenizer = Tokenizer(models.WordLevel(unk_token=UNKNOWN_TOKEN))
    tokenizer.normalizer = _normalizer(plan)
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    trainer = trainers.WordLevelTrainer(
        vocab_size=plan.vocabulary_size,
        min_frequency=plan.min_frequency,
        special_tokens=[PADDING_TOKEN, UNKNOWN_TOKEN],
        show_progress=False,
    )
    tokenizer.train_from_iterator(_batches(texts), trainer)
    return tokenizer


def train_symbol_tokenizer(texts: Sequence[str], plan: TextConfig) -> Tokenizer:
    """Characters, or words between spaces, the most frequent of `texts`.

    No text is read as a marker: "[UNK]" is five characters, or a word. What the normaliser could not read is unknown.
    """
    normalizer = _normalizer(plan)
    splitter: pre_tokenizers.PreTokenizer = (
        pre_tokenizers.Split(Regex(r"[\s\S]"), "isolated")
        if plan.unit == "character"
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
            if count >= plan.min_frequency and symbol not in {UNREADABLE, PADDING_TOKEN, UNKNOWN_TOKEN}
        ),
        key=lambda symbol: (-counts[symbol], symbol),
    )
    vocabulary = [PADDING_TOKEN, UNKNOWN_TOKEN, *frequent][: plan.vocabulary_size]
    ids = {symbol: i for i, symbol in enumerate(vocabulary)}
    tokenizer = Tokenizer(models.WordLevel(ids, unk_token=UNKNOWN_TOKEN))
    tokenizer.normalizer = normalizer
    tokenizer.pre_tokenizer = splitter
    return tokenizer


def existing_tokenizer(named: str) -> Tokenizer:
    """The tokenizer of a file, of a folder with a `tokenizer.json`, or of a model on the hub; RecipeError if none."""
    path = Path(named)
    try:
        if path.exists():
            return Tokenizer.from_file(str(path / _FILE if path.is_dir() else path))
        return Tokenizer.from_pretrained(named)
    # The library raises plain Exception, the hub's client a dozen types of its own.
    except Exception as error:
        remedy = f"Name a {_FILE}, a folder that holds one, or a model on the hub"
        raise RecipeError("input.tokenizer", f"'{named}' gives no tokenizer: {error}", remedy) from error


def _normalizer(plan: TextConfig) -> normalizers.Normalizer:
    if plan.normalize == "penn-treebank":
        return penn_treebank()
    return normalizers.Sequence([normalizers.NFKC(), *([normalizers.Lowercase()] if plan.lowercase else [])])


def _batches(texts: Sequence[str], size: int = 1000) -> Iterator[Sequence[str]]:
    return (texts[start : start + size] for start in range(0, len(texts), size))
