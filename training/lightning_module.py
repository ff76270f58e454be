"""The Lightning module: one forward pass over in-distribution and outlier images, a cosine learning rate per step."""

import math

import lightning
import torch
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import Tensor, nn

from training.data import Augmentation, Batch
from training.errors import DivergedError
from training.objectives import Objective
from training.recipe import Stage

_CHECK_EVERY = 50
"""Steps between looks at the loss: each look waits for the device."""


class ClassifierTask(lightning.LightningModule):
    """Trains `classifier` (uint8 images `[N, H, W, C]` to logits) by `objective` on `Batch`es."""

    def __init__(
        self, classifier: nn.Module, objective: Objective, stage: Stage, *, seed: int, compiled: bool = False
    ) -> None:
        super().__init__()
        self.classifier = classifier
        self._forward = torch.compile(classifier) if compiled else classifier
        self._objective = objective
        self._stage = stage
        self._seed = seed
        self._augment = Augmentation(**stage.augmentation.model_dump())
        self.last_loss = math.nan

    def on_train_epoch_start(self) -> None:
        """Reseed by epoch: a resumed run augments and drops out as the uninterrupted one would have."""
        torch.manual_seed(hash((self._seed, self.current_epoch, self.global_rank)) % 2**63)

    def training_step(self, batch: Batch, batch_index: int) -> Tensor:
        """The objective's loss of one paired batch."""
        n = len(batch.x_in)
        images = batch.x_in if batch.x_out is None else torch.cat((batch.x_in, batch.x_out))
        logits = self._forward(self._augment(images)).float()
        loss = self._objective(logits[:n], batch.y_in, logits[n:] if batch.x_out is not None else None)
        if batch_index % _CHECK_EVERY == 0 or batch_index + 1 == self.trainer.num_training_batches:
            self._look_at(loss, logits[:n], batch.y_in)
        return loss

    def _look_at(self, loss: Tensor, logits: Tensor, targets: Tensor) -> None:
        self.last_loss = float(loss.detach())
        if not math.isfinite(self.last_loss):
            raise DivergedError(
                f"epoch {self.current_epoch}",
                f"the loss is {self.last_loss}",
                "Lower the stage's learning_rate or give it warmup, and start anew with --overwrite",
            )
        accuracy = float((logits.detach().argmax(dim=1) == targets).float().mean())
        seen = {"loss": self.last_loss, "accuracy": accuracy}
        self.log_dict(seen, prog_bar=True, logger=False)
        # To the loggers directly: `log` would write at steps of its own choice, the last seen value again and again.
        rate = self.trainer.optimizers[0].param_groups[0]["lr"]
        for logger in self.loggers:
            logger.log_metrics({**seen, "learning_rate": rate, "epoch": self.current_epoch}, step=self.global_step)

    def configure_optimizers(self) -> OptimizerLRScheduler:
        """Nesterov SGD; the learning rate falls by a cosine per step, after a linear warm-up if one is asked for."""
        stage = self._stage
        optimizer = torch.optim.SGD(
            (parameter for parameter in self.classifier.parameters() if parameter.requires_grad),
            lr=stage.learning_rate,
            momentum=stage.momentum,
            weight_decay=stage.weight_decay,
            nesterov=stage.momentum > 0,
        )
        total = int(self.trainer.estimated_stepping_batches)
        warm = round(stage.warmup * total)

        def factor(step: int) -> float:
            if step < warm:
                return (step + 1) / warm
            return 0.5 * (1 + math.cos(math.pi * (step - warm) / max(total - warm, 1)))

        scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, factor)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}
