"""Nearest neighbours: the squared distance of normalised features from the k-th nearest training example.

    || z - z_(k) ||^2 = 2 - 2 z . z_(k),    z = f / ||f||

The paper uses the distance itself, which ranks inputs alike. k = 5 leaves single mislabelled neighbours without effect.
"""

from bundle.scores.normalisation import normalised
from bundle.scores.score import Score, Tensor

NEIGHBOUR = 5
"""k: the rank of the neighbour."""


def squared_neighbour_distance(features: Tensor, reference: Tensor) -> Tensor:
    """The squared distance `[N]`, in 0..4, of features `[N, D]` from the k-th nearest of M normalised ones `[M, D]`."""
    nearest, _ = (normalised(features) @ reference.T).topk(min(NEIGHBOUR, int(reference.shape[0])), dim=-1)
    return (2 - 2 * nearest[..., -1]).clamp(min=0.0)


KNN = Score(
    name="knn",
    title="Squared distance of normalised features from the 5th nearest training example",
    unit="1",
    source="Sun, Ming, Zhu & Li 2022, Out-of-Distribution Detection with Deep Nearest Neighbors",
    offset=0.0,
    sign=+1,
    formulas={("features", "reference_features"): squared_neighbour_distance},
)
