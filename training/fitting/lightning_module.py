"""The Lightning module: the objective of each paired batch, the optimizer, a learning rate for every step."""

import math
from typing import Any

import lightning
import torch
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import Tensor

from training.data import Augmentation, Batch
from training.errors import DivergedError
from training.fitting.optimizer import build_optimizer
from training.models.model import Model
from training.objectives import Objective
from training.recipe import Stage

_CHECK_EVERY = 50
"""Steps between looks at the loss: each look waits for the device."""


class TrainingTask(lightning.LightningModule):
    """Trains `model` by `objective` on `Batch`es of stored rows, images augmented by `augment`.

    `augment_outliers`, where given, takes its place for outliers.
    """

    def __init__(
        self,
        model: Model,
        objective: Objective,
        stage: Stage,
        *,
        seed: int,
        augment: Augmentation | None = None,
        augment_outliers: Augmentation | None = None,
        compiled: bool = False,
    ) -> None:
        super().__init__()
        self.model = model
        # The call, not the module: a second module would double every weight in the checkpoint.
        self._network = torch.compile(model.__call__) if compiled else model.__call__
        # An objective with state is a module and becomes a part of the checkpoint.
        self.objective = objective
        self._stage = stage
        self._seed = seed
        self._augment, self._augment_outliers = augment, augment_outliers or augment
        self.last_loss = math.nan

    def on_train_epoch_start(self) -> None:
        """Reseed by epoch: a resumed run augments and drops out as the uninterrupted one would have."""
        torch.manual_seed(hash((self._seed, self.current_epoch, self.global_rank)) % 2**63)

    def training_step(self, batch: Batch, batch_index: int) -> Tensor:
        """The objective's loss of one paired batch."""
        loss = self.objective(self._forward, self._augmented(batch))
        if batch_index % _CHECK_EVERY == 0 or batch_index + 1 == self.trainer.num_training_batches:
            self._look_at(loss.value, loss.logits_in, batch.y_in)
        return loss.value

    def _forward(self, rows: Tensor) -> Any:
        return self._network(*self.model.prepare(rows)).float()

    def _augmented(self, batch: Batch) -> Batch:
        x_in, _, x_out = batch
        if self._augment is not None:
            x_in = self._augment(x_in)
        if self._augment_outliers is not None and x_out is not None:
            x_out = self._augment_outliers(x_out)
        return batch._replace(x_in=x_in, x_out=x_out)

    def _look_at(self, loss: Tensor, logits: Tensor | None, targets: Tensor) -> None:
        self.last_loss = float(loss.detach())
        if not math.isfinite(self.last_loss):
            raise DivergedError(
                f"epoch {self.current_epoch}",
                f"the loss is {self.last_loss}",
                "Lower the stage's learning_rate or give it warmup, and start anew with --overwrite",
            )
        seen = {"loss": self.last_loss}
        if logits is not None:
            seen["accuracy"] = float((logits.detach().argmax(dim=1) == targets).float().mean())
        self.log_dict(seen, prog_bar=True, logger=False)
        # To the loggers directly: `log` would write at steps of its own choice, the last seen value again and again.
        rate = self.trainer.optimizers[0].param_groups[0]["lr"]
        for logger in self.loggers:
            logger.log_metrics({**seen, "learning_rate": rate, "epoch": self.current_epoch}, step=self.global_step)

    def configure_optimizers(self) -> OptimizerLRScheduler:
        """The stage's optimizer; by step, the learning rate rises linearly in the warm-up and follows the schedule."""
        stage = self._stage
        optimizer = build_optimizer(stage, self.model)
        total = int(self.trainer.estimated_stepping_batches)
        warm = round(stage.warmup * total)

        def factor(step: int) -> float:
            if step < warm:
                return (step + 1) / warm
            if stage.schedule == "constant":
                return 1.0
            done = (step - warm) / max(total - warm, 1)
            return 1 - done if stage.schedule == "linear" else 0.5 * (1 + math.cos(math.pi * done))

        scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, factor)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}
