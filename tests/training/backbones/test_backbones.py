"""Backbones: features are those of the pretrained model, and recipes train, evaluate and export classifiers of them."""

from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
from onnx import TensorProto, helper, load, numpy_helper, save

from bundle import ImageInput, load_bundle
from tests.training.support.datasets_on_disk import checkers, stripes, tiny_recipe, write_tiny_data
from tests.training.support.evaluated_runs import evaluated_run
from tests.training.support.onnx_classifiers import MEAN, STD, Network, export
from training.architectures.linear_probe import LinearProbe
from training.backbones import join_head, load_backbone, open_backbone, save_backbone, with_features
from training.backbones.backbone import feature_session
from training.data import DataLocations, Examples, StoredArray
from training.errors import GraphError, RecipeError, RunError
from training.evaluation import Report
from training.export.graph_evidence import add_evidence
from training.export.onnx_graph import write_graph
from training.models.classifier import FeatureClassifier
from training.models.score_heads import ScoredClassifier
from training.recipe import load_recipe, parse_recipe
from training.run import Run
from training.steps import export_run

SPEC = ImageInput(height=16, width=16, channels=3, mean=MEAN, std=STD)
IMAGES = checkers(5, seed=0)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return export(Network(), tmp_path_factory.mktemp("backbone") / "network.onnx")


def expected_features() -> np.ndarray:
    network = Network().eval()
    pixels = (torch.tensor(IMAGES).permute(0, 3, 1, 2) / 255 - torch.tensor(MEAN).view(3, 1, 1)) / torch.tensor(
        STD
    ).view(3, 1, 1)
    with torch.inference_mode():
        return network.features(pixels).reshape(len(IMAGES), -1).numpy()


def test_the_features_of_a_classifier_are_the_input_of_its_last_linear_layer(model: Path) -> None:
    backbone = load_backbone(model, SPEC)
    assert backbone.size == 24
    np.testing.assert_allclose(feature_session(backbone)(IMAGES), expected_features(), atol=1e-4)


def test_a_saved_backbone_is_the_same_when_it_is_opened(model: Path, tmp_path: Path) -> None:
    backbone = load_backbone(model, SPEC)
    save_backbone(backbone, tmp_path / "saved.onnx")
    opened = open_backbone(tmp_path / "saved.onnx")
    assert (opened.size, opened.source, opened.sha256) == (backbone.size, backbone.source, backbone.sha256)
    np.testing.assert_array_equal(feature_session(opened)(IMAGES), feature_session(backbone)(IMAGES))


def write_extractor(path: Path, *, channels_last: bool) -> np.ndarray:
    """Write an extractor of features `[N, 5, 15, 15]` to `path`, and return the kernel of its convolution."""
    kernel = np.random.default_rng(0).normal(size=(5, 3, 2, 2)).astype(np.float32)
    shape = ["N", 16, 16, 3] if channels_last else ["N", 3, 16, 16]
    nodes = [helper.make_node("Transpose", ["x"], ["first"], perm=[0, 3, 1, 2])] if channels_last else []
    nodes.append(helper.make_node("Conv", ["first" if channels_last else "x", "kernel"], ["map"]))
    graph = helper.make_graph(
        nodes,
        "extractor",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("map", TensorProto.FLOAT, ["N", 5, 15, 15])],
        [numpy_helper.from_array(kernel, "kernel")],
    )
    save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8), path)
    return kernel


@pytest.mark.parametrize("channels_last", [False, True])
def test_features_at_positions_are_averaged_in_either_order_of_axes(tmp_path: Path, channels_last: bool) -> None:
    kernel = write_extractor(tmp_path / "map.onnx", channels_last=channels_last)
    backbone = load_backbone(tmp_path / "map.onnx", SPEC)
    pixels = (torch.tensor(IMAGES).permute(0, 3, 1, 2) / 255 - torch.tensor(MEAN).view(3, 1, 1)) / torch.tensor(
        STD
    ).view(3, 1, 1)
    expected = torch.nn.functional.conv2d(pixels.float(), torch.from_numpy(kernel)).mean(dim=(2, 3))
    np.testing.assert_allclose(feature_session(backbone)(IMAGES), expected, atol=1e-4)


@pytest.mark.parametrize(("hidden", "has_evidence"), [(0, True), (6, False)])
def test_a_linear_classifier_of_averaged_features_has_evidence_of_positions(
    tmp_path: Path, hidden: int, has_evidence: bool
) -> None:
    write_extractor(tmp_path / "map.onnx", channels_last=False)
    backbone = load_backbone(tmp_path / "map.onnx", SPEC)
    torch.manual_seed(0)
    probe = LinearProbe(3, 5, hidden)
    features = torch.from_numpy(feature_session(backbone)(IMAGES))
    probe.initialise(features)
    scored = ScoredClassifier(FeatureClassifier(probe), ("msp", "max_logit"))
    write_graph(scored, features.numpy()[:, None], tmp_path / "head.onnx")
    model = join_head(backbone, load(tmp_path / "head.onnx"))
    spec = add_evidence(model, {"images": IMAGES}, "fp32")
    assert (spec is not None) == has_evidence
    if spec is not None:
        session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
        evidence, largest, predicted = session.run([spec.output, "max_logit", "prediction"], {"images": IMAGES})
        assert evidence.shape == (5, 15, 15)
        sums = evidence.sum(axis=(1, 2)) + np.asarray(spec.bias)[predicted]
        np.testing.assert_allclose(sums, largest, rtol=1e-3, atol=1e-3)


