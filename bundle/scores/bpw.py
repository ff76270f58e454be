"""Bits per word: the sum of a text's bits, divided by its number of words."""

from bundle.scores.score import Score, Tensor


def bits_per_word(word_bits: Tensor, count: Tensor) -> Tensor:
    """The bits per word `[N]` of words' bits `[N, L+1]` and their number `[N]`."""
    return word_bits.sum(dim=1) / count


BPW = Score(
    name="bpw",
    title="Bits per word",
    unit="bits",
    source="Hendrycks, Mazeika & Dietterich 2019, Deep Anomaly Detection with Outlier Exposure",
    offset=0.0,
    sign=+1,
    formulas={("word_bits", "count"): bits_per_word},
)
