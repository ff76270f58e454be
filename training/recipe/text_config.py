"""The `input` section of a recipe for texts."""

from typing import Literal, Self

from pydantic import Field, model_validator

from training.recipe.section import Section


class TextConfig(Section):
    """The input of a text model: at most `max_tokens` tokens per text.

    `tokenizer` is the path of a tokenizer.json, of a folder that holds one, or the name of a model on the hub. Without
    it, a tokenizer of words or characters (`unit`) is built from the in-distribution training texts. Its vocabulary is
    the `vocabulary_size` most frequent symbols that occur at least `min_frequency` times. `normalize: penn-treebank`
    converts every text to the form of that corpus: lower case, N for numbers, no punctuation, words separated by
    spaces.
    """

    kind: Literal["text"] = "text"
    max_tokens: int = Field(default=256, ge=1)
    tokenizer: str | None = None
    vocabulary_size: int = Field(default=20_000, ge=3)
    min_frequency: int = Field(default=2, ge=1)
    lowercase: bool = True
    unit: Literal["word", "character"] = "word"
    normalize: Literal["penn-treebank"] | None = None

    @model_validator(mode="after")
    def _no_option_is_ignored(self) -> Self:
        if self.tokenizer is not None and (self.unit != "word" or self.normalize is not None):
            raise ValueError(
                "unit and normalize: for a tokenizer built from the training texts, not for an existing one"
            )
        if self.normalize is not None and not self.lowercase:
            raise ValueError(f"lowercase: false: '{self.normalize}' is in lower case")
        return self
