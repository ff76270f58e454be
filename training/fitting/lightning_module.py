"""The Lightning module that trains a model: the objective of each batch, the optimizer and the learning rate."""

import math
from typing import Any

import lightning
import torch
from lightning.pytorch.plugins import MixedPrecision
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import Tensor

from training.data import Augmentation, Batch
from training.errors import DivergedError
from training.fitting.hardware import CompileMode
from training.fitting.optimizer import build_optimizer
from training.fitting.outlier_mining import most_confident
from training.models.model import Model
from training.objectives import Objective
from training.recipe import Stage

_LOG_INTERVAL = 50
"""Steps between two reads of the loss, because each read waits for the device."""


class TrainingTask(lightning.LightningModule):
    """Trains `model` with `objective` on each `Batch`.

    Args:
        model: The model to train.
        objective: The loss. An objective with state is a module and becomes part of the checkpoint.
        stage: The optimizer, the learning rate and its schedule.
        seed: The seed of augmentation and dropout.
        augment: The augmentation of images; None for texts.
        augment_outliers: The augmentation of outliers; None for the same as `augment`.
        compile_mode: The mode of torch.compile for the model; None if it is not compiled.
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
        compile_mode: CompileMode | None = None,
    ) -> None:
        super().__init__()
        self.model = model
        # The call is compiled, not the module: a second module would double every weight in the checkpoint.
        self._network = model.__call__ if compile_mode is None else torch.compile(model.__call__, mode=compile_mode)
        self.objective = objective
        self._stage = stage
        self._seed = seed
        self._augment, self._augment_outliers = augment, augment_outliers or augment
        self.last_loss = math.nan

    def on_train_epoch_start(self) -> None:
        """Seed torch by epoch, so that a resumed run augments and drops out as an uninterrupted run does."""
        torch.manual_seed(hash((self._seed, self.current_epoch, self.global_rank)) % 2**63)

    def training_step(self, batch: Batch, batch_index: int) -> Tensor:
        """The objective's loss of one paired batch, a scalar."""
        # Captured graphs may reuse the memory of the last step's tensors.
        torch.compiler.cudagraph_mark_step_begin()  # type: ignore[no-untyped-call]  # torch's gap
        loss = self.objective(self._forward, self._prepared(batch))
        if batch_index % _LOG_INTERVAL == 0 or batch_index + 1 == self.trainer.num_training_batches:
            self._log(loss.value, loss.logits_in, batch.y_in)
        return loss.value

    def _forward(self, rows: Tensor) -> Any:
        return self._network(*self.model.prepare(rows)).float()

    def _prepared(self, batch: Batch) -> Batch:
        """The batch with augmented inputs and, of a larger pool of outliers, the most confident ones."""
        x_in, _, x_out = batch
        if self._augment is not None:
            x_in = self._augment(x_in)
        if self._augment_outliers is not None and x_out is not None:
            x_out = self._augment_outliers(x_out)
        if self._stage.outlier_pool > 1 and x_out is not None:
            x_out = self._most_confident(x_out)
        return batch._replace(x_in=x_in, x_out=x_out)

    def _most_confident(self, outliers: Tensor) -> Tensor:
        # In evaluation mode, because batch normalisation would otherwise average over outliers that are not used.
        self.model.eval()
        try:
            n = round(self._stage.batch_size * self._stage.outlier_ratio)
            return most_confident(lambda rows: self._forward(rows).logits, outliers, n)
        finally:
            self.model.train()

    def _log(self, loss: Tensor, logits: Tensor | None, targets: Tensor) -> None:
        """Log the loss, the accuracy and the learning rate. Raises DivergedError if the loss is not finite."""
        self.last_loss = float(loss.detach())
        if not math.isfinite(self.last_loss):
            raise DivergedError(
                f"epoch {self.current_epoch}",
                f"the loss is {self.last_loss}",
                "Lower the stage's learning_rate or give it warmup, and start over with --overwrite",
            )
        metrics = {"loss": self.last_loss}
        if logits is not None:
            metrics["accuracy"] = float((logits.detach().argmax(dim=1) == targets).float().mean())
        self.log_dict(metrics, prog_bar=True, logger=False)
        # The loggers are called directly, because Lightning's `log` would repeat the last value at steps of its choice.
        rate = self.trainer.optimizers[0].param_groups[0]["lr"]
        for logger in self.loggers:
            logger.log_metrics({**metrics, "learning_rate": rate, "epoch": self.current_epoch}, step=self.global_step)

    @property
    def _fused(self) -> bool | None:
        """Whether the optimizer is one kernel: on a GPU, unless Lightning clips the gradients of mixed precision."""
        if self.device.type != "cuda":
            return None
        clips = bool(self.trainer.gradient_clip_val)
        return not (clips and isinstance(self.trainer.precision_plugin, MixedPrecision))

    def configure_optimizers(self) -> OptimizerLRScheduler:
        """The stage's optimizer, with a learning rate per step: a linear warm-up, then the stage's schedule."""
        stage = self._stage
        optimizer = build_optimizer(stage, self.model, processes=self.trainer.world_size, fused=self._fused)
        total_steps = int(self.trainer.estimated_stepping_batches)
        warmup_steps = round(stage.warmup * total_steps)

        def rate_factor(step: int) -> float:
            if step < warmup_steps:
                return (step + 1) / warmup_steps
            if stage.schedule == "constant":
                return 1.0
            progress = (step - warmup_steps) / max(total_steps - warmup_steps, 1)
            return 1 - progress if stage.schedule == "linear" else 0.5 * (1 + math.cos(math.pi * progress))

        scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, rate_factor)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}
