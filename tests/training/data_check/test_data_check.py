"""The data check through its public function and its command."""

import csv
import json
import os
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageFilter
from typer.testing import CliRunner

from tests.training.support.onnx_classifiers import Network, export
from tests.training.support.texts_on_disk import TOPICS, sentences
from training.commands.app import app, main
from training.data import DataLocations
from training.data_check import CheckOptions, DataCheck, Finding, check_data
from training.errors import DataError

CLASSES = ("squares", "rings")


def picture(kind: str, seed: int, side: int = 48) -> Image.Image:
    """A smooth picture of its own, darker for squares than for rings."""
    generator = np.random.default_rng(seed)
    coarse = generator.integers(0, 100, (6, 6, 3)) + (20 if kind == "squares" else 140)
    return Image.fromarray(coarse.astype(np.uint8)).resize((side, side), Image.Resampling.BICUBIC)


def write_pictures(root: Path, n: int, seed: int = 0) -> Path:
    for number, kind in enumerate(CLASSES):
        (root / kind).mkdir(parents=True, exist_ok=True)
        for index in range(n):
            picture(kind, seed + 1000 * number + index).save(root / kind / f"{index:03}.png")
    return root


def write_table(path: Path, rows: list[tuple[str, str]]) -> Path:
    with path.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([("text", "label"), *rows])
    return path


def labelled_sentences(n: int, seed: int = 0) -> list[tuple[str, str]]:
    """Sentences of both topics, each of its own: a number makes copies impossible."""
    found = []
    for topic in TOPICS:
        for number, sentence in enumerate(sentences(topic, n, seed)):
            found.append((f"{sentence} {topic} no {number} {seed}", topic))
    return found


def check(tmp_path: Path, **paths: Path) -> DataCheck:
    options = CheckOptions(**paths)  # type: ignore[arg-type]
    locations = DataLocations(data_dir=Path("/"), cache_dir=tmp_path / "cache")
    return check_data(options, locations, lambda *_: None).report


def of(report: DataCheck, check_name: str) -> list[Finding]:
    return [finding for finding in report.findings if finding.check == check_name]


def files(finding: Finding) -> set[str]:
    return {Path(place.file or "").name for example in finding.examples for place in example.places}


def test_sound_images_have_no_finding_but_the_size_of_their_classes(tmp_path: Path) -> None:
    data, test = write_pictures(tmp_path / "data", 40), write_pictures(tmp_path / "test", 10, seed=500)
    report = check(tmp_path, data=data, test=test)
    assert {finding.check for finding in report.findings} == {"calibration size"}
    assert [(summary.name, summary.usable, summary.unusable) for summary in report.sets] == [
        ("in-distribution", 80, 0),
        ("test", 20, 0),
    ]


def test_a_folder_with_splits_is_checked_as_data_and_test_set(tmp_path: Path) -> None:
    write_pictures(tmp_path / "data" / "train", 40)
    write_pictures(tmp_path / "data" / "val", 10, seed=500)
    report = check(tmp_path, data=tmp_path / "data")
    assert [(summary.name, summary.usable) for summary in report.sets] == [("in-distribution", 80), ("test", 20)]
    assert not of(report, "training size")
    with pytest.raises(DataError, match=r"--test: is given, but .*val is a test set, too"):
        check(tmp_path, data=tmp_path / "data", test=tmp_path / "data" / "val")
    write_pictures(tmp_path / "data" / "test", 10, seed=900)
    with pytest.raises(DataError, match="has the splits test, train, val"):
        check(tmp_path, data=tmp_path / "data")


def test_broken_and_blank_images_are_found_with_their_files(tmp_path: Path) -> None:
    data = write_pictures(tmp_path / "data", 40)
    (data / "rings" / "broken.png").write_bytes(b"no image")
    noise = np.random.default_rng(0).integers(100, 102, (40, 40, 3)).astype(np.uint8)
    Image.fromarray(noise).save(data / "rings" / "empty.png")
    report = check(tmp_path, data=data)
    (broken,), (blank,) = of(report, "broken inputs"), of(report, "blank inputs")
    assert (broken.severity, broken.count, files(broken)) == ("error", 1, {"broken.png"})
    assert (blank.severity, blank.count, files(blank)) == ("warning", 1, {"empty.png"})
    assert report.findings[0] is broken
    assert report.sets[0].unusable == 1


@pytest.mark.parametrize(
    "change",
    [
        lambda image: image.transpose(Image.Transpose.FLIP_LEFT_RIGHT),
        lambda image: image.resize((64, 64)).filter(ImageFilter.GaussianBlur(1)),
        lambda image: image.point(lambda value: int(0.8 * value + 10)),
    ],
    ids=["mirrored", "resized", "darker"],
)
def test_a_changed_copy_in_the_test_set_is_a_near_duplicate(tmp_path: Path, change: object) -> None:
    data, test = write_pictures(tmp_path / "data", 40), write_pictures(tmp_path / "test", 10, seed=500)
    changed = change(Image.open(data / "squares" / "003.png"))  # type: ignore[operator]
    changed.save(test / "squares" / "changed.png")
    (finding,) = of(check(tmp_path, data=data, test=test), "near duplicates")
    assert finding.message == "1 inputs of test have a near duplicate in in-distribution"
    assert files(finding) == {"003.png", "changed.png"}


