"""The optimizer of a stage: parameter groups and their learning rates."""

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from training.backbones import FineTunedNetwork
from training.errors import RecipeError
from training.fitting.muon import Muon
from training.recipe import Stage

_CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
_BATCH_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)


def build_optimizer(
    stage: Stage, model: nn.Module, *, processes: int = 1, fused: bool | None = None
) -> torch.optim.Optimizer:
    """The optimizer that `stage` names, for the trainable parameters of `model`.

    With several processes a step averages as many batches. The learning rate of SGD is then multiplied by their number
    (Goyal et al. 2017). Those of Adam and Muon, whose steps do not grow with the gradient, are multiplied by its square
    root (Malladi et al. 2022).

    Args:
        stage: The stage of the recipe.
        model: The model to train.
        processes: The number of processes that train on different batches.
        fused: Whether one kernel updates all parameters; None for PyTorch's default. Muon has no such kernel.

    Raises:
        RecipeError: The stage has options for convolutions or batch normalisations and the model has none.
    """
    groups = _parameter_groups(stage, model)
    for group in groups:
        is_sgd = stage.optimizer == "sgd" and not group.get("muon")
        group["lr"] = group.get("lr", stage.learning_rate) * (processes if is_sgd else math.sqrt(processes))
    rate, decay = stage.learning_rate, stage.weight_decay
    if stage.optimizer == "adam":
        return torch.optim.Adam(groups, lr=rate, weight_decay=decay, fused=fused)
    if stage.optimizer == "adamw":
        return torch.optim.AdamW(groups, lr=rate, weight_decay=decay, fused=fused)
    momentum = stage.momentum
    if stage.muon is not None:
        return Muon(groups, rate, momentum=momentum, weight_decay=decay)
    return torch.optim.SGD(groups, lr=rate, momentum=momentum, weight_decay=decay, nesterov=momentum > 0, fused=fused)


def _parameter_groups(stage: Stage, model: nn.Module) -> list[dict[str, Any]]:
    """The trainable parameters; of a backbone, for Muon and of biases in groups of their own, if the stage says so."""
    remaining: dict[Tensor, None] = {parameter: None for parameter in model.parameters() if parameter.requires_grad}
    groups: list[dict[str, Any]] = []

    def add_group(key: str, candidates: Sequence[Tensor], **options: Any) -> None:
        parameters = [tensor for tensor in candidates if tensor in remaining]
        if not parameters:
            raise RecipeError(f"stages: {key}", "the network has nothing that it could train", f"Leave {key} out")
        for tensor in parameters:
            del remaining[tensor]
        groups.append({"params": parameters, **options})

    if stage.backbone_learning_rate is not None:
        networks = [module for module in model.modules() if isinstance(module, FineTunedNetwork)]
        parameters = [parameter for network in networks for parameter in network.backbone.parameters()]
        add_group("backbone_learning_rate", parameters, lr=stage.backbone_learning_rate)
    if stage.muon is not None:
        weights = [module.weight for module in model.modules() if isinstance(module, _CONVOLUTIONS)]
        add_group("muon", weights, muon=True, lr=stage.muon.learning_rate, momentum=stage.muon.momentum)
    if (factor := stage.norm_bias_rate) != 1:
        norms = [module for module in model.modules() if isinstance(module, _BATCH_NORMS) and module.affine]
        biases = [norm.bias for norm in norms]
        decay = stage.weight_decay / factor
        add_group("norm_bias_rate", biases, lr=stage.learning_rate * factor, weight_decay=decay)
    return [{"params": list(remaining)}, *groups]
