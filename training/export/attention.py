"""Detects attention in an ONNX graph, because scores of the logits' magnitude are poor on transformers."""

import onnx
from onnx import NodeProto

POOR_ON_TRANSFORMERS = ("max_logit", "energy")
"""Scores of the magnitude of logits. On ViT-B/16 and Swin-T they detect less than `msp` and `gen` (OpenOOD v1.5)."""

_ATTENTION = ("Attention", "MultiHeadAttention", "GroupQueryAttention", "PackedAttention", "QAttention")
_PRODUCTS = ("MatMul", "Gemm", "Einsum", "FusedMatMul", "QLinearMatMul", "MatMulInteger")
_TRANSPARENT = (
    *("Cast", "Dropout", "Identity", "Reshape", "Transpose", "Squeeze", "Unsqueeze", "Where"),
    *("QuantizeLinear", "DequantizeLinear"),
)
"""Operators between the softmax over positions and its product with the values."""


def has_attention(model: onnx.ModelProto) -> bool:
    """Whether the graph has an attention operator, or multiplies a softmax by a matrix."""
    return any(_attends(list(nodes)) for nodes in (model.graph.node, *(part.node for part in model.functions)))


def transformer_warning(default_score: str) -> str:
    """The warning for a transformer whose default score is one of `POOR_ON_TRANSFORMERS`."""
    return f"warning: {default_score} is a poor default score for transformers; compare it with gen and msp"


def _attends(nodes: list[NodeProto]) -> bool:
    weights: set[str] = set()
    # The nodes of a graph are in topological order.
    for node in nodes:
        if node.op_type in _ATTENTION:
            return True
        if node.op_type == "Softmax":
            weights.update(node.output)
        elif weights.intersection(node.input):
            if node.op_type in _PRODUCTS:
                return True
            if node.op_type in _TRANSPARENT:
                weights.update(node.output)
    return False
