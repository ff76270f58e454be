"""Wrapping of image classifiers: the bundle's scores are those of the classifier's logits, or it is refused."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from numpy.typing import NDArray
from onnxruntime.transformers.float16 import convert_float_to_float16
from PIL import Image
from scipy.special import logsumexp
from typer.testing import CliRunner

from bundle import LOGIT_SCORES, Bundle, false_flag_rate, load_bundle
from tests.service.conftest import running_service
from tests.training.support.datasets_on_disk import checkers, stripes, write_parquet
from tests.training.support.onnx_classifiers import (
    MEAN,
    STD,
    Network,
    export,
    fixed_logits,
    write_bytes_classifier,
    write_fixed,
)
from tests.training.support.reference_scores import reference_scores
from training.commands.app import app
from training.console import console
from training.data import StoredArray
from training.errors import TrainingError
from training.evaluation import Report
from training.export.onnx_graph import run_graph

IMAGES = stripes(24, seed=9)[0]
NORMALISED = ["--mean", ",".join(map(str, MEAN)), "--std", ",".join(map(str, STD))]
COLOURS = ("blue", "green", "red")


def write_folder(path: Path, n: int = 10) -> Path:
    """Write an image folder of three classes, each of one colour."""
    generator = np.random.default_rng(n)
    for i, colour in enumerate(COLOURS):
        (path / colour).mkdir(parents=True)
        for k in range(n):
            pixels = generator.integers(0, 60, (16, 16, 3)).astype(np.uint8)
            pixels[..., 2 - i] += 120
            Image.fromarray(pixels).save(path / colour / f"{k}.png")
    return path


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("data")
    write_folder(root / "calibration", 40)
    write_folder(root / "test", 12)
    write_parquet(root / "ood.parquet", checkers(30, seed=2))
    return root


@pytest.fixture(scope="module")
def network_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`Network()`, exported; the input is `pixels`, the logits are `scores`."""
    return export(Network(), tmp_path_factory.mktemp("network") / "net.onnx")


class AttentiveNetwork(Network):
    """A network with attention between the positions of its features."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        positions = self.features(images).flatten(2).transpose(1, 2)
        weights = (positions @ positions.transpose(1, 2)).softmax(dim=2)
        attended = positions + weights @ positions
        logits: torch.Tensor = self.classifier(attended.flatten(1))
        return logits


Wrap = Callable[..., Bundle]


@pytest.fixture
def wrap(tmp_path: Path, data: Path, monkeypatch: pytest.MonkeyPatch) -> Wrap:
    """`wrap(model, "--logits", "scores")` -> the bundle; errors are raised."""
    monkeypatch.setenv("OOD_CACHE", str(tmp_path / "cache"))

    def run(model: Path, *arguments: str, calibration: Path = data / "calibration") -> Bundle:
        options = ["--calibration", str(calibration), "--models", str(tmp_path / "models"), "--name", "foreign"]
        result = CliRunner().invoke(app, ["wrap", str(model), *options, *arguments])
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception
        assert result.exit_code == 0, result.output
        return load_bundle(tmp_path / "models" / "foreign" / "1")

    return run


def assert_scores(bundle: Bundle, logits: NDArray[np.floating]) -> None:
    """The bundle's graph scores `IMAGES`, in any batch, as SciPy does their `logits`."""
    expected = reference_scores(logits)
    for batch_size in (1, 7, 24):
        outputs = run_graph(bundle.model_path, StoredArray(IMAGES), batch_size=batch_size)
        assert set(outputs) == {*expected, "prediction", "probability"}
        for name, values in (*expected.items(), ("probability", expected["msp"])):
            assert outputs[name].dtype == np.float32
            np.testing.assert_allclose(outputs[name], values, atol=1e-4, err_msg=name)
        assert outputs["prediction"].dtype == np.int64
        np.testing.assert_array_equal(outputs["prediction"], logits.argmax(axis=1))


