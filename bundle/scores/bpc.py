"""Bits per character: the sum of a text's bits, divided by its number of characters."""

from bundle.scores.score import Score, Tensor


def bits_per_character(character_bits: Tensor, count: Tensor) -> Tensor:
    """The bits per character `[N]` of characters' bits `[N, L+1]` and their number `[N]`."""
    return character_bits.sum(dim=1) / count


BPC = Score(
    name="bpc",
    title="Bits per character",
    unit="bits",
    source="Hendrycks, Mazeika & Dietterich 2019, Deep Anomaly Detection with Outlier Exposure",
    offset=0.0,
    sign=+1,
    formulas={("character_bits", "count"): bits_per_character},
)
