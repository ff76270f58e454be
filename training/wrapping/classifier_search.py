"""Finds the classifier in a graph: probes its heads with generated inputs, and takes the first that fits."""

import math
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto, TensorProto, helper

from training.errors import GraphError
from training.linear_head import find_linear_head
from training.onnx_graphs import ancestors_of
from training.wrapping.class_axis import PROBABILITY_SCORES, append_logits, class_count, content_of
from training.wrapping.classifier_features import FeatureTensor, append_features, feature_count, find_features
from training.wrapping.head_search import Head, behind, find_heads, output_tensors
from training.wrapping.input_adapter import InputAdapter
from training.wrapping.onnx_classifier import GraphInput, OnnxClassifier, OwnOutput, graph_inputs, reduced_to
from training.wrapping.sessions import open_session

_MAX_OUTPUT_VALUES = 65_536
"""Own outputs with more values for one input, feature maps for example, are left out."""

MakeAdapter = Callable[[ModelProto, tuple[GraphInput, ...]], InputAdapter]
"""Makes the adapter for a graph with the given inputs."""


@dataclass(frozen=True)
class FoundClassifier:
    """A head of a graph, with its adapter and the shapes that a run on generated inputs showed.

    Attributes:
        classifier: the classifier; its logits are still the head's tensor, `[N, *shape]`.
        adapter: converts inputs to the classifier's.
        head: the head.
        shape: the shape of its values for one input.
        features: the tensor with the features; None if no score needs them.
        features_shape: the shape of its values for one input.
    """

    classifier: OnnxClassifier
    adapter: InputAdapter
    head: Head
    shape: tuple[int, ...]
    features: FeatureTensor | None = None
    features_shape: tuple[int, ...] = ()

    @property
    def num_classes(self) -> int:
        """The number of classes K."""
        return max(class_count(self.head.tensor, self.shape), 2)

    def resolve(self, values: NDArray[np.float32], announce: Callable[[str], None]) -> OnnxClassifier:
        """The classifier with logits `[N, K]` and features `[N, D]`, given the head's `values` for real inputs.

        Args:
            values: the values `[N, ...]`; they show whether the head is logits or probabilities.
            announce: gets a line about the head.

        Raises:
            GraphError: if a value is not finite.
        """
        flat = values.reshape(len(values), -1)
        require_finite(flat, self.head.tensor, "calibration", self.adapter.options)
        linear = find_linear_head(self.classifier.model.graph, self.head.tensor)
        hint = behind(self.classifier.model, self.head.tensor)
        content = content_of(
            flat,
            certain=self.head.normaliser is not None or linear is not None,
            normalised=hint is not None and hint.normaliser != "sigmoid" and not hint.reduced,
        )
        # A copy, because the classifier's own graph is still needed as it was.
        model = ModelProto()
        model.CopyFrom(self.classifier.model)
        logits = append_logits(model, self.head.tensor, self.shape, content)
        features = None
        if self.features is not None:
            features = append_features(model, self.features, self.features_shape)
            count = feature_count(self.features, self.features_shape)
            announce(f"features: {self.features}, {count} for each input; --features overrides it")
        classifier = replace(self.classifier, model=model, logits=logits, features=features)
        del model.graph.output[:]
        for name in dict.fromkeys([*classifier.tensors, *(output.tensor for output in classifier.outputs)]):
            model.graph.output.add(name=name)
        classes = "two classes of one value" if flat.shape[1] == 1 else f"{flat.shape[1]} classes"
        origin = f", from the {linear.node.op_type} of the features '{linear.features}'" if linear is not None else ""
        announce(f"{content}: {self.head}, {classes}{origin}; --logits overrides it")
        if self.head.normaliser == "sigmoid" and flat.shape[1] > 1:
            announce("the classes have separate sigmoids; the scores use the softmax of their logits instead")
        if content == "logits":
            return classifier
        more = "" if hint is None else f"; --logits {hint.tensor} gives all scores"
        announce(f"scores: {', '.join(PROBABILITY_SCORES)}, those that {content} allow{more}")
        return replace(classifier, scores=PROBABILITY_SCORES)


