"""Objectives of classifiers: each equals its paper's formula computed with SciPy, and has the paper's defaults."""

import inspect
import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.special import expit, logsumexp, softmax
from scipy.stats import entropy
from torch import Tensor

from training.data import Batch
from training.models.classifier import Prediction
from training.objectives import (
    OBJECTIVES,
    Confidence,
    ConfidenceOutlierExposure,
    CrossEntropy,
    EnergyBounded,
    LogitNorm,
    MixOE,
    OutlierExposure,
    energy_bounded_loss,
    language_model_outlier_exposure_loss,
    logit_norm_loss,
    outlier_exposure_loss,
)
from training.objectives.confidence import hinted_loss, outlier_confidence
from training.objectives.mix_oe import mixture_targets

CLASSIFICATION = OBJECTIVES["classification"]
TARGETS = torch.tensor([0, 2, 1, 1])

NEEDS_OUTLIERS, NEEDS_CONFIDENCE = {"uses_outliers"}, {"uses_confidence"}
NEEDS: dict[tuple[str, str], set[str]] = {
    ("classification", "cross_entropy"): set(),
    ("classification", "logit_norm"): set(),
    ("classification", "outlier_exposure"): NEEDS_OUTLIERS,
    ("classification", "energy_bounded"): NEEDS_OUTLIERS,
    ("classification", "mix_oe"): NEEDS_OUTLIERS,
    ("classification", "joint_confidence"): set(),
    ("classification", "confidence"): NEEDS_CONFIDENCE,
    ("classification", "confidence_outlier_exposure"): NEEDS_OUTLIERS | NEEDS_CONFIDENCE,
    ("density", "maximum_likelihood"): set(),
    ("density", "likelihood_margin"): NEEDS_OUTLIERS,
    ("language-model", "maximum_likelihood"): set(),
    ("language-model", "outlier_exposure"): NEEDS_OUTLIERS,
    ("language-model", "likelihood_margin"): NEEDS_OUTLIERS,
}
"""(task, name) -> the flags of an objective that needs more than in-distribution batches."""


def as_logits(x: Tensor) -> Prediction:
    """A network that returns its input: the columns are the logits of the classes and, last, the logit of b(x)."""
    return Prediction(x[:, :-1], x[:, -1])


def pixels_as_logits(x: Tensor) -> Prediction:
    return Prediction(x[:, 0, 0, :])


def batch(seed: int = 0, outliers: int = 6) -> Batch:
    generator = torch.Generator().manual_seed(seed)
    return Batch(
        torch.randn(4, 4, generator=generator, dtype=torch.float64),
        TARGETS,
        torch.randn(outliers, 4, generator=generator, dtype=torch.float64),
    )


def cross_entropies(logits: NDArray[np.floating], targets: NDArray[np.integer]) -> NDArray[np.floating]:
    return -np.log(softmax(logits, axis=1)[np.arange(len(targets)), targets])


@given(
    n=st.integers(1, 8),
    m=st.integers(1, 8),
    k=st.integers(2, 12),
    weight=st.floats(0, 3),
    seed=st.integers(0, 2**16),
)
def test_outlier_exposure_is_cross_entropy_plus_weighted_cross_entropy_from_the_uniform_distribution(
    n: int, m: int, k: int, weight: float, seed: int
) -> None:
    generator = np.random.default_rng(seed)
    logits_in, logits_out = 4 * generator.normal(size=(n, k)), 4 * generator.normal(size=(m, k))
    targets = generator.integers(k, size=n)
    uniform = np.full(k, 1 / k)
    # H(U; p) = H(U) + KL(U || p), both by SciPy.
    uniform_cross_entropy = np.mean([entropy(uniform) + entropy(uniform, p) for p in softmax(logits_out, axis=1)])
    ours = outlier_exposure_loss(
        torch.from_numpy(logits_in), torch.from_numpy(targets), torch.from_numpy(logits_out), weight
    )
    assert float(ours) == pytest.approx(
        cross_entropies(logits_in, targets).mean() + weight * uniform_cross_entropy, rel=1e-9
    )


