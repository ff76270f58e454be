"""Overlap: repeated pictures are found, exact or nearly, mirrored or not; different ones are left alone."""

from io import BytesIO

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from bundle import ImageInput
from training.data import (
    DataLocations,
    Examples,
    ImageReader,
    InDistributionData,
    Sample,
    StoredArray,
    find_overlap,
    without_overlap,
)
from training.errors import OverlapError
from training.recipe import Outliers, Source

READER = ImageReader(ImageInput(height=32, width=32, channels=3, mean=(0.5,) * 3, std=(0.5,) * 3), DataLocations())


def images(x: NDArray[np.uint8]) -> Examples:
    return Examples(StoredArray(x), None, (), "set", "memory", "00")


def pictures(n: int, seed: int) -> NDArray[np.uint8]:
    """Smooth random pictures `[n, 32, 32, 3]`, as photographs are."""
    coarse = np.random.default_rng(seed).integers(0, 256, (n, 5, 5, 3), dtype=np.uint8)
    return np.stack(
        [np.asarray(Image.fromarray(picture).resize((32, 32), Image.Resampling.BICUBIC)) for picture in coarse]
    )


def reencoded(picture: NDArray[np.uint8]) -> NDArray[np.uint8]:
    buffer = BytesIO()
    Image.fromarray(picture).save(buffer, "JPEG", quality=85)
    return np.asarray(Image.open(buffer))


def test_exact_copies_re_encoded_copies_and_mirror_images_are_found_and_told_apart() -> None:
    inside, outside = pictures(50, seed=1), pictures(40, seed=2)
    outside[3] = inside[7]
    outside[11] = reencoded(inside[20])
    outside[30] = inside[49][:, ::-1]
    overlap = find_overlap(images(inside), images(outside))
    assert overlap.exact.tolist() == [3]
    assert overlap.near.tolist() == [11, 30]
    assert overlap.rows.tolist() == [3, 11, 30]


def test_different_pictures_do_not_overlap() -> None:
    assert len(find_overlap(images(pictures(60, seed=3)), images(pictures(60, seed=4))).rows) == 0


def test_blocks_do_not_change_what_is_found() -> None:
    inside, outside = np.repeat(pictures(10, seed=5), 500, axis=0), pictures(4500, seed=6)
    outside[4400] = inside[4999]
    assert find_overlap(images(inside), images(outside)).exact.tolist() == [4400]


def test_progress_reaches_the_number_of_outliers() -> None:
    seen: list[tuple[int, int]] = []
    find_overlap(images(pictures(5, seed=1)), images(pictures(7, seed=2)), lambda *step: seen.append(step))
    assert seen[-1] == (7, 7)


def test_outliers_that_are_in_distribution_images_of_any_split_are_refused_or_removed() -> None:
    inside = InDistributionData(*(images(pictures(20, seed)) for seed in (1, 2, 3)), sample=Sample(Source(path="x")))
    x = pictures(30, seed=4)
    for row, split in zip((5, 6, 7), (inside.train, inside.calibration, inside.test), strict=True):
        x[row] = split.x[np.array([row])][0]
    refuse, remove = (Outliers(train=Source(path="x"), duplicates=choice) for choice in ("refuse", "remove"))
    with pytest.raises(OverlapError, match=r"3 outliers.*\[5, 6, 7\].*duplicates=remove"):
        without_overlap(images(x), inside, READER, refuse)
    left = without_overlap(images(x), inside, READER, remove)
    np.testing.assert_array_equal(left.x[np.arange(27)], np.delete(x, [5, 6, 7], axis=0))
    with pytest.raises(OverlapError, match="every outlier"):
        without_overlap(inside.test, inside, READER, remove)
