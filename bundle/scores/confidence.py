"""Learned confidence: b(x) = sigmoid of the logit of a confidence branch."""

from bundle.scores.score import Score, Tensor


def confidence(confidence_logit: Tensor) -> Tensor:
    """The confidence `[N]` of the logits `[N]` of b(x)."""
    return confidence_logit.sigmoid()


CONFIDENCE = Score(
    name="confidence",
    title="Learned confidence b(x)",
    unit="probability",
    source="DeVries & Taylor 2018, Learning Confidence for Out-of-Distribution Detection",
    offset=1.0,
    sign=-1,
    formulas={("confidence_logit",): confidence},
)
