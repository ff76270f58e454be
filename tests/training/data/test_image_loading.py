"""Image loading: every format gives the same uint8 images, cached or decoded on demand, or a clear error."""

import csv
from pathlib import Path

import datasets
import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from bundle import ImageInput
from tests.training.support.datasets_on_disk import LABELS, stripes, write_parquet
from training.data import DataLocations, load_images
from training.data.image_loading import image_hashes
from training.errors import DataError
from training.recipe import Source

SPEC = ImageInput(height=16, width=16, channels=3, mean=(0.5,) * 3, std=(0.5,) * 3)
ALL = np.arange(20)


@pytest.fixture
def images() -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    return stripes(20, seed=5)


@pytest.fixture
def locations(tmp_path: Path) -> DataLocations:
    return DataLocations(data_dir=tmp_path, cache_dir=tmp_path / "cache")


def test_parquet_images_keep_their_pixels_and_labels(
    locations: DataLocations, images: tuple[NDArray[np.uint8], NDArray[np.int64]]
) -> None:
    write_parquet(locations.data_dir / "a.parquet", *images)
    loaded = load_images(Source(path="a.parquet", label="label"), SPEC, locations, name="a")
    np.testing.assert_array_equal(loaded.x[ALL], images[0])
    np.testing.assert_array_equal(loaded.y, images[1])
    assert loaded.labels == LABELS


def test_an_image_folder_is_labelled_by_its_folders(
    locations: DataLocations, images: tuple[NDArray[np.uint8], NDArray[np.int64]]
) -> None:
    for i, (image, label) in enumerate(zip(*images, strict=True)):
        folder = locations.data_dir / "pictures" / LABELS[label]
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(folder / f"{i:02}.png")
    loaded = load_images(Source(path="pictures", format="imagefolder", label="label"), SPEC, locations, name="p")
    assert loaded.labels == tuple(sorted(LABELS))
    brightness = np.asarray(loaded.x[ALL]).mean(axis=(1, 2, 3))
    assert loaded.y is not None
    np.testing.assert_array_equal(brightness > 125, np.asarray(loaded.labels)[loaded.y] == "bright")


def test_a_csv_names_image_files_and_labels(
    locations: DataLocations, images: tuple[NDArray[np.uint8], NDArray[np.int64]]
) -> None:
    with (locations.data_dir / "list.csv").open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["file", "kind"])
        for i, (image, label) in enumerate(zip(*images, strict=True)):
            Image.fromarray(image).save(locations.data_dir / f"{i}.png")
            # One by its absolute path, the others relative to the list.
            rows.writerow([str(locations.data_dir / "0.png") if i == 0 else f"{i}.png", LABELS[label]])
    source = Source(path="list.csv", format="csv", image="file", label="kind")
    loaded = load_images(source, SPEC, locations, name="c")
    np.testing.assert_array_equal(loaded.x[ALL], images[0])
    assert loaded.labels == tuple(sorted(LABELS))


def test_files_and_folders_named_like_splits_lose_no_image(
    locations: DataLocations, images: tuple[NDArray[np.uint8], NDArray[np.int64]]
) -> None:
    for i, image in enumerate(images[0]):
        folder = locations.data_dir / "test" / ("train" if i % 2 else "validation")
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(folder / f"{('train', 'test')[i // 10]}-{i:02}.png")
    loaded = load_images(Source(path="test", format="imagefolder", label="label"), SPEC, locations, name="p")
    assert loaded.labels == ("train", "validation")
    assert len(loaded) == 20
    assert len(load_images(Source(path="test", format="imagefolder"), SPEC, locations, name="p")) == 20


def test_a_limit_selects_evenly_spaced_rows(
    locations: DataLocations, images: tuple[NDArray[np.uint8], NDArray[np.int64]]
) -> None:
    write_parquet(locations.data_dir / "a.parquet", *images)
    loaded = load_images(Source(path="a.parquet", limit=3), SPEC, locations, name="a")
    np.testing.assert_array_equal(loaded.x[np.arange(3)], images[0][[0, 9, 19]])


def test_a_row_without_label_is_refused(locations: DataLocations) -> None:
    x, _ = stripes(3, seed=1)
    write_parquet(locations.data_dir / "a.parquet", x, np.array([0, -1, 1]))
    with pytest.raises(DataError, match="row 1"):
        load_images(Source(path="a.parquet", label="label"), SPEC, locations, name="a")


def test_a_row_without_image_is_refused(locations: DataLocations) -> None:
    table = datasets.Dataset.from_dict({"image": [None]}, features=datasets.Features({"image": datasets.Image()}))
    table.to_parquet(locations.data_dir / "a.parquet")
    with pytest.raises(DataError, match="row 0"):
        load_images(Source(path="a.parquet"), SPEC, locations, name="a")


def test_a_set_too_large_for_the_cache_is_decoded_on_demand_to_the_same_pixels(
    locations: DataLocations, images: tuple[NDArray[np.uint8], NDArray[np.int64]]
) -> None:
    write_parquet(locations.data_dir / "a.parquet", *images)
    small = DataLocations(data_dir=locations.data_dir, cache_dir=locations.cache_dir, cache_bytes=100)
    loaded = load_images(Source(path="a.parquet"), SPEC, small, name="a")
    assert not loaded.x.in_memory
    stored = [path.name for path in locations.cache_dir.glob("*.npy")]
    assert all(name.endswith(".hashes.npy") for name in stored), "no decoded pixels are stored"
    np.testing.assert_array_equal(loaded.x[ALL[::-3]], images[0][::-3])


