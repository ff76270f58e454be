"""Evidence: the positions' parts in the exported graph add up to the logit of the predicted class."""

from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
from torch import Tensor, nn

from bundle import ImageInput
from tests.training.support.datasets_on_disk import stripes
from training.architectures import ARCHITECTURES
from training.architectures.pooling import GlobalAveragePool
from training.export.evidence import with_evidence
from training.export.onnx_graph import write_graph
from training.models.classifier import Classifier, ImageClassifier, Mirrored
from training.models.score_heads import ScoredClassifier

SPEC = ImageInput(height=16, width=16, channels=3, mean=(0.4, 0.5, 0.6), std=(0.2, 0.3, 0.25))
OPTIONS = {
    "wide_resnet": {"depth": 10, "widen_factor": 1},
    "all_conv": {"width": 8},
    "small_conv": {"width": 8},
    "whitened_conv": {"widths": [8, 8]},
}
IMAGES = np.concatenate((stripes(10, seed=1)[0], np.random.default_rng(0).integers(0, 256, (10, 16, 16, 3), np.uint8)))
CLASSES = 5


def trained(network: nn.Module, *, confidence_branch: bool = False) -> ImageClassifier:
    """The network with batch statistics and biases that are not those of a new one."""
    classifier = ImageClassifier(network, SPEC, confidence_branch=confidence_branch)
    images = torch.from_numpy(IMAGES)
    classifier.initialise(images)
    classifier.train()(images)
    for module in classifier.modules():
        if isinstance(module, nn.Linear) and module.bias is not None:
            nn.init.normal_(module.bias)
    return classifier.eval()


def network(name: str, outputs: int = CLASSES) -> nn.Module:
    torch.manual_seed(1)
    return ARCHITECTURES[name](num_classes=outputs, channels=3, **OPTIONS[name])


def exported(classifier: Classifier, folder: Path) -> tuple[ScoredClassifier, dict[str, np.ndarray]]:
    """The model with evidence, and the outputs of its graph for all images."""
    model = with_evidence(ScoredClassifier(classifier, ("msp", "max_logit")), IMAGES)
    assert isinstance(model, ScoredClassifier)
    write_graph(model, IMAGES[:3], folder / "model.onnx")
    session = onnxruntime.InferenceSession(folder / "model.onnx", providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    return model, dict(zip(names, session.run(names, {"images": IMAGES}), strict=True))


def assert_exact(model: ScoredClassifier, outputs: dict[str, np.ndarray]) -> None:
    bias = model.bias(CLASSES)
    assert bias is not None
    sums = outputs["evidence"].sum(axis=(1, 2)) + np.asarray(bias)[outputs["prediction"]]
    np.testing.assert_allclose(sums, outputs["max_logit"], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", list(ARCHITECTURES))
def test_evidence_and_bias_add_up_to_the_logit_of_the_class_in_every_architecture(name: str, tmp_path: Path) -> None:
    model, outputs = exported(trained(network(name)), tmp_path)
    assert outputs["evidence"].ndim == 3
    assert outputs["evidence"].std(axis=(1, 2)).min() > 0
    assert_exact(model, outputs)


def test_the_evidence_of_a_mirrored_classifier_is_that_of_the_upright_image(tmp_path: Path) -> None:
    classifier = trained(network("small_conv"))
    model, outputs = exported(Mirrored(classifier), tmp_path)
    assert_exact(model, outputs)
    _, upright = exported(classifier, tmp_path)
    _, flipped = exported_of(classifier, IMAGES[:, :, ::-1])
    same = (upright["prediction"] == outputs["prediction"]) & (flipped["prediction"] == outputs["prediction"])
    assert same.any()
    mean = (upright["evidence"] + flipped["evidence"][:, :, ::-1]) / 2
    np.testing.assert_allclose(outputs["evidence"][same], mean[same], atol=1e-4)


def exported_of(classifier: Classifier, images: np.ndarray) -> tuple[ScoredClassifier, dict[str, np.ndarray]]:
    """The model with evidence, and its outputs for `images` by torch."""
    model = with_evidence(ScoredClassifier(classifier, ("msp", "max_logit")), IMAGES)
    assert isinstance(model, ScoredClassifier)
    with torch.inference_mode():
        values = model(torch.from_numpy(np.ascontiguousarray(images)))
    return model, {name: value.numpy() for name, value in zip(model.output_names, values, strict=True)}


def test_a_confidence_branch_has_no_part_in_the_evidence(tmp_path: Path) -> None:
    classifier = trained(network("small_conv", CLASSES + 1), confidence_branch=True)
    assert_exact(*exported(classifier, tmp_path))


def test_the_largest_positions_of_a_feature_share_its_evidence() -> None:
    model, outputs = exported_of(trained(network("whitened_conv")), np.full((2, 16, 16, 3), 90, np.uint8))
    assert_exact(model, outputs)


class AfterPooling(nn.Module):
    """A network whose logits are no sums over positions: a non-linearity follows the pooling."""

    def __init__(self) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(3, 8, 3)
        self.pool = GlobalAveragePool()
        self.classifier = nn.Linear(8, CLASSES)

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.classifier(torch.tanh(self.pool(self.convolution(images))))
        return logits


class WithoutPooling(nn.Module):
    """A network of all pixels at once."""

    def __init__(self) -> None:
        super().__init__()
        self.classifier = nn.Linear(3 * 16 * 16, CLASSES)

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.classifier(images.flatten(1))
        return logits


@pytest.mark.parametrize("kind", [AfterPooling, WithoutPooling])
def test_a_network_whose_logits_are_no_sums_over_positions_has_no_evidence(kind: type[nn.Module]) -> None:
    torch.manual_seed(1)
    model = ScoredClassifier(trained(kind()), ("msp",))
    assert with_evidence(model, IMAGES) is model
    assert model.bias(CLASSES) is None
