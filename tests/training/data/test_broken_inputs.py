"""Broken inputs: all of a run's sets are read before training; every broken one is listed, or left out and reported."""

import csv
import json
import os
from io import BytesIO
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from bundle import ImageInput
from tests.training.support.datasets_on_disk import LABELS, checkers, png, stripes, tiny_recipe, write_tiny_data
from tests.training.support.texts_on_disk import sentences, tiny_text_recipe, write_tiny_texts
from training.data import BrokenInputs, DataLocations, load_images, read_texts
from training.errors import DataError, RunError
from training.recipe import Source, parse_recipe
from training.run import Run
from training.steps import calibrate_run, evaluate_run, export_run, fit_run, start_run

SPEC = ImageInput(height=16, width=16, channels=3, mean=(0.5,) * 3, std=(0.5,) * 3)


def jpeg(image: np.ndarray) -> bytes:
    buffer = BytesIO()
    Image.fromarray(image).resize((64, 64)).save(buffer, "JPEG")
    return buffer.getvalue()


def broken_folder(path: Path, n: int = 20) -> Path:
    """A folder of two classes with an empty file, half a JPEG, a text named .png and a link to nowhere."""
    x, y = stripes(n, seed=1)
    for i, (image, label) in enumerate(zip(x, y, strict=True)):
        (path / LABELS[label]).mkdir(parents=True, exist_ok=True)
        (path / LABELS[label] / f"{i:03}.png").write_bytes(png(image))
    (path / "dark" / "empty.png").write_bytes(b"")
    (path / "dark" / "half.jpg").write_bytes(jpeg(x[0])[:600])
    (path / "bright" / "text.png").write_bytes(b"not a picture")
    (path / "bright" / "gone.png").symlink_to("nowhere")
    return path


@pytest.mark.parametrize("cache_bytes", [10**9, 100], ids=["cached", "on demand"])
def test_every_broken_image_of_a_folder_is_listed_or_left_out(cache_bytes: int, tmp_path: Path) -> None:
    broken_folder(tmp_path / "photos")
    locations = DataLocations(tmp_path, tmp_path / "cache", cache_bytes)
    source = Source(path="photos", format="imagefolder", label="label")
    with pytest.raises(BrokenInputs) as raised:
        load_images(source, SPEC, locations, name="photos")
    named = [Path(problem.file or "").name for problem in raised.value.problems]
    assert sorted(named) == ["empty.png", "gone.png", "half.jpg", "text.png"]
    assert all(name in str(raised.value) for name in named)
    assert "--skip-broken" in str(raised.value)
    loaded = load_images(source, SPEC, locations, name="photos", skip_broken=True)
    assert len(loaded) == len(loaded.targets()) == 20
    assert len(loaded.left_out) == 4
    brightness = loaded.x[np.arange(20)].mean(axis=(1, 2, 3))
    assert ((brightness > 125) == (np.asarray(loaded.labels)[loaded.targets()] == "bright")).all()