def test_uniform_outlier_logits_cost_exactly_the_log_of_the_classes() -> None:
    certain = torch.tensor([[100.0, 0.0, 0.0, 0.0]])
    loss = OutlierExposure(weight=2.0)(as_logits, Batch(certain, torch.tensor([0]), torch.zeros(5, 4)))
    assert float(loss.value) == pytest.approx(2 * math.log(3), rel=1e-6)


def test_the_outlier_gradient_pulls_the_softmax_towards_uniform() -> None:
    logits = torch.tensor([[2.0, 0.0, -1.0]], requires_grad=True)
    outlier_exposure_loss(torch.zeros(1, 3), torch.tensor([0]), logits, 1.0).backward()
    assert logits.grad is not None
    torch.testing.assert_close(logits.grad, torch.softmax(logits.detach(), dim=1) - 1 / 3)


def test_cross_entropy_ignores_outliers() -> None:
    paired = batch()
    alone = CrossEntropy()(as_logits, paired._replace(x_out=None))
    assert CrossEntropy()(as_logits, paired).value == alone.value


@given(seed=st.integers(0, 2**16), weight=st.floats(0, 2))
def test_the_energy_bounded_loss_is_the_squared_hinge_of_both_energies(seed: int, weight: float) -> None:
    paired = batch(seed)
    assert paired.x_out is not None
    logits_in, logits_out = 6 * paired.x_in[:, :-1].numpy(), 6 * paired.x_out[:, :-1].numpy()
    energy_in, energy_out = -logsumexp(logits_in, axis=1), -logsumexp(logits_out, axis=1)
    hinge = np.mean(np.maximum(0, energy_in + 8) ** 2) + np.mean(np.maximum(0, -5 - energy_out) ** 2)
    scaled = Batch(6 * paired.x_in, TARGETS, 6 * paired.x_out)
    ours = EnergyBounded(margin_in=-8, margin_out=-5, weight=weight)(as_logits, scaled).value
    assert float(ours) == pytest.approx(cross_entropies(logits_in, TARGETS.numpy()).mean() + weight * hinge, rel=1e-9)


def test_energies_within_their_margins_cost_nothing() -> None:
    certain = torch.tensor([[90.0, 0.0, 0.0, 0.0]])
    loss = EnergyBounded()(as_logits, Batch(certain, torch.tensor([0]), torch.zeros(3, 4)))
    assert float(loss.value) == pytest.approx(0, abs=1e-6)


