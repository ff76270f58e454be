"""Maximum softmax probability: max_k softmax(z)_k."""

from bundle.scores.score import Score, Tensor


def max_softmax_probability(logits: Tensor) -> Tensor:
    """The probability `[...]` of the most probable class, of logits `[..., K]`."""
    return logits.softmax(dim=-1).amax(dim=-1)


MSP = Score(
    name="msp",
    title="Maximum softmax probability",
    unit="probability",
    source="Hendrycks & Gimpel 2017, A Baseline for Detecting Misclassified and Out-of-Distribution Examples",
    offset=1.0,
    sign=-1,
    formulas={("logits",): max_softmax_probability},
)
