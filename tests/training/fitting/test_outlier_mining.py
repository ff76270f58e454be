"""Outlier mining: the most confident outliers of a pool, and what the model keeps of the others."""

from typing import Any

import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st
from lightning import Trainer
from scipy.special import softmax
from torch import nn
from torch.utils.data import DataLoader

from training.data import Batch
from training.fitting.lightning_module import TrainingTask
from training.fitting.outlier_mining import most_confident
from training.models.classifier import Prediction
from training.objectives.objective import Forward, Loss, outliers_of
from training.recipe import Stage


@given(st.integers(1, 20).flatmap(lambda m: st.tuples(st.just(m), st.integers(1, m))), st.integers(0, 9))
def test_no_outlier_left_out_is_more_confident_than_a_selected_one(sizes: tuple[int, int], seed: int) -> None:
    m, n = sizes
    logits = np.random.default_rng(seed).normal(0, 3, (m, 4)).astype(np.float32)
    rows = torch.arange(m)
    selected = most_confident(lambda taken: torch.from_numpy(logits)[taken], rows, n)
    confidence = softmax(logits.astype(np.float64), axis=1).max(axis=1)
    left_out = sorted(set(range(m)) - set(selected.tolist()))
    assert len(set(selected.tolist())) == n
    assert not left_out or confidence[selected].min() >= confidence[left_out].max() - 1e-6


class Normalised(nn.Module):
    """Batch normalisation of two inputs, which are the logits."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm1d(2)

    def prepare(self, rows: torch.Tensor) -> tuple[torch.Tensor, ...]:
        return (rows,)

    def forward(self, rows: torch.Tensor) -> Prediction:
        return Prediction(self.norm(rows.float()))


class Recording:
    uses_outliers = True
    uses_confidence = False
    outliers: torch.Tensor

    def __call__(self, forward: Forward, batch: Batch) -> Loss:
        self.outliers = outliers_of(batch)
        return Loss(forward(batch.x_in).logits.sum())


def test_a_step_uses_the_most_confident_outliers_and_only_them() -> None:
    model: Any = Normalised()
    objective = Recording()
    stage = Stage.model_validate(
        {"objective": {"name": "outlier_exposure"}, "batch_size": 2, "outlier_ratio": 1, "outlier_pool": 3}
    )
    pool = torch.tensor([[0.0, 1], [9, 0], [1, 1], [0, 5], [2, 0], [100, 100]])
    x_in = torch.tensor([[1.0, 2], [3, 4]])
    batch = Batch(x_in, torch.zeros(2, dtype=torch.int64), pool)
    trainer = Trainer(
        accelerator="cpu", max_epochs=1, logger=False, enable_checkpointing=False, enable_progress_bar=False
    )
    trainer.fit(TrainingTask(model, objective, stage, seed=0), DataLoader([batch], batch_size=None))
    assert sorted(objective.outliers.tolist()) == [[0, 5], [9, 0]]
    # The statistics of batch normalisation are those of the step, not of the pool.
    torch.testing.assert_close(model.norm.running_mean, 0.1 * x_in.mean(dim=0))
