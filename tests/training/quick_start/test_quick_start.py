"""Quick start: one command makes a bundle from data without a recipe, or says why the data are unsuitable."""

import csv
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tokenizers import Tokenizer
from typer.testing import CliRunner

from bundle import Bundle, load_bundle
from tests.training.support.datasets_on_disk import LABELS, checkers, stripes
from tests.training.support.quick_starts import read_report, run, write_images
from tests.training.support.texts_on_disk import TOPICS, sentences, write_texts
from training.commands.app import app
from training.data import DataLocations, load_in_distribution, open_reader
from training.errors import DataError, TrainingError
from training.evaluation import Report
from training.quick_start.recipe import QuickStartInputs, quick_start
from training.recipe import Source
from training.run import Run
from training.steps import calibrate_run, evaluate_run, fit_run, save_shortcuts

SHORT = ["stages.baseline.epochs=3", "stages.oe.epochs=3", "trainer.precision=32-true"]
"""Overrides for training in a second or two. In float32, because bfloat16 slows down networks as small as these."""

LIKE_TRAINED = "outliers-like-those-trained-on"


def write_csvs(root: Path) -> Path:
    """Write `mails.csv` with the columns text and label, and `others.txt` with one text per line."""
    with (root / "mails.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["text", "label"])
        writer.writerows((text, topic) for i, topic in enumerate(TOPICS) for text in sentences(topic, 80, 10 * i))
    (root / "others.txt").write_text("\n".join(sentences("outliers", 100, 5)))
    return root


def report_page(bundle: Bundle) -> str:
    return (bundle.path / "report" / "report.md").read_text(encoding="utf-8")


def roles(bundle: Bundle) -> dict[str, int]:
    assert bundle.manifest.training is not None
    return {data.role: data.rows for data in bundle.manifest.training.data}


def test_a_folder_of_images_becomes_a_served_bundle(tmp_path: Path) -> None:
    write_images(tmp_path)
    data = ["--in-distribution", str(tmp_path / "photos"), "--outliers", str(tmp_path / "others")]
    output = run(tmp_path, *data, *SHORT)
    bundle = load_bundle(tmp_path / "models" / "photos" / "1")
    assert tuple(bundle.manifest.labels) == tuple(sorted(LABELS))
    assert roles(bundle) == {
        "in-distribution train": 77,
        "in-distribution calibration": 42,
        "in-distribution test": 21,
        "outliers": 64,
    }
    assert bundle.manifest.calibration.alpha == 0.024
    assert "alpha is 0.024" in output
    assert bundle.manifest.evaluation is not None
    tested = {(row.name, row.stage) for row in bundle.manifest.evaluation.sets}
    assert {(LIKE_TRAINED, "oe"), ("gaussian", "oe"), ("blobs", "oe")} <= tested
    assert f"recipe: {tmp_path / 'run' / 'recipe.yaml'}" in output
    assert f"curl --data-binary @{bundle.path / 'sample.png'}" in output
    assert str(tmp_path) not in (bundle.path / "recipe.yaml").read_text()
    report = read_report(bundle)
    assert report.upper_bounds == (LIKE_TRAINED,)
    assert f"**Upper bound: {LIKE_TRAINED}.** Outliers like those trained on" in report_page(bundle)
    words = " ".join(output.split())
    assert f"{LIKE_TRAINED}: an upper bound, because these are outliers like those trained on" in words
    assert report.usability is not None
    assert f"**{report.usability}**" in report_page(bundle)
    results = output[output.index(str(report.usability)) :]
    assert results.index("default score:") < results.index("bundle:")


def test_sub_folders_of_the_outliers_are_held_out_and_measured_without_being_trained_on(tmp_path: Path) -> None:
    write_images(tmp_path)
    for i, file in enumerate(sorted((tmp_path / "others").glob("*.png"))):
        folder = tmp_path / "others" / f"kind{i % 5}"
        folder.mkdir(exist_ok=True)
        file.rename(folder / file.name)
    data = ["--in-distribution", str(tmp_path / "photos"), "--outliers", str(tmp_path / "others")]
    output = run(tmp_path, *data, *SHORT)
    recipe = Run.open(tmp_path / "run").recipe
    assert recipe.outliers is not None
    assert isinstance(recipe.outliers.train, Source)
    tested = recipe.evaluation.ood["held-out-outliers"]
    assert isinstance(tested, Source)
    (held_out,) = tested.only_labels
    assert {held_out, *recipe.outliers.train.only_labels} == {f"kind{i}" for i in range(5)}
    assert held_out not in recipe.outliers.train.only_labels
    bundle = load_bundle(tmp_path / "models" / "photos" / "1")
    assert roles(bundle)["outliers"] == 64
    assert read_report(bundle).sets["held-out-outliers"].startswith("16 examples")
    assert read_report(bundle).upper_bounds == ()
    assert "upper bound" not in output.lower()
    assert f"none of which are trained on: {held_out}" in " ".join(output.split())


def test_copies_of_training_outliers_are_left_out_of_the_held_out_ones(tmp_path: Path) -> None:
    write_images(tmp_path)
    for i, file in enumerate(sorted((tmp_path / "others").glob("*.png"))):
        folder = tmp_path / "others" / f"kind{i % 5}"
        folder.mkdir(exist_ok=True)
        file.rename(folder / file.name)
    # Large areas of few colours, unlike the other outliers.
    copied = Image.fromarray(np.full((16, 16, 3), (250, 10, 250), dtype=np.uint8))
    for kind in range(5):
        copied.save(tmp_path / "others" / f"kind{kind}" / "copy.png")
    data = ["--in-distribution", str(tmp_path / "photos"), "--outliers", str(tmp_path / "others")]
    run(tmp_path, *data, *SHORT)
    report = read_report(load_bundle(tmp_path / "models" / "photos" / "1"))
    assert report.removed["held-out-outliers"].trained_on == 1
    assert report.sets["held-out-outliers"].startswith("16 examples")


def test_labels_of_outlier_texts_are_held_out(tmp_path: Path) -> None:
    write_csvs(tmp_path)
    with (tmp_path / "others.csv").open("w", newline="") as file:
        rows = [(text, f"source{i % 4}") for i, text in enumerate(sentences("outliers", 100, 5))]
        csv.writer(file).writerows([("text", "label"), *rows])
    recipe = quick_start(QuickStartInputs(tmp_path / "mails.csv", tmp_path / "others.csv")).recipe
    assert recipe.outliers is not None
    assert isinstance(recipe.outliers.train, Source)
    assert len(recipe.outliers.train.only_labels) == 3
    assert "held-out-outliers" in recipe.evaluation.ood


def test_classes_and_groups_of_outliers_may_be_called_like_missing_values(tmp_path: Path) -> None:
    texts = [text for topic in TOPICS for text in sentences(topic, 80, 1)]
    write = {"mails": ("null", "NA"), "others": ("007", "None", "nan", "1e5", "NULL")}
    for name, labels in write.items():
        with (tmp_path / f"{name}.csv").open("w", newline="") as file:
            rows = [(f"{name} {text}", labels[i * len(labels) // 160]) for i, text in enumerate(texts)]
            csv.writer(file).writerows([("text", "label"), *rows])
    start = quick_start(QuickStartInputs(tmp_path / "mails.csv", tmp_path / "others.csv"))
    recipe = Run.create(tmp_path / "run", start.recipe, overwrite=False).recipe
    assert Run.open(tmp_path / "run").recipe == recipe
    locations = DataLocations(data_dir=start.data_dir, cache_dir=tmp_path / "cache")
    reader = open_reader(recipe, locations, tmp_path / "tokenizer.json")
    assert load_in_distribution(recipe, reader).train.labels == ("NA", "null")
    tested = recipe.evaluation.ood["held-out-outliers"]
    assert recipe.outliers is not None
    assert isinstance(tested, Source)
    assert isinstance(recipe.outliers.train, Source)
    assert {*tested.only_labels, *recipe.outliers.train.only_labels} == set(write["others"])


def test_a_shortcut_in_the_data_is_named_in_the_terminal_and_in_the_report(tmp_path: Path) -> None:
    write_images(tmp_path)
    for file in sorted((tmp_path / "others").glob("*.png")):
        Image.open(file).save(file.with_suffix(".jpg"))
        file.unlink()
    data = ["--in-distribution", str(tmp_path / "photos"), "--outliers", str(tmp_path / "others")]
    output = run(tmp_path, *data, *SHORT)
    bundle = load_bundle(tmp_path / "models" / "photos" / "1")
    warning = "shortcut: file format alone tells the outliers from the in-distribution data (AUROC 100.0)"
    assert warning in " ".join(output.split())
    assert f"- {warning}" in report_page(bundle)
    check = read_report(bundle).shortcuts
    assert check is not None
    assert {feature.feature: feature.is_shortcut for feature in check.features}["file format"]
    assert not {feature.feature: feature.is_shortcut for feature in check.features}["image size"]


def test_blank_images_are_counted_in_the_terminal(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_images(tmp_path)
    for i in range(3):
        Image.new("RGB", (16, 16), (40 * i, 90, 90)).save(tmp_path / "others" / f"blank{i}.png")
    start = quick_start(QuickStartInputs(tmp_path / "photos", tmp_path / "others"), overrides=SHORT)
    created = Run.create(tmp_path / "run", start.recipe, overwrite=False)
    fit_run(created, DataLocations(data_dir=start.data_dir, cache_dir=tmp_path / "cache"), resume=False)
    output = " ".join(capsys.readouterr().err.split())
    assert re.search(r"warning: [123] images of outliers are blank\. Remove them", output)
    assert "in-distribution training are blank" not in output


def test_a_shortcut_check_of_other_data_is_not_reported(tmp_path: Path) -> None:
    write_images(tmp_path)
    start = quick_start(QuickStartInputs(tmp_path / "photos", tmp_path / "others"), overrides=SHORT)
    created = Run.create(tmp_path / "run", start.recipe, overwrite=False)
    assert start.shortcuts is not None
    save_shortcuts(created, start.shortcuts.model_copy(update={"outliers": "elsewhere"}))
    locations = DataLocations(data_dir=start.data_dir, cache_dir=tmp_path / "cache")
    fit_run(created, locations, resume=False)
    calibrate_run(created, locations)
    evaluate_run(created, locations)
    report = Report.from_json((created.report_path / "report.json").read_text(encoding="utf-8"))
    assert report.shortcuts is None


def test_a_run_can_be_started_from_the_recipe_of_a_quick_start(tmp_path: Path) -> None:
    write_images(tmp_path)
    start = quick_start(
        QuickStartInputs(tmp_path / "photos", tmp_path / "others"), overrides=["stages.baseline.epochs=3"]
    )
    assert start.recipe.stages["baseline"].epochs == 3
    created = Run.create(tmp_path / "run", start.recipe, overwrite=False)
    assert Run.open(tmp_path / "run").recipe == created.recipe
    locations = DataLocations(data_dir=start.data_dir, cache_dir=tmp_path / "cache")
    in_dist = load_in_distribution(start.recipe, open_reader(start.recipe, locations, tmp_path / "tokenizer.json"))
    assert in_dist.sample.source.path == "photos"


def test_a_csv_of_texts_becomes_a_bundle_that_flags_the_outliers(tmp_path: Path) -> None:
    write_csvs(tmp_path)
    data = ["--in-distribution", str(tmp_path / "mails.csv"), "--outliers", str(tmp_path / "others.txt")]
    output = run(tmp_path, *data, "--name", "My Mails", *SHORT)
    bundle = load_bundle(tmp_path / "models" / "my-mails" / "1")
    assert sorted(bundle.manifest.labels) == sorted(TOPICS)
    assert (bundle.path / "sample.txt").read_text()
    assert "sample.txt -H 'Content-Type: text/plain'" in output
    assert bundle.manifest.evaluation is not None
    auroc = {(row.name, row.stage, row.score): row.auroc for row in bundle.manifest.evaluation.sets}
    assert auroc[LIKE_TRAINED, "oe", "msp"] > 90


def test_the_vocabulary_holds_no_word_that_only_the_held_out_splits_have(tmp_path: Path) -> None:
    texts = [f"common word{i} word{i} word{i}" for i in range(100)]
    write_texts(tmp_path / "mails.parquet", texts, [i % 2 for i in range(100)])
    write_texts(tmp_path / "others.parquet", sentences("outliers", 20, 1))
    start = quick_start(QuickStartInputs(tmp_path / "mails.parquet", tmp_path / "others.parquet"))
    locations = DataLocations(data_dir=start.data_dir, cache_dir=tmp_path / "cache")
    reader = open_reader(start.recipe, locations, tmp_path / "tokenizer.json")
    in_dist = load_in_distribution(start.recipe, reader)
    unknown = Tokenizer.from_file(str(tmp_path / "tokenizer.json")).token_to_id("[UNK]")
    for held_out in (in_dist.calibration, in_dist.test):
        assert (held_out.x[np.arange(len(held_out))][:, 1] == unknown).all()
    assert (in_dist.train.x[np.arange(len(in_dist.train))][:, 1] != unknown).all()
    assert len(in_dist.train) + len(in_dist.calibration) + len(in_dist.test) == 100


@pytest.mark.parametrize(("pixels", "expected"), [(16, (16, "small_conv")), (64, (32, "whitened_conv"))])
def test_the_size_and_the_network_follow_the_files(pixels: int, expected: tuple[int, str], tmp_path: Path) -> None:
    write_images(tmp_path, size=pixels)
    recipe = quick_start(QuickStartInputs(tmp_path / "photos", tmp_path / "others")).recipe
    assert recipe.input.kind == "image"
    assert (recipe.input.height, recipe.architecture.name) == expected
    wider = quick_start(QuickStartInputs(tmp_path / "photos", tmp_path / "others"), size=(48, 64)).recipe
    assert wider.input.kind == "image"
    assert (wider.input.height, wider.input.width) == (48, 64)


def no_such_folder(root: Path) -> list[str]:
    return ["--in-distribution", str(root / "absent"), "--outliers", str(root / "others")]


def empty_class(root: Path) -> list[str]:
    (root / "photos" / "nothing").mkdir()
    return ["--in-distribution", str(root / "photos"), "--outliers", str(root / "others")]


def one_class(root: Path) -> list[str]:
    return ["--in-distribution", str(root / "single"), "--outliers", str(root / "others")]


def unreadable_image(root: Path) -> list[str]:
    (root / "photos" / "dark" / "broken.png").write_text("no picture")
    return ["--in-distribution", str(root / "photos"), "--outliers", str(root / "others")]


def the_data_themselves(root: Path) -> list[str]:
    return ["--in-distribution", str(root / "photos"), "--outliers", str(root / "photos")]


def a_copy_of_the_data(root: Path) -> list[str]:
    (root / "copy").mkdir()
    for i, file in enumerate((root / "photos").rglob("*.png")):
        (root / "copy" / f"{i}.png").write_bytes(file.read_bytes())
    return ["--in-distribution", str(root / "photos"), "--outliers", str(root / "copy")]


def one_inside_the_other(root: Path) -> list[str]:
    return ["--in-distribution", str(root / "photos"), "--outliers", str(root / "photos" / "dark")]


def no_folders(root: Path) -> list[str]:
    return ["--in-distribution", str(root / "others"), "--outliers", str(root / "photos")]


def texts_as_outliers(root: Path) -> list[str]:
    (root / "others.txt").write_text("one\ntwo\n")
    return ["--in-distribution", str(root / "photos"), "--outliers", str(root / "others.txt")]


def texts_without_outliers(root: Path) -> list[str]:
    write_csvs(root)
    return ["--in-distribution", str(root / "mails.csv")]


def recipe_too(root: Path) -> list[str]:
    return ["recipe.yaml", "--in-distribution", str(root / "photos"), "--outliers", str(root / "others")]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (no_such_folder, "absent: does not exist"),
        (empty_class, "no image of the class nothing"),
        (one_class, r"has 1 class \(dark\)"),
        (unreadable_image, r"broken\.png.*no readable image"),
        (the_data_themselves, "is the in-distribution data itself"),
        (a_copy_of_the_data, "every outlier is an in-distribution example"),
        (one_inside_the_other, "contain one another"),
        (no_folders, "has no classes"),
        (texts_as_outliers, "holds texts"),
        (texts_without_outliers, r"--outliers: is missing: .*mails\.csv holds texts"),
        (recipe_too, "got the recipe recipe.yaml and --in-distribution"),
        (lambda _: [], "nothing to train on. Give RECIPE, or --in-distribution"),
    ],
)
def test_unsuitable_data_is_refused_with_the_reason(
    arguments: Callable[[Path], list[str]], message: str, tmp_path: Path
) -> None:
    write_images(tmp_path, n=70)
    (tmp_path / "single" / "dark").mkdir(parents=True)
    Image.fromarray(checkers(1, seed=0)[0]).save(tmp_path / "single" / "dark" / "a.png")
    with pytest.raises(TrainingError, match=message):
        run(tmp_path, *arguments(tmp_path))


def write_layout(root: Path, *folders: str) -> Path:
    """Write `photos/<folder>/<i>.png`, 40 images in each folder."""
    for k, folder in enumerate(folders):
        (root / "photos" / folder).mkdir(parents=True)
        for i, image in enumerate(stripes(40, seed=k)[0]):
            Image.fromarray(image).save(root / "photos" / folder / f"{i}.png")
    return root / "photos"


@pytest.mark.parametrize(("train", "test"), [("train", "test"), ("train", "val"), ("Training", "validation")])
def test_two_splits_with_the_same_classes_are_the_training_and_the_test_set(
    train: str, test: str, tmp_path: Path
) -> None:
    photos = write_layout(tmp_path, *(f"{split}/{name}" for split in (train, test) for name in ("cat", "dog")))
    recipe = quick_start(QuickStartInputs(photos)).recipe
    assert "cat, dog" in recipe.description
    assert Path(recipe.in_distribution.train.path).name == train
    assert recipe.in_distribution.test is not None
    assert Path(recipe.in_distribution.test.path).name == test


@pytest.mark.parametrize(
    ("folders", "message"),
    [
        (("train/cat", "train/dog", "val/cat", "val/dog", "test/cat", "test/dog"), "splits test, train, val, .*train"),
        (("train/cat", "train/dog", "train/emu", "test/cat", "test/dog"), r"whose classes differ \(emu\)"),
        (("train/cat", "train/dog", "test"), r"whose classes differ \(cat, dog\)"),
        (("train", "testing"), "splits testing, train, without classes in them"),
        (("test/cat", "test/dog", "valid/cat", "valid/dog"), r"splits test, valid.*give .*photos/test alone"),
        (("train/cat", "train/dog", "test/cat", "test/dog", "fox"), "fox, test, train found"),
    ],
)
def test_splits_are_never_classes(folders: tuple[str, ...], message: str, tmp_path: Path) -> None:
    photos = write_layout(tmp_path, *folders)
    with pytest.raises(DataError, match=message):
        quick_start(QuickStartInputs(photos))


def test_one_class_may_have_the_name_of_a_split(tmp_path: Path) -> None:
    recipe = quick_start(QuickStartInputs(write_layout(tmp_path, "train", "tram"))).recipe
    assert "train, tram" in recipe.description


def test_splits_of_the_outliers_are_not_held_out_as_kinds_of_outliers(tmp_path: Path) -> None:
    write_images(tmp_path)
    for i, file in enumerate(sorted((tmp_path / "others").glob("*.png"))):
        folder = tmp_path / "others" / ("test" if i % 5 == 0 else "train")
        folder.mkdir(exist_ok=True)
        file.rename(folder / file.name)
    start = quick_start(QuickStartInputs(tmp_path / "photos", tmp_path / "others"))
    assert LIKE_TRAINED in start.recipe.evaluation.ood
    assert any("upper bound" in note for note in start.notes)


def test_help_shows_both_uses() -> None:
    shown = CliRunner().invoke(app, ["run", "--help"], env={"COLUMNS": "160"}).output
    assert "--in-distribution DIR --outliers DIR" in shown
    assert "training/recipes/cifar10-oe.yaml --data DIR" in shown


@pytest.mark.parametrize("grey", [False, True])
def test_only_colour_images_are_mirrored_and_a_message_says_how_to_prevent_it(tmp_path: Path, *, grey: bool) -> None:
    write_images(tmp_path)
    if grey:
        for path in tmp_path.rglob("*.png"):
            Image.open(path).convert("L").save(path)
    start = quick_start(QuickStartInputs(tmp_path / "photos", tmp_path / "others"))
    assert [stage.augmentation.flip for stage in start.recipe.stages.values()] == [not grey] * 2
    notes = [note for note in start.notes if "mirrored" in note]
    assert len(notes) == (not grey)
    if not grey:
        overrides = [word for word in notes[0].split() if "=" in word]
        unmirrored = quick_start(QuickStartInputs(tmp_path / "photos", tmp_path / "others"), overrides=overrides)
        assert [stage.augmentation.flip for stage in unmirrored.recipe.stages.values()] == [False] * 2
        assert not [note for note in unmirrored.notes if "mirrored" in note]
