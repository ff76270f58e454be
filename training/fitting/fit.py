"""Fit: train a recipe's stages in order, each finished stage kept, each unfinished one resumable."""

import logging
import math
import platform
import warnings
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path

import lightning
import numpy as np
import torch
from lightning.pytorch.accelerators import CUDAAccelerator
from lightning.pytorch.callbacks import Callback, ModelCheckpoint, Timer
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger
from torch import Tensor
from torch.nn.utils import convert_conv2d_weight_memory_format

from bundle import ImageInput, TextEncoder
from training.data import Augmentation, Examples, InputArray, paired_batches
from training.errors import DataError, RecipeError, RunError
from training.fitting.checkpoints import AtomicCheckpoints, require_disk_space
from training.fitting.lightning_module import TrainingTask
from training.fitting.precision import fastest_precision
from training.fitting.progress_bar import stage_bar
from training.models.build import build_model
from training.models.model import Model
from training.objectives import OBJECTIVES, Objective
from training.recipe import Stage, Trainer, build_component
from training.run import Run, StageRecord

_INITIALISE_WITH = 2000
"""Training examples shown to a network that starts from data."""

_INTERRUPTED = 130
"""Exit code after Ctrl-C, as shells have it."""

Announce = Callable[[str], None]


def fit_stages(run: Run, inside: Examples, outside: Examples | None, *, resume: bool, announce: Announce) -> None:
    """Train every stage of the run's recipe that is not finished yet, checkpointing each epoch.

    `inside` are the in-distribution training examples, a classifier's labelled, `outside` the outliers. Raises RunError
    when a stage is half done and `resume` is off, DivergedError when a loss stops being finite. With several devices,
    processes other than the first end here.
    """
    if run.recipe.trainer.threads is not None:
        torch.set_num_threads(run.recipe.trainer.threads)
    # Before the first is trained, and not after hours of it.
    for name in run.recipe.stages:
        if not run.record_path(name).exists():
            _check_objective(run, name, inside, outside)
    leading = True
    for name in run.recipe.stages:
        if run.record_path(name).exists():
            announce(f"stage {name}: finished earlier, kept")
            continue
        if run.checkpoint_path(name).exists() and not resume:
            remedy = "Continue it with --resume, or start anew with --overwrite"
            raise RunError(str(run.path), f"stage '{name}' was interrupted", remedy)
        leading = _fit_stage(run, name, inside, outside, announce)
    if not leading:
        # One of several processes of a distributed run: what follows is the first one's work.
        raise SystemExit(0)


def load_model(run: Run, stage: str, num_classes: int) -> Model:
    """The model as the finished `stage` left it, in evaluation mode on the CPU."""
    run.record(stage)
    return _restore(run, [run.checkpoint_path(stage)], num_classes).eval()


def _restore(run: Run, checkpoints: Sequence[Path], num_classes: int) -> Model:
    """The model with the weights of a checkpoint, or the average of several ones'."""
    model = _build(run, num_classes)
    found = [_weights(checkpoint) for checkpoint in checkpoints]
    model.load_state_dict({name: _mean([weights[name] for weights in found]) for name in found[-1]})
    return model


def _weights(checkpoint: Path) -> dict[str, Tensor]:
    if not checkpoint.exists():
        raise RunError(str(checkpoint), "does not exist", "Correct start_from, or fit that stage first")
    state = torch.load(checkpoint, map_location="cpu", weights_only=False)["state_dict"]
    prefix = "model."
    return {key.removeprefix(prefix): value for key, value in state.items() if key.startswith(prefix)}


def _mean(tensors: Sequence[Tensor]) -> Tensor:
    """Of counts, which have none, the last."""
    return torch.stack(tuple(tensors)).mean(dim=0) if tensors[0].is_floating_point() else tensors[-1]


def _objective(run: Run, name: str, inside: Examples) -> Objective:
    known, chosen = OBJECTIVES[run.recipe.task], run.recipe.stages[name].objective
    return build_component(f"stages.{name}.objective", chosen, known, input_shape=inside.x.shape[1:])


def _check_objective(run: Run, name: str, inside: Examples, outside: Examples | None) -> None:
    """Raise RecipeError or DataError where the stage's objective does not fit the recipe around it."""
    recipe, stage, objective = run.recipe, run.recipe.stages[name], _objective(run, name, inside)
    used = stage.objective.name
    if objective.uses_outliers and outside is None:
        raise DataError(recipe.name, f"stage '{name}' needs outliers, the recipe has none", "Add an outliers section")
    if stage.outlier_augmentation is not None and not objective.uses_outliers:
        raise RecipeError(f"stages.{name}.outlier_augmentation", f"'{used}' is shown no outliers", "Leave it out")
    if objective.uses_confidence and not recipe.confidence_branch:
        remedy = "Set confidence_branch: true"
        raise RecipeError(f"stages.{name}.objective", f"'{used}' trains a confidence branch", remedy)


