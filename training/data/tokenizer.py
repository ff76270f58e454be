"""The tokenizer of a text model: made of the in-distribution training texts, or the one a backbone comes with."""

from collections.abc import Iterator, Sequence
from pathlib import Path

from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, trainers

from training.errors import RecipeError
from training.recipe import TextPlan

PADDING_TOKEN, UNKNOWN_TOKEN = "[PAD]", "[UNK]"
_FILE = "tokenizer.json"


def train_word_tokenizer(texts: Sequence[str], plan: TextPlan) -> Tokenizer:
    """Words and punctuation marks, the most frequent of `texts`; id 0 is padding, id 1 every other word."""
    tokenizer = Tokenizer(models.WordLevel(unk_token=UNKNOWN_TOKEN))
    steps: list[normalizers.Normalizer] = [normalizers.NFKC()]
    if plan.lowercase:
        steps.append(normalizers.Lowercase())
    tokenizer.normalizer = normalizers.Sequence(steps)
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    trainer = trainers.WordLevelTrainer(
        vocab_size=plan.vocabulary_size,
        min_frequency=plan.min_frequency,
        special_tokens=[PADDING_TOKEN, UNKNOWN_TOKEN],
        show_progress=False,
    )
    tokenizer.train_from_iterator(_batches(texts), trainer)
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


def _batches(texts: Sequence[str], size: int = 1000) -> Iterator[Sequence[str]]:
    return (texts[start : start + size] for start in range(0, len(texts), size))
