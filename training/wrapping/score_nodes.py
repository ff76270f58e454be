"""Score nodes: the scores of `training.models.score_heads` as ONNX operators, for a graph that torch did not make."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from onnx import NodeProto, TensorProto, ValueInfoProto, helper, numpy_helper
from scipy.special import log_softmax, logsumexp, softmax

from training.scoring.batch_scoring import Outputs

SCORE_NAMES = ("msp", "max_logit", "energy", "entropy", "kl_uniform")
"""The scores that any classifier's logits give, in the order of `training.models.score_heads.LOGIT_SCORES`."""

_PREFIX = "ood-scores/"
_AXES = f"{_PREFIX}class-axis"
_AXES_BECAME_AN_INPUT = {"ReduceSum": 13, "ReduceMax": 18, "ReduceMean": 18, "ReduceLogSumExp": 18}


def score_nodes(logits: str, opset: int) -> tuple[list[NodeProto], list[TensorProto]]:
    """Nodes and constants from the tensor `logits` `[N, K]`, any float, to every score, `prediction`, `probability`."""
    values, soft, log_soft = (f"{_PREFIX}{name}" for name in ("logits", "softmax", "log-softmax"))
    total, weighted, summed, mean = (f"{_PREFIX}{name}" for name in ("log-sum-exp", "p-log-p", "sum", "mean"))
    nodes = [
        helper.make_node("Cast", [logits], [values], to=TensorProto.FLOAT),
        helper.make_node("Softmax", [values], [soft], axis=1),
        helper.make_node("LogSoftmax", [values], [log_soft], axis=1),
        helper.make_node("ArgMax", [values], ["prediction"], axis=1, keepdims=0),
        _reduce("ReduceMax", soft, "msp", opset),
        helper.make_node("Identity", ["msp"], ["probability"]),
        _reduce("ReduceMax", values, "max_logit", opset),
        _reduce("ReduceLogSumExp", values, total, opset),
        helper.make_node("Neg", [total], ["energy"]),
        helper.make_node("Mul", [soft, log_soft], [weighted]),
        _reduce("ReduceSum", weighted, summed, opset),
        helper.make_node("Neg", [summed], ["entropy"]),
        _reduce("ReduceMean", log_soft, mean, opset),
        helper.make_node("Neg", [mean], ["kl_uniform"]),
    ]
    return nodes, [numpy_helper.from_array(np.array([1], dtype=np.int64), _AXES)]


def score_outputs() -> Sequence[ValueInfoProto]:
    """The outputs that `score_nodes` computes, each `[N]`."""
    floats = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["N"]) for name in (*SCORE_NAMES, "probability")]
    return [*floats, helper.make_tensor_value_info("prediction", TensorProto.INT64, ["N"])]


def reference_scores(logits: NDArray[np.generic]) -> Outputs:
    """The same outputs computed with SciPy in float64 from `logits` `[N, K]`: what the nodes are held against."""
    values = np.asarray(logits, dtype=np.float64)
    soft, log_soft = softmax(values, axis=1), log_softmax(values, axis=1)
    return {
        "msp": soft.max(axis=1),
        "max_logit": values.max(axis=1),
        "energy": -logsumexp(values, axis=1),
        "entropy": -(soft * log_soft).sum(axis=1),
        "kl_uniform": -log_soft.mean(axis=1),
        "prediction": values.argmax(axis=1),
        "probability": soft.max(axis=1),
    }


def _reduce(operator: str, source: str, target: str, opset: int) -> NodeProto:
    """A reduction over classes; operator sets differ in where the axes are given."""
    if opset >= _AXES_BECAME_AN_INPUT[operator]:
        return helper.make_node(operator, [source, _AXES], [target], keepdims=0)
    return helper.make_node(operator, [source], [target], axes=[1], keepdims=0)
