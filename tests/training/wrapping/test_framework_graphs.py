"""Graphs in the forms that frameworks export are wrapped without options, with the scores of their own logits."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from PIL import Image
from typer.testing import CliRunner

from bundle import Bundle, load_bundle
from tests.training.support.datasets_on_disk import stripes
from tests.training.support.framework_graphs import CONV, GEMM, KINDS, GraphKind, logits_of, softmax, write_kind
from tests.training.support.reference_scores import reference_scores
from training.commands.app import app
from training.data import StoredArray
from training.errors import TrainingError
from training.export.onnx_graph import run_graph

IMAGES = stripes(12, seed=5)[0]
PROBABILITY_SCORES = {"msp", "entropy", "kl_uniform", "gen"}

Wrap = Callable[..., tuple[Bundle, str]]


@pytest.fixture(scope="module")
def calibration(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("held-out")
    for i, pixels in enumerate(stripes(24, seed=6)[0]):
        Image.fromarray(pixels).save(folder / f"{i}.png")
    return folder


@pytest.fixture
def wrap(tmp_path: Path, calibration: Path, monkeypatch: pytest.MonkeyPatch) -> Wrap:
    """`wrap(model, *options)` -> the bundle and the output; errors are raised."""
    monkeypatch.setenv("OOD_CACHE", str(tmp_path / "cache"))

    def run(model: Path, *arguments: str, data: Path = calibration) -> tuple[Bundle, str]:
        options = ["--calibration", str(data), "--models", str(tmp_path / "models"), "--name", "foreign"]
        result = CliRunner().invoke(app, ["wrap", str(model), *options, *arguments])
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception
        assert result.exit_code == 0, result.output
        return load_bundle(tmp_path / "models" / "foreign" / "1"), " ".join(result.output.split())

    return run


def outputs_of(bundle: Bundle, images: NDArray[np.uint8], batch_size: int) -> dict[str, NDArray[np.generic]]:
    names = [score.output for score in bundle.manifest.scores] + ["prediction", "probability"]
    return run_graph(bundle.model_path, StoredArray(images), batch_size=batch_size, outputs=names)


def assert_scores(bundle: Bundle, logits: NDArray[np.floating], tolerance: float = 2e-4) -> None:
    expected = reference_scores(logits)
    for batch_size in (1, 5, 12):
        outputs = outputs_of(bundle, IMAGES, batch_size)
        for score in bundle.manifest.scores:
            np.testing.assert_allclose(outputs[score.name], expected[score.name], atol=tolerance, err_msg=score.name)
        np.testing.assert_array_equal(outputs["prediction"], logits.argmax(axis=1))


@pytest.mark.parametrize("name", KINDS)
def test_a_graph_of_any_kind_is_wrapped_without_options(name: str, tmp_path: Path, wrap: Wrap) -> None:
    kind = KINDS[name]
    write_kind(kind, tmp_path / "model.onnx")
    # A size is no property of these graphs.
    size = ["--size", "16x16"] if kind.batch is None or not kind.spatial else []
    bundle, output = wrap(tmp_path / "model.onnx", *size)
    tolerance = 0.05 if kind.elem_type in (TensorProto.FLOAT16,) else 2e-4
    assert_scores(bundle, logits_of(kind, IMAGES), tolerance)
    assert len(bundle.manifest.scores) == 6
    assert "logits: '" in output


def single(head: list, outputs: list[str]) -> GraphKind:
    return GraphKind([*GEMM, *head], outputs, classes=1)


@pytest.mark.parametrize(
    "kind",
    [
        single([], ["logits"]),
        single([("Sigmoid", ["logits"], "probability", {})], ["probability"]),
        single([("Sigmoid", ["logits"], "p", {}), ("Squeeze", ["p", "axis"], "probability", {})], ["probability"]),
        GraphKind([*CONV], ["logits"], classes=1),
    ],
    ids=["logit", "sigmoid", "scalar", "four-axes"],
)
def test_one_logit_becomes_two_classes(kind: GraphKind, tmp_path: Path, wrap: Wrap) -> None:
    kind = replace(kind, constants={"axis": np.array([1], dtype=np.int64)})
    write_kind(kind, tmp_path / "model.onnx")
    bundle, output = wrap(tmp_path / "model.onnx", "--labels", "no,yes")
    logit = logits_of(kind, IMAGES)
    assert_scores(bundle, np.concatenate([-logit / 2, logit / 2], axis=1))
    outputs = outputs_of(bundle, IMAGES, 12)
    sigmoid = 1 / (1 + np.exp(-logit[:, 0]))
    np.testing.assert_allclose(outputs["msp"], np.maximum(sigmoid, 1 - sigmoid), atol=1e-4)
    assert "two classes of one value" in output
    assert bundle.manifest.labels == ["no", "yes"]


def test_logits_with_a_row_axis_are_flattened(tmp_path: Path, wrap: Wrap) -> None:
    kind = GraphKind(
        [*GEMM, ("Unsqueeze", ["logits", "one"], "row", {})], ["row"], constants={"one": np.array([1], dtype=np.int64)}
    )
    write_kind(kind, tmp_path / "model.onnx")
    assert_scores(wrap(tmp_path / "model.onnx")[0], logits_of(kind, IMAGES))


def test_probabilities_without_logits_give_the_scores_that_they_allow(tmp_path: Path, wrap: Wrap) -> None:
    # L1 normalisation of powers: probabilities, but no operator that can be followed.
    kind = GraphKind(
        [*GEMM, ("Exp", ["logits"], "powers", {}), ("LpNormalization", ["powers"], "scores", {"axis": 1, "p": 1})],
        ["scores"],
    )
    write_kind(kind, tmp_path / "model.onnx")
    bundle, output = wrap(tmp_path / "model.onnx")
    assert {score.name for score in bundle.manifest.scores} == PROBABILITY_SCORES
    assert_scores(bundle, logits_of(kind, IMAGES))
    assert "probabilities: 'scores'" in output


def test_the_option_logits_overrides_the_search(tmp_path: Path, wrap: Wrap) -> None:
    kind = KINDS["keras"]
    write_kind(kind, tmp_path / "model.onnx")
    bundle, output = wrap(tmp_path / "model.onnx", "--logits", "probabilities")
    assert {score.name for score in bundle.manifest.scores} == PROBABILITY_SCORES
    assert_scores(bundle, logits_of(kind, IMAGES))
    assert "--logits logits gives all scores" in output


LOGIT_SCALE = 0.1
QUANTISED_CONSTANTS = {
    "ls": np.array(LOGIT_SCALE, dtype=np.float32),
    "lz": np.array(128, dtype=np.uint8),
    "ps": np.array(1 / 256, dtype=np.float32),
    "pz": np.array(0, dtype=np.uint8),
}
QUANTISED_LOGITS = ("QuantizeLinear", ["logits", "ls", "lz"], "q", {})
PROBABILITIES = ("DequantizeLinear", ["p", "ps", "pz"], "probabilities", {})


def quantised_normaliser(operator: str, source: str = "q", **attributes: object) -> tuple:
    return operator, [source, "ls", "lz", "ps", "pz"], "p", {"domain": "com.microsoft", **attributes}


def quantised(*head: tuple, classes: int = 4) -> GraphKind:
    return GraphKind([*GEMM, *head], ["probabilities"], classes=classes, constants=QUANTISED_CONSTANTS)


QUANTISED_SOFTMAX = quantised(
    QUANTISED_LOGITS, quantised_normaliser("QLinearSoftmax", axis=-1, opset=13), PROBABILITIES
)
QUANTISED_SIGMOID = quantised(QUANTISED_LOGITS, quantised_normaliser("QLinearSigmoid"), PROBABILITIES, classes=1)
SOFTMAX_OF_INTEGERS = quantised(
    QUANTISED_LOGITS,
    ("Identity", ["q"], "same", {}),
    quantised_normaliser("QLinearSoftmax", "same", axis=-1, opset=13),
    PROBABILITIES,
)
SOFTMAX_BETWEEN_ROUNDINGS = quantised(
    QUANTISED_LOGITS,
    ("DequantizeLinear", ["q", "ls", "lz"], "rounded", {}),
    *softmax("rounded", "exact", axis=-1),
    ("QuantizeLinear", ["exact", "ps", "pz"], "p", {}),
    PROBABILITIES,
)


@pytest.mark.parametrize(
    ("kind", "rounded"),
    [
        (QUANTISED_SOFTMAX, False),
        (QUANTISED_SIGMOID, False),
        (SOFTMAX_OF_INTEGERS, True),
        (SOFTMAX_BETWEEN_ROUNDINGS, True),
    ],
    ids=["softmax", "sigmoid", "softmax-of-integers", "softmax-between-roundings"],
)
def test_a_quantised_softmax_has_logits_behind_it(kind: GraphKind, rounded: bool, tmp_path: Path, wrap: Wrap) -> None:
    write_kind(kind, tmp_path / "model.onnx")
    bundle, output = wrap(tmp_path / "model.onnx")
    logits = logits_of(kind, IMAGES)
    if rounded:
        logits = LOGIT_SCALE * np.clip(np.round(logits / LOGIT_SCALE), -128, 127)
    assert_scores(bundle, logits if kind.classes > 1 else np.concatenate([-logits / 2, logits / 2], axis=1))
    assert len(bundle.manifest.scores) == 6
    assert "logits: '" in output


@pytest.mark.parametrize("kind", [QUANTISED_SOFTMAX, SOFTMAX_BETWEEN_ROUNDINGS], ids=["operator", "roundings"])
def test_quantised_probabilities_whose_sum_is_not_one_are_no_logits(
    kind: GraphKind, tmp_path: Path, wrap: Wrap
) -> None:
    # Many classes, most of whose probabilities round to nothing.
    kind = replace(kind, classes=200)
    write_kind(kind, tmp_path / "model.onnx")
    bundle, output = wrap(tmp_path / "model.onnx", "--logits", "probabilities")
    assert "probabilities: 'probabilities'" in output
    assert {score.name for score in bundle.manifest.scores} == PROBABILITY_SCORES


def test_a_tree_ensemble_with_a_zip_map_over_rows_of_pixels_is_wrapped(tmp_path: Path, wrap: Wrap) -> None:
    """The form of scikit-learn's classifiers: rows of numbers, a label, and probabilities as a map."""
    tree = {
        "nodes_treeids": [0, 0, 0],
        "nodes_nodeids": [0, 1, 2],
        "nodes_featureids": [0, 0, 0],
        "nodes_values": [0.5, 0.0, 0.0],
        "nodes_modes": ["BRANCH_LEQ", "LEAF", "LEAF"],
        "nodes_truenodeids": [1, 0, 0],
        "nodes_falsenodeids": [2, 0, 0],
        "nodes_missing_value_tracks_true": [0, 0, 0],
        "class_treeids": [0] * 4,
        "class_nodeids": [1, 1, 2, 2],
        "class_ids": [0, 1, 0, 1],
        "class_weights": [0.9, 0.1, 0.25, 0.75],
        "classlabels_int64s": [0, 1],
        "post_transform": "NONE",
    }
    nodes = [
        helper.make_node("TreeEnsembleClassifier", ["X"], ["label", "p"], domain="ai.onnx.ml", **tree),
        helper.make_node("ZipMap", ["p"], ["output_probability"], domain="ai.onnx.ml", classlabels_int64s=[0, 1]),
    ]
    graph = helper.make_graph(
        nodes,
        "forest",
        [helper.make_tensor_value_info("X", TensorProto.FLOAT, [None, 16 * 16 * 3])],
        [
            helper.make_tensor_value_info("label", TensorProto.INT64, [None]),
            onnx.ValueInfoProto(name="output_probability"),
        ],
    )
    key_value = helper.make_map_type_proto(TensorProto.INT64, helper.make_tensor_type_proto(TensorProto.FLOAT, None))
    graph.output[1].type.CopyFrom(helper.make_sequence_type_proto(key_value))
    opsets = [helper.make_opsetid("", 15), helper.make_opsetid("ai.onnx.ml", 1)]
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=8), tmp_path / "forest.onnx")
    bundle, output = wrap(tmp_path / "forest.onnx")
    probabilities = np.where(IMAGES[:, 0, 0, :1] / 255 <= 0.5, [[0.9, 0.1]], [[0.25, 0.75]])
    assert_scores(bundle, np.log(probabilities))
    assert {score.name for score in bundle.manifest.scores} == PROBABILITY_SCORES
    assert "layout: flat, 16x16x3" in output
    assert [tensor.name for tensor in bundle.manifest.model_outputs] == ["model.label", "output_probability"]


