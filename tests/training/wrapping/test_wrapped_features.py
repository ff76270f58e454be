"""Scores of a wrapped classifier's features, and of two scores combined: in the graph, and without calibration data."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from onnx import helper
from PIL import Image
from typer.testing import CliRunner

from bundle import FEATURE_SCORES, LOGIT_SCORES, SCORES, Bundle, Calibration, load_bundle
from tests.service.conftest import running_service
from tests.training.support.datasets_on_disk import checkers, stripes, write_parquet
from tests.training.support.feature_classifiers import CHANNELS, HEADS, features_of, logits_of, write_classifier
from tests.training.support.onnx_classifiers import write_bytes_classifier
from tests.training.support.reference_scores import reference_feature_scores, reference_scores
from training.commands.app import app
from training.data import StoredArray
from training.errors import TrainingError
from training.evaluation import Report
from training.export.onnx_graph import run_graph
from training.models.combination import fit_combination
from training.models.feature_statistics import fit_statistics
from training.models.score_heads import ClassifierHead
from training.wrapping.score_head import FEATURES, LOGITS, head_graph, reference_outputs

COLOURS = ("blue", "green", "red")
IMAGES = np.concatenate([stripes(12, seed=9)[0], checkers(12, seed=9)])


def coloured(n: int, seed: int) -> NDArray[np.uint8]:
    """Images `[3 n, 16, 16, 3]`: n of each colour, in the order of `COLOURS`."""
    pixels = np.random.default_rng(seed).integers(0, 60, (3, n, 16, 16, 3)).astype(np.uint8)
    for i in range(3):
        pixels[i, ..., 2 - i] += 120
    return pixels.reshape(3 * n, 16, 16, 3)


def write_images(folder: Path, images: NDArray[np.uint8]) -> Path:
    n = len(images) // len(COLOURS)
    for i, image in enumerate(images):
        (folder / COLOURS[i // n]).mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(folder / COLOURS[i // n] / f"{i}.png")
    return folder


TRAIN, TARGETS = coloured(30, seed=1), np.repeat(np.arange(3), 30)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("data")
    write_images(root / "train", TRAIN)
    write_images(root / "calibration", coloured(40, seed=2))
    write_images(root / "test", coloured(20, seed=3))
    write_parquet(root / "ood.parquet", checkers(30, seed=2))
    write_parquet(root / "unlabelled.parquet", checkers(30, seed=2))
    return root


Wrap = Callable[..., tuple[Bundle, str]]


@pytest.fixture
def wrap(tmp_path: Path, data: Path, monkeypatch: pytest.MonkeyPatch) -> Wrap:
    """`wrap(model, "--fit", path)` -> the bundle and the output as one line; errors are raised."""
    monkeypatch.setenv("OOD_CACHE", str(tmp_path / "cache"))

    def run(model: Path, *arguments: str) -> tuple[Bundle, str]:
        options = ["--calibration", str(data / "calibration"), "--models", str(tmp_path / "models"), "--name", "own"]
        result = CliRunner().invoke(app, ["wrap", str(model), *options, "--overwrite", *arguments])
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception
        assert result.exit_code == 0, result.output
        return load_bundle(tmp_path / "models" / "own" / "1"), " ".join(result.output.split())

    return run


def assert_scores(bundle: Bundle, train: NDArray[np.uint8] = TRAIN, targets: NDArray[np.int64] = TARGETS) -> None:
    """The bundle's graph scores `IMAGES` as SciPy and scikit-learn do NumPy's features and logits, in any batch."""
    expected = reference_feature_scores(features_of(train), targets, features_of(IMAGES))
    expected |= reference_scores(logits_of(IMAGES))
    for batch_size in (1, 7):
        outputs = run_graph(bundle.model_path, StoredArray(IMAGES), batch_size=batch_size)
        for name, values in expected.items():
            np.testing.assert_allclose(outputs[name], values, rtol=2e-3, atol=1e-4, err_msg=name)


@pytest.mark.parametrize("head", HEADS)
def test_features_are_found_behind_every_kind_of_last_linear_layer(
    head: str, tmp_path: Path, data: Path, wrap: Wrap
) -> None:
    tensor, operator = HEADS[head]
    bundle, output = wrap(write_classifier(tmp_path / "net.onnx", head), "--fit", str(data / "train"))
    assert f"features: '{tensor}', the input of the last {operator}, {CHANNELS} for each input" in output
    assert_scores(bundle)
    manifest = bundle.manifest
    assert [score.name for score in manifest.scores] == [*LOGIT_SCORES, *FEATURE_SCORES]
    assert manifest.default_score == "msp"
    assert manifest.parity is not None
    assert set(FEATURE_SCORES) <= set(manifest.parity.max_difference)
    assert manifest.sample is not None
    assert set(FEATURE_SCORES) <= set(manifest.sample.scores)
    assert "90 examples of train" in manifest.description


@pytest.mark.parametrize("head", HEADS)
def test_a_wrapped_classifier_with_pooling_explains_its_class_over_http(
    head: str, tmp_path: Path, data: Path, wrap: Wrap
) -> None:
    wrap(write_classifier(tmp_path / "net.onnx", head), "--fit", str(data / "train"))
    sample = next((data / "train").rglob("*.png")).read_bytes()
    params = {"explain": "true", "scores": "max_logit"}
    with running_service(tmp_path / "models") as live:
        (result,) = live.score(sample, model="own", params=params).json()["results"]
    explanation = result["explanation"]
    assert np.shape(explanation["values"]) == (4, 4)
    assert explanation["logit"] == pytest.approx(result["scores"]["max_logit"]["value"], rel=1e-4)
    assert len(result["neighbours"]) == 3


def test_the_bundle_names_the_nearest_training_examples(tmp_path: Path, data: Path, wrap: Wrap) -> None:
    bundle, _ = wrap(write_classifier(tmp_path / "net.onnx"), "--fit", str(data / "train"))
    spec = bundle.manifest.neighbours
    assert spec is not None
    sources = [reference.source for reference in bundle.references]
    assert all((data / "train" / source).is_file() for source in sources)
    assert all(reference.label == reference.source.split("/")[0] for reference in bundle.references)
    read = np.stack([np.asarray(Image.open(data / "train" / source).convert("RGB")) for source in sources])
    features, references = (unit(features_of(images)) for images in (IMAGES, read))
    expected = np.sort(((features[:, None] - references) ** 2).sum(axis=2), axis=1)[:, :3]
    outputs = run_graph(bundle.model_path, StoredArray(IMAGES), outputs=[spec.output, spec.distances])
    np.testing.assert_allclose(outputs[spec.distances], expected, atol=1e-4)
    named = references[outputs[spec.output].astype(int)]
    np.testing.assert_allclose(((features[:, None] - named) ** 2).sum(axis=2), expected, atol=1e-4)


def unit(features: NDArray[np.floating]) -> NDArray[np.floating]:
    return features / np.linalg.norm(features, axis=1, keepdims=True)


def test_training_examples_are_not_named_if_that_is_not_wanted(tmp_path: Path, data: Path, wrap: Wrap) -> None:
    bundle, _ = wrap(write_classifier(tmp_path / "net.onnx"), "--fit", str(data / "train"), "--no-neighbours")
    assert (bundle.manifest.neighbours, bundle.references) == (None, ())
    assert not (bundle.path / "references.json").exists()


@pytest.mark.parametrize("tensor", ["maps", "average", "pooled"])
def test_a_named_tensor_is_averaged_over_positions_and_flattened(
    tensor: str, tmp_path: Path, data: Path, wrap: Wrap
) -> None:
    bundle, output = wrap(write_classifier(tmp_path / "net.onnx"), "--fit", str(data / "train"), "--features", tensor)
    assert f"features: '{tensor}', {CHANNELS} for each input" in output
    assert_scores(bundle)


def test_features_of_a_graph_with_a_fixed_batch_are_those_of_each_image(tmp_path: Path, data: Path, wrap: Wrap) -> None:
    bundle, _ = wrap(write_classifier(tmp_path / "net.onnx", "conv", batch=4), "--fit", str(data / "train"))
    assert_scores(bundle)


def test_probabilities_as_logits_still_have_the_features_behind_them(tmp_path: Path, data: Path, wrap: Wrap) -> None:
    bundle, _ = wrap(write_classifier(tmp_path / "net.onnx"), "--fit", str(data / "train"), "--logits", "probabilities")
    outputs = run_graph(bundle.model_path, StoredArray(IMAGES))
    for name, values in reference_feature_scores(features_of(TRAIN), TARGETS, features_of(IMAGES)).items():
        np.testing.assert_allclose(outputs[name], values, rtol=2e-3, atol=1e-4, err_msg=name)


def test_training_examples_that_copy_calibration_or_test_examples_are_left_out(
    tmp_path: Path, data: Path, wrap: Wrap
) -> None:
    own, copies = coloured(20, seed=5), np.concatenate([coloured(40, seed=2)[[0, 50, 100]], coloured(20, seed=3)[[1]]])
    write_images(tmp_path / "train", own)
    for i, image in enumerate(copies):
        # A mirror image is nearly a copy.
        Image.fromarray(image[:, ::-1]).save(tmp_path / "train" / "red" / f"copy-{i}.png")
    bundle, output = wrap(
        write_classifier(tmp_path / "net.onnx"), "--fit", str(tmp_path / "train"), "--test", str(data / "test")
    )
    assert "4 examples are (nearly) copies of calibration or test examples and are left out" in output
    assert_scores(bundle, own, np.repeat(np.arange(3), 20))


def test_without_training_data_there_are_no_scores_of_features_and_the_command_says_so(
    tmp_path: Path, wrap: Wrap
) -> None:
    bundle, output = wrap(write_classifier(tmp_path / "net.onnx"))
    assert "scores of features: none, because mahalanobis and knn need labelled training data: --fit" in output
    assert [score.name for score in bundle.manifest.scores] == list(LOGIT_SCORES)


def test_validation_outliers_choose_the_default_score_and_are_no_test_set(
    tmp_path: Path, data: Path, wrap: Wrap
) -> None:
    sets = ["--test", str(data / "test"), "--validation", f"checkers={data / 'ood.parquet'}"]
    model = write_classifier(tmp_path / "net.onnx")
    bundle, output = wrap(model, "--fit", str(data / "train"), *sets)
    report = Report.from_json((bundle.path / "report" / "report.json").read_text())
    aurocs = {row.score: row.auroc.mean for row in report.results if row.set == "checkers"}
    assert list(report.validation) == ["checkers"]
    assert bundle.manifest.default_score == report.default_score == max(SCORES, key=lambda name: aurocs.get(name, 0))
    assert bundle.manifest.default_score_reason is not None
    assert "mean AUROC on the validation sets (checkers)" in bundle.manifest.default_score_reason
    assert f"default score: {report.default_score} (mean AUROC" in output
    chosen, _ = wrap(model, "--fit", str(data / "train"), *sets, "--default-score", "gen")
    assert chosen.manifest.default_score == "gen"


def test_the_service_scores_features_and_the_combined_score(tmp_path: Path, data: Path, wrap: Wrap) -> None:
    arguments = ["--fit", str(data / "train"), "--combine", "knn+msp", "--default-score", "combined"]
    bundle, _ = wrap(write_classifier(tmp_path / "net.onnx"), *arguments)
    sample = (bundle.path / "sample.png").read_bytes()
    with running_service(tmp_path / "models") as live:
        result = live.score(sample, model="own", params={"scores": "all"}).json()["results"][0]
    expected = bundle.manifest.sample
    assert expected is not None
    for name in (*FEATURE_SCORES, "combined"):
        assert result["scores"][name]["value"] == pytest.approx(expected.scores[name], rel=1e-3, abs=1e-4)
        assert 0 < result["scores"][name]["p_value"] <= 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--fit", "{data}/train", "--features", "absent"], "--features: the graph has no tensor 'absent'"),
        (["--fit", "{data}/train", "--features", "row"], "'row': depends on no input of the graph"),
        (["--fit", "{data}/train", "--features", "tied"], "its features for an input change with the batch"),
        (["--fit", "{data}/train", "--logits", "bounded"], "'bounded': is computed by Tanh without a linear layer"),
        (["--features", "pooled"], "--features: has no training data.*--fit"),
        (["--fit", "{data}/unlabelled.parquet"], "has no labels.*--label-column"),
        (["--fit", "{data}/calibration"], "every example is .nearly. a copy of a calibration or test example"),
        (["--fit", "{data}/train/red"], "has no labels|has 1 class"),
        (["--default-score", "knn"], "--default-score: knn needs labelled training data.*--fit"),
        (["--combine", "knn+msp"], "--combine: knn needs labelled training data.*--fit"),
        (["--combine", "msp"], "--combine: names 1 different scores"),
        (["--combine", "msp+bpp"], "--combine: 'bpp' is unknown"),
        (["--default-score", "combined"], "--default-score: 'combined' is unknown"),
        (["--combine", "msp+energy", "--logits", "probabilities"], "--combine: energy cannot be computed from prob"),
        (["--validation", "a={data}/ood.parquet"], "--validation: needs in-distribution inputs.*--test"),
    ],
)
def test_what_has_no_features_or_no_training_data_is_refused_by_name(
    arguments: list[str], message: str, tmp_path: Path, data: Path, wrap: Wrap
) -> None:
    with pytest.raises(TrainingError, match=message):
        wrap(write_classifier(tmp_path / "net.onnx"), *(argument.format(data=data) for argument in arguments))
    assert not list((tmp_path / "models").rglob("manifest.json"))


def test_a_classifier_without_a_linear_layer_is_refused_before_its_data_are_read(tmp_path: Path, wrap: Wrap) -> None:
    model, broken = write_bytes_classifier(tmp_path / "bytes.onnx"), tmp_path / "broken"
    (broken / "red").mkdir(parents=True)
    (broken / "red" / "1.png").write_text("no image")
    with pytest.raises(TrainingError, match="'scores': is computed by Mul without a linear layer"):
        wrap(model, "--logits", "scores", "--fit", str(broken))


@pytest.mark.parametrize("opset", [7, 10, 11, 13, 18, 21])
def test_the_graph_of_the_head_computes_features_and_combined_scores_in_any_opset(opset: int) -> None:
    generator = np.random.default_rng(0)
    train, features = (generator.normal(1, 1, (n, 6)).astype(np.float32) for n in (60, 9))
    logits = generator.normal(0, 3, (9, 3)).astype(np.float32)
    statistics = fit_statistics(FEATURE_SCORES, train, np.arange(60) % 3)
    combination = fit_combination({"knn": generator.normal(size=30), "msp": generator.normal(size=30)})
    scores = ("msp", *FEATURE_SCORES, "combined")
    head = ClassifierHead(scores, statistics=statistics, combination=combination, neighbours=True)
    model = helper.make_model(head_graph(head, 3, opset), opset_imports=[helper.make_opsetid("", opset)], ir_version=8)
    for value in model.graph.input:
        value.type.tensor_type.elem_type = 1
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    outputs = session.run(list(head.output_names), {LOGITS: logits, FEATURES: features})
    for name, values in zip(head.output_names, outputs, strict=True):
        expected = reference_outputs(head, logits, features)[name]
        np.testing.assert_allclose(values, expected, rtol=1e-4, atol=1e-5, err_msg=name)


def test_the_combined_score_is_the_sum_of_anomalies_standardised_without_calibration_examples(
    tmp_path: Path, data: Path, wrap: Wrap
) -> None:
    bundle, output = wrap(
        write_classifier(tmp_path / "net.onnx"), "--fit", str(data / "train"), "--combine", "mahalanobis+msp"
    )
    assert "combined: mahalanobis + msp, standardised by 24 of the 120 calibration examples; the other 96" in output
    assert bundle.manifest.calibration.n == 96
    (score,) = [score for score in bundle.manifest.scores if score.name == "combined"]
    assert score.combines == ("mahalanobis", "msp")
    # The folder's images in the reader's order.
    files = sorted((data / "calibration").rglob("*.png"))
    images = np.stack([np.asarray(Image.open(file)) for file in files])
    outputs = run_graph(bundle.model_path, StoredArray(images))
    calibrates = np.isin(outputs["combined"].astype(np.float64), bundle.calibrations["combined"].anomaly)
    assert calibrates.sum() == 96
    total = np.zeros(len(IMAGES))
    on_images = run_graph(bundle.model_path, StoredArray(IMAGES))
    for name in score.combines:
        standard = SCORES[name].anomaly(outputs[name][~calibrates])
        total += (SCORES[name].anomaly(on_images[name]) - standard.mean()) / standard.std()
    np.testing.assert_allclose(on_images["combined"], total, rtol=1e-3, atol=1e-3)


@settings(max_examples=8, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    correlation=st.floats(-0.95, 0.95),
    tail=st.floats(1.0, 10.0),
    alpha=st.sampled_from([0.05, 0.1, 0.25]),
)
def test_p_values_of_combined_scores_are_valid_whatever_the_scores_are(
    seed: int, correlation: float, tail: float, alpha: float
) -> None:
    generator = np.random.default_rng(seed)

    def anomalies(n: int) -> dict[str, NDArray[np.float64]]:
        shared, own = generator.standard_t(tail, (2, n))
        second = correlation * shared + np.sqrt(1 - correlation**2) * own
        return {"mahalanobis": np.abs(shared), "msp": np.tanh(second)}

    def combined(statistics: dict[str, NDArray[np.float64]], values: dict[str, NDArray[np.float64]]) -> np.ndarray:
        combination = fit_combination(statistics)
        means, deviations = (tensor.numpy() for tensor in combination.statistics.values())
        stacked = np.stack([values[name] for name in combination.scores], axis=1)
        return np.asarray(((stacked - means) / deviations).sum(axis=1))

    flagged = []
    for _ in range(100):
        statistics = anomalies(20)
        calibration = Calibration.from_scores(combined(statistics, anomalies(79)))
        flagged.append(np.mean(calibration.p_value(combined(statistics, anomalies(50))) <= alpha))
    # The mean over calibration sets is at most alpha; five standard errors of 100 sets.
    assert np.mean(flagged) <= alpha + 5 * np.std(flagged) / np.sqrt(100)
