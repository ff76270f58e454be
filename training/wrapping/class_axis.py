"""Brings the values of a head to logits `[N, K]`: flattens them, makes two classes of one logit, takes logarithms."""

import math
from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto, TensorProto, helper, numpy_helper
from scipy.special import logsumexp

from bundle import LOGIT_SCORES
from training.errors import GraphError
from training.onnx_graphs import tensor_names

Content = Literal["logits", "probabilities", "log-probabilities"]
"""The meaning of a head's values."""

PROBABILITY_SCORES = tuple(name for name in LOGIT_SCORES if name not in ("max_logit", "energy"))
"""The scores that depend on the softmax of the logits only, and so can be computed from probabilities."""

SMALLEST_PROBABILITY = 1e-12
"""Added to probabilities before the logarithm. Smaller ones are not distinguished."""

_TOLERANCE = 5e-3
"""The largest difference from 1 of the sum of float16 probabilities of many classes."""


def class_count(tensor: str, shape: Sequence[int]) -> int:
    """The number of values K of one input, whose shape in `tensor` is `shape`: at most one axis is longer than 1.

    Raises:
        GraphError: if more axes are longer than 1, as in segmentation, detection and tagging.
    """
    if sum(size > 1 for size in shape) > 1:
        text = ", ".join(map(str, shape))
        reason = f"has values of shape [{text}] for one input, not one value per class"
        remedy = "Only classifiers can be wrapped, with one prediction per input; name another tensor: --logits"
        raise GraphError(f"'{tensor}'", reason, remedy)
    count = math.prod(shape)
    if count < 1:
        raise GraphError(f"'{tensor}'", "has no values", "Name another tensor: --logits")
    return count


def content_of(values: NDArray[np.generic], *, certain: bool, normalised: bool = False) -> Content:
    """The meaning of the values `[N, K]` of a head for real inputs.

    Args:
        values: the values.
        certain: whether a linear layer or the input of a softmax gives them, so that they can only be logits.
        normalised: whether a softmax gives them, or its logarithm. Their sums can be far from 1 if they are quantised.
    """
    values64 = values.astype(np.float64)
    if certain or not np.isfinite(values64).all():
        return "logits"
    tolerance = math.inf if normalised else _TOLERANCE
    if (values64 >= 0).all() and (
        np.abs(values64.sum(axis=1) - 1).max() < tolerance if values.shape[1] > 1 else (values64 <= 1).all()
    ):
        return "probabilities"
    if values.shape[1] > 1 and np.abs(logsumexp(values64, axis=1)).max() < tolerance:
        return "log-probabilities"
    return "logits"


def append_logits(model: ModelProto, tensor: str, shape: Sequence[int], content: Content) -> str:
    """Append nodes to `model` that make logits `[N, K]`, K at least 2, of `tensor` `[N, *shape]`; return their name.

    The classes of a single logit z have the logits -z/2 and z/2, whose softmax is the sigmoid of z. Probabilities
    become their logarithms.
    """
    single = class_count(tensor, shape) == 1
    if len(shape) == 1 and not single and content != "probabilities":
        return tensor
    prefix = free_prefix(model, "ood-logits/")
    graph = model.graph

    def add(operator: str, inputs: Sequence[str], name: str, **attributes: Any) -> str:
        graph.node.append(helper.make_node(operator, inputs, [prefix + name], **attributes))
        return prefix + name

    def constant(name: str, value: NDArray[np.generic]) -> str:
        graph.initializer.append(numpy_helper.from_array(value, prefix + name))
        return prefix + name

    axes = np.array([0, -1] if shape else [-1, 1], dtype=np.int64)
    name = add("Reshape", [tensor, constant("axes", axes)], "flat")
    if not single and content != "probabilities":
        return name
    name = add("Cast", [name], "float", to=TensorProto.FLOAT)
    if content == "probabilities":
        least = constant("least", np.array(SMALLEST_PROBABILITY, dtype=np.float32))
        if single:
            one = constant("one", np.array(1, dtype=np.float32))
            name = add("Concat", [add("Sub", [one, name], "other"), name], "both", axis=1)
        return add("Log", [add("Add", [name, least], "positive")], "log")
    half = add("Mul", [name, constant("half", np.array(0.5, dtype=np.float32))], "half-logit")
    return add("Concat", [add("Neg", [half], "negative"), half], "both", axis=1)


def free_prefix(model: ModelProto, prefix: str) -> str:
    """`prefix`, or a variant of it that no tensor of `model` has: the graph may have been wrapped before."""
    names = tensor_names(model.graph)
    candidate, number = prefix, 1
    while any(name.startswith(candidate) for name in names):
        number += 1
        candidate = f"{prefix.rstrip('/')}-{number}/"
    return candidate
