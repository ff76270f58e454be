"""Neighbours: the training examples whose features are nearest to those of an input."""

from torch import Tensor

from bundle.scores.normalisation import normalised

NEIGHBOURS, DISTANCES = "neighbours", "neighbour_distances"
"""The graph outputs with the numbers of the nearest examples and with their distances."""

_COUNT = 3


def nearest_references(features: Tensor, reference: Tensor) -> tuple[Tensor, Tensor]:
    """The three nearest references of each input, or all if there are fewer.

    Args:
        features: Features `[N, D]`.
        reference: Normalised features `[M, D]` of training examples.

    Returns:
        The numbers of the references int64 `[N, 3]`, the nearest first, and the squared distances `[N, 3]` of the
        normalised features, in 0..4.
    """
    similarity, numbers = (normalised(features) @ reference.T).topk(min(_COUNT, int(reference.shape[0])), dim=-1)
    return numbers, (2 - 2 * similarity).clamp(min=0.0)
