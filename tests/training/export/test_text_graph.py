"""The exported graph of a text classifier scores as torch does, for any batch size and length."""

from pathlib import Path

import numpy as np
import pytest
import torch

from bundle import LOGIT_SCORES
from tests.training.support.backbones import save_backbone
from training.architectures import GRUClassifier, TransformerClassifier
from training.data import NO_TOKEN, StoredArray
from training.export.onnx_graph import check_parity, run_graph, write_graph
from training.models.classifier import TextClassifier
from training.models.score_heads import ScoredClassifier
from training.scoring.batch_scoring import score_inputs


def random_tokens(n: int, longest: int, seed: int) -> StoredArray:
    """`n` texts of 1 to `longest` tokens, stored rows int32 `[n, longest]`."""
    generator = np.random.default_rng(seed)
    rows = generator.integers(0, 40, (n, longest)).astype(np.int32)
    lengths = generator.integers(1, longest + 1, n)
    rows[np.arange(longest)[None] >= lengths[:, None]] = NO_TOKEN
    return StoredArray(rows)


def test_the_graph_scores_as_torch_does_at_every_batch_size_and_length(tmp_path: Path) -> None:
    torch.manual_seed(1)
    network = GRUClassifier(5, vocabulary_size=40, embedding=8, hidden=12)
    model = ScoredClassifier(TextClassifier(network).eval(), LOGIT_SCORES)
    write_graph(model, random_tokens(8, 10, 0).array, tmp_path / "model.onnx")
    for longest in (1, 2, 10, 70):
        texts = random_tokens(33, longest, longest)
        for batch_size in (1, 7, 33):
            outputs = run_graph(tmp_path / "model.onnx", texts, model.model.prepare, batch_size)
            check_parity(score_inputs(model, texts), outputs, 1e-4)


@pytest.mark.parametrize("kind", ["bert", "roberta", "distilbert"])
def test_a_transformers_backbone_exports_and_ignores_padding(kind: str, tmp_path: Path) -> None:
    save_backbone(kind, tmp_path / kind)
    torch.manual_seed(1)
    network = TransformerClassifier(5, str(tmp_path / kind), max_tokens=70)
    model = ScoredClassifier(TextClassifier(network).eval(), ("msp", "energy"))
    write_graph(model, random_tokens(8, 10, 0).array, tmp_path / "model.onnx")
    for longest in (1, 10, 70):
        texts = random_tokens(12, longest, longest)
        for batch_size in (1, 12):
            outputs = run_graph(tmp_path / "model.onnx", texts, model.model.prepare, batch_size)
            check_parity(score_inputs(model, texts, batch_size=5), outputs, 1e-4)
