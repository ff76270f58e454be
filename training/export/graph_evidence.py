"""Adds the evidence of positions to the graph of a classifier of images, if its logits are sums over positions.

A graph has evidence if the logits are an affine function of means over positions, f = 1/P sum_p m(p):

    logit_k = bias_k + w_k . f = bias_k + sum_p w_k . m(p) / P

The weights are read from the graph by computing the part behind the means for unit vectors, so that any operators may
stand there. The sums are compared with the logits of real images.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnxruntime
from numpy.typing import NDArray
from onnx import GraphProto, ModelProto, NodeProto, TensorProto, helper, numpy_helper

from bundle import EvidenceSpec
from training.linear_head import POOLING, SHAPING
from training.onnx_graphs import opset_of, prune, tensor_names

Feed = Mapping[str, NDArray[Any]]

_PREDICTION = "prediction"
_TAIL_OUTPUT = "ood-tail-logits"
_BEHIND_LOGITS = ("ArgMax", "Softmax", "ReduceMax", "TopK", *SHAPING)
_TOLERANCE = {"fp32": 1e-3, "fp16": 2e-2, "int8": 2e-2}
_MAX_FEATURES = 8192
_ONE_HOT_OPSET = 9
_PROBES = 4


@dataclass(frozen=True)
class _Decomposition:
    """The layers that the evidence is computed from.

    Attributes:
        maps: The tensor with the feature maps.
        channels_last: Whether they are `[N, H, W, D]` and not `[N, D, H, W]`.
        weights: The weights float32 `[K, D]` of the logits.
        bias: The biases `[K]`.
    """

    maps: str
    channels_last: bool
    weights: NDArray[np.float32]
    bias: NDArray[np.float32]


def add_evidence(model: ModelProto, feed: Feed, precision: str) -> EvidenceSpec | None:
    """Add the evidence of the predicted class to the outputs of `model`.

    Args:
        model: A classifier's graph with the output `prediction`. It changes only if it has evidence.
        feed: A batch of real images by the name of the graph's input.
        precision: The precision of the graph.

    Returns:
        The output and the biases; None if the logits are no sums over positions, up to the rounding of `precision`.
    """
    logits = _logits_behind(model.graph, _PREDICTION)
    if logits is None:
        return None
    tolerance = _TOLERANCE[precision]
    # Pooling can follow the linear layer, too: the first mean on the way from the logits has the shortest part behind.
    for pooling in _poolings(model.graph, logits):
        found = _decompose(model, feed, logits, pooling, tolerance)
        if found is not None:
            output = _append(model, found)
            return EvidenceSpec(output=output, bias=tuple(map(float, found.bias)))
    return None


def evidence_adds_up(model: ModelProto, feed: Feed, spec: EvidenceSpec, precision: str) -> bool:
    """Whether the evidence in `model` and the bias add up to the logits, up to the rounding of `precision`.

    Args:
        model: A classifier's graph with the output `prediction` and the evidence of `spec`.
        feed: A batch of real images by the name of the graph's input.
        spec: The output with the evidence, and the biases.
        precision: The precision of the graph.
    """
    logits_name = _logits_behind(model.graph, _PREDICTION)
    if logits_name is None:
        return False
    evidence, predicted, logits = _run(model, (spec.output, _PREDICTION, logits_name), feed)
    sums = evidence.sum(axis=(1, 2)) + np.asarray(spec.bias, dtype=np.float32)[predicted]
    largest = logits.reshape(len(sums), -1)[np.arange(len(sums)), predicted]
    return _close(sums, largest.astype(np.float32), _TOLERANCE[precision])


def _logits_behind(graph: GraphProto, name: str) -> str | None:
    """The tensor whose largest value `name` is the class of; None if no operator computes it."""
    producers = _producers(graph)
    while (node := producers.get(name)) is not None and node.op_type in _BEHIND_LOGITS:
        name = node.input[0]
    return name if name in producers else None


def _producers(graph: GraphProto) -> dict[str, NodeProto]:
    return {output: node for node in graph.node for output in node.output if output}


def _poolings(graph: GraphProto, name: str) -> Iterator[NodeProto]:
    """The operators that average values on the way from `name` to the inputs, as long as there is a single way."""
    producers = _producers(graph)
    constants = {tensor.name for tensor in graph.initializer}
    for node in graph.node:
        if all(operand in constants for operand in node.input if operand):
            constants.update(node.output)
    while (node := producers.get(name)) is not None:
        if node.op_type in POOLING:
            yield node
        variable = list(node.input[:1]) if node.op_type in SHAPING else [n for n in node.input if n not in constants]
        variable = [operand for operand in variable if operand]
        if len(variable) != 1:
            return
        name = variable[0]


def _decompose(
    model: ModelProto, feed: Feed, logits: str, pooling: NodeProto, tolerance: float
) -> _Decomposition | None:
    maps_name, pooled_name = pooling.input[0], pooling.output[0]
    maps, pooled, expected = _run(model, (maps_name, pooled_name, logits), feed)
    n = len(next(iter(feed.values())))
    features = pooled.reshape(n, -1).astype(np.float32) if len(pooled) == n else np.empty((0, 0), np.float32)
    if maps.ndim != 4 or len(maps) != n or expected.size % n or not 0 < features.shape[1] <= _MAX_FEATURES:
        return None
    expected = expected.reshape(n, -1).astype(np.float32)
    layouts = {False: (2, 3), True: (1, 2)}
    channels_last = next(
        (
            last
            for last, axes in layouts.items()
            if _close(maps.astype(np.float32).mean(axis=axes), features, tolerance)
        ),
        None,
    )
    tail = _tail(model, pooled_name, logits, pooled) if channels_last is not None else None
    if channels_last is None or tail is None:
        return None
    size = features.shape[1]
    probes = np.random.default_rng(0).normal(features.mean(), features.std() + 1e-6, (_PROBES, size))
    rows = np.concatenate([np.zeros((1, size)), np.eye(size), probes]).astype(pooled.dtype)
    outputs = _tail_logits(tail, pooled_name, rows.reshape(-1, *pooled.shape[1:]))
    if outputs is None or outputs.shape[1] != expected.shape[1]:
        return None
    bias, weights = outputs[0], outputs[1 : size + 1] - outputs[0]
    for values, results in ((features, expected), (probes, outputs[size + 1 :])):
        if not _close(values @ weights + bias, results, tolerance):
            return None
    return _Decomposition(maps_name, channels_last, np.ascontiguousarray(weights.T, dtype=np.float32), bias)


def _close(actual: NDArray[Any], expected: NDArray[Any], tolerance: float) -> bool:
    return actual.shape == expected.shape and bool(
        np.abs(actual - expected).max(initial=0) <= tolerance * (1 + np.abs(expected).max(initial=0))
    )


def _run(model: ModelProto, names: tuple[str, ...], feed: Feed) -> list[NDArray[Any]]:
    copy = ModelProto()
    copy.CopyFrom(model)
    prune(copy.graph, names)
    session = onnxruntime.InferenceSession(copy.SerializeToString(), providers=["CPUExecutionProvider"])
    needed = {value.name for value in session.get_inputs()}
    outputs: list[NDArray[Any]] = session.run(
        list(names), {name: rows for name, rows in feed.items() if name in needed}
    )
    return outputs


def _tail(model: ModelProto, pooled: str, logits: str, values: NDArray[Any]) -> ModelProto | None:
    """The part of the graph from `pooled` to `logits`; None if it reads other values, too."""
    tail = ModelProto()
    tail.CopyFrom(model)
    kept = [node for node in tail.graph.node if pooled not in node.output]
    del tail.graph.node[:]
    tail.graph.node.extend(kept)
    del tail.graph.value_info[:]
    elem_type = helper.np_dtype_to_tensor_dtype(values.dtype)
    tail.graph.input.append(helper.make_tensor_value_info(pooled, elem_type, ["N", *values.shape[1:]]))
    # The means can be the logits themselves.
    tail.graph.node.append(helper.make_node("Identity", [logits], [_TAIL_OUTPUT]))
    prune(tail.graph, [_TAIL_OUTPUT])
    return tail if [value.name for value in tail.graph.input] == [pooled] else None


def _tail_logits(tail: ModelProto, pooled: str, rows: NDArray[Any]) -> NDArray[np.float32] | None:
    try:
        session = onnxruntime.InferenceSession(tail.SerializeToString(), providers=["CPUExecutionProvider"])
        (values,) = session.run([_TAIL_OUTPUT], {pooled: rows})
    # A part with a fixed batch fails with errors of several types.
    except Exception:
        return None
    return np.asarray(values.reshape(len(rows), -1), dtype=np.float32)


def _append(model: ModelProto, found: _Decomposition) -> str:
    """Add the nodes of the evidence, by operators that are the same in all opsets, and return the output."""
    names, prefix = tensor_names(model.graph), "evidence"
    while any(name == prefix or name.startswith(f"{prefix}/") for name in names):
        prefix = f"ood-{prefix}"
    size = found.weights.shape[1]
    spatial = (1, 2) if found.channels_last else (2, 3)
    constants: dict[str, NDArray[Any]] = {
        "by_position": np.array([0, -1, size] if found.channels_last else [0, size, -1], dtype=np.int64),
        "as_factor": np.array([-1, size, 1] if found.channels_last else [-1, 1, size], dtype=np.int64),
        "height": np.array(spatial[0], dtype=np.int64),
        "width": np.array(spatial[1], dtype=np.int64),
        "grid": np.array([0, *spatial], dtype=np.int64),
    }

    def node(operator: str, inputs: list[str], output: str, **attributes: Any) -> None:
        nodes.append(helper.make_node(operator, inputs, [output], name=f"{output}-node", **attributes))

    def local(name: str) -> str:
        return f"{prefix}/{name}"

    nodes: list[NodeProto] = []
    if opset_of(model) >= _ONE_HOT_OPSET and _close(found.weights, np.eye(size), 1e-5):
        constants |= {"classes": np.array(size, dtype=np.int64), "off_on": np.array([0, 1], dtype=np.float32)}
        node("OneHot", [_PREDICTION, local("classes"), local("off_on")], local("of_class"), axis=-1)
    else:
        constants["weights"] = found.weights
        node("Gather", [local("weights"), _PREDICTION], local("of_class"), axis=0)
    node("Cast", [found.maps], local("maps"), to=TensorProto.FLOAT)
    node("Reshape", [local("maps"), local("by_position")], local("positions"))
    node("Reshape", [local("of_class"), local("as_factor")], local("factor"))
    operands = ["positions", "factor"] if found.channels_last else ["factor", "positions"]
    node("MatMul", [local(name) for name in operands], local("sums"))
    node("Shape", [found.maps], local("shape"))
    node("Gather", [local("shape"), local("height")], local("rows"), axis=0)
    node("Gather", [local("shape"), local("width")], local("columns"), axis=0)
    node("Mul", [local("rows"), local("columns")], local("count"))
    node("Cast", [local("count")], local("divisor"), to=TensorProto.FLOAT)
    node("Div", [local("sums"), local("divisor")], local("parts"))
    node("Gather", [local("shape"), local("grid")], local("grid_shape"), axis=0)
    node("Reshape", [local("parts"), local("grid_shape")], prefix)
    model.graph.node.extend(nodes)
    model.graph.initializer.extend(numpy_helper.from_array(value, local(name)) for name, value in constants.items())
    model.graph.output.append(helper.make_tensor_value_info(prefix, TensorProto.FLOAT, ["N", None, None]))
    return prefix