def find_classifier(
    model: ModelProto,
    logits: str | None,
    make_adapter: MakeAdapter,
    announce: Callable[[str], None],
    *,
    with_features: bool = False,
    features: str | None = None,
) -> FoundClassifier:
    """The likeliest head of `model` whose values for generated inputs have one axis of classes.

    Args:
        model: the graph.
        logits: the tensor with the logits; None to search for it.
        make_adapter: makes the adapter of a graph with the given inputs.
        announce: gets a line if there are several heads.
        with_features: whether the classifier's features are needed.
        features: the tensor with the features; None to search for it.

    Raises:
        GraphError: if no head fits; the message names each with the reason. Or if the head that fits has no features.
    """
    heads = find_heads(model, logits)
    refusals: list[GraphError] = []
    for head in heads:
        try:
            found = _probe(model, head, logits, make_adapter)
        except GraphError as error:
            refusals.append(error)
            continue
        others = [other for other in heads if other is not head and not other.reduced]
        if others and logits is None:
            announce(f"other outputs: {', '.join(map(str, others))}; name one to wrap it instead: --logits")
        return _with_features(model, found, features) if with_features else found
    if not refusals:
        raise GraphError("the graph", "computes no output from its inputs", "Give a graph of a classifier")
    if len(refusals) == 1 or len({error.reason for error in refusals}) == 1:
        raise refusals[0]
    reasons = "; ".join(f"{error.subject} {error.reason}" for error in refusals)
    raise GraphError("the graph", f"has no output with one value per class: {reasons}", refusals[0].remedy)


def require_finite(values: NDArray[np.float32], tensor: str, data: str, options: str) -> None:
    """Check that the values `[N, ...]` of `tensor` are finite.

    Args:
        values: the values.
        tensor: the tensor's name.
        data: the name of the data set that it was computed for.
        options: the command's options that describe the graph's input, for the message.

    Raises:
        GraphError: if they are not.
    """
    if not np.isfinite(values).all():
        reason = f"{int((~np.isfinite(values)).any(axis=1).sum())} {data} inputs have NaN or infinite values"
        raise GraphError(f"'{tensor}'", reason, f"Check {options} and the {data} data")


def require_equal(original: ModelProto, found: FoundClassifier) -> None:
    """Check that the classifier, found in a converted graph, computes what the `original` graph does.

    Raises:
        GraphError: if the head's values for generated inputs differ.
    """
    tensor, adapter = found.head.tensor, found.adapter
    size = found.classifier.batch or 1
    feeds = [adapter.feed(np.repeat(row, size, axis=0)) for row in adapter.probe_rows()]
    before, after = (
        open_session(reduced_to(model, [tensor]), [tensor], adapter.options)
        for model in (original, found.classifier.model)
    )
    for feed in feeds:
        if not np.allclose(before(feed)[0], after(feed)[0], rtol=1e-3, atol=1e-4):
            raise GraphError("the graph", "computes other logits in a newer opset", "Export it with opset 11 or later")


def _probe(model: ModelProto, head: Head, logits: str | None, make_adapter: MakeAdapter) -> FoundClassifier:
    """Run the graph on generated inputs to find the shapes of the head and of the graph's own outputs.

    Raises:
        GraphError: if the graph fails, or if the head is of another type or shape than logits.
    """
    inputs = graph_inputs(reduced_to(model, [head.tensor]))
    adapter = make_adapter(model, inputs)
    own = _own_outputs(model, {value.name for value in inputs})
    names = list(dict.fromkeys([head.tensor, *own.values()]))
    run = open_session(reduced_to(model, names), names, adapter.options)
    first, *further = adapter.probe_rows()
    declared = inputs[0].shape[0]
    # Two rows show which axis is the batch.
    batch, size = declared, declared or 2
    try:
        results = [run(adapter.feed(np.repeat(first, size, axis=0)))]
    except GraphError:
        if declared is not None:
            raise
        # The declared batch is dynamic, but a constant in the graph fixes it.
        batch = size = 1
        results = [run(adapter.feed(first))]
    results += [run(adapter.feed(np.repeat(row, size, axis=0))) for row in further]
    remedy = "Logits are floats [N, K], K the number of classes; name others: --logits"
    shape = _shape(f"'{head.tensor}'", results[0][0], size, "scores of classes", remedy)
    is_known = head.normaliser is not None or head.output == logits
    if class_count(head.tensor, shape) == 1 and not is_known and find_linear_head(model.graph, head.tensor) is None:
        reason = "is one value for an input, from neither a sigmoid nor a linear layer"
        raise GraphError(f"'{head.tensor}'", reason, "If it is the logit of two classes, name it: --logits")
    outputs = tuple(
        output
        for name, tensor in own.items()
        if (output := _own_output(name, tensor, [result[names.index(tensor)] for result in results], size)) is not None
    )
    classifier = OnnxClassifier(
        reduced_to(model, [head.tensor, *(output.tensor for output in outputs)]),
        inputs,
        head.tensor,
        batch,
        outputs=outputs,
    )
    return FoundClassifier(classifier, adapter, head, shape)


