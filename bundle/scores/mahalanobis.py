"""Mahalanobis++: the squared Mahalanobis distance of normalised features from the nearest class mean, per feature.

    1/D min_k (z - mu_k)^T S^-1 (z - mu_k),    z = f / ||f||

The paper does not divide by the number D of features. The quotient is near 1 for in-distribution inputs whatever D is.

S is the covariance within the classes, shared by all of them. The norm of the features depends on the image more than
on its class, so the distance of unnormalised features separates worse and is not offered.
"""

from bundle.scores.normalisation import normalised
from bundle.scores.score import Score, Tensor


def squared_mahalanobis_distance(features: Tensor, center: Tensor, whitening: Tensor, class_means: Tensor) -> Tensor:
    """The squared distance `[N]` of features `[N, D]` from the nearest of K class means, divided by D.

    Args:
        features: Features of any norm.
        center: The mean `[D]` of normalised features. Subtracting it first keeps float32 accurate.
        whitening: W `[D, R]` with S^-1 = W W^T.
        class_means: The class means `[K, R]` of normalised features, centred and whitened.
    """
    whitened = (normalised(features) - center) @ whitening
    squares = (whitened**2).sum(dim=-1, keepdim=True) + (class_means**2).sum(dim=-1)
    return (squares - 2 * whitened @ class_means.T).amin(dim=-1).clamp(min=0.0) / int(features.shape[-1])


MAHALANOBIS = Score(
    name="mahalanobis",
    title="Squared Mahalanobis distance of normalised features, per feature",
    unit="1",
    source="Mueller & Hein 2025, Mahalanobis++: Improving OOD Detection via Feature Normalization",
    offset=0.0,
    sign=+1,
    formulas={("features", "feature_center", "whitening", "class_means"): squared_mahalanobis_distance},
)
