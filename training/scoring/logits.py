"""Logits: what a scored classifier's own graph does not output, kept while it scores."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from training.evaluation import StageLogits
from training.models.prediction import Prediction
from training.models.score_heads import ScoredClassifier
from training.scoring.score import Outputs

LOGITS = "logits"
"""The name of the logits beside the graph's own outputs."""


class RecordedLogits:
    """The logits of every batch that was scored, in order."""

    def __init__(self) -> None:
        self._batches: list[Tensor] = []

    def array(self) -> NDArray[np.float32]:
        """Float32 `[N, K]`."""
        return torch.cat(self._batches).numpy()

    def _keep(self, _module: nn.Module, _inputs: object, prediction: Prediction) -> None:
        self._batches.append(prediction.logits.detach().float().cpu())


@contextmanager
def recorded_logits(model: ScoredClassifier) -> Iterator[RecordedLogits]:
    """Keep the logits of what `model` scores within the block; the graph and the scoring are as without it."""
    recorded = RecordedLogits()
    hook = model.model.register_forward_hook(recorded._keep)
    try:
        yield recorded
    finally:
        hook.remove()


def stage_logits(
    inside: Outputs, targets: NDArray[np.int64], outside: Mapping[str, Outputs], temperature: float
) -> StageLogits:
    """A stage's logits for the report, of what it makes of the test set of classes `targets` and of every other set."""

    def logits(outputs: Outputs) -> NDArray[np.float32]:
        return outputs[LOGITS].astype(np.float32, copy=False)

    found = {name: logits(outputs) for name, outputs in outside.items()}
    return StageLogits(inside=logits(inside), targets=targets, outside=found, temperature=temperature)
