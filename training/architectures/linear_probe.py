"""A linear probe: a classifier of the features of a frozen backbone (Alain & Bengio 2016, arXiv:1610.01644)."""

import torch
from torch import Tensor, nn

_LIMIT = 4.0
"""The largest absolute value of a standardised input with `split_norm`, in standard deviations."""

_CONSTANT = 1e-3
"""An input whose standard deviation is below this share of the mean deviation of all inputs is treated as constant."""


class LinearProbe(nn.Module):
    """Standardises features and multiplies them by class weights; with `hidden`, after one hidden layer.

    With `split_norm`, the direction of the features and the logarithm of their norm are standardised and clamped to
    -4..4 instead of the features. The norm of outliers can be several times that of training examples; a network
    would extrapolate confident predictions to them.

    Args:
        num_classes: The number of logits, K.
        feature_size: The number of features, D.
        hidden: The width of a hidden layer with ReLU; 0 for none.
        split_norm: Whether direction and norm are separate inputs.
    """

    mean: Tensor
    deviation: Tensor

    def __init__(self, num_classes: int, feature_size: int, hidden: int = 0, *, split_norm: bool = False) -> None:
        super().__init__()
        if hidden < 0:
            raise ValueError(f"hidden must not be negative, got {hidden}")
        self.split_norm = split_norm
        size = feature_size + split_norm
        self.register_buffer("mean", torch.zeros(size))
        self.register_buffer("deviation", torch.ones(size))
        layers: list[nn.Module] = [nn.Linear(size, hidden), nn.ReLU()] if hidden else []
        self.layers = nn.Sequential(*layers, nn.Linear(hidden or size, num_classes))

    def initialise(self, features: Tensor) -> None:
        """Set the mean and standard deviation to those of training features `[N, D]`.

        Constant features get the mean deviation of all features.
        """
        inputs = self._inputs(features)
        self.mean = inputs.mean(dim=0)
        deviation = inputs.std(dim=0)
        mean_deviation = deviation.mean().clamp(min=1e-6)
        # A small divisor would give a later change of a constant feature more weight than all other features together.
        self.deviation = torch.where(deviation > _CONSTANT * mean_deviation, deviation, mean_deviation)

    def forward(self, features: Tensor) -> Tensor:
        """Logits `[N, K]` of features `[N, D]`."""
        standardised = (self._inputs(features) - self.mean) / self.deviation
        logits: Tensor = self.layers(standardised.clamp(-_LIMIT, _LIMIT) if self.split_norm else standardised)
        return logits

    def _inputs(self, features: Tensor) -> Tensor:
        if not self.split_norm:
            return features
        norm = features.norm(dim=1, keepdim=True).clamp(min=1e-6)
        return torch.cat((features / norm, norm.log()), dim=1)
