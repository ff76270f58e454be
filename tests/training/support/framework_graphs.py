"""Small ONNX classifiers in the forms that frameworks export: layout, batch, opset, logits and output of each kind.

Each has a convolution, pooling and a linear layer for 16x16 RGB images, and computes its logits in NumPy too.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

SIDE, CHANNELS, CLASSES = 16, 5, 4


@dataclass
class GraphKind:
    """The form of a graph.

    Attributes:
        batch: the batch dimension: a number, a name, or None for a graph without a shape.
        spatial: whether height and width are in the declared shape.
        channels_last: whether the input is NHWC.
        opset: the version of the operators.
        ir_version: the version of the format.
        elem_type: the type of the input.
        listed: whether the weights are among the graph's inputs.
        head: the operators behind the pooled features `pooled` `[N, 5, 1, 1]`.
        outputs: the graph's outputs.
        classes: the number of classes.
    """

    head: Sequence[tuple[str, Sequence[str], str, dict[str, Any]]]
    outputs: Sequence[str]
    batch: int | str | None = "N"
    spatial: bool = True
    channels_last: bool = False
    opset: int = 13
    ir_version: int = 8
    elem_type: int = TensorProto.FLOAT
    output_type: int = TensorProto.FLOAT
    listed: bool = False
    classes: int = CLASSES
    constants: dict[str, NDArray[Any]] = field(default_factory=dict)


Nodes = Sequence[tuple[str, Sequence[str], str, dict[str, Any]]]

FLATTEN: Nodes = [("Flatten", ["pooled"], "flat", {"axis": 1})]
GEMM: Nodes = [*FLATTEN, ("Gemm", ["flat", "w", "b"], "logits", {"transB": 1})]
MATMUL: Nodes = [*FLATTEN, ("MatMul", ["flat", "wt"], "product", {}), ("Add", ["product", "b"], "logits", {})]
CONV: Nodes = [("Conv", ["pooled", "w4", "b"], "logits", {})]


def softmax(source: str = "logits", name: str = "probabilities", axis: int = 1) -> Nodes:
    return [("Softmax", [source], name, {"axis": axis})]


KINDS: dict[str, GraphKind] = {
    # Keras VGG by tf2onnx: NHWC, MatMul and Add, softmax.
    "keras": GraphKind([*MATMUL, *softmax(axis=-1)], ["probabilities"], channels_last=True, batch="unk__1"),
    # Paddle MobileNet: batch -1, Softmax and Identity.
    "paddle": GraphKind(
        [*MATMUL, *softmax(name="softmax_0", axis=-1), ("Identity", ["softmax_0"], "save_infer_model/scale_0", {})],
        ["save_infer_model/scale_0"],
        batch=-1,
        opset=11,
        ir_version=7,
    ),
    # ResNet-50 of the ONNX model zoo: opset 7, weights among the inputs, fixed batch.
    "resnet-opset-7": GraphKind([*GEMM], ["logits"], batch=1, opset=7, ir_version=3, listed=True),
    # DenseNet-121: logits [N, K, 1, 1].
    "densenet": GraphKind([*CONV], ["logits"], batch=1, opset=7, ir_version=3, listed=True),
    # SqueezeNet: convolution, global average pooling, softmax over [N, K, 1, 1].
    "squeezenet": GraphKind(
        [*CONV, ("GlobalAveragePool", ["logits"], "pool", {}), *softmax("pool")],
        ["probabilities"],
        batch=1,
        opset=8,
        ir_version=3,
    ),
    # AlexNet: a Reshape to [1, ...], dropout, softmax, fixed batch, old opset.
    "alexnet": GraphKind(
        [
            ("Reshape", ["pooled", "one-row"], "flat", {}),
            ("Dropout", ["flat"], "kept", {"ratio": 0.5}),
            ("Gemm", ["kept", "w", "b"], "logits", {"transB": 1}),
            *softmax(),
        ],
        ["probabilities"],
        batch=1,
        opset=9,
        ir_version=3,
        constants={"one-row": np.array([1, CHANNELS], dtype=np.int64)},
    ),
    "dimension-0": GraphKind(GEMM, ["logits"], batch=0),
    "no-shape": GraphKind(GEMM, ["logits"], batch=None),
    "no-spatial-shape": GraphKind(GEMM, ["logits"], spatial=False),
    "reversed-axes": GraphKind(
        [*GEMM, ("Unsqueeze", ["logits", "one"], "row", {}), ("Softmax", ["row"], "probabilities", {"axis": 2})],
        ["probabilities"],
        constants={"one": np.array([1], dtype=np.int64)},
    ),
    "log-softmax": GraphKind([*GEMM, ("LogSoftmax", ["logits"], "log_probs", {"axis": 1})], ["log_probs"]),
    "log-of-softmax": GraphKind([*GEMM, *softmax(), ("Log", ["probabilities"], "log_probs", {})], ["log_probs"]),
    "separate-sigmoids": GraphKind([*GEMM, ("Sigmoid", ["logits"], "probabilities", {})], ["probabilities"]),
    "decomposed-softmax": GraphKind(
        [
            *GEMM,
            ("ReduceMax", ["logits"], "largest", {"axes": [1], "keepdims": 1}),
            ("Sub", ["logits", "largest"], "shifted", {}),
            ("Exp", ["shifted"], "powers", {}),
            ("ReduceSum", ["powers", "one"], "total", {"keepdims": 1}),
            ("Div", ["powers", "total"], "probabilities", {}),
        ],
        ["probabilities"],
        constants={"one": np.array([1], dtype=np.int64)},
    ),
    "argmax": GraphKind([*GEMM, ("ArgMax", ["logits"], "label", {"axis": 1, "keepdims": 0})], ["label"], opset=12),
    "label-and-probabilities": GraphKind(
        [
            *GEMM,
            ("ArgMax", ["logits"], "output_label", {"axis": 1, "keepdims": 0}),
            *softmax(name="output_probability"),
        ],
        ["output_label", "output_probability"],
    ),
    "embedding-and-logits": GraphKind([*GEMM], ["flat", "logits"]),
    "auxiliary-head": GraphKind(
        [("Flatten", ["early"], "early-flat", {"axis": 1}), ("MatMul", ["early-flat", "aux"], "side", {}), *GEMM],
        ["side", "logits"],
        constants={"aux": np.random.default_rng(8).normal(size=(3, CLASSES)).astype(np.float32)},
    ),
    "bfloat-free-cast": GraphKind(
        [*GEMM, ("Cast", ["logits"], "wide", {"to": TensorProto.DOUBLE}), *softmax("wide")],
        ["probabilities"],
        output_type=TensorProto.DOUBLE,
    ),
    "fixed-batch-of-3": GraphKind([*GEMM, *softmax()], ["probabilities"], batch=3),
    "uint8": GraphKind(GEMM, ["logits"], elem_type=TensorProto.UINT8),
    "uint8-nhwc": GraphKind(GEMM, ["logits"], elem_type=TensorProto.UINT8, channels_last=True),
    "float16": GraphKind(GEMM, ["logits"], elem_type=TensorProto.FLOAT16),
    "float64": GraphKind(GEMM, ["logits"], elem_type=TensorProto.DOUBLE),
}
"""The forms, by name. Their logits are `logits` of `write_kind`'s result."""


