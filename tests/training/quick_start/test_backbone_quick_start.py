"""Quick start with a pretrained backbone, or without outliers: its recipe, its bundle and its messages."""

import csv
import json
from pathlib import Path

import pytest
from PIL import Image

from bundle import load_bundle
from tests.training.support.backbones import save_text_backbone
from tests.training.support.datasets_on_disk import LABELS, checkers, stripes
from tests.training.support.onnx_classifiers import MEAN, STD, Network, export
from tests.training.support.onnx_text_classifiers import make_tokenizer
from tests.training.support.quick_starts import read_report, run, write_images
from tests.training.support.texts_on_disk import TOPICS, sentences
from training.errors import DataError, GraphError
from training.quick_start.recipe import QuickStart, QuickStartInputs, quick_start
from training.recipe import BackboneConfig, Source, TextConfig


@pytest.fixture(scope="module")
def backbone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A network of images 16x16, next to the file that states their normalisation."""
    folder = tmp_path_factory.mktemp("backbone")
    config = {"size": {"height": 16, "width": 16}, "resample": 3, "image_mean": MEAN, "image_std": STD}
    (folder / "preprocessor_config.json").write_text(json.dumps(config))
    return export(Network(), folder / "network.onnx")


def start_with(root: Path, backbone: Path | None, **options: str) -> QuickStart:
    name = None if backbone is None else str(backbone)
    return quick_start(QuickStartInputs(root / "photos", root / "others", name, **options))


def in_kinds(folder: Path, kinds: int) -> None:
    """Distribute the images of `folder` over sub-folders."""
    for i, file in enumerate(sorted(folder.glob("*.png"))):
        kind = folder / f"kind{i % kinds}"
        kind.mkdir(exist_ok=True)
        file.rename(kind / file.name)


def test_size_and_normalisation_are_those_of_the_file_next_to_the_backbone(tmp_path: Path, backbone: Path) -> None:
    write_images(tmp_path, size=40)
    recipe = start_with(tmp_path, backbone).recipe
    assert recipe.input.kind == "image"
    assert (recipe.input.height, recipe.input.width, recipe.input.resize) == (16, 16, "bicubic")
    assert (recipe.input.mean, recipe.input.std) == (pytest.approx(MEAN), pytest.approx(STD))
    assert recipe.backbone is not None
    # Features are computed once, so nothing is mirrored.
    assert not [note for note in start_with(tmp_path, backbone).notes if "mirrored" in note]


def test_a_backbone_without_such_a_file_needs_a_preset(tmp_path: Path, backbone: Path) -> None:
    write_images(tmp_path)
    alone = tmp_path / "alone.onnx"
    alone.write_bytes(backbone.read_bytes())
    with pytest.raises(DataError, match=r"--backbone: no preprocessor_config\.json .*next to alone\.onnx.*torchvision"):
        start_with(tmp_path, alone)
    recipe = start_with(tmp_path, alone, preprocess="inception").recipe
    assert recipe.input.kind == "image"
    assert recipe.input.mean == (0.5, 0.5, 0.5)


def test_a_preset_without_a_backbone_and_a_backbone_for_bgr_images_are_refused(tmp_path: Path, backbone: Path) -> None:
    write_images(tmp_path)
    with pytest.raises(DataError, match="--preprocess: is for the images of a backbone"):
        start_with(tmp_path, None, preprocess="inception")
    with pytest.raises(GraphError, match="BGR"):
        start_with(tmp_path, backbone, preprocess="keras-caffe")


def test_kinds_of_outliers_to_train_on_to_choose_the_score_by_and_to_test_on_are_disjoint(
    tmp_path: Path, backbone: Path
) -> None:
    write_images(tmp_path)
    in_kinds(tmp_path / "others", 10)
    recipe = start_with(tmp_path, backbone).recipe
    assert recipe.outliers is not None
    sets = (
        recipe.outliers.train,
        recipe.evaluation.validation["validation-outliers"],
        recipe.evaluation.ood["held-out-outliers"],
    )
    chosen = [config.only_labels for config in sets if isinstance(config, Source)]
    assert [len(part) for part in chosen] == [6, 2, 2]
    assert {kind for part in chosen for kind in part} == {f"kind{i}" for i in range(10)}


def test_one_command_makes_a_bundle_of_a_backbone_that_flags_kinds_it_has_not_seen(
    tmp_path: Path, backbone: Path
) -> None:
    write_images(tmp_path)
    in_kinds(tmp_path / "others", 10)
    data = ["--in-distribution", str(tmp_path / "photos"), "--outliers", str(tmp_path / "others")]
    run(tmp_path, *data, "--backbone", str(backbone))
    bundle = load_bundle(tmp_path / "models" / "photos" / "1")
    report = read_report(bundle)
    assert report.validation == ("validation-outliers",)
    assert report.usability is not None
    assert (report.usability.sets, report.usability.verdict) == (("held-out-outliers",), "useful")
    assert bundle.manifest.default_score_reason is not None
    assert "validation-outliers" in bundle.manifest.default_score_reason


def test_texts_get_a_classifier_of_direction_and_norm_of_the_features_and_the_length_of_the_backbone(
    tmp_path: Path,
) -> None:
    folder = save_text_backbone(tmp_path / "encoder", make_tokenizer())
    with (tmp_path / "mails.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["text", "label"])
        writer.writerows((text, topic) for i, topic in enumerate(TOPICS) for text in sentences(topic, 80, 10 * i))
    (tmp_path / "others.txt").write_text("\n".join(sentences("outliers", 100, 5)))
    start = quick_start(QuickStartInputs(tmp_path / "mails.csv", tmp_path / "others.txt", str(folder)))
    assert start.recipe.input == TextConfig(max_tokens=30)
    assert start.recipe.backbone == BackboneConfig(backbone="encoder", hidden=256, split_norm=True)
    assert set(start.recipe.evaluation.ood) == {"outliers-like-those-trained-on"}
    assert "backbone encoder: reads at most 30 tokens of a text" in start.notes
    (folder / "tokenizer.json").unlink()
    with pytest.raises(DataError, match=r"--backbone: no tokenizer\.json in encoder"):
        quick_start(QuickStartInputs(tmp_path / "mails.csv", tmp_path / "others.txt", str(folder)))


def test_without_outliers_the_detector_compares_features_and_the_report_says_that_only_noise_was_measured(
    tmp_path: Path,
) -> None:
    write_images(tmp_path)
    output = run(tmp_path, "--in-distribution", str(tmp_path / "photos"), "stages.baseline.epochs=3")
    words = " ".join(output.split())
    assert "no outliers: the scores compare features" in words
    bundle = load_bundle(tmp_path / "models" / "photos" / "1")
    assert bundle.manifest.default_score == "knn"
    report = read_report(bundle)
    assert report.stages == ["baseline"]
    assert set(report.sets) == set(report.synthetic)
    assert report.usability is not None
    assert "Test it on real data of other kinds" in words
    assert f"recipe: {tmp_path / 'run' / 'recipe.yaml'}" in output


def test_sub_folders_train_and_test_are_splits_and_not_classes(tmp_path: Path) -> None:
    write_images(tmp_path)
    for split, n, seed in (("train", 100, 3), ("test", 30, 4)):
        for i, (image, label) in enumerate(zip(*stripes(n, seed=seed), strict=True)):
            folder = tmp_path / "split" / split / LABELS[label]
            folder.mkdir(parents=True, exist_ok=True)
            Image.fromarray(image).save(folder / f"{i}.png")
    start = quick_start(QuickStartInputs(tmp_path / "split", tmp_path / "others"))
    assert start.recipe.in_distribution.train.path == "split/train"
    assert start.recipe.in_distribution.test is not None
    assert start.recipe.in_distribution.test.path == "split/test"
    assert "70 to train on, 30 to calibrate with, 30 others to test on" in start.notes[0]


def test_splits_without_classes_are_not_taken_for_classes(tmp_path: Path) -> None:
    write_images(tmp_path)
    for name in ("train", "test"):
        (tmp_path / "words" / name).mkdir(parents=True)
        for i, image in enumerate(checkers(60, seed=5)):
            Image.fromarray(image).save(tmp_path / "words" / name / f"{i}.png")
    with pytest.raises(DataError, match=r"splits test, train, without classes in them.*rename folders of classes"):
        quick_start(QuickStartInputs(tmp_path / "words", tmp_path / "others"))
