"""Finds the heads of a graph: tensors that may be logits, by walking back from its outputs."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

from onnx import GraphProto, ModelProto, NodeProto, helper

from training.errors import GraphError
from training.linear_head import SHAPING
from training.onnx_graphs import ancestors_of

Normaliser = Literal["softmax", "log-softmax", "sigmoid"]
"""The function that makes probabilities, or their logarithms, of logits."""

_QUANTISED_NORMALISERS: Mapping[str, Normaliser] = {"QLinearSoftmax": "softmax", "QLinearSigmoid": "sigmoid"}
"""Operators of integers, whose scale and zero point are their next inputs."""
_NORMALISERS: Mapping[str, Normaliser] = {
    "Softmax": "softmax",
    "LogSoftmax": "log-softmax",
    "Sigmoid": "sigmoid",
    **_QUANTISED_NORMALISERS,
}
_MONOTONIC = ("Log", "Clip", "QuantizeLinear", "DequantizeLinear")
_REDUCING = ("ArgMax", "TopK", "ReduceMax")
"""Operators that keep only the best classes."""
_SIDE_HEAD = 0.8
"""A head that depends on fewer tensors than this share of the deepest head's is an auxiliary one."""
_HINTS = ("logit", "prob", "softmax", "score", "class", "pred", "label", "cls")


@dataclass(frozen=True)
class Head:
    """A tensor that may be logits.

    Attributes:
        output: the graph's output that it was found from.
        tensor: the tensor.
        normaliser: the function of `tensor` that the output has; None if the output is `tensor` itself, in some shape.
        reduced: whether the output has only the best classes of `tensor`.
    """

    output: str
    tensor: str
    normaliser: Normaliser | None
    reduced: bool = False

    def __str__(self) -> str:
        if self.output == self.tensor:
            return f"'{self.tensor}'"
        return f"'{self.tensor}' ({self.normaliser or 'the source'} of the output '{self.output}')"


def find_heads(model: ModelProto, logits: str | None) -> list[Head]:
    """The heads of `model`, the likeliest first; only the tensor `logits` if it is given.

    A head without normaliser that another head is computed from is left out: embeddings, for example. Heads with a
    normaliser come first; among them auxiliary heads, which depend on fewer layers, come last, then usual names decide.

    Raises:
        GraphError: if the graph has no tensor `logits`.
    """
    graph = model.graph
    producers = {name: node for node in graph.node for name in node.output if name}
    if logits is not None:
        if logits not in producers:
            candidates = ", ".join(head.tensor for head in find_heads(model, None)) or "none"
            reason = f"the graph has no tensor '{logits}'"
            raise GraphError("--logits", reason, f"Name the logits [N, K] before any softmax. Candidates: {candidates}")
        return [Head(logits, logits, None)]
    found: dict[str, Head] = {}
    for output in graph.output:
        head = walk_back(producers, output.name)
        known = found.get(head.tensor)
        if head.tensor in producers and (known is None or known.reduced or _is_better(head, known)):
            found[head.tensor] = head
    if any(not head.reduced for head in found.values()):
        # An ArgMax may be one of other values.
        found = {name: head for name, head in found.items() if not head.reduced or head.normaliser} or found
    ancestors = {name: ancestors_of(graph, name) for name in found}
    heads = []
    for name, head in found.items():
        computed = [other for other, its in found.items() if other != name and not its.reduced]
        # A softmax behind a head shows that it has scores of classes. Other outputs may be computed from these.
        if head.normaliser or not any(name in ancestors[other] for other in computed):
            heads.append(head)

    def rank(head: Head) -> tuple[bool, bool, bool, bool]:
        alike = (len(ancestors[other.tensor]) for other in heads if bool(other.normaliser) == bool(head.normaliser))
        shallow = len(ancestors[head.tensor]) < _SIDE_HEAD * max(alike)
        hinted = any(hint in head.output.lower() for hint in _HINTS)
        return head.normaliser is None, shallow, head.reduced, not hinted

    return sorted(heads, key=rank)


