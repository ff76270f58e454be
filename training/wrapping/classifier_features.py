"""Features of a classifier as vectors: the input of its last linear layer, or a tensor that the user names."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np
from onnx import ModelProto, helper, numpy_helper

from training.errors import GraphError
from training.linear_head import find_linear_head
from training.onnx_graphs import ancestors_of, tensor_names
from training.wrapping.class_axis import free_prefix
from training.wrapping.head_search import behind

MAX_FEATURES = 4096
"""The largest number of features D: the graph holds a matrix `[D, D]` for `mahalanobis`."""

_REMEDY = "Name a tensor with one vector [N, D] per input, for example behind the pooling: --features"


@dataclass(frozen=True)
class FeatureTensor:
    """A tensor with features.

    Attributes:
        tensor: its name.
        operator: the operator of the linear layer that multiplies it; None if the user named the tensor.
    """

    tensor: str
    operator: str | None = None

    def __str__(self) -> str:
        origin = "" if self.operator is None else f", the input of the last {self.operator}"
        return f"'{self.tensor}'{origin}"


def find_features(model: ModelProto, logits: str, named: str | None, inputs: Collection[str]) -> FeatureTensor:
    """The features of the classifier with the head `logits`.

    Args:
        model: the graph.
        logits: the tensor of the head: logits, or probabilities that are computed from them.
        named: the tensor that the user named; None to find it.
        inputs: the inputs of the graph that the head depends on.

    Raises:
        GraphError: if no linear layer gives the logits, or if the named tensor does not exist or needs other inputs.
    """
    graph = model.graph
    if named is None:
        head = behind(model, logits)
        linear = find_linear_head(graph, logits if head is None else head.tensor)
        if linear is None:
            operator = next((node.op_type for node in graph.node if logits in node.output), "input")
            reason = f"is computed by {operator} without a linear layer before it that wrap could find"
            raise GraphError(f"'{logits}'", reason, _REMEDY)
        return FeatureTensor(linear.features, linear.node.op_type)
    if named not in tensor_names(graph):
        raise GraphError("--features", f"the graph has no tensor '{named}'", _REMEDY)
    ancestors = ancestors_of(graph, named)
    if others := ancestors & {value.name for value in graph.input} - set(inputs):
        raise GraphError(f"'{named}'", f"depends on the inputs {', '.join(sorted(others))}, the logits do not", _REMEDY)
    if not ancestors & set(inputs):
        raise GraphError(f"'{named}'", "depends on no input of the graph", _REMEDY)
    return FeatureTensor(named)


def feature_count(features: FeatureTensor, shape: Sequence[int]) -> int:
    """The number of features D of one input, whose values have `shape`.

    Raises:
        GraphError: if there are too few or too many, or if it is open which axis holds them.
    """
    axis = _feature_axis(features, shape)
    count = int(np.prod(shape)) if axis is None else shape[axis]
    text = f"'{features.tensor}'"
    if count < 2:
        raise GraphError(text, f"has {count} value for one input", _REMEDY)
    if count > MAX_FEATURES:
        raise GraphError(text, f"has {count:,} values for one input; at most {MAX_FEATURES:,} can be scored", _REMEDY)
    return count


def append_features(model: ModelProto, features: FeatureTensor, shape: Sequence[int]) -> str:
    """Append nodes to `model` that make vectors `[N, D]` of features `[N, *shape]`; return the name of the result.

    Values at several positions are averaged.
    """
    if len(shape) == 1:
        return features.tensor
    prefix, graph, name = free_prefix(model, "ood-features/"), model.graph, features.tensor
    axis = _feature_axis(features, shape)
    if axis is not None:
        if axis:
            order = [0, len(shape), *range(1, len(shape))]
            graph.node.append(helper.make_node("Transpose", [name], [f"{prefix}turned"], perm=order))
            name = f"{prefix}turned"
        graph.node.append(helper.make_node("GlobalAveragePool", [name], [f"{prefix}pooled"]))
        name = f"{prefix}pooled"
    graph.initializer.append(numpy_helper.from_array(np.array([0, -1], dtype=np.int64), f"{prefix}axes"))
    graph.node.append(helper.make_node("Reshape", [name, f"{prefix}axes"], [f"{prefix}flat"]))
    return f"{prefix}flat"


def _feature_axis(features: FeatureTensor, shape: Sequence[int]) -> int | None:
    """The axis of `shape` that holds features, the others being positions; None if there is one position.

    A convolution multiplies the first axis, a matrix product the last. A named tensor of images has the order of
    convolutions.

    Raises:
        GraphError: if a named tensor has several axes, and not those of a convolution.
    """
    if sum(size > 1 for size in shape) <= 1:
        return None
    if features.operator is not None:
        return 0 if features.operator == "Conv" else len(shape) - 1
    if len(shape) != 3:
        text = ", ".join(map(str, shape))
        raise GraphError(f"'{features.tensor}'", f"has values of shape [{text}] for one input", _REMEDY)
    return 0
