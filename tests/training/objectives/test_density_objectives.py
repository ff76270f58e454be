"""Objectives of density networks: the losses equal their formulas computed another way."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from training.data import Batch
from training.models.density import Likelihood
from training.objectives import LikelihoodMargin, MaximumLikelihood, likelihood_margin_loss, maximum_likelihood_loss

HEIGHT, WIDTH, CHANNELS = 4, 3, 3
IN_DIST, OUTLIERS = 2, 5


def nats_of_pixels(images: Tensor) -> Likelihood:
    """A network whose nats are the sum of a pixel's channels, divided by ten."""
    return Likelihood(images.double().sum(dim=3) / 10)


def batch() -> Batch:
    """Images that are not square, and more outliers than images, each brighter and so less likely than the last."""
    generator = torch.Generator().manual_seed(0)
    shape = (HEIGHT, WIDTH, CHANNELS)
    x_in = torch.randint(0, 20, (IN_DIST, *shape), generator=generator, dtype=torch.uint8)
    x_out = torch.randint(0, 20, (OUTLIERS, *shape), generator=generator, dtype=torch.uint8)
    x_out += 2 * torch.arange(OUTLIERS, dtype=torch.uint8)[:, None, None, None]
    return Batch(x_in, torch.zeros(IN_DIST, dtype=torch.int64), x_out)


def image_nats(images: Tensor) -> list[float]:
    return [float(image.double().sum()) / 10 for image in images]


@given(n=st.integers(1, 8), m=st.integers(1, 8), pixels=st.integers(1, 50), seed=st.integers(0, 2**16))
def test_the_margin_loss_is_the_papers_hinge_averaged_over_all_pairs(n: int, m: int, pixels: int, seed: int) -> None:
    generator = np.random.default_rng(seed)
    in_dist, outliers = generator.normal(100, 20, n), generator.normal(120, 30, m)
    pairs = [max(0.0, pixels + a - b) for a in in_dist for b in outliers]
    ours = likelihood_margin_loss(torch.from_numpy(in_dist), torch.from_numpy(outliers), pixels)
    assert float(ours) == pytest.approx(sum(pairs) / (n * m), rel=1e-9, abs=1e-12)


def test_outliers_beyond_the_margin_have_no_loss_and_no_gradient() -> None:
    outliers = torch.tensor([16.0, 40.0], requires_grad=True)
    loss = likelihood_margin_loss(torch.tensor([10.0, 12.0]), outliers, margin=4)
    loss.backward()
    assert float(loss.detach()) == 0
    assert outliers.grad is not None
    assert float(outliers.grad.abs().sum()) == 0


def test_within_the_margin_images_are_made_likelier_and_outliers_less_likely() -> None:
    in_dist, outliers = torch.tensor([10.0], requires_grad=True), torch.tensor([11.0, 90.0], requires_grad=True)
    loss = likelihood_margin_loss(in_dist, outliers, margin=4)
    loss.backward()
    assert float(loss.detach()) == pytest.approx(1.5)
    assert in_dist.grad is not None
    assert outliers.grad is not None
    assert in_dist.grad.tolist() == [0.5]
    assert outliers.grad.tolist() == [-0.5, 0]


def test_the_uniform_distribution_over_bytes_costs_eight_bits_a_dimension() -> None:
    # Three inputs of 12 dimensions, each dimension one of 256 values alike.
    nll = torch.full((3,), 12 * math.log(256))
    assert float(maximum_likelihood_loss(nll, dimensions=12)) / math.log(2) == pytest.approx(8, rel=1e-6)


def test_the_likelihood_of_a_batch_is_the_mean_of_its_inputs() -> None:
    assert float(maximum_likelihood_loss(torch.tensor([2.0, 4.0, 12.0]), dimensions=3)) == pytest.approx(2)


def test_maximum_likelihood_is_the_mean_nats_per_channel_of_the_in_distribution_images() -> None:
    expected = np.mean(image_nats(batch().x_in)) / (HEIGHT * WIDTH * CHANNELS)
    assert float(MaximumLikelihood()(nats_of_pixels, batch()).value) == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize(("weight", "margin"), [(0.0, 1.0), (0.5, 1 / 3), (2.0, 0.5)])
def test_the_margin_and_the_loss_are_counted_per_dimension(weight: float, margin: float) -> None:
    images, _, outliers = batch()
    assert outliers is not None
    dimensions = HEIGHT * WIDTH * CHANNELS
    pairs = [max(0.0, margin * dimensions + a - b) for a in image_nats(images) for b in image_nats(outliers)]
    # Some pairs are beyond the margin, except beyond the largest one.
    assert 0 < sum(pair > 0 for pair in pairs) < len(pairs) + (margin == 1)
    expected = (np.mean(image_nats(images)) + weight * np.mean(pairs)) / dimensions
    ours = LikelihoodMargin(weight=weight, margin=margin)(nats_of_pixels, batch()).value
    assert float(ours) == pytest.approx(expected, rel=1e-9)


def test_the_default_margin_is_one_nat_per_dimension() -> None:
    default = LikelihoodMargin()(nats_of_pixels, batch()).value
    assert float(default) == float(LikelihoodMargin(margin=1.0)(nats_of_pixels, batch()).value)


def test_the_likelihood_margin_needs_outliers_and_no_negative_weight_or_margin() -> None:
    with pytest.raises(ValueError, match="outlier"):
        LikelihoodMargin()(nats_of_pixels, batch()._replace(x_out=None))
    with pytest.raises(ValueError, match="weight must not be negative, got -1"):
        LikelihoodMargin(weight=-1)
    with pytest.raises(ValueError, match=r"margin must not be negative, got -0\.5"):
        LikelihoodMargin(margin=-0.5)
