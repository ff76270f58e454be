"""Transformers are recognised by their ONNX graphs, as torch's exporters write them."""

import warnings
from pathlib import Path

import onnx
import pytest
import torch
from torch import nn

from training.export.attention import has_attention


class Convolutions(nn.Module):
    """A network without attention whose last layer is a softmax."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Conv1d(5, 8, 3, padding=1), nn.ReLU(), nn.AdaptiveAvgPool1d(1), nn.Flatten())
        self.classifier = nn.Linear(8, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.classifier(self.layers(x.transpose(1, 2))).softmax(dim=1)


class Attention(nn.Module):
    """A transformer of one layer."""

    def __init__(self, *, causal: bool) -> None:
        super().__init__()
        self.layer = nn.MultiheadAttention(6, 2, batch_first=True)
        self.embedding, self.classifier = nn.Linear(5, 6), nn.Linear(6, 3)
        self.causal = causal

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.embedding(x)
        mask = torch.ones(4, 4).triu(1).bool() if self.causal else None
        x = x + self.layer(x, x, x, attn_mask=mask, need_weights=False)[0]
        return self.classifier(x.mean(dim=1))


def exported(network: nn.Module, path: Path, *, dynamo: bool) -> onnx.ModelProto:
    with warnings.catch_warnings(action="ignore"):
        example = (torch.randn(2, 4, 5),)
        torch.onnx.export(network.eval(), example, str(path), dynamo=dynamo, external_data=False, verbose=False)
    return onnx.load(path)


@pytest.mark.parametrize("dynamo", [False, True])
@pytest.mark.parametrize("causal", [False, True])
def test_a_transformer_has_attention(dynamo: bool, causal: bool, tmp_path: Path) -> None:
    assert has_attention(exported(Attention(causal=causal), tmp_path / "model.onnx", dynamo=dynamo))


@pytest.mark.parametrize("dynamo", [False, True])
def test_a_convolutional_network_with_a_softmax_has_no_attention(dynamo: bool, tmp_path: Path) -> None:
    assert not has_attention(exported(Convolutions(), tmp_path / "model.onnx", dynamo=dynamo))


def test_a_fused_attention_operator_is_attention() -> None:
    node = onnx.helper.make_node("MultiHeadAttention", ["q", "k", "v"], ["y"], domain="com.microsoft", num_heads=2)
    graph = onnx.helper.make_graph([node], "fused", [], [])
    assert has_attention(onnx.helper.make_model(graph))
