"""The wrapped graph: input adapter, ONNX classifier and score head, joined into the graph of a bundle."""

from collections.abc import Mapping

from onnx import GraphProto, ModelProto, compose, helper

from training.models.score_heads import ClassifierHead
from training.onnx_graphs import graphs_of, opset_of, replace_content, tensor_names
from training.wrapping.class_axis import free_prefix
from training.wrapping.input_adapter import InputAdapter
from training.wrapping.onnx_classifier import OnnxClassifier
from training.wrapping.score_head import FEATURES, LOGITS, head_graph

_DEFAULT_OPSET = 18


def wrap_graph(
    classifier: OnnxClassifier, adapter: InputAdapter, head: ClassifierHead, num_classes: int
) -> tuple[ModelProto, dict[str, str]]:
    """The bundle's graph of a `classifier` with a dynamic batch. `classifier` does not change.

    The classifier's tensors keep their names, except those whose names the bundle's graph uses itself.

    Returns:
        The graph; the outputs of the classifier itself by name, with their names in the graph.

    Raises:
        GraphError: if the classifier's opset has no operators for one of the scores.
    """
    model = ModelProto()
    model.CopyFrom(classifier.model)
    if not opset_of(model):
        model.opset_import.append(helper.make_opsetid("", _DEFAULT_OPSET))
    before, after = adapter.graph, head_graph(head, num_classes, opset_of(model))
    names = [value.name for value in before.input]
    for part in (before, after):
        names += [name for node in part.node for name in node.output] + [tensor.name for tensor in part.initializer]
    used = tensor_names(model.graph)
    prefix = free_prefix(model, "classifier/")
    renamed = {name: f"{prefix}{name}" for name in names if name in used}
    own = {output.tensor: renamed.get(output.tensor, output.tensor) for output in classifier.outputs}
    for graph in graphs_of(model.graph):
        _rename(graph, renamed)
    outputs = (output.name for output in before.output)
    inputs = (renamed.get(value.name, value.name) for value in classifier.inputs)
    read = [renamed.get(tensor, tensor) for tensor in classifier.tensors]
    # Not `merge_models`: it requires equal IR versions and a type for the logits.
    joined = compose.merge_graphs(before, model.graph, list(zip(outputs, inputs, strict=True)))
    joined = compose.merge_graphs(joined, after, list(zip(read, (LOGITS, FEATURES), strict=False)), name="wrapped")
    scores = [value for value in joined.output if value.name in head.output_names]
    replace_content(joined.output, scores)
    for tensor in dict.fromkeys(own.values()):
        joined.output.add(name=tensor)
    # The logits are there without a type. ONNX Runtime infers all types itself.
    joined.ClearField("value_info")
    joined.ClearField("doc_string")
    model.graph.CopyFrom(joined)
    model.producer_name = "ood-scoring-service"
    return model, {output.name: own[output.tensor] for output in classifier.outputs}


def _rename(graph: GraphProto, names: Mapping[str, str]) -> None:
    """Rename tensors in `graph`, but not in the graphs inside its nodes.

    `compose.add_prefix_graph` leaves weights that an inner graph reads without the prefix.
    """
    for node in graph.node:
        for field in (node.input, node.output):
            for i, name in enumerate(field):
                field[i] = names.get(name, name)
    for part in (*graph.input, *graph.output, *graph.initializer, *graph.value_info):
        part.name = names.get(part.name, part.name)
    for sparse in graph.sparse_initializer:
        sparse.values.name = names.get(sparse.values.name, sparse.values.name)