def test_copies_are_found_within_and_across_sets_and_are_no_near_duplicates(tmp_path: Path) -> None:
    data, outliers = write_pictures(tmp_path / "data", 40), write_pictures(tmp_path / "outliers", 10, seed=500)
    original = (data / "squares" / "003.png").read_bytes()
    (data / "squares" / "again.png").write_bytes(original)
    (outliers / "squares" / "copy.png").write_bytes(original)
    report = check(tmp_path, data=data, outliers=outliers)
    assert [(finding.severity, finding.message) for finding in of(report, "copies")] == [
        ("warning", "1 inputs of outliers have a copy in in-distribution"),
        ("info", "1 inputs of in-distribution repeat an earlier one"),
    ]
    assert of(report, "near duplicates") == of(report, "conflicting labels") == []


def test_copies_with_another_label_are_a_warning_that_names_both_labels(tmp_path: Path) -> None:
    data = write_pictures(tmp_path / "data", 40)
    (data / "rings" / "copy.png").write_bytes((data / "squares" / "003.png").read_bytes())
    (finding,) = of(check(tmp_path, data=data), "conflicting labels")
    assert (finding.severity, finding.count, files(finding)) == ("warning", 1, {"copy.png", "003.png"})
    assert finding.examples[0].note == "labels rings, squares"


def test_a_picture_in_the_folder_of_another_class_is_a_likely_label_error(tmp_path: Path) -> None:
    data = write_pictures(tmp_path / "data", 40)
    (data / "squares" / "005.png").rename(data / "rings" / "misplaced.png")
    (finding,) = of(check(tmp_path, data=data), "label errors")
    assert finding.severity == "info"
    assert files(finding) == {"misplaced.png"}
    assert finding.examples[0].note == "labelled rings, looks like squares"


def test_labels_that_a_weak_classifier_cannot_judge_are_not_judged(tmp_path: Path) -> None:
    data = write_pictures(tmp_path / "data", 40)
    generator = np.random.default_rng(0)
    for path in sorted(data.glob("*/*.png")):
        picture("rings", int(generator.integers(10**9))).save(path)
    (finding,) = of(check(tmp_path, data=data), "label errors")
    assert finding.count == 0
    assert "too weak" in finding.message
    assert "--backbone" in finding.remedy


def test_labels_are_judged_by_the_features_of_a_backbone(tmp_path: Path) -> None:
    data = write_pictures(tmp_path / "data", 40)
    (data / "squares" / "005.png").rename(data / "rings" / "misplaced.png")
    backbone = export(Network(), tmp_path / "backbone.onnx")
    (finding,) = of(check(tmp_path, data=data, backbone=backbone), "label errors")
    assert files(finding) == {"misplaced.png"}
    assert "the backbone's features" in finding.message


def test_outliers_of_another_size_and_format_are_shortcuts(tmp_path: Path) -> None:
    data = write_pictures(tmp_path / "data", 40)
    outliers = tmp_path / "outliers"
    outliers.mkdir()
    for index in range(20):
        picture("rings", 900 + index, side=64).save(outliers / f"{index}.jpg")
    messages = [finding.message for finding in of(check(tmp_path, data=data, outliers=outliers), "shortcuts")]
    assert "image size alone tells the outliers from in-distribution (AUROC 100.0)" in messages
    assert "file format alone tells the outliers from in-distribution (AUROC 100.0)" in messages


def test_texts_have_findings_of_every_kind(tmp_path: Path) -> None:
    rows = labelled_sentences(60)
    kitchen, harbour = TOPICS
    rows += [("  ", kitchen), ("no label here", "")]
    long = "the ship left the pier at noon with its anchor up and every sail set for the open sea today"
    rows += [(long, harbour), (long.upper() + " ", kitchen)]
    rows += [(f"bread oven salt butter knife plate soup pepper flour stove {kitchen}", harbour)]
    test = [*labelled_sentences(10, seed=5), (long.replace("today", "now"), harbour)]
    report = check(
        tmp_path, data=write_table(tmp_path / "data.csv", rows), test=write_table(tmp_path / "test.csv", test)
    )
    found = {(finding.check, finding.severity, finding.count) for finding in report.findings}
    assert {
        ("broken inputs", "error", 1),
        ("blank inputs", "warning", 1),
        ("conflicting labels", "warning", 1),
        ("copies", "info", 1),
    } <= found
    (near,) = of(report, "near duplicates")
    assert near.message == "1 inputs of test have a near duplicate in in-distribution"
    (errors,) = of(report, "label errors")
    assert errors.examples[0].places[0].excerpt is not None
    assert any("bread oven salt" in str(example) for example in errors.examples)


