"""The wrapped graph: a bundle's inputs in, a foreign classifier in the middle, scores and prediction out."""

from collections.abc import Mapping

from onnx import GraphProto, ModelProto, helper

from training.wrapping.input_adapter import InputAdapter
from training.wrapping.original import Original, graphs_of, opset_of, reads
from training.wrapping.score_nodes import SCORE_NAMES, score_nodes, score_outputs

_DEFAULT_OPSET = 18


def wrap_graph(original: Original, adapter: InputAdapter) -> ModelProto:
    """The bundle's graph of an `original` with a dynamic batch; the original is left as it is."""
    model = ModelProto()
    model.CopyFrom(original.model)
    own = [each.name for each in adapter.inputs]
    taken = {name: f"original/{name}" for name in (*own, *SCORE_NAMES, "prediction", "probability")}
    for inner in graphs_of(model.graph):
        _rename(inner, taken)
    logits = taken.get(original.logits, original.logits)
    before, constants = adapter.nodes({each.name: taken.get(each.name, each.name) for each in original.inputs})
    if not opset_of(model):
        model.opset_import.append(helper.make_opsetid("", _DEFAULT_OPSET))
    after, more = score_nodes(logits, opset_of(model))
    graph = model.graph
    nodes = [*before, *graph.node, *after]
    del graph.node[:], graph.input[:], graph.output[:]
    graph.node.extend(nodes)
    graph.initializer.extend([*constants, *more])
    # A shape that named the fixed batch, or axes that this operator set has elsewhere: ONNX Runtime would warn of them.
    used = {name for node in graph.node for name in reads(node)}
    weights = [each for each in graph.initializer if each.name in used]
    del graph.initializer[:]
    graph.initializer.extend(weights)
    graph.input.extend(adapter.inputs)
    graph.output.extend(score_outputs())
    model.producer_name = "ood-scoring-service"
    return model


def _rename(graph: GraphProto, names: Mapping[str, str]) -> None:
    """Rename values in `graph`, not in the graphs inside it."""
    for node in graph.node:
        for field in (node.input, node.output):
            for i, name in enumerate(field):
                field[i] = names.get(name, name)
    for part in (*graph.input, *graph.output, *graph.initializer, *graph.value_info):
        part.name = names.get(part.name, part.name)
    for sparse in graph.sparse_initializer:
        sparse.values.name = names.get(sparse.values.name, sparse.values.name)
