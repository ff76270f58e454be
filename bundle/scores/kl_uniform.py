"""Cross entropy of the uniform distribution with the prediction: -(1/K) sum_k log p_k, p = softmax(z)."""

from bundle.scores.score import Score, Tensor


def uniform_cross_entropy(logits: Tensor) -> Tensor:
    """The cross entropy `[...]` of the uniform distribution with the softmax of logits `[..., K]`."""
    return -logits.log_softmax(dim=-1).mean(dim=-1)


KL_UNIFORM = Score(
    name="kl_uniform",
    title="Cross entropy of the uniform distribution with the softmax, H(U; f(x))",
    unit="nats",
    source="Hendrycks, Mazeika & Dietterich 2019, Deep Anomaly Detection with Outlier Exposure, the training term on "
    "outliers",
    offset=0.0,
    sign=-1,
    inputs=("logits",),
    formula=uniform_cross_entropy,
)