@pytest.mark.parametrize(
    ("rows", "check_name", "severity", "message"),
    [
        (labelled_sentences(250), "small classes", "warning", "2 of 2 classes have fewer than 99 calibration examples"),
        (labelled_sentences(40), "calibration size", "warning", "24 calibration examples cannot flag any input"),
        (labelled_sentences(10), "training size", "error", "20 examples are too few to train on"),
        ([*labelled_sentences(50), ("a tune", "music")], "training size", "error", "1 classes have fewer than 5"),
    ],
    ids=["class", "calibration", "training", "tiny class"],
)
def test_too_few_examples_are_found(
    tmp_path: Path, rows: list[tuple[str, str]], check_name: str, severity: str, message: str
) -> None:
    findings = of(check(tmp_path, data=write_table(tmp_path / "data.csv", rows)), check_name)
    assert any(finding.message.startswith(message) and finding.severity == severity for finding in findings)


def test_data_without_labels_are_checked_except_for_classes(tmp_path: Path) -> None:
    (tmp_path / "data.txt").write_text("one line\nanother line here\none line\n", encoding="utf-8")
    report = check(tmp_path, data=tmp_path / "data.txt")
    assert {finding.check for finding in report.findings} == {"labels", "copies"}
    assert report.sets[0].classes is None


def test_sets_of_different_kinds_are_refused(tmp_path: Path) -> None:
    data = write_pictures(tmp_path / "data", 2)
    with pytest.raises(DataError, match=r"holds texts, .* holds images"):
        check(tmp_path, data=data, outliers=write_table(tmp_path / "texts.csv", labelled_sentences(2)))


def run_command(tmp_path: Path, *arguments: str) -> tuple[int, str]:
    result = CliRunner().invoke(
        app,
        ["check", *arguments, "--output", str(tmp_path / "out")],
        env={"OOD_CACHE": str(tmp_path / "cache"), "COLUMNS": "200"},
    )
    return result.exit_code, result.output


def test_the_command_writes_a_page_and_json_and_exits_with_1_on_errors_only(tmp_path: Path) -> None:
    data = write_pictures(tmp_path / "data", 40)
    code, output = run_command(tmp_path, str(data))
    assert code == 0
    assert "calibration size" in output
    assert run_command(tmp_path, str(data), "--strict")[0] == 1
    (data / "rings" / "broken.png").write_bytes(b"no image")
    assert run_command(tmp_path, str(data))[0] == 1
    report = DataCheck.model_validate_json((tmp_path / "out" / "check.json").read_text(encoding="utf-8"))
    assert report.errors == 1
    assert report.findings[0].examples[0].note.startswith("is no readable image")
    assert run_command(tmp_path, str(data), "--alpha", "2")[0] == 2


def test_data_that_cannot_be_read_are_an_error_with_exit_code_1(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.argv", ["ood-train", "check", str(tmp_path / "absent")])
    with pytest.raises(SystemExit) as stop:
        main()
    assert stop.value.code == 1
    assert "does not exist" in capsys.readouterr().err


@pytest.mark.skipif(sys.platform != "linux", reason="file names are bytes on Linux only")
def test_hostile_file_names_and_texts_reach_neither_the_page_nor_the_terminal_as_they_are(tmp_path: Path) -> None:
    data = write_pictures(tmp_path / "data", 40)
    for name in (b"<img src=x onerror=alert(1)>.png", b"\x1b[31mred.png", b"not-utf8-\xff.png", b"new\nline.png"):
        (data / "rings" / os.fsdecode(name)).write_bytes(b"no image")
    code, output = run_command(tmp_path, str(data))
    html = (tmp_path / "out" / "check.html").read_text(encoding="utf-8")
    assert code == 1
    assert "<img src=x" not in html
    assert "&lt;img src=x" in html
    assert "\x1b[31m" not in html + output
    assert "not-utf8-\\xff.png" in html
    notes = json.loads((tmp_path / "out" / "check.json").read_text(encoding="utf-8"))["findings"][0]["examples"]
    assert len(notes) == 4


def test_the_page_loads_nothing_and_shows_the_pictures_of_its_examples(tmp_path: Path) -> None:
    data = write_pictures(tmp_path / "data", 40)
    (data / "squares" / "copy.png").write_bytes((data / "squares" / "003.png").read_bytes())
    run_command(tmp_path, str(data))
    html = (tmp_path / "out" / "check.html").read_text(encoding="utf-8")
    assert html.count('src="data:image/png;base64,') == 2
    assert "<script" not in html
    assert "default-src 'none'" in html
    assert "http" not in html.replace("http-equiv", "")
