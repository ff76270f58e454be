"""Synthetic sets have the distributions of the paper, and pass through the JPEG encoder of the data."""

import tracemalloc
import zlib

import numpy as np
import pytest

from bundle import ImageInput
from tests.training.support.datasets_on_disk import stripes
from training.data import NOISE, SYNTHETIC, generate

SHAPE = (60, 32, 32, 3)
IN_DIST = stripes(60, seed=1, size=32)[0]


@pytest.mark.parametrize("name", SYNTHETIC)
@pytest.mark.parametrize("jpeg_quality", [None, 75])
def test_every_set_has_its_shape_and_is_the_same_for_the_same_seed(name: str, jpeg_quality: int | None) -> None:
    images = generate(name, SHAPE, seed=3, in_dist=IN_DIST, jpeg_quality=jpeg_quality)
    assert images.shape == SHAPE
    assert images.dtype == np.uint8
    np.testing.assert_array_equal(images, generate(name, SHAPE, seed=3, in_dist=IN_DIST, jpeg_quality=jpeg_quality))
    assert not np.array_equal(images, generate(name, SHAPE, seed=4, in_dist=IN_DIST, jpeg_quality=jpeg_quality))


@pytest.mark.parametrize("channels", [1, 3])
def test_jpeg_encoding_changes_grey_and_colour_images(channels: int) -> None:
    shape = (4, 32, 32, channels)
    plain, encoded = (generate("uniform", shape, seed=1, jpeg_quality=quality) for quality in (None, 75))
    assert encoded.shape == shape
    assert not np.array_equal(plain, encoded)


def test_gaussian_noise_has_the_papers_deviation() -> None:
    values = generate("gaussian", SHAPE, seed=1, jpeg_quality=None) / 127.5 - 1
    inner = np.abs(values) < 0.99
    # A normal with sigma 0.5 clipped at two sigma: 4.6% of it lies beyond.
    assert values.mean() == pytest.approx(0, abs=0.01)
    assert 1 - inner.mean() == pytest.approx(0.046, abs=0.005)
    assert values.std() == pytest.approx(0.48, abs=0.01)


def test_rademacher_noise_takes_two_values_equally_often() -> None:
    images = generate("rademacher", SHAPE, seed=1, jpeg_quality=None)
    assert set(np.unique(images)) == {0, 255}
    assert (images == 255).mean() == pytest.approx(0.5, abs=0.01)


def normalised_input(mean: tuple[float, ...], std: tuple[float, ...]) -> ImageInput:
    return ImageInput(kind="image", height=32, width=32, channels=len(mean), mean=mean, std=std)


@pytest.mark.parametrize("name", NOISE)
@pytest.mark.parametrize(("mean", "std"), [((0.491, 0.482, 0.447), (0.245, 0.243, 0.261)), ((0.5,), (0.125,))])
def test_normalised_noise_has_the_values_of_the_networks_input(
    name: str, mean: tuple[float, ...], std: tuple[float, ...]
) -> None:
    shape = (*SHAPE[:3], len(mean))
    spec = normalised_input(mean, std)
    images = generate(name, shape, seed=1, jpeg_quality=None, normalisation=spec)
    stretched = generate(name, shape, seed=1, jpeg_quality=None)
    # The same noise with a contrast of 2 std (blobs: std), around the mean (blobs: above it).
    lowest, contrast = (mean, std) if name == "blobs" else (np.subtract(mean, std), np.multiply(2, std))
    expected = 255 * np.asarray(lowest) + np.asarray(contrast) * stretched
    assert np.abs(images - expected).max() < 1
    inputs = (images / 255 - mean) / std
    assert inputs.min() == pytest.approx(0 if name == "blobs" else -1, abs=0.02)
    assert 0.9 < inputs.max() <= 1.02


def test_normalised_noise_outside_the_range_of_pixels_is_clipped() -> None:
    spec = normalised_input((0.9, 0.1, 0.5), (0.3, 0.3, 0.3))
    images = generate("rademacher", SHAPE, seed=1, jpeg_quality=None, normalisation=spec)
    values = [set(np.unique(images[..., channel]).tolist()) for channel in range(3)]
    assert values == [{153, 255}, {0, 102}, {51, 204}]


