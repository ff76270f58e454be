"""Logits are recorded while a classifier scores, in the order of its inputs."""

import numpy as np
import pytest
import torch

from bundle import ImageInput
from tests.training.support.datasets_on_disk import stripes
from training.data import StoredArray
from training.models.classifier import ImageClassifier
from training.models.score_heads import ScoredClassifier
from training.scoring.batch_scoring import score_inputs
from training.scoring.logits import recorded_logits

SPEC = ImageInput(height=16, width=16, channels=3, mean=(0.0,) * 3, std=(1 / 255,) * 3)
IMAGES = StoredArray(stripes(37, seed=1)[0])


class Brightness(torch.nn.Module):
    """Three logits that are multiples of an image's mean."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return images.mean(dim=(1, 2, 3))[:, None] / torch.tensor([100.0, -50.0, 30.0])


@pytest.fixture
def model() -> ScoredClassifier:
    return ScoredClassifier(ImageClassifier(Brightness(), SPEC), ("msp", "max_logit"))


def test_the_logits_of_all_batches_are_in_the_order_of_the_images(model: ScoredClassifier) -> None:
    with recorded_logits(model) as logits:
        outputs = score_inputs(model, IMAGES, batch_size=10)
    assert logits.array().shape == (37, 3)
    assert logits.array().dtype == np.float32
    assert logits.array().max(axis=1) == pytest.approx(outputs["max_logit"])


def test_nothing_is_recorded_outside_the_block(model: ScoredClassifier) -> None:
    with recorded_logits(model) as logits:
        score_inputs(model, IMAGES)
    score_inputs(model, IMAGES)
    assert len(logits.array()) == 37