def _fit_stage(run: Run, name: str, inside: Examples, outside: Examples | None, announce: Announce) -> bool:
    """Train one stage; whether this process is the one that goes on afterwards."""
    recipe, stage = run.recipe, run.recipe.stages[name]
    # An objective may have weights of its own to initialise.
    lightning.seed_everything(recipe.seed, verbose=False)
    objective = _objective(run, name, inside)
    _quiet_lightning()
    model = _start(run, stage, inside)
    require_disk_space(run.path, model, stage.optimizer)
    if recipe.trainer.channels_last:
        convert_conv2d_weight_memory_format(model, torch.channels_last)
    own = stage.outlier_augmentation
    task = TrainingTask(
        model,
        objective,
        stage,
        seed=recipe.seed,
        augment=Augmentation(**stage.augmentation.model_dump()) if isinstance(recipe.input, ImageInput) else None,
        augment_outliers=Augmentation(**own.model_dump()) if own is not None else None,
        compiled=recipe.trainer.compile,
    )
    timer = Timer()
    trainer = _trainer(recipe.trainer, stage, run.stage_path(name), timer)
    outliers = outside if objective.uses_outliers else None
    beside = f" and outliers from {len(outliers):,}" if outliers else ""
    announce(f"stage {name}: {stage.epochs} epochs of {len(inside):,} examples{beside}")
    started = datetime.now(UTC)
    loader = paired_batches(
        inside,
        outliers,
        batch_size=stage.batch_size,
        outlier_ratio=stage.outlier_ratio,
        seed=recipe.seed,
        rank=trainer.global_rank,
        world_size=trainer.world_size,
        workers=_workers(inside.x, outliers.x if outliers else None),
        by_length=stage.group_by_length,
        pin_memory=isinstance(trainer.accelerator, CUDAAccelerator),
    )
    checkpoint = run.checkpoint_path(name)
    try:
        trainer.fit(task, train_dataloaders=loader, ckpt_path=checkpoint if checkpoint.exists() else None)
    except SystemExit:
        # Lightning's answer to Ctrl-C.
        announce("interrupted: the last epoch's checkpoint is kept, continue with --resume")
        raise SystemExit(_INTERRUPTED) from None
    if not trainer.is_global_zero:
        return False
    record = StageRecord(
        stage=name,
        epochs=stage.epochs,
        seconds=timer.time_elapsed("train"),
        started=started,
        hardware=describe_hardware(trainer),
        final_loss=None if math.isnan(task.last_loss) else task.last_loss,
    )
    run.record_path(name).write_text(record.model_dump_json(indent=2), encoding="utf-8")
    return True


def _start(run: Run, stage: Stage, inside: Examples) -> Model:
    if not stage.starts:
        model = _build(run, len(inside.labels))
        sample = np.arange(min(len(inside), _INITIALISE_WITH), dtype=np.int64)
        model.initialise(torch.from_numpy(np.ascontiguousarray(inside.x[sample])))
        return model
    checkpoints = [run.checkpoint_path(start) if start in run.recipe.stages else Path(start) for start in stage.starts]
    return _restore(run, checkpoints, len(inside.labels))


def _build(run: Run, num_classes: int) -> Model:
    plan = run.recipe.input
    if isinstance(plan, ImageInput):
        return build_model(run.recipe, num_classes)
    encoder = TextEncoder.load(run.tokenizer_path, plan.max_tokens)
    return build_model(run.recipe, num_classes, encoder.vocabulary_size)


def _trainer(how: Trainer, stage: Stage, path: Path, timer: Timer) -> lightning.Trainer:
    callbacks: list[Callback] = [
        ModelCheckpoint(dirpath=path, filename="last", enable_version_counter=False, save_on_train_epoch_end=True),
        stage_bar(),
        timer,
    ]
    return lightning.Trainer(
        accelerator=how.accelerator,
        devices=how.devices,
        strategy=how.strategy,
        precision=fastest_precision(how.accelerator) if how.precision == "auto" else how.precision,
        max_epochs=stage.epochs,
        callbacks=callbacks,
        plugins=[AtomicCheckpoints()],
        # A folder for each attempt: Lightning's writer empties the one it finds.
        logger=[
            CSVLogger(path, name="", version=f"csv-{len(list(path.glob('csv-*'))) + 1}"),
            TensorBoardLogger(path, name="", version="tensorboard"),
        ],
        use_distributed_sampler=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
    )


def _quiet_lightning() -> None:
    """Keep Lightning's advice (more workers, other loggers, a sampler of its own) off the terminal."""
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
    warnings.filterwarnings("ignore", module=r"lightning\.pytorch")


def _workers(*stores: InputArray | None) -> int:
    """Arrays are read in the training process; what is decoded on demand gets processes of its own."""
    on_demand = any(store is not None and not store.in_memory for store in stores)
    return max(torch.get_num_threads() - 1, 1) if on_demand else 0


def describe_hardware(trainer: lightning.Trainer) -> str:
    """The processor that a run was made on, for its report."""
    if isinstance(trainer.accelerator, CUDAAccelerator):
        return f"{trainer.num_devices} x {torch.cuda.get_device_name()}"
    return f"{processor_name()}, {torch.get_num_threads()} threads"


def processor_name() -> str:
    """The CPU's model name."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), platform.machine())
