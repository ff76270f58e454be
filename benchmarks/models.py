"""Bundles of networks with random weights, for measurements of speed."""

import shutil
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import torch
from torch import nn

from bundle import (
    LOGIT_SCORES,
    Calibration,
    CalibrationSpec,
    EvidenceSpec,
    ImageInput,
    ScoreOutput,
    save_calibrations,
    seal_bundle,
)
from training.architectures import SmallConvNet, WhitenedConvNet, WideResNet
from training.data import StoredArray
from training.export.evidence import with_evidence
from training.export.onnx_graph import run_graph, write_graph
from training.models.classifier import ImageClassifier
from training.models.score_heads import EVIDENCE, ScoredClassifier, ScoredModel
from training.scoring.calibration import anomalies


class OnePixel(nn.Module):
    """Logits of the first pixel: the least that a network can compute."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(3, 10)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Logits `[N, 10]` of images `[N, 3, H, W]`."""
        logits: torch.Tensor = self.linear(images[:, :, 0, 0])
        return logits


NETWORKS: Mapping[str, Callable[[], nn.Module]] = {
    "wrn-40-2": lambda: WideResNet(num_classes=10, depth=40, widen_factor=2),
    "whitened-conv": lambda: WhitenedConvNet(num_classes=10, widths=(64, 192, 352)),
    "one-pixel": OnePixel,
    "tiny": lambda: SmallConvNet(num_classes=10, channels=3, width=4),
}
SPEC = ImageInput(height=32, width=32, channels=3, mean=(0.5,) * 3, std=(0.25,) * 3)


def make_bundle(name: str, repository: Path, *, evidence: bool = False) -> Path:
    """Create a bundle of the network `name` with random weights in `repository`, and return its folder.

    With `evidence` the graph also has the evidence of each position for the predicted class.
    """
    path = repository / name / "1"
    shutil.rmtree(path, ignore_errors=True)
    path.mkdir(parents=True)
    torch.manual_seed(0)
    model: ScoredModel = ScoredClassifier(ImageClassifier(NETWORKS[name](), SPEC).eval(), LOGIT_SCORES)
    noise = np.random.default_rng(0).integers(0, 256, (200, 32, 32, 3), dtype=np.uint8)
    if evidence:
        model = with_evidence(model, noise[:2])
    bias = model.bias(10) if isinstance(model, ScoredClassifier) else None
    write_graph(model, noise[:2], path / "model.onnx")
    outputs = run_graph(path / "model.onnx", StoredArray(noise), model.model.prepare)
    scores = anomalies(outputs, model.scores)
    save_calibrations(path / "calibration.npz", {key: Calibration.from_scores(value) for key, value in scores.items()})
    seal_bundle(
        path,
        {
            "name": name,
            "version": "1",
            "description": "Random weights, for measurements of speed only.",
            "modality": "image",
            "task": "classification",
            "input": SPEC,
            "labels": [f"class {i}" for i in range(10)],
            "scores": [ScoreOutput(name=score, output=score) for score in model.scores],
            "default_score": "msp",
            "evidence": None if bias is None else EvidenceSpec(output=EVIDENCE, bias=tuple(bias)),
            "calibration": CalibrationSpec(file="calibration.npz", n=200, source="random noise", alpha=0.05),
            "created": datetime.now(UTC),
        },
    )
    return path
