"""Normalisation of features to length 1."""

from bundle.scores.score import Tensor

_SMALLEST_NORM = 1e-12


def normalised(features: Tensor) -> Tensor:
    """Features `[..., D]` divided by their Euclidean norm; zeros stay zeros."""
    return features / features.norm(dim=-1, keepdim=True).clamp(min=_SMALLEST_NORM)
