"""The Lightning trainer of a stage: devices, precision, checkpoints, loggers and progress bar."""

import logging
import warnings
from pathlib import Path

import lightning
from lightning.pytorch.callbacks import Callback, ModelCheckpoint, Timer
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger

from training.fitting.checkpoints import AtomicCheckpoints
from training.fitting.progress_bar import stage_progress_bar
from training.recipe import Precision, Stage, Trainer


def build_trainer(
    config: Trainer, precision: Precision, stage: Stage, *, folder: Path, timer: Timer, fixed_shapes: bool = False
) -> lightning.Trainer:
    """A trainer of `stage` in `precision` that writes its checkpoint `last.ckpt` and its logs into `folder`.

    If all batches have `fixed_shapes`, cuDNN measures which algorithm is the fastest for each convolution.
    """
    _silence_lightning()
    callbacks: list[Callback] = [
        ModelCheckpoint(dirpath=folder, filename="last", enable_version_counter=False, save_on_train_epoch_end=True),
        stage_progress_bar(),
        timer,
    ]
    return lightning.Trainer(
        accelerator=config.accelerator,
        devices=config.devices,
        strategy=config.strategy,
        precision=precision,
        benchmark=fixed_shapes,
        max_epochs=stage.epochs,
        gradient_clip_val=stage.gradient_norm,
        callbacks=callbacks,
        plugins=[AtomicCheckpoints()],
        # One CSV folder per attempt, because Lightning's CSV logger empties an existing folder.
        logger=[
            CSVLogger(folder, name="", version=f"csv-{len(list(folder.glob('csv-*'))) + 1}"),
            TensorBoardLogger(folder, name="", version="tensorboard"),
        ],
        use_distributed_sampler=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
    )


def _silence_lightning() -> None:
    """Hide Lightning's hints about workers, loggers and samplers."""
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
    warnings.filterwarnings("ignore", module=r"lightning\.pytorch")