def test_distortions_have_no_normalised_values() -> None:
    spec = normalised_input((0.5,) * 3, (0.25,) * 3)
    with pytest.raises(ValueError, match=r"jigsaw.*space"):
        generate("jigsaw", SHAPE, seed=1, in_dist=IN_DIST, normalisation=spec)


def test_blobs_have_definite_edges_and_larger_areas_than_noise() -> None:
    images = generate("blobs", SHAPE, seed=1, jpeg_quality=None)
    assert set(np.unique(images // 191)) == {0, 1}
    shape = images > 0
    same_as_neighbour = (shape[:, 1:] == shape[:, :-1]).mean()
    assert 0.1 < shape.mean() < 0.6
    assert same_as_neighbour > 0.8


def test_a_jigsaw_moves_quadrants_and_changes_no_pixel() -> None:
    in_dist = np.random.default_rng(0).integers(0, 256, (20, 8, 8, 3), dtype=np.uint8)
    moved = generate("jigsaw", in_dist.shape, seed=1, in_dist=in_dist, jpeg_quality=None)
    for before, after in zip(in_dist, moved, strict=True):
        quadrants = [before[r : r + 4, c : c + 4] for r in (0, 4) for c in (0, 4)]
        placed = [after[r : r + 4, c : c + 4] for r in (0, 4) for c in (0, 4)]
        order = [next(i for i, quadrant in enumerate(quadrants) if np.array_equal(quadrant, p)) for p in placed]
        assert sorted(order) == [0, 1, 2, 3]
        assert order != [0, 1, 2, 3]


def test_an_unknown_set_or_too_few_in_distribution_images_are_refused() -> None:
    with pytest.raises(ValueError, match=r"fog.*gaussian"):
        generate("fog", SHAPE, seed=1)
    with pytest.raises(ValueError, match=r"jigsaw.*60"):
        generate("jigsaw", SHAPE, seed=1, in_dist=IN_DIST[:10])


@pytest.mark.parametrize(
    ("name", "channels", "checksum"),
    [
        ("uniform", 1, 3617960611),
        ("arithmetic_mean", 3, 415275366),
        ("arithmetic_mean", 1, 1646852124),
        ("jigsaw", 3, 3780713273),
    ],
)
def test_sets_of_small_images_are_those_of_the_published_reports(name: str, channels: int, checksum: int) -> None:
    # More images than a block has: the draws of some kinds depend on the size of the blocks.
    shape = (5000, 32, 32, channels)
    in_dist = (np.arange(5000 * 32 * 32 * 3) % 251).astype(np.uint8).reshape(5000, 32, 32, 3)[..., :channels]
    assert zlib.crc32(generate(name, shape, seed=1, in_dist=in_dist, jpeg_quality=None)) == checksum


def test_the_memory_besides_the_images_does_not_grow_with_their_number() -> None:
    in_dist = np.zeros((300, 224, 224, 3), dtype=np.uint8)
    tracemalloc.start()
    images = generate("jigsaw", in_dist.shape, seed=1, in_dist=in_dist, jpeg_quality=None)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 3 * images.nbytes


def test_no_image_is_left_alone_in_its_block() -> None:
    in_dist = np.zeros((4097, 2, 2, 1), dtype=np.uint8)
    in_dist[-1] = 100
    mixed = generate("arithmetic_mean", in_dist.shape, seed=1, in_dist=in_dist, jpeg_quality=None)
    assert (mixed[-1] == 50).all()


def test_every_image_of_a_set_of_several_blocks_is_distorted() -> None:
    in_dist = np.random.default_rng(1).integers(0, 256, (9000, 4, 4, 1), dtype=np.uint8)
    images = generate("inverted", in_dist.shape, seed=1, in_dist=in_dist, jpeg_quality=None)
    np.testing.assert_array_equal(images, 255 - in_dist)
