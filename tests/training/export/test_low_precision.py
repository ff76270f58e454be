"""Bundles in lower precision are served like any other and are refused if they detect differently."""

import re
import shutil
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
import yaml
from typer.testing import CliRunner

from bundle import FEATURE_SCORES, Bundle, ImageInput, load_bundle
from tests.service.conftest import running_service
from tests.training.support.datasets_on_disk import stripes, tiny_recipe, write_tiny_data
from tests.training.support.texts_on_disk import tiny_text_recipe, write_tiny_texts
from training.architectures.small_conv import SmallConvNet
from training.commands.app import app
from training.data import StoredArray
from training.errors import TrainingError
from training.evaluation import Report
from training.export.onnx_graph import run_graph, write_graph
from training.export.quantize import LowPrecision, write_low_precision
from training.models.classifier import ImageClassifier
from training.models.feature_statistics import fit_statistics
from training.models.score_heads import ScoredClassifier
from training.run import Run

IMAGES = StoredArray(stripes(40, seed=9)[0])


def command(root: Path, *arguments: str, models: Path | None = None) -> None:
    """Run the command with the data in `root`; raises its errors."""
    folders = ["--data", str(root), "--models", str(models or root / "models")]
    result = CliRunner().invoke(app, [*arguments, *folders], env={"OOD_CACHE": str(root / "cache")})
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == 0, result.output


