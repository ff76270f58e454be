"""The score head as an ONNX graph equals the definitions of the scores, in any version of ONNX's operators."""

import numpy as np
import onnxruntime
import pytest
from numpy.typing import NDArray
from onnx import GraphProto, TensorProto, helper

from bundle import LOGIT_SCORES
from tests.training.support.reference_scores import reference_scores
from training.models.score_heads import ClassifierHead
from training.wrapping.score_head import LOGITS, head_graph, reference_outputs

HEAD = ClassifierHead(LOGIT_SCORES)
VALUES = 5 * np.random.default_rng(1).normal(size=(9, 5))


def run(graph: GraphProto, opset: int, logits: NDArray[np.floating]) -> dict[str, NDArray[np.generic]]:
    graph.input[0].type.tensor_type.elem_type = helper.np_dtype_to_tensor_dtype(logits.dtype)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return dict(zip(HEAD.output_names, session.run(list(HEAD.output_names), {LOGITS: logits}), strict=True))


@pytest.mark.parametrize("opset", [7, 9, 11, 12, 13, 17, 18, 20, 21, 23])
def test_the_graph_computes_every_score_in_the_operators_of_any_opset(opset: int) -> None:
    outputs = run(head_graph(HEAD, 5, opset), opset, VALUES.astype(np.float32))
    for name, expected in reference_scores(VALUES).items():
        assert outputs[name].dtype == np.float32
        np.testing.assert_allclose(outputs[name], expected, atol=1e-5, err_msg=name)
    np.testing.assert_array_equal(outputs["prediction"], VALUES.argmax(axis=1))
    np.testing.assert_allclose(outputs["probability"], reference_scores(VALUES)["msp"], atol=1e-5)


@pytest.mark.parametrize("dtype", [np.float16, np.float64])
def test_scores_of_logits_of_another_floating_point_type_are_float32(dtype: type[np.floating]) -> None:
    logits = VALUES.astype(dtype)
    outputs = run(head_graph(HEAD, 5, 17), 17, logits)
    for name, expected in reference_scores(logits).items():
        assert outputs[name].dtype == np.float32
        np.testing.assert_allclose(outputs[name], expected, atol=1e-5, err_msg=name)


def test_all_names_but_those_of_input_and_outputs_have_a_prefix() -> None:
    graph = head_graph(HEAD, 5, 17)
    names = {name for node in graph.node for name in node.output}
    assert {name for name in names if not name.startswith("ood-scores/")} == set(HEAD.output_names)
    assert [value.name for value in graph.input] == [LOGITS]
    assert all(value.type.tensor_type.shape.dim[0].dim_param == "N" for value in graph.output)
    assert [value.type.tensor_type.elem_type for value in graph.output][-2:] == [TensorProto.INT64, TensorProto.FLOAT]


def test_the_reference_outputs_are_the_scores_in_float64() -> None:
    outputs = reference_outputs(HEAD, VALUES.astype(np.float32))
    assert list(outputs) == list(HEAD.output_names)
    for name, expected in reference_scores(VALUES.astype(np.float32)).items():
        assert outputs[name].dtype == np.float64
        np.testing.assert_allclose(outputs[name], expected, rtol=1e-9, err_msg=name)
