"""The losses of language models equal the paper's formulas computed by SciPy."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import log_softmax, softmax
from scipy.stats import entropy

from training.objectives import (
    language_model_outlier_exposure_loss,
    token_cross_entropy,
    uniform_token_cross_entropy,
)


def symbols(n: int, length: int, vocabulary: int, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Logits, targets and which count: 1 or more symbols of each text."""
    generator = np.random.default_rng(seed)
    logits = 3 * generator.normal(size=(n, length, vocabulary))
    counted = np.arange(length) < generator.integers(1, length + 1, n)[:, None]
    return logits, generator.integers(vocabulary, size=(n, length)), counted


@settings(max_examples=40)
@given(
    n=st.integers(1, 4),
    length=st.integers(1, 7),
    vocabulary=st.integers(2, 9),
    weight=st.floats(0, 3),
    seed=st.integers(0, 2**16),
)
def test_outlier_exposure_is_the_mean_of_symbols_plus_weighted_uniform_cross_entropies(
    n: int, length: int, vocabulary: int, weight: float, seed: int
) -> None:
    logits_in, targets, counted_in = symbols(n, length, vocabulary, seed)
    logits_out, _, counted_out = symbols(n + 1, length + 2, vocabulary, seed + 1)
    log_p = log_softmax(logits_in, axis=2)
    nats = [-log_p[i, t, targets[i, t]] for i, t in zip(*np.nonzero(counted_in), strict=True)]
    uniform = np.full(vocabulary, 1 / vocabulary)
    # H(U; p) = H(U) + KL(U || p), both by SciPy.
    outside = [entropy(uniform) + entropy(uniform, softmax(row)) for row in logits_out[counted_out]]
    ours = language_model_outlier_exposure_loss(
        *map(torch.from_numpy, (logits_in, targets, counted_in, logits_out, counted_out)), weight
    )
    assert float(ours) == pytest.approx(np.mean(nats) + weight * np.mean(outside), rel=1e-9)


def test_what_does_not_count_has_no_gradient_and_may_be_anything() -> None:
    logits = torch.randn(2, 5, 4, requires_grad=True)
    counted = torch.arange(5) < torch.tensor([[3], [5]])
    targets = torch.randint(4, (2, 5)).masked_fill(~counted, 99)
    (token_cross_entropy(logits, targets, counted) + uniform_token_cross_entropy(logits, counted)).backward()
    assert logits.grad is not None
    assert not logits.grad[~counted].any()
    assert logits.grad[counted].any()


def test_a_uniform_prediction_costs_the_log_of_the_vocabulary_and_has_no_gradient() -> None:
    logits = torch.zeros(1, 3, 7, requires_grad=True)
    loss = uniform_token_cross_entropy(logits, torch.ones(1, 3, dtype=torch.bool))
    loss.backward()
    assert loss.item() == pytest.approx(math.log(7))
    assert logits.grad is not None
    assert float(logits.grad.abs().max()) < 1e-7
