"""The exported graph scores real inputs as torch does at any batch size; a graph that does not is refused."""

from collections.abc import Callable
from copy import deepcopy
from functools import cache
from pathlib import Path
from typing import NamedTuple

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
    "all_conv": {"width": 8},
    "small_conv": {"width": 8},
    "whitened_conv": {"widths": [8, 8]},
}
IMAGES = StoredArray(stripes(37, seed=1)[0])


class Exported(NamedTuple):
    model: ScoredClassifier
    graph: Path


def scored_classifier(name: str) -> ScoredClassifier:
    torch.manual_seed(1)
    network = ARCHITECTURES[name](num_classes=5, channels=3, **OPTIONS.get(name, {}))
    classifier = ImageClassifier(network, SPEC)
    classifier.initialise(torch.from_numpy(IMAGES.array))
    # A training pass gives batch normalisation statistics that are not the identity.
    classifier.train()(torch.from_numpy(IMAGES.array))
    return ScoredClassifier(classifier.eval(), LOGIT_SCORES)


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Exported]:
    """Exports each architecture once. Copy the model before changing it."""

    @cache
    def export(name: str) -> Exported:
        model, graph = scored_classifier(name), tmp_path_factory.mktemp(name) / "model.onnx"
        write_graph(model, IMAGES.array[:2], graph)
        return Exported(model, graph)

    return export


def outputs_of(exported: Exported, batch_size: int = 64) -> Outputs:
    return run_graph(exported.graph, IMAGES, exported.model.model.prepare, batch_size)


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_the_graph_scores_as_torch_does_at_every_batch_size(name: str, exported: Callable[[str], Exported]) -> None:
    export = exported(name)
    assert [path.name for path in export.graph.parent.iterdir()] == ["model.onnx"]
    expected = score_inputs(export.model, IMAGES)
    for batch_size in (1, 5, 37):
        differences = check_parity(expected, outputs_of(export, batch_size), 1e-4)
        assert set(differences) == {*LOGIT_SCORES, "probability"}


def test_a_mirrored_classifier_gives_an_image_and_its_mirror_image_the_same_scores_in_torch_and_in_the_graph(
    tmp_path: Path,
) -> None:
    plain = scored_classifier("small_conv").model
    model = ScoredClassifier(Mirrored(plain), LOGIT_SCORES)
    mirrored = StoredArray(np.ascontiguousarray(IMAGES.array[:, :, ::-1]))
    write_graph(model, IMAGES.array[:2], tmp_path / "model.onnx")
    outputs = run_graph(tmp_path / "model.onnx", mirrored, model.model.prepare, 5)
    check_parity(score_inputs(model, IMAGES), outputs, 1e-4)
    images = torch.from_numpy(IMAGES.array)
    expected = (plain(images).logits + plain(images.flip(2)).logits) / 2
    torch.testing.assert_close(Mirrored(plain)(images).logits, expected)
    assert not torch.allclose(plain(images).logits, expected)


def test_a_graph_of_other_weights_is_refused(exported: Callable[[str], Exported]) -> None:
    export = exported("small_conv")
    changed = deepcopy(export.model)
    with torch.no_grad():
        changed.model.network.classifier.bias[0] += 0.1
    with pytest.raises(ParityError, match="max_logit"):
        check_parity(score_inputs(changed, IMAGES), outputs_of(export), 1e-3)


def test_a_graph_with_a_nan_is_refused() -> None:
    expected = {"msp": np.array([0.5], np.float32), "prediction": np.array([1])}
    outputs = {"msp": np.array([np.nan], np.float32), "prediction": np.array([1])}
    with pytest.raises(ParityError, match="msp"):
        check_parity(expected, outputs, 1e-3)


def test_a_graph_that_predicts_other_classes_is_refused() -> None:
    expected, outputs = ({"prediction": np.array(classes)} for classes in ([0, 1], [0, 0]))
    with pytest.raises(ParityError, match="predicts"):
        check_parity(expected, outputs, 1e-3)


def test_a_graph_with_other_outputs_is_refused() -> None:
    with pytest.raises(ParityError, match=r"has outputs \['msp'\]. Expected \['energy', 'msp'\]"):
        check_parity({"msp": np.zeros(1), "energy": np.zeros(1)}, {"msp": np.zeros(1)}, 1e-3)


@pytest.mark.parametrize("value", [0.5, -20.0, 4000.0])
def test_differences_of_large_values_are_relative(value: float) -> None:
    expected = {"mahalanobis": np.array([value], np.float32)}
    scale = max(1.0, abs(value))
    outputs = ({"mahalanobis": np.array([value + share * scale], np.float32)} for share in (0.0009, 0.0011))
    assert check_parity(expected, next(outputs), 1e-3)["mahalanobis"] == pytest.approx(0.0009 * scale, rel=1e-3)
    with pytest.raises(ParityError, match=r"mahalanobis by 0\.0011"):
        check_parity(expected, next(outputs), 1e-3)


def test_the_largest_difference_of_each_float_output_is_returned() -> None:
    expected = {"msp": np.array([0.5, 0.25]), "prediction": np.array([1, 0])}
    outputs = {"msp": np.array([0.5, 0.375]), "prediction": np.array([1, 0])}
    assert check_parity(expected, outputs, 0.125) == {"msp": 0.125}
