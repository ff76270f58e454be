"""The progress bar of a stage: Lightning's bar plus the remaining time of the whole stage."""

import time
from datetime import timedelta

import lightning
from lightning.pytorch.callbacks import ProgressBar, RichProgressBar, TQDMProgressBar
from rich.console import Console


def stage_progress_bar() -> ProgressBar:
    """A Rich bar on a terminal, else a plain bar with few updates, for log files."""
    return _RichBar() if Console().is_terminal else _PlainBar(refresh_rate=50)


class _RemainingTime(ProgressBar):
    """Adds `left`, the estimated time until the stage ends as h:mm:ss.

    Lightning's own bars estimate the current epoch only. The estimate uses the mean speed since training started or
    was resumed.
    """

    def on_train_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        super().on_train_start(trainer, pl_module)
        self._first_step, self._started = trainer.global_step, time.monotonic()

    def get_metrics(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule
    ) -> dict[str, int | str | float | dict[str, float]]:
        metrics = super().get_metrics(trainer, pl_module)
        # Lightning's `v_num` would show the last characters of a log folder's name.
        metrics.pop("v_num", None)
        if steps_done := trainer.global_step - self._first_step:
            steps_left = int(trainer.estimated_stepping_batches) - trainer.global_step
            seconds_left = (time.monotonic() - self._started) / steps_done * steps_left
            metrics["left"] = str(timedelta(seconds=round(seconds_left)))
        return metrics


class _RichBar(_RemainingTime, RichProgressBar):
    pass


class _PlainBar(_RemainingTime, TQDMProgressBar):
    pass