@pytest.mark.parametrize("cache_bytes", [10**9, 100], ids=["cached", "on demand"])
@pytest.mark.parametrize("column", ["struct", "bytes", "paths"])
def test_parquet_images_are_bytes_or_files_beside_the_table(column: str, cache_bytes: int, tmp_path: Path) -> None:
    x, _ = stripes(6, seed=1)
    files = [png(image) for image in x]
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "0.png").write_bytes(files[0])
    (tmp_path / "secret.png").write_bytes(files[0])
    names = ["0.png", *(f"{i}.png" for i in range(1, 6))]
    if column == "struct":
        images = pa.array(
            [{"bytes": None if i == 0 else data, "path": names[i]} for i, data in enumerate(files)]
            + [{"bytes": None, "path": "../secret.png"}, {"bytes": b"broken", "path": None}, None],
            pa.struct([("bytes", pa.binary()), ("path", pa.string())]),
        )
        broken = [6, 7, 8]
    elif column == "bytes":
        images, broken = pa.array([*files, b"broken", None], pa.large_binary()), [6, 7]
    else:
        for name, data in zip(names, files, strict=True):
            (tmp_path / "data" / name).write_bytes(data)
        images, broken = pa.array([*names, "absent.png", "../secret.png", None]).dictionary_encode(), [6, 7, 8]
    pq.write_table(pa.table({"image": images}), tmp_path / "data" / "t.parquet")
    locations = DataLocations(tmp_path / "data", tmp_path / "cache", cache_bytes)
    with pytest.raises(BrokenInputs) as raised:
        load_images(Source(path="t.parquet"), SPEC, locations, name="t")
    assert [problem.row for problem in raised.value.problems] == broken
    loaded = load_images(Source(path="t.parquet"), SPEC, locations, name="t", skip_broken=True)
    np.testing.assert_array_equal(loaded.x[np.array([5, 0, 3])], x[[5, 0, 3]])


def test_a_metadata_file_names_the_classes_of_a_folder_and_must_name_each_image(tmp_path: Path) -> None:
    x, y = stripes(6, seed=1)
    folder = tmp_path / "photos"
    (folder / "sub").mkdir(parents=True)
    rows = [(f"{'sub/' if i % 3 else ''}{i}.png", LABELS[label]) for i, label in enumerate(y)]
    for (name, _), image in zip(rows, x, strict=True):
        (folder / name).write_bytes(png(image))
    locations = DataLocations(tmp_path, tmp_path / "cache")
    source = Source(path="photos", format="imagefolder", label="label")
    with (folder / "metadata.csv").open("w", newline="") as file:
        csv.writer(file, delimiter=";").writerows([("file_name", "label"), *rows])
    loaded = load_images(source, SPEC, locations, name="photos")
    brightness = loaded.x[np.arange(6)].mean(axis=(1, 2, 3))
    assert ((brightness > 125) == (np.asarray(loaded.labels)[loaded.targets()] == "bright")).all()
    lines = [json.dumps({"file_name": name, "label": label}) for name, label in rows[:-1]]
    (folder / "metadata.csv").unlink()
    (folder / "metadata.jsonl").write_text("\n".join(lines))
    with pytest.raises(DataError, match=r"metadata\.jsonl: has no row for sub/5\.png"):
        load_images(source, SPEC, locations, name="photos")
    (folder / "metadata.jsonl").rename(folder / "sub" / "metadata.jsonl")
    with pytest.raises(DataError, match=r"has metadata in sub/metadata\.jsonl"):
        load_images(source, SPEC, locations, name="photos")


def test_texts_and_labels_that_cannot_be_used_are_listed_with_all_their_rows(tmp_path: Path) -> None:
    lines = ["text,label", "null,a", "NA,b", "007,", "caf\u00e9,a", "None,a", ",", "x, y,a", "nan,b", "bye,nan"]
    (tmp_path / "t.csv").write_bytes("\r".join(lines).encode("cp1252"))
    source = Source(path="t.csv", format="csv", label="label")
    rows = read_texts(source, DataLocations(tmp_path, tmp_path / "cache"))
    assert rows.texts == ["null", "NA", "None", "nan", "bye"]
    assert rows.labels == ("a", "b", "nan")
    message = str(BrokenInputs(rows.problems))
    assert [problem.row for problem in rows.problems] == [2, 3, 6]
    assert "row 2: there is no label" in message
    assert "row 3: The text is not UTF-8: byte 0xe9 after 3 characters" in message


