"""The weights of a stage: freshly initialised, averaged from checkpoints, or as a finished stage left them."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from bundle import ImageInput, TextEncoder
from training.backbones import load_transformers, open_backbone
from training.data import Examples
from training.errors import RunError
from training.fitting.checkpoints import read_checkpoint
from training.models.build import build_model
from training.models.model import Model
from training.recipe import Stage
from training.run import Run

_INITIALISATION_EXAMPLES = 2000
"""Training examples that a network with data-dependent initialisation sees, evenly spaced over the set."""


def load_model(run: Run, stage: str, num_classes: int) -> Model:
    """The model of the finished `stage`, in evaluation mode on the CPU."""
    run.record(stage)
    return _load_mean(run, [run.checkpoint_path(stage)], num_classes).eval()


def initial_model(run: Run, stage: Stage, examples: Examples) -> Model:
    """The model that `stage` starts training from.

    Without `start_from` the model is freshly initialised, on `examples` if its network starts from data. Otherwise its
    weights are those of the named stage or checkpoint, or the mean of several.
    """
    if not stage.starts:
        model = _build(run, len(examples.labels))
        # The first rows of a set that is sorted by class are of one class.
        spread = examples.evenly_spaced(_INITIALISATION_EXAMPLES)
        model.initialise(torch.from_numpy(np.ascontiguousarray(spread.x[np.arange(len(spread), dtype=np.int64)])))
        return model
    checkpoints = [run.checkpoint_path(start) if start in run.recipe.stages else Path(start) for start in stage.starts]
    return _load_mean(run, checkpoints, len(examples.labels))


def _build(run: Run, num_classes: int) -> Model:
    config = run.recipe.input
    if run.recipe.backbone is not None:
        return build_model(run.recipe, num_classes, feature_size=open_backbone(run.backbone_path).size)
    if run.recipe.fine_tuned is not None:
        return build_model(run.recipe, num_classes, backbone=load_transformers(run.backbone_folder, config))
    if isinstance(config, ImageInput):
        return build_model(run.recipe, num_classes)
    encoder = TextEncoder.load(run.tokenizer_path, config.max_tokens)
    return build_model(run.recipe, num_classes, encoder.vocabulary_size)


def _load_mean(run: Run, checkpoints: Sequence[Path], num_classes: int) -> Model:
    """The model with the mean of the weights of all `checkpoints`."""
    model = _build(run, num_classes)
    states = [_state(checkpoint) for checkpoint in checkpoints]
    model.load_state_dict({name: _mean([state[name] for state in states]) for name in states[-1]})
    return model


def _state(checkpoint: Path) -> dict[str, Tensor]:
    """The model's part of a checkpoint's state."""
    if not checkpoint.exists():
        raise RunError(str(checkpoint), "does not exist", "Correct start_from, or fit that stage first")
    state = read_checkpoint(checkpoint).get("state_dict")
    if not isinstance(state, dict):
        raise RunError(
            str(checkpoint), "holds no weights of a stage", "Name a checkpoint of a run: stages/NAME/last.ckpt"
        )
    prefix = "model."
    return {key.removeprefix(prefix): value for key, value in state.items() if key.startswith(prefix)}


def _mean(tensors: Sequence[Tensor]) -> Tensor:
    """The mean of floating-point `tensors`; the last of integer tensors, which are batch counts."""
    return torch.stack(tuple(tensors)).mean(dim=0) if tensors[0].is_floating_point() else tensors[-1]
