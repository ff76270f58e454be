"""The discretised mixture of logistics: a probability distribution, equal to the paper's formula."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.special import softmax
from scipy.stats import logistic
from torch import Tensor

from training.architectures.discretized_logistic_mixture import discretized_logistic_mixture_nats, parameters_needed

ALL_VALUES = torch.arange(256.0)


def drawn(channels: int, mixtures: int, seed: int, spread: float = 2.0) -> Tensor:
    """Parameters of one pixel, `[P]`, float64; scales from one grey value to the whole range."""
    generator = torch.Generator().manual_seed(seed)
    n = parameters_needed(channels, mixtures)
    parameters = spread * torch.randn(n, generator=generator, dtype=torch.float64)
    scales = slice(mixtures * (1 + channels), mixtures * (1 + 2 * channels))
    parameters[scales] = torch.empty(channels * mixtures, dtype=torch.float64).uniform_(-7, 1, generator=generator)
    return parameters


def nats(parameters: Tensor, values: Tensor) -> Tensor:
    """`[V]` for one pixel's parameters `[P]` and its values `[V, C]`."""
    shared = parameters.view(1, -1, 1, 1).expand(len(values), -1, -1, -1)
    return discretized_logistic_mixture_nats(shared, values[:, :, None, None])[:, 0, 0]


def by_scipy(parameters: Tensor, values: Tensor) -> NDArray[np.float64]:
    """The probability `[V]` of each row of `values` `[V, C]`, component by component, as the paper writes it."""
    channels = values.shape[1]
    table = parameters.numpy().reshape(parameters_needed(channels, 1), -1)
    x = (values.numpy().astype(np.float64) - 127.5) / 127.5
    total = np.zeros(len(values))
    for k, weight in enumerate(softmax(table[0])):
        probability = np.full(len(values), weight)
        coefficients = iter(np.tanh(table[1 + 2 * channels :, k]))
        for c in range(channels):
            mean = table[1 + c, k] + sum(next(coefficients) * x[:, earlier] for earlier in range(c))
            scale = np.exp(max(table[1 + channels + c, k], -7))
            low, high = x[:, c] - 1 / 255, x[:, c] + 1 / 255
            # Above the mean the difference of upper tails is precise; a difference of cdfs would cancel.
            below_low, below_high = (logistic.cdf(edge, mean, scale) for edge in (low, high))
            above_low, above_high = (logistic.sf(edge, mean, scale) for edge in (low, high))
            bin_probability = np.where(low > mean, above_low - above_high, below_high - below_low)
            tails = [x[:, c] < -0.999, x[:, c] > 0.999]
            probability = probability * np.select(tails, [below_high, above_low], bin_probability)
        total += probability
    return total


@settings(max_examples=50)
@given(channels=st.integers(1, 4), mixtures=st.integers(1, 5), seed=st.integers(0, 2**16))
def test_the_probability_is_the_papers_sum_over_components(channels: int, mixtures: int, seed: int) -> None:
    parameters = drawn(channels, mixtures, seed)
    generator = torch.Generator().manual_seed(seed + 1)
    values = torch.randint(0, 256, (64, channels), generator=generator)
    values[:8] = 255 * torch.randint(0, 2, (8, channels), generator=generator)
    ours = torch.exp(-nats(parameters, values)).numpy()
    np.testing.assert_allclose(ours, by_scipy(parameters, values), rtol=1e-7, atol=1e-300)


@pytest.mark.parametrize("value", [0, 255])
def test_the_lowest_and_the_highest_value_take_the_whole_tail(value: int) -> None:
    # One component of mean 0 and scale 1.
    probability = torch.exp(-nats(torch.zeros(3, dtype=torch.float64), torch.tensor([[value]])))
    assert float(probability) == pytest.approx(logistic.cdf(-254 / 255), rel=1e-9)


@settings(max_examples=30)
@given(mixtures=st.integers(1, 5), seed=st.integers(0, 2**16))
def test_the_256_values_of_a_grey_pixel_have_probabilities_that_sum_to_one(mixtures: int, seed: int) -> None:
    parameters = drawn(1, mixtures, seed).float()
    assert float(torch.exp(-nats(parameters, ALL_VALUES[:, None])).sum()) == pytest.approx(1, abs=1e-5)