def train(root: Path, recipe: dict[str, object]) -> Path:
    (root / "recipe.yaml").write_text(yaml.safe_dump(recipe), encoding="utf-8")
    command(root, "run", str(root / "recipe.yaml"), "--run", str(root / "run"))
    return root


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run on images in `run`, with its bundle in `models`."""
    # Sets that the network separates perfectly: otherwise a few swapped pairs change the AUROC by a tenth of a point.
    separable = {
        "ood": {"checkers": {"path": "ood.parquet"}},
        "validation": {"gaussian": {"synthetic": "gaussian", "size": 40}},
        "draws": 3,
    }
    stages = {name: {**stage, "epochs": 10} for name, stage in tiny_recipe()["stages"].items()}
    return train(write_tiny_data(tmp_path_factory.mktemp("images")), tiny_recipe(evaluation=separable, stages=stages))


@pytest.fixture(scope="module")
def texts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return train(write_tiny_texts(tmp_path_factory.mktemp("texts")), tiny_text_recipe())


@pytest.fixture(scope="module", params=["int8", "fp16"])
def low_precision(images: Path, request: pytest.FixtureRequest) -> Bundle:
    command(images, "export", str(images / "run"), "--precision", request.param)
    return load_bundle(images / "models" / f"stripes-{request.param}" / "1")


def weight_types(graph: Path) -> set[int]:
    """The types of all constants with at least eight values."""
    return {tensor.data_type for tensor in onnx.load(graph).graph.initializer if np.prod(tensor.dims) >= 8}


def test_the_graph_computes_nearly_the_full_scores_in_its_precision(low_precision: Bundle, images: Path) -> None:
    full = load_bundle(images / "models" / "stripes" / "1")
    precision = low_precision.manifest.precision
    assert (full.manifest.precision, precision) == ("fp32", low_precision.manifest.name.split("-")[1])
    weight_type = {"int8": onnx.TensorProto.INT8, "fp16": onnx.TensorProto.FLOAT16}[precision]
    assert weight_type in weight_types(low_precision.model_path)
    expected, outputs = (run_graph(bundle.model_path, IMAGES) for bundle in (full, low_precision))
    np.testing.assert_allclose(outputs["msp"], expected["msp"], atol=0.05)
    assert (outputs["msp"] != expected["msp"]).any()


def test_a_lower_precision_bundle_is_calibrated_through_its_own_graph(low_precision: Bundle, images: Path) -> None:
    full = load_bundle(images / "models" / "stripes" / "1")
    assert low_precision.manifest.calibration == full.manifest.calibration
    assert low_precision.calibrations["energy"].threshold(0.05) != full.calibrations["energy"].threshold(0.05)


def test_the_report_compares_every_set_with_full_precision(low_precision: Bundle) -> None:
    report = Report.from_json((low_precision.path / "report" / "report.json").read_text())
    assert report.comparison is not None
    assert {change.set for change in report.comparison.changes} == {"checkers", "gaussian"}
    assert abs(report.comparison.largest.points) < report.comparison.limit == 0.1
    page = (low_precision.path / "report" / "report.md").read_text()
    assert f"## AUROC in {low_precision.manifest.precision} against float32" in page
    assert re.search(r"The largest change is [+-]0\.0\d\d points: \w+ by `\w+`, from [\d.]+ to [\d.]+", page)
    assert low_precision.manifest.evaluation is not None
    stages = {row.stage for row in low_precision.manifest.evaluation.sets}
    assert stages == {"oe", f"oe {low_precision.manifest.precision}"}


def test_an_input_scores_the_same_in_any_batch(low_precision: Bundle) -> None:
    together = run_graph(low_precision.model_path, IMAGES, batch_size=40)
    alone = run_graph(low_precision.model_path, IMAGES, batch_size=1)
    np.testing.assert_allclose(alone["energy"], together["energy"], atol=1e-5)


def test_the_evidence_adds_up_to_the_logit_of_the_class_up_to_rounding(low_precision: Bundle) -> None:
    spec = low_precision.manifest.evidence
    assert spec is not None
    outputs = run_graph(low_precision.model_path, IMAGES, outputs=[spec.output, "prediction", "max_logit"])
    sums = outputs[spec.output].sum(axis=(1, 2)) + np.asarray(spec.bias)[outputs["prediction"].astype(int)]
    np.testing.assert_allclose(sums, outputs["max_logit"], rtol=0.02, atol=0.05)


def test_the_service_serves_the_bundle_and_shows_its_precision(low_precision: Bundle, images: Path) -> None:
    with running_service(images / "models") as live:
        precisions = {model["name"]: model["precision"] for model in live.client.get("/v1/models").json()["models"]}
        answer = live.score((low_precision.path / "sample.png").read_bytes(), model=low_precision.manifest.name).json()
    assert precisions["stripes"] == "fp32"
    assert precisions[low_precision.manifest.name] == low_precision.manifest.precision
    assert not answer["results"][0]["flagged"]


def test_the_version_can_be_chosen_and_an_existing_bundle_is_kept(images: Path) -> None:
    command(images, "export", str(images / "run"), "--precision", "fp16", "--version", "7")
    assert load_bundle(images / "models" / "stripes-fp16" / "7").manifest.version == "7"
    with pytest.raises(TrainingError, match="exists"):
        command(images, "export", str(images / "run"), "--precision", "fp16", "--version", "7")


@pytest.fixture
def copied(images: Path, tmp_path: Path) -> Path:
    """A copy of the run on images that a test may change."""
    return Path(shutil.copytree(images / "run", tmp_path / "run"))


def spoil(run: Path) -> None:
    """Scale a channel by 4096 and its weights by the inverse, which changes the outputs in eight bits only."""
    path = Run.open(run).checkpoint_path("oe")
    checkpoint = torch.load(path, weights_only=False)
    state = checkpoint["state_dict"]
    (norm,) = [name for name in state if name.endswith("features.1.weight")]
    bias, kernel = norm.replace("1.weight", "1.bias"), norm.replace("1.weight", "4.weight")
    state[norm][0] *= 4096
    state[bias][0] *= 4096
    state[kernel][:, 0] /= 4096
    torch.save(checkpoint, path)


def test_a_precision_that_changes_the_auroc_is_refused_and_writes_nothing(
    images: Path, copied: Path, tmp_path: Path
) -> None:
    spoil(copied)
    with pytest.raises(TrainingError, match=r"int8: moves the AUROC.*'\w+' by \w+ from \d+\.\d+ to \d+\.\d+"):
        command(images, "export", str(copied), "--precision", "int8", models=tmp_path / "models")
    assert not list((tmp_path / "models").iterdir())


def test_a_run_without_a_report_must_be_evaluated_first(images: Path, copied: Path) -> None:
    (copied / "report" / "report.json").unlink()
    with pytest.raises(TrainingError, match=r"is not evaluated.*Run `evaluate"):
        command(images, "export", str(copied), "--precision", "int8", "--version", "9")


def test_a_text_classifier_is_exported_in_half_precision(texts: Path) -> None:
    command(texts, "export", str(texts / "run"), "--precision", "fp16")
    bundle = load_bundle(texts / "models" / "topics-fp16" / "1")
    assert onnx.TensorProto.FLOAT16 in weight_types(bundle.model_path)
    with running_service(texts / "models") as live:
        sample = (bundle.path / "sample.txt").read_bytes()
        answers = [
            live.client.post(f"/v1/models/{name}/score", content=sample, headers={"content-type": "text/plain"})
            for name in ("topics", "topics-fp16")
        ]
    first, second = (answer.json()["results"][0]["scores"]["msp"]["value"] for answer in answers)
    assert first == pytest.approx(second, abs=0.01)


def test_int8_is_refused_for_a_network_of_unsupported_operators(texts: Path) -> None:
    with pytest.raises(TrainingError, match=r"int8 needs 3 or more.*--precision fp16"):
        command(texts, "export", str(texts / "run"), "--precision", "int8")
    assert not (texts / "models" / "topics-int8").exists()


@pytest.mark.parametrize("precision", ["int8", "fp16"])
def test_the_statistics_of_scores_of_features_stay_float32(precision: LowPrecision, tmp_path: Path) -> None:
    torch.manual_seed(0)
    spec = ImageInput(height=16, width=16, channels=3, mean=(0.5,) * 3, std=(0.25,) * 3)
    generator = np.random.default_rng(0)
    # Three classes of training examples and four logits, so that shapes tell the constants apart.
    statistics = fit_statistics(FEATURE_SCORES, generator.random((50, 32)).astype(np.float32), np.arange(50) % 3)
    classifier = ImageClassifier(SmallConvNet(4, 3, 8), spec)
    model = ScoredClassifier(classifier, ("msp", *FEATURE_SCORES), statistics)
    write_graph(model, IMAGES.array[:4], tmp_path / "full.onnx")
    feeds = [{"images": IMAGES.array}]
    write_low_precision(tmp_path / "full.onnx", tmp_path / "low.onnx", precision, feeds)
    types: dict[tuple[int, ...], set[int]] = {}
    for tensor in onnx.load(tmp_path / "low.onnx").graph.initializer:
        types.setdefault(tuple(sorted(tensor.dims)), set()).add(tensor.data_type)
    for shape in ((32, 50), (32, 32), (3, 32)):
        assert types[shape] == {onnx.TensorProto.FLOAT}
    lower = {"int8": onnx.TensorProto.INT8, "fp16": onnx.TensorProto.FLOAT16}[precision]
    assert lower in types[3, 3, 8, 16]
    # The classifier's last layer is the last operator that stays float32 in int8.
    assert types[4, 32] == {onnx.TensorProto.FLOAT if precision == "int8" else onnx.TensorProto.FLOAT16}
    full, low = (run_graph(tmp_path / name, IMAGES) for name in ("full.onnx", "low.onnx"))
    for name in FEATURE_SCORES:
        np.testing.assert_allclose(low[name], full[name], rtol=0.1)
