"""Likelihood heads: the bits of an input and of each of its parts, inside the exported graph (paper, section 4.4)."""

import math
from collections.abc import Sequence
from typing import Literal

from torch import Tensor

from bundle import SCORES, ModelOutput
from training.models.density import Density
from training.models.language_model import LanguageModel
from training.models.score_heads import ScoredModel, require_scores

PARTS = "bits"
"""The graph output with the bits of each part of an input."""


class ScoredDensity(ScoredModel):
    """A density of images with its scores, counted per pixel or `per` colour channel.

    Outputs: each of `scores` float32 `[N]`, and `bits` float32 `[N, H, W]`, those of each pixel, all channels together.

    Raises:
        RecipeError: if one of `scores` is not computed from the bits of pixels.
    """

    parts = PARTS

    def __init__(self, density: Density, scores: Sequence[str], per: Literal["pixel", "channel"]) -> None:
        require_scores(scores, ("pixel_bits", "count"))
        folded = getattr(density.network, "folded", None)
        super().__init__(Density(folded()) if callable(folded) else density, scores, (*scores, PARTS))
        self.per = per

    def forward(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        """Scores and parts of images `[N, H, W, C]`."""
        (images,) = inputs
        bits = self.model(images).float().nats / math.log(2)
        _, height, width, channels = images.shape
        count = height * width * (channels if self.per == "channel" else 1)
        outputs: dict[ModelOutput, Tensor | int] = {"pixel_bits": bits, "count": count}
        return (*(SCORES[name].compute(outputs) for name in self.scores), bits)


class ScoredLanguageModel(ScoredModel):
    """A language model of words or characters with its scores.

    Outputs: each of `scores` float32 `[N]`, and `bits` float32 `[N, L+1]`, those of each token and of the end.

    Raises:
        RecipeError: if one of `scores` is not computed from the predictions of symbols, or not from those of `unit`.
    """

    parts = PARTS
    model: LanguageModel

    def __init__(self, model: LanguageModel, scores: Sequence[str], unit: Literal["word", "character"]) -> None:
        bits_output: ModelOutput = "word_bits" if unit == "word" else "character_bits"
        require_scores(scores, (bits_output, "uniform_nats", "count"))
        super().__init__(model, scores, (*scores, PARTS))
        self.bits_output = bits_output
        self.unit = unit

    def of_segments(self) -> "ScoredLanguageModel":
        """The model of segments of texts: END is counted where a segment holds it, not after the segment."""
        model = self.model
        without_end = LanguageModel(model.network, model.end, window=model.window, count_end=False)
        return ScoredLanguageModel(without_end, self.scores, self.unit)

    def forward(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        """Scores and parts of token ids `[N, L]` with lengths `[N]`."""
        tokens, lengths = inputs
        symbols = self.model.score_symbols(tokens, lengths)
        outputs: dict[ModelOutput, Tensor] = {
            self.bits_output: symbols.bits,
            "uniform_nats": symbols.uniform_nats,
            "count": symbols.num_symbols,
        }
        return (*(SCORES[name].compute(outputs) for name in self.scores), symbols.bits)
