from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from sklearn.metrics import roc_auc_score

from training.data.sources import Rows, read_rows
from training.data_check.shortcut_features import image_features, separations, text_features
from training.evaluation import FeatureSeparation, ShortcutCheck
from training.evaluation.shortcuts import REMEDIES
from training.recipe import Source, TextConfig

Write = Callable[[Image.Image, Path], None]


def pictures(n: int, seed: int, *, side: int = 16, base: int = 100) -> list[Image.Image]:
    generator = np.random.default_rng(seed)
    return [Image.fromarray((base + generator.integers(0, 50, (side, side, 3))).astype(np.uint8)) for _ in range(n)]


def folder(path: Path, images: list[Image.Image], suffix: str = ".png", **options: int) -> Rows:
    path.mkdir()
    for i, image in enumerate(images):
        image.save(path / f"{i}{suffix}", **options)
    return read_rows(Source(path=path.name, format="imagefolder"), path.parent, "image")


def aurocs(in_dist: Rows, outliers: Rows) -> dict[str, float]:
    measured = separations(image_features(in_dist), image_features(outliers))
    return {separation.feature: separation.auroc for separation in measured}


def test_sets_from_the_same_source_have_no_shortcut(tmp_path: Path) -> None:
    in_dist, outliers = (folder(tmp_path / name, pictures(60, seed)) for seed, name in enumerate("ab"))
    found = aurocs(in_dist, outliers)
    assert set(found) == {"file size", "image size", "file format", "mean brightness"}
    assert all(50 <= auroc < 75 for auroc in found.values())
    assert found["image size"] == found["file format"] == 50


def test_another_image_size_is_a_shortcut(tmp_path: Path) -> None:
    in_dist = folder(tmp_path / "a", pictures(30, 0))
    found = aurocs(in_dist, folder(tmp_path / "b", pictures(30, 1, side=12)))
    assert found["image size"] == 100
    assert found["file format"] == 50


def test_another_file_format_is_a_shortcut(tmp_path: Path) -> None:
    in_dist = folder(tmp_path / "a", pictures(30, 0))
    outliers = folder(tmp_path / "b", pictures(30, 1), ".jpg", quality=95)
    assert aurocs(in_dist, outliers)["file format"] == 100


def test_the_share_of_a_file_format_decides_its_auroc(tmp_path: Path) -> None:
    in_dist = folder(tmp_path / "a", pictures(40, 0))
    mixed = pictures(40, 1)
    outliers = folder(tmp_path / "b", mixed[:20], ".jpg")
    for i, image in enumerate(mixed[20:]):
        image.save(tmp_path / "b" / f"png{i}.png")
    outliers = read_rows(Source(path="b", format="imagefolder"), tmp_path, "image")
    # Half of the outliers are told by their format, the other half ties with all in-distribution files.
    assert aurocs(in_dist, outliers)["file format"] == 75


def test_another_jpeg_quality_is_a_shortcut(tmp_path: Path) -> None:
    in_dist = folder(tmp_path / "a", pictures(30, 0), ".jpg", quality=90)
    found = aurocs(in_dist, folder(tmp_path / "b", pictures(30, 1), ".jpg", quality=60))
    assert found["JPEG quantisation"] == 100
    assert found["file format"] == 50
    same = aurocs(in_dist, folder(tmp_path / "c", pictures(30, 2), ".jpg", quality=90))
    assert same["JPEG quantisation"] == 50


def test_darker_outliers_are_a_shortcut_in_either_direction(tmp_path: Path) -> None:
    bright, dark = folder(tmp_path / "a", pictures(30, 0)), folder(tmp_path / "b", pictures(30, 1, base=20))
    assert aurocs(bright, dark)["mean brightness"] == aurocs(dark, bright)["mean brightness"] == 100


