"""Maximum logit: max_k z_k."""

from bundle.scores.score import Score, Tensor


def max_logit(logits: Tensor) -> Tensor:
    """The largest logit `[...]` of logits `[..., K]`."""
    return logits.amax(dim=-1)


MAX_LOGIT = Score(
    name="max_logit",
    title="Maximum logit",
    unit="logit",
    source="Hendrycks et al. 2022, Scaling Out-of-Distribution Detection for Real-World Settings",
    offset=0.0,
    sign=-1,
    formulas={("logits",): max_logit},
)
