"""The bar of a stage's training: beside the epoch's own time, how long all its epochs still take."""

import time
from datetime import timedelta

import lightning
from lightning.pytorch.callbacks import ProgressBar, RichProgressBar, TQDMProgressBar
from rich.console import Console


def stage_bar() -> ProgressBar:
    """A bar for a terminal, or for a log where nobody watches."""
    return _Rich() if Console().is_terminal else _Plain(refresh_rate=50)


class _TimeLeft(ProgressBar):
    """Adds `left`, hours:minutes:seconds for the rest of the stage at the pace since training began or was resumed."""

    def on_train_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        super().on_train_start(trainer, pl_module)
        self._first_step, self._started = trainer.global_step, time.monotonic()

    def get_metrics(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule
    ) -> dict[str, int | str | float | dict[str, float]]:
        metrics = super().get_metrics(trainer, pl_module)
        # The last letters of a logger's folder.
        metrics.pop("v_num", None)
        if done := trainer.global_step - self._first_step:
            steps = int(trainer.estimated_stepping_batches) - trainer.global_step
            metrics["left"] = str(timedelta(seconds=round((time.monotonic() - self._started) / done * steps)))
        return metrics


class _Rich(_TimeLeft, RichProgressBar):
    pass


class _Plain(_TimeLeft, TQDMProgressBar):
    pass
