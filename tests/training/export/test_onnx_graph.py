"""The exported graph scores real inputs as torch does, for any batch, and is refused when it does not."""

from pathlib import Path

import numpy as np
import pytest
import torch

from bundle import LOGIT_SCORES, ImageInput
from tests.training.support.datasets_on_disk import stripes
from training.architectures import ARCHITECTURES
from training.data import StoredArray
from training.errors import ParityError
from training.export.onnx_graph import check_parity, run_graph, write_graph
from training.models.classifier import ImageClassifier, Mirrored
from training.models.score_heads import ScoredClassifier
from training.scoring.batch_scoring import Outputs, score_inputs

SPEC = ImageInput(height=16, width=16, channels=3, mean=(0.4, 0.5, 0.6), std=(0.2, 0.3, 0.25))
OPTIONS = {
    "wide_resnet": {"depth": 10, "widen_factor": 1},
    "small_conv": {"width": 8},
    "whitened_conv": {"widths": [8, 8]},
}
IMAGES = StoredArray(stripes(37, seed=1)[0])


def scored(name: str) -> ScoredClassifier:
    torch.manual_seed(1)
    network = ARCHITECTURES[name](num_classes=5, channels=3, **OPTIONS.get(name, {}))
    classifier = ImageClassifier(network, SPEC)
    classifier.initialise(torch.from_numpy(IMAGES.array))
    # A training pass gives batch normalisation statistics that are not the identity.
    classifier.train()(torch.from_numpy(IMAGES.array))
    return ScoredClassifier(classifier.eval(), LOGIT_SCORES)


def by_graph(model: ScoredClassifier, folder: Path, batch_size: int = 64) -> Outputs:
    return run_graph(folder / "model.onnx", IMAGES, model.model.prepare, batch_size)


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_the_graph_scores_as_torch_does_at_every_batch_size(name: str, tmp_path: Path) -> None:
    model = scored(name)
    write_graph(model, IMAGES.array[:2], tmp_path / "model.onnx")
    assert [path.name for path in tmp_path.iterdir()] == ["model.onnx"]
    expected = score_inputs(model, IMAGES)
    for batch_size in (1, 5, 37):
        differences = check_parity(expected, by_graph(model, tmp_path, batch_size), 1e-4)
        assert set(differences) == {*LOGIT_SCORES, "probability"}


def test_a_mirrored_classifier_scores_an_image_and_its_mirror_image_alike_in_torch_and_in_the_graph(
    tmp_path: Path,
) -> None:
    plain = scored("whitened_conv").model
    model = ScoredClassifier(Mirrored(plain), LOGIT_SCORES)
    mirrored = StoredArray(np.ascontiguousarray(IMAGES.array[:, :, ::-1]))
    write_graph(model, IMAGES.array[:2], tmp_path / "model.onnx")
    there, back = score_inputs(model, IMAGES), run_graph(tmp_path / "model.onnx", mirrored, model.model.prepare, 5)
    check_parity(there, back, 1e-4)
    images = torch.from_numpy(IMAGES.array)
    expected = (plain(images).logits + plain(images.flip(2)).logits) / 2
    torch.testing.assert_close(Mirrored(plain)(images).logits, expected)
    assert not torch.allclose(plain(images).logits, expected)


def test_a_graph_of_other_weights_is_refused(tmp_path: Path) -> None:
    model = scored("small_conv")
    write_graph(model, IMAGES.array[:2], tmp_path / "model.onnx")
    with torch.no_grad():
        model.model.network.classifier.bias[0] += 0.1
    with pytest.raises(ParityError, match="max_logit"):
        check_parity(score_inputs(model, IMAGES), by_graph(model, tmp_path), 1e-3)


def test_a_nan_is_no_parity() -> None:
    good = {"msp": np.array([0.5], np.float32), "prediction": np.array([1])}
    bad = {"msp": np.array([np.nan], np.float32), "prediction": np.array([1])}
    with pytest.raises(ParityError, match="msp"):
        check_parity(good, bad, 1e-3)


def test_other_predictions_are_no_parity() -> None:
    ours, theirs = ({"prediction": np.array(classes)} for classes in ([0, 1], [0, 0]))
    with pytest.raises(ParityError, match="predicts"):
        check_parity(ours, theirs, 1e-3)