def test_the_tensor_with_the_features_can_be_named(model: Path) -> None:
    logits = load(model).graph.output[0].name
    assert load_backbone(model, SPEC, features=logits).size == 3


def test_a_file_that_is_no_model_a_wrong_tensor_and_a_wrong_size_are_refused_by_name(
    model: Path, tmp_path: Path
) -> None:
    (tmp_path / "text.onnx").write_text("no model")
    with pytest.raises(GraphError, match=r"text\.onnx"):
        load_backbone(tmp_path / "text.onnx", SPEC)
    with pytest.raises(GraphError, match="has no tensor 'penultimate'"):
        load_backbone(model, SPEC, features="penultimate")
    with pytest.raises(GraphError, match="cannot compute features of images 9x9x3"):
        load_backbone(model, SPEC.model_copy(update={"height": 9, "width": 9}))


def test_a_model_with_two_inputs_is_refused(tmp_path: Path) -> None:
    inputs = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["N", 3, 16, 16]) for name in ("a", "b")]
    output = helper.make_tensor_value_info("c", TensorProto.FLOAT, ["N", 3, 16, 16])
    graph = helper.make_graph([helper.make_node("Add", ["a", "b"], ["c"])], "two", inputs, [output])
    save(helper.make_model(graph, ir_version=8), tmp_path / "two.onnx")
    with pytest.raises(GraphError, match=r"has 2 inputs \(a, b\)"):
        load_backbone(tmp_path / "two.onnx", SPEC)


def test_features_are_computed_once_and_then_read_from_the_cache(model: Path, tmp_path: Path) -> None:
    backbone = load_backbone(model, SPEC)
    examples = Examples(StoredArray(IMAGES), None, (), "images", "here", "ab" * 32)
    calls: list[tuple[int, int]] = []
    first = with_features(examples, backbone, tmp_path, lambda done, n: calls.append((done, n)))
    assert calls == [(5, 5)]
    again = with_features(examples, backbone, tmp_path, lambda done, n: calls.append((done, n)))
    assert len(calls) == 1
    rows = np.arange(5)
    assert first.x.shape == (5, 1, 24)
    np.testing.assert_array_equal(first.x[rows], again.x[rows])


def test_weights_in_another_file_that_change_change_the_cached_features(tmp_path: Path) -> None:
    examples = Examples(StoredArray(IMAGES), None, (), "images", "here", "ab" * 32)
    path, rows = tmp_path / "network.onnx", np.arange(5)
    for factor in (1, 2):
        write_extractor(path, channels_last=False)
        network = load(path)
        for tensor in network.graph.initializer:
            tensor.CopyFrom(numpy_helper.from_array(factor * numpy_helper.to_array(tensor), tensor.name))
        (tmp_path / "weights.bin").unlink(missing_ok=True)
        save(network, path, save_as_external_data=True, location="weights.bin", size_threshold=0)
        backbone = load_backbone(path, SPEC)
        cached = with_features(examples, backbone, tmp_path / "cache")
        np.testing.assert_allclose(cached.x[rows][:, 0], feature_session(backbone)(IMAGES), rtol=1e-5)


@pytest.fixture(scope="module")
def trained(model: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Run, DataLocations]:
    root = tmp_path_factory.mktemp("run")
    write_tiny_data(root / "data")
    (root / "data" / "network.onnx").write_bytes(model.read_bytes())
    schedule = {"epochs": 3, "batch_size": 16, "learning_rate": 0.01, "optimizer": "adam"}
    recipe = tiny_recipe(
        architecture={"name": "pretrained", "backbone": "network.onnx"},
        input={**SPEC.model_dump()},
        trainer={},
        stages={
            "baseline": {"objective": {"name": "cross_entropy"}, **schedule},
            "oe": {"objective": {"name": "outlier_exposure"}, "start_from": "baseline", **schedule},
        },
        export={
            "stage": "oe",
            "alpha": 0.05,
            "scores": ["msp", "mahalanobis", "knn", "combined"],
            "combine": ["knn", "msp"],
            "default_score": "knn",
        },
    )
    return evaluated_run(root, recipe)


