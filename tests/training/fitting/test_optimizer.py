"""The optimizer of a stage: the rates of its parameter groups, and Muon compared with PyTorch's and with an SVD."""

import math
from typing import Any

import pytest
import torch
from torch import nn

from training.architectures import SmallConvNet
from training.errors import RecipeError
from training.fitting.muon import Muon, orthogonalised, orthogonalised_by_shape
from training.fitting.optimizer import build_optimizer
from training.recipe import Component, MuonConfig, Stage


def stage(**options: Any) -> Stage:
    return Stage(objective=Component(name="cross_entropy"), learning_rate=0.1, momentum=0.0, **options)


def step(config: Stage, **options: Any) -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]:
    """The changes of one step in a small network and the gradients, by parameter name."""
    torch.manual_seed(0)
    network = SmallConvNet(num_classes=2, channels=3, width=4)
    optimizer = build_optimizer(config, network, **options)
    network(torch.randn(8, 3, 16, 16)).square().sum().backward()
    before = {name: parameter.detach().clone() for name, parameter in network.named_parameters()}
    optimizer.step()
    changes = {name: parameter.detach() - before[name] for name, parameter in network.named_parameters()}
    gradients = {name: parameter.grad for name, parameter in network.named_parameters() if parameter.grad is not None}
    return changes, gradients


def test_biases_of_batch_normalisations_are_trained_with_a_multiple_of_the_rate() -> None:
    plain, _ = step(stage(weight_decay=0.0))
    faster, _ = step(stage(weight_decay=0.0, norm_bias_rate=64))
    biases = {f"features.{index}.bias" for index in (1, 5, 9)}
    assert biases < plain.keys()
    for name, change in plain.items():
        torch.testing.assert_close(faster[name], (64 if name in biases else 1) * change, msg=name)


def test_faster_biases_decay_no_faster() -> None:
    network = nn.Sequential(nn.BatchNorm1d(3))
    nn.init.constant_(network[0].bias, 2.0)
    optimizer = build_optimizer(stage(weight_decay=0.5, norm_bias_rate=64), network)
    for parameter in network.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    torch.testing.assert_close(network[0].bias, torch.full((3,), 2.0 * (1 - 0.1 * 0.5)))


def test_muon_trains_the_convolutions_and_sgd_the_rest() -> None:
    changes, gradients = step(stage(weight_decay=0.0, muon=MuonConfig()))
    convolutions = {f"features.{index}.weight" for index in (0, 4, 8)}
    assert convolutions < changes.keys()
    for name in changes.keys() - convolutions:
        torch.testing.assert_close(changes[name], -0.1 * gradients[name], msg=name)


@pytest.mark.parametrize("processes", [1, 4])
@pytest.mark.parametrize(
    ("options", "factors"),
    [
        ({"optimizer": "sgd", "norm_bias_rate": 64}, {"rest": 4.0, "norms": 4.0}),
        ({"optimizer": "adam"}, {"rest": 2.0}),
        ({"optimizer": "adamw"}, {"rest": 2.0}),
        ({"optimizer": "sgd", "muon": MuonConfig(learning_rate=0.3)}, {"rest": 4.0, "muon": 2.0}),
    ],
)
def test_rates_grow_with_the_processes_that_share_a_step(
    options: dict[str, Any], factors: dict[str, float], processes: int
) -> None:
    network = SmallConvNet(num_classes=2, channels=3, width=4)
    groups = build_optimizer(stage(**options), network, processes=processes).param_groups
    alone = build_optimizer(stage(**options), network).param_groups
    ratios = [group["lr"] / single["lr"] for group, single in zip(groups, alone, strict=True)]
    assert ratios == pytest.approx([factor if processes == 4 else 1.0 for factor in factors.values()])


@pytest.mark.parametrize("optimizer", ["sgd", "adam", "adamw"])
def test_a_fused_optimizer_changes_weights_as_the_plain_one_does(optimizer: str) -> None:
    plain, _ = step(stage(optimizer=optimizer, weight_decay=0.1), fused=False)
    fused, _ = step(stage(optimizer=optimizer, weight_decay=0.1), fused=True)
    for name, change in plain.items():
        torch.testing.assert_close(fused[name], change, msg=name)


def test_matrices_of_one_shape_are_orthogonalised_together_as_each_alone() -> None:
    torch.manual_seed(2)
    matrices = [torch.randn(shape) for shape in [(6, 4), (4, 6), (6, 4), (3, 9), (6, 4)]]
    for together, matrix in zip(orthogonalised_by_shape(matrices), matrices, strict=True):
        torch.testing.assert_close(together, orthogonalised(matrix))


@pytest.mark.parametrize("shape", [(8, 8), (6, 24), (24, 6), (5, 3, 2, 2)])
def test_muon_changes_a_weight_as_pytorch_does(shape: tuple[int, ...]) -> None:
    torch.manual_seed(1)
    rows, rate, momentum = shape[0], 0.5, 0.6
    ours = nn.Parameter(torch.empty(shape))
    theirs = nn.Parameter(torch.empty(shape).flatten(1))
    muon = Muon([{"params": [ours], "muon": True}], rate, momentum=momentum, weight_decay=0.1)
    # PyTorch multiplies the rate for tall matrices by the square root of their ratio of sides.
    factor = math.sqrt(max(1.0, rows / theirs.shape[1]))
    reference = torch.optim.Muon([theirs], rate / factor, momentum=momentum, weight_decay=0, ns_steps=3)
    for _ in range(3):
        start, gradient = torch.randn(shape), torch.randn(shape)
        # PyTorch's does not fix the norm of a weight, so that the weight already has the norm that ours sets.
        start *= math.sqrt(rows) / start.norm()
        ours.data, theirs.data = start.clone(), start.flatten(1).clone()
        ours.grad, theirs.grad = gradient, gradient.flatten(1)
        muon.step()
        reference.step()
        # PyTorch's computes in bfloat16.
        torch.testing.assert_close(ours.detach().flatten(1), theirs.detach(), atol=0.01, rtol=0)


def test_muon_fixes_the_norm_of_a_weight() -> None:
    weight = nn.Parameter(torch.full((16, 3, 3, 3), 7.0))
    weight.grad = torch.randn_like(weight)
    Muon([{"params": [weight], "muon": True}], 0.0, momentum=0.6, weight_decay=0.1).step()
    assert float(weight.detach().norm()) == pytest.approx(4.0)


@pytest.mark.parametrize("shape", [(12, 40), (40, 12), (16, 16)])
def test_orthogonalising_keeps_singular_vectors_and_brings_singular_values_near_one(shape: tuple[int, int]) -> None:
    torch.manual_seed(2)
    u, _, vh = torch.linalg.svd(torch.randn(shape), full_matrices=False)
    matrix = u @ torch.diag(torch.linspace(0.2, 5.0, min(shape))) @ vh
    inner = u.T @ orthogonalised(matrix, steps=5) @ vh.T
    values = inner.diagonal()
    torch.testing.assert_close(inner, torch.diag(values), atol=1e-4, rtol=0)
    assert 0.5 < float(values.min()) <= float(values.max()) < 1.5


def test_options_for_layers_that_the_network_does_not_have_are_refused() -> None:
    network = nn.Linear(3, 2)
    with pytest.raises(RecipeError, match="Leave muon out"):
        build_optimizer(stage(muon=MuonConfig()), network)
    with pytest.raises(RecipeError, match="Leave norm_bias_rate out"):
        build_optimizer(stage(norm_bias_rate=64), network)
