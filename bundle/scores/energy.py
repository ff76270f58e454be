"""Energy at temperature 1: -log sum_k exp(z_k)."""

from bundle.scores.score import Score, Tensor


def energy(logits: Tensor) -> Tensor:
    """The energy `[...]` of logits `[..., K]`."""
    return -logits.logsumexp(dim=-1)


ENERGY = Score(
    name="energy",
    title="Energy, -logsumexp of the logits",
    unit="nats",
    source="Liu et al. 2020, Energy-based Out-of-distribution Detection",
    offset=0.0,
    sign=+1,
    formulas={("logits",): energy},
)
