"""Generalised entropy of the prediction: sum_j p_j^gamma (1 - p_j)^gamma over the M most probable classes.

gamma = 0.1 and M = 100, as in the paper. In log space, because p_j underflows and 1 - p_1 cancels in float32: with
gamma = 0.1, a class with 1 - p = 1e-9 still contributes 0.13.
"""

from bundle.scores.score import Score, Tensor

GAMMA = 0.1
TOP_CLASSES = 100


def generalised_entropy(logits: Tensor) -> Tensor:
    """The generalised entropy `[...]` of the softmax of logits `[..., K]` of two or more classes."""
    shifted = logits - logits.amax(dim=-1, keepdim=True)
    top, _ = shifted.topk(min(TOP_CLASSES, int(logits.shape[-1])), dim=-1)
    normaliser = shifted.logsumexp(dim=-1, keepdim=True)
    log_p = top - normaliser
    second = top[..., 1:2]
    # The clamped term of the most probable class is 1, as that of the second: the sum of the others is at least 1.
    sum_of_others = (shifted - second).clamp(max=0.0).exp().sum(dim=-1, keepdim=True) - 1
    # 1 - p of the most probable class is the probability of the others. No other class has p > 1/2.
    log_q_of_first = second + sum_of_others.log() - normaliser
    log_q_of_further = (-log_p[..., 1:].exp()).log1p()
    first = (GAMMA * (log_p[..., :1] + log_q_of_first)).exp()
    further = (GAMMA * (log_p[..., 1:] + log_q_of_further)).exp()
    return first.sum(dim=-1) + further.sum(dim=-1)


GEN = Score(
    name="gen",
    title="Generalised entropy of the softmax",
    unit="1",
    source="Liu, Lochman & Zach 2023, GEN: Pushing the Limits of Softmax-Based Out-of-Distribution Detection",
    offset=0.0,
    sign=+1,
    formulas={("logits",): generalised_entropy},
)