def test_a_graph_whose_batch_cannot_be_freed_computes_one_input_at_a_time(tmp_path: Path, wrap: Wrap) -> None:
    # The transposition and reshape of a fixed batch of 1 mixes the inputs of a larger one.
    head = [
        ("Reshape", ["pooled", "column"], "column-of-features", {}),
        ("MatMul", ["w", "column-of-features"], "product", {}),
        ("Reshape", ["product", "row"], "logits", {}),
    ]
    kind = GraphKind(
        head,
        ["logits"],
        batch=1,
        constants={"column": np.array([5, 1], dtype=np.int64), "row": np.array([1, 4], dtype=np.int64)},
    )
    write_kind(kind, tmp_path / "model.onnx")
    bundle, _ = wrap(tmp_path / "model.onnx")
    plain = GraphKind([*GEMM], ["logits"])
    bias = logits_of(plain, np.zeros_like(IMAGES[:1]))
    assert_scores(bundle, logits_of(plain, IMAGES) - bias)
    assert "Loop" in {node.op_type for node in onnx.load(bundle.model_path).graph.node}


@pytest.mark.parametrize("times", [1, 2])
def test_the_models_own_outputs_stay_and_a_wrapped_graph_can_be_wrapped_again(
    times: int, tmp_path: Path, wrap: Wrap
) -> None:
    kind = GraphKind([*GEMM, *softmax(name="msp")], ["msp", "flat"])
    model = tmp_path / "model.onnx"
    write_kind(kind, model)
    original = onnxruntime.InferenceSession(model.read_bytes(), providers=["CPUExecutionProvider"])
    data = np.ascontiguousarray((IMAGES / 255).astype(np.float32).transpose(0, 3, 1, 2))
    expected = dict(zip(["model.msp", "flat"], original.run(["msp", "flat"], {"data": data}), strict=True))
    for _ in range(times):
        bundle, _ = wrap(model, "--overwrite")
        model = bundle.model_path
    assert_scores(bundle, logits_of(kind, IMAGES))
    session = onnxruntime.InferenceSession(bundle.model_path, providers=["CPUExecutionProvider"])
    tensors = {tensor.name: tensor for tensor in bundle.manifest.model_outputs}
    if times == 1:
        assert set(tensors) == set(expected)
        for name, values in expected.items():
            (found,) = session.run([tensors[name].output], {"images": IMAGES})
            np.testing.assert_allclose(found, values, atol=1e-5)
            assert tensors[name].shape == values.shape[1:]
    else:
        assert set(tensors) >= {"model.msp", "model.energy", "flat"}
        assert len({tensor.output for tensor in tensors.values()}) == len(tensors)


