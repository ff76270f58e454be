"""Objectives of language models: the losses equal the paper's formulas computed with SciPy."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import log_softmax, softmax
from scipy.stats import entropy
from torch import Tensor

from training.data import Batch
from training.models.language_model import TokenPrediction
from training.objectives import (
    LanguageModelOutlierExposure,
    TextLikelihoodMargin,
    TextMaximumLikelihood,
    language_model_outlier_exposure_loss,
    token_cross_entropy,
    uniform_token_cross_entropy,
)


def symbols(n: int, length: int, vocabulary: int, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Logits, targets and whether each symbol counts; at least one symbol of each text does."""
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
    outlier_nats = [entropy(uniform) + entropy(uniform, softmax(row)) for row in logits_out[counted_out]]
    ours = language_model_outlier_exposure_loss(
        *map(torch.from_numpy, (logits_in, targets, counted_in, logits_out, counted_out)), weight
    )
    assert float(ours) == pytest.approx(np.mean(nats) + weight * np.mean(outlier_nats), rel=1e-9)


@settings(max_examples=40)
@given(
    n=st.integers(1, 4),
    length=st.integers(1, 7),
    vocabulary=st.integers(2, 9),
    weight=st.floats(0, 3),
    margin=st.floats(0, 3),
    seed=st.integers(0, 2**16),
)
def test_the_margin_loss_compares_the_nats_per_symbol_of_every_text_with_every_outlier(
    n: int, length: int, vocabulary: int, weight: float, margin: float, seed: int
) -> None:
    texts, outliers = symbols(n, length, vocabulary, seed), symbols(n + 1, length + 2, vocabulary, seed + 1)

    def nats(logits: np.ndarray, targets: np.ndarray, counted: np.ndarray) -> list[np.ndarray]:
        log_p = log_softmax(logits, axis=2)
        return [-log_p[i, np.flatnonzero(row), targets[i][row]] for i, row in enumerate(counted)]

    nats_in, nats_out = nats(*texts), nats(*outliers)
    hinges = [max(0.0, margin + x.mean() - y.mean()) for x in nats_in for y in nats_out]
    predictions = iter(TokenPrediction(*map(torch.from_numpy, part)) for part in (texts, outliers))
    batch = Batch(x_in=torch.zeros(1), y_in=torch.zeros(1, dtype=torch.int64), x_out=torch.zeros(1))
    loss = TextLikelihoodMargin(weight, margin)(lambda _: next(predictions), batch).value
    assert float(loss) == pytest.approx(np.concatenate(nats_in).mean() + weight * np.mean(hinges), rel=1e-9)


def test_symbols_that_do_not_count_have_no_gradient_and_any_target() -> None:
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


def forward(rows: Tensor) -> TokenPrediction:
    """Random logits of five symbols that depend on the rows; the last symbol of each text does not count."""
    generator = torch.Generator().manual_seed(int(rows.sum()))
    logits = torch.randn(*rows.shape, 5, generator=generator, dtype=torch.float64)
    counted = (torch.arange(rows.shape[1]) < rows.shape[1] - 1).expand(rows.shape)
    return TokenPrediction(logits, rows % 5, counted)


PAIRED = Batch(torch.arange(8).view(2, 4), torch.zeros(2, dtype=torch.int64), torch.arange(18).view(3, 6))


def test_maximum_likelihood_uses_the_in_distribution_texts() -> None:
    expected = token_cross_entropy(*forward(PAIRED.x_in))
    torch.testing.assert_close(TextMaximumLikelihood()(forward, PAIRED).value, expected)


@pytest.mark.parametrize("weight", [0.0, 0.5, 2.0])
def test_outlier_exposure_adds_the_weighted_loss_of_the_outlier_texts(weight: float) -> None:
    assert PAIRED.x_out is not None
    outliers = forward(PAIRED.x_out)
    expected = token_cross_entropy(*forward(PAIRED.x_in))
    expected = expected + weight * uniform_token_cross_entropy(outliers.logits, outliers.counted)
    torch.testing.assert_close(LanguageModelOutlierExposure(weight)(forward, PAIRED).value, expected)


def test_outlier_exposure_needs_outliers_and_no_negative_weight() -> None:
    with pytest.raises(ValueError, match="outlier"):
        LanguageModelOutlierExposure()(forward, PAIRED._replace(x_out=None))
    with pytest.raises(ValueError, match="weight must not be negative, got -1"):
        LanguageModelOutlierExposure(weight=-1)
