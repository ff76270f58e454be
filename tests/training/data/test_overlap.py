"""Overlap: repeated inputs are found, exact or nearly, mirrored or not; different ones are kept."""

from io import BytesIO
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from bundle import ImageInput
from training.data import (
    NO_TOKEN,
    DataLocations,
    Examples,
    ImageReader,
    InDistributionData,
    InputArray,
    Sample,
    StoredArray,
    find_overlap,
    find_text_overlap,
    without_overlap,
)
from training.errors import OverlapError
from training.recipe import Outliers, Source

READER = ImageReader(ImageInput(height=32, width=32, channels=3, mean=(0.5,) * 3, std=(0.5,) * 3), DataLocations())


def examples(x: NDArray[Any] | InputArray) -> Examples:
    array = StoredArray(x) if isinstance(x, np.ndarray) else x
    return Examples(array, None, (), "set", "memory", "00")


def pictures(n: int, seed: int, size: int = 32) -> NDArray[np.uint8]:
    """Smooth random pictures `[n, size, size, 3]`, as photographs are, with values 20..235."""
    coarse = np.random.default_rng(seed).integers(20, 236, (n, 5, 5, 3), dtype=np.uint8)
    resized = [Image.fromarray(picture).resize((size, size), Image.Resampling.BILINEAR) for picture in coarse]
    return np.stack([np.asarray(picture) for picture in resized])


def reencoded(picture: NDArray[np.uint8]) -> NDArray[np.uint8]:
    buffer = BytesIO()
    Image.fromarray(picture).save(buffer, "JPEG", quality=85)
    return np.asarray(Image.open(buffer))


class CountedReads:
    """Inputs that count how often a single row is read."""

    in_memory = True

    def __init__(self, x: NDArray[np.uint8]) -> None:
        self._x = x
        self.shape = x.shape
        self.single_rows = 0

    def __getitem__(self, rows: NDArray[np.int64], /) -> NDArray[np.uint8]:
        self.single_rows += len(rows) == 1
        return self._x[rows]


def test_exact_copies_re_encoded_copies_and_mirror_images_are_found_and_told_apart() -> None:
    in_dist, outliers = pictures(50, seed=1), pictures(40, seed=2)
    outliers[3] = in_dist[7]
    outliers[11] = reencoded(in_dist[20])
    outliers[30] = in_dist[49][:, ::-1]
    overlap = find_overlap(examples(in_dist), examples(outliers))
    assert overlap.exact.tolist() == [3]
    assert overlap.near.tolist() == [11, 30]
    assert overlap.rows.tolist() == [3, 11, 30]


def test_different_pictures_do_not_overlap() -> None:
    assert len(find_overlap(examples(pictures(60, seed=3)), examples(pictures(60, seed=4))).rows) == 0


@pytest.mark.parametrize(("grey_levels", "is_near"), [(1, True), (5, True), (6, True), (7, False), (11, False)])
def test_a_picture_is_near_another_up_to_a_difference_of_six_grey_levels(grey_levels: int, is_near: bool) -> None:
    in_dist = pictures(3, seed=5)
    overlap = find_overlap(examples(in_dist), examples(in_dist[1:2] + np.uint8(grey_levels)))
    assert overlap.exact.tolist() == []
    assert overlap.near.tolist() == ([0] if is_near else [])


@pytest.mark.parametrize("size", [1, 6, 7, 8, 9, 15, 28])
def test_pictures_of_any_size_are_compared(size: int) -> None:
    in_dist, outliers = pictures(20, seed=6, size=size), pictures(20, seed=7, size=size)
    outliers[4], outliers[9] = in_dist[11], in_dist[2] + np.uint8(5)
    overlap = find_overlap(examples(in_dist), examples(outliers))
    assert overlap.exact.tolist() == [4]
    assert 9 in overlap.near
    assert size == 1 or overlap.near.tolist() == [9]


def test_pixels_that_the_averages_leave_out_count_too() -> None:
    """Averages of 28x28 pictures cover 27x27 pixels."""
    in_dist = pictures(5, seed=8, size=28)
    outliers = in_dist[:2].copy()
    outliers[0, -1] += np.uint8(5)
    outliers[1, -1] = 255 - outliers[1, -1]
    overlap = find_overlap(examples(in_dist), examples(outliers))
    assert overlap.rows.tolist() == [0]


def test_pixels_are_compared_for_similar_pictures_only() -> None:
    x = pictures(60, seed=3)
    reference = CountedReads(x)
    outliers = pictures(60, seed=4)
    outliers[5] = reencoded(x[6])
    assert find_overlap(examples(reference), examples(outliers)).near.tolist() == [5]
    # 60 x 60 pairs, and as many of mirror images.
    assert reference.single_rows <= 10


def test_an_exact_copy_is_compared_once_however_often_it_is_in_the_reference() -> None:
    reference = CountedReads(np.repeat(pictures(1, seed=9), 50, axis=0))
    assert find_overlap(examples(reference), examples(pictures(1, seed=9))).exact.tolist() == [0]
    assert reference.single_rows == 1


def test_blocks_do_not_change_the_result() -> None:
    generator = np.random.default_rng(5)
    in_dist, outliers = (generator.integers(0, 256, (n, 8, 8, 1), dtype=np.uint8) for n in (5000, 4500))
    outliers[4400] = in_dist[4999]
    outliers[7] = in_dist[4095]
    assert find_overlap(examples(in_dist), examples(outliers)).exact.tolist() == [7, 4400]


def test_progress_reaches_the_number_of_outliers() -> None:
    reports: list[tuple[int, int]] = []
    find_overlap(examples(pictures(5, seed=1)), examples(pictures(7, seed=2)), lambda *step: reports.append(step))
    assert reports == [(7, 7)]


def test_a_text_overlaps_if_all_its_token_ids_are_those_of_a_reference_text() -> None:
    reference = np.arange(9000, dtype=np.int32).reshape(4500, 2)
    candidates = -2 - np.arange(9000, dtype=np.int32).reshape(4500, 2)
    candidates[3] = reference[4499]
    candidates[4400] = reference[0]
    candidates[7] = [reference[5, 0], NO_TOKEN]
    overlap = find_text_overlap(examples(reference), examples(candidates))
    assert overlap.exact.tolist() == [3, 4400]
    assert overlap.near.tolist() == []


def test_outliers_that_are_in_distribution_images_of_any_split_are_refused_or_removed() -> None:
    in_dist = InDistributionData(*(examples(pictures(20, seed)) for seed in (1, 2, 3)), sample=Sample(Source(path="x")))
    x = pictures(30, seed=4)
    for row, split in zip((5, 6, 7), (in_dist.train, in_dist.calibration, in_dist.test), strict=True):
        x[row] = split.x[np.array([row])][0]
    refuse, remove = (Outliers(train=Source(path="x"), duplicates=choice) for choice in ("refuse", "remove"))
    with pytest.raises(OverlapError, match=r"3 outliers.*\[5, 6, 7\].*duplicates=remove"):
        without_overlap(examples(x), in_dist, READER, refuse)
    kept = without_overlap(examples(x), in_dist, READER, remove)
    np.testing.assert_array_equal(kept.x[np.arange(27)], np.delete(x, [5, 6, 7], axis=0))
    with pytest.raises(OverlapError, match="every outlier"):
        without_overlap(in_dist.test, in_dist, READER, remove)