@pytest.mark.parametrize(
    ("network", "score", "warns"),
    [
        (AttentiveNetwork, "energy", True),
        (AttentiveNetwork, "max_logit", True),
        (AttentiveNetwork, "gen", False),
        (Network, "energy", False),
    ],
)
def test_wrapping_a_transformer_with_a_score_of_the_logits_magnitude_warns(
    network: type[Network],
    score: str,
    warns: bool,
    tmp_path: Path,
    wrap: Wrap,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    announced: list[str] = []
    monkeypatch.setattr(console, "print", lambda *texts, **_: announced.extend(map(str, texts)))
    bundle = wrap(export(network(), tmp_path / "net.onnx"), "--logits", "scores", *NORMALISED, "--default-score", score)
    assert bundle.manifest.default_score == score
    assert any(f"{score} is a poor default score for transformers" in text for text in announced) == warns


def test_a_wrapped_torch_network_scores_as_torch_and_scipy_do(network_file: Path, wrap: Wrap) -> None:
    bundle = wrap(network_file, "--logits", "scores", *NORMALISED)
    assert_scores(bundle, Network().logits_of(IMAGES))
    manifest = bundle.manifest
    assert manifest.training is None
    assert manifest.labels == list(COLOURS)
    assert manifest.calibration.n == 120
    assert "Wrapped from net.onnx (sha256 " in manifest.description
    assert manifest.parity is not None
    assert set(manifest.parity.max_difference) == {*LOGIT_SCORES, "probability"}
    assert {"sample.png", "model.onnx"} <= set(manifest.files)


def test_weights_in_another_file_are_part_of_the_bundles_graph(tmp_path: Path, network_file: Path, wrap: Wrap) -> None:
    path = tmp_path / "net.onnx"
    onnx.save(onnx.load(network_file), path, save_as_external_data=True, location="weights.bin", size_threshold=0)
    assert (tmp_path / "weights.bin").exists()
    assert_scores(wrap(path, "--logits", "scores", *NORMALISED), Network().logits_of(IMAGES))


def test_the_manifest_states_the_precision_of_a_classifier_in_float16(
    tmp_path: Path, network_file: Path, wrap: Wrap
) -> None:
    full = wrap(network_file, "--logits", "scores", *NORMALISED)
    expected = run_graph(full.model_path, StoredArray(IMAGES))
    onnx.save(convert_float_to_float16(onnx.load(network_file), keep_io_types=True), tmp_path / "net.onnx")
    half = wrap(tmp_path / "net.onnx", "--logits", "scores", *NORMALISED, "--overwrite")
    assert (full.manifest.precision, half.manifest.precision) == ("fp32", "fp16")
    np.testing.assert_allclose(run_graph(half.model_path, StoredArray(IMAGES))["msp"], expected["msp"], atol=0.01)


@pytest.mark.parametrize(("opset", "channels_last"), [(11, False), (13, False), (13, True)])
def test_a_graph_with_a_fixed_batch_takes_any_and_inner_tensors_can_be_logits(
    opset: int, channels_last: bool, tmp_path: Path, wrap: Wrap
) -> None:
    weights = write_fixed(tmp_path / "fixed.onnx", opset=opset, channels_last=channels_last)
    bundle = wrap(tmp_path / "fixed.onnx", "--logits", "plain")
    assert_scores(bundle, fixed_logits(IMAGES, weights))
    assert b"somebody" not in bundle.model_path.read_bytes(), "the path in the classifier's notes"


def test_mean_and_std_can_be_those_of_pixel_values_up_to_255(tmp_path: Path, wrap: Wrap) -> None:
    weights = write_fixed(tmp_path / "fixed.onnx")
    bundle = wrap(tmp_path / "fixed.onnx", "--logits", "plain", "--scale", "255", "--mean", "100", "--std", "50,40,30")
    scaled = (IMAGES - 100.0) / np.array([50, 40, 30])
    assert_scores(bundle, fixed_logits(scaled * 255, weights))


def test_a_classifier_of_bytes_gets_the_images_without_conversion(tmp_path: Path, wrap: Wrap) -> None:
    bundle = wrap(write_bytes_classifier(tmp_path / "bytes.onnx"), "--logits", "scores", "--labels", "r,g,b")
    assert_scores(bundle, 0.1 * IMAGES.mean(axis=(1, 2)))
    assert bundle.manifest.labels == ["r", "g", "b"]


def test_a_test_set_gives_the_bundle_a_report(tmp_path: Path, data: Path, wrap: Wrap) -> None:
    bundle = wrap(
        write_bytes_classifier(tmp_path / "bytes.onnx"),
        *("--logits", "scores", "--labels", "red,green,blue"),
        *("--test", str(data / "test"), "--ood", f"checkers={data / 'ood.parquet'}", "--alpha", "0.05"),
    )
    assert bundle.manifest.evaluation is not None
    assert bundle.manifest.evaluation.error_percent == 0
    assert {row.name for row in bundle.manifest.evaluation.sets} == {"checkers", "gaussian", "blobs", "mean"}
    text = (bundle.path / "report" / "report.json").read_text()
    report = Report.from_json(text)
    assert report.probabilities
    assert report.alpha == 0.05
    assert report.usability is not None
    assert report.usability.sets == ("checkers",)
    assert str(data) not in text
    assert {"report/report.md", "report/roc.png", "report/reliability.png"} <= set(bundle.manifest.files)


def test_the_service_serves_a_wrapped_classifier(tmp_path: Path, network_file: Path, wrap: Wrap) -> None:
    bundle = wrap(network_file, "--logits", "scores", *NORMALISED)
    sample = (bundle.path / "sample.png").read_bytes()
    expected = Network().logits_of(np.asarray(Image.open(bundle.path / "sample.png"))[None])
    with running_service(tmp_path / "models") as live:
        result = live.score(sample, model="foreign", params={"scores": "all"}).json()["results"][0]
    assert result["prediction"]["index"] == expected.argmax()
    assert result["scores"]["energy"]["value"] == pytest.approx(-logsumexp(expected), abs=1e-3)
    assert not result["flagged"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--logits", "absent"], "has no tensor 'absent'.*Candidates: plain"),
        (["--logits", "cells"], r"'cells': has values of shape \[3, 4, 4\] for one input"),
        (["--preprocess", "vgg"], "'vgg' is unknown. Known: torchvision"),
        (["--resize-to", "8"], "--resize-to: is smaller than the classifier's images, 16x16"),
        (["--logits", "probabilities", "--default-score", "energy"], "energy cannot be computed from probabilities"),
        (["--logits", "plain", "--size", "32x32"], "height is 16, not 32"),
        (["--logits", "plain", "--layout", "nhwc"], "16 channels as nhwc"),
        (["--logits", "plain", "--mean", "1,2"], "2 numbers for 3 channels"),
        (["--logits", "plain", "--mean", "123.7,116.8,103.9"], "--mean: has 123.7, more than .* white, 1.*--scale 255"),
        (["--logits", "plain", "--labels", "a,b"], "names 2 classes, the logits have 3"),
        (["--logits", "plain", "--alpha", "0.001"], "120 examples can flag nothing at alpha 0.001.*--alpha 0.01"),
        (["--logits", "plain", "--default-score", "confidence"], "Known: msp"),
        (["--logits", "plain", "--ood", "a=b"], "does not exist"),
        (["--logits", "plain", "--ood", "a=b", "--ood", "a=c"], "--ood: gives a to b and to c"),
        (["--logits", "plain", "--validation", "a=b", "--validation", "a=c"], "--validation: gives a to b and to c"),
    ],
)
def test_options_that_do_not_fit_the_classifier_or_the_data_are_refused_with_a_remedy(
    arguments: list[str], message: str, tmp_path: Path, wrap: Wrap
) -> None:
    write_fixed(tmp_path / "fixed.onnx")
    with pytest.raises(TrainingError, match=message):
        wrap(tmp_path / "fixed.onnx", *arguments)
    assert not list((tmp_path / "models").rglob("manifest.json"))


