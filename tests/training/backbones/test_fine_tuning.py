"""Fine-tuned backbones: both parts are trained at their own rate, and the bundle computes what torch computes."""

from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch

from bundle import load_bundle
from tests.training.support.backbones import MEAN, SIDE, STD, save_image_backbone, save_text_backbone
from tests.training.support.datasets_on_disk import tiny_recipe, write_tiny_data
from tests.training.support.evaluated_runs import evaluated_run
from tests.training.support.onnx_text_classifiers import make_tokenizer
from tests.training.support.texts_on_disk import tiny_text_recipe, write_tiny_texts
from training.backbones import FineTunedNetwork, load_transformers
from training.data import DataLocations
from training.errors import BackboneError, RecipeError
from training.evaluation import Report
from training.fitting.optimizer import build_optimizer
from training.fitting.weights import load_model
from training.recipe import parse_recipe
from training.run import Run
from training.steps import export_run, fit_run

ARCHITECTURE = {"name": "pretrained", "backbone": "model", "fine_tune": True}
SCHEDULE = {"batch_size": 16, "optimizer": "adamw", "learning_rate": 0.01, "backbone_learning_rate": 0.001}
INPUT = {"kind": "image", "height": SIDE, "width": SIDE, "channels": 3, "mean": MEAN, "std": STD}


def image_recipe(**changes: Any) -> dict[str, Any]:
    stages = {
        "baseline": {"objective": {"name": "cross_entropy"}, "epochs": 3, **SCHEDULE},
        "oe": {"objective": {"name": "outlier_exposure"}, "start_from": "baseline", "epochs": 2, **SCHEDULE},
    }
    export = {"stage": "oe", "alpha": 0.05, "scores": ["msp", "knn"], "default_score": "msp"}
    return tiny_recipe(architecture=ARCHITECTURE, input=INPUT, stages=stages, export=export, trainer={}) | changes


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Run, DataLocations]:
    root = tmp_path_factory.mktemp("fine-tuned")
    write_tiny_data(root / "data")
    save_image_backbone(root / "data" / "model")
    return evaluated_run(root, image_recipe())


def network_of(run: Run, stage: str) -> FineTunedNetwork:
    network = load_model(run, stage, 2).network
    assert isinstance(network, FineTunedNetwork)
    return network


def test_backbone_and_classifier_have_their_own_learning_rates(trained: tuple[Run, DataLocations]) -> None:
    run, _ = trained
    network, model = network_of(run, "oe"), load_model(run, "oe", 2)
    groups = build_optimizer(run.recipe.stages["oe"], model).param_groups
    sizes = {
        group["lr"]: sum(parameter.numel() for parameter in group["params"]) for group in groups if group["params"]
    }
    assert sizes == {
        0.01: sum(parameter.numel() for parameter in network.head.parameters()),
        0.001: sum(parameter.numel() for parameter in network.backbone.parameters()),
    }


def test_fine_tuning_changes_the_pretrained_weights_in_every_stage_and_learns(
    trained: tuple[Run, DataLocations],
) -> None:
    run, _ = trained
    states = [load_transformers(run.backbone_folder, run.recipe.input).state_dict()]
    states += [network_of(run, stage).backbone.state_dict() for stage in ("baseline", "oe")]
    for before, after in pairwise(states):
        assert all(not torch.equal(before[name], after[name]) for name in after if name.endswith("weight"))
    report = Report.from_json((run.report_path / "report.json").read_text())
    assert report.error["oe"] < 5
    assert report.find("checkers", "oe", "msp").auroc.mean > 95


def test_the_bundle_is_one_graph_with_the_scores_of_torch_and_needs_the_pretrained_folder_no_more(
    trained: tuple[Run, DataLocations], tmp_path: Path
) -> None:
    run, locations = trained
    folder = locations.data_dir / "model"
    folder.rename(tmp_path / "away")
    try:
        bundle = load_bundle(export_run(run, locations, tmp_path / "models", overwrite=False))
    finally:
        (tmp_path / "away").rename(folder)
    assert bundle.manifest.parity is not None
    assert set(bundle.manifest.parity.max_difference) >= {"msp", "knn"}
    assert bundle.manifest.input.kind == "image"


def test_a_text_model_is_fine_tuned_with_the_tokenizer_of_its_folder(tmp_path: Path) -> None:
    write_tiny_texts(tmp_path / "data")
    save_text_backbone(tmp_path / "data" / "model", make_tokenizer())
    stages = {"baseline": {"objective": {"name": "cross_entropy"}, "epochs": 8, "group_by_length": True, **SCHEDULE}}
    recipe = tiny_text_recipe(
        input={"kind": "text", "max_tokens": 24},
        architecture=ARCHITECTURE,
        stages=stages,
        export={"stage": "baseline", "alpha": 0.05, "scores": ["msp"]},
        trainer={},
    )
    run, locations = evaluated_run(tmp_path, recipe)
    report = Report.from_json((run.report_path / "report.json").read_text())
    assert report.error["baseline"] < 10
    manifest = load_bundle(export_run(run, locations, tmp_path / "models", overwrite=False)).manifest
    assert manifest.parity is not None
    assert manifest.parity.max_difference["msp"] < 1e-4


def without_a_backbone_rate() -> dict[str, Any]:
    schedule = {key: value for key, value in SCHEDULE.items() if key != "backbone_learning_rate"}
    return {"oe": {"objective": {"name": "cross_entropy"}, "epochs": 1, **schedule}}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"stages": without_a_backbone_rate()}, r"stages\.oe\.backbone_learning_rate: is missing"),
        (
            {"architecture": ARCHITECTURE | {"fine_tune": False}},
            r"stages\.baseline\.backbone_learning_rate: is for 'pretrained' with fine_tune: true",
        ),
        ({"architecture": ARCHITECTURE | {"backbone": "x.onnx"}}, "an ONNX file cannot be trained"),
        ({"task": "density"}, "is for classification"),
    ],
)
def test_recipes_that_cannot_be_fine_tuned_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        parse_recipe(image_recipe(**changes), "recipe")


def test_a_file_cannot_be_fine_tuned_whatever_its_name(tmp_path: Path) -> None:
    write_tiny_data(tmp_path / "data")
    (tmp_path / "data" / "model").write_bytes(b"a graph")
    run = Run.create(tmp_path / "run", parse_recipe(image_recipe(), "recipe"), overwrite=False)
    with pytest.raises(BackboneError, match="model: is an ONNX file, whose weights cannot be trained"):
        fit_run(run, DataLocations(data_dir=tmp_path / "data", cache_dir=tmp_path / "cache"), resume=False)