def test_external_weights_beside_an_old_graph_are_part_of_the_bundle(tmp_path: Path, wrap: Wrap) -> None:
    kind = KINDS["resnet-opset-7"]
    write_kind(kind, tmp_path / "inside.onnx")
    graph = onnx.load(tmp_path / "inside.onnx")
    onnx.save(graph, tmp_path / "model.onnx", save_as_external_data=True, location="model.onnx_data", size_threshold=0)
    assert_scores(wrap(tmp_path / "model.onnx")[0], logits_of(kind, IMAGES))


def detector(path: Path) -> None:
    boxes = helper.make_node("NonMaxSuppression", ["boxes", "scores"], ["selected"])
    graph = helper.make_graph(
        [boxes],
        "detector",
        [
            helper.make_tensor_value_info("boxes", TensorProto.FLOAT, [1, 5, 4]),
            helper.make_tensor_value_info("scores", TensorProto.FLOAT, [1, 3, 5]),
        ],
        [helper.make_tensor_value_info("selected", TensorProto.INT64, [None, 3])],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8), path)


def refused(head: list, outputs: list[str], **changes: object) -> GraphKind:
    constants = {name: np.array(value) for name, value in {"half": np.float32(0.5), "training": True}.items()}
    return replace(GraphKind(head, outputs, constants=constants), **changes)


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        (refused([("Identity", ["active"], "mask", {})], ["mask"]), r"'mask': has values of shape \[5, 4, 4\]"),
        (refused([*CONV, ("Shape", ["logits"], "sizes", {})], ["sizes"]), "'sizes': holds int64"),
        (
            refused([*GEMM, ("Dropout", ["logits", "half", "training"], "kept", {})], ["kept"]),
            "computes 'kept': is Dropout in training mode",
        ),
        (refused([*GEMM, ("RandomNormalLike", ["logits"], "noise", {})], ["noise"]), "'noise': is RandomNormalLike"),
    ],
    ids=["segmentation", "integers", "training", "random"],
)
def test_a_graph_that_is_no_classifier_is_refused_by_the_name_of_its_tensor(
    kind: GraphKind, message: str, tmp_path: Path, wrap: Wrap
) -> None:
    write_kind(kind, tmp_path / "model.onnx")
    with pytest.raises(TrainingError, match=message):
        wrap(tmp_path / "model.onnx")
    # Nothing was read or written before.
    assert not (tmp_path / "cache").exists()
    assert not (tmp_path / "models").exists()


