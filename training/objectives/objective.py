"""The interface of training objectives: a loss from a batch and the network in training."""

from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor

from training.data.pairing import Batch
from training.models.classifier import Prediction

Forward = Callable[[Tensor], Prediction]
"""The classifier in training, called with stored inputs `[N, ...]` of a `Batch` or with float images 0..255."""


class Loss(NamedTuple):
    """The scalar to minimise and, for logging accuracy, a classifier's logits `[N, K]` of the in-distribution batch."""

    value: Tensor
    logits_in: Tensor | None = None


class Objective(Protocol):
    """A loss to minimise. An objective with state is an `nn.Module` and becomes part of the checkpoints."""

    uses_outliers: bool
    """Whether batches need outliers."""

    uses_confidence: bool
    """Whether the network needs a confidence branch."""

    def __call__(self, forward: Callable[[Tensor], Any], batch: Batch) -> Loss:
        """The loss of one batch; `forward` returns the prediction of the model in training for stored inputs."""
        ...


def outliers_of(batch: Batch) -> Tensor:
    """The batch's outliers; ValueError if it has none."""
    if batch.x_out is None:
        raise ValueError("this objective needs an outlier batch")
    return batch.x_out


def not_negative(name: str, value: float) -> float:
    """`value`; ValueError with `name` if it is negative."""
    if value < 0:
        raise ValueError(f"{name} must not be negative, got {value}")
    return value


def forward_pair(forward: Forward, batch: Batch) -> tuple[Prediction, Prediction]:
    """Predictions for the in-distribution inputs and for the outliers, `[N]` and `[M]`, from one forward pass.

    Batch normalisation uses the statistics of both together, as in the authors' code.
    """
    return forward(torch.cat((batch.x_in, outliers_of(batch)))).split(len(batch.x_in))
