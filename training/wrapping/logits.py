"""Finds the logits of a graph: candidates by type and shape, and a check that values are logits."""

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import ModelProto, TensorProto, ValueInfoProto
from scipy.special import logsumexp

from training.errors import GraphError

_FLOATS = (TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.DOUBLE, TensorProto.BFLOAT16)
_MOST_CANDIDATES = 10
_NORMALISING = ("Softmax", "LogSoftmax", "Sigmoid")
_FORWARDING = ("Identity", "Cast", "Squeeze", "Reshape", "Flatten", "Log")
_TOLERANCE = 5e-3
"""How far float16 probabilities of many classes sum from 1."""


def candidate_logits(model: ModelProto) -> list[str]:
    """Names of float tensors `[N, K]` in `model`: outputs first, then inner tensors from last to first computed."""
    try:
        graph = onnx.shape_inference.infer_shapes(model).graph
    # Shape inference fails on operators that it does not know. The declared outputs remain.
    except Exception:
        graph = model.graph
    outputs = [output.name for output in graph.output if _may_be_logits(output)]
    inner = {value.name for value in graph.value_info if _may_be_logits(value)}
    computed = [name for node in reversed(graph.node) for name in node.output]
    return [*outputs, *(name for name in computed if name in inner and name not in outputs)][:_MOST_CANDIDATES]


def require_logits(model: ModelProto, name: str, values: NDArray[np.float32], options: str) -> None:
    """Check that the `values` `[N, K]` of the tensor `name`, for real inputs, are logits.

    Args:
        model: the graph.
        name: the tensor.
        values: its values.
        options: the command's options that describe the graph's input, for the message.

    Raises:
        GraphError: if a value is not finite, or if all rows are probabilities or log-probabilities: energy and other
            scores of them would have another meaning.
    """
    values64 = values.astype(np.float64)
    if not np.isfinite(values64).all():
        reason = f"{int((~np.isfinite(values64)).any(axis=1).sum())} calibration inputs have NaN or infinite values"
        raise GraphError(name, reason, f"Check {options} and the calibration data")
    if (values64 >= 0).all() and np.abs(values64.sum(axis=1) - 1).max() < _TOLERANCE:
        content = "probabilities: its rows are not negative and sum to 1"
    elif np.abs(logsumexp(values64, axis=1)).max() < _TOLERANCE:
        content = "log-probabilities: the exponentials of its rows sum to 1"
    else:
        return
    source = softmax_input(model, name)
    remedy = f"Give the softmax's input: --logits {source}" if source else "Give the tensor before the softmax"
    raise GraphError(name, f"holds {content}; energy and other scores need logits", remedy)


def softmax_input(model: ModelProto, name: str) -> str | None:
    """The tensor whose softmax, log-softmax or sigmoid the tensor `name` is, or None."""
    producers = {output: node for node in model.graph.node for output in node.output}
    while (node := producers.get(name)) is not None and node.op_type in (*_NORMALISING, *_FORWARDING):
        name = node.input[0]
        if node.op_type in _NORMALISING:
            return name
    return None


def _may_be_logits(value: ValueInfoProto) -> bool:
    tensor = value.type.tensor_type
    dims = tensor.shape.dim
    return (
        tensor.elem_type in _FLOATS and len(dims) == 2 and (not dims[1].HasField("dim_value") or dims[1].dim_value > 1)
    )