def weights_of(kind: GraphKind) -> dict[str, NDArray[np.float32]]:
    generator = np.random.default_rng(11)
    product = generator.normal(0, 2, (kind.classes, CHANNELS)).astype(np.float32)
    return {
        "kernel": generator.normal(0, 0.5, (CHANNELS, 3, 4, 4)).astype(np.float32),
        "w": product,
        "wt": np.ascontiguousarray(product.T),
        "w4": product.reshape(kind.classes, CHANNELS, 1, 1),
        "b": generator.normal(0, 0.5, kind.classes).astype(np.float32),
        "byte": np.array(1 / 255, dtype=np.float32),
    }


def write_kind(kind: GraphKind, path: Path) -> None:
    """Write a graph of the form `kind` with the input `data`."""
    weights: dict[str, NDArray[Any]] = {**weights_of(kind), **kind.constants}
    nodes: list[tuple[str, Sequence[str], str, dict[str, Any]]] = []
    source = "data"
    if kind.channels_last:
        nodes.append(("Transpose", [source], "turned", {"perm": [0, 3, 1, 2]}))
        source = "turned"
    if kind.elem_type != TensorProto.FLOAT:
        nodes.append(("Cast", [source], "values", {"to": TensorProto.FLOAT}))
        source = "values"
    if kind.elem_type == TensorProto.UINT8:
        nodes.append(("Mul", [source, "byte"], "scaled", {}))
        source = "scaled"
    nodes.append(("GlobalAveragePool", [source], "early", {}))
    nodes.append(("Conv", [source, "kernel"], "maps", {"strides": [4, 4]}))
    nodes.append(("Relu", ["maps"], "active", {}))
    nodes.append(("GlobalAveragePool", ["active"], "pooled", {}))
    nodes += kind.head
    read = {name for _, inputs, _, _ in nodes for name in inputs}
    written = {name: numpy_helper.from_array(value, name) for name, value in weights.items() if name in read}
    side = SIDE if kind.spatial else None
    shape = [kind.batch, side, side, 3] if kind.channels_last else [kind.batch, 3, side, side]
    declared = None if kind.batch is None else shape
    data = helper.make_tensor_value_info("data", kind.elem_type, declared)
    inputs = [data]
    if kind.listed:
        inputs += [
            helper.make_tensor_value_info(name, tensor.data_type, list(tensor.dims)) for name, tensor in written.items()
        ]
    needed, kept = {*kind.outputs}, []
    for node in reversed(nodes):
        if node[2] in needed:
            needed |= set(node[1])
            kept.append(helper.make_node(node[0], list(node[1]), [node[2]], **node[3]))
    types = {name: TensorProto.INT64 if "label" in name else kind.output_type for name in kind.outputs}
    graph = helper.make_graph(
        kept[::-1],
        "framework",
        inputs,
        [helper.make_tensor_value_info(name, types[name], None) for name in kind.outputs],
        [tensor for name, tensor in written.items() if name in needed],
    )
    opsets = [helper.make_opsetid("", kind.opset)]
    opsets += [helper.make_opsetid(domain, 1) for domain in sorted({node.domain for node in kept if node.domain})]
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=kind.ir_version), path)


def logits_of(kind: GraphKind, images: NDArray[np.uint8]) -> NDArray[np.float64]:
    """The logits `[N, K]` in NumPy of images uint8 `[N, 16, 16, 3]`, scaled to 0..1."""
    weights = weights_of(kind)
    cells = (images / 255).reshape(len(images), 4, 4, 4, 4, 3)
    maps = np.einsum("nyaxbc,ocab->noyx", cells, weights["kernel"].astype(np.float64))
    pooled = np.maximum(maps, 0).mean(axis=(2, 3))
    logits: NDArray[np.float64] = pooled @ weights["w"].T + weights["b"]
    return logits