def test_detectors_custom_operators_and_second_inputs_are_refused_by_name(tmp_path: Path, wrap: Wrap) -> None:
    detector(tmp_path / "detector.onnx")
    with pytest.raises(TrainingError, match="'selected': is NonMaxSuppression, an operator of object detectors"):
        wrap(tmp_path / "detector.onnx")
    write_kind(KINDS["keras"], tmp_path / "plain.onnx")
    graph = onnx.load(tmp_path / "plain.onnx")
    graph.graph.node[-1].domain = "my.operators"
    onnx.save(graph, tmp_path / "custom.onnx")
    with pytest.raises(TrainingError, match=r"'probabilities': is the custom operator my\.operators\.Softmax"):
        wrap(tmp_path / "custom.onnx")
    graph = onnx.load(tmp_path / "plain.onnx")
    graph.graph.node.insert(len(graph.graph.node) - 1, helper.make_node("Add", ["logits", "age"], ["shifted"]))
    graph.graph.node[-1].input[0] = "shifted"
    graph.graph.input.append(helper.make_tensor_value_info("age", TensorProto.FLOAT, [None, 1]))
    onnx.save(graph, tmp_path / "two.onnx")
    with pytest.raises(TrainingError, match=r"2 inputs \(data, age\)"):
        wrap(tmp_path / "two.onnx")


