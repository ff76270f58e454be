"""Backbones of `transformers`: features are those of the library, inputs come from its files, and recipes use both."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from safetensors.torch import load_file, save_file
from transformers import AutoModel, AutoModelForImageClassification
from typer.testing import CliRunner

from bundle import ImageInput, load_bundle
from tests.training.support.backbones import MEAN, SIDE, STD, save_image_backbone, save_text_backbone
from tests.training.support.datasets_on_disk import checkers
from tests.training.support.onnx_text_classifiers import make_tokenizer
from tests.training.support.quick_starts import run, write_images
from tests.training.support.texts_on_disk import sentences, tiny_text_recipe, write_tiny_texts
from training.backbones import Backbone, load_backbone
from training.backbones.backbone import feature_session
from training.backbones.transformers_model import TextFeatures, load_transformers
from training.commands.app import app
from training.data.token_ids import NO_TOKEN
from training.errors import BackboneError
from training.recipe import TextConfig

SPEC = ImageInput(height=SIDE, width=SIDE, channels=3, mean=tuple(MEAN), std=tuple(STD))
ROWS = np.array([[1, 2, 3, NO_TOKEN], [1, 5, NO_TOKEN, NO_TOKEN], [6, 1, 2, 5]], dtype=np.int32)


@pytest.fixture(scope="module")
def image_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_image_backbone(tmp_path_factory.mktemp("image") / "convnext")


@pytest.fixture(scope="module")
def text_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_text_backbone(tmp_path_factory.mktemp("text") / "bert", make_tokenizer())


@pytest.fixture(scope="module")
def text_backbone(text_folder: Path) -> Backbone:
    return load_backbone(text_folder, TextConfig(max_tokens=8))


def hidden_states(folder: Path) -> list[np.ndarray]:
    """The vectors of the tokens of each of `ROWS` alone, without padding."""
    model = AutoModel.from_pretrained(folder).eval()
    with torch.inference_mode():
        return [model(torch.from_numpy(row[row != NO_TOKEN][None])).last_hidden_state[0].numpy() for row in ROWS]


def test_features_of_images_are_the_input_of_the_librarys_last_linear_layer(image_folder: Path) -> None:
    backbone = load_backbone(image_folder, SPEC)
    images = checkers(3, seed=0)
    pixels = (torch.tensor(images).permute(0, 3, 1, 2) / 255 - torch.tensor(MEAN).view(3, 1, 1)) / torch.tensor(
        STD
    ).view(3, 1, 1)
    with torch.inference_mode():
        expected = AutoModel.from_pretrained(image_folder).eval()(pixels).pooler_output.numpy()
    assert backbone.size == 24
    np.testing.assert_allclose(feature_session(backbone)(images), expected, atol=1e-4)


def test_features_of_texts_are_means_over_their_tokens_whatever_the_padding(
    text_backbone: Backbone, text_folder: Path
) -> None:
    expected = [states.mean(axis=0) for states in hidden_states(text_folder)]
    np.testing.assert_allclose(feature_session(text_backbone)(ROWS), expected, atol=1e-5)


@pytest.mark.parametrize("mode", ["cls", "max"])
def test_the_pooling_is_that_of_the_folder(mode: str, text_folder: Path, tmp_path: Path) -> None:
    folder = copy_of(text_folder, tmp_path)
    (folder / "1_Pooling").mkdir()
    key = {"cls": "pooling_mode_cls_token", "max": "pooling_mode_max_tokens"}[mode]
    (folder / "1_Pooling" / "config.json").write_text(json.dumps({"pooling_mode_mean_tokens": False, key: True}))
    pool = {"cls": lambda states: states[0], "max": lambda states: states.max(axis=0)}[mode]
    lengths = torch.from_numpy((ROWS != NO_TOKEN).sum(axis=1))
    with torch.inference_mode():
        features = TextFeatures(folder).eval()(torch.from_numpy(np.maximum(ROWS, 0)).long(), lengths)
    np.testing.assert_allclose(features, [pool(states) for states in hidden_states(folder)], atol=1e-5)


def copy_of(folder: Path, root: Path) -> Path:
    copy = root / "copy"
    copy.mkdir()
    for file in folder.iterdir():
        (copy / file.name).write_bytes(file.read_bytes())
    return copy


def test_an_unknown_pooling_is_refused(text_folder: Path, tmp_path: Path) -> None:
    folder = copy_of(text_folder, tmp_path)
    (folder / "1_Pooling").mkdir()
    (folder / "1_Pooling" / "config.json").write_text('{"pooling_mode_weightedmean_tokens": true}')
    with pytest.raises(BackboneError, match="names the pooling pooling_mode_weightedmean_tokens"):
        load_transformers(folder, TextConfig(max_tokens=8))


def test_a_folder_with_incomplete_weights_is_refused_instead_of_completed_by_random_ones(
    image_folder: Path, tmp_path: Path
) -> None:
    folder = copy_of(image_folder, tmp_path)
    weights = load_file(folder / "model.safetensors")
    lacking = next(name for name in sorted(weights) if "layernorm" in name)
    save_file({name: value for name, value in weights.items() if name != lacking}, folder / "model.safetensors")
    with pytest.raises(BackboneError, match=f"lacks the weights .*{lacking.rsplit('.', 2)[-2]}"):
        load_transformers(folder, SPEC)


def test_a_classifier_without_its_last_layer_is_a_backbone(image_folder: Path, tmp_path: Path) -> None:
    folder = tmp_path / "headless"
    AutoModelForImageClassification.from_pretrained(image_folder).convnext.save_pretrained(folder)
    assert load_transformers(folder, SPEC).size == 24


def test_folders_that_are_no_such_model_are_refused_by_name(
    image_folder: Path, text_folder: Path, tmp_path: Path
) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(BackboneError, match=r"empty: has no config\.json or no weights"):
        load_transformers(tmp_path / "empty", SPEC)
    with pytest.raises(BackboneError, match=r"bert: cannot be loaded with transformers: .*Bert"):
        load_transformers(text_folder, SPEC)
    with pytest.raises(BackboneError, match="convnext: is no model of texts"):
        load_transformers(image_folder, TextConfig(max_tokens=8))
    with pytest.raises(BackboneError, match=r"bert: reads 30 tokens, input\.max_tokens is 31"):
        load_transformers(text_folder, TextConfig(max_tokens=31))
    with pytest.raises(BackboneError, match=r"Leave out architecture\.features"):
        load_backbone(text_folder, TextConfig(max_tokens=8), features="x")


def test_a_folder_with_code_of_its_own_is_refused_and_the_code_does_not_run(tmp_path: Path) -> None:
    folder = save_image_backbone(tmp_path / "model")
    config = json.loads((folder / "config.json").read_text())
    config |= {
        "model_type": "mine",
        "auto_map": {"AutoConfig": "code.Mine", "AutoModelForImageClassification": "code.M"},
    }
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "code.py").write_text(f"from pathlib import Path\nPath({str(tmp_path / 'ran')!r}).touch()")
    with pytest.raises(BackboneError, match="cannot be loaded with transformers"):
        load_transformers(folder, SPEC)
    assert not (tmp_path / "ran").exists()


def test_one_command_makes_a_bundle_of_images_with_the_preprocessing_of_the_folder(
    image_folder: Path, tmp_path: Path
) -> None:
    write_images(tmp_path, size=40)
    data = ["--in-distribution", str(tmp_path / "photos"), "--outliers", str(tmp_path / "others")]
    # Stripes are so far apart from each other that float32 is too inexact for `mahalanobis`.
    changes = ["stages.baseline.epochs=5", "stages.oe.epochs=2", "export.scores=[knn,msp]"]
    output = run(tmp_path, *data, "--backbone", str(image_folder), *changes)
    assert "backbone convnext: preprocessing: preprocessor_config.json; 16x16 (bicubic)" in output
    manifest = load_bundle(tmp_path / "models" / "photos" / "1").manifest
    assert isinstance(manifest.input, ImageInput)
    assert (manifest.input.height, manifest.input.resize) == (SIDE, "bicubic")
    assert manifest.input.mean == pytest.approx(MEAN)
    assert manifest.parity is not None
    assert manifest.parity.max_difference["knn"] < 1e-4


def test_a_recipe_without_input_takes_it_and_the_tokenizer_from_the_folder(text_folder: Path, tmp_path: Path) -> None:
    root = write_tiny_texts(tmp_path)
    copy_of(text_folder, root).rename(root / "encoder")
    schedule = {"epochs": 12, "batch_size": 16, "learning_rate": 0.01, "optimizer": "adam"}
    recipe = tiny_text_recipe(
        architecture={"name": "pretrained", "backbone": "encoder"},
        stages={"baseline": {"objective": {"name": "cross_entropy"}, **schedule}},
        export={"stage": "baseline", "alpha": 0.05, "scores": ["knn", "msp"]},
        trainer={},
    )
    del recipe["input"]
    (root / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    arguments = ["run", str(root / "recipe.yaml"), "--data", str(root), "--run", str(root / "run")]
    done = CliRunner().invoke(
        app, [*arguments, "--models", str(root / "models")], env={"OOD_CACHE": str(root / "cache")}
    )
    assert done.exit_code == 0, done.output + str(done.exception)
    bundle = load_bundle(root / "models" / "topics" / "1")
    assert bundle.manifest.input.kind == "text"
    assert bundle.manifest.input.max_tokens == 30
    assert bundle.manifest.evaluation is not None
    assert bundle.manifest.evaluation.error_percent is not None
    assert bundle.manifest.evaluation.error_percent < 15
    assert (bundle.path / "sample.txt").read_text() == sentences("kitchen", 1, 2)[0]
