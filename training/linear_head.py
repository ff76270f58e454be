"""Finds the last linear layer of a classifier: the product of features and class weights that gives the logits."""

from dataclasses import dataclass

from onnx import GraphProto, NodeProto

SHAPING = ("Identity", "Cast", "Reshape", "Squeeze", "Unsqueeze", "Flatten", "Transpose", "Dropout")
"""Operators that change the type or shape of values, but not the values, in evaluation mode."""

_PRODUCTS = ("Gemm", "MatMul", "Conv")
POOLING = ("GlobalAveragePool", "AveragePool", "ReduceMean")
"""Operators that average values."""


@dataclass(frozen=True)
class LinearHead:
    """A linear layer whose output, up to shape, scale, bias, ReLU and pooling, is the logits.

    Attributes:
        node: the Gemm, MatMul or Conv.
        features: the tensor that it multiplies: `[N, D]`, or `[N, D, H, W]` for a Conv.
        between: the operators between the product and the logits, the last one first.
    """

    node: NodeProto
    features: str
    between: tuple[str, ...]


def find_linear_head(graph: GraphProto, logits: str) -> LinearHead | None:
    """The linear layer that computes `logits` in `graph`; None if another operator does."""
    producers = {output: node for node in graph.node for output in node.output}
    constants = {tensor.name for tensor in graph.initializer}
    constants |= {node.output[0] for node in graph.node if node.op_type == "Constant"}
    # Weights may be transposed or converted constants.
    for node in graph.node:
        if node.input and all(name in constants for name in node.input):
            constants.update(node.output)
    name, between = logits, list[str]()
    while (node := producers.get(name)) is not None:
        if node.op_type in _PRODUCTS:
            variable = [operand for operand in node.input[:2] if operand not in constants]
            return LinearHead(node, variable[0], tuple(between)) if len(variable) == 1 else None
        if node.op_type in ("Add", "Mul", "Sub", "Div"):
            # A bias or a temperature.
            variable = [operand for operand in node.input if operand not in constants]
            if len(variable) != 1:
                return None
            name = variable[0]
        elif node.op_type in (*SHAPING, *POOLING, "Relu"):
            name = node.input[0]
        else:
            return None
        between.append(node.op_type)
    return None
