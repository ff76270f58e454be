"""Values of a graph: which could be the logits, and what a tensor that holds no logits was computed from."""

import onnx
from onnx import ModelProto, TensorProto

_FLOATS = (TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.DOUBLE, TensorProto.BFLOAT16)
_MOST = 10
_NORMALISING = ("Softmax", "LogSoftmax", "Sigmoid")
_FORWARDING = ("Identity", "Cast", "Squeeze", "Reshape", "Flatten", "Log")


def candidate_logits(model: ModelProto) -> list[str]:
    """Names of float tensors `[N, K]`, outputs first, then inner values from the last computed to the first."""
    try:
        graph = onnx.shape_inference.infer_shapes(model).graph
    # It raises for whatever it does not understand; then only the declared outputs are known.
    except Exception:
        graph = model.graph
    outputs = [each.name for each in graph.output if _may_be_logits(each)]
    known = {each.name for each in graph.value_info if _may_be_logits(each)}
    computed = [name for node in reversed(graph.node) for name in node.output]
    return [*outputs, *(name for name in computed if name in known and name not in outputs)][:_MOST]


def normalised_from(model: ModelProto, name: str) -> str | None:
    """The tensor that `name` is the softmax (or the logarithm of it, or the sigmoid) of, None where there is none."""
    producers = {output: node for node in model.graph.node for output in node.output}
    while (node := producers.get(name)) is not None and node.op_type in (*_NORMALISING, *_FORWARDING):
        name = node.input[0]
        if node.op_type in _NORMALISING:
            return name
    return None


def _may_be_logits(value: onnx.ValueInfoProto) -> bool:
    tensor = value.type.tensor_type
    dims = tensor.shape.dim
    return (
        tensor.elem_type in _FLOATS and len(dims) == 2 and (not dims[1].HasField("dim_value") or dims[1].dim_value > 1)
    )