def _with_features(model: ModelProto, found: FoundClassifier, named: str | None) -> FoundClassifier:
    """`found` with its features, whose shape generated inputs show.

    Raises:
        GraphError: if it has none, or if they are not one vector of the same length for every input.
    """
    classifier, adapter = found.classifier, found.adapter
    features = find_features(model, found.head.tensor, named, {value.name for value in classifier.inputs})
    run = open_session(reduced_to(model, [features.tensor]), [features.tensor], adapter.options)
    size = classifier.batch or 1
    values = [run(adapter.feed(np.repeat(row, size, axis=0)))[0] for row in adapter.probe_rows()]
    remedy = "Features are floats [N, D]; name others: --features"
    shapes = {_shape(f"'{features.tensor}'", array, size, "features", remedy) for array in values}
    if len(shapes) > 1:
        reason = f"its shape depends on the input: {' and '.join(map(str, sorted(map(list, shapes))))}"
        raise GraphError(f"'{features.tensor}'", reason, remedy)
    (shape,) = shapes
    feature_count(features, shape)
    outputs = [output.name for output in classifier.model.graph.output]
    model = reduced_to(model, [*outputs, features.tensor])
    return replace(found, classifier=replace(classifier, model=model), features=features, features_shape=shape)


def _shape(subject: str, values: NDArray[np.generic], size: int, content: str, remedy: str) -> tuple[int, ...]:
    """The shape of a tensor's `values` for one input, of `size` inputs."""
    if not isinstance(values, np.ndarray) or values.dtype.kind != "f":
        raise GraphError(subject, f"holds {getattr(values, 'dtype', 'no tensor')}, not {content}", remedy)
    if not values.ndim or len(values) != size:
        raise GraphError(subject, f"has shape {list(values.shape)} for {size} inputs", remedy)
    return values.shape[1:]


def _own_outputs(model: ModelProto, inputs: Collection[str]) -> dict[str, str]:
    """The graph's own outputs by name, with their tensors, that depend on no other inputs than `inputs`."""
    others = {value.name for value in model.graph.input} - set(inputs)
    return {
        name: tensor
        for name, tensor in output_tensors(model.graph)
        if not ancestors_of(model.graph, tensor) & others and ancestors_of(model.graph, tensor) & set(inputs)
    }


def _own_output(name: str, tensor: str, results: Sequence[Any], size: int) -> OwnOutput | None:
    """The output with the values `results`, in batches of `size`; None if it has no fixed shape per input."""
    shapes = {result.shape for result in results if isinstance(result, np.ndarray)}
    if len(shapes) != 1 or not all(isinstance(result, np.ndarray) for result in results):
        return None
    (shape,) = shapes
    if not shape or shape[0] != size or math.prod(shape[1:]) > _MAX_OUTPUT_VALUES:
        return None
    dtype = results[0].dtype
    if dtype.kind not in "fiubO":
        return None
    elem_type = TensorProto.STRING if dtype.kind == "O" else helper.np_dtype_to_tensor_dtype(dtype)
    return OwnOutput(name, tensor, elem_type, tuple(shape[1:]))