@given(seed=st.integers(0, 2**16))
def test_mixoe_is_cross_entropy_plus_that_of_the_mixtures_with_soft_targets(seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    x_in, x_out = (torch.randint(0, 9, (n, 1, 1, 3), generator=generator, dtype=torch.uint8) for n in (4, 5))
    seen: list[Tensor] = []

    def forward(x: Tensor) -> Prediction:
        seen.append(x)
        return pixels_as_logits(x)

    loss = MixOE(weight=2.0)(forward, Batch(x_in, TARGETS, x_out))
    logits_in, mixed = seen[0][:4, 0, 0].double().numpy(), seen[0][4:, 0, 0].double().numpy()
    start, end = x_out[:4, 0, 0].double().numpy(), x_in[:, 0, 0].double().numpy()
    apart = start != end
    shares = ((mixed - start)[apart] / (end - start)[apart]) if apart.any() else np.array([0.5])
    np.testing.assert_allclose(shares, shares[0], atol=1e-4)
    soft = shares[0] * np.eye(3)[TARGETS.numpy()] + (1 - shares[0]) / 3
    of_mixed = -(soft * np.log(softmax(mixed, axis=1))).sum(axis=1).mean()
    expected = cross_entropies(logits_in, TARGETS.numpy()).mean() + 2 * of_mixed
    assert float(loss.value) == pytest.approx(expected, rel=1e-3)
    assert loss.logits_in.shape == (4, 3)


def test_mixoe_needs_an_outlier_per_image_and_no_more() -> None:
    images, outliers = torch.zeros(4, 1, 1, 3), torch.ones(4, 1, 1, 3)
    loss = MixOE()(pixels_as_logits, Batch(images, TARGETS, outliers)).value
    assert torch.isfinite(loss)
    with pytest.raises(ValueError, match="outlier_ratio"):
        MixOE()(pixels_as_logits, Batch(images, TARGETS, outliers[:3]))


def test_a_mixture_of_nothing_but_outliers_has_a_uniform_target() -> None:
    soft = mixture_targets(TARGETS, 4, torch.tensor([1.0, 0.0, 0.5, 0.5]))
    torch.testing.assert_close(soft[1], torch.full((4,), 0.25))
    torch.testing.assert_close(soft.sum(dim=1), torch.ones(4))
    assert soft[0, 0] == 1


@given(seed=st.integers(0, 2**16))
def test_the_hinted_loss_interpolates_between_the_softmax_and_the_label(seed: int) -> None:
    x = batch(seed).x_in
    p, c = softmax(x[:, :-1].numpy(), axis=1), expit(x[:, -1].numpy())
    hinted = torch.tensor([True, False, True, False])
    onehot = np.eye(3)[TARGETS.numpy()]
    with_hints = c[:, None] * p + (1 - c[:, None]) * onehot
    chosen = np.where(hinted.numpy()[:, None], with_hints, p)[np.arange(4), TARGETS.numpy()]
    task, confidence = hinted_loss(as_logits(x), TARGETS, hinted)
    assert float(task) == pytest.approx(-np.log(chosen).mean(), rel=1e-9)
    assert float(confidence) == pytest.approx(-np.log(c).mean(), rel=1e-9)


def test_confidence_outlier_exposure_adds_the_mean_log_confidence_of_the_outliers() -> None:
    paired = batch()
    assert paired.x_out is not None
    losses = []
    for objective in (Confidence(), ConfidenceOutlierExposure(weight=0.5)):
        torch.manual_seed(3)
        losses.append(float(objective(as_logits, paired).value))
    expected = 0.5 * np.log(expit(paired.x_out[:, -1].numpy())).mean()
    assert losses[1] - losses[0] == pytest.approx(expected, rel=1e-6)


def test_an_outlier_whose_confidence_is_below_the_floor_has_no_gradient() -> None:
    outliers = torch.tensor([[0.0, 0.0, 0.0, -1.0], [0.0, 0.0, 0.0, -50.0]], requires_grad=True)
    prediction = Prediction(outliers[:, :-1], outliers[:, -1])
    value = outlier_confidence(prediction, floor=0.01)
    value.backward()
    assert float(value.detach()) == pytest.approx((np.log(expit(-1.0)) + np.log(0.01)) / 2, rel=1e-6)
    assert outliers.grad is not None
    assert float(outliers.grad[0, -1]) > 0
    assert float(outliers.grad[1, -1]) == 0


@pytest.mark.parametrize(("confidence_logit", "rises"), [(-3.0, True), (5.0, False)])
def test_the_budgeting_weight_rises_while_the_confidence_loss_exceeds_the_budget(
    confidence_logit: float, rises: bool
) -> None:
    objective = Confidence(budget=0.3, budgeting=0.1)
    x = torch.zeros(4, 4)
    x[:, -1] = confidence_logit
    for _ in range(10):
        objective(as_logits, Batch(x, TARGETS, None))
    assert float(objective.budgeting) == pytest.approx(0.1 * 1.01 ** (10 if rises else -10), rel=1e-5)
    # The weight is part of the checkpoint.
    assert "budgeting" in objective.state_dict()


def test_half_of_a_batch_gets_hints() -> None:
    torch.manual_seed(0)
    n, logit = 4000, -20.0
    x = torch.zeros(n, 4, dtype=torch.float64)
    x[:, -1] = logit
    objective = Confidence(budgeting=0.1)
    loss = objective(as_logits, Batch(x, torch.zeros(n, dtype=torch.int64), None)).value
    # With a confidence of about 0, a hint makes the task loss 0; without one it is log 3 for uniform logits.
    task = float(loss) + 0.1 * logit
    assert task / math.log(3) == pytest.approx(0.5, abs=0.03)


def test_a_saturated_confidence_gives_a_finite_loss_and_gradient() -> None:
    x = torch.tensor([[500.0, -500.0, 0.0, -200.0]], requires_grad=True)
    loss = ConfidenceOutlierExposure()(as_logits, Batch(x, torch.tensor([1]), x))
    loss.value.backward()
    assert x.grad is not None
    assert torch.isfinite(x.grad).all()
    assert torch.isfinite(loss.value)


def test_every_objective_declares_whether_it_needs_outliers_and_a_confidence_branch() -> None:
    flags = ("uses_outliers", "uses_confidence")
    declared = {
        (task, name): {flag for flag in flags if getattr(objective(), flag)}
        for task, objectives in OBJECTIVES.items()
        for name, objective in objectives.items()
    }
    assert declared == NEEDS


@pytest.mark.parametrize("name", ["outlier_exposure", "energy_bounded", "mix_oe", "confidence_outlier_exposure"])
def test_an_objective_that_needs_outliers_refuses_a_batch_without_them(name: str) -> None:
    alone = batch()._replace(x_out=None)
    with pytest.raises(ValueError, match="outlier"):
        CLASSIFICATION[name]()(as_logits, alone)


@pytest.mark.parametrize("name", ["confidence", "confidence_outlier_exposure"])
def test_an_objective_that_needs_a_confidence_branch_refuses_a_network_without_one(name: str) -> None:
    with pytest.raises(ValueError, match="confidence branch"):
        CLASSIFICATION[name]()(Prediction, batch())


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("outlier_exposure", {"weight": -1}, "weight must not be negative, got -1"),
        ("energy_bounded", {"weight": -1}, "weight must not be negative, got -1"),
        ("energy_bounded", {"margin_in": -1}, r"margin_in \(-1\) must lie below margin_out \(-5.0\)"),
        ("energy_bounded", {"margin_in": -5}, r"margin_in \(-5\) must lie below margin_out \(-5.0\)"),
        ("mix_oe", {"weight": -1}, "weight must not be negative, got -1"),
        ("joint_confidence", {"beta": -1}, "beta must not be negative, got -1"),
        ("confidence", {"budget": 0}, r"budget \(0\) and budgeting \(0.1\) must be positive"),
        ("confidence", {"budgeting": 0}, r"budget \(0.3\) and budgeting \(0\) must be positive"),
        ("confidence_outlier_exposure", {"floor": 0}, "floor must be between 0 and 1, got 0"),
        ("confidence_outlier_exposure", {"floor": 1}, "floor must be between 0 and 1, got 1"),
        ("confidence_outlier_exposure", {"weight": -1}, "weight must not be negative, got -1"),
    ],
)
def test_invalid_options_are_refused(name: str, options: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        CLASSIFICATION[name](**options)


def test_an_outlier_weight_of_zero_is_allowed() -> None:
    assert OutlierExposure(weight=0).weight == 0


JOINT = {"input_shape": (32, 32, 3), "beta": 1.0, "latent": 100, "width": 64, "learning_rate": 2e-4}
ENERGY = {"margin_in": -23.0, "margin_out": -5.0, "weight": 0.1}


@pytest.mark.parametrize(
    ("function", "defaults"),
    [
        (CLASSIFICATION["outlier_exposure"], {"weight": 0.5}),
        (CLASSIFICATION["energy_bounded"], ENERGY),
        (CLASSIFICATION["mix_oe"], {"weight": 5.0, "alpha": 1.0, "input_shape": (32, 32, 3), "outlier_ratio": 1.0}),
        (CLASSIFICATION["joint_confidence"], JOINT),
        (CLASSIFICATION["confidence"], {"budget": 0.3, "budgeting": 0.1}),
        (
            CLASSIFICATION["confidence_outlier_exposure"],
            {"weight": 0.5, "budget": 0.3, "budgeting": 0.1, "floor": 1e-12},
        ),
        (OBJECTIVES["density"]["likelihood_margin"], {"weight": 1.0, "margin": 1.0}),
        (OBJECTIVES["language-model"]["outlier_exposure"], {"weight": 1.0}),
        (OBJECTIVES["language-model"]["likelihood_margin"], {"weight": 1.0, "margin": 1.0}),
        (outlier_exposure_loss, {"weight": 0.5}),
        (energy_bounded_loss, ENERGY),
        (language_model_outlier_exposure_loss, {"weight": 1.0}),
        (outlier_confidence, {"floor": 1e-12}),
    ],
)
def test_options_have_the_papers_values_by_default(
    function: Callable[..., object], defaults: dict[str, object]
) -> None:
    parameters = inspect.signature(function).parameters.values()
    assert {p.name: p.default for p in parameters if p.default is not inspect.Parameter.empty} == defaults


@pytest.mark.parametrize("name", ["outlier_exposure", "energy_bounded", "confidence_outlier_exposure"])
def test_the_weight_of_an_objective_scales_the_loss_of_the_outliers(name: str) -> None:
    losses = []
    for weight in (0.0, 1.0, 3.0):
        torch.manual_seed(4)
        losses.append(float(CLASSIFICATION[name](weight=weight)(as_logits, batch()).value))
    assert losses[2] - losses[0] == pytest.approx(3 * (losses[1] - losses[0]), rel=1e-6)
    assert losses[1] != losses[0]


@given(tau=st.floats(0.02, 5), scale=st.floats(0.1, 30), seed=st.integers(0, 999))
def test_logit_norm_is_the_cross_entropy_of_logits_of_the_norm_one_over_tau(
    tau: float, scale: float, seed: int
) -> None:
    generator = np.random.default_rng(seed)
    logits, targets = scale * generator.normal(size=(6, 5)), generator.integers(5, size=6)
    directions = logits / np.sqrt((logits**2).sum(axis=1, keepdims=True))
    expected = -np.mean(np.log(softmax(directions / tau, axis=1))[np.arange(6), targets])
    loss = logit_norm_loss(torch.from_numpy(logits), torch.from_numpy(targets), tau=tau)
    assert float(loss) == pytest.approx(expected, rel=1e-4, abs=1e-7)


def test_logit_norm_has_the_papers_temperature_and_uses_the_in_distribution_batch_alone() -> None:
    inputs = batch()
    value, logits = LogitNorm()(as_logits, inputs)
    assert logits is not None
    torch.testing.assert_close(value, logit_norm_loss(as_logits(inputs.x_in).logits, TARGETS, tau=0.04))
    torch.testing.assert_close(LogitNorm()(as_logits, inputs._replace(x_out=None)).value, value)


def test_longer_logits_do_not_lower_the_logit_norm_loss() -> None:
    logits = torch.randn(4, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(
        logit_norm_loss(100 * logits, TARGETS), logit_norm_loss(logits, TARGETS), rtol=1e-5, atol=0
    )


def test_logit_norm_of_zero_logits_is_finite() -> None:
    logits = torch.zeros(4, 3, requires_grad=True)
    loss = logit_norm_loss(logits, TARGETS)
    loss.backward()
    assert float(loss) == pytest.approx(np.log(3))
    assert logits.grad is not None
    assert logits.grad.isfinite().all()


@pytest.mark.parametrize("tau", [0.0, -1.0])
def test_logit_norm_refuses_a_temperature_that_is_not_positive(tau: float) -> None:
    with pytest.raises(ValueError, match="tau must be positive"):
        LogitNorm(tau)
