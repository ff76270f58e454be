"""Likelihood heads: bits of an input and of each of its parts, inside the exported graph (paper, section 4.4)."""

import math
from collections.abc import Sequence
from typing import Literal

from torch import Tensor

from training.errors import RecipeError
from training.models.density import Density
from training.models.language_model import LanguageModel
from training.models.score_heads import ScoredModel

PARTS = "bits"
"""The graph output with the bits of each part of an input."""


class ScoredDensity(ScoredModel):
    """Bits per pixel: nll / (num_pixels * ln 2), a pixel counted once or once `per` colour channel.

    Outputs: `bpp` float32 `[N]`, and `bits` float32 `[N, H, W]`, those of each pixel with all its channels.
    """

    parts = PARTS

    def __init__(self, density: Density, scores: Sequence[str], per: Literal["pixel", "channel"]) -> None:
        _require(scores, "bpp")
        folded = getattr(density.network, "folded", None)
        super().__init__(Density(folded()) if callable(folded) else density, scores, (*scores, PARTS))
        self.per = per

    def forward(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        """Score and parts of images `[N, H, W, C]`."""
        (images,) = inputs
        bits = self.model(images).float().nats / math.log(2)
        counted = images.shape[3] if self.per == "channel" else 1
        return bits.mean(dim=(1, 2)) / counted, bits


class ScoredLanguageModel(ScoredModel):
    """Bits per word or character: nll / (length * ln 2).

    Outputs: `bpw` or `bpc` float32 `[N]`, and `bits` float32 `[N, L+1]`, those of each token and of the end.
    """

    parts = PARTS
    model: LanguageModel

    def __init__(self, model: LanguageModel, scores: Sequence[str], unit: Literal["word", "character"]) -> None:
        _require(scores, "bpw" if unit == "word" else "bpc")
        super().__init__(model, scores, (*scores, PARTS))

    def forward(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        """Score and parts of token ids `[N, L]` with lengths `[N]`."""
        tokens, lengths = inputs
        bits = self.model.bits(tokens, lengths)
        return bits.mean, bits.of_symbols


def _require(scores: Sequence[str], only: str) -> None:
    if tuple(scores) != (only,):
        raise RecipeError("export.scores", f"this model has the score {only} alone", f"Set export.scores: [{only}]")