def test_missing_labels_are_counted_and_their_rows_named_together(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("text,label\n" + "".join(f"q {i} ?,{i % 2 if i % 20 else ''}\n" for i in range(60)))
    source = Source(path="t.csv", format="csv", label="label")
    rows = read_texts(source, DataLocations(tmp_path, tmp_path / "cache"))
    assert rows.labels == ("0", "1")
    message = str(BrokenInputs(rows.problems))
    assert message.startswith("3 inputs cannot be used:")
    assert "rows 0, 20, 40: there is no label" in message


def test_a_run_lists_the_broken_inputs_of_all_its_sets_before_it_trains(tmp_path: Path) -> None:
    data = write_tiny_data(tmp_path / "data")
    broken_folder(data / "unseen")
    pq.write_table(pa.table({"image": [png(image) for image in checkers(30, 9)] + [b"x"]}), data / "outliers.parquet")
    recipe = tiny_recipe()
    recipe["evaluation"]["ood"]["unseen"] = {"path": "unseen", "format": "imagefolder"}
    for stage in recipe["stages"].values():
        stage["epochs"] = 1
    locations = DataLocations(data, tmp_path / "cache")
    run = start_run(parse_recipe(recipe, "test"), tmp_path / "run", overwrite=False)
    with pytest.raises(BrokenInputs) as raised:
        fit_run(run, locations, resume=False)
    assert len(raised.value.problems) == 5
    assert "outliers.parquet, row 30" in str(raised.value)
    assert not run.stages_path.exists()
    run = start_run(parse_recipe(recipe | {"skip_broken": True}, "test"), tmp_path / "run", overwrite=False)
    fit_run(run, locations, resume=False)
    calibrate_run(run, locations)
    evaluate_run(run, locations)
    bundle = export_run(run, locations, tmp_path / "models", overwrite=False)
    manifest = json.loads((bundle / "manifest.json").read_text())
    assert {item["role"]: item["left_out"] for item in manifest["training"]["data"]}["outliers"] == 1
    report = (run.report_path / "report.md").read_text()
    assert "left out: 1 of" in report
    assert "4 of" in report


def test_a_run_whose_data_changed_is_refused_by_every_step(tmp_path: Path) -> None:
    data = write_tiny_data(tmp_path / "data")
    recipe = tiny_recipe()
    recipe["stages"] = {"oe": {**recipe["stages"]["oe"], "start_from": None, "epochs": 1}}
    locations = DataLocations(data, tmp_path / "cache")
    run = start_run(parse_recipe(recipe, "test"), tmp_path / "run", overwrite=False)
    fit_run(run, locations, resume=False)
    before = run.data_path.read_bytes()
    # The same rows with other times are the same data.
    os.utime(data / "train.parquet", (1, 1))
    fit_run(run, locations, resume=False)
    table = pq.read_table(data / "train.parquet")
    pq.write_table(table.slice(0, 190), data / "train.parquet")
    steps = (
        lambda: fit_run(run, locations, resume=True),
        lambda: calibrate_run(Run.open(run.path), locations),
        lambda: export_run(run, locations, tmp_path / "models", overwrite=False),
    )
    for step in steps:
        with pytest.raises(RunError, match=r"trained on other data.*in-distribution train \(150 rows, 160 before\)"):
            step()
    assert run.data_path.read_bytes() == before
    run.data_path.unlink()
    with pytest.raises(RunError, match=r"data\.json: is missing"):
        fit_run(run, locations, resume=True)


def test_a_tokenizer_is_not_made_of_texts_that_are_refused(tmp_path: Path) -> None:
    data = write_tiny_texts(tmp_path / "data")
    texts = [text.encode() for text in sentences("unseen", 20, 3)] + [b"caf\xe9"]
    column = pa.Array.from_buffers(pa.string(), len(texts), pa.array(texts, pa.binary()).buffers())
    pq.write_table(pa.table({"text": column}), data / "ood.parquet")
    run = start_run(parse_recipe(tiny_text_recipe(), "test"), tmp_path / "run", overwrite=False)
    with pytest.raises(BrokenInputs, match=r"ood\.parquet, row 20: The text is not UTF-8"):
        fit_run(run, DataLocations(data, tmp_path / "cache"), resume=False)
    assert not run.tokenizer_path.exists()
