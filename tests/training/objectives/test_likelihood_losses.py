"""The losses of density networks equal their formulas computed another way."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from training.objectives import likelihood_margin_loss, maximum_likelihood_loss


@given(n=st.integers(1, 8), m=st.integers(1, 8), pixels=st.integers(1, 50), seed=st.integers(0, 2**16))
def test_the_margin_loss_is_the_papers_hinge_averaged_over_all_pairs(n: int, m: int, pixels: int, seed: int) -> None:
    generator = np.random.default_rng(seed)
    inside, outside = generator.normal(100, 20, n), generator.normal(120, 30, m)
    pairs = [max(0.0, pixels + a - b) for a in inside for b in outside]
    ours = likelihood_margin_loss(torch.from_numpy(inside), torch.from_numpy(outside), pixels)
    assert float(ours) == pytest.approx(sum(pairs) / (n * m), rel=1e-9, abs=1e-12)


def test_outliers_beyond_the_margin_cost_nothing_and_are_left_alone() -> None:
    outside = torch.tensor([16.0, 40.0], requires_grad=True)
    loss = likelihood_margin_loss(torch.tensor([10.0, 12.0]), outside, num_pixels=4)
    loss.backward()
    assert float(loss.detach()) == 0
    assert outside.grad is not None
    assert float(outside.grad.abs().sum()) == 0


def test_within_the_margin_images_are_made_likelier_and_outliers_less_likely() -> None:
    inside, outside = torch.tensor([10.0], requires_grad=True), torch.tensor([11.0, 90.0], requires_grad=True)
    loss = likelihood_margin_loss(inside, outside, num_pixels=4)
    loss.backward()
    assert float(loss.detach()) == pytest.approx(1.5)
    assert inside.grad is not None
    assert outside.grad is not None
    assert inside.grad.tolist() == [0.5]
    assert outside.grad.tolist() == [-0.5, 0]


def test_the_uniform_distribution_over_bytes_costs_eight_bits_a_dimension() -> None:
    # Three inputs of 12 dimensions, each dimension one of 256 values alike.
    nll = torch.full((3,), 12 * math.log(256))
    assert float(maximum_likelihood_loss(nll, dimensions=12)) / math.log(2) == pytest.approx(8, rel=1e-6)


def test_the_likelihood_of_a_batch_is_the_mean_of_its_inputs() -> None:
    assert float(maximum_likelihood_loss(torch.tensor([2.0, 4.0, 12.0]), dimensions=3)) == pytest.approx(2)
