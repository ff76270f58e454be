"""ONNX classifiers of images that differ in their last layers only: pooling, linear layer and its operator."""

from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import NodeProto, TensorProto, helper, numpy_helper

CHANNELS = 8
_GENERATOR = np.random.default_rng(11)
_MIX = _GENERATOR.normal(0, 1, (CHANNELS, 3, 1, 1)).astype(np.float32)
_SHIFT = _GENERATOR.normal(0, 0.3, CHANNELS).astype(np.float32)
_WEIGHTS = _GENERATOR.normal(0, 2, (3, CHANNELS)).astype(np.float32)
_BIAS = np.array([0.1, -0.2, 0.3], dtype=np.float32)

HEADS = {
    "gemm": ("pooled", "Gemm"),
    "matmul": ("pooled", "MatMul"),
    "conv": ("average", "Conv"),
    "conv-before-pooling": ("maps", "Conv"),
    "matmul-before-pooling": ("positions", "MatMul"),
}
"""The name of a head, the tensor of its features and its operator."""


def write_classifier(path: Path, head: str = "gemm", batch: int | None = None) -> Path:
    """Write a classifier of float images `images` `[N, 3, 16, 16]` in 0..1 with the logits `scores` `[N, 3]`."""
    n = batch or "N"
    nodes = [
        helper.make_node("AveragePool", ["images"], ["cells"], kernel_shape=[4, 4], strides=[4, 4]),
        helper.make_node("Conv", ["cells", "mix", "shift"], ["mixed"]),
        helper.make_node("Relu", ["mixed"], ["maps"]),
        helper.make_node("GlobalAveragePool", ["maps"], ["average"]),
        helper.make_node("Reshape", ["average", "flat"], ["pooled"]),
        *_head(head),
        helper.make_node("Softmax", ["scores"], ["probabilities"], axis=1),
        # Depends on all inputs of a batch, and on no linear layer.
        helper.make_node("ReduceMean", ["pooled"], ["of-batch"], axes=[0], keepdims=1),
        helper.make_node("Add", ["pooled", "of-batch"], ["tied"]),
        helper.make_node("Tanh", ["scores"], ["bounded"]),
    ]
    constants = {
        "mix": _MIX,
        "shift": _SHIFT,
        "flat": np.array([batch or -1, CHANNELS], dtype=np.int64),
        "weights": _WEIGHTS,
        "columns": np.ascontiguousarray(_WEIGHTS.T),
        "kernel": _WEIGHTS[:, :, None, None],
        "bias": _BIAS,
        "row": np.array([0, -1], dtype=np.int64),
    }
    graph = helper.make_graph(
        nodes,
        "classifier",
        [helper.make_tensor_value_info("images", TensorProto.FLOAT, [n, 3, 16, 16])],
        [
            helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, [n, 3]),
            helper.make_tensor_value_info("bounded", TensorProto.FLOAT, [n, 3]),
        ],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8), path)
    return path


def _head(head: str) -> list[NodeProto]:
    if head == "gemm":
        return [helper.make_node("Gemm", ["pooled", "weights", "bias"], ["scores"], transB=1)]
    if head == "matmul":
        product = helper.make_node("MatMul", ["pooled", "columns"], ["product"])
        return [product, helper.make_node("Add", ["product", "bias"], ["scores"])]
    if head == "conv":
        product = helper.make_node("Conv", ["average", "kernel", "bias"], ["product"])
        return [product, helper.make_node("Flatten", ["product"], ["scores"])]
    if head == "conv-before-pooling":
        return [
            helper.make_node("Conv", ["maps", "kernel", "bias"], ["product"]),
            helper.make_node("GlobalAveragePool", ["product"], ["mean"]),
            helper.make_node("Reshape", ["mean", "row"], ["scores"]),
        ]
    return [
        helper.make_node("Transpose", ["maps"], ["positions"], perm=[0, 2, 3, 1]),
        helper.make_node("MatMul", ["positions", "columns"], ["product"]),
        helper.make_node("Add", ["product", "bias"], ["biased"]),
        helper.make_node("ReduceMean", ["biased"], ["scores"], axes=[1, 2], keepdims=0),
    ]


def features_of(images: NDArray[np.uint8]) -> NDArray[np.float64]:
    """The features `[N, CHANNELS]` of uint8 images `[N, 16, 16, 3]`, the same for every head, by NumPy."""
    cells = (images / 255).reshape(len(images), 4, 4, 4, 4, 3).mean(axis=(2, 4))
    maps = np.maximum(cells @ _MIX[:, :, 0, 0].T.astype(np.float64) + _SHIFT, 0)
    features: NDArray[np.float64] = maps.mean(axis=(1, 2))
    return features


def logits_of(images: NDArray[np.uint8]) -> NDArray[np.float64]:
    """The logits `[N, 3]` of uint8 images `[N, 16, 16, 3]`, the same for every head, by NumPy."""
    logits: NDArray[np.float64] = features_of(images) @ _WEIGHTS.T.astype(np.float64) + _BIAS
    return logits
