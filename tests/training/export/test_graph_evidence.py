"""The evidence of positions in graphs that torch did not export: wrapped classifiers, backbones, lower precision."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from tests.training.support.datasets_on_disk import checkers, stripes
from tests.training.support.feature_classifiers import HEADS, write_classifier
from training.export.graph_evidence import add_evidence
from training.onnx_graphs import with_opset

IMAGES = (np.concatenate([stripes(12, seed=9)[0], checkers(12, seed=9)]) / 255).astype(np.float32).transpose(0, 3, 1, 2)


def with_prediction(model: onnx.ModelProto) -> onnx.ModelProto:
    """Give a classifier with the logits `scores` the output `prediction`."""
    model.graph.node.append(helper.make_node("ArgMax", ["probabilities"], ["prediction"], axis=1, keepdims=0))
    for name in ("prediction", "scores", "maps"):
        model.graph.output.add(name=name)
    return model


def outputs_of(model: onnx.ModelProto, images: NDArray[Any] = IMAGES) -> dict[str, NDArray[Any]]:
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(names, {"images": images}), strict=True))


@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize("opset", [8, 13, 18])
def test_evidence_and_bias_add_up_to_the_logit_behind_every_kind_of_head(head: str, opset: int, tmp_path: Path) -> None:
    model = onnx.load(write_classifier(tmp_path / "net.onnx", head))
    if opset > 13:
        model = with_opset(model, opset)
    # Older operators of the graph have the same attributes.
    model.opset_import[0].version = opset
    model = with_prediction(model)
    spec = add_evidence(model, {"images": IMAGES}, "fp32")
    assert spec is not None
    outputs = outputs_of(model)
    evidence = outputs[spec.output]
    assert evidence.shape == (24, 4, 4)
    sums = evidence.sum(axis=(1, 2)) + np.asarray(spec.bias)[outputs["prediction"]]
    np.testing.assert_allclose(sums, outputs["scores"].max(axis=1), rtol=1e-4, atol=1e-4)


def test_the_evidence_of_a_position_comes_from_its_part_of_the_image(tmp_path: Path) -> None:
    model = with_prediction(onnx.load(write_classifier(tmp_path / "net.onnx")))
    spec = add_evidence(model, {"images": IMAGES}, "fp32")
    assert spec is not None
    changed = IMAGES.copy()
    changed[:, :, 4:8, 8:12] = 0.5
    before, after = outputs_of(model), outputs_of(model, changed)
    same = before["prediction"] == after["prediction"]
    differs = np.abs(before[spec.output] - after[spec.output])[same].max(axis=0) > 1e-6
    assert np.argwhere(differs).tolist() == [[1, 2]]


def edited(path: Path, edit: Callable[[onnx.GraphProto], object]) -> onnx.ModelProto:
    model = onnx.load(write_classifier(path))
    edit(model.graph)
    return with_prediction(model)


def _rename_scores(graph: onnx.GraphProto) -> None:
    (gemm,) = [node for node in graph.node if node.op_type == "Gemm"]
    gemm.output[0] = "linear"


def with_hidden_layer(graph: onnx.GraphProto) -> None:
    _rename_scores(graph)
    index = [node.output[0] for node in graph.node].index("linear")
    graph.node.insert(index + 1, helper.make_node("Relu", ["linear"], ["scores"]))


def with_squares(graph: onnx.GraphProto) -> None:
    _rename_scores(graph)
    index = [node.output[0] for node in graph.node].index("linear")
    graph.node.insert(index + 1, helper.make_node("Mul", ["linear", "linear"], ["scores"]))


def without_pooling(graph: onnx.GraphProto) -> None:
    (pool,) = [node for node in graph.node if node.op_type == "GlobalAveragePool"]
    pool.op_type = "GlobalMaxPool"


def with_partial_pooling(graph: onnx.GraphProto) -> None:
    (pool,) = [node for node in graph.node if node.op_type == "GlobalAveragePool"]
    pool.op_type = "AveragePool"
    pool.attribute.extend([helper.make_attribute("kernel_shape", [4, 2]), helper.make_attribute("strides", [4, 2])])
    (gemm,) = [node for node in graph.node if node.op_type == "Gemm"]
    wide = np.random.default_rng(0).normal(size=(3, 16)).astype(np.float32)
    graph.initializer.append(numpy_helper.from_array(wide, "wide"))
    graph.initializer.append(numpy_helper.from_array(np.array([-1, 16], np.int64), "flat16"))
    gemm.input[1] = "wide"
    next(node for node in graph.node if node.output[0] == "pooled").input[1] = "flat16"


@pytest.mark.parametrize("edit", [with_hidden_layer, with_squares, without_pooling, with_partial_pooling])
def test_a_graph_whose_logits_are_no_sums_over_positions_stays_as_it_is(
    edit: Callable[[onnx.GraphProto], object], tmp_path: Path
) -> None:
    model = edited(tmp_path / "net.onnx", edit)
    before = model.SerializeToString()
    assert add_evidence(model, {"images": IMAGES}, "fp32") is None
    assert model.SerializeToString() == before


def test_a_name_that_the_graph_uses_is_not_taken(tmp_path: Path) -> None:
    model = with_prediction(onnx.load(write_classifier(tmp_path / "net.onnx")))
    model.graph.node.append(helper.make_node("Identity", ["maps"], ["evidence"]))
    model.graph.output.append(helper.make_tensor_value_info("evidence", TensorProto.FLOAT, ["N", 8, 4, 4]))
    spec = add_evidence(model, {"images": IMAGES}, "fp32")
    assert spec is not None
    assert spec.output == "ood-evidence"
    assert outputs_of(model)["ood-evidence"].shape == (24, 4, 4)