def test_the_file_size_is_that_of_the_encoded_image(tmp_path: Path) -> None:
    flat = [Image.new("RGB", (16, 16), (100, 100, 100)) for _ in range(20)]
    noisy, constant = folder(tmp_path / "a", pictures(20, 0)), folder(tmp_path / "b", flat)
    features = image_features(constant)
    assert set(features["file size"]) == {(tmp_path / "b" / "0.png").stat().st_size}
    assert features["mean brightness"] == pytest.approx(np.full(20, 100 / 255))
    assert aurocs(noisy, constant)["file size"] == 100


def test_unreadable_files_are_left_out(tmp_path: Path) -> None:
    folder(tmp_path / "a", pictures(12, 0))
    (tmp_path / "a" / "broken.png").write_text("no picture")
    rows = read_rows(Source(path="a", format="imagefolder"), tmp_path, "image")
    assert len(image_features(rows)["file size"]) == 12


def test_the_auroc_is_the_larger_of_both_directions() -> None:
    generator = np.random.default_rng(0)
    values: tuple[NDArray[np.float64], ...] = (generator.normal(0.5, 1, 40), generator.normal(0, 1, 60))
    (found,) = separations({"text length": values[0]}, {"text length": values[1]})
    expected = roc_auc_score([1] * 40 + [0] * 60, np.concatenate(values))
    assert found.auroc == pytest.approx(100 * expected, abs=0.05)


def test_few_values_are_not_compared() -> None:
    assert separations({"file size": np.arange(9)}, {"file size": np.arange(100)}) == ()


WORDS = ("red", "green", "blue", "white", "black")


def texts(n: int, words: int, seed: int, vocabulary: tuple[str, ...] = WORDS) -> list[str]:
    generator = np.random.default_rng(seed)
    return [" ".join(generator.choice(vocabulary, words + generator.integers(3))) for _ in range(n)]


def text_aurocs(in_dist: list[str], outliers: list[str]) -> dict[str, float]:
    measured = separations(*text_features(in_dist, outliers, TextConfig(max_tokens=32)))
    return {separation.feature: separation.auroc for separation in measured}


def test_texts_of_the_same_source_have_no_shortcut() -> None:
    found = text_aurocs(texts(200, 8, 0), texts(100, 8, 1))
    assert set(found) == {"text length", "share of unknown tokens"}
    assert all(auroc < 70 for auroc in found.values())


def test_longer_outlier_texts_are_a_shortcut() -> None:
    found = text_aurocs(texts(200, 8, 0), texts(100, 20, 1))
    assert found["text length"] == 100
    assert found["share of unknown tokens"] < 70


def test_outlier_texts_of_other_words_are_a_shortcut() -> None:
    found = text_aurocs(texts(200, 8, 0), texts(100, 8, 1, ("rouge", "verts", "bleu", "blanc", "noire")))
    assert found["share of unknown tokens"] == 100


def test_rare_words_of_the_data_themselves_are_no_shortcut() -> None:
    # Each text has one word that no other text has, in-distribution or not.
    in_dist = [f"{text} word{i}" for i, text in enumerate(texts(200, 8, 0))]
    outliers = [f"{text} other{i}" for i, text in enumerate(texts(100, 8, 1))]
    assert text_aurocs(in_dist, outliers)["share of unknown tokens"] < 75


def test_only_an_auroc_above_95_is_warned_of_with_the_features_name_and_remedy() -> None:
    features = tuple(
        FeatureSeparation(feature=name, auroc=auroc) for name, auroc in (("file size", 95.0), ("image size", 95.1))
    )
    check = ShortcutCheck(in_distribution="a", outliers="b", features=features)
    (warning,) = check.warnings
    assert "image size alone" in warning
    assert warning.endswith(REMEDIES["image size"])


def test_every_measured_feature_has_a_remedy(tmp_path: Path) -> None:
    images = image_features(folder(tmp_path / "a", pictures(12, 0), ".jpg"))
    measured, _ = text_features(texts(40, 8, 0), texts(20, 8, 0), TextConfig(max_tokens=32))
    assert {*images, *measured} == set(REMEDIES)
