"""A linear probe: a classifier of the features of a frozen backbone (Alain & Bengio 2016, arXiv:1610.01644)."""

import torch
from torch import Tensor, nn


class LinearProbe(nn.Module):
    """Standardises features and multiplies them by class weights; with `hidden`, after one hidden layer.

    Args:
        num_classes: The number of logits, K.
        feature_size: The number of features, D.
        hidden: The width of a hidden layer with ReLU; 0 for none.
    """

    mean: Tensor
    deviation: Tensor

    def __init__(self, num_classes: int, feature_size: int, hidden: int = 0) -> None:
        super().__init__()
        if hidden < 0:
            raise ValueError(f"hidden must not be negative, got {hidden}")
        self.register_buffer("mean", torch.zeros(feature_size))
        self.register_buffer("deviation", torch.ones(feature_size))
        layers: list[nn.Module] = [nn.Linear(feature_size, hidden), nn.ReLU()] if hidden else []
        self.layers = nn.Sequential(*layers, nn.Linear(hidden or feature_size, num_classes))

    def initialise(self, features: Tensor) -> None:
        """Set the mean and standard deviation to those of training features `[N, D]`."""
        self.mean = features.mean(dim=0)
        self.deviation = features.std(dim=0).clamp(min=1e-6)

    def forward(self, features: Tensor) -> Tensor:
        """Logits `[N, K]` of features `[N, D]`."""
        logits: Tensor = self.layers((features - self.mean) / self.deviation)
        return logits
