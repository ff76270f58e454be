"""The survey of a quick start sees each file as training will: by the decoder of the bundle."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.service.support.pictures import declared_size
from training.data.sources import Rows, read_rows
from training.data_check.shortcut_features import image_features
from training.quick_start.survey import survey_images
from training.recipe import Source


def rows(folder: Path) -> Rows:
    return read_rows(Source(path=folder.name, format="imagefolder"), folder.parent, "image")


@pytest.mark.parametrize(("mode", "channels"), [("1", 1), ("L", 1), ("I;16", 1), ("RGB", 3), ("P", 3)])
def test_images_are_grey_if_all_of_them_are(tmp_path: Path, mode: str, channels: int) -> None:
    for i in range(3):
        Image.new("L" if mode == "I;16" else mode, (9, 5)).convert(mode).save(tmp_path / f"{i}.png")
    assert survey_images(rows(tmp_path)) == (5, 9, channels)


def test_files_that_training_cannot_decode_do_not_count(tmp_path: Path) -> None:
    Image.new("L", (9, 5)).save(tmp_path / "good.png")
    (tmp_path / "bomb.png").write_bytes(declared_size(30_000, 30_000))
    # Pillow opens these formats, and the decoder of bundles does not.
    for file_format in ("ICO", "TGA", "PCX"):
        Image.new("RGB", (40, 40)).save(tmp_path / f"{file_format}.png", file_format)
    (tmp_path / "text.png").write_text("no picture")
    assert survey_images(rows(tmp_path)) == (5, 9, 1)
    assert image_features(rows(tmp_path))["image size"].tolist() == [45]


def test_a_turned_photograph_counts_by_its_upright_size(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(np.zeros((5, 9, 3), dtype=np.uint8)).save(tmp_path / "a.jpg", exif=exif)
    assert survey_images(rows(tmp_path)) == (9, 5, 3)