@pytest.mark.parametrize("option", ["--calibration", "--test", "--fit"])
def test_a_folder_of_splits_is_refused(option: str, tmp_path: Path, data: Path, wrap: Wrap) -> None:
    for split in ("train", "test"):
        write_folder(tmp_path / "both" / split, 2)
    write_fixed(tmp_path / "fixed.onnx")
    calibration = tmp_path / "both" if option == "--calibration" else data / "calibration"
    given = [] if option == "--calibration" else [option, str(tmp_path / "both")]
    with pytest.raises(TrainingError, match="both: has the splits test, train"):
        wrap(tmp_path / "fixed.onnx", "--logits", "plain", *given, calibration=calibration)


def test_a_graph_whose_rows_depend_on_each_other_is_refused(tmp_path: Path, wrap: Wrap) -> None:
    write_fixed(tmp_path / "tied.onnx", batch=None, tied=True)
    with pytest.raises(TrainingError, match="change with the batch"):
        wrap(tmp_path / "tied.onnx", "--logits", "tied")


def test_a_file_that_is_not_an_onnx_graph_is_refused(tmp_path: Path, wrap: Wrap) -> None:
    (tmp_path / "text.onnx").write_text("not a graph")
    for name in ("text.onnx", "absent.onnx"):
        with pytest.raises(TrainingError, match=name):
            wrap(tmp_path / name, "--logits", "plain")


def test_wrap_prints_the_false_flag_rate_that_the_calibration_guarantees(tmp_path: Path, data: Path) -> None:
    write_fixed(tmp_path / "fixed.onnx")
    options = ["--logits", "plain", "--calibration", str(data / "calibration"), "--models", str(tmp_path / "models")]
    result = CliRunner().invoke(app, ["wrap", str(tmp_path / "fixed.onnx"), *options, "--alpha", "0.05"])
    assert result.exit_code == 0, result.output
    assert str(false_flag_rate(120, 0.05)) in " ".join(result.output.split())


def test_few_calibration_data_raise_the_default_alpha_and_too_few_are_refused(
    tmp_path: Path, data: Path, wrap: Wrap
) -> None:
    write_fixed(tmp_path / "fixed.onnx")
    bundle = wrap(tmp_path / "fixed.onnx", "--logits", "plain", calibration=data / "test")
    assert bundle.manifest.calibration.alpha == 0.028
    few = write_parquet(tmp_path / "few.parquet", IMAGES[:10])
    with pytest.raises(TrainingError, match="10 examples to calibrate with"):
        wrap(tmp_path / "fixed.onnx", "--logits", "plain", "--overwrite", calibration=few)


def test_a_test_set_of_too_few_images_is_refused(tmp_path: Path, wrap: Wrap) -> None:
    write_fixed(tmp_path / "fixed.onnx")
    few = write_parquet(tmp_path / "few.parquet", IMAGES[:4], np.arange(4) % 2)
    with pytest.raises(TrainingError, match=r"few\.parquet: gives 4 in-distribution test inputs.*need 5 or more"):
        wrap(tmp_path / "fixed.onnx", "--logits", "plain", "--test", str(few), "--label-column", "label")
    assert not list((tmp_path / "models").rglob("manifest.json"))
