"""Refuses graphs with nodes that cannot be wrapped: custom operators, training mode, random values, detection."""

from collections.abc import Iterator, Mapping

from onnx import ModelProto, NodeProto, TensorProto, numpy_helper

from training.errors import GraphError

_DOMAINS = ("", "ai.onnx", "ai.onnx.ml", "com.microsoft", "com.microsoft.nchwc")
"""The domains whose operators ONNX Runtime has."""
_RANDOM = ("Bernoulli", "Multinomial", "RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike")
_DETECTION = ("NonMaxSuppression", "RoiAlign", "MaxRoiPool", "EfficientNMS_TRT", "BatchedNMS_TRT")
_EXPORT = "Export it in evaluation mode: model.eval(), and training=TrainingMode.EVAL in torch.onnx.export"


def refuse_unsupported(model: ModelProto) -> None:
    """Check the nodes of `model` and of the graphs inside them.

    Raises:
        GraphError: for the first node that cannot be wrapped; the message names it and its operator.
    """
    constants = {tensor.name: tensor for tensor in model.graph.initializer}
    for node in model.graph.node:
        if node.op_type == "Constant":
            constants[node.output[0]] = node.attribute[0].t
    for node in _nodes(model.graph.node):
        subject = f"the node that computes '{node.output[0] if node.output else node.name}'"
        if node.op_type in _DETECTION:
            remedy = "Only classifiers can be wrapped, with one prediction for an image"
            raise GraphError(subject, f"is {node.op_type}, an operator of object detectors", remedy)
        if node.domain not in _DOMAINS:
            reason = f"is the custom operator {node.domain}.{node.op_type}, which ONNX Runtime does not have"
            raise GraphError(subject, reason, "Export the model with ONNX's own operators")
        if node.op_type in _RANDOM:
            raise GraphError(subject, f"is {node.op_type}: the output is random", _EXPORT)
        if _is_training(node, constants):
            raise GraphError(subject, f"is {node.op_type} in training mode", _EXPORT)


def _nodes(nodes: Iterator[NodeProto]) -> Iterator[NodeProto]:
    for node in nodes:
        yield node
        for attribute in node.attribute:
            for graph in (attribute.g, *attribute.graphs):
                yield from _nodes(graph.node)


def _is_training(node: NodeProto, constants: Mapping[str, TensorProto]) -> bool:
    if node.op_type == "BatchNormalization":
        # Before opset 14, further outputs (running and saved statistics) mean training.
        return _flag(node, "training_mode") or sum(bool(name) for name in node.output) > 1
    if node.op_type == "Dropout" and len(node.input) > 2 and node.input[2] in constants:
        return bool(numpy_helper.to_array(constants[node.input[2]]).any())
    return False


def _flag(node: NodeProto, name: str) -> bool:
    return any(attribute.name == name and attribute.i for attribute in node.attribute)