def test_a_classifier_of_features_learns_and_its_features_detect_outliers_that_it_has_not_seen(
    trained: tuple[Run, DataLocations],
) -> None:
    run, _ = trained
    report = Report.from_json((run.report_path / "report.json").read_text())
    assert report.error["oe"] < 5
    assert report.find("checkers", "oe", "knn").auroc.mean > 99
    assert report.find("checkers", "baseline", "mahalanobis").auroc.mean > 99
    assert report.usability is not None
    assert (report.usability.sets, report.usability.verdict) == (("checkers",), "useful")


def test_the_bundle_takes_images_and_has_the_scores_of_features(
    trained: tuple[Run, DataLocations], tmp_path: Path
) -> None:
    run, locations = trained
    bundle = load_bundle(export_run(run, locations, tmp_path, overwrite=False))
    assert [score.name for score in bundle.manifest.scores] == ["msp", "mahalanobis", "knn", "combined"]
    session = onnxruntime.InferenceSession(bundle.model_path, providers=["CPUExecutionProvider"])
    assert [value.name for value in session.get_inputs()] == ["images"]
    threshold = bundle.calibrations["knn"].threshold(0.05)
    x, y = stripes(40, seed=8)
    distances, predicted = session.run(["knn", "prediction"], {"images": x})
    assert np.mean(predicted == y) > 0.95
    (foreign,) = session.run(["knn"], {"images": checkers(40, seed=8)})
    assert np.mean(foreign > threshold) > 0.9
    assert np.median(distances) < threshold
    assert bundle.manifest.neighbours is not None
    assert bundle.manifest.evidence is None
    (nearest,) = session.run(["neighbours"], {"images": x})
    labels = [bundle.references[row].label for row in nearest[:, 0]]
    assert np.mean([label == bundle.manifest.labels[k] for label, k in zip(labels, y, strict=True)]) > 0.9


def test_a_recipe_combines_two_scores_that_a_fifth_of_the_calibration_split_standardises(
    trained: tuple[Run, DataLocations], tmp_path: Path
) -> None:
    run, locations = trained
    report = Report.from_json((run.report_path / "report.json").read_text())
    assert report.find("checkers", "oe", "combined").auroc.mean > 99
    bundle = load_bundle(export_run(run, locations, tmp_path, overwrite=False))
    (combined,) = (score for score in bundle.manifest.scores if score.name == "combined")
    assert combined.combines == ("knn", "msp")
    held_out = run.recipe.in_distribution.calibration_size
    assert bundle.manifest.calibration.n == held_out - held_out // 5
    constants = np.load(run.combination_path("oe"))
    session = onnxruntime.InferenceSession(bundle.model_path, providers=["CPUExecutionProvider"])
    knn, msp, values = session.run(["knn", "msp", "combined"], {"images": stripes(30, seed=9)[0]})
    anomalies = np.stack([knn, 1 - msp], axis=1)
    expected = ((anomalies - constants["anomaly_means"]) / constants["anomaly_deviations"]).sum(axis=1)
    np.testing.assert_allclose(values, expected, atol=0.01)


@pytest.mark.parametrize(
    ("export", "message"),
    [
        ({"scores": ["msp", "combined"]}, "scores: 'combined' needs combine"),
        ({"scores": ["msp", "energy"], "combine": ["msp", "energy"]}, "the last of scores must be 'combined'"),
        ({"scores": ["msp", "gen", "combined"], "combine": ["msp", "energy"]}, "energy is not among scores"),
        ({"scores": ["msp", "gen", "combined"], "combine": ["msp", "msp"]}, "names one score twice"),
    ],
)
def test_a_combination_of_scores_that_cannot_be_computed_is_refused(export: dict[str, object], message: str) -> None:
    with pytest.raises(RecipeError, match=f"export: .*{message}"):
        parse_recipe(tiny_recipe(export={"stage": "oe", **export}), "recipe")


def test_a_lower_precision_of_a_backbone_is_refused(trained: tuple[Run, DataLocations], tmp_path: Path) -> None:
    run, locations = trained
    with pytest.raises(RunError, match="int8"):
        export_run(run, locations, tmp_path, precision="int8", overwrite=False)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"architecture": {"name": "pretrained"}}, "backbone"),
        ({"architecture": {"name": "pretrained", "backbone": "x.onnx", "hiden": 3}}, "hiden"),
        ({"architecture": {"name": "pretrained", "backbone": "x.onnx"}, "task": "density"}, "is for classification"),
    ],
)
def test_wrong_options_of_a_backbone_are_named(changes: dict[str, object], message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        parse_recipe(tiny_recipe(**changes), "recipe")


def test_the_shipped_recipe_tests_kinds_of_objects_that_it_does_not_train_on() -> None:
    recipe = load_recipe(Path("training/recipes/flowers-efficientnet.yaml"))
    assert recipe.outliers is not None
    trained_on, tested = (
        config.exclude_labels for config in (recipe.outliers.train, recipe.evaluation.ood["unseen-kinds"])
    )
    assert set(trained_on).isdisjoint(tested)
