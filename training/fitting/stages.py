"""Fitting: trains the stages of a recipe in order; finished stages are skipped and unfinished ones can be resumed."""

import math
from collections.abc import Callable
from datetime import UTC, datetime

import lightning
import torch
from lightning.pytorch.accelerators import CUDAAccelerator
from lightning.pytorch.callbacks import Timer
from torch.nn.utils import convert_conv2d_weight_memory_format

from bundle import ImageInput
from training.data import Augmentation, Examples, InputArray, paired_batches
from training.errors import DataError, RecipeError, RunError
from training.fitting.checkpoints import require_disk_space
from training.fitting.hardware import compile_mode, describe_hardware, fastest_precision, resident_device
from training.fitting.lightning_module import TrainingTask
from training.fitting.trainer import build_trainer
from training.fitting.weights import initial_model
from training.objectives import OBJECTIVES, Objective
from training.recipe import Precision, Recipe, build_component
from training.run import Run, StageRecord

_INTERRUPTED = 130
"""The exit code after Ctrl-C, by the convention of shells."""

Announce = Callable[[str], None]


def fit_stages(run: Run, in_dist: Examples, outliers: Examples | None, *, resume: bool, announce: Announce) -> None:
    """Train every stage of the run's recipe that is not finished, with a checkpoint after each epoch.

    With several devices, every process but the first exits at the end.

    Args:
        run: The run directory that checkpoints and records are written to.
        in_dist: The in-distribution training examples, with labels if the task is classification.
        outliers: The outlier examples, or None if the recipe has none.
        resume: Whether to continue a stage that was interrupted.
        announce: Called with one line of text per stage.

    Raises:
        RunError: A stage was interrupted and `resume` is off.
        RecipeError, DataError: An objective does not fit the rest of the recipe.
        DivergedError: A loss is not finite.
    """
    if run.recipe.trainer.threads is not None:
        torch.set_num_threads(run.recipe.trainer.threads)
    # All stages are checked before the first one trains, which may take hours.
    for name in run.recipe.stages:
        if not run.record_path(name).exists():
            _check_objective(run, name, in_dist, outliers)
    is_first_process = True
    for name in run.recipe.stages:
        if run.record_path(name).exists():
            announce(f"stage {name}: finished earlier, kept")
            continue
        if run.checkpoint_path(name).exists() and not resume:
            remedy = "Continue it with --resume, or start over with --overwrite"
            raise RunError(str(run.path), f"stage '{name}' was interrupted", remedy)
        is_first_process = _fit_stage(run, name, in_dist, outliers, announce)
    if not is_first_process:
        # The first process of a distributed run executes the steps after training.
        raise SystemExit(0)


def _build_objective(run: Run, name: str, in_dist: Examples) -> Objective:
    registry, component = OBJECTIVES[run.recipe.task], run.recipe.stages[name].objective
    context = {"input_shape": in_dist.x.shape[1:], "outlier_ratio": run.recipe.stages[name].outlier_ratio}
    return build_component(f"stages.{name}.objective", component, registry, **context)


def _check_objective(run: Run, name: str, in_dist: Examples, outliers: Examples | None) -> None:
    """Raise RecipeError or DataError if the objective of stage `name` does not fit the rest of the recipe."""
    recipe, stage, objective = run.recipe, run.recipe.stages[name], _build_objective(run, name, in_dist)
    objective_name = stage.objective.name
    if objective.uses_outliers and outliers is None:
        raise DataError(recipe.name, f"stage '{name}' needs outliers, the recipe has none", "Add an outliers section")
    if stage.outlier_augmentation is not None and not objective.uses_outliers:
        reason = f"'{objective_name}' is shown no outliers"
        raise RecipeError(f"stages.{name}.outlier_augmentation", reason, "Leave it out")
    if stage.outlier_pool > 1 and not (objective.uses_outliers and recipe.task == "classification"):
        reason = f"'{objective_name}' does not train a classifier with outliers"
        raise RecipeError(f"stages.{name}.outlier_pool", reason, "Leave it out")
    if objective.uses_confidence and not recipe.confidence_branch:
        remedy = "Set confidence_branch: true"
        raise RecipeError(f"stages.{name}.objective", f"'{objective_name}' trains a confidence branch", remedy)


def _augments(recipe: Recipe) -> bool:
    """Whether stages read images, which they augment; features of a backbone are computed once."""
    return isinstance(recipe.input, ImageInput) and recipe.backbone is None


def _precision(recipe: Recipe) -> Precision:
    if recipe.backbone is not None and recipe.trainer.precision == "auto":
        return "32-true"
    if recipe.trainer.precision != "auto":
        return recipe.trainer.precision
    return fastest_precision(recipe.trainer.accelerator, recipe.input.kind)


def _fit_stage(run: Run, name: str, in_dist: Examples, outliers: Examples | None, announce: Announce) -> bool:
    """Train stage `name`; returns whether this process is the first of a distributed run."""
    recipe, stage = run.recipe, run.recipe.stages[name]
    # Before the objective is built: some objectives have weights to initialise.
    lightning.seed_everything(recipe.seed, verbose=False)
    objective = _build_objective(run, name, in_dist)
    model = initial_model(run, stage, in_dist)
    require_disk_space(run.path, model, stage.optimizer)
    if recipe.trainer.channels_last:
        convert_conv2d_weight_memory_format(model, torch.channels_last)
    outlier_augmentation = stage.outlier_augmentation
    task = TrainingTask(
        model,
        objective,
        stage,
        seed=recipe.seed,
        augment=Augmentation(**stage.augmentation.model_dump()) if _augments(recipe) else None,
        augment_outliers=None if outlier_augmentation is None else Augmentation(**outlier_augmentation.model_dump()),
        compile_mode=compile_mode(recipe.input.kind) if recipe.trainer.compile else None,
    )
    timer = Timer()
    trainer = build_trainer(
        recipe.trainer,
        _precision(recipe),
        stage,
        folder=run.stage_path(name),
        timer=timer,
        fixed_shapes=recipe.input.kind == "image",
    )
    outliers = outliers if objective.uses_outliers else None
    resident = resident_device(trainer, in_dist.x, outliers.x if outliers else None)
    outlier_note = f" and outliers from {len(outliers):,}" if outliers else ""
    announce(f"stage {name}: {stage.epochs} epochs of {len(in_dist):,} examples{outlier_note}")
    started = datetime.now(UTC)
    loader = paired_batches(
        in_dist,
        outliers,
        batch_size=stage.batch_size,
        outlier_ratio=stage.outlier_ratio * stage.outlier_pool,
        seed=recipe.seed,
        rank=trainer.global_rank,
        world_size=trainer.world_size,
        workers=_loader_workers(in_dist.x, outliers.x if outliers else None),
        by_length=stage.group_by_length,
        pin_memory=resident is None and isinstance(trainer.accelerator, CUDAAccelerator),
        device=resident,
    )
    checkpoint = run.checkpoint_path(name)
    try:
        trainer.fit(task, train_dataloaders=loader, ckpt_path=checkpoint if checkpoint.exists() else None)
    except SystemExit:
        # Lightning raises SystemExit on Ctrl-C.
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


def _loader_workers(*inputs: InputArray | None) -> int:
    """The number of data-loading processes: 0 for arrays in memory, several for inputs that are decoded on demand."""
    on_demand = any(array is not None and not array.in_memory for array in inputs)
    return max(torch.get_num_threads() - 1, 1) if on_demand else 0
