"""The command line on texts: from sentences on disk to a bundle that scores as the trained network does."""

from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from typer.testing import CliRunner

from bundle import TextEncoder, TextInput, load_bundle, pad_tokens
from tests.training.support.backbones import save_backbone
from tests.training.support.texts_on_disk import TOPICS, sentences, tiny_text_recipe, write_texts, write_tiny_texts
from training.commands.app import app
from training.data import NO_TOKEN, StoredArray
from training.evaluation import RemovedInputs, Report
from training.export.onnx_graph import run_graph
from training.models.classifier import TextClassifier


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the data, the run directory and the model repository of a finished run."""
    root = write_tiny_texts(tmp_path_factory.mktemp("texts"))
    trained_on = sentences("outliers", 150, 5)[0]
    write_texts(root / "ood.parquet", [*sentences("unseen", 40, 6), "zither", "oboe zither", trained_on])
    recipe = root / "recipe.yaml"
    recipe.write_text(yaml.safe_dump(tiny_text_recipe()))
    arguments = ["run", str(recipe), "--data", str(root), "--run", str(root / "run"), "--models", str(root / "models")]
    done = CliRunner().invoke(app, arguments)
    assert done.exit_code == 0, done.output + str(done.exception)
    return root


def test_run_makes_a_text_bundle_that_flags_an_unseen_topic(finished: Path) -> None:
    bundle = load_bundle(finished / "models" / "topics" / "1")
    manifest = bundle.manifest
    assert manifest.input == TextInput(tokenizer="tokenizer.json", max_tokens=24)
    assert manifest.modality == "text"
    assert tuple(manifest.labels) == TOPICS
    assert (bundle.path / "sample.txt").read_text() == sentences("kitchen", 1, 2)[0]
    assert manifest.evaluation is not None
    assert manifest.evaluation.error_percent is not None
    assert manifest.evaluation.error_percent < 15
    auroc = {(row.stage, row.score): row.auroc for row in manifest.evaluation.sets if row.name == "unseen"}
    assert auroc["oe", "msp"] > auroc["baseline", "msp"]
    assert auroc["oe", "msp"] > 90


def test_a_report_on_texts_has_the_papers_recall_too(finished: Path) -> None:
    report = Report.from_json((finished / "run" / "report" / "report.json").read_text())
    assert report.recalls == [0.95, 0.9]
    assert "FPR90 oe" in (finished / "run" / "report" / "report.md").read_text()


def test_a_report_counts_the_texts_that_were_left_out(finished: Path) -> None:
    report = Report.from_json((finished / "run" / "report" / "report.json").read_text())
    # Apart from the copy, one text differs from an outlier in unknown words only: the model reads the same input.
    assert report.removed == {"unseen": RemovedInputs(trained_on=2, unknown=2)}
    assert report.sets["unseen"].startswith("39 examples of ood.parquet, left out 2 (nearly) outliers that were")
    assert report.sets["unseen"].endswith("and 2 texts of unknown tokens only")
    assert "left out" in report.provenance["duplicates"]


def test_the_steps_of_a_finished_text_run_can_be_repeated(finished: Path) -> None:
    run, data = str(finished / "run"), ["--data", str(finished)]
    for command in (["calibrate", run], ["export", run, "--models", str(finished / "again")]):
        done = CliRunner().invoke(app, [*command, *data])
        assert done.exit_code == 0, done.output + str(done.exception)
    assert load_bundle(finished / "again" / "topics" / "1").manifest.modality == "text"


def test_a_bundle_scores_a_text_alone_as_in_a_batch(finished: Path) -> None:
    bundle = load_bundle(finished / "models" / "topics" / "1")
    encoder = TextEncoder.load(bundle.path / "tokenizer.json", 24)
    texts = sentences("harbour", 9, 77)
    alone = [pad_tokens([encoder.encode(text)]) for text in texts]
    rows = np.full((9, 24), NO_TOKEN, dtype=np.int32)
    for row, (tokens, _) in zip(rows, alone, strict=True):
        row[: tokens.shape[1]] = tokens[0]
    prepare = TextClassifier(torch.nn.Identity()).prepare
    together = run_graph(bundle.model_path, StoredArray(rows), prepare)["msp"]
    singly = [run_graph(bundle.model_path, StoredArray(row[None]), prepare)["msp"][0] for row in rows]
    np.testing.assert_allclose(together, singly, atol=1e-6)


@pytest.mark.parametrize(("score", "warns"), [("energy", True), ("gen", False)])
def test_exporting_a_transformer_with_a_score_of_the_logits_magnitude_warns(
    score: str, warns: bool, tmp_path: Path
) -> None:
    root = write_tiny_texts(tmp_path / "data")
    save_backbone("bert", tmp_path / "bert")
    recipe = tiny_text_recipe(
        input={"kind": "text", "max_tokens": 24, "vocabulary_size": 40},
        architecture={"name": "transformer", "backbone": str(tmp_path / "bert")},
        stages={"baseline": {"objective": {"name": "cross_entropy"}, "epochs": 1, "optimizer": "adam"}},
        export={"stage": "baseline", "default_score": score, "alpha": 0.05},
    )
    (root / "recipe.yaml").write_text(yaml.safe_dump(recipe), encoding="utf-8")
    arguments = ["run", str(root / "recipe.yaml"), "--data", str(root), "--run", str(tmp_path / "run")]
    result = CliRunner().invoke(
        app, [*arguments, "--models", str(tmp_path / "models")], env={"OOD_CACHE": str(tmp_path / "cache")}
    )
    assert result.exit_code == 0, result.output
    words = " ".join(result.output.split())
    assert (f"{score} is a poor default score for transformers" in words) == warns