def walk_back(producers: Mapping[str, NodeProto], output: str) -> Head:
    """The head behind the tensor `output`.

    Without a normaliser it is `output` itself, or the tensor whose best classes or names it has.
    """
    name = values = output
    reduced = False
    while (node := producers.get(name)) is not None:
        if node.op_type in _NORMALISERS:
            return Head(output, _float_logits(producers, node), _NORMALISERS[node.op_type], reduced)
        if (decomposed := _decomposed_softmax(producers, node)) is not None:
            return Head(output, decomposed[0], decomposed[1], reduced)
        if node.op_type in (*_REDUCING, "ZipMap"):
            reduced |= node.op_type in _REDUCING
            values = node.input[0]
        elif node.op_type not in (*SHAPING, *_MONOTONIC):
            break
        name = node.input[0]
    return Head(output, values, None, reduced)


def behind(model: ModelProto, tensor: str) -> Head | None:
    """The head behind `tensor`, if a normaliser is between them."""
    head = walk_back({name: node for node in model.graph.node for name in node.output if name}, tensor)
    return head if head.normaliser else None


def add_float_logits(model: ModelProto) -> None:
    """Append nodes to `model` that make floats of logits which a quantised normaliser reads as integers."""
    producers = {name: node for node in model.graph.node for name in node.output if name}
    for node in list(model.graph.node):
        if node.op_type in _QUANTISED_NORMALISERS and (name := _float_logits(producers, node)) not in producers:
            producers[name] = helper.make_node("DequantizeLinear", node.input[:3], [name])
            model.graph.node.append(producers[name])


def _float_logits(producers: Mapping[str, NodeProto], normaliser: NodeProto) -> str:
    """The logits of `normaliser` before they are quantised for it, or those that `add_float_logits` adds."""
    name: str = normaliser.input[0]
    if normaliser.op_type not in _QUANTISED_NORMALISERS:
        return name
    node = producers.get(name)
    return str(node.input[0]) if node is not None and node.op_type == "QuantizeLinear" else f"{name}/float"


def _is_better(head: Head, known: Head) -> bool:
    return head.normaliser is not None and known.normaliser is None and not head.reduced


def _decomposed_softmax(producers: Mapping[str, NodeProto], node: NodeProto) -> tuple[str, Normaliser] | None:
    """The input of a softmax or log-softmax that `node` ends, if exporters wrote it as several operators."""

    def producer(name: str, *operators: str) -> NodeProto | None:
        found = producers.get(name)
        return found if found is not None and found.op_type in operators else None

    if node.op_type in ("Div", "Mul") and len(node.input) == 2:
        for power, total in _operand_orders(node):
            exponential = producer(power, "Exp")
            if node.op_type == "Mul":
                reciprocal = producer(total, "Reciprocal")
                summed = None if reciprocal is None else producer(reciprocal.input[0], "ReduceSum")
            else:
                summed = producer(total, "ReduceSum")
            if exponential is not None and summed is not None and summed.input[0] == power:
                return _unshifted(producers, exponential.input[0]), "softmax"
    if node.op_type == "Sub" and len(node.input) == 2:
        shifted, normaliser = node.input
        log_total = producer(normaliser, "Log", "ReduceLogSumExp")
        if log_total is not None and log_total.op_type == "ReduceLogSumExp" and log_total.input[0] == shifted:
            return _unshifted(producers, shifted), "log-softmax"
        summed = None if log_total is None else producer(log_total.input[0], "ReduceSum")
        exponential = None if summed is None else producer(summed.input[0], "Exp")
        if exponential is not None and exponential.input[0] == shifted:
            return _unshifted(producers, shifted), "log-softmax"
    return None


def _operand_orders(node: NodeProto) -> Iterator[tuple[str, str]]:
    first, second = node.input
    yield first, second
    if node.op_type == "Mul":
        yield second, first


def _unshifted(producers: Mapping[str, NodeProto], name: str) -> str:
    """`name`, or the tensor that it is minus that tensor's maximum."""
    node = producers.get(name)
    if node is not None and node.op_type == "Sub":
        maximum = producers.get(node.input[1])
        if maximum is not None and maximum.op_type == "ReduceMax" and maximum.input[0] == node.input[0]:
            return str(node.input[0])
    return name


def output_tensors(graph: GraphProto) -> Iterator[tuple[str, str]]:
    """The graph's own outputs, by name, with the tensor that holds each; ZipMaps are replaced by their tensors."""
    producers = {name: node for node in graph.node for name in node.output if name}
    for output in graph.output:
        node = producers.get(output.name)
        if node is None:
            continue
        yield output.name, node.input[0] if node.op_type == "ZipMap" else output.name