def test_an_input_that_only_other_outputs_need_is_no_obstacle(tmp_path: Path, wrap: Wrap) -> None:
    write_kind(KINDS["keras"], tmp_path / "plain.onnx")
    graph = onnx.load(tmp_path / "plain.onnx")
    graph.graph.node.append(helper.make_node("Mul", ["pooled", "factor"], ["scaled"]))
    graph.graph.input.append(helper.make_tensor_value_info("factor", TensorProto.FLOAT, [1]))
    graph.graph.output.append(helper.make_tensor_value_info("scaled", TensorProto.FLOAT, None))
    onnx.save(graph, tmp_path / "model.onnx")
    bundle, _ = wrap(tmp_path / "model.onnx")
    assert_scores(bundle, logits_of(KINDS["keras"], IMAGES))
    assert [tensor.name for tensor in bundle.manifest.model_outputs] == ["probabilities"]


def test_an_old_opset_of_a_constant_weight_node_is_followed(tmp_path: Path, wrap: Wrap) -> None:
    """Weights in Constant nodes, as old exporters of torch write them."""
    write_kind(KINDS["keras"], tmp_path / "plain.onnx")
    graph = onnx.load(tmp_path / "plain.onnx")
    nodes = [helper.make_node("Constant", [], [t.name], value=t) for t in graph.graph.initializer]
    for node in reversed(nodes):
        graph.graph.node.insert(0, node)
    del graph.graph.initializer[:]
    onnx.save(graph, tmp_path / "model.onnx")
    assert_scores(wrap(tmp_path / "model.onnx")[0], logits_of(KINDS["keras"], IMAGES))
    assert numpy_helper.to_array(nodes[0].attribute[0].t).size
