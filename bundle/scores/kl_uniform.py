"""Cross entropy of the uniform distribution with the prediction: -(1/K) sum_k log p_k, p = softmax(z).

A language model predicts each symbol of a text: its value is the mean over the text's symbols, with K the size of the
vocabulary. The evaluation of language models in the authors' code (`eval_ood.py`) ranks texts by this mean.
"""

from bundle.scores.score import Score, Tensor


def uniform_cross_entropy(logits: Tensor) -> Tensor:
    """The cross entropy `[...]` of the uniform distribution with the softmax of logits `[..., K]`."""
    return -logits.log_softmax(dim=-1).mean(dim=-1)


def mean_uniform_cross_entropy(uniform_nats: Tensor, count: Tensor) -> Tensor:
    """The mean `[N]` of the cross entropies `[N, L+1]` of a text's symbols, of which there are `count` `[N]`."""
    return uniform_nats.sum(dim=1) / count


KL_UNIFORM = Score(
    name="kl_uniform",
    title="Cross entropy of the uniform distribution with the softmax, H(U; f(x))",
    unit="nats",
    source="Hendrycks, Mazeika & Dietterich 2019, Deep Anomaly Detection with Outlier Exposure, the training term on "
    "outliers",
    offset=0.0,
    sign=-1,
    formulas={
        ("logits",): uniform_cross_entropy,
        ("uniform_nats", "count"): mean_uniform_cross_entropy,
    },
)
