"""Scores and prediction of a classifier's logits equal their definitions; other scores are refused."""

import numpy as np
import pytest
import torch

from bundle import LOGIT_SCORES, SCORES, ImageInput
from tests.training.support.reference_scores import reference_scores
from training.errors import RecipeError
from training.models.classifier import ImageClassifier
from training.models.density import Density
from training.models.likelihood_heads import ScoredDensity
from training.models.score_heads import ClassifierHead, ScoredClassifier

SPEC = ImageInput(height=16, width=16, channels=3, mean=(0.4, 0.5, 0.6), std=(0.2, 0.3, 0.25))
LOGITS = 5 * np.random.default_rng(0).normal(size=(50, 7))


def test_every_score_of_logits_equals_its_definition_computed_by_scipy() -> None:
    expected = reference_scores(LOGITS)
    assert set(expected) == set(LOGIT_SCORES)
    for name, values in expected.items():
        computed = SCORES[name].compute({"logits": torch.from_numpy(LOGITS)})
        np.testing.assert_allclose(computed, values, rtol=1e-9, err_msg=name)


def test_gen_sums_the_hundred_most_probable_of_many_classes() -> None:
    logits = 3 * np.random.default_rng(4).normal(size=(20, 250))
    expected = reference_scores(logits)["gen"]
    np.testing.assert_allclose(SCORES["gen"].compute({"logits": torch.from_numpy(logits)}), expected, rtol=1e-9)


@pytest.mark.parametrize("gap", [0.0, 1.0, 17.0, 40.0, 150.0, 600.0])
def test_gen_of_a_certain_prediction_is_as_exact_in_float32_as_its_closed_form(gap: float) -> None:
    # Of two classes p_1 p_2 = sigmoid(gap) sigmoid(-gap), whose logarithm does not underflow.
    expected = 2 * np.exp(0.1 * (-np.logaddexp(0, -gap) - np.logaddexp(0, gap)))
    for offset in (-50.0, 0.0, 50.0):
        logits = torch.tensor([[offset, offset + gap]], dtype=torch.float32)
        assert float(SCORES["gen"].compute({"logits": logits})) == pytest.approx(expected, rel=2e-5)


def test_a_head_gives_scores_and_prediction_in_the_order_of_its_names() -> None:
    head = ClassifierHead(("energy", "confidence", "msp"), confidence_branch=True)
    confidence_logit = np.linspace(-3, 3, len(LOGITS))
    outputs = head(torch.from_numpy(LOGITS), torch.from_numpy(confidence_logit))
    found = dict(zip(head.output_names, outputs, strict=True))
    expected = reference_scores(LOGITS)
    assert list(found) == ["energy", "confidence", "msp", "prediction", "probability"]
    np.testing.assert_allclose(found["energy"], expected["energy"])
    np.testing.assert_allclose(found["confidence"], 1 / (1 + np.exp(-confidence_logit)))
    np.testing.assert_allclose(found["probability"], expected["msp"])
    np.testing.assert_array_equal(found["prediction"], LOGITS.argmax(axis=1))


def test_entropy_of_a_certain_prediction_is_zero_not_nan() -> None:
    assert float(SCORES["entropy"].compute({"logits": torch.tensor([[500.0, -500.0, 0.0]])})) == 0.0


@pytest.mark.parametrize("name", LOGIT_SCORES)
def test_a_score_of_logits_takes_any_leading_axes(name: str) -> None:
    flat = SCORES[name].compute({"logits": torch.from_numpy(LOGITS)})
    nested = SCORES[name].compute({"logits": torch.from_numpy(LOGITS.reshape(5, 10, 7))})
    torch.testing.assert_close(nested.flatten(), flat)


def test_a_score_that_logits_do_not_give_is_refused_by_name() -> None:
    with pytest.raises(RecipeError, match=r"bpp cannot be computed .*Choose among msp, max_logit"):
        ScoredClassifier(ImageClassifier(torch.nn.Identity(), SPEC), ("msp", "bpp"))


def test_confidence_is_refused_without_a_confidence_branch() -> None:
    with pytest.raises(RecipeError, match="confidence cannot be computed"):
        ScoredClassifier(ImageClassifier(torch.nn.Identity(), SPEC), ("confidence",))


def test_a_density_has_no_other_score_than_bits_per_pixel() -> None:
    with pytest.raises(RecipeError, match=r"bpc cannot be computed .*Choose among bpp"):
        ScoredDensity(Density(torch.nn.Identity()), ("bpc",), "pixel")
