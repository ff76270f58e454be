"""Logits of a scored classifier, recorded during scoring because its graph does not output them."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from training.evaluation import StageLogits
from training.models.classifier import Prediction
from training.models.score_heads import ScoredClassifier
from training.scoring.batch_scoring import Outputs

LOGITS = "logits"
"""The key of the logits among a model's outputs."""


class RecordedLogits:
    """The logits of all scored batches, in the order of scoring."""

    def __init__(self) -> None:
        self._batches: list[Tensor] = []

    def array(self) -> NDArray[np.float32]:
        """Float32 `[N, K]`."""
        return torch.cat(self._batches).numpy()

    def _record(self, _module: nn.Module, _inputs: object, prediction: Prediction) -> None:
        self._batches.append(prediction.logits.detach().float().cpu())


@contextmanager
def recorded_logits(model: ScoredClassifier) -> Iterator[RecordedLogits]:
    """Record the logits of everything that `model` scores inside the block."""
    recorded = RecordedLogits()
    hook = model.model.register_forward_hook(recorded._record)
    try:
        yield recorded
    finally:
        hook.remove()


def stage_logits(
    in_dist: Outputs, targets: NDArray[np.int64], ood: Mapping[str, Outputs], temperature: float
) -> StageLogits:
    """A stage's logits for the report.

    Args:
        in_dist: The stage's outputs on the in-distribution test set.
        targets: The classes `[N]` of that set.
        ood: The stage's outputs on each out-of-distribution set.
        temperature: The stage's temperature.
    """

    def logits(outputs: Outputs) -> NDArray[np.float32]:
        return outputs[LOGITS].astype(np.float32, copy=False)

    return StageLogits(
        in_dist=logits(in_dist),
        targets=targets,
        ood={name: logits(outputs) for name, outputs in ood.items()},
        temperature=temperature,
    )
