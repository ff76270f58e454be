"""Entropy of the predicted distribution: -sum_k p_k log p_k, p = softmax(z)."""

from bundle.scores.score import Score, Tensor


def entropy(logits: Tensor) -> Tensor:
    """The entropy `[...]` of the softmax of logits `[..., K]`."""
    return -(logits.softmax(dim=-1) * logits.log_softmax(dim=-1)).sum(dim=-1)


ENTROPY = Score(
    name="entropy",
    title="Entropy of the softmax",
    unit="nats",
    source="Shannon 1948, A Mathematical Theory of Communication",
    offset=0.0,
    sign=+1,
    formulas={("logits",): entropy},
)
