"""ONNX classifiers of images as users have them: exported from torch, or written operator by operator."""

from pathlib import Path

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from torch import nn

MEAN, STD = (0.4, 0.5, 0.6), (0.2, 0.3, 0.25)


class Network(nn.Module):
    """A classifier of normalised images `[N, 3, 16, 16]` with three classes."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(3)
        self.features = nn.Sequential(nn.Conv2d(3, 6, 3, 2), nn.BatchNorm2d(6), nn.ReLU(), nn.AdaptiveAvgPool2d(2))
        self.classifier = nn.Linear(24, 3)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        features: torch.Tensor = self.features(images)
        logits: torch.Tensor = 4 * self.classifier(features.reshape(features.shape[0], 24))
        return logits

    @torch.inference_mode()
    def logits_of(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        """The logits of uint8 images `[N, 16, 16, 3]`."""
        pixels = torch.tensor(images).permute(0, 3, 1, 2) / 255
        scaled = (pixels - torch.tensor(MEAN).view(3, 1, 1)) / torch.tensor(STD).view(3, 1, 1)
        logits: NDArray[np.float32] = self.eval()(scaled).numpy()
        return logits


def export(network: Network, path: Path) -> Path:
    """Write `network` with torch's exporter: input `pixels`, output `scores`, dynamic batch."""
    torch.onnx.export(
        network.eval(),
        (torch.zeros(2, 3, 16, 16),),
        str(path),
        input_names=["pixels"],
        output_names=["scores"],
        dynamic_shapes=({0: torch.export.Dim("batch")},),
        dynamo=True,
        external_data=False,
        verbose=False,
    )
    return path


def write_fixed(
    path: Path, *, batch: int | None = 2, opset: int = 13, channels_last: bool = False, tied: bool = False
) -> NDArray[np.float32]:
    """Write a linear classifier of three classes for the fixed batch size `batch`, and return its weights `[48, 3]`.

    It averages 16x16 images over 4x4 cells, flattens them by a Reshape to a constant shape, and multiplies. The input
    `images` and the inner tensor `energy` have names of a bundle's graph. `tied` makes rows depend on each other.
    """
    weights = np.random.default_rng(4).normal(0, 0.5, (48, 3)).astype(np.float32)
    n = "N" if batch is None else batch
    constants = {"weights": weights, "flat": np.array([batch or -1, 48], dtype=np.int64)}
    before = [helper.make_node("Transpose", ["images"], ["turned"], perm=[0, 3, 1, 2])] if channels_last else []
    nodes = [
        *before,
        helper.make_node(
            "AveragePool", ["turned" if before else "images"], ["cells"], kernel_shape=[4, 4], strides=[4, 4]
        ),
        helper.make_node("Reshape", ["cells", "flat"], ["energy"]),
        helper.make_node("MatMul", ["energy", "weights"], ["plain"]),
        helper.make_node("Softmax", ["plain"], ["probabilities"], axis=1),
    ]
    if tied:
        nodes.insert(-1, helper.make_node("ReduceMean", ["plain"], ["average"], axes=[0], keepdims=1))
        nodes.insert(-1, helper.make_node("Add", ["plain", "average"], ["tied"]))
    shape = [n, 16, 16, 3] if channels_last else [n, 3, 16, 16]
    graph = helper.make_graph(
        nodes,
        "fixed",
        [helper.make_tensor_value_info("images", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, [n, 3])],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
        doc_string="/home/somebody/model.py",
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8), path)
    return weights


def fixed_logits(images: NDArray[np.uint8], weights: NDArray[np.float32]) -> NDArray[np.float64]:
    """The logits of the classifier of `write_fixed` for uint8 images `[N, 16, 16, 3]`, scaled to 0..1."""
    cells = (images / 255).reshape(len(images), 4, 4, 4, 4, 3).mean(axis=(2, 4))
    logits: NDArray[np.float64] = cells.transpose(0, 3, 1, 2).reshape(len(images), 48) @ weights
    return logits


def write_bytes_classifier(path: Path) -> Path:
    """Write a classifier of uint8 images `[N, 16, 16, 3]` by their mean colour."""
    nodes = [
        helper.make_node("Cast", ["pixels"], ["values"], to=TensorProto.FLOAT),
        helper.make_node("ReduceMean", ["values"], ["colour"], axes=[1, 2], keepdims=0),
        helper.make_node("Mul", ["colour", "scale"], ["scores"]),
    ]
    graph = helper.make_graph(
        nodes,
        "bytes",
        [helper.make_tensor_value_info("pixels", TensorProto.UINT8, ["N", 16, 16, 3])],
        [helper.make_tensor_value_info("scores", TensorProto.FLOAT, ["N", 3])],
        [numpy_helper.from_array(np.array(0.1, dtype=np.float32), "scale")],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    return path