@settings(max_examples=30)
@given(mixtures=st.integers(1, 4), seed=st.integers(0, 2**16), earlier=st.lists(st.integers(0, 255), max_size=2))
def test_summing_over_the_last_channel_leaves_the_distribution_of_the_channels_before_it(
    mixtures: int, seed: int, earlier: list[int]
) -> None:
    # For no, one and two earlier channels: together, the 256^3 colours sum to 1.
    channels = len(earlier) + 1
    parameters = drawn(channels, mixtures, seed)
    before = torch.tensor(earlier, dtype=torch.float64)
    values = torch.cat((before.expand(256, -1), ALL_VALUES.double()[:, None]), dim=1)
    summed = float(torch.logsumexp(-nats(parameters, values), dim=0))
    expected = 0.0
    if earlier:
        # The rows of one channel less: the logits, and of means, scales and coefficients those that are not the last's.
        table = parameters.view(parameters_needed(channels, 1), mixtures)
        pairs = (channels - 1) * (channels - 2) // 2
        first = 1 + 2 * channels
        rows = [*range(channels), *range(1 + channels, 2 * channels), *range(first, first + pairs)]
        expected = -float(nats(table[rows].flatten(), before[None]))
    assert summed == pytest.approx(expected, rel=1e-7, abs=1e-7)


@pytest.mark.parametrize("extreme", [-1e4, -50.0, -7.0, 30.0, 1e4])
@pytest.mark.parametrize("mean", [-1e6, 0.0, 1e6])
@pytest.mark.parametrize("value", [0.0, 1.0, 127.0, 255.0])
def test_extreme_scales_and_means_give_finite_nats_and_gradients(extreme: float, mean: float, value: float) -> None:
    parameters = torch.tensor([0.0, 1.0, mean, 0.3, extreme, extreme], requires_grad=True)
    result = nats(parameters, torch.tensor([[value]]))
    result.sum().backward()
    assert torch.isfinite(result).all()
    assert parameters.grad is not None
    assert torch.isfinite(parameters.grad).all()


@pytest.mark.parametrize("seed", range(5))
def test_float32_agrees_with_float64(seed: int) -> None:
    parameters = drawn(3, 3, seed, spread=0.5)
    values = torch.randint(0, 256, (256, 3), generator=torch.Generator().manual_seed(seed))
    # The rounding error is that of a value's distance from a mean, divided by a scale of as little as 1/1,100.
    torch.testing.assert_close(
        nats(parameters.float(), values).double(), nats(parameters, values), rtol=1e-4, atol=1e-3
    )


def test_stored_bytes_and_floats_have_the_same_nats() -> None:
    parameters = torch.randn(2, parameters_needed(3, 4), 5, 6)
    pixels = torch.randint(0, 256, (2, 3, 5, 6), dtype=torch.uint8)
    of_bytes = discretized_logistic_mixture_nats(parameters, pixels)
    assert of_bytes.shape == (2, 5, 6)
    assert torch.equal(of_bytes, discretized_logistic_mixture_nats(parameters, pixels.float()))


@pytest.mark.parametrize(("channels", "per_component"), [(1, 3), (3, 10)])
def test_a_component_has_the_papers_number_of_parameters(channels: int, per_component: int) -> None:
    assert parameters_needed(channels, 10) == 10 * per_component


def test_parameters_for_another_number_of_channels_are_refused() -> None:
    with pytest.raises(ValueError, match=r"25 parameters .* 3 channels.*parameters_needed"):
        discretized_logistic_mixture_nats(torch.zeros(1, 25, 2, 2), torch.zeros(1, 3, 2, 2))


def test_mixed_precision_does_not_change_the_likelihood() -> None:
    # Means near the edge of the values and scales of one value, which bfloat16 would round by half a value.
    parameters = torch.stack([drawn(3, 5, seed) for seed in range(40)]).float().view(40, -1, 1, 1).requires_grad_()
    values = torch.randint(0, 256, (40, 3, 1, 1), generator=torch.Generator().manual_seed(1)).float()
    exact = discretized_logistic_mixture_nats(parameters, values)
    (expected_gradient,) = torch.autograd.grad(exact.sum(), parameters)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        mixed = discretized_logistic_mixture_nats(parameters, values)
    (gradient,) = torch.autograd.grad(mixed.sum(), parameters)
    assert mixed.dtype == torch.float32
    assert torch.equal(mixed, exact)
    assert torch.equal(gradient, expected_gradient)


def test_a_network_in_mixed_precision_has_its_likelihood_computed_in_float32() -> None:
    parameters = torch.stack([drawn(3, 5, seed) for seed in range(40)]).view(40, -1, 1, 1).bfloat16()
    values = torch.randint(0, 256, (40, 3, 1, 1), generator=torch.Generator().manual_seed(1)).float()
    nats_of_rounded = discretized_logistic_mixture_nats(parameters.float(), values)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        mixed = discretized_logistic_mixture_nats(parameters, values)
    assert torch.equal(mixed, nats_of_rounded)