def test_copies_are_found_between_cached_images_and_those_decoded_on_demand(
    locations: DataLocations, images: tuple[NDArray[np.uint8], NDArray[np.int64]]
) -> None:
    write_parquet(locations.data_dir / "a.parquet", *images)
    for i, image in enumerate(images[0]):
        folder = locations.data_dir / "pictures"
        folder.mkdir(exist_ok=True)
        Image.fromarray(image).save(folder / f"{i:02}.webp", lossless=True)
    small = DataLocations(data_dir=locations.data_dir, cache_dir=locations.cache_dir / "small", cache_bytes=100)
    sources = (Source(path="a.parquet"), Source(path="pictures", format="imagefolder"))
    loaded = [load_images(source, SPEC, at, name="a") for source in sources for at in (locations, small)]
    assert [examples.x.in_memory for examples in loaded] == [True, False, True, False]
    hashes = [image_hashes(examples.x) for examples in loaded]
    assert len(set(hashes[0])) == 20
    assert all(found == hashes[0] for found in hashes)


def test_a_changed_file_is_decoded_again(
    locations: DataLocations, images: tuple[NDArray[np.uint8], NDArray[np.int64]]
) -> None:
    path = locations.data_dir / "a.parquet"
    write_parquet(path, images[0])
    before = load_images(Source(path="a.parquet"), SPEC, locations, name="a")
    write_parquet(path, 255 - images[0])
    after = load_images(Source(path="a.parquet"), SPEC, locations, name="a")
    np.testing.assert_array_equal(after.x[ALL], 255 - images[0])
    assert after.sha256 != before.sha256


def test_excluded_labels_leave_no_gap_in_the_class_numbers(
    locations: DataLocations, images: tuple[NDArray[np.uint8], NDArray[np.int64]]
) -> None:
    write_parquet(locations.data_dir / "a.parquet", *images)
    source = Source(path="a.parquet", label="label", exclude_labels=("dark",))
    loaded = load_images(source, SPEC, locations, name="a")
    assert loaded.labels == ("bright",)
    np.testing.assert_array_equal(loaded.y, np.zeros(10))
    with pytest.raises(DataError, match="at least two"):
        loaded.require_classes()


def test_only_labels_selects_the_rows_of_these_classes(
    locations: DataLocations, images: tuple[NDArray[np.uint8], NDArray[np.int64]]
) -> None:
    write_parquet(locations.data_dir / "a.parquet", *images)
    loaded, excluding = (
        load_images(source, SPEC, locations, name="a")
        for source in (
            Source(path="a.parquet", label="label", only_labels=("bright",)),
            Source(path="a.parquet", label="label", exclude_labels=("dark",)),
        )
    )
    assert loaded.labels == ("bright",)
    rows = np.arange(len(loaded))
    np.testing.assert_array_equal(loaded.x[rows], excluding.x[rows])
    with pytest.raises(ValueError, match="only_labels and exclude_labels cannot be combined"):
        Source(path="a.parquet", label="label", only_labels=("bright",), exclude_labels=("dark",))


@pytest.mark.parametrize(
    ("source", "message"),
    [
        (Source(path="absent.parquet"), r"absent\.parquet.*--data"),
        (Source(path="absent", format="imagefolder"), r"absent.*--data"),
        (Source(path="a.parquet", image="picture"), "picture.*image, label"),
        (Source(path="a.parquet", label="kind"), "kind"),
        (Source(path="a.parquet", label="label", exclude_labels=("purple",)), "exclude_labels names purple"),
        (Source(path="a.parquet", label="label", only_labels=("purple",)), "only_labels names purple"),
        (Source(path="a.parquet", only_labels=("dark",)), "only_labels names dark"),
        (Source(path="a.parquet", label="label", exclude_labels=LABELS), "no row of the labels"),
        (Source(path="a.parquet", format="csv"), "cannot be read as csv"),
    ],
)
def test_a_source_that_does_not_match_is_refused_with_the_reason(
    locations: DataLocations, images: tuple[NDArray[np.uint8], NDArray[np.int64]], source: Source, message: str
) -> None:
    write_parquet(locations.data_dir / "a.parquet", *images)
    with pytest.raises(DataError, match=message):
        load_images(source, SPEC, locations, name="a")


def test_an_unreadable_image_is_named_by_its_row(locations: DataLocations) -> None:
    folder = locations.data_dir / "pictures"
    folder.mkdir()
    Image.fromarray(stripes(1, seed=1)[0][0]).save(folder / "a.png")
    (folder / "b.png").write_bytes(b"not a picture")
    with pytest.raises(DataError, match=r"row 1.*b\.png"):
        load_images(Source(path="pictures", format="imagefolder"), SPEC, locations, name="p")
    assert not list(locations.cache_dir.glob("*.partial"))


def test_an_empty_class_is_refused_by_name(locations: DataLocations) -> None:
    x, _ = stripes(6, seed=1)
    write_parquet(locations.data_dir / "a.parquet", x, np.zeros(6, dtype=np.int64))
    with pytest.raises(DataError, match="bright"):
        load_images(Source(path="a.parquet", label="label"), SPEC, locations, name="a").require_classes()


def test_parts_of_a_source_have_no_row_in_common(
    locations: DataLocations, images: tuple[NDArray[np.uint8], NDArray[np.int64]]
) -> None:
    write_parquet(locations.data_dir / "a.parquet", *images)
    parts = [
        load_images(Source(path="a.parquet", part=part), SPEC, locations, name="a") for part in ((0.0, 0.7), (0.7, 1.0))
    ]
    assert [len(part) for part in parts] == [14, 6]
    pixels = np.concatenate([part.x[np.arange(len(part))] for part in parts])
    assert len(np.unique(pixels.reshape(20, -1), axis=0)) == 20
