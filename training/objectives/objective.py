"""The objective: what `fit` minimises, from a batch and the network that is to be trained on it."""

from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor

from training.data.pairing import Batch
from training.models.prediction import Prediction

Forward = Callable[[Tensor], Prediction]
"""A classifier in training mode on stored inputs, `[N, ...]` as in a `Batch`; on images also on float pixels 0..255."""


class Loss(NamedTuple):
    """The scalar to minimise, and a classifier's logits `[N, K]` of the in-distribution batch for the log."""

    value: Tensor
    logits_in: Tensor | None = None


class Objective(Protocol):
    """What `fit` minimises. One that holds state is an `nn.Module` and is kept in the checkpoints."""

    uses_outliers: bool
    """Whether batches need outliers."""

    uses_confidence: bool
    """Whether the network needs a confidence branch."""

    def __call__(self, forward: Callable[[Tensor], Any], batch: Batch) -> Loss:
        """The loss of one batch; `forward` gives what the recipe's kind of model predicts."""
        ...


def outliers_of(batch: Batch) -> Tensor:
    """The batch's outliers; ValueError where it has none."""
    if batch.x_out is None:
        raise ValueError("this objective needs an outlier batch")
    return batch.x_out


def not_negative(name: str, value: float) -> float:
    """`value`; ValueError naming it where it is negative."""
    if value < 0:
        raise ValueError(f"{name} must not be negative, got {value}")
    return value


def forward_pair(forward: Forward, batch: Batch) -> tuple[Prediction, Prediction]:
    """Predictions for in-distribution and outlier inputs, in one pass: batch norm sees both, as the authors do."""
    return forward(torch.cat((batch.x_in, outliers_of(batch)))).split(len(batch.x_in))
