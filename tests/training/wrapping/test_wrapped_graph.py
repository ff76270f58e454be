"""The joined graph: names that a classifier shares with the bundle, graphs inside its nodes, bundles' own graphs."""

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from numpy.typing import NDArray
from onnx import ModelProto, TensorProto, helper, numpy_helper

from bundle import LOGIT_SCORES, ImageInput
from tests.support.tiny_bundle import tiny_graph
from tests.training.support.reference_scores import reference_scores
from training.models.score_heads import ClassifierHead
from training.wrapping.image_adapter import ImageAdapter
from training.wrapping.onnx_classifier import OnnxClassifier, graph_inputs, read_model, reduced_to
from training.wrapping.wrapped_graph import wrap_graph

SPEC = ImageInput(height=2, width=2, channels=3, mean=(0.0,) * 3, std=(1 / 255,) * 3)
IMAGES = np.random.default_rng(2).integers(0, 256, (4, 2, 2, 3), dtype=np.uint8)
WEIGHTS = np.random.default_rng(3).normal(0, 0.01, (3, 3)).astype(np.float32)


def load_classifier(path: Path, logits: str) -> OnnxClassifier:
    model = reduced_to(read_model(path), [logits])
    return OnnxClassifier(model, graph_inputs(model), logits)


def wrap(classifier: OnnxClassifier, spec: ImageInput = SPEC) -> ModelProto:
    adapter = ImageAdapter(spec, "nhwc", classifier.inputs[0])
    model, own_outputs = wrap_graph(classifier, adapter, ClassifierHead(LOGIT_SCORES), 3)
    assert not own_outputs
    return model


def assert_scores(model: ModelProto, images: NDArray[np.uint8], logits: NDArray[np.floating]) -> None:
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    assert [node.name for node in session.get_inputs()] == ["images"]
    names = [node.name for node in session.get_outputs()]
    assert names == [*LOGIT_SCORES, "prediction", "probability"]
    outputs = dict(zip(names, session.run(names, {"images": images}), strict=True))
    for name, expected in reference_scores(logits).items():
        np.testing.assert_allclose(outputs[name], expected, atol=1e-4, err_msg=name)


def write_conditional(path: Path) -> None:
    """Write a classifier by mean colours whose logits an If computes, from tensors and weights outside its branches.

    The weights are called `msp`, as an output of the bundle; an unused node and an unused weight stand beside them.
    """

    def branch(name: str, operator: str) -> onnx.GraphProto:
        output = helper.make_tensor_value_info(name, TensorProto.FLOAT, None)
        nodes = [
            helper.make_node("MatMul", ["colour", "msp"], [f"{name}-product"]),
            helper.make_node(operator, [f"{name}-product"], [name]),
        ]
        return helper.make_graph(nodes, name, [], [output])

    nodes = [
        helper.make_node("ReduceMean", ["images"], ["colour"], axes=[1, 2], keepdims=0),
        helper.make_node("Exp", ["colour"], ["unused"]),
        helper.make_node(
            "If", ["yes"], ["logits"], then_branch=branch("same", "Identity"), else_branch=branch("negated", "Neg")
        ),
    ]
    constants = {"yes": np.array(True), "msp": WEIGHTS, "unused-weights": WEIGHTS}
    graph = helper.make_graph(
        nodes,
        "conditional",
        [helper.make_tensor_value_info("images", TensorProto.FLOAT, ["N", 2, 2, 3])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["N", 3])],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8), path)


def test_a_graph_inside_a_node_keeps_its_tensors_though_they_are_renamed(tmp_path: Path) -> None:
    write_conditional(tmp_path / "conditional.onnx")
    classifier = load_classifier(tmp_path / "conditional.onnx", "logits")
    assert {tensor.name for tensor in classifier.model.graph.initializer} == {"yes", "msp"}
    assert [node.op_type for node in classifier.model.graph.node] == ["ReduceMean", "If"]
    assert_scores(wrap(classifier), IMAGES, IMAGES.mean(axis=(1, 2)) @ WEIGHTS)


def test_the_classifier_itself_does_not_change(tmp_path: Path) -> None:
    write_conditional(tmp_path / "conditional.onnx")
    classifier = load_classifier(tmp_path / "conditional.onnx", "logits")
    before = classifier.model.SerializeToString()
    wrap(classifier)
    assert classifier.model.SerializeToString() == before


def test_tensors_keep_their_names_unless_the_bundle_uses_them(tmp_path: Path) -> None:
    write_conditional(tmp_path / "conditional.onnx")
    model = wrap(load_classifier(tmp_path / "conditional.onnx", "logits"))
    names = {tensor.name for tensor in model.graph.initializer}
    names |= {name for node in model.graph.node for name in node.output}
    assert {"colour", "logits", "yes", "classifier/msp"} <= names


@pytest.mark.parametrize("times", [1, 2])
def test_the_graph_of_a_bundle_can_be_wrapped_again(times: int, tmp_path: Path) -> None:
    size = 8
    images = np.random.default_rng(4).integers(0, 256, (5, size, size, 3), dtype=np.uint8)
    spec = ImageInput(height=size, width=size, channels=3, mean=(0.0,) * 3, std=(1.0,) * 3)
    model = tiny_graph(3, size=size)
    logits = 4 * (images.mean(axis=(1, 2)) / 255 - 0.5) / 0.25
    for _ in range(times):
        onnx.save(model, tmp_path / "model.onnx")
        model = wrap(load_classifier(tmp_path / "model.onnx", "logits"), spec)
    assert_scores(model, images, logits)
